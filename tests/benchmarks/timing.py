"""Wall and processor times of two pieces of work in turn."""

from __future__ import annotations

import gc
import os
import statistics
import time
from typing import Any, NamedTuple

from benchmarks.case import Side, Work


class Times(NamedTuple):
    """Seconds of one run: wall time, and what all threads and child processes together took of the processors."""

    median: float
    min: float
    max: float
    processor: float  # median; it tells less of the load of the machine than wall time does


class Timed(NamedTuple):
    """Times of both sides, and what their last runs gave."""

    ours: Times
    theirs: Times | None
    our_result: Any
    their_result: Any
    iteration: tuple[float, float] | None = None  # seconds of one iteration alone, ours and theirs


def alternate(work: Work, repeats: int) -> Timed:
    """Run ours, theirs, ours, theirs, ...; a first run of each is not counted."""
    shorter = () if work.shorter is None else work.shorter[:2]
    sides = [side for side in (work.ours, work.theirs, *shorter) if side is not None]
    results: list[Any] = [side.run() if work.warm_up else None for side in sides]
    seconds: list[list[float]] = [[] for _ in sides]
    processor: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for i, side in enumerate(sides):
            results[i] = None  # memory is given back before the next run asks for it
            elapsed, spent, results[i] = _timed(side)
            seconds[i].append(elapsed)
            processor[i].append(spent)
    times = [Times(statistics.median(s), min(s), max(s), statistics.median(p)) for s, p in zip(seconds, processor)]
    if work.theirs is None:
        return Timed(times[0], None, results[0], None)
    one = None
    if work.shorter is not None:
        n = work.shorter.iterations
        one = (times[0].median - times[2].median) / n, (times[1].median - times[3].median) / n
    return Timed(times[0], times[1], results[0], results[1], one)


def _timed(side: Side) -> tuple[float, float, Any]:
    gc.collect()
    spent, begin = _processor(), time.perf_counter()
    result = side.run()
    return time.perf_counter() - begin, _processor() - spent, result


def _processor() -> float:
    """Seconds of processor time of this process, finely, and of the children that have ended, in hundredths."""
    return time.process_time() + sum(os.times()[2:4])
