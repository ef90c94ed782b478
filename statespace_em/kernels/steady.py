"""Rows in which a constant model has settled: every one has the same gain, and only the means still move.

The state then follows x[t + 1] = L x[t] + c[t]. That recursion goes row by row; all the rest is done for `ROWS` rows
at a time, in arrays with the rows along the last axis, so that it fills the vectors of the processor. Every column is
computed alike, whatever the number of rows: what is known at a time does not depend on what comes later by one bit.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import inlined, part, sums

ROWS = 64  # rows done together: their arrays stay in the nearest cache
# a step in time; as a number written where it is used, it would have what is called with it compiled twice
AHEAD = np.int64(1)


@inlined
def stretch(t: int, step: int, first: Bools, slot: Ints) -> int:
    """Count the rows from t on, forward or backward, that have settled and follow each other, at most `ROWS`."""
    m, last = 0, first.shape[0] - 1
    while m < ROWS and 0 < t + m * step <= last and not first[t + m * step]:
        if slot[t + m * step] != slot[t] or slot[t + m * step - 1] != slot[t]:
            break
        m += 1
    return m


@part
def residuals(t: int, step: int, m: int, y: Floats, d: Floats, v: Floats) -> None:
    """Fill ``v`` (D, ROWS) with y - d of m rows from row t on; 0 where y is missing."""
    varies = int(d.shape[0] > 1)
    for k in range(y.shape[1]):
        for w in range(m):
            row = t + w * step
            value = y[row, k] - d[row * varies, k]
            v[k, w] = 0.0 if np.isnan(value) else value
        for w in range(m, ROWS):
            v[k, w] = 0.0


@part
def add_product(sign: float, M: Floats, x: Floats, out: Floats) -> None:
    """Add ``sign`` M x to ``out``."""
    for i in range(M.shape[0]):
        for j in range(M.shape[1]):
            factor = sign * M[i, j]
            for w in range(ROWS):  # the compiler knows how many
                out[i, w] += factor * x[j, w]


@part
def follow(L: Floats, c: Floats, m: int, x: Floats) -> None:
    """Run x[:, w + 1] = L x[:, w] + c[:, w] from the first of m columns to the last."""
    n = L.shape[0]
    if n > 4:
        for w in range(m - 1):
            for i in range(n):
                value = c[i, w]
                for j in range(n):
                    value += L[i, j] * x[j, w]
                x[i, w + 1] = value
        return
    # in registers; of fewer than four states the last stands in for the others, without weight
    one, two, three = min(1, n - 1), min(2, n - 1), min(3, n - 1)
    is1, is2, is3 = float(min(1, n - 1)), float(min(1, max(0, n - 2))), float(min(1, max(0, n - 3)))
    L00, L01, L02, L03 = L[0, 0], is1 * L[0, one], is2 * L[0, two], is3 * L[0, three]
    L10, L11, L12, L13 = L[one, 0], is1 * L[one, one], is2 * L[one, two], is3 * L[one, three]
    L20, L21, L22, L23 = L[two, 0], is1 * L[two, one], is2 * L[two, two], is3 * L[two, three]
    L30, L31, L32, L33 = L[three, 0], is1 * L[three, one], is2 * L[three, two], is3 * L[three, three]
    x0, x1, x2, x3 = x[0, 0], x[one, 0], x[two, 0], x[three, 0]
    for w in range(m - 1):
        y0 = (c[0, w] + L00 * x0 + L01 * x1) + (L02 * x2 + L03 * x3)
        y1 = (c[one, w] + L10 * x0 + L11 * x1) + (L12 * x2 + L13 * x3)
        y2 = (c[two, w] + L20 * x0 + L21 * x1) + (L22 * x2 + L23 * x3)
        y3 = (c[three, w] + L30 * x0 + L31 * x1) + (L32 * x2 + L33 * x3)
        x0, x1, x2, x3 = y0, y1, y2, y3
        x[three, w + 1], x[two, w + 1], x[one, w + 1], x[0, w + 1] = x3, x2, x1, x0


@sums
def add_gram(x: Floats, total: Floats) -> None:
    """Add the lower triangle of x x'."""
    for i in range(x.shape[0]):
        for j in range(i + 1):
            value = 0.0
            for w in range(ROWS):
                value += x[i, w] * x[j, w]
            total[i, j] += value


@part
def filter_rows(
    t: int, m: int, y: Floats, b: Floats, C: Floats, d: Floats, gain: Floats, whiten: Floats, log_norm: float,
    L: Floats, G: Floats, predicted: Floats, filtered: Floats, log_likelihood: Floats, innovation: Floats,
    x: Floats, f: Floats, v: Floats, z: Floats,
) -> None:  # fmt: skip
    """Filter m rows of one gain from row t on, whose own prediction is known; see `kalman.filter_means`.

    L = A - A K C and G = A K lead from one prediction to the next; the last four are work space.
    """
    D, n = gain.shape
    varies = int(b.shape[0] > 1)
    residuals(t, AHEAD, m, y, d, v)
    for i in range(n):
        x[i, 0] = predicted[t, i]
        for w in range(m):
            f[i, w] = b[(t + w) * varies, i]
    add_product(1.0, G, v, f)
    follow(L, f, m, x)
    add_product(-1.0, C, x, v)
    for k in range(D):
        missing = np.isnan(y[t, k])
        for w in range(ROWS):
            v[k, w] = 0.0 if missing else v[k, w]
        if innovation.shape[0] > 0:
            for w in range(m):
                innovation[t + w, k] = np.nan if missing else v[k, w]
    for w in range(ROWS):
        z[0, w] = 0.0
    for k in range(D):
        for w in range(ROWS):
            z[1, w] = 0.0
        for h in range(k + 1):
            factor = whiten[k, h]
            for w in range(ROWS):
                z[1, w] += factor * v[h, w]
        for w in range(ROWS):
            z[0, w] += z[1, w] * z[1, w]
    for w in range(m):
        log_likelihood[t + w] = log_norm - 0.5 * z[0, w]
    for i in range(n):
        for w in range(ROWS):
            f[i, w] = x[i, w]
        for k in range(D):
            factor = gain[k, i]
            for w in range(ROWS):
                f[i, w] += factor * v[k, w]
    for w in range(m):
        for i in range(n):
            predicted[t + w, i] = x[i, w]
            filtered[t + w, i] = f[i, w]


@part
def closed_loop(A: Floats, C: Floats, gain: Floats, L: Floats, G: Floats) -> None:
    """Fill G = A K (n, D) and L = A - A K C."""
    D, n = gain.shape
    for i in range(n):
        for k in range(D):
            value = 0.0
            for j in range(n):
                value += A[i, j] * gain[k, j]
            G[i, k] = value
        for j in range(n):
            value = A[i, j]
            for k in range(D):
                value -= G[i, k] * C[k, j]
            L[i, j] = value
