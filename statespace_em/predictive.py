"""Predictive distributions: mixtures, over states and draws of parameters, of what a family says of each entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.emissions.base import EmissionFamily, HasConditionals
from statespace_em.errors import ParameterError

DISCRETE = ("count", "category")
SMALL = 1e-290  # tails below it are taken in logs
CHECKED = 20  # rows on which independence of the columns is checked


class Part(NamedTuple):
    """Some of the components of a mixture."""

    weight: Floats  # (..., K, 1 or D), all parts together sum to 1 over K
    components: Any  # frozen scipy.stats distribution over (..., K, D), or an array of these


@dataclass(frozen=True)
class Predictive:
    """Distribution of every entry of rows (..., D) of y, given what was known."""

    parts: Sequence[Part]
    discrete: bool  # counts or codes of symbols: the distribution lives on whole numbers

    def _mixed(self, name: str, x: Floats) -> Floats:
        values = (weight * _evaluated(components, name, x[..., None, :]) for weight, components in self.parts)
        return np.asarray(sum(map(_over_components, values)))

    def cdf(self, x: Floats) -> Floats:
        """P(y <= x), any shape that broadcasts with (..., D)."""
        return self._mixed("cdf", x)

    def sf(self, x: Floats) -> Floats:
        """P(y > x), exact where it is tiny."""
        return self._mixed("sf", x)

    def density(self, x: Floats) -> Floats:
        """Density at x, or probability of the whole number x."""
        return self._mixed("pmf" if self.discrete else "pdf", x)

    def mean(self) -> Floats:
        """Mean (..., D)."""
        values = (weight * _moment(components, "mean") for weight, components in self.parts)
        return np.asarray(sum(map(_over_components, values)))

    def variance(self) -> Floats:
        """Variance (..., D): within the components and between their means."""
        middle, total = self.mean(), np.zeros(())
        for weight, components in self.parts:
            away = _moment(components, "mean") - middle[..., None, :]
            total = total + _over_components(weight * (_moment(components, "var") + away**2))
        return np.asarray(total)

    def probabilities(self, n_symbols: int) -> Floats:
        """Probability (..., D, M) of each code of a symbol."""
        shape = self.parts[0].weight.shape[:-2]
        size = self.parts[0].components.shape[-1]
        return np.stack([self.density(np.full((*shape, size), float(code))) for code in range(n_symbols)], axis=-1)

    def quantile(self, level: float) -> Floats:
        """Smallest x (..., D) with P(y <= x) >= level: a root of the mixture's own distribution function.

        Quantiles of the components only bracket it; their average is not a quantile of the mixture.
        """
        low, high = self._bracket(level)
        if level <= 0.5:
            return _bisected(lambda x: self.cdf(x) < level, low, high, whole=self.discrete)
        return _bisected(lambda x: self.sf(x) > 1.0 - level, low, high, whole=self.discrete)

    def _bracket(self, level: float) -> tuple[Floats, Floats]:
        """Least and largest quantile among the components with any weight."""
        low: Any = np.inf
        high: Any = -np.inf
        for weight, components in self.parts:
            at = _evaluated(components, "ppf", np.full((1, 1), level))
            low = np.minimum(low, np.where(weight > 0.0, at, np.inf).min(-2))
            high = np.maximum(high, np.where(weight > 0.0, at, -np.inf).max(-2))
        return np.asarray(low), np.asarray(high)

    def scores(self, y: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Probability integral transform of y (..., D) and its normal score; uniform draws on the jumps if discrete.

        Both are NaN where y is. Each tail is computed from its own side, so that the score of an outlier is right
        far beyond the eight standard deviations at which P(y <= x) rounds to 1, and beyond the 38 at which the tail
        itself is no longer a number.
        """
        missing = np.isnan(y)
        x = np.where(missing, 0.0, y)
        below, above = self.cdf(x), self.sf(x)
        shares: tuple[Any, Any] = (1.0, 1.0)
        if self.discrete:  # Smith (1985); Dunn & Smyth (1996)
            uniform = rng.random(y.shape)
            shares = uniform, 1.0 - uniform
            jump = self.density(x)
            below, above = np.maximum(below - shares[1] * jump, 0.0), above + shares[1] * jump
        from scipy.special import ndtri, ndtri_exp  # here because they are slow to import, and fits do without

        normal = np.where(below < 0.5, ndtri(below), -ndtri(above))
        for tail, side, share, name in ((below, 1.0, shares[0], "logcdf"), (above, -1.0, shares[1], "logsf")):
            if (tail < SMALL).any():  # a whole number that far out weighs more than all beyond it
                logs = self._log_mixed("logpmf" if self.discrete else name, x) + np.log(share)
                normal = np.where(tail < SMALL, side * ndtri_exp(logs), normal)
        return np.where(missing, np.nan, below), np.where(missing, np.nan, normal)

    def _log_mixed(self, name: str, x: Floats) -> Floats:
        """Log of the mixture of exp(name), where that is too small for a number."""
        from scipy.special import logsumexp

        with np.errstate(divide="ignore"):
            found = [
                np.log(weight) + _evaluated(components, name, x[..., None, :]) for weight, components in self.parts
            ]
        return np.asarray(logsumexp([logsumexp(part, axis=-2) for part in found], axis=0))


