"""Names and coordinates: plain arrays to labelled Datasets and back, by the dims declared for each variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import AnyArray, Floats, Ints
from statespace_em.errors import ParameterError

Dims = Mapping[str, tuple[str, ...]]
SAME = {
    "next_state": "state",
    "state_aux": "state",
    "feature_aux": "feature",
}  # second name of a square matrix


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

    def dataset(self, rows: Mapping[str, tuple[tuple[str, ...], AnyArray]], coords: Mapping[str, Any]) -> xr.Dataset:
        """Label arrays whose first axis runs over the rows of all sequences; pad ragged ones with NaN."""
        variables = {name: self._variable(dims, values) for name, (dims, values) in rows.items()}
        used = {dim for variable in variables.values() for dim in variable.dims}
        own = {dim: values for dim, values in coords.items() if dim in used}
        return xr.Dataset(variables, own).assign_coords(self.time_coords())

    def _variable(self, dims: tuple[str, ...], values: AnyArray) -> xr.Variable:
        if self.sequence is None:
            return xr.Variable((self.time, *dims), values)
        lengths = self.lengths
        inside = np.arange(lengths.max()) < lengths[:, None]
        dtype = values.dtype if inside.all() else np.promote_types(values.dtype, type_of_blank(values))
        padded = np.full((*inside.shape, *values.shape[1:]), None if dtype == object else np.nan, dtype)
        padded[inside] = values
        return xr.Variable((self.sequence, self.time, *dims), padded)

    def time_coords(self) -> dict[str, Any]:
        """Coordinates of the time and sequence dimensions."""
        if self.sequence is None:
            return {self.time: xr.Variable(self.time, self.times[0])}
        lengths = self.lengths
        coords: dict[str, Any] = {self.sequence: self.keys, "length": (self.sequence, lengths)}
        longest = self.times[int(np.argmax(lengths))]
        if all(index.equals(longest[: len(index)]) for index in self.times):
            return {**coords, self.time: xr.Variable(self.time, longest)}
        stamps = np.full((len(lengths), lengths.max()), np.nan, dtype=object)
        for row, index in enumerate(self.times):
            stamps[row, : len(index)] = index
        if all(isinstance(index, pd.DatetimeIndex) for index in self.times):
            stamps = np.array([pd.DatetimeIndex(row).values for row in stamps])
        elif all(pd.api.types.is_numeric_dtype(index) for index in self.times):
            stamps = stamps.astype(float)
        return {**coords, "timestamp": ((self.sequence, self.time), stamps)}

    def per_sequence(self, values: Floats) -> xr.Variable:
        """One number a sequence; a plain scalar for a single sequence."""
        return xr.Variable((), values[0]) if self.sequence is None else xr.Variable(self.sequence, values)

    def flat(self, variable: xr.DataArray, dims: tuple[str, ...]) -> AnyArray:
        """Undo `dataset`: rows of all sequences end to end, without the padding."""
        lead = (self.time,) if self.sequence is None else (self.sequence, self.time)
        missing = [dim for dim in (*lead, *dims) if dim not in variable.dims]
        if missing:
            raise ParameterError(
                f"{variable.name} has dims {variable.dims}, expected {(*lead, *dims)}: pass what e_step returned for this y."
            )
        values = variable.transpose(*lead, *dims).values
        lengths = self.lengths
        wanted = (lengths.max(),) if self.sequence is None else (len(lengths), lengths.max())
        if values.shape[: len(lead)] != wanted:
            raise ParameterError(
                f"{variable.name} has shape {values.shape[: len(lead)]} over {lead}, but y has {wanted}: "
                "pass what e_step returned for this y."
            )
        return values if self.sequence is None else values[np.arange(wanted[1]) < lengths[:, None]]


def type_of_blank(values: AnyArray) -> Any:
    """Type that can hold both these values and a mark of missing."""
    return np.float64 if np.issubdtype(values.dtype, np.number) else np.object_


def show(value: Any) -> str:
    """Write a label as a user would read it: days without midnight, text in quotes."""
    if isinstance(value, pd.Timestamp | np.datetime64):
        stamp = pd.Timestamp(value)
        return str(stamp.date()) if stamp == stamp.normalize() else str(stamp)
    value = value.item() if isinstance(value, np.generic) else value
    return repr(value)


def pack(arrays: Mapping[str, AnyArray], dims: Dims, coords: Mapping[str, Any]) -> xr.Dataset:
    """Label plain arrays: ``dims`` names the axes of each, ``coords`` the entries along each axis."""
    full = {**coords, **{second: coords[first] for second, first in SAME.items() if first in coords}}
    used = {dim for name in arrays for dim in dims[name]}
    return xr.Dataset(
        {name: (dims[name], np.asarray(value)) for name, value in arrays.items()},
        {dim: np.asarray(values) for dim, values in full.items() if dim in used},
    )


def unpack(dataset: xr.Dataset, dims: Dims) -> dict[str, Floats]:
    """Plain float arrays with the axes in the order of ``dims``: whatever order the Dataset has them in.

    Raises
    ------
    ParameterError
        If a variable or a dimension is missing.
    """
    if not isinstance(dataset, xr.Dataset):
        raise ParameterError(
            f"params is a {type(dataset).__name__}, expected an xarray.Dataset: label plain arrays with model.parameters(...)."
        )
    arrays = {}
    for name, wanted in dims.items():
        if name not in dataset:
            raise ParameterError(
                f"the parameters have no variable {name!r}; this model needs {', '.join(dims)} and was given {', '.join(dataset)}."
            )
        if set(dataset[name].dims) != set(wanted):
            raise ParameterError(f"{name} has dims {tuple(dataset[name].dims)}, expected {wanted}.")
        arrays[name] = np.ascontiguousarray(dataset[name].transpose(*wanted).values, dtype=float)
    return arrays


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
        raise ParameterError(f"states is {states!r}, expected a count or a list of names such as ['calm', 'stress'].")
    names = list(states)
    repeated = [name for i, name in enumerate(names) if name in names[:i]]
    if repeated or not names:
        what = f"the name {repeated[0]!r} twice" if repeated else "no names"
        raise ParameterError(f"states has {what}, expected one different name a state.")
    return names
