"""Exact oracle of a local level with Student-t noise: its filter on a fine grid of levels, from a flat start.

Nothing from the package. Sums over a grid of a smooth density converge faster than any power of the spacing.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln


def log_density(error, scale, nu):
    """Log density of Student-t errors; ``scale`` is that of their squares."""
    constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(np.pi * nu * scale)
    return constant - (nu + 1) / 2 * np.log1p(error**2 / (scale * nu))


def log_likelihood(y, level_var, scale, nu, reach=8.0):
    """Log-likelihood in nats, of a first level with density 1 everywhere."""
    deviation = np.sqrt(level_var)
    step = min(0.5 * deviation, 0.25 * np.sqrt(scale))
    away = reach * np.sqrt(scale) + 4.0 * deviation
    levels = np.arange(np.nanpercentile(y, 2) - away, np.nanpercentile(y, 98) + away, step)
    width = int(np.ceil(8.0 * deviation / step))
    moves = np.exp(-0.5 * (np.arange(-width, width + 1) * step) ** 2 / level_var)
    moves /= moves.sum()
    density, total = np.ones(len(levels)), 0.0
    for t, value in enumerate(y):
        if t > 0:
            density = np.convolve(density, moves)[width:-width]
        if not np.isnan(value):
            density = density * np.exp(log_density(value - levels, scale, nu))
            mass = density.sum() * step
            total += np.log(mass)
            density /= mass
    return float(total)


def maximum(y, start, nu=None):
    """Estimates that maximise it, its value there, and their standard errors; the third is nu if that is not given."""

    def at(x):
        return log_likelihood(y, np.exp(x[0]), np.exp(x[1]), np.exp(x[2]) if nu is None else nu)

    options = {"xatol": 1e-4, "fatol": 1e-7, "maxiter": 1000}
    found = minimize(lambda x: -at(x), np.log(start), method="Nelder-Mead", options=options)
    top, steps = found.x, 0.02 * np.eye(len(start))
    information = np.array([
        [sum(s * r * at(top + s * a + r * b) for s in (-1, 1) for r in (-1, 1)) / (-4 * 0.02**2) for b in steps]
        for a in steps
    ])  # fmt: skip
    return np.exp(top), -float(found.fun), np.exp(top) * np.sqrt(np.diag(np.linalg.inv(information)))
