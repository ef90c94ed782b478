"""Acceleration of a fixed-point map: Anderson mixing of its last few steps (Walker & Ni 2011, type II)."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.kernels.mixing import mixed

MEMORY = 7  # past steps that are combined
CUT = 1e-10  # least singular value, relative to the largest, of the steps that are told apart
LEAP = 0.5  # longest leap beyond the step of the map along any coordinate; they are free of units and of order 1


class Anderson:
    """Propose the next point from the last few steps of a fixed-point map.

    Mixing looks for any fixed point. Beside a saddle, where EM's own steps grow, it would lead back to it; what is
    proposed then is a leap ahead along the EM step, of the length that SQUAREM takes (Varadhan & Roland 2008, S3).
    Leaps are kept short: early ones may land beside the boundary (a nearly singular covariance), from where EM hardly
    moves.
    """

    def __init__(self) -> None:
        self._count = 0  # steps known, the first point included
        self._last = self._steps = self._changes = np.empty((0, 0))

    def reset(self) -> None:
        """Forget all steps."""
        self._count = 0

    def propose(self, x: Floats, image: Floats) -> Floats | None:
        """Return the mixed point (p,), or None while the map has been seen only once, or where it is not finite."""
        seen = self._count
        self._count += 1
        if seen == 0:
            if self._last.shape[1] != len(x):
                self._last, self._steps, self._changes = (np.empty((rows, len(x))) for rows in (2, MEMORY, MEMORY))
            self._last[0], self._last[1] = x, image - x
            return None
        point = np.empty(len(x))
        fine = mixed(x, image, self._last, self._steps, self._changes, seen, CUT, LEAP, point)
        return point if fine else None
