"""Moving averages and autoregressions: where their search starts, and which of those of one likelihood is shown.

A root z of the polynomial of a moving average may be replaced by 1 / z, with the variance of the disturbances
multiplied by |z|^2: all autocovariances, and so the likelihood, stay as they are (Box & Jenkins 1970, sec. 3.3). With
all roots inside the unit circle, the invertible form, the disturbances are the errors of forecasts from the past.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from statespace_em._typing import Floats

STABLE = 0.95  # largest modulus of a root at the start
ROWS = 3  # for each regressor, that a regression asks for
INSIDE = 1.0 + 1e-9  # modulus from which a root is outside the unit circle; on it is its own image


def hannan_rissanen(
    y: Floats, orders: tuple[int, int, int], seasonal: Sequence[int]
) -> tuple[dict[str, Floats], float] | None:
    """Start of an ARIMA model by two regressions (Hannan & Rissanen 1982).

    Coefficients by kind ("ar", "ma", "seasonal_ar", "seasonal_ma") and the variance of the disturbances.
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


def invertible(coefficients: Floats) -> tuple[Floats, float]:
    """Coefficients (q,) with all roots inside, and what the variance is multiplied by; the same ones if they are."""
    roots = np.roots(np.append(1.0, coefficients))
    outside = np.abs(roots) > INSIDE
    if not outside.any():
        return coefficients, 1.0
    factor = float(np.prod(np.abs(roots[outside]) ** 2))
    roots[outside] = 1.0 / np.conj(roots[outside])
    found = np.zeros(len(coefficients))  # trailing coefficients of 0 have roots of 0, which np.roots leaves out
    found[: len(roots)] = np.poly(roots).real[1:]
    return found, factor


def invertible_form(labels: Sequence[str], values: Mapping[str, float]) -> dict[str, float]:
    """Named values of ARMA parts with every moving average, seasonal or not, in its invertible form."""
    new = dict(values)
    for label in labels:
        for kind in ("ma", "seasonal_ma"):
            names = [name for i in range(len(values)) if (name := f"{label}{kind}{i + 1}") in values]
            if not names:
                continue
            found, factor = invertible(np.array([values[name] for name in names]))
            new |= dict(zip(names, found.tolist()))
            new[f"{label}arma_var"] *= factor
    return new
