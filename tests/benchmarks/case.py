"""What a row of the benchmark is: some work, done by us and by a peer, whose numbers must be the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

Numbers = Mapping[str, np.ndarray]
Kind = Literal["ratio", "seconds", "megabytes"]


class Side(NamedTuple):
    """One way to do the work."""

    run: Callable[[], Any]  # what is timed
    numbers: Callable[[Any], Numbers]  # what it computed, by name; not timed


class Shorter(NamedTuple):
    """The work with fewer iterations: the difference is what iterations cost, without what a fit costs once."""

    ours: Side
    theirs: Side
    iterations: int  # how many fewer


class Work(NamedTuple):
    """The work of a row, ready to be timed."""

    ours: Side
    theirs: Side | None = None
    rows: int = 0  # rows of data passed over in one run (iterations count); 0 where time a row means nothing
    tolerance: float | None = (
        1e-8  # of the difference between the numbers, relative to 1 + their size; None: incomparable
    )
    note: str = ""
    remark: Callable[[Any], str] | None = None  # a further note, from our result
    warm_up: bool = True  # whether a run goes ahead of those that are timed
    shorter: Shorter | None = None


class Target(NamedTuple):
    """What a row should reach."""

    kind: Kind
    value: float

    def met(self, ratio: float | None, seconds: float, megabytes: float) -> bool:
        """Whether it does: at least this ratio, or at most this time or memory."""
        if self.kind == "ratio":
            return ratio is not None and ratio >= self.value
        return (seconds if self.kind == "seconds" else megabytes) <= self.value

    def __str__(self) -> str:
        """Return the words for the table."""
        return {"ratio": f"{self.value:g}x", "seconds": f"{self.value:g} s", "megabytes": f"{self.value:g} MB"}[
            self.kind
        ]


@dataclass(frozen=True)
class Case:
    """A row of the benchmark before anything is loaded for it."""

    work: str
    peer: str | None  # name of the module to import; None times us alone
    prepare: Callable[..., Work]  # quick= (whether to take small sizes) -> the work
    target: Target | None = None
    section: Literal["targets", "more", "growth"] = "targets"

    @property
    def name(self) -> str:
        """What tells the row from all others."""
        return self.work if self.peer is None else f"{self.work} / {self.peer}"


def at_least(ratio: float) -> Target:
    """Return the target of a ratio of times, theirs over ours."""
    return Target("ratio", ratio)


def deviation(ours: Numbers, theirs: Numbers) -> tuple[float, str]:
    """Largest difference relative to 1 + |theirs|, and the name of the number that has it; inf for other shapes."""
    worst, where = 0.0, "nothing"
    if not theirs or set(ours) != set(theirs):
        return np.inf, f"names {sorted(ours)} and {sorted(theirs)}"
    for name, expected in theirs.items():
        left, right = np.asarray(ours[name], dtype=float), np.asarray(expected, dtype=float)
        if left.shape != right.shape:
            return np.inf, f"{name}: shapes {left.shape} and {right.shape}"
        both = np.isnan(left) & np.isnan(right)
        off = np.where(both, 0.0, np.abs(left - right) / (1.0 + np.abs(right)))
        largest = float(np.nan_to_num(off, nan=np.inf).max(initial=0.0))
        if largest >= worst:
            worst, where = largest, name
    return worst, where
