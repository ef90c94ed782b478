"""Matrices as users write them for every row, read into a `RowPattern`.

* Entry by entry, where an entry is a number, a name, an expression, an array of these with one element a row, or a
  dict of names and factors: ``[[1, dt], [0, {"phi": 1.0}]]``, ``[[np.where(late, "q_late", "q_early")]]``,
  ``[[{"beta": x}]]``;
* as a sum of names times arrays: ``{"r": w}`` with w (rows, ...) or, the same for one name, ``("r", w)``;
* row by row: an array (rows, ...) of numbers and expressions.

Where rows are those of each sequence of a panel, see `row_panels`, they are read end to end.
"""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from statespace_em._typing import AnyArray, Floats
from statespace_em.errors import ParameterError
from statespace_em.patterns import Pattern, fixed, terms_of
from statespace_em.row_panels import has_panels, spread
from statespace_em.row_patterns import RowPattern
from statespace_em.segments import Segments, row_of

Read: TypeAlias = tuple[RowPattern | Pattern | Floats, Segments | None]
KEPT = 32  # matrices read last, so that a long one is not read anew for every question
_read: dict[bytes, Read] = {}
_reading = threading.Lock()


def is_by_row(value: Any, ndim: int) -> bool:
    """Whether a matrix of so many dimensions is written for every row."""
    if isinstance(value, Mapping) or has_panels(value, ndim):
        return True
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str) and np.ndim(value[1]) > 0:
        return np.ndim(value[1]) == ndim + 1 or (np.ndim(value[1]) == 1 and ndim == 2)
    if isinstance(value, np.ndarray):
        return value.ndim == ndim + 1
    return isinstance(value, list | tuple) and (
        _depth(value, ndim) == ndim + 1 or any(map(_has_rows, _entries(value, ndim)))
    )


def from_rows(value: Any, name: str, ndim: int) -> Read:
    """Pattern of a matrix written for every row, its numbers (T, ...) where it has no names; and whose rows they are.

    Raises
    ------
    ParameterError
        Naming the entry and the row that cannot be read, or rows that do not go together.
    """
    key = hashlib.blake2b(pickle.dumps((value, name, ndim))).digest()
    with _reading:
        if key not in _read:
            plain, segments = spread(value, name, ndim)
            found = _assembled(plain, name, ndim, segments), segments
            while len(_read) >= KEPT:
                del _read[next(iter(_read))]
            _read[key] = found
        return _read[key]


def n_rows_of(value: Any, name: str, ndim: int) -> int:
    """Rows that a matrix which all sequences share is given for; 0 where it is the same in all."""
    if isinstance(value, str) or value is None:
        return 0
    plain = value.to_numpy() if isinstance(value, xr.DataArray) else value
    found = from_rows(plain, name, ndim)[0] if is_by_row(plain, ndim) else None
    return len(found) if isinstance(found, np.ndarray) else found.n_rows if isinstance(found, RowPattern) else 0


def shape_of(value: Any, ndim: int) -> tuple[int, ...] | None:
    """Shape of one row of a matrix written for every row; None where only reading it would tell."""
    value = spread(value, "a matrix", ndim)[0]
    if isinstance(value, Mapping):
        shapes = [np.shape(array) for array in value.values()]
        if ndim == 2 and any(len(shape) == 1 for shape in shapes):
            return (1, 1)
        return next((shape[-ndim:] for shape in shapes if len(shape) >= ndim), None)
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str):
        return shape_of({value[0]: value[1]}, ndim)
    if isinstance(value, np.ndarray) or _depth(value, ndim) == ndim + 1:
        return np.shape(value)[1:] if isinstance(value, np.ndarray) else np.shape(value[0])
    return (len(value), len(value[0])) if ndim == 2 else (len(value),)


