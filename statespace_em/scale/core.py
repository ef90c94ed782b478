"""EM on chunks: the E-step is mapped over them, their statistics are added up, the rest stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from statespace_em import _threads
from statespace_em._typing import Floats
from statespace_em.boundary import Chart, HasBoundary
from statespace_em.core import Core
from statespace_em.em import HasResolution, HasVanishing
from statespace_em.labels import labelled_rows
from statespace_em.quasi_newton import HasScore
from statespace_em.scale.chunks import Chunks, Conditions, import_dask
from statespace_em.scale.conditions import read
from statespace_em.scale.visits import Visits

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
    loaded anew for every E-step unless the array was persisted, but once for all starts that take theirs together.
    """

    core: Core
    options: dict[str, Any]  # of `as_batch`
    names: Sequence[Any] = ()  # of the states, where some are known

    def e_step(self, params: Any, data: Chunks) -> tuple[Any, float]:
        """Additive statistics of all chunks and the log-likelihood in nats."""
        statistics, log_likelihood = self.visits.ask((params, np.geterr(), data))
        return statistics, float(log_likelihood)

    @cached_property
    def visits(self) -> Visits:
        """Visits that E-steps from several starts share."""
        return Visits(self._visit)

    def _visit(self, questions: Sequence[tuple[Any, dict[str, Any], Chunks]]) -> Sequence[Any]:
        """Sums under each of several parameters, of one visit of every chunk."""
        dask = import_dask()
        sums = []
        for params, handling, data in questions:
            shared = dask.delayed((self.core, params, self.options, self.names, handling), traverse=False, pure=False)
            own = [dask.delayed(_chunk_sums, pure=False)(shared, *pair) for pair in zip(data.parts, data.conditions)]
            while len(own) > 1:
                groups = [own[begin : begin + FAN_IN] for begin in range(0, len(own), FAN_IN)]
                own = [dask.delayed(_total, pure=False)(group) for group in groups]
            sums += own
        found: Sequence[Any] = dask.compute(*sums)
        return found

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

    def chart(self, params: Any, statistics: Any, start: Any) -> Chart:
        """See `HasBoundary`."""
        return self._bounded().chart(params, statistics, start)

    def onto_faces(self, params: Any, start: Any) -> Iterable[Any]:
        """See `HasBoundary`."""
        return self._bounded().onto_faces(params, start)

    def off_faces(self, params: Any, statistics: Any, start: Any) -> Iterable[Any]:
        """See `HasBoundary`."""
        return self._bounded().off_faces(params, statistics, start)

    def is_singular(self, params: Any, start: Any) -> bool:
        """See `HasBoundary`."""
        return self._bounded().is_singular(params, start)

    def is_limit(self, params: Any) -> bool:
        """See `HasBoundary`."""
        return self._bounded().is_limit(params)

    def steps_are_exact(self) -> bool:
        """See `HasBoundary`."""
        return self._bounded().steps_are_exact()

    def left_to_score(self) -> list[str]:
        """See `HasBoundary`."""
        return self._bounded().left_to_score()

    def at_zero(self, params: Any) -> list[str]:
        """See `HasBoundary`."""
        return self._bounded().at_zero(params)

    def vanished(self, params: Any, start: Any) -> dict[str, Floats]:
        """See `HasBoundary`."""
        return self._bounded().vanished(params, start)

    def unbounded(self, params: Any, data: Chunks) -> bool:
        """See `HasBoundary`: whether any chunk has such a row."""
        dask = import_dask()
        shared = dask.delayed((self._bounded(), params, self.options, np.geterr()), traverse=False, pure=False)
        pairs = zip(data.parts, data.conditions)
        return any(dask.compute(*(dask.delayed(_chunk_unbounded, pure=False)(shared, *pair) for pair in pairs)))

    def explained(self, params: Any, data: Chunks) -> bool:
        """See `HasBoundary`: whether every chunk is; the first that is not ends the search."""
        dask = import_dask()
        shared = (self._bounded(), params, self.options, np.geterr())
        pairs = zip(data.parts, data.conditions)
        return all(dask.compute(dask.delayed(_chunk_explained, pure=False)(shared, *pair))[0] for pair in pairs)

    def resolution(self, params: Any, statistics: Any) -> float:
        """See `em.HasResolution`."""
        return self.core.resolution(params, statistics) if isinstance(self.core, HasResolution) else 0.0

    def _bounded(self) -> HasBoundary:
        assert isinstance(self.core, HasBoundary)
        return self.core


# where the chunk is


def _chunk_unbounded(
    shared: tuple[HasBoundary, Any, dict[str, Any], dict[str, Any]], part: xr.DataArray, conditions: Conditions
) -> bool:
    core, params, options, handling = shared
    with _threads.limited(1), np.errstate(**handling):
        return core.unbounded(params, read(part, (None, None, conditions[2]), options, ())[0])


def _chunk_explained(
    shared: tuple[HasBoundary, Any, dict[str, Any], dict[str, Any]], part: xr.DataArray, conditions: Conditions
) -> bool:
    core, params, options, handling = shared
    with _threads.limited(1), np.errstate(**handling):
        return core.explained(params, read(part, (None, None, conditions[2]), options, ())[0])


def _chunk_sums(
    shared: tuple[Core, Any, dict[str, Any], Sequence[Any], dict[str, Any]], part: xr.DataArray, conditions: Conditions
) -> Any:
    """Statistics and log-likelihood of a chunk, or the error: it is that of one start, and must not stop the others."""
    core, params, options, names, handling = shared
    try:
        with _threads.limited(1), np.errstate(**handling):  # as the loop handles round-off where it runs
            batch, labels, _ = read(part, conditions, options, names)
            with labelled_rows(labels, names):
                return core.e_step(params, batch)
    except (ArithmeticError, ValueError) as error:
        return error


def _total(sums: Sequence[Any]) -> Any:
    total = sums[0]
    for one in sums[1:]:
        if isinstance(total, Exception):
            return total
        total = one if isinstance(one, Exception) else added(total, one)
    return total
