"""Estimates with Student-t noise by draws: Monte Carlo EM on the likelihood itself, weights being what is missing.

Given the weights w of the rows all is Gaussian, so that their likelihood needs no states: a round draws weights given y
(Gibbs: states given weights, weights given states), and maximises the average over these draws of log p(y | w), an EM
step in which only the weights are missing (Wei & Tanner 1990). Rounds begin with few draws and end with all
(Booth & Hobert 1999). Degrees of freedom, and with them the size of the noise, are moved by EM steps in which states
are missing, for p(y | states) is known (Liu & Rubin 1995; in turn: Meng & van Dyk 1997, AECM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.em import EMResult, Step
from statespace_em.errors import UNRESOLVED
from statespace_em.quasi_newton import refine, run_quasi_newton
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_simulation import simulation_smoother
from statespace_em.sequence.student import best_tail
from statespace_em.sequence.student_copies import Problem

CHAINS = (8, 32)  # side by side, at least and at most; of a quarter of the draws
FIRST = 12  # rounds of one draw a chain
SETTLING = 10  # draws of a chain before it is asked
EXACT = 1e-9  # of the largest variance of a noise, below which there is none
FINE = 1e-4  # nats to which a round is taken; its draws leave more open
SURE = 0.999  # probability that a gain is told from that of draws alone


@dataclass
class Chains:
    """Gibbs draws of states and weights in turn, several chains side by side."""

    problem: Problem
    weight: Floats  # (M, N, G), last drawn
    rng: np.random.Generator

    def sweeps(self, n: int, params: LGSSMParams, nu: Floats) -> tuple[Floats, Floats]:
        """Draw n times; return the squared distances (n M, N, G) from the states, and the weights drawn given these."""
        problem, entries = self.problem, self.problem.entries
        found = []
        for _ in range(n):
            copies = problem.copies(self.weight)
            states = simulation_smoother(copies.states_of(problem.spread(params, copies)), copies.alone, self.rng)
            distance = problem.distances(copies, params, states)
            shape = np.broadcast_to((nu + entries) / 2.0, distance.shape)
            weight = self.rng.standard_gamma(shape) / ((nu + distance) / 2.0)
            self.weight = np.where(entries > 0, weight, 1.0)
            found.append((distance, self.weight))
        distance, weight = (np.concatenate(each) for each in zip(*found))
        return distance, weight


class Climb(NamedTuple):
    """Where a climb by draws ended."""

    params: LGSSMParams
    nu: Floats  # (G,)
    gains: list[tuple[float, int]]  # nats that each round gained on average over its draws, and their number
    converged: bool
    chains: Chains


def chains_of(problem: Problem, weight: Floats, draws: int, seed: int) -> Chains:
    """Chains that begin at weights (N, G)."""
    n = min(draws, int(np.clip(draws // 4, *CHAINS)))
    return Chains(problem, np.repeat(weight[None], n, axis=0), np.random.default_rng(seed))


def climbed(chains: Chains, params: LGSSMParams, nu: Floats, *, free: bool, draws: int, max_iter: int) -> Climb:
    """Climb from some parameters, until a round with all draws gains no more than these make by themselves."""
    problem = chains.problem
    each = -(-draws // len(chains.weight))
    one = problem.copies(np.ones((1, *problem.entries.shape)))
    inside = next(iter(one.core.starts(one.rows, 1, chains.rng, {})))  # with no variance at 0
    n_free = one.core.n_free(inside) + (len(nu) if free else 0)
    params = inside if is_exact(params.measurement_cov) else params
    chains.sweeps(SETTLING, params, nu)
    gains: list[tuple[float, int]] = []
    if n_free == 0:
        return Climb(params, nu, gains, True, chains)
    for k in range(max_iter):
        n = 1 if k < FIRST else each
        gained = 0.0
        if free:
            distance, _ = chains.sweeps(n, params, nu)
            params, nu, gained = _tails(problem, params, nu, distance)
            chains.sweeps(1, params, nu)
        _, weight = chains.sweeps(n, params, nu)
        params, more, sound = _maximised(problem, weight, params, inside)
        gains.append((gained + more, len(weight)))
        if not sound and k >= FIRST:
            return Climb(params, nu, gains, False, chains)
        if k > FIRST and gained + more < chance(n_free) / len(weight):
            return Climb(params, nu, gains, True, chains)
    return Climb(params, nu, gains, False, chains)


def is_exact(measurement_cov: Floats) -> bool:
    """Whether something is measured without noise, which leaves weights nothing to multiply."""
    values = np.linalg.eigvalsh(measurement_cov)
    return bool((values[..., 0] <= EXACT * values[..., -1]).any())


def chance(n_free: int) -> float:
    """Gain, times the number of draws, that draws make by themselves at the maximum, rarely to be exceeded.

    A maximum over draws is off the expected one by a normal error; where as much is missing as there is to know, twice
    what it gains is chi-squared. Draws of a chain that resemble each other count half.
    """
    from scipy.special import gammaincinv  # here because it is slow to import, and most fits do without

    return 2.0 * float(gammaincinv(n_free / 2.0, SURE))


def _maximised(
    problem: Problem, weight: Floats, params: LGSSMParams, inside: LGSSMParams
) -> tuple[LGSSMParams, float, bool]:
    """Parameters that maximise the average over draws of log p(y | weights), what they gain, and if there are such."""
    copies = problem.copies(weight)
    core, start = copies.core, problem.spread(params, copies)
    begun = start if not core.is_singular(start, problem.spread(inside, copies)) else problem.spread(inside, copies)
    try:
        statistics, log_likelihood = core.e_step(start, copies.rows)
        here = EMResult(start, statistics, (Step(1, log_likelihood, core.log_prior(start)),), "converged", 1)
        end = refine(core, copies.rows, here, begun) if begun is start else here  # mostly it is next to the top
        end = end if end is not here else run_quasi_newton(core, copies.rows, begun, tol=FINE)
    except UNRESOLVED:
        return params, 0.0, False
    found = problem.gathered(core.settled(end.params, end.statistics))
    if end.status != "converged" or is_exact(found.measurement_cov):
        return params, 0.0, False
    return found, end.objective - here.objective, True


def _tails(problem: Problem, params: LGSSMParams, nu: Floats, distance: Floats) -> tuple[LGSSMParams, Floats, float]:
    """Degrees of freedom, and sizes of noises that may be scaled, that maximise the average of log p(y | states)."""
    entries, owner = problem.entries, problem.owner
    may = _may_scale(problem, params)
    found = [best_tail(entries[:, g], distance[:, :, g], float(nu[g]), scaled=may) for g in range(len(nu))]
    best, scale, gains = (np.array(each) for each in zip(*found))
    root = np.sqrt(scale[owner])
    return params._replace(measurement_cov=params.measurement_cov * np.outer(root, root)), best, float(gains.sum())


def _may_scale(problem: Problem, params: LGSSMParams) -> bool:
    """Whether the noise of each weight can have another size, all else being the same."""
    copies = problem.copies(np.ones((1, *problem.entries.shape)))
    root = 1.0 + 0.1 * (1.0 + problem.owner)
    here = problem.spread(params, copies)
    there = here._replace(measurement_cov=here.measurement_cov * np.outer(root, root))
    vector = copies.core.to_vector(there, here)
    back = None if vector is None else copies.core.from_vector(vector, here).measurement_cov
    return back is not None and bool(np.allclose(back, there.measurement_cov, rtol=1e-9, atol=0.0))
