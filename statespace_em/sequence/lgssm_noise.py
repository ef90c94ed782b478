"""Structured noise covariances: their M-step and their coordinates, block by block.

A covariance falls into blocks that nothing links. A block is "fixed"; "free" (every entry its own value: the M-step is
the scatter over the count, coordinates are log-Cholesky); "variances" (a diagonal, ties allowed: averages, logs);
"scale" (one value times a known matrix, singular or not: the same); "cone" (closed under squaring, such as one
variance and one covariance, or equal blocks: a projection, values as they are); or "general" (any other linear pattern:
Fisher scoring with step control, values as they are).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.domains import from_vector, n_coordinates, pull_back, to_vector
from statespace_em.kernels.regression import is_definite
from statespace_em.patterns import Pattern, components
from statespace_em.priors import InverseWishart
from statespace_em.sequence.cones import Cone, cone_around, is_closed
from statespace_em.sequence.lgssm_params import span_of

SCALES = ("variances", "scale")  # kinds whose free values are variances
KEPT = 24  # cones
SCORING_STEPS = 30
SINGULAR = 1e-14  # share of a variance below which what others leave of it is round-off
ENOUGH = 1e-13  # relative to the counts: what Fisher scoring still expects to gain when it ends


class Block(NamedTuple):
    """Rows of a covariance that share free values, and which values these are."""

    kind: Literal["free", "variances", "scale", "cone", "general"]
    rows: Ints
    values: Ints  # positions in the names of the pattern


@dataclass(frozen=True, eq=False)
class Noise:
    """A noise covariance ``loading @ inner @ loading'`` whose inner matrix has a pattern."""

    pattern: Pattern  # (r, r)
    loading: Floats | None = None  # (n, r); None: the identity

    @cached_property
    def blocks(self) -> list[Block]:
        """Blocks with free values."""
        pattern, found = self.pattern, []
        rows = [(c, {int(j) for j in np.flatnonzero(pattern.design[:, c][:, :, c].any((1, 2)))}) for c in self.parts]
        while rows:
            part, values = rows.pop(0)
            parts = [part]
            for other in [entry for entry in rows if entry[1] & values]:
                parts.append(other[0])
                values |= other[1]
            rows = [entry for entry in rows if not entry[1] & values]
            if values:
                found.append(self._block(parts, np.array(sorted(values))))
        return found

    def _block(self, parts: list[Ints], values: Ints) -> Block:
        rows = np.concatenate(parts)
        square = np.ix_(rows, rows)
        design, constant = self.pattern.design[values][:, rows][:, :, rows], self.pattern.constant[square]
        size = len(rows)
        if all(len(part) == 1 for part in parts):
            diagonal = np.diagonal(design, axis1=1, axis2=2)
            if ((diagonal > 0.0).sum(0) == 1).all() and (diagonal >= 0.0).all() and not constant.any():
                return Block("variances", rows, values)
        if len(values) == 1 and not constant.any() and np.linalg.eigvalsh(design[0])[0] > -1e-10 * np.abs(design).max():
            return Block("scale", rows, values)
        full = len(parts) == 1 and len(values) == size * (size + 1) // 2 and not constant.any()
        ones = ((design == 0.0) | (design == 1.0)).all() and (design.sum(0) == 1.0).all()
        if full and ones:
            return Block("free", rows, values)
        cone = None if constant.any() else _whitened(design)
        return Block("general" if cone is None or not is_closed(cone) else "cone", rows, values)

    @cached_property
    def parts(self) -> list[Ints]:
        """Rows of the inner matrix that nothing links to others."""
        return components(self.pattern.linked)

    @cached_property
    def is_whole(self) -> bool:
        """Whether all entries are free, and nothing else is to be done with them."""
        if not self.blocks:
            return False
        first = self.blocks[0]
        size = self.pattern.constant.shape[0]
        return self.loading is None and first.kind == "free" and np.array_equal(first.rows, np.arange(size))

    @cached_property
    def _left(self) -> Floats:
        return np.asarray(np.eye(len(self.pattern.constant)) if self.loading is None else np.linalg.pinv(self.loading))

    def inner(self, cov: Floats) -> Floats:
        """Covariance of the disturbances."""
        return cov if self.loading is None else np.asarray(self._left @ cov @ self._left.T)

    def outer(self, inner: Floats) -> Floats:
        """Inverse of `inner`."""
        return inner if self.loading is None else np.asarray(self.loading @ inner @ self.loading.T)

    def inner_gradient(self, gradient: Floats) -> Floats:
        """Gradient with respect to the covariance of the disturbances."""
        return gradient if self.loading is None else np.asarray(self.loading.T @ gradient @ self.loading)

    # M-step

    def mode(self, scatter: Floats, counts: Floats, current: Floats, prior: InverseWishart) -> Floats:
        """Maximise the expected log-likelihood plus log prior of residuals with this sum of outer products.

        ``counts`` (r,) are the numbers of residuals of each disturbance; ``current`` is the covariance before.
        """
        if not self.blocks:
            return current
        if self.is_whole and prior.dof is None and prior.scale == 0.0 and counts[0] > 0.0:
            return np.asarray(_semidefinite(scatter) / counts[0])
        inner = np.array(self.inner(current))
        size = len(inner)
        scatter = self.inner(scatter) + prior.matrix(size)
        counts = counts + prior.weight(size)
        for block in self.blocks:
            square = block.rows[:, None], block.rows
            weight = counts[block.rows]
            if (weight <= 0.0).any():
                continue
            if block.kind == "free":
                inner[square] = _semidefinite(scatter[square]) / weight[0]
            elif block.kind == "variances":
                inner[square] = np.diag(self._variances(block, np.diag(scatter)[block.rows], weight))
            elif block.kind == "scale":
                shape = self._part(block).design[0]
                left = np.linalg.pinv(shape, rcond=1e-12, hermitian=True)
                many = float((np.diag(left @ shape) * weight).sum())
                inner[square] = max(float(np.sum(left * scatter[square])) / many, 0.0) * shape
            elif block.kind == "cone":
                cone = self._algebras[int(block.rows[0])]
                inner[square] = self.exact(block, cone.mode(scatter[square], weight))
            else:
                inner[square] = self._scored(block, scatter[square], weight, inner[square])
        return self.outer(inner)

    def _weights(self, block: Block) -> Floats:
        """Factor (values, rows) of each value on the diagonal."""
        return np.diagonal(self.pattern.design, axis1=1, axis2=2)[np.ix_(block.values, block.rows)]

    def _variances(self, block: Block, squares: Floats, counts: Floats) -> Floats:
        weights = self._weights(block)
        used = weights > 0.0
        each = np.where(used, squares / np.where(used, weights, 1.0), 0.0).sum(1) / (used * counts).sum(1)
        return np.asarray(np.maximum(each, 0.0) @ weights)

    def _scored(self, block: Block, scatter: Floats, counts: Floats, current: Floats) -> Floats:
        """Fisher scoring on ``-log det Q - tr(inv(Q) scatter)``: never worse than where it begins."""
        part = self._part(block)
        best, value = current, _fit(current, scatter, counts)
        if not np.isfinite(value):
            return current
        projected = part.build(part.read(scatter / np.sqrt(np.outer(counts, counts))))
        if _fit(projected, scatter, counts) > value:
            best, value = projected, _fit(projected, scatter, counts)
        for _ in range(SCORING_STEPS):
            precision = np.linalg.inv(best)
            whitened = precision @ part.design @ precision  # (values, rows, rows)
            weighted = counts[:, None] * part.design
            gradient = np.einsum("jab,ab->j", whitened, scatter) - np.einsum("ab,jba->j", precision, weighted)
            information = np.einsum("jab,kba->jk", whitened, weighted)
            step = np.linalg.lstsq(information, gradient, rcond=1e-13)[0]
            if not gradient @ step > ENOUGH * counts.sum():
                break
            change, gained = np.tensordot(step, part.design, 1), False
            for halving in range(40):
                there = best + 0.5**halving * change
                found = _fit(there, scatter, counts)
                if found > value:
                    best, value, gained = there, found, True
                    break
            if not gained:
                break
        return best

    @cached_property
    def _algebras(self) -> dict[int, Cone]:
        """Cones by the first row of their block, around what is closest to the identity."""
        closed = [block for block in self.blocks if block.kind == "cone"]
        found = {int(block.rows[0]): _whitened(self._part(block).design) for block in closed}
        return {row: cone for row, cone in found.items() if cone is not None}

    def cone(self, block: Block, centre: Floats) -> Cone:
        """Covariances of a block of any kind but "general", around one of them; the null space of that is kept."""
        key = int(block.rows[0]), centre.tobytes()
        found = self._cones.get(key)
        if found is None:
            if len(self._cones) >= KEPT:
                self._cones.clear()
            found = self._cones[key] = cone_around(self._part(block).design, centre)
        return found

    @cached_property
    def _cones(self) -> dict[tuple[int, bytes], Cone]:
        """The last cones made: a fit comes back to those around its start."""
        return {}

    def _part(self, block: Block) -> Pattern:
        return self._by_row[int(block.rows[0])]

    @cached_property
    def _by_row(self) -> dict[int, Pattern]:
        """Patterns of the blocks by their first row."""
        found = {}
        for block in self.blocks:
            names = tuple(self.pattern.names[j] for j in block.values)
            design = self.pattern.design[block.values][:, block.rows][:, :, block.rows]
            constant = self.pattern.constant[np.ix_(block.rows, block.rows)]
            found[int(block.rows[0])] = Pattern(names, constant, design)
        return found

    def exact(self, block: Block, cov: Floats) -> Floats:
        """Square of a block that has the pattern up to round-off, with what is tied the same to the last bit."""
        return cov if block.kind == "free" else self._part(block).build(self._part(block).read(cov))

    # coordinates

    def to_vector(self, cov: Floats, reference: Floats) -> Floats:
        """Coordinates of the free values; what is singular in the reference keeps its null space.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the covariance has become singular since.
        """
        value, origin, parts = self.inner(cov), self.inner(reference), []
        for block in self.blocks:
            square = np.ix_(block.rows, block.rows)
            if block.kind == "free":
                span, v, o = span_of(origin[square]), value[square], origin[square]
                if span is not None:
                    v, o = span.inverse @ v @ span.inverse.T, np.eye(len(span.inverse))
                parts.append(to_vector(v, o, "covariance"))
            elif block.kind in SCALES:
                v, o = self.read(block, value), self.read(block, origin)
                if (v[o > 0.0] <= 0.0).any():
                    raise np.linalg.LinAlgError("a variance has vanished")
                parts.append(np.log(v[o > 0.0] / o[o > 0.0]))
            else:
                part = self._part(block)
                np.linalg.cholesky(value[square])
                parts.append((part.read(value[square]) - part.read(origin[square])) / _unit(origin[square]))
        return np.concatenate([*parts, np.zeros(0)])

    def from_vector(self, vector: Floats, reference: Floats) -> tuple[Floats, Floats]:
        """Covariance from its coordinates, and what is left of the vector."""
        origin = self.inner(reference)
        inner = np.array(origin)
        for block in self.blocks:
            square = np.ix_(block.rows, block.rows)
            if block.kind == "free":
                span = span_of(origin[square])
                o = origin[square] if span is None else np.eye(len(span.inverse))
                size = n_coordinates(o, "covariance")
                found = from_vector(vector[:size], o, "covariance")
                inner[square] = found if span is None else span.basis @ found @ span.basis.T
            elif block.kind in SCALES:
                values = self.read(block, origin)
                size = int((values > 0.0).sum())
                values[values > 0.0] *= np.exp(vector[:size])
                inner[square] = np.tensordot(values, self._part(block).design, 1)
            else:
                part, size = self._part(block), len(block.values)
                inner[square] = part.build(part.read(origin[square]) + _unit(origin[square]) * vector[:size])
                np.linalg.cholesky(inner[square])
            vector = vector[size:]
        return self.outer(inner), vector

    def pull_back(self, gradient: Floats, cov: Floats, reference: Floats) -> Floats:
        """Gradient in the coordinates from the symmetric G with d objective = tr(G d cov)."""
        gradient, value, origin = self.inner_gradient(gradient), self.inner(cov), self.inner(reference)
        parts = []
        for block in self.blocks:
            square = np.ix_(block.rows, block.rows)
            g, v, o = gradient[square], value[square], origin[square]
            if block.kind == "free":
                span = span_of(o)
                if span is not None:
                    g, v = span.basis.T @ g @ span.basis, span.inverse @ v @ span.inverse.T
                    o = np.eye(len(v))
                parts.append(pull_back(g, v, o))
            elif block.kind in SCALES:
                values = self.read(block, value)
                change = values * self._part(block).pull_back(g)
                parts.append(change[self.read(block, origin) > 0.0])
            else:
                parts.append(_unit(o) * self._part(block).pull_back(g))
        return np.concatenate([*parts, np.zeros(0)])

    # what the boundary is told of, see `lgssm_boundary`; a noise of rows is several of these

    def constant(self, cov: Floats) -> list[tuple[Noise, Floats]]:
        """Return the constant noises that this one is made of, with their covariances: itself."""
        return [(self, cov)]

    def constant_gradients(self, gradient: Floats) -> list[Floats]:
        """Gradients with respect to `constant`."""
        return [gradient]

    def from_constant(self, covs: list[Floats], cov: Floats) -> Floats:
        """Covariance with other values of `constant`."""
        return covs[0]

    def written(self, block: Block, values: Floats) -> Floats:
        """Square of a block from its free values."""
        return self._part(block).build(values)

    def slopes(self, block: Block, gradient: Floats) -> Floats:
        """Derivatives along the free values of a block from the symmetric G with d objective = tr(G d square)."""
        return self._part(block).pull_back(gradient)

    def values(self, block: Block, cov: Floats) -> Floats:
        """Free values of the square of a block."""
        return self._part(block).read(cov)

    def read(self, block: Block, inner: Floats) -> Floats:
        """Variances by name."""
        weights = self._weights(block)
        first = (weights > 0.0).argmax(1)
        return np.asarray(np.diag(inner)[block.rows][first] / weights[np.arange(len(first)), first])


