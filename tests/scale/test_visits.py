"""Questions of several threads that are answered together."""

from __future__ import annotations

import threading

import pytest

from statespace_em.scale.visits import Visits


def test_questions_are_answered_together_and_everyone_gets_their_own():
    asked = []

    def visit(questions):
        asked.append(sorted(questions))
        return [10 * question for question in questions]

    visits = Visits(visit)

    def task(first, n):
        return lambda: [visits.ask(first + i) for i in range(n)]

    found = visits.together([task(0, 3), task(100, 3), task(200, 1)])
    assert found == [[0, 10, 20], [1000, 1010, 1020], [2000]]
    assert asked == [[0, 100, 200], [1, 101], [2, 102]]
    assert visits.ask(7) == 70


def test_the_error_of_one_question_stops_its_own_climb_only():
    visits = Visits(lambda questions: [ValueError(q) if q == 1 else q for q in questions])
    ended = []

    def task(question):
        def climb():
            for _ in range(3):
                visits.ask(question)
            ended.append(question)

        return climb

    with pytest.raises(ValueError, match="1"):
        visits.together([task(0), task(1), task(2)])
    assert sorted(ended) == [0, 2]


def test_an_error_of_the_visit_reaches_everyone_who_waits():
    def visit(questions):
        raise OSError("the store is gone")

    visits = Visits(visit)
    with pytest.raises(OSError, match="the store is gone"):
        visits.together([lambda: visits.ask(1)] * 4)
    assert threading.active_count() < 50
