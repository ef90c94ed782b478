"""One row of the filter of a linear-Gaussian model, for streams; symbols as in kalman.py, and its arithmetic."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.kernels._jit import inlined, jit
from statespace_em.kernels._linalg import find_seen, sandwich
from statespace_em.kernels.kalman_covariances import filter_gain, innovation_terms, joseph


@jit
def kalman_step(
    t: int, y: Floats, A: Floats, b: Floats, Q: Floats, C: Floats, d: Floats, R: Floats, mean: Floats, cov: Floats,
    filtered: Floats, filtered_cov: Floats, innovation: Floats, innovation_cov: Floats, later: Floats,
    later_cov: Floats,
) -> tuple[float, float]:  # fmt: skip
    """Filter the only row of ``y`` (1, D), with noise R (1, D, D), from its prediction ``mean``, ``cov``.

    A, b, Q, C, d are those of one row or of several, of which t is this one, as it is in ``filtered`` and its
    covariance. Fills the innovation and the prediction of the next row, ``later``. Returns log p(row | rows before)
    in nats, NaN where the innovation covariance is not positive definite, and the innovation's normalised square, NaN
    where nothing was measured.
    """
    D, n = C.shape[1:]
    seen, v, L, inverse, whiten = np.empty(D, np.int64), np.empty(D), np.empty((D, D)), np.empty(D), np.empty((D, D))
    CP, K, gain, P, work = np.empty((D, n)), np.empty((D, n)), np.empty((D, n)), np.empty((n, n)), np.empty((n, n))
    a, q, c = t * int(len(A) > 1), t * int(len(Q) > 1), t * int(len(C) > 1)
    for i in range(n):
        for j in range(n):
            P[i, j] = cov[max(i, j), min(i, j)]
    p = find_seen(y, 0, seen)
    log_norm = innovation_terms(p, seen, C[c], R[0], P, innovation_cov, 0, L, inverse, CP)
    if not log_norm < np.inf:
        return np.nan, np.nan
    filter_gain(p, seen, L, inverse, CP, K, gain, whiten)
    joseph(p, seen, C[c], R[0], P, CP, K, work, filtered_cov[t])
    square = update_mean(y, C[c], d[t * int(len(d) > 1)], mean, gain, whiten, filtered[t], innovation, v)
    for i in range(n):
        later[i] = b[t * int(len(b) > 1), i]
        for j in range(n):
            later[i] += A[a, i, j] * filtered[t, j]
    sandwich(A[a], filtered_cov[t], Q[q], work, later_cov)
    return log_norm - 0.5 * square, square if p > 0 else np.nan


@inlined
def update_mean(
    y: Floats, C: Floats, d: Floats, m0: Floats, gain: Floats, whiten: Floats, filtered: Floats, innovation: Floats,
    v: Floats,
) -> float:  # fmt: skip
    """Fill E[s | y] and the innovation (D,), NaN where y is missing; return its normalised square."""
    D, n = C.shape
    square = 0.0
    for i in range(n):
        filtered[i] = m0[i]
    for k in range(D):
        v[k] = 0.0
        value = y[0, k] - d[k]
        for i in range(n):
            value -= C[k, i] * m0[i]
        innovation[k] = value
        if not np.isnan(value):
            v[k] = value
            for i in range(n):
                filtered[i] += gain[k, i] * value
        value = 0.0
        for m in range(k + 1):
            value += whiten[k, m] * v[m]
        square += value * value
    return square
