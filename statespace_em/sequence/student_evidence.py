"""What draws of weights tell at given parameters of Student-t noise: moments of the states, and the likelihood."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_passes import Smoothed
from statespace_em.sequence.lgssm_simulation import simulation_smoother
from statespace_em.sequence.lgssm_smoother import smooth
from statespace_em.sequence.student import log_densities
from statespace_em.sequence.student_copies import Problem
from statespace_em.sequence.student_draws import Chains

ROUNDS = 1000  # of the fixed point of a bridge
FAR = 50.0  # nats between the means of log ratios, from which on draws of one kind tell nothing of the other


class Evidence(NamedTuple):
    """What is known given y, at some parameters."""

    weight: Floats  # (N, G), expected
    moments: Smoothed  # of the states
    log_likelihood: Floats  # (S,), nats; NaN where draws do not tell it
    error: Floats  # (S,), its Monte Carlo standard error


def evidence(chains: Chains, params: LGSSMParams, nu: Floats, draws: int) -> Evidence:
    """Ask chains that have come to these parameters."""
    problem = chains.problem
    n = -(-draws // len(chains.weight))
    distance, weight = chains.sweeps(n, params, nu)
    entries = problem.entries
    expected = np.where(entries > 0, ((nu + entries) / (nu + distance)).mean(0), 1.0)
    value, error = _bridged(chains, params, nu, expected, distance)
    return Evidence(expected, _moments(problem, params, weight), value, error)


def _moments(problem: Problem, params: LGSSMParams, weight: Floats) -> Smoothed:
    """Moments of the states: those given weights (n, N, G), on average, and how means differ."""
    copies = problem.copies(weight)
    found = smooth(copies.states_of(problem.spread(params, copies)), copies.alone, problem.inner.likelihood)[0]
    shape = (len(weight), len(problem.batch.y))
    mean, cov, cross = (np.asarray(value).reshape(*shape, *value.shape[1:]) for value in found)
    centre = mean.mean(0)
    away = mean - centre
    spread = np.einsum("mti,mtj->tij", away, away) / len(mean)
    lag = np.full(spread.shape, np.nan)
    lag[:-1] = np.einsum("mti,mtj->tij", away[:, :-1], away[:, 1:]) / len(mean)
    return Smoothed(centre, cov.mean(0) + spread, cross.mean(0) + lag)


def _bridged(
    chains: Chains, params: LGSSMParams, nu: Floats, expected: Floats, distance: Floats
) -> tuple[Floats, Floats]:
    """Log-likelihood (S,) and its standard errors, from draws given Student-t noise and given Gaussian noise.

    The Gaussian model has these expected weights; its likelihood is known, and the ratio of the two likelihoods is that
    of the two constants of the distributions of the states, which a bridge between draws of both tells (Meng & Wong
    1996, eq. 4.1): with less error than draws of the Gaussian model alone, whose tails are too thin.
    """
    problem = chains.problem
    batch, entries = problem.batch, problem.entries
    alone = problem.copies(expected[None])
    whole = alone.states_of(problem.spread(params, alone))
    gaussian = smooth(whole, alone.alone, problem.inner.likelihood)[1]
    copies = problem.copies(np.repeat(expected[None], len(distance), axis=0))
    states = simulation_smoother(copies.states_of(problem.spread(params, copies)), copies.alone, chains.rng)
    other = problem.distances(copies, params, states)

    def ratios(d: Floats) -> Floats:
        """Log ratios (n, S) of the densities of y as it is multiplied, given states at distances d."""
        rows = np.where(entries > 0.0, log_densities(nu, entries, d) + expected * d / 2.0, 0.0).sum(2)
        return np.asarray(np.add.reduceat(rows, batch.starts[:-1], axis=1))

    value, error = _bridge(ratios(other), ratios(distance))
    return gaussian + value, error


def _bridge(own: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Log ratio (S,) of two constants, and its errors, from log ratios (n, S) of densities at draws of both."""
    from scipy.special import logsumexp  # here because it is slow to import, and most fits do without

    ratio = (own.mean(0) + target.mean(0)) / 2.0
    for _ in range(ROUNDS):
        up, down = own - np.logaddexp(own, ratio), -np.logaddexp(target, ratio)
        before, ratio = ratio, logsumexp(up, axis=0) - logsumexp(down, axis=0)
        if np.abs(ratio - before).max() < 1e-9:
            break
    up, down = np.exp(up), np.exp(down + ratio)
    error = np.sqrt(sum(part.var(0) / part.mean(0) ** 2 for part in (up, down)) / len(up))
    far = target.mean(0) - own.mean(0) > FAR
    return np.where(far, np.nan, ratio), np.where(far, np.nan, error)
