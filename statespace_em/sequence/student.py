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


def log_densities(nu: Floats | float, entries: Floats, distance: Floats, scale: float = 1.0) -> Floats:
    """Log density of entries with Student-t noise at squared distances, less what hangs on neither nu nor distances."""
    from scipy.special import gammaln

    half = nu / 2.0
    away = np.log1p(distance / (nu * scale))
    return np.asarray(
        gammaln(half + entries / 2.0)
        - gammaln(half)
        - entries / 2.0 * np.log(half * scale)
        - (half + entries / 2.0) * away
    )


def best_tail(entries: Floats, distance: Floats, start: float, *, scaled: bool) -> tuple[float, float, float]:
    """Degrees of freedom, and the scale of the noise if that may change, that maximise the density of residuals.

    Parameters
    ----------
    entries
        Seen (N,) of each row.
    distance
        Squared distances (n, N) of n draws, by the noise as it is.
    start
        Degrees of freedom to begin with.
    scaled
        Whether the noise may be scaled.

    Returns
    -------
    dof, scale, gain
        The gain is the average over draws, in nats.
    """
    from scipy.optimize import minimize
    from scipy.special import psi

    rows = entries > 0.0
    if not rows.any():
        return start, 1.0, 0.0
    p, d, n = entries[rows], distance[:, rows], len(distance)

    def lost(x: Floats) -> tuple[float, Floats]:
        scale, nu = np.exp(x)
        u = d / (nu * scale)
        pull = (nu + p) / 2.0 * u / (1.0 + u)
        by_nu = nu / 2.0 * (psi((nu + p) / 2.0) - psi(nu / 2.0)) - p / 2.0 + pull - nu / 2.0 * np.log1p(u)
        return -float(log_densities(nu, p, d, scale).sum()) / n, -np.array([(pull - p / 2.0).sum(), by_nu.sum()]) / n

    low, high = np.log(DOFS)
    begin = np.array([0.0, np.clip(np.log(start), low, high)])
    bounds = [(-3.0, 3.0) if scaled else (0.0, 0.0), (low, high)]
    found = minimize(lost, begin, jac=True, method="L-BFGS-B", bounds=bounds)
    gain = lost(np.array([0.0, np.log(start)]))[0] - float(found.fun)
    scale, nu = np.exp(found.x)
    return (float(nu), float(scale), gain) if gain > 0.0 else (start, 1.0, 0.0)
