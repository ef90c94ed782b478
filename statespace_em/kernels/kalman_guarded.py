"""The filter of a linear-Gaussian model that bears wrong rows: a gate, or Student-t noise; symbols as in kalman.py.

Columns that are judged, or weighted, together have one owner; ``owner`` (D,) numbers them from 0.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import jit, part
from statespace_em.kernels._linalg import cholesky, solve_lower, solve_upper
from statespace_em.kernels.kalman_row import kalman_step

ROUNDS = 100  # most updates of the weights of a row
SETTLED = 1e-10  # relative change of the weights at which they end


@part
def put(vector: Floats, matrix: Floats, to: Floats, onto: Floats) -> None:
    """Copy by loops: numba compiles the making of error messages for an assignment of arrays."""
    for i in range(vector.shape[0]):
        to[i] = vector[i]
        for j in range(vector.shape[0]):
            onto[i, j] = matrix[i, j]


@part
def find_own(y: Floats, owner: Ints, g: int, own: Ints) -> int:
    """Fill ``own`` with the entries of the only row of ``y`` that are seen and belong to g (to anyone if g < 0)."""
    p = 0
    for k in range(y.shape[1]):
        if not np.isnan(y[0, k]) and (g < 0 or owner[k] == g):
            own[p] = k
            p += 1
    return p


@part
def square(v: Floats, S: Floats, own: Ints, p: int, factor: Floats, inverse: Floats, x: Floats) -> float:
    """Normalised square v' inv(S) v over p entries."""
    for i in range(p):
        x[i, 0] = v[own[i]]
        for j in range(i + 1):
            factor[i, j] = S[own[i], own[j]]
    cholesky(factor, p, 0.0, inverse)
    solve_lower(factor, inverse, p, x[:, :1])
    total = 0.0
    for i in range(p):
        total += x[i, 0] * x[i, 0]
    return total


@part
def distance(second: Floats, R: Floats, own: Ints, p: int, factor: Floats, inverse: Floats, x: Floats) -> float:
    """tr(inv(R) second) over p entries."""
    for i in range(p):
        for j in range(p):
            x[i, j] = second[own[i], own[j]]
            factor[i, j] = R[own[i], own[j]]
    cholesky(factor, p, 0.0, inverse)
    solve_lower(factor, inverse, p, x[:, :p])
    solve_upper(factor, inverse, p, x[:, :p])
    total = 0.0
    for i in range(p):
        total += x[i, i]
    return total


@part
def spread(y: Floats, C: Floats, d: Floats, m: Floats, P: Floats, error: Floats, view: Floats, second: Floats) -> None:
    """Fill ``second`` with E (y - C s - d)(...)' of the entries seen under N(m, P) of s."""
    D, n = C.shape
    for i in range(D):
        error[i] = 0.0 if np.isnan(y[i]) else y[i] - d[i]
        for k in range(n):
            if not np.isnan(y[i]):
                error[i] -= C[i, k] * m[k]
            value = 0.0
            for j in range(n):
                value += C[i, j] * P[j, k]
            view[i, k] = value
    for i in range(D):
        for j in range(i + 1):
            value = error[i] * error[j]
            for k in range(n):
                value += view[i, k] * C[j, k]
            second[i, j] = value
            second[j, i] = value


@part
def leave_out(
    v: Floats, S: Floats, owner: Ints, limit: Floats, n_owners: int, own: Ints, factor: Floats,
    inverse: Floats, x: Floats, taken: Floats, outside: Bools,
) -> int:  # fmt: skip
    """Mark the entries of a row (1, D) that are outside, and take them out; return how many."""
    left = 0
    for g in range(n_owners):
        p = find_own(taken, owner, g, own)
        if p and square(v, S, own, p, factor, inverse, x) > limit[p]:
            left += p
            for i in range(p):
                taken[0, own[i]] = np.nan
                outside[own[i]] = True
    return left


