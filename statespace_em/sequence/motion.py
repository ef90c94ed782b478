"""Motion in continuous time: what moves, what pushes it, and both over the steps between rows."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats

AXES = ("x", "y", "z")
PREFIXES = ("", "v_", "a_")  # of the states: position, velocity, acceleration
DENSITIES = {2: "acceleration_density", 3: "jerk_density"}


class Motion(NamedTuple):
    """Dynamics ``ds = drift s dt + dw`` of m states seen along D axes."""

    states: list[str]
    drift: Floats  # (n, n), 1 / time
    pushes: Floats  # (J, n, n), covariance of dw per unit of time and of each density
    densities: list[str]  # names (J,) of the densities
    observation: Floats  # (D, n)
    rate: float  # of a turn in the plane of the first two axes


class Steps(NamedTuple):
    """Dynamics over G gaps."""

    transition: Floats  # (G, n, n)
    noises: Floats  # (J, G, n, n), covariance of the noise per density

    def cov(self, densities: Floats) -> Floats:
        """Covariance of the noise over each gap (G, n, n)."""
        return np.asarray(np.tensordot(densities, self.noises, 1))


def motion(axes: Sequence[str], order: int, rate: float, *, separate: bool) -> Motion:
    """Chain of derivatives along each axis, white noise driving the last; the first two axes may turn.

    ``order`` is the number of derivatives kept, position included; ``rate`` turns the velocity in the plane of the
    first two axes (radians per unit of time, from the first to the second axis); ``separate`` gives every axis a
    density of its own.
    """
    d = len(axes)
    n = order * d
    drift: Floats = np.kron(np.eye(order, k=1), np.eye(d)).astype(float)
    if rate:
        drift[d, d + 1], drift[d + 1, d] = -rate, rate
    single = np.zeros((d, n, n))
    for j in range(d):
        single[j, n - d + j, n - d + j] = 1.0
    word = DENSITIES[order]
    names = [f"{word}_{axis}" for axis in axes] if separate else [word]
    pushes = single if separate else single.sum(0, keepdims=True)
    states = [f"{prefix}{axis}" for prefix in PREFIXES[:order] for axis in axes]
    return Motion(states, drift, pushes, names, np.eye(d, n), float(rate))


def over(moves: Motion, gaps: Floats) -> Steps:
    """Exact dynamics over each gap, in closed form; a gap that comes often is worked out once.

    A matrix exponential says the same (Van Loan 1978), but one for each of many different gaps would take most of the
    time of a fit.
    """
    each, place = np.unique(gaps, return_inverse=True)
    d, size = len(moves.observation), len(moves.states)
    flow, noise = chain(size // d, each)
    axes = np.array([np.diag(push)[-d:] for push in moves.pushes])  # (J, d), which axes a density drives
    transition = np.einsum("gij,kl->gikjl", flow, np.eye(d)).reshape(len(each), size, size)
    noises = np.einsum("gij,ak,kl->agikjl", noise, axes, np.eye(d)).reshape(len(axes), *transition.shape)
    if moves.rate:
        _turn(moves.rate, each, d, transition, noises[0])
    return Steps(transition[place], noises[:, place])


def chain(order: int, gaps: Floats) -> tuple[Floats, Floats]:
    """Flow and noise (G, order, order) of one axis that nothing turns: the matrix exponential ends as a polynomial."""
    flow, noise = (np.zeros((len(gaps), order, order)) for _ in range(2))
    for i in range(order):
        for j in range(order):
            left, right = order - 1 - i, order - 1 - j
            if j >= i:
                flow[:, i, j] = gaps ** (j - i) / factorial(j - i)
            noise[:, i, j] = gaps ** (left + right + 1) / ((left + right + 1) * factorial(left) * factorial(right))
    return flow, noise


def _turn(rate: float, gaps: Floats, d: int, transition: Floats, noise: Floats) -> None:
    """Put the turn of the first two of d axes into the dynamics (G, 2d, 2d) of constant velocity.

    With the plane as complex numbers the velocity at u after a unit push is exp(i rate u), and the position
    (exp(i rate u) - 1) / (i rate); the noise holds the integrals of their products.
    """
    angle = rate * gaps
    sine, rest = np.sin(angle), 2.0 * np.sin(angle / 2.0) ** 2  # 1 - cos
    series = angle**3 / 6.0 * (1.0 - angle**2 / 20.0 * (1.0 - angle**2 / 42.0 * (1.0 - angle**2 / 72.0)))
    lag = np.where(np.abs(angle) < 0.1, series, angle - sine)  # a difference of small angles would lose its digits
    moved, turned = ((sine / rate, rest / rate), (1.0 - rest, sine))
    both = (rest / rate**2, -lag / rate**2)
    for matrix, row, (same, other) in (
        (transition, 0, moved), (transition, d, turned), (noise, 0, both)
    ):  # fmt: skip
        matrix[:, row, d] = matrix[:, row + 1, d + 1] = same
        matrix[:, row + 1, d], matrix[:, row, d + 1] = other, -other
    noise[:, d : d + 2, :2] = noise[:, :2, d : d + 2].swapaxes(1, 2)
    noise[:, 0, 0] = noise[:, 1, 1] = 2.0 * lag / rate**3
