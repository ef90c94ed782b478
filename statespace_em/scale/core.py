"""EM on chunks: the E-step is mapped over them, their statistics are added up, the rest stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from statespace_em import _threads
from statespace_em._typing import Floats
from statespace_em.boundary import Chart, HasBoundary
from statespace_em.core import Core
from statespace_em.data import as_batch
from statespace_em.em import HasVanishing
from statespace_em.labels import labelled_rows
from statespace_em.quasi_newton import HasScore
from statespace_em.scale.chunks import Chunks, import_dask

FAN_IN = 8  # sums that are added up at a time


def added(left: Any, right: Any) -> Any:
    """Add two bundles of statistics: nested tuples of arrays and numbers."""
    if isinstance(left, tuple):
        parts = [added(a, b) for a, b in zip(left, right)]
        return tuple(parts) if type(left) is tuple else type(left)(*parts)
    return None if left is None else left + right


@dataclass(frozen=True)
class ChunkedCore:
    """An `EMModel` whose data are `Chunks`: only parameters and statistics travel.

    Sums are taken in a fixed order, so that the same call gives the same answer whoever does the work. A chunk is
    loaded anew for every E-step unless the array was persisted.
    """

    core: Core
    options: dict[str, Any]  # of `as_batch`

    def e_step(self, params: Any, data: Chunks) -> tuple[Any, float]:
        """Additive statistics of all chunks and the log-likelihood in nats."""
        dask = import_dask()
        shared = dask.delayed((self.core, params, self.options, np.geterr()), traverse=False, pure=False)
        sums = [dask.delayed(_chunk_sums, pure=False)(shared, part) for part in data.parts]
        while len(sums) > 1:
            groups = [sums[begin : begin + FAN_IN] for begin in range(0, len(sums), FAN_IN)]
            sums = [dask.delayed(_total, pure=False)(group) for group in groups]
        statistics, log_likelihood = dask.compute(sums[0])[0]
        return statistics, float(log_likelihood)

    def m_step(self, statistics: Any, previous: Any) -> Any:
        """See `EMModel`."""
        return self.core.m_step(statistics, previous)

    def log_prior(self, params: Any) -> float:
        """See `EMModel`."""
        return self.core.log_prior(params)

    def to_vector(self, params: Any, reference: Any) -> Floats | None:
        """See `EMModel`."""
        return self.core.to_vector(params, reference)

    def from_vector(self, vector: Floats, reference: Any) -> Any:
        """See `EMModel`."""
        return self.core.from_vector(vector, reference)

    def lifted(self, params: Any, image: Any) -> Any | None:
        """See `HasVanishing`."""
        return self.core.lifted(params, image) if isinstance(self.core, HasVanishing) else None

    def score_vector(self, params: Any, statistics: Any, reference: Any) -> Floats:
        """See `HasScore`."""
        if not isinstance(self.core, HasScore):
            raise ArithmeticError(f"{type(self.core).__name__} has no score.")
        return self.core.score_vector(params, statistics, reference)

    def near_boundary(self, params: Any, statistics: Any, start: Any) -> bool:
        """See `HasBoundary`."""
        return isinstance(self.core, HasBoundary) and self.core.near_boundary(params, statistics, start)

    def chart(self, params: Any, statistics: Any, start: Any) -> Chart:
        """See `HasBoundary`; asked only near a boundary."""
        return self._bounded().chart(params, statistics, start)

    def on_face(self, params: Any, statistics: Any, start: Any, share: float) -> Any:
        """See `HasBoundary`; asked only near a boundary."""
        return self._bounded().on_face(params, statistics, start, share)

    def vanished(self, params: Any, start: Any) -> dict[str, Floats]:
        """See `HasBoundary`; asked only near a boundary."""
        return self._bounded().vanished(params, start)

    def unbounded(self, params: Any, data: Chunks) -> bool:
        """See `HasBoundary`: whether any chunk has such a row."""
        dask = import_dask()
        shared = dask.delayed((self._bounded(), params, self.options, np.geterr()), traverse=False, pure=False)
        return any(dask.compute(*(dask.delayed(_chunk_unbounded, pure=False)(shared, part) for part in data.parts)))

    def _bounded(self) -> HasBoundary:
        assert isinstance(self.core, HasBoundary)
        return self.core


# where the chunk is


def _chunk_unbounded(shared: tuple[HasBoundary, Any, dict[str, Any], dict[str, Any]], part: xr.DataArray) -> bool:
    core, params, options, handling = shared
    with _threads.limited(1), np.errstate(**handling):
        return core.unbounded(params, as_batch(part, **options)[0])


def _chunk_sums(shared: tuple[Core, Any, dict[str, Any], dict[str, Any]], part: xr.DataArray) -> tuple[Any, float]:
    core, params, options, handling = shared
    with _threads.limited(1), np.errstate(**handling):  # as the loop handles round-off where it runs
        batch, labels, _ = as_batch(part, **options)
        with labelled_rows(labels):
            return core.e_step(params, batch)


def _total(sums: Sequence[tuple[Any, float]]) -> Any:
    total = sums[0]
    for one in sums[1:]:
        total = added(total, one)
    return total
