"""Tests of all innovations of a row together: normality, serial correlation and variance of a vector."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.checks.innovations import standardised_innovations, variance_ratio
from statespace_em.errors import DataError

LEAST = 9  # complete rows; the kurtosis of fewer than 8 has no transformation


def joint_tests(known: xr.Dataset, *, lags: int = 10) -> pd.DataFrame:
    """Test that innovations of several sensors are, together, normal, independent and of constant variance.

    Sensors that each pass `innovation_tests` may still depend on each other's past, or be far from a joint normal.

    Parameters
    ----------
    known
        What ``filter(y)`` of a linear-Gaussian model returned for one sequence.
    lags
        Lags of the portmanteau test.

    Returns
    -------
    pandas.DataFrame
        One row a test, with ``statistic``, ``dof`` and ``p``:

        ``normality``
            skewness and kurtosis in the directions of the correlation matrix, transformed to normal scores (Doornik &
            Hansen 2008, Oxford Bulletin 70), chi-squared; from the rows in which everything was measured.
        ``portmanteau``
            correlation of all with the past of all (Hosking 1980), chi-squared; of these rows too.
        ``heteroscedasticity``
            sum of all squares over the last third of the rows (from the first that has an innovation) by that over
            the first third (Durbin & Koopman 2012, sec. 2.12.1), F distributed, two-sided; ``dof`` is that of the
            numerator.

    Raises
    ------
    DataError
        If there are several sequences, or fewer than nine complete rows.

    Examples
    --------
    >>> import statespace_em as sse
    >>> radar = sse.datasets.radar()
    >>> scans = radar["measured"].where(~radar["outlier"])
    >>> model = sse.designs.constant_velocity(["east", "north"]).fit(scans)
    >>> bool((joint_tests(model.filter(scans))["p"] > 0.01).all())
    True
    """
    _validate.at_least("lags", lags, 1, whole=True)
    scores = standardised_innovations(known)
    if scores.ndim != 2:
        raise DataError("the filter is of several sequences: test them one by one, known.sel(sequence=...).")
    values = scores.transpose(..., "feature").values
    whole = ~np.isnan(values).any(1)
    if whole.sum() < LEAST:
        raise DataError(
            f"{int(whole.sum())} rows have all innovations, expected at least {LEAST} to test them together."
        )
    found = {
        "normality": _chi_squared(normality(values[whole]), 2 * values.shape[1]),
        "portmanteau": _chi_squared(portmanteau(values, lags), values.shape[1] ** 2 * lags),
        "heteroscedasticity": variance_ratio(values),
    }
    return pd.DataFrame.from_dict(found, orient="index", columns=["statistic", "dof", "p"]).rename_axis("test")


def normality(values: Floats) -> float:
    """Statistic of Doornik & Hansen (2008) of complete rows (n, p); chi-squared with 2 p degrees of freedom."""
    n = len(values)
    centred = values - values.mean(0)
    unit = centred / centred.std(0)
    spread, axes = np.linalg.eigh(unit.T @ unit / n)
    if spread[0] < 1e-12 * spread[-1]:
        raise DataError("the innovations of some sensors are a combination of the others': test fewer of them.")
    turned = unit @ axes / np.sqrt(spread) @ axes.T
    skewness, kurtosis = (turned**3).mean(0), (turned**4).mean(0)
    return float(np.sum(_skewness_score(skewness, n) ** 2 + _kurtosis_score(skewness, kurtosis, n) ** 2))


def _skewness_score(skewness: Floats, n: int) -> Floats:
    """Normal score of a sample skewness (D'Agostino 1970)."""
    beta = 3.0 * (n * n + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2.0) * (n + 5) * (n + 7) * (n + 9))
    square = np.sqrt(2.0 * (beta - 1.0)) - 1.0
    scale = 1.0 / np.sqrt(0.5 * np.log(square))
    return np.asarray(
        scale * np.arcsinh(skewness * np.sqrt((square - 1.0) / 2.0 * (n + 1) * (n + 3) / (6.0 * (n - 2))))
    )


def _kurtosis_score(skewness: Floats, kurtosis: Floats, n: int) -> Floats:
    """Normal score of a sample kurtosis given the skewness (Shenton & Bowman 1977; Wilson & Hilferty 1931)."""
    common = (n - 3.0) * (n + 1) * (n * n + 15 * n - 4)
    a = (n - 2.0) * (n + 5) * (n + 7) * (n * n + 27 * n - 70) / (6.0 * common)
    c = (n - 7.0) * (n + 5) * (n + 7) * (n * n + 2 * n - 5) / (6.0 * common)
    k = (n + 5.0) * (n + 7) * (n**3 + 37 * n * n + 11 * n - 313) / (12.0 * common)
    shape = a + skewness**2 * c
    gamma = (kurtosis - 1.0 - skewness**2) * 2.0 * k
    return np.asarray((np.cbrt(gamma / (2.0 * shape)) - 1.0 + 1.0 / (9.0 * shape)) * np.sqrt(9.0 * shape))


def portmanteau(values: Floats, lags: int) -> float:
    """Statistic of Hosking (1980) of rows (T, p), complete or blank; chi-squared with p^2 lags degrees of freedom."""
    whole = np.asarray(~np.isnan(values).any(1))
    n = int(whole.sum())
    centred = np.where(whole[:, None], values - values[whole].mean(0), 0.0)
    inverse = np.linalg.inv(centred.T @ centred / n)
    total = 0.0
    for lag in range(1, min(lags, n - 1) + 1):
        moment = centred[lag:].T @ centred[:-lag] / n
        total += np.trace(moment.T @ inverse @ moment @ inverse) / (n - lag)
    return float(n * n * total)


def _chi_squared(statistic: float, dof: int) -> tuple[float, float, float]:
    from scipy.special import chdtrc

    return statistic, float(dof), float(chdtrc(dof, statistic))
