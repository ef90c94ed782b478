"""More starts for an ARMA model: what Whittle's likelihood says of many coefficients at once.

The likelihood of a mixed model has many tops. Most are a model of lower order and two factors, of the autoregression
and of the moving average, that nearly cancel: a narrow peak or gap of the spectrum, at any frequency. Whittle's
likelihood (1953) compares thousands of them with the periodogram in no time; the best that are not alike are climbed.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.sequence.arma_start import hannan_rissanen

ROWS = 500  # of the series that are looked at
RADII = (0.3, 0.6, 0.8, 0.9, 0.97)  # of roots that are tried
TURNS = 40  # frequencies of pairs of them
APART = (-0.15, -0.05, 0.0, 0.05, 0.15)  # radians between the two pairs
DRAWN = 400  # coefficients at random
ALIKE = 0.3  # mean distance of two spectra, in logarithms, below which they are one start

Coefficients = tuple[Floats, Floats]  # (m, p) of the autoregression and (m, q) of the moving average


def screened(y: Floats, orders: tuple[int, int, int], n: int) -> list[tuple[Floats, Floats]]:
    """The ``n`` best coefficients (p,), (q,) that are tried, the best first; ``y`` (T,) has no gaps."""
    p, d, q = orders
    x = np.diff(y[:ROWS], d)
    x = x - x.mean()
    periodogram = np.square(np.abs(np.fft.rfft(x)[1:]))
    angle = 2.0 * np.pi * np.arange(1, len(periodogram) + 1) / len(x)
    if len(x) < 8 or not periodogram.any():
        return []
    ar, ma = (np.concatenate(parts) for parts in zip(*_tried(y[:ROWS], p, d, q)))
    log_shape = _log_power(ma, angle) - _log_power(-ar, angle)
    misfit = log_shape.mean(1) + np.log((periodogram * np.exp(-log_shape)).mean(1))
    chosen: list[int] = []
    for i in np.argsort(misfit):
        away = log_shape[chosen] - log_shape[i]
        if (np.abs(away - away.mean(1, keepdims=True)).mean(1) > ALIKE).all():
            chosen.append(int(i))
        if len(chosen) == n:
            break
    return [(ar[i], ma[i]) for i in chosen]


def _log_power(coefficients: Floats, angle: Floats) -> Floats:
    """Log of the squared modulus of polynomials ``1 + sum of coefficients * z^k`` (m, k) on the unit circle (m, F)."""
    turn = np.exp(-1j * np.outer(np.arange(1, coefficients.shape[1] + 1), angle))
    return np.asarray(2.0 * np.log(np.abs(1.0 + coefficients @ turn) + 1e-12))


def _tried(y: Floats, p: int, d: int, q: int) -> list[Coefficients]:
    """Coefficients at random, and those of lower orders with one real factor or a pair of complex ones more."""
    rng = np.random.default_rng(0)
    found = [(_stable(rng.uniform(-1.0, 1.0, (DRAWN, p))), -_stable(rng.uniform(-1.0, 1.0, (DRAWN, q))))]
    radii = np.array(RADII)
    real = np.append(radii, -radii)
    turns = np.pi * (np.arange(TURNS) + 0.5) / TURNS
    if min(p, q) >= 1:
        a, m = (grid.ravel()[:, None] for grid in np.meshgrid(real, real))
        found.append(_beside(y, (p - 1, d, q - 1), -a, -m))
    if min(p, q) >= 2:
        turn, apart, a, m = (grid.ravel() for grid in np.meshgrid(turns, APART, radii, np.append(radii, 0.995)))
        found.append(_beside(y, (p - 2, d, q - 2), _pair(a, turn), _pair(m, turn + apart)))
    return found


def _beside(y: Floats, orders: tuple[int, int, int], ar_factor: Floats, ma_factor: Floats) -> Coefficients:
    """Products of what the data suggest at these orders with factors ``1 + sum of coefficients * z^k`` (m, k)."""
    p, _, q = orders
    suggested = hannan_rissanen(y, orders, (0, 0, 0, 1))
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
