"""Recursions of a finite Markov chain with observed likelihoods (Rabiner 1989; Murphy 2012, ch. 17).

Rows of several sequences stand end to end; ``first[t]`` marks the first row of each. ``A`` has shape
(1, K, K) when constant and (N, K, K) when it varies; ``A[t]`` leads from row t to row t + 1.
``b[t, k]`` is p(y[t] | k) up to a factor of the row, so that its largest entry is 1.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import jit

LOST = 1e-280  # relative weight below which a product in double precision may have dropped a state
UNDERFLOW = 1e-300  # in b: not impossible, but less than exp can represent


@jit
def forward(b: Floats, pi: Floats, A: Floats, first: Bools, sparse: bool, alpha: Floats, scale: Floats) -> int:
    """Fill ``alpha[t, k]`` = p(k | y_1..t) and ``scale[t]`` = p(y[t] | y_1..t-1); count the rows lost.

    A row is lost (its scale NaN) when a state that can be reached no longer fits into a double although a
    later row may need it; with ``sparse`` False (no tiny transition) only a vanishing total can do that.
    """
    N, K = b.shape
    varies = int(A.shape[0] > 1)
    lost = 0
    for t in range(N):
        total = 0.0
        for j in range(K):
            if first[t]:
                p = pi[j]
            else:
                p = 0.0
                for i in range(K):
                    p += alpha[t - 1, i] * A[(t - 1) * varies, i, j]
            alpha[t, j] = p * b[t, j]
            total += alpha[t, j]
        drop = not total > LOST
        if sparse and not drop:
            for j in range(K):
                if b[t, j] > 0.0 and (alpha[t, j] < LOST * total or b[t, j] <= UNDERFLOW):
                    p = 0.0
                    if first[t]:
                        p = pi[j]
                    else:
                        for i in range(K):
                            p = max(p, alpha[t - 1, i] * A[(t - 1) * varies, i, j])
                    drop = drop or p > 0.0
        if total > 0.0:
            for j in range(K):
                alpha[t, j] /= total
        else:
            alpha[t] = 1.0 / K
        scale[t] = np.nan if drop else total
        lost += drop
    return lost


@jit
def backward(
    b: Floats,
    A: Floats,
    first: Bools,
    scale: Floats,
    alpha: Floats,
    xi: Floats,
    xi_sum: Floats,
    firsts: Floats,
) -> None:
    """Turn ``alpha`` in place into gamma; add the pairs into ``xi_sum`` and the first rows into ``firsts``.

    ``xi`` (N, K, K) receives every pair, or has no rows. gamma = alpha * beta, Rabiner 1989, eq. 27 and 37.
    """
    N, K = b.shape
    varies = int(A.shape[0] > 1)
    keep = xi.shape[0] > 0
    m = np.zeros(K)
    beta = np.ones(K)
    outer = np.zeros((K, K))
    for t in range(N - 1, -1, -1):
        if t == N - 1 or first[t + 1]:
            beta[:] = 1.0
        else:
            for j in range(K):
                m[j] = b[t + 1, j] * beta[j] / scale[t + 1]
            norm = 0.0
            for i in range(K):
                s = 0.0
                for j in range(K):
                    s += A[t * varies, i, j] * m[j]
                beta[i] = s
                norm += alpha[t, i] * s
            for i in range(K):
                beta[i] /= norm
                m[i] /= norm
            if varies or keep:
                for i in range(K):
                    for j in range(K):
                        pair = alpha[t, i] * A[t * varies, i, j] * m[j]
                        xi_sum[i, j] += pair
                        if keep:
                            xi[t, i, j] = pair
            else:
                for i in range(K):
                    for j in range(K):
                        outer[i, j] += alpha[t, i] * m[j]
        for i in range(K):
            alpha[t, i] *= beta[i]
            if first[t]:
                firsts[i] += alpha[t, i]
    for i in range(K):
        for j in range(K):
            xi_sum[i, j] += A[0, i, j] * outer[i, j]


@jit
def predict(alpha: Floats, pi: Floats, A: Floats, first: Bools, predicted: Floats) -> None:
    """Fill ``predicted[t, j]`` = p(j | y_1..t-1) from the filtered ``alpha``."""
    N, K = alpha.shape
    varies = int(A.shape[0] > 1)
    for t in range(N):
        for j in range(K):
            if first[t]:
                predicted[t, j] = pi[j]
            else:
                p = 0.0
                for i in range(K):
                    p += alpha[t - 1, i] * A[(t - 1) * varies, i, j]
                predicted[t, j] = p


@jit
def _logsumexp(x: Floats) -> float:
    top = x[0]
    for i in range(1, x.shape[0]):
        top = max(top, x[i])
    if top == -np.inf:
        return -np.inf
    total = 0.0
    for i in range(x.shape[0]):
        total += np.exp(x[i] - top)
    return top + np.log(total)


@jit
def forward_log(
    log_b: Floats, log_pi: Floats, log_A: Floats, log_alpha: Floats, log_predicted: Floats, log_scale: Floats
) -> int:
    """Log-space forward pass over one sequence; return the first impossible row, or -1."""
    N, K = log_b.shape
    varies = int(log_A.shape[0] > 1)
    term = np.empty(K)
    for t in range(N):
        for j in range(K):
            if t == 0:
                log_predicted[t, j] = log_pi[j]
            else:
                for i in range(K):
                    term[i] = log_alpha[t - 1, i] + log_A[(t - 1) * varies, i, j]
                log_predicted[t, j] = _logsumexp(term)
            log_alpha[t, j] = log_predicted[t, j] + log_b[t, j]
        log_scale[t] = _logsumexp(log_alpha[t])
        if log_scale[t] == -np.inf:
            return t
        for j in range(K):
            log_alpha[t, j] -= log_scale[t]
    return -1


@jit
def backward_log(
    log_b: Floats,
    log_A: Floats,
    log_scale: Floats,
    log_alpha: Floats,
    gamma: Floats,
    xi: Floats,
    xi_sum: Floats,
) -> None:
    """Log-space backward pass over one sequence; fills ``gamma`` and, where it has rows, ``xi``."""
    N, K = log_b.shape
    varies = int(log_A.shape[0] > 1)
    log_beta = np.zeros(K)
    m = np.empty(K)
    term = np.empty(K)
    for t in range(N - 1, -1, -1):
        if t < N - 1:
            for j in range(K):
                m[j] = log_b[t + 1, j] + log_beta[j] - log_scale[t + 1]
            for i in range(K):
                for j in range(K):
                    term[j] = log_A[t * varies, i, j] + m[j]
                    pair = np.exp(log_alpha[t, i] + term[j])
                    xi_sum[i, j] += pair
                    if xi.shape[0] > 0:
                        xi[t, i, j] = pair
                log_beta[i] = _logsumexp(term)
        for i in range(K):
            gamma[t, i] = np.exp(log_alpha[t, i] + log_beta[i])


@jit
def viterbi(log_b: Floats, log_pi: Floats, log_A: Floats, first: Bools, back: Ints, path: Ints, best: Floats) -> int:
    """Most probable ``path`` (N,) and its log joint probability for each sequence in ``best`` (S,).

    ``back`` (N, K) is scratch of any integer type. Ties go to the lower index. Returns the first row at which
    no path is possible, or -1 (Viterbi 1967; Rabiner 1989, eq. 33).
    """
    N, K = log_b.shape
    varies = int(log_A.shape[0] > 1)
    delta = np.empty(K)
    old = np.empty(K)
    s = best.shape[0] - 1
    for t in range(N):
        top = -np.inf
        for j in range(K):
            if first[t]:
                value = log_pi[j]
            else:
                value = -np.inf
                where = 0
                for i in range(K):
                    candidate = old[i] + log_A[(t - 1) * varies, i, j]
                    if candidate > value:
                        value = candidate
                        where = i
                back[t, j] = where
            delta[j] = value + log_b[t, j]
            top = max(top, delta[j])
        if top == -np.inf:
            return t
        old[:] = delta
        if t == N - 1 or first[t + 1]:
            path[t] = np.argmax(delta)
    end = N - 1
    for t in range(N - 1, -1, -1):
        if t < end:
            path[t] = back[t + 1, path[t + 1]]
        if first[t]:
            best[s] = _path_score(log_b, log_pi, log_A, path, t, end)
            s -= 1
            end = t - 1
    return -1


@jit
def _path_score(log_b: Floats, log_pi: Floats, log_A: Floats, path: Ints, start: int, end: int) -> float:
    varies = int(log_A.shape[0] > 1)
    score = log_pi[path[start]] + log_b[start, path[start]]
    for t in range(start + 1, end + 1):
        score += log_A[(t - 1) * varies, path[t - 1], path[t]] + log_b[t, path[t]]
    return score


@jit
def draw(pi: Floats, A: Floats, uniform: Floats, path: Ints) -> None:
    """Draw one ``path`` (N,) by inverting the cumulative probabilities at ``uniform`` (N,) in [0, 1)."""
    N = path.shape[0]
    K = pi.shape[0]
    varies = int(A.shape[0] > 1)
    for t in range(N):
        row = pi if t == 0 else A[(t - 1) * varies, path[t - 1]]
        total = 0.0
        chosen = -1
        for k in range(K):
            if row[k] > 0.0:
                chosen = k
                total += row[k]
                if uniform[t] < total:
                    break
        path[t] = chosen
