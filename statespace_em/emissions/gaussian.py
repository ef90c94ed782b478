"""Gaussian vectors with full covariances, one a state or one for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.domains import Domain, below_diagonal
from statespace_em.emissions.base import Support, by_state
from statespace_em.emissions.diagonal import FLOOR, DiagonalGaussian, centre_of
from statespace_em.emissions.sharing import CYCLES, STILL, Ties, groups_of, pooled, repeated
from statespace_em.errors import ParameterError
from statespace_em.kernels.emissions import LOG_2_PI, full_density, full_sums
from statespace_em.priors import NormalInverseGamma, NormalInverseWishart

PATTERNS = 64  # of missing entries whose factors are kept
FLAT = {kind: kind() for kind in (NormalInverseWishart, NormalInverseGamma)}  # checked once


class GaussianParams(NamedTuple):
    """Parameters of `FullGaussian`."""

    mean: Floats  # (K, D), units of y
    cov: Floats  # (K, D, D), or (D, D) when tied; squared units of y


class GaussianStatistics(NamedTuple):
    """Additive statistics of `FullGaussian`, around the means of the parameters they were made with."""

    weight: Floats  # (K,), weighted number of rows with any entry seen
    deviation: Floats  # (K, D), weighted sum of y - mean
    scatter: Floats  # (K, D, D), weighted sum of the outer products, missing entries in expectation


@dataclass(frozen=True)
class FullGaussian:
    """``y[n] ~ N(mean[k], cov[k])`` with missing entries integrated out.

    Parameters
    ----------
    prior
        Normal-inverse-Wishart prior; flat by default. Then covariances are kept above ``1e-10`` times the pooled
        covariance of the data, which is part of the maximisation, and a state at that floor is reported.
    tied
        Whether all states share one covariance.
    frozen
        Names of parameters that the M-step leaves alone.
    ties
        Parameters of which some states have the same value, with the number of the value in each state, as in
        ``(("cov", (0, 0, 1)),)``. A shared covariance has one prior; a shared mean has its prior given each covariance.
    """

    prior: NormalInverseWishart = NormalInverseWishart()
    tied: bool = False
    frozen: tuple[str, ...] = ()
    ties: Ties = ()

    support: ClassVar[Support] = "real"
    domains: ClassVar[Mapping[str, Domain]] = {"mean": "location", "cov": "covariance"}

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Dimension names of mean and cov."""
        shared: tuple[str, ...] = ("feature", "feature_aux")
        return {"mean": ("state", "feature"), "cov": shared if self.tied else ("state", *shared)}

    @property
    def bounded(self) -> bool:
        """Whether a prior or frozen variances keep the likelihood finite."""
        return not self.prior.is_flat or "cov" in self.frozen

    def log_prob(self, params: GaussianParams, y: Floats) -> Floats:
        """Log density (N, K) in nats."""
        log_b = np.empty((len(y), len(params.mean)))
        for rows, seen in _patterns(y):
            if rows is None:
                return _log_density(params, y, seen)
            log_b[rows] = _log_density(params, y[np.ix_(rows, seen)], seen)
        return log_b

    def prepared(self, params: GaussianParams) -> Callable[[Floats], Floats]:
        """Log density (K,) of one row (D,), for one after the other: the factors of each pattern are kept."""
        kept: dict[bytes, tuple[Bools, tuple[Floats, Floats, Floats]]] = {}

        def log_prob(y: Floats) -> Floats:
            missing = np.isnan(y)
            key = missing.tobytes()
            if key not in kept:
                if len(kept) == PATTERNS:
                    kept.clear()
                kept[key] = ~missing, _factors(params, ~missing)
            seen, factors = kept[key]
            return np.asarray(_evaluated(y[seen][None], *factors)[0])

        return log_prob

    def statistics(self, params: GaussianParams | None, y: Floats, weights: Floats) -> GaussianStatistics:
        """Weights, deviations and scatters; missing entries enter by their conditional moments."""
        if params is None:
            return _guessed(y, weights)
        n_states, size = params.mean.shape
        total = np.zeros(n_states), np.zeros((n_states, size)), np.zeros((n_states, size, size))
        for rows, seen in _patterns(y):
            if rows is None:
                return _moments(params.mean, y, weights)
            if seen.any():
                part = _moments(params.mean[:, seen], y[np.ix_(rows, seen)], weights[rows])
                for sums, value in zip(total, _completed(part, params.cov, seen)):
                    sums += value
        return GaussianStatistics(*total)

    def m_step(self, statistics: GaussianStatistics, previous: GaussianParams | None) -> GaussianParams:
        """Weighted mean and covariance, or their MAP form, under the floor; a state without data keeps its own."""
        if self.ties:
            return self._tied_m_step(statistics, previous)
        weight, deviation, scatter = statistics
        centre = np.zeros_like(deviation) if previous is None else previous.mean
        empty = weight <= 0.0
        shift = np.where(empty[:, None], 0.0, deviation / np.where(empty, 1.0, weight)[:, None])
        around = scatter - weight[:, None, None] * shift[:, :, None] * shift[:, None, :]
        average = centre + shift
        mean = centre if "mean" in self.frozen else self.prior.pull(weight, average)
        off = average - mean
        apart = 0.0 if mean is average else weight[:, None, None] * off[:, :, None] * off[:, None, :]
        total = around + apart + self.prior.spread(mean)
        counts = weight + (self.prior.strength > 0.0)
        if self.tied:
            total, counts = total.sum(0), counts.sum()
        cov = _floored(self.prior.covariance.mode(total, counts), _pooled(statistics, centre))
        if previous is not None:
            kept = empty & self.prior.is_flat
            mean = np.where(empty[:, None] & (self.prior.strength == 0.0), previous.mean, mean)
            cov = cov if self.tied else np.where(kept[:, None, None], previous.cov, cov)
            cov = previous.cov if "cov" in self.frozen else cov
        return GaussianParams(mean, cov)

    def _tied_m_step(self, statistics: GaussianStatistics, previous: GaussianParams | None) -> GaussianParams:
        """Means given covariances and covariances given means in turn (ECM), until both stand still.

        A mean that states of different covariances share is weighted by their precisions; otherwise one turn does.
        """
        weight, deviation, scatter = statistics
        centre = np.zeros_like(deviation) if previous is None else previous.mean
        shift = deviation / np.where(weight > 0.0, weight, 1.0)[:, None]
        around, limit = scatter - weight[:, None, None] * _squared(shift), _pooled(statistics, centre)
        average, worth = self.prior.pull(weight, centre + shift), weight + self.prior.strength
        of_mean, of_cov = groups_of(self, "mean"), groups_of(self, "cov")

        def covariances(mean: Floats) -> Floats:
            if previous is not None and "cov" in self.frozen:
                return previous.cov
            total = around + weight[:, None, None] * _squared(centre + shift - mean) + self.prior.spread(mean)
            counts = weight + (self.prior.strength > 0.0)
            sums = (total.sum(0), counts.sum()) if self.tied else (pooled(total, of_cov), pooled(counts, of_cov))
            cov = _floored(self.prior.covariance.mode(*sums), limit)
            if previous is None or self.tied or not self.prior.is_flat:
                return cov
            return np.asarray(np.where((pooled(weight, of_cov) <= 0.0)[:, None, None], previous.cov, cov))

        def means(cov: Floats) -> Floats:
            if "mean" in self.frozen:
                return centre
            heard = pooled(worth, of_mean) > 0.0
            precision = worth[:, None, None] * np.linalg.inv(np.broadcast_to(cov, scatter.shape))
            total = np.where(heard[:, None, None], pooled(precision, of_mean), np.eye(scatter.shape[1]))
            mean = np.linalg.solve(total, pooled(precision @ average[:, :, None], of_mean))[:, :, 0]
            return np.where(heard[:, None], mean, centre)

        cov = covariances(average) if previous is None else previous.cov
        for _ in range(CYCLES):
            mean = average if of_mean is None and "mean" not in self.frozen and (worth > 0.0).all() else means(cov)
            old, cov = cov, covariances(mean)
            size = np.diagonal(old, axis1=-2, axis2=-1)
            scale = np.sqrt(size[..., :, None] * size[..., None, :])
            if of_mean is None or np.all(np.abs(cov - old) <= STILL * scale):
                break
        return GaussianParams(mean, cov)

    def score(self, params: GaussianParams, statistics: GaussianStatistics) -> Mapping[str, Floats]:
        """Gradient of the expected log likelihood."""
        precision = np.linalg.inv(np.broadcast_to(params.cov, statistics.scatter.shape))
        mean = (precision @ statistics.deviation[:, :, None])[:, :, 0]
        cov = 0.5 * (precision @ statistics.scatter @ precision - statistics.weight[:, None, None] * precision)
        return {"mean": mean, "cov": cov.sum(0) if self.tied else cov}

    def log_prior(self, params: GaussianParams) -> float:
        """Log density of the normal-inverse-Wishart prior."""
        density, groups = self.prior.log_density(*params), groups_of(self, "cov")
        return density if groups is None else density - self.prior.covariance.log_density(params.cov[repeated(groups)])

    def at_floor(self, params: GaussianParams, statistics: GaussianStatistics) -> Bools:
        """States whose covariance has run into the floor, or rests on too few rows to have an interior optimum."""
        size = params.mean.shape[1]
        if self.bounded:
            return np.zeros(len(params.mean), bool)
        smallest = _smallest(params.cov, _pooled(statistics, params.mean))
        weight = pooled(statistics.weight, groups_of(self, "cov"))
        few = (weight > 0.0) & (weight < size + 2.0) & (not self.tied)
        return np.asarray((smallest <= 1.001 * FLOOR) | (few & (smallest < 1e-2)))

    def sample(self, params: GaussianParams, states: Ints, rng: np.random.Generator) -> Floats:
        """Draw y (N, D)."""
        factor = np.broadcast_to(np.linalg.cholesky(params.cov), (*params.mean.shape, params.mean.shape[1]))
        noise = rng.standard_normal((len(states), params.mean.shape[1]))
        return np.asarray(params.mean[states] + np.einsum("nij,nj->ni", factor[states], noise))

    def marginals(self, params: GaussianParams) -> Any:
        """``scipy.stats.norm`` over (K, D)."""
        from scipy import stats  # here because it is slow to import and only checking and forecasting need it

        mean, var = self.moments(params)
        return stats.norm(mean, np.sqrt(var))

    def moments(self, params: GaussianParams) -> tuple[Floats, Floats]:
        """Mean and variance (K, D)."""
        var = np.diagonal(params.cov, axis1=-2, axis2=-1)
        return params.mean, np.broadcast_to(var, params.mean.shape)

    def conditionals(self, params: GaussianParams, y: Floats) -> Any:
        """``scipy.stats.norm`` over (N, K, D): each entry given those seen before it; NaN where y is missing."""
        from scipy import stats  # here because it is slow to import and only checking needs it

        shape = (len(y), *params.mean.shape)
        mean, sd = np.full(shape, np.nan), np.full(shape, np.nan)
        for rows, seen in _patterns(y):
            part = y[:, seen] if rows is None else y[np.ix_(rows, seen)]
            where = np.arange(len(y)) if rows is None else rows
            root = np.linalg.cholesky(params.cov[..., seen, :][..., seen])
            factor = np.broadcast_to(root, (shape[1], *root.shape[-2:]))
            solved = np.zeros((len(part), shape[1], part.shape[1]))
            for i, d in enumerate(np.flatnonzero(seen)):
                shift = sum((solved[:, :, j] * factor[:, i, j] for j in range(i)), np.zeros(solved.shape[:2]))
                mean[where, :, d] = params.mean[:, d] + shift
                sd[where, :, d] = factor[:, i, i]
                solved[:, :, i] = (part[:, i, None] - mean[where, :, d]) / factor[:, i, i]
        return stats.norm(mean, sd)


