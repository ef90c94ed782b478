"""Rows of what each sequence of a panel has of its own, end to end: which of them are those of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from statespace_em._typing import AnyArray, Ints
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import Labels, listed, show


@dataclass(frozen=True, eq=False)
class Segments:
    """Sequences of a panel whose rows, and those of their future, follow one another.

    Of what is ``constant`` each has one, for all of its rows.
    """

    keys: tuple[Any, ...]  # names of the sequences; 0, 1, ... of a list
    times: tuple[pd.Index, ...]  # of the rows of each
    constant: bool = False

    @cached_property
    def lengths(self) -> Ints:
        """Rows of each sequence (S,)."""
        return np.array([len(index) for index in self.times], np.int64)

    @cached_property
    def begins(self) -> Ints:
        """First row of each sequence (S,)."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def n_rows(self) -> int:
        """Rows of all sequences."""
        return int(self.lengths.sum())

    @property
    def told(self) -> dict[str, list[Any]]:
        """Name of the sequence, and number in it, of every row."""
        each = [(key, number) for key, length in zip(self.keys, self.lengths) for number in range(length)]
        return {"sequence": [key for key, _ in each], "row": [number for _, number in each]}

    def where(self, row: int) -> str:
        """Say in words which row it is."""
        which = int(np.searchsorted(self.begins, row, side="right")) - 1
        return f"{row - int(self.begins[which])} of sequence {show(self.keys[which])}"

    def rows_of(self, other: Segments) -> Ints | None:
        """Row of these that each row of others is; None where they are not of the same sequences and rows."""
        if set(self.keys) != set(other.keys) or len(self.keys) != len(other.keys):
            return None
        which = np.array([self.keys.index(key) for key in other.keys])
        if self.constant:
            return np.repeat(which, other.lengths)
        if other.constant or not np.array_equal(self.lengths[which], other.lengths):
            return None
        return np.concatenate([begin + np.arange(n) for begin, n in zip(self.begins[which], other.lengths)])

    def lasting(self, n_rows: int) -> Segments:
        """What is constant, written out for so many rows."""
        return Segments(self.keys, (pd.RangeIndex(n_rows),) * len(self.keys)) if self.constant else self

    def as_of(self, other: Segments, rows: AnyArray) -> AnyArray:
        """Rows of these as rows of others, of the same sequences."""
        taken = self.rows_of(other)
        return rows if taken is None or np.array_equal(taken, np.arange(len(rows))) else rows[taken]

    def of_each(self, rows: AnyArray, name: str) -> AnyArray:
        """What all sequences share, row by row, for the rows of each.

        Raises
        ------
        ParameterError
            If it ends before the rows of a sequence do.
        """
        longest = int(np.argmax(self.lengths))
        if len(rows) < self.lengths[longest]:
            raise ParameterError(
                f"{name} is given for {len(rows)} rows, but what each sequence has of its own for "
                f"{self.lengths[longest]} of {show(self.keys[longest])}: give both for the same rows."
            )
        return np.concatenate([rows[:length] for length in self.lengths])

    def numbers(self, labels: Labels) -> list[int]:
        """Which of these is each sequence of y: by name, or in order where one side has just numbers.

        Raises
        ------
        DataError
            If there is none for one.
        """
        if labels.sequence is None:
            if len(self.keys) == 1:
                return [0]
            raise DataError(
                f"the model has matrices for each of the sequences {listed(self.keys)}, but y is a single one: pass it "
                f"by its name, as in {{{show(self.keys[0])}: y}}."
            )
        return matched(self.keys, labels.keys.tolist(), "the model has matrices for")

    def places(self, labels: Labels) -> Ints:
        """Row (N,) that each row of y is.

        Raises
        ------
        DataError
            If sequences of y have none, have more rows, or others.
        """
        found = []
        for which, key, times in zip(self.numbers(labels), labels.keys, labels.times):
            own, n_rows = self.times[which], len(times)
            if self.constant:
                found.append(np.full(n_rows, which))
                continue
            if len(own) < n_rows:
                raise DataError(
                    f"what the model has for {labels.sequence or 'sequence'} {show(key)} has {len(own)} rows, but y "
                    f"has {n_rows}: give it for every row, also where y is missing."
                )
            if not (_numbered(own) or _numbered(times) or own[:n_rows].equals(times)):
                row = next(i for i, (mine, theirs) in enumerate(zip(own, times)) if mine != theirs)
                raise DataError(
                    f"row {row} of {labels.sequence or 'sequence'} {show(key)} is at {show(times[row])} in y, but at "
                    f"{show(own[row])} in what the model has for it: give both for the same rows."
                )
            found.append(self.begins[which] + np.arange(n_rows))
        return np.concatenate(found)

    def check_ahead(self, labels: Labels, horizon: int) -> None:
        """Refuse a future that rows do not reach.

        Raises
        ------
        DataError
            Naming the sequence.
        """
        for which, key, length in zip(self.numbers(labels), labels.keys, labels.lengths):
            if not self.constant and self.lengths[which] < length + horizon:
                raise DataError(
                    f"what the model has for {labels.sequence or 'sequence'} {show(key)} has {self.lengths[which]} "
                    f"rows, but {horizon} rows beyond the {length} of y are asked for: give every sequence the rows of "
                    "its future too when the model is made."
                )


def row_of(row: int, segments: Segments | None) -> str:
    """Say in words which row it is of what is given for every row."""
    return f"row {row}" if segments is None else f"row {segments.where(row)}"


def matched(have: Sequence[Any], keys: Sequence[Any], told: str) -> list[int]:
    """Position of each key: by name, or in order where one side has just numbers and both are as many.

    Raises
    ------
    DataError
        If there is none for one; ``told`` begins the sentence that says which there are.
    """
    have, keys = list(have), list(keys)
    counted = list(range(max(len(have), len(keys))))
    plain = have == counted[: len(have)] or keys == counted[: len(keys)]
    if have == keys or (plain and len(have) == len(keys)):
        return counted
    if plain:
        raise DataError(f"{told} {len(have)} sequences, but y has {len(keys)}: give as many, or name them, in a dict.")
    lost = [key for key in keys if key not in have]
    if lost:
        raise DataError(f"{told} the sequences {listed(have)}, but y has {show(lost[0])}: give it there too.")
    return [have.index(key) for key in keys]


def _numbered(index: pd.Index) -> bool:
    """Whether rows have no names, just numbers from 0."""
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1
