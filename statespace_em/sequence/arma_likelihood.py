"""Exact likelihood of many ARMA models of one series at once, and ascents on it side by side.

The innovations of a stationary series follow from recursions that are linear in the order, since its covariance of one
row less differs by a matrix of rank one (Morf, Sidhu & Kailath 1974; Pearlman 1980). The variance, and what known
columns explain, are at their best for each model. The ascents are Fisher scoring with damping.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats

AT_ONCE = 1_000  # models, whose innovations are in memory at a time
STEP = 1e-6  # of differences, coefficients being of order 1
LARGEST = 50.0  # coefficient of a moving average


class Fits(NamedTuple):
    """How well m models fit T rows."""

    log_likelihood: Floats  # (m,), nats
    error: Floats  # (T, m), standardised innovations
    log_spread: Floats  # (T, m), logarithm of their variance, in that of the disturbances
    variance: Floats  # (m,), of the disturbances


def fits(ar: Floats, ma: Floats, y: Floats) -> Fits:
    """Fits of m stationary models, (m, p) and (m, q), to the first column of y (T, 1 + k), the others known."""
    innovation, spread = _innovations(ar, ma, y)
    scaled = innovation / np.sqrt(spread)[:, None]
    error, known = scaled[:, 0], scaled[:, 1:]
    if known.shape[1]:
        squares = np.einsum("tim,tjm->mij", known, known)
        effects = np.linalg.solve(squares, np.einsum("tim,tm->mi", known, error)[..., None])[..., 0]
        error = error - np.einsum("tim,mi->tm", known, effects)
    variance, log_spread = np.square(error).mean(0), np.log(spread)
    log_likelihood = -0.5 * (len(y) * (np.log(2.0 * np.pi * variance) + 1.0) + log_spread.sum(0))
    return Fits(log_likelihood, error / np.sqrt(variance), log_spread, variance)


def log_likelihoods(theta: Floats, p: int, y: Floats) -> Floats:
    """Log-likelihoods (m,) of coefficients (m, p + q); -inf where they are not stationary."""
    found = [_checked(theta[i : i + AT_ONCE], p, y).log_likelihood for i in range(0, len(theta), AT_ONCE)]
    return np.concatenate(found) if found else np.zeros(0)


def climbed(theta: Floats, p: int, y: Floats, steps: int) -> tuple[Floats, Floats]:
    """Coefficients (m, p + q) that so many steps up from theta come to, and their log-likelihoods (m,)."""
    damping, now = np.full(len(theta), 1e-2), np.full(len(theta), -np.inf)
    for _ in range(steps):
        now, gradient, information = _slopes(theta, p, y)
        bend = np.einsum("mkk->mk", information)
        bend += damping[:, None] * bend + 1e-6
        there = theta + np.linalg.solve(information, gradient[..., None])[..., 0]
        value = _checked(there, p, y).log_likelihood
        better = value > now
        theta, now = np.where(better[:, None], there, theta), np.where(better, value, now)
        damping = np.clip(np.where(better, damping / 4.0, damping * 6.0), 1e-8, 1e8)
    return theta, now


def _slopes(theta: Floats, p: int, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Log-likelihoods (m,), their gradients (m, k) and the information (m, k, k), the variance at its best."""
    m, k = theta.shape
    moved = np.concatenate([theta, *(theta + STEP * unit for unit in np.eye(k))])
    found = _checked(moved, p, y)
    value, error, spread = (part.reshape(-1, k + 1, m) for part in found[:3])
    by_error = (error[:, 1:] - error[:, :1]) / STEP
    by_spread = (spread[:, 1:] - spread[:, :1]) / STEP
    by_spread -= by_spread.mean(0)
    information = np.einsum("tim,tjm->mij", by_error, by_error)
    information += 0.5 * np.einsum("tim,tjm->mij", by_spread, by_spread)
    gradient = ((value[0, 1:] - value[0, :1]) / STEP).T
    sound = np.isfinite(gradient).all(1) & np.isfinite(information).all((1, 2))
    return value[0, 0], np.where(sound[:, None], gradient, 0.0), np.where(sound[:, None, None], information, np.eye(k))


