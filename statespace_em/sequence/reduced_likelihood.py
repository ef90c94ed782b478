"""Exact likelihood of many models of one series at once, and ascents on it side by side.

The innovations of a stationary series follow from recursions that are linear in the order, since its covariance of one
row less differs by a matrix of rank one (Morf, Sidhu & Kailath 1974; Pearlman 1980). The variance, and what known
columns explain, are at their best for each model. The ascents are Fisher scoring with damping.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.sequence.reduced_form import ReducedForm

AT_ONCE = 1_000  # models, whose innovations are in memory at a time
STEP = 1e-6  # of differences, coefficients being of order 1
LARGEST = 1e3  # value, being of order 1


class Fits(NamedTuple):
    """How well m models fit T rows."""

    log_likelihood: Floats  # (m,), nats
    error: Floats  # (T, m), standardised innovations
    log_spread: Floats  # (T, m), logarithm of their variance, in units of
    variance: Floats  # (m,), by which that of the model is multiplied


def fits(ar: Floats, auto: Floats, y: Floats) -> Fits:
    """Fits of m stationary models to the first column of y (T, 1 + k), the others known.

    From lag r on their autocovariances ``auto`` (m, r + 1) follow the autoregressions (m, p), p <= r.
    """
    innovation, spread = _innovations(ar, auto, y)
    scaled = innovation / np.sqrt(spread)[:, None]
    error, known = scaled[:, 0], scaled[:, 1:]
    if known.shape[1]:
        squares = np.einsum("tim,tjm->mij", known, known)
        effects = np.linalg.solve(squares, np.einsum("tim,tm->mi", known, error)[..., None])[..., 0]
        error = error - np.einsum("tim,mi->tm", known, effects)
    variance, log_spread = np.square(error).mean(0), np.log(spread)
    log_likelihood = -0.5 * (len(y) * (np.log(2.0 * np.pi * variance) + 1.0) + log_spread.sum(0))
    return Fits(log_likelihood, error / np.sqrt(variance), log_spread, variance)


def log_likelihoods(form: ReducedForm, theta: Floats, y: Floats) -> Floats:
    """Log-likelihoods (m,) of values (m, k); -inf where they are not stationary."""
    found = [_checked(form, theta[i : i + AT_ONCE], y).log_likelihood for i in range(0, len(theta), AT_ONCE)]
    return np.concatenate(found) if found else np.zeros(0)


def climbed(form: ReducedForm, theta: Floats, y: Floats, steps: int) -> tuple[Floats, Floats]:
    """Values (m, k) that so many steps up from theta come to, and their log-likelihoods (m,)."""
    damping, now = np.full(len(theta), 1e-2), np.full(len(theta), -np.inf)
    for _ in range(steps):
        now, gradient, information = _slopes(form, theta, y)
        bend = np.einsum("mkk->mk", information)
        bend += damping[:, None] * bend + 1e-6
        there = theta + np.linalg.solve(information, gradient[..., None])[..., 0]
        value = _checked(form, there, y).log_likelihood
        better = value > now
        theta, now = np.where(better[:, None], there, theta), np.where(better, value, now)
        damping = np.clip(np.where(better, damping / 4.0, damping * 6.0), 1e-8, 1e8)
    return theta, now


def _slopes(form: ReducedForm, theta: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Log-likelihoods (m,), their gradients (m, k) and the information (m, k, k), the variance at its best."""
    m, k = theta.shape
    moved = np.concatenate([theta, *(theta + STEP * unit for unit in np.eye(k))])
    found = _checked(form, moved, y)
    value, error, spread = (part.reshape(-1, k + 1, m) for part in found[:3])
    with np.errstate(invalid="ignore"):  # of places that are not stationary: told by `sound`
        by_error = (error[:, 1:] - error[:, :1]) / STEP
        by_spread = (spread[:, 1:] - spread[:, :1]) / STEP
        by_spread -= by_spread.mean(0)
        information = np.einsum("tim,tjm->mij", by_error, by_error)
        information += 0.5 * np.einsum("tim,tjm->mij", by_spread, by_spread)
        gradient = ((value[0, 1:] - value[0, :1]) / STEP).T
    sound = np.isfinite(gradient).all(1) & np.isfinite(information).all((1, 2))
    return value[0, 0], np.where(sound[:, None], gradient, 0.0), np.where(sound[:, None, None], information, np.eye(k))


def _checked(form: ReducedForm, theta: Floats, y: Floats) -> Fits:
    """Fits, with a log-likelihood of -inf where the values do not make a stationary series."""
    sound = form.are_stationary(theta) & (np.abs(theta).max(1, initial=0.0) < LARGEST)
    with np.errstate(all="ignore"):  # next to a unit root all is round-off
        found = fits(*form.read(np.where(sound[:, None], theta, form.harmless)), y)
    value = np.where(sound & np.isfinite(found.log_likelihood), found.log_likelihood, -np.inf)
    return found._replace(log_likelihood=value)


def _innovations(ar: Floats, auto: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Innovations (T, 1 + k, m) of columns, and their variances (T, m).

    States are those of Harvey (1989, sec. 3.3): the first is seen, the others are what the past adds to later rows.
    """
    n_rows, width = y.shape
    a, gain = np.zeros((auto.shape[1] - 1, len(ar))), auto[:, 1:].T.copy()
    a[: ar.shape[1]] = ar.T
    for lag in range(1, len(gain)):  # states seen 1, 2, ... rows later: what the autoregression does not explain
        gain[lag:] -= a[lag - 1] * auto[:, 1 : len(gain) - lag + 1].T
    innovation, spread = np.empty((n_rows, width, len(ar))), np.empty((n_rows, len(ar)))

    def ahead(state: Floats) -> Floats:
        moved = a.reshape(len(a), *(1,) * (state.ndim - 2), -1) * state[0]
        moved[:-1] += state[1:]
        return np.asarray(moved)

    variance = auto[:, 0].copy()
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
