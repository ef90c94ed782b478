"""Data to fit, made with numpy alone and fast enough for ten million rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STAY = 0.95  # probability of a chain to keep its state


class Chain(NamedTuple):
    """Parameters of a chain; also those that a fit starts from."""

    initial: np.ndarray  # (K,)
    transition: np.ndarray  # (K, K)


class Linear(NamedTuple):
    """Parameters of a linear-Gaussian model, named as in `statespace_em.LinearGaussianSSM`."""

    transition: np.ndarray
    process_cov: np.ndarray
    observation: np.ndarray
    measurement_cov: np.ndarray
    initial_mean: np.ndarray
    initial_cov: np.ndarray


def chain(n_states: int) -> Chain:
    """A chain that keeps its state with `STAY` and goes to each other one alike."""
    leave = (1.0 - STAY) / max(n_states - 1, 1)
    transition = np.full((n_states, n_states), leave)
    np.fill_diagonal(transition, STAY if n_states > 1 else 1.0)
    return Chain(np.full(n_states, 1.0 / n_states), transition)


def path(n_rows: int, n_states: int, rng: np.random.Generator) -> np.ndarray:
    """One path (N,) of `chain`: at times of change the state moves by 1 to K - 1, all alike, modulo K."""
    if n_states == 1:
        return np.zeros(n_rows, np.int64)
    changes = np.flatnonzero(rng.random(n_rows) > STAY)
    moves = np.zeros(n_rows, np.int64)
    moves[changes] = rng.integers(1, n_states, len(changes))
    moves[:1] = rng.integers(n_states)
    np.cumsum(moves, out=moves)
    moves %= n_states
    return moves


def means(n_states: int, n_features: int) -> np.ndarray:
    """Means (K, D), two standard deviations of noise apart where there is one feature."""
    if n_features == 1:
        return 2.0 * np.arange(n_states, dtype=float)[:, None]
    return 2.0 * np.random.default_rng(n_states).standard_normal((n_states, n_features))


def gaussian(n_rows: int, n_states: int, n_features: int) -> np.ndarray:
    """Rows (N, D) around `means` with unit variance."""
    rng = np.random.default_rng([n_rows, n_states, n_features])
    y = rng.standard_normal((n_rows, n_features))
    y += means(n_states, n_features)[path(n_rows, n_states, rng)]
    return y


def counts(n_rows: int, n_states: int) -> np.ndarray:
    """Counts (N,) with rates 2, 6, 10, ..."""
    rng = np.random.default_rng([n_rows, n_states])
    return rng.poisson(2.0 + 4.0 * path(n_rows, n_states, rng))


def symbol_probabilities(n_states: int, n_symbols: int) -> np.ndarray:
    """Probabilities (K, M) of the symbols."""
    return np.random.default_rng(n_symbols).dirichlet(np.ones(n_symbols), n_states)


def symbols(n_rows: int, n_states: int, n_symbols: int) -> np.ndarray:
    """Codes (N,) drawn with `symbol_probabilities`; the first rows hold each symbol once."""
    rng = np.random.default_rng([n_rows, n_states, n_symbols])
    cumulative = np.cumsum(symbol_probabilities(n_states, n_symbols), axis=1)
    states, uniform = path(n_rows, n_states, rng), rng.random(n_rows)
    drawn = np.empty(n_rows, np.int64)
    for k in range(n_states):
        inside = states == k
        drawn[inside] = np.minimum(np.searchsorted(cumulative[k], uniform[inside]), n_symbols - 1)
    drawn[:n_symbols] = np.arange(n_symbols)
    return drawn


def tracker() -> Linear:
    """A damped target in the plane: 4 states (position, velocity), 2 positions measured."""
    still, none = np.eye(2), np.zeros((2, 2))
    return Linear(
        transition=np.block([[0.98 * still, still], [none, 0.9 * still]]),
        process_cov=np.diag([0.1, 0.1, 0.5, 0.5]),
        observation=np.hstack([still, none]),
        measurement_cov=4.0 * still,
        initial_mean=np.zeros(4),
        initial_cov=10.0 * np.eye(4),
    )


def trend() -> Linear:
    """A damped local trend: 2 states, 1 measurement."""
    return Linear(
        transition=np.array([[1.0, 1.0], [0.0, 0.9]]),
        process_cov=np.diag([0.1, 0.02]),
        observation=np.array([[1.0, 0.0]]),
        measurement_cov=np.array([[1.0]]),
        initial_mean=np.zeros(2),
        initial_cov=np.eye(2),
    )


def stable(n_states: int, n_features: int) -> Linear:
    """A stable model of any size with all entries at work."""
    rng = np.random.default_rng([n_states, n_features])
    turn, _ = np.linalg.qr(rng.standard_normal((n_states, n_states)))
    return Linear(
        transition=0.95 * turn,
        process_cov=np.eye(n_states),
        observation=rng.standard_normal((n_features, n_states)),
        measurement_cov=np.eye(n_features),
        initial_mean=np.zeros(n_states),
        initial_cov=np.eye(n_states),
    )


def linear(model: Linear, n_rows: int, n_series: int = 1, missing: float = 0.0) -> np.ndarray:
    """Series (S, N, D) of a model with diagonal noises; this share of the entries is missing."""
    rng = np.random.default_rng([n_rows, n_series])
    n_states = len(model.transition)
    noise = rng.standard_normal((n_rows, n_series, n_states)) * np.sqrt(np.diag(model.process_cov))
    state = rng.standard_normal((n_series, n_states)) * np.sqrt(np.diag(model.initial_cov)) + model.initial_mean
    states = np.empty((n_rows, n_series, n_states))
    step = model.transition.T
    for t in range(n_rows):
        states[t] = state
        state = state @ step + noise[t]
    y = states @ model.observation.T
    y += rng.standard_normal(y.shape) * np.sqrt(np.diag(model.measurement_cov))
    y[rng.random(y.shape) < missing] = np.nan
    return np.ascontiguousarray(y.transpose(1, 0, 2))
