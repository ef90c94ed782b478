"""Recursions of a finite Markov chain with observed likelihoods (Rabiner 1989; Murphy 2012, ch. 17).

They run over a block of rows and hand on what the next block needs, so that memory does not grow with the series.
Rows of several sequences stand end to end; ``first[t]`` marks the first row of each. ``A`` has one matrix when it
is constant, else one a row: ``A[t]`` leads from row t to row t + 1. ``into`` holds their transposes, ``into[t]``
leading into row t, so that both directions read memory in order. ``b[t, k]`` is p(y[t] | k) up to a factor of the
row, so that its largest entry is 1.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import jit, part, sums

LOST = 1e-200  # weight below which a state that can be reached may drop out of double precision
UNDERFLOW = -690.0  # log of b: not impossible, but less than exp can represent with all its digits
TOGETHER = 64  # rows whose pairs are added at a time
SMALL, LARGE = 2.0**-100, 2.0**100  # weights are rescaled by powers of two, which changes no digit


@jit
def any_below(A: Floats, bound: float) -> bool:
    """Whether any entry of ``A`` (N, K, K) is less than ``bound``."""
    found = False
    for t in range(A.shape[0]):
        for i in range(A.shape[1]):
            for j in range(A.shape[2]):
                found |= A[t, i, j] < bound
    return found


@sums
def relative(log_b: Floats, floor: bool, b: Floats, top: Floats) -> None:
    """Fill ``top`` with the largest entry of each row and ``b`` with the distances to it, which exp turns into b.

    With ``floor`` what is possible stays above `UNDERFLOW`. A row with NaN, or of nothing but -inf, gets -inf.
    """
    N, K = log_b.shape
    for t in range(N):
        best = -np.inf
        strange = False
        for k in range(K):
            best = max(best, log_b[t, k])
            strange |= log_b[t, k] != log_b[t, k]
        if strange:
            best = -np.inf
        top[t] = best
        for k in range(K):
            away = log_b[t, k] - best
            if floor and away < UNDERFLOW and log_b[t, k] > -np.inf:
                away = UNDERFLOW
            b[t, k] = away if best > -np.inf else -np.inf


@sums
def forward(
    b: Floats, pi: Floats, into: Floats, first: Bools, sparse: bool, carry: Floats, alpha: Floats, scale: Floats
) -> int:
    """Fill ``alpha[t, k]``, in proportion to p(k | y_1..t), and ``scale[t]`` = p(y[t] | y_1..t-1); count rows lost.

    ``carry`` (K,) is p(k | rows before the block) and becomes that after it. A row is lost (its scale NaN) when a
    state that can be reached no longer fits into a double although a later row may need it; with ``sparse`` False
    (no tiny transition) only a vanishing total can do that.
    """
    N, K = b.shape
    varies = int(into.shape[0] > 1)
    before, lost = 1.0, 0
    for t in range(N):
        total, drop = 0.0, False
        if first[t]:
            before = 1.0
        for j in range(K):
            p = 0.0
            if first[t]:
                p = pi[j]
            else:
                for i in range(K):
                    p += carry[i] * into[t * varies, j, i]
            weight = p * b[t, j]
            alpha[t, j] = weight
            total += weight
            drop |= sparse and p > 0.0 and b[t, j] > 0.0 and weight < LOST * before
        if drop or not total > LOST * before:
            lost += 1
            scale[t] = np.nan
        else:
            scale[t] = total / before
        if not total > 0.0:
            total = float(K)
            for j in range(K):
                alpha[t, j] = 1.0
        while total < SMALL:
            total *= LARGE
            for j in range(K):
                alpha[t, j] *= LARGE
        before = total
        for j in range(K):
            carry[j] = alpha[t, j]
    for j in range(K):
        carry[j] /= before
    return lost


@jit
def add_logs(scale: Floats, top: Floats, first: Bools, sequence: int, log_likelihood: Floats) -> None:
    """Add log ``scale`` + ``top`` of a block to its sequences; ``sequence`` is the one before its first new one.

    Logarithms of products, since a logarithm costs as much as a row of the recursion.
    """
    product, total = 1.0, 0.0
    for t in range(scale.shape[0]):
        if first[t]:
            if t > 0:
                log_likelihood[sequence] += total + np.log(product)
            product, total = 1.0, 0.0
            sequence += 1
        if product < SMALL:
            total += np.log(product)
            product = 1.0
        product *= scale[t]
        total += top[t]
    log_likelihood[sequence] += total + np.log(product)


@sums
def messages(b: Floats, A: Floats, first: Bools, ends: bool, carry: Floats) -> None:
    """Lead ``carry``, see `backward`, through a block without its alpha; for chains without tiny transitions."""
    N, K = b.shape
    varies = int(A.shape[0] > 1)
    beta = np.ones(K)
    for t in range(N - 1, -1, -1):
        if ends if t == N - 1 else first[t + 1]:
            for i in range(K):
                beta[i] = 1.0
        else:
            for i in range(K):
                s = 0.0
                for j in range(K):
                    s += A[t * varies, i, j] * carry[j]
                beta[i] = s
        size = 0.0
        for i in range(K):
            carry[i] = b[t, i] * beta[i]
            size += carry[i]
        if size < SMALL:
            for i in range(K):
                carry[i] /= size


@sums
def add_pairs(shares: Floats, nexts: Floats, n_rows: int, outer: Floats) -> None:
    """Add the outer products of the columns of ``shares`` and ``nexts`` (K, at least n_rows) to ``outer`` (K, K).

    Along the rows this fills the vectors of the processor, which a matrix of few states a row at a time does not.
    """
    K = outer.shape[0]
    for i in range(K):
        for j in range(K):
            total = 0.0
            for t in range(n_rows):
                total += shares[i, t] * nexts[j, t]
            outer[i, j] += total


@sums
def backward(
    b: Floats,
    A: Floats,
    first: Bools,
    ends: bool,
    alpha: Floats,
    carry: Floats,
    gamma: Floats,
    xi: Floats,
    xi_sum: Floats,
    firsts: Floats,
) -> None:
    """Fill ``gamma``; add the pairs that start in the block into ``xi_sum`` and its first rows into ``firsts``.

    ``carry`` (K,) is p(rows after the block | k next), up to a factor, and becomes that of the block before;
    ``ends`` says that no row of the sequence follows. ``xi`` (N, K, K) receives every pair, or has no rows.
    gamma = alpha * beta, Rabiner 1989, eq. 27 and 37.
    """
    N, K = b.shape
    varies = int(A.shape[0] > 1)
    keep = xi.shape[0] > 0
    beta = np.ones(K)
    outer, pairs = np.zeros((K, K)), np.zeros((K, K))  # without A where it is constant, and with it
    shares, nexts, waiting = np.empty((K, TOGETHER)), np.empty((K, TOGETHER)), np.int64(0)
    for t in range(N - 1, -1, -1):
        last = ends if t == N - 1 else first[t + 1]
        norm = 0.0
        for i in range(K):
            s = 1.0
            if not last:
                s = 0.0
                for j in range(K):
                    s += A[t * varies, i, j] * carry[j]
            beta[i] = s
            gamma[t, i] = alpha[t, i] * s
            norm += gamma[t, i]
        norm = 1.0 / norm
        if not last and (varies or keep):
            for i in range(K):
                share = alpha[t, i] * norm
                for j in range(K):
                    pair = share * A[t * varies, i, j] * carry[j]
                    pairs[i, j] += pair
                    if keep:
                        xi[t, i, j] = pair
        elif not last:
            for i in range(K):
                shares[i, waiting] = alpha[t, i] * norm
                nexts[i, waiting] = carry[i]
            waiting += 1
            if waiting == TOGETHER:
                add_pairs(shares, nexts, waiting, outer)
                waiting = np.int64(0)  # of one type, or `add_pairs` would be compiled twice
        size = 0.0
        for i in range(K):
            gamma[t, i] *= norm
            # a state that cannot be reached tells nothing, and its message could overflow
            carry[i] = b[t, i] * beta[i] if alpha[t, i] > 0.0 else 0.0
            size += carry[i]
        if first[t]:
            for i in range(K):
                firsts[i] += gamma[t, i]
        if size < SMALL or size > LARGE:
            for i in range(K):
                carry[i] /= size
    add_pairs(shares, nexts, waiting, outer)
    for i in range(K):
        for j in range(K):
            xi_sum[i, j] += pairs[i, j] + A[0, i, j] * outer[i, j]


@jit
def predict(filtered: Floats, pi: Floats, into: Floats, first: Bools, carry: Floats, predicted: Floats) -> None:
    """Fill ``predicted[t, j]`` = p(j | y_1..t-1); ``carry`` is the filtered row before the block."""
    N, K = filtered.shape
    varies = int(into.shape[0] > 1)
    for t in range(N):
        for j in range(K):
            if first[t]:
                predicted[t, j] = pi[j]
            else:
                p = 0.0
                for i in range(K):
                    p += carry[i] * into[t * varies, j, i]
                predicted[t, j] = p
        for j in range(K):
            carry[j] = filtered[t, j]


@part
def _logsumexp(x: Floats) -> float:
    top = x[0]
    for i in range(1, x.shape[0]):
        top = max(top, x[i])
    if top == -np.inf:
        return -np.inf
    total = 0.0
    for i in range(x.shape[0]):
        total += np.exp(x[i] - top)
    return top + np.log(total)


@jit
def forward_log(
    log_b: Floats,
    log_pi: Floats,
    log_into: Floats,
    first: Bools,
    carry: Floats,
    log_alpha: Floats,
    log_predicted: Floats,
    log_scale: Floats,
) -> int:
    """`forward` in log space, where nothing is lost; return the first impossible row, or -1."""
    N, K = log_b.shape
    varies = int(log_into.shape[0] > 1)
    term = np.empty(K)
    for t in range(N):
        for j in range(K):
            if first[t]:
                log_predicted[t, j] = log_pi[j]
            else:
                for i in range(K):
                    term[i] = carry[i] + log_into[t * varies, j, i]
                log_predicted[t, j] = _logsumexp(term)
            log_alpha[t, j] = log_predicted[t, j] + log_b[t, j]
        log_scale[t] = _logsumexp(log_alpha[t])
        if not log_scale[t] > -np.inf:
            return t
        for j in range(K):
            log_alpha[t, j] -= log_scale[t]
            carry[j] = log_alpha[t, j]
    return -1


@jit
def backward_log(
    log_b: Floats,
    log_A: Floats,
    first: Bools,
    ends: bool,
    log_alpha: Floats,
    log_scale: Floats,
    carry: Floats,
    gamma: Floats,
    xi: Floats,
    xi_sum: Floats,
    firsts: Floats,
) -> None:
    """`backward` in log space; ``carry`` is the log of that of `backward`, over the scale of its row."""
    N, K = log_b.shape
    varies = int(log_A.shape[0] > 1)
    log_beta = np.empty(K)
    term = np.empty(K)
    for t in range(N - 1, -1, -1):
        if ends if t == N - 1 else first[t + 1]:
            log_beta[:] = 0.0
        else:
            for i in range(K):
                for j in range(K):
                    term[j] = log_A[t * varies, i, j] + carry[j]
                    pair = np.exp(log_alpha[t, i] + term[j])
                    xi_sum[i, j] += pair
                    if xi.shape[0] > 0:
                        xi[t, i, j] = pair
                log_beta[i] = _logsumexp(term)
        for i in range(K):
            gamma[t, i] = np.exp(log_alpha[t, i] + log_beta[i])
            carry[i] = log_b[t, i] + log_beta[i] - log_scale[t]
            if first[t]:
                firsts[i] += gamma[t, i]


@jit
def draw(pi: Floats, A: Floats, uniform: Floats, path: Ints) -> None:
    """Draw one ``path`` (N,) by inverting the cumulative probabilities at ``uniform`` (N,) in [0, 1)."""
    N = path.shape[0]
    K = pi.shape[0]
    varies = int(A.shape[0] > 1)
    for t in range(N):
        row = pi if t == 0 else A[(t - 1) * varies, path[t - 1]]
        total = 0.0
        chosen = -1
        for k in range(K):
            if row[k] > 0.0:
                chosen = k
                total += row[k]
                if uniform[t] < total:
                    break
        path[t] = chosen
