"""The recursions of a hidden chain over one block of rows, in scaled or in log arithmetic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.errors import ImpossibleObservationError
from statespace_em.kernels import chain
from statespace_em.kernels.chain_few import FEW, backward_few, forward_few

TINY = 1e-30  # below this a transition no longer guarantees that a dropped state does not matter


class Block(NamedTuple):
    """Forward pass over rows ``begin`` to ``end`` - 1, in the arithmetic of who made it."""

    begin: int
    end: int
    b: Floats  # (n, K), likelihoods
    top: Floats  # (n,), what was taken off their logs
    alpha: Floats  # (n, K), p(k | rows so far), scaled up to a factor of the row
    scale: Floats  # (n,), p(row | rows before)


class Chain(NamedTuple):
    """Initial and transition probabilities, or their logs."""

    pi: Floats  # (K,)
    A: Floats  # (1 or N, K, K), [t] leads from row t to row t + 1

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


class Scaled:
    """Likelihoods relative to the largest of the row: fast; says which rows it cannot represent."""

    def __init__(self, chain: Chain, first: Bools) -> None:
        self.chain, self.first = chain, first
        self.sparse = bool(chain.A.min() < TINY)
        self.constant = chain.into(0, 1) if len(chain.A) == 1 else None
        n_states = len(chain.pi)
        self.few = len(chain.A) == 1 and n_states <= FEW and not self.sparse
        if self.few:
            self.pi, self.out = np.zeros(FEW), np.zeros((FEW, FEW))
            self.pi[:n_states], self.out[:n_states, :n_states] = chain.pi, chain.A[0]
            self.into = np.ascontiguousarray(self.out.T)

    def evaluate(self, log_b: Floats) -> tuple[Floats, Floats]:
        """Likelihoods (n, K) over the largest of the row, and the log of that (n,)."""
        b, top = np.empty(log_b.shape), np.empty(len(log_b))
        chain.relative(np.ascontiguousarray(log_b), self.sparse, b, top)
        return np.exp(b, out=b), top

    def forward(self, begin: int, end: int, log_b: Floats, carry: Floats) -> tuple[Block, bool]:
        """Forward pass from ``carry`` (K,), which it moves on, and whether all rows could be represented."""
        b, top = self.evaluate(log_b)
        alpha, scale = np.empty(b.shape), np.empty(len(b))
        first = self.first[begin:end]
        if self.few:
            lost = forward_few(b, self.pi, self.into, first, carry, alpha, scale)
        else:
            into = self.chain.into(begin, end) if self.constant is None else self.constant
            lost = chain.forward(b, self.chain.pi, into, first, self.sparse, carry, alpha, scale)
        return Block(begin, end, b, top, alpha, scale), not lost

    def messages(self, begin: int, end: int, log_b: Floats, ends: bool, carry: Floats) -> None:
        """Backward pass that only moves ``carry`` (K,) on; not for sparse chains."""
        b, _ = self.evaluate(log_b)
        chain.messages(b, self.chain.out_of(begin, end), self.first[begin:end], ends, carry)

    def backward(self, block: Block, ends: bool, carry: Floats, xi: Floats, xi_sum: Floats, firsts: Floats) -> Floats:
        """Gamma (n, K) of a block; moves ``carry`` on and adds to the sums."""
        gamma, steps = np.empty(block.b.shape), self.chain.out_of(block.begin, block.end)
        first = self.first[block.begin : block.end]
        if self.few and len(xi) == 0:
            backward_few(block.b, self.out, first, ends, block.alpha, carry, gamma, xi_sum, firsts)
        else:
            chain.backward(block.b, steps, first, ends, block.alpha, carry, gamma, xi, xi_sum, firsts)
        return gamma

    def add_logs(self, block: Block, sequence: int, log_likelihood: Floats) -> None:
        """Add the log-likelihood of a block to its sequences, see the kernel."""
        chain.add_logs(block.scale, block.top, self.first[block.begin : block.end], sequence, log_likelihood)


class Logs:
    """Log space: exact whatever the likelihoods, and about ten times slower."""

    def __init__(self, chain: Chain, first: Bools) -> None:
        self.chain, self.first = chain.logs(), first
        self.sparse = True

    def forward(self, begin: int, end: int, log_b: Floats, carry: Floats) -> tuple[Block, bool]:
        """As `Scaled.forward`; raises ImpossibleObservationError."""
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

    def messages(self, begin: int, end: int, log_b: Floats, ends: bool, carry: Floats) -> None:
        """Never asked for: messages need the scales here."""
        raise NotImplementedError

    def backward(self, block: Block, ends: bool, carry: Floats, xi: Floats, xi_sum: Floats, firsts: Floats) -> Floats:
        """As `Scaled.backward`."""
        gamma, steps = np.empty(block.b.shape), self.chain.out_of(block.begin, block.end)
        first = self.first[block.begin : block.end]
        chain.backward_log(block.b, steps, first, ends, block.alpha, block.scale, carry, gamma, xi, xi_sum, firsts)
        return gamma

    def add_logs(self, block: Block, sequence: int, log_likelihood: Floats) -> None:
        """As `Scaled.add_logs`."""
        first = self.first[block.begin : block.end]
        chain.add_logs(np.ones(len(first)), block.scale, first, sequence, log_likelihood)
