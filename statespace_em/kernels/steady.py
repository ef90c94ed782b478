"""Rows in which a constant model has settled: every one has the same gain, and only the means still move.

The state then follows x[t + 1] = L x[t] + c[t]. That recursion goes row by row; all the rest is done for `ROWS` rows
at a time, in arrays with the rows along the last axis, so that it fills the vectors of the processor. Every column is
computed alike, whatever the number of rows: what is known at a time does not depend on what comes later by one bit.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import bare, inlined, part, part_sums

ROWS = 64  # rows done together: their arrays stay in the nearest cache
# steps in time; as numbers written where they are used, they would have what is called with them compiled twice
AHEAD, BACK = np.int64(1), np.int64(-1)


@inlined
def stretch(t: int, step: int, first: Bools, slot: Ints) -> int:
    """Count the rows from t on, forward or backward, that have settled and follow each other, at most `ROWS`."""
    last, s, begin = first.shape[0] - 1, slot[t], min(t, t + (ROWS - 1) * step)
    if begin > 0 and begin + ROWS <= last + 1 and slot[begin - 1] == s:
        other = np.int64(0)
        for w in range(begin, begin + ROWS):  # without a way out, so that the compiler takes several at once
            other |= (slot[w] ^ s) | np.int64(first[w])
        if other == 0:
            return ROWS
    m = 0
    while m < ROWS and 0 < t + m * step <= last and not first[t + m * step]:
        if slot[t + m * step] != s or slot[t + m * step - 1] != s:
            break
        m += 1
    return m


@inlined
def residuals(t: int, m: int, y: Floats, d: Floats, v: Floats) -> None:
    """Fill ``v`` (D, ROWS) with y - d of m rows of equal gaps from row t on; 0 where y is missing."""
    varies = int(d.shape[0] > 1)
    for k in range(y.shape[1]):
        seen = 0 if np.isnan(y[t, k]) else m
        for w in range(seen):
            v[k, w] = y[t + w, k] - d[(t + w) * varies, k]
        for w in range(seen, ROWS):
            v[k, w] = 0.0


@inlined
def write_rows(x: Floats, t: int, m: int, out: Floats) -> None:
    """Fill m rows of ``out`` (N, n) from row t on with the columns of ``x`` (n, ROWS)."""
    n = out.shape[1]
    flat = out.reshape(out.size)[n * t : n * (t + m)]
    if n == 4:  # in the commonest shape the compiler knows how far rows are apart, and takes several at once
        for w in range(m):
            flat[4 * w], flat[4 * w + 1], flat[4 * w + 2], flat[4 * w + 3] = x[0, w], x[1, w], x[2, w], x[3, w]
    else:
        for w in range(m):
            for i in range(n):
                flat[n * w + i] = x[i, w]


@bare
def add_product(sign: float, M: Floats, x: Floats, out: Floats) -> None:
    """Add ``sign`` M x to ``out``."""
    _add_product(sign, M, x, out)


@inlined
def _add_product(sign: float, M: Floats, x: Floats, out: Floats) -> None:
    """Add ``sign`` M x to ``out``, without a call; two columns of M at a time, which halves the passes over it."""
    n, even = M.shape[0], M.shape[1] // 2 * 2
    for i in range(n):
        for j in range(0, even, 2):
            a, b = sign * M[i, j], sign * M[i, j + 1]
            for w in range(ROWS):  # the compiler knows how many
                out[i, w] = (out[i, w] + a * x[j, w]) + b * x[j + 1, w]
        for j in range(even, M.shape[1]):
            a = sign * M[i, j]
            for w in range(ROWS):
                out[i, w] += a * x[j, w]


@bare
def follow(L: Floats, c: Floats, m: int, step: int, x: Floats) -> None:
    """Run x[:, w + step] = L x[:, w] + c[:, w] over m columns, `AHEAD` from the first or `BACK` from the last."""
    n = L.shape[0]
    w = 0 if step > 0 else m - 1
    if n > 4:
        for _ in range(m - 1):
            for i in range(n):
                value = c[i, w]
                for j in range(n):
                    value += L[i, j] * x[j, w]
                x[i, w + step] = value
            w += step
        return
    # in registers; of fewer than four states the last stands in for the others, without weight
    one, two, three = min(1, n - 1), min(2, n - 1), min(3, n - 1)
    is1, is2, is3 = float(min(1, n - 1)), float(min(1, max(0, n - 2))), float(min(1, max(0, n - 3)))
    L00, L01, L02, L03 = L[0, 0], is1 * L[0, one], is2 * L[0, two], is3 * L[0, three]
    L10, L11, L12, L13 = L[one, 0], is1 * L[one, one], is2 * L[one, two], is3 * L[one, three]
    L20, L21, L22, L23 = L[two, 0], is1 * L[two, one], is2 * L[two, two], is3 * L[two, three]
    L30, L31, L32, L33 = L[three, 0], is1 * L[three, one], is2 * L[three, two], is3 * L[three, three]
    x0, x1, x2, x3 = x[0, w], x[one, w], x[two, w], x[three, w]
    for _ in range(m - 1):
        y0 = (c[0, w] + L00 * x0 + L01 * x1) + (L02 * x2 + L03 * x3)
        y1 = (c[one, w] + L10 * x0 + L11 * x1) + (L12 * x2 + L13 * x3)
        y2 = (c[two, w] + L20 * x0 + L21 * x1) + (L22 * x2 + L23 * x3)
        y3 = (c[three, w] + L30 * x0 + L31 * x1) + (L32 * x2 + L33 * x3)
        x0, x1, x2, x3 = y0, y1, y2, y3
        w += step
        x[three, w], x[two, w], x[one, w], x[0, w] = x3, x2, x1, x0


@part_sums
def add_gram(x: Floats, total: Floats) -> None:
    """Add the lower triangle of x x'."""
    for i in range(x.shape[0]):
        for j in range(i + 1):
            value = 0.0
            for w in range(ROWS):
                value += x[i, w] * x[j, w]
            total[i, j] += value


