"""Guessed responsibilities: initialisation is one M-step on them (as in Linderman's ssm)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from statespace_em._typing import Bools, Floats, Ints

SURE = 0.9  # weight of the guessed state; the rest is spread evenly, so that no state starts empty


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
