"""Starts of a cycle: what Whittle's likelihood says of many periods and dampings at once.

The likelihood of a cycle has a top near every peak of the spectrum. The periodogram of the changes of y is compared
with sums of a level, a slope, a measurement noise and a cycle (Harvey 1989, sec. 4.3); the variances that fit best
follow from multiplicative updates (Fevotte, Bertin & Durrieu 2009, sec. 3.2), for all cycles together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats

ROWS = 1_000  # of the series that are looked at
FEWEST = 16  # changes that tell anything
DAMPINGS = (0.6, 0.8, 0.9, 0.97, 0.995)
TURNS = 60  # frequencies that are tried
LONGEST = 1.5  # period, in lengths of the series
UPDATES = 40  # of the variances
ALIKE = 0.25  # mean distance of two spectra, in logarithms, below which they may be one start
BESIDE = 0.3  # and that of the logarithms of their frequencies
LEAST = 0.01  # variance of a cycle, of that of the changes
NEAR = 0.15  # share of its frequency within which a cycle would be mistaken for a season


class Tried(NamedTuple):
    """A cycle that explains the periodogram well."""

    cos: float
    sin: float
    var: float  # of its disturbances


def screened_cycles(y: Floats, n: int, seasons: Sequence[float] = ()) -> list[Tried]:
    """The ``n`` best cycles that are tried, the best first; ``y`` (T,) has no gaps.

    Periods and their fractions in ``seasons`` are left to those.
    """
    changes = np.diff(y[:ROWS])
    if len(changes) < FEWEST:
        return []
    taper = np.hanning(len(changes) + 2)[1:-1]
    changes = (changes - changes.mean()) * taper
    power = np.square(np.abs(np.fft.rfft(changes)[1:])) / np.square(taper).sum()
    if not power.any():
        return []
    angle = 2.0 * np.pi * np.arange(1, len(power) + 1) / len(changes)
    damping, turn = (grid.ravel() for grid in np.meshgrid(DAMPINGS, _turns(len(y), seasons)))
    difference = 2.0 - 2.0 * np.cos(angle)
    floor = 1.0 / np.maximum(difference, difference[0])
    shapes = np.empty((len(turn), 4, len(angle)))
    shapes[:, 0], shapes[:, 1], shapes[:, 2] = 1.0, difference, floor
    shapes[:, 3] = difference * _cycle_power(damping[:, None], turn[:, None], angle)
    variances = power.mean() / (4.0 * shapes.mean(2))
    for _ in range(UPDATES):
        total = np.einsum("cj,cjf->cf", variances, shapes)
        variances *= np.einsum("cjf,cf->cj", shapes, power / total**2) / np.einsum("cjf,cf->cj", shapes, 1.0 / total)
    total = np.einsum("cj,cjf->cf", variances, shapes)
    misfit, log_shape = (np.log(total) + power / total).mean(1), np.log(total)
    chosen: list[int] = []
    for i in np.argsort(misfit):
        alike = np.abs(log_shape[chosen] - log_shape[i]).mean(1) < ALIKE
        if not (alike & (np.abs(np.log(turn[chosen] / turn[i])) < BESIDE)).any():
            chosen.append(int(i))
        if len(chosen) == n:
            break
    least = LEAST * float(np.var(changes))
    cos, sin, var = damping * np.cos(turn), damping * np.sin(turn), np.maximum(variances[:, 3], least)
    return [Tried(float(cos[i]), float(sin[i]), float(var[i])) for i in chosen]


def _turns(length: int, seasons: Sequence[float]) -> Floats:
    """Frequencies that are tried, radians a row: evenly spaced in logarithms, and where seasons are not."""
    turns = np.geomspace(2.0 * np.pi / (LONGEST * length), 0.9 * np.pi, TURNS)
    for period in seasons:
        own = 2.0 * np.pi / period
        nearest = own * np.maximum(np.round(turns / own), 1.0)
        turns = turns[np.abs(turns - nearest) > NEAR * own]
    return turns


def _cycle_power(damping: Floats, turn: Floats, angle: Floats) -> Floats:
    """Spectrum of a cycle with disturbances of variance 1 (Harvey 1989, eq. 2.4.32)."""
    r2, c = damping**2, damping * np.cos(turn)
    below = 1.0 + r2**2 + 4.0 * c**2 - 4.0 * c * (1.0 + r2) * np.cos(angle) + 2.0 * r2 * np.cos(2.0 * angle)
    return np.asarray((1.0 + r2 - 2.0 * c * np.cos(angle)) / below)