def mixture(family: EmissionFamily[Any, Any], params: Any, weight: Floats) -> Predictive:
    """Distribution of every entry of y where the states have these probabilities (..., K)."""
    return Predictive([Part(weight[..., None], family.marginals(params))], family.support in DISCRETE)


def joined(parts: Sequence[Part]) -> Sequence[Part]:
    """Parts of one scipy.stats family as a single one with all their components: far fewer calls."""
    first = parts[0].components
    if isinstance(first, np.ndarray) or any(type(p.components.dist) is not type(first.dist) for p in parts[1:]):
        return parts
    if any(len(p.components.args) != len(first.args) or set(p.components.kwds) != set(first.kwds) for p in parts):
        return parts
    args = [_side_by_side([part.components.args[i] for part in parts]) for i in range(len(first.args))]
    kwds = {name: _side_by_side([part.components.kwds[name] for part in parts]) for name in first.kwds}
    return [Part(np.concatenate([part.weight for part in parts], axis=-2), first.dist(*args, **kwds))]


def _side_by_side(arrays: Sequence[Floats]) -> Floats:
    """Arrays (..., K, D) one after the other along the components."""
    return np.concatenate([np.atleast_2d(array) for array in arrays], axis=-2)


def normal(mean: Floats, variance: Floats) -> Predictive:
    """Normal distributions of these moments (..., D); none (NaN) where a variance is infinite."""
    from scipy import stats  # here because it is slow to import and only checking and forecasting need it

    variance = np.where(np.isinf(variance), np.nan, variance)
    components = stats.norm(mean[..., None, :], np.sqrt(variance)[..., None, :])
    return Predictive([Part(np.ones((*mean.shape[:-1], 1, 1)), components)], False)


def joint_normal(y: Floats, innovation: Floats, cov: Floats) -> Predictive:
    """Distribution of each entry of normal rows (N, D) given the entries seen before it in its row.

    ``innovation`` is y less its mean and ``cov`` (N, D, D) its covariance, both NaN where y is missing.
    """
    seen = ~np.isnan(y)
    alone = np.eye(y.shape[1])
    root = np.linalg.cholesky(np.where(seen[:, :, None] & seen[:, None, :], cov, alone))
    scores = np.linalg.solve(root, np.where(seen, innovation, 0.0)[..., None])[..., 0]
    sd = np.diagonal(root, axis1=1, axis2=2)
    return normal(np.where(seen, y - scores * sd, np.nan), np.where(seen, sd**2, np.nan))


