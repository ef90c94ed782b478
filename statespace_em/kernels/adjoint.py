"""The score of a linear-Gaussian model, and the EM sums that follow from it, in one backward pass over the filter.

With v, S, K the innovation, its covariance and the gain P C' inv(S), and P_f the filtered covariance, the future
of row t speaks about s[t+1] through a vector r and its variance I ("info"), so that

    E[w | y] = Q r,    Cov(w | y) = Q - Q I Q,    E[s[t] | y] = m_f + P_f A' r,    Cov = P_f - P_f A' I A P_f
    E[v | y] = R u,    Cov(v | y) = R - R D R,    u = inv(S) v - K' A' r,          D = inv(S) + K' A' I A K

(de Jong 1989; Durbin & Koopman 2012, sec. 4.4-4.5; the gradients: Koopman & Shephard 1992). No noise covariance is
inverted: everything holds where Q, R or the first covariance are singular, and entries of y that are missing count
by themselves, u and D being zero there.

The recursion of I is affine, and so is all that the sums take from it. Sequences with equal entries missing therefore
need one pass for all of them: it carries the sum of their I, those that have ended adding nothing. That pass is here;
the vectors r, u and s go through `adjoint_rows` (one sequence after another) and `adjoint_lanes` (many side by side).
Symbols, shapes and slots else as in kalman.py and kalman_covariances.py.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import bare, inlined, jit
from statespace_em.kernels._linalg import settled
from statespace_em.kernels.adjoint_wide import backward_rows, gain_times, moment_rows, update_rows
from statespace_em.kernels.kalman_covariances import FEW_STATES

SHORTEST = 16  # rows before the backward covariance recursion is asked whether it has settled
ONE_STEP = np.int64(1)  # see kalman_covariances.py


@jit
def backward_covariances(
    y: Floats, begins: Bools, count: Floats, after: float, kind: Ints, slot: Ints, A: Floats, C: Floats, block: Ints,
    filtered_cov: Floats, gain: Floats, whiten: Floats, info: Floats,
    g_A: Floats, g_Q: Floats, g_C: Floats, g_R: Floats, g_P0: Floats, S_zz: Floats, S_uu: Floats, counts: Floats,
    step: Ints, by_A: Floats, by_Q: Floats,
) -> None:  # fmt: skip
    """Add what covariances contribute to the sums of all sequences of which row t stands for ``count[t]``.

    ``begins`` marks first rows of sequences, ``info`` holds the sum of I over the ``after`` sequences that go on after
    the last row, and afterwards that at the first row. All sums but ``g_P0`` have an entry for every kind of row, of
    which row t is ``kind[t]`` (one entry: all are alike): ``g_A``, ``g_Q``, ``g_C``, ``g_R`` get the gradients (those
    of covariances twice), ``S_zz`` the covariances of states over pairs and ``S_uu[., j]`` over rows with an entry of
    the features of block j, whose number is added to ``counts[., j]``. Entry ``step[t]`` of
    ``by_A`` and ``by_Q`` gets what the step after row t adds to ``g_A`` and ``g_Q``, unless they have no entries: not
    wanted. Nor are ``g_A``, ``g_C``, ``S_zz`` and ``S_uu`` where ``g_A`` has none: most of the work is theirs. Rows of
    one slot have equal matrices: what stands still is not worked out again.
    """
    N, D = y.shape
    n = info.shape[0]
    Sinv, CS, cD, KM = np.zeros((D, D)), np.zeros((D, n)), np.zeros((D, D)), np.zeros((D, n))
    old, mark = np.zeros((n, n)), np.zeros((n, n))
    M, AI, MP = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    V, IA, IKC, work = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    seen = np.zeros(counts.shape[1], np.bool_)
    age, still, moments = np.int64(0), False, g_A.shape[0] > 0
    t = N
    while t > 0:
        t -= 1
        c, own = count[t], kind[t * int(kind.shape[0] > 1)]
        follow = after if t == N - 1 else 0.0 if begins[t + 1] else count[t + 1]
        f, a, h = slot[t], t * int(A.shape[0] > 1), t * int(C.shape[0] > 1)
        fresh = t == N - 1 or follow != c or slot[t + 1] != f
        if fresh:
            age, still = np.int64(0), False
            if t == N - 1 or slot[t + 1] != f:
                inverse(whiten[f], Sinv)
                _weighted(C[h], Sinv, CS)
                if n <= FEW_STATES:
                    _closed_loop(C[h], gain[f], IKC)
        if follow == 0.0:
            for i in range(n):
                for j in range(n):
                    info[i, j], M[i, j], MP[i, j], IA[i, j], V[i, j] = 0.0, 0.0, 0.0, 0.0, 0.0
        elif n > FEW_STATES:
            backward_rows(A[a], info, AI, M, work)
            if moments:
                moment_rows(A[a], filtered_cov[f], AI, MP, IA, V)
        else:
            _backward_covs(A[a], info, AI, M)
            if moments:
                _moment_covs(filtered_cov[f], AI, M, MP, IA, V)
        gain_times(gain[f], M, KM)
        _row_covs(c, gain[f], Sinv, KM, cD)
        if age >= SHORTEST and age & (age - 1) == 0 and not still:  # asked at ages 32, 64, 128, ...
            if age > SHORTEST and settled(old, info, ONE_STEP) and settled(mark, info, age // 2):
                still = True
            for i in range(n):
                for j in range(n):
                    mark[i, j] = info[i, j]
        m = _alike(t, kind, slot, count, begins) if still else 1
        if by_A.shape[0] > 0:
            for w in range(m):
                for i in range(n):
                    for j in range(n):
                        by_A[step[t - w], i, j] -= IA[i, j]
                        by_Q[step[t - w], i, j] -= info[i, j]
        see(t, y, block, seen)
        for i in range(n):
            for j in range(n):
                g_Q[own, i, j] -= m * info[i, j]
        if moments:
            for i in range(n):
                for j in range(n):
                    g_A[own, i, j] -= m * IA[i, j]
                    S_zz[own, i, j] += m * (follow * filtered_cov[f, i, j] - V[i, j])
            _add_cross(m, c, gain[f], MP, g_C[own])
        for k in range(D):
            for j in range(D):
                g_R[own, k, j] -= m * cD[k, j]
        for b in range(seen.shape[0]):
            if seen[b]:
                counts[own, b] += m * c
                for i in range(n if moments else 0):
                    for j in range(n):
                        S_uu[own, b, i, j] += m * (c * filtered_cov[f, i, j] - V[i, j])
        for i in range(n):
            for j in range(n):
                old[i, j] = info[i, j]
        if n > FEW_STATES:
            update_rows(c, C[h], CS, gain[f], KM, M, info, work[0])
        else:
            _update_info(c, C[h], CS, IKC, M, info, work)
        age += 1
        t -= m - 1
        if begins[t]:
            for i in range(n):
                for j in range(n):
                    g_P0[i, j] -= info[i, j]


@inlined
def _alike(t: int, kind: Ints, slot: Ints, count: Floats, begins: Bools) -> int:
    """Count the rows up to t, in one stretch, that have its kind and slot and stand for as many sequences."""
    m, varies = 1, int(kind.shape[0] > 1)
    while t >= m and slot[t - m] == slot[t] and count[t - m] == count[t] and not begins[t - m + 1]:
        if kind[(t - m) * varies] != kind[t * varies]:
            break
        m += 1
    return m


@bare
def see(t: int, y: Floats, block: Ints, seen: Bools) -> bool:
    """Mark the blocks that have an entry in row t; whether all do."""
    for j in range(seen.shape[0]):
        seen[j] = False
    for k in range(y.shape[1]):
        if not np.isnan(y[t, k]):
            seen[block[k]] = True
    every = True
    for j in range(seen.shape[0]):
        every = every and seen[j]
    return every


@inlined
def inverse(whiten: Floats, Sinv: Floats) -> None:
    """inv(S) = inv(L)' inv(L), zero where an entry is missing."""
    D = Sinv.shape[0]
    for k in range(D):
        for h in range(k + 1):
            value = 0.0
            for m in range(k, D):
                value += whiten[m, k] * whiten[m, h]
            Sinv[k, h] = value
            Sinv[h, k] = value


