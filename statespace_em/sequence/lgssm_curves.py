"""Curves that one state draws by itself: y about ``amplitude * decay**t``, where it has next to no disturbances.

What is mostly noise is often explained best by such a curve, that stays, fades, grows or changes its sign from row to
row. None of them is near another, or near a state that moves: each is a top of the likelihood of its own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints

RATES = 40  # of growth that are tried, and as many of decay
SLOWEST, FASTEST = 0.05, 1.5  # of them: over all rows, and over one
HIGHEST = 7.0  # logarithm of what a curve grows by over all rows: beyond, it is about the last few only
LEAST = 1e-12  # share of what there is to explain that a curve leaves at least


class Curve(NamedTuple):
    """One curve, and how it explains y."""

    decay: float
    amplitude: Floats  # (D,), at the first row of a sequence
    middle: Floats  # (D,), about which it is
    noise: Floats  # (D,), mean square of what is left of y
    misfit: float  # minus twice the log-likelihood, up to a constant


def curves(y: Floats, starts: Ints, *, centred: bool) -> list[Curve]:
    """Those that explain y (T, D) better than any near them, the best first; about a middle where that is free."""
    length = int(np.diff(starts).max())
    slow, fast = SLOWEST / length, min(FASTEST, HIGHEST / length)
    rates = np.concatenate([-np.geomspace(FASTEST, slow, RATES), [0.0], np.geomspace(slow, fast, RATES)])
    row = np.concatenate([np.arange(end - begin) for begin, end in pairwise(starts)])
    found: list[Curve] = []
    for sign in (1.0, -1.0):
        tried = [_fitted(sign, rate, y, row, centred) for rate in rates]
        misfit = np.array([np.inf, *(round(curve.misfit, 6) for curve in tried), np.inf])
        best = (misfit[1:-1] <= misfit[:-2]) & (misfit[1:-1] < misfit[2:])
        found += [tried[j] for j in np.flatnonzero(best) if tried[j].amplitude.any()]
    return sorted(found, key=lambda curve: round(curve.misfit, 6))


def _fitted(sign: float, rate: float, y: Floats, row: Ints, centred: bool) -> Curve:
    """Curve with this rate of growth, changing its sign from row to row or not."""
    seen = ~np.isnan(y)
    count = np.maximum(seen.sum(0), 1)
    shape = np.where(seen, (sign**row * np.exp(rate * row))[:, None], 0.0)
    known = np.where(seen, y, 0.0)
    whole = np.square(known).sum(0)
    means = (known.sum(0) / count, shape.sum(0) / count) if centred else (np.zeros(y.shape[1]),) * 2
    known, shape = (np.where(seen, own - mean, 0.0) for own, mean in zip((known, shape), means))
    size = np.square(shape).sum(0)
    told = size > LEAST * count
    height = np.where(told, (known * shape).sum(0) / np.where(told, size, 1.0), 0.0)
    left = np.maximum(np.square(known - height * shape).sum(0), LEAST * whole)
    some = left > 0.0
    misfit = float(np.sum(count[some] * np.log(left[some] / whole[some])))
    return Curve(float(sign * np.exp(rate)), height, means[0] - height * means[1], left / count, misfit)
