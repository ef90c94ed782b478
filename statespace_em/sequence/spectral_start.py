"""Starts of several states that are free as a whole and seen in one column of y, from tops of Whittle's likelihood."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_start import interpolated, seen_by
from statespace_em.sequence.lgssm_stationary import stationary_moments
from statespace_em.sequence.whittle import Rational, whittle_tops

MOST = 8  # tops
SHARE = 0.05  # of the disturbances that each state has of its own, and at least the noise: none is near singular
LEVEL = 0.995  # decay of a level that no offset takes up
WANDERS = 0.03  # variance of its steps, in those of y
FAR = 0.3  # standard deviations of y from 0, from which on it may need one


def spectral_starts(batch: Batch, n_states: int, rng: np.random.Generator, *, centred: bool) -> list[LGSSMParams]:
    """Dynamics and noises of the best tops of the longest sequence; the states are seen in a basis of their own.

    Where y is not ``centred`` by an offset, every other start has one state that is where y is on average.
    """
    longest = int(np.argmax(np.diff(batch.starts)))
    begin, end = batch.starts[longest : longest + 2]
    y = interpolated(batch.y[begin:end], np.array([0, end - begin]))[:, 0]
    found = [_start(top) for top in whittle_tops(y, n_states, n_states - 1, MOST, noise=True, rng=rng)]
    if centred or not abs(y.mean()) > FAR * y.std():
        return found
    fewer = [_start(top) for top in whittle_tops(y, n_states - 1, n_states - 2, MOST, noise=True, rng=rng)]
    leveled = [_beside_level(start, float(y.mean()), float(np.var(np.diff(y)))) for start in fewer]
    return [start for pair in zip(leveled, found) for start in pair]


def _start(top: Rational) -> LGSSMParams:
    """States of the spectrum (Harvey 1989, sec. 3.2): the first is seen, one disturbance drives all."""
    n = len(top.ar)
    A = np.diag(np.ones(n - 1), 1)
    A[:, 0] = top.ar
    Q = np.outer(top.ma, top.ma)
    Q += SHARE * np.diag(np.diag(Q)) + 0.01 * SHARE * np.trace(Q) * np.eye(n)
    noise = max(float(top.noise), SHARE * float(Q[0, 0]))
    return _params(A, Q, np.eye(1, n), np.array([[noise]]))


def _beside_level(start: LGSSMParams, middle: float, step: float) -> LGSSMParams:
    """The same with one more state, which begins near the middle of y."""
    n = len(start.transition) + 1
    A, Q, C = np.zeros((n, n)), np.zeros((n, n)), np.ones((1, n))
    A[1:, 1:], A[0, 0] = start.transition, LEVEL
    Q[1:, 1:], Q[0, 0] = start.process_cov, WANDERS * step
    C[:, 1:] = start.observation
    found = _params(A, Q, C, start.measurement_cov)
    found.initial_mean[0] = middle
    return found


def _params(A: Floats, Q: Floats, C: Floats, R: Floats) -> LGSSMParams:
    n = len(A)
    cov = stationary_moments(A, np.zeros(n), Q)[1]
    return LGSSMParams(A, Q, C, R, np.zeros(n), cov, np.zeros(n), np.zeros(1))


def in_place_of(guess: LGSSMParams, start: LGSSMParams, bound: Collection[str]) -> LGSSMParams:
    """Return a guess with the dynamics of a start, in a basis in which its observation sees the same.

    So for the measurement noise and the first state where these are not ``bound``.
    """
    basis = seen_by(guess.observation, start.observation)
    back = np.linalg.inv(basis)
    moved = {
        "transition": basis @ start.transition @ back,
        "process_cov": basis @ start.process_cov @ basis.T,
        "measurement_cov": start.measurement_cov,
        "initial_mean": basis @ start.initial_mean,
        "initial_cov": basis @ start.initial_cov @ basis.T,
    }
    return guess._replace(**{name: value for name, value in moved.items() if name not in bound})
