"""Starts of several states that are free as a whole and seen in one column of y, from its spectrum.

Most are tops of Whittle's likelihood. That does not tell lines, as narrow as the length of y makes them, from those
beside them: lines are found one by one, in what a spectrum of fewer states leaves of y. Where y is not centred by
an offset, other starts have one state that is where y is on average.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_start import interpolated, seen_by
from statespace_em.sequence.lgssm_stationary import stationary_moments
from statespace_em.sequence.whittle import FEWEST, ROWS, Rational, whittle_tops

MOST = 24  # tops of as many states as there are
BELOW = 3  # of fewer, beside which lines are looked for
LINES = 6  # beside each of these
FINE = 4  # frequencies that are looked at, for one of the periodogram
WIDTH = 0.5  # distance of a line from the unit circle, in terms of the length of y
SHARE = 0.05  # of the disturbances that each mode has of its own, and at least the noise: none is near singular
LIVELY = 0.3  # where another place nearby is asked for
MIXED = 1e7  # condition of the modes from which on they are not told apart
LEVEL = 0.995  # least decay of a level that no offset takes up
WANDERS = 0.03  # variance of its steps, in those of y
FAR = 0.3  # standard deviations of y from 0, from which on it may need one


def spectral_starts(batch: Batch, n_states: int, rng: np.random.Generator, *, centred: bool) -> list[LGSSMParams]:
    """Dynamics and noises that may explain the longest sequence; the states are seen in a basis of their own."""
    longest = int(np.argmax(np.diff(batch.starts)))
    begin, end = batch.starts[longest : longest + 2]
    y = interpolated(batch.y[begin:end], np.array([0, end - begin]))[:ROWS, 0]
    if len(y) < FEWEST or not y.std() > 0.0:
        return []
    found = _starts(y, n_states, MOST, rng)
    if centred or not abs(y.mean()) > FAR * y.std():
        return found
    step = float(np.var(np.diff(y)))
    return [*(_beside_level(start, float(y.mean()), step) for start in _starts(y, n_states - 1, MOST, rng)), *found]


def _starts(y: Floats, n_states: int, most: int, rng: np.random.Generator) -> list[LGSSMParams]:
    """Tops of Whittle's likelihood, and lines beside those of fewer states."""
    if n_states == 0:
        return [_params(np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((1, 0)), np.array([[y.var()]]))]
    found = [_start(top) for top in whittle_tops(y, n_states, n_states - 1, most, noise=True, rng=rng)]
    if n_states > 1:
        for base in _starts(y, n_states - 2, BELOW, rng)[: 2 * BELOW]:
            found += _lines(base, y - y.mean())
    return found


def _start(top: Rational) -> LGSSMParams:
    """States of the spectrum (Harvey 1989, sec. 3.2): the first is seen, one disturbance drives all."""
    n = len(top.ar)
    A = np.diag(np.ones(n - 1), 1)
    A[:, 0] = top.ar
    driven = np.atleast_1d(top.ma)
    noise = max(float(top.noise), SHARE * float(driven[0] ** 2))
    return _params(A, _on_their_own(A, np.outer(driven, driven), SHARE), np.eye(1, n), np.array([[noise]]))


def in_turn(ranked: Sequence[LGSSMParams]) -> list[LGSSMParams]:
    """Starts, the best first, in another order: the best of each kind of roots, then the second of each, and so on.

    Those of one kind, such as with a line, mostly end at the same few tops.
    """
    seen: dict[tuple[int, ...], int] = {}
    turns = []
    for start in ranked:
        roots = np.linalg.eigvals(start.transition)
        real = roots[roots.imag == 0.0].real
        kind = len(real), int((real < 0.0).sum()), int((real > LEVEL).sum())
        turns.append(seen.get(kind, 0))
        seen[kind] = turns[-1] + 1
    return [ranked[i] for i in np.argsort(turns, kind="stable")]


def livelier(start: LGSSMParams) -> LGSSMParams:
    """The same with more disturbances of each mode, from where the same top is reached again, or another."""
    cov = _on_their_own(start.transition, start.process_cov, LIVELY)
    return _params(start.transition, cov, start.observation, start.measurement_cov)._replace(
        initial_mean=start.initial_mean
    )


def _on_their_own(A: Floats, Q: Floats, share: float) -> Floats:
    """Disturbances of which each mode of the dynamics has some of its own: a share of what it has of all.

    More, as one of the entries, would make a line of each mode that hardly decays.
    """
    values, modes = np.linalg.eig(A)
    if np.linalg.cond(modes) > MIXED:
        return np.asarray(Q + share * np.diag(np.diag(Q)))
    back = np.linalg.inv(modes)
    own = np.einsum("ij,jk,ik->i", back, Q, back.conj()).real
    return np.asarray(Q + share * np.real((modes * own) @ modes.conj().T))


def _lines(base: LGSSMParams, x: Floats) -> list[LGSSMParams]:
    """A spectrum with a line more, for each of those that would gain most."""
    size = FINE * len(x)
    angle = 2.0 * np.pi * np.arange(1, size // 2) / size
    amplitude = np.abs(np.fft.rfft(x, size)[1 : len(angle) + 1]) / len(x)
    height = len(x) * np.square(amplitude) / _spectrum(base, angle)
    peaks = 1 + np.flatnonzero((height[1:-1] > height[:-2]) & (height[1:-1] > height[2:]))
    best = peaks[np.argsort(-np.round(height[peaks], 6), kind="stable")][:LINES]
    return [_beside_line(base, angle[j], 2.0 * amplitude[j] ** 2, 1.0 - WIDTH / len(x)) for j in best]


def _spectrum(start: LGSSMParams, angle: Floats) -> Floats:
    """Power of y at angles."""
    A, C = start.transition, start.observation
    turns = np.exp(1j * angle)[:, None, None] * np.eye(len(A)) - A
    gain = np.linalg.solve(np.swapaxes(turns, 1, 2), np.broadcast_to(C.T, (len(angle), *C.T.shape)))[..., 0]
    return np.asarray(start.measurement_cov[0, 0] + np.einsum("ai,ij,aj->a", gain, start.process_cov, gain.conj()).real)


def _beside_line(base: LGSSMParams, angle: float, variance: float, size: float) -> LGSSMParams:
    """The same with two states more, which go round."""
    turn = size * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return _beside(base, turn, variance * (1.0 - size**2) * np.eye(2), np.eye(1, 2))


def _beside_level(start: LGSSMParams, middle: float, step: float) -> LGSSMParams:
    """The same with one more state, which begins near the middle of y."""
    noise = WANDERS * step
    decay = np.sqrt(max(1.0 - noise / middle**2, LEVEL**2))  # with which its variance is the square of the middle
    found = _beside(start, np.array([[decay]]), np.array([[noise]]), np.ones((1, 1)))
    found.initial_mean[0] = middle
    return found


def _beside(start: LGSSMParams, transition: Floats, cov: Floats, view: Floats) -> LGSSMParams:
    """The same beside states of their own, which come first."""
    k, n = len(transition), len(transition) + len(start.transition)
    A, Q = np.zeros((n, n)), np.zeros((n, n))
    A[:k, :k], A[k:, k:] = transition, start.transition
    Q[:k, :k], Q[k:, k:] = cov, start.process_cov
    return _params(A, Q, np.hstack([view, start.observation]), start.measurement_cov)


def _params(A: Floats, Q: Floats, C: Floats, R: Floats) -> LGSSMParams:
    n = len(A)
    cov = stationary_moments(A, np.zeros(n), Q)[1] if n else Q
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
