"""Chains that begin in their stationary distribution: that distribution, its derivative and the M-step it needs.

With pi = pi A the derivative is d pi = pi dA Z, where Z = (I - A + 1 pi)^-1 is the fundamental matrix (Kemeny & Snell
1960; Schweitzer 1968). The first state then speaks about the transitions too, sum_k f_k log pi_k(A), and the M-step
has no closed form: it is Fisher scoring on the row-softmax coordinates with step control, so that EM stays monotone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from statespace_em._typing import Floats
from statespace_em.structure import Pattern

MAX_STEPS = 50
ENOUGH = 1e-12  # nats still to gain, as the quadratic model expects, relative to the number of rows
LONGEST = 2.0  # largest change of a log probability in one step
TINY = 1e-200


def stationary(transition: Floats) -> Floats:
    """Stationary distribution (K,) of a chain; NaN where it is not unique."""
    n_states = len(transition)
    system = np.vstack([transition.T - np.eye(n_states), np.ones(n_states)])
    if np.linalg.matrix_rank(system, tol=1e-12) < n_states:
        return np.full(n_states, np.nan)
    return stationary_of(transition)


def stationary_of(transition: Floats) -> Floats:
    """Stationary distribution (K,) of a chain known to have only one.

    Raises
    ------
    numpy.linalg.LinAlgError
        If it has several.
    """
    n_states = len(transition)
    found = np.linalg.solve(np.eye(n_states) - transition.T + 1.0, np.ones(n_states))
    found = np.maximum(found, 0.0)
    return np.asarray(found / found.sum())


def score(transition: Floats, initial: Floats, firsts: Floats) -> Floats:
    """Gradient (K, K) of ``sum firsts * log(initial)`` with respect to a transition matrix whose rows sum to 1."""
    ratio = np.divide(firsts, initial, out=np.zeros_like(firsts), where=firsts > 0.0)
    return np.outer(initial, _fundamental(transition, initial) @ ratio)


def _fundamental(transition: Floats, initial: Floats) -> Floats:
    return np.asarray(np.linalg.inv(np.eye(len(initial)) - transition + initial))


def stationary_mode(firsts: Floats, pairs: Floats, pattern: Pattern, previous: Floats, closed: Floats) -> Floats:
    """Transition matrix that maximises ``sum firsts log(initial) + sum pairs log(transition)``.

    ``firsts`` (K,) and ``pairs`` (K, K) include what the priors add; ``previous`` and ``closed``, the maximiser
    without the first term, are where it may begin. The result is never worse than ``previous``.
    """
    from scipy.special import xlogy  # here because it is slow to import, and most fits do without

    counts = np.where(pattern.free, pairs, 0.0)
    rows = np.maximum(counts.sum(1, keepdims=True), 1e-8 * max(float(counts.sum()), TINY))

    def objective(inner: Floats) -> float:
        try:
            initial = stationary_of(pattern.outer(inner))
        except np.linalg.LinAlgError:
            return -np.inf
        with np.errstate(divide="ignore"):
            return float(xlogy(counts, inner).sum() + xlogy(firsts, initial).sum())

    here, begun = pattern.inner(previous), pattern.inner(closed)
    value, other = objective(here), objective(begun)
    if other > value and not ((begun == 0.0) & (here > 0.0)).any():
        here, value = begun, other
    for _ in range(MAX_STEPS):
        step, gain = _scoring_step(here, firsts, counts, rows, pattern)
        if not gain > ENOUGH * (1.0 + float(rows.sum())):
            break
        there, found = _search(here, step, value, objective)
        if there is None:
            break
        here, value = there, found
    return pattern.outer(here)


def _scoring_step(
    inner: Floats, firsts: Floats, counts: Floats, rows: Floats, pattern: Pattern
) -> tuple[Floats, float]:
    """Change (K, K) of the log probabilities and the gain in nats that it promises.

    In units of the complete-data information of the pairs the information is the identity plus a term of rank K.
    """
    transition = pattern.outer(inner)
    initial = stationary_of(transition)
    unit = np.sqrt(rows * np.maximum(inner, TINY))
    away = _fundamental(transition, initial)  # (K, K), of (to, m)
    away = away[None] - (inner @ away)[:, None]
    change = initial[:, None, None] * pattern.room[:, :, None] * inner[:, :, None] * away
    change /= np.maximum(initial, TINY)  # (K, K, K): d log pi_m / d log-probability (i, j)
    gradient = counts - inner * counts.sum(1, keepdims=True) + change @ firsts
    factor = (change / unit[:, :, None] * np.sqrt(firsts)).reshape(-1, len(firsts))
    scaled = (gradient / unit).ravel()
    solved = np.linalg.solve(np.eye(len(firsts)) + factor.T @ factor, factor.T @ scaled)
    step = scaled - factor @ solved
    return step.reshape(inner.shape) / unit, 0.5 * float(scaled @ step)


def _search(
    here: Floats, step: Floats, value: float, objective: Callable[[Floats], float]
) -> tuple[Floats | None, float]:
    """First point along the step that is higher; None if there is none."""
    step = step * min(1.0, LONGEST / max(float(np.abs(step).max()), TINY))
    for _ in range(30):
        there = here * np.exp(step)
        there /= np.where(there.sum(1, keepdims=True) > 0.0, there.sum(1, keepdims=True), 1.0)
        found = objective(there)
        if found > value:
            return there, found
        step = 0.5 * step
    return None, value
