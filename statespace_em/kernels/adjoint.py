"""The score of a linear-Gaussian model, and the EM sums that follow from it, in one backward pass over the filter.

With v, S, K the innovation, its covariance and the gain P C' inv(S), and P_f the filtered covariance, the future
of row t speaks about s[t+1] through a vector r and its variance I ("info"), so that

    E[w | y] = Q r,    Cov(w | y) = Q - Q I Q,    E[s[t] | y] = m_f + P_f A' r,    Cov = P_f - P_f A' I A P_f
    E[v | y] = R u,    Cov(v | y) = R - R D R,    u = inv(S) v - K' A' r,          D = inv(S) + K' A' I A K

(de Jong 1989; Durbin & Koopman 2012, sec. 4.4-4.5; the gradients: Koopman & Shephard 1992). No noise covariance is
inverted: everything holds where Q, R or the first covariance are singular, and entries of y that are missing count
by themselves, u and D being zero there.

``W`` (N, n, q) holds the predicted response of the state to q unknown constants of the start, from
`kernels.diffuse`; the pass adds their spread to all second moments. Symbols, shapes and slots else as in kalman.py
and kalman_covariances.py.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import inlined, jit, part
from statespace_em.kernels.steady import BACK, ROWS, backward_loop, backward_rows, stretch

SHORTEST = 16  # rows before the backward covariance recursion is asked whether it has settled


@jit
def backward_sums(
    y: Floats, first: Bools, slot: Ints, A: Floats, C: Floats, d: Floats, U: Floats, block: Ints,
    step_kind: Ints, row_kind: Ints,
    predicted_mean: Floats, filtered_cov: Floats, gain: Floats, whiten: Floats, W: Floats,
    g_A: Floats, g_e: Floats, g_Q: Floats, g_C: Floats, g_f: Floats, g_R: Floats, g_m0: Floats, g_P0: Floats,
    S_zz: Floats, S_uu: Floats, counts: Floats, settles: bool,
) -> None:  # fmt: skip
    """Add the gradients of the log-likelihood and the second moments of the regressors z = (s, 1, inputs).

    Sums are by kind of row: those of the step from row t to the next go to entry ``step_kind[t]``, those of its
    measurement to ``row_kind[t]``; kinds and sums with one entry are the same for all rows. ``g_A``, ``g_Q``, ``g_C``,
    ``g_R`` (kinds, ., .) are gradients; ``g_e`` (kinds, n, 1 + k) and ``g_f`` (kinds, D, 1 + k) are
    those of the offset and of the effects of the inputs ``U`` (N, k) on the state and on y; for a
    covariance it is the symmetric matrix G with d log-likelihood = tr(G d cov) / 2. ``S_zz`` sums z z' over pairs,
    ``S_uu[., j]`` over the rows with an entry of the features of block j, whose number is ``counts[., j]``. Column
    e > 0 of the working arrays is that of constant e - 1, W being scaled so that these are independent and of
    variance 1. ``settles`` says that all parameters are constant and all rows of one kind: the covariances are then
    kept once they stand still.
    """
    N, D = y.shape
    n, q, k_in = predicted_mean.shape[1], W.shape[2], U.shape[1]
    r, back, s = np.zeros((q + 1, n)), np.zeros((q + 1, n)), np.zeros((q + 1, n))
    v, u = np.zeros((q + 1, D)), np.zeros((q + 1, D))
    Sinv, CS, cD, cC = np.zeros((D, D)), np.zeros((D, n)), np.zeros((D, D)), np.zeros((D, n))
    info, old, M, AI = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    MP, V, IA, IKC, work = (np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)))
    z, touched = np.zeros(n + 1 + k_in), np.zeros(counts.shape[1], np.bool_)
    n_all = 2 * n + D + 1 + k_in
    L, PA, KA, gram = np.zeros((n, n)), np.zeros((n, n)), np.zeros((D, n)), np.zeros((n_all, n_all))
    x_rows, v_rows, c_rows, rows = (
        np.zeros((n, ROWS)), np.zeros((D, ROWS)), np.zeros((n, ROWS)), np.zeros((n_all, ROWS))
    )  # fmt: skip
    age, steady, fresh = 0, False, True
    t = N
    while t > 0:
        t -= 1
        last = t == N - 1 or first[t + 1]
        a, c, c0 = t * int(A.shape[0] > 1), t * int(C.shape[0] > 1), t * int(d.shape[0] > 1)
        step, own = step_kind[t * int(step_kind.shape[0] > 1)], row_kind[t * int(row_kind.shape[0] > 1)]
        f = slot[t]
        if last:
            r[:] = 0.0
            info[:] = 0.0
        if last or fresh or not settles or slot[t + 1] != f:
            age, steady = 0, False
            _inverse(whiten[f], Sinv)
            _closed_loop(C[c], gain[f], Sinv, IKC, CS)
        fresh = last  # the row before sees a future for the first time
        if steady:
            m = stretch(t, BACK, first, slot)
            if m > 0:
                backward_rows(
                    t, m, y, C[0], d, U, predicted_mean, W, gain[f], Sinv, CS, L, PA, KA, r, gram,
                    x_rows, v_rows, c_rows, rows,
                )  # fmt: skip
                _see(t, y, block, touched)
                _add_rows(
                    m, gram, info, IA, cC, cD, V, touched, g_A[0], g_e[0], g_Q[0], g_C[0], g_f[0], g_R[0], S_zz[0],
                    S_uu[0], counts[0],
                )  # fmt: skip
                t -= m - 1
                continue
        if not steady:
            _backward_covs(A[a], last, info, filtered_cov[f], AI, M, MP, V, IA)
            _row_covs(gain[f], Sinv, M, MP, cD, cC, work)
        for e in range(q + 1):
            for i in range(n):
                value = 0.0
                if not last:
                    for j in range(n):
                        value += A[a, j, i] * r[e, j]
                back[e, i] = value
            for k in range(D):
                value = 0.0
                if not np.isnan(y[t, k]):
                    value = y[t, k] - d[c0, k] if e == 0 else 0.0
                    for i in range(n):
                        value -= C[c, k, i] * (predicted_mean[t, i] if e == 0 else W[t, i, e - 1])
                v[e, k] = value
            for i in range(n):
                value = predicted_mean[t, i] if e == 0 else W[t, i, e - 1]
                for k in range(D):
                    value += gain[f, k, i] * v[e, k]
                for j in range(n):
                    value += filtered_cov[f, i, j] * back[e, j]
                s[e, i] = value
            for k in range(D):
                value = 0.0
                for h in range(D):
                    value += Sinv[k, h] * v[e, h]
                for i in range(n):
                    value -= gain[f, k, i] * back[e, i]
                u[e, k] = value
        if not last:
            _add_gradient(r, s, IA, g_A[step * int(g_A.shape[0] > 1)])
            _add_gradient(r, r, info, g_Q[step * int(g_Q.shape[0] > 1)])
            _add_effects(t, r, U, g_e[step * int(g_e.shape[0] > 1)])
            _add_moments(t, s, V, U, z, S_zz[step * int(S_zz.shape[0] > 1)])
        _see(t, y, block, touched)
        _add_gradient(u, s, cC, g_C[own])
        _add_gradient(u, u, cD, g_R[own])
        _add_effects(t, u, U, g_f[own])
        for j in range(touched.shape[0]):
            if touched[j]:
                counts[own, j] += 1.0
                _add_moments(t, s, V, U, z, S_uu[own, j])
        for e in range(q + 1):
            for i in range(n):
                value = back[e, i]
                for k in range(D):
                    value += C[c, k, i] * u[e, k]
                r[e, i] = value
        if not steady:
            for i in range(n):
                for j in range(n):
                    old[i, j] = info[i, j]
            _update_info(C[c], CS, IKC, M, info, work)
            age += 1
            steady = settles and age >= SHORTEST and _stands_still(info, old)
            if steady:
                backward_loop(A[0], C[0], filtered_cov[f], gain[f], L, PA, KA)
        if first[t]:
            for i in range(n):
                g_m0[i] += r[0, i]
            _add_gradient(r, r, info, g_P0)


@inlined
def _see(t: int, y: Floats, block: Ints, touched: Bools) -> None:
    """Mark the blocks that have an entry in row t."""
    touched[:] = False
    for k in range(y.shape[1]):
        if not np.isnan(y[t, k]):
            touched[block[k]] = True


@part
def _add_rows(
    m: int, gram: Floats, info: Floats, IA: Floats, cC: Floats, cD: Floats, V: Floats, touched: Bools,
    g_A: Floats, g_e: Floats, g_Q: Floats, g_C: Floats, g_f: Floats, g_R: Floats,
    S_zz: Floats, S_uu: Floats, counts: Floats,
) -> None:  # fmt: skip
    """Add m rows of one gain, the sums of whose means are the blocks of ``gram``: r, u and z."""
    D, n = cC.shape
    e = n + D + n
    for i in range(n):
        for j in range(n):
            g_A[i, j] += gram[n + D + j, i] - m * IA[i, j]
            g_Q[i, j] += gram[max(i, j), min(i, j)] - m * info[i, j]
        for k in range(g_e.shape[1]):
            g_e[i, k] += gram[e + k, i]
    for h in range(D):
        for j in range(n):
            g_C[h, j] += gram[n + D + j, n + h] - m * cC[h, j]
        for k in range(D):
            g_R[h, k] += gram[n + max(h, k), n + min(h, k)] - m * cD[h, k]
        for k in range(g_f.shape[1]):
            g_f[h, k] += gram[e + k, n + h]
    for i in range(S_zz.shape[0]):
        for j in range(S_zz.shape[0]):
            value = gram[n + D + max(i, j), n + D + min(i, j)]
            if i < n and j < n:
                value += m * V[i, j]
            S_zz[i, j] += value
            for b in range(touched.shape[0]):
                if touched[b]:
                    S_uu[b, i, j] += value
    for b in range(touched.shape[0]):
        if touched[b]:
            counts[b] += m


@inlined
def _inverse(whiten: Floats, Sinv: Floats) -> None:
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
def _closed_loop(C: Floats, gain: Floats, Sinv: Floats, IKC: Floats, CS: Floats) -> None:
    """I - K C and inv(S) C."""
    D, n = C.shape
    for i in range(n):
        for j in range(n):
            value = 1.0 if i == j else 0.0
            for k in range(D):
                value -= gain[k, i] * C[k, j]
            IKC[i, j] = value
    for k in range(D):
        for j in range(n):
            value = 0.0
            for h in range(D):
                value += Sinv[k, h] * C[h, j]
            CS[k, j] = value


@inlined
def _backward_covs(
    A: Floats, last: bool, info: Floats, P_f: Floats, AI: Floats, M: Floats, MP: Floats, V: Floats, IA: Floats
) -> None:
    """M = A' I A, M P_f, V = P_f - P_f M P_f and I A P_f."""
    n = P_f.shape[0]
    if last:
        M[:] = 0.0
        MP[:] = 0.0
        IA[:] = 0.0
        for i in range(n):
            for j in range(n):
                V[i, j] = P_f[i, j]
        return
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
            value = P_f[i, j]
            for k in range(n):
                value -= P_f[i, k] * MP[k, j]
            V[i, j] = value
            V[j, i] = value


