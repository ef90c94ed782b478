"""Reading what the user passes: observations, posteriors, parameters; and saying what is wrong with it."""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from statespace_em.errors import DataError
from statespace_em.plotting._style import TimeAxis, time_axis

Floats = npt.NDArray[np.float64]
_KINDS = {"1:T": "smoothed", "1:t": "filtered", "1:t-1": "predicted", "after T": "forecast"}
_KIND_OF_NAME = {"gamma": "smoothed", "smoothed": "smoothed", "filtered": "filtered", "predicted": "predicted"}
_EXPLAINED = {
    "smoothed": "with hindsight, data 1:T",
    "filtered": "known at the time, data 1:t",
    "predicted": "known one step before, data 1:t-1",
    "forecast": "after the last row, data 1:T",
}


class Observed(NamedTuple):
    """Observations as columns of numbers."""

    values: Floats  # (N, D), NaN = missing; position in symbols for text
    columns: tuple[Hashable, ...]
    symbols: tuple[tuple[Hashable, ...] | None, ...]  # per column: the symbols, None for numbers
    labels: pd.Index | None  # (N,), the user's times
    units: Mapping[Hashable, str]  # of the columns, and of time under its name, where attributes tell them

    def unit_of(self, feature: Hashable) -> str:
        """Unit of a feature of the model; that of all columns where names differ."""
        return self.units.get(feature, self.units.get("", ""))


class Latent(NamedTuple):
    """States given data: probabilities of an HMM, or means with covariances of a linear-Gaussian model."""

    mean: Floats  # (N, K)
    cov: Floats | None  # (N, K, K)
    states: tuple[Hashable, ...]
    labels: pd.Index | None  # (N,), the user's times
    time: str
    kind: str  # smoothed, filtered, predicted or ""
    panel: bool

    @property
    def explained(self) -> str:
        """Which data the states are conditioned on, in words."""
        return _EXPLAINED.get(self.kind, "")


def listed(names: Iterable[Hashable]) -> str:
    """Names as they read in a message, at most twelve of them."""
    names = list(names)
    shown = ", ".join(repr(name.item() if isinstance(name, np.generic) else name) for name in names[:12])
    return f"[{shown}{', ...' if len(names) > 12 else ''}]"


def title(latent: Latent, what: str) -> str:
    """For instance 'Filtered probabilities: known at the time, data 1:t'."""
    if not latent.kind:
        return what[:1].upper() + what[1:]
    return f"{latent.kind.capitalize()} {what}: {latent.explained}"


def whose(sequence: Hashable | None) -> str:
    """Say in a title which sequence of a panel is shown."""
    return "" if sequence is None else f" of {sequence}"


def choose(wanted: Any, allowed: Iterable[Hashable], what: str) -> list[Hashable]:
    """Return the wanted name or names, checked against the allowed ones; None means all."""
    allowed = list(allowed)
    if wanted is None:
        return allowed
    names = list(wanted) if isinstance(wanted, (list, tuple, np.ndarray, pd.Index)) else [wanted]
    for name in names:
        if name not in allowed:
            raise DataError(f"{what} {name!r} does not exist; choose from {listed(allowed)}")
    return names


def as_observed(y: Any, *, sequence: Hashable | None = None) -> Observed:
    """Observations from a Series, DataFrame, DataArray, array, or a dict of them with ``sequence``."""
    own = _one_sequence(y, sequence)
    frame = _as_frame(own)
    values: list[Floats] = []
    symbols: list[tuple[Hashable, ...] | None] = []
    for position in range(frame.shape[1]):
        column = frame.iloc[:, position]
        if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
            values.append(column.to_numpy(float, na_value=np.nan))
            symbols.append(None)
        else:
            categorical = pd.Categorical(column)
            values.append(np.where(categorical.codes < 0, np.nan, categorical.codes))
            symbols.append(tuple(categorical.categories))
    stacked = np.column_stack(values) if values else np.empty((len(frame), 0))
    plain = isinstance(frame.index, pd.RangeIndex) and frame.index.start == 0 and frame.index.step == 1
    index = None if plain else _plain_index(frame.index)
    return Observed(
        np.asarray(stacked, float), tuple(frame.columns), tuple(symbols), index, units_of(own, frame.columns)
    )


def units_of(y: Any, columns: Iterable[Hashable]) -> dict[Hashable, str]:
    """Units that ``attrs["units"]`` of y, or of its sequences, and of its time tell; that of all columns under ""."""
    if (
        isinstance(y, Mapping | list) and not isinstance(y, xr.Dataset) and len(y)
    ):  # of sequences: in the units of the first
        y = next(iter(y.values() if isinstance(y, Mapping) else y))
    told = getattr(y, "attrs", {}).get("units")
    found: dict[Hashable, str] = {}
    if isinstance(told, Mapping):
        found |= {name: str(told[name]) for name in columns if name in told}
    elif isinstance(told, str) and told:
        found[""] = told
    if isinstance(y, xr.DataArray):
        found |= {name: str(coord.attrs["units"]) for name, coord in y.coords.items() if "units" in coord.attrs}
    return found


