"""Filter, smoother, EM sums and draws of a linear-Gaussian state space model (Durbin & Koopman 2012, ch. 4).

    s[t] ~ N(m0, P0) in the first row of a sequence, before its y is seen
    s[t+1] = A[t] s[t] + b[t] + w,    w ~ N(0, Q[t])
    y[t]   = C[t] s[t] + d[t] + v,    v ~ N(0, R[t])

Rows of several sequences stand end to end; ``first[t]`` marks the first row of each. Every parameter but
m0 (n,) and P0 (n, n) has a leading axis of length 1 (constant) or N (varying); A, b, Q [t] lead from row t to
row t + 1. NaN in ``y`` (N, D) is a missing entry. Arrays are C-contiguous float64. Covariances come first
(kalman_covariances.py), then the means of all rows with the gains kept there.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import inlined, jit
from statespace_em.kernels._kalman_sums import GaussianSums, moment_sums
from statespace_em.kernels.kalman_covariances import FEW_STATES, FULL, expand, filter_covariances, smooth_covariances
from statespace_em.kernels.steady import AHEAD, BACK, ROWS, closed_loop, filter_rows, smooth_rows, stretch

__all__ = [
    "FEW_STATES",
    "FULL",
    "GaussianSums",
    "draw_states",
    "expand",
    "filter_covariances",
    "filter_means",
    "moment_sums",
    "pair_moments",
    "smooth_covariances",
    "smooth_means",
]


@jit
def filter_means(
    y: Floats, first: Bools, slot: Ints, A: Floats, b: Floats, C: Floats, d: Floats, m0: Floats, begun: Floats,
    gain: Floats, whiten: Floats, log_norm: Floats,
    predicted: Floats, filtered: Floats, log_likelihood: Floats, innovation: Floats,
) -> None:  # fmt: skip
    """Fill E[s[t] | y[..t-1]], E[s[t] | y[..t]] and log p(y[t] | y[..t-1]) in nats (blank row: 0).

    ``begun`` (n,) is predicted of the first row, which may be in the middle of a sequence; of others m0. ``innovation``
    (N, D), NaN where y is missing, may have no rows: not wanted. ``slot`` and the stacks from `filter_covariances`.
    """
    N, D = y.shape
    n = m0.shape[0]
    v, L, G, K, settled = np.empty(D), np.empty((n, n)), np.empty((n, D)), np.empty((n, D)), -1
    x, f, e = np.zeros((n, ROWS)), np.zeros((n, ROWS)), np.zeros((D, ROWS))
    t = -1
    while t < N - 1:
        t += 1
        s = slot[t]
        m = stretch(t, AHEAD, first, slot)
        if m > 0:
            if s != settled:
                closed_loop(A[t * int(A.shape[0] > 1)], C[t * int(C.shape[0] > 1)], gain[s], L, G, K)
                settled = s
            _predict(t, A, b, filtered, predicted)
            filter_rows(
                t, m, y, b, C[t * int(C.shape[0] > 1)], d, K, whiten[s], log_norm[s], L, G, predicted, filtered,
                log_likelihood, innovation, x, f, e,
            )  # fmt: skip
            t += m - 1
            continue
        if t == 0 or first[t]:
            for i in range(n):
                predicted[t, i] = begun[i] if t == 0 else m0[i]
        else:
            _predict(t, A, b, filtered, predicted)
        for i in range(n):
            filtered[t, i] = predicted[t, i]
        c, c0 = t * int(C.shape[0] > 1), t * int(d.shape[0] > 1)
        square = 0.0
        for k in range(D):
            v[k] = 0.0
            value = y[t, k] - d[c0, k]
            for i in range(n):
                value -= C[c, k, i] * predicted[t, i]
            if innovation.shape[0] > 0:
                innovation[t, k] = value
            if not np.isnan(value):
                v[k] = value
                for i in range(n):
                    filtered[t, i] += gain[s, k, i] * value
            value = 0.0
            for m in range(k + 1):
                value += whiten[s, k, m] * v[m]
            square += value * value
        log_likelihood[t] = log_norm[s] - 0.5 * square


@inlined
def _predict(t: int, A: Floats, b: Floats, filtered: Floats, predicted: Floats) -> None:
    n = A.shape[1]
    a, c = (t - 1) * int(A.shape[0] > 1), (t - 1) * int(b.shape[0] > 1)
    for i in range(n):
        value = b[c, i]
        for j in range(n):
            value += A[a, i, j] * filtered[t - 1, j]
        predicted[t, i] = value


@jit
def smooth_means(
    first: Bools, slot: Ints, J: Floats, predicted: Floats, filtered: Floats, mean: Floats, ahead: Floats,
    goes_on: bool,
) -> int:  # fmt: skip
    """Fill E[s[t] | y]; return 0, or 1 + the latest row whose mean is not finite. ``J`` from `smooth_covariances`.

    ``ahead`` (n,) becomes what the rows add to the prediction of their first state. Where the last sequence
    ``goes_on`` it is given for the row after the last.

    What later rows add to the filtered mean is J times what they and the next row add to its prediction: differences
    throughout, so that no digits are lost to the level of the states. ``mean`` may be ``filtered``.
    """
    N, n = mean.shape
    added, news = np.zeros(n), ahead.copy()
    t = N - 1
    while t >= 0:
        s, m = slot[t], 1
        if first[t + 1] if t < N - 1 else not goes_on:
            for i in range(n):
                added[i], news[i] = 0.0, filtered[t, i] - predicted[t, i]
                mean[t, i] = filtered[t, i]
        elif n <= 4:
            m = max(1, stretch(t, BACK, first, slot))
            smooth_rows(t, m, J[s], predicted, filtered, mean, added, news)
        else:
            for i in range(n):
                ahead[i] = added[i] + news[i]
            for i in range(n):
                added[i], news[i] = 0.0, filtered[t, i] - predicted[t, i]
                for j in range(n):
                    added[i] += J[s, i, j] * ahead[j]
                mean[t, i] = filtered[t, i] + added[i]
        t -= m
        finite = True
        for i in range(n):
            finite = finite and abs(added[i] + news[i] + mean[t + 1, i]) < np.inf
        if not finite:
            for row in range(t + m, t, -1):
                for i in range(n):
                    if not abs(mean[row, i]) < np.inf:
                        return 1 + row
    for i in range(n):
        ahead[i] = added[i] + news[i]
    return 0


@jit
def pair_moments(mean: Floats, cross_cov: Floats, place: Ints, xi: Floats) -> None:
    """Fill E[s[t] s[t+1]' | y] from the covariances ``cross_cov[place[t]]``, NaN where those are.

    ``mean`` may have one row more than the others, if they are not the end of the data.
    """
    N, n, _ = xi.shape
    for t in range(N):
        after = min(t + 1, mean.shape[0] - 1)
        for i in range(n):
            for j in range(n):
                xi[t, i, j] = cross_cov[place[t], i, j] + mean[t, i] * mean[after, j]


@jit
def draw_states(
    first: Bools, A: Floats, b: Floats, chol_Q: Floats, chol_P0: Floats, m0: Floats,
    noise: Floats, states: Floats,
) -> None:  # fmt: skip
    """Draw ``states`` (N, n) from standard normal ``noise`` (N, n): row t uses noise[t] and chol_Q[t - 1].

    Any square roots do: chol_Q chol_Q' = Q, singular or not.
    """
    N, n = noise.shape
    q_varies = int(chol_Q.shape[0] > 1)
    for t in range(N):
        if first[t]:
            for i in range(n):
                value = m0[i]
                for j in range(n):
                    value += chol_P0[i, j] * noise[t, j]
                states[t, i] = value
        else:
            _predict(t, A, b, states, states)
            for i in range(n):
                for j in range(n):
                    states[t, i] += chol_Q[(t - 1) * q_varies, i, j] * noise[t, j]
