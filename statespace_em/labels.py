"""Names and coordinates: plain arrays to labelled Datasets and back, by the dims declared for each variable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import AnyArray, Floats, Ints
from statespace_em.errors import ImpossibleStateError, ParameterError, RowError, UndeterminedStartError
from statespace_em.shared import SharedRows, lazily

Dims = Mapping[str, tuple[str, ...]]
SAME = {
    "next_state": "state",
    "state_aux": "state",
    "feature_aux": "feature",
}  # second name of a square matrix
RESERVED = {
    "state",
    "feature",
    "symbol",
    "horizon",
    "level",
    "path",
    "length",
    *SAME,
    *("gamma", "xi", "cov", "cross_cov", "log_likelihood", "filtered", "filtered_cov", "predicted"),
    *(
        "predicted_cov",
        "innovation",
        "innovation_cov",
        "smoothed",
        "smoothed_cov",
        "mean",
        "variance",
        "lower",
        "upper",
    ),
    *("prob", "quantile", "pit", "residual"),
}  # names that results use for something else


@dataclass(frozen=True)
class Labels:
    """What the rows of a batch are called: enough to give results the shape and names of the input."""

    time: str  # name of the time dimension
    times: tuple[pd.Index, ...]  # one index a sequence
    features: pd.Index  # names of the columns
    sequence: str | None  # name of the sequence dimension; None for a single sequence
    keys: pd.Index  # names of the sequences

    @property
    def lengths(self) -> Ints:
        """Rows of each sequence (S,)."""
        return np.array([len(index) for index in self.times], dtype=np.int64)

    def where(self, row: int, column: int | None = None) -> str:
        """Say in words where a row, and a column of it, are."""
        ends = np.cumsum(self.lengths)
        which = int(np.searchsorted(ends, row, side="right"))
        stamp = self.times[which][row - (ends[which] - self.lengths[which])]
        words = f"{self.time} {show(stamp)}"
        if column is not None:
            words = f"column {show(self.features[column])}, {words}"
        return words if self.sequence is None else f"{words} of {self.sequence} {show(self.keys[which])}"

    def dataset(
        self,
        rows: Mapping[str, tuple[tuple[str, ...], AnyArray | SharedRows]],
        coords: Mapping[str, Any],
        others: Mapping[str, xr.Variable] | None = None,
    ) -> xr.Dataset:
        """Label arrays whose first axis runs over the rows of all sequences; pad ragged ones with NaN.

        ``others`` are variables of other dimensions: to add them afterwards costs more than all the rest.
        """
        lead = (self.time,) if self.sequence is None else (self.sequence, self.time)
        variables = {name: ((*lead, *dims), self._shaped(values)) for name, (dims, values) in rows.items()}
        variables |= {name: (other.dims, other.values) for name, other in (others or {}).items()}
        used = {dim for dims, _ in variables.values() for dim in dims}
        own = {dim: values for dim, values in coords.items() if dim in used}
        return _assembled(variables, {**own, **self.time_coords()})

    def array(self, name: str, values: AnyArray, others: Mapping[str, xr.Variable]) -> xr.DataArray:
        """Label one array (N,) over the rows of all sequences; ``others`` are coordinates of other dimensions."""
        lead = (self.time,) if self.sequence is None else (self.sequence, self.time)
        return xr.DataArray(self._shaped(values), {**self.time_coords(), **others}, lead, name)

    def _shaped(self, values: AnyArray | SharedRows) -> Any:
        """Array over the rows as one over ([sequence,] time), padded with NaN."""
        if self.sequence is None:
            return lazily(values) if isinstance(values, SharedRows) else values
        lengths = self.lengths
        inside, rest = np.arange(lengths.max()) < lengths[:, None], values.shape[1:]
        if isinstance(values, SharedRows):
            return lazily(values, inside)
        if not inside.all():
            dtype = np.promote_types(values.dtype, type_of_blank(values))
            padded = np.full((*inside.shape, *rest), None if dtype.kind == "O" else np.nan, dtype)
            padded[inside] = values
            values = padded
        return values.reshape(*inside.shape, *rest)

    def time_coords(self) -> dict[str, Any]:
        """Coordinates of the time and sequence dimensions."""
        if self.sequence is None:
            index = self.times[0]
            return {self.time: index if index.name in (None, self.time) else index.rename(self.time)}
        lengths = self.lengths
        coords: dict[str, Any] = {self.sequence: self.keys, "length": (self.sequence, lengths)}
        longest = self.times[int(np.argmax(lengths))]
        if all(index is longest or index.equals(longest[: len(index)]) for index in self.times):
            return {**coords, self.time: xr.Variable(self.time, longest)}
        stamps = self.times[0].append(list(self.times[1:]))
        inside = np.arange(lengths.max()) < lengths[:, None]
        if not inside.all():
            order = np.full(inside.shape, -1)
            order[inside] = np.arange(len(stamps))
            stamps = stamps.astype(float) if pd.api.types.is_integer_dtype(stamps) else stamps
            stamps = stamps.take(order.ravel(), allow_fill=True, fill_value=np.nan)
        return {**coords, "timestamp": ((self.sequence, self.time), stamps.to_numpy().reshape(inside.shape))}

    def per_sequence(self, values: Floats) -> xr.Variable:
        """One number a sequence; a plain scalar for a single sequence."""
        return xr.Variable((), values[0]) if self.sequence is None else xr.Variable(self.sequence, values)

    def flat(self, variable: xr.DataArray, dims: tuple[str, ...]) -> AnyArray:
        """Undo `dataset`: rows of all sequences end to end, without the padding."""
        lead = (self.time,) if self.sequence is None else (self.sequence, self.time)
        if set(variable.dims) != {*lead, *dims}:
            have = ", ".join(map(str, variable.dims))
            raise ParameterError(
                f"{variable.name} has dims ({have}), expected ({', '.join((*lead, *dims))}): pass what e_step returned "
                "for this y."
            )
        values = variable.transpose(*lead, *dims).values
        lengths = self.lengths
        longest = int(lengths.max())
        wanted = (longest,) if self.sequence is None else (len(lengths), longest)
        if values.shape[: len(lead)] != wanted:
            raise ParameterError(
                f"{variable.name} has {' x '.join(map(str, values.shape[: len(lead)]))} entries along "
                f"{', '.join(lead)}, but y has {' x '.join(map(str, wanted))}: pass what e_step returned for this y."
            )
        return values if self.sequence is None else values[np.arange(longest) < lengths[:, None]]


def type_of_blank(values: AnyArray) -> Any:
    """Type that can hold both these values and a mark of missing."""
    return np.float64 if np.issubdtype(values.dtype, np.number) else np.object_


def show(value: Any) -> str:
    """Write a label as a user would read it: days without midnight, text in quotes."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        value = pd.Timestamp(value) if isinstance(value, np.datetime64) else pd.Timedelta(value)
    if isinstance(value, pd.Timestamp) and value == value.normalize():
        return str(value.date())
    if value is pd.NaT or value is pd.NA or isinstance(value, date | timedelta | pd.Period | pd.Interval):
        return str(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(show, value))})"
    return repr(value.item() if isinstance(value, np.generic) else value)


