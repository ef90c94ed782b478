"""Filter, smoother, EM sums and draws of a linear-Gaussian state space model (Durbin & Koopman 2012, ch. 4).

    s[t] ~ N(m0, P0) in the first row of a sequence, before its y is seen
    s[t+1] = A[t] s[t] + b[t] + w,    w ~ N(0, Q[t])
    y[t]   = C[t] s[t] + d[t] + v,    v ~ N(0, R[t])

Rows of several sequences stand end to end; ``first[t]`` marks the first row of each. Every parameter but
m0 (n,) and P0 (n, n) has a leading axis of length 1 (constant) or N (varying); A, b, Q [t] lead from row t to
row t + 1. NaN in ``y`` (N, D) is a missing entry. Arrays are C-contiguous float64.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import inlined, jit
from statespace_em.kernels._kalman_sums import GaussianSums, moment_sums
from statespace_em.kernels._linalg import (
    EPS,
    cholesky,
    copy_row,
    find_seen,
    same_rows,
    settled,
    solve_lower,
    solve_upper,
)

__all__ = ["GaussianSums", "draw_states", "filter_rows", "moment_sums", "smooth_rows"]

LOG_2PI = 1.8378770664093453
SHORTEST = 16  # undisturbed rows before a covariance recursion is asked whether it has settled


@jit
def filter_rows(
    y: Floats, first: Bools,
    A: Floats, b: Floats, Q: Floats, C: Floats, d: Floats, R: Floats, m0: Floats, P0: Floats,
    predicted_mean: Floats, predicted_cov: Floats, filtered_mean: Floats, filtered_cov: Floats,
    log_likelihood: Floats, innovation: Floats, innovation_cov: Floats,
) -> int:  # fmt: skip
    """Fill the moments of s[t] given y[..t-1] and y[..t], and log p(y[t] | y[..t-1]) in nats (blank row: 0).

    ``innovation`` (N, D), ``innovation_cov`` (N, D, D), NaN where y is missing, may have no rows: not wanted.
    Returns 0, or 1 + the first row whose innovation covariance is not positive definite; rows from there on
    are not filled. Durbin & Koopman 2012, sec. 4.3, in Joseph form. Once the covariances of a constant model
    have settled they are copied until the missing entries change, a decision which only looks back.
    """
    N, D = y.shape
    n = m0.shape[0]
    constant = A.shape[0] == 1 and Q.shape[0] == 1 and C.shape[0] == 1 and R.shape[0] == 1
    p, seen = 0, np.zeros(D, np.int64)
    S, inverse, v = np.empty((D, D)), np.empty(D), np.empty(D)
    CP, W, K = np.empty((D, n)), np.empty((D, n)), np.empty((D, n))
    work = np.empty((n, n))
    age, steady, log_norm = 0, False, 0.0
    for t in range(N):
        if first[t]:
            age, steady = 0, False
            _start(t, m0, P0, predicted_mean, predicted_cov)
        else:
            _predict_mean(t, A, b, filtered_mean, predicted_mean)
            if steady:
                copy_row(predicted_cov, t - 1, t)
            else:
                _predict_cov(t, A, Q, filtered_cov, predicted_cov, work)
        p, changed = find_seen(y, t, p, seen)
        if changed:
            age, steady = 0, False
        if steady:
            copy_row(filtered_cov, t - 1, t)
            if innovation_cov.shape[0] > 0:
                copy_row(innovation_cov, t - 1, t)
        else:
            log_norm = _gain(t, p, seen, C, R, predicted_cov, filtered_cov, innovation_cov, S, inverse, CP, W, K, work)
            if not log_norm < np.inf:
                return 1 + t
            age += 1
            if constant and age >= 2 * SHORTEST and age & (age - 1) == 0:
                steady = settled(predicted_cov, t - 1, t) and settled(predicted_cov, t - age // 2, t)
        log_likelihood[t] = log_norm - 0.5 * _update_mean(
            t, p, seen, y, C, d, S, inverse, W, predicted_mean, filtered_mean, v, innovation
        )
    return 0


@inlined
def _start(t: int, m0: Floats, P0: Floats, mean: Floats, cov: Floats) -> None:
    for i in range(m0.shape[0]):
        mean[t, i] = m0[i]
        for j in range(i + 1):
            cov[t, i, j] = P0[i, j]
            cov[t, j, i] = P0[i, j]


@inlined
def _predict_mean(t: int, A: Floats, b: Floats, filtered: Floats, predicted: Floats) -> None:
    n = A.shape[1]
    a, c = (t - 1) * int(A.shape[0] > 1), (t - 1) * int(b.shape[0] > 1)
    for i in range(n):
        value = b[c, i]
        for j in range(n):
            value += A[a, i, j] * filtered[t - 1, j]
        predicted[t, i] = value


@inlined
def _predict_cov(t: int, A: Floats, Q: Floats, filtered: Floats, predicted: Floats, AP: Floats) -> None:
    n = A.shape[1]
    a, q = (t - 1) * int(A.shape[0] > 1), (t - 1) * int(Q.shape[0] > 1)
    for i in range(n):
        for j in range(n):
            value = 0.0
            for k in range(n):
                value += A[a, i, k] * filtered[t - 1, j, k]
            AP[i, j] = value
    for i in range(n):
        for j in range(i + 1):
            value = Q[q, i, j]
            for k in range(n):
                value += AP[i, k] * A[a, j, k]
            predicted[t, i, j] = value
            predicted[t, j, i] = value


@inlined
def _gain(
    t: int, p: int, seen: Ints, C: Floats, R: Floats, predicted: Floats, filtered: Floats,
    innovation_cov: Floats, S: Floats, inverse: Floats, CP: Floats, W: Floats, K: Floats, M: Floats,
) -> float:  # fmt: skip
    """Filter the covariance; L L' = S, W = inv(L) C P; return -log((2 pi)^(p/2) |L|), NaN if S is not PD."""
    n = C.shape[2]
    c, r = t * int(C.shape[0] > 1), t * int(R.shape[0] > 1)
    for k in range(p):
        for j in range(n):
            value = 0.0
            for i in range(n):
                value += C[c, seen[k], i] * predicted[t, j, i]
            CP[k, j] = value
            W[k, j] = value
        for m in range(k + 1):
            value = R[r, seen[k], seen[m]]
            for i in range(n):
                value += CP[k, i] * C[c, seen[m], i]
            S[k, m] = value
    if innovation_cov.shape[0] > 0:
        innovation_cov[t] = np.nan
        for k in range(p):
            for m in range(k + 1):
                innovation_cov[t, seen[k], seen[m]] = S[k, m]
                innovation_cov[t, seen[m], seen[k]] = S[k, m]
    if cholesky(S, p, 4 * p * EPS, inverse) > 0:
        return np.nan
    log_norm = 0.0 - 0.5 * p * LOG_2PI
    for k in range(p):
        log_norm += np.log(inverse[k])
    solve_lower(S, inverse, p, W)
    for k in range(p):
        for j in range(n):
            K[k, j] = W[k, j]
    solve_upper(S, inverse, p, K)
    _joseph(t, p, seen, C, R, predicted, filtered, CP, K, M)
    return log_norm


