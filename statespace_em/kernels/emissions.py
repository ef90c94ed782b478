"""Log densities and weighted sums of the common families.

Parameters come with the state axis last, log densities and weights of rows state by state (K, N): the innermost loops
run along columns of rows, which fills the vectors of the processor however few states there are. NaN in ``y`` (N, D)
marks what is missing and adds nothing. A row is never mixed with another, so its bits do not depend on the rows around
it.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.kernels._jit import part, sums

LOG_2_PI = float(np.log(2.0 * np.pi))


@part
def _columns(y: Floats) -> Floats:
    """Copy ``y`` (N, D) into columns (D, N), which vectors are fetched from several times as fast."""
    N, D = y.shape
    columns = np.empty((D, N))
    for d in range(D):
        for t in range(N):
            columns[d, t] = y[t, d]
    return columns


@sums
def diagonal_density(y: Floats, mean: Floats, var: Floats, log_b: Floats) -> None:
    """Gaussian log densities ``log_b`` (K, N) under means and variances (D, K)."""
    N, D = y.shape
    K = mean.shape[1]
    columns = _columns(y)
    for k in range(K):
        for d in range(D):
            centre, half, top = mean[d, k], 0.5 * (1.0 / var[d, k]), -0.5 * (np.log(var[d, k]) + LOG_2_PI)
            for t in range(N):
                away = columns[d, t] - centre
                part = top - half * (away * away)
                if columns[d, t] != columns[d, t]:
                    part = 0.0
                log_b[k, t] = part if d == 0 else log_b[k, t] + part


@sums
def diagonal_sums(y: Floats, mean: Floats, gamma: Floats, weight: Floats, first: Floats, second: Floats) -> None:
    """Add the weights and the first and second moments around ``mean``, each (D, K), of weights ``gamma`` (K, N)."""
    N, D = y.shape
    K = mean.shape[1]
    columns = _columns(y)
    for k in range(K):
        for d in range(D):
            centre = mean[d, k]
            total, moment, square = 0.0, 0.0, 0.0
            for t in range(N):
                away = columns[d, t] - centre
                share = gamma[k, t]
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
    """Gaussian log densities (K, N) of whole rows by forward substitution.

    ``factor`` (D, D, K) is the Cholesky factor of the covariance with its diagonal inverted, ``constant`` (K,) is
    -log det(2 pi cov) / 2.
    """
    N, D = y.shape
    K = mean.shape[1]
    columns, solved = _columns(y), np.empty((D, N))
    for k in range(K):
        for t in range(N):
            log_b[k, t] = constant[k]
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
                log_b[k, t] -= 0.5 * (rest * rest)


@sums
def full_sums(y: Floats, mean: Floats, gamma: Floats, weight: Floats, first: Floats, second: Floats) -> None:
    """Add weights (K,), first (D, K) and second moments (D, D, K), these below the diagonal only, around ``mean``."""
    N, D = y.shape
    K = mean.shape[1]
    columns, away, part = _columns(y), np.empty((D, N)), np.empty(N)
    for k in range(K):
        total = 0.0
        for t in range(N):
            total += gamma[k, t]
        weight[k] += total
        for i in range(D):
            total = 0.0
            for t in range(N):
                away[i, t] = columns[i, t] - mean[i, k]
                part[t] = gamma[k, t] * away[i, t]
                total += part[t]
            first[i, k] += total
            for j in range(i + 1):
                total = 0.0
                for t in range(N):
                    total += part[t] * away[j, t]
                second[i, j, k] += total


@sums
def poisson_density(y: Floats, log_factorial: Floats, rate: Floats, log_rate: Floats, log_b: Floats) -> None:
    """Log probabilities of counts (K, N), given a table of the logs of factorials that reaches up to them."""
    N, D = y.shape
    K = rate.shape[1]
    columns, taken = _columns(y), np.empty((D, N))
    for d in range(D):
        for t in range(N):
            taken[d, t] = log_factorial[int(columns[d, t])] if columns[d, t] == columns[d, t] else 0.0
    for k in range(K):
        for d in range(D):
            expected, log_expected = rate[d, k], log_rate[d, k]
            for t in range(N):
                part = columns[d, t] * log_expected - expected - taken[d, t]
                if columns[d, t] == 0.0:  # 0 log 0 is 0
                    part = -expected
                if columns[d, t] != columns[d, t]:
                    part = 0.0
                log_b[k, t] = part if d == 0 else log_b[k, t] + part


@sums
def poisson_sums(y: Floats, gamma: Floats, total: Floats, exposure: Floats) -> None:
    """Add the weighted counts and the weights of those seen, each (D, K); ``gamma`` (K, N)."""
    N, D = y.shape
    K = total.shape[1]
    columns = _columns(y)
    for k in range(K):
        for d in range(D):
            counts, weight = 0.0, 0.0
            for t in range(N):
                count, share = columns[d, t], gamma[k, t]
                if columns[d, t] != columns[d, t]:
                    count, share = 0.0, 0.0
                counts += share * count
                weight += share
            total[d, k] += counts
            exposure[d, k] += weight


@part
def _codes(y: Floats, n_symbols: int) -> Ints:
    """Codes by channel (D, N), ``n_symbols`` where one is missing."""
    N, D = y.shape
    codes = np.empty((D, N), np.int64)
    for d in range(D):
        for t in range(N):
            codes[d, t] = int(y[t, d]) if y[t, d] == y[t, d] else n_symbols
    return codes


@sums
def categorical_density(y: Floats, log_prob: Floats, log_b: Floats) -> None:
    """Log probabilities (K, N) of codes, from their table (K, D, M + 1) that ends with 0 for what is missing."""
    K, D, M = log_prob.shape
    codes = _codes(y, M - 1)
    for k in range(K):
        for d in range(D):
            for t in range(y.shape[0]):
                part = log_prob[k, d, codes[d, t]]
                log_b[k, t] = part if d == 0 else log_b[k, t] + part


@sums
def categorical_sums(y: Floats, gamma: Floats, counts: Floats) -> None:
    """Add the weights ``gamma`` (K, N) of the codes (D, M + 1, K), the last of them receiving what is missing."""
    D, M, K = counts.shape
    codes = _codes(y, M - 1)
    for d in range(D):
        for t in range(y.shape[0]):
            code = codes[d, t]
            for k in range(K):  # innermost: equal codes in a row must not wait for each other
                counts[d, code, k] += gamma[k, t]
