"""Any of the usual containers to one table a sequence: numpy, pandas, xarray, lists and dicts of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import AnyArray
from statespace_em.errors import DataError
from statespace_em.labels import RESERVED, Labels, listed, show

WORDS = ("string", "mixed", "mixed-integer", "categorical")  # what pandas calls labels that cannot be times
DATED = (pd.DatetimeIndex, pd.PeriodIndex, pd.TimedeltaIndex)


class Table(NamedTuple):
    """One sequence before its entries are read."""

    values: AnyArray | pd.DataFrame  # (N, D)
    times: pd.Index
    columns: pd.Index
    named: bool  # whether the columns are known by name, rather than by position
    time: str


def read_tables(y: Any, features: AnyArray | None, unsorted: str) -> tuple[list[Table], Labels]:
    """Split y into its sequences; see `statespace_em.data.as_batch`.

    Raises
    ------
    DataError
        Naming the place and the remedy.
    """
    sequence, parts = _split(y)
    if not parts:
        raise DataError("y holds no sequence: pass at least one.")
    keys = pd.Index([key for key, _ in parts], tupleize_cols=False)
    wanted = None if features is None else pd.Index(features, tupleize_cols=False)
    tables: list[Table] = []
    last: Table | None = None  # the last one that stayed as it was: others with its very labels do too
    for key, part in parts:
        if isinstance(part, Table) and last and part.columns is last.columns and part.times is last.times:
            tables.append(part)
            continue
        where = "" if sequence is None else f" of {sequence} {show(key)}"
        table = _table(part, where)
        tables.append(_ordered(_selected(table, wanted, where), where, unsorted))
        last = table if tables[-1] is table else None
    tables = _aligned(tables, sequence, keys)
    time = tables[0].time
    for name in (time, sequence):
        if name in RESERVED or (name == time and time in ("sequence", sequence)):
            raise DataError(f"y has a dimension {name!r}, which means something else in the results: rename it.")
    return tables, Labels(time, tuple(table.times for table in tables), tables[0].columns.rename(None), sequence, keys)


def _split(y: Any) -> tuple[str | None, list[tuple[Any, Any]]]:
    """Name of the sequence dimension, or None, and the sequences with their keys."""
    y = stacked(y) if isinstance(y, xr.Dataset) else y
    if isinstance(y, Mapping):
        return "sequence", list(y.items())
    if isinstance(y, xr.DataArray):
        unnamed = [dim for dim in y.dims if not isinstance(dim, str)]
        if unnamed:
            raise DataError(f"y has a dimension {unnamed[0]!r}, which is no string: rename it.")
        name = sequence_dim(y)
        return (None, [(0, y)]) if name is None else (name, _tables_of_array(y, name))
    if isinstance(y, pd.Series | pd.DataFrame) and isinstance(y.index, pd.MultiIndex):
        return _groups(y)
    if isinstance(y, list | tuple):
        whole = [_is_sequence(item) for item in y]
        if any(whole) and not all(whole):
            odd = whole.index(False)
            raise DataError(f"y is a list of sequences, but its entry {odd} is {_what(y[odd])}: leave it out.")
        if any(whole):
            return "sequence", list(enumerate(y))
    return None, [(0, y)]


def split_series(y: Any, by: str) -> tuple[str, pd.Index, list[Any]]:
    """Name of the dimension, keys and parts of many independent series; see `statespace_em.fit_many`.

    Raises
    ------
    DataError
        If y is a single series, or a key occurs twice.
    """
    dim: str | None
    pairs: list[tuple[Any, Any]]
    if by == "column":
        if (
            not isinstance(y, pd.DataFrame)
            or isinstance(y.columns, pd.MultiIndex)
            or isinstance(y.index, pd.MultiIndex)
        ):
            raise DataError(
                f"by='column' takes a frame with one level of columns and of rows, but y is {_what(y)}: leave it out, "
                "or flatten the levels."
            )
        dim = str(y.columns.name or "series")
        pairs = [(key, y.iloc[:, i]) for i, key in enumerate(y.columns)]
    elif isinstance(y, xr.DataArray) and (dim := series_dim(y)) is not None:
        pairs = slices(y, dim)
    else:
        dim, pairs = _split(y)
        if dim is None:
            raise DataError(
                f"y is a single series ({_what(y)}): pass a dict or list of series, or by='column' for the columns "
                "of a frame."
            )
        dim = "series" if dim == "sequence" and not isinstance(y, xr.DataArray) else dim
    keys = pd.Index([key for key, _ in pairs], tupleize_cols=False)
    if not pairs:
        raise DataError("y holds no series: pass at least one.")
    if not keys.is_unique:
        raise DataError(f"the series {show(keys[keys.duplicated()][0])} occurs twice: rename or drop one.")
    return str(dim), keys, [part for _, part in pairs]


def _is_sequence(item: Any) -> bool:
    return isinstance(item, Iterable) and not isinstance(item, str | bytes) and getattr(item, "ndim", 1) > 0


def _what(y: Any) -> str:
    """Say what an unusable value is."""
    kind = type(y).__name__
    return show(y) if y is None or isinstance(y, str) else f"{'an' if kind[0] in 'aeio' else 'a'} {kind}"


def stacked(y: xr.Dataset) -> xr.DataArray:
    """Variables of a Dataset as features."""
    dims = {str(name): variable.dims for name, variable in y.data_vars.items()}
    if not dims:
        raise DataError("y is a Dataset without variables: pass at least one.")
    if len(dims) == 1:
        name, (own,) = next(iter(y.data_vars)), dims.values()
        if "feature" in own:
            return y[name]
    elif len({frozenset(own) for own in dims.values()}) > 1 or any("feature" in own for own in dims.values()):
        have = "; ".join(f"{name} ({', '.join(map(str, own))})" for name, own in dims.items())
        raise DataError(
            f"the variables of y do not share the dims of a feature ({have}): pass one of them, as in "
            f"y[{list(dims)[-1]!r}], or a Dataset of those that do."
        )
    return y.to_dataarray("feature").transpose(..., "feature")


def sequence_dim(y: xr.DataArray) -> str | None:
    """Dimension of the sequences: by name, else where the lengths are; None for a single sequence."""
    if "sequence" in y.dims:
        return "sequence"
    if "length" in y.coords and y["length"].ndim == 1:
        return str(y["length"].dims[0])
    if y.ndim < 3:
        return None
    time = time_dim(y)
    rest = [dim for dim in y.dims if dim not in (time, "feature")]
    if len(rest) != 1 or not (time == "time" or isinstance(y.indexes.get(time), DATED)):
        raise DataError(f"y has dims ({', '.join(map(str, y.dims))}): name them 'sequence', 'time' and 'feature'.")
    return str(rest[0])


def series_dim(y: xr.DataArray) -> str | None:
    """Dimension of many independent series: that of the sequences, or the one beside time."""
    if y.ndim == 2 and "feature" not in y.dims and sequence_dim(y) is None:
        return next(str(name) for name in y.dims if name != time_dim(y))
    return sequence_dim(y)


def slices(y: xr.DataArray, name: str) -> list[tuple[Any, xr.DataArray]]:
    """Sequences of an array, without the padding that a coordinate ``length`` tells of."""
    parts = [y.isel({name: i}, drop=True) for i in range(y.sizes[name])]
    if "length" in y.coords and y["length"].dims == (name,):
        lengths = y["length"].values
        parts = [part.isel({time_dim(part): slice(0, int(n))}) for part, n in zip(parts, lengths)]
    return list(zip(pd.Index(y[name].values), parts))


def _tables_of_array(y: xr.DataArray, name: str) -> list[tuple[Any, Table]]:
    """Tables of the `slices`, made at once: one by one they cost more than the arithmetic on short sequences."""
    keys = pd.Index(y[name].values)
    if y.sizes[name] == 0:
        return []
    first = _table_of_array(y.isel({name: 0}, drop=True), f" of {name} {show(keys[0])}")
    rest = [dim for dim in y.dims if dim not in (name, first.time)]
    values = y.transpose(name, first.time, *rest).values
    values = values if rest else values[:, :, None]
    lengths = np.full(len(keys), values.shape[1])
    if "length" in y.coords and y["length"].dims == (name,):
        lengths = np.clip(y["length"].values.astype(np.int64), 0, values.shape[1])
    own = first.time not in y.indexes and "timestamp" in y.coords and y["timestamp"].dims == (name, first.time)
    indexes = {} if own else {n: first.times[:n] for n in np.unique(lengths)}  # shared: their checks are made once
    tables = []
    for i, n in enumerate(lengths):
        times = pd.Index(y["timestamp"].values[i, :n]) if own else indexes[n]
        tables.append(first._replace(values=values[i, :n], times=times))
    return list(zip(keys, tables))


def _groups(y: pd.Series | pd.DataFrame) -> tuple[str, list[tuple[Any, Any]]]:
    """Sequences of a frame with two index levels, in the order in which they appear."""
    if y.index.nlevels != 2:
        raise DataError(f"the index of y has {y.index.nlevels} levels, expected two: sequence and time.")
    outer, inner = y.index.get_level_values(0), y.index.get_level_values(1)
    name = str(outer.name or "sequence")
    codes, keys = pd.factorize(outer)
    if (codes < 0).any():
        row = int(np.argmax(codes < 0))
        raise DataError(f"{name} is missing at row {row} (time {show(inner[row])}): drop that row or name its {name}.")
    order = np.argsort(codes, kind="stable")
    y = y.iloc[order].set_axis(inner[order])
    ends = np.cumsum(np.bincount(codes)).tolist()
    return name, [(key, y.iloc[start:end]) for key, start, end in zip(keys, [0, *ends], ends)]


# one sequence


def time_dim(y: xr.DataArray) -> str:
    """Dimension of time: by name, else the first with dates, else the first not labelled by words."""
    dims = [dim for dim in y.dims if dim != "feature"]
    if not dims:
        raise DataError(f"y has dims ({', '.join(map(str, y.dims))}), none of which is time: add one, or rename it.")
    dated = [dim for dim in dims if isinstance(y.indexes.get(dim), DATED)]
    plain = [dim for dim in dims if dim not in y.indexes or y.indexes[dim].inferred_type not in WORDS]
    return "time" if "time" in dims else str((dated or plain or dims)[0])


def _table(y: Any, where: str) -> Table:
    if isinstance(y, Table):
        return y
    y = stacked(y) if isinstance(y, xr.Dataset) else y
    if isinstance(y, xr.DataArray):
        return _table_of_array(y, where)
    if isinstance(y, pd.Series | pd.DataFrame):
        if isinstance(y.index, pd.MultiIndex):
            raise DataError(f"the index of y{where} has {y.index.nlevels} levels, expected one: drop the others.")
        time = str(y.index.name or "time")
        if isinstance(y, pd.Series):  # its name labels results, but any other series may follow
            return Table(y.to_frame(), y.index, _name(y.name), False, time)
        return Table(y, y.index, y.columns.to_flat_index(), not isinstance(y.columns, pd.RangeIndex), time)
    values = _plain_array(y, where)
    if values.ndim not in (1, 2):
        raise DataError(f"y{where} has shape {values.shape}, expected (N,) or (N, D); several sequences go in a list.")
    values = values[:, None] if values.ndim == 1 else values
    return Table(values, pd.RangeIndex(len(values)), pd.RangeIndex(values.shape[1]), False, "time")


def _table_of_array(y: xr.DataArray, where: str) -> Table:
    time = time_dim(y)
    others = [dim for dim in y.dims if dim != time]
    if len(others) > 1:
        raise DataError(f"y{where} has dims ({', '.join(map(str, y.dims))}), expected (time,) or (time, feature).")
    if time in y.indexes:
        index = y.indexes[time]
    elif "timestamp" in y.coords and y["timestamp"].dims == (time,):  # as in the results for ragged sequences
        index = pd.Index(y["timestamp"].values)
    else:
        index = pd.RangeIndex(y.sizes[time])
    if isinstance(index, pd.MultiIndex):
        raise DataError(f"dimension {time!r} of y{where} is stacked: unstack it.")
    if not others:
        return Table(y.values[:, None], index, _name(y.name), False, time)
    named = others[0] in y.indexes
    columns = y.indexes[others[0]].to_flat_index() if named else pd.RangeIndex(y.sizes[others[0]])
    return Table(y.transpose(time, others[0]).values, index, columns, named, time)


def _name(name: Any) -> pd.Index:
    return pd.Index([0 if name is None else name], tupleize_cols=False)


def _plain_array(y: Any, where: str) -> AnyArray:
    """Array of something array-like; masked entries are missing."""
    if isinstance(y, np.ma.MaskedArray):
        masked, y = np.ma.getmaskarray(y), y.data if y.dtype.kind == "f" else y.data.astype(object)
        return np.where(masked, np.nan, y)
    if isinstance(y, np.ndarray):
        if y.dtype.names is not None:
            raise DataError(f"y{where} is an array with fields {listed(y.dtype.names)}: pass pd.DataFrame(y).")
        return y
    if not isinstance(y, list | tuple | range) and not (hasattr(y, "__array__") and np.ndim(y)):
        raise DataError(
            f"y{where} is {_what(y)}, expected an array, Series, DataFrame, DataArray or Dataset, or a list or dict of "
            "these, one a sequence."
        )
    try:
        values = np.asarray(y, dtype=object)
        ragged = values.ndim == 1 and any(map(_is_sequence, values))
    except ValueError:  # lengths that differ further down
        ragged = True
    if ragged:
        raise DataError(f"the rows of y{where} are not of equal length: mark what is missing with NaN.")
    kind = pd.api.types.infer_dtype(np.ravel(values), skipna=False)
    return values.astype(float) if kind in ("integer", "floating", "mixed-integer-float") else values


def _selected(table: Table, wanted: pd.Index | None, where: str) -> Table:
    """Columns that the parameters know: by name where both have names, else by position."""
    if wanted is None or table.columns.equals(wanted):
        return table
    missing = wanted[~wanted.isin(table.columns)]
    numbered = wanted.equals(pd.RangeIndex(len(wanted)))
    if not table.named or (numbered and len(missing)):
        if len(table.columns) != len(wanted):
            raise DataError(
                f"y{where} has {len(table.columns)} columns, but the parameters are of {len(wanted)} "
                f"({listed(wanted)}): pass as many."
            )
        return table if table.named else table._replace(columns=wanted)
    if len(missing):
        raise DataError(
            f"y{where} has no column {show(missing[0])}, only {listed(table.columns)}: add or rename it, or fit again."
        )
    if not table.columns.is_unique or table.columns.equals(wanted):
        return table  # `_ordered` refuses the former
    order = table.columns.get_indexer(wanted)
    values = table.values
    chosen = values.iloc[:, order] if isinstance(values, pd.DataFrame) else values[:, order]
    return table._replace(values=chosen, columns=wanted)


def _aligned(tables: list[Table], sequence: str | None, keys: pd.Index) -> list[Table]:
    """Return the same columns in the same order for every sequence."""
    which = next((i for i, table in enumerate(tables) if table.named), 0)
    first = tables[which].columns
    if all(table.columns is first or table.columns.equals(first) for table in tables):
        return tables
    for key, table in zip(keys, tables):
        if len(table.columns) != len(first) or (table.named and not first.isin(table.columns).all()):
            raise DataError(
                f"{sequence} {show(key)} has columns {listed(table.columns)}, but {sequence} {show(keys[which])} has "
                f"{listed(first)}: give every sequence the same columns."
            )
    if tables[which].named:
        return [_selected(table, first, "") for table in tables]
    return [table._replace(columns=pd.RangeIndex(len(first))) for table in tables]  # series of several names


def _dated(index: pd.Index) -> pd.Index:
    """Dates that are single objects, as an index of dates; other labels as they are."""
    if index.dtype != object or index.inferred_type not in ("date", "datetime"):
        return index
    try:
        return pd.DatetimeIndex(index)
    except ValueError:
        raise DataError(
            "the dates of y have several time zones: make them one, as pd.to_datetime(..., utc=True)."
        ) from None


def _ordered(table: Table, where: str, unsorted: str) -> Table:
    """Check that there is something, and that time goes forward."""
    dated = _dated(table.times)
    table = table if dated is table.times else table._replace(times=dated)
    values, index, time = table.values, table.times, table.time
    if len(index) == 0 or len(table.columns) == 0:
        what = "rows" if len(index) == 0 else "columns"
        raise DataError(f"y{where} has no {what}: pass at least one{', or leave it out' if where else ''}.")
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise DataError(f"y{where} has the column {show(twice)} twice: rename or drop one.")
    if not (isinstance(index, DATED) or pd.api.types.is_numeric_dtype(index)):
        return table  # names of rows, say
    if index.hasnans:
        row = int(np.argmax(index.isna()))
        raise DataError(f"{time}{where} is missing at row {row}: drop that row or give it a {time}.")
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise DataError(f"{time} {show(twice)}{where} occurs more than once: average or drop the duplicates.")
    if index.is_monotonic_increasing:
        return table
    if unsorted == "error":
        back = int(np.argmax(index[1:] < index[:-1])) + 1
        raise DataError(
            f"{time} {show(index[back])}{where} comes after {show(index[back - 1])}: sort y first, "
            "or build the model with unsorted='sort'."
        )
    order = np.argsort(index)
    ordered = values.iloc[order] if isinstance(values, pd.DataFrame) else values[order]
    return table._replace(values=ordered, times=index[order])
