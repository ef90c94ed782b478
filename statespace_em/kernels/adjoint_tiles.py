"""Tiles of the passes over means: `ROWS` rows of one gain, along the last axis, so that they fill the vectors.

A tile holds consecutive rows of one sequence (`adjoint_rows`) or one row of each of many (`adjoint_lanes`). The stores
of these passes hold, for every tile, the predicted mean x (n, ROWS) above the innovation v (D, ROWS), which is 0 where
y is missing. Symbols as in adjoint.py.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.kernels._jit import bare, inlined, sums
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


@sums
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


@inlined
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


@bare
def follow_back(L: Floats, c: Floats, m: int, x: Floats) -> None:
    """Run x[:, w - 1] = L x[:, w] + c[:, w] from the last of m columns to the first."""
    n = L.shape[0]
    if n > 4:
        for w in range(m - 1, 0, -1):
            for i in range(n):
                value = c[i, w]
                for j in range(n):
                    value += L[i, j] * x[j, w]
                x[i, w - 1] = value
        return
    # in registers; of fewer than four states the last stands in for the others, without weight
    one, two, three = min(1, n - 1), min(2, n - 1), min(3, n - 1)
    is1, is2, is3 = float(min(1, n - 1)), float(min(1, max(0, n - 2))), float(min(1, max(0, n - 3)))
    L00, L01, L02, L03 = L[0, 0], is1 * L[0, one], is2 * L[0, two], is3 * L[0, three]
    L10, L11, L12, L13 = L[one, 0], is1 * L[one, one], is2 * L[one, two], is3 * L[one, three]
    L20, L21, L22, L23 = L[two, 0], is1 * L[two, one], is2 * L[two, two], is3 * L[two, three]
    L30, L31, L32, L33 = L[three, 0], is1 * L[three, one], is2 * L[three, two], is3 * L[three, three]
    x0, x1, x2, x3 = x[0, m - 1], x[one, m - 1], x[two, m - 1], x[three, m - 1]
    for w in range(m - 1, 0, -1):
        y0 = (c[0, w] + L00 * x0 + L01 * x1) + (L02 * x2 + L03 * x3)
        y1 = (c[one, w] + L10 * x0 + L11 * x1) + (L12 * x2 + L13 * x3)
        y2 = (c[two, w] + L20 * x0 + L21 * x1) + (L22 * x2 + L23 * x3)
        y3 = (c[three, w] + L30 * x0 + L31 * x1) + (L32 * x2 + L33 * x3)
        x0, x1, x2, x3 = y0, y1, y2, y3
        x[three, w - 1], x[two, w - 1], x[one, w - 1], x[0, w - 1] = x3, x2, x1, x0
