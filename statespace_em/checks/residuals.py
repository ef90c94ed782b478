"""Tests of residuals, replicated data, calibration of probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import AnyArray, Floats
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import name_array, show


def residual_tests(residuals: xr.Dataset, *, lags: int = 10) -> pd.DataFrame:
    """Test that residuals are what they must be under a true model: uniform, normal and independent.

    Parameters
    ----------
    residuals
        What ``residuals(y)`` of a model returned; the sequences of a panel are tested together.
    lags
        Lags of the Ljung-Box tests.

    Returns
    -------
    pandas.DataFrame
        One row a column of y, and one for "all" of several columns; test statistics and p-values of

        ``kolmogorov``
            Kolmogorov-Smirnov distance of ``pit`` from uniform;
        ``anderson``
            Anderson & Darling (1952) of ``pit``, which weighs the tails; p-value by Marsaglia & Marsaglia (2004);
        ``ljung_box``, ``ljung_box_squares``
            Ljung & Box (1978) of ``residual`` and of its square (McLeod & Li 1983): what is left in the mean and in
            the variance. Of "all" columns there are none.

        Estimated parameters make the tests slightly too kind.

    Examples
    --------
    >>> import statespace_em as sse
    >>> quakes = sse.datasets.earthquakes()
    >>> one, three = (sse.PoissonHMM(k).fit(quakes).residuals(quakes) for k in (1, 3))
    >>> [sse.checks.residual_tests(each)["ljung_box_p"].item() < 0.01 for each in (one, three)]
    [True, False]
    """
    if not isinstance(residuals, xr.Dataset) or not {"pit", "residual"} <= set(residuals.data_vars):
        raise DataError("expected pit and residual: pass what residuals(y) of a model returned.")
    _validate.at_least("lags", lags, 1, whole=True)
    features = residuals["feature"].values.tolist()
    rows = {}
    for feature in features:
        uniform, normal = (residuals[name].sel(feature=feature).values for name in ("pit", "residual"))
        rows[feature] = {**_uniformity(uniform), **_independence(normal, lags)}
    if len(features) > 1:
        rows["all"] = _uniformity(residuals["pit"].values)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("feature")


def _uniformity(pit: Floats) -> dict[str, float]:
    from scipy import stats  # slow to import

    values = np.sort(pit[~np.isnan(pit)])
    n = len(values)
    if n < 2:
        raise DataError(f"there are {n} residuals, expected at least 2.")
    distance = stats.kstest(values, "uniform")
    inside = np.clip(values, 1e-300, 1.0 - 1e-16)
    order = 2.0 * np.arange(1, n + 1) - 1.0
    square = float(-n - (order * (np.log(inside) + np.log1p(-inside[::-1]))).mean())
    return {
        "n": n,
        "kolmogorov": float(distance.statistic),
        "kolmogorov_p": float(distance.pvalue),
        "anderson": square,
        "anderson_p": 1.0 - anderson_darling_cdf(square),
    }


def anderson_darling_cdf(square: float) -> float:
    """Limiting distribution function of the Anderson-Darling statistic (Marsaglia & Marsaglia 2004, function adinf).

    Its error is below 3e-5; for finite n the statistic is close to its limit already at n = 10.
    """
    if square <= 0.0:
        return 0.0
    if square < 2.0:
        poly = 2.00012 + _horner(square, (0.247105, -0.0649821, 0.0347962, -0.011672, 0.00168691))
        return float(np.exp(-1.2337141 / square) / np.sqrt(square) * poly)
    inner = 1.0776 + _horner(square, (-2.30695, 0.43424, -0.082433, 0.008056, -0.0003146))
    return float(np.exp(-np.exp(inner)))


def _horner(x: float, coefficients: tuple[float, ...]) -> float:
    """Polynomial with these coefficients of x, x^2, ..."""
    return float(np.polyval([*coefficients[::-1], 0.0], x))


def _independence(normal: Floats, lags: int) -> dict[str, float]:
    found = {}
    for name, values in (("ljung_box", normal), ("ljung_box_squares", normal**2)):
        found[name], found[f"{name}_p"] = ljung_box(values, lags)
    return found


def autocorrelation(values: Floats, lags: int) -> Floats:
    """Autocorrelations of lags 1, ..., ``lags`` of ([sequence,] time); pairs with a missing member are left out."""
    away = values - np.nanmean(values)
    variance = np.nansum(away**2)
    return np.array([np.nansum(away[..., lag:] * away[..., :-lag]) / variance for lag in range(1, lags + 1)])


def ljung_box(values: Floats, lags: int) -> tuple[float, float]:
    """Statistic and p-value of Ljung & Box (1978), from the chi-squared distribution with as many degrees as lags.

    ``values`` are ([sequence,] time). A correlation has the variance of its number of pairs, which are n - lag of one
    sequence without gaps; pairs within the sequences of a panel are pooled.
    """
    from scipy import stats  # slow to import

    n = int((~np.isnan(values)).sum())
    if n <= lags + 1:
        raise ParameterError(f"lags is {lags}, but there are {n} residuals: use fewer lags.")
    seen = ~np.isnan(values)
    pairs = np.array([(seen[..., lag:] & seen[..., :-lag]).sum() for lag in range(1, lags + 1)])
    if not pairs.all():
        raise ParameterError(
            f"lags is {lags}, but no two residuals are {np.argmin(pairs) + 1} rows apart: use fewer lags."
        )
    statistic = float(n * (n + 2.0) * (autocorrelation(values, lags) ** 2 / pairs).sum())
    return statistic, float(stats.chi2(lags).sf(statistic))


def predictive_check(
    model: Any,
    y: Any,
    statistics: Mapping[str, Callable[[Any], float]],
    *,
    n_replicates: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare statistics of y with those of data that the fitted model simulates.

    Parameters
    ----------
    model
        A fitted model.
    y
        One sequence or several; what is missing in it is missing in the replicates.
    statistics
        Functions by name, such as ``{"kurtosis": lambda y: scipy.stats.kurtosis(y[:, 0])}``: of an array (N, D), NaN =
        missing; of symbols an array of objects, None = missing; of several sequences a dict of such arrays by key.

    Returns
    -------
    pandas.DataFrame
        One row a statistic: ``observed``, ``mean``, ``lower`` and ``upper`` (2.5 and 97.5 per cent) of the replicates,
        and ``p_value``, two-sided: how often a replicate is as far out (Gelman, Meng & Stern 1996).

    Raises
    ------
    ParameterError
        If there are no statistics, or one of them does not return one number.

    Examples
    --------
    >>> import statespace_em as sse
    >>> quakes = sse.datasets.earthquakes()
    >>> model = sse.PoissonHMM(1).fit(quakes)
    >>> spread = {"variance": lambda y: y.var()}
    >>> sse.checks.predictive_check(model, quakes, spread)["p_value"].item() < 0.02   # Poisson: far too even
    True
    """
    _validate.at_least("n_replicates", n_replicates, 1, whole=True)
    if not isinstance(statistics, Mapping) or not statistics:
        raise ParameterError("statistics is empty or no dict: name at least one function of y.")
    known = model._known(None)
    batch, labels, symbols = model._read(y, known)
    blank: Any = np.nan if symbols is None else None

    def asked(draw: Callable[[int, slice], AnyArray]) -> dict[str, float]:
        parts = {}
        for which, (key, first, last) in enumerate(zip(labels.keys, batch.starts, batch.starts[1:])):
            rows = slice(int(first), int(last))
            parts[key] = np.where(np.isnan(batch.y[rows]), blank, draw(which, rows))
        whole = next(iter(parts.values())) if labels.sequence is None else parts
        return {name: _number(name, function(whole)) for name, function in statistics.items()}

    book = None if symbols is None else name_array([*symbols, None]).astype(object)  # missing codes take the last
    observed = asked(
        lambda _, rows: batch.y[rows] if book is None else book[np.nan_to_num(batch.y[rows], nan=-1).astype(int)]
    )
    rng = _validate.generator(seed)

    def simulated(which: int, rows: slice) -> AnyArray:
        drawn = model._simulate_like(labels, which, known, int(rng.integers(2**31)))["y"].values
        return np.asarray(drawn, dtype=float if book is None else object).reshape(batch.y[rows].shape)

    table = pd.DataFrame([asked(simulated) for _ in range(n_replicates)])
    seen = pd.Series(observed)
    below, above = (table <= seen).sum(), (table >= seen).sum()
    tail = (np.minimum(below, above) + 1.0) / (n_replicates + 1.0)
    return pd.DataFrame(
        {
            "observed": seen,
            "mean": table.mean(),
            "lower": table.quantile(0.025),
            "upper": table.quantile(0.975),
            "p_value": np.minimum(1.0, 2.0 * tail),
        }
    ).rename_axis("statistic")


