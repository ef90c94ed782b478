"""The array side of every hidden Markov model: any family of emissions on one chain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.core import Posterior, Rows, excerpt
from statespace_em.data import Batch
from statespace_em.domains import Domain, joined
from statespace_em.emissions.base import EmissionFamily, HasDomains, HasFloor, HasScore
from statespace_em.emissions.coordinates import EmissionCoordinates
from statespace_em.emissions.evaluate import (
    add,
    emission_arranged,
    emission_lifted,
    family_statistics,
    guessed_emission,
    params_type,
)
from statespace_em.errors import ImpossibleObservationError, ImpossibleStateError
from statespace_em.kernels import chain
from statespace_em.labels import Dims
from statespace_em.order import Order
from statespace_em.sequence.best_path import most_probable_path
from statespace_em.sequence.blocks import Density
from statespace_em.sequence.chain_block import Chain, ChainParams
from statespace_em.sequence.forward_backward import (
    ChainFilter,
    Visit,
    filter_states,
    smooth,
    smooth_sums,
)
from statespace_em.sequence.stationary import stationary
from statespace_em.start import in_time, responsibilities, with_known, with_steps
from statespace_em.ties import Ties

CHAIN_DOMAINS: Mapping[str, Domain] = {"initial": "simplex", "transition": "simplex"}


class HMMParams(NamedTuple):
    """Parameters of a hidden Markov model; the fields of ``emission`` are those of the family."""

    initial: Floats  # (K,)
    transition: Floats  # (K, K), rows sum to 1
    emission: Any


class HMMStatistics(NamedTuple):
    """Additive statistics: expected first states, expected transitions, and those of the family."""

    initial: Floats  # (K,)
    transition: Floats  # (K, K)
    emission: Any


@dataclass(frozen=True)
class HMMCore:
    """E- and M-step of a hidden Markov model on plain arrays."""

    family: EmissionFamily[Any, Any]
    chain: Chain
    frozen: tuple[str, ...] = ()
    scale: Any = 1.0  # (D,), see `column_scale`
    order: Order | None = None  # rule of the order of the states
    ties: Ties = Ties(
        {}
    )  # what states share of their emissions; the family knows of the parameters that single ones do

    row_dims: ClassVar[Dims] = {"gamma": ("state",)}
    sum_dims: ClassVar[Dims] = {"xi": ("state", "next_state")}

    @property
    def n_states(self) -> int:
        """Number of states."""
        return self.chain.n_states

    @cached_property
    def groups(self) -> Ints | None:
        """Number of the emission of each state (K,); None where each has its own."""
        return self.ties.cells

    @cached_property
    def emission_frozen(self) -> bool:
        """Whether nothing of the emissions is free."""
        return set(self.family.dims) <= set(self.frozen)

    @cached_property
    def coordinates(self) -> EmissionCoordinates:
        """Coordinates of the emissions."""
        return EmissionCoordinates(self.family, self.scale, self.frozen)

    # what is said of the rows

    def _density(self, params: HMMParams, batch: Batch) -> Density:
        """Log densities of blocks of rows, to the power of their weight; -inf where another state is known."""

        def density(begin: int, end: int) -> Floats:
            log_b = self.family.log_prob(params.emission, batch.y[begin:end])
            if batch.row_weight is not None:
                weight = batch.row_weight[begin:end, None]
                with np.errstate(invalid="ignore"):
                    log_b = np.where(weight > 0.0, log_b * weight, 0.0)
            if batch.known is not None:
                known = batch.known[begin:end, None]
                log_b = np.where((known >= 0) & (known != np.arange(self.n_states)), -np.inf, log_b)
            return log_b

        return density

    def log_density(self, params: HMMParams, batch: Batch) -> Floats:
        """Log densities (N, K) of all rows, with what is said of them."""
        return np.ascontiguousarray(self._density(params, batch)(0, len(batch.y)))

    def _smooth_sums(self, params: HMMParams, batch: Batch, visit: Visit) -> tuple[HMMStatistics, float]:
        """Sums over the posterior, each sequence as often as its weight says; ``visit`` weighs its rows itself."""
        density, steps = self._density(params, batch), params.transition[None]
        with _KnownStates(batch):
            if batch.sequence_weight is None:
                sums, log_likelihood = smooth_sums(density, params.initial, steps, batch.starts, visit)
                return HMMStatistics(sums.firsts, sums.xi_sum, sums.statistics), math.fsum(log_likelihood)
            total: HMMStatistics | None = None
            value = []
            for begin, end, weight in zip(batch.starts, batch.starts[1:], batch.sequence_weight):
                with _from_row(int(begin)):
                    own, log_likelihood = smooth_sums(
                        partial(_shifted, density, int(begin)), params.initial, steps, np.array([0, end - begin]),
                        partial(_shifted, visit, int(begin)),
                    )  # fmt: skip
                value.append(weight * float(log_likelihood[0]))
                part = HMMStatistics(weight * own.firsts, weight * own.xi_sum, own.statistics)
                if total is not None:
                    both = None if part.emission is None else add(total.emission, part.emission)
                    part = HMMStatistics(total.initial + part.initial, total.transition + part.transition, both)
                total = part
        assert total is not None
        return total, math.fsum(value)

    # the two steps

    def e_step(self, params: HMMParams, data: Batch) -> tuple[HMMStatistics, float]:
        """Additive statistics and the log-likelihood in nats; nothing it makes grows with the rows."""
        own, weight = self._own(params.emission), data.weight

        def visit(begin: int, end: int, gamma: Floats) -> Any:
            weights = self._emission_weights(gamma, None if weight is None else weight[begin:end])
            return self.family.statistics(own, data.y[begin:end], weights)

        return self._smooth_sums(params, data, visit)

    def _emission_statistics(self, params: HMMParams | None, batch: Batch, gamma: Floats) -> Any:
        own = None if params is None else self._own(params.emission)
        return family_statistics(self.family, own, batch.y, self._emission_weights(gamma, batch.weight))

    def _emission_weights(self, gamma: Floats, weight: Floats | None) -> Floats:
        """Weight of rows in each emission, from their posterior and their own weight."""
        weights = gamma if weight is None else gamma * weight[:, None]
        return weights if self.groups is None else weights @ np.eye(self.groups.max() + 1)[self.groups]

    def _own(self, emission: Any) -> Any:
        """Emissions without repetition: one a group of states."""
        if self.groups is None or emission is None:
            return emission
        return emission_arranged(self.family, emission, np.unique(self.groups, return_index=True)[1])

    def _shared(self, emission: Any) -> Any:
        """Inverse of `_own`: one a state."""
        return emission if self.groups is None else emission_arranged(self.family, emission, self.groups)

    def m_step(self, statistics: HMMStatistics, previous: HMMParams | None) -> HMMParams:
        """Modes for the chain, the family's own M-step for the emissions; frozen blocks stay."""
        old = None if previous is None else ChainParams(previous.initial, previous.transition)
        initial, transition = self.chain.m_step(statistics.initial, statistics.transition, old)
        emission = None if previous is None else previous.emission
        if emission is None or not self.emission_frozen:
            emission = self._shared(self.family.m_step(statistics.emission, self._own(emission)))
        return HMMParams(initial, transition, emission)

    def log_prior(self, params: HMMParams) -> float:
        """Log prior density in nats, without constants."""
        return self.chain.log_prior(_chain(params)) + self.family.log_prior(self._own(params.emission))

    def to_vector(self, params: HMMParams, reference: HMMParams) -> Floats | None:
        """Unconstrained coordinates of what is free."""
        if not self.coordinates.known:
            return None
        emission = self.coordinates.parts(self._own(params.emission), self._own(reference.emission))
        return joined([*self.chain.parts(_chain(params), _chain(reference)), *emission])

    def from_vector(self, vector: Floats, reference: HMMParams) -> HMMParams:
        """Inverse of `to_vector`."""
        (initial, transition), rest = self.chain.taken(vector, _chain(reference))
        own = self.coordinates.from_vector(rest, self._own(reference.emission))
        return HMMParams(initial, transition, self._shared(own))

    def gradient(self, params: HMMParams, batch: Batch, reference: HMMParams) -> Floats:
        """Score, the gradient of the log-likelihood, in the coordinates of `to_vector` (Fisher's identity)."""
        own, origin = self._own(params.emission), self._own(reference.emission)
        if isinstance(self.family, HasScore):
            statistics, _ = self.e_step(params, batch)
            emission = self.coordinates.gradient(own, statistics.emission, origin)
        else:
            gamma = np.empty((len(batch.y), self.n_states))

            def keep(begin: int, end: int, part: Floats) -> None:
                gamma[begin:end] = part

            statistics, _ = self._smooth_sums(params, batch, keep)
            weights = self._emission_weights(gamma, batch.weight)
            emission = self.coordinates.differences(own, batch.y, weights, origin)
        chain = self.chain.score_vector(_chain(params), statistics.initial, statistics.transition, _chain(reference))
        return np.concatenate([chain, emission])

    def derived(self, params: HMMParams) -> dict[str, Floats]:
        """Other quantities (K,) of interest: probability to stay, share of time, expected rows in the state."""
        stay = np.diag(params.transition)
        with np.errstate(divide="ignore"):
            duration = 1.0 / (1.0 - stay)
        return {"persistence": stay, "stationary": stationary(params.transition), "duration": duration}

    def fixed(self, name: str, like: Bools) -> Bools:
        """Which entries of a parameter are fixed."""
        if name == "initial":
            return ~self.chain.initial.free | self.chain.stationary
        return ~self.chain.transition.free if name == "transition" else np.zeros(like.shape, bool)

    @property
    def domains(self) -> Mapping[str, Domain]:
        """Domain of each parameter of a family that states them."""
        own = self.family.domains if isinstance(self.family, HasDomains) else {}
        return {**CHAIN_DOMAINS, **own}

    def lifted(self, params: HMMParams, image: HMMParams) -> HMMParams | None:
        """Probabilities raised that are next to zero but grow under EM; None if none do."""
        chain = self.chain.lifted(_chain(params), _chain(image))
        emission = emission_lifted(self.family, params.emission, image.emission)
        if self.emission_frozen:
            emission = None
        if chain is None and emission is None:
            return None
        initial, transition = _chain(params) if chain is None else chain
        return HMMParams(initial, transition, params.emission if emission is None else emission)

    def starts(
        self, batch: Batch, n_starts: int, rng: np.random.Generator, given: Mapping[str, Floats]
    ) -> Iterator[HMMParams]:
        """One M-step on each guess of the responsibilities, its states put where the structure has room for them."""
        batch = excerpt(batch)
        category = self.family.support == "category"
        guesses = responsibilities(batch.y, batch.first, self.n_states, n_starts, category=category, rng=rng)
        for i, guess in enumerate(guesses):
            gamma = in_time(batch.first, self.n_states) if i == 0 and self._is_ordered() else guess
            if batch.known is None:
                gamma = with_steps(gamma, batch.first, self.chain.transition.allowed, rng)
            else:
                gamma = with_known(gamma, batch.known)
            inside = ~batch.first[1:]
            pairs = gamma[:-1][inside].T @ gamma[1:][inside]
            initial, transition = self.chain.start(gamma[batch.first].sum(0), pairs)
            emission = guessed_emission(self.family, batch.y, self._emission_weights(gamma, batch.weight))
            yield HMMParams(initial, transition, self._shared(emission))

    def _is_ordered(self) -> bool:
        """Whether no state can be visited again once it is left for a later one, as from left to right."""
        return self.n_states > 1 and not np.tril(self.chain.transition.allowed, -1).any()

    def posterior(self, params: HMMParams, batch: Batch, *, pairs: bool) -> Posterior:
        """Posterior of every row."""
        density = self._density(params, batch)
        with _KnownStates(batch):
            found = smooth(density, params.initial, params.transition[None], batch.starts, pairs=pairs)
        rows: Rows = {"gamma": (("state",), found.gamma)}
        pair_dims = ("state", "next_state")
        if pairs:
            return Posterior(rows | {"xi": (pair_dims, found.xi)}, {}, found.log_likelihood)
        return Posterior(rows, {"xi": (pair_dims, found.xi_sum)}, found.log_likelihood)

    def statistics(self, params: HMMParams | None, batch: Batch, posterior: Mapping[str, Floats]) -> HMMStatistics:
        """Statistics of a given posterior."""
        gamma = posterior["gamma"]
        emission = self._emission_statistics(params, batch, gamma)
        firsts = gamma[batch.first]
        if batch.sequence_weight is not None:
            firsts = firsts * batch.sequence_weight[:, None]
        return HMMStatistics(firsts.sum(0), posterior["xi"], emission)

    def filter(self, params: HMMParams, batch: Batch) -> ChainFilter:
        """Causal probabilities of every row."""
        with _KnownStates(batch):
            return filter_states(self._density(params, batch), params.initial, params.transition[None], batch.starts)

    def decode(self, params: HMMParams, batch: Batch) -> tuple[Ints, Floats]:
        """Viterbi path of every sequence and its log joint probability."""
        density = self._density(params, batch)
        with _KnownStates(batch):
            return most_probable_path(density, params.initial, params.transition[None], batch.starts)

    def sample(self, params: HMMParams, n_steps: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
        """States (N,) and observations (N, D) of one sequence."""
        path = np.empty(n_steps, dtype=np.int64)
        chain.draw(params.initial, params.transition[None], rng.random(n_steps), path)
        return path, self.family.sample(params.emission, path, rng)

    def sample_from(
        self, params: HMMParams, initial: Floats, n_paths: int, n_steps: int, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """States (n_paths, n_steps) and observations (n_paths, n_steps, D) of paths with this first distribution."""
        states = np.empty((n_paths, n_steps), dtype=np.int64)
        for path in states:
            chain.draw(initial, params.transition[None], rng.random(n_steps), path)
        y = self.family.sample(params.emission, states.ravel(), rng)
        return states, y.reshape(n_paths, n_steps, -1)

    def flatten(self, params: HMMParams) -> dict[str, Floats]:
        """Parameters by name."""
        emission = {name: getattr(params.emission, name) for name in self.family.dims}
        return {"initial": params.initial, "transition": params.transition, **emission}

    def build(self, arrays: Mapping[str, Floats]) -> HMMParams:
        """Inverse of `flatten`."""
        names = tuple(self.family.dims)
        initial, transition = self.chain.completed(arrays.get("initial"), arrays["transition"])
        return HMMParams(initial, transition, params_type(names)(*(arrays[n] for n in names)))

    def degenerate(self, params: HMMParams, statistics: HMMStatistics) -> Bools:
        """States at the floor of the family, if it has one."""
        if not isinstance(self.family, HasFloor):
            return np.zeros(self.n_states, bool)
        at_floor = self.family.at_floor(self._own(params.emission), statistics.emission)
        return at_floor if self.groups is None else at_floor[self.groups]

    def order_of(self, params: HMMParams, label: Callable[[], xr.Dataset]) -> Ints:
        """Permutation by the rule of the model; the identity without one, or where the structure names the states."""
        own = np.arange(self.n_states)
        order = own if self.order is None else np.asarray(self.order(self.family, params, label))
        return order if self.invariant(order) else own

    def invariant(self, order: Ints) -> bool:
        """Whether the states may be put in this order: nothing that is fixed or shared tells them apart."""
        return self.ties.invariant(order) and self.chain.invariant(order)

    def arranged(self, params: HMMParams, order: Ints) -> HMMParams:
        """States in this order."""
        emission = emission_arranged(self.family, params.emission, order)
        return HMMParams(params.initial[order], params.transition[np.ix_(order, order)], emission)

    def n_free(self, params: HMMParams) -> int:
        """Free parameters: what is structurally zero, fixed, shared or frozen counts as it is."""
        count = self.coordinates.n_free(self._own(params.emission))
        return count + self.chain.n_free(_chain(params))


def _chain(params: HMMParams) -> ChainParams:
    return ChainParams(params.initial, params.transition)


class _KnownStates:
    """Say that it is the known state that is impossible, where it is; entered in every E-step, so no generator."""

    def __init__(self, batch: Batch) -> None:
        self.known = batch.known

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if self.known is None or not isinstance(error, ImpossibleObservationError):
            return
        row = int(str(error))
        if self.known[row] >= 0:
            raise ImpossibleStateError(row, int(self.known[row])) from None


def _shifted(function: Callable[..., Any], offset: int, begin: int, end: int, *values: Any) -> Any:
    """Call a function of rows of the batch with rows counted from the beginning of a sequence."""
    return function(offset + begin, offset + end, *values)


@contextmanager
def _from_row(offset: int) -> Iterator[None]:
    """Count the rows of errors from the beginning of the batch."""
    try:
        yield
    except ImpossibleObservationError as error:
        raise ImpossibleObservationError(offset + int(str(error))) from None
