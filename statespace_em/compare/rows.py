"""Observations that can be cut, changed and simulated, whatever container they came in."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import Labels


class Observations(NamedTuple):
    """One sequence as a model reads it."""

    batch: Batch
    labels: Labels
    symbols: list[Any] | None
    support: str

    def frame(self, begin: int, end: int) -> pd.DataFrame:
        """Rows as a table that any model reads, under their own labels."""
        index = self.labels.times[0][begin:end].rename(self.labels.time)
        return table_of(self.batch.y[begin:end], self.labels.features, index, self.symbols)

    def until(self, end: int) -> Observations:
        """Return the rows before this one."""
        times = (self.labels.times[0][:end],)
        labels = Labels(self.labels.time, times, self.labels.features, None, self.labels.keys)
        return self._replace(batch=Batch(self.batch.y[:end], np.array([0, end])), labels=labels)

    def changed_after(self, row: int) -> Observations:
        """Return the same rows up to this one, and after it others that were possible, in reverse order."""
        y = self.batch.y.copy()
        rest = y[row + 1 :][::-1]
        if self.support == "category":
            rest = (rest + 1.0) % len(self.symbols or [0])
        else:
            rest = -3.0 * rest - 1.0 if self.support in ("real", "angle") else 2.0 * rest + 1.0
        y[row + 1 :] = rest
        return self._replace(batch=Batch(y, self.batch.starts))


def observations(model: Any, y: Any) -> Observations:
    """Read y as a model does; a fitted one knows its columns and symbols."""
    if isinstance(model, type):
        raise ParameterError(f"model is the class {model.__name__}, expected a model such as {model.__name__}(2).")
    batch, labels, symbols = model._read(y, model._known(None, needed=False))
    if labels.sequence is not None:
        raise DataError(f"y has {len(labels.keys)} sequences, a walk goes along one: walk along each by itself.")
    return Observations(batch, labels, symbols, model._support())


def table_of(y: Floats, features: pd.Index, index: pd.Index, symbols: list[Any] | None) -> pd.DataFrame:
    """Rows (N, D) as a DataFrame, codes as symbols of a categorical type, which keeps those that do not occur."""
    if symbols is None:
        return pd.DataFrame(y, index=index, columns=features)
    book: Any = symbols
    columns = [pd.Categorical.from_codes(np.where(np.isnan(c), -1, c).astype(int), book) for c in y.T]
    table = pd.DataFrame(dict(enumerate(columns)), index=index)
    return table.set_axis(features, axis=1)
