"""Means of the E-step of many sequences side by side, those that have the same entries missing.

Up to `ROWS` sequences share every step in time, and with it the gain; they are ordered by their lengths, the longest
first. There may be several such groups: number j is of the sequences ``group[j] .. group[j + 1] - 1``. The tiles of a
group lie in the store from that of its first sequence on, the rows t of all in one tile; sequences and tiles else as
in adjoint_rows.py.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import inlined, jit, part
from statespace_em.kernels.adjoint import see
from statespace_em.kernels.adjoint_tiles import clear, loops, smoothed_tile, squares
from statespace_em.kernels.steady import ROWS, add_gram, add_product


@jit
def closed_loops(
    slot: Ints, A: Floats, C: Floats, filtered_cov: Floats, gain: Floats, whiten: Floats,
    F: Floats, G: Floats, Sinv: Floats, CS: Floats, PA: Floats, KA: Floats,
) -> None:  # fmt: skip
    """Fill what the steps need for every slot up to the highest, with the transpose of F; see `loops`."""
    n = A.shape[1]
    work = np.empty((n, n))
    for s in range(slot.max() + 1):
        loops(A[0], C[0], filtered_cov[s], gain[s], whiten[s], work, G[s], Sinv[s], CS[s], PA[s], KA[s])
        for i in range(n):
            for j in range(n):
                F[s, i, j] = work[j, i]


@inlined
def _going(t: int, m: int, length: Ints) -> int:
    """Count the sequences that have a row t, of m that had one before it."""
    while m > 0 and length[m - 1] <= t:
        m -= 1
    return m


@jit
def forward_lanes(
    y: Floats, begins: Ints, lengths: Ints, offset: Ints, tile: Ints, group: Ints, slot: Ints, A: Floats, b: Floats,
    C: Floats, d: Floats, m0: Floats, gain: Floats, whiten: Floats, log_norm: Floats, G: Floats,
    stores: Floats, log_likelihood: Floats,
) -> None:  # fmt: skip
    """Fill the store, and the log-likelihood of every group in nats."""
    z = np.empty(ROWS)
    for j in range(group.shape[0] - 1):
        first, end = group[j], group[j + 1]
        log_likelihood[j] = _forward_group(
            y, begins[first:end], lengths[first:end], offset[first], slot, A, b, C, d, m0, gain, whiten, log_norm, G,
            stores[tile[first] :], z,
        )  # fmt: skip


@part
def _forward_group(
    y: Floats, begin: Ints, length: Ints, offset: int, slot: Ints, A: Floats, b: Floats, C: Floats, d: Floats,
    m0: Floats, gain: Floats, whiten: Floats, log_norm: Floats, G: Floats, store: Floats, z: Floats,
) -> float:  # fmt: skip
    D, n = gain.shape[1], m0.shape[0]
    varies, b_varies = int(d.shape[0] > 1), int(b.shape[0] > 1)
    m, total = begin.shape[0], 0.0
    for i in range(n):
        for w in range(ROWS):
            store[0, i, w] = m0[i] if w < m else 0.0
    for t in range(length[0]):
        m = _going(t, m, length)
        X, V, s = store[t][:n], store[t][n:], slot[offset + t]
        clear(X, m)
        for k in range(D):
            missing = np.isnan(y[begin[0] + t, k])
            for w in range(m):
                row = begin[w] + t
                V[k, w] = 0.0 if missing else y[row, k] - d[row * varies, k]
        clear(V, m)
        add_product(-1.0, C[0], X, V)
        for k in range(D):
            if np.isnan(y[begin[0] + t, k]):
                for w in range(ROWS):
                    V[k, w] = 0.0
        total += m * log_norm[s] - 0.5 * squares(whiten[s], V, z)
        if t + 1 < length[0]:
            ahead = store[t + 1][:n]
            for i in range(n):
                for w in range(ROWS):
                    ahead[i, w] = b[0, i]
                if b_varies:
                    for w in range(m):
                        ahead[i, w] = b[begin[w] + t, i]
            add_product(1.0, A[0], X, ahead)
            add_product(1.0, G[s], V, ahead)
    return total


@jit
def backward_lanes(
    y: Floats, begins: Ints, lengths: Ints, offset: Ints, tile: Ints, group: Ints, slot: Ints, U: Floats, block: Ints,
    gain: Floats, F: Floats, Sinv: Floats, CS: Floats, PA: Floats, KA: Floats, one: float, stores: Floats,
    total: Floats, ends: Floats, unseen: Floats, g_m0: Floats, g_P0: Floats,
) -> None:  # fmt: skip
    """Add (r, u, z) (r, u, z)' of all rows, which are of one kind, to ``total[0]``; else as `backward_rows`."""
    n, p = g_m0.shape[0], total.shape[1]
    all, ended, r = np.zeros((p, ROWS)), np.zeros((ends.shape[1], ROWS)), np.zeros((n, ROWS))
    seen = np.zeros(unseen.shape[1], np.bool_)
    for j in range(group.shape[0] - 1):
        first, end = group[j], group[j + 1]
        all[:] = 0.0
        r[:] = 0.0
        _backward_group(
            y, begins[first:end], lengths[first:end], offset[first], slot, U, block, gain, F, Sinv, CS, PA, KA, one,
            stores[tile[first] :], total[0], ends[0], unseen[0], g_m0, g_P0, all, ended, r, seen,
        )  # fmt: skip


@part
def _backward_group(
    y: Floats, begin: Ints, length: Ints, offset: int, slot: Ints, U: Floats, block: Ints, gain: Floats,
    F: Floats, Sinv: Floats, CS: Floats, PA: Floats, KA: Floats, one: float, store: Floats,
    total: Floats, ends: Floats, unseen: Floats, g_m0: Floats, g_P0: Floats,
    all: Floats, ended: Floats, r: Floats, seen: Bools,
) -> None:  # fmt: skip
    D, n = gain.shape[1], g_m0.shape[0]
    at, m = 2 * n + D, 0
    for t in range(length[0] - 1, -1, -1):
        before = m
        while m < length.shape[0] and length[m] > t:
            m += 1
        s = slot[offset + t]
        X, V = store[t][:n], store[t][n:]
        for i in range(n):
            for w in range(ROWS):
                all[i, w] = r[i, w]
        smoothed_tile(gain[s], Sinv[s], PA[s], KA[s], X, V, all)
        for w in range(before, m):
            all[at, w] = one
        for k in range(U.shape[1]):
            for w in range(m):
                all[at + 1 + k, w] = one * U[begin[w] + t, k]
        add_gram(all, total)
        if before < m:
            ended[:] = 0.0
            for i in range(ended.shape[0]):
                for w in range(before, m):
                    ended[i, w] = all[n + D + i, w]
            add_gram(ended, ends)
        see(begin[0] + t, y, block, seen)
        for j in range(seen.shape[0]):
            if not seen[j]:
                add_gram(all[n + D :], unseen[j])
        r[:] = 0.0
        add_product(1.0, CS[s], V, r)
        add_product(1.0, F[s], all[:n], r)
    for i in range(n):
        for w in range(m):
            g_m0[i] += one * r[i, w]
        for j in range(n):
            for w in range(m):
                g_P0[i, j] += r[i, w] * r[j, w]
