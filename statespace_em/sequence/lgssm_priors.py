"""Priors on one side of a linear-Gaussian model: its noise, and the coefficients given the noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.errors import ParameterError
from statespace_em.priors import InverseWishart, MatrixNormal
from statespace_em.sequence.lgssm_noise import Noise
from statespace_em.sequence.lgssm_regression import Residuals

RANGE = 1e-14  # of the largest eigenvalue of a covariance, below which there is no noise


def check_sizes(name: str, prior: MatrixNormal, shape: tuple[int, int]) -> None:
    """Refuse a prior of coefficients of another shape.

    Raises
    ------
    ParameterError
        Naming the prior and the shape.
    """
    try:
        prior.arrays(shape)
    except ParameterError as error:
        raise ParameterError(f"{name}: {error}") from None


@dataclass(frozen=True, eq=False)
class SidePrior:
    """Priors of [A b B] and Q, or of [C d D] and R; z = (states, 1, inputs) are the m regressors."""

    noise: InverseWishart = InverseWishart()
    coefficients: MatrixNormal = MatrixNormal()
    columns: Ints | None = None  # those of the m regressors that the model has; None: the states alone

    @property
    def is_flat(self) -> bool:
        """Whether the noise may run to 0."""
        return self.noise.is_flat

    @property
    def is_silent(self) -> bool:
        """Whether the prior says nothing at all, of the noise or of the coefficients."""
        return self.noise.dof is None and not np.any(np.asarray(self.noise.scale)) and self.coefficients.is_flat

    def _whole(self, shape: tuple[int, int], n_states: int) -> tuple[Floats, Floats]:
        """Mean (p, m) and precision (m, m) of all coefficients."""
        own = np.arange(n_states) if self.columns is None else self.columns
        mean, precision = np.zeros(shape), np.zeros((shape[1], shape[1]))
        mean[:, own], precision[np.ix_(own, own)] = self.coefficients.arrays((shape[0], len(own)))
        return mean, precision

    def added(self, sums: Residuals, current: Floats, n_states: int) -> Residuals:
        """Sums with the rows that the prior of the coefficients stands for; residuals are of ``current`` (p, m)."""
        mean, precision = self._whole(current.shape, n_states)
        away = mean - current
        return Residuals(
            sums.scatter + away @ precision @ away.T, sums.cross + away @ precision, sums.squares + precision,
            sums.counts + np.linalg.matrix_rank(precision), sums.blocks,
        )  # fmt: skip

    def log_density(self, noise: Noise, cov: Floats, current: Floats, n_states: int) -> float:
        """Log density in nats, without constants."""
        density = self.noise.log_density(noise.inner(cov))
        if self.coefficients.is_flat:
            return density
        away, precision, inverse, values = self._parts(noise, cov, current, n_states)
        rank = np.linalg.matrix_rank(precision)
        quadratic = np.sum(inverse * (away @ precision @ away.T))
        return float(density - 0.5 * (rank * np.log(values).sum() + quadratic))

    def gradients(self, noise: Noise, cov: Floats, current: Floats, n_states: int) -> tuple[Floats, Floats]:
        """Gradient by the coefficients (p, m), and twice the symmetric one by the covariance (p, p)."""
        by_cov, by_coefficients = np.zeros(cov.shape), np.zeros(current.shape)
        left = np.eye(len(cov)) if noise.loading is None else np.linalg.pinv(noise.loading)
        if self.noise != InverseWishart():
            by_cov = 2.0 * left.T @ self.noise.gradient(noise.inner(cov)) @ left
        if not self.coefficients.is_flat:
            away, precision, inverse, _ = self._parts(noise, cov, current, n_states)
            rank = np.linalg.matrix_rank(precision)
            by_coefficients = -left.T @ inverse @ away @ precision
            spread = inverse @ away @ precision @ away.T @ inverse
            by_cov = by_cov + left.T @ (spread - rank * inverse) @ left
        return by_coefficients, by_cov

    def _parts(self, noise: Noise, cov: Floats, current: Floats, n_states: int) -> tuple[Floats, ...]:
        """Distance of the coefficients from their mean where there is noise, precision, inverse and eigenvalues."""
        mean, precision = self._whole(current.shape, n_states)
        inner = noise.inner(cov)
        away = current - mean
        if noise.loading is not None:
            away = np.linalg.pinv(noise.loading) @ away
        values, vectors = np.linalg.eigh(inner)
        kept = values > RANGE * max(float(values[-1]), 0.0)
        inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
        return away, precision, inverse, values[kept]
