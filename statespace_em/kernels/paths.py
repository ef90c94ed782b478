"""Paths of a hidden chain beyond the best one: k best, with a least duration, counts along them, a fixed lag.

Shapes and names are those of `chain`; one sequence at a time.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.kernels._jit import jit, part


@jit
def best_paths(log_b: Floats, log_pi: Floats, log_A: Floats, back: Ints, paths: Ints, scores: Floats) -> int:
    """Fill the R most probable ``paths`` (R, N), best first, and their log joint probabilities (R,); count them.

    ``back`` (N, K, R) is scratch. Every state keeps its R best beginnings, each of which is one of the R best of
    its predecessor (list Viterbi algorithm, Seshadri & Sundberg 1994). Ties go to the lower state.
    """
    N, K = log_b.shape
    R = scores.shape[0]
    varies = int(log_A.shape[0] > 1)
    old = np.full((K, R), -np.inf)
    new = np.empty((K, R))
    at = np.empty(K, dtype=np.int64)
    for k in range(K):
        old[k, 0] = log_pi[k] + log_b[0, k]
    for t in range(1, N):
        for j in range(K):
            at[:] = 0
            for r in range(R):
                value = -np.inf
                where = -1
                for i in range(K):
                    if at[i] < R:
                        candidate = old[i, at[i]] + log_A[(t - 1) * varies, i, j]
                        if candidate > value:
                            value = candidate
                            where = i
                if where < 0:
                    new[j, r:] = -np.inf
                    break
                new[j, r] = value + log_b[t, j]
                back[t, j, r] = where * R + at[where]
                at[where] += 1
        old[:] = new
    at[:] = 0
    for n in range(R):
        value = -np.inf
        k = -1
        for i in range(K):
            if at[i] < R and old[i, at[i]] > value:
                value = old[i, at[i]]
                k = i
        if k < 0:
            return n
        r = at[k]
        at[k] += 1
        scores[n] = value
        for t in range(N - 1, -1, -1):
            paths[n, t] = k
            if t > 0:
                code = back[t, k, r]
                k = code // R
                r = code % R
    return R


@jit
def patient_path(log_b: Floats, log_pi: Floats, log_A: Floats, least: Ints, back: Ints, path: Ints) -> float:
    """Fill the most probable ``path`` whose episodes in state k last ``least[k]`` rows or more; return its score.

    The first and the last episode may be shorter: they may have begun before the data, or go on after them.
    ``back`` (N, K, M) is scratch, M the largest of ``least``; state (k, d) says that k has lasted d + 1 rows,
    the last d standing for "long enough". The score is -inf where no such path is possible.
    """
    N, K = log_b.shape
    M = back.shape[2]
    varies = int(log_A.shape[0] > 1)
    old = np.full((K, M), -np.inf)
    new = np.empty((K, M))
    for k in range(K):
        old[k, least[k] - 1] = log_pi[k] + log_b[0, k]
    for t in range(1, N):
        step = log_A[(t - 1) * varies]
        new[:] = -np.inf
        for k in range(K):
            for i in range(K):
                value = old[i, least[i] - 1] + step[i, k]
                if i != k and value > new[k, 0]:
                    new[k, 0] = value
                    back[t, k, 0] = i * M + least[i] - 1
            for d in range(least[k]):
                longer = min(d + 1, least[k] - 1)
                value = old[k, d] + step[k, k]
                if value > new[k, longer]:
                    new[k, longer] = value
                    back[t, k, longer] = k * M + d
            for d in range(least[k]):
                new[k, d] += log_b[t, k]
        old[:] = new
    best = -np.inf
    code = 0
    for k in range(K):
        for d in range(least[k]):
            if old[k, d] > best:
                best = old[k, d]
                code = k * M + d
    if best == -np.inf:
        return best
    for t in range(N - 1, -1, -1):
        path[t] = code // M
        if t > 0:
            code = back[t, code // M, code % M]
    return best


@jit
def count_events(pi: Floats, A: Floats, at_first: Ints, at_step: Ints, probability: Floats) -> None:
    """Fill ``probability`` (M + 1,): of every number of events along a path of the chain (pi, A[0], A[1], ...).

    The chain has one row more than ``A``. Starting in k counts ``at_first[k]`` events and a step from i to j
    ``at_step[i, j]``, each 0 or 1; the last entry collects M events and more.
    """
    N, K = A.shape[0] + 1, pi.shape[0]
    M = probability.shape[0] - 1
    old = np.zeros((M + 1, K))
    new = np.zeros((M + 1, K))
    for k in range(K):
        old[min(at_first[k], M), k] += pi[k]
    for t in range(1, N):
        top = min(t + 1, M)
        new[: top + 1] = 0.0
        for n in range(top + 1):
            for i in range(K):
                if old[n, i] > 0.0:
                    for j in range(K):
                        new[min(n + at_step[i, j], M), j] += old[n, i] * A[t - 1, i, j]
        old[: top + 1] = new[: top + 1]
    for n in range(M + 1):
        probability[n] = old[n].sum()


@jit
def fixed_lag(log_b: Floats, log_pi: Floats, log_A: Floats, lag: int, smoothed: Floats) -> None:
    """Fill ``smoothed[t, k]`` = p(k | y_1..t+lag), at the end of the sequence given all of it.

    Forward in logs to t, and backward from t + lag to t: rows after t + lag are never read. The last row, and with
    lag 0 every row, has nothing to look ahead to and is left as it is.
    """
    N, K = log_b.shape
    varies = int(log_A.shape[0] > 1)
    log_alpha = log_pi + log_b[0]
    log_beta = np.empty(K)
    message = np.empty(K)
    for t in range(N - 1 if lag > 0 else 0):
        log_beta[:] = 0.0
        for u in range(min(t + lag, N - 1), t, -1):
            message[:] = log_b[u] + log_beta
            _log_product(log_A[(u - 1) * varies], message, log_beta)
        message[:] = log_alpha + log_beta
        top = message.max()
        total = 0.0
        for k in range(K):
            smoothed[t, k] = np.exp(message[k] - top)
            total += smoothed[t, k]
        for k in range(K):
            smoothed[t, k] /= total
        message[:] = log_alpha - log_alpha.max()
        _log_product(log_A[t * varies].T, message, log_alpha)
        log_alpha += log_b[t + 1]


@part
def _log_product(log_A: Floats, log_x: Floats, result: Floats) -> None:
    """Fill ``result`` = log(exp(log_A) exp(log_x)), exact where a factor would underflow."""
    K = log_x.shape[0]
    for i in range(K):
        top = -np.inf
        for j in range(K):
            top = max(top, log_A[i, j] + log_x[j])
        result[i] = top
        if top > -np.inf:
            total = 0.0
            for j in range(K):
                total += np.exp(log_A[i, j] + log_x[j] - top)
            result[i] = top + np.log(total)
