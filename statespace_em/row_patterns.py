"""Structure of a matrix that is another in every row: numbers and names, with factors that change from row to row.

The matrix of row t is ``numbers[t] + sum of values[j] * factors[j, t]``; rows that are alike are of one kind and kept
once, so that a break in time costs two matrices and a factor that never repeats one number a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.patterns import Pattern


@dataclass(frozen=True, eq=False)
class RowPattern:
    """A family of arrays with one array a row: numbers plus a sum of free values times factors."""

    names: tuple[str, ...]  # of the free values
    numbers: Floats  # (kinds, ...)
    owner: Ints  # (terms,), position of the free value of each term
    place: Ints  # (terms,), its entry of the array, counted along the rows
    factors: Floats  # (terms, kinds)
    kind: Ints  # (T,), kind of each row

    products: ClassVar[tuple[tuple[int, ...], ...]] = ()  # as of `Pattern`: this family is affine
    is_plain: ClassVar[bool] = False
    columns: ClassVar[None] = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of one row."""
        return self.numbers.shape[1:]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.kind)

    @cached_property
    def touched(self) -> Bools:
        """Entries that depend on a free value in some row."""
        touched = np.zeros(int(np.prod(self.shape)), bool)
        touched[self.place] = True
        return touched.reshape(self.shape)

    @property
    def linked(self) -> Bools:
        """Entries that are not zero in all rows."""
        return np.asarray(self.touched | (self.numbers != 0.0).any(0))

    @cached_property
    def first(self) -> Ints:
        """A row of each kind."""
        found = np.zeros(len(self.numbers), np.int64)
        found[self.kind[::-1]] = np.arange(self.n_rows)[::-1]
        return found

    @property
    def on_diagonal(self) -> list[str]:
        """Names that stand on the diagonal of a square matrix."""
        own = self.place // self.shape[0] == self.place % self.shape[0]
        return [name for j, name in enumerate(self.names) if (self.owner[own] == j).any()]

    @cached_property
    def indefinite(self) -> int | None:
        """First kind whose one free value scales a matrix that has eigenvalues of both signs; None where none does."""
        if (
            len(self.names) > 1
            or self.numbers.any()
            or (self.place // self.shape[0] == self.place % self.shape[0]).all()
        ):
            return None
        wrong = is_indefinite(self.dense(0, len(self.numbers))[0])
        return int(np.argmax(wrong)) if wrong.any() else None

    def at(self, rows: Ints) -> RowPattern:
        """Return the pattern of some of the rows, each a kind of its own."""
        kinds = self.kind[rows]
        return replace(self, numbers=self.numbers[kinds], factors=self.factors[:, kinds], kind=np.arange(len(rows)))

    def dense(self, begin: int, end: int) -> Floats:
        """Design (n_free, kinds, ...) of some kinds, written out."""
        wide = np.zeros((len(self.names), end - begin, int(np.prod(self.shape))))
        for owner, place, factor in zip(self.owner, self.place, self.factors):
            wide[owner, :, place] += factor[begin:end]
        return wide.reshape(len(self.names), end - begin, *self.shape)

    def build(self, values: Floats) -> Floats:
        """Arrays (T, ...) from the free values."""
        flat = self.numbers.reshape(len(self.numbers), -1).copy()
        for owner, place, factor in zip(self.owner, self.place, self.factors):
            flat[:, place] += values[owner] * factor
        return np.asarray(flat.reshape(self.numbers.shape)[self.kind])

    def read(self, arrays: Floats) -> Floats:
        """Free values of arrays (T, ...), of those of the first rows, or of one array: those that come closest."""
        kinds, own = np.arange(len(self.numbers)), arrays
        if arrays.ndim > len(self.shape):
            kinds, rows, _ = occurring(self.kind[: len(arrays)], len(self.numbers))
            own = arrays[rows]
        right = np.zeros(len(self.names))
        off = (own - self.numbers[kinds]).reshape(len(kinds), -1)
        for i, (owner, place) in enumerate(zip(self.owner, self.place)):
            right[owner] += self.factors[i, kinds] @ off[:, place]
        normal = self._overlaps(kinds)
        scale = np.sqrt(np.where(np.diag(normal) > 0.0, np.diag(normal), 1.0))
        return np.asarray(np.linalg.lstsq(normal / np.outer(scale, scale), right / scale, rcond=1e-13)[0] / scale)

    @cached_property
    def overlaps(self) -> Floats:
        """Products (n_free, n_free) of what free values are multiplied with, added up over entries and kinds."""
        return self._overlaps(np.arange(len(self.numbers)))

    def _overlaps(self, kinds: Ints) -> Floats:
        found, factors = np.zeros((len(self.names),) * 2), self.factors[:, kinds]
        for i, (owner, place) in enumerate(zip(self.owner, self.place)):
            alike = np.flatnonzero(self.place == place)
            np.add.at(found[owner], self.owner[alike], factors[alike] @ factors[i])
        return found

    def holds(self, arrays: Floats) -> bool:
        """Whether arrays (of the first rows, or all) are of this family, up to round-off."""
        off = np.abs(self.build(self.read(arrays))[: len(arrays)] - arrays)
        return bool((off <= 1e-8 * max(float(np.abs(arrays).max(initial=0.0)), 1e-300)).all())

    def shifted(self, arrays: Floats, change: Floats) -> Floats:
        """Arrays of the family where the free values of others change by so much."""
        return self.build(self.read(arrays) + change)

    def tangent(self, arrays: Floats) -> RowPattern:
        """Affine family that touches this one: itself."""
        return self

    def pull_back(self, gradient: Floats) -> Floats:
        """Gradient with respect to the free values from that (kinds, ...) with respect to the entries."""
        flat = gradient.reshape(len(gradient), -1)
        slopes = [factor @ flat[:, place] for place, factor in zip(self.place, self.factors)]
        return np.asarray(np.bincount(self.owner, slopes, len(self.names)), dtype=float)

    def steps(self, units: Floats) -> Floats:
        """Unit of each free value from those of the entries: the change that makes about one of them."""
        size = np.sqrt(np.mean(self.factors**2, axis=1))
        each = np.where(size > 0.0, units.ravel()[self.place] / np.where(size > 0.0, size, 1.0), 0.0)
        return np.asarray(np.bincount(self.owner, each, len(self.names)) / np.bincount(self.owner))

    def typical(self) -> Pattern:
        """Return a pattern with the mean numbers and the root mean squares of factors, to guess values with."""
        weight = np.bincount(self.kind, minlength=len(self.numbers)) / self.n_rows
        size = np.sqrt(self.factors**2 @ weight) * np.where(self.factors @ weight < 0.0, -1.0, 1.0)
        design = np.zeros((len(self.names), int(np.prod(self.shape))))
        np.add.at(design, (self.owner, self.place), size)
        constant = np.tensordot(weight, self.numbers, 1)
        return Pattern(self.names, constant, design.reshape(len(self.names), *self.shape))

    def unseen(self, rows: Ints | slice) -> list[str]:
        """Names without a factor in some of the rows."""
        kinds = occurring(self.kind[rows], len(self.numbers))[0]
        seen = (self.factors[:, kinds] != 0.0).any(1)
        return [name for j, name in enumerate(self.names) if not seen[self.owner == j].any()]


def is_indefinite(matrices: Floats) -> Bools:
    """Which matrices (..., p, p) have eigenvalues of both signs, beyond round-off."""
    values = np.linalg.eigvalsh(matrices)
    small = 1e-10 * np.abs(values).max(-1)
    return np.asarray((values[..., 0] < -small) & (values[..., -1] > small))


def occurring(numbers: Ints, below: int) -> tuple[Ints, Ints, Ints]:
    """Which of the numbers below a bound occur, where each does first, and which of these each entry is.

    As of `numpy.unique`, without its sorting.
    """
    first = np.full(below, len(numbers), np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    there = np.flatnonzero(first < len(numbers))
    which = np.zeros(below, np.int64)
    which[there] = np.arange(len(there))
    return there, first[there], which[numbers]