def Gaussian(
    covariance: Literal["full", "diagonal", "spherical", "tied"] = "full",
    prior: NormalInverseWishart | NormalInverseGamma | None = None,
) -> FullGaussian | DiagonalGaussian:
    """Return the Gaussian family with this kind of covariance.

    Parameters
    ----------
    covariance
        "full": one matrix a state; "tied": one matrix for all; "diagonal": one variance a state and feature;
        "spherical": one variance a state.
    prior
        `NormalInverseWishart` for "full" and "tied", `NormalInverseGamma` for the others; None is flat.

    Raises
    ------
    ParameterError
        If the word is not one of these, or the prior does not go with it.
    """
    kinds = ("full", "diagonal", "spherical", "tied")
    if covariance not in kinds:
        raise ParameterError(f"covariance is {covariance!r}, expected one of {', '.join(map(repr, kinds))}.")
    wanted = NormalInverseWishart if covariance in ("full", "tied") else NormalInverseGamma
    prior = FLAT[wanted] if prior is None else prior
    if isinstance(prior, NormalInverseWishart) and covariance in ("full", "tied"):
        return FullGaussian(prior, tied=covariance == "tied")
    if isinstance(prior, NormalInverseGamma) and covariance in ("diagonal", "spherical"):
        return DiagonalGaussian(prior, spherical=covariance == "spherical")
    raise ParameterError(f"a {covariance} covariance takes a {wanted.__name__} prior, got {type(prior).__name__}.")