@inlined
def filter_rows(
    t: int, m: int, y: Floats, b: Floats, C: Floats, d: Floats, K: Floats, whiten: Floats, log_norm: float,
    L: Floats, G: Floats, predicted: Floats, filtered: Floats, log_likelihood: Floats, innovation: Floats,
    x: Floats, f: Floats, v: Floats,
) -> None:  # fmt: skip
    """Filter m rows of one gain K (n, D) from row t on, whose own prediction is known; see `kalman.filter_means`.

    L = A - A K C and G = A K lead from one prediction to the next; the last three are work space.
    """
    n, D = K.shape
    residuals(t, m, y, d, v)
    for i in range(n):
        x[i, 0] = predicted[t, i]
    fill_rows(b, t, m, f)
    _add_product(1.0, G, v, f)
    follow(L, f, m, AHEAD, x)
    _add_product(-1.0, C, x, v)
    if innovation.shape[0] > 0:
        write_rows(v, t, m, innovation)
    for k in range(D):
        if np.isnan(y[t, k]):
            for w in range(ROWS):
                v[k, w] = 0.0
            if innovation.shape[0] > 0:
                for w in range(m):
                    innovation[t + w, k] = np.nan
    for i in range(n):
        for w in range(ROWS):
            f[i, w] = x[i, w]
    _add_product(1.0, K, v, f)
    write_rows(x, t, m, predicted)
    write_rows(f, t, m, filtered)
    _densities(log_norm, whiten, v, t, m, log_likelihood)


@inlined
def fill_rows(rows: Floats, t: int, m: int, out: Floats) -> None:
    """Fill ``out`` (n, ROWS) with the one row there is, or m of them from row t on."""
    for i in range(out.shape[0]):
        if rows.shape[0] > 1:
            for w in range(m):
                out[i, w] = rows[t + w, i]
        else:
            for w in range(ROWS):
                out[i, w] = rows[0, i]


