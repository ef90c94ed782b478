"""Known states, weights and inputs of chunked data: each chunk comes with those of its own sequences."""

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
from statespace_em.inputs import Inputs, read_inputs
from statespace_em.labels import Labels, listed
from statespace_em.scale.chunks import Chunks, Conditions, cut, is_chunked

ChunkInputs = tuple[Any, list[Any]]  # inputs as they were given, and the names of their columns in order


def chunks_with_conditions(chunks: Chunks, states: Any, weights: Any, beside: ChunkInputs | None = None) -> Chunks:
    """Chunks with the states, weights and inputs of their sequences.

    Either is in Dask chunks itself, which are then cut as those of y are, or in memory, in a DataArray with the
    sequences of y, a list or dict with one entry a sequence, or a frame with two index levels.

    Raises
    ------
    DataError
        If they are not of the sequences of y; rows are compared where the chunks are.
    """
    if states is None and weights is None and beside is None:
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
    inputs = [None] * len(chunks.parts) if beside is None else _inputs_of(beside, chunks)
    return replace(chunks, conditions=list(zip(_parts("states", states, chunks), of_rows, inputs)))


def names_of(given: Any, unsorted: Any) -> Inputs:
    """Names of the columns of inputs, without those that are in chunks being loaded."""
    if not is_chunked(given):
        return read_inputs(given, unsorted)._replace(parts=(), times=())
    given = stacked(given) if isinstance(given, xr.Dataset) else given
    labels = as_batch(cut(given.chunk(-1)).dummy(), unsorted=unsorted)[1]
    return Inputs((), (), list(labels.features), labels.sequence is None)


def dummy_conditions(conditions: Conditions, chunks: Chunks, rows_ahead: int) -> Conditions:
    """Conditions of a sequence made up: no states, no weights, inputs of 0 as far as a question may look."""
    if conditions[2] is None:
        return None, None, None
    names = conditions[2][1]
    rows = int(chunks.lengths.max()) + rows_ahead
    return None, None, (pd.DataFrame(np.zeros((rows, len(names))), columns=names), names)


def _inputs_of(beside: ChunkInputs, chunks: Chunks) -> list[Any]:
    """Inputs of each chunk with the names of their columns; one table serves all sequences."""
    given, names = beside
    whole = chunks.sequence is not None and not is_chunked(given)
    table = isinstance(given, xr.DataArray) and chunks.sequence not in given.dims
    table |= isinstance(given, pd.DataFrame | pd.Series) and not isinstance(given.index, pd.MultiIndex)
    table |= isinstance(given, np.ndarray)
    parts = [given] * len(chunks.parts) if whole and table else _parts("inputs", given, chunks)
    return [(part, names) for part in parts]


def read(part: xr.DataArray, conditions: Conditions, options: dict[str, Any], names: Sequence[Any]) -> tuple[Any, ...]:
    """Batch, labels and symbols of a chunk, with its conditions; runs where the chunk is."""
    batch, labels, symbols = as_batch(part, **options)
    states, weights, inputs = conditions
    if states is not None or weights is not None:
        batch = with_conditions(batch, labels, names, states, weights, options["unsorted"])
    if inputs is not None:
        batch = read_inputs(inputs[0], options["unsorted"]).arranged(inputs[1]).beside(batch, labels)
    return batch, labels, symbols


def part_of(batch: Batch, sequence: int, n_rows: int) -> Batch:
    """First rows of one sequence of a batch, with its conditions."""
    begin = int(batch.starts[sequence])
    return batch.take(slice(begin, begin + n_rows), np.array([0, n_rows]), slice(sequence, sequence + 1))


def _is_one_a_sequence(weights: Any, chunks: Chunks) -> bool:
    return isinstance(weights, xr.DataArray) and weights.dims == (chunks.sequence,)


def _parts(name: str, given: Any, chunks: Chunks) -> list[Any]:
    """Conditions of each chunk."""
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
