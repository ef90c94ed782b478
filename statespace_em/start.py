"""Guessed responsibilities: initialisation is one M-step on them (as in Linderman's ssm)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints

SURE = 0.9  # weight of the guessed state; the rest is spread evenly, so that no state starts empty
FEW = 5  # states up to which all their orders are tried
TRIES = 200  # random orders tried with more


def responsibilities(
    y: Floats, first: Bools, n_states: int, n_starts: int, *, category: bool, rng: np.random.Generator
) -> Iterator[Floats]:
    """Yield ``n_starts`` guesses of gamma (N, K), each from another idea of what tells states apart.

    In turn: where the values lie, how widely they move nearby, stretches of time with alike values, chance.
    """
    features = _one_hot(y) if category else _standardised(y)
    n_rows = len(y)
    for i in range(n_starts):
        if i % 4 == 0:
            guess = _clusters(features, n_states, rng)
        elif i % 4 == 1 and not category:
            guess = _by_spread(features, n_states, window=(5, 20, 60)[i // 4 % 3])
        elif i % 4 == 3:
            yield rng.dirichlet(np.full(n_states, 0.5), n_rows)
            continue
        else:
            guess = _stretches(features, first, n_states, rng)
        yield _soft(guess, n_states)


def _soft(guess: Ints, n_states: int) -> Floats:
    return SURE * np.eye(n_states)[guess] + (1.0 - SURE) / n_states


def _standardised(y: Floats) -> Floats:
    """Columns with mean 0 and variance 1; missing entries at the mean."""
    seen = ~np.isnan(y)
    count = np.maximum(seen.sum(0), 1)
    centre = np.where(seen, y, 0.0).sum(0) / count
    away = np.where(seen, y - centre, 0.0)
    spread = np.sqrt((away**2).sum(0) / count)
    return np.asarray(away / np.where(spread > 0.0, spread, 1.0))


def _one_hot(y: Floats) -> Floats:
    size = int(np.nanmax(y)) + 1
    return np.concatenate([np.asarray(y[:, d, None] == np.arange(size), float) for d in range(y.shape[1])], axis=1)


def _clusters(features: Floats, n_states: int, rng: np.random.Generator) -> Ints:
    """k-means labels (Arthur & Vassilvitskii 2007 starts); on a sample where there are very many rows."""
    from scipy.cluster.vq import kmeans2  # here because it is slow to import and a fit from a given start does without

    jitter = features + 1e-9 * rng.standard_normal(features.shape)
    sample = jitter if len(jitter) <= 20_000 else jitter[rng.choice(len(jitter), 20_000, replace=False)]
    if len(sample) < n_states:
        return rng.integers(n_states, size=len(features))
    # an empty cluster is a guess like any other: the M-step gives it the evenly spread weight
    centres, labels = kmeans2(sample, n_states, iter=20, minit="++", missing="warn", seed=rng)
    if len(sample) == len(jitter):
        return np.asarray(labels, dtype=np.int64)
    distance = np.stack([((features - centre) ** 2).sum(1) for centre in centres])
    return np.asarray(distance.argmin(0), dtype=np.int64)


def _by_spread(features: Floats, n_states: int, window: int) -> Ints:
    """Ranks of the mean absolute value over the rows around each row: regimes of volatility."""
    size = np.abs(features).mean(1)
    kernel = np.ones(min(window, len(size)))
    nearby = np.convolve(size, kernel, mode="same") / np.convolve(np.ones(len(size)), kernel, mode="same")
    ranks = np.empty(len(size), dtype=np.int64)
    ranks[np.argsort(nearby, kind="stable")] = np.arange(len(size))
    # shares fall from calm to wild, as regimes of volatility do
    edges = np.cumsum(np.arange(n_states, 0, -1)) / (n_states * (n_states + 1) / 2)
    return np.searchsorted(edges, (ranks + 0.5) / len(size)).astype(np.int64)


def _stretches(features: Floats, first: Bools, n_states: int, rng: np.random.Generator) -> Ints:
    """k-means on the means and spreads of random stretches of time."""
    n_rows = len(features)
    n_cuts = max(min(n_rows // 5, 12 * n_states), 1)
    cuts = np.union1d(np.flatnonzero(first), rng.choice(n_rows, size=n_cuts, replace=False))
    length = np.diff(np.append(cuts, n_rows))[:, None]
    mean = np.add.reduceat(features, cuts) / length
    square = np.add.reduceat(features**2, cuts) / length
    summary = np.concatenate([mean, np.log(np.maximum(square - mean**2, 1e-4))], axis=1)
    return np.repeat(_clusters(summary, n_states, rng), length[:, 0])


# guesses that respect what is known of the chain


def in_time(first: Bools, n_states: int) -> Floats:
    """Guess (N, K): every sequence in equal stretches of time, one a state, as a path from left to right goes."""
    return _soft((_place(first) * n_states).astype(np.int64), n_states)


def with_known(gamma: Floats, known: Ints) -> Floats:
    """Guess with its states named as the known ones (N,), -1 where not known, and those in place."""
    from scipy.optimize import linear_sum_assignment  # here because it is slow to import and rarely wanted

    seen = known >= 0
    truth = np.eye(gamma.shape[1])[known[seen]]
    _, order = linear_sum_assignment(truth.T @ gamma[seen], maximize=True)
    named = gamma[:, order]
    named[seen] = truth
    return named


def with_steps(gamma: Floats, first: Bools, allowed: Bools, rng: np.random.Generator) -> Floats:
    """Guess with its states named so that most of its steps are allowed (K, K) ones."""
    if allowed.all():
        return gamma
    inside = ~first[1:]
    pairs = gamma[:-1][inside].T @ gamma[1:][inside]
    n_states = len(pairs)
    if n_states <= FEW:
        orders = [np.array(order) for order in permutations(range(n_states))]
    else:
        middle = (gamma.T @ _place(first)) / gamma.sum(0)
        orders = [np.arange(n_states), np.argsort(middle), *(rng.permutation(n_states) for _ in range(TRIES))]
    fits = [pairs[np.ix_(order, order)][allowed].sum() for order in orders]
    return np.asarray(gamma[:, orders[int(np.argmax(fits))]])


def _place(first: Bools) -> Floats:
    """How far into its sequence each row (N,) is, from 0 to 1."""
    begins = np.flatnonzero(first)
    lengths = np.diff(np.append(begins, len(first)))
    return np.asarray((np.arange(len(first)) - np.repeat(begins, lengths) + 0.5) / np.repeat(lengths, lengths))
