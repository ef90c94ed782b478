"""Starts of sums with cycles or autoregressions: the tops of their exact likelihood, of many places at once.

The likelihood of such a sum has many tops. That of a cycle is high near every peak of the spectrum. Those of a mixed
autoregressive moving average are mostly a model of lower order and two factors that nearly cancel: a narrow peak or gap
of the spectrum, at any frequency. Thousands of places are compared by the exact likelihood, the best that are not alike
are climbed from side by side, and where these come to is where a fit starts.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.sequence.arma import hannan_rissanen
from statespace_em.sequence.reduced_form import ONE, ReducedForm, StationaryComponent, products, stable
from statespace_em.sequence.reduced_likelihood import climbed, fits, log_likelihoods

ROWS = 1_000  # of the series that are looked at
WHOLE = 400  # rows up to which all places are climbed from; of longer series fewer, for their tops are clearer
FEWEST = 8  # rows that tell anything
RADII = (0.3, 0.6, 0.8, 0.9, 0.97)  # of roots that are tried
TURNS = 40  # frequencies of pairs of them
APART = (-0.15, -0.05, 0.0, 0.05, 0.15)  # radians between the two pairs
DRAWN = 400  # coefficients of an ARMA model alone at random
SUMS = 8_000  # values of a sum at random
SPREAD = 3.0  # standard deviation of the logarithms of the shares of variances
LEAST = 1e-6  # share of the variance that a component has at least
ANGLES = 32  # at which spectra are compared, evenly spread and so in logarithms
LOWEST = 0.01  # of them, in radians a row
ROUNDS = ((8, 300), (12, 120), (30, 60))  # steps, and from how many of the best places
BEHIND = 3.0  # nats below the best top, where the steps have come to an end: no others are started at
PLACE, TOP = 0.02, 0.1  # mean distance of two spectra, in logarithms, below which they are one place, or one top
EXPLAINED = 1e-12  # share of its power that is left of a series that is known but for round-off

Coefficients = tuple[Floats, Floats]  # (m, p) of the autoregression and (m, q) of the moving average


def screened(form: ReducedForm, y: Floats, columns: Floats, n: int) -> list[dict[str, float]]:
    """Values by name of the ``n`` best tops that are found, the best first, and again where another place led to it.

    ``y`` (T,) has no gaps; effects of ``columns`` (T, k) are at their best.
    """
    if len(y) < FEWEST + len(form.difference):
        return []
    x, *known = (np.convolve(own[:ROWS], form.difference, "valid") for own in (y, *columns.T))
    X = np.array([own for own in known if np.abs(own).max() > EXPLAINED]).reshape(-1, len(x)).T
    left = x - X @ np.linalg.lstsq(X, x, rcond=None)[0] if X.size else x
    scale = float(np.sqrt(np.mean(np.square(left))))
    if not scale > np.sqrt(EXPLAINED * np.mean(np.square(y))):
        return []
    rows = np.column_stack([left / scale, X])
    theta = _places(form, left)
    value = log_likelihoods(form, theta, rows)
    share = min(1.0, WHOLE / len(rows))
    for steps, most in ROUNDS:
        theta = theta[_unlike(form, theta, value, max(int(share * most), FEWEST), PLACE)[0]]
        theta, value = climbed(form, theta, rows, steps)
        theta = form.invertible(theta)
    value[value < value.max(initial=-np.inf) - BEHIND] = -np.inf
    chosen, again = _unlike(form, theta, value, n, TOP)
    chosen[1:1] = again[:1]
    theta = theta[chosen]
    found = fits(*form.read(theta), rows)
    return [form.named(own, scale**2 * variance, scale**2 * LEAST) for own, variance in zip(theta, found.variance)]


def _unlike(form: ReducedForm, theta: Floats, value: Floats, n: int, apart: float) -> tuple[list[int], list[int]]:
    """The ``n`` best whose spectra are ``apart``, and others that are like the best."""
    even = np.pi * (np.arange(ANGLES) + 0.5) / ANGLES
    log_shape = form.log_spectrum(theta, np.append(even, np.geomspace(LOWEST, np.pi, ANGLES)))
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


def _places(form: ReducedForm, x: Floats) -> Floats:
    """Values (m, k) that are tried."""
    if form.spreads:
        return _sums(form, x)
    component = form.components[0]
    if component.kind == "cycle":
        return _swings(SUMS, len(x), np.random.default_rng(0))
    return np.hstack(
        [np.concatenate(parts) for parts in zip(*_tried(x, component.order, len(component.names) - component.order))]
    )


def _sums(form: ReducedForm, x: Floats) -> Floats:
    """Values of sums at random: the components share the variance of x as unevenly as can be."""
    rng = np.random.default_rng(0)
    parts, sizes = [], []
    for component in form.components:
        own = _swings(SUMS, len(x), rng) if component.kind == "cycle" else _coefficients(component, x, rng)
        parts.append(own)
        sizes.append(component.autocovariances(own, 1)[:, 0])
    sizes += [np.full(SUMS, own[0]) for own in form.fixed]
    shares = np.exp(SPREAD * rng.normal(size=(SUMS, len(sizes))))
    shares /= shares.sum(1, keepdims=True)
    return np.hstack([*parts, np.sqrt(shares / np.array(sizes).T)])


def _swings(m: int, length: int, rng: np.random.Generator) -> Floats:
    """Cycles (m, 2) at random, half of them with a frequency that is evenly spread in logarithms."""
    damping = 1.0 - np.exp(rng.uniform(np.log(0.003), np.log(0.5), m))
    turn = np.exp(rng.uniform(np.log(np.pi / length), np.log(0.98 * np.pi), m))
    turn = np.where(rng.random(m) < 0.5, turn, rng.uniform(0.0, 0.98 * np.pi, m))
    return np.stack([damping * np.cos(turn), damping * np.sin(turn)], axis=1)


def _coefficients(component: StationaryComponent, x: Floats, rng: np.random.Generator) -> Floats:
    """Coefficients (SUMS, p + q) of an ARMA part of a sum at random, many with roots near the unit circle."""
    p, q = component.order, len(component.names) - component.order
    partial = rng.uniform(-1.0, 1.0, (SUMS, p + q))
    near = rng.random(SUMS) < 0.5
    partial[near] = np.sign(partial[near]) * (1.0 - np.abs(partial[near]) ** 3)
    ar = stable(partial[:, :p])
    if p > 1:  # every other one swings
        swing = _swings(SUMS, len(x), rng)
        pair = np.stack([np.ones(SUMS), -2.0 * swing[:, 0], np.square(swing).sum(1)], axis=1)
        ar[::2] = -products(pair, -stable(partial[:, 2:p]))[::2, 1:]
    return np.hstack([ar, -stable(partial[:, p:])])


def _tried(y: Floats, p: int, q: int) -> list[Coefficients]:
    """Coefficients at random, and those of lower orders with one real factor or a pair of complex ones more."""
    rng = np.random.default_rng(0)
    found = [(stable(rng.uniform(-1.0, 1.0, (DRAWN, p))), -stable(rng.uniform(-1.0, 1.0, (DRAWN, q))))]
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
    return -products(np.append(ONE, -ar)[None], ar_factor)[:, 1:], products(np.append(ONE, ma)[None], ma_factor)[:, 1:]


def _pair(radius: Floats, turn: Floats) -> Floats:
    """Polynomials (m, 2) with roots of this modulus and angle."""
    return np.stack([-2.0 * radius * np.cos(turn), np.square(radius)], axis=1)
