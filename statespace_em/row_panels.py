"""What is written for the rows of each sequence of a panel, as what is written for the rows of all, end to end.

A factor of a name, as in ``{"beta": x}``, is for each sequence where it is a dict or list of arrays, a Series with two
index levels (sequence, time), or a DataArray with a dim "sequence"; an entry (of numbers, names or expressions) where
it is one of the latter two, or a dict of names by sequence; a whole matrix where it is a list of arrays (rows, ...), or
a DataArray with a ``time`` dim and one of sequences beside its own. What is one number, name or matrix for each
sequence holds in all of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import AnyArray
from statespace_em.containers import read_tables, slices, time_dim
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import show
from statespace_em.segments import Segments


class Panel(NamedTuple):
    """Rows of all sequences."""

    rows: AnyArray  # (N, ...)
    segments: Segments


def has_panels(value: Any, ndim: int) -> bool:
    """Whether a matrix of so many dimensions is written for each sequence, as a whole or in part."""
    if isinstance(value, Mapping):
        return any(map(_is_factor, value.values()))
    if isinstance(value, list | tuple):
        if _is_listed(value, ndim + 1) or _is_named(value):
            return True
        entries = value if ndim == 1 else (entry for row in value if isinstance(row, list | tuple) for entry in row)
        return any(map(_is_entry, entries))
    return isinstance(value, xr.DataArray) and (value.ndim == ndim + 2 or "sequence" in value.dims)


def spread(value: Any, name: str, ndim: int) -> tuple[Any, Segments | None]:
    """What is written, with rows of all sequences end to end; None where it is for no sequence in particular.

    Raises
    ------
    ParameterError
        If its parts are for different sequences or rows, or cannot be read.
    """
    if not has_panels(value, ndim):
        return value, None
    panels: list[Panel] = []
    whole = isinstance(value, Mapping | xr.DataArray) or _is_listed(value, ndim + 1) or _is_named(value)
    constants = (0, 2) if whole and ndim == 2 else (int(whole),)  # dimensions of what has no rows

    def factor(part: Any) -> Any:
        if not _is_factor(part):
            return part
        panels.append(_panel(part, name, constants))
        return panels[-1]

    def entry(part: Any) -> Any:
        if _has_words(part):
            return factor(part)
        if _is_named(part):
            part = {part[0]: part[1]}
        if isinstance(part, Mapping):
            return {word: factor(own) for word, own in part.items()}
        if isinstance(part, xr.DataArray) and part.ndim > 1 and not _is_labelled(part):
            raise ParameterError(
                f"{name} has an entry with dims {part.dims}, expected one element a row: if one of them is that of the "
                "sequences, call it 'sequence'."
            )
        return factor(part) if _is_labelled(part) else part

    found: Any
    if isinstance(value, xr.DataArray) or _is_listed(value, ndim + 1):
        panels.append(_panel(value, name, constants))
        found = panels[0]
    elif whole:
        found = entry(value)
    else:
        found = [entry(own) if ndim == 1 else list(map(entry, own)) for own in value]
    first = min((panel.segments for panel in panels), key=lambda own: own.constant)  # rows, where something has rows
    for _, other in panels:
        if other.rows_of(first) is None:
            raise _uneven(name, first, other)
    return _read(found, first), first


def _read(found: Any, segments: Segments) -> Any:
    """What was found, with the rows of these segments in the place of panels."""
    if isinstance(found, Panel):
        return found.segments.as_of(segments, found.rows)
    if isinstance(found, list):
        return [_read(own, segments) for own in found]
    return {word: _read(own, segments) for word, own in found.items()} if isinstance(found, dict) else found


def _uneven(name: str, one: Segments, other: Segments) -> ParameterError:
    told = [", ".join(f"{show(key)} ({length})" for key, length in zip(own.keys, own.lengths)) for own in (one, other)]
    return ParameterError(
        f"{name} is given for the sequences (and rows) {told[0]}, and for {told[1]}: give all that each sequence has "
        "of its own for the same sequences, with the same rows."
    )


def common(given: Mapping[str, Segments]) -> Segments | None:
    """Sequences and rows that matrices are given for, by name.

    Raises
    ------
    ParameterError
        If they are not the same for all.
    """
    first = min(given, key=lambda name: given[name].constant, default=None)  # rows, where something has rows
    if first is None:
        return None
    for name, own in given.items():
        if own.rows_of(given[first]) is None:
            raise _uneven(f"{first}, as {name},", given[first], own)
    return given[first]


def end_to_end(value: Any, name: str) -> tuple[Any, Segments | None]:
    """Arrays (rows, ...) of numbers, known for all rows or for those of each sequence."""
    if isinstance(value, Mapping) or _is_labelled(value) or _is_listed(value, 3):
        panel = _panel(value, name, (2,))
        return panel.rows, panel.segments
    return value, None


def _is_labelled(value: Any) -> bool:
    """Whether an array says itself which sequences its rows are of."""
    if isinstance(value, pd.Series):
        return isinstance(value.index, pd.MultiIndex)
    return isinstance(value, xr.DataArray) and ("sequence" in value.dims or "length" in value.coords)


def _has_words(value: Any) -> bool:
    """Whether this has one name or expression for each sequence."""
    return isinstance(value, Mapping) and len(value) > 0 and all(isinstance(own, str) for own in value.values())


def _is_named(value: Any) -> bool:
    """Whether this is a pair of a name and its factors for each sequence."""
    pair = isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str)
    return pair and (isinstance(value[1], Mapping) or _is_labelled(value[1]))


def _is_listed(value: Any, ndim: int) -> bool:
    """Whether a list has one array of so many dimensions for each sequence."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(_is_rows(own, ndim) for own in value)


