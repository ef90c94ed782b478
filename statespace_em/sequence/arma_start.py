"""Where the search for an ARIMA model starts: two regressions (Hannan & Rissanen 1982)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from statespace_em._typing import Floats

STABLE = 0.95  # largest modulus of a root at the start
ROWS = 3  # for each regressor, that a regression asks for


def hannan_rissanen(
    y: Floats, orders: tuple[int, int, int], seasonal: Sequence[int]
) -> tuple[dict[str, Floats], float] | None:
    """Coefficients by kind ("ar", "ma", "seasonal_ar", "seasonal_ma") and the variance of the disturbances.

    ``orders`` are (p, d, q), ``seasonal`` (P, D, Q, s); ``y`` (T,) has no gaps. Disturbances are the residuals of a
    long autoregression; the coefficients are those of a regression on lags of both, without the products of seasonal
    and other lags. None where there are too few rows.
    """
    (p, d, q), (P, D, Q, s) = orders, seasonal
    x = np.diff(y, d)
    for _ in range(D):
        x = x[s:] - x[:-s]
    if len(x) < 8:
        return None
    x = x - x.mean()
    largest = max(p, q, s * P, s * Q, 1)
    order = min(largest + max(3, int(2 * np.log(len(x)))), len(x) // ROWS)
    shocks = x - _fitted(x, [(x, lag) for lag in range(1, order + 1)])[1]
    shocks[:order] = 0.0
    terms = [(x, lag) for lag in [*range(1, p + 1), *(s * j for j in range(1, P + 1))]]
    terms += [(shocks, lag) for lag in [*range(1, q + 1), *(s * j for j in range(1, Q + 1))]]
    if len(x) - largest - order < ROWS * max(len(terms), 1):
        return None
    found, fitted = _fitted(x, terms, order)
    parts = np.split(found, np.cumsum([p, P, q]))
    kinds = dict(zip(("ar", "seasonal_ar", "ma", "seasonal_ma"), parts))
    values = {kind: _shrunk(part, 1.0 if kind.endswith("ar") else -1.0) for kind, part in kinds.items()}
    kept = np.concatenate([values[kind] for kind in kinds])
    if not np.array_equal(kept, found):  # the variance that the disturbances have with what was shrunk
        fitted = _lagged(x, terms) @ kept
    return values, float(np.mean((x - fitted)[order + largest :] ** 2))


def _fitted(x: Floats, terms: Sequence[tuple[Floats, int]], skip: int = 0) -> tuple[Floats, Floats]:
    """Coefficients of lagged series and their fit to x; rows before there are lags, and ``skip`` more, are left out."""
    if not terms:
        return np.zeros(0), np.zeros(len(x))
    columns = _lagged(x, terms)
    begin = skip + max(lag for _, lag in terms)
    found = np.linalg.lstsq(columns[begin:], x[begin:], rcond=None)[0]
    return np.asarray(found), np.asarray(columns @ found)


def _lagged(x: Floats, terms: Sequence[tuple[Floats, int]]) -> Floats:
    """Lagged series side by side (T, terms), 0 before they begin."""
    columns = np.zeros((len(x), len(terms)))
    for j, (series, lag) in enumerate(terms):
        columns[lag:, j] = series[:-lag]
    return columns


def _shrunk(coefficients: Floats, sign: float) -> Floats:
    """Coefficients whose polynomial has its roots well inside: ``x = sign * sum of coefficients * x before``."""
    if not len(coefficients):
        return coefficients
    roots = np.roots(np.append(1.0, -sign * coefficients))
    radius = float(np.abs(roots).max(initial=0.0))
    factor = min(1.0, STABLE / radius) if radius > 0.0 else 1.0
    return coefficients * factor ** np.arange(1, len(coefficients) + 1)
