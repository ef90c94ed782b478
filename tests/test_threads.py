"""Work on several threads: order, limits, nesting."""

from __future__ import annotations

import threading

from statespace_em import _threads


def test_results_come_back_in_the_order_of_the_tasks():
    with _threads.limited(3):
        assert _threads.run([lambda i=i: i * i for i in range(20)]) == [i * i for i in range(20)]


def test_tasks_run_at_the_same_time():
    meet = threading.Barrier(2, timeout=30)  # breaks unless both tasks arrive
    with _threads.limited(2):
        assert sorted(_threads.run([meet.wait, meet.wait])) == [0, 1]


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
