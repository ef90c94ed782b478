"""What regimes mean for returns: a table for each regime, and the moments of tomorrow blended over them."""

from __future__ import annotations

import warnings
from numbers import Real
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.errors import DataError, DataWarning, ParameterError
from statespace_em.labels import listed, show

DAYS_A_YEAR = 365.2425
UNITS = {
    "mean": "a year; for log returns of the log of wealth",
    "volatility": "a year, by the square root of time",
    "sharpe": "a year; mean less the risk-free rate over volatility",
    "max_drawdown": "share of the highest wealth before it",
    "share": "of the rows",
    "expected_duration": "rows; 1 / (1 - probability to stay)",
    "empirical_duration": "rows; mean length of the episodes",
    "n_episodes": "runs of rows at which the regime is the most probable one",
    "turnover": "a year; sum of the absolute changes of the probability",
}


def report(
    returns: Any,
    probabilities: xr.DataArray,
    *,
    kind: Literal["log", "simple"] = "log",
    unit: Literal["fraction", "percent"] = "fraction",
    periods_per_year: float | None = None,
    risk_free: float = 0.0,
    params: xr.Dataset | None = None,
) -> pd.DataFrame:
    """Describe the returns of every regime, weighted by its probabilities.

    Which probabilities is up to you and changes the answer: ``filter(y).filtered`` is what was known on the day,
    ``filter(y).predicted`` what was known the day before and could have been traded, ``smooth(y).smoothed`` is
    hindsight. ``attrs`` of the table says which it was.

    Parameters
    ----------
    returns
        One column, one row a period; NaN = missing.
    probabilities
        Of the regimes (time, state), for the same rows.
    kind, unit
        "log" or "simple" returns, as fractions (0.01 is one per cent) or in per cent.
    periods_per_year
        Rows in a year; by default rows over years between the first and the last date.
    risk_free
        Rate a year, in the unit and kind of the returns.
    params
        Parameters, for the expected duration; without them it is NaN.

    Returns
    -------
    pandas.DataFrame
        One row a state: ``mean``, ``volatility`` and ``sharpe`` a year, of rows weighted by the probability of the
        state: the mean of a row times ``periods_per_year``, its standard deviation (squares divided by the sum of the
        weights) times the root of it, and (mean - risk_free) / volatility; rows without a return count in neither;
        ``max_drawdown`` of an account that holds the asset in proportion to that probability and cash without
        interest for the rest; ``share`` of rows; ``expected_duration``, ``empirical_duration``, ``n_episodes``,
        ``turnover``. ``attrs["units"]`` has the unit of each, moments in the unit of the returns.

    Examples
    --------
    >>> import statespace_em as sse
    >>> returns = sse.datasets.stocks()["log_return"]["IBM"]
    >>> model = sse.GaussianHMM(["calm", "stress"]).fit(returns)
    >>> table = sse.regimes.report(returns, model.filter(returns).filtered, params=model.params_)
    >>> table[["volatility", "share"]].round(2).to_dict("index")["stress"]
    {'volatility': 0.46, 'share': 0.29}
    """
    _validate.one_of("kind", kind, ("log", "simple"))
    _validate.one_of("unit", unit, ("fraction", "percent"))
    if not isinstance(risk_free, Real) or not np.isfinite(risk_free):
        raise ParameterError(f"risk_free is {show(risk_free)}, expected a rate a year, in the unit of the returns.")
    weight, names, index = _weights(probabilities)
    per_year = _per_year(index, periods_per_year)
    values = _column(returns, index)
    scale = 100.0 if unit == "percent" else 1.0
    simple = np.expm1(values / scale) if kind == "log" else values / scale
    if (simple < -1.0).any():
        worst = values[np.nanargmin(simple)]
        raise DataError(f"a simple return of {worst:g} loses more than everything: pass unit='percent' or kind='log'.")
    _check_size(values / scale)
    seen = ~np.isnan(values)
    total = np.where(seen[:, None], weight, 0.0).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        filled = np.where(seen, values, 0.0)
        mean = (weight * filled[:, None]).sum(0) / total
        away = np.where(seen[:, None], filled[:, None] - mean, 0.0)
        volatility = np.sqrt((weight * away**2).sum(0) / total * per_year)
        mean = mean * per_year
        sharpe = (mean - risk_free) / volatility
    lengths = _episodes(weight)
    moves = np.abs(np.diff(weight, axis=0)).sum(0)
    columns = {
        "mean": mean,
        "volatility": volatility,
        "sharpe": sharpe,
        "max_drawdown": [_drawdown(np.where(seen, simple, 0.0) * w) for w in weight.T],
        "share": weight.mean(0),
        "expected_duration": _expected(params, names),
        "empirical_duration": [np.mean(own) if len(own) else np.nan for own in lengths],
        "n_episodes": [len(own) for own in lengths],
        "turnover": moves * per_year / len(weight),
    }
    table = pd.DataFrame(columns, index=pd.Index(names, name="state"))
    table.attrs = {
        "conditioning": str(probabilities.attrs.get("conditioning", "unknown")),
        "returns": f"{kind}, {unit}",
        "periods_per_year": per_year,
        "units": UNITS,
    }
    return table


