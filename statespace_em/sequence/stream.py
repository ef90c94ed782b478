"""Filters that take one row at a time: the same answers as `filter`, in constant memory, saved and resumed."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate, storage
from statespace_em._typing import Floats
from statespace_em.data import as_batch
from statespace_em.errors import DataError, FileFormatError, ImpossibleStateError, ParameterError, RowError
from statespace_em.labels import Labels, show
from statespace_em.model import LatentModel
from statespace_em.schema import state_coords

NUMBER = (float, int, np.floating, np.integer, np.bool_)
PREFIX = "stream_"  # of the variables that hold the state of a stream in a file
S = TypeVar("S", bound=NamedTuple)


class Stream(ABC, Generic[S]):
    """A model that follows y row by row; made by ``model.stream()``.

    Attributes
    ----------
    n_rows
        Rows taken so far.
    time
        What the last row was called; None before the first.
    log_likelihood
        Of the rows taken so far, in nats.
    """

    conditioning: Mapping[str, str]  # fields of a step and what each has seen
    dims: ClassVar[Mapping[str, tuple[str, ...]]]  # fields of a step, and of the state kept, after time

    def __init__(self, model: LatentModel, params: xr.Dataset) -> None:
        self.model = model
        self.params = params
        self.n_rows = 0
        self.time: Any = None
        self.log_likelihood = 0.0
        self._rows = RowReader(model, params)

    @abstractmethod
    def _advance(self, y: Floats, time: Any, known: int) -> S:
        """Take one row (D,) and move on; where the row is impossible, raise RowError and stay.

        ``known`` is the number of its state, -1 where that is not known.
        """

    @abstractmethod
    def _state(self) -> dict[str, Floats]:
        """Arrays that determine everything that follows."""

    def _restored(self) -> None:
        """Renew what is made of the arrays of the state, now that they have come from a file."""

    @property
    @abstractmethod
    def predicted(self) -> Floats:
        """State of the next row, given the rows so far."""

    def update(self, row: Any, time: Any = None, *, state: Any = None) -> S:
        """Take the next row and return what is known now.

        Parameters
        ----------
        row
            A number or symbol, a sequence of them in the order of the features, or a dict or Series by name; NaN, None
            and pd.NA are missing. A row that is refused leaves the stream as it was.
        time
            What to call the row in results and messages, later than the one before; its number unless given.
        state
            Name of the state of this row where it is known (models with discrete states only).

        Returns
        -------
        NamedTuple
            ``time`` and the variables that the ``filter`` of the model has, of this row. `dataset` labels them.

        Raises
        ------
        DataError
            If the row is not what the model was fitted to, or has probability zero.
        """
        if time is None:
            time = self.n_rows
        elif self.time is not None:
            _check_order(self.time, time)
        known = self._number_of(state)
        y = self._rows.read(row, time)
        try:
            step = self._advance(y, time, known)
        except ImpossibleStateError as error:
            raise ImpossibleStateError(
                f"the known state {show(state)} at time {show(time)} {error.explanation}."
            ) from None
        except RowError as error:
            raise type(error)(f"the observation at time {show(time)} {error.explanation}.") from None
        self.n_rows += 1
        self.time = time
        self.log_likelihood += step.log_likelihood  # type: ignore[attr-defined]
        return step

    def _number_of(self, state: Any) -> int:
        if state is None or state is pd.NA or state != state:
            return -1
        if not self.model.takes_states:
            raise ParameterError(f"{type(self.model).__name__} takes no state=: it is for models with discrete states.")
        names = self.model._names()
        _validate.one_of("state", state, names)
        return names.index(state)

    def dataset(self, steps: Sequence[S]) -> xr.Dataset:
        """Label what updates returned, as ``filter`` would have."""
        if not steps:
            raise ParameterError("steps is empty, expected what update returned for one row or more.")
        times = pd.Index([step[0] for step in steps], name="time")
        labels = Labels("time", (times,), self._rows.features, None, pd.Index([0]))
        rows = {
            name: (self.dims[name], np.array([getattr(step, name) for step in steps])) for name in self.conditioning
        }
        features = {"feature": labels.features, "feature_aux": labels.features}
        dataset = labels.dataset(rows, {**state_coords(self.model._names()), **features})
        for name, seen in self.conditioning.items():
            dataset[name].attrs["conditioning"] = seen
        return dataset

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model and state to NetCDF; ``type(model).resume(path)`` continues where this is now."""
        kept = {PREFIX + name: (self.dims[name], value) for name, value in self._state().items()}
        stream = {"n_rows": self.n_rows, "log_likelihood": self.log_likelihood, "time": _writable(self.time)}
        fit = {"status": None, "trace": None, "stream": stream}
        kind = storage.STREAM + type(self.model).__name__
        storage.save_model(path, kind, self.model.get_params(), self.params.assign(kept), fit)

    def restore(self, state: Mapping[str, Floats], saved: Mapping[str, Any]) -> None:
        """Go to where a stream was when it was saved."""
        for name, value in self._state().items():
            if name not in state or state[name].shape != value.shape:
                raise FileFormatError(
                    f"the state of the stream lacks {name!r}, or it has another shape: save it again."
                )
            value[...] = state[name]
        self._restored()
        self.n_rows, self.log_likelihood = int(saved["n_rows"]), float(saved["log_likelihood"])
        self.time = _readable(saved["time"])


