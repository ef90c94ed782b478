"""Constant covariances with a pattern whose free values are estimated together: their M-step and their coordinates.

A block is "free" (every entry its own value: the M-step is the scatter over the count, coordinates are log-Cholesky);
"variances" (a diagonal, ties allowed: averages, logs); "scale" (one value times a known matrix, singular or not: the
same); "cone" (closed under squaring, such as one variance and one covariance, or equal blocks: a projection, values as
they are); or "general" (any other linear pattern: Fisher scoring with step control, values as they are).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.domains import from_vector, n_coordinates, pull_back, to_vector
from statespace_em.kernels.regression import is_definite
from statespace_em.patterns import Pattern
from statespace_em.sequence.cones import Cone, cone_around, is_closed
from statespace_em.sequence.lgssm_params import span_of

SCALES = ("variances", "scale")  # kinds whose free values are variances
KEPT = 24  # cones
SCORING_STEPS = 30
HALVINGS = 40
SINGULAR = 1e-14  # share of a variance below which what others leave of it is round-off
ENOUGH = 1e-13  # relative to the counts: what Fisher scoring still expects to gain when it ends


class Family(NamedTuple):
    """Covariances ``numbers + sum of values * design`` of rows of several kinds."""

    numbers: Floats  # (k, r, r)
    design: Floats  # (names, k, r, r)

    def build(self, values: Floats) -> Floats:
        """Covariances (k, r, r)."""
        return np.asarray(self.numbers + np.tensordot(values, self.design, 1))


class Sums(NamedTuple):
    """Residuals of the disturbances of a family."""

    scatter: Floats  # (k, r, r), outer products
    counts: Floats  # (k, r), equal within what is linked


@dataclass(frozen=True, eq=False)
class Block:
    """A covariance (r, r) all of whose free values are estimated together."""

    pattern: Pattern

    @cached_property
    def kind(self) -> Literal["free", "variances", "scale", "cone", "general"]:
        """What the M-step and the coordinates are, see the module."""
        design, size = self.pattern.design, len(self.pattern.constant)
        if self.pattern.constant.any():
            return "general"
        alone = (design >= 0.0).all() and ((self._weights > 0.0).sum(0) == 1).all()
        if alone and not design[:, ~np.eye(size, dtype=bool)].any():
            return "variances"
        if len(design) == 1 and np.linalg.eigvalsh(design[0])[0] > -1e-10 * np.abs(design).max():
            return "scale"
        ones = ((design == 0.0) | (design == 1.0)).all() and (design.sum(0) == 1.0).all()
        if ones and len(design) == size * (size + 1) // 2:
            return "free"
        return "general" if self._middle is None or not is_closed(self._middle) else "cone"

    @cached_property
    def _weights(self) -> Floats:
        """Factor (values, rows) of each value on the diagonal."""
        return np.diagonal(self.pattern.design, axis1=1, axis2=2)

    @cached_property
    def _middle(self) -> Cone | None:
        """Cone around the member closest to the identity; None where that is not positive definite."""
        design = self.pattern.design
        flat = design.reshape(len(design), -1)
        closest = np.tensordot(np.linalg.lstsq(flat.T, np.eye(design.shape[1]).ravel(), rcond=None)[0], design, 1)
        values = np.linalg.eigvalsh(closest)
        return cone_around(design, closest) if values[0] > 1e-6 * values[-1] else None

    def cone(self, centre: Floats) -> Cone:
        """Covariances of any kind but "general", around one of them; the null space of that is kept."""
        found = self._cones.get(centre.tobytes())
        if found is None:
            if len(self._cones) >= KEPT:
                self._cones.clear()
            found = self._cones[centre.tobytes()] = cone_around(self.pattern.design, centre)
        return found

    @cached_property
    def _cones(self) -> dict[bytes, Cone]:
        """The last cones made: a fit comes back to those around its start."""
        return {}

    def exact(self, cov: Floats) -> Floats:
        """Covariance that has the pattern up to round-off, with what is tied the same to the last bit."""
        return cov if self.kind == "free" else self.pattern.build(self.pattern.read(cov))

    def variances(self, cov: Floats) -> Floats:
        """Free values of "variances" and of a "scale"."""
        first = (self._weights > 0.0).argmax(1)
        return np.asarray(np.diag(cov)[first] / self._weights[np.arange(len(first)), first])

    def mode(self, scatter: Floats, counts: Floats, current: Floats) -> Floats:
        """Maximise the expected log-likelihood of residuals with this sum of outer products.

        ``counts`` (r,) are the numbers of residuals of each disturbance; ``current`` is the covariance before.
        """
        if (counts <= 0.0).any():
            return current
        if self.kind == "free":
            return np.asarray(_semidefinite(scatter) / counts[0])
        if self.kind == "variances":
            used = self._weights > 0.0
            squares = np.where(used, np.diag(scatter) / np.where(used, self._weights, 1.0), 0.0)
            return np.diag(np.maximum(squares.sum(1) / (used * counts).sum(1), 0.0) @ self._weights)
        if self.kind == "scale":
            shape = self.pattern.design[0]
            left = np.linalg.pinv(shape, rcond=1e-12, hermitian=True)
            many = float((np.diag(left @ shape) * counts).sum())
            return np.asarray(max(float(np.sum(left * scatter)) / many, 0.0) * shape)
        if self.kind == "cone":
            assert self._middle is not None
            return self.exact(self._middle.mode(scatter, counts))
        family, sums = (
            Family(self.pattern.constant[None], self.pattern.design[:, None]),
            Sums(scatter[None], counts[None]),
        )
        values = [self.pattern.read(each) for each in (current, scatter / np.sqrt(np.outer(counts, counts)))]
        found = scored(values, [family], [sums])
        return current if found is values[0] else self.pattern.build(found)

    # coordinates

    def to_vector(self, cov: Floats, origin: Floats) -> Floats:
        """Coordinates of the free values; what is singular at the origin keeps its null space.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the covariance has become singular since.
        """
        if self.kind == "free":
            span = span_of(origin)
            if span is not None:
                cov, origin = span.inverse @ cov @ span.inverse.T, np.eye(len(span.inverse))
            return to_vector(cov, origin, "covariance")
        if self.kind in SCALES:
            values, began = self.variances(cov), self.variances(origin)
            if (values[began > 0.0] <= 0.0).any():
                raise np.linalg.LinAlgError("a variance has vanished")
            return np.log(values[began > 0.0] / began[began > 0.0])
        np.linalg.cholesky(cov)
        return (self.pattern.read(cov) - self.pattern.read(origin)) / _unit(origin)

    def from_vector(self, vector: Floats, origin: Floats) -> tuple[Floats, Floats]:
        """Covariance from its coordinates, and what is left of the vector."""
        if self.kind == "free":
            span = span_of(origin)
            own = origin if span is None else np.eye(len(span.inverse))
            size = n_coordinates(own, "covariance")
            cov = from_vector(vector[:size], own, "covariance")
            return cov if span is None else span.basis @ cov @ span.basis.T, vector[size:]
        if self.kind in SCALES:
            values = self.variances(origin)
            size = int((values > 0.0).sum())
            values[values > 0.0] *= np.exp(vector[:size])
            return np.tensordot(values, self.pattern.design, 1), vector[size:]
        size = len(self.pattern.names)
        cov = self.pattern.build(self.pattern.read(origin) + _unit(origin) * vector[:size])
        np.linalg.cholesky(cov)
        return cov, vector[size:]

    def pull_back(self, gradient: Floats, cov: Floats, origin: Floats) -> Floats:
        """Gradient in the coordinates from the symmetric G with d objective = tr(G d cov)."""
        if self.kind == "free":
            span = span_of(origin)
            if span is not None:
                gradient, cov = span.basis.T @ gradient @ span.basis, span.inverse @ cov @ span.inverse.T
                origin = np.eye(len(cov))
            return pull_back(gradient, cov, origin)
        if self.kind in SCALES:
            change = self.variances(cov) * self.pattern.pull_back(gradient)
            return change[self.variances(origin) > 0.0]
        return _unit(origin) * self.pattern.pull_back(gradient)


def scored(starts: list[Floats], families: list[Family], sums: list[Sums]) -> Floats:
    """Values of highest likelihood by Fisher scoring from the best of the starts: never worse than the first."""
    best, value, total = starts[0], _fit(starts[0], families, sums), sum(float(own.counts.sum()) for own in sums)
    if not np.isfinite(value) or not total:
        return best
    for other in starts[1:]:
        if _fit(other, families, sums) > value:
            best, value = other, _fit(other, families, sums)
    for _ in range(SCORING_STEPS):
        gradient, information = _scores(best, families, sums)
        scale = np.sqrt(np.where(np.diag(information) > 0.0, np.diag(information), 1.0))
        step = np.linalg.lstsq(information / np.outer(scale, scale), gradient / scale, rcond=1e-13)[0] / scale
        if not gradient @ step > ENOUGH * total:
            break
        for halving in range(HALVINGS):
            there = best + 0.5**halving * step
            found = _fit(there, families, sums)
            if found > value:
                best, value = there, found
                break
        else:
            break
    return best


def _fit(values: Floats, families: list[Family], sums: list[Sums]) -> float:
    """``-sum of counts * log det - tr(inv(cov) scatter)``; -inf where a covariance is not positive definite."""
    total = 0.0
    for family, (scatter, counts) in zip(families, sums):
        covs = family.build(values)
        try:
            factor = np.linalg.cholesky(covs)
        except np.linalg.LinAlgError:
            return -np.inf
        roots = np.diagonal(factor, axis1=1, axis2=2)
        if (np.square(roots) < SINGULAR * np.diagonal(covs, axis1=1, axis2=2)).any():
            return -np.inf
        half = np.linalg.solve(factor, scatter)
        trace = np.trace(np.linalg.solve(factor, half.swapaxes(1, 2)), axis1=1, axis2=2).sum()
        total -= float(2.0 * np.sum(counts * np.log(roots)) + trace)
    return total


def _scores(values: Floats, families: list[Family], sums: list[Sums]) -> tuple[Floats, Floats]:
    """Gradient and information of the values."""
    gradient, information = np.zeros(len(values)), np.zeros((len(values), len(values)))
    for family, (scatter, counts) in zip(families, sums):
        precision = np.linalg.inv(family.build(values))
        whitened = precision @ family.design @ precision
        weighted = counts[:, :, None] * family.design
        gradient += np.einsum("jkab,kab->j", whitened, scatter) - np.einsum("kab,jkba->j", precision, weighted)
        information += np.einsum("ikab,jkba->ij", whitened, weighted)
    return gradient, information


def _unit(origin: Floats) -> float:
    return float(np.mean(np.diag(origin)))


def _semidefinite(scatter: Floats) -> Floats:
    """Take away the negative eigenvalues that round-off leaves where a noise vanishes."""
    scatter = (scatter + scatter.T) / 2.0
    if is_definite(scatter):
        return scatter
    values, vectors = np.linalg.eigh(scatter)
    return scatter if values[0] >= 0.0 else np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)
