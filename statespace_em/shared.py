"""Matrices of many rows of which few are distinct: each is kept once, and written out when somebody looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, final

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from statespace_em import _memory
from statespace_em._typing import Floats, Ints

FEW = 2048  # rows from which on matrices are shared: below, the memory is nothing, and a printed Dataset shows numbers


@final
class SharedRows:
    """One matrix a row, ``distinct[place[t]]``; reads like the array of all of them.

    Parameters
    ----------
    distinct
        The matrices that differ (M, ...).
    place
        Which of them each row has (N,).
    """

    def __init__(self, distinct: Floats, place: Ints) -> None:
        self.distinct, self.place = distinct, place

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of all rows."""
        return (*self.place.shape, *self.distinct.shape[1:])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.place)

    def __getitem__(self, rows: Any) -> Floats:
        """Matrices of these rows."""
        return np.asarray(self.distinct[self.place[rows]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        """Return the array of all rows, a new one each time."""
        if copy is False:
            raise ValueError("the matrices of all rows cannot be written out without a copy.")
        return np.asarray(written_out(self.distinct, self.place), dtype=dtype)


Matrices: TypeAlias = Floats | SharedRows  # one a row


def pays(n_distinct: int, n_rows: int) -> bool:
    """Whether to share: where fewer than half of many rows have a matrix of their own.

    Else, as with entries missing at random, the index would come on top of as many matrices.
    """
    return n_rows >= FEW and 2 * n_distinct <= n_rows


def stack_of(rows: Matrices) -> tuple[Floats, Ints]:
    """Matrices, and which of them each row has."""
    return (rows.distinct, rows.place) if isinstance(rows, SharedRows) else (rows, np.arange(len(rows)))


def replaced(matrices: Matrices, rows: Ints, values: Floats) -> Matrices:
    """Matrices of which some rows have other ones; an array is changed in place."""
    if isinstance(matrices, SharedRows):
        n_distinct = len(matrices.distinct)
        if pays(n_distinct + len(rows), len(matrices)):
            place = matrices.place.copy()
            place[rows] = np.arange(n_distinct, n_distinct + len(rows))
            return SharedRows(np.concatenate([matrices.distinct, values]), place)
        matrices = np.asarray(matrices)
    matrices[rows] = values
    return matrices


def joined(rows: Sequence[Ints], parts: Sequence[Matrices]) -> Matrices:
    """Values of all rows from those of parts, whose numbers ``rows`` are; matrices stay shared where they were."""
    place = np.empty(sum(map(len, rows)), np.int64)
    stacks, begin = [], 0
    for numbers, part in zip(rows, parts):
        distinct, own = stack_of(part)
        place[numbers] = begin + own
        stacks.append(distinct)
        begin += len(distinct)
    distinct = np.concatenate(stacks)
    shared = any(isinstance(part, SharedRows) for part in parts)
    if not shared and (np.diff(place) == 1).all():
        return distinct  # rows in their order
    shared = shared and pays(len(distinct), len(place))
    return SharedRows(distinct, place) if shared else written_out(distinct, place)


def written_out(distinct: Floats, place: Ints) -> Floats:
    """Matrices ``distinct[place]`` of any number of rows."""
    found = _memory.empty((*np.shape(place), *distinct.shape[1:]))[0]
    np.take(distinct, place, axis=0, out=found, mode="clip")  # another mode would write them twice
    return found


def lazily(rows: SharedRows, inside: Any = None) -> Any:
    """Array for an `xarray.Variable` that is written out when its values are asked for, as variables of files are.

    With ``inside`` ([S,] T), which entries of a table of sequences have a row, it has the shape of that, and NaN in the
    others.
    """
    distinct, place = rows.distinct, rows.place
    if inside is not None:
        blank = np.full((1, *distinct.shape[1:]), np.nan)
        distinct = distinct if inside.all() else np.concatenate([distinct, blank])
        place = np.full(inside.shape, len(distinct) - 1)
        place[inside] = rows.place
    stored = indexing.LazilyIndexedArray(_Stored(distinct, place))
    return indexing.MemoryCachedArray(_CopiedOnWrite(stored))  # type: ignore[no-untyped-call, arg-type]


@final
class _Stored(BackendArray):
    """What `xarray` reads from: entries ``place``, then the axes of a matrix."""

    def __init__(self, distinct: Floats, place: Ints) -> None:
        self.distinct, self.place = distinct, place
        self.shape, self.dtype = (*place.shape, *distinct.shape[1:]), distinct.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> Floats:
        lead = self.place.ndim
        # every axis keeps its own entries, so the few matrices are cut before they are written out
        place, distinct = _outer(self.place, key[:lead]), _outer(self.distinct, (slice(None), *key[lead:]))
        return written_out(distinct, place)


def _outer(values: Any, key: tuple[Any, ...]) -> Any:
    """Entries of an array, axis by axis, each by a number, a slice or a list of numbers."""
    for axis in range(len(key) - 1, -1, -1):
        values = values[(slice(None),) * axis + (key[axis],)]
    return values


@final
class _CopiedOnWrite(indexing.CopyOnWriteArray):
    """Copy that is made when an entry is set, as `xarray` has it, but for three things."""

    __slots__ = ()

    def __deepcopy__(self, memo: Any) -> _CopiedOnWrite:
        # that of xarray shares its numbers with the original once this was written to
        return type(self)(np.array(self.array) if self._copied else self.array)

    # an index for every entry, which xarray would carry along, takes more memory than the entries

    def _vindex_get(self, indexer: indexing.VectorizedIndexer) -> _CopiedOnWrite:
        return type(self)(indexing.as_indexable(np.asarray(self)).vindex[indexer])  # type: ignore[no-untyped-call]

    def transpose(self, order: Any) -> Any:
        return np.asarray(self).transpose(order)
