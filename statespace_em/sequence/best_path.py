"""The most probable path of a hidden chain from log-densities."""

from __future__ import annotations

from functools import partial

import numpy as np

from statespace_em import _threads
from statespace_em._typing import Floats, Ints
from statespace_em.errors import ImpossibleObservationError
from statespace_em.kernels import viterbi
from statespace_em.sequence.blocks import SHARE, Density, as_density, first_rows, row_blocks, sequence_spans
from statespace_em.sequence.recursions import Chain


def most_probable_path(log_b: Floats | Density, pi: Floats, A: Floats, starts: Ints) -> tuple[Ints, Floats]:
    """Viterbi path (N,) and its log joint probability (S,); see `forward_backward.smooth` for the arguments.

    Of paths with equal probability the one is taken whose last state has the lowest index, then the one before, and
    so on back. A long sequence is worked on from both ends: then the state of its middle row comes first.
    """
    work = _Paths(as_density(log_b), Chain(pi, A).logs(), starts)
    _threads.run([partial(work.span, begin, end) for begin, end in sequence_spans(starts, len(pi))])
    return work.path, work.best


class _Paths:
    """What the threads of one search for the best paths share."""

    def __init__(self, density: Density, logs: Chain, starts: Ints) -> None:
        self.density, self.logs, self.starts, self.first = density, logs, starts, first_rows(starts)
        self.path, self.best = np.empty(len(self.first), dtype=np.int64), np.empty(len(starts) - 1)

    def span(self, begin: int, end: int) -> None:
        """Find the paths of some sequences; where it is one and a long one, by two searches that meet in the middle."""
        one, other = np.searchsorted(self.starts, (begin, end))
        blocks = row_blocks(begin, end, len(self.logs.pi))
        if other - one == 1 and len(blocks) >= 2 * SHARE:
            self.best[one] = self._from_both_ends(blocks)
            return
        back, carry, ends = self._forward(blocks)
        viterbi.trace_back(back, int(np.argmax(carry)), self.path[begin:end])
        self.best[one:other] = np.append(ends[self.starts[one + 1 : other] - begin], carry.max())

    def _from_both_ends(self, blocks: list[tuple[int, int]]) -> float:
        """Find the path of one sequence; return its log joint probability."""
        half = len(blocks) // 2
        middle = blocks[half][0]
        halves = [partial(self._forward, blocks[:half]), partial(self._backward, blocks[half:])]
        (back, before, _), (ahead, after, _) = _threads.run(halves)
        step = self.logs.A[0 if len(self.logs.A) == 1 else middle - 1]
        score = (before[:, None] + step) + after
        if not score.max() > -np.inf:
            self._forward(blocks)  # names the first row that is impossible
        there, here = np.unravel_index(int(np.argmax(score.T)), score.shape)

        def backwards() -> None:
            viterbi.trace_back(back, int(here), self.path[blocks[0][0] : middle])

        def onwards() -> None:
            path = np.empty(len(ahead), dtype=np.int64)
            viterbi.trace_back(ahead, int(there), path)
            self.path[middle : blocks[-1][1]] = path[::-1]

        _threads.run([backwards, onwards])
        return float(score.max())

    def _forward(self, blocks: list[tuple[int, int]]) -> tuple[Ints, Floats, Floats]:
        """Where the best path into each state comes from, its score after the last row, and those of sequences."""
        begin = blocks[0][0]
        back, carry, ends = self._room(blocks)
        for start, stop in blocks:
            own = slice(start - begin, stop - begin)
            log_rows, into = np.ascontiguousarray(self.density(start, stop)), self.logs.into(start, stop)
            bad = viterbi.viterbi(log_rows, self.logs.pi, into, self.first[start:stop], carry, back[own], ends[own])
            if bad >= 0:
                raise ImpossibleObservationError(start + bad)
        return back, carry, ends

    def _backward(self, blocks: list[tuple[int, int]]) -> tuple[Ints, Floats, Floats]:
        """As `_forward` with the rows of the end of one sequence in reversed order; -inf where no path is possible."""
        end = blocks[-1][1]
        back, carry, ends = self._room(blocks)
        for start, stop in reversed(blocks):
            own = slice(end - stop, end - start)
            first = np.arange(end - stop, end - start) == 0
            log_rows = np.ascontiguousarray(self.density(start, stop)[::-1])
            steps = np.ascontiguousarray(self.logs.out_of(start, stop)[::-1])
            if viterbi.viterbi(log_rows, np.zeros(len(carry)), steps, first, carry, back[own], ends[own]) >= 0:
                return back, np.full(len(carry), -np.inf), ends
        return back, carry, ends

    def _room(self, blocks: list[tuple[int, int]]) -> tuple[Ints, Floats, Floats]:
        """Arrays for what a search finds."""
        n_rows, n_states = blocks[-1][1] - blocks[0][0], len(self.logs.pi)
        back = np.empty((n_rows, n_states), dtype=np.uint8 if n_states <= 256 else np.int32)
        return back, np.zeros(n_states), np.empty(n_rows)
