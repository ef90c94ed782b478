"""Symbols in one or several channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.domains import Domain
from statespace_em.emissions.base import Support, by_state
from statespace_em.errors import ParameterError
from statespace_em.kernels.emissions import categorical_density, categorical_sums
from statespace_em.priors import Dirichlet


class CategoricalParams(NamedTuple):
    """Parameters of `Categorical`."""

    prob: Floats  # (K, D, M), probability of each symbol


class CategoricalStatistics(NamedTuple):
    """Additive statistics of `Categorical`."""

    counts: Floats  # (K, D, M), weighted number of times each symbol was seen


@dataclass(frozen=True)
class Categorical:
    """Symbols ``y[n, d] ~ Categorical(prob[k, d])``, channels independent given the state.

    Arrays hold the code 0, 1, ... of each symbol; the models translate names.

    Parameters
    ----------
    prior
        Dirichlet prior on the probabilities of each state and channel; flat by default.
    n_symbols
        Number of symbols M; the models set it from the data or from the parameters.
    """

    prior: Dirichlet = Dirichlet()
    n_symbols: int | None = None

    support: ClassVar[Support] = "category"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"prob": ("state", "feature", "symbol")}
    domains: ClassVar[Mapping[str, Domain]] = {"prob": "simplex"}

    def log_prob(self, params: CategoricalParams, y: Floats) -> Floats:
        """Log probability (N, K) in nats."""
        table = np.zeros((*params.prob.shape[:2], params.prob.shape[2] + 1))
        with np.errstate(divide="ignore"):
            np.log(params.prob, out=table[:, :, :-1])
        log_b = np.empty((len(table), len(y)))
        categorical_density(y, table, log_b)
        return log_b.T

    def statistics(self, params: CategoricalParams | None, y: Floats, weights: Floats) -> CategoricalStatistics:
        """Weighted counts of the symbols seen."""
        size = self.n_symbols if params is None else params.prob.shape[2]
        if size is None:
            raise ParameterError("Categorical(n_symbols=...) must be given before there are parameters.")
        counts = np.zeros((y.shape[1], size + 1, weights.shape[1]))
        categorical_sums(y, by_state(weights), counts)
        return CategoricalStatistics(counts[:, :-1].transpose(2, 0, 1))

    def m_step(self, statistics: CategoricalStatistics, previous: CategoricalParams | None) -> CategoricalParams:
        """Weighted frequencies, or their MAP form; zeros stay zero and a state without data keeps its own."""
        return CategoricalParams(self.prior.mode(statistics.counts, None if previous is None else previous.prob))

    def score(self, params: CategoricalParams, statistics: CategoricalStatistics) -> Mapping[str, Floats]:
        """Gradient of the expected log likelihood."""
        prob = params.prob
        return {"prob": np.divide(statistics.counts, prob, out=np.zeros_like(prob), where=prob > 0.0)}

    def log_prior(self, params: CategoricalParams) -> float:
        """Log density of the Dirichlet prior."""
        return self.prior.log_density(params.prob)

    def sample(self, params: CategoricalParams, states: Ints, rng: np.random.Generator) -> Floats:
        """Draw codes (N, D)."""
        cumulative = params.prob.cumsum(-1)
        cumulative /= cumulative[..., -1:]
        uniform = rng.random((len(states), cumulative.shape[1], 1))
        return np.asarray((uniform >= cumulative[states]).sum(-1), float)

    def marginals(self, params: CategoricalParams) -> Any:
        """``scipy.stats.rv_discrete`` of the codes; one object a state and channel, in an array (K, D)."""
        from scipy import stats  # here because it is slow to import and only checking and forecasting need it

        size = params.prob.shape[2]
        table = np.empty(params.prob.shape[:2], object)
        for where in np.ndindex(table.shape):
            table[where] = stats.rv_discrete(values=(np.arange(size), params.prob[where]))
        return table
