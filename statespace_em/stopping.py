"""When to stop EM, by the gains of its last steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ROUND_OFF = 64 * float(np.finfo(float).eps)
CONFIRM = 3  # consecutive steps that must agree that the gain still to come is small
WINDOW = 2  # steps over which an accelerated gain is measured: single ones are erratic
CREEP = 3  # steps, which gain less than is still to come where EM creeps


def gain_to_come(objectives: Sequence[float], window: int) -> float:
    """Remaining gain in nats by Aitken's geometric series over the last two windows; inf if unknown."""
    if len(objectives) < 2 * window + 1:
        return np.inf
    recent = objectives[-1] - objectives[-1 - window]
    before = objectives[-1 - window] - objectives[-1 - 2 * window]
    if recent <= ROUND_OFF * (1.0 + abs(objectives[-1])):
        return 0.0
    if recent >= before:
        return np.inf
    ratio = recent / before
    return recent * ratio / (1.0 - ratio)


def creeps(objectives: Sequence[float]) -> bool:
    """Whether more is still to come than the last few steps have gained."""
    if len(objectives) <= 2 * CREEP:
        return False
    return gain_to_come(objectives, CREEP) > objectives[-1] - objectives[-1 - CREEP]


class Confirmation:
    """When to stop: where the gain still to come is small, several steps in a row.

    The gains of mixed steps are erratic. What they say is believed when two steps of EM alone confirm it, and put to
    the test half as often whenever these do not, so that mixing gets its time.
    """

    def __init__(self, tol: float, *, mixed: bool) -> None:
        self.tol, self.mixed = tol, mixed
        self.needed, self.agreed = CONFIRM, 0
        self.alone = 0  # steps that EM has been asked to make alone

    def reached(self, objectives: Sequence[float]) -> bool:
        """Whether it is time to stop after these objectives."""
        little = gain_to_come(objectives, WINDOW if self.mixed else 1) < self.tol
        self.agreed = self.agreed + 1 if little else 0
        if not self.mixed:
            return self.agreed == self.needed
        if self.agreed == self.needed and self.alone < 2:
            self.alone, self.agreed = self.alone + 1, self.needed - 1
        elif self.alone:
            gain = objectives[-1] - objectives[-2]
            sure = gain_to_come(objectives, 1) < self.tol or gain < 1e-3 * self.tol
            self.alone = 0
            if sure:
                return True
            self.agreed, self.needed = 0, 2 * self.needed
        return False

    def again(self) -> None:
        """Begin anew: the climb goes on from another place."""
        self.agreed = 0
