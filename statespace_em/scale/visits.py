"""Climbs from several starts whose E-steps share their visits of the chunks: each is read once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from threading import Condition, Thread
from typing import Any

Visit = Callable[[Sequence[Any]], Sequence[Any]]  # questions -> their answers, an exception for one that failed


class Visits:
    """Questions of several threads, gathered until each waits for an answer, and then answered together.

    ``together`` does tasks that may ``ask``; a task outside of it gets its answer at once. What is asked beside a
    question does not change its answer.
    """

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._turn = Condition()
        self._climbing = 0  # threads that may still ask
        self._asked: list[tuple[Any, list[Any]]] = []  # question, and where its answer goes

    def ask(self, question: Any) -> Any:
        """Answer of a question, which may take until all others have asked theirs."""
        answer: list[Any] = []
        with self._turn:
            self._asked.append((question, answer))
            if len(self._asked) >= self._climbing:
                self._answer()
            else:
                self._turn.wait_for(lambda: answer)
        if isinstance(answer[0], BaseException):
            raise answer[0]
        return answer[0]

    def together(self, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        """Results of the tasks, in their order, or the error of the first that failed."""
        results: list[Any] = [None] * len(tasks)
        failures: list[BaseException | None] = [None] * len(tasks)

        def climb(i: int) -> None:
            try:
                results[i] = tasks[i]()
            except BaseException as error:  # it is raised where the tasks were given
                failures[i] = error
            finally:
                self._leave()

        self._climbing = len(tasks)
        threads = [Thread(target=copy_context().run, args=(climb, i), daemon=True) for i in range(len(tasks))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for failure in failures:
            if failure is not None:
                raise failure
        return results

    def _leave(self) -> None:
        with self._turn:
            self._climbing -= 1
            if self._asked and len(self._asked) >= self._climbing:
                self._answer()

    def _answer(self) -> None:
        """Answer everything that was asked; the others wait for it."""
        asked, self._asked = self._asked, []
        try:
            found = self._visit([question for question, _ in asked])
        except BaseException as error:
            found = [error] * len(asked)
        for (_, answer), value in zip(asked, found):
            answer.append(value)
        self._turn.notify_all()