def _one_sequence(y: Any, sequence: Hashable | None) -> Any:
    if isinstance(y, Mapping) and not isinstance(y, (xr.Dataset, pd.DataFrame)):
        return y[_check_sequence(sequence, y.keys())]
    if isinstance(y, xr.DataArray) and ("sequence" in y.dims or y.ndim == 3):
        return one_sequence(y, "sequence" if "sequence" in y.dims else str(y.dims[0]), sequence)
    if isinstance(y, (pd.Series, pd.DataFrame)) and isinstance(y.index, pd.MultiIndex):
        return y.xs(_check_sequence(sequence, y.index.unique(0)), level=0)
    if isinstance(y, list) and y and np.ndim(y[0]) > 0 and sequence is not None:
        return y[_check_sequence(sequence, range(len(y)))]
    return y


def _check_sequence(sequence: Hashable | None, keys: Iterable[Hashable]) -> Any:
    keys = list(keys)
    if sequence is None:
        raise DataError(f"there are {len(keys)} sequences, a figure shows one; pass sequence= one of {listed(keys)}")
    if sequence not in keys:
        raise DataError(f"sequence {sequence!r} does not exist; choose from {listed(keys)}")
    return sequence


def _as_frame(y: Any) -> pd.DataFrame:
    if isinstance(y, pd.DataFrame):
        return y
    if isinstance(y, pd.Series):
        return y.to_frame("y" if y.name is None else y.name)
    if isinstance(y, xr.DataArray):
        if y.ndim == 2 and "feature" in y.dims:
            y = y.transpose(..., "feature")
        if y.ndim in (1, 2):
            index = y.indexes.get(y.dims[0])
            if y.ndim == 1:
                return pd.DataFrame({y.name or "y": y.values}, index=index)
            return pd.DataFrame(y.values, index=index, columns=y.indexes.get(y.dims[1]))
    if isinstance(y, xr.Dataset):
        raise DataError(f"y is a Dataset with variables {listed(y.data_vars)}; pass one of them, such as y['y']")
    array = np.asarray(y)
    if array.ndim not in (1, 2) or (array.dtype == object and array.ndim == 0):
        raise DataError(f"y has {array.ndim} dimensions, expected (time,) or (time, feature)")
    return pd.DataFrame({"y": array}) if array.ndim == 1 else pd.DataFrame(array)


def _plain_index(index: pd.Index) -> pd.Index:
    """Timestamps without zone for periods, dates and zoned timestamps; the rest as it is."""
    if isinstance(index, pd.PeriodIndex):
        return index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex):
        return index.tz_localize(None)
    if index.dtype == object and len(index):
        if all(isinstance(label, datetime.date) for label in index):
            return pd.DatetimeIndex(index)
        if all(isinstance(label, pd.Period) for label in index):
            return pd.PeriodIndex(index).to_timestamp()
    return index


def as_latent(posterior: Any, *, sequence: Hashable | None = None) -> Latent:
    """Read the state variable of an e_step or filter Dataset, or one such DataArray."""
    array, cov = _state_variable(posterior)
    others = sorted((str(dim) for dim in array.dims if dim != "state"), key=lambda dim: dim != "sequence")
    if "state" not in array.dims or len(others) not in (1, 2):
        raise DataError(f"{array.name} has dims {array.dims}, expected ([sequence,] time, state)")
    time, panel = others[-1], len(others) == 2
    if panel:
        array = one_sequence(array, others[0], sequence)
        cov = None if cov is None else one_sequence(cov, others[0], sequence)
    elif sequence is not None:
        raise DataError(f"sequence={sequence!r} given, but {array.name} has one sequence only; leave it out")
    index = time_labels(array, time)
    given = str(array.attrs.get("conditioning"))
    if array.name == "predicted" and given == "1:T":  # of a forecast: rows after the last
        given = "after T"
    by_name = "" if given.startswith("1:t+") else _KIND_OF_NAME.get(str(array.name), "")  # a fixed lag is none of them
    kind = _KINDS.get(given, by_name)
    return Latent(
        mean=array.transpose(time, "state").values.astype(float),
        cov=None if cov is None else cov.transpose(time, "state", "state_aux").values.astype(float),
        states=tuple(array.indexes.get("state", pd.RangeIndex(array.sizes["state"]))),
        labels=index,
        time=time,
        kind=kind,
        panel=panel,
    )


def time_labels(array: xr.DataArray, time: str) -> pd.Index | None:
    """Labels of the rows of one sequence, if they have any."""
    index = array.indexes.get(time)
    if index is None and "timestamp" in array.coords:  # sequences that do not share their times
        index = pd.Index(array.coords["timestamp"].values)
    return None if index is None else _plain_index(index)


