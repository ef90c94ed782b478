"""Hidden Markov models: any family of emissions, and faces of the common ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from statespace_em.emissions import Categorical, Gaussian, Poisson
from statespace_em.emissions.base import EmissionFamily
from statespace_em.families import check_members
from statespace_em.priors import Dirichlet, Gamma, NormalInverseGamma, NormalInverseWishart
from statespace_em.sequence.hidden_markov import HiddenMarkovModel


class HMM(HiddenMarkovModel):
    """Hidden Markov model with any family of emissions.

    Parameters
    ----------
    states
        Number of states, or their names.
    emission
        Family of p(y | state), see `statespace_em.emissions.EmissionFamily`.
    initial_prior, transition_prior
        Dirichlet priors; flat by default. ``Dirichlet(sticky=10)`` favours staying in a state.
    order_by
        Order of the states after a fit without ``start``: "mean", "variance" (upwards), or None (as they fell).
    unsorted
        "error" or "sort": what to do with timestamps that do not increase.

    Examples
    --------
    >>> import statespace_em as sse
    >>> model = sse.HMM(["quiet", "active"], sse.emissions.Poisson(), order_by="mean").fit(sse.datasets.earthquakes())
    >>> model.params_.rate.sel(state="active").round(1).item()
    26.0
    """

    def __init__(
        self,
        states: int | Sequence[Any],
        emission: EmissionFamily[Any, Any],
        *,
        initial_prior: Dirichlet = Dirichlet(),
        transition_prior: Dirichlet = Dirichlet(),
        order_by: str | None = None,
        unsorted: Literal["error", "sort"] = "error",
    ) -> None:
        self.states = states
        self.emission = emission
        self.initial_prior = initial_prior
        self.transition_prior = transition_prior
        self.order_by = order_by
        self.unsorted = unsorted

    def _family(self) -> EmissionFamily[Any, Any]:
        return check_members(self.emission)


class GaussianHMM(HiddenMarkovModel):
    """Hidden Markov model with Gaussian emissions.

    Parameters
    ----------
    states
        Number of states, or their names.
    covariance
        "full", "diagonal", "spherical" (one variance a state) or "tied" (one matrix for all states).
    prior
        `NormalInverseWishart` for "full" and "tied", `NormalInverseGamma` for the others; None is maximum likelihood.
    initial_prior, transition_prior
        Dirichlet priors; flat by default. ``Dirichlet(sticky=10)`` favours staying in a state.
    order_by
        Order of the states after a fit without ``start``: "variance" (upwards: calm first), "mean", or None.
    unsorted
        "error" or "sort": what to do with timestamps that do not increase.

    Examples
    --------
    >>> import statespace_em as sse
    >>> returns = sse.datasets.stocks()["log_return"]["IBM"]
    >>> model = sse.GaussianHMM(["calm", "stress"]).fit(100 * returns)
    >>> model.summary()["sd IBM"].round(3).to_dict()
    {'calm': 1.017, 'stress': 2.842}
    """

    def __init__(
        self,
        states: int | Sequence[Any],
        covariance: Literal["full", "diagonal", "spherical", "tied"] = "full",
        *,
        prior: NormalInverseWishart | NormalInverseGamma | None = None,
        initial_prior: Dirichlet = Dirichlet(),
        transition_prior: Dirichlet = Dirichlet(),
        order_by: str | None = "variance",
        unsorted: Literal["error", "sort"] = "error",
    ) -> None:
        self.states = states
        self.covariance = covariance
        self.prior = prior
        self.initial_prior = initial_prior
        self.transition_prior = transition_prior
        self.order_by = order_by
        self.unsorted = unsorted

    def _family(self) -> EmissionFamily[Any, Any]:
        return Gaussian(self.covariance, self.prior)


class PoissonHMM(HiddenMarkovModel):
    """Hidden Markov model of counts.

    Parameters
    ----------
    states
        Number of states, or their names.
    prior
        Gamma prior on the rates; flat by default.
    initial_prior, transition_prior
        Dirichlet priors; flat by default.
    order_by
        Order of the states after a fit without ``start``: "mean" (upwards), "variance", or None.
    unsorted
        "error" or "sort": what to do with timestamps that do not increase.

    Examples
    --------
    >>> import statespace_em as sse
    >>> model = sse.PoissonHMM(2).fit(sse.datasets.earthquakes())
    >>> round(model.score(sse.datasets.earthquakes()), 4)
    -341.8787
    """

    def __init__(
        self,
        states: int | Sequence[Any],
        *,
        prior: Gamma = Gamma(),
        initial_prior: Dirichlet = Dirichlet(),
        transition_prior: Dirichlet = Dirichlet(),
        order_by: str | None = "mean",
        unsorted: Literal["error", "sort"] = "error",
    ) -> None:
        self.states = states
        self.prior = prior
        self.initial_prior = initial_prior
        self.transition_prior = transition_prior
        self.order_by = order_by
        self.unsorted = unsorted

    def _family(self) -> EmissionFamily[Any, Any]:
        return Poisson(self.prior)


class CategoricalHMM(HiddenMarkovModel):
    """Hidden Markov model of symbols (strings, ints, pandas categoricals), in one or several channels.

    Parameters
    ----------
    states
        Number of states, or their names.
    symbols
        All symbols that may occur; None takes those in the data. Several channels share one list.
    prior
        Dirichlet prior on the symbol probabilities; flat by default.
    initial_prior, transition_prior
        Dirichlet priors; flat by default.
    unsorted
        "error" or "sort": what to do with timestamps that do not increase.

    Examples
    --------
    >>> import statespace_em as sse
    >>> lengths = sse.datasets.old_faithful()["length"]
    >>> model = sse.CategoricalHMM(2).fit(lengths)
    >>> sorted(model.params_.symbol.values.tolist())
    ['long', 'short']
    """

    def __init__(
        self,
        states: int | Sequence[Any],
        *,
        symbols: Sequence[Any] | None = None,
        prior: Dirichlet = Dirichlet(),
        initial_prior: Dirichlet = Dirichlet(),
        transition_prior: Dirichlet = Dirichlet(),
        unsorted: Literal["error", "sort"] = "error",
    ) -> None:
        self.states = states
        self.symbols = symbols
        self.prior = prior
        self.initial_prior = initial_prior
        self.transition_prior = transition_prior
        self.unsorted = unsorted

    def _family(self) -> EmissionFamily[Any, Any]:
        return Categorical(self.prior)
