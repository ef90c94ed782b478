"""Rows that a model of motion is asked about beside those measured: times in between, times to come, units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch
from statespace_em.labels import Labels, seeing
from statespace_em.sequence.time_grid import index_of, unit_length


class Wider(NamedTuple):
    """Rows of y among blank ones at other times."""

    y: Any  # a DataFrame, or a dict of them by sequence
    times: pd.Index  # (M,), those asked for
    rows: Ints  # (S, M), where they are in each sequence


def with_times(batch: Batch, labels: Labels, times: Any) -> Wider:
    """Put blank rows into every sequence at the times that have none."""
    wanted = index_of(times, labels.times[0])
    frames, rows = [], []
    for index, begin, end in zip(labels.times, batch.starts[:-1], batch.starts[1:]):
        own: Any = index.astype(wanted.dtype)
        every: pd.Index = pd.Index.union(own, wanted).rename(labels.time)
        frame = pd.DataFrame(batch.y[begin:end], index=own, columns=labels.features).reindex(every)
        frames.append(frame)
        rows.append(every.get_indexer(wanted))
    named = frames[0] if labels.sequence is None else dict(zip(labels.keys, frames))
    return Wider(named, wanted, np.array(rows))


def labelled_at(
    values: dict[str, tuple[tuple[str, ...], Floats]], wider: Wider, labels: Labels, coords: Any
) -> xr.Dataset:
    """Label arrays (S, M, ...) at the times asked for."""
    lead = () if labels.sequence is None else (labels.sequence,)
    data = {
        name: ((*lead, labels.time, *dims), value[0] if labels.sequence is None else value)
        for name, (dims, value) in values.items()
    }
    keys = {} if labels.sequence is None else {labels.sequence: labels.keys}
    used = {dim for dims, _ in values.values() for dim in dims}
    own = {dim: value for dim, value in coords.items() if dim in used}
    found = xr.Dataset(data, {labels.time: wider.times, **keys, **own})
    return seeing(found, "1:T")


def times_ahead(index: pd.Index, step: float, unit: str, horizon: int) -> pd.Index | None:
    """Times of ``horizon`` steps after the last row; None where rows have no times."""
    number = np.arange(1, horizon + 1)
    if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
        ticks = pd.to_timedelta(np.round(step * unit_length(unit, index) * number).astype(np.int64), unit=index.unit)
        later: pd.Index = pd.Index(index[-1] + ticks)
        return later
    if pd.api.types.is_numeric_dtype(index.dtype):
        later = pd.Index(index.to_numpy(dtype=float)[-1] + step * number)
        return later
    return None


def units_of(y: Any, index: pd.Index, unit: str) -> tuple[str, str]:
    """Units of y and of time, as attributes of y and its coordinate tell them; "y" and "time" where they do not."""
    if (
        isinstance(y, Mapping | list) and not isinstance(y, xr.Dataset) and len(y)
    ):  # of sequences: in the units of the first
        y = next(iter(y.values() if isinstance(y, Mapping) else y))
    told = getattr(y, "attrs", {}).get("units", "y")
    if isinstance(told, dict):
        own = {told.get(name, "y") for name in getattr(y, "columns", told)}
        told = own.pop() if len(own) == 1 else "y"
    if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex | pd.PeriodIndex):
        return str(told), unit
    clock = y[index.name].attrs.get("units") if isinstance(y, xr.DataArray) and index.name in y.coords else None
    return str(told), str(clock or "time")


POWERS = {  # of time that stand under y^2 in the unit of a value, by the beginning of its name
    "level_var": 1, "slope_var": 3, "seasonal_var": 1, "acceleration_density": 3, "jerk_density": 5, "cycle_var": 0,
    "arma_var": 0, "noise": 0,
}  # fmt: skip
TIMES = ("ar_time", "cycle_time", "cycle_period")


def unit_of(name: str, of_y: str, of_time: str) -> str:
    """Unit of a value of a model in continuous time; empty where it has none, or is not told."""
    for word, power in POWERS.items():
        if word in name:
            return squared(of_y) + (f"/{of_time}" if power == 1 else f"/{of_time}^{power}" if power else "")
    return of_time if any(word in name for word in TIMES) else ""


def squared(unit: str) -> str:
    """Square of a unit."""
    return f"({unit})^2" if any(sign in unit for sign in " /^") else f"{unit}^2"


def with_units(table: pd.DataFrame, params: xr.Dataset) -> pd.DataFrame:
    """Table of values by name with the units of each, as the parameters tell them."""
    of_y = str(params["measurement_cov"].attrs.get("units", "")).removesuffix("^2")
    of_y = of_y[1:-1] if of_y[:1] == "(" else of_y
    of_time = str(params["transition"].attrs.get("time_units", ""))
    names = table.index.get_level_values(0)
    return table.assign(unit=[unit_of(name, of_y, of_time) if of_y else "" for name in names])
