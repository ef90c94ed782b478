"""Tiles of the passes over means: `ROWS` rows of one gain, along the last axis, so that they fill the vectors.

A tile holds consecutive rows of one sequence (`adjoint_rows`) or one row of each of many (`adjoint_lanes`). The stores
of these passes hold, for every tile, the predicted mean x (n, ROWS) above the innovation v (D, ROWS), which is 0 where
y is missing. Symbols as in adjoint.py.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.kernels._jit import bare, part_sums
from statespace_em.kernels.adjoint import inverse
from statespace_em.kernels.steady import ROWS, add_product


@bare
def loops(
    A: Floats, C: Floats, P_f: Floats, gain: Floats, whiten: Floats,
    F: Floats, G: Floats, Sinv: Floats, CS: Floats, PA: Floats, KA: Floats,
) -> None:  # fmt: skip
    """Fill F = A - A K C, G = A K, inv(S), C' inv(S), P_f A' and K' A'."""
    D, n = gain.shape
    inverse(whiten, Sinv)
    for i in range(n):
        for k in range(D):
            value, other = 0.0, 0.0
            for j in range(n):
                value += A[i, j] * gain[k, j]
            for h in range(D):
                other += C[h, i] * Sinv[h, k]
            G[i, k] = value
            KA[k, i] = value
            CS[i, k] = other
        for j in range(n):
            value, other = A[i, j], 0.0
            for k in range(D):
                value -= G[i, k] * C[k, j]
            for k in range(n):
                other += P_f[j, k] * A[i, k]
            F[i, j] = value
            PA[j, i] = other


@part_sums
def squares(whiten: Floats, v: Floats, z: Floats) -> float:
    """Sum of the squares of inv(L) v over the tile; ``z`` (ROWS,) is work space."""
    total = 0.0
    for k in range(v.shape[0]):
        for w in range(ROWS):
            z[w] = whiten[k, 0] * v[0, w]
        for h in range(1, k + 1):
            for w in range(ROWS):
                z[w] += whiten[k, h] * v[h, w]
        for w in range(ROWS):
            total += z[w] * z[w]
    return total


@bare
def smoothed_tile(gain: Floats, Sinv: Floats, PA: Floats, KA: Floats, x: Floats, v: Floats, all: Floats) -> None:
    """Fill u = inv(S) v - K' A' r and s = x + K v + P_f A' r below the future r in ``all`` (r, u, s, ...)."""
    D, n = gain.shape
    r, u, s = all[:n], all[n : n + D], all[n + D : n + D + n]
    for k in range(D):
        for w in range(ROWS):
            u[k, w] = 0.0
    add_product(1.0, Sinv, v, u)
    add_product(-1.0, KA, r, u)
    for i in range(n):
        for w in range(ROWS):
            s[i, w] = x[i, w]
        for k in range(D):
            factor = gain[k, i]
            for w in range(ROWS):
                s[i, w] += factor * v[k, w]
    add_product(1.0, PA, r, s)


@bare
def add_row(x: Floats, total: Floats) -> None:
    """Add the lower triangle of x x' of one vector."""
    for i in range(x.shape[0]):
        for j in range(i + 1):
            total[i, j] += x[i] * x[j]


@bare
def clear(x: Floats, m: int) -> None:
    """Put the columns of a tile from m on at 0."""
    for i in range(x.shape[0]):
        for w in range(m, ROWS):
            x[i, w] = 0.0


@bare
def measured(begin: int, y: Floats, d: Floats, m: int, v: Floats) -> None:
    """Fill ``v`` with y - d of m consecutive rows; 0 where y is missing, and beyond them."""
    varies = int(d.shape[0] > 1)
    for k in range(y.shape[1]):
        for w in range(m):
            value = y[begin + w, k] - d[(begin + w) * varies, k]
            v[k, w] = 0.0 if np.isnan(value) else value
    clear(v, m)