def split_state(params: xr.Dataset) -> tuple[xr.Dataset, dict[str, Floats]]:
    """Take parameters and the state of a stream apart, as they stand together in a file."""
    names = [str(name) for name in params.data_vars if str(name).startswith(PREFIX)]
    return params.drop_vars(names), {name.removeprefix(PREFIX): params[name].values for name in names}


class RowReader:
    """One row of y as floats (D,): quickly if it is as expected, else as `as_batch` reads it or refuses it."""

    def __init__(self, model: LatentModel, params: xr.Dataset) -> None:
        names = params["feature"].values if "feature" in params.coords else np.arange(1)
        self.features = pd.Index(np.atleast_1d(names), tupleize_cols=False)
        self._names = self.features.tolist()
        self._model, self._params = model, params
        self._support = model._support()
        self._codes: dict[Any, float] = {}
        if "symbol" in params.coords:
            self._codes = {symbol: float(i) for i, symbol in enumerate(params["symbol"].values.tolist())}

    def read(self, row: Any, time: Any) -> Floats:
        """Entries of the row in the order of the features, NaN = missing, symbols as codes."""
        values = self._entries(row)
        if values is not None and len(values) == len(self._names):
            coded = self._coded(values)
            if coded is not None:
                return np.array(coded, float)
        return self._read_anything(row, time)

    def _entries(self, row: Any) -> Sequence[Any] | None:
        """Entries in order, or None if that needs a closer look."""
        if isinstance(row, xr.DataArray):
            row = row.values
        if isinstance(row, np.ndarray):
            return row.tolist() if row.ndim == 1 else [row.item()] if row.ndim == 0 else None
        if isinstance(row, list | tuple):
            return row
        if isinstance(row, pd.Series | Mapping):
            return [row[name] for name in self._names] if all(name in row for name in self._names) else None
        return [row]

    def _coded(self, values: Sequence[Any]) -> list[Any] | None:
        """Entries as floats; None where one of them is not plainly what it should be."""
        coded: list[Any] = []
        for value in values:
            if value is None or value is pd.NA or value != value:
                coded.append(np.nan)
            elif self._support == "category":
                try:
                    coded.append(self._codes[value])
                except (KeyError, TypeError):
                    return None
            elif isinstance(value, NUMBER) and -np.inf < value < np.inf and self._fits(value):
                coded.append(value)
            else:
                return None
        return coded

    def _fits(self, value: Any) -> bool:
        if self._support == "count":
            return bool(value >= 0 and value == int(value))
        return self._support != "positive" or bool(value > 0)

    def _read_anything(self, row: Any, time: Any) -> Floats:
        """Read a row as a table of one row, with the errors that this has."""
        if isinstance(row, np.ndarray) and row.ndim > 1:
            raise DataError(f"the row at time {show(time)} has shape {row.shape}, expected ({len(self._names)},).")
        columns: Any = None
        if isinstance(row, pd.Series | Mapping):
            if not isinstance(row, pd.Series) or not isinstance(row.index, pd.RangeIndex):
                columns = pd.Index(list(row.keys()), tupleize_cols=False)
            values = list(row.values()) if isinstance(row, Mapping) else row.tolist()
        else:
            values = list(row) if isinstance(row, list | tuple | np.ndarray) else [row]
        index = pd.Index([time], tupleize_cols=False, name="time")
        table = pd.DataFrame([values], index=index, columns=columns, dtype=object)
        reading = LatentModel._read_options(self._model, self._params)  # of y alone: inputs come with the update
        return np.asarray(as_batch(table, **reading)[0].y[0])


def _check_order(before: Any, time: Any) -> None:
    try:
        later = isinstance(time, str) or bool(time > before)
    except TypeError:
        raise DataError(
            f"time {show(time)} cannot be compared with {show(before)}, the one before: use one kind of time."
        ) from None
    if not later:
        raise DataError(f"time {show(time)} comes after {show(before)}: rows must come in the order of time.")


def _writable(time: Any) -> Any:
    """Write a time as JSON holds it; kinds other than numbers, text and dates are not kept."""
    if isinstance(time, pd.Timestamp | np.datetime64):
        return {"timestamp": pd.Timestamp(time).isoformat()}
    value = time.item() if isinstance(time, np.generic) else time
    return value if isinstance(value, str | int | float) else None


def _readable(saved: Any) -> Any:
    return pd.Timestamp(saved["timestamp"]) if isinstance(saved, Mapping) else saved