def _state_variable(posterior: Any) -> tuple[xr.DataArray, xr.DataArray | None]:
    if isinstance(posterior, xr.DataArray):
        return posterior, None
    if not isinstance(posterior, xr.Dataset):
        raise DataError(f"posterior is a {type(posterior).__name__}; pass the Dataset of e_step or filter")
    for name in _KIND_OF_NAME:
        if name in posterior:
            cov_name = "cov" if name == "gamma" else f"{name}_cov"
            return posterior[name], posterior.get(cov_name)
    raise DataError(
        "posterior has no gamma, filtered or predicted: "
        f"the Dataset has variables {listed(posterior.data_vars)}; pass the result of e_step or filter"
    )


def one_sequence(panel: xr.DataArray, dim: str, sequence: Hashable | None) -> xr.DataArray:
    """Select one sequence of a panel and cut off the padding; the time dim is the first that remains."""
    keys = panel.indexes.get(dim, pd.RangeIndex(panel.sizes[dim]))
    array = panel.isel({dim: keys.get_loc(_check_sequence(sequence, keys))})
    time, *others = array.dims
    if "length" in array.coords and array.coords["length"].ndim == 0:
        return array.isel({time: slice(int(array.coords["length"]))})
    seen = np.flatnonzero(array.notnull().any(others).values)
    return array.isel({time: slice(seen[-1] + 1 if seen.size else 0)})


def check_probabilities(latent: Latent, remedy: str) -> None:
    """Complain when the states are real vectors, not probabilities."""
    outside = np.nanmin(latent.mean, initial=0.0) < -1e-6 or np.nanmax(latent.mean, initial=1.0) > 1 + 1e-6
    if latent.cov is not None or outside:
        raise DataError(f"posterior holds means of real-valued states, not probabilities; use {remedy}")


def check_moments(latent: Latent) -> Floats:
    """Return the covariances (N, K, K) of a linear-Gaussian posterior."""
    if latent.cov is None:
        raise DataError(
            "posterior has no covariance of the states (cov beside gamma, filtered_cov beside filtered); "
            "pass the e_step of a linear-Gaussian model, or use plot_regimes for the probabilities of an HMM"
        )
    return latent.cov


def shared_time(observed: Observed, latent: Latent) -> TimeAxis:
    """Return the time axis of observations and posterior after checking that they are the same rows."""
    if len(observed.values) != len(latent.mean):
        raise DataError(
            f"y has {len(observed.values)} rows, the posterior has {len(latent.mean)} along {latent.time!r}; "
            "pass the y that the posterior was computed from"
        )
    ours, theirs = observed.labels, latent.labels
    if ours is not None and theirs is not None and not latent.panel and _kind(ours) == _kind(theirs):
        differ = np.flatnonzero(np.asarray(ours != theirs))
        if differ.size:
            at = differ[0]
            raise DataError(
                f"row {at} of y is labelled {ours[at]} and that of the posterior {theirs[at]}; "
                "pass the y that the posterior was computed from"
            )
    index = ours if theirs is None or (latent.panel and ours is not None) else theirs
    axis = time_axis(index, len(latent.mean), latent.time)
    unit = observed.units.get(latent.time)
    return axis._replace(label=f"{axis.label} ({unit})") if unit and axis.label == latent.time else axis


def _kind(index: pd.Index) -> str:
    return "n" if index.dtype.kind in "iuf" else index.dtype.kind


def parameter(params: Any, name: str, dims: tuple[str, ...]) -> xr.DataArray:
    """One parameter with its dims in the given order."""
    if isinstance(params, xr.DataArray):
        array = params
    elif isinstance(params, xr.Dataset) and name in params:
        array = params[name]
    else:
        has = listed(params.data_vars) if isinstance(params, xr.Dataset) else f"a {type(params).__name__}"
        raise DataError(f"params has no {name!r}: got {has}; pass the params_ of a fitted model")
    if set(array.dims) != set(dims):
        extra = [dim for dim in array.dims if dim not in dims]
        remedy = f"; select one with params.isel({extra[0]}=0)" if extra else ""
        raise DataError(f"{name} has dims {array.dims}, expected {dims}{remedy}")
    return array.transpose(*dims)


def names(array: xr.DataArray, dim: str) -> tuple[Hashable, ...]:
    """Labels along a dim; 0..n-1 where there are none."""
    return tuple(array.indexes.get(dim, pd.RangeIndex(array.sizes[dim])))


def column_values(observed: Observed, feature: Hashable, features: tuple[Hashable, ...]) -> Floats:
    """Find the column of y for a feature: by name, else by position if y has a column for each feature."""
    if feature in observed.columns:
        return observed.values[:, observed.columns.index(feature)]
    if len(observed.columns) == len(features):
        return observed.values[:, features.index(feature)]
    raise DataError(f"y has no column {feature!r}; it has {listed(observed.columns)}")