@inlined
def _joseph(
    t: int, p: int, seen: Ints, C: Floats, R: Floats,
    predicted: Floats, filtered: Floats, CP: Floats, K: Floats, M: Floats,
) -> None:  # fmt: skip
    """Write (I - K C) P (I - K C)' + K R K' as M + (K R - M C') K' with M = P - K C P.

    ``K`` is stored transposed; ``CP`` is overwritten.
    """
    n = C.shape[2]
    c, r = t * int(C.shape[0] > 1), t * int(R.shape[0] > 1)
    for i in range(n):
        for j in range(n):
            value = predicted[t, i, j]
            for k in range(p):
                value -= K[k, i] * CP[k, j]
            M[i, j] = value
    for k in range(p):
        for i in range(n):
            value = 0.0
            for m in range(p):
                value += K[m, i] * R[r, seen[m], seen[k]]
            for j in range(n):
                value -= M[i, j] * C[c, seen[k], j]
            CP[k, i] = value
    for i in range(n):
        for j in range(i + 1):
            value = M[i, j]
            for k in range(p):
                value += CP[k, i] * K[k, j]
            filtered[t, i, j] = value
            filtered[t, j, i] = value


@inlined
def _update_mean(
    t: int, p: int, seen: Ints, y: Floats, C: Floats, d: Floats, S: Floats, inverse: Floats, W: Floats,
    predicted: Floats, filtered: Floats, v: Floats, innovation: Floats,
) -> float:  # fmt: skip
    """Fill the filtered mean m + W' inv(L) v, v = y - C m - d; return the squared length of inv(L) v."""
    n = C.shape[2]
    c, c0 = t * int(C.shape[0] > 1), t * int(d.shape[0] > 1)
    if innovation.shape[0] > 0:
        innovation[t] = np.nan
    for i in range(n):
        filtered[t, i] = predicted[t, i]
    square = 0.0
    for k in range(p):
        value = y[t, seen[k]] - d[c0, seen[k]]
        for i in range(n):
            value -= C[c, seen[k], i] * predicted[t, i]
        if innovation.shape[0] > 0:
            innovation[t, seen[k]] = value
        for m in range(k):
            value -= S[k, m] * v[m]
        v[k] = value * inverse[k]
        square += v[k] * v[k]
        for i in range(n):
            filtered[t, i] += W[k, i] * v[k]
    return square


