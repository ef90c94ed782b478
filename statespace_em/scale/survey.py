"""The first visit of every chunk: is it fit to be used, and a bounded sample to guess starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _threads
from statespace_em._typing import Floats, Ints
from statespace_em.conditions import check_some
from statespace_em.data import Batch, as_batch
from statespace_em.labels import Labels
from statespace_em.scale.chunks import Chunks, Conditions, import_dask
from statespace_em.scale.conditions import part_of, read

SAMPLE = 50_000  # rows that starts are guessed from; all of them where there are no more
LEAST = 500  # rows worth taking from a chunk
WHOLE_ROWS = 10_000  # of a chunk, asked whether columns follow from each other


class Survey(NamedTuple):
    """What a fit must know of data that it never sees as a whole."""

    sample: Batch  # sequences, cut short where they are long; everything where that is little
    telling: Batch  # the sample, and single rows that have the range, the span and the variety of all
    labels: Labels  # of the features; of one sequence only
    symbols: list[Any] | None
    options: dict[str, Any]  # keywords of `as_batch` for every chunk


class _Found(NamedTuple):
    """What the visit of one chunk brings home."""

    sample: Batch | None
    telling: Batch  # single rows
    counts: bool  # whether any of its rows has weight


def survey(chunks: Chunks, options: Mapping[str, Any], names: Sequence[Any]) -> Survey:
    """Read every chunk once: check its entries, find the symbols, and take a sample; the same one every time.

    Raises
    ------
    DataError
        As `as_batch` does, naming the sequence.
    """
    dask = import_dask()
    labels, options = prepared(chunks, options)
    tasks = [
        dask.delayed(partial(_visit, options=options, quota=quota, names=names), pure=False)(part, conditions)
        for part, conditions, quota in zip(chunks.parts, chunks.conditions, _quotas(chunks))
    ]
    found: Sequence[_Found] = dask.compute(*tasks)
    check_some(np.array([part.counts for part in found]))
    sample = _joined([part.sample for part in found if part.sample is not None])
    plain = Batch(sample.y, sample.starts, inputs=sample.inputs)
    telling = sample if sum(chunks.lengths) <= SAMPLE else _joined([plain, *(part.telling for part in found)])
    return Survey(sample, telling, labels, options["symbols"], options)


def prepared(chunks: Chunks, options: Mapping[str, Any]) -> tuple[Labels, dict[str, Any]]:
    """Labels of one sequence, and the options with the symbols that occur; mistakes in labels show before any work."""
    category = options["support"] == "category"
    dummy_conditions = {**options, "symbols": ["?"] if category and options["symbols"] is None else options["symbols"]}
    labels = as_batch(chunks.dummy(), **dummy_conditions)[1]
    symbols = _symbols(chunks) if category and options["symbols"] is None else options["symbols"]
    return labels, {**options, "symbols": symbols}


def _symbols(chunks: Chunks) -> list[Any]:
    """Symbols of all chunks."""
    dask = import_dask()
    found = dask.compute(*(dask.delayed(_distinct_symbols, pure=False)(part) for part in chunks.parts))
    every = [symbol for part in found for symbol in part]
    # `as_batch` merges, orders and checks them as it does for any data
    return list(as_batch(np.array(every or [None], dtype=object), support="category")[2] or [])


def _distinct_symbols(part: xr.DataArray) -> list[Any]:
    values = pd.unique(part.values.ravel())
    return [value for value in values.tolist() if not pd.isna(value)]


def _quotas(chunks: Chunks) -> list[int | None]:
    """Rows to take from each chunk; None for all of them."""
    n_chunks = len(chunks.parts)
    if sum(chunks.lengths) <= SAMPLE:
        return [None] * n_chunks
    quota = max(SAMPLE // n_chunks, LEAST)
    used = np.unique(np.linspace(0, n_chunks - 1, max(SAMPLE // quota, 1)).astype(int)).tolist()
    return [quota if i in used else 0 for i in range(n_chunks)]


def _joined(batches: Sequence[Batch]) -> Batch:
    lengths = np.concatenate([np.diff(batch.starts) for batch in batches])
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    more = zip(*(batch[2:] for batch in batches))
    return Batch(
        np.concatenate([batch.y for batch in batches]), starts,
        *(None if parts[0] is None else np.concatenate(parts) for parts in more),
    )  # fmt: skip


# where the chunk is


def _visit(
    part: xr.DataArray, conditions: Conditions, *, options: dict[str, Any], quota: int | None, names: Sequence[Any]
) -> _Found:
    with _threads.limited(1):
        batch, _, _ = read(part, conditions, options, names)
    counts = batch.weight is None or bool(batch.weight.any())
    if quota is None:
        return _Found(batch, _singles(batch, np.zeros(0, np.int64)), counts)
    return _Found(_some(batch, quota) if quota else None, _singles(batch, _telling(batch.y, len(names))), counts)


def _singles(batch: Batch, rows: Ints) -> Batch:
    """Rows that are sequences of their own."""
    inputs = None if batch.inputs is None else batch.inputs[rows]
    return Batch(batch.y[rows], np.arange(len(rows) + 1), inputs=inputs)


def _some(batch: Batch, quota: int) -> Batch:
    """About ``quota`` rows: sequences spread evenly over the chunk, from each the beginning."""
    lengths = np.diff(batch.starts)
    wanted = max(1, min(len(lengths), int(quota / lengths.mean())))
    chosen = np.unique(np.linspace(0, len(lengths) - 1, wanted).astype(int))
    most = max(quota // len(chosen), 2)
    return _joined([part_of(batch, s, min(most, n)) for s, n in zip(chosen, lengths[chosen])])


def _telling(y: Floats, n_states: int) -> Ints:
    """Rows by which all data pass the checks that they would pass as a whole.

    Are there values in every column, do they vary, are there as many different rows as states, and does no column
    follow from the others?
    """
    from scipy.linalg import qr  # here because it is slow to import

    chosen: list[int] = []
    for column in y.T:
        if not np.isnan(column).all():
            chosen += [int(np.nanargmin(column)), int(np.nanargmax(column))]
    chosen += np.unique(y[:WHOLE_ROWS], axis=0, return_index=True)[1][: n_states + 1].tolist()
    whole = np.flatnonzero(~np.isnan(y).any(1))[:WHOLE_ROWS]
    if y.shape[1] > 1 and len(whole) > 1:
        away = y[whole] - y[whole].mean(0)
        spread = away.std(0)
        _, pivots = qr((away / np.where(spread > 0.0, spread, 1.0)).T, mode="r", pivoting=True)
        chosen += whole[[0, *pivots[: y.shape[1] + 1]]].tolist()
    return np.unique(chosen)