@inlined
def _densities(log_norm: float, whiten: Floats, v: Floats, t: int, m: int, out: Floats) -> None:
    """Fill ``out`` from row t on with the log densities of m innovations; whitens them (from the left, in place)."""
    D = v.shape[0]
    for k in range(D - 1, -1, -1):
        scale = whiten[k, k]
        for w in range(ROWS):
            v[k, w] *= scale
        for j in range(k):
            scale = whiten[k, j]
            for w in range(ROWS):
                v[k, w] += scale * v[j, w]
        for w in range(ROWS):
            v[k, w] *= v[k, w]
        if k < D - 1:
            for w in range(ROWS):
                v[D - 1, w] += v[k, w]
    for w in range(m):
        out[t + w] = log_norm - 0.5 * v[D - 1, w]


@bare
def smooth_rows(
    t: int, m: int, J: Floats, predicted: Floats, filtered: Floats, mean: Floats, added: Floats, news: Floats
) -> None:  # fmt: skip
    """Smooth m rows of one gain from row t backward; see `kalman.smooth_means`.

    Given ``added`` (n,), what later rows add to the filtered mean of row t + 1, and ``news``, what that row itself adds
    to its predicted mean; leaves those of the last of the rows. For at most four states, in registers; as in `follow`.
    """
    n = J.shape[0]
    one, two, three = min(1, n - 1), min(2, n - 1), min(3, n - 1)
    is1, is2, is3 = float(min(1, n - 1)), float(min(1, max(0, n - 2))), float(min(1, max(0, n - 3)))
    J00, J01, J02, J03 = J[0, 0], is1 * J[0, one], is2 * J[0, two], is3 * J[0, three]
    J10, J11, J12, J13 = J[one, 0], is1 * J[one, one], is2 * J[one, two], is3 * J[one, three]
    J20, J21, J22, J23 = J[two, 0], is1 * J[two, one], is2 * J[two, two], is3 * J[two, three]
    J30, J31, J32, J33 = J[three, 0], is1 * J[three, one], is2 * J[three, two], is3 * J[three, three]
    a0, a1, a2, a3 = added[0], added[one], added[two], added[three]
    g0, g1, g2, g3 = news[0], news[one], news[two], news[three]
    for row in range(t, t - m, -1):
        b0 = ((J00 * g0 + J01 * g1) + (J02 * g2 + J03 * g3) + J00 * a0) + J01 * a1 + (J02 * a2 + J03 * a3)
        b1 = ((J10 * g0 + J11 * g1) + (J12 * g2 + J13 * g3) + J10 * a0) + J11 * a1 + (J12 * a2 + J13 * a3)
        b2 = ((J20 * g0 + J21 * g1) + (J22 * g2 + J23 * g3) + J20 * a0) + J21 * a1 + (J22 * a2 + J23 * a3)
        b3 = ((J30 * g0 + J31 * g1) + (J32 * g2 + J33 * g3) + J30 * a0) + J31 * a1 + (J32 * a2 + J33 * a3)
        a0, a1, a2, a3 = b0, b1, b2, b3
        f0, f1, f2, f3 = filtered[row, 0], filtered[row, one], filtered[row, two], filtered[row, three]
        g0, g1 = f0 - predicted[row, 0], f1 - predicted[row, one]
        g2, g3 = f2 - predicted[row, two], f3 - predicted[row, three]
        mean[row, three], mean[row, two], mean[row, one], mean[row, 0] = f3 + a3, f2 + a2, f1 + a1, f0 + a0
    added[three], added[two], added[one], added[0] = a3, a2, a1, a0
    news[three], news[two], news[one], news[0] = g3, g2, g1, g0


@part
def closed_loop(A: Floats, C: Floats, gain: Floats, L: Floats, G: Floats, K: Floats) -> None:
    """Fill K (n, D) with the gain, G = A K (n, D) and L = A - A K C."""
    D, n = gain.shape
    for i in range(n):
        for k in range(D):
            K[i, k] = gain[k, i]
            value = 0.0
            for j in range(n):
                value += A[i, j] * gain[k, j]
            G[i, k] = value
        for j in range(n):
            value = A[i, j]
            for k in range(D):
                value -= G[i, k] * C[k, j]
            L[i, j] = value
