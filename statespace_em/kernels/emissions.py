"""Log densities and weighted sums of the common families.

Parameters come with the state axis last. NaN in ``y`` (N, D) marks what is missing and adds nothing. A row is never
mixed with another, so its bits do not depend on the rows around it. The innermost loops run along columns of rows,
which fills the vectors of the processor however few states there are.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.kernels._jit import jit, sums


@jit
def _columns(y: Floats) -> Floats:
    """Copy ``y`` (N, D) into columns (D, N), which vectors are fetched from several times as fast."""
    N, D = y.shape
    columns = np.empty((D, N))
    for d in range(D):
        for t in range(N):
            columns[d, t] = y[t, d]
    return columns


@sums
def diagonal_density(y: Floats, mean: Floats, precision: Floats, constant: Floats, log_b: Floats) -> None:
    """Gaussian log densities ``log_b`` (N, K); ``constant`` is -log(2 pi var) / 2, like the others (D, K)."""
    N, D = y.shape
    K = mean.shape[1]
    columns, total = _columns(y), np.empty(N)
    for k in range(K):
        for d in range(D):
            centre, half, top = mean[d, k], 0.5 * precision[d, k], constant[d, k]
            for t in range(N):
                away = columns[d, t] - centre
                part = top - half * (away * away)
                if columns[d, t] != columns[d, t]:
                    part = 0.0
                total[t] = part if d == 0 else total[t] + part
        for t in range(N):
            log_b[t, k] = total[t]


@sums
def diagonal_sums(y: Floats, mean: Floats, gamma: Floats, weight: Floats, first: Floats, second: Floats) -> None:
    """Add the weights and the first and second moments around ``mean``, each (D, K), of weights ``gamma`` (N, K)."""
    N, D = y.shape
    K = mean.shape[1]
    columns, shares = _columns(y), np.empty(N)
    for k in range(K):
        for t in range(N):
            shares[t] = gamma[t, k]
        for d in range(D):
            centre = mean[d, k]
            total, moment, square = 0.0, 0.0, 0.0
            for t in range(N):
                away = columns[d, t] - centre
                share = shares[t]
                if columns[d, t] != columns[d, t]:
                    away, share = 0.0, 0.0
                total += share
                moment += share * away
                square += share * away * away
            weight[d, k] += total
            first[d, k] += moment
            second[d, k] += square


@sums
def full_density(y: Floats, mean: Floats, factor: Floats, constant: Floats, log_b: Floats) -> None:
    """Gaussian log densities (N, K) of whole rows by forward substitution.

    ``factor`` (D, D, K) is the Cholesky factor of the covariance with its diagonal inverted, ``constant`` (K,) is
    -log det(2 pi cov) / 2.
    """
    N, D = y.shape
    K = mean.shape[1]
    columns, solved, total = _columns(y), np.empty((D, N)), np.empty(N)
    for k in range(K):
        for t in range(N):
            total[t] = constant[k]
        for i in range(D):
            for t in range(N):
                solved[i, t] = columns[i, t] - mean[i, k]
            for j in range(i):
                part = factor[i, j, k]
                for t in range(N):
                    solved[i, t] -= part * solved[j, t]
            inverse = factor[i, i, k]
            for t in range(N):
                rest = solved[i, t] * inverse
                solved[i, t] = rest
                total[t] -= 0.5 * (rest * rest)
        for t in range(N):
            log_b[t, k] = total[t]


@sums
def full_sums(y: Floats, mean: Floats, gamma: Floats, weight: Floats, first: Floats, second: Floats) -> None:
    """Add weights (K,), first (D, K) and second moments (D, D, K), these below the diagonal only, around ``mean``."""
    N, D = y.shape
    K = mean.shape[1]
    columns, away, share = _columns(y), np.empty((D, N)), np.empty(N)
    for k in range(K):
        total = 0.0
        for t in range(N):
            share[t] = gamma[t, k]
            total += share[t]
        weight[k] += total
        for i in range(D):
            total = 0.0
            for t in range(N):
                away[i, t] = columns[i, t] - mean[i, k]
                total += share[t] * away[i, t]
            first[i, k] += total
            for j in range(i + 1):
                total = 0.0
                for t in range(N):
                    total += share[t] * away[i, t] * away[j, t]
                second[i, j, k] += total


@sums
def poisson_density(y: Floats, log_factorial: Floats, rate: Floats, log_rate: Floats, log_b: Floats) -> None:
    """Log probabilities of counts (N, K), given the logs of their factorials (N, D) and rates (D, K)."""
    N, D = y.shape
    K = rate.shape[1]
    columns, taken, total = _columns(y), _columns(log_factorial), np.empty(N)
    for k in range(K):
        for d in range(D):
            expected, log_expected = rate[d, k], log_rate[d, k]
            for t in range(N):
                part = columns[d, t] * log_expected - expected - taken[d, t]
                if columns[d, t] == 0.0:  # 0 log 0 is 0
                    part = -expected
                if columns[d, t] != columns[d, t]:
                    part = 0.0
                total[t] = part if d == 0 else total[t] + part
        for t in range(N):
            log_b[t, k] = total[t]


@sums
def poisson_sums(y: Floats, gamma: Floats, total: Floats, exposure: Floats) -> None:
    """Add the weighted counts and the weights of those seen, each (D, K)."""
    N, D = y.shape
    K = total.shape[1]
    columns, shares = _columns(y), np.empty(N)
    for k in range(K):
        for t in range(N):
            shares[t] = gamma[t, k]
        for d in range(D):
            counts, weight = 0.0, 0.0
            for t in range(N):
                count, share = columns[d, t], shares[t]
                if columns[d, t] != columns[d, t]:
                    count, share = 0.0, 0.0
                counts += share * count
                weight += share
            total[d, k] += counts
            exposure[d, k] += weight


@sums
def categorical_density(y: Floats, log_prob: Floats, log_b: Floats) -> None:
    """Log probabilities (N, K) of codes, from their table (D, M, K)."""
    N, D = y.shape
    K = log_prob.shape[2]
    for t in range(N):
        for d in range(D):
            seen = y[t, d] == y[t, d]
            code = int(y[t, d]) if seen else 0
            for k in range(K):
                part = log_prob[d, code, k] if seen else 0.0
                log_b[t, k] = part if d == 0 else log_b[t, k] + part


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
