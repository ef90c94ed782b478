"""Prior distributions: the log density and the update in one object, so that they cannot drift apart.

Every prior is flat by default, which makes maximum likelihood the special case of MAP. ``log_density`` leaves out
the normalising constant, which makes it exactly 0 under a flat prior; ``mode`` is the maximiser of the weighted
log likelihood plus that log density.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from statespace_em._typing import Floats
from statespace_em.errors import ParameterError
from statespace_em.kernels.simplex import shares


class Prior(Protocol):
    """What a family needs of a prior."""

    def log_density(self, *value: Any) -> float:
        """Log density in nats, up to a constant that is 0 when the prior is flat."""
        ...

    def mode(self, *statistics: Any) -> Any:
        """Maximiser of log likelihood plus log density, given additive statistics."""
        ...


def _at_least(name: str, value: ArrayLike, bound: float) -> None:
    if not np.all(np.asarray(value, float) >= bound):
        raise ParameterError(f"{name} is {value!r}, expected at least {bound:g}: below it the mode is on the boundary.")


@dataclass(frozen=True)
class Dirichlet:
    """Dirichlet prior on probabilities along the last axis (Gelman et al. 2013, app. A).

    Parameters
    ----------
    concentration
        At least 1, a number or an array that broadcasts to the probabilities; 1 is flat, 2 adds one
        pseudo-count to every allowed outcome.
    sticky
        Pseudo-counts added to the diagonal of a square matrix: staying in the state (Fox et al. 2011).

    Raises
    ------
    ParameterError
        If a value is out of range.

    Examples
    --------
    >>> Dirichlet(concentration=2).mode(np.array([[3.0, 0.0]]))
    array([[0.8, 0.2]])
    """

    concentration: float | tuple[Any, ...] = 1.0
    sticky: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "concentration", _frozen(self.concentration))
        _at_least("concentration", self.concentration, 1.0)
        _at_least("sticky", self.sticky, 0.0)

    @property
    def is_flat(self) -> bool:
        """Whether the prior says nothing."""
        return self.sticky == 0.0 and self.concentration == 1.0

    def pseudo_counts(self, shape: tuple[int, ...]) -> Floats:
        """Counts that the prior adds to an array of this shape."""
        extra = np.broadcast_to(np.asarray(self.concentration, float) - 1.0, shape)
        if self.sticky == 0.0:
            return np.asarray(extra)
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ParameterError(f"a sticky prior is for a square transition matrix, got shape {shape}.")
        return np.asarray(extra + self.sticky * np.eye(shape[0]))

    def log_density(self, prob: Floats) -> float:
        """Sum of (concentration - 1) log prob over the outcomes that are not structurally impossible."""
        if self.is_flat:
            return 0.0
        from scipy.special import xlogy  # here because it is slow to import, and most fits do without

        extra = self.pseudo_counts(prob.shape)
        return float(np.sum(xlogy(extra, np.where(prob > 0.0, prob, 1.0))))

    def mode(self, counts: Floats, previous: Floats | None = None) -> Floats:
        """Probabilities from expected ``counts``.

        Outcomes that are 0 in ``previous`` stay exactly 0; a row without any count keeps ``previous``.
        """
        total = np.asarray(counts if self.is_flat else counts + self.pseudo_counts(counts.shape), float)
        size = total.shape[-1]
        allowed = np.full(total.shape, 1.0 / size) if previous is None else np.ascontiguousarray(previous)
        found = np.empty(total.shape)
        shares(total.reshape(-1, size), allowed.reshape(-1, size), found.reshape(-1, size))
        return found


@dataclass(frozen=True)
class Gamma:
    """Gamma prior on positive rates, shape-rate form: density proportional to rate**(shape - 1) exp(-rate_ * rate).

    ``shape`` at least 1 (no units) and ``rate`` at least 0 (one over the units of the parameter); the default is flat.
    """

    shape: float = 1.0
    rate: float = 0.0

    def __post_init__(self) -> None:
        _at_least("shape", self.shape, 1.0)
        _at_least("rate", self.rate, 0.0)

    def log_density(self, value: Floats) -> float:
        """Sum of (shape - 1) log value - rate * value."""
        if self.shape == 1.0 and self.rate == 0.0:
            return 0.0
        from scipy.special import xlogy  # here because it is slow to import, and most fits do without

        return float(np.sum(xlogy(self.shape - 1.0, value) - self.rate * value))

    def mode(self, total: Floats, exposure: Floats, previous: Floats | None = None) -> Floats:
        """Rates from weighted counts and exposures; where neither prior nor data speak, ``previous``."""
        above, below = self.shape - 1.0 + total, self.rate + exposure
        fallback = np.zeros_like(above) if previous is None else previous
        return np.asarray(np.where(below > 0.0, above / np.where(below > 0.0, below, 1.0), fallback))


@dataclass(frozen=True)
class NormalInverseGamma:
    """Normal-inverse-gamma prior on a mean and a variance, entry by entry (Gelman et al. 2013, sec. 3.3).

    variance ~ InverseGamma(shape, scale) and, if ``strength`` > 0, mean | variance ~ N(mean, variance / strength).

    Parameters
    ----------
    shape, scale
        Of the inverse gamma; ``scale`` in squared units of y. The defaults (-1, 0) are flat.
    mean, strength
        Prior mean, in units of y, and the number of observations it is worth.
    """

    shape: float = -1.0
    scale: float | tuple[Any, ...] = 0.0
    mean: float | tuple[Any, ...] = 0.0
    strength: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _frozen(self.scale))
        object.__setattr__(self, "mean", _frozen(self.mean))
        _at_least("shape", self.shape, -1.0)
        _at_least("scale", self.scale, 0.0)
        _at_least("strength", self.strength, 0.0)

    @property
    def is_flat(self) -> bool:
        """Whether the prior leaves the variance unbounded below, as maximum likelihood does."""
        return self.scale == 0.0 or not np.all(np.asarray(self.scale) > 0.0)

    @property
    def says_nothing(self) -> bool:
        """Whether the prior says nothing of means and variances."""
        return self.shape == -1.0 and self.scale == 0.0 and self.strength == 0.0

    @property
    def weight(self) -> float:
        """Observations that the prior adds to the divisor of the variance."""
        return 2.0 * (self.shape + 1.0) + (self.strength > 0.0)

    def spread(self, mean: Floats) -> Floats:
        """Sum of squares that the prior adds, given the mean."""
        if self.strength == 0.0:
            return 2.0 * np.asarray(self.scale)
        return np.asarray(2.0 * np.asarray(self.scale) + self.strength * (mean - np.asarray(self.mean)) ** 2)

    def pull(self, weight: Floats, average: Floats) -> Floats:
        """Mode of the mean given the weighted ``average`` of ``weight`` observations."""
        if self.strength == 0.0:
            return average
        total = weight + self.strength
        safe = np.where(total > 0.0, total, 1.0)
        return np.asarray((weight * average + self.strength * np.asarray(self.mean)) / safe)

    def log_density(self, mean: Floats, var: Floats) -> float:
        """Joint log density of all entries, up to a constant."""
        if self.says_nothing:
            return 0.0
        mean, var = np.broadcast_arrays(mean, var)
        return float(-0.5 * np.sum(self.weight * np.log(var) + self.spread(mean) / var))

    def mode(self, weight: Floats, average: Floats, squares: Floats) -> tuple[Floats, Floats]:
        """Mean and variance from weights, averages and sums of squares around the averages."""
        mean = self.pull(weight, average)
        divisor = weight + self.weight
        total = squares + weight * (average - mean) ** 2 + self.spread(mean)
        return mean, np.asarray(total / np.where(divisor > 0.0, divisor, 1.0))


@dataclass(frozen=True)
class InverseWishart:
    """Inverse-Wishart prior on a covariance: density proportional to |S|^(-(dof + p + 1) / 2) exp(-tr(scale S^-1) / 2).

    Parameters
    ----------
    dof
        Degrees of freedom; None (flat) stands for -(p + 1).
    scale
        A number s (for s times the identity) or a (p, p) matrix, in squared units of what the covariance is of.
    """

    dof: float | None = None
    scale: float | tuple[Any, ...] = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _frozen(self.scale))
        if self.dof is not None:
            _at_least("dof", self.dof, 0.0)
        if np.ndim(self.scale) == 0:
            _at_least("scale", self.scale, 0.0)

    @property
    def is_flat(self) -> bool:
        """Whether the prior leaves the covariance unbounded below, as maximum likelihood does."""
        scale = np.asarray(self.scale)
        return not (scale > 0.0 if scale.ndim == 0 else np.linalg.eigvalsh(scale)[0] > 1e-12 * np.abs(scale).max())

    def weight(self, size: int) -> float:
        """Observations that the prior adds to the divisor."""
        return 0.0 if self.dof is None else self.dof + size + 1.0

    def matrix(self, size: int) -> Floats:
        """``scale`` as a (size, size) matrix."""
        scale = np.asarray(self.scale, float)
        if scale.ndim == 0:
            return np.asarray(scale * np.eye(size))
        if scale.shape != (size, size):
            raise ParameterError(
                f"the scale of the prior has shape {scale.shape}, expected {(size, size)} or a number."
            )
        return scale

    def log_density(self, cov: Floats) -> float:
        """Log density of one covariance (p, p) or the sum over several (..., p, p), up to a constant."""
        if self.dof is None and not np.any(np.asarray(self.scale)):
            return 0.0
        size = cov.shape[-1]
        try:
            root = np.linalg.cholesky(cov)  # fails where round-off has made it indefinite
        except np.linalg.LinAlgError:
            raise ParameterError(
                f"the inverse-Wishart prior has no density at a singular covariance (variances "
                f"{np.diagonal(cov, axis1=-2, axis2=-1).tolist()}): give it variance in every direction, or leave out "
                "the prior."
            ) from None
        white, log_sd = np.linalg.inv(root), np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum()
        return float(-self.weight(size) * log_sd - 0.5 * np.sum((white @ self.matrix(size)) * white))

    def gradient(self, cov: Floats) -> Floats:
        """Symmetric G (p, p) with d log density = tr(G d cov)."""
        precision = np.linalg.inv(cov)
        size = len(cov)
        return np.asarray(0.5 * (precision @ self.matrix(size) @ precision - self.weight(size) * precision))

    def mode(self, scatter: Floats, count: Floats | float) -> Floats:
        """Covariance from the sum of outer products of ``count`` residuals; ``count`` is () or (...,)."""
        size = scatter.shape[-1]
        divisor = np.asarray(count, float) + self.weight(size)
        return np.asarray((scatter + self.matrix(size)) / np.where(divisor > 0.0, divisor, 1.0)[..., None, None])


# parts of the prior below, which every M-step asks for: made and checked once


@lru_cache
def _covariance_prior(dof: float | None, scale: float | tuple[Any, ...]) -> InverseWishart:
    return InverseWishart(dof, scale)


@lru_cache
def _mean_prior(mean: float | tuple[Any, ...], strength: float) -> NormalInverseGamma:
    return NormalInverseGamma(mean=mean, strength=strength)


@dataclass(frozen=True)
class NormalInverseWishart:
    """Normal-inverse-Wishart prior on a mean vector and a covariance (Gelman et al. 2013, sec. 3.6).

    cov ~ InverseWishart(dof, scale) and, if ``strength`` > 0, mean | cov ~ N(mean, cov / strength). The default
    is flat.
    """

    dof: float | None = None
    scale: float | tuple[Any, ...] = 0.0
    mean: float | tuple[Any, ...] = 0.0
    strength: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _frozen(self.scale))
        object.__setattr__(self, "mean", _frozen(self.mean))
        InverseWishart(self.dof, self.scale)
        _at_least("strength", self.strength, 0.0)

    @property
    def covariance(self) -> InverseWishart:
        """The prior of the covariance alone."""
        return _covariance_prior(self.dof, self.scale)

    @property
    def is_flat(self) -> bool:
        """Whether the prior leaves the covariance unbounded below, as maximum likelihood does."""
        return self.covariance.is_flat

    def pull(self, weight: Floats, average: Floats) -> Floats:
        """Mode of the means (K, D) given the averages of ``weight`` (K,) observations."""
        return _mean_prior(self.mean, self.strength).pull(weight[:, None], average)

    def spread(self, mean: Floats) -> Floats:
        """Outer products (K, D, D) that the prior of the mean adds to the scatter."""
        away = mean - np.asarray(self.mean)
        return np.asarray(self.strength * away[:, :, None] * away[:, None, :])

    def log_density(self, mean: Floats, cov: Floats) -> float:
        """Joint log density of means (K, D) and covariances (K, D, D) or one shared (D, D), up to a constant."""
        density = self.covariance.log_density(cov)
        if self.strength > 0.0:
            shared = np.broadcast_to(cov, (len(mean), *cov.shape[-2:]))
            quadratic = np.trace(np.linalg.solve(shared, self.spread(mean)), axis1=-2, axis2=-1)
            density -= float(0.5 * np.sum(np.linalg.slogdet(shared)[1] + quadratic))
        return density

    def mode(self, weight: Floats, average: Floats, scatter: Floats) -> tuple[Floats, Floats]:
        """Means (K, D) and covariances (K, D, D) from weights, averages and scatters around the averages."""
        mean = self.pull(weight, average)
        off = average - mean
        total = scatter + weight[:, None, None] * off[:, :, None] * off[:, None, :] + self.spread(mean)
        return mean, self.covariance.mode(total, weight + (self.strength > 0.0))


@dataclass(frozen=True)
class MatrixNormal:
    """Matrix-normal prior on the coefficients of a regression given its noise: M | S ~ MN(mean, S, inv(precision)).

    Density proportional to ``|S|^(-r / 2) exp(-tr(inv(S) (M - mean) precision (M - mean)') / 2)``, r being the rank of
    the precision: as much as rows seen before with ``precision`` for their sum of squares (Kadiyala & Karlsson 1997).

    Parameters
    ----------
    mean
        A number s (s times the identity: 1 expects random walks) or a matrix (p, m).
    precision
        A number (times the identity), one for each of the m columns, 0 being flat, or a matrix (m, m).
    """

    mean: float | tuple[Any, ...] = 0.0
    precision: float | tuple[Any, ...] = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _frozen(self.mean))
        object.__setattr__(self, "precision", _frozen(self.precision))
        weight = np.asarray(self.precision)
        if weight.ndim < 2:
            _at_least("precision", self.precision, 0.0)
        elif weight.ndim > 2 or weight.shape[0] != weight.shape[1] or not np.array_equal(weight, weight.T):
            raise ParameterError(f"precision has shape {weight.shape}, expected a symmetric matrix.")
        elif np.linalg.eigvalsh(weight)[0] < -1e-12 * np.abs(weight).max():
            raise ParameterError("precision has a negative eigenvalue, expected a positive semi-definite matrix.")

    @property
    def is_flat(self) -> bool:
        """Whether the prior says nothing."""
        return not np.any(np.asarray(self.precision))

    def arrays(self, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        """Mean (p, m) and precision (m, m) of coefficients of this shape."""
        mean, weight = np.asarray(self.mean, float), np.asarray(self.precision, float)
        if mean.ndim and mean.shape != shape:
            raise ParameterError(
                f"the mean of the prior of coefficients has shape {mean.shape}, expected {shape} or a number."
            )
        if weight.ndim and len(weight) != shape[1]:
            raise ParameterError(
                f"the precision of the prior of coefficients is for {len(weight)} columns, expected {shape[1]}."
            )
        mean = mean if mean.ndim else mean * np.eye(*shape)
        return mean, weight if weight.ndim == 2 else np.diag(np.broadcast_to(weight, (shape[1],)))


def _frozen(value: Any) -> Any:
    """Numbers stay numbers, arrays become nested tuples: hashable, comparable and easily written to a file."""
    return float(value) if np.ndim(value) == 0 else _nested(np.asarray(value, float).tolist())


def _nested(value: Any) -> Any:
    return tuple(_nested(item) for item in value) if isinstance(value, list) else value
