"""Which entries of a matrix of probabilities are free and which are fixed: a fixed value is never touched.

The free entries of a row share what its fixed ones leave. Divided by that, they are probabilities of their own, zero
where the row is fixed; so everything that is known of plain probabilities (modes, coordinates, counts) applies to
them as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.domains import lifted, n_free, pull_back_simplex, taken, to_vector
from statespace_em.priors import Dirichlet


@dataclass(frozen=True, eq=False)
class Pattern:
    """Fixed values of probabilities along the last axis; NaN = free."""

    fixed: Floats  # (..., K)

    @cached_property
    def free(self) -> Bools:
        """Whether each entry is free."""
        return np.isnan(self.fixed)

    @cached_property
    def room(self) -> Floats:
        """Probability (..., 1) that the fixed entries of a row leave to the free ones."""
        return np.asarray(1.0 - np.where(self.free, 0.0, self.fixed).sum(-1, keepdims=True))

    @cached_property
    def is_free(self) -> bool:
        """Whether all entries are."""
        return bool(self.free.all())

    @property
    def allowed(self) -> Bools:
        """Entries that are not fixed at zero."""
        return self.free | (self.fixed > 0.0)

    def inner(self, value: Floats) -> Floats:
        """Free entries as probabilities of their own, zero where the row is fixed."""
        if self.is_free:
            return value
        return np.asarray(np.where(self.free, value, 0.0) / np.where(self.room > 0.0, self.room, 1.0))

    def outer(self, inner: Floats) -> Floats:
        """Inverse of `inner`: with the fixed entries put back."""
        return inner if self.is_free else np.asarray(np.where(self.free, inner * self.room, self.fixed))

    def mode(self, counts: Floats, prior: Dirichlet, previous: Floats | None = None) -> Floats:
        """Probabilities from expected counts; zeros of ``previous`` stay, and so do its rows without a count."""
        if previous is None:
            n_entries = np.maximum(self.free.sum(-1, keepdims=True), 1)
            return self.outer(prior.mode(counts, self.free / n_entries))
        return self.outer(prior.mode(counts, self.inner(previous)))

    def to_vector(self, value: Floats, reference: Floats) -> Floats:
        """Coordinates of the free entries, see `statespace_em.domains`."""
        return to_vector(self.inner(value), self.inner(reference), "simplex")

    def taken(self, vector: Floats, reference: Floats) -> tuple[Floats, Floats]:
        """Inverse of `to_vector` for the first coordinates of several parameters, and the other coordinates."""
        value, rest = taken(vector, self.inner(reference), "simplex")
        return self.outer(value), rest

    def pull_back(self, gradient: Floats, value: Floats, reference: Floats) -> Floats:
        """Gradient in the coordinates, from that with respect to the entries."""
        return pull_back_simplex(gradient * self.room, self.inner(value), self.inner(reference))

    def lifted(self, value: Floats, image: Floats) -> Floats | None:
        """Free probabilities raised that are next to zero but grow under EM; None if none do."""
        raised = lifted(self.inner(value), self.inner(image))
        return None if raised is None else self.outer(raised)

    def n_free(self, value: Floats) -> int:
        """Number of free values."""
        return n_free(self.inner(value), "simplex")

    def arranged(self, order: Ints) -> Pattern:
        """The pattern with the states in this order."""
        return Pattern(self.fixed[np.ix_(*[order] * self.fixed.ndim)])

    def equals(self, other: Pattern) -> bool:
        """Whether the same entries are fixed at the same values."""
        return np.array_equal(self.fixed, other.fixed, equal_nan=True)


def reachable(initial: Bools, transition: Bools) -> Bools:
    """States (K,) that some path of allowed steps gets to from an allowed first state."""
    found = initial.copy()
    for _ in range(len(found)):
        found |= transition[found].any(0)
    return found


def connected(transition: Bools) -> bool:
    """Whether every state can be reached from every other: the stationary distribution is then unique."""
    one = np.zeros(len(transition), bool)
    one[0] = True
    return bool(reachable(one, transition).all() and reachable(one, transition.T).all())
