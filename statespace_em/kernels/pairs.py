"""Sums over neighbouring rows of what the smoother found, without a copy of the rows."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import inlined, jit, sums
from statespace_em.kernels.steady import ROWS


@jit
def pair_sums(
    first: Bools, mean: Floats, cross_cov: Floats, place: Ints, begin: int, end: int, xi: Floats
) -> None:  # fmt: skip
    """Add E[s[t] s[t+1]' | y] of the pairs whose earlier row is in begin..end-1 to ``xi`` (n, n).

    ``first`` (N,) marks the first row of each sequence: the row before it has no pair. ``mean`` (N, n) is of all
    rows, and ``cross_cov[place[t]]`` of row t.
    """
    N, n = mean.shape
    matrices, total = cross_cov.reshape((len(cross_cov), n * n)), xi.reshape(n * n)
    early, late = np.empty((n, ROWS)), np.empty((n, ROWS))
    last = min(end, N - 1)
    for t in range(begin, last, ROWS):
        m = min(ROWS, last - t)
        count, before = 0, place[t]
        for w in range(m):
            pair = not first[t + w + 1]
            if place[t + w] != before:
                _add(count, matrices, before, total)
                count, before = 0, place[t + w]
            count += int(pair)
            for i in range(n):
                early[i, w] = mean[t + w, i] if pair else 0.0
                late[i, w] = mean[t + w + 1, i]
        _add(count, matrices, before, total)
        for i in range(n):
            for w in range(m, ROWS):
                early[i, w] = 0.0
                late[i, w] = 0.0
        _add_products(early, late, xi)


@inlined
def _add(count: int, matrices: Floats, place: int, total: Floats) -> None:
    """Add so many times a matrix, which holds NaN where that is 0 times."""
    if count > 0:
        for k in range(total.shape[0]):
            total[k] += count * matrices[place, k]


@sums
def _add_products(left: Floats, right: Floats, total: Floats) -> None:
    for i in range(total.shape[0]):
        for j in range(total.shape[1]):
            value = 0.0
            for w in range(ROWS):  # the compiler knows how many
                value += left[i, w] * right[j, w]
            total[i, j] += value