def blended_moments(params: xr.Dataset, probabilities: xr.DataArray) -> xr.Dataset:
    """Mean and covariance of a row whose regime is known in probability only, as of tomorrow's returns.

    The covariance is that within the regimes plus that between their means, not the average of the covariances.

    Parameters
    ----------
    params
        Of a model with ``mean`` and ``cov`` or ``var``.
    probabilities
        (state), or with further dims; such as ``forecast(y, 1).predicted`` or ``filter(y).predicted``.

    Returns
    -------
    xarray.Dataset
        ``mean`` (..., feature) and ``cov`` (..., feature, feature_aux), in units of y and their squares; NaN where
        the probabilities are, as past the end of the shorter sequences of a panel.

    Examples
    --------
    >>> import statespace_em as sse
    >>> returns = 100 * sse.datasets.stocks()["log_return"][["IBM", "MSFT"]]
    >>> model = sse.GaussianHMM(["calm", "stress"]).fit(returns)
    >>> tomorrow = sse.regimes.blended_moments(model.params_, model.forecast(returns, 1).predicted)
    >>> tomorrow["cov"].dims
    ('horizon', 'feature', 'feature_aux')
    """
    if not isinstance(params, xr.Dataset) or "mean" not in params or not {"cov", "var"} & set(params.data_vars):
        raise ParameterError("params have no mean with cov or var: pass the params_ of a Gaussian model.")
    if not isinstance(probabilities, xr.DataArray) or "state" not in probabilities.dims:
        raise DataError("probabilities have no dim 'state': pass predicted of filter or forecast.")
    have, asked = params["state"].values.tolist(), probabilities["state"].values.tolist()
    if set(have) != set(asked):
        raise ParameterError(f"the parameters are of states {listed(have)}, the probabilities of {listed(asked)}.")
    total = probabilities.sum("state", skipna=False)
    if bool(((np.abs(total - 1.0) > 1e-6) | (probabilities < 0.0).any("state")).any()):
        raise DataError("probabilities do not sum to 1 over the states: pass predicted of filter or forecast.")
    mean = params["mean"]
    if "cov" in params:
        within = params["cov"]
    else:
        same = xr.DataArray(
            np.eye(mean.sizes["feature"]), {"feature": mean["feature"].values, "feature_aux": mean["feature"].values}
        )
        within = params["var"] * same
    middle = (probabilities * mean).sum("state", skipna=False)
    away = mean - middle
    outer = away * away.rename(feature="feature_aux")
    cov = (probabilities * (within + outer)).sum("state", skipna=False)
    lead = [dim for dim in probabilities.dims if dim != "state"]
    found = {"mean": middle.transpose(*lead, "feature"), "cov": cov.transpose(*lead, "feature", "feature_aux")}
    return xr.Dataset({name: value.assign_attrs(probabilities.attrs) for name, value in found.items()})


