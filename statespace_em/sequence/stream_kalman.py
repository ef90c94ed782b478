"""The Kalman filter, one row at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import ParameterError
from statespace_em.inputs import one_row
from statespace_em.labels import show
from statespace_em.model import LatentModel
from statespace_em.sequence.filter_row import DIMS as KEPT
from statespace_em.sequence.filter_row import (
    Guard,
    KalmanStep,
    check_determines,
    conditioning_of,
    early_step,
    filtered_row,
)
from statespace_em.sequence.lgssm_filter import filtered_moments
from statespace_em.sequence.lgssm_params import ROWWISE, LGSSMParams, by_row
from statespace_em.sequence.lgssm_passes import Filtered
from statespace_em.sequence.lgssm_specification import DIMS, Specification
from statespace_em.sequence.stream import Stream
from statespace_em.sequence.stream_rows import RowMatrices

LEAST, EACH = 100, 10  # rows that may go by before the start is determined: so many, and more for each state


class KalmanStream(Stream[KalmanStep]):
    """The Kalman filter, one row at a time.

    Until the rows determine a diffuse start, in general as many as there are such states, each is answered from all
    rows so far; then the stream has a proper distribution of the states and needs nothing else, and its guard, if it
    has one, begins to judge: a gate leaves out what lies too far off, Student-t noise weighs it down.
    """

    conditioning: Mapping[str, str]
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **KEPT,
        "early_inputs": ("row", "input"),
        **{f"early_{name}": ("row", *DIMS[name]) for name in ROWWISE},
    }

    def __init__(
        self,
        model: LatentModel,
        params: xr.Dataset,
        tree: LGSSMParams,
        likelihood: str,
        spec: Specification,
        guard: Guard,
    ) -> None:
        super().__init__(model, params)
        self._numbers = guard.array()
        self._restored()
        n, size = tree.observation.shape[-1], tree.observation.shape[-2]
        self._varying = RowMatrices(spec, tree)
        self._row: dict[str, Floats] = {}  # matrices of the row that is being taken, where they vary
        self._tree, self._likelihood = tree, likelihood
        self._mean, self._cov = tree.initial_mean.copy(), (tree.initial_cov + tree.initial_cov.T) / 2.0
        self._names = _inputs_of(params, tree)
        self._inputs = np.zeros(len(self._names))  # of the row that is being taken
        room = 0 if np.isfinite(self._cov).all() else LEAST + EACH * n
        self._early, self._early_inputs = np.full((room, size), np.nan), np.zeros((room, len(self._names)))
        self._early_rows = {name: np.zeros((room, *getattr(tree, name).shape[1:])) for name in self._varying.names}
        if room:
            first = filtered_moments(tree, _batch(self._early[:1], self._early_inputs[:1]), likelihood)
            self._mean, self._cov = _next(first, 0)
        self._matrices = by_row(tree, _batch(np.empty((1, size)), self._inputs[None]))[:6]

    @property
    def predicted(self) -> Floats:
        """Mean (n,) of the states in the next row, given the rows so far."""
        return self._mean.copy()

    @property
    def predicted_cov(self) -> Floats:
        """Covariance (n, n) of the states in the next row, given the rows so far."""
        return self._cov.copy()

    def update(
        self,
        row: Any,
        time: Any = None,
        *,
        state: Any = None,
        inputs: Any = None,
        regressors: Any = None,
        matrices: Mapping[str, Any] | None = None,
    ) -> KalmanStep:
        """Take the next row; see `Stream.update`.

        ``inputs`` are those of this row where the model has some, ``regressors`` the row of X where it has a
        regression: numbers in their order, or by name. ``matrices`` are those of this row that are not the same at
        every row, by name, with the names of the model: ``{"measurement_cov": [[{"r": 2.5}]]}``; of a model with
        loadings for every row either the product or both, ``{"process_cov": [["q"]], "process_loading": G}``. Left
        out, they are those that the model has for as many rows.
        """
        if self._names or inputs is not None:
            self._inputs = one_row(inputs, self._names, self._where(time))
        if self._varying.names or regressors is not None or matrices is not None:
            self._row = self._varying.at(self.n_rows, self._where(time), matrices, regressors)
        return super().update(row, time, state=state)

    def _where(self, time: Any) -> str:
        return f"time {show(self.n_rows if time is None else time)}"

    def _advance(self, y: Floats, time: Any, known: int) -> KalmanStep:
        if len(self._early) and not np.isfinite(self._cov).all():
            return self._advance_early(y, time)
        if self._names or self._row:
            tree = self._varying.over({name: value[None] for name, value in self._row.items()})
            self._matrices = by_row(tree, _batch(y[None], self._inputs[None]))[:6]
        step, self._mean, self._cov = filtered_row(
            y, self._matrices, self._mean, self._cov, self._guard, time, self.n_rows
        )
        return step

    def _advance_early(self, y: Floats, time: Any) -> KalmanStep:
        """Answer from all rows so far, while they do not determine the states."""
        t = self.n_rows
        check_determines(t, len(self._early))
        rows = np.concatenate([self._early[:t], y[None], np.full((1, len(y)), np.nan)])  # the last is yet to come
        inputs = np.concatenate([self._early_inputs[:t], self._inputs[None], np.zeros((1, len(self._names)))])
        for name, value in self._row.items():
            self._early_rows[name][t] = value
        own = {name: np.concatenate([early[: t + 1], early[t : t + 1]]) for name, early in self._early_rows.items()}
        found = filtered_moments(self._varying.over(own), _batch(rows, inputs), self._likelihood)
        self._early_inputs[t] = self._inputs
        self._early[t], (self._mean, self._cov) = y, _next(found, t + 1)
        return early_step(found, t, time)

    def _restored(self) -> None:
        self._guard = Guard.read(self._numbers)
        self.conditioning = conditioning_of(self._guard)

    def _state(self) -> dict[str, Floats]:
        kept = {"mean": self._mean, "cov": self._cov, "early": self._early, "guard": self._numbers}
        kept |= {f"early_{name}": early for name, early in self._early_rows.items()}
        return kept | {"early_inputs": self._early_inputs} if self._names else kept


def _inputs_of(params: xr.Dataset, tree: LGSSMParams) -> list[Any]:
    """Names of the inputs; numbers where their effects are fixed in the model and parameters do not tell."""
    if "input" in params.dims:
        return list(params["input"].values.tolist())
    effect = next((own for own in (tree.state_input, tree.observation_input) if own is not None), None)
    return [] if effect is None else list(range(effect.shape[1]))


def _batch(rows: Floats, inputs: Floats) -> Batch:
    return Batch(rows, np.array([0, len(rows)]), inputs=inputs if inputs.shape[1] else None)


def _next(found: Filtered, row: int) -> tuple[Floats, Floats]:
    """Predicted moments of a row."""
    cov = found.predicted_cov[row]
    return found.predicted_mean[row].copy(), (cov + cov.T) / 2.0


def check_streams(tree: LGSSMParams, likelihood: str) -> None:
    """Refuse parameters that a stream cannot go by."""
    if np.isnan(tree.initial_mean).any():
        raise ParameterError("a stream needs a first state, but initial_mean is not known: give it a number.")
    if likelihood == "marginal" and not np.isfinite(tree.initial_cov).all():
        raise ParameterError(
            "a stream cannot tell the marginal likelihood of a diffuse start, which rests on all rows: use "
            'likelihood="diffuse" or "full".'
        )
