"""Is a Kalman filter consistent? Standardised innovations, NIS and NEES with their bands, gates, tests."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Bools, Floats
from statespace_em.checks.residuals import ljung_box
from statespace_em.errors import DataError
from statespace_em.labels import listed, show


@runtime_checkable
class Gates(Protocol):
    """A model whose filter can leave measurements out."""

    def left_out(
        self, y: Any, params: xr.Dataset | None = None, *, gate: float, by: Any = "row", inputs: Any = None
    ) -> xr.DataArray:
        """Which ones."""
        ...


KINDS = {"gamma": "cov", "filtered": "filtered_cov", "predicted": "predicted_cov"}  # means and their covariances


def standardised_innovations(known: xr.Dataset) -> xr.DataArray:
    """Innovations of a filter whitened by their covariance: independent and standard normal under a true model.

    Each row is solved with the Cholesky factor of the covariance of its observed entries, so that an entry stands
    for what it adds to those before it in its row (Durbin & Koopman 2012, sec. 7.5).

    Parameters
    ----------
    known
        What ``filter(y)`` of a linear-Gaussian model returned.

    Returns
    -------
    xarray.DataArray
        ([sequence,] time, feature), no units; NaN where y is missing, or nothing was known yet of a diffuse start.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> known = xr.Dataset({
    ...     "innovation": (("time", "feature"), [[2.0, np.nan]]),
    ...     "innovation_cov": (("time", "feature", "feature_aux"), [[[4.0, np.nan], [np.nan, np.nan]]]),
    ... })
    >>> standardised_innovations(known).values.tolist()
    [[1.0, nan]]
    """
    innovation, cov = _innovations(known)
    scores = _whitened(innovation.values, cov.values)
    return innovation.copy(data=scores).rename("standardised_innovation").assign_attrs(conditioning="1:t-1")


def nis(known: xr.Dataset, *, level: float = 0.95) -> xr.Dataset:
    """Normalised innovation squared of every row, with the band it keeps under a true model.

    Parameters
    ----------
    known
        What ``filter(y)`` of a linear-Gaussian model returned.
    level
        Probability of a band.

    Returns
    -------
    xarray.Dataset
        ``nis`` ([sequence,] time), chi-squared with ``dof`` degrees of freedom (the observed entries) under the
        model, NaN in a blank row, and its central band ``lower``, ``upper``. ``average`` ([sequence]) is the sum over
        rows per degree of freedom, near 1, with ``average_lower``, ``average_upper``: rows are independent under the
        model (Bar-Shalom, Li & Kirubarajan 2001, sec. 5.4). Estimated parameters make it slightly too kind.

    Examples
    --------
    >>> import statespace_em as sse
    >>> model = sse.LinearGaussianSSM(["level"])
    >>> level = model.parameters(
    ...     transition=[[1]], observation=[[1]], process_cov=[[1469]], measurement_cov=[[15099]],
    ...     initial_mean=[1000], initial_cov=[[1e5]],
    ... )
    >>> found = nis(model.filter(sse.datasets.nile(), level))
    >>> bool(found.average_lower < found.average < found.average_upper)
    True
    """
    innovation, cov = _innovations(known)
    scores = _whitened(innovation.values, cov.values)
    time = _time(innovation, "feature")
    return _consistency("nis", scores, innovation.isel(feature=0, drop=True), time, level)


def nees(posterior: xr.Dataset, truth: Any, *, level: float = 0.95) -> xr.Dataset:
    """Normalised estimation error squared of every row against a known truth, with its band under a true model.

    Parameters
    ----------
    posterior
        The result of ``filter`` (filtered and filtered_cov), ``e_step`` (gamma and cov).
    truth
        True states: a DataArray with a ``state`` dim or a DataFrame, whose columns name states (some or all), or an
        array ([sequence,] time, state) of all. NaN where not known: the entry is left out.
    level
        Probability of a band.

    Returns
    -------
    xarray.Dataset
        ``nees``, ``dof``, ``lower``, ``upper`` ([sequence,] time); ``average`` per degree of freedom with
        ``average_lower`` and ``average_upper``: over the sequences at each time where there are several (independent
        runs), else over time. The errors of successive rows depend on each other, so the band of an average over
        time is too narrow; that over runs is exact.

    Raises
    ------
    DataError
        If the truth has other rows, or names what is no state.
    """
    name = next((name for name in KINDS if name in posterior and KINDS[name] in posterior), None)
    if name is None:
        raise DataError(
            f"the posterior has no states with covariances, only {listed(posterior.data_vars)}: pass the e_step or the "
            "filter of a linear-Gaussian model."
        )
    mean, cov = posterior[name].transpose(..., "state"), posterior[KINDS[name]].transpose(..., "state", "state_aux")
    error, places = _errors(mean, truth)
    scores = _whitened(error, cov.values[..., places, :][..., places])
    time = _time(mean, "state")
    over = str(mean.dims[0]) if mean.ndim == 3 else time
    return _consistency("nees", scores, mean.isel(state=0, drop=True), over, level)


def gate(known: xr.Dataset, *, level: float = 0.997, by: str = "row") -> xr.DataArray:
    """Which measurements lie outside their gate: further from the prediction than a share ``level`` under the model.

    An outlier that entered the filter bends the predictions after it, and these rows are judged too: see `gated` for
    a filter that leaves out what it has gated.

    Parameters
    ----------
    known
        What ``filter(y)`` of a linear-Gaussian model returned.
    level
        Probability of the gate: the share of good measurements that pass.
    by
        "row": all entries of a row together, by their NIS; "feature": each sensor by its own variance.

    Returns
    -------
    xarray.DataArray
        bool ([sequence,] time) or ([sequence,] time, feature); False where nothing was measured.
    """
    from scipy.special import chdtri

    _validate.probability("level", level)
    _validate.one_of("by", by, ("row", "feature"))
    if by == "row":
        found = nis(known)
        with np.errstate(invalid="ignore"):
            outside = found["nis"].values > chdtri(np.maximum(found["dof"].values, 1), 1.0 - level)
        return found["nis"].copy(data=outside).rename("outside")
    innovation, cov = _innovations(known)
    variance = np.diagonal(cov.values, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        outside = innovation.values**2 > chdtri(1, 1.0 - level) * variance
    return innovation.copy(data=outside).rename("outside")


def gated(
    model: Any, y: Any, params: xr.Dataset | None = None, *, level: float = 0.997, by: str = "row", inputs: Any = None
) -> xr.DataArray:
    """Which measurements a filter with a gate leaves out: each is judged by the good ones before it, in one pass.

    The gate opens once the rows have determined a diffuse start. Leave what is outside out of any question with
    ``y.where(~outside)``; ``model.filter(y, gate=level)`` has the states as well. A gate fitted to its own decisions
    cuts tails: estimate noises with `robust.fit_student` rather.

    Parameters
    ----------
    model, y, params
        A linear-Gaussian model, numbers of one sequence or of several, and parameters (those of the fit unless given).
    level, by
        As of `gate`; ``by`` may also be "sensor": all entries of a sensor of a model of motion together.
    inputs
        Of a model that has some, as of ``model.filter``.

    Returns
    -------
    xarray.DataArray
        bool ([sequence,] time) or, by feature or sensor, ([sequence,] time, feature).

    Examples
    --------
    >>> import statespace_em as sse
    >>> radar = sse.datasets.radar()
    >>> model = sse.designs.constant_velocity(["east", "north"], density=0.3, noise=625.0).fit(radar["measured"])
    >>> outside = gated(model, radar["measured"])
    >>> int((outside & radar["outlier"]).sum()), int(radar["outlier"].sum()), int((outside & ~radar["outlier"]).sum())
    (16, 16, 1)
    """
    _validate.probability("level", level)
    if not isinstance(model, Gates):
        raise DataError(
            f"{type(model).__name__} has no Kalman filter to put a gate into: pass a linear-Gaussian model."
        )
    return model.left_out(y, params, gate=level, by=by, inputs=inputs)


def innovation_tests(known: xr.Dataset, *, lags: int = 10) -> pd.DataFrame:
    """Test that standardised innovations are independent, normal and of constant variance.

    Parameters
    ----------
    known
        What ``filter(y)`` of a linear-Gaussian model returned for one sequence.
    lags
        Lags of the Ljung-Box test.

    Returns
    -------
    pandas.DataFrame
        One row a feature: ``n``, and statistics with p-values of

        ``ljung_box``
            serial correlation (Ljung & Box 1978), chi-squared with as many degrees of freedom as lags;
        ``jarque_bera``
            skewness and kurtosis against those of a normal (Jarque & Bera 1980), chi-squared with 2;
        ``heteroscedasticity``
            sum of squares over the last third of the rows by that over the first third (Durbin & Koopman 2012,
            sec. 2.12.1), counted from the first that has an innovation; F distributed, two-sided.

        The formulas are those of statsmodels (``test_serial_correlation``, ``test_normality``,
        ``test_heteroskedasticity``).

    Examples
    --------
    >>> import statespace_em as sse
    >>> model = sse.LinearGaussianSSM(["level"])
    >>> level = model.parameters(
    ...     transition=[[1]], observation=[[1]], process_cov=[[1469]], measurement_cov=[[15099]],
    ...     initial_mean=[1000], initial_cov=[[1e5]],
    ... )
    >>> table = innovation_tests(model.filter(sse.datasets.nile(), level))
    >>> bool((table.filter(like="_p") > 0.05).all(axis=None))
    True
    """
    scores = standardised_innovations(known)
    if scores.ndim != 2:
        raise DataError("the filter is of several sequences: test them one by one, known.sel(sequence=...).")
    _validate.at_least("lags", lags, 1, whole=True)
    names = scores["feature"].values.tolist()
    found = {name: _tests(values, lags) for name, values in zip(names, scores.values.T)}
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("feature")


def _tests(values: Floats, lags: int) -> dict[str, float]:
    from scipy import stats  # slow to import

    seen = values[~np.isnan(values)]
    n = len(seen)
    if n < 9:
        raise DataError(f"a feature has {n} innovations, expected at least 9 to test them.")
    serial, serial_p = ljung_box(values, lags)
    normal = stats.jarque_bera(seen)
    ratio, _, ratio_p = variance_ratio(values)
    return {
        "n": n,
        "ljung_box": serial,
        "ljung_box_p": serial_p,
        "jarque_bera": float(normal.statistic),
        "jarque_bera_p": float(normal.pvalue),
        "heteroscedasticity": ratio,
        "heteroscedasticity_p": ratio_p,
    }


def variance_ratio(values: Floats) -> tuple[float, float, float]:
    """Sum of squares of the last third of the rows (T[, p]) by that of the first, by entry; its dof, and p.

    Rows count from the first that has an innovation: a diffuse start has none (Durbin & Koopman 2012, sec. 2.12.1).
    """
    from scipy.special import fdtr, fdtrc

    known = values[np.argmax(~np.isnan(values).reshape(len(values), -1).all(1)) :]
    third = round(len(known) / 3)
    first, last = (part[~np.isnan(part)] for part in (known[:third], known[len(known) - third :]))
    if not len(first) or not len(last):
        return np.nan, float(len(last)), np.nan
    ratio = float(np.mean(last**2) / np.mean(first**2))
    degrees = len(last), len(first)
    return ratio, float(len(last)), 2.0 * min(float(fdtr(*degrees, ratio)), float(fdtrc(*degrees, ratio)))


# shared


def _innovations(known: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    if not isinstance(known, xr.Dataset) or not {"innovation", "innovation_cov"} <= set(known.data_vars):
        raise DataError(
            "expected innovation and innovation_cov: pass what filter(y) of a linear-Gaussian model returned."
        )
    innovation = known["innovation"].transpose(..., "feature")
    return innovation, known["innovation_cov"].transpose(..., "feature", "feature_aux")


def _time(array: xr.DataArray, last: str) -> str:
    return str(next(dim for dim in reversed(array.dims) if dim != last))


def _whitened(values: Floats, cov: Floats) -> Floats:
    """Solve rows (..., D) with the Cholesky factor of the covariance of their finite entries; NaN elsewhere."""
    seen: Bools = np.isfinite(values) & np.isfinite(np.diagonal(cov, axis1=-2, axis2=-1))
    alone = np.eye(values.shape[-1])
    root = np.linalg.cholesky(np.where(seen[..., :, None] & seen[..., None, :], cov, alone))
    scores = np.linalg.solve(root, np.where(seen, values, 0.0)[..., None])[..., 0]
    return np.where(seen, scores, np.nan)


def _consistency(name: str, scores: Floats, like: xr.DataArray, over: str, level: float) -> xr.Dataset:
    """Sums of squares of every row with their bands, and their average over a dim."""
    from scipy.special import chdtri

    _validate.probability("level", level)
    dof = (~np.isnan(scores)).sum(-1)
    square = np.where(dof > 0, np.nansum(scores**2, -1), np.nan)
    tail = (1.0 - level) / 2.0

    def band(degrees: Floats) -> tuple[Floats, Floats]:
        known = np.maximum(degrees, 1)
        return tuple(np.where(degrees > 0, chdtri(known, p), np.nan) for p in (1.0 - tail, tail))  # type: ignore[return-value]

    lower, upper = band(dof)
    rows = {name: square, "dof": dof, "lower": lower, "upper": upper}
    found = xr.Dataset({key: like.copy(data=value).drop_attrs() for key, value in rows.items()})
    total, degrees = found[name].sum(over), found["dof"].sum(over)
    with np.errstate(invalid="ignore", divide="ignore"):
        limits = [each / degrees.values for each in band(degrees.values)]
        found["average"] = total.copy(data=np.where(degrees > 0, total.values / degrees.values, np.nan))
    found["average_lower"], found["average_upper"] = (degrees.copy(data=value) for value in limits)
    for variable in found.data_vars:
        found[variable].attrs["description"] = f"{name} and its {100 * level:.4g} % band under a true model"
    return found


def _errors(mean: xr.DataArray, truth: Any) -> tuple[Floats, list[int]]:
    """Errors (..., known states) and the places of these states."""
    names = mean["state"].values.tolist()
    if isinstance(truth, pd.DataFrame):
        truth = xr.DataArray(truth.to_numpy(dtype=float), dims=("time", "state"), coords={"state": list(truth.columns)})
    if isinstance(truth, xr.DataArray):
        if "state" not in truth.dims:
            raise DataError(
                f"the truth has dims {truth.dims}, expected state among them: rename the one with the columns."
            )
        columns = truth.indexes["state"].tolist() if "state" in truth.indexes else names
        values = truth.transpose(..., "state").values
    elif isinstance(truth, xr.Dataset):
        raise DataError(f"the truth is a Dataset of {listed(truth.data_vars)}: pass the array (time, state) in it.")
    else:
        values, columns = np.asarray(truth, dtype=float), names
    strange = [column for column in columns if column not in names]
    if strange:
        raise DataError(f"the truth has a column {show(strange[0])}, but the states are {listed(names)}.")
    wanted = (*mean.shape[:-1], len(columns))
    if values.shape != wanted:
        raise DataError(f"the truth has shape {values.shape}, expected {wanted}: a row for each row of the posterior.")
    places = [names.index(column) for column in columns]
    return values - mean.values[..., places], places
