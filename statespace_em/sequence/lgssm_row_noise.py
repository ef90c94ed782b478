"""Noise covariances written for every row: names whose factors change from row to row.

Names that never stand together are estimated apart. A set of them is "closed" where its covariances, over all kinds of
rows, are multiples of one pattern (each row's residuals count in units of their factor), or one name times known
matrices (the same after whitening each row): both reduce to a constant `Noise`, its M-step and its coordinates. Any
other linear family is "open": Fisher scoring on the sum over kinds with step control, values as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.patterns import Pattern, components
from statespace_em.priors import InverseWishart
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.lgssm_loading import loaded
from statespace_em.sequence.lgssm_noise import ENOUGH, SCORING_STEPS, Noise

FLAT = InverseWishart()
SAME = 1e-12  # relative difference of multiples of one matrix
HALVINGS = 40


class Node(NamedTuple):
    """Rows of a covariance that nothing links to others, in the kinds of rows where certain names stand there."""

    rows: Ints  # (r,)
    kinds: Ints  # (k,)
    numbers: Floats  # (k, r, r)
    design: Floats  # (names, k, r, r)

    def cut(self, matrices: Floats) -> Floats:
        """Part (k, r, r) of matrices (kinds, p, p)."""
        return np.asarray(matrices[self.kinds[:, None, None], self.rows[:, None], self.rows])

    def build(self, values: Floats) -> Floats:
        """Covariances (k, r, r)."""
        return np.asarray(self.numbers + np.tensordot(values, self.design, 1))


class Piece(ABC):
    """Names that are estimated together."""

    values: Ints  # positions in the names of the pattern

    @abstractmethod
    def mode(self, scatter: Floats, counts: Floats, values: Floats, prior: InverseWishart) -> Floats:
        """Values that maximise the expected log joint of residuals with these sums (kinds, r, r)."""

    @abstractmethod
    def to_vector(self, values: Floats, origin: Floats) -> Floats:
        """Coordinates of the values; LinAlgError where a covariance has become singular."""

    @abstractmethod
    def from_vector(self, vector: Floats, origin: Floats) -> tuple[Floats, Floats]:
        """Values from their coordinates, and what is left of the vector."""

    @abstractmethod
    def pull_back(self, gradient: Floats, values: Floats, origin: Floats) -> Floats:
        """Gradient in the coordinates from the symmetric G (kinds, r, r) with d objective = sum of tr(G d cov)."""


@dataclass(frozen=True, eq=False)
class Closed(Piece):
    """Names whose residuals reduce to those of a constant noise."""

    values: Ints
    noise: Noise
    nodes: list[Node]
    weights: list[Floats]  # of each node: (k, r, r) if it is whitened, (k,) if in units of its factors
    ranks: list[Floats]  # (k, r), share of each row of a whitened node

    @property
    def is_whitened(self) -> bool:
        """Whether nodes reduce to one disturbance; else they are multiples of one covariance."""
        return bool(self.ranks)

    def inner(self, values: Floats) -> Floats:
        """Covariance of the constant noise."""
        return self.noise.pattern.build(values)

    @property
    def is_plain(self) -> bool:
        """Whether it is a covariance as it stands in rows, without factors."""
        return not self.is_whitened and bool((self.weights[0] == 1.0).all())

    def own_prior(self, prior: InverseWishart, size: int) -> InverseWishart:
        """Part of a prior on covariances of this size, most of which may stand for itself."""
        rows = self.nodes[0].rows
        scale = prior.matrix(size)[np.ix_(rows, rows)]
        return InverseWishart(None if prior.dof is None else prior.dof + size - len(rows), tuple(map(tuple, scale)))

    def mode(self, scatter: Floats, counts: Floats, values: Floats, prior: InverseWishart) -> Floats:
        """Values that maximise the expected log-likelihood of residuals with these sums, and log prior."""
        if self.is_whitened:
            parts = zip(self.nodes, self.weights)
            total = np.array([[sum(float(np.sum(left * node.cut(scatter))) for node, left in parts)]])
            ranks = zip(self.nodes, self.ranks)
            many = np.array([sum(float(np.sum(rank * counts[node.kinds][:, node.rows])) for node, rank in ranks)])
        else:
            (node,), (factors,) = self.nodes, self.weights
            total = np.einsum("k,kab->ab", 1.0 / factors, node.cut(scatter))
            many = counts[node.kinds][:, node.rows].sum(0)
        return self.noise.pattern.read(self.noise.mode(total, many, self.inner(values), prior))

    def gradient(self, gradient: Floats) -> Floats:
        """Gradient with respect to the constant covariance."""
        if self.is_whitened:
            return np.array([[sum(float(np.sum(node.design[0] * node.cut(gradient))) for node in self.nodes)]])
        (node,), (factors,) = self.nodes, self.weights
        return np.asarray(np.einsum("k,kab->ab", factors, node.cut(gradient)))

    def to_vector(self, values: Floats, origin: Floats) -> Floats:
        """Coordinates of the values."""
        return self.noise.to_vector(self.inner(values), self.inner(origin))

    def from_vector(self, vector: Floats, origin: Floats) -> tuple[Floats, Floats]:
        """Values from their coordinates, and what is left of the vector."""
        inner, vector = self.noise.from_vector(vector, self.inner(origin))
        return self.noise.pattern.read(inner), vector

    def pull_back(self, gradient: Floats, values: Floats, origin: Floats) -> Floats:
        """Gradient in the coordinates."""
        return self.noise.pull_back(self.gradient(gradient), self.inner(values), self.inner(origin))


@dataclass(frozen=True, eq=False)
class Open(Piece):
    """Names in any other linear family."""

    values: Ints
    nodes: list[Node]

    def _fit(self, values: Floats, scatter: list[Floats], counts: list[Floats]) -> float:
        """``-sum of counts * log det - tr(inv(cov) scatter)``; -inf where a covariance is not positive definite."""
        total = 0.0
        for node, S, n in zip(self.nodes, scatter, counts):
            try:
                factor = np.linalg.cholesky(node.build(values))
            except np.linalg.LinAlgError:
                return -np.inf
            half = np.linalg.solve(factor, S)
            trace = np.trace(np.linalg.solve(factor, half.swapaxes(1, 2)), axis1=1, axis2=2).sum()
            total -= float(2.0 * np.sum(n * np.log(np.diagonal(factor, axis1=1, axis2=2))) + trace)
        return total

    def mode(self, scatter: Floats, counts: Floats, values: Floats, prior: InverseWishart) -> Floats:
        """Values that maximise the expected log-likelihood of residuals with these sums; the prior is flat."""
        S, n = [node.cut(scatter) for node in self.nodes], [counts[node.kinds][:, node.rows] for node in self.nodes]
        best, value = values, self._fit(values, S, n)
        total = sum(float(each.sum()) for each in n)
        if not np.isfinite(value) or not total:
            return values
        for _ in range(SCORING_STEPS):
            gradient, information = self._scores(best, S, n)
            scale = np.sqrt(np.where(np.diag(information) > 0.0, np.diag(information), 1.0))
            step = np.linalg.lstsq(information / np.outer(scale, scale), gradient / scale, rcond=1e-13)[0] / scale
            if not gradient @ step > ENOUGH * total:
                break
            for halving in range(HALVINGS):
                there = best + 0.5**halving * step
                found = self._fit(there, S, n)
                if found > value:
                    best, value = there, found
                    break
            else:
                break
        return best

    def _scores(self, values: Floats, scatter: list[Floats], counts: list[Floats]) -> tuple[Floats, Floats]:
        """Gradient and information of the values."""
        gradient, information = np.zeros(len(values)), np.zeros((len(values), len(values)))
        for node, S, n in zip(self.nodes, scatter, counts):
            precision = np.linalg.inv(node.build(values))
            whitened = precision @ node.design @ precision
            weighted = n[:, :, None] * node.design
            gradient += np.einsum("jkab,kab->j", whitened, S) - np.einsum("kab,jkba->j", precision, weighted)
            information += np.einsum("ikab,jkba->ij", whitened, weighted)
        return gradient, information

    def units(self, origin: Floats) -> Floats:
        """Change of each value that makes about the mean variance."""
        found = np.zeros(len(origin))
        for j in range(len(origin)):
            factor = np.concatenate([np.abs(node.design[j]).max((1, 2)) for node in self.nodes])
            variance = np.concatenate(
                [np.diagonal(node.build(origin), axis1=1, axis2=2).mean(1) for node in self.nodes]
            )
            found[j] = variance[factor > 0.0].mean() / factor[factor > 0.0].mean()
        return found

    def to_vector(self, values: Floats, origin: Floats) -> Floats:
        """Coordinates of the values."""
        for node in self.nodes:
            np.linalg.cholesky(node.build(values))
        return np.asarray((values - origin) / self.units(origin))

    def from_vector(self, vector: Floats, origin: Floats) -> tuple[Floats, Floats]:
        """Values from their coordinates, and what is left of the vector."""
        values = origin + self.units(origin) * vector[: len(origin)]
        for node in self.nodes:
            np.linalg.cholesky(node.build(values))
        return values, vector[len(origin) :]

    def pull_back(self, gradient: Floats, values: Floats, origin: Floats) -> Floats:
        """Gradient in the coordinates."""
        slopes = sum(np.einsum("jkab,kab->j", node.design, node.cut(gradient)) for node in self.nodes)
        return np.asarray(self.units(origin) * slopes)


@dataclass(frozen=True, eq=False)
class RowNoise:
    """Noise covariances ``loading @ inner @ loading'`` (kinds, p, p) whose inner matrices have a pattern of rows."""

    pattern: RowPattern  # (r, r); one row of each kind
    loading: Floats | None = None  # (n, r) or (kinds, n, r); None: the identity

    @cached_property
    def parts(self) -> list[Ints]:
        """Rows of the inner matrix that nothing links to others, in any kind of row."""
        return components(self.pattern.linked)

    @cached_property
    def pieces(self) -> list[Piece]:
        """Names that are estimated together."""
        pattern = self.pattern
        K, J = len(pattern.numbers), len(pattern.names)
        row, present = pattern.place // pattern.shape[0], np.zeros((len(self.parts), J, K), bool)
        for i, part in enumerate(self.parts):
            for e in np.flatnonzero(np.isin(row, part)):
                present[i, pattern.owner[e]] |= pattern.factors[e] != 0.0
        together = np.einsum("cik,cjk->ij", present.astype(float), present.astype(float)) > 0.0
        return [self._piece(values, np.asarray(present[:, values].any(1))) for values in components(together)]

    def _piece(self, values: Ints, present: Bools) -> Piece:
        nodes = []
        design = self.pattern.dense(0, len(self.pattern.numbers))[values]
        for part, own in zip(self.parts, present):
            kinds = np.flatnonzero(own)
            if len(kinds):
                where = kinds[:, None, None], part[:, None], part
                nodes.append(Node(part, kinds, self.pattern.numbers[where], design[:, *where]))
        names = tuple(self.pattern.names[j] for j in values)
        if not any(node.numbers.any() for node in nodes):
            multiple = _multiples(nodes[0]) if len(nodes) == 1 else None
            if multiple is not None and (multiple > 0.0).all():
                base = nodes[0].design[:, 0]
                return Closed(values, Noise(Pattern(names, np.zeros(base.shape[1:]), base)), nodes, [multiple], [])
            if len(values) == 1 and all(_is_semidefinite(node.design[0]) for node in nodes):
                left = [np.linalg.pinv(node.design[0], rcond=1e-12, hermitian=True) for node in nodes]
                ranks = [np.einsum("kab,kba->ka", each, node.design[0]) for each, node in zip(left, nodes)]
                return Closed(values, Noise(Pattern(names, np.zeros((1, 1)), np.ones((1, 1, 1)))), nodes, left, ranks)
        return Open(values, nodes)

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

    def values(self, cov: Floats) -> Floats:
        """Free values of covariances."""
        return self.pattern.read(self.inner(cov))

    def built(self, values: Floats) -> Floats:
        """Inverse of `values`."""
        return self.outer(self.pattern.build(values))

    def mode(self, scatter: Floats, counts: Floats, current: Floats, prior: InverseWishart) -> Floats:
        """Maximise the expected log-likelihood of residuals with these sums of outer products (kinds, p, p).

        ``counts`` (kinds, r) are the numbers of residuals of each disturbance. The prior is flat, or one on every
        covariance that stands in rows without factors.
        """
        values, scatter = self.values(current), self.inner(scatter)
        for piece, own in zip(self.pieces, self._priors(prior)):
            values[piece.values] = piece.mode(scatter, counts, values[piece.values], own)
        return self.built(values)

    @property
    def takes_priors(self) -> bool:
        """Whether all names stand for covariances of rows as they are, each of which may have a prior."""
        return len(self._closed) == len(self.pieces) and all(piece.is_plain for piece in self._closed)

    def _priors(self, prior: InverseWishart) -> list[InverseWishart]:
        if prior == FLAT:
            return [FLAT] * len(self.pieces)
        return [piece.own_prior(prior, self.pattern.shape[0]) for piece in self._closed]

    def log_density(self, cov: Floats, prior: InverseWishart) -> float:
        """Sum of the log densities of all covariances, in nats, without constants."""
        values = self.values(cov)
        parts = zip(self._closed, self._priors(prior))
        return sum(own.log_density(piece.inner(values[piece.values])) for piece, own in parts)

    def prior_gradient(self, cov: Floats, prior: InverseWishart) -> Floats:
        """Twice the gradient of `log_density` by the covariances (kinds, p, p), each counted in one of its kinds."""
        values, size = self.values(cov), self.pattern.shape[0]
        inner = np.zeros((len(self.pattern.numbers), size, size))
        for piece, own in zip(self._closed, self._priors(prior)):
            rows, kind = piece.nodes[0].rows, piece.nodes[0].kinds[0]
            inner[kind, rows[:, None], rows] += 2.0 * own.gradient(piece.inner(values[piece.values]))
        return np.asarray(self._left.swapaxes(-1, -2) @ inner @ self._left)

    def to_vector(self, cov: Floats, reference: Floats) -> Floats:
        """Coordinates of the free values.

        Raises
        ------
        numpy.linalg.LinAlgError
            If a covariance has become singular since.
        """
        values, origin = self.values(cov), self.values(reference)
        return np.concatenate([piece.to_vector(values[piece.values], origin[piece.values]) for piece in self.pieces])

    def from_vector(self, vector: Floats, reference: Floats) -> tuple[Floats, Floats]:
        """Covariances from their coordinates, and what is left of the vector."""
        values = self.values(reference)
        for piece in self.pieces:
            values[piece.values], vector = piece.from_vector(vector, values[piece.values])
        return self.built(values), vector

    def pull_back(self, gradient: Floats, cov: Floats, reference: Floats) -> Floats:
        """Gradient in the coordinates from the symmetric G (kinds, p, p) with d objective = sum of tr(G d cov)."""
        values, origin, own = self.values(cov), self.values(reference), self.inner_gradient(gradient)
        return np.concatenate(
            [piece.pull_back(own, values[piece.values], origin[piece.values]) for piece in self.pieces]
        )

    # what the boundary is told of, see `lgssm_boundary`

    @cached_property
    def _closed(self) -> list[Closed]:
        return [piece for piece in self.pieces if isinstance(piece, Closed)]

    @cached_property
    def open(self) -> list[Open]:
        """Names that reduce to no constant noise."""
        return [piece for piece in self.pieces if isinstance(piece, Open)]

    def constant(self, cov: Floats) -> list[tuple[Noise, Floats]]:
        """Return the constant noises that these covariances reduce to, with their covariances."""
        values = self.values(cov)
        return [(piece.noise, piece.inner(values[piece.values])) for piece in self._closed]

    def constant_gradients(self, gradient: Floats) -> list[Floats]:
        """Gradients with respect to `constant`."""
        own = self.inner_gradient(gradient)
        return [piece.gradient(own) for piece in self._closed]

    def from_constant(self, inners: list[Floats], cov: Floats) -> Floats:
        """Covariances with other values of `constant`."""
        values = self.values(cov)
        for piece, inner in zip(self._closed, inners):
            values[piece.values] = piece.noise.pattern.read(inner)
        return self.built(values)

    def directions(self, number: int) -> Floats:
        """Disturbances (r, r') that the constant noise of this number stands for."""
        piece, size = self._closed[number], self.pattern.shape[0]
        if piece.is_whitened:  # one for all of its rows
            return np.eye(size)[:, np.unique(np.concatenate([node.rows for node in piece.nodes]))]
        return np.eye(size)[:, piece.nodes[0].rows]


def _multiples(node: Node) -> Floats | None:
    """Factors (k,) of the first design in the others; None where they are no multiples of it."""
    flat = np.moveaxis(node.design, 1, 0).reshape(len(node.kinds), -1)
    largest = int(np.abs(flat[0]).argmax())
    factors = flat[:, largest] / flat[0, largest]
    off = np.abs(flat - factors[:, None] * flat[0])
    return factors if (off <= SAME * np.abs(flat).max(1, keepdims=True)).all() else None


def _is_semidefinite(matrices: Floats) -> bool:
    least = np.linalg.eigvalsh(matrices)[:, 0]
    return bool((least > -1e-10 * np.abs(matrices).max((1, 2))).all())
