"""Independent work on the cores of the machine; the kernels release the GIL."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from typing import Generic, TypeVar

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
    """Results of the tasks, in their order; a task runs what it starts itself on its own thread.

    The caller works too: were it to wait, the others might be put on one core, the system thinking that of the caller
    busy, and stay there for longer than many tasks last.
    """
    workers = 1 if len(tasks) == 1 else min(count(), len(tasks))  # to count the cores takes longer than a small task
    if workers <= 1:
        return [task() for task in tasks]
    share = _Share(tasks)
    # in the context of the caller, who may have told numpy what to do about round-off
    others = [_pool(os.getpid(), workers - 1).submit(copy_context().run, share.work) for _ in range(workers - 1)]
    try:
        share.work()
    finally:
        share.waiting.clear()
        begun = [other for other in others if not other.cancel()]
        wait(begun)  # also where one fails: the caller may do its share again, and must not meet the others then
    for other in begun:
        other.result()  # which is nothing, unless it was stopped
    return share.all()


class _Share(Generic[T]):
    """Tasks that several threads take one after the other."""

    def __init__(self, tasks: Sequence[Callable[[], T]]) -> None:
        self.waiting = deque(enumerate(tasks))
        self.results: dict[int, T] = {}
        self.errors: dict[int, Exception] = {}

    def work(self) -> None:
        """Take tasks until there are no more, or one fails."""
        while self.waiting:
            try:
                place, task = self.waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                with limited(1):
                    self.results[place] = task()
            except Exception as error:
                self.errors[place] = error
                self.waiting.clear()

    def all(self) -> list[T]:
        """Results in order, or the error of the first task that failed: those before it have been taken before it."""
        if self.errors:
            raise self.errors[min(self.errors)]
        return [self.results[place] for place in range(len(self.results))]


@cache
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Keep threads, since to start them takes as long as an E-step on a few thousand rows; a fork has none of them."""
    return ThreadPoolExecutor(workers, "statespace_em")
