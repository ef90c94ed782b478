"""Starts of an ARMA model: the tops of its exact likelihood, of many places at once.

The likelihood of a mixed model has many tops. Most are a model of lower order and two factors, of the autoregression
and of the moving average, that nearly cancel: a narrow peak or gap of the spectrum, at any frequency. Thousands of them
are compared by the exact likelihood, the best that are not alike are climbed from side by side, and where these come to
is where a fit starts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.sequence.arma_likelihood import climbed, fits, log_likelihoods
from statespace_em.sequence.arma_mirror import invertible
from statespace_em.sequence.arma_start import hannan_rissanen

ROWS = 500  # of the series that are looked at
FEWEST = 8  # rows that tell anything
RADII = (0.3, 0.6, 0.8, 0.9, 0.97)  # of roots that are tried
TURNS = 40  # frequencies of pairs of them
APART = (-0.15, -0.05, 0.0, 0.05, 0.15)  # radians between the two pairs
DRAWN = 400  # coefficients at random
ANGLES = 64  # at which spectra are compared
ROUNDS = ((8, 160), (12, 80), (30, 40))  # steps, and from how many of the best places
PLACE, TOP = 0.05, 0.1  # mean distance of two spectra, in logarithms, below which they are one place, or one top
EXPLAINED = 1e-12  # share of its power that is left of a series that is known but for round-off

Coefficients = tuple[Floats, Floats]  # (m, p) of the autoregression and (m, q) of the moving average


class Top(NamedTuple):
    """Coefficients that a fit may start at."""

    ar: Floats  # (p,)
    ma: Floats  # (q,)
    variance: float  # of the disturbances


def screened(y: Floats, columns: Floats, orders: tuple[int, int, int], n: int) -> list[Top]:
    """The ``n`` best tops that are found, the best first, and again where another place has led to it.

    ``y`` (T,) has no gaps; effects of ``columns`` (T, k) are at their best.
    """
    p, d, q = orders
    x, known = np.diff(y[:ROWS], d), np.diff(columns[:ROWS], d, axis=0)
    known = known[:, known.any(0)]
    left = x - known @ np.linalg.lstsq(known, x, rcond=None)[0] if known.size else x
    scale = float(np.sqrt(np.mean(np.square(left)))) if len(left) else 0.0
    if len(x) < FEWEST or not scale > np.sqrt(EXPLAINED * np.mean(np.square(x))):
        return []
    rows = np.column_stack([left / scale, known])
    theta = np.hstack([np.concatenate(parts) for parts in zip(*_tried(left, p, q))])
    value = log_likelihoods(theta, p, rows)
    for steps, most in ROUNDS:
        theta = theta[_unlike(theta, p, value, most, PLACE)[0]]
        theta, value = climbed(theta, p, rows, steps)
        theta[:, p:] = [invertible(ma)[0] for ma in theta[:, p:]]  # infinitely far away is a model of lower order
    chosen, again = _unlike(theta, p, value, n, TOP)
    chosen[1:1] = again[:1]
    theta = theta[chosen]
    variance = scale**2 * fits(theta[:, :p], theta[:, p:], rows).variance
    return [Top(own[:p], own[p:], float(spread)) for own, spread in zip(theta, variance)]


def _unlike(theta: Floats, p: int, value: Floats, n: int, apart: float) -> tuple[list[int], list[int]]:
    """The ``n`` best whose spectra are ``apart``, and others that are like the best."""
    angle = np.pi * (np.arange(ANGLES) + 0.5) / ANGLES
    log_shape = _log_power(theta[:, p:], angle) - _log_power(-theta[:, :p], angle)
    log_shape -= log_shape.mean(1, keepdims=True)
    chosen: list[int] = []
    again: list[int] = []
    for i in np.argsort(-value, kind="stable"):
        if not np.isfinite(value[i]) or len(chosen) == n:
            break
        alike = np.abs(log_shape[chosen] - log_shape[i]).mean(1) < apart
        if not alike.any():
            chosen.append(int(i))
        elif alike[0]:
            again.append(int(i))
    return chosen, again


def _log_power(coefficients: Floats, angle: Floats) -> Floats:
    """Log of the squared modulus of polynomials ``1 + sum of coefficients * z^k`` (m, k) on the unit circle (m, F)."""
    turn = np.exp(-1j * np.outer(np.arange(1, coefficients.shape[1] + 1), angle))
    return np.asarray(2.0 * np.log(np.abs(1.0 + coefficients @ turn) + 1e-12))


def _tried(y: Floats, p: int, q: int) -> list[Coefficients]:
    """Coefficients at random, and those of lower orders with one real factor or a pair of complex ones more."""
    rng = np.random.default_rng(0)
    found = [(_stable(rng.uniform(-1.0, 1.0, (DRAWN, p))), -_stable(rng.uniform(-1.0, 1.0, (DRAWN, q))))]
    found.append(_beside(y, p, q, np.zeros((1, 0)), np.zeros((1, 0))))
    radii = np.array(RADII)
    real = np.append(radii, -radii)
    turns = np.pi * (np.arange(TURNS) + 0.5) / TURNS
    if min(p, q) >= 1:
        a, m = (grid.ravel()[:, None] for grid in np.meshgrid(real, real))
        found.append(_beside(y, p - 1, q - 1, -a, -m))
    if min(p, q) >= 2:
        turn, apart, a, m = (grid.ravel() for grid in np.meshgrid(turns, APART, radii, np.append(radii, 0.995)))
        found.append(_beside(y, p - 2, q - 2, _pair(a, turn), _pair(m, turn + apart)))
    return found


def _beside(y: Floats, p: int, q: int, ar_factor: Floats, ma_factor: Floats) -> Coefficients:
    """Products of what the data suggest at these orders with factors ``1 + sum of coefficients * z^k`` (m, k)."""
    suggested = hannan_rissanen(y, (p, 0, q), (0, 0, 0, 1))
    ar, ma = (np.zeros(p), np.zeros(q)) if suggested is None else (suggested[0]["ar"], suggested[0]["ma"])
    return -_product(-ar, ar_factor), _product(ma, ma_factor)


def _product(one: Floats, many: Floats) -> Floats:
    """Coefficients (m, j + k) of the products of one polynomial (j,) with each of many (m, k)."""
    factors = np.hstack([np.ones((len(many), 1)), many])
    found = np.zeros((len(many), len(one) + factors.shape[1]))
    for lag, own in enumerate(np.append(1.0, one)):
        found[:, lag : lag + factors.shape[1]] += own * factors
    return found[:, 1:]


def _pair(radius: Floats, turn: Floats) -> Floats:
    """Polynomials (m, 2) with roots of this modulus and angle."""
    return np.stack([-2.0 * radius * np.cos(turn), np.square(radius)], axis=1)


def _stable(partial: Floats) -> Floats:
    """Autoregressions (m, p) with these partial autocorrelations (Barndorff-Nielsen & Schou 1973)."""
    found = partial[:, :0]
    for k in range(partial.shape[1]):
        own = partial[:, k : k + 1]
        found = np.hstack([found - own * found[:, ::-1], own])
    return found
