"""Gaussian vectors whose entries are independent given the state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.domains import Domain
from statespace_em.emissions.base import Support, by_state, filled
from statespace_em.emissions.sharing import CYCLES, STILL, Ties, groups_of, pooled, repeated
from statespace_em.kernels.emissions import diagonal_density, diagonal_sums
from statespace_em.kernels.moments import within_and_pooled
from statespace_em.priors import NormalInverseGamma

FLOOR = 1e-10  # smallest variance of a state, relative to that of all the data


class DiagonalParams(NamedTuple):
    """Parameters of `DiagonalGaussian`."""

    mean: Floats  # (K, D), units of y
    var: Floats  # (K, D), or (K,) when spherical; squared units of y


class DiagonalStatistics(NamedTuple):
    """Additive statistics of `DiagonalGaussian`, around the means of the parameters they were made with."""

    weight: Floats  # (K, D), weighted number of entries seen
    deviation: Floats  # (K, D), weighted sum of y - mean
    squares: Floats  # (K, D), weighted sum of (y - mean)**2


@dataclass(frozen=True)
class DiagonalGaussian:
    """``y[n, d] ~ N(mean[k, d], var[k, d])``, entries independent given the state.

    Parameters
    ----------
    prior
        Normal-inverse-gamma prior; flat by default. Then variances are kept above ``1e-10`` times those of the data,
        which is part of the maximisation, and a state at that floor is reported.
    spherical
        Whether the entries of a state share one variance.
    frozen
        Names of parameters that the M-step leaves alone.
    ties
        Parameters of which some states have the same value, with the number of the value in each state, as in
        ``(("var", (0, 0, 1)),)``. A shared variance has one prior; a shared mean has its prior given each variance.
    """

    prior: NormalInverseGamma = NormalInverseGamma()
    spherical: bool = False
    frozen: tuple[str, ...] = ()
    ties: Ties = ()

    support: ClassVar[Support] = "real"
    domains: ClassVar[Mapping[str, Domain]] = {"mean": "location", "var": "positive"}

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Dimension names of mean and var."""
        return {"mean": ("state", "feature"), "var": ("state",) if self.spherical else ("state", "feature")}

    @property
    def bounded(self) -> bool:
        """Whether a prior or frozen variances keep the likelihood finite."""
        return not self.prior.is_flat or "var" in self.frozen

    def log_prob(self, params: DiagonalParams, y: Floats) -> Floats:
        """Log density (N, K) in nats."""
        mean, var = np.ascontiguousarray(params.mean.T), np.ascontiguousarray(_entrywise(params).T)
        log_b = np.empty((len(params.mean), len(y)))
        diagonal_density(y, mean, var, log_b)
        return log_b.T

    def statistics(self, params: DiagonalParams | None, y: Floats, weights: Floats) -> DiagonalStatistics:
        """Weights, deviations and squares of the entries seen."""
        weight, deviation, squares = np.zeros((3, y.shape[1], weights.shape[1]))
        mean = np.zeros(weight.shape) if params is None else np.ascontiguousarray(params.mean.T)
        diagonal_sums(y, mean, by_state(weights), weight, deviation, squares)
        return DiagonalStatistics(weight.T, deviation.T, squares.T)

    def m_step(self, statistics: DiagonalStatistics, previous: DiagonalParams | None) -> DiagonalParams:
        """Weighted mean and variance, or their MAP form, under the floor; without data the old values stay."""
        if self.ties:
            return self._tied_m_step(statistics, previous)
        weight = statistics.weight
        centre = np.zeros(weight.shape) if previous is None else previous.mean
        average, within, of_all, full = _summary(statistics, centre)
        mean = centre if "mean" in self.frozen else self.prior.pull(weight, average)
        total = within if mean is average else within + weight * (average - mean) ** 2
        divisor, floor = weight, FLOOR * of_all
        if not self.prior.says_nothing:
            total, divisor = total + self.prior.spread(mean), divisor + self.prior.weight
        if self.spherical:
            total, divisor, floor = total.sum(1), divisor.sum(1), floor.mean()
        var = np.maximum(total / (divisor if full else np.where(divisor > 0.0, divisor, 1.0)), floor)
        if previous is not None and ("var" in self.frozen or not full):
            empty = weight <= 0.0
            if self.prior.strength == 0.0:
                mean = np.where(empty, previous.mean, mean)
            if self.prior.is_flat:
                var = np.where(empty.all(1) if self.spherical else empty, previous.var, var)
            var = previous.var if "var" in self.frozen else var
        return DiagonalParams(mean, var)

    def _tied_m_step(self, statistics: DiagonalStatistics, previous: DiagonalParams | None) -> DiagonalParams:
        """Means given variances and variances given means in turn (ECM), until both stand still.

        A mean that states of different variances share is weighted by their precisions; otherwise one turn does.
        """
        weight = statistics.weight
        centre = np.zeros(weight.shape) if previous is None else previous.mean
        own, around, of_all, _ = _summary(statistics, centre)
        average, worth, floor = self.prior.pull(weight, own), weight + self.prior.strength, FLOOR * of_all
        of_mean, of_var = groups_of(self, "mean"), groups_of(self, "var")
        again = 0.0 if of_var is None else pooled(np.ones(len(weight)), of_var)[:, None] - 1.0

        def variances(mean: Floats) -> Floats:
            total = around + weight * (own - mean) ** 2 + self.prior.spread(mean)
            total = pooled(total, of_var) - again * 2.0 * np.asarray(self.prior.scale)  # the prior counts once
            divisor = pooled(weight + self.prior.weight, of_var) - again * 2.0 * (self.prior.shape + 1.0)
            least = floor
            if self.spherical:
                total, divisor, least = total.sum(1), divisor.sum(1), floor.mean()
            var = np.maximum(total / np.where(divisor > 0.0, divisor, 1.0), least)
            if previous is None:
                return np.asarray(var)
            blank = pooled(weight, of_var) <= 0.0
            kept = (blank.all(1) if self.spherical else blank) & self.prior.is_flat
            return np.asarray(previous.var if "var" in self.frozen else np.where(kept, previous.var, var))

        def means(var: Floats) -> Floats:
            precision = worth / _entrywise(DiagonalParams(average, var))
            total = pooled(precision, of_mean)
            mean = pooled(precision * average, of_mean) / np.where(total > 0.0, total, 1.0)
            return np.asarray(centre if "mean" in self.frozen else np.where(total > 0.0, mean, centre))

        var = variances(average) if previous is None else previous.var
        for _ in range(CYCLES):
            mean = means(var)
            old, var = var, variances(mean)
            if of_mean is None or np.all(np.abs(var - old) <= STILL * old):
                break
        return DiagonalParams(mean, var)

    def score(self, params: DiagonalParams, statistics: DiagonalStatistics) -> Mapping[str, Floats]:
        """Gradient of the expected log likelihood."""
        var = _entrywise(params)
        spread = 0.5 * (statistics.squares / var - statistics.weight) / var
        return {"mean": statistics.deviation / var, "var": spread.sum(1) if self.spherical else spread}

    def log_prior(self, params: DiagonalParams) -> float:
        """Log density of the normal-inverse-gamma prior."""
        var = _entrywise(params)
        density = self.prior.log_density(params.mean, var)
        groups = groups_of(self, "var") if self.ties else None
        if groups is None:
            return density
        again = repeated(groups)
        return density - replace(self.prior, strength=0.0).log_density(params.mean[again], var[again])

    def at_floor(self, params: DiagonalParams, statistics: DiagonalStatistics) -> Bools:
        """States with a variance at the floor, or resting on too few entries to have an interior optimum."""
        if self.bounded:
            return np.zeros(len(params.mean), bool)
        _, _, of_all, _ = _summary(statistics, params.mean)
        relative = params.var / of_all.mean() if self.spherical else (params.var / of_all).min(1)
        weight = pooled(statistics.weight, groups_of(self, "var"))
        count = weight.sum(1) if self.spherical else weight.min(1)
        few = (count > 0.0) & (count < 3.0)
        return np.asarray((relative <= 1.001 * FLOOR) | (few & (relative < 1e-2)))

    def sample(self, params: DiagonalParams, states: Ints, rng: np.random.Generator) -> Floats:
        """Draw y (N, D)."""
        noise = rng.standard_normal((len(states), params.mean.shape[1]))
        return np.asarray(params.mean[states] + np.sqrt(_entrywise(params))[states] * noise)

    def marginals(self, params: DiagonalParams) -> Any:
        """``scipy.stats.norm`` over (K, D)."""
        from scipy import stats  # here because it is slow to import and only checking and forecasting need it

        return stats.norm(params.mean, np.sqrt(_entrywise(params)))

    def moments(self, params: DiagonalParams) -> tuple[Floats, Floats]:
        """Mean and variance (K, D)."""
        return params.mean, _entrywise(params)


def _entrywise(params: DiagonalParams) -> Floats:
    """Variances as (K, D), also for a spherical covariance."""
    if params.var.ndim == 2:
        return params.var
    return np.broadcast_to(params.var[:, None], params.mean.shape)


def _summary(statistics: DiagonalStatistics, centre: Floats) -> tuple[Floats, Floats, Floats, bool]:
    """Averages (K, D), squares around them, variance (D,) of all the data, and whether every state has weight."""
    n_states, size = centre.shape
    average, within, pooled = np.empty((size, n_states)), np.empty((size, n_states)), np.empty(size)
    contiguous = np.ascontiguousarray
    weight, first, second = contiguous(statistics[0].T), contiguous(statistics[1].T), contiguous(statistics[2].T)
    full = within_and_pooled(weight, first, second, contiguous(centre.T), average, within, pooled)
    return average.T, within.T, pooled, full


def centre_of(y: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of each column over the entries seen; 0 and 1 for an empty column."""
    values, seen = filled(y)
    count = np.maximum(seen.sum(0), 1)
    mean = values.sum(0) / count
    var = (np.where(seen, y - mean, 0.0) ** 2).sum(0) / count
    return mean, np.where(seen.any(0), var, 1.0)
