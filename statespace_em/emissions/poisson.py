"""Poisson counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.domains import Domain
from statespace_em.emissions.base import Support, by_state
from statespace_em.kernels.emissions import poisson_density, poisson_sums
from statespace_em.priors import Gamma

LARGE = 256.0  # counts from here on lose digits to rate - count * log(rate), terms that are large and nearly cancel


@cache
def _log_factorials() -> Floats:
    """Of the counts below LARGE."""
    from scipy.special import gammaln  # here because it is slow to import, and only counts need it

    return np.asarray(gammaln(np.arange(1.0, LARGE + 1.0)))


class PoissonParams(NamedTuple):
    """Parameters of `Poisson`."""

    rate: Floats  # (K, D), expected count per row


class PoissonStatistics(NamedTuple):
    """Additive statistics of `Poisson`."""

    total: Floats  # (K, D), weighted sum of the counts seen
    exposure: Floats  # (K, D), weighted number of entries seen


@dataclass(frozen=True)
class Poisson:
    """Counts ``y[n, d] ~ Poisson(rate[k, d])``, independent given the state.

    Parameters
    ----------
    prior
        Gamma prior on every rate; flat by default (maximum likelihood).
    """

    prior: Gamma = Gamma()

    support: ClassVar[Support] = "count"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"rate": ("state", "feature")}
    domains: ClassVar[Mapping[str, Domain]] = {"rate": "nonnegative"}

    def log_prob(self, params: PoissonParams, y: Floats) -> Floats:
        """Log probability (N, K) in nats."""
        rate = np.ascontiguousarray(params.rate.T)
        probabilities = np.empty((len(params.rate), len(y)))
        large = y >= LARGE
        plain = np.where(large, np.nan, y) if large.any() else y
        with np.errstate(divide="ignore"):
            poisson_density(plain, _log_factorials(), rate, np.log(rate), probabilities)
        log_b = probabilities.T
        for d in np.flatnonzero(large.any(0)):
            rows = large[:, d]
            log_b[rows] += _log_prob_of_large(y[rows, d, None], params.rate[:, d])
        return log_b

    def statistics(self, params: PoissonParams | None, y: Floats, weights: Floats) -> PoissonStatistics:
        """Weighted totals and exposures."""
        sums = np.zeros((2, y.shape[1], weights.shape[1]))
        poisson_sums(y, by_state(weights), *sums)
        return PoissonStatistics(*sums.transpose(0, 2, 1))

    def m_step(self, statistics: PoissonStatistics, previous: PoissonParams | None) -> PoissonParams:
        """Weighted mean count, or its MAP form; a state without data keeps its rate."""
        return PoissonParams(self.prior.mode(*statistics, previous=None if previous is None else previous.rate))

    def score(self, params: PoissonParams, statistics: PoissonStatistics) -> Mapping[str, Floats]:
        """Gradient of the expected log likelihood."""
        rate = params.rate
        ratio = np.divide(statistics.total, rate, out=np.zeros_like(rate), where=rate > 0.0)
        return {"rate": ratio - statistics.exposure}

    def log_prior(self, params: PoissonParams) -> float:
        """Log density of the gamma prior."""
        return self.prior.log_density(params.rate)

    def sample(self, params: PoissonParams, states: Ints, rng: np.random.Generator) -> Floats:
        """Draw counts (N, D)."""
        return rng.poisson(params.rate[states]).astype(float)

    def marginals(self, params: PoissonParams) -> Any:
        """``scipy.stats.poisson`` over (K, D)."""
        from scipy import stats  # here because it is slow to import and only checking and forecasting need it

        return stats.poisson(params.rate)

    def moments(self, params: PoissonParams) -> tuple[Floats, Floats]:
        """Mean and variance (K, D)."""
        return params.rate, params.rate


def _log_prob_of_large(counts: Floats, rate: Floats) -> Floats:
    """Log probability by its saddle point (Loader 2000): -1/2 log(2 pi n) - Stirling's error - deviance / 2.

    Half the deviance is n (x - log(1 + x)) with x = rate / n - 1, by a series where that cancels.
    """
    inverse = 1.0 / counts**2
    stirling = (1.0 / 12.0 - inverse * (1.0 / 360.0 - inverse * (1.0 / 1260.0 - inverse / 1680.0))) / counts
    x = (rate - counts) / counts
    v = x / (2.0 + x)  # log(1 + x) = 2 artanh(v), and x - 2 v = x v
    tail = np.zeros_like(x)
    for power in range(15, 1, -2):
        tail = v**2 * (1.0 / power + tail)
    with np.errstate(divide="ignore"):
        loss = np.where(np.abs(x) < 0.1, v * (x - 2.0 * tail), x - np.log1p(x))
    return np.asarray(-0.5 * np.log(2.0 * np.pi * counts) - stirling - counts * loss)