def _checked(theta: Floats, p: int, y: Floats) -> Fits:
    """Fits, with a log-likelihood of -inf where the coefficients do not make a stationary series."""
    sound = _is_stationary(theta[:, :p]) & (np.abs(theta[:, p:]).max(1, initial=0.0) < LARGEST)
    with np.errstate(all="ignore"):  # next to a unit root all is round-off
        safe = np.where(sound[:, None], theta, 0.0)
        found = fits(safe[:, :p], safe[:, p:], y)
    value = np.where(sound & np.isfinite(found.log_likelihood), found.log_likelihood, -np.inf)
    return found._replace(log_likelihood=value)


def _is_stationary(ar: Floats) -> Bools:
    """Which autoregressions (m, p) have partial autocorrelations inside (-1, 1): Durbin-Levinson backwards."""
    left, found = ar, np.ones(len(ar), bool)
    with np.errstate(all="ignore"):
        for k in range(ar.shape[1] - 1, -1, -1):
            own = left[:, k:]
            found &= np.abs(own[:, 0]) < 1.0 - 1e-9
            left = (left[:, :k] + own * left[:, :k][:, ::-1]) / (1.0 - np.square(own))
    return found


def _innovations(ar: Floats, ma: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Innovations (T, 1 + k, m) of columns, and their variances (T, m) where the disturbances have variance 1.

    States are those of Harvey (1989, sec. 3.3): the first is seen, the others are what the past adds to later rows.
    """
    known, a = _first_covariances(ar, ma)
    n_rows, width = y.shape
    innovation, spread = np.empty((n_rows, width, len(ar))), np.empty((n_rows, len(ar)))

    def ahead(state: Floats) -> Floats:
        moved = a.reshape(len(a), *(1,) * (state.ndim - 2), -1) * state[0]
        moved[:-1] += state[1:]
        return np.asarray(moved)

    variance, gain = known[0].copy(), ahead(known)
    change, weight = gain, -1.0 / variance  # of the covariance, in a row: their outer product
    state = np.zeros((len(a), width, len(ar)))
    for t in range(n_rows):
        innovation[t], spread[t] = y[t][:, None] - state[0], variance
        state = ahead(state) + gain[:, None] * (innovation[t] / variance)
        seen, moved = change[0], ahead(change)
        change = moved - gain * (seen / variance)
        gain = gain + moved * (weight * seen)
        before, variance = variance, variance + weight * np.square(seen)
        weight = weight * before / variance
    return innovation, spread


def _first_covariances(ar: Floats, ma: Floats) -> tuple[Floats, Floats]:
    """Covariances (r, m) of the states with y in the first row, and the autoregressions (r, m) filled up by zeros."""
    m, r = len(ar), max(ar.shape[1], ma.shape[1] + 1)
    a, b, psi = np.zeros((r, m)), np.zeros((r, m)), np.zeros((r, m))
    a[: ar.shape[1]], b[0], b[1 : ma.shape[1] + 1] = ar.T, 1.0, ma.T
    for j in range(r):
        psi[j] = b[j] + (a[:j] * psi[:j][::-1]).sum(0)
    equations, shocks = np.zeros((m, r + 1, r + 1)), np.zeros((m, r + 1))
    for k in range(r + 1):  # Yule-Walker: the autocovariances that shocks leave
        equations[:, k, k] += 1.0
        for i in range(r):
            equations[:, k, abs(k - i - 1)] -= a[i]
        shocks[:, k] = (b[k:] * psi[: r - k]).sum(0)
    auto = np.linalg.solve(equations, shocks[..., None])[..., 0].T
    known = np.array([(a[i:] * auto[1 : r - i + 1] + b[i:] * psi[: r - i]).sum(0) for i in range(r)])
    return known, a