def _whitened(design: Floats) -> Cone | None:
    """Cone of a design around a member of it; None where the one closest to the identity is not positive definite."""
    flat = design.reshape(len(design), -1)
    closest = np.tensordot(np.linalg.lstsq(flat.T, np.eye(design.shape[1]).ravel(), rcond=None)[0], design, 1)
    values = np.linalg.eigvalsh(closest)
    return cone_around(design, closest) if values[0] > 1e-6 * values[-1] else None


def _unit(origin: Floats) -> float:
    return float(np.mean(np.diag(origin)))


def _fit(cov: Floats, scatter: Floats, counts: Floats) -> float:
    """``-sum of counts * log det - tr(inv(cov) scatter)``; counts are equal within what is linked. -inf if singular."""
    try:
        factor = np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        return -np.inf
    if (np.square(np.diag(factor)) < SINGULAR * np.diag(cov)).any():
        return -np.inf
    half = np.linalg.solve(factor, scatter)
    trace = np.trace(np.linalg.solve(factor, half.T))
    return float(-2.0 * counts @ np.log(np.diag(factor)) - trace)


def _semidefinite(scatter: Floats) -> Floats:
    """Take away the negative eigenvalues that round-off leaves where a noise vanishes."""
    scatter = (scatter + scatter.T) / 2.0
    if is_definite(scatter):
        return scatter
    values, vectors = np.linalg.eigh(scatter)
    return scatter if values[0] >= 0.0 else np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)
