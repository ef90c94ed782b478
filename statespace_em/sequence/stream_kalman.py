"""The Kalman filter, one row at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr

from statespace_em._typing import Floats
from statespace_em.errors import SingularInnovationError
from statespace_em.kernels import kalman_row
from statespace_em.model import LatentModel
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.stream import Stream


class KalmanStep(NamedTuple):
    """What is known of the states when a row has come."""

    time: Any
    filtered: Floats  # (n,), E[s_t | y_1..t]
    predicted: Floats  # (n,), E[s_t | y_1..t-1]
    filtered_cov: Floats  # (n, n)
    predicted_cov: Floats  # (n, n)
    innovation: Floats  # (D,), y_t - E[y_t | y_1..t-1], NaN where missing
    innovation_cov: Floats  # (D, D)
    log_likelihood: float  # log p(y_t | y_1..t-1), nats


class KalmanStream(Stream[KalmanStep]):
    """The Kalman filter, one row at a time."""

    conditioning: ClassVar[Mapping[str, str]] = {
        name: "1:t" if name.startswith("filtered") else "1:t-1" for name in KalmanStep._fields[1:]
    }
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "filtered": ("state",),
        "predicted": ("state",),
        "filtered_cov": ("state", "state_aux"),
        "predicted_cov": ("state", "state_aux"),
        "innovation": ("feature",),
        "innovation_cov": ("feature", "feature_aux"),
        "log_likelihood": (),
        "mean": ("state",),
        "cov": ("state", "state_aux"),
    }

    def __init__(self, model: LatentModel, params: xr.Dataset, tree: LGSSMParams) -> None:
        super().__init__(model, params)
        self._mean, self._cov = tree.initial_mean.copy(), (tree.initial_cov + tree.initial_cov.T) / 2.0
        self._matrices = (
            tree.transition[None], tree.state_offset[None], tree.process_cov[None], tree.observation[None],
            tree.observation_offset[None], tree.measurement_cov[None],
        )  # fmt: skip

    @property
    def predicted(self) -> Floats:
        """Mean (n,) of the states in the next row, given the rows so far."""
        return self._mean.copy()

    @property
    def predicted_cov(self) -> Floats:
        """Covariance (n, n) of the states in the next row, given the rows so far."""
        return self._cov.copy()

    def _advance(self, y: Floats, time: Any, known: int) -> KalmanStep:
        n, size = len(self._mean), len(y)
        predicted, predicted_cov = self._mean, self._cov
        filtered, filtered_cov = np.empty((1, n)), np.empty((1, n, n))
        innovation, innovation_cov = np.empty((1, size)), np.empty((1, size, size))
        mean, cov = np.empty(n), np.empty((n, n))
        value = kalman_row.kalman_step(
            y[None], *self._matrices, predicted, predicted_cov, filtered, filtered_cov, innovation, innovation_cov,
            mean, cov,
        )  # fmt: skip
        if np.isnan(value):
            raise SingularInnovationError(self.n_rows)
        self._mean, self._cov = mean, cov
        return KalmanStep(
            time, filtered[0], predicted, filtered_cov[0], predicted_cov, innovation[0], innovation_cov[0], value
        )

    def _state(self) -> dict[str, Floats]:
        return {"mean": self._mean, "cov": self._cov}
