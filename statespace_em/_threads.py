"""Independent work on the cores of the machine; the kernels release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TypeVar

T = TypeVar("T")

_allowed: ContextVar[int | None] = ContextVar("threads", default=None)  # None: all cores


def count() -> int:
    """Threads that work started here may use."""
    allowed = _allowed.get()
    return _cores() if allowed is None else allowed


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


@contextmanager
def limited(threads: int | None) -> Iterator[None]:
    """Let the work inside use this many threads; None leaves what was allowed before."""
    token = _allowed.set(_allowed.get() if threads is None else threads)
    try:
        yield
    finally:
        _allowed.reset(token)


def run(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Results of the tasks, in their order; a task runs what it starts itself on its own thread."""
    workers = min(count(), len(tasks))
    if workers <= 1:
        return [task() for task in tasks]
    # in the context of the caller, who may have told numpy what to do about round-off
    futures = [_pool(os.getpid(), workers).submit(copy_context().run, _alone, task) for task in tasks]
    wait(futures)  # also where one fails: the caller may do its share again, and must not meet the others then
    return [future.result() for future in futures]


@cache
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Keep threads, since to start them takes as long as an E-step on a few thousand rows; a fork has none of them."""
    return ThreadPoolExecutor(workers, "statespace_em")


def _alone(task: Callable[[], T]) -> T:
    with limited(1):
        return task()