@inlined
def _closed_loop(C: Floats, gain: Floats, IKC: Floats) -> None:
    """I - K C."""
    D, n = C.shape
    for i in range(n):
        for j in range(n):
            value = 1.0 if i == j else 0.0
            for k in range(D):
                value -= gain[k, i] * C[k, j]
            IKC[i, j] = value


@inlined
def _weighted(C: Floats, Sinv: Floats, CS: Floats) -> None:
    """inv(S) C."""
    D, n = C.shape
    for k in range(D):
        for j in range(n):
            value = 0.0
            for h in range(D):
                value += Sinv[k, h] * C[h, j]
            CS[k, j] = value


@inlined
def _backward_covs(A: Floats, info: Floats, AI: Floats, M: Floats) -> None:
    """I A and M = A' I A."""
    n = A.shape[0]
    for i in range(n):
        for j in range(n):
            value = 0.0
            for k in range(n):
                value += info[i, k] * A[k, j]
            AI[i, j] = value
    for i in range(n):
        for j in range(i + 1):
            value = 0.0
            for k in range(n):
                value += A[k, i] * AI[k, j]
            M[i, j] = value
            M[j, i] = value


@inlined
def _moment_covs(P_f: Floats, AI: Floats, M: Floats, MP: Floats, IA: Floats, V: Floats) -> None:
    """M P_f, I A P_f, and P_f M P_f, which the future takes from P_f."""
    n = P_f.shape[0]
    for i in range(n):
        for j in range(n):
            value, other = 0.0, 0.0
            for k in range(n):
                value += M[i, k] * P_f[k, j]
                other += AI[i, k] * P_f[k, j]
            MP[i, j] = value
            IA[i, j] = other
    for i in range(n):
        for j in range(i + 1):
            value = 0.0
            for k in range(n):
                value += P_f[i, k] * MP[k, j]
            V[i, j] = value
            V[j, i] = value


