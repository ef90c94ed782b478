"""Parametric bootstrap: what the estimates would be in other data from the fitted model (Efron & Tibshirani 1993)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

from statespace_em import _threads
from statespace_em.data import Batch
from statespace_em.labels import Labels
from statespace_em.matching import aligned

Draw = Callable[[int, int], tuple[np.ndarray, np.ndarray]]
# number of the sequence, seed -> y (rows, D) and their states
Refit = Callable[[Any, Any, Any], tuple[xr.Dataset, str, float]]
# y, known states, weights -> parameters, status, log-likelihood


def replicates(
    draw: Draw,
    refit: Refit,
    batch: Batch,
    labels: Labels,
    core: Any,
    reference: xr.Dataset,
    *,
    n: int,
    seed: int,
    threads: int | None,
    progress: bool,
) -> xr.Dataset:
    """Simulate ``n`` times, refit each time, and put the states of every refit in the order of the reference."""
    seeds = np.random.SeedSequence(seed).generate_state(n * len(batch.lengths)).reshape(n, -1)
    missing = np.isnan(batch.y)
    named = batch.known is not None and bool((batch.known >= 0).any())  # known states say which is which

    with _bar(n, progress) as step:

        def one(own: Sequence[int]) -> tuple[xr.Dataset, str, float]:
            parts, states = [], []
            for i, (length, begin, number) in enumerate(zip(batch.lengths, batch.starts, own)):
                rows, hidden = draw(i, int(number))
                table = _with_gaps(rows, missing[begin : begin + length], labels)
                if batch.known is not None:
                    shown = hidden.astype(object)
                    shown[batch.known[begin : begin + length] < 0] = None
                    states.append(shown)
                parts.append(table.assign_coords(time=labels.times[i].rename("time")))  # a model may know its rows
            single = labels.sequence is None
            known = None if batch.known is None else states[0] if single else states
            drawn = parts[0] if single else dict(zip(labels.keys.tolist(), parts))
            params, status, objective = refit(drawn, known, _weights(batch, single))
            step()
            return params if named else aligned(core, params, reference), status, objective

        with warnings.catch_warnings(), _threads.limited(threads):
            warnings.simplefilter("ignore")  # refits put filters back one by one, but threads share them
            found = _threads.run([lambda own=own: one(own) for own in seeds])  # type: ignore[misc]
    whole: xr.Dataset = xr.concat(
        [params for params, _, _ in found], "replicate", data_vars="all", coords="minimal", compat="override"
    )
    whole = whole.assign(status=("replicate", [status for _, status, _ in found]))
    whole = whole.assign(log_likelihood=("replicate", [value for _, _, value in found]))
    return whole.assign_coords(replicate=np.arange(n))


def _weights(batch: Batch, single: bool) -> Any:
    """Weights as the rows of a simulation take them."""
    if batch.sequence_weight is not None:
        return batch.sequence_weight
    weight = batch.row_weight
    if weight is None or single:
        return weight
    return [weight[begin:end] for begin, end in zip(batch.starts, batch.starts[1:])]


def _with_gaps(rows: np.ndarray, missing: np.ndarray, labels: Labels) -> xr.DataArray:
    """Label simulated rows as the columns of y, with its missing entries."""
    if missing.any():
        blank: Any = np.nan if rows.dtype.kind in "fiu" else None
        rows = np.where(missing, blank, rows)
    features = np.empty(len(labels.features), dtype=object)
    features[:] = list(labels.features)
    return xr.DataArray(rows, {"feature": features}, ("time", "feature"))


@contextmanager
def _bar(n: int, wanted: bool) -> Iterator[Callable[[], Any]]:
    if not wanted:
        yield lambda: None
        return
    from tqdm.auto import tqdm  # here because it is slow to import and rarely wanted

    with tqdm(total=n, desc="bootstrap", unit=" fits") as bar:
        yield lambda: bar.update(1)
