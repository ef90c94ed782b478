"""A recursion through all stretches of a block side by side; for the arrays see `chain_lanes`.

Each stretch but the one where the recursion enters the block begins with a guess, and then again with what the stretch
before it ended with, until that makes no difference any more. A chain forgets where it began, mostly within tens of
rows. Where it does not, because it is slow and its rows say little, the true beginnings are found otherwise, and a last
pass starts from them.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.kernels._jit import bare, inlined, part, part_sums
from statespace_em.kernels._lanes import (
    LANES,
    anywhere,
    below,
    every,
    everywhere,
    exponent,
    flags,
    fma,
    load,
    size_of,
    store,
    to_one,
    where,
)
from statespace_em.kernels.chain import LARGE, SMALL

AGREED = 4e-15  # relative difference of two passes that is no more than round-off
CHECK = 8  # rows between looks whether they do
UNSEEN = 1e-100  # share of a row that no later row and no posterior can tell from 0 if no transition is tiny
GUESSED = 3  # passes from beginnings that are not known to be true; as many cost about as much as to find these
FEW = 8  # states up to which all are led through the stretches side by side faster than one weight row by row


@inlined
def advance(b, A, begin, starts, t, x, source, sums, new, target, blind, scale):  # type: ignore[no-untyped-def]
    """Fill the weights ``new[target]`` of the rows t from ``x[source]``, those of the rows before; return their sum.

    ``blind`` and ``scale`` see `recur`.
    """
    K = A.shape[0]
    starting = flags(starts, t)
    before = load(sums, source, 0)
    factor = where(starting, 1.0, to_one(before))
    keep = blind.shape[0] > 0
    total = every(0.0)
    j = 0
    while j + 4 <= K:  # four at a time: each vector fetched is used four times
        first = load(x, source, 0)
        one, two, three, four = first * A[j, 0], first * A[j + 1, 0], first * A[j + 2, 0], first * A[j + 3, 0]
        for i in range(1, K):
            value = load(x, source, i)
            one, two = fma(value, A[j, i], one), fma(value, A[j + 1, i], two)
            three, four = fma(value, A[j + 2, i], three), fma(value, A[j + 3, i], four)
        one, two = where(starting, begin[j], one), where(starting, begin[j + 1], two)
        three, four = where(starting, begin[j + 2], three), where(starting, begin[j + 3], four)
        if keep:
            store(blind, t, j, one)
            store(blind, t, j + 1, two)
            store(blind, t, j + 2, three)
            store(blind, t, j + 3, four)
        one, two = one * (load(b, t, j) * factor), two * (load(b, t, j + 1) * factor)
        three, four = three * (load(b, t, j + 2) * factor), four * (load(b, t, j + 3) * factor)
        store(new, target, j, one)
        store(new, target, j + 1, two)
        store(new, target, j + 2, three)
        store(new, target, j + 3, four)
        total = total + ((one + two) + (three + four))
        j += 4
    while j < K:
        one = load(x, source, 0) * A[j, 0]
        for i in range(1, K):
            one = fma(load(x, source, i), A[j, i], one)
        one = where(starting, begin[j], one)
        if keep:
            store(blind, t, j, one)
        one = one * (load(b, t, j) * factor)
        store(new, target, j, one)
        total = total + one
        j += 1
    if scale.shape[0] > 0:
        store(scale, t, 0, total / where(starting, 1.0, before * factor))
    return total


@inlined
def proportional(x, s, before, new, total, unseen):  # type: ignore[no-untyped-def]
    """Whether the weights ``new[0]`` with their sum are in proportion to ``x[s]`` with theirs, up to round-off.

    Shares of the row up to ``unseen`` need not.
    """
    down, before_down = to_one(total), to_one(before)
    size, size_before = total * down, before * before_down
    same = everywhere(below(0.5, size * size_before))  # unless one of them vanished
    for k in range(x.shape[1]):
        one, other = load(new, 0, k) * down * size_before, load(x, s, k) * before_down * size
        same &= not anywhere(below(fma(other, AGREED, size * size_before * unseen), size_of(one - other)))
    return same


@bare
def enter(carry: Floats, onwards: bool, guess: bool, x: Floats, row_sums: Floats) -> None:
    """Set the weights before each stretch: ``carry`` (K,) before one, guesses or ends of the others before the rest."""
    L, K = x.shape[0] - 1, x.shape[1]
    here, there = (0, L) if onwards else (L, 0)
    for lane in range(LANES):
        other = lane - 1 if onwards else lane + 1
        total = 0.0
        for k in range(K):
            weight = carry[k]
            if 0 <= other < LANES:
                weight = 1.0 if guess else x[there, k, other]
            x[here, k, lane] = weight
            total += weight
        row_sums[here, 0, lane] = total


@part_sums
def lead(
    b: Floats, A: Floats, begin: Floats, starts: Bools, onwards: bool, unseen: float, lane: int, x: Floats,
    weights: Floats,
) -> None:  # fmt: skip
    """Lead ``weights[0]`` (2, K), those of the row before a stretch, through it row by row, up to a factor.

    From where they agree with those of a pass, in ``x``, they are taken from there.
    """
    L, K, _ = b.shape
    now = 0
    for i in range(L):
        t, before, now = i if onwards else L - 1 - i, now, 1 - now
        total = 0.0
        for j in range(K):
            weight = 0.0
            for k in range(K):
                weight += A[j, k] * weights[before, k]
            weight = (begin[j] if starts[t, lane] else weight) * b[t, j, lane]
            weights[now, j] = weight
            total += weight
        while 0.0 < total < SMALL:
            total *= LARGE
            for j in range(K):
                weights[now, j] *= LARGE
        if i % CHECK == CHECK - 1:
            target, other, same = t + 1 if onwards else t, 0.0, True
            for j in range(K):
                other += x[target, j, lane]
            for j in range(K):
                share, wanted = weights[now, j] / total, x[target, j, lane] / other
                same &= abs(share - wanted) <= AGREED * wanted + unseen
            if same:
                for j in range(K):
                    weights[0, j] = x[L if onwards else 0, j, lane]
                return
    for j in range(K):
        weights[0, j] = weights[now, j]


@part
def lead_each(
    b: Floats, A: Floats, begin: Floats, starts: Bools, onwards: bool, ends: Floats, end_sums: Floats, power: Floats
) -> None:
    """Lead each state by itself through all stretches: the end of any other beginning is a sum of these.

    Fills the weights at the end ``ends`` (K, K, LANES), their sums (K, 1, LANES), and the ``power`` (1, K, LANES) of
    two that they have been multiplied with.
    """
    L, K, _ = b.shape
    x, row_sums = np.zeros((2 * K, K, LANES)), np.ones((2 * K, 1, LANES))
    now = 0
    for k in range(K):
        store(power, 0, k, every(0.0))
        store(x, k, k, every(1.0))
    for i in range(L):
        t = i if onwards else L - 1 - i
        starting = flags(starts, t)
        for k in range(K):
            factor = where(starting, 1.0, to_one(load(row_sums, now + k, 0)))
            store(power, 0, k, load(power, 0, k) + exponent(factor))
            total = every(0.0)
            for j in range(K):  # as `advance`, which once more would take the compiler seconds
                weight = every(0.0)
                for i in range(K):
                    weight = fma(load(x, now + k, i), A[j, i], weight)
                weight = where(starting, begin[j], weight) * (load(b, t, j) * factor)
                store(x, K - now + k, j, weight)
                total = total + weight
            store(row_sums, K - now + k, 0, total)
        now = K - now
    for k in range(K):
        store(end_sums, k, 0, load(row_sums, now + k, 0))
        for j in range(K):
            store(ends, k, j, load(x, now + k, j))


@bare
def follow(ends: Floats, end_sums: Floats, power: Floats, lane: int, weights: Floats) -> None:
    """Lead ``weights[0]`` (2, K) through a stretch by what became of each state."""
    K = weights.shape[1]
    largest = -np.inf  # logs to the base 2: what becomes of the states may lie further apart than numbers reach
    for k in range(K):
        weights[1, k] = np.log2(weights[0, k] * end_sums[k, 0, lane]) - power[0, k, lane]
        largest = max(largest, weights[1, k])
    for k in range(K):
        weights[0, k] = 0.0
    for k in range(K):
        if weights[1, k] > -np.inf:
            share = 2.0 ** (weights[1, k] - largest) / end_sums[k, 0, lane]
            for j in range(K):
                weights[0, j] += share * ends[k, j, lane]


@part
def enter_truly(
    b: Floats, A: Floats, begin: Floats, starts: Bools, onwards: bool, unseen: float, carry: Floats, x: Floats,
    row_sums: Floats,
) -> None:  # fmt: skip
    """Set the weights before each stretch to those at the end of the stretch before it."""
    L, K, _ = b.shape
    few = K <= FEW
    n = K if few else 0
    ends, end_sums, power = np.empty((n, n, LANES)), np.empty((n, 1, LANES)), np.empty((1, n, LANES))
    if few:
        lead_each(b, A, begin, starts, onwards, ends, end_sums, power)
    here, weights = 0 if onwards else L, np.empty((2, K))
    total = 0.0
    for k in range(K):
        total += carry[k]
    for k in range(K):  # before the first row of all is nothing, and any weights will do
        weights[0, k] = carry[k] if total != 0.0 else 1.0
    for i in range(LANES):
        lane = i if onwards else LANES - 1 - i
        row_sums[here, 0, lane] = 0.0
        for k in range(K):
            x[here, k, lane] = weights[0, k]
            row_sums[here, 0, lane] += weights[0, k]
        if few:
            follow(ends, end_sums, power, lane, weights)
        elif i < LANES - 1:
            lead(b, A, begin, starts, onwards, unseen, lane, x, weights)


@part
def recur(
    b: Floats, A: Floats, begin: Floats, starts: Bools, onwards: bool, sparse: bool, carry: Floats, x: Floats,
    blind: Floats, scale: Floats,
) -> int:  # fmt: skip
    """Fill ``x`` with weights in proportion to b[t] * (A @ those of the row before); return the passes that it took.

    Parameters
    ----------
    b, A
        Likelihoods (L, K, LANES) and a matrix (K, K).
    begin, starts
        What takes the place of ``A @ ...`` (K,) in the rows marked (L, LANES).
    onwards
        Whether time runs upwards: then ``x[t + 1]`` (L + 1, K, LANES) are the weights of the rows t, else ``x[t]``.
    sparse
        Whether transitions may be so unlikely that the smallest weights matter.
    carry
        Weights (K,) of the row before the block; becomes those of its last one, with sum 1.
    blind
        Receives ``A @ x[t + 1]`` or, onwards, ``A @ x[t]`` (L, K, LANES); or has no rows.
    scale
        Receives the sums of the weights over those of the rows before (L, 1, LANES); or has no rows.
    """
    L, K, _ = b.shape
    row, row_sums = np.empty((1, K, LANES)), np.empty((L + 1, 1, LANES))
    unseen = 0.0 if sparse else UNSEEN
    passes = 0
    same = False
    while passes <= GUESSED and not same:
        if passes < GUESSED:
            enter(carry, onwards, passes == 0, x, row_sums)
        else:
            enter_truly(b, A, begin, starts, onwards, unseen, carry, x, row_sums)
        for i in range(L):
            t = i if onwards else L - 1 - i
            source, target = (t, t + 1) if onwards else (t + 1, t)
            look = passes > 0 and i % CHECK == CHECK - 1
            new, s = (row, 0) if look else (x, target)
            total = advance(b, A, begin, starts, t, x, source, row_sums, new, s, blind, scale)
            if look:
                same = proportional(x, target, load(row_sums, target, 0), row, total, unseen)
                if same:
                    break
                for k in range(K):
                    store(x, target, k, load(row, 0, k))
            store(row_sums, target, 0, total)
        passes += 1
    end, lane = (L, LANES - 1) if onwards else (0, 0)
    for k in range(K):
        carry[k] = x[end, k, lane] / row_sums[end, 0, lane]
    return passes