def _squared(vectors: Floats) -> Floats:
    """Outer products (K, D, D) of vectors (K, D) with themselves."""
    return np.asarray(vectors[:, :, None] * vectors[:, None, :])


def _patterns(y: Floats) -> list[tuple[Ints | None, Bools]]:
    """Rows that share a pattern of seen entries, with the pattern; rows None stands for all."""
    missing = np.isnan(y)
    if not missing.any():
        return [(None, np.ones(y.shape[1], bool))]
    patterns, index = np.unique(missing, axis=0, return_inverse=True)
    return [(np.flatnonzero(index.ravel() == i), ~pattern) for i, pattern in enumerate(patterns)]


def _log_density(params: GaussianParams, y: Floats, seen: Bools) -> Floats:
    """Log density (N, K) of the entries of y that are seen."""
    return _evaluated(y, *_factors(params, seen))


def _factors(params: GaussianParams, seen: Bools) -> tuple[Floats, Floats, Floats]:
    """Means (D, K), Cholesky factors (D, D, K) with inverted diagonals, and constants (K,) of the entries seen."""
    means, cov = params.mean, params.cov
    if not seen.all():
        means, cov = means[:, seen], cov[..., seen, :][..., seen]
    mean, root = np.ascontiguousarray(means.T), np.linalg.cholesky(cov)
    factor: Floats = np.array(
        np.broadcast_to(root, (mean.shape[1], *root.shape[-2:])).transpose(1, 2, 0), dtype=float, order="C"
    )
    diagonal = np.diagonal(factor).T
    constant = np.asarray(-np.log(diagonal).sum(0) - 0.5 * len(mean) * LOG_2_PI)
    entries = np.arange(len(mean))
    factor[entries, entries] = 1.0 / diagonal
    return mean, factor, constant


