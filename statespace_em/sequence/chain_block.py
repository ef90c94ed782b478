"""The chain of hidden states on plain arrays: its priors, its structure, its half of every M-step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.domains import joined
from statespace_em.priors import Dirichlet
from statespace_em.sequence.stationary import score, stationary_mode, stationary_of
from statespace_em.structure import Pattern

Name = Literal["initial", "transition"]
SPREAD = 0.1  # pairs of states that a start adds to those of its guess, evenly over the allowed ones


class ChainParams(NamedTuple):
    """Parameters of the chain."""

    initial: Floats  # (K,)
    transition: Floats  # (K, K), rows sum to 1


@dataclass(frozen=True, eq=False)
class Chain:
    """Which values the chain may take, and what is known of them before the data."""

    initial: Pattern  # (K,)
    transition: Pattern  # (K, K)
    initial_prior: Dirichlet
    transition_prior: Dirichlet
    stationary: bool = False  # the initial distribution is the stationary one of transition, not free
    frozen: tuple[str, ...] = ()

    @property
    def n_states(self) -> int:
        """Number of states."""
        return len(self.initial.fixed)

    @cached_property
    def blocks(self) -> tuple[Name, ...]:
        """Parameters that have coordinates of their own."""
        free: list[Name] = []
        if "initial" not in self.frozen and not self.stationary:
            free.append("initial")
        if "transition" not in self.frozen:
            free.append("transition")
        return tuple(free)

    def pattern(self, name: Name) -> Pattern:
        """Structure of one parameter."""
        return self.initial if name == "initial" else self.transition

    def completed(self, initial: Floats | None, transition: Floats) -> ChainParams:
        """Parameters, the initial distribution from the transitions where it follows from them."""
        if self.stationary or initial is None:
            return ChainParams(stationary_of(transition), transition)
        return ChainParams(initial, transition)

    def m_step(self, firsts: Floats, pairs: Floats, previous: ChainParams | None) -> ChainParams:
        """Maximise the expected log joint of the chain plus log prior; what is frozen or fixed stays."""
        old = (None, None) if previous is None else previous
        if "transition" in self.frozen and previous is not None:
            transition = previous.transition
        else:
            transition = self.transition.mode(pairs, self.transition_prior, old[1])
        if not self.stationary:
            kept = "initial" in self.frozen and previous is not None
            initial = previous.initial if kept and previous else self.initial.mode(firsts, self.initial_prior, old[0])
            return ChainParams(initial, transition)
        if "transition" not in self.frozen and previous is not None:
            firsts = firsts + self.initial_prior.pseudo_counts(firsts.shape)
            extra = np.where(previous.transition > 0.0, self.transition_prior.pseudo_counts(pairs.shape), 0.0)
            transition = stationary_mode(firsts, pairs + extra, self.transition, previous.transition, transition)
        return ChainParams(stationary_of(transition), transition)

    def log_prior(self, params: ChainParams) -> float:
        """Log prior density in nats, without constants."""
        density = self.initial_prior.log_density(params.initial)
        return density + self.transition_prior.log_density(params.transition)

    def parts(self, params: ChainParams, reference: ChainParams) -> list[Floats]:
        """Coordinates of what is free, block by block."""
        return [self.pattern(n).to_vector(getattr(params, n), getattr(reference, n)) for n in self.blocks]

    def taken(self, vector: Floats, reference: ChainParams) -> tuple[ChainParams, Floats]:
        """Parameters with the first coordinates, and the other coordinates."""
        values = {"initial": reference.initial, "transition": reference.transition}
        for name in self.blocks:
            values[name], vector = self.pattern(name).taken(vector, values[name])
        return self.completed(values["initial"], values["transition"]), vector

    def score_vector(self, params: ChainParams, firsts: Floats, pairs: Floats, reference: ChainParams) -> Floats:
        """Gradient, in the coordinates, of the expected log joint of the chain."""
        gradients: dict[str, Floats] = {}
        for name, counts in (("initial", firsts), ("transition", pairs)):
            value = getattr(params, name)
            gradients[name] = np.divide(counts, value, out=np.zeros_like(counts), where=value > 0.0)
        if self.stationary:
            gradients["transition"] = gradients["transition"] + score(params.transition, params.initial, firsts)
        parts = [
            self.pattern(n).pull_back(gradients[n], getattr(params, n), getattr(reference, n)) for n in self.blocks
        ]
        return joined(parts)

    def lifted(self, params: ChainParams, image: ChainParams) -> ChainParams | None:
        """Probabilities raised that are next to zero but grow under EM; None if none do."""
        found = {name: self.pattern(name).lifted(getattr(params, name), getattr(image, name)) for name in self.blocks}
        raised = {name: value for name, value in found.items() if value is not None}
        if not raised:
            return None
        values = params._asdict() | raised
        return self.completed(values["initial"], values["transition"])

    def start(self, firsts: Floats, pairs: Floats) -> ChainParams:
        """Parameters near guessed counts, with some weight on every allowed step."""
        spread = SPREAD / self.n_states
        transition = self.transition.mode(pairs + spread, Dirichlet())
        return self.completed(self.initial.mode(firsts, Dirichlet()), transition)

    def n_free(self, params: ChainParams) -> int:
        """Free parameters: structural zeros, fixed entries and frozen blocks do not count."""
        return sum(self.pattern(name).n_free(getattr(params, name)) for name in self.blocks)

    def invariant(self, order: Ints) -> bool:
        """Whether the states may be put in this order: the structure does not tell them apart."""
        return all(self.pattern(n).arranged(order).equals(self.pattern(n)) for n in ("initial", "transition"))
