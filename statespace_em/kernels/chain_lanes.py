"""The recursions of `chain` for constant chains, in `LANES` places of a block at a time; for Python in `chain_through`.

A block of N rows is cut into stretches of L rows, and all are gone through side by side, see `stretches`: row
``lane * L + t`` is at ``[t, :, lane]``. Rows that fill up the last stretch are sequences of their own. Weights are
kept near 1 by powers of two, which change no digit.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.kernels._jit import bare, inlined, part
from statespace_em.kernels._lanes import (
    LANES,
    anywhere,
    below,
    every,
    everywhere,
    exp,
    exponent,
    flags,
    fma,
    gather,
    larger,
    load,
    scatter,
    store,
    to_one,
    where,
)
from statespace_em.kernels.chain import LOST, UNDERFLOW
from statespace_em.kernels.stretches import recur

LN_2 = float(np.log(2.0))
AGREED = 1e-60  # least weight of a row's states in the rows after it: what doubles lose of them is 1e-100 and less
# directions of `recur`; True and False where it is called would have it compiled twice
ONWARDS, BACK = np.bool_(True), np.bool_(False)


@bare
def mark(first: Bools, ends: bool, starts: Bools, stops: Bools) -> None:
    """Mark the first and the last rows of sequences, each (L, LANES); ``ends`` says that the last row is one."""
    N, L = first.shape[0], starts.shape[0]
    starts[:] = False
    stops[:] = False
    for row in range(L * LANES):
        if row >= N or first[row]:
            starts[row % L, row // L] = True
            if row > 0 and (row != N or ends):
                stops[(row - 1) % L, (row - 1) // L] = True
    stops[L - 1, LANES - 1] = ends or N < L * LANES


@bare
def likelihoods(log_b: Floats, floor: float, b: Floats, top: Floats) -> None:
    """Turn ``log_b`` (K, rows) into ``b`` (L, K, LANES), over the largest of the row, its log ``top`` (L, 1, LANES).

    What is possible stays above exp of ``floor``. A row with NaN, or of nothing but -inf, becomes NaN.
    """
    L, K, _ = b.shape
    for t in range(L):
        best, total = every(-np.inf), every(0.0)
        for k in range(K):
            value = gather(log_b, k, t, L)
            store(b, t, k, value)
            best, total = larger(best, value), total + value
        store(top, t, 0, best)
        strange = where(below(total, np.inf), best - best, np.nan)  # else 0
        for k in range(K):
            value = load(b, t, k)
            value = where(below(-np.inf, value), exp(larger(value - best, floor)), 0.0)
            store(b, t, k, value + strange)


@part
def posterior(alpha: Floats, blind: Floats, messages: Floats, stops: Bools, gamma: Floats, outer: Floats) -> bool:
    """Fill ``gamma`` (K, rows), and ``outer`` (K, K) with the sums of the pairs over their transitions.

    ``blind`` (L, K, LANES) and ``messages`` (L + 1, K, LANES) come from `recur` backwards; they are worked in. Returns
    whether the rows after each row agree with those up to it so far that no state dropped from these can matter.
    """
    L, K, _ = blind.shape
    agreed = True
    for t in range(L):
        stopping = flags(stops, t)
        seen, told = every(0.0), every(0.0)
        for k in range(K):
            seen, told = seen + load(alpha, t + 1, k), told + load(messages, t + 1, k)
        down, up = to_one(seen), where(stopping, 1.0, to_one(told))  # or products of very unlikely rows would vanish
        total = every(0.0)
        for k in range(K):
            total = fma(load(alpha, t + 1, k) * down, load(blind, t, k) * up, total)
        agreed &= everywhere(below(AGREED, total))
        norm = 1.0 / total
        for k in range(K):
            share = load(alpha, t + 1, k) * down * norm
            scatter(gamma, k, t, L, share * (load(blind, t, k) * up))
            store(blind, t, k, share)
            store(messages, t + 1, k, where(stopping, 0.0, load(messages, t + 1, k) * up))
    place = np.empty((1, 8, LANES))
    for i in range(0, K, 2):
        for j in range(0, K, 4):
            add_tile(blind, messages, i, j, place, outer)
    return agreed


@inlined
def add_tile(shares, messages, i, j, place, outer):  # type: ignore[no-untyped-def]
    """Fill two rows from i and four columns from j on of ``outer``, the last of them again where there are fewer.

    ``place`` (1, 8, LANES) is for its own use.
    """
    top = outer.shape[0] - 1
    i_next, j_next, j_third, j_last = min(i + 1, top), min(j + 1, top), min(j + 2, top), min(j + 3, top)
    a, b, c, d = every(0.0), every(0.0), every(0.0), every(0.0)
    e, f, g, h = every(0.0), every(0.0), every(0.0), every(0.0)
    for t in range(shares.shape[0]):
        one, other = load(shares, t, i), load(shares, t, i_next)
        message = load(messages, t + 1, j)
        a, e = fma(one, message, a), fma(other, message, e)
        message = load(messages, t + 1, j_next)
        b, f = fma(one, message, b), fma(other, message, f)
        message = load(messages, t + 1, j_third)
        c, g = fma(one, message, c), fma(other, message, g)
        message = load(messages, t + 1, j_last)
        d, h = fma(one, message, d), fma(other, message, h)
    store(place, 0, 0, a)
    store(place, 0, 1, b)
    store(place, 0, 2, c)
    store(place, 0, 3, d)
    store(place, 0, 4, e)
    store(place, 0, 5, f)
    store(place, 0, 6, g)
    store(place, 0, 7, h)
    for n in range(8):
        total = 0.0
        for lane in range(LANES):
            total += place[0, n, lane]
        outer[min(i + n // 4, top), min(j + n % 4, top)] = total


@part
def add_logs(
    scale: Floats, top: Floats, starts: Bools, n_rows: int, sequence: int, log_likelihood: Floats
) -> None:  # fmt: skip
    """Add log ``scale`` + ``top`` (L, 1, LANES) of a block to its sequences; ``sequence`` is that before its first new.

    Logarithms of products, since a logarithm costs more than a row of the recursion.
    """
    L = scale.shape[0]
    whole, product, power = np.zeros((1, 1, LANES)), np.ones((1, 1, LANES)), np.zeros((1, 1, LANES))
    owner = np.zeros(LANES + 1, np.int64)  # the sequence that each lane is in
    for t in range(L):
        for lane in range(LANES):
            owner[lane + 1] += starts[t, lane]
    owner[0] = sequence
    for lane in range(LANES):
        owner[lane + 1] += owner[lane]
    for t in range(L + 1):
        if t == L or anywhere(flags(starts, t)):
            for lane in range(LANES):
                row = lane * L + t
                if (t == L or starts[t, lane]) and row > 0:
                    if row <= n_rows:
                        total = whole[0, 0, lane] + LN_2 * power[0, 0, lane] + np.log(product[0, 0, lane])
                        log_likelihood[owner[lane]] += total
                    whole[0, 0, lane], power[0, 0, lane], product[0, 0, lane] = 0.0, 0.0, 1.0
                owner[lane] += t < L and starts[t, lane]
        if t < L:
            ratio = load(product, 0, 0) * load(scale, t, 0)
            factor = to_one(ratio)
            store(product, 0, 0, ratio * factor)
            store(power, 0, 0, load(power, 0, 0) - exponent(factor))
            store(whole, 0, 0, load(whole, 0, 0) + load(top, t, 0))


@bare
def represented(scale: Floats) -> bool:
    """Whether no row is lost, see `chain.forward`."""
    fine = True
    for t in range(scale.shape[0]):
        fine &= everywhere(below(LOST, load(scale, t, 0)))
    return fine


@bare
def drop(b: Floats, alpha: Floats, blind: Floats, scale: Floats) -> None:
    """Set ``scale`` to NaN where a state that can be reached drops out of double precision, see `chain.forward`."""
    L, K, _ = b.shape
    for t in range(L):
        total = every(0.0)
        for k in range(K):
            total = total + load(alpha, t + 1, k)
        before = total / load(scale, t, 0)
        for k in range(K):
            possible = where(below(0.0, load(blind, t, k)), load(b, t, k), 0.0)
            dropped = where(below(0.0, possible), LOST * before - load(alpha, t + 1, k), 0.0)
            store(scale, t, 0, where(below(0.0, dropped), np.nan, load(scale, t, 0)))


@part
def forward(
    log_b: Floats, first: Bools, ends: bool, pi: Floats, A: Floats, sparse: bool, strict: bool, carry: Floats,
    b: Floats, top: Floats, starts: Bools, stops: Bools, alpha: Floats, scale: Floats,
) -> bool:  # fmt: skip
    """Forward pass over a block; returns whether no row is lost.

    In a sparse chain a row is lost, if ``strict``, where a state drops out of double precision; else `backward` tells
    whether that mattered.

    ``log_b`` (K, rows) is filled up with zeros to LANES stretches, ``first`` (N,) marks first rows, ``ends`` whether
    a sequence ends with the block; ``carry`` (K,) is moved on. The rest is filled for `backward` and `add_logs`.
    """
    mark(first, ends, starts, stops)
    likelihoods(log_b, UNDERFLOW if sparse else -np.inf, b, top)
    drops = sparse and strict
    blind = np.empty((b.shape[0] if drops else 0, b.shape[1], LANES))
    recur(b, np.ascontiguousarray(A.T), pi, starts, ONWARDS, sparse, carry, alpha, blind, scale)
    if drops:
        drop(b, alpha, blind, scale)
    return represented(scale)


@part
def messages(log_b: Floats, first: Bools, ends: bool, A: Floats, carry: Floats) -> None:
    """Lead ``carry``, see `backward`, through a block without its forward pass; not for sparse chains."""
    K, L = log_b.shape[0], log_b.shape[1] // LANES
    starts, stops = np.empty((L, LANES), np.bool_), np.empty((L, LANES), np.bool_)
    b, top, none = np.empty((L, K, LANES)), np.empty((L, 1, LANES)), np.empty((0, 1, LANES))
    mark(first, ends, starts, stops)
    likelihoods(log_b, -np.inf, b, top)
    recur(b, A, np.ones(K), stops, BACK, np.bool_(False), carry, np.empty((L + 1, K, LANES)), none, none)


@part
def backward(
    b: Floats, A: Floats, first: Bools, stops: Bools, sparse: bool, strict: bool, alpha: Floats, carry: Floats,
    gamma: Floats, xi_sum: Floats, firsts: Floats,
) -> bool:  # fmt: skip
    """Fill ``gamma`` (K, rows); add the pairs that start in the block to ``xi_sum`` (K, K), its firsts to ``firsts``.

    ``carry`` (K,) is p(rows after the block | k next), up to a factor, and becomes that of the block before. gamma =
    alpha * beta, Rabiner 1989, eq. 27 and 37. In a sparse chain ``b`` is worked in if ``strict``; else returns whether
    no state that `forward` may have dropped matters: had one, the rows after it would tell of it and of little else.
    """
    L, K, _ = b.shape
    if sparse and strict:  # a state that cannot be reached tells nothing, and its message could overflow
        for t in range(L):
            for k in range(K):
                store(b, t, k, where(below(0.0, load(alpha, t + 1, k)), load(b, t, k), 0.0))
    x, blind, outer = np.empty((L + 1, K, LANES)), np.empty((L, K, LANES)), np.empty((K, K))
    recur(b, A, np.ones(K), stops, BACK, sparse, carry, x, blind, np.empty((0, 1, LANES)))
    agreed = posterior(alpha, blind, x, stops, gamma, outer)
    for i in range(K):
        for j in range(K):
            xi_sum[i, j] += A[i, j] * outer[i, j]
    for t in range(first.shape[0]):
        if first[t]:
            for k in range(K):
                firsts[k] += gamma[k, t]
    return agreed or strict or not sparse
