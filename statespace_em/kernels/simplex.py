"""Probabilities along rows: the small arithmetic of M-steps and of coordinates (see `moments` for why it is here)."""

from __future__ import annotations

from statespace_em._typing import Floats
from statespace_em.kernels._jit import jit


@jit
def shares(counts: Floats, previous: Floats, prob: Floats) -> None:
    """Fill each row of ``prob`` (R, K) in proportion to ``counts``, but where ``previous`` is zero.

    A row without any count is that of ``previous``.
    """
    R, K = counts.shape
    for r in range(R):
        total = 0.0
        for k in range(K):
            prob[r, k] = counts[r, k] if previous[r, k] > 0.0 else 0.0
            total += prob[r, k]
        for k in range(K):
            prob[r, k] = prob[r, k] / total if total > 0.0 else previous[r, k]


@jit
def squared_shares(roots: Floats, previous: Floats, prob: Floats) -> int:
    """`shares` of the squares of the first ``roots``, one for each entry of ``previous`` that is not zero; how many."""
    R, K = previous.shape
    seen = 0
    for r in range(R):
        total = 0.0
        for k in range(K):
            prob[r, k] = 0.0
            if previous[r, k] > 0.0:
                prob[r, k] = roots[seen] * roots[seen]
                seen += 1
            total += prob[r, k]
        for k in range(K):
            prob[r, k] = prob[r, k] / total if total > 0.0 else previous[r, k]
    return seen