@inlined
def _row_covs(count: float, gain: Floats, Sinv: Floats, KM: Floats, cD: Floats) -> None:
    """D = inv(S) + K' M K."""
    D, n = gain.shape
    for k in range(D):
        for h in range(D):
            value = count * Sinv[k, h]
            for j in range(n):
                value += KM[k, j] * gain[h, j]
            cD[k, h] = value


@inlined
def _add_cross(m: int, count: float, gain: Floats, MP: Floats, g_C: Floats) -> None:
    """Take m K' (I - M P_f) from the gradient of C: what uncertainty of v and s together takes."""
    D, n = gain.shape
    for k in range(D):
        for j in range(n):
            value = count * gain[k, j]
            for i in range(n):
                value -= gain[k, i] * MP[i, j]
            g_C[k, j] -= m * value


@inlined
def _update_info(count: float, C: Floats, CS: Floats, IKC: Floats, M: Floats, info: Floats, work: Floats) -> None:
    """C' inv(S) C + (I - K C)' M (I - K C)."""
    D, n = C.shape
    for i in range(n):
        for j in range(n):
            value = 0.0
            for k in range(n):
                value += M[i, k] * IKC[k, j]
            work[i, j] = value
    for i in range(n):
        for j in range(i + 1):
            value = 0.0
            for k in range(n):
                value += IKC[k, i] * work[k, j]
            for k in range(D):
                value += count * C[k, i] * CS[k, j]
            info[i, j] = value
            info[j, i] = value
