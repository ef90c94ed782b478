"""Any of the usual containers to one array of rows, sequences end to end, and the labels to undo it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from numbers import Real
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import pandas as pd

from statespace_em import _validate
from statespace_em._typing import AnyArray, Bools, Floats, Ints
from statespace_em.containers import Table, read_tables
from statespace_em.emissions.base import Support
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import Labels, listed, show

LARGEST = 1e150  # of a real observation; squares of larger ones overflow
COPIED = 2**27  # bytes of an array that is read-only, up to which a copy is sooner than to compile for it
SMALLEST = 1e-140  # of the largest of real observations, whose squares, and shares of these, are numbers
CHECKED = 8192  # rows whose checksum is made at a time
NUMBERS = "fiub"  # kinds of dtype that turn into floats as they are
Levels: TypeAlias = tuple[Ints, list[Any]]  # codes of the entries of a column, -1 = missing, and what they stand for


class Batch(NamedTuple):
    """Sequences end to end."""

    y: Floats  # (N, D), NaN = missing
    starts: Ints  # (S + 1,), offset of the first row of each sequence, then N
    known: Ints | None = None  # (N,), number of the state where it is known, else -1
    row_weight: Floats | None = None  # (N,), power of the density of each row
    sequence_weight: Floats | None = None  # (S,), power of the likelihood of each sequence
    inputs: Floats | None = None  # (N, k), known inputs of a model that has them
    place: Ints | None = None  # (N,), entry of matrices given for every row; None: the number in the sequence

    @property
    def first(self) -> Bools:
        """Whether each row (N,) is the first of its sequence."""
        first = np.zeros(len(self.y), bool)
        first[self.starts[:-1]] = True
        return first

    def take(self, rows: AnyArray | slice, starts: Ints, sequences: AnyArray | slice | None = None) -> Batch:
        """Some rows, as sequences that begin at ``starts``, with all that belongs to them.

        ``sequences`` are the numbers of the sequences that those are, or are part of; None drops their weights.
        """
        by_row: list[Any] = [self.known, self.row_weight, self.inputs, self.place]
        known, row_weight, inputs, place = (None if value is None else value[rows] for value in by_row)
        whole = None if self.sequence_weight is None or sequences is None else self.sequence_weight[sequences]
        return Batch(self.y[rows], starts, known, row_weight, whole, inputs, place)

    def cut(self, begin: int, end: int) -> Batch:
        """One sequence, or its beginning, without the weight that it has as a whole."""
        return self.take(slice(begin, end), np.array([0, end - begin]))

    @property
    def lengths(self) -> Ints:
        """Rows of each sequence (S,)."""
        return np.diff(self.starts)

    @property
    def weight(self) -> Floats | None:
        """Weight (N,) of each row in the statistics of the emissions; None if all are 1."""
        if self.sequence_weight is None:
            return self.row_weight
        whole = np.repeat(self.sequence_weight, self.lengths)
        return whole if self.row_weight is None else whole * self.row_weight


def as_batch(
    y: Any,
    *,
    support: str = "real",
    symbols: Iterable[Any] | None = None,
    features: AnyArray | None = None,
    unsorted: Literal["error", "sort"] = "error",
) -> tuple[Batch, Labels, list[Any] | None]:
    """Read observations.

    Parameters
    ----------
    y
        Array (N,) or (N, D), Series, DataFrame (two index levels: sequence, time), DataArray, Dataset (one variable
        a feature), or a list or dict of these, one a sequence; so a list of lists holds sequences, not rows. NaN,
        None, pd.NA and the masked entries of a masked array are missing.
    support
        What the entries may be, see `EmissionFamily`; "category" reads any labels and returns codes.
    symbols
        The symbols that may occur, in the order of their codes; None takes those that do occur, and all categories
        of a pandas categorical.
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
    ParameterError
        If an option cannot be used.
    """
    _validate.one_of("support", support, get_args(Support))
    _validate.one_of("unsorted", unsorted, ("error", "sort"))
    book = None if symbols is None else _checked(symbols)
    tables, labels = read_tables(y, features, unsorted)
    starts = np.concatenate([[0], np.cumsum(labels.lengths)]).astype(np.int64)
    if support == "category":
        rows, book = _encode(tables, labels, book)
    else:
        parts = [_numeric(table, labels, start) for table, start in zip(tables, starts)]
        rows, book = parts[0] if len(parts) == 1 else np.concatenate(parts), None
        _check_values(rows, labels, support)
    return Batch(_open(np.ascontiguousarray(rows, dtype=float)), starts), labels, book


def _open(rows: Floats) -> Floats:
    """Leave out the mark that pandas puts on what it hands out: for read-only arrays kernels are compiled again."""
    if rows.flags.writeable:
        return rows
    if rows.base is None or not getattr(rows.base, "flags", rows.flags).writeable:
        return rows.copy() if rows.nbytes <= COPIED else rows
    view = rows.view()
    view.flags.writeable = True
    return view


def fingerprint(batch: Batch, labels: Labels) -> str:
    """Describe observations in words and by a checksum, so that a fit can tell whether it has seen them."""
    said = {
        "known states": batch.known,
        "weights of rows": batch.row_weight,
        "weights of sequences": batch.sequence_weight,
    }
    more = {word: value for word, value in said.items() if value is not None}
    code = hashlib.sha256()
    for begin in range(0, len(batch.y), CHECKED):  # what the cache holds is hashed twice as fast as what it does not
        values = batch.y[begin : begin + CHECKED] + 0.0  # no negative zero
        values[np.isnan(values)] = np.nan  # and one kind of NaN
        code.update(values.data)
    for part in (batch.starts, *more.values()):
        code.update(np.ascontiguousarray(part).data)
    many = f" in {len(batch.starts) - 1} sequences" if len(batch.starts) > 2 else ""
    with_more = f" with {' and '.join(more)}" if more else ""
    words = f"{len(batch.y)} rows{many}{with_more}, columns {listed(labels.features)}"
    return f"{words}, checksum {code.hexdigest()[:12]}"


def _columns(table: Table) -> list[Any]:
    values = table.values
    if isinstance(values, pd.DataFrame):
        return [values.iloc[:, d] for d in range(values.shape[1])]
    return [values[:, d] for d in range(values.shape[1])]


# numbers


def _numeric(table: Table, labels: Labels, start: int) -> Floats:
    """Entries of one sequence (N, D) as floats; ``start`` is its first row."""
    values = table.values
    kinds = values.dtypes if isinstance(values, pd.DataFrame) else [values.dtype]
    if all(isinstance(kind, np.dtype) and kind.kind in NUMBERS for kind in kinds):
        return np.asarray(values, dtype=float)
    result = np.empty((len(table.times), len(table.columns)))
    for d, column in enumerate(_columns(table)):
        if column.dtype.kind in "cmM":
            remedy = "pass real and imaginary part apart" if column.dtype.kind == "c" else "make it the index"
            name = show(table.columns[d])
            raise DataError(f"column {name} has dtype {column.dtype}, expected numbers: leave it out, or {remedy}.")
        column = pd.Series(column)
        result[:, d], strange = _floats(column)
        if strange.any():
            row = int(np.argmax(strange))
            raise DataError(
                f"{show(column.iloc[row])} is not a number ({labels.where(int(start) + row, d)}): convert it, "
                "mark it missing with NaN, or use a model for symbols (CategoricalHMM)."
            )
    return result


def _floats(column: pd.Series[Any]) -> tuple[Floats, Bools]:
    """Entries as floats, and whether each is neither a number nor missing."""
    fine = np.zeros(len(column), bool)
    if column.dtype.kind in NUMBERS:
        return column.to_numpy(dtype=float, na_value=np.nan), fine
    column = column.astype(object)
    missing = column.isna().to_numpy()
    if pd.api.types.infer_dtype(column, skipna=True) in ("integer", "floating", "mixed-integer-float", "empty"):
        return column.mask(missing, np.nan).to_numpy(dtype=float), fine
    number = np.array([isinstance(entry, Real | Decimal | np.bool_) for entry in column])
    return np.array([float(entry) if ok else np.nan for entry, ok in zip(column, number)]), ~number & ~missing


def _check_values(y: Floats, labels: Labels, support: str) -> None:
    def fail(bad: AnyArray, what: str, remedy: str) -> None:
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            value = float(y[row, column])
            shown = show(_plain(value) if abs(value) < 1e16 else value)
            raise DataError(f"{shown} {what} ({labels.where(row, column)}): {remedy}.")

    if support == "real" and y.size:
        top = max(np.fmax.reduce(y, axis=None), -np.fmin.reduce(y, axis=None))
        if SMALLEST <= top <= LARGEST or top == 0.0:
            return  # what follows takes several times as long
    missing = "correct it, or mark it missing with NaN"
    fail(np.isinf(y), "is not finite", missing)
    if support == "real":
        tiny = (y != 0.0) & bool(np.nanmax(np.abs(y), initial=0.0) < SMALLEST)
        fail(tiny & ~np.isnan(y), "is too small: its square is beyond floating point", "change its unit")
        fail(np.abs(y) > LARGEST, "is too large: its square is beyond floating point", f"change its unit, or {missing}")
    if support == "count":
        fail(y < 0.0, "is negative, but counts are expected", missing)
        fail(np.floor(y) < y, "is not a whole number, but counts are expected", "use a model for real numbers")
    if support == "positive":
        fail(y <= 0.0, "is not positive", missing)


# symbols


def _encode(tables: list[Table], labels: Labels, book: list[Any] | None) -> tuple[Floats, list[Any]]:
    """Codes (N, D) of the symbols, and the symbols."""
    columns = [_columns(table) for table in tables]
    levels = [[_levels(column) for column in parts] for parts in columns]
    if book is None:
        book = _symbols_in([column for parts in columns for column in parts], [pair for p in levels for pair in p])
    code = {symbol: i for i, symbol in enumerate(book)}
    result = np.empty((int(labels.lengths.sum()), len(labels.features)))
    offset = 0
    for parts in levels:
        for d, (where, found) in enumerate(parts):
            values = np.array([code.get(symbol, -1) for symbol in found] + [np.nan])[where]
            if (values == -1).any():
                row = int(np.argmax(values == -1))
                raise DataError(
                    f"the symbol {show(found[where[row]])} ({labels.where(offset + row, d)}) is not among "
                    f"{listed(book)}: mark it missing, or fit with symbols= that include it."
                )
            result[offset : offset + len(values), d] = values
        offset += len(parts[0][0])
    return result, book


def _levels(column: Any) -> Levels:
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, found = column.cat.codes.to_numpy(), column.cat.categories
    else:
        try:
            codes, found = pd.factorize(column)
        except TypeError:
            raise DataError("y holds entries that cannot be symbols, such as lists: use strings or numbers.") from None
    return codes, [_plain(symbol) for symbol in found]


def _symbols_in(columns: list[Any], levels: list[Levels]) -> list[Any]:
    """All symbols, sorted; the categories in their own order where all columns have the same."""
    kinds = {column.dtype for column in columns}
    shared = len(kinds) == 1 and isinstance(columns[0].dtype, pd.CategoricalDtype)
    found = list(dict.fromkeys(symbol for _, symbols in levels for symbol in symbols))
    if not found:
        raise DataError("y holds no symbol at all: every entry is missing.")
    examples = {"number" if type(s) in (int, float) else type(s).__name__: show(s) for s in reversed(found)}
    if len(examples) > 1:
        raise DataError(
            f"the symbols of y are of several types, such as {' and '.join(reversed(examples.values()))}: make "
            "them one, as in y.astype(str)."
        )
    try:
        return found if shared else sorted(found)
    except TypeError:
        return found  # of a type without an order


def _checked(symbols: Iterable[Any]) -> list[Any]:
    """Symbols given as an option."""
    if not isinstance(symbols, Iterable):
        raise ParameterError(f"symbols is {show(symbols)}, expected a list such as ['a', 'b'].")
    book = [_plain(symbol) for symbol in symbols]
    if not book:
        raise ParameterError("symbols is empty: name at least one, or leave it out to take those in the data.")
    for i, symbol in enumerate(book):
        if pd.api.types.is_scalar(symbol) and pd.isna(symbol):
            raise ParameterError(f"symbols holds {show(symbol)}, which marks missing entries: leave it out.")
        if symbol in book[:i]:
            raise ParameterError(f"symbols holds {show(symbol)} twice: leave one out.")
    return book


def _plain(symbol: Any) -> Any:
    """Python's own type, whole floats as ints: 1, 1.0 and np.int64(1) are the same symbol."""
    value = symbol.item() if isinstance(symbol, np.generic) else symbol
    return int(value) if isinstance(value, float) and value.is_integer() else value