@inlined
def _row_covs(gain: Floats, Sinv: Floats, M: Floats, MP: Floats, cD: Floats, cC: Floats, work: Floats) -> None:
    """D = inv(S) + K' M K, and K' (I - M P_f), what uncertainty of v and s together takes from the gradient of C."""
    D, n = gain.shape
    for k in range(D):
        for j in range(n):
            value, other = gain[k, j], 0.0
            for i in range(n):
                value -= gain[k, i] * MP[i, j]
                other += gain[k, i] * M[i, j]
            cC[k, j] = value
            work[0, j] = other
        for h in range(D):
            value = Sinv[k, h]
            for j in range(n):
                value += work[0, j] * gain[h, j]
            cD[k, h] = value


@inlined
def _update_info(C: Floats, CS: Floats, IKC: Floats, M: Floats, info: Floats, work: Floats) -> None:
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
                value += C[k, i] * CS[k, j]
            info[i, j] = value
            info[j, i] = value


@inlined
def _add_gradient(left: Floats, right: Floats, spread: Floats, total: Floats) -> None:
    """Add the sum over columns of left right', less ``spread``."""
    for i in range(total.shape[0]):
        for j in range(total.shape[1]):
            value = -spread[i, j]
            for e in range(left.shape[0]):
                value += left[e, i] * right[e, j]
            total[i, j] += value