def check_symmetric_rows(pattern: RowPattern, name: str) -> None:
    """Refuse covariances of rows that are not symmetric.

    Raises
    ------
    ParameterError
        Naming the entry and a row.
    """
    if len(pattern.shape) != 2 or pattern.shape[0] != pattern.shape[1]:
        raise ParameterError(f"{name} has matrices of shape {pattern.shape}, expected square ones.")
    size = pattern.shape[0]
    parts = {"its numbers": pattern.numbers}
    for j, word in enumerate(pattern.names):
        wide = np.zeros((len(pattern.numbers), size * size))
        for e in np.flatnonzero(pattern.owner == j):
            wide[:, pattern.place[e]] += pattern.factors[e]
        parts[f"the factors of {word!r}"] = wide.reshape(-1, size, size)
    for what, part in parts.items():
        off = np.argwhere(part != part.swapaxes(1, 2))
        if len(off):
            kind, i, j = (int(k) for k in off[0])
            raise ParameterError(
                f"{name} is not symmetric in row {pattern.first[kind]}: {what} are {part[kind, i, j]:g} at ({i}, {j}) "
                f"and {part[kind, j, i]:g} at ({j}, {i})."
            )


class _Terms:
    """What has been read so far: numbers and factors by entry, constant or by row."""

    def __init__(self, name: str, shape: tuple[int, ...], n_rows: int, segments: Segments | None) -> None:
        self.name, self.shape, self.n_rows, self.segments = name, shape, n_rows, segments
        self.numbers = np.zeros((n_rows, *shape))
        self.factors: dict[tuple[str, tuple[int, ...]], Floats] = {}

    def add(self, place: tuple[int, ...], word: str, factor: Any) -> None:
        """Add a factor (one, or one a row) of a name, or a number where the name is empty."""
        factor = self._checked(place, factor)
        if not word:
            where: tuple[Any, ...] = (slice(None), *place)
            self.numbers[where] += factor
        elif (word, place) in self.factors:
            self.factors[word, place] = self.factors[word, place] + factor
        else:
            self.factors[word, place] = np.broadcast_to(factor, self.n_rows)

    def add_expression(self, place: tuple[int, ...], entry: Any, rows: Any = slice(None)) -> None:
        """Add an expression in some of the rows."""
        for term, factor in self._linear(place, entry, rows[0] if isinstance(rows, list) else 0).items():
            where = np.zeros(self.n_rows)
            where[rows] = factor
            self.add(place, term, where)

    def _linear(self, place: tuple[int, ...], entry: Any, row: int = 0) -> dict[str, float]:
        """Names in an expression with their factors; the number has no name."""
        terms = terms_of(entry, self.name, place)
        product = next((term for term in terms if len(term) > 1), None)
        if product is not None:
            raise ParameterError(
                f"{self.name} has the entry {entry!r} at {place} in {row_of(row, self.segments)}, a product, but it is "
                f"given for every row: there entries are linear in names. Give the product a name of its own, such as "
                f"{'_'.join(product)!r}, which is then free of these."
            )
        return {term[0] if term else "": factor for term, factor in terms.items()}

    def add_scaled(self, place: tuple[int, ...], word: Any, factor: Any) -> None:
        """Add a factor (one, or one a row) of an expression."""
        factor = self._checked(place, factor)
        for term, times in self._linear(place, word).items():
            self.add(place, term, times * factor)

    def add_entry(self, place: tuple[int, ...], entry: Any) -> None:
        """Add an entry: a number, an expression, an array of these, or names with factors."""
        if _is_pair(entry):
            entry = {entry[0]: entry[1]}
        if isinstance(entry, Mapping):
            for word, factor in entry.items():
                self.add_scaled(place, word, factor)
            return
        array = np.asarray(entry)
        if array.dtype.kind in "fiub":
            self.add(place, "", array)
        elif array.ndim == 0:
            self.add_expression(place, entry)
        else:
            self.add_column(place, array)

    def add_column(self, place: tuple[int, ...], column: AnyArray) -> None:
        """Add an entry (T,) of numbers and expressions."""
        if len(column) != self.n_rows:
            raise self._uneven(place, len(column))
        rows: dict[Any, list[int]] = {}
        for t, each in enumerate(column.tolist()):
            rows.setdefault(each, []).append(t)
        for each, where in rows.items():
            self.add_expression(place, each, where)

    def _checked(self, place: tuple[int, ...], factor: Any) -> Floats:
        try:
            found = np.asarray(factor, dtype=float)
        except (TypeError, ValueError):
            raise ParameterError(
                f"{self.name} has {factor!r} at {place}, expected a number, or an array of numbers with one a row."
            ) from None
        if found.ndim > 1 or (found.ndim == 1 and len(found) != self.n_rows):
            raise self._uneven(place, found.shape if found.ndim > 1 else len(found))
        if not np.isfinite(found).all():
            row = int(np.argmin(np.isfinite(np.broadcast_to(found, self.n_rows))))
            raise ParameterError(
                f"{self.name} has {np.broadcast_to(found, self.n_rows)[row]} at {place} in "
                f"{row_of(row, self.segments)}, expected a "
                "finite number or a name: what is known must be so in every row, what is not needs a name."
            )
        return found

    def _uneven(self, place: tuple[int, ...], have: Any) -> ParameterError:
        return ParameterError(
            f"{self.name} has an entry at {place} for {have} rows, others are for {self.n_rows}: give every entry that "
            "varies for all rows."
        )

    def pattern(self) -> RowPattern | Floats:
        """Everything as a pattern; plain numbers where there are no names."""
        terms = {term: factor for term, factor in self.factors.items() if factor.any()}
        lost = next((word for word, _ in self.factors if word not in {own for own, _ in terms}), None)
        if lost is not None:
            raise ParameterError(
                f"{self.name} has the name {lost!r} with factors of 0 only, which tells nothing: leave it out."
            )
        if not terms:
            return self.numbers
        names = tuple(dict.fromkeys(word for word, _ in terms))
        columns = np.array(list(terms.values()))
        rows = np.ascontiguousarray(np.hstack([self.numbers.reshape(self.n_rows, -1), columns.T]) + 0.0)
        whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
        _, first, kind = np.unique(whole, return_index=True, return_inverse=True)
        order = np.argsort(first)  # as they come
        first, kind = first[order], np.argsort(order)[kind.ravel()]
        return RowPattern(
            names, self.numbers[first], np.array([names.index(word) for word, _ in terms]),
            np.array([int(np.ravel_multi_index(place, self.shape)) for _, place in terms]), columns[:, first],
            kind,
        )  # fmt: skip


