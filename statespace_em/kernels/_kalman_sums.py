"""EM statistics of the linear-Gaussian model, in residuals of the current parameters; see kalman.py."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import inlined, jit, part
from statespace_em.kernels._linalg import EPS, cholesky, find_seen, solve_lower, solve_upper


class GaussianSums(NamedTuple):
    """Sums of expectations given all y, with z = (s, 1), w = s[t+1] - A s - b and v = y - C s - d."""

    S_ww: Floats  # (n, n), over the pairs (t, t + 1) of a sequence
    S_wz: Floats  # (n, n + 1)
    S_zz: Floats  # (n + 1, n + 1)
    n_pairs: int
    S_vv: Floats  # (D, D), over the rows with an entry of y, its missing ones completed given v, s and R
    S_vz: Floats  # (D, n + 1)
    S_uu: Floats  # (n + 1, n + 1), z z' over these rows
    n_rows: int
    first_mean: Floats  # (n,), over the first rows
    first_cov: Floats  # (n, n)
    first_outer: Floats  # (n, n), of mean - m0
    n_sequences: int


@jit
def moment_sums(
    y: Floats, first: Bools, A: Floats, b: Floats, C: Floats, d: Floats, R: Floats, m0: Floats,
    mean: Floats, place: Ints, cov: Floats, cross_cov: Floats,
) -> GaussianSums:  # fmt: skip
    """Sum the complete-data moments that the M-step needs; they add over rows and sequences.

    Shumway & Stoffer 1982 in residual form, so that large levels cost no digits: the regression is then
    [A b] + S_wz inv(S_zz) with Q = (S_ww - S_wz inv(S_zz) S_wz') / n_pairs, and alike for [C d] and R.
    ``mean`` by row and ``cov``, ``cross_cov`` by ``place`` as from the smoother, run with A, b, C, d, R.
    """
    N, D = y.shape
    n = m0.shape[0]
    S_ww, S_wz = np.zeros((n, n)), np.zeros((n, n + 1))
    S_vv, S_vz = np.zeros((D, D)), np.zeros((D, n + 1))
    zz_both, zz_pair, zz_row = np.zeros((n + 1, n + 1)), np.zeros((n + 1, n + 1)), np.zeros((n + 1, n + 1))
    first_mean, first_cov, first_outer = np.zeros(n), np.zeros((n, n)), np.zeros((n, n))
    V, V_next, X, G = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    U, U_part, CU, H = np.zeros((n, n)), np.zeros((n, n)), np.zeros((D, n)), np.zeros((D, n))
    w, residual, inverse, seen = np.zeros(n), np.zeros(D), np.zeros(D), np.zeros(D, np.int64)
    B, L, T = np.zeros((D, D)), np.zeros((D, D)), np.zeros((D, D))
    a_varies, c_varies = A.shape[0] > 1, C.shape[0] > 1
    pairs, nexts, rows = np.zeros(N, np.int64), np.zeros(N, np.int64), np.zeros(N, np.int64)  # by place
    n_pairs, n_rows, n_sequences = 0, 0, 0
    for t in range(N):
        if first[t]:
            n_sequences += 1
            _add_first(t, m0, mean, cov[place[t]], first_mean, first_cov, first_outer)
        pair = t + 1 < N and not first[t + 1]
        if pair:
            n_pairs += 1
            _add_pair(t, A, b, mean, w, S_ww, S_wz)
            if a_varies:
                _add_cov(cov[place[t]], 1.0, V)
                _add_cov(cov[place[t + 1]], 1.0, V_next)
                _add_cov(cross_cov[place[t]], 1.0, X)
                _fold_pairs(A[t], V, V_next, X, G, S_ww, S_wz, zz_pair)
            else:
                pairs[place[t]] += 1
                nexts[place[t + 1]] += 1
        p = find_seen(y, t, seen)
        if p > 0:
            _residual(t, y, C, d, mean, residual)
        if p == D:
            if c_varies:
                _add_cov(cov[place[t]], 1.0, U)
                _fold_rows(C[t], U, CU, S_vv, S_vz, zz_row)
            else:
                rows[place[t]] += 1
        elif p > 0:
            _complete(t, p, seen, C, R, residual, H, L, T, B, inverse, S_vv)
            _add_cov(cov[place[t]], 1.0, U_part)
            _fold_rows(H, U_part, CU, S_vv, S_vz, zz_row)
        if p > 0:
            n_rows += 1
            _add_outer(t, mean, residual, S_vv, S_vz)
        if p > 0 or pair:
            _add_square(t, mean, zz_both if p > 0 and pair else zz_row if p > 0 else zz_pair)
    for u in range(N):
        if pairs[u] > 0:
            _add_cov(cov[u], pairs[u], V)
            _add_cov(cross_cov[u], pairs[u], X)
        if nexts[u] > 0:
            _add_cov(cov[u], nexts[u], V_next)
        if rows[u] > 0:
            _add_cov(cov[u], rows[u], U)
    _fold_pairs(A[0], V, V_next, X, G, S_ww, S_wz, zz_pair)
    _fold_rows(C[0], U, CU, S_vv, S_vz, zz_row)
    for i in range(n + 1):
        for j in range(n + 1):
            zz_pair[i, j] += zz_both[i, j]
            zz_row[i, j] += zz_both[i, j]
    for total in (S_ww, S_vv, zz_pair, zz_row, first_outer):
        _mirror(total)
    return GaussianSums(
        S_ww, S_wz, zz_pair, n_pairs, S_vv, S_vz, zz_row, n_rows, first_mean, first_cov, first_outer, n_sequences
    )


@inlined
def _mirror(total: Floats) -> None:
    """Copy the lower triangle, where the sums are made, to the upper."""
    for i in range(total.shape[0]):
        for j in range(i):
            total[j, i] = total[i, j]


@inlined
def _add_first(
    t: int, m0: Floats, mean: Floats, cov: Floats, first_mean: Floats, first_cov: Floats, first_outer: Floats
) -> None:
    for i in range(m0.shape[0]):
        first_mean[i] += mean[t, i]
        for j in range(m0.shape[0]):
            first_cov[i, j] += cov[i, j]
            first_outer[i, j] += (mean[t, i] - m0[i]) * (mean[t, j] - m0[j])


@inlined
def _add_pair(t: int, A: Floats, b: Floats, mean: Floats, w: Floats, S_ww: Floats, S_wz: Floats) -> None:
    n = A.shape[1]
    a, c = t * int(A.shape[0] > 1), t * int(b.shape[0] > 1)
    for i in range(n):
        value = mean[t + 1, i] - b[c, i]
        for j in range(n):
            value -= A[a, i, j] * mean[t, j]
        w[i] = value
    _add_outer(t, mean, w, S_ww, S_wz)


@inlined
def _add_outer(t: int, mean: Floats, r: Floats, S_rr: Floats, S_rz: Floats) -> None:
    """Add r r' (lower triangle) and r z' with z = (mean[t], 1)."""
    n = mean.shape[1]
    for i in range(S_rr.shape[0]):
        for j in range(i + 1):
            S_rr[i, j] += r[i] * r[j]
        for j in range(n):
            S_rz[i, j] += r[i] * mean[t, j]
        S_rz[i, n] += r[i]


@inlined
def _add_square(t: int, mean: Floats, S_zz: Floats) -> None:
    """Add z z' (lower triangle) with z = (mean[t], 1)."""
    n = mean.shape[1]
    for i in range(n):
        for j in range(i + 1):
            S_zz[i, j] += mean[t, i] * mean[t, j]
        S_zz[n, i] += mean[t, i]
    S_zz[n, n] += 1.0


@inlined
def _add_cov(cov: Floats, times: float, total: Floats) -> None:
    for i in range(total.shape[0]):
        for j in range(total.shape[0]):
            total[i, j] += times * cov[i, j]


@part
def _fold_pairs(
    A: Floats, V: Floats, V_next: Floats, X: Floats, G: Floats, S_ww: Floats, S_wz: Floats, S_zz: Floats
) -> None:
    """Add Cov(w) = V_next - A X - (X' - A V) A', Cov(w, s) = X' - A V and V, then empty the three sums."""
    n = V.shape[0]
    for i in range(n):
        for j in range(n):
            value = X[j, i]
            for k in range(n):
                value -= A[i, k] * V[k, j]
            G[i, j] = value
            S_wz[i, j] += value
            S_zz[i, j] += V[i, j]
    for i in range(n):
        for j in range(i + 1):
            value = V_next[i, j]
            for k in range(n):
                value -= 0.5 * (A[i, k] * X[k, j] + A[j, k] * X[k, i])
                value -= 0.5 * (G[i, k] * A[j, k] + G[j, k] * A[i, k])
            S_ww[i, j] += value
    for i in range(n):
        for j in range(n):
            V[i, j], V_next[i, j], X[i, j] = 0.0, 0.0, 0.0


@part
def _fold_rows(C: Floats, U: Floats, CU: Floats, S_vv: Floats, S_vz: Floats, S_uu: Floats) -> None:
    """Add Cov(v) = C U C', Cov(v, s) = -C U and U, then empty the sum U."""
    D, n = CU.shape
    for i in range(D):
        for j in range(n):
            value = 0.0
            for k in range(n):
                value += C[i, k] * U[j, k]
            CU[i, j] = value
            S_vz[i, j] -= value
        for j in range(i + 1):
            value = 0.0
            for k in range(n):
                value += CU[i, k] * C[j, k]
            S_vv[i, j] += value
    for i in range(n):
        for j in range(n):
            S_uu[i, j] += U[i, j]
            U[i, j] = 0.0


@inlined
def _residual(t: int, y: Floats, C: Floats, d: Floats, mean: Floats, v: Floats) -> None:
    """Fill ``v`` with y - C mean - d; NaN where y is missing."""
    c, c0 = t * int(C.shape[0] > 1), t * int(d.shape[0] > 1)
    for k in range(v.shape[0]):
        value = y[t, k] - d[c0, k]
        for i in range(C.shape[2]):
            value -= C[c, k, i] * mean[t, i]
        v[k] = value


@part
def _complete(
    t: int, p: int, seen: Ints, C: Floats, R: Floats, residual: Floats, H: Floats,
    L: Floats, T: Floats, B: Floats, inverse: Floats, S_vv: Floats,
) -> None:  # fmt: skip
    """Fill the missing entries of the residual, and H, its slope against -s; add the noise of the missing ones.

    Given v_o, whatever the state, v_m ~ N(B' v_o, R_mm - R_mo B), B = inv(R_oo) R_om; R_oo may be singular.
    """
    D, n = H.shape
    c, r = t * int(C.shape[0] > 1), t * int(R.shape[0] > 1)
    for k in range(p):
        for i in range(n):
            H[seen[k], i] = C[c, seen[k], i]
        for j in range(k + 1):
            L[k, j] = R[r, seen[k], seen[j]]
        for j in range(D):
            T[k, j] = R[r, seen[k], j]
    cholesky(L, p, 4 * D * EPS, inverse)
    solve_lower(L, inverse, p, T)
    for k in range(p):
        for j in range(D):
            B[k, j] = T[k, j]
    solve_upper(L, inverse, p, B)
    for a in range(p, D):
        j = seen[a]
        residual[j] = 0.0
        for i in range(n):
            H[j, i] = 0.0
        for k in range(p):
            residual[j] += B[k, j] * residual[seen[k]]
            for i in range(n):
                H[j, i] += B[k, j] * C[c, seen[k], i]
        for m in range(p, D):
            value = R[r, j, seen[m]]
            for k in range(p):
                value -= T[k, j] * T[k, seen[m]]
            S_vv[j, seen[m]] += value
