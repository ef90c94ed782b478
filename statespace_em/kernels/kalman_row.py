"""One row of the filter of a linear-Gaussian model, for streams; symbols as in kalman.py."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.kernels._jit import jit
from statespace_em.kernels._linalg import sandwich
from statespace_em.kernels.kalman import filter_means
from statespace_em.kernels.kalman_covariances import filter_covariances


@jit
def kalman_step(
    y: Floats, A: Floats, b: Floats, Q: Floats, C: Floats, d: Floats, R: Floats, m0: Floats, P0: Floats,
    filtered: Floats, filtered_cov: Floats, innovation: Floats, innovation_cov: Floats, mean: Floats, cov: Floats,
) -> float:  # fmt: skip
    """Filter one row ``y`` (1, D) of constant matrices from its prediction m0, P0; fill ``mean``, ``cov`` of the next.

    Returns log p(row | rows before) in nats; NaN where the innovation covariance is not positive definite.
    """
    D, n = C.shape[1:]
    first, slot, alike = np.ones(1, np.bool_), np.zeros(1, np.int64), np.zeros(1, np.int64)
    predicted, predicted_cov = np.empty((1, n)), np.empty((1, n, n))
    gain, whiten, log_norm, log_likelihood = np.empty((1, D, n)), np.empty((1, D, D)), np.empty(1), np.empty(1)
    status = filter_covariances(
        y, first, alike, A, Q, C, R, P0, slot, predicted_cov, filtered_cov, gain, whiten, log_norm, innovation_cov
    )
    if status:
        return np.nan
    filter_means(
        y, first, slot, A, b, C, d, m0, gain, whiten, log_norm, predicted, filtered, log_likelihood, innovation
    )
    for i in range(n):
        mean[i] = b[0, i]
        for j in range(n):
            mean[i] += A[0, i, j] * filtered[0, j]
    sandwich(A[0], filtered_cov[0], Q[0], predicted_cov[0], cov)
    return log_likelihood[0]