def _assembled(value: Any, name: str, ndim: int, segments: Segments | None) -> RowPattern | Pattern | Floats:
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str):
        value = {value[0]: value[1]}
    if isinstance(value, Mapping):
        return _summed(value, name, ndim, segments)
    if isinstance(value, np.ndarray) or _depth(value, ndim) == ndim + 1:
        return _row_by_row(value, name, ndim, segments)
    entries = dict(zip(_places(value, ndim, name), _entries(value, ndim)))
    lengths = [length for entry in entries.values() for length in _lengths(entry)]
    shape = (len(value), len(value[0])) if ndim == 2 else (len(value),)
    terms = _Terms(name, shape, lengths[0] if lengths else 1, segments)
    for place, entry in entries.items():
        terms.add_entry(place, entry)
    return terms.pattern() if lengths else _constant(terms.pattern())


def _constant(found: RowPattern | Floats) -> Pattern:
    """Return the pattern of all rows where none has more than one row."""
    if isinstance(found, np.ndarray):
        return fixed(found[0])
    return Pattern(found.names, found.numbers[0], found.dense(0, 1)[:, 0])


def _summed(value: Mapping[Any, Any], name: str, ndim: int, segments: Segments | None) -> RowPattern | Pattern | Floats:
    """Sum of names times arrays; one number a row stands for a matrix with one entry."""
    arrays = {}
    for word, factor in value.items():
        array = np.asarray(factor)
        if not isinstance(word, str | int | float) or array.dtype.kind not in "fiub":
            raise ParameterError(
                f"{name} has {word!r}: {factor!r}, expected a name with an array of numbers, or 1 with them."
            )
        if array.ndim == 1 and ndim == 2:
            array = array[:, None, None]
        if array.ndim not in (ndim, ndim + 1) or not array.size:
            raise ParameterError(f"{name} has an array of shape {array.shape} for {word!r}, expected (rows, ...).")
        arrays[word] = array
    shape = next(iter(arrays.values())).shape[-ndim:] if arrays else ()
    n_rows = max((len(array) for array in arrays.values() if array.ndim > ndim), default=1)
    for word, array in arrays.items():
        if array.shape[-ndim:] != shape or (array.ndim > ndim and len(array) != n_rows):
            raise ParameterError(
                f"{name} has an array of shape {array.shape} for {word!r}, expected {(n_rows, *shape)}."
            )
    terms = _Terms(name, shape, n_rows, segments)
    for word, array in arrays.items():
        for place in np.ndindex(shape):
            terms.add_scaled(place, word, array[(..., *place)])
    vary = any(array.ndim > ndim for array in arrays.values())
    return terms.pattern() if vary else _constant(terms.pattern())


