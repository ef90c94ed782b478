"""Posteriors of a hidden chain from log-densities: scaled recursions, in log space where scaling cannot do it.

Rows are worked on in blocks that fit the cache. First one pass runs forward to the middle of a span of sequences and
another, on a second thread, backward to it; each keeps what it hands from block to block. Then both go on: as every
block now has both messages, its posterior is made, summed and forgotten. So memory does not grow with the series,
but for one row a block and what is asked for row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from statespace_em import _threads
from statespace_em._typing import Floats, Ints
from statespace_em.emissions.evaluate import add
from statespace_em.kernels import chain
from statespace_em.sequence.blocks import Density, as_density, first_rows, row_blocks, sequence_spans
from statespace_em.sequence.recursions import Arithmetic, Chain, Lanes, Logs, LostError, Scaled, TwoWay

NOTHING = np.empty(0)
KEPT = 4  # blocks whose first pass is kept for the second; more are cheaper to make again than to fetch

Visit: TypeAlias = Callable[[int, int, Floats], Any]  # rows of a block and their gamma -> additive statistics, or None


class ChainSums(NamedTuple):
    """What the E-step of a hidden chain sums up."""

    statistics: Any  # of the visits
    xi_sum: Floats  # (K, K)
    firsts: Floats  # (K,), sum of gamma over the first rows


class ChainPosterior(NamedTuple):
    """What the E-step of a hidden chain gives; rows of all sequences end to end."""

    gamma: Floats  # (N, K)
    xi: Floats  # (N, K, K), or no rows when only the sum was asked for; NaN at the last row of a sequence
    xi_sum: Floats  # (K, K)
    firsts: Floats  # (K,), sum of gamma over the first rows
    log_likelihood: Floats  # (S,), nats


class ChainFilter(NamedTuple):
    """What is known of a hidden chain at the time."""

    filtered: Floats  # (N, K), p(s_t | y_1..t)
    predicted: Floats  # (N, K), p(s_t | y_1..t-1)
    log_likelihood: Floats  # (N,), log p(y_t | y_1..t-1), nats


def smooth(log_b: Floats | Density, pi: Floats, A: Floats, starts: Ints, *, pairs: bool = False) -> ChainPosterior:
    """Posterior of states and pairs of states given all rows.

    Parameters
    ----------
    log_b
        Log densities (N, K) of the rows of sequences end to end, or the function that gives those of a block.
    pi, A
        Initial (K,) and transition probabilities (1 or N, K, K).
    starts
        Offsets (S + 1,) of the sequences.
    pairs
        Whether to return every pair, not only their sum.

    Raises
    ------
    ImpossibleObservationError
        With the number of the first row that no path can produce.
    """
    n_rows, n_states = int(starts[-1]), len(pi)
    gamma = np.empty((n_rows, n_states))
    xi = np.full((n_rows if pairs else 0, n_states, n_states), np.nan)

    def keep(begin: int, end: int, part: Floats) -> None:
        gamma[begin:end] = part

    sums, log_likelihood = smooth_sums(log_b, pi, A, starts, keep, xi=xi)
    return ChainPosterior(gamma, xi, sums.xi_sum, sums.firsts, log_likelihood)


def smooth_sums(
    log_b: Floats | Density, pi: Floats, A: Floats, starts: Ints, visit: Visit, *, xi: Floats | None = None
) -> tuple[ChainSums, Floats]:
    """Sums over the posterior of all rows, and the log-likelihood of each sequence (S,).

    ``visit`` is given every block of gamma, once for each that counts; blocks come in no order and from several
    threads, but what the visits return is added in the same order whatever the number of threads. For the other
    arguments see `smooth`.
    """
    work = _Work(as_density(log_b), Chain(pi, A), starts, visit, np.empty((0, 0, 0)) if xi is None else xi)
    spans = sequence_spans(starts, len(pi))
    parts = _threads.run([partial(work.span, begin, end) for begin, end in spans])
    return reduce(_sum, parts), work.log_likelihood


def filter_states(log_b: Floats | Density, pi: Floats, A: Floats, starts: Ints) -> ChainFilter:
    """Causal probabilities; see `smooth` for the arguments. A later row never changes a bit of an earlier one."""
    density, steps, first = as_density(log_b), Chain(pi, A), first_rows(starts)
    n_rows, n_states = len(first), len(pi)
    filtered, predicted = np.empty((2, n_rows, n_states))
    log_scale, scaled = np.empty(n_rows), Scaled(steps, first)
    carry, before = np.zeros((2, n_states))
    for begin, end in row_blocks(0, n_rows, n_states):
        rows = slice(begin, end)
        block, _ = scaled.forward(begin, end, density(begin, end), carry)
        np.divide(block.alpha, block.alpha.sum(1)[:, None], out=filtered[rows])
        into = steps.into(begin, end)
        chain.predict(filtered[rows], steps.pi, into, first[rows], before, predicted[rows])
        log_scale[rows] = np.log(block.scale) + block.top
    for s in _sequences(np.flatnonzero(np.isnan(log_scale)), starts):
        # from the row that was lost on; before it the scaled values stand, so that the future cannot touch them
        onwards = int(starts[s]) + int(np.argmax(np.isnan(log_scale[starts[s] : starts[s + 1]])))
        logs, carry = Logs(steps, first), np.zeros(n_states)
        for begin, end in row_blocks(int(starts[s]), int(starts[s + 1]), n_states):
            block, log_predicted = logs.forward_predicted(begin, end, density(begin, end), carry)
            rows, tail = slice(max(begin, onwards), end), slice(max(onwards - begin, 0), None)
            filtered[rows], predicted[rows] = np.exp(block.alpha[tail]), np.exp(log_predicted[tail])
            log_scale[rows] = block.scale[tail]
    return ChainFilter(filtered, predicted, log_scale)


class _Work:
    """What the threads of one E-step share."""

    def __init__(self, density: Density, chain: Chain, starts: Ints, visit: Visit, xi: Floats) -> None:
        self.density, self.chain, self.starts, self.visit, self.xi = density, chain, starts, visit, xi
        self.first = first_rows(starts)
        self.log_likelihood = np.zeros(len(starts) - 1)

    def span(self, begin: int, end: int) -> ChainSums:
        """Sums of some sequences; those that scaling cannot represent are done again in log space."""
        laned = len(self.chain.A) == 1 and len(self.xi) == 0
        scaled: Arithmetic = Lanes(self.chain, self.first) if laned else Scaled(self.chain, self.first)
        try:
            return self.sums(scaled, begin, end)
        except LostError:
            one, other = np.searchsorted(self.starts, (begin, end))
            self.log_likelihood[one:other] = 0.0
        if laned:
            scaled = Lanes(self.chain, self.first, strict=True)
        lost, carry = [], np.zeros(len(self.chain.pi))
        for rows in row_blocks(begin, end, len(carry), scaled.stretches):
            block, _ = scaled.forward(*rows, self.density(*rows), carry)
            lost.append(scaled.lost(block))
        again = _sequences(np.concatenate(lost), self.starts)
        logs: Arithmetic = Logs(self.chain, self.first)
        return reduce(
            _sum, [self.sums(logs if bad else scaled, *rows) for *rows, bad in _runs(self.starts, begin, end, again)]
        )

    def sums(self, arithmetic: Arithmetic, begin: int, end: int) -> ChainSums:
        """Sums of some sequences in one arithmetic, by two passes that meet in the middle and go on.

        Where there is nothing to gain by that, they meet before the last block, and one goes on after the other.
        """
        n_states = len(self.chain.pi)
        blocks = row_blocks(begin, end, n_states, arithmetic.stretches)
        if len(blocks) == 1:
            return self._through(self._empty(), arithmetic, begin, end, *np.zeros((2, n_states)), new=True)
        meets = len(blocks) > KEPT and isinstance(arithmetic, TwoWay) and not arithmetic.sparse
        middle = len(blocks) // 2 if meets else len(blocks) - 1
        filtered: dict[int, Floats] = {}  # what is handed to a block by the one before
        messages: dict[int, Floats] = {len(blocks) - 1: np.zeros(n_states)}  # and by the one after
        kept: dict[int, Any] = {}

        def forward() -> None:
            carry = np.zeros(n_states)
            for i in range(middle):
                filtered[i] = carry.copy()
                kept[i] = self._forward(arithmetic, *blocks[i], carry)
                kept.pop(i - KEPT, None)
            filtered[middle] = carry

        def backward() -> None:
            carry, both = np.zeros(n_states), cast(TwoWay, arithmetic)
            for i in reversed(range(middle, len(blocks))):
                both.messages(*blocks[i], self.density(*blocks[i]), carry)
                messages[i - 1] = carry.copy()

        def left() -> ChainSums:
            carry, sums = messages[middle - 1], self._empty()
            for i in reversed(range(middle)):
                if i in kept:
                    sums = self._backward(sums, arithmetic, kept.pop(i), carry)
                else:
                    sums = self._through(sums, arithmetic, *blocks[i], filtered[i], carry, new=False)
            return sums

        def right() -> ChainSums:
            carry, sums = filtered[middle], self._empty()
            for i in range(middle, len(blocks)):
                sums = self._through(sums, arithmetic, *blocks[i], carry, messages[i], new=True)
            return sums

        if meets:
            _threads.run([forward, backward])
            return reduce(_sum, _threads.run([left, right]))
        forward()
        last = right()
        messages[middle - 1] = messages[middle]  # which the last block has moved on
        return _sum(left(), last)

    def _forward(self, arithmetic: Arithmetic, begin: int, end: int, carry: Floats) -> Any:
        """Forward pass over a block for the first time."""
        block, fine = arithmetic.forward(begin, end, self.density(begin, end), carry)
        if not fine:
            raise LostError
        arithmetic.add_logs(block, self._before(begin), self.log_likelihood)
        return block

    def _backward(self, sums: ChainSums, arithmetic: Arithmetic, block: Any, message: Floats) -> ChainSums:
        xi = self.xi[block.begin : block.end]
        gamma = arithmetic.backward(block, message, xi, sums.xi_sum, sums.firsts)
        return self._visited(sums, block.begin, block.end, gamma)

    def _through(
        self, sums: ChainSums, arithmetic: Arithmetic, begin: int, end: int, carry: Floats, message: Floats, *,
        new: bool,
    ) -> ChainSums:  # fmt: skip
        """Both passes over a block, ``new`` if for the first time."""
        log_likelihood = self.log_likelihood if new else NOTHING
        if isinstance(arithmetic, Lanes):
            gamma, fine = arithmetic.through(
                begin, end, self.density(begin, end), carry, message, sums.xi_sum, sums.firsts, self._before(begin),
                log_likelihood,
            )  # fmt: skip
            if not fine:
                raise LostError
            return self._visited(sums, begin, end, gamma)
        if new:
            return self._backward(sums, arithmetic, self._forward(arithmetic, begin, end, carry), message)
        block, _ = arithmetic.forward(begin, end, self.density(begin, end), carry)
        return self._backward(sums, arithmetic, block, message)

    def _before(self, begin: int) -> int:
        """Sequence before the first one that begins at or after this row."""
        return int(self.starts.searchsorted(begin)) - 1

    def _empty(self) -> ChainSums:
        n_states = len(self.chain.pi)
        return ChainSums(None, np.zeros((n_states, n_states)), np.zeros(n_states))

    def _visited(self, sums: ChainSums, begin: int, end: int, gamma: Floats) -> ChainSums:
        part = self.visit(begin, end, gamma)
        return ChainSums(_added(sums.statistics, part), sums.xi_sum, sums.firsts)


def _added(left: Any, right: Any) -> Any:
    if left is None or right is None:
        return right if left is None else left
    return add(left, right)


def _sum(left: ChainSums, right: ChainSums) -> ChainSums:
    statistics = _added(left.statistics, right.statistics)
    return ChainSums(statistics, left.xi_sum + right.xi_sum, left.firsts + right.firsts)


def _sequences(rows: Ints, starts: Ints) -> Ints:
    """Sequences that these rows are in."""
    return np.unique(np.searchsorted(starts, rows, side="right") - 1)


def _runs(starts: Ints, begin: int, end: int, lost: Ints) -> list[tuple[int, int, bool]]:
    """Row ranges: each lost sequence alone, the others between them together."""
    runs = []
    for s in lost:
        if starts[s] > begin:
            runs.append((begin, int(starts[s]), False))
        begin = int(starts[s + 1])
        runs.append((int(starts[s]), begin, True))
    return [*runs, (begin, end, False)] if begin < end else runs