def listed(values: Iterable[Any], most: int = 10) -> str:
    """Write labels one after the other, and of a long list the beginning."""
    shown = [show(value) for value in values]
    return ", ".join(shown if len(shown) <= most else [*shown[:most], f"... ({len(shown)} in all)"])


def pack(arrays: Mapping[str, AnyArray], dims: Dims, coords: Mapping[str, Any]) -> xr.Dataset:
    """Label plain arrays: ``dims`` names the axes of each, ``coords`` the entries along each axis."""
    full = {**coords, **{second: coords[first] for second, first in SAME.items() if first in coords}}
    used = {dim for name in arrays for dim in dims[name]}
    own = {dim: _coordinate(values) for dim, values in full.items() if dim in used}
    return _assembled({name: (dims[name], np.asarray(value)) for name, value in arrays.items()}, own)


def _assembled(variables: Mapping[str, tuple[tuple[Any, ...], Any]], coords: Mapping[str, Any]) -> xr.Dataset:
    """Dataset of arrays and coordinates: to make the latter takes longer than a small E-step, so they are kept."""
    keys = tuple((dim, _key(values)) for dim, values in coords.items())
    if any(key is None for _, key in keys):
        return xr.Dataset(variables, coords)
    shapes = tuple((name, dims, values.shape) for name, (dims, values) in variables.items())
    return _blank(shapes, keys).copy(data={name: values for name, (_, values) in variables.items()})


def _key(values: Any) -> tuple[str, Any] | None:
    """What tells a coordinate from others; None for labels that may be equal and not the same, such as 0.0 and -0.0."""
    if isinstance(values, pd.RangeIndex):
        return "range", (values.start, values.stop, values.step)
    if isinstance(values, list):
        values = _coordinate(values)
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        return None  # to keep dates, say, would take memory
    if values.dtype.kind in "iuU":
        return values.dtype.str, values.tobytes()
    entries = values.tolist()
    same = values.dtype.kind == "O" and all(type(entry) is str for entry in entries)
    return ("O", tuple(entries)) if same else None


@lru_cache(maxsize=64)
def _blank(
    shapes: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...], coords: tuple[tuple[str, tuple[str, Any]], ...]
) -> xr.Dataset:
    """Dataset to put numbers into."""
    made: dict[str, Any] = {}
    for dim, (kind, values) in coords:
        if kind == "range":
            made[dim] = pd.RangeIndex(*values)
        else:
            made[dim] = np.array(values, dtype=object) if kind == "O" else np.frombuffer(values, dtype=kind)
    return xr.Dataset({name: (own, np.broadcast_to(np.nan, shape)) for name, own, shape in shapes}, made)