def _row_by_row(value: Any, name: str, ndim: int, segments: Segments | None) -> RowPattern | Floats:
    """Matrices of numbers and expressions, one a row."""
    array = value if isinstance(value, np.ndarray) else np.array(value, dtype=object)
    if array.ndim != ndim + 1:
        raise ParameterError(f"{name} is given for every row, in matrices of different shapes.")
    terms = _Terms(name, array.shape[1:], len(array), segments)
    for place in np.ndindex(array.shape[1:]):
        column = array[(slice(None), *place)]
        if array.dtype.kind in "fiub":
            terms.add(place, "", column)
        else:
            terms.add_column(place, column)
    return terms.pattern()


def _places(value: Any, ndim: int, name: str) -> list[tuple[int, ...]]:
    if ndim == 1:
        return [(i,) for i in range(len(value))]
    lengths = [len(row) for row in value]
    if len(set(lengths)) > 1:
        raise ParameterError(f"{name} has rows of different lengths: {lengths}.")
    return [(i, j) for i in range(len(value)) for j in range(lengths[0])]


def _entries(value: Any, ndim: int) -> Iterator[Any]:
    for row in value:
        if ndim == 1:
            yield row
        elif isinstance(row, list | tuple):
            yield from row


def _lengths(entry: Any) -> list[int]:
    """Numbers of rows that an entry tells of; a number that is alone tells of none."""
    if isinstance(entry, Mapping):
        return [len(factor) for factor in entry.values() if np.ndim(factor) == 1]
    if _is_pair(entry):
        return _lengths({entry[0]: entry[1]})
    return [np.shape(entry)[0]] if np.ndim(entry) == 1 else []


def _is_pair(entry: Any) -> bool:
    """Whether an entry is a name with its factors."""
    pair = isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str)
    return pair and not isinstance(entry[1], str | list) and np.ndim(entry[1]) == 1


def _has_rows(entry: Any) -> bool:
    if isinstance(entry, str | int | float):  # nearly always
        return False
    if isinstance(entry, Mapping) or _is_pair(entry):
        return True
    if isinstance(entry, list | tuple):
        return False
    return np.ndim(entry) == 1


def _depth(value: Any, ndim: int) -> int:
    """Number of axes of a nested list; what stands where a matrix has its entries counts as one, if it is an array."""
    if isinstance(value, np.ndarray):
        return value.ndim if ndim else 0
    if not ndim and _has_rows(value):
        return 0
    return 1 + _depth(value[0], max(ndim - 1, 0)) if isinstance(value, list | tuple) and len(value) else 0