def rosenblatt(family: EmissionFamily[Any, Any], params: Any, y: Floats, weight: Floats) -> Predictive:
    """Distribution of each entry given the entries before it in its row; ``weight`` (N, K) as of the row before.

    The weights move with the entries already seen (Rosenblatt 1952): an entry tells of the state, too.
    """
    n_columns = y.shape[1]
    components = _conditionals(family, params, y)
    weights = np.repeat(weight[:, :, None], n_columns, axis=2)
    seen = np.full(y.shape, np.nan)
    with np.errstate(divide="ignore"):
        log_weight = np.log(weight)
    for d in range(1, n_columns):
        seen[:, d - 1] = y[:, d - 1]
        log_joint = log_weight + family.log_prob(params, seen)
        joint = np.exp(log_joint - log_joint.max(1, keepdims=True))
        weights[:, :, d] = joint / joint.sum(1, keepdims=True)
    return Predictive([Part(weights, components)], family.support in DISCRETE)


def _conditionals(family: EmissionFamily[Any, Any], params: Any, y: Floats) -> Any:
    if isinstance(family, HasConditionals):
        return family.conditionals(params, y)
    if y.shape[1] > 1:
        _check_independent(family, params, y)
    return family.marginals(params)


def _check_independent(family: EmissionFamily[Any, Any], params: Any, y: Floats) -> None:
    """Refuse marginals as conditionals where the entries of a row depend on each other given the state."""
    rows = y[~np.isnan(y).any(1)][:CHECKED]
    single: Any = 0.0
    for d in range(y.shape[1]):
        alone = np.full(rows.shape, np.nan)
        alone[:, d] = rows[:, d]
        single = single + family.log_prob(params, alone)
    whole = family.log_prob(params, rows)
    possible = np.isfinite(whole) & np.isfinite(single)
    if not np.allclose(whole[possible], np.asarray(single)[possible], rtol=1e-8, atol=1e-8):
        raise ParameterError(
            f"the columns of {type(family).__name__} depend on each other given the state, but it has no method "
            "conditionals: residuals of several columns need it, see statespace_em.emissions.base.HasConditionals."
        )


def _over_components(values: Floats) -> Floats:
    """Sum over the axis before the last, one after the other: the bits of a row do not depend on how many there are."""
    total = values[..., 0, :]
    for k in range(1, values.shape[-2]):
        total = total + values[..., k, :]
    return total


def _evaluated(components: Any, name: str, x: Floats) -> Floats:
    """``components.cdf(x)`` and the like, also for an array (K, D) of distributions; x has shape (..., 1, D)."""
    if not isinstance(components, np.ndarray):
        return np.asarray(getattr(components, name)(x))
    shape = np.broadcast_shapes(x.shape, components.shape)
    wide, result = np.broadcast_to(x, shape), np.empty(shape)
    for k, d in np.ndindex(components.shape):
        result[..., k, d] = getattr(components[k, d], name)(wide[..., k, d])
    return result


def _moment(components: Any, name: str) -> Floats:
    if not isinstance(components, np.ndarray):
        with np.errstate(
            invalid="ignore"
        ):  # a normal of infinite variance, before a diffuse start is known, has no mean
            return np.asarray(getattr(components, name)())
    return np.array([[getattr(one, name)() for one in row] for row in components])


def _bisected(below: Callable[[Floats], Bools], low: Floats, high: Floats, *, whole: bool) -> Floats:
    """Last bracket's upper end of a root between low and high, to the precision of doubles; whole numbers exactly."""
    low = low - 1.0 if whole else low
    width = high - low
    least = 1.0 if whole else 2.0 * np.finfo(float).eps * np.maximum(np.maximum(np.abs(low), np.abs(high)), width)
    while np.any(high - low > least):
        middle = (low + high) / 2.0
        middle = np.floor(middle) if whole else middle
        left = below(middle)
        left = left & (high - low > least)
        right = ~left & (high - low > least)
        low, high = np.where(left, middle, low), np.where(right, middle, high)
    return high
