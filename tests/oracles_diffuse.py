"""Dense oracle of unknown starts: generalised least squares on one joint Gaussian of all states and all y."""

from __future__ import annotations

import numpy as np
from oracles_gaussian import Parameters, joint


def split(y, p: Parameters, unknown):
    """Mean and covariance of states and y with the unknown first states at 0, and the response of both to these."""
    T = len(y)
    off = np.where(unknown, 0.0, 1.0)
    base = p._replace(m0=p.m0 * off, P0=p.P0 * np.outer(off, off))
    mean, cov = joint(base, T)
    response = np.stack([joint(base._replace(m0=base.m0 + e), T)[0] - mean for e in np.eye(p.m0.size)[unknown]], 1)
    return mean, cov, response


def diffuse(y, p: Parameters, unknown):
    """Log-likelihoods by convention, the estimate of the unknown states, and the posterior of all states.

    Posterior: mean (T, n) and covariance (T n, T n).
    """
    T, n = len(y), p.m0.size
    mean, cov, response = split(y, p, unknown)
    seen = T * n + np.flatnonzero(~np.isnan(y))
    S, X, r = cov[np.ix_(seen, seen)], response[seen], y[~np.isnan(y)] - mean[seen]
    q = X.shape[1]
    inverse = np.linalg.inv(S)
    gram = X.T @ inverse @ X
    delta = np.linalg.solve(gram, X.T @ inverse @ r)
    e = r - X @ delta
    core = -0.5 * (np.linalg.slogdet(S)[1] + e @ inverse @ e)
    log_2pi = np.log(2 * np.pi)
    main = core - 0.5 * (len(r) - q) * log_2pi - 0.5 * np.linalg.slogdet(gram)[1]
    values = {
        "diffuse": main,
        "full": main - 0.5 * q * log_2pi,
        "marginal": main + 0.5 * np.linalg.slogdet(X.T @ X)[1],
        "fixed": core - 0.5 * len(r) * log_2pi,
    }
    s = slice(0, T * n)
    gain = cov[s][:, seen] @ inverse
    slope = response[s] - gain @ X
    posterior_mean = mean[s] + gain @ r + slope @ delta
    posterior_cov = cov[s, s] - gain @ cov[seen][:, s] + slope @ np.linalg.solve(gram, slope.T)
    return values, delta, posterior_mean.reshape(T, n), posterior_cov
