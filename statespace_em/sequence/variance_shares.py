"""Starts of models of which variances alone are free: many ways to share what y varies by, the likeliest first.

A likelihood falls by hundreds of nats where the shares of the variances are wrong by a few powers of ten, and climbing
back takes tens of E-steps, each several times as dear as the likelihood alone. So that is asked first. The common scale
of all variances needs no search: ``log L(c) = constant - N / 2 log c - S / (2 c)``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from statespace_em._typing import Floats
from statespace_em.patterns import Pattern, from_word
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.lgssm_loading import loaded, unloaded

COVS = ("process_cov", "measurement_cov")
PLACES = 12  # that are tried, for each variance
DECADES = 6.0  # that one variance may be below another, in what it does to y
APART = 1.5  # decades between two starts, as long as there are such
FACTOR = 100.0  # of the variances, by which the likelihood tells their scale


def shared_variances(
    patterns: Mapping[str, Pattern | RowPattern],
    known: Collection[str],
    loadings: Mapping[str, Floats],
    sizes: tuple[int, int],
) -> dict[str, Pattern]:
    """Patterns of the noises, by name, if all that a start must guess are their variances; else none.

    ``known`` names what is, beside ``patterns`` without free values; ``sizes`` are those of the noises.
    """
    known = {*known, *(name for name, own in patterns.items() if not own.names)}
    free = {name: patterns.get(name) or _alone(name, size) for name, size in zip(COVS, sizes) if name not in known}
    noises = {name: own for name, own in free.items() if isinstance(own, Pattern) and not own.products}
    several = sum(len(own.on_diagonal) for own in noises.values()) > 1
    plain = len(noises) == len(free) and {"transition", "observation"} <= known
    return noises if several and plain and all(loading.ndim == 2 for loading in loadings.values()) else {}


def _alone(name: str, size: int) -> Pattern | None:
    """Pattern of a noise that is free as a whole; None where it has covariances, which are guessed otherwise."""
    return from_word("free", (1, 1), name, symmetric=True) if size == 1 else None


def likely_shares(
    noises: Mapping[str, Pattern],
    guess: Mapping[str, Any],
    loadings: Mapping[str, Floats],
    n: int,
    log_likelihood: Callable[[Mapping[str, Any]], float],
    n_entries: int,
) -> list[dict[str, Any]]:
    """Return the ``guess`` with variance shared in the ``n`` likeliest ways, first those that are apart.

    ``n_entries`` is the number of entries that the likelihood is of, less those that tell diffuse constants.
    """
    values = {name: own.read(unloaded(guess[name], loadings.get(name))) for name, own in noises.items()}
    ends = np.cumsum([len(own.on_diagonal) for own in noises.values()])
    scales = set(noises) == set(COVS) and not any(own.constant.any() for own in noises.values()) and n_entries > 0

    def shared(logs: Floats) -> dict[str, Any]:
        found = dict(guess)
        for (name, own), decades in zip(noises.items(), np.split(logs, ends[:-1])):
            found[name] = loaded(own.build(values[name] * 10.0 ** _of_all(own, decades)), loadings.get(name))
        return found

    places = _places(int(ends[-1]), max(n, PLACES * int(ends[-1])))
    heights = np.empty(len(places))
    for i, logs in enumerate(places):
        heights[i] = log_likelihood(shared(logs))
        if not scales or not np.isfinite(heights[i]):
            continue
        lost = heights[i] - log_likelihood(shared(logs + np.log10(FACTOR)))
        scale = (np.log(FACTOR) - 2.0 * lost / n_entries) / (1.0 - 1.0 / FACTOR)  # sum of squares over n_entries
        if np.isfinite(scale) and scale > 0.0:
            places[i] += np.log10(scale)
            heights[i] += 0.5 * n_entries * (scale - 1.0 - np.log(scale))
    order = np.argsort(-heights, kind="stable")
    chosen: list[int] = []
    shapes = np.maximum(places - places.max(1, keepdims=True), -DECADES)
    for i in order:
        if (np.abs(shapes[chosen] - shapes[i]).max(1) >= APART).all():
            chosen.append(int(i))
    chosen += [int(i) for i in order if i not in chosen]
    return [shared(places[i]) for i in chosen[:n]]


def _of_all(pattern: Pattern, decades: Floats) -> Floats:
    """Decades of all free values from those of variances: covariances go with the two that they are between."""
    variances, rows = dict(zip(pattern.on_diagonal, decades)), np.zeros(len(pattern.constant))
    for name, part in zip(pattern.names, pattern.design):
        if name in variances:
            rows[np.diag(part) != 0.0] = variances[name]
    between = [rows[np.argwhere(part)[0]].mean() for part in pattern.design]
    return np.array([variances.get(name, own) for name, own in zip(pattern.names, between)])


def _places(n: int, many: int) -> Floats:
    """Decades (many, n) below the largest variance, which is each in turn; the others are spread evenly.

    They follow the sequence of Roberts (2018), of powers of the root of ``x^(n + 1) = x + 1``.
    """
    roots = np.roots([1.0, *[0.0] * (n - 1), -1.0, -1.0])
    ratio = float(roots[np.abs(roots.imag) < 1e-9].real.max())
    found = -DECADES * ((0.5 + np.outer(np.arange(1, many + 1), ratio ** -np.arange(1.0, n + 1))) % 1.0)
    found[np.arange(many), np.arange(many) % n] = 0.0
    return np.asarray(found)
