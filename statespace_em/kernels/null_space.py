"""Combinations of rows that are zero, without BLAS: its threads wait for each other where the cores are busy."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.kernels._jit import jit, part_sums


@part_sums
def _dot(x: Floats, y: Floats) -> float:
    total = 0.0
    for i in range(x.shape[0]):
        total += x[i] * y[i]
    return total


@jit
def null_space(rows: Floats, nothing: float) -> Floats:
    """Orthonormal combinations (k, r) of the rows (r, c) that are zero, but for ``nothing``.

    Gram-Schmidt with pivoting (Golub & Van Loan 5.2.8, 5.4.1): the largest row that is left is taken out of the others,
    and what is done to the rows is done to a unit matrix.
    """
    r, c = rows.shape
    both = np.zeros((r, c + r))  # rows, and the combinations that they are
    order, size = np.arange(r), np.empty(r)
    for i in range(r):
        for j in range(c):
            both[i, j] = rows[i, j]
        both[i, c + i] = 1.0
    rank = 0
    while rank < r:
        best = rank
        for i in range(rank, r):
            row, made = both[order[i], :c], both[order[i], c:]
            size[i] = _dot(row, row) / _dot(made, made)
            if size[i] > size[best]:
                best = i
        if not size[best] > nothing * nothing:
            break
        order[rank], order[best] = order[best], order[rank]
        pivot = both[order[rank]]
        square = _dot(pivot[:c], pivot[:c])
        for i in range(rank + 1, r):
            other = both[order[i]]
            share = _dot(pivot[:c], other[:c]) / square
            for j in range(c + r):
                other[j] -= share * pivot[j]
        rank += 1
    found = np.empty((r - rank, r))
    for i in range(r - rank):
        for j in range(r):
            found[i, j] = both[order[rank + i], c + j]
        for _ in range(2):  # twice is enough
            for h in range(i):
                share = _dot(found[h], found[i])
                for j in range(r):
                    found[i, j] -= share * found[h, j]
            norm = np.sqrt(_dot(found[i], found[i]))
            for j in range(r):
                found[i, j] /= norm
    return found


@jit
def product(a: Floats, b: Floats) -> Floats:
    """Matrix product."""
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            for j in range(b.shape[1]):
                out[i, j] += a[i, k] * b[k, j]
    return out
