"""When the rows of a model of motion are: gaps from a time coordinate, in a stated unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from statespace_em._typing import Floats, Ints
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import show

UNITS = ("W", "D", "h", "min", "s", "ms", "us", "ns")
EVEN = 1e-9  # relative difference up to which gaps are the same


class Grid(NamedTuple):
    """When the rows are."""

    step: float  # between rows; of uneven ones the median
    gaps: Floats | None = None  # (G,), from each row to the next; None where all are the step
    place: Ints | None = None  # (N,), gap after each row; None where it is the number in its sequence
    rows: Ints | None = (
        None  # (G,), number of the row before each gap, among those of matrices; None where it is that of the gap
    )


def grid_of(times: Sequence[pd.Index], unit: str, ahead: int, begins: Ints | None = None) -> Grid:
    """Gaps between the rows of each sequence, ``ahead`` steps of its own median length after its end included.

    ``begins`` are the first rows of what sequences have of their own, where they have.

    Raises
    ------
    DataError
        If two rows of a sequence have the same time.
    """
    gaps = [gaps_of(index, unit) for index in times]
    every = np.concatenate(gaps)
    if not len(every):
        return Grid(1.0)
    step = float(np.median(every))
    if every.min() <= 0.0:
        number = next(i for i, own in enumerate(gaps) if len(own) and own.min() <= 0.0)
        row = int(np.argmin(gaps[number])) + 1
        raise DataError(
            f"row {row} has the {times[number].name or 'time'} {show(times[number][row])}, which is not after that of "
            "the row before it: put rows in order, and measurements of one time into the columns of one row."
        )
    if np.ptp(every) <= EVEN * step:
        return Grid(step)
    longer = [np.append(own, np.full(1 + ahead, step_of(index, unit, step))) for own, index in zip(gaps, times)]
    if begins is None and all(
        len(own) == len(gaps[0]) and np.allclose(own, gaps[0], rtol=EVEN, atol=0.0) for own in gaps
    ):
        return Grid(step, longer[0])
    ends = np.cumsum([len(own) for own in longer])
    place = np.concatenate([end - len(own) + np.arange(len(gap) + 1) for end, own, gap in zip(ends, longer, gaps)])
    first = np.zeros(len(longer), np.int64) if begins is None else begins
    rows = np.concatenate([begin + np.arange(len(own)) for begin, own in zip(first, longer)])
    return Grid(step, np.concatenate(longer), place, rows)


def step_of(index: pd.Index, unit: str, otherwise: float) -> float:
    """Median step between the rows of one sequence; another where it has one row."""
    gaps = gaps_of(index, unit)
    return float(np.median(gaps)) if len(gaps) else otherwise


def gaps_of(index: pd.Index, unit: str) -> Floats:
    """Lengths of the steps of one sequence; 1 where rows have no times.

    Raises
    ------
    DataError
        If the times are text.
    """
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
        return np.asarray(np.diff(index.asi8) / unit_length(unit, index), dtype=float)
    if pd.api.types.is_numeric_dtype(index.dtype):
        return np.diff(index.to_numpy(dtype=float))
    if index.inferred_type == "string" and (_reads(index, _numbers) or _reads(index, _dates)):
        raise DataError(
            f"{index.name or 'time'} {show(index[0])} is text, from which steps are not read: make the times dates, as "
            "y.index = pd.to_datetime(y.index), or numbers."
        )
    return np.ones(max(len(index) - 1, 0))


def _reads(index: pd.Index, read: Callable[[pd.Index], Any]) -> bool:
    try:
        read(index)
    except (TypeError, ValueError):
        return False
    return True


def _numbers(index: pd.Index) -> pd.Index:
    return index.astype(float)


def _dates(index: pd.Index) -> pd.Index:
    return pd.to_datetime(index, format="ISO8601")


def unit_length(unit: str, index: pd.DatetimeIndex | pd.TimedeltaIndex) -> float:
    """Ticks of an index in a unit of time.

    Raises
    ------
    ParameterError
        If the unit is none.
    """
    return float(length_of(unit) / pd.Timedelta(f"1 {index.unit}"))


def length_of(unit: str) -> pd.Timedelta:
    """How long a unit of time is.

    Raises
    ------
    ParameterError
        If the unit is none, or is not always as long, as a month.
    """
    try:
        if isinstance(unit, str) and unit.strip():
            return pd.Timedelta(f"1 {unit}")
    except ValueError:
        pass
    raise ParameterError(f"unit is {unit!r}, expected a unit of time: {', '.join(map(repr, UNITS))}.")


def index_of(times: Any, like: pd.Index) -> pd.Index:
    """Times asked for, as an index of the kind that the rows have, sorted and without repeats.

    Raises
    ------
    ParameterError
        If there are none, or they are of another kind than those of the rows.
    """
    single = np.ndim(times) == 0 or isinstance(times, str)
    found = pd.Index([times] if single else times if isinstance(times, Sequence) else np.asarray(times))
    dated = isinstance(like, pd.DatetimeIndex | pd.TimedeltaIndex)
    if not dated and not pd.api.types.is_numeric_dtype(like.dtype):
        raise ParameterError(f"the rows are called {show(like[0])}, ...: give them dates or numbers first.")
    try:
        if dated and pd.api.types.is_numeric_dtype(found.dtype) and not found.hasnans and len(found):
            raise TypeError("numbers would be counts of nanoseconds")
        if isinstance(like, pd.DatetimeIndex):
            found = pd.DatetimeIndex(found)
            if found.tz is not None and like.tz is None:
                raise TypeError("rows without a time zone are at no time of one")
            found = found.tz_localize(like.tz) if found.tz is None and like.tz is not None else found
            found = found.as_unit("ns")
        elif isinstance(like, pd.TimedeltaIndex):
            found = pd.TimedeltaIndex(found).as_unit("ns")
        else:
            found = pd.Index(found.astype(float))
    except (TypeError, ValueError):
        raise ParameterError(f"times begin with {show(found[0])}, expected times such as {show(like[0])}.") from None
    if not len(found) or found.hasnans:
        raise ParameterError("times is empty or has missing ones, expected times at which to look.")
    return found.unique().sort_values()
