"""The most probable path of a hidden chain from log-densities."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import NoReturn

import numpy as np

from statespace_em import _threads
from statespace_em._typing import Floats, Ints
from statespace_em.errors import ImpossibleObservationError
from statespace_em.kernels import viterbi
from statespace_em.kernels._lanes import LANES
from statespace_em.sequence.blocks import ENTRIES, SHARE, Density, as_density
from statespace_em.sequence.recursions import Chain

ROWS = 4096  # least rows of a block: stretches of it should be long beside what they take to forget their guess


def most_probable_path(log_b: Floats | Density, pi: Floats, A: Floats, starts: Ints) -> tuple[Ints, Floats]:
    """Viterbi path (N,) and its log joint probability (S,); see `forward_backward.smooth` for the arguments.

    Of paths with equal probability the one is taken whose last state has the lowest index, then the one before, and
    so on back.

    Threads work on a part of the rows each. All but the first start from a guess, as stretches do within a block (see
    `kernels.viterbi`): a block is done again if the one before ended otherwise than it was guessed, until that
    changes nothing. The result is to the bit that of one thread.
    """
    search = _Search(as_density(log_b), Chain(pi, A).logs(), starts)
    n_blocks = len(search.blocks)
    parts = min(_threads.count(), max(n_blocks // SHARE, 1))
    begins = [n_blocks * part // parts for part in range(parts)]
    _threads.run([partial(search.part, *ends) for ends in zip(begins, [*begins[1:], n_blocks])])
    for begin in begins[1:]:
        search.again(begin)
    search.mend()
    return search.path, search.best()


class _Search:
    """What is known of the best path, block by block."""

    def __init__(self, density: Density, logs: Chain, starts: Ints) -> None:
        self.density, self.logs, self.starts = density, logs, starts
        n_rows, n_states = int(starts[-1]), len(logs.pi)
        size = LANES * (max(2 * ENTRIES // n_states, ROWS) // LANES | 1)  # what fills odd stretches, see `led_singly`
        self.blocks = [(begin, min(begin + size, n_rows)) for begin in range(0, n_rows, size)]
        self.constant = logs.into(0, 1) if len(logs.A) == 1 else None
        self.path = np.empty(n_rows, dtype=np.int64)
        self.back: Ints = np.empty(n_rows * n_states, dtype=np.uint8 if n_states <= 256 else np.int32)
        self.after = np.zeros((len(self.blocks), n_states))  # scores at the end of each block
        self.before = np.empty(len(self.blocks), dtype=np.int64)  # state before each block, from where its path comes
        firsts = np.searchsorted(starts[:-1], [0, *(end for _, end in self.blocks)])
        self.begun = list(pairwise(firsts.tolist()))  # sequences that begin in each block
        self.totals = np.zeros(len(starts) - 1 + len(self.blocks))  # of the one before, and of those that begin

    def part(self, begin: int, end: int) -> None:
        """Search some blocks, from the guess that all states before them are equally good."""
        scores = np.zeros(len(self.logs.pi))
        for i in range(begin, end):
            self._block(i, scores)

    def again(self, begin: int) -> None:
        """Search blocks again from where the one before them ended, until that changes nothing."""
        scores = self.after[begin - 1].copy()
        for i in range(begin, len(self.blocks)):
            said = self.after[i].copy()
            self._block(i, scores)
            if np.array_equal(said, scores):
                break

    def mend(self) -> None:
        """Join the paths through the blocks, each of which ends in the state that was best at its end."""
        state = viterbi.best_of(self.after[-1])
        for i in reversed(range(len(self.blocks))):
            rows = slice(*self.blocks[i])
            if self.path[rows.stop - 1] != state:
                singly = viterbi.led_singly(rows.stop - rows.start, self.constant is None)
                self.before[i] = viterbi.follow(self._back(i), singly, state, self.path[rows])
            state = self.before[i]

    def best(self) -> Floats:
        """Log joint probabilities (S,)."""
        sizes = [end - begin + 1 for begin, end in self.begun]
        owner = np.arange(len(self.totals)) - np.repeat(np.arange(len(sizes)), sizes)
        found = np.bincount(owner, self.totals)  # the first is what is before all sequences
        return np.asarray(found[1:], dtype=float)

    def _block(self, i: int, scores: Floats) -> None:
        """Search one block from ``scores`` (K,), which become those at its end."""
        rows, (begin, end) = slice(*self.blocks[i]), self.begun[i]
        totals = self.totals[begin + i : end + i + 1]
        totals[:] = 0.0
        self.before[i] = viterbi.search(*self._given(i), scores, self._back(i), self.path[rows], totals)
        if self.before[i] < 0:
            self._name_the_first()
        self.after[i] = scores

    def _given(self, i: int) -> tuple[Floats, Floats, Floats, Ints]:
        """Log densities (K, n) of a block, initial probabilities, transitions into its rows, places of first rows."""
        begin, end = self.blocks[i]
        log_b = np.ascontiguousarray(self.density(begin, end).T)
        into = self.logs.into(begin, end) if self.constant is None else self.constant
        return log_b, self.logs.pi, into, self.starts[slice(*self.begun[i])] - begin

    def _back(self, i: int) -> Ints:
        n_states = len(self.logs.pi)
        begin, end = self.blocks[i]
        return self.back[begin * n_states : end * n_states]

    def _name_the_first(self) -> NoReturn:
        """Raise for the first row that is impossible: a part that was guessed knows of one, not of the first."""
        scores = np.zeros(len(self.logs.pi))
        for i, (begin, end) in enumerate(self.blocks):
            back, top = np.empty((end - begin, len(scores)), self.back.dtype), np.empty(end - begin)
            row = viterbi.walk(*self._given(i), end - begin, scores, back, top)
            if row >= 0:
                raise ImpossibleObservationError(begin + row)
        raise AssertionError("no row is impossible")
