"""Files and data sets to one table, indexed by time (a panel: by sequence and time)."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import datasets
from statespace_em.errors import DataError
from statespace_em.labels import show

TIME_NAMES = ("date", "datetime", "timestamp", "time", "year")
NETCDF, PARQUET = (".nc", ".nc4", ".cdf", ".netcdf", ".h5"), (".parquet", ".pq")
KINDS = dict.fromkeys(("", ".csv", ".tsv", ".txt"), "CSV") | dict.fromkeys(NETCDF, "NetCDF")
KINDS |= dict.fromkeys(PARQUET, "Parquet")
UNNAMED = "row"  # what a column without a name in front of the others is called


class Shipped(NamedTuple):
    """A data set as a table, and the columns to model unless told; ``others`` holds those of some models."""

    load: Callable[[], Any]
    columns: list[str]
    others: dict[str, list[str]] = {}


DATASETS = {
    "stocks": Shipped(lambda: datasets.stocks()["log_return"], ["IBM"]),
    "cycling": Shipped(datasets.cycling, ["power"], {"lgssm": ["east", "north"]}),
    "earthquakes": Shipped(datasets.earthquakes, ["earthquakes"]),
    "old_faithful": Shipped(datasets.old_faithful, ["waiting"], {"categorical": ["length"]}),
    "nile": Shipped(datasets.nile, ["flow"]),
    "buoy": Shipped(datasets.buoy, ["temperature"]),
    "radar": Shipped(lambda: datasets.radar()["measured"].to_pandas(), ["east", "north"]),
    "sp500": Shipped(lambda: datasets.sp500().iloc[1:], ["log_return"]),
}


def read(options: argparse.Namespace, kind: str | None = None) -> pd.DataFrame:
    """Table of the observations that the command line asks for.

    Parameters
    ----------
    options
        ``file`` or ``dataset``, ``columns``, ``time``, ``sequence``, ``sort``.
    kind
        Model or family to choose the columns of a data set for; None takes every column.

    Raises
    ------
    DataError
        If the file cannot be read, or has no such column.
    FileNotFoundError
        If there is no file.
    """
    if (options.file is None) == (options.dataset is None):
        raise DataError("give a FILE or --dataset NAME, one of the two.")
    if options.dataset is not None:
        chosen = DATASETS[options.dataset]
        table = pd.DataFrame(chosen.load())
        default = list(table.columns) if kind is None else chosen.others.get(kind, chosen.columns)
        table = _dated(table.reset_index(), options, str(table.index.name))
    else:
        table, options, declared = _from_file(Path(options.file), options)
        table = _dated(table, options, declared)
        default = list(table.columns)
    table = table[_wanted(table, options.columns, default)]
    if options.sort:
        table = table.sort_index(kind="stable")
    return table


def _from_file(path: Path, options: argparse.Namespace) -> tuple[pd.DataFrame, argparse.Namespace, str | None]:
    """Table, options and the column of times that the file itself declares, if any."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a folder, expected a file.")
    suffix = next((s.lower() for s in reversed(path.suffixes) if s.lower() not in (".gz", ".bz2", ".xz", ".zip")), "")
    if suffix not in KINDS:
        raise DataError(f"{str(path)!r} ends in {suffix!r}, expected .csv, .tsv, .parquet or .nc.")
    try:
        if suffix in PARQUET:
            table = pd.read_parquet(path)
        elif suffix in NETCDF:
            with xr.open_dataset(path) as opened:
                dataset = opened.load()
        else:
            table = pd.read_csv(path, sep="\t" if suffix == ".tsv" else ",", skipinitialspace=True, index_col=False)
    except PermissionError:
        raise
    except ImportError:
        raise DataError(f"reading {str(path)!r} needs pyarrow: pip install pyarrow.") from None
    except Exception as error:  # readers raise whatever their libraries raise
        reason = "the file is damaged, or something else" if suffix in NETCDF else str(error).strip().rstrip(".")
        raise DataError(f"{str(path)!r} cannot be read as {KINDS[suffix]} ({reason}).") from error
    if suffix in NETCDF:
        table, options = _from_netcdf(dataset, options)
    if len(table) == 0:
        raise DataError(f"{str(path)!r} has no rows.")
    names = list(table.index.names)
    if names == [None]:
        return table, options, None
    if len(names) == 2 and options.sequence is None:
        options = argparse.Namespace(**{**vars(options), "sequence": str(names[0])})
    return table.reset_index(), options, None if names[-1] is None else str(names[-1])


def _from_netcdf(dataset: xr.Dataset, options: argparse.Namespace) -> tuple[pd.DataFrame, argparse.Namespace]:
    """Variables over time as columns; a variable (time, feature) gives a column for each feature."""
    wanted = set() if options.columns is None else set(_split(options.columns))
    panel = [str(dim) for dim in dataset.dims if dim in ("sequence", options.sequence)]
    time = _time_dim(dataset, options.time, panel)
    over_time = [name for name in dataset.data_vars if time in dataset[name].dims]
    names = [name for name in over_time if str(name) in wanted] or over_time
    if not names:
        raise DataError(f"the file has no variable over {time!r}.")
    parts = [_block(dataset[name], (*panel, time), plain=len(names) == 1) for name in names]
    table = pd.DataFrame(
        {column: values for part in parts for column, values in part.items()},
        _index(dataset, (*panel, time)),
    )
    if panel and "length" in dataset.coords:
        inside = np.arange(dataset.sizes[time]) < dataset["length"].values[:, None]
        table = table[inside.ravel()]
    if wanted <= {str(name) for name in names}:  # whole variables, with all of their columns
        options = argparse.Namespace(**{**vars(options), "columns": None})
    return table, options