def _evaluated(y: Floats, mean: Floats, factor: Floats, constant: Floats) -> Floats:
    log_b = np.empty((mean.shape[1], len(y)))
    full_density(y, mean, factor, constant, log_b)
    return log_b.T


def _moments(mean: Floats, y: Floats, weights: Floats) -> GaussianStatistics:
    """Weighted moments of whole rows around the means."""
    n_states, size = mean.shape
    weight, first, second = np.zeros(n_states), np.zeros((size, n_states)), np.zeros((size, size, n_states))
    full_sums(y, np.ascontiguousarray(mean.T), by_state(weights), weight, first, second)
    rows, columns = below_diagonal(size)
    second[columns, rows] = second[rows, columns]
    return GaussianStatistics(weight, first.T, second.transpose(2, 0, 1))


def _completed(part: GaussianStatistics, cov: Floats, seen: Bools) -> GaussianStatistics:
    """Moments of whole rows, given those of what is seen (Little & Rubin, ch. 11)."""
    weight, first, second = part
    covs = np.broadcast_to(cov, (len(weight), len(seen), len(seen)))
    inside, across = covs[:, seen][:, :, seen], covs[:, seen][:, :, ~seen]
    spread = np.zeros((len(weight), len(seen), int(seen.sum())))
    spread[:, seen] = np.eye(spread.shape[2])
    spread[:, ~seen] = np.linalg.solve(inside, across).swapaxes(1, 2)
    rest = np.zeros(covs.shape)
    rest[np.ix_(np.arange(len(weight)), ~seen, ~seen)] = covs[:, ~seen][:, :, ~seen] - spread[:, ~seen] @ across
    whole = spread @ second @ spread.swapaxes(1, 2) + weight[:, None, None] * rest
    return GaussianStatistics(weight, np.einsum("kij,kj->ki", spread, first), whole)


