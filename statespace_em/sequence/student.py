"""Weights of measurements with Student-t noise: N(0, R / w), w ~ Gamma(dof / 2, dof / 2), given the states."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints

DOFS = (0.5, 200.0)  # between which degrees of freedom are estimated


def shape_and_rate(nu: Floats, entries: Floats, distance: Floats) -> tuple[Floats, Floats]:
    """Gamma distribution of the weights given expected squared distances of the entries that share them."""
    return (nu + entries) / 2.0, (nu + distance) / 2.0


def expected_weights(nu: Floats, entries: Floats, distance: Floats) -> tuple[Floats, Floats]:
    """E w and E log w."""
    from scipy.special import psi  # here because it is slow to import, and most fits do without

    shape, rate = shape_and_rate(nu, entries, distance)
    return shape / rate, psi(shape) - np.log(rate)


def squared_distances(second: Floats, seen: Bools, noise: Floats, owners: Ints) -> Floats:
    """Expected squared Mahalanobis distances (N, G) by owner, from second moments (N, D, D) of what is off."""
    found = []
    for g in range(int(owners.max()) + 1):
        own = seen & (owners == g)
        pair = own[:, :, None] & own[:, None, :]
        solved = np.linalg.solve(np.where(pair, noise, np.eye(len(owners))), np.where(pair, second, 0.0))
        found.append(np.trace(solved, axis1=1, axis2=2))
    return np.stack(found, axis=1)


def divergence(shape: Floats, rate: Floats, half: Floats) -> Floats:
    """Kullback-Leibler divergence of Gamma(shape, rate) from Gamma(half, half)."""
    from scipy.special import gammaln, psi

    away = (shape - half) * psi(shape) - gammaln(shape) + gammaln(half)
    return np.asarray(away + half * (np.log(rate) - np.log(half)) + shape * (half - rate) / rate)


def constants(nu: Floats, entries: Floats) -> Floats:
    """What rows add to the bound, with their weights at their best, for so many entries, whatever their distances d.

    The rest is ``nu / 2 ((d - entries) / (nu + d) - log(1 + d / nu))``: without the differences of large numbers that
    `divergence` has where degrees of freedom are many.
    """
    from scipy.special import betaln, gammaln

    half, part = nu / 2.0, np.maximum(entries, 1.0) / 2.0
    found = gammaln(part) - betaln(half, part) - part * np.log(half + part) + part
    return np.ascontiguousarray(np.where(entries > 0.0, found, 0.0))


def best_dof(entries: Floats, distance: Floats, start: float) -> float:
    """Degrees of freedom (N rows) that maximise the bound with the weights at their best for each of them.

    Weights that are held while the degrees of freedom move make EM creep; without them the bound is a Student-t
    density of the expected distances (Liu & Rubin 1995, ECME).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import gammaln

    rows = entries > 0.0
    if not rows.any():
        return start
    p, d = entries[rows], distance[rows]

    def lost(log_nu: float) -> float:
        half = np.exp(log_nu) / 2.0
        rate = half + d / 2.0
        terms = gammaln(half + p / 2.0) - gammaln(half) + half * np.log(half) - (half + p / 2.0) * np.log(rate)
        return -float(terms.sum())

    low, high = np.log(DOFS)
    found = minimize_scalar(lost, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    best = min((float(found.x), float(np.log(start))), key=lost)
    return float(np.exp(best))