@part
def reweigh(
    y: Floats, second: Floats, R: Floats, owner: Ints, nu: Floats, constant: Floats, own: Ints, factor: Floats,
    inverse: Floats, x: Floats, weights: Floats, noise: Floats,
) -> tuple[bool, float]:  # fmt: skip
    """New weights of the owners given the states, and noise with them; whether they agree, and the bound they add."""
    change, largest, bound = 0.0, 0.0, 0.0
    for g in range(len(nu)):
        p = find_own(y, owner, g, own)
        if p:
            far = distance(second, R, own, p, factor, inverse, x)
            new = (nu[g] + p) / (nu[g] + far)
            change, largest = max(change, abs(new - weights[g])), max(largest, weights[g])
            weights[g] = new
            bound += constant[g, p] + 0.5 * nu[g] * ((far - p) / (nu[g] + far) - np.log1p(far / nu[g]))
    for i in range(len(owner)):
        for j in range(len(owner)):
            noise[i, j] = R[i, j] / np.sqrt(weights[owner[i]] * weights[owner[j]])
    return change <= SETTLED * largest, bound


@jit
def guarded_filter(
    y: Floats, A: Floats, b: Floats, Q: Floats, C: Floats, d: Floats, R: Floats, mean: Floats, cov: Floats,
    owner: Ints, limit: Floats, nu: Floats, constant: Floats, predicted: Floats, predicted_cov: Floats,
    filtered: Floats, filtered_cov: Floats, innovation: Floats, innovation_cov: Floats, log_likelihood: Floats,
    nis: Floats, outside: Bools, weight: Floats,
) -> int:  # fmt: skip
    """Filter rows (N, D) of one sequence from the prediction of the first, which ``mean`` and ``cov`` are.

    They are left at the prediction of the row after the last. Entries whose normalised square is above ``limit[p]``, p
    being those of their owner in the row, are ``outside`` and left out. Where ``nu`` (G,) is a number, the noise of
    owner g is Student-t: the states and the weights of a row in turn, each given the other, until they agree;
    ``constant`` (G, D + 1) is what `log_likelihood`, then a lower bound, has for p entries whatever their distances.
    Returns the number of the first row, from 1, with an innovation covariance that is not positive definite, else 0.
    """
    N, D = y.shape
    n, G = len(mean), len(nu)
    own, taken, noise = np.empty(D, np.int64), np.empty((1, D)), np.empty((1, D, D))
    factor, inverse, x, weights = np.empty((D, D)), np.empty(D), np.empty((D, D)), np.empty(G)
    second, view, error = np.empty((D, D)), np.empty((D, n)), np.empty(D)
    found, found_cov = np.empty(D), np.empty((1, D, D))
    later, later_cov = np.empty(n), np.empty((n, n))
    heavy = not np.isnan(nu[0])
    for t in range(N):
        c, r = t * int(len(C) > 1), t * int(len(R) > 1)
        put(mean, cov, predicted[t], predicted_cov[t])
        put(y[t], R[r], taken[0], noise[0])
        for g in range(G):
            weights[g] = 1.0
        for i in range(D):
            outside[t, i], weight[t, i] = False, 1.0
        nis[t] = np.nan
        for k in range(ROUNDS):
            value, _ = kalman_step(
                t, taken, A, b, Q, C, d, noise, mean, cov, filtered, filtered_cov, found, found_cov, later, later_cov
            )
            if np.isnan(value):
                return t + 1
            if k == 0:
                put(found, found_cov[0], innovation[t], innovation_cov[t])
                p = find_own(taken, owner, -1, own)
                if p == 0:
                    break
                nis[t] = square(found, found_cov[0], own, p, factor, inverse, x)
            if heavy:
                spread(y[t], C[c], d[t * int(len(d) > 1)], filtered[t], filtered_cov[t], error, view, second)
                agree, bound = reweigh(
                    taken, second, R[r], owner, nu, constant, own, factor, inverse, x, weights, noise[0]
                )
                if agree or k == ROUNDS - 1:
                    value += bound
                    for i in range(D):
                        weight[t, i] = weights[owner[i]]
                    break
            elif k > 0 or not leave_out(
                found, found_cov[0], owner, limit, G, own, factor, inverse, x, taken, outside[t]
            ):
                break
        log_likelihood[t] = value
        put(later, later_cov, mean, cov)
    return 0