def _number(name: str, value: Any) -> float:
    if np.size(value) != 1 or np.asarray(value).dtype.kind not in "biuf":
        raise ParameterError(f"the statistic {show(name)} returned {show(value)}, expected one number.")
    return float(np.asarray(value).item())


def calibration(probabilities: xr.DataArray, truth: Any, *, bins: int = 10) -> pd.DataFrame:
    """Compare probabilities of states with how often they were right, where the states are known.

    Parameters
    ----------
    probabilities
        (time, state), such as ``filter(y).filtered`` of simulated data.
    truth
        Names of the true states (time,).
    bins
        Number of bins of equal width.

    Returns
    -------
    pandas.DataFrame
        One row a bin with any probability in it, all states together: ``probability`` (mean), ``frequency`` with
        which the state was the true one, ``lower`` and ``upper`` limits of it (95 per cent, Wilson 1927; rows that
        follow each other are not independent, so take them as a guide), and the number ``n``.
    """
    _validate.at_least("bins", bins, 1, whole=True)
    if not isinstance(probabilities, xr.DataArray) or "state" not in probabilities.dims or probabilities.ndim != 2:
        raise DataError("probabilities are not (time, state) of one sequence: pass filtered, predicted or smoothed.")
    names = probabilities["state"].values.tolist()
    value = probabilities.transpose(..., "state").values
    known = np.asarray(truth, dtype=object).ravel().tolist()
    if len(known) != len(value):
        raise DataError(f"truth has {len(known)} rows, the probabilities {len(value)}: pass both of the same rows.")
    strange = [state for state in known if state not in names]
    if strange:
        raise DataError(f"truth holds {show(strange[0])}, which is not a state of the probabilities.")
    right = np.array([[state == name for name in names] for state in known])
    which = np.minimum((value * bins).astype(int), bins - 1).ravel()
    n = np.bincount(which, minlength=bins)
    used = n > 0
    count = np.bincount(which, right.ravel(), bins)[used]
    mean, n = np.bincount(which, value.ravel(), bins)[used] / n[used], n[used]
    frequency, z = count / n, 1.959963984540054
    centre = (frequency + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(frequency * (1 - frequency) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    edges = np.flatnonzero(used) / bins
    columns = {"probability": mean, "frequency": frequency, "lower": centre - half, "upper": centre + half, "n": n}
    return pd.DataFrame(columns, index=pd.IntervalIndex.from_arrays(edges, edges + 1 / bins, name="bin"))
