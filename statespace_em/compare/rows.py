"""Observations that can be cut, changed and simulated, whatever container they came in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from statespace_em._typing import AnyArray, Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import ParameterError
from statespace_em.labels import Labels, name_array


class Rows(NamedTuple):
    """Some of the rows, as any model reads them."""

    y: Any  # a table, or tables by the key of their sequence
    said: dict[str, Any]  # known states and weights of these rows, where there are any
    places: Ints  # of the rows in the calendar


class Observations(NamedTuple):
    """One sequence or several as a model reads them, and what is said of their rows."""

    batch: Batch
    labels: Labels
    symbols: list[Any] | None
    support: str
    names: list[Any]  # of the states
    calendar: pd.Index  # all times (T,) at which any sequence has a row, upwards
    places: Ints  # (N,), place of each row in the calendar

    def between(self, begin: int, end: int) -> Rows:
        """Rows whose time is at these places of the calendar; sequences without any are left out."""
        labels, batch, parts = self.labels, self.batch, {}
        for i, (key, first, last) in enumerate(zip(labels.keys, batch.starts, batch.starts[1:])):
            low, high = first + np.searchsorted(self.places[first:last], [begin, end])
            if high > low:
                index = labels.times[i][low - first : high - first].rename(labels.time)
                parts[key] = (i, slice(int(low), int(high)), index)

        def each(make: Callable[[int, slice, pd.Index], Any]) -> Any:
            made = {key: make(*part) for key, part in parts.items()}
            return made if labels.sequence is not None else next(iter(made.values()))

        y = each(lambda _, rows, index: table_of(batch.y[rows], labels.features, index, self.symbols))
        said = {}
        if batch.known is not None:
            known, book = batch.known, name_array([*self.names, None]).astype(object)
            said["states"] = each(lambda _, rows, index: pd.Series(book[known[rows]], index))
        if batch.row_weight is not None:
            weight = batch.row_weight
            said["weights"] = each(lambda _, rows, index: pd.Series(weight[rows], index))
        if batch.sequence_weight is not None:
            whole = batch.sequence_weight
            said["weights"] = {key: float(whole[i]) for key, (i, _, _) in parts.items()}
        inside = (self.places >= begin) & (self.places < end)
        return Rows(y, said, self.places[inside])

    def each(self, begin: int, end: int) -> Iterator[tuple[Any, Rows]]:
        """Key and rows of every sequence by itself."""
        batch, labels = self.batch, self.labels
        for i, (key, first, last) in enumerate(zip(labels.keys, batch.starts, batch.starts[1:])):
            part = slice(int(first), int(last))
            own = self._replace(
                batch=batch.cut(int(first), int(last)),
                labels=Labels(labels.time, (labels.times[i],), labels.features, None, labels.keys[i : i + 1]),
                places=self.places[part],
            )
            if own.n_between(begin, end):
                yield key, own.between(begin, end)

    def n_between(self, begin: int, end: int) -> int:
        """Count the rows of all sequences at these places of the calendar."""
        return int(((self.places >= begin) & (self.places < end)).sum())

    def knows_states(self, begin: int, end: int) -> bool:
        """Whether the state of any of these rows is known."""
        known = self.batch.known
        return known is not None and bool((known[(self.places >= begin) & (self.places < end)] >= 0).any())

    def until(self, end: int) -> Observations:
        """Return the rows before this place of the calendar."""
        kept = self.places < end
        counts = np.array([kept[a:b].sum() for a, b in zip(self.batch.starts, self.batch.starts[1:])])
        own = [i for i, count in enumerate(counts) if count]
        times = tuple(self.labels.times[i][: counts[i]] for i in own)
        labels = Labels(self.labels.time, times, self.labels.features, self.labels.sequence, self.labels.keys[own])
        starts = np.concatenate([[0], np.cumsum(counts[own])]).astype(np.int64)
        batch = self.batch.take(kept, starts, np.array(own, dtype=int))
        return self._replace(batch=batch, labels=labels, calendar=self.calendar[:end], places=self.places[kept])

    def changed_after(self, place: int) -> Observations:
        """Return the same rows up to this place, and after it others that were possible, in reverse order."""
        y, later = self.batch.y.copy(), self.places > place
        rest = y[later][::-1]
        if self.support == "category":
            rest = (rest + 1.0) % len(self.symbols or [0])
        else:
            rest = -3.0 * rest - 1.0 if self.support in ("real", "angle") else 2.0 * rest + 1.0
        y[later] = rest
        changed = self.batch._replace(y=y)
        if changed.known is not None:  # that a state is known tells, too
            changed = changed._replace(known=np.where(later, -1, changed.known))
        if changed.row_weight is not None:
            changed = changed._replace(row_weight=np.where(later, 0.5 * changed.row_weight + 0.5, changed.row_weight))
        return self._replace(batch=changed)


def observations(model: Any, y: Any, states: Any = None, weights: Any = None) -> Observations:
    """Read y as a model does; a fitted one knows its columns and symbols."""
    if isinstance(model, type):
        raise ParameterError(f"model is the class {model.__name__}, expected a model such as {model.__name__}(2).")
    batch, labels, symbols = model._read(y, model._known(None, needed=False))
    batch = model._conditioned(batch, labels, states, weights)
    calendar = labels.times[0]
    if labels.sequence is not None:
        for index in labels.times[1:]:
            calendar = calendar.union(index)
        calendar = calendar.sort_values()
    places = np.concatenate([calendar.get_indexer(index) for index in labels.times])
    if labels.sequence is None:
        places = np.arange(len(batch.y))
    names = model._names()
    return Observations(batch, labels, symbols, model._support(), names, calendar, places)


def table_of(y: Floats, features: pd.Index, index: pd.Index, symbols: list[Any] | None) -> pd.DataFrame:
    """Rows (N, D) as a DataFrame, codes as symbols of a categorical type, which keeps those that do not occur."""
    if symbols is None:
        return pd.DataFrame(y, index=index, columns=features)
    book: Any = symbols
    columns = [pd.Categorical.from_codes(np.where(np.isnan(c), -1, c).astype(int), book) for c in y.T]
    table = pd.DataFrame(dict(enumerate(columns)), index=index)
    return table.set_axis(features, axis=1)


def declared(model: Any, y: Any) -> bool:
    """Whether the symbols that may occur are said beforehand: by the model, or by the type of all columns."""
    if getattr(model, "symbols", None) is not None:
        return True
    parts = y.values() if isinstance(y, dict) else y if isinstance(y, list | tuple) else [y]
    return all(_is_categorical(part) for part in parts)


def _is_categorical(part: Any) -> bool:
    types: AnyArray | list[Any] = (
        list(part.dtypes) if isinstance(part, pd.DataFrame) else [part.dtype] if isinstance(part, pd.Series) else [None]
    )
    return all(isinstance(own, pd.CategoricalDtype) for own in types)
