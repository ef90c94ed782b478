"""A target followed row by row, at the times that rows come at, with a gate for wrong measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import chdtri

from statespace_em._typing import Bools, Floats
from statespace_em.data import Batch
from statespace_em.errors import DataError, SingularInnovationError
from statespace_em.kernels import kalman_row
from statespace_em.model import LatentModel
from statespace_em.sequence.lgssm_causal import causal
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.motion_times import gaps_of
from statespace_em.sequence.stream import Stream

EARLY = 64  # rows that a diffuse start may take to be determined


class TrackStep(NamedTuple):
    """What is known of the target when a row has come."""

    time: Any
    filtered: Floats  # (n,), E[s_t | y_1..t]
    predicted: Floats  # (n,), E[s_t | y_1..t-1]
    filtered_cov: Floats  # (n, n)
    predicted_cov: Floats  # (n, n)
    innovation: Floats  # (D,), y_t - E[y_t | y_1..t-1], NaN where missing
    innovation_cov: Floats  # (D, D)
    log_likelihood: float  # log p(what was taken of y_t | y_1..t-1), nats
    nis: float  # normalised innovation squared of the row; NaN where nothing was measured or expected
    outside: Bools  # (D,), entries that the gate left out


class Dynamics(NamedTuple):
    """What a stream asks of its model."""

    step: float  # between rows that come without a time
    over: Callable[[float], tuple[Floats, Floats]]  # transition and noise of a gap
    tree: Callable[[Floats], LGSSMParams]  # parameters of rows with these gaps after them
    likelihood: str
    unit: str
    follows_times: bool  # else every step is the usual one


class MotionStream(Stream[TrackStep]):
    """The Kalman filter of a moving target, one row at a time; ``gate`` leaves out what lies too far off.

    Made by ``model.stream(gate=0.999)``: the probability that a good measurement passes. ``by`` is "row" (a row is
    judged as a whole) or "feature" (each entry by itself). Gates open once a diffuse start is determined.
    """

    conditioning: ClassVar[Mapping[str, str]] = {
        name: "1:t" if name.startswith("filtered") else "1:t-1" for name in TrackStep._fields[1:]
    }
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "filtered": ("state",),
        "predicted": ("state",),
        "filtered_cov": ("state", "state_aux"),
        "predicted_cov": ("state", "state_aux"),
        "innovation": ("feature",),
        "innovation_cov": ("feature", "feature_aux"),
        "log_likelihood": (),
        "nis": (),
        "outside": ("feature",),
        "mean": ("state",),
        "cov": ("state", "state_aux"),
        "early": ("row", "feature"),
        "gaps": ("row",),
        "gate": ("setting",),
    }

    def __init__(self, model: LatentModel, params: xr.Dataset, dynamics: Dynamics, gate: float | None, by: str) -> None:
        super().__init__(model, params)
        self._dynamics = dynamics
        tree = dynamics.tree(np.ones(1))
        self._view, self._noise = tree.observation, tree.measurement_cov
        self._mean, self._cov = tree.initial_mean.copy(), np.array(tree.initial_cov)  # of the last row, or the first
        self._early, self._gaps = np.full((EARLY, len(self._noise)), np.nan), np.zeros(EARLY)
        self._gate = np.array([np.nan if gate is None else gate, float(by == "feature")])
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

    def update(self, row: Any, time: Any = None, *, state: Any = None) -> TrackStep:
        """Take the next row; see `Stream.update`. A row without a time comes a usual step after the one before."""
        self._timed = time is not None
        return Stream.update(self, row, time, state=state)

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

    def _advance(self, y: Floats, time: Any, known: int) -> TrackStep:
        gap = self._gap(time) if self._timed else self._dynamics.step
        if not np.isfinite(self._cov).all():
            return self._advance_early(y, time, gap)
        mean, cov = self._moved(gap)
        found = self._taken(y, time, mean, cov)
        outside = self._judged(found)
        if outside.any():
            taken = self._taken(np.where(outside, np.nan, y), time, mean, cov)
            found = taken._replace(
                innovation=found.innovation, innovation_cov=found.innovation_cov, nis=found.nis, outside=outside
            )
        self._mean[...], self._cov[...] = found.filtered, found.filtered_cov
        return found

    def _taken(self, y: Floats, time: Any, mean: Floats, cov: Floats) -> TrackStep:
        """One row on its prediction."""
        n, size = len(mean), len(y)
        filtered, filtered_cov = np.empty((1, n)), np.empty((1, n, n))
        innovation, innovation_cov = np.empty((1, size)), np.empty((1, size, size))
        value = kalman_row.kalman_step(
            y[None], np.eye(n)[None], np.zeros((1, n)), np.zeros((1, n, n)), self._view[None], np.zeros((1, size)),
            self._noise[None], mean, cov, filtered, filtered_cov, innovation, innovation_cov, np.empty(n),
            np.empty((n, n)),
        )  # fmt: skip
        if np.isnan(value):
            raise SingularInnovationError(self.n_rows)
        square = _square(innovation[0], innovation_cov[0])
        none = np.zeros(size, bool)
        return TrackStep(
            time, filtered[0], mean, filtered_cov[0], cov, innovation[0], innovation_cov[0], value, square, none
        )

    def _judged(self, found: TrackStep) -> Bools:
        """Entries (D,) that the gate leaves out."""
        level, by_feature = self._gate
        seen = np.isfinite(found.innovation)
        if np.isnan(level) or not seen.any():
            return np.zeros(len(seen), bool)
        if by_feature:
            variance = np.diag(found.innovation_cov)
            with np.errstate(invalid="ignore"):
                return np.asarray(seen & (found.innovation**2 > chdtri(1, 1.0 - level) * variance))
        return np.asarray(seen & (found.nis > chdtri(int(seen.sum()), 1.0 - level)))

    def _advance_early(self, y: Floats, time: Any, gap: float) -> TrackStep:
        """Answer from all rows so far, while they do not determine the states."""
        t = self.n_rows
        if t == EARLY:
            raise DataError(
                f"the first {t} rows do not determine the diffuse first state: give params a proper initial_mean and "
                "initial_cov."
            )
        gaps = self._gaps[: t + 1].copy()
        gaps[t] = gap
        rows = np.concatenate([self._early[:t], y[None]])
        tree = self._dynamics.tree(np.append(gaps[1:], self._dynamics.step))
        found = causal(tree, Batch(rows, np.array([0, t + 1])), self._dynamics.likelihood)
        self._early[t], self._gaps[t] = y, gap
        self._mean[...], self._cov[...] = found.filtered_mean[t], found.filtered_cov[t]
        innovation, cov = found.innovation[t], found.innovation_cov[t]
        known = np.isfinite(innovation) & np.isfinite(np.diag(cov))
        square = _square(np.where(known, innovation, np.nan), cov)
        return TrackStep(
            time, self._mean.copy(), found.predicted_mean[t], self._cov.copy(), found.predicted_cov[t], innovation,
            cov, float(found.log_likelihood[t]), square, np.zeros(len(y), bool),
        )  # fmt: skip

    def _state(self) -> dict[str, Floats]:
        return {"mean": self._mean, "cov": self._cov, "early": self._early, "gaps": self._gaps, "gate": self._gate}


def _square(innovation: Floats, cov: Floats) -> float:
    seen = np.flatnonzero(np.isfinite(innovation))
    if not len(seen):
        return float("nan")
    return float(innovation[seen] @ np.linalg.solve(cov[np.ix_(seen, seen)], innovation[seen]))
