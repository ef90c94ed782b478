"""Poisson counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from scipy.special import gammaln, xlogy

from statespace_em._typing import Floats, Ints
from statespace_em.domains import Domain
from statespace_em.emissions.base import Support, filled
from statespace_em.priors import Gamma


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
        counts, seen = filled(y)
        fit = np.zeros((len(y), len(params.rate)))
        for d in range(y.shape[1]):  # entry by entry: no temporary of size N * K * D, same bits for any N
            rate = params.rate[:, d]
            fit += xlogy(counts[:, d, None], rate) - seen[:, d, None] * rate - gammaln(counts[:, d, None] + 1.0)
        return fit

    def statistics(self, params: PoissonParams | None, y: Floats, weights: Floats) -> PoissonStatistics:
        """Weighted totals and exposures."""
        counts, seen = filled(y)
        return PoissonStatistics(weights.T @ counts, weights.T @ seen)

    def m_step(self, statistics: PoissonStatistics, previous: PoissonParams | None) -> PoissonParams:
        """Weighted mean count, or its MAP form; a state without data keeps its rate."""
        return PoissonParams(self.prior.mode(*statistics, previous=None if previous is None else previous.rate))

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
