"""Starts that are unknown along some directions: what the constants there do to states and rows (de Jong 1991).

The response of the state to the constants does not depend on the values of y, so it is worked out once for all the
sequences that a row stands for. Row t of sequence i is in tile ``tile[i] + t`` of a store if its column ``lane[i]`` is
not negative (adjoint_lanes.py), else in a tile of consecutive rows (adjoint_rows.py). Symbols, shapes and slots else
as in kalman.py and kalman_covariances.py.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import inlined, jit
from statespace_em.kernels._linalg import add_sparse
from statespace_em.kernels.steady import ROWS

GONE = 1e-20  # share of its largest response at which a state has forgotten how it began
TOLD = 1e-9  # least information on a constant, given those before it and in units of its stand-in, to look no farther


@jit
def columns(
    y: Floats, begins: Bools, slot: Ints, A: Floats, C: Floats, gain: Floats, whiten: Floats, B: Floats, known: Floats,
    before: Floats, W: Floats, gram: Floats, reach: Ints, end: Floats, largest: Floats,
) -> None:  # fmt: skip
    """Fill the predicted response ``W`` (N, n, q), and ``gram`` (N, q, q), the information up to and with every row.

    The response in the first row of a sequence is ``B`` (n, q), ``known`` (q, q) what is known before it, and
    ``before`` (n,) the largest response of every state until then. Where all states have forgotten how they began, and
    the constants are told, a sequence has no entries any more: that of its first row in ``reach`` (N,) gets the number
    of rows that have. ``end`` (n, q) gets the response after the last row, 0 where it is gone, ``largest`` (n,) the
    largest.
    """
    N, D = y.shape
    n, q = B.shape
    E, H, s, L = np.empty((D, q)), np.empty((D, q)), np.empty((n, q)), np.empty((q, q))
    begin, gone = 0, False
    for t in range(N):
        a, c, f = t * int(A.shape[0] > 1), t * int(C.shape[0] > 1), slot[t]
        if t == 0 or begins[t]:
            begin, gone, reach[t] = t, False, 0
            for i in range(n):
                largest[i] = before[i]
                for j in range(q):
                    end[i, j] = B[i, j]
        gone = gone or (_faded(end, largest) and _told(known if t == begin else gram[t - 1], L))
        if gone:
            continue
        reach[begin] += 1
        for i in range(n):
            for j in range(q):
                W[t, i, j] = end[i, j]
        _responses(y, t, C[c], end, E)
        for k in range(D):
            for j in range(q):
                value = 0.0
                for h in range(k + 1):
                    value += whiten[f, k, h] * E[h, j]
                H[k, j] = value
        for i in range(n):
            for j in range(q):
                s[i, j], end[i, j] = end[i, j], 0.0
            for k in range(D):
                for j in range(q):
                    s[i, j] -= gain[f, k, i] * E[k, j]
        for i in range(q):
            for j in range(q):
                value = known[i, j] if t == begin else gram[t - 1, i, j]
                for k in range(D):
                    value += H[k, i] * H[k, j]
                gram[t, i, j] = value
        add_sparse(A[a], s, end)
    if gone:
        for i in range(n):
            for j in range(q):
                end[i, j] = 0.0


@inlined
def _faded(response: Floats, largest: Floats) -> bool:
    """Whether every state responds far less than it has; note the largest responses."""
    faded = True
    for i in range(response.shape[0]):
        size = 0.0
        for j in range(response.shape[1]):
            size = max(size, abs(response[i, j]))
        largest[i] = max(largest[i], size)
        faded = faded and size <= GONE * largest[i]
    return faded


@inlined
def _told(gram: Floats, L: Floats) -> bool:
    """Whether what is known of every constant, given those before it, is enough: pivots of Cholesky's factor."""
    for j in range(gram.shape[0]):
        for i in range(j, gram.shape[0]):
            value = gram[i, j]
            for k in range(j):
                value -= L[i, k] * L[j, k]
            if i == j:
                if not value > TOLD:
                    return False
                L[j, j] = np.sqrt(value)
            else:
                L[i, j] = value / L[j, j]
    return True


@inlined
def _responses(y: Floats, t: int, C: Floats, W: Floats, E: Floats) -> None:
    """Fill E = C W, 0 where y is missing."""
    for k in range(C.shape[0]):
        for j in range(W.shape[1]):
            E[k, j] = 0.0
        if not np.isnan(y[t, k]):
            for i in range(C.shape[1]):
                if C[k, i] != 0.0:
                    for j in range(W.shape[1]):
                        E[k, j] += C[k, i] * W[i, j]


@jit
def cross_sums(
    y: Floats, begin: Ints, length: Ints, offset: Ints, tile: Ints, lane: Ints, slot: Ints, C: Floats, whiten: Floats,
    W: Floats, store: Floats, cross: Floats,
) -> None:  # fmt: skip
    """Add E' inv(S) v of all rows of sequence i to ``cross[i]`` (q,); given constants x the innovation is v - E x."""
    D, n, q = whiten.shape[1], W.shape[1], W.shape[2]
    E = np.empty((D, q))
    for i in range(begin.shape[0]):
        for t in range(length[i]):
            at, w = (tile[i] + t, lane[i]) if lane[i] >= 0 else (tile[i] + t // ROWS, t % ROWS)
            f, row = slot[offset[i] + t], begin[i] + t
            _responses(y, row, C[row * int(C.shape[0] > 1)], W[offset[i] + t], E)
            for k in range(D):
                value = 0.0
                for h in range(k + 1):
                    value += whiten[f, k, h] * store[at, n + h, w]
                for j in range(q):
                    other = 0.0
                    for h in range(k + 1):
                        other += whiten[f, k, h] * E[h, j]
                    cross[i, j] += other * value


@jit
def shift(
    y: Floats, begin: Ints, length: Ints, offset: Ints, tile: Ints, lane: Ints, C: Floats, W: Floats, x: Floats,
    store: Floats,
) -> None:  # fmt: skip
    """Add to predictions and innovations in the store what constants ``x`` (S, q) do to them."""
    D, n, q = C.shape[1], W.shape[1], W.shape[2]
    for i in range(begin.shape[0]):
        for t in range(length[i]):
            at, w = (tile[i] + t, lane[i]) if lane[i] >= 0 else (tile[i] + t // ROWS, t % ROWS)
            row = begin[i] + t
            c = row * int(C.shape[0] > 1)
            for h in range(n):
                moved = 0.0
                for j in range(q):
                    moved += W[offset[i] + t, h, j] * x[i, j]
                store[at, h, w] += moved
                for k in range(D):
                    if not np.isnan(y[row, k]):
                        store[at, n + k, w] -= C[c, k, h] * moved


@jit
def responses(y: Floats, first: Bools, A: Floats, C: Floats, B: Floats, weight: Floats, total: Floats) -> None:
    """Add to ``total`` (q,) the squared response of the entries seen to the constants, weighted by feature (D,)."""
    N, D = y.shape
    n, q = B.shape
    s, moved, E = np.zeros((n, q)), np.zeros((n, q)), np.zeros((D, q))
    for t in range(N):
        a, c = (t - 1) * int(A.shape[0] > 1), t * int(C.shape[0] > 1)
        for i in range(n):
            for j in range(q):
                moved[i, j] = B[i, j] if first[t] else 0.0
        if not first[t]:
            add_sparse(A[a], s, moved)
        for i in range(n):
            for j in range(q):
                s[i, j] = moved[i, j]
        _responses(y, t, C[c], s, E)
        for k in range(D):
            for j in range(q):
                total[j] += weight[k] * E[k, j] * E[k, j]