def _block(variable: xr.DataArray, lead: tuple[str, ...], *, plain: bool) -> dict[str, Any]:
    """Columns of one variable; ``plain`` leaves its own name out of theirs."""
    rest = [dim for dim in variable.dims if dim not in lead]
    if len(rest) > 1 or not set(lead) <= set(variable.dims):
        expected = f"({', '.join(lead)}) and at most one more"
        raise DataError(
            f"the variable {variable.name!r} has dims ({', '.join(map(str, variable.dims))}), not {expected}."
        )
    if not rest:
        return {str(variable.name): variable.transpose(*lead).values.ravel()}
    values = variable.transpose(*lead, rest[0]).values
    labels = variable[rest[0]].values
    names = [str(label) if plain else f"{variable.name}.{label}" for label in labels]
    return dict(zip(names, values.reshape(-1, len(labels)).T))


def _index(dataset: xr.Dataset, lead: tuple[str, ...]) -> pd.Index:
    labels = [dataset[dim].values for dim in lead]
    if len(lead) == 1:
        index: pd.Index[Any] = pd.Index(labels[0], name=lead[0])
        return index
    index = pd.MultiIndex.from_product(labels, names=lead)
    if "timestamp" in dataset.coords:  # sequences that do not share their times
        stamps = dataset["timestamp"].transpose(*lead).values.ravel()
        index = pd.MultiIndex.from_arrays([index.get_level_values(0), stamps], names=lead)
    return index


def _time_dim(dataset: xr.Dataset, wanted: str | None, panel: list[Any]) -> str:
    dims = [str(dim) for dim in dataset.dims if dim not in panel]
    if wanted is not None and wanted not in dims:
        raise DataError(f"there is no dimension {wanted!r} for --time, only {', '.join(map(repr, dims))}.")
    if not dims:
        raise DataError("the file has no dimension for the time.")
    named = [dim for dim in dims if dim.lower() in TIME_NAMES]
    dated = [dim for dim in dims if dim in dataset.coords and dataset[dim].dtype.kind in "Mm"]
    return wanted or (named or dated or dims)[0]


def _dated(table: pd.DataFrame, options: argparse.Namespace, declared: str | None) -> pd.DataFrame:
    """Index a table of plain columns by its times, and by its sequences where there are several."""
    table = table.rename(columns=str)
    if len(table.columns) and table.columns[0].startswith("Unnamed: 0"):  # the index that DataFrame.to_csv wrote
        table = table.rename(columns={table.columns[0]: UNNAMED}) if UNNAMED not in table.columns else table
    for flag in ("time", "sequence"):
        name = getattr(options, flag)
        if name is not None and name not in table.columns:
            raise DataError(f"there is no column {name!r} for --{flag}, only {_listed(table.columns)}.")
    time = options.time or declared or _guessed_time(table, options.sequence)
    if time is not None and time != options.sequence:
        table[time] = _times(table[time], time)
    if options.sequence is None:
        return table if time is None else table.set_index(time)
    keys = table[options.sequence]
    if keys.isna().any():
        raise DataError(
            f"column {options.sequence!r} is missing at row {int(np.argmax(keys.isna()))}: name the sequence."
        )
    table = table.iloc[np.argsort(pd.factorize(keys)[0], kind="stable")]
    if time is None:
        time = "time"
        table = table.assign(time=table.groupby(options.sequence, sort=False).cumcount())
    return table.set_index([options.sequence, time])


def _guessed_time(table: pd.DataFrame, sequence: str | None) -> str | None:
    names = [name for name in table.columns if name != sequence]
    named = [name for wanted in TIME_NAMES for name in names if name.lower() == wanted]
    if named or not names:
        return named[0] if named else None
    numbers = table[names[0]].dtype.kind in "iufb"
    if numbers:
        return names[0] if names[0] == UNNAMED else None
    try:
        _times(table[names[0]], names[0])
    except DataError:
        return None
    return names[0]


def _times(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Dates, durations or numbers."""
    if column.dtype.kind in "iuf":
        return column
    readers: list[Callable[[Any], Any]] = [pd.to_datetime, pd.to_timedelta]
    if isinstance(column.dtype, pd.PeriodDtype):
        readers = [lambda periods: periods.dt.to_timestamp()]
    for read_as in readers:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a format that pandas cannot tell
                times: pd.Series[Any] = read_as(column)
        except (ValueError, TypeError, Warning):
            continue
        if isinstance(times.dtype, pd.DatetimeTZDtype):
            times = times.dt.tz_convert("UTC").dt.tz_localize(None)  # NetCDF has none
        if times.dtype.kind in "Mm" and not times.isna().all():
            return times
    example = column.dropna().iloc[0] if column.notna().any() else None
    raise DataError(
        f"column {name!r} does not hold times (such as {show(example)}): write them as 2024-12-31 or 2024-12-31 13:30 "
        "(with one and the same time zone, or without), or name another column with --time."
    )


def _wanted(table: pd.DataFrame, text: str | None, default: list[str]) -> list[str]:
    if text is None:
        if not default:
            raise DataError("the data have no column beside the times: there is nothing to model.")
        return default
    names = _split(text)
    for name in names:
        if name not in table.columns:
            raise DataError(f"there is no column {name!r}, only {_listed(table.columns)}.")
    return names


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _listed(names: pd.Index) -> str:
    return ", ".join(show(name) for name in names[:20]) + (", ..." if len(names) > 20 else "")