def _guessed(y: Floats, weights: Floats) -> GaussianStatistics:
    """Statistics around 0 when there are no parameters yet: a missing entry has its column's moments."""
    mean, var = centre_of(y)
    seen = ~np.isnan(y)
    rows = seen.any(1)
    whole, weight = np.where(seen, y, mean)[rows], weights[rows]
    scatter = np.array([(whole * w[:, None]).T @ whole for w in weight.T])
    scatter += (weight.T @ ~seen[rows] * var)[:, :, None] * np.eye(len(var))
    return GaussianStatistics(weight.sum(0), weight.T @ whole, scatter)


def _pooled(statistics: GaussianStatistics, centre: Floats) -> Floats:
    """Covariance (D, D) of the data that the statistics of all states together hold."""
    weight, deviation, scatter = statistics
    count = weight.sum()
    middle = (weight @ centre + deviation.sum(0)) / max(count, 1e-300)
    off = centre - middle
    cross = deviation[:, :, None] * off[:, None, :]
    total = scatter + cross + cross.transpose(0, 2, 1) + weight[:, None, None] * off[:, :, None] * off[:, None, :]
    return np.asarray(total.sum(0) / max(count, 1e-300))


def _whitener(pooled: Floats, cov: Floats) -> Floats:
    """Cholesky factor of the pooled covariance, or of its diagonal where columns are linearly dependent.

    A pooled variance that is lost to round-off (data far from 0) gives way to the largest of ``cov``.
    """
    try:
        return np.asarray(np.linalg.cholesky(pooled))
    except np.linalg.LinAlgError:
        own = np.diagonal(cov, axis1=-2, axis2=-1).reshape(-1, len(pooled)).max(0)
        var = np.where(np.diag(pooled) > 0.0, np.diag(pooled), own)
        return np.diag(np.sqrt(np.where(var > 0.0, var, 1.0)))


def _whitened(cov: Floats, pooled: Floats) -> tuple[Floats, Floats]:
    inverse = np.linalg.inv(_whitener(pooled, cov))
    white = inverse @ cov @ inverse.T
    return np.linalg.eigh((white + np.swapaxes(white, -1, -2)) / 2)


def _smallest(cov: Floats, pooled: Floats) -> Floats:
    return np.asarray(_whitened(cov, pooled)[0][..., 0])


def _floored(cov: Floats, pooled: Floats) -> Floats:
    """Closest covariance in likelihood under cov >= FLOOR * pooled: clip the eigenvalues in whitened space."""
    cov = (cov + np.swapaxes(cov, -1, -2)) / 2
    try:  # whether all are clear of the floor, and that has a meaning: far cheaper than eigenvalues
        np.linalg.cholesky(np.concatenate([cov.reshape(-1, *pooled.shape) - FLOOR * pooled, pooled[None]]))
        return cov
    except np.linalg.LinAlgError:
        values, vectors = _whitened(cov, pooled)
    if np.all(values[..., 0] >= FLOOR):
        return cov
    half = _whitener(pooled, cov) @ vectors * np.sqrt(np.maximum(values, FLOOR))[..., None, :]
    return np.asarray(half @ np.swapaxes(half, -1, -2))
