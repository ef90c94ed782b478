"""Log densities and weighted sums of the common families; the states are innermost, so that they fill the lanes.

Parameters come with the state axis last. NaN in ``y`` (N, D) marks what is missing and adds nothing. A row is never
mixed with another, so its bits do not depend on the rows around it.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.kernels._jit import sums


@sums
def diagonal_density(y: Floats, mean: Floats, precision: Floats, constant: Floats, log_b: Floats) -> None:
    """Gaussian log densities ``log_b`` (N, K); ``constant`` is -log(2 pi var) / 2, like the others (D, K)."""
    N, D = y.shape
    K = mean.shape[1]
    for t in range(N):
        for k in range(K):
            log_b[t, k] = 0.0
        for d in range(D):
            value = y[t, d]
            if value == value:
                for k in range(K):
                    away = value - mean[d, k]
                    log_b[t, k] += constant[d, k] - 0.5 * precision[d, k] * (away * away)


@sums
def diagonal_sums(y: Floats, mean: Floats, gamma: Floats, weight: Floats, first: Floats, second: Floats) -> None:
    """Add the weights and the first and second moments around ``mean``, each (D, K), of weights ``gamma`` (N, K)."""
    N, D = y.shape
    K = mean.shape[1]
    for t in range(N):
        for d in range(D):
            value = y[t, d]
            if value == value:
                for k in range(K):
                    away = value - mean[d, k]
                    share = gamma[t, k] * away
                    weight[d, k] += gamma[t, k]
                    first[d, k] += share
                    second[d, k] += share * away


@sums
def full_density(y: Floats, mean: Floats, factor: Floats, constant: Floats, log_b: Floats) -> None:
    """Gaussian log densities (N, K) of whole rows by forward substitution.

    ``factor`` (D, D, K) is the Cholesky factor of the covariance with its diagonal inverted, ``constant`` (K,) is
    -log det(2 pi cov) / 2.
    """
    N, D = y.shape
    K = mean.shape[1]
    solved = np.empty((D, K))
    for t in range(N):
        for k in range(K):
            log_b[t, k] = constant[k]
        for i in range(D):
            for k in range(K):
                solved[i, k] = y[t, i] - mean[i, k]
            for j in range(i):
                for k in range(K):
                    solved[i, k] -= factor[i, j, k] * solved[j, k]
            for k in range(K):
                rest = solved[i, k] * factor[i, i, k]
                solved[i, k] = rest
                log_b[t, k] -= 0.5 * (rest * rest)


@sums
def full_sums(y: Floats, mean: Floats, gamma: Floats, weight: Floats, first: Floats, second: Floats) -> None:
    """Add weights (K,), first (D, K) and second moments (D, D, K), these below the diagonal only, around ``mean``."""
    N, D = y.shape
    K = mean.shape[1]
    away = np.empty((D, K))
    for t in range(N):
        for k in range(K):
            weight[k] += gamma[t, k]
        for i in range(D):
            for k in range(K):
                away[i, k] = y[t, i] - mean[i, k]
                first[i, k] += gamma[t, k] * away[i, k]
            for j in range(i + 1):
                for k in range(K):
                    second[i, j, k] += gamma[t, k] * away[i, k] * away[j, k]


@sums
def poisson_density(y: Floats, log_factorial: Floats, rate: Floats, log_rate: Floats, log_b: Floats) -> None:
    """Log probabilities of counts (N, K), given the logs of their factorials (N, D) and rates (D, K)."""
    N, D = y.shape
    K = rate.shape[1]
    for t in range(N):
        for k in range(K):
            log_b[t, k] = 0.0
        for d in range(D):
            value = y[t, d]
            if value > 0.0:  # 0 log 0 is 0
                for k in range(K):
                    log_b[t, k] += value * log_rate[d, k] - rate[d, k] - log_factorial[t, d]
            elif value == 0.0:
                for k in range(K):
                    log_b[t, k] -= rate[d, k]


@sums
def poisson_sums(y: Floats, gamma: Floats, total: Floats, exposure: Floats) -> None:
    """Add the weighted counts and the weights of those seen, each (D, K)."""
    N, D = y.shape
    K = total.shape[1]
    for t in range(N):
        for d in range(D):
            value = y[t, d]
            if value == value:
                for k in range(K):
                    total[d, k] += gamma[t, k] * value
                    exposure[d, k] += gamma[t, k]


@sums
def categorical_density(y: Floats, log_prob: Floats, log_b: Floats) -> None:
    """Log probabilities (N, K) of codes, from their table (D, M, K)."""
    N, D = y.shape
    K = log_prob.shape[2]
    for t in range(N):
        for k in range(K):
            log_b[t, k] = 0.0
        for d in range(D):
            if y[t, d] == y[t, d]:
                code = int(y[t, d])
                for k in range(K):
                    log_b[t, k] += log_prob[d, code, k]


@sums
def categorical_sums(y: Floats, gamma: Floats, counts: Floats) -> None:
    """Add the weights of the codes seen (D, M, K)."""
    N, D = y.shape
    K = counts.shape[2]
    for t in range(N):
        for d in range(D):
            if y[t, d] == y[t, d]:
                code = int(y[t, d])
                for k in range(K):
                    counts[d, code, k] += gamma[t, k]
