"""Any of the usual containers to one array of rows, sequences end to end, and the labels to undo it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import AnyArray, Bools, Floats, Ints
from statespace_em.errors import DataError
from statespace_em.labels import Labels, show


class Batch(NamedTuple):
    """Sequences end to end."""

    y: Floats  # (N, D), NaN = missing
    starts: Ints  # (S + 1,), offset of the first row of each sequence, then N

    @property
    def first(self) -> Bools:
        """Whether each row (N,) is the first of its sequence."""
        first = np.zeros(len(self.y), bool)
        first[self.starts[:-1]] = True
        return first


def as_batch(
    y: Any,
    *,
    support: str = "real",
    symbols: Sequence[Any] | None = None,
    features: AnyArray | None = None,
    unsorted: Literal["error", "sort"] = "error",
) -> tuple[Batch, Labels, list[Any] | None]:
    """Read observations.

    Parameters
    ----------
    y
        Array (N,) or (N, D), Series, DataFrame (two index levels: sequence, time), DataArray, Dataset (one variable
        a feature), or a list or dict of these, one a sequence. NaN, None and pd.NA mark missing entries.
    support
        What the entries may be, see `EmissionFamily`; "category" reads any labels and returns codes.
    symbols
        The symbols that may occur, in the order of their codes; None takes those that do occur.
    features
        Names of the columns to take, in this order; None takes all.
    unsorted
        What to do when timestamps do not increase.

    Returns
    -------
    batch, labels, symbols
        ``symbols`` is None unless the support is "category".

    Raises
    ------
    DataError
        Naming the value, the place and the remedy.
    """
    frames, labels = _frames(y, features, unsorted)
    if support == "category":
        codes, book = _encode(frames, labels, symbols)
    else:
        codes, book = np.concatenate([_numeric(frame, labels, i) for i, frame in enumerate(frames)]), None
        _check_values(codes, labels, support)
    starts = np.concatenate([[0], np.cumsum(labels.lengths)]).astype(np.int64)
    return Batch(np.ascontiguousarray(codes, dtype=float), starts), labels, book


class _Table(NamedTuple):
    """One sequence before its entries are read."""

    values: AnyArray | pd.DataFrame  # (N, D)
    index: pd.Index
    columns: pd.Index
    named: bool
    time: str


def _frames(y: Any, features: AnyArray | None, unsorted: str) -> tuple[list[_Table], Labels]:
    sequence, parts = _split(y)
    if not parts:
        raise DataError("y holds no sequence: pass at least one.")
    tables = []
    for key, part in parts:
        where = "" if sequence is None else f" of {sequence} {show(key)}"
        tables.append(_ordered(_selected(_table(part, where), features, where), where, unsorted))
    first = tables[0]
    for (key, _), table in zip(parts, tables):
        if not table.columns.equals(first.columns):
            raise DataError(
                f"{sequence} {show(key)} has columns {list(table.columns)}, but {show(parts[0][0])} has "
                f"{list(first.columns)}: give every sequence the same columns in the same order."
            )
    keys = pd.Index([key for key, _ in parts])
    times = tuple(table.index for table in tables)
    return tables, Labels(first.time, times, first.columns, sequence, keys)


def _split(y: Any) -> tuple[str | None, list[tuple[Any, Any]]]:
    """Name of the sequence dimension, or None, and the sequences with their keys."""
    if isinstance(y, Mapping) and not isinstance(y, xr.Dataset):
        return "sequence", list(y.items())
    if isinstance(y, xr.Dataset):
        y = y.to_array("feature").transpose(..., "feature")
    if isinstance(y, xr.DataArray) and ("sequence" in y.dims or y.ndim == 3):
        name = "sequence" if "sequence" in y.dims else str(y.dims[0])
        keys = y[name].values
        parts = [y.isel({name: i}, drop=True) for i in range(y.sizes[name])]
        if "length" in y.coords and y["length"].dims == (name,):
            lengths = y["length"].values
            parts = [part.isel({_time_dim(part): slice(0, int(n))}) for part, n in zip(parts, lengths)]
        return name, list(zip(keys, parts))
    if isinstance(y, pd.Series | pd.DataFrame) and isinstance(y.index, pd.MultiIndex):
        if y.index.nlevels != 2:
            raise DataError(f"the index of y has {y.index.nlevels} levels, expected two: sequence and time.")
        name = str(y.index.names[0] or "sequence")
        return name, [(key, part.droplevel(0)) for key, part in y.groupby(level=0, sort=False)]
    if isinstance(y, list | tuple) and len(y) and all(np.ndim(item) > 0 and not isinstance(item, str) for item in y):
        return "sequence", list(enumerate(y))
    return None, [(0, y)]


def _selected(table: _Table, features: AnyArray | None, where: str) -> _Table:
    """Columns that the parameters know: by name where both have names, else by position."""
    if features is None:
        return table
    wanted = pd.Index(features)
    numbered = not table.named or wanted.equals(pd.RangeIndex(len(wanted)))
    if numbered:
        if len(table.columns) != len(wanted):
            raise DataError(
                f"y{where} has {len(table.columns)} columns, the parameters are of {len(wanted)}: {list(wanted)}."
            )
        return table if table.named else table._replace(columns=wanted)
    missing = wanted.difference(table.columns, sort=False)
    if len(missing):
        raise DataError(f"y{where} has no column {show(missing[0])}, only {', '.join(show(c) for c in table.columns)}.")
    order = table.columns.get_indexer(wanted)
    values = table.values
    chosen = values.iloc[:, order] if isinstance(values, pd.DataFrame) else values[:, order]
    return table._replace(values=chosen, columns=wanted)


def _time_dim(y: xr.DataArray) -> str:
    dims = [dim for dim in y.dims if dim != "feature"]
    dated = [dim for dim in dims if dim in y.coords and y[dim].dtype.kind == "M"]
    return str("time" if "time" in dims else (dated or dims)[0])


def _table(y: Any, where: str) -> _Table:
    if isinstance(y, xr.DataArray):
        time = _time_dim(y)
        others = [dim for dim in y.dims if dim != time]
        if len(others) > 1:
            raise DataError(f"y{where} has dims {y.dims}, expected (time,) or (time, feature).")
        index = y.indexes[time] if time in y.indexes else pd.RangeIndex(y.sizes[time])
        if not others:
            return _Table(y.values[:, None], index, pd.Index([0 if y.name is None else y.name]), False, time)
        named = others[0] in y.coords
        columns = pd.Index(y[others[0]].values) if named else pd.RangeIndex(y.sizes[others[0]])
        return _Table(y.transpose(time, others[0]).values, index, columns, named, time)
    single = isinstance(y, pd.Series)  # its name labels results, but any other series may follow
    if isinstance(y, pd.Series):
        y = y.to_frame(0 if y.name is None else y.name)
    if isinstance(y, pd.DataFrame):
        named = not single and not isinstance(y.columns, pd.RangeIndex)
        return _Table(y, y.index, y.columns, named, str(y.index.name or "time"))
    values = np.asarray(y, dtype=None if isinstance(y, np.ndarray) else _dtype_of(y))
    if values.ndim not in (1, 2):
        raise DataError(f"y{where} has shape {values.shape}, expected (N,) or (N, D); several sequences go in a list.")
    values = values[:, None] if values.ndim == 1 else values
    return _Table(values, pd.RangeIndex(len(values)), pd.RangeIndex(values.shape[1]), False, "time")


def _dtype_of(y: Any) -> Any:
    """Lists of mixed things (None, strings and numbers) stay objects, so that nothing is turned into text."""
    inferred = pd.api.types.infer_dtype(np.ravel(np.asarray(y, dtype=object)), skipna=False)
    return float if inferred in ("floating", "mixed-integer-float") else None if inferred == "integer" else object


def _ordered(table: _Table, where: str, unsorted: str) -> _Table:
    """Check that time goes forward."""
    values, index = table.values, table.index
    if len(index) == 0:
        raise DataError(f"y{where} has no rows: leave it out, or pass at least one.")
    if len(table.columns) == 0:
        raise DataError(f"y{where} has no columns: pass at least one.")
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise DataError(f"y{where} has the column {show(twice)} twice: rename one.")
    timelike = isinstance(index, pd.DatetimeIndex | pd.PeriodIndex | pd.TimedeltaIndex)
    if not (timelike or pd.api.types.is_numeric_dtype(index)):
        return table
    if index.hasnans:
        raise DataError(
            f"{table.time}{where} is missing at row {int(np.argmax(index.isna()))}: drop that row or date it."
        )
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise DataError(f"{table.time} {show(twice)}{where} occurs more than once: average or drop the duplicates.")
    if index.is_monotonic_increasing:
        return table
    if unsorted != "sort":
        back = int(np.argmax(index[1:] < index[:-1])) + 1
        raise DataError(
            f"{table.time} {show(index[back])}{where} comes after {show(index[back - 1])}: sort y first, "
            "or build the model with unsorted='sort'."
        )
    order = np.argsort(index)
    ordered = values.iloc[order] if isinstance(values, pd.DataFrame) else values[order]
    return table._replace(values=ordered, index=index[order])


def _columns(table: _Table) -> list[Any]:
    values = table.values
    if isinstance(values, pd.DataFrame):
        return [values.iloc[:, d] for d in range(values.shape[1])]
    return [values[:, d] for d in range(values.shape[1])]


def _numeric(table: _Table, labels: Labels, sequence: int) -> Floats:
    if isinstance(table.values, np.ndarray) and table.values.dtype.kind in "fiub":
        return np.asarray(table.values, dtype=float)
    result = np.empty((len(table.index), len(table.columns)))
    offset = int(labels.lengths[:sequence].sum())
    for d, column in enumerate(_columns(table)):
        series = pd.Series(np.asarray(column, dtype=object) if column.dtype.kind not in "fiub" else column)
        if column.dtype.kind in "cMm":
            raise DataError(f"column {show(table.columns[d])} has dtype {column.dtype}, expected numbers.")
        numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        strange = np.isnan(numbers) & ~series.isna().to_numpy() | np.array([isinstance(v, str) for v in series])
        if strange.any():
            row = int(np.argmax(strange))
            raise DataError(
                f"{show(series.iloc[row])} is not a number ({labels.where(offset + row, d)}): convert it, "
                "mark it missing with NaN, or use a model for symbols (CategoricalHMM)."
            )
        result[:, d] = numbers
    return result


def _check_values(y: Floats, labels: Labels, support: str) -> None:
    def fail(bad: AnyArray, what: str, remedy: str) -> None:
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise DataError(f"{show(y[row, column])} {what} ({labels.where(row, column)}): {remedy}.")

    fail(np.isinf(y), "is not finite", "correct it, or mark it missing with NaN")
    if support == "count":
        fail(y < 0.0, "is negative, but counts are expected", "correct it, or mark it missing with NaN")
        fail(y != np.floor(y), "is not a whole number, but counts are expected", "use a model for real numbers")
    if support == "positive":
        fail(y <= 0.0, "is not positive", "correct it, or mark it missing with NaN")
    # a blank column says nothing at all: the family could not be estimated
    blank = np.isnan(y).all(0)
    if blank.any() and len(y) > 1:
        raise DataError(f"column {show(labels.features[int(np.argmax(blank))])} has no value at all: leave it out.")


def _encode(tables: list[_Table], labels: Labels, symbols: Sequence[Any] | None) -> tuple[Floats, list[Any]]:
    """Codes (N, D) of the symbols, and the symbols."""
    columns = [_columns(table) for table in tables]
    if symbols is None:
        book = _symbols_in([column for parts in columns for column in parts])
    else:
        book = [_plain(symbol) for symbol in symbols]
    if not book:
        raise DataError("y holds no symbol at all: every entry is missing.")
    code = {symbol: i for i, symbol in enumerate(book)}
    result = np.empty((int(labels.lengths.sum()), len(labels.features)))
    offset = 0
    for parts in columns:
        for d, column in enumerate(parts):
            where, levels = pd.factorize(np.asarray(column, dtype=object))  # a missing symbol has code -1
            known = np.array([code.get(_plain(level), -1) for level in levels] + [np.nan])
            values = known[where]
            if (values == -1).any():
                row = int(np.argmax(values == -1))
                raise DataError(
                    f"the symbol {show(_plain(levels[where[row]]))} ({labels.where(offset + row, d)}) is not among "
                    f"{', '.join(show(s) for s in book)}: mark it missing, or fit with symbols= that include it."
                )
            result[offset : offset + len(values), d] = values
        offset += len(parts[0])
    return result, book


def _symbols_in(columns: list[Any]) -> list[Any]:
    kinds = [column.dtype for column in columns]
    if all(isinstance(kind, pd.CategoricalDtype) for kind in kinds) and len(set(kinds)) == 1:
        return [_plain(symbol) for symbol in kinds[0].categories]
    found = {_plain(s) for column in columns for s in pd.unique(np.asarray(column, dtype=object)) if not pd.isna(s)}
    try:
        return sorted(found)
    except TypeError:
        raise DataError(
            f"the symbols are of several types ({', '.join(sorted({type(s).__name__ for s in found}))}): use one."
        ) from None


def _plain(symbol: Any) -> Any:
    """Python's own type, whole floats as ints: 1, 1.0 and np.int64(1) are the same symbol."""
    value = symbol.item() if isinstance(symbol, np.generic) else symbol
    return int(value) if isinstance(value, float) and value.is_integer() else value
