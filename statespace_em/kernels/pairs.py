"""Sums over neighbouring rows of what the smoother found, without a copy of the rows."""

from __future__ import annotations

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import jit


@jit
def pair_sums(
    first: Bools, mean: Floats, cross_cov: Floats, place: Ints, begin: int, end: int, xi: Floats
) -> None:  # fmt: skip
    """Add E[s[t] s[t+1]' | y] of the pairs whose earlier row is in begin..end-1 to ``xi`` (n, n).

    ``first`` (N,) marks the first row of each sequence: the row before it has no pair. ``mean`` (N, n) is of all
    rows, and ``cross_cov[place[t]]`` of row t.
    """
    N, n = mean.shape
    for t in range(begin, min(end, N - 1)):
        if not first[t + 1]:
            for i in range(n):
                for j in range(n):
                    xi[i, j] += cross_cov[place[t], i, j] + mean[t, i] * mean[t + 1, j]
