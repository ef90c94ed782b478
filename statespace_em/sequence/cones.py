"""Cones of covariances: linear patterns whose members are the squares of matrices of the same kind.

A pattern such as "free", "diagonal", one variance and one covariance, or equal blocks is closed under squaring once it
is whitened by one of its members: it is then a Jordan algebra of symmetric matrices, its covariances are a symmetric
cone (Faraut & Koranyi 1994, ch. I-III), and any function of the eigenvalues of a member is a member. So every
covariance of the pattern, singular or not, is ``root @ X @ X @ root.T`` with X in a linear space: coordinates that are
smooth through the boundary and need no constraint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from statespace_em._typing import Floats

CLOSED = 1e-9  # share of a square outside of the pattern that is round-off
NONE = 1e-11  # variance, as a share of those on the diagonal, that is the round-off of none
LOST = 1e-12  # share of a move, relative to the longest, that is none


@dataclass(frozen=True, eq=False)
class Cone:
    """Covariances (p, p) that are ``root @ M @ root.T``, M a positive semi-definite combination of the ``basis``."""

    root: Floats  # (p, r); root @ root.T is a member
    inverse: Floats  # (r, p), left inverse of the root
    basis: Floats  # (k, r, r), symmetric, orthonormal; holds the identity

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return len(self.basis)

    @cached_property
    def _flat(self) -> Floats:
        k, r, _ = self.basis.shape
        return self.basis.reshape(k, r * r)

    def white(self, cov: Floats) -> Floats:
        """Member of the algebra (r, r) of a covariance."""
        return self.element(self.read(self.inverse @ cov @ self.inverse.T))

    def colour(self, white: Floats) -> Floats:
        """Inverse of `white`."""
        return np.asarray(self.root @ white @ self.root.T)

    def read(self, white: Floats) -> Floats:
        """Coordinates (k,) of the member that comes closest to a matrix (r, r)."""
        return np.asarray(self._flat @ white.ravel())

    def element(self, coordinates: Floats) -> Floats:
        """Member of the algebra from its coordinates."""
        return np.asarray((coordinates @ self._flat).reshape(self.basis.shape[1:]))

    def gradient(self, gradient: Floats) -> Floats:
        """Symmetric member M with d objective = tr(M d white), from G (p, p) with d objective = tr(G d cov)."""
        return self.element(self.read(self.root.T @ gradient @ self.root))

    def mode(self, scatter: Floats, counts: Floats) -> Floats:
        """Covariance of highest likelihood given sums of outer products (p, p) of ``counts`` (p,) residuals each.

        It solves tr((scatter - counts * white) B) = 0 for every B of the basis; counts are equal within what is linked.
        """
        many = np.diag(self.inverse @ (counts[:, None] * self.root))
        flat = self._flat
        weighted = (self.basis * ((many[:, None] + many) / 2.0)).reshape(self._flat.shape)
        right = self.read(self.inverse @ scatter @ self.inverse.T)
        found = np.asarray(np.linalg.solve(flat @ weighted.T, right), dtype=float)
        return self.colour(clipped(self.element(found)))


def clipped(white: Floats) -> Floats:
    """Take away the negative eigenvalues that round-off leaves; nothing where there are none."""
    try:
        np.linalg.cholesky(white)
    except np.linalg.LinAlgError:
        return spectral(white, lambda values: np.maximum(values, 0.0))
    return white


def spectral(white: Floats, function: Callable[[Floats], Floats]) -> Floats:
    """Apply a function to the eigenvalues of a member: a member again."""
    values, vectors = np.linalg.eigh((white + white.T) / 2.0)
    return np.asarray((vectors * function(values)) @ vectors.T)


def cone_around(design: Floats, centre: Floats) -> Cone:
    """Cone of the combinations of a design (k, p, p), closed under squaring, that are no wider than one of them.

    Where the centre is singular, what it leaves out stays out.
    """
    root, inverse = _root(centre)
    if root.shape[1] < len(centre):
        outside = design - root @ (inverse @ design)
        design = np.tensordot(_kernel(outside.reshape(len(design), -1), design), design, 1)
    white = inverse @ design @ inverse.T
    return Cone(root, inverse, _orthonormal((white + white.swapaxes(1, 2)) / 2.0))


def is_closed(cone: Cone) -> bool:
    """Whether the squares of the combinations of a basis are such combinations: one taken at random tells."""
    some = cone.element(np.random.default_rng(0).standard_normal(cone.size))
    square = some @ some
    identity = np.eye(len(square))
    return all(np.abs(m - cone.element(cone.read(m))).max() < CLOSED * np.abs(m).max() for m in (square, identity))


def _root(cov: Floats) -> tuple[Floats, Floats]:
    """Root (p, r) of a covariance of rank r and its left inverse."""
    scale = np.sqrt(np.where(np.diag(cov) > 0.0, np.diag(cov), 1.0))
    alike = cov / np.outer(scale, scale)
    try:
        root = np.asarray(np.linalg.cholesky(alike), dtype=float)
        if np.diag(root).min() ** 2 > NONE:
            return scale[:, None] * root, np.asarray(np.linalg.inv(root), dtype=float) / scale
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(alike)
    kept = values > NONE
    roots = np.sqrt(values[kept])
    return scale[:, None] * vectors[:, kept] * roots, (vectors[:, kept] / roots).T / scale


def _kernel(outside: Floats, design: Floats) -> Floats:
    """Combinations (l, k) of the rows of ``outside`` (k, entries) that are zero on the scale of the design."""
    size = np.abs(design).max(axis=(1, 2))
    left, values, _ = np.linalg.svd(outside / np.where(size > 0.0, size, 1.0)[:, None], full_matrices=True)
    values = np.append(values, np.zeros(len(left) - len(values)))
    return np.asarray(left[:, values < CLOSED].T / np.where(size > 0.0, size, 1.0))


def _orthonormal(matrices: Floats) -> Floats:
    """Orthonormal basis of what matrices (k, r, r) span; it depends smoothly on them."""
    if not matrices.size:  # nothing is left where all is zero
        return np.zeros((0, *matrices.shape[1:]))
    flat = matrices.reshape(len(matrices), -1)
    size = np.abs(flat).max(1)  # whose square may be beyond floating point
    flat = flat / np.where(size > 0.0, size, 1.0)[:, None]
    q, r = np.linalg.qr(flat.T)
    kept = np.abs(np.diag(r)) > LOST
    return np.asarray((q * np.where(np.diag(r) < 0.0, -1.0, 1.0)).T[kept].reshape(-1, *matrices.shape[1:]))