@inlined
def _add_effects(t: int, left: Floats, U: Floats, total: Floats) -> None:
    for i in range(total.shape[0]):
        total[i, 0] += left[0, i]
        for k in range(U.shape[1]):
            total[i, 1 + k] += left[0, i] * U[t, k]


@inlined
def _add_moments(t: int, s: Floats, V: Floats, U: Floats, z: Floats, total: Floats) -> None:
    """Add E[z z'] of one row."""
    n, m = V.shape[0], z.shape[0]
    for e in range(1, s.shape[0]):
        for i in range(n):
            for j in range(n):
                total[i, j] += s[e, i] * s[e, j]
    for i in range(n):
        z[i] = s[0, i]
        for j in range(n):
            total[i, j] += V[i, j]
    z[n] = 1.0
    for k in range(U.shape[1]):
        z[n + 1 + k] = U[t, k]
    for i in range(m):
        for j in range(m):
            total[i, j] += z[i] * z[j]


@inlined
def _stands_still(new: Floats, old: Floats) -> bool:
    """Whether the information has stopped changing."""
    for i in range(new.shape[0]):
        for j in range(i + 1):
            if not abs(new[i, j] - old[i, j]) <= 1e-15 * np.sqrt(new[i, i] * new[j, j]):
                return False
    return True
