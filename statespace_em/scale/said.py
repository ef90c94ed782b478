"""Known states and weights of chunked data: each chunk is told what is said of its own sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em.conditions import check_weights, per_sequence, with_conditions
from statespace_em.containers import stacked
from statespace_em.data import Batch, as_batch
from statespace_em.errors import DataError
from statespace_em.labels import Labels, listed
from statespace_em.scale.chunks import Chunks, cut, is_chunked


def told(chunks: Chunks, states: Any, weights: Any) -> Chunks:
    """Chunks that know what is said of them.

    Either is in Dask chunks itself, which are then cut as those of y are, or in memory, in a DataArray with the
    sequences of y, a list or dict with one entry a sequence, or a frame with two index levels.

    Raises
    ------
    DataError
        If they are not of the sequences of y; rows are compared where the chunks are.
    """
    if states is None and weights is None:
        return chunks
    labels = Labels(chunks.time, (), pd.RangeIndex(1), chunks.sequence, chunks.keys)
    whole = None
    if weights is not None:
        small = weights.compute() if _is_one_a_sequence(weights, chunks) else weights
        whole = None if is_chunked(small) else per_sequence(small, labels)
    if whole is None:
        of_rows = _parts("weights", weights, chunks)
    else:
        check_weights(whole, labels, "sequence")
        of_rows = [whole[begin:end] for begin, end in chunks.bounds]
    return replace(chunks, said=list(zip(_parts("states", states, chunks), of_rows)))


def read(part: xr.DataArray, said: tuple[Any, Any], options: dict[str, Any], names: Sequence[Any]) -> tuple[Any, ...]:
    """Batch, labels and symbols of a chunk, with what is said of it; runs where the chunk is."""
    batch, labels, symbols = as_batch(part, **options)
    states, weights = said
    if states is not None or weights is not None:
        batch = with_conditions(batch, labels, names, states, weights, options["unsorted"])
    return batch, labels, symbols


def part_of(batch: Batch, sequence: int, n_rows: int) -> Batch:
    """First rows of one sequence of a batch, with what is said of them."""
    rows = slice(batch.starts[sequence], batch.starts[sequence] + n_rows)
    known = None if batch.known is None else batch.known[rows]
    weight = None if batch.row_weight is None else batch.row_weight[rows]
    own = None if batch.sequence_weight is None else batch.sequence_weight[sequence : sequence + 1]
    return Batch(batch.y[rows], np.array([0, n_rows]), known, weight, own)


def _is_one_a_sequence(weights: Any, chunks: Chunks) -> bool:
    return isinstance(weights, xr.DataArray) and weights.dims == (chunks.sequence,)


def _parts(name: str, given: Any, chunks: Chunks) -> list[Any]:
    """What is said of each chunk."""
    if given is None:
        return [None] * len(chunks.parts)
    given = stacked(given) if isinstance(given, xr.Dataset) else given
    if chunks.sequence is None and not is_chunked(given):
        return [given]
    if isinstance(given, xr.DataArray):
        _check_sequences(name, given, chunks)
        if is_chunked(given):
            alike = given.chunk({dim: chunks.sizes if dim == chunks.sequence else -1 for dim in given.dims})
            return cut(alike, chunks.sequence, objects=True).parts
        return [given.isel({chunks.sequence: slice(begin, end)}) for begin, end in chunks.bounds]
    if isinstance(given, pd.Series | pd.DataFrame) and isinstance(given.index, pd.MultiIndex):
        given = {key: own.droplevel(0) for key, own in given.groupby(level=0, sort=False)}
    if isinstance(given, Mapping):
        _check_keys(name, list(given), chunks)
        return [{key: given[key] for key in chunks.keys[begin:end]} for begin, end in chunks.bounds]
    if isinstance(given, list | tuple):
        if len(given) != len(chunks.keys):
            raise DataError(f"{name}= has {len(given)} sequences, but y has {len(chunks.keys)}.")
        return [given[begin:end] for begin, end in chunks.bounds]
    raise DataError(
        f"{name}= is of type {type(given).__name__}, expected for chunked data a DataArray with the dims of y, or a "
        "list or dict with one entry a sequence."
    )


def _check_sequences(name: str, given: xr.DataArray, chunks: Chunks) -> None:
    if chunks.sequence is None:
        return
    if chunks.sequence not in given.dims:
        raise DataError(
            f"{name}= has dims ({', '.join(map(str, given.dims))}), expected those of y, {chunks.sequence!r} among "
            "them."
        )
    if given.sizes[chunks.sequence] != len(chunks.keys):
        raise DataError(f"{name}= has {given.sizes[chunks.sequence]} sequences, but y has {len(chunks.keys)}.")
    if chunks.sequence in given.coords and chunks.sequence in chunks.array.coords:
        _check_keys(name, given[chunks.sequence].values.tolist(), chunks, ordered=True)


def _check_keys(name: str, keys: list[Any], chunks: Chunks, *, ordered: bool = False) -> None:
    wanted = chunks.keys.tolist()
    missing = [key for key in wanted if key not in keys]
    if missing or len(keys) != len(wanted):
        strange = [key for key in keys if key not in wanted]
        word, which = ("says nothing of", missing) if missing else ("names what is no sequence of y:", strange)
        raise DataError(f"{name}= {word} {chunks.sequence} {listed(which)}: give it the sequences of y.")
    if ordered and keys != wanted:
        remedy = f".sel({chunks.sequence}=y.{chunks.sequence})"
        raise DataError(f"{name}= has the sequences of y in another order: use {remedy}.")
