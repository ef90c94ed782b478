"""Runs of rows that are equal."""

from __future__ import annotations

from statespace_em._typing import Floats, Ints
from statespace_em.kernels._jit import jit


@jit
def runs(rows: Floats, run: Ints) -> int:
    """Number the runs of equal rows of ``rows`` (T, m) in ``run`` (T,), from 0; return how many there are."""
    number = 0
    for t in range(rows.shape[0]):
        if t > 0:
            for i in range(rows.shape[1]):
                if rows[t, i] != rows[t - 1, i]:
                    number += 1
                    break
        run[t] = number
    return number + 1
