"""Work on several threads: order, limits, nesting."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import statespace_em as sse
from statespace_em import _threads


def test_results_come_back_in_the_order_of_the_tasks():
    with _threads.limited(3):
        assert _threads.run([lambda i=i: i * i for i in range(20)]) == [i * i for i in range(20)]


def test_tasks_run_at_the_same_time():
    meet = threading.Barrier(2, timeout=30)  # breaks unless both tasks arrive
    with _threads.limited(2):
        assert sorted(_threads.run([meet.wait, meet.wait])) == [0, 1]


def test_the_caller_works_too():
    with _threads.limited(3):
        meet = threading.Barrier(3, timeout=30)  # breaks unless each task has a thread of its own

        def task():
            meet.wait()
            return threading.get_ident()

        assert threading.get_ident() in _threads.run([task] * 3)


def test_a_caller_does_not_wait_for_threads_that_are_busy_for_another():
    free, taken = threading.Event(), threading.Event()

    def first():
        taken.set()
        return free.wait(30)

    def other():
        with _threads.limited(2):
            _threads.run([first, first])

    thread = threading.Thread(target=other)
    thread.start()
    taken.wait(30)
    with _threads.limited(2):
        assert _threads.run([lambda i=i: i for i in range(5)]) == list(range(5))
    assert thread.is_alive()
    free.set()
    thread.join()


def test_of_several_failures_the_first_in_order_is_told():
    both = threading.Barrier(2, timeout=30)

    def failing(words, delay):
        both.wait()
        time.sleep(delay)
        raise ValueError(words)

    with _threads.limited(2), pytest.raises(ValueError, match="early"):
        _threads.run([lambda: failing("early", 0.05), lambda: failing("late", 0.0), lambda: failing("never", 0.0)])


def test_a_task_runs_what_it_starts_itself_on_its_own_thread():
    def inner():
        return threading.get_ident()

    def outer():
        return {threading.get_ident(), *_threads.run([inner, inner])}

    with _threads.limited(2):
        assert all(len(seen) == 1 for seen in _threads.run([outer, outer]))


def test_one_thread_is_the_callers():
    with _threads.limited(1):
        assert _threads.run([threading.get_ident] * 3) == [threading.get_ident()] * 3


def test_a_limit_ends_with_its_block_and_none_keeps_it():
    before = _threads.count()
    with _threads.limited(7), _threads.limited(None):
        assert _threads.count() == 7
    assert _threads.count() == before


@pytest.mark.parametrize(
    "model",
    [
        sse.GaussianHMM(2),
        sse.Mixture(2, sse.emissions.Poisson()),
        sse.LinearGaussianSSM(1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_fit_does_not_depend_on_the_number_of_threads(model):
    y = np.random.default_rng(3).poisson(np.repeat([2.0, 9.0, 2.0, 5.0], 30)).astype(float)
    results = []
    for threads in (1, 2, 3):
        model.fit(y, threads=threads)
        results.append((model.params_, model.trace_, model.starts_))
    params, trace, starts = results[0]
    for other in results[1:]:
        assert params.identical(other[0])
        assert trace.equals(other[1])
        assert starts.equals(other[2])


def test_the_starts_of_a_fit_run_side_by_side():
    meet = threading.Barrier(2, timeout=30)  # breaks unless two starts are evaluated at the same time

    class Meeting(sse.emissions.Poisson):
        def log_prob(self, params, y):
            if not meet.broken and waits:
                waits.pop()
                meet.wait()
            return super().log_prob(params, y)

    waits = [None] * 2
    sse.HMM(2, Meeting()).fit(np.repeat([2.0, 9.0, 2.0, 5.0], 30), threads=2, n_starts=2)
    assert waits == []


def test_tasks_inherit_what_numpy_does_about_round_off():
    with np.errstate(over="raise"), _threads.limited(2):
        seen = _threads.run([np.geterr] * 2)
    assert [handling["over"] for handling in seen] == ["raise", "raise"]


def test_a_failure_waits_for_the_others():
    begun, done = threading.Event(), []

    def slow():
        begun.set()
        time.sleep(0.05)
        done.append(True)

    def failing():
        begun.wait(30)
        raise ValueError("no")

    with _threads.limited(2), pytest.raises(ValueError, match="no"):
        _threads.run([failing, slow])
    assert done == [True]
