"""Wall times of two pieces of work in turn."""

from __future__ import annotations

import gc
import statistics
import time
from typing import Any, NamedTuple

from benchmarks.case import Side, Work


class Times(NamedTuple):
    """Seconds of one run."""

    median: float
    min: float
    max: float


class Timed(NamedTuple):
    """Times of both sides, and what their last runs gave."""

    ours: Times
    theirs: Times | None
    our_result: Any
    their_result: Any


def alternate(work: Work, repeats: int) -> Timed:
    """Run ours, theirs, ours, theirs, ...; a first run of each is not counted."""
    sides = [side for side in (work.ours, work.theirs) if side is not None]
    results: list[Any] = [side.run() if work.warm_up else None for side in sides]
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for i, side in enumerate(sides):
            results[i] = None  # memory is given back before the next run asks for it
            elapsed, results[i] = _timed(side)
            seconds[i].append(elapsed)
    times = [Times(statistics.median(s), min(s), max(s)) for s in seconds]
    if work.theirs is None:
        return Timed(times[0], None, results[0], None)
    return Timed(times[0], times[1], *results)


def _timed(side: Side) -> tuple[float, Any]:
    gc.collect()
    begin = time.perf_counter()
    result = side.run()
    return time.perf_counter() - begin, result
