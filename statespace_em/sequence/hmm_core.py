"""The array side of every hidden Markov model: any family of emissions on one chain."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.core import Posterior, Rows, excerpt
from statespace_em.data import Batch
from statespace_em.domains import Domain, from_vector, lifted, n_coordinates, n_free, to_vector
from statespace_em.emissions.base import EmissionFamily, HasFloor
from statespace_em.emissions.evaluate import (
    emission_arranged,
    emission_from_vector,
    emission_lifted,
    emission_n_free,
    emission_vector,
    family_statistics,
    guessed_emission,
    params_type,
)
from statespace_em.kernels import chain
from statespace_em.labels import Dims
from statespace_em.priors import Dirichlet
from statespace_em.sequence.forward_backward import (
    ChainFilter,
    Density,
    filter_states,
    most_probable_path,
    smooth,
    smooth_sums,
)
from statespace_em.start import responsibilities

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
    initial_prior: Dirichlet
    transition_prior: Dirichlet
    n_states: int
    frozen: tuple[str, ...] = ()
    scale: Any = 1.0  # (D,), see `column_scale`
    order: Any = None  # params of the family -> permutation (K,), or None

    row_dims: ClassVar[Dims] = {"gamma": ("state",)}
    sum_dims: ClassVar[Dims] = {"xi": ("state", "next_state")}

    def _density(self, params: HMMParams, batch: Batch) -> Density:
        """Log densities of blocks of rows; what a row allows, or is known to be, would be added here."""
        return lambda begin, end: self.family.log_prob(params.emission, batch.y[begin:end])

    def e_step(self, params: HMMParams, data: Batch) -> tuple[HMMStatistics, float]:
        """Additive statistics and the log-likelihood in nats; nothing it makes grows with the rows."""

        def visit(begin: int, end: int, gamma: Floats) -> Any:  # weights of rows would multiply gamma here
            return self.family.statistics(params.emission, data.y[begin:end], gamma)

        density = self._density(params, data)
        sums, log_likelihood = smooth_sums(density, params.initial, params.transition[None], data.starts, visit)
        return HMMStatistics(sums.firsts, sums.xi_sum, sums.statistics), math.fsum(log_likelihood)

    def m_step(self, statistics: HMMStatistics, previous: HMMParams | None) -> HMMParams:
        """Dirichlet modes for the chain, the family's own M-step for the emissions; frozen blocks stay."""
        old = HMMParams(None, None, None) if previous is None else previous  # type: ignore[arg-type]
        initial = self.initial_prior.mode(statistics.initial, old.initial)
        transition = self.transition_prior.mode(statistics.transition, old.transition)
        if set(self.family.dims) <= set(self.frozen):
            emission = old.emission
        else:
            emission = self.family.m_step(statistics.emission, old.emission)
        return HMMParams(
            old.initial if "initial" in self.frozen else initial,
            old.transition if "transition" in self.frozen else transition,
            emission,
        )

    def log_prior(self, params: HMMParams) -> float:
        """Log prior density in nats, without constants."""
        chain_prior = self.initial_prior.log_density(params.initial)
        chain_prior += self.transition_prior.log_density(params.transition)
        return chain_prior + self.family.log_prior(params.emission)

    def to_vector(self, params: HMMParams, reference: HMMParams) -> Floats | None:
        """Unconstrained coordinates of what is not frozen."""
        emission = emission_vector(self.family, params.emission, reference.emission, self.scale, self.frozen)
        if emission is None:
            return None
        free = [name for name in CHAIN_DOMAINS if name not in self.frozen]
        parts = [to_vector(getattr(params, n), getattr(reference, n), CHAIN_DOMAINS[n]) for n in free]
        return np.concatenate([*parts, emission])

    def from_vector(self, vector: Floats, reference: HMMParams) -> HMMParams:
        """Inverse of `to_vector`."""
        values = {}
        for name, domain in CHAIN_DOMAINS.items():
            values[name] = getattr(reference, name)
            if name not in self.frozen:
                size = n_coordinates(values[name], domain)
                values[name] = from_vector(vector[:size], values[name], domain)
                vector = vector[size:]
        emission = emission_from_vector(self.family, vector, reference.emission, self.scale, self.frozen)
        return HMMParams(emission=emission, **values)

    def lifted(self, params: HMMParams, image: HMMParams) -> HMMParams | None:
        """Probabilities raised that are next to zero but grow under EM; None if none do."""
        found: dict[str, Any] = {n: lifted(getattr(params, n), getattr(image, n)) for n in CHAIN_DOMAINS}
        found["emission"] = emission_lifted(self.family, params.emission, image.emission)
        found = {name: value for name, value in found.items() if value is not None and name not in self.frozen}
        return params._replace(**found) if found else None

    def starts(
        self, batch: Batch, n_starts: int, rng: np.random.Generator, given: Mapping[str, Floats]
    ) -> Iterator[HMMParams]:
        """One M-step on each guess of the responsibilities."""
        batch = excerpt(batch)
        category = self.family.support == "category"
        guesses = responsibilities(batch.y, batch.first, self.n_states, n_starts, category=category, rng=rng)
        for gamma in guesses:
            inside = ~batch.first[1:]
            pairs = gamma[:-1][inside].T @ gamma[1:][inside] + 0.1 / self.n_states
            first = gamma[batch.first].sum(0)
            yield HMMParams(
                first / first.sum(),
                pairs / pairs.sum(1, keepdims=True),
                guessed_emission(self.family, batch.y, gamma),
            )

    def posterior(self, params: HMMParams, batch: Batch, *, pairs: bool) -> Posterior:
        """Posterior of every row."""
        density = self._density(params, batch)
        found = smooth(density, params.initial, params.transition[None], batch.starts, pairs=pairs)
        rows: Rows = {"gamma": (("state",), found.gamma)}
        pair_dims = ("state", "next_state")
        if pairs:
            return Posterior(rows | {"xi": (pair_dims, found.xi)}, {}, found.log_likelihood)
        return Posterior(rows, {"xi": (pair_dims, found.xi_sum)}, found.log_likelihood)

    def statistics(self, params: HMMParams | None, batch: Batch, posterior: Mapping[str, Floats]) -> HMMStatistics:
        """Statistics of a given posterior."""
        gamma = posterior["gamma"]
        emission = family_statistics(self.family, None if params is None else params.emission, batch.y, gamma)
        return HMMStatistics(gamma[batch.first].sum(0), posterior["xi"], emission)

    def filter(self, params: HMMParams, batch: Batch) -> ChainFilter:
        """Causal probabilities of every row."""
        return filter_states(self._density(params, batch), params.initial, params.transition[None], batch.starts)

    def decode(self, params: HMMParams, batch: Batch) -> tuple[Ints, Floats]:
        """Viterbi path of every sequence and its log joint probability."""
        return most_probable_path(self._density(params, batch), params.initial, params.transition[None], batch.starts)

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
        return HMMParams(arrays["initial"], arrays["transition"], params_type(names)(*(arrays[n] for n in names)))

    def degenerate(self, params: HMMParams, statistics: HMMStatistics) -> Bools:
        """States at the floor of the family, if it has one."""
        if isinstance(self.family, HasFloor):
            return self.family.at_floor(params.emission, statistics.emission)
        return np.zeros(self.n_states, bool)

    def order_of(self, params: HMMParams) -> Ints:
        """Permutation by the rule of the model; the identity without one."""
        return np.arange(self.n_states) if self.order is None else self.order(self.family, params.emission)

    def arranged(self, params: HMMParams, order: Ints) -> HMMParams:
        """States in this order."""
        emission = emission_arranged(self.family, params.emission, order)
        return HMMParams(params.initial[order], params.transition[np.ix_(order, order)], emission)

    def n_free(self, params: HMMParams) -> int:
        """Free parameters; structural zeros and frozen blocks do not count."""
        count = emission_n_free(self.family, params.emission, self.frozen)
        free = [name for name in CHAIN_DOMAINS if name not in self.frozen]
        return count + sum(n_free(getattr(params, name), CHAIN_DOMAINS[name]) for name in free)