def _is_rows(value: Any, ndim: int | None = None) -> bool:
    return isinstance(value, np.ndarray | pd.Series | xr.DataArray) and (value.ndim == ndim if ndim else value.ndim > 0)


def _is_factor(value: Any) -> bool:
    if isinstance(value, str | int | float):
        return False
    listed = isinstance(value, list | tuple) and len(value) > 0 and all(_is_rows(own) for own in value)
    return isinstance(value, Mapping) or _is_labelled(value) or listed


def _is_entry(entry: Any) -> bool:
    if isinstance(entry, str | int | float):  # nearly always
        return False
    if isinstance(entry, Mapping):
        return any(map(_is_factor, entry.values())) or _has_words(entry)
    if isinstance(entry, list | tuple):
        return _is_named(entry)
    return _is_labelled(entry) or (isinstance(entry, xr.DataArray) and entry.ndim > 1)


def _panel(value: Any, name: str, constants: tuple[int, ...]) -> Panel:
    """Read the rows of each sequence, or what has so many dimensions and holds in all of them."""
    try:
        if isinstance(value, xr.DataArray):
            parts = _slices(value, constants)
        elif isinstance(value, Mapping | list | tuple):
            named = value if isinstance(value, Mapping) else dict(enumerate(value))
            parts = {key: _rows(own, constants) for key, own in named.items()}
        else:
            tables, labels = read_tables(value, None, "error")
            parts = {key: (t.values.to_numpy()[:, 0], t.times) for key, t in zip(labels.keys.tolist(), tables)}  # type: ignore[union-attr]
    except DataError as error:
        raise ParameterError(f"{name} cannot be read for each sequence: {error}") from None
    if not parts:
        raise ParameterError(f"{name} is given for no sequence: leave it out, or name one.")
    constant = {key: times is None for key, (_, times) in parts.items()}
    if len(set(constant.values())) > 1:
        one, many = (next(key for key, own in constant.items() if own == told) for told in (True, False))
        raise ParameterError(
            f"{name} has no rows for sequence {show(one)}: give an array with one element a row, as for {show(many)}, "
            "or one number for each sequence."
        )
    shapes = {np.shape(rows)[1:] for rows, _ in parts.values()}
    empty = [key for key, (rows, _) in parts.items() if np.ndim(rows) == 0 or not len(rows)]
    if empty:
        raise ParameterError(f"{name} has no rows for sequence {show(empty[0])}: give an array with one element a row.")
    if len(shapes) > 1:
        told = ", ".join(f"{np.shape(rows)} for {show(key)}" for key, (rows, _) in parts.items())
        raise ParameterError(f"{name} has arrays of different shapes for the sequences: {told}.")
    whole = tuple(pd.RangeIndex(1) if times is None else times for _, times in parts.values())
    segments = Segments(tuple(parts), whole, all(constant.values()))
    return Panel(np.concatenate([rows for rows, _ in parts.values()]), segments)


def _rows(value: Any, constants: tuple[int, ...]) -> tuple[AnyArray, pd.Index | None]:
    """Rows of one sequence, and their times; of what holds in all of them, itself."""
    if np.ndim(value) in constants and not isinstance(value, pd.Series | pd.DataFrame):
        return np.asarray(value)[None], None
    if isinstance(value, pd.Series | pd.DataFrame):
        return value.to_numpy(), value.index
    if isinstance(value, xr.DataArray):
        time = time_dim(value)
        own = value.transpose(time, ...)
        return own.values, value.indexes.get(time, pd.RangeIndex(value.sizes[time]))
    array = np.asarray(value)
    return array, pd.RangeIndex(len(array) if array.ndim else 0)


def _slices(value: xr.DataArray, constants: tuple[int, ...]) -> dict[Any, tuple[AnyArray, pd.Index | None]]:
    """Rows of the sequences of an array; what pads ragged ones is left out where a ``length`` tells of it."""
    lengths = value["length"].dims if "length" in value.coords else ()
    other = "sequence" if "sequence" in value.dims else str(next(iter((*lengths, *value.dims))))
    return {key: _rows(own, constants) for key, own in slices(value, other)}
