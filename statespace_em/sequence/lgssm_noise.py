"""Noise covariances with a pattern, the same in every row or written for every kind of row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.patterns import Pattern, components
from statespace_em.priors import InverseWishart
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.lgssm_loading import loaded
from statespace_em.sequence.lgssm_noise_groups import FLAT, ClosedForm, NoiseGroup, groups


@dataclass(frozen=True, eq=False)
class Noise:
    """Covariances ``loading @ inner @ loading'`` whose inner matrices have a pattern.

    They are (p, p), or (kinds, p, p) where the pattern is one of rows, of which it has one of each kind.
    """

    pattern: Pattern | RowPattern  # (r, r)
    loading: Floats | None = None  # (p, r), or (kinds, p, r) of a pattern of rows; None: the identity

    @property
    def by_row(self) -> bool:
        """Whether covariances are by kind of row."""
        return isinstance(self.pattern, RowPattern)

    @cached_property
    def parts(self) -> list[Ints]:
        """Rows of the inner matrix that nothing links to others, in any kind of row."""
        return components(self.pattern.linked)

    @cached_property
    def groups(self) -> list[NoiseGroup]:
        """Names that are estimated together."""
        return groups(self.pattern, self.parts)

    @cached_property
    def closed(self) -> list[ClosedForm]:
        """Groups that reduce to a constant covariance."""
        return [group for group in self.groups if isinstance(group, ClosedForm)]

    @cached_property
    def cones(self) -> list[ClosedForm]:
        """Those of them whose covariances are squares."""
        return [group for group in self.closed if group.block.kind != "general"]

    @cached_property
    def is_whole(self) -> bool:
        """Whether all entries are free and the same in every row, and nothing else is to be done with them."""
        whole = len(self.closed) == 1 and not self.by_row and self.loading is None
        return whole and self.closed[0].block.kind == "free" and len(self.closed[0].rows) == self.pattern.shape[0]

    @cached_property
    def _left(self) -> Floats:
        return np.asarray(np.eye(self.pattern.shape[0]) if self.loading is None else np.linalg.pinv(self.loading))

    def inner(self, cov: Floats) -> Floats:
        """Covariances of the disturbances."""
        return cov if self.loading is None else np.asarray(self._left @ cov @ self._left.swapaxes(-1, -2))

    def outer(self, inner: Floats) -> Floats:
        """Inverse of `inner`."""
        return loaded(inner, self.loading)

    def inner_gradient(self, gradient: Floats) -> Floats:
        """Gradient with respect to the covariances of the disturbances."""
        return gradient if self.loading is None else np.asarray(self.loading.swapaxes(-1, -2) @ gradient @ self.loading)

    def state(self, cov: Floats) -> Floats:
        """Return what the groups read and write, a copy; see `NoiseGroup`."""
        return self.pattern.read(self.inner(cov)) if self.by_row else np.array(self.inner(cov))

    def cov(self, state: Floats) -> Floats:
        """Inverse of `state`."""
        return self.outer(self.pattern.build(state) if self.by_row else state)

    def mode(self, scatter: Floats, counts: Floats, current: Floats, prior: InverseWishart) -> Floats:
        """Maximise the expected log-likelihood plus log prior of residuals with these sums of outer products.

        ``counts`` ([kinds,] r) are the numbers of residuals of each disturbance; ``current`` is the covariance before.
        """
        if not self.groups:
            return current
        if self.is_whole and prior == FLAT:  # the usual case, in which there is nothing to put together
            return self.closed[0].block.mode(scatter, counts, current)
        state, scatter = self.state(current), self.inner(scatter)
        for group in self.groups:
            group.improve(state, scatter, counts, prior)
        return self.cov(state)

    # priors of covariances that are written for rows

    @property
    def takes_priors(self) -> bool:
        """Whether all names stand for covariances of rows as they are, each of which may have a prior."""
        return len(self.closed) == len(self.groups) and all(group.plain is not None for group in self.closed)

    def _with_priors(self, state: Floats, prior: InverseWishart) -> list[tuple[ClosedForm, Floats, InverseWishart]]:
        """Groups with their covariances and their parts of a prior."""
        size, found = self.pattern.shape[0], []
        for group in self.closed:
            scale = tuple(map(tuple, prior.matrix(size)[np.ix_(group.rows, group.rows)]))
            dof = None if prior.dof is None else prior.dof + size - len(group.rows)
            found.append((group, group.read(state), InverseWishart(dof, scale)))
        return found

    def log_density(self, cov: Floats, prior: InverseWishart) -> float:
        """Sum of the log densities of all covariances, in nats, without constants."""
        return sum(own.log_density(block) for _, block, own in self._with_priors(self.state(cov), prior))

    def prior_gradient(self, cov: Floats, prior: InverseWishart) -> Floats:
        """Twice the gradient of `log_density` by the covariances (kinds, p, p), each counted in one of its kinds."""
        inner = np.zeros(self.inner(cov).shape)
        for group, block, own in self._with_priors(self.state(cov), prior):
            inner[group.plain, group.rows[:, None], group.rows] += 2.0 * own.gradient(block)
        return np.asarray(self._left.swapaxes(-1, -2) @ inner @ self._left)

    # coordinates

    def to_vector(self, cov: Floats, reference: Floats) -> Floats:
        """Coordinates of the free values; what is singular in the reference keeps its null space.

        Raises
        ------
        numpy.linalg.LinAlgError
            If a covariance has become singular since.
        """
        state, origin = self.state(cov), self.state(reference)
        return np.concatenate([*(group.to_vector(state, origin) for group in self.groups), np.zeros(0)])

    def from_vector(self, vector: Floats, reference: Floats) -> tuple[Floats, Floats]:
        """Covariances from their coordinates, and what is left of the vector."""
        state = self.state(reference)
        for group in self.groups:
            vector = group.from_vector(vector, state)
        return self.cov(state), vector

    def pull_back(self, gradient: Floats, cov: Floats, reference: Floats) -> Floats:
        """Gradient in the coordinates from the symmetric G with d objective = sum of tr(G d cov)."""
        state, origin, gradient = self.state(cov), self.state(reference), self.inner_gradient(gradient)
        return np.concatenate([*(group.pull_back(gradient, state, origin) for group in self.groups), np.zeros(0)])
