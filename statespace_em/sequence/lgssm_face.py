"""Coordinates of covariances of any linear pattern, which near its boundary have the root of the smallest eigenvalue.

A pattern that is not closed under squaring has no coordinates that are smooth on all of its boundary. Near one
eigenvalue of 0, which is simple, it has: the root of that eigenvalue, and the free values across its gradient. As
elsewhere, an eigenvalue that belongs at 0 then has gradient 0 and negative curvature.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.patterns import Pattern

NEAR = 0.1  # of the next eigenvalue, below which the smallest is taken by its root; variances being 1
NEWTON = 50  # steps to a value of the eigenvalue, which is concave in the free values
CLOSE = 1e-15  # from it, at which they end
FAR = 1e-10  # from it, at which they have failed
LEAST = 1e-14  # eigenvalue on the face: no round-off may make it negative


class Face:
    """Coordinates around a covariance; 0 is that covariance."""

    def __init__(self, pattern: Pattern, cov: Floats) -> None:
        self.pattern, self.values = pattern, pattern.read(cov)
        self.size, self.unit = len(self.values), float(np.mean(np.diag(cov)))
        self.scale = 1.0 / np.sqrt(np.where(np.diag(cov) > 0.0, np.diag(cov), 1.0))
        eigenvalues = np.linalg.eigvalsh(self._white(cov))
        self.root: float | None = None
        if len(eigenvalues) > 1 and eigenvalues[0] < NEAR * eigenvalues[1]:
            self.root = float(np.sqrt(max(eigenvalues[0] - LEAST, 0.0)))
            slopes = self._least(self.values)[1]
            axes = np.linalg.svd(slopes[None])[2]
            self.up, self.across = slopes / np.linalg.norm(slopes), axes[1:]

    def value(self, x: Floats) -> Floats:
        """Covariance at the coordinates ``x`` (size,).

        Raises
        ------
        numpy.linalg.LinAlgError
            If it is none, or too far away to be told by its smallest eigenvalue.
        """
        if self.root is not None:
            return self.pattern.build(self._at(x))
        cov = self.pattern.build(self.values + self.unit * x)
        np.linalg.cholesky(cov)
        return cov

    def pull_back(self, x: Floats, gradient: Floats) -> Floats:
        """Gradient in the coordinates from the symmetric G with d objective = tr(G d cov)."""
        if self.root is None:
            return self.unit * self.pattern.pull_back(gradient)
        slopes, least = self.pattern.pull_back(gradient), self._least(self._at(x))[1]
        share = float(self.up @ slopes) / float(self.up @ least)
        along = self.unit * (self.across @ slopes - share * (self.across @ least))
        return np.append(2.0 * (self.root + x[0]) * share, along)

    def _at(self, x: Floats) -> Floats:
        """Free values with the smallest eigenvalue and the place across that the coordinates tell."""
        assert self.root is not None
        target = (self.root + x[0]) ** 2 + LEAST
        values = self.values + self.unit * (x[1:] @ self.across)
        for _ in range(NEWTON):
            least, slopes = self._least(values)
            rise = float(self.up @ slopes)
            if not rise > 0.0:
                raise np.linalg.LinAlgError("the smallest eigenvalue no longer rises with these free values")
            change = (target - least) / rise
            values = values + change * self.up
            if abs(target - least) < CLOSE:
                return np.asarray(values)
        if abs(target - least) > FAR:  # else round-off keeps it from coming nearer
            raise np.linalg.LinAlgError("no free values with this smallest eigenvalue were found")
        return np.asarray(values)

    def _least(self, values: Floats) -> tuple[float, Floats]:
        """Smallest eigenvalue of the covariance with variances of about 1, and its slopes along the free values."""
        eigenvalues, vectors = np.linalg.eigh(self._white(self.pattern.build(values)))
        vector = vectors[:, 0] * self.scale
        return float(eigenvalues[0]), self.pattern.pull_back(np.outer(vector, vector))

    def _white(self, cov: Floats) -> Floats:
        return np.asarray(cov * np.outer(self.scale, self.scale))