def _coordinate(values: Any) -> AnyArray:
    """Labels as an array that does not turn some of them into text."""
    mixed = len({isinstance(value, str) for value in values}) > 1
    return np.asarray(values, dtype=object if mixed else None)


def unpack(dataset: xr.Dataset, dims: Dims) -> dict[str, Floats]:
    """Plain float arrays with the axes in the order of ``dims``: whatever order the Dataset has them in.

    Raises
    ------
    ParameterError
        If a variable or a dimension is missing.
    """
    if not isinstance(dataset, xr.Dataset):
        raise ParameterError(
            f"params is a {type(dataset).__name__}, expected an xarray.Dataset: label plain arrays with "
            "model.parameters(...)."
        )
    arrays = {}
    for name, wanted in dims.items():
        if name not in dataset:
            given = ", ".join(map(str, dataset)) or "none"
            raise ParameterError(
                f"the parameters have no variable {name!r}: this model needs {', '.join(dims)}, and was given {given}."
            )
        variable = dataset.variables[name]  # without the coordinates: these cost more than all the rest
        if set(variable.dims) != set(wanted):
            have = ", ".join(map(str, variable.dims))
            raise ParameterError(f"{name} has dims ({have}), expected ({', '.join(wanted)}): rename them.")
        variable = variable if variable.dims == wanted else variable.transpose(*wanted)
        arrays[name] = np.ascontiguousarray(variable.values, dtype=float)
    return arrays


def name_array(names: Sequence[Any]) -> AnyArray:
    """Names as an array to index: of their own type if they share one."""
    return np.array(names, dtype=None if len({type(name) for name in names}) == 1 else object)


def named(names: Sequence[Any], numbers: Ints) -> AnyArray:
    """Names of what is numbered; the numbers themselves where they are the names."""
    known = name_array(names)
    own = known.dtype == numbers.dtype and np.array_equal(known, np.arange(len(known)))
    return numbers if own else np.asarray(known[numbers])


def state_names(states: int | Sequence[Any]) -> list[Any]:
    """Names of the states from a count or a list of names.

    Raises
    ------
    ParameterError
        If the count is below 1, or names repeat.
    """
    if isinstance(states, int | np.integer) and not isinstance(states, bool):
        if states < 1:
            raise ParameterError(f"the number of states is {states}, expected at least 1.")
        return list(range(states))
    if isinstance(states, str) or not isinstance(states, Sequence | np.ndarray | pd.Index):
        raise ParameterError(
            f"states is {show(states)}, expected a count or a list of names such as ['calm', 'stress']."
        )
    names = [name.item() if isinstance(name, np.generic) else name for name in states]
    for i, name in enumerate(names):
        if np.ndim(name) or pd.isna(name):
            raise ParameterError(f"states holds {show(name)}, which is not a name: use strings or numbers.")
        if name in names[:i] or str(name) in map(str, names[:i]):  # results write names of mixed kinds as text
            raise ParameterError(f"states has the name {show(name)} twice, expected one different name a state.")
    if not names:
        raise ParameterError("states has no names, expected one different name a state.")
    return names


def posterior_variable(posterior: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable of what `e_step` returned, or raise ParameterError."""
    if not isinstance(posterior, xr.Dataset) or name not in posterior:
        raise ParameterError(f"the posterior has no variable {name!r}: pass what e_step returned.")
    if name == "gamma" and not np.isfinite(posterior[name]).any():
        raise ParameterError(f"{name} of the posterior is all missing: pass what e_step returned for this y.")
    return posterior[name]


def seeing(dataset: xr.Dataset, rows: str) -> xr.Dataset:
    """Say in every variable which rows it has seen, such as "1:T"."""
    for name in dataset.data_vars:
        dataset.variables[name].attrs["conditioning"] = rows
    return dataset


def summed(variable: xr.DataArray, dims: tuple[str, ...]) -> Floats:
    """Sum over time and sequences, whatever they are called; the blank last sample does not count."""
    return np.asarray(variable.sum([d for d in variable.dims if d not in dims]).transpose(*dims).values, dtype=float)


@contextmanager
def labelled_rows(labels: Labels, states: Sequence[Any] = ()) -> Iterator[None]:
    """Say where in the user's terms an observation is impossible; the cores know only row numbers."""
    try:
        yield
    except RowError as error:
        number, *more = error.args
        if isinstance(number, str):  # it has been said
            raise
        where, told = labels.where(int(number)), error.explanation
        if isinstance(error, ImpossibleStateError):
            raise ImpossibleStateError(f"the known state {show(states[more[0]])} at {where} {told}.") from None
        if isinstance(error, UndeterminedStartError):
            lost = [states[i] for i in more[0]] if len(states) else []
            told = told.format(f" of {listed(lost)}" if lost else "")
        raise type(error)(f"the observation at {where} {told}.") from None