@jit
def smooth_rows(
    first: Bools, A: Floats, Q: Floats, predicted_mean: Floats, predicted_cov: Floats, filtered_mean: Floats,
    filtered_cov: Floats, mean: Floats, cov: Floats, cross_cov: Floats,
) -> int:  # fmt: skip
    """Fill mean and cov of s[t] and ``cross_cov`` = Cov(s[t], s[t+1]) given all y, NaN where a sequence ends.

    Rauch, Tung & Striebel 1965 with J = P_f A' inv(P_p), V[t] = (I - J A) P_f (I - J A)' + J (Q + V[t+1]) J',
    a sum of squares; P_p may be singular. Returns 0, or 1 + the latest row whose mean is not finite.
    """
    N, n = mean.shape
    constant = A.shape[0] == 1 and Q.shape[0] == 1
    J, base, L = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    work, inverse = np.empty((n, n)), np.empty(n)
    age, steady, ready = 0, False, False
    for t in range(N - 1, -1, -1):
        if t == N - 1 or first[t + 1]:
            age, steady, ready = 0, False, False
            for i in range(n):
                mean[t, i] = filtered_mean[t, i]
                for j in range(n):
                    cov[t, i, j] = filtered_cov[t, i, j]
                    cross_cov[t, i, j] = np.nan
        else:
            if not (ready and same_rows(filtered_cov, t, t + 1) and same_rows(predicted_cov, t + 1, t + 2)):
                age, steady, ready = 0, False, constant
                _smoother_gain(t, A, Q, predicted_cov, filtered_cov, J, base, L, inverse, work)
            _smooth_mean(t, J, predicted_mean, filtered_mean, mean)
            if steady:
                copy_row(cov, t + 1, t)
                copy_row(cross_cov, t + 1, t)
            else:
                _smooth_cov(t, J, base, cov, cross_cov)
                age += 1
                if ready and age >= 2 * SHORTEST and age & (age - 1) == 0:
                    steady = settled(cov, t + 1, t) and settled(cov, t + age // 2, t)
        for i in range(n):
            if not abs(mean[t, i]) < np.inf:
                return 1 + t
    return 0


@inlined
def _smoother_gain(
    t: int, A: Floats, Q: Floats, predicted: Floats, filtered: Floats, J: Floats, base: Floats, L: Floats,
    inverse: Floats, work: Floats,
) -> None:  # fmt: skip
    """Fill J = P_f A' inv(P_p) and base = (I - J A) P_f (I - J A)' + J Q J'."""
    n = A.shape[1]
    a, q = t * int(A.shape[0] > 1), t * int(Q.shape[0] > 1)
    for i in range(n):
        for j in range(n):
            L[i, j] = predicted[t + 1, i, j]
            value = 0.0
            for k in range(n):
                value += A[a, i, k] * filtered[t, j, k]
            work[i, j] = value
    cholesky(L, n, 4 * n * EPS, inverse)
    solve_lower(L, inverse, n, work)
    solve_upper(L, inverse, n, work)
    for i in range(n):
        for j in range(n):
            J[i, j] = work[j, i]
    for i in range(n):
        for j in range(n):
            value = 1.0 if i == j else 0.0
            for k in range(n):
                value -= J[i, k] * A[a, k, j]
            L[i, j] = value
    _sandwich(L, filtered, t, work, base, False)
    _sandwich(J, Q, q, work, base, True)


@inlined
def _sandwich(F: Floats, stack: Floats, t: int, work: Floats, out: Floats, add: bool) -> None:
    """Fill the lower triangle of ``out`` with F stack[t] F', added to what is there or not."""
    n = F.shape[0]
    for i in range(n):
        for j in range(n):
            value = 0.0
            for k in range(n):
                value += F[i, k] * stack[t, j, k]
            work[i, j] = value
    for i in range(n):
        for j in range(i + 1):
            value = out[i, j] if add else 0.0
            for k in range(n):
                value += work[i, k] * F[j, k]
            out[i, j] = value


@inlined
def _smooth_mean(t: int, J: Floats, predicted: Floats, filtered: Floats, mean: Floats) -> None:
    n = J.shape[0]
    for i in range(n):
        value = filtered[t, i]
        for j in range(n):
            value += J[i, j] * (mean[t + 1, j] - predicted[t + 1, j])
        mean[t, i] = value


@inlined
def _smooth_cov(t: int, J: Floats, base: Floats, cov: Floats, cross_cov: Floats) -> None:
    n = J.shape[0]
    for i in range(n):
        for j in range(n):
            value = 0.0
            for k in range(n):
                value += J[i, k] * cov[t + 1, j, k]
            cross_cov[t, i, j] = value
    for i in range(n):
        for j in range(i + 1):
            value = base[i, j]
            for k in range(n):
                value += cross_cov[t, i, k] * J[j, k]
            cov[t, i, j] = value
            cov[t, j, i] = value


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
            _predict_mean(t, A, b, states, states)
            for i in range(n):
                for j in range(n):
                    states[t, i] += chol_Q[(t - 1) * q_varies, i, j] * noise[t, j]
