"""Starts at random of several states that are free as a whole: any modes, seen in any way.

Half of them are slow, so that they move little over all of y: what several columns share is often a smooth curve,
which no mode that is drawn evenly comes near.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_start import interpolated
from statespace_em.sequence.lgssm_stationary import stationary_moments

SLOW = 0.5  # share of starts with slow modes
DECAY = 0.005, 0.9  # distance of a mode from the unit circle, drawn in logarithms as all ranges here
SLOW_DECAY, SLOW_TURNS = (0.2, 4.0), (0.3, 6.0)  # of slow ones over all rows: logarithm of the decay, and turns
PAIRS = 0.6  # share of complex pairs among the modes
POSITIVE = 0.7  # and of positive ones among the real
OWN = 0.02, 0.05  # of the unit variance of each state: what disturbs it by itself, and what all does where it is slow
NOISE = 0.01, 1.0  # share of the variance of y that is measurement noise
SPREAD = 0.7  # of the logarithms of these shares over columns


def random_start(guess: LGSSMParams, batch: Batch, rng: np.random.Generator) -> LGSSMParams:
    """Guess with other dynamics, noises and observation, in units of y."""
    D, n = guess.observation.shape
    scale = np.nanstd(batch.y, axis=0)
    scale = np.where(scale > 0.0, scale, 1.0)
    slow = rng.random() < SLOW
    A = _modes(n, int(batch.lengths.max()) if slow else None, rng)
    G = rng.normal(size=(n, rng.integers(1, n + 1)))
    Q = G @ G.T
    size = np.sqrt(np.diag(stationary_moments(A, np.zeros(n), Q)[1]))
    A, Q = A * size / size[:, None], Q / np.outer(size, size)
    Q = OWN[1] * (Q + np.diag(np.diag(Q))) if slow else Q + OWN[0] * rng.random() * np.eye(n)
    C = scale[:, None] * rng.normal(size=(D, n))
    share = np.exp(rng.uniform(*np.log(NOISE)) + SPREAD * rng.normal(size=D))
    first = interpolated(batch.y, batch.starts)[batch.starts[:-1]].mean(0)
    return guess._replace(
        transition=A, process_cov=Q, observation=C, measurement_cov=np.diag(share * np.square(scale)),
        initial_mean=np.linalg.pinv(C) @ (first - guess.observation_offset),
        initial_cov=stationary_moments(A, np.zeros(n), Q)[1],
    )  # fmt: skip


def _modes(n: int, length: int | None, rng: np.random.Generator) -> Floats:
    """Stable dynamics (n, n): real modes, and pairs that go round in blocks of two; slow ones over a ``length``."""
    A, i = np.zeros((n, n)), 0
    while i < n:
        decay, angle = np.exp(rng.uniform(*np.log(DECAY))), np.pi * rng.random() ** rng.choice([1.0, 2.0])
        sign = 1.0 if rng.random() < POSITIVE else -1.0
        if length is not None:
            decay, turns = (np.exp(rng.uniform(*np.log(each))) / length for each in (SLOW_DECAY, SLOW_TURNS))
            angle, sign = 2.0 * np.pi * turns, 1.0
        if i + 1 < n and rng.random() < PAIRS:
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            A[i : i + 2, i : i + 2], i = (1.0 - decay) * turn, i + 2
        else:
            A[i, i], i = sign * (1.0 - decay), i + 1
    return A
