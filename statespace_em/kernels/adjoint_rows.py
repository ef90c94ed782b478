"""Means of the E-step, one sequence after another: rows that have settled tile by tile, others row by row.

Sequence i is the rows ``begin[i] .. begin[i] + length[i] - 1`` of y, and its slots are those from ``offset[i]`` on,
of a sequence that has the same entries missing. Its tiles lie in the store (tiles, n + D, ROWS) from ``tile[i]`` on,
see adjoint_tiles.py.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.kernels._jit import bare, inlined, jit
from statespace_em.kernels.adjoint import inverse, see
from statespace_em.kernels.adjoint_tiles import add_row, clear, loops, measured, smoothed_tile, squares
from statespace_em.kernels.steady import AHEAD, BACK, ROWS, add_gram, add_product, follow


@inlined
def _settled(t: int, m: int, slot: Ints) -> bool:
    """Whether m rows from t on have one slot; the history that a slot stands for is never met again later."""
    return m > 1 and slot[t] == slot[t + m - 1]


@inlined
def _equal(row: int, m: int, of: Ints) -> bool:
    """Whether m rows have one number; there is one entry where all have."""
    same = True
    for t in range(row + 1, row + m if of.shape[0] > 1 else row):
        same = same and of[t] == of[row]
    return same


@bare
def _add_steps(r: Floats, s: Floats, by_A: Floats, by_Q: Floats) -> None:
    """Add r s' and r r' of the columns of a tile."""
    for j in range(by_A.shape[0]):
        for k in range(by_A.shape[1]):
            for w in range(ROWS):
                by_A[j, k] += r[j, w] * s[k, w]
                by_Q[j, k] += r[j, w] * r[k, w]


@jit
def forward_rows(
    y: Floats, begin: Ints, length: Ints, offset: Ints, tile: Ints, slot: Ints, A: Floats, b: Floats, C: Floats,
    d: Floats, m0: Floats, filtered_cov: Floats, gain: Floats, whiten: Floats, log_norm: Floats,
    store: Floats, log_likelihood: Floats, end: Floats,
) -> None:  # fmt: skip
    """Fill the store, the log-likelihood (S,) of every sequence in nats, and the state predicted after the last."""
    D, n = gain.shape[1], m0.shape[0]
    varies, a_varies, c_varies = int(b.shape[0] > 1), int(A.shape[0] > 1), int(C.shape[0] > 1)
    F, G, Sinv, CS = np.empty((n, n)), np.empty((n, D)), np.empty((D, D)), np.empty((n, D))
    PA, KA, c, z = np.empty((n, n)), np.empty((D, n)), np.empty((n, ROWS)), np.empty(ROWS)
    x, f = np.empty(n), np.empty(n)
    known = -1
    for i in range(begin.shape[0]):
        for j in range(n):  # by hand: an assignment of arrays takes longer to compile than all of the rest
            x[j] = m0[j]
        total = 0.0
        for t in range(0, length[i], ROWS):
            m, row, s = min(ROWS, length[i] - t), begin[i] + t, slot[offset[i] + t]
            X, V = store[tile[i] + t // ROWS][:n], store[tile[i] + t // ROWS][n:]
            if not _settled(offset[i] + t, m, slot):
                for w in range(m):
                    total += _filter_row(
                        row + w, w, slot[offset[i] + t + w], y, A, b, C, d, gain, whiten, log_norm, x, f, X, V
                    )
                continue
            own_C = C[row * c_varies]
            if s != known:
                loops(A[row * a_varies], own_C, filtered_cov[s], gain[s], whiten[s], F, G, Sinv, CS, PA, KA)
                known = s
            measured(row, y, d, m, V)
            for j in range(n):
                for w in range(m):
                    c[j, w] = b[(row + w) * varies, j]
            clear(c, m)
            add_product(1.0, G, V, c)
            for j in range(n):
                X[j, 0] = x[j]
            follow(F, c, m, AHEAD, X)
            for j in range(n):
                value = c[j, m - 1]
                for k in range(n):
                    value += F[j, k] * X[k, m - 1]
                x[j] = value
            clear(X, m)
            add_product(-1.0, own_C, X, V)
            for k in range(D):
                if np.isnan(y[row, k]):
                    for w in range(ROWS):
                        V[k, w] = 0.0
            total += m * log_norm[s] - 0.5 * squares(whiten[s], V, z)
        log_likelihood[i] = total
    for j in range(n):
        end[j] = x[j]


@inlined
def _filter_row(
    row: int, w: int, s: int, y: Floats, A: Floats, b: Floats, C: Floats, d: Floats,
    gain: Floats, whiten: Floats, log_norm: Floats, x: Floats, f: Floats, X: Floats, V: Floats,
) -> float:  # fmt: skip
    """Put prediction and innovation of a row into column w, lead ``x`` to the next; return the log-likelihood."""
    D, n = gain.shape[1], x.shape[0]
    a, e = row * int(A.shape[0] > 1), row * int(b.shape[0] > 1)
    c, c0 = row * int(C.shape[0] > 1), row * int(d.shape[0] > 1)
    for i in range(n):
        X[i, w] = x[i]
        f[i] = x[i]
    square = 0.0
    for k in range(D):
        value = y[row, k] - d[c0, k]
        for i in range(n):
            value -= C[c, k, i] * x[i]
        value = 0.0 if np.isnan(value) else value
        V[k, w] = value
        for i in range(n):
            f[i] += gain[s, k, i] * value
        value = 0.0
        for h in range(k + 1):
            value += whiten[s, k, h] * V[h, w]
        square += value * value
    for i in range(n):
        value = b[e, i]
        for j in range(n):
            value += A[a, i, j] * f[j]
        x[i] = value
    return log_norm[s] - 0.5 * square


@jit
def backward_rows(
    y: Floats, begin: Ints, length: Ints, offset: Ints, tile: Ints, kind: Ints, slot: Ints, A: Floats, C: Floats,
    U: Floats, block: Ints, filtered_cov: Floats, gain: Floats, whiten: Floats, one: float, goes_on: bool,
    store: Floats, r: Floats, total: Floats, ends: Floats, unseen: Floats, g_m0: Floats, g_P0: Floats,
    step: Ints, by_A: Floats, by_Q: Floats,
) -> None:  # fmt: skip
    """Add (r, u, z) (r, u, z)' of all rows to the lower triangle of ``total[kind]``, with z = (s, one, one * inputs).

    ``ends[kind]`` gets z z' of the last rows of sequences alone, ``unseen[kind, j]`` that of the rows without an entry
    of the features of block j; row t is of kind ``kind[t]`` (one entry: all are alike). Where a sequence ``goes_on``
    behind its last row, ``r`` is what comes from there; afterwards it is that at the first row. ``g_m0`` and ``g_P0``
    get it and its outer product, unless the first row is not where the sequence begins: ``g_m0`` then has no entries.
    Entry ``step[t]`` of ``by_A`` and ``by_Q`` gets r s' and r r' of row t, unless they have no entries: not wanted.
    """
    D, n = gain.shape[1], r.shape[0]
    p = total.shape[1]
    a_varies, c_varies, k_varies, by_step = (
        int(A.shape[0] > 1), int(C.shape[0] > 1), int(kind.shape[0] > 1), by_A.shape[0] > 0
    )  # fmt: skip
    F, G, Sinv, CS, Ft = np.empty((n, n)), np.empty((n, D)), np.empty((D, D)), np.empty((n, D)), np.empty((n, n))
    PA, KA, c, all, one_row = (
        np.empty((n, n)), np.empty((D, n)), np.empty((n, ROWS)), np.zeros((p, ROWS)), np.zeros(p)
    )  # fmt: skip
    z, z_row = all[n + D :], one_row[n + D :]
    back, seen = np.empty(n), np.empty(unseen.shape[1], np.bool_)
    known = -1
    for i in range(begin.shape[0] - 1, -1, -1):
        if not goes_on:
            for j in range(n):
                r[j] = 0.0
        for t in range((length[i] - 1) // ROWS * ROWS, -1, -ROWS):
            m, row, s = min(ROWS, length[i] - t), begin[i] + t, slot[offset[i] + t]
            X, V = store[tile[i] + t // ROWS][:n], store[tile[i] + t // ROWS][n:]
            last = t + m == length[i] and not goes_on
            tiled = _settled(offset[i] + t, m, slot) and _equal(row, m, kind) and (not by_step or _equal(row, m, step))
            if not tiled:
                for w in range(m - 1, -1, -1):
                    s = slot[offset[i] + t + w]
                    if s != known:
                        inverse(whiten[s], Sinv)
                        known = -1
                    _smooth_row(row + w, w, s, A, C, U, filtered_cov, gain, Sinv, one, X, V, r, back, one_row)
                    if by_step:
                        for j in range(n):
                            for k in range(n):
                                by_A[step[row + w], j, k] += one_row[j] * one_row[n + D + k]
                                by_Q[step[row + w], j, k] += one_row[j] * one_row[k]
                    own = kind[(row + w) * k_varies]
                    add_row(one_row, total[own])
                    if last and w == m - 1:
                        add_row(z_row, ends[own])
                    if not see(row + w, y, block, seen):
                        for j in range(seen.shape[0]):
                            if not seen[j]:
                                add_row(z_row, unseen[own, j])
                continue
            if s != known:
                loops(A[row * a_varies], C[row * c_varies], filtered_cov[s], gain[s], whiten[s], F, G, Sinv, CS, PA, KA)
                known = s
                for j in range(n):
                    for k in range(n):
                        Ft[j, k] = F[k, j]
            clear(c, 0)
            add_product(1.0, CS, V, c)
            clear(all, m)
            for j in range(n):
                all[j, m - 1] = r[j]
            follow(Ft, c, m, BACK, all)
            for j in range(n):
                value = c[j, 0]
                for k in range(n):
                    value += Ft[j, k] * all[k, 0]
                r[j] = value
            smoothed_tile(gain[s], Sinv, PA, KA, X, V, all)
            _regress(row, m, one, U, all, 2 * n + D)
            own = kind[row * k_varies]
            add_gram(all, total[own])
            if by_step:
                _add_steps(all, z, by_A[step[row]], by_Q[step[row]])
            if last:
                for j in range(p):
                    one_row[j] = all[j, m - 1]
                add_row(z_row, ends[own])
            if not see(row, y, block, seen):
                for j in range(seen.shape[0]):
                    if not seen[j]:
                        add_gram(z, unseen[own, j])
        for j in range(g_m0.shape[0]):
            g_m0[j] += one * r[j]
            for k in range(n):
                g_P0[j, k] += r[j] * r[k]


@bare
def _regress(row: int, m: int, one: float, U: Floats, all: Floats, at: int) -> None:
    """Fill the constant regressor and the inputs of m consecutive rows."""
    for w in range(m):
        all[at, w] = one
    for k in range(U.shape[1]):
        for w in range(m):
            all[at + 1 + k, w] = one * U[row + w, k]


@inlined
def _smooth_row(
    row: int, w: int, s: int, A: Floats, C: Floats, U: Floats, filtered_cov: Floats, gain: Floats, Sinv: Floats,
    one: float, X: Floats, V: Floats, r: Floats, back: Floats, all: Floats,
) -> None:  # fmt: skip
    """Fill ``all`` with r, u, s, one and the inputs of a row, and lead ``r`` back over it."""
    D, n = gain.shape[1], r.shape[0]
    a, c = row * int(A.shape[0] > 1), row * int(C.shape[0] > 1)
    for i in range(n):
        all[i] = r[i]
        value = 0.0
        for j in range(n):
            value += A[a, j, i] * r[j]
        back[i] = value
    for k in range(D):
        value = 0.0
        for h in range(D):
            value += Sinv[k, h] * V[h, w]
        for i in range(n):
            value -= gain[s, k, i] * back[i]
        all[n + k] = value
    for i in range(n):
        value = X[i, w]
        for k in range(D):
            value += gain[s, k, i] * V[k, w]
        for j in range(n):
            value += filtered_cov[s, i, j] * back[j]
        all[n + D + i] = value
        value = back[i]
        for k in range(D):
            value += C[c, k, i] * all[n + k]
        r[i] = value
    all[2 * n + D] = one
    for k in range(U.shape[1]):
        all[2 * n + D + 1 + k] = one * U[row, k]
