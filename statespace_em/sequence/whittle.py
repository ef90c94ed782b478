"""Tops of Whittle's likelihood of a rational spectrum, from hundreds of places at once: starts for the exact one.

The spectrum is ``|g|^2 / |a|^2 + noise``, polynomials in ``exp(-i angle)``: that of an autoregressive moving average,
or of n states that are seen in one column of y. Its likelihood (Whittle 1953) has about the tops of the exact one, and
is climbed by Fisher scoring (its information is that of the logarithm of the spectrum), all places side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats

ROWS = 1_000  # of the series that are looked at
FEWEST = 16  # rows that tell anything
PLACES = 200  # that are climbed from
STEPS = 60
ALIKE = 0.1  # mean distance of two spectra, in logarithms, below which they are one top
FLOOR = 1e-6  # of a spectrum, in units of the power of y


class Rational(NamedTuple):
    """Spectra of one top or several (..., )."""

    ar: Floats  # (..., p), a = 1 - sum of ar * z^k
    ma: Floats  # (..., q + 1), g
    noise: Floats  # (...)


def whittle_tops(y: Floats, p: int, q: int, n: int, *, noise: bool, rng: np.random.Generator) -> list[Rational]:
    """The ``n`` best tops that are found, the best first, as stable and invertible; ``y`` (T,) has no gaps."""
    x = y[:ROWS] - y[:ROWS].mean()
    if len(x) < FEWEST:
        return []
    taper = np.hanning(len(x) + 2)[1:-1]
    x = (x - np.sum(x * taper) / taper.sum()) * taper / np.linalg.norm(taper)
    power = np.square(np.abs(np.fft.rfft(x)[1:]))
    scale = float(power.mean())
    if not scale > 0.0:
        return []
    power, share = power / scale, np.full(len(power), 1.0 / len(power))
    angle = 2.0 * np.pi * np.arange(1, len(power) + 1) / len(x)
    z = np.exp(-1j * np.outer(np.arange(max(p, q) + 1), angle))
    theta = _places(p, q, noise, rng)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # steps too far are not taken
        theta, misfit = _climbed(theta, z, power, share, p, q)
        log_shape = np.log(_spectrum(theta, z, p, q)[0])
    chosen: list[int] = []
    for i in np.argsort(np.round(misfit, 5), kind="stable"):  # equal ones in the same order in all units of y
        if np.isfinite(misfit[i]) and (np.abs(log_shape[chosen] - log_shape[i]) @ share > ALIKE).all():
            chosen.append(int(i))
        if len(chosen) == n:
            break
    return [_settled(theta[i], p, q, scale, len(x)) for i in chosen]


def _places(p: int, q: int, noise: bool, rng: np.random.Generator) -> Floats:
    """Places (m, p + q + 2): coefficients of a without the first, of g, and the root of the noise."""
    found = np.zeros((PLACES, p + q + 2))
    for own in found:
        own[:p] = _drawn(p, rng)[1:]
        own[p : p + q + 1] = _drawn(q, rng) * np.exp(rng.normal(scale=0.7))
        own[-1] = np.exp(rng.normal(scale=0.7)) if noise else 0.0
    return found


def _drawn(degree: int, rng: np.random.Generator) -> Floats:
    """Polynomial (degree + 1,) with roots at random, real ones or pairs, many of them near the unit circle."""
    found, left = np.ones(1), degree
    while left:
        radius = 1.0 - np.exp(rng.uniform(np.log(0.01), np.log(0.8)))
        if left > 1 and rng.random() < 0.6:
            turn = np.pi * rng.random() ** rng.choice([1.0, 2.0])
            found, left = np.convolve(found, [1.0, -2.0 * radius * np.cos(turn), radius**2]), left - 2
        else:
            found, left = np.convolve(found, [1.0, -radius * (1.0 if rng.random() < 0.7 else -1.0)]), left - 1
    return found


def _spectrum(theta: Floats, z: Floats, p: int, q: int) -> tuple[Floats, Floats, Floats, Floats]:
    a = 1.0 + theta[:, :p] @ z[1 : p + 1]
    g = theta[:, p : p + q + 1] @ z[: q + 1]
    part = np.square(np.abs(g)) / np.maximum(np.square(np.abs(a)), 1e-300)
    return part + np.square(theta[:, -1:]) + FLOOR, part, a, g


def _climbed(theta: Floats, z: Floats, power: Floats, share: Floats, p: int, q: int) -> tuple[Floats, Floats]:
    """Where Fisher scoring with damping (Levenberg-Marquardt) ends, and the misfits there."""
    damping = np.full(len(theta), 1e-2)

    def misfit(total: Floats) -> Floats:
        return np.asarray((np.log(total) + power / total) @ share)

    total, part, a, g = _spectrum(theta, z, p, q)
    theta = theta.copy()
    level = np.sqrt((power / total) @ share)
    theta[:, p:] *= level[:, None]
    total, part, a, g = _spectrum(theta, z, p, q)
    now = misfit(total)
    for _ in range(STEPS):
        slopes = np.concatenate(
            [
                -2.0 * (part / total)[:, None] * (z[None, 1 : p + 1] / a[:, None]).real,
                2.0 * (z[None, : q + 1] * g.conj()[:, None]).real / (np.square(np.abs(a)) * total)[:, None],
                (2.0 * theta[:, -1:] / total)[:, None],
            ],
            axis=1,
        )
        weighted = slopes * share
        gradient = np.einsum("mkf,mf->mk", weighted, power / total - 1.0)
        information = np.einsum("mkf,mlf->mkl", weighted, slopes)
        bend = np.einsum("mkk->mk", information)
        bend += damping[:, None] * bend + 1e-9
        there = theta + np.linalg.solve(information, gradient[..., None])[..., 0]
        new = _spectrum(there, z, p, q)
        value = misfit(new[0])
        better = value < now
        theta = np.where(better[:, None], there, theta)
        total, part, a, g = (np.where(better[:, None], x, old) for x, old in zip(new, (total, part, a, g)))
        now = np.where(better, value, now)
        damping = np.clip(np.where(better, damping / 4.0, damping * 5.0), 1e-8, 1e8)
    return theta, now


def _settled(theta: Floats, p: int, q: int, scale: float, length: int) -> Rational:
    """Spectrum with its roots reflected inside the unit circle, as far as the length of y tells them from it."""
    (a, damped), (g, driven) = (_inside(own, length) for own in (np.append(1.0, theta[:p]), theta[p : p + q + 1]))
    return Rational(-a[1:], np.sqrt(scale) * driven / damped * g, np.asarray(scale * theta[-1] ** 2))


def _inside(polynomial: Floats, length: int) -> tuple[Floats, float]:
    """Polynomial ``1 + ...`` with roots inside, and how much larger the modulus of the given one is on the circle."""
    lead = polynomial[0] if abs(polynomial[0]) > 1e-9 else 1e-9
    roots = np.roots(np.append(lead, polynomial[1:]))
    size = np.abs(roots)
    gain = abs(lead) * float(np.prod(np.maximum(size, 1.0)))
    most = 1.0 - 0.3 / length
    aim = np.minimum(np.where(size > 1.0, 1.0 / np.maximum(size, 1e-9), size), most)
    return np.real(np.poly(np.where(size > 0.0, roots * aim / np.maximum(size, 1e-300), 0.0))), gain
