"""Quasi-Newton ascent on the exact score, for models that know it: EM creeps where a variance nears its boundary.

The E-step gives the gradient of the log-likelihood for nothing (Fisher's identity: it equals the gradient of the
expected complete-data log-likelihood). The ascent is BFGS with a strong-Wolfe line search (Nocedal & Wright 2006,
alg. 6.1); it ends when the Newton decrement, the gain in nats that a quadratic model still expects, is small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import line_search

from statespace_em._typing import Floats

CONFIRM = 2  # successive steps that must agree that little is left to gain


class Point(NamedTuple):
    """One evaluation: place, objective (nats) and its gradient."""

    x: Floats
    objective: float
    gradient: Floats


Evaluate = Callable[[Floats], Point | None]  # None where nothing can be computed, or no evaluation is left


def ascend(evaluate: Evaluate, start: Point, *, tol: float, on_step: Callable[[Point], None]) -> bool:
    """Climb from ``start``, telling ``on_step`` every accepted point; return whether the decrement fell below ``tol``.

    It never goes down: a step that finds no higher point ends the ascent.
    """
    here, agreed = start, 0
    inverse = np.eye(len(start.x))  # of the negative Hessian
    fresh = True
    while True:
        direction = inverse @ here.gradient
        decrement = 0.5 * float(here.gradient @ direction)
        agreed = agreed + 1 if decrement < tol else 0
        if agreed == CONFIRM or decrement == 0.0:
            return True
        there = _search(evaluate, here, direction)
        if there is None:
            if fresh:
                return False
            inverse, fresh = np.eye(len(here.x)), True  # a poor model of the curvature: once more from the gradient
            agreed = 0
            continue
        inverse = _updated(inverse, there.x - here.x, here.gradient - there.gradient, fresh)
        here, fresh = there, False
        on_step(here)


def _search(evaluate: Evaluate, here: Point, direction: Floats) -> Point | None:
    """Find a higher point along ``direction``; None if there is none."""
    seen: dict[bytes, Point] = {}

    def at(x: Floats) -> Point | None:
        key = x.tobytes()
        if key not in seen:
            found = evaluate(x)
            if found is None:
                return None
            seen[key] = found
        return seen[key]

    def value(x: Floats) -> float:
        found = at(x)
        return np.inf if found is None else -found.objective

    def slope(x: Floats) -> Floats:
        found = at(x)
        return np.zeros_like(x) if found is None else -found.gradient

    longest = 1.0 / max(1.0, float(np.abs(direction).max()))  # coordinates are of order 1: no wild first step
    line_search(value, slope, here.x, direction * longest, -here.gradient, -here.objective, maxiter=12)
    best = max(seen.values(), key=lambda point: point.objective, default=None)
    return best if best is not None and best.objective > here.objective else None


def _updated(inverse: Floats, step: Floats, change: Floats, fresh: bool) -> Floats:
    """BFGS update of the inverse; scaled to the curvature just seen if it was the identity."""
    curvature = float(step @ change)
    if curvature <= 1e-12 * float(np.linalg.norm(step) * np.linalg.norm(change)):
        return inverse
    if fresh:
        inverse = inverse * (curvature / float(change @ change))
    ratio = 1.0 / curvature
    left = np.eye(len(step)) - ratio * np.outer(step, change)
    return np.asarray(left @ inverse @ left.T + ratio * np.outer(step, step))
