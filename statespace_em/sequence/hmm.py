"""Hidden Markov models: any family of emissions, and faces of the common ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from statespace_em.emissions import Categorical, Gaussian, Poisson
from statespace_em.emissions.base import EmissionFamily
from statespace_em.families import check_members
from statespace_em.priors import Dirichlet, Gamma, NormalInverseGamma, NormalInverseWishart
from statespace_em.sequence.hidden_markov import HiddenMarkovModel


@dataclass(eq=False, repr=False)
class HMM(HiddenMarkovModel):
    """Hidden Markov model with any family of emissions.

    Parameters
    ----------
    states
        Number of states, or their names.
    emission
        Family of p(y | state), see `statespace_em.emissions.EmissionFamily`.
    transition
        Which steps are allowed: "free", "left-right" (to the same or a later state), "cyclic" (the same or the next
        one, the last before the first), "banded" or ``("banded", width)`` (to states at most so far away), or a
        boolean matrix (K, K). Or which are known: numbers (K, K) with NaN where free; the free entries of a row share
        what is left. Rows are the state now; DataFrames and DataArrays go by the names of the states.
    initial
        "free", "stationary" (of the transitions: exact maximum likelihood, not a correction), "uniform", or
        probabilities (K,) with NaN where free.
    tie
        Groups of states that share their emission, such as ``[["a", "b"]]``; all others have their own. Or groups of
        states that share one parameter of it, by name: ``{"var": "all"}``, ``{"mean": [["a", "b"]]}``.
    initial_prior, transition_prior
        Dirichlet priors; flat by default. ``Dirichlet(sticky=10)`` favours staying in a state.
    order_by
        Order of the states after a fit without ``start`` or ``states``, upwards: "mean", "variance" (of several
        columns on average, free of units), ("mean", column), ("variance", column), "persistence", a function of the
        parameters (a Dataset) that returns one number a state, or None (as they fell). Structure that tells the
        states apart keeps them where it puts them.
    unsorted
        "error" or "sort": what to do with timestamps that do not increase.

    Examples
    --------
    >>> import statespace_em as sse
    >>> model = sse.HMM(["quiet", "active"], sse.emissions.Poisson(), order_by="mean").fit(sse.datasets.earthquakes())
    >>> model.params_.rate.sel(state="active").round(1).item()
    26.0
    """

    emission: EmissionFamily[Any, Any]

    def _family(self) -> EmissionFamily[Any, Any]:
        return check_members(self.emission)


@dataclass(eq=False, repr=False)
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
    transition, initial, tie
        Structure of the chain and emissions that states share, see `HMM`.
    initial_prior, transition_prior
        Dirichlet priors; flat by default. ``Dirichlet(sticky=10)`` favours staying in a state.
    order_by
        Order of the states after a fit: "variance" (upwards: calm first), or as `HMM` has it.
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

    covariance: Literal["full", "diagonal", "spherical", "tied"] = "full"
    _: KW_ONLY
    prior: NormalInverseWishart | NormalInverseGamma | None = None
    order_by: Any = "variance"

    def _family(self) -> EmissionFamily[Any, Any]:
        return Gaussian(self.covariance, self.prior)


@dataclass(eq=False, repr=False)
class PoissonHMM(HiddenMarkovModel):
    """Hidden Markov model of counts.

    Parameters
    ----------
    states
        Number of states, or their names.
    prior
        Gamma prior on the rates; flat by default.
    transition, initial, tie
        Structure of the chain and emissions that states share, see `HMM`.
    initial_prior, transition_prior
        Dirichlet priors; flat by default.
    order_by
        Order of the states after a fit: "mean" (upwards), or as `HMM` has it.
    unsorted
        "error" or "sort": what to do with timestamps that do not increase.

    Examples
    --------
    >>> import statespace_em as sse
    >>> model = sse.PoissonHMM(2).fit(sse.datasets.earthquakes())
    >>> round(model.score(sse.datasets.earthquakes()), 4)
    -341.8787
    """

    _: KW_ONLY
    prior: Gamma = Gamma()
    order_by: Any = "mean"

    def _family(self) -> EmissionFamily[Any, Any]:
        return Poisson(self.prior)


@dataclass(eq=False, repr=False)
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
    transition, initial, tie
        Structure of the chain and emissions that states share, see `HMM`.
    initial_prior, transition_prior
        Dirichlet priors; flat by default.
    order_by
        Order of the states after a fit: "persistence", a function, or None, see `HMM`.
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

    _: KW_ONLY
    symbols: Sequence[Any] | None = None
    prior: Dirichlet = Dirichlet()

    def _family(self) -> EmissionFamily[Any, Any]:
        return Categorical(self.prior)
