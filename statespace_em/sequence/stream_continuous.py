"""A target followed row by row, at the times that rows come at, with a gate for wrong measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import DataError
from statespace_em.model import LatentModel
from statespace_em.sequence.filter_row import DIMS, SEEN, Guard, KalmanStep, check_determines, early_step, filtered_row
from statespace_em.sequence.lgssm_filter import filtered_moments
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.stream import Stream
from statespace_em.sequence.time_grid import gaps_of

EARLY = 64  # rows that a diffuse start may take to be determined


class Dynamics(NamedTuple):
    """What a stream asks of its model."""

    step: float  # between rows that come without a time
    over: Callable[[float], tuple[Floats, Floats]]  # transition and noise of a gap
    tree: Callable[[Floats], LGSSMParams]  # parameters of rows with these gaps after them
    likelihood: str
    unit: str
    follows_times: bool  # else every step is the usual one


class ContinuousStream(Stream[KalmanStep]):
    """The Kalman filter in continuous time, one row at a time, each at a time of its own; made by ``model.stream()``.

    What guards it against wrong measurements, see `Guard`, begins once a diffuse start is determined.
    """

    conditioning: Mapping[str, str] = SEEN
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = DIMS | {"gaps": ("row",)}

    def __init__(self, model: LatentModel, params: xr.Dataset, dynamics: Dynamics, guard: Guard) -> None:
        super().__init__(model, params)
        self._dynamics = dynamics
        tree = dynamics.tree(np.ones(1))
        self._view, self._noise = tree.observation, tree.measurement_cov
        self._mean, self._cov = tree.initial_mean.copy(), np.array(tree.initial_cov)  # of the last row, or the first
        self._early, self._gaps = np.full((EARLY, len(self._noise)), np.nan), np.zeros(EARLY)
        self._numbers = guard.array()
        self._restored()
        self._timed = False

    @property
    def predicted(self) -> Floats:
        """Mean (n,) of the states in the next row, a usual step later."""
        return self.predict()[0]

    @property
    def predicted_cov(self) -> Floats:
        """Covariance (n, n) of the states in the next row, a usual step later."""
        return self.predict()[1]

    def predict(self, time: Any = None) -> tuple[Floats, Floats]:
        """Mean (n,) and covariance (n, n) of the states at a later time, given the rows so far."""
        return self._moved(self._dynamics.step if time is None else self._gap(time))

    def update(self, row: Any, time: Any = None, *, state: Any = None) -> KalmanStep:
        """Take the next row; see `Stream.update`. A row without a time comes a usual step after the one before."""
        self._timed = time is not None
        return super().update(row, time, state=state)

    def _gap(self, time: Any) -> float:
        if self.time is None or not self._dynamics.follows_times:
            return self._dynamics.step
        gap = float(gaps_of(pd.Index([self.time, time]), self._dynamics.unit)[0])
        if not gap >= 0.0:
            raise DataError(f"time {time} is before that of the last row, {self.time}: a stream looks ahead only.")
        return gap

    def _moved(self, gap: float) -> tuple[Floats, Floats]:
        if self.n_rows == 0:
            return self._mean.copy(), self._cov.copy()
        A, Q = self._dynamics.over(gap)
        if not np.isfinite(self._cov).all():  # nothing is known yet of where it goes
            return np.zeros(len(self._mean)), np.diag(np.full(len(self._mean), np.inf))
        cov = A @ self._cov @ A.T + Q
        return A @ self._mean, (cov + cov.T) / 2.0

    def _advance(self, y: Floats, time: Any, known: int) -> KalmanStep:
        gap = self._gap(time) if self._timed else self._dynamics.step
        if not np.isfinite(self._cov).all():
            return self._advance_early(y, time, gap)
        mean, cov = self._moved(gap)
        n, size = len(mean), len(y)
        still = np.eye(n)[None], np.zeros((1, n)), np.zeros((1, n, n))  # how it moves on is known with the next time
        matrices = *still, self._view[None], np.zeros((1, size)), self._noise[None]
        step, self._mean[...], self._cov[...] = filtered_row(y, matrices, mean, cov, self._guard, time, self.n_rows)
        return step

    def _advance_early(self, y: Floats, time: Any, gap: float) -> KalmanStep:
        """Answer from all rows so far, while they do not determine the states."""
        t = self.n_rows
        check_determines(t, EARLY)
        gaps = self._gaps[: t + 1].copy()
        gaps[t] = gap
        rows = np.concatenate([self._early[:t], y[None]])
        tree = self._dynamics.tree(np.append(gaps[1:], self._dynamics.step))
        found = filtered_moments(tree, Batch(rows, np.array([0, t + 1])), self._dynamics.likelihood)
        self._early[t], self._gaps[t] = y, gap
        self._mean[...], self._cov[...] = found.filtered_mean[t], found.filtered_cov[t]
        return early_step(found, t, time)

    def _restored(self) -> None:
        self._guard = Guard.read(self._numbers)

    def _state(self) -> dict[str, Floats]:
        return {"mean": self._mean, "cov": self._cov, "early": self._early, "gaps": self._gaps, "guard": self._numbers}