def _weights(probabilities: xr.DataArray) -> tuple[Floats, list[Any], pd.Index]:
    if not isinstance(probabilities, xr.DataArray) or "state" not in probabilities.dims or probabilities.ndim != 2:
        raise DataError(
            "probabilities are not (time, state) of one sequence: pass filtered, predicted or smoothed ones: "
            "filter(y).filtered or .predicted, or e_step(y).gamma."
        )
    time = next(str(dim) for dim in probabilities.dims if dim != "state")
    if "length" in probabilities.coords and probabilities["length"].ndim == 0:  # one of ragged sequences
        probabilities = probabilities.isel({time: slice(int(probabilities["length"]))})
    weight = np.asarray(probabilities.transpose(time, "state").values, dtype=float)
    if not np.allclose(weight.sum(1), 1.0, atol=1e-6) or (weight < 0.0).any():
        raise DataError("probabilities do not sum to 1 over the states at every time.")
    index = probabilities.indexes.get(time, pd.RangeIndex(len(weight)))
    if time not in probabilities.indexes and "timestamp" in probabilities.coords:
        index = pd.Index(probabilities["timestamp"].values)
    return weight, probabilities["state"].values.tolist(), index


def _column(returns: Any, index: pd.Index) -> Floats:
    """Values of the returns, whose labels, if they have any, must be those of the probabilities."""
    try:
        values = np.asarray(returns, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"returns are not numbers ({error}): pass numbers, NaN where missing.") from None
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        raise DataError(f"returns have shape {values.shape}, expected one column: report them one by one.")
    if len(values) != len(index):
        raise DataError(f"returns have {len(values)} rows, the probabilities {len(index)}: pass both of the same rows.")
    given: Any = returns.index if isinstance(returns, pd.Series | pd.DataFrame) else None
    if isinstance(returns, xr.DataArray):
        given = returns.indexes.get(returns.dims[0])
    if given is not None:
        apart = np.flatnonzero(given != index)
        if len(apart):
            there, here = show(given[apart[0]]), show(index[apart[0]])
            raise DataError(f"row {apart[0]} is {there} in the returns and {here} in the probabilities: align them.")
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        row = infinite[0]
        raise DataError(f"the return of {show(index[row])} is {values[row]:g}: mark it missing, NaN, or correct it.")
    return values


def _check_size(fractions: Floats) -> None:
    """Warn of returns whose typical size multiplies wealth by e in a row: per cent that were not called so."""
    seen = fractions[~np.isnan(fractions)]
    if len(seen) and (size := float(np.sqrt(np.mean(seen**2)))) > 1.0:
        warnings.warn(
            f"the root mean square of the returns is {size:.3g}, {100 * size:.3g} per cent a row: if they are in per "
            "cent, pass unit='percent'; drawdowns mean nothing otherwise.",
            DataWarning,
            stacklevel=3,
        )


def _per_year(index: pd.Index, given: float | None) -> float:
    if given is not None:
        _validate.at_least("periods_per_year", given, 1e-300)
        return float(given)
    dates = index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
    if not isinstance(dates, pd.DatetimeIndex) or len(dates) < 2:
        raise ParameterError("periods_per_year cannot be told without dates: give it, as 252 for trading days.")
    days = (dates[-1] - dates[0]) / pd.Timedelta("1D")
    if not days > 0.0:
        raise DataError(f"all rows are of {show(dates[0])}: give periods_per_year.")
    return float((len(dates) - 1) * DAYS_A_YEAR / days)


def _episodes(weight: Floats) -> list[list[int]]:
    """Lengths of the runs of each state among the most probable ones."""
    path = weight.argmax(1)
    begins = np.flatnonzero(np.append(True, path[1:] != path[:-1]))
    lengths = np.diff(np.append(begins, len(path)))
    return [lengths[path[begins] == k].tolist() for k in range(weight.shape[1])]


def _drawdown(simple: Floats) -> float:
    wealth = np.cumprod(np.append(1.0, 1.0 + simple))
    return float((1.0 - wealth / np.maximum.accumulate(wealth)).max())


def _expected(params: xr.Dataset | None, names: list[Any]) -> Floats:
    if params is None:
        return np.full(len(names), np.nan)
    if not isinstance(params, xr.Dataset):
        raise ParameterError(f"params is of type {type(params).__name__}: pass the params_ of a fitted model.")
    have = params["state"].values.tolist()
    if have != names or "transition" not in params:
        raise ParameterError(f"the parameters are of states {listed(have)}, the probabilities of {listed(names)}.")
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / (1.0 - np.diag(params["transition"].transpose("state", "next_state").values)))
