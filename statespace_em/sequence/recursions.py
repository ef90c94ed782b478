"""The recursions of a hidden chain over one block of rows, in scaled or in log arithmetic."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.errors import ImpossibleObservationError
from statespace_em.kernels import chain, chain_through
from statespace_em.kernels._lanes import LANES

TINY = 1e-30  # below this a transition no longer guarantees that a dropped state does not matter


class LostError(ArithmeticError):
    """Scaling cannot represent a row."""


class Block(NamedTuple):
    """Forward pass over rows ``begin`` to ``end`` - 1, in the arithmetic of who made it."""

    begin: int
    end: int
    b: Floats  # (n, K), likelihoods
    top: Floats  # (n,), what was taken off their logs
    alpha: Floats  # (n, K), p(k | rows so far), scaled up to a factor of the row
    scale: Floats  # (n,), p(row | rows before)


class Stretches(NamedTuple):
    """The same in `LANES` stretches of L rows side by side, see `chain_lanes`."""

    begin: int
    end: int
    b: Floats  # (L, K, LANES)
    top: Floats  # (L, 1, LANES)
    starts: Bools  # (L, LANES), first rows of sequences
    stops: Bools  # (L, LANES), last ones
    alpha: Floats  # (L + 1, K, LANES), from row 1 on
    scale: Floats  # (L, 1, LANES)


class Chain(NamedTuple):
    """Initial and transition probabilities, or their logs."""

    pi: Floats  # (K,)
    A: Floats  # (1 or N, K, K), [t] leads from row t to row t + 1

    @property
    def sparse(self) -> bool:
        """Whether a state may be dropped only where no later row needs it."""
        return bool(chain.any_below(np.ascontiguousarray(self.A), TINY))

    def out_of(self, begin: int, end: int) -> Floats:
        """Transitions out of each row of a block."""
        return self.A if len(self.A) == 1 else self.A[begin:end]

    def into(self, begin: int, end: int) -> Floats:
        """Transitions into each row of a block, transposed."""
        steps = self.A if len(self.A) == 1 else self.A[np.arange(begin - 1, end - 1)]
        return np.ascontiguousarray(steps.swapaxes(1, 2))

    def logs(self) -> Chain:
        """The same in log space."""
        with np.errstate(divide="ignore"):
            return Chain(np.log(self.pi), np.log(self.A))


class Arithmetic(Protocol):
    """Recursions over blocks of some kind, which hand a ``carry`` (K,) on from each to the next."""

    @property
    def stretches(self) -> int:
        """What blocks are cut into, see `row_blocks`."""
        ...

    def forward(self, begin: int, end: int, log_b: Floats, carry: Floats) -> tuple[Any, bool]:
        """Forward pass from ``carry`` (K,), which it moves on, and whether all rows could be represented."""
        ...

    def lost(self, block: Any) -> Ints:
        """Rows that could not be represented."""
        ...

    def backward(self, block: Any, carry: Floats, xi: Floats, xi_sum: Floats, firsts: Floats) -> Floats:
        """Gamma (n, K) of a block; moves ``carry`` on and adds to the sums; pairs go to ``xi``, unless it is empty.

        Raises
        ------
        LostError
            If a row could not be represented after all.
        """
        ...

    def add_logs(self, block: Any, sequence: int, log_likelihood: Floats) -> None:
        """Add the log-likelihood of a block to its sequences, ``sequence`` the one before its first new one."""
        ...


@runtime_checkable
class TwoWay(Arithmetic, Protocol):
    """Recursions that can begin at either end; those in log space cannot, since going back they need the scales."""

    @property
    def sparse(self) -> bool:
        """Whether a transition is too small for `messages`."""
        ...

    def messages(self, begin: int, end: int, log_b: Floats, carry: Floats) -> None:
        """Backward pass that only moves ``carry`` (K,) on; not for sparse chains."""
        ...


class Lanes:
    """Likelihoods relative to the largest of the row, in many places of a block at a time; says which rows it lost.

    For constant chains. Every block but the last of a span is cut without remainder. In a sparse chain states are
    soon left behind beyond double precision, mostly for good: unless ``strict``, a row is lost only where the rows
    after it say otherwise, which the backward pass finds out.
    """

    stretches: ClassVar[int] = LANES

    def __init__(self, chain: Chain, first: Bools, *, strict: bool = False) -> None:
        self.strict = strict
        self.first, self.pi, self.A = first, np.ascontiguousarray(chain.pi), np.ascontiguousarray(chain.A[0])
        self.sparse = chain.sparse

    def forward(self, begin: int, end: int, log_b: Floats, carry: Floats) -> tuple[Stretches, bool]:
        """As `Arithmetic.forward`."""
        by_state = self._by_state(log_b)
        K, L = len(by_state), by_state.shape[1] // LANES
        block = Stretches(
            begin, end, np.empty((L, K, LANES)), np.empty((L, 1, LANES)), np.empty((L, LANES), bool),
            np.empty((L, LANES), bool), np.empty((L + 1, K, LANES)), np.empty((L, 1, LANES)),
        )  # fmt: skip
        first, ends = self.first[begin:end], _ends(self.first, end)
        return block, chain_through.forward(
            by_state, first, ends, self.pi, self.A, self.sparse, self.strict, carry, *block[2:]
        )

    def lost(self, block: Stretches) -> Ints:
        """As `Arithmetic.lost`."""
        in_time = block.scale[:, 0].T.ravel()[: block.end - block.begin]
        return block.begin + np.flatnonzero(~(in_time > chain.LOST))

    def messages(self, begin: int, end: int, log_b: Floats, carry: Floats) -> None:
        """As `TwoWay.messages`."""
        chain_through.messages(self._by_state(log_b), self.first[begin:end], _ends(self.first, end), self.A, carry)

    def backward(self, block: Stretches, carry: Floats, xi: Floats, xi_sum: Floats, firsts: Floats) -> Floats:
        """As `Arithmetic.backward`, but for single pairs."""
        n_rows = block.end - block.begin
        gamma = np.empty((len(self.pi), block.scale.size))
        first = self.first[block.begin : block.end]
        fine = chain_through.backward(
            block.b, self.A, first, block.stops, self.sparse, self.strict, block.alpha, carry, gamma, xi_sum, firsts
        )
        if not fine:
            raise LostError
        return gamma[:, :n_rows].T

    def add_logs(self, block: Stretches, sequence: int, log_likelihood: Floats) -> None:
        """As `Arithmetic.add_logs`."""
        n_rows = block.end - block.begin
        chain_through.add_logs(block.scale, block.top, block.starts, n_rows, sequence, log_likelihood)

    def through(
        self, begin: int, end: int, log_b: Floats, carry: Floats, message: Floats, xi_sum: Floats, firsts: Floats,
        sequence: int, log_likelihood: Floats,
    ) -> tuple[Floats, bool]:  # fmt: skip
        """`forward`, `add_logs` unless to nothing, and `backward` in one; return gamma, and whether all rows fit."""
        by_state = np.ascontiguousarray(log_b.T)
        gamma = np.empty(by_state.shape)
        first, ends = self.first[begin:end], _ends(self.first, end)
        fine = chain_through.through(
            by_state, first, ends, self.pi, self.A, self.sparse, self.strict, carry, message, gamma, xi_sum, firsts,
            sequence, log_likelihood,
        )  # fmt: skip
        return gamma.T, fine

    def _by_state(self, log_b: Floats) -> Floats:
        """States by rows, these filled up to stretches of an odd length, which spread well over the cache."""
        length = -(-len(log_b) // LANES) | 1
        if len(log_b) == length * LANES:
            return np.ascontiguousarray(log_b.T)
        filled = np.zeros((log_b.shape[1], length * LANES))
        filled[:, : len(log_b)] = log_b.T
        return filled


class Scaled:
    """Likelihoods relative to the largest of the row: fast; says which rows it cannot represent."""

    stretches: ClassVar[int] = 1

    def __init__(self, chain: Chain, first: Bools) -> None:
        self.chain, self.first = chain, first
        self.sparse = chain.sparse
        self.constant = chain.into(0, 1) if len(chain.A) == 1 else None

    def evaluate(self, log_b: Floats) -> tuple[Floats, Floats]:
        """Likelihoods (n, K) over the largest of the row, and the log of that (n,)."""
        b, top = np.empty(log_b.shape), np.empty(len(log_b))
        chain.relative(np.ascontiguousarray(log_b), self.sparse, b, top)
        return np.exp(b, out=b), top

    def forward(self, begin: int, end: int, log_b: Floats, carry: Floats) -> tuple[Block, bool]:
        """As `Arithmetic.forward`."""
        b, top = self.evaluate(log_b)
        alpha, scale = np.empty(b.shape), np.empty(len(b))
        first = self.first[begin:end]
        into = self.chain.into(begin, end) if self.constant is None else self.constant
        lost = chain.forward(b, self.chain.pi, into, first, self.sparse, carry, alpha, scale)
        return Block(begin, end, b, top, alpha, scale), not lost

    def lost(self, block: Block) -> Ints:
        """As `Arithmetic.lost`."""
        return block.begin + np.flatnonzero(np.isnan(block.scale))

    def messages(self, begin: int, end: int, log_b: Floats, carry: Floats) -> None:
        """As `TwoWay.messages`."""
        b, _ = self.evaluate(log_b)
        chain.messages(b, self.chain.out_of(begin, end), self.first[begin:end], _ends(self.first, end), carry)

    def backward(self, block: Block, carry: Floats, xi: Floats, xi_sum: Floats, firsts: Floats) -> Floats:
        """As `Arithmetic.backward`."""
        gamma, steps = np.empty(block.b.shape), self.chain.out_of(block.begin, block.end)
        first = self.first[block.begin : block.end]
        ends = _ends(self.first, block.end)
        chain.backward(block.b, steps, first, ends, block.alpha, carry, gamma, xi, xi_sum, firsts)
        return gamma

    def add_logs(self, block: Block, sequence: int, log_likelihood: Floats) -> None:
        """As `Arithmetic.add_logs`."""
        chain.add_logs(block.scale, block.top, self.first[block.begin : block.end], sequence, log_likelihood)


class Logs:
    """Log space: exact whatever the likelihoods, and about ten times slower."""

    stretches: ClassVar[int] = 1

    def __init__(self, chain: Chain, first: Bools) -> None:
        self.chain, self.first = chain.logs(), first

    def forward(self, begin: int, end: int, log_b: Floats, carry: Floats) -> tuple[Block, bool]:
        """As `Arithmetic.forward`; raises ImpossibleObservationError."""
        return self.forward_predicted(begin, end, log_b, carry)[0], True

    def forward_predicted(self, begin: int, end: int, log_b: Floats, carry: Floats) -> tuple[Block, Floats]:
        """Forward pass, and log p(k | rows before) (n, K)."""
        log_b = np.ascontiguousarray(log_b)
        log_alpha, log_predicted = np.empty((2, *log_b.shape))
        log_scale = np.empty(len(log_b))
        into, first = self.chain.into(begin, end), self.first[begin:end]
        bad = chain.forward_log(log_b, self.chain.pi, into, first, carry, log_alpha, log_predicted, log_scale)
        if bad >= 0:
            raise ImpossibleObservationError(begin + bad)
        return Block(begin, end, log_b, np.zeros(len(log_b)), log_alpha, log_scale), log_predicted

    def lost(self, block: Block) -> Ints:
        """No rows."""
        return np.empty(0, int)

    def backward(self, block: Block, carry: Floats, xi: Floats, xi_sum: Floats, firsts: Floats) -> Floats:
        """As `Arithmetic.backward`."""
        gamma, steps = np.empty(block.b.shape), self.chain.out_of(block.begin, block.end)
        first = self.first[block.begin : block.end]
        ends = _ends(self.first, block.end)
        chain.backward_log(block.b, steps, first, ends, block.alpha, block.scale, carry, gamma, xi, xi_sum, firsts)
        return gamma

    def add_logs(self, block: Block, sequence: int, log_likelihood: Floats) -> None:
        """As `Arithmetic.add_logs`."""
        first = self.first[block.begin : block.end]
        chain.add_logs(np.ones(len(first)), block.scale, first, sequence, log_likelihood)


def _ends(first: Bools, end: int) -> bool:
    """Whether a sequence ends before this row."""
    return end == len(first) or bool(first[end])
