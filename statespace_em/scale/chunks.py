"""A Dask-backed array as chunks of sequences, and what can be told about it without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import AnyArray, Ints
from statespace_em.containers import sequence_dim, stacked, time_dim
from statespace_em.errors import DataError
from statespace_em.labels import show
from statespace_em.scale.workers import check_workers


def is_chunked(y: Any) -> bool:
    """Whether y is an xarray object of chunks still to be loaded."""
    if isinstance(y, xr.Dataset):
        return any(variable.chunks is not None for variable in y.data_vars.values())
    return isinstance(y, xr.DataArray) and y.chunks is not None


def import_dask() -> ModuleType:
    """Return the module, which only chunked data need.

    Raises
    ------
    ImportError
        With the command that installs it.
    """
    try:
        import dask.array
    except ImportError as error:
        raise ImportError("chunked data need Dask: pip install 'statespace_em[dask]'.") from error
    return dask


Conditions = tuple[Any, Any, Any]  # known states, weights, and inputs with their names; None where nothing is said


class ChunkLabels(NamedTuple):
    """Everything about one chunk but its entries; small enough to travel."""

    number: int
    dims: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    coords: dict[Any, xr.Variable]
    name: Any


def filled(labels: ChunkLabels, values: AnyArray) -> xr.DataArray:
    """Return a chunk with its entries; runs where the chunk is.

    Raises
    ------
    DataError
        If the entries are not what the array said they would be.
    """
    values = np.asarray(values)
    text = values.dtype.kind == labels.dtype.kind and values.dtype.kind in "US"  # of any length
    if values.dtype != labels.dtype and not text:
        raise DataError(
            f"chunk {labels.number} of y holds {values.dtype}, but y is declared {labels.dtype}: give all chunks one "
            "type before they are put together."
        )
    if values.shape != labels.shape:
        raise DataError(
            f"chunk {labels.number} of y has shape {values.shape}, but is declared {labels.shape}: correct its source."
        )
    return xr.DataArray(values, labels.coords, labels.dims, labels.name)


@dataclass(frozen=True)
class Chunks:
    """A Dask-backed array, cut along its sequences."""

    array: xr.DataArray  # dims ([sequence,] time[, feature])
    sequence: str | None
    time: str
    lengths: Ints  # (S,), rows of each sequence
    parts: list[Any]  # one delayed DataArray a chunk
    conditions: list[Conditions]  # known states, weights and inputs of each, or None

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First sequence of each chunk, and the one after its last."""
        return list(pairwise(np.cumsum((0, *self.sizes)).tolist()))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sequences of each chunk."""
        return (1,) if self.sequence is None else self.array.variable.chunksizes[self.sequence]

    @property
    def keys(self) -> pd.Index:
        """Names of the sequences."""
        return pd.Index([0] if self.sequence is None else self.array[self.sequence].values)

    def dummy(self, *, seen: bool = False) -> xr.DataArray:
        """Return the longest sequence with every entry missing, or else some number: labels without data."""
        one = self.array
        if self.sequence is not None:
            longest = int(np.argmax(self.lengths))
            rows = int(self.lengths[longest])
            one = one.isel({self.sequence: [longest], self.time: slice(0, rows)})
            one = one.assign_coords(length=(self.sequence, [rows])) if "length" in one.coords else one
        one = one.drop_vars([name for name, coord in one.coords.items() if coord.chunks is not None])
        if seen:
            return one.copy(data=np.random.default_rng(0).standard_normal(one.shape))
        return one.copy(data=np.full(one.shape, None if one.dtype.kind in "US" else np.nan))


def cut(y: xr.DataArray | xr.Dataset, dim: str | None = None, *, objects: bool = False) -> Chunks:
    """Cut a Dask-backed array along ``dim``; None finds the dimension of the sequences as for any other data.

    ``objects`` takes entries of any kind, such as names beside missing ones.

    Raises
    ------
    DataError
        If it is chunked along time, holds objects, or a chunk is empty.
    RuntimeError
        If the workers cannot do the work.
    """
    dask = import_dask()
    check_workers()
    y = stacked(y) if isinstance(y, xr.Dataset) else y
    if np.isnan(y.shape).any():
        raise DataError("the sizes of the chunks of y are not known: call y.data.compute_chunk_sizes() first.")
    sequence = sequence_dim(y) if dim is None else dim
    if sequence is not None and not y.sizes[sequence]:
        raise DataError("y holds no sequence: pass at least one.")
    time = time_dim(y if sequence is None else y.isel({sequence: 0}, drop=True))
    lead = [time] if sequence is None else [sequence, time]
    rest = [name for name in y.dims if name not in lead]
    if len(rest) > 1:
        raise DataError(f"y has dims ({', '.join(map(str, y.dims))}): name them 'sequence', 'time' and 'feature'.")
    _check_chunks(y, sequence, time, objects=objects)
    y = y.transpose(*lead, *rest)
    y = y.copy(data=y.data.rechunk({y.get_axis_num(name): -1 for name in rest}))  # the entries alone, not coordinates
    lengths = _lengths(y, sequence, time)
    blocks = y.data.to_delayed().ravel()
    ends = np.cumsum((1,) if sequence is None else y.variable.chunksizes[sequence]).tolist()
    every = [_labels_of(y, sequence, i, begin, end, lengths) for i, (begin, end) in enumerate(zip([0, *ends], ends))]
    parts = [dask.delayed(partial(filled, labels), pure=False)(block) for labels, block in zip(every, blocks)]
    return Chunks(y, sequence, time, lengths, parts, [(None, None, None)] * len(parts))


def _check_chunks(y: xr.DataArray, sequence: str | None, time: str, *, objects: bool) -> None:
    if y.dtype.kind == "O" and not objects:
        raise DataError(
            "y is in chunks of dtype object, each of which may hold something else: make them numbers or text, as in "
            "y.astype(float) or y.astype(str)."
        )
    chunksizes = y.variable.chunksizes  # those of coordinates may be others
    if len(chunksizes[time]) > 1:
        along = "" if sequence is None else f", {sequence!r}: 'auto'"
        raise DataError(
            f"y is chunked along {time!r} ({len(chunksizes[time])} chunks), but a sequence must be whole: use "
            f"y.chunk({{{time!r}: -1{along}}})."
        )
    for name, sizes in chunksizes.items():
        if 0 in sizes:
            what = "sequences" if name == sequence else "rows" if name == time else "columns"
            raise DataError(
                f"chunk {sizes.index(0)} of y has no {what}: use y.chunk({{{str(name)!r}: {max(1, *sizes)}}}), or pass "
                "what is not empty."
            )


def _lengths(y: xr.DataArray, sequence: str | None, time: str) -> Ints:
    """Rows of each sequence (S,), from the coordinate ``length`` if there is one."""
    if sequence is None:
        return np.array([y.sizes[time]])
    if "length" not in y.coords or y["length"].dims != (sequence,):
        return np.full(y.sizes[sequence], y.sizes[time])
    lengths = np.minimum(np.asarray(y["length"].values, dtype=np.int64), y.sizes[time])
    if lengths.min() < 1:
        key = y[sequence].values[int(np.argmax(lengths < 1))]
        raise DataError(f"y of {sequence} {show(key)} has no rows: pass at least one, or leave it out.")
    return lengths


def _labels_of(y: xr.DataArray, sequence: str | None, number: int, begin: int, end: int, lengths: Ints) -> ChunkLabels:
    """Labels of one chunk; coordinates that are chunked themselves stay where they are."""
    part = y if sequence is None else y.isel({sequence: slice(begin, end)})
    coords = {name: coord.variable for name, coord in part.coords.items() if coord.chunks is None}
    if sequence is not None and sequence not in coords:
        coords[sequence] = xr.Variable(sequence, np.arange(begin, end))
    if sequence is not None and "length" in y.coords:
        coords["length"] = xr.Variable(sequence, lengths[begin:end])
    return ChunkLabels(number, part.dims, part.shape, part.dtype, coords, y.name)
