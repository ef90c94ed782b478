"""What the parameters of a model are called and must be: labelled Datasets to checked arrays and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.errors import ParameterError
from statespace_em.labels import SAME, Dims, name_array, pack, unpack
from statespace_em.reports import note_boundary

STATE_DIMS = ("state", "next_state", "state_aux")


@dataclass(frozen=True)
class Schema:
    """Names, dimensions and domains of the parameters of one model."""

    names: list[Any]  # of the states
    dims: Callable[[int | None], Dims]  # dims of every parameter given the number of features
    check: Callable[[Mapping[str, Floats]], None]  # raises ParameterError where values are wrong
    optional: tuple[str, ...] = ()  # parameters that may be left out
    symbols: Sequence[Any] | None = None  # given at construction
    coords: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # of dims that neither states nor data name
    check_written: Callable[[Mapping[str, Floats]], None] = lambda arrays: None  # what a user writes down, besides
    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # what the entries along time are told apart by

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all parameters."""
        return tuple(self.dims(None))

    @property
    def required(self) -> set[str]:
        """Names of the parameters that may not be left out."""
        return set(self.parameters) - set(self.optional)

    def arrays(self, params: xr.Dataset, *, partial: bool = False) -> dict[str, Floats]:
        """Checked plain arrays of labelled parameters, states in the order of ``names``."""
        if not isinstance(params, xr.Dataset):
            raise ParameterError(
                f"params is of type {type(params).__name__}, expected an xarray.Dataset: use model.parameters(...)."
            )
        params = self._ordered(params)
        dims = self.dims(params.sizes.get("feature", 1))
        wanted = {name: d for name, d in dims.items() if name in params or not (partial or name in self.optional)}
        arrays = unpack(params, wanted)
        for name, value in arrays.items():
            for dim, size in zip(wanted[name], value.shape):
                if dim in STATE_DIMS and size != len(self.names):
                    raise ParameterError(
                        f"{name} has {size} entries along {dim}, the model has {len(self.names)} states."
                    )
        self.check(arrays)
        whole = self.dims(2)  # a single channel of symbols is shown without the feature dim that the cores expect
        for name in arrays:
            if len(wanted[name]) < len(whole[name]):
                arrays[name] = np.expand_dims(arrays[name], whole[name].index("feature"))
        return arrays

    def _ordered(self, params: xr.Dataset) -> xr.Dataset:
        """Put named states in the order of the model."""
        coords = {dim: variable for dim in STATE_DIMS if (variable := params.variables.get(dim)) is not None}
        for dim, variable in coords.items():
            if variable.ndim:
                have = variable.values.tolist()
                if have != self.names and (len(have) != len(self.names) or set(have) != set(self.names)):
                    raise ParameterError(f"the parameters are of states {have}, the model has {self.names}.")
                params = params if have == self.names else params.sel({dim: self.names})
        return params

    def label(
        self,
        arrays: Mapping[str, Floats],
        features: pd.Index,
        symbols: Sequence[Any] | None,
        vanished: Mapping[str, Floats] | None = None,
    ) -> xr.Dataset:
        """Label what a core made of observations with these features; ``vanished`` as in `note_boundary`."""
        coords: dict[str, Any] = {**self.coords, "state": self.names, "feature": features}
        if symbols is not None:
            coords["symbol"] = symbols
        dims = self.dims(len(features))
        shaped = {name: np.reshape(value, _shape(dims[name], coords)) for name, value in arrays.items()}
        dataset = self._packed(shaped, dims, coords)
        note_boundary(dataset, vanished or {})
        if "feature" in dataset.dims:
            return dataset
        single = np.empty((), dtype=object)  # a name may be a tuple, which xarray would take for an array
        single[()] = features[0]
        return dataset.assign_coords(feature=((), single if isinstance(single[()], tuple) else features[0]))

    def _packed(self, arrays: Mapping[str, Floats], dims: Dims, coords: Mapping[str, Any]) -> xr.Dataset:
        found = pack(arrays, dims, coords)
        if not self.rows or "time" not in found.dims:
            return found
        return found.assign_coords({name: ("time", name_array(values)) for name, values in self.rows.items()})

    def dataset(self, arrays: Mapping[str, Any]) -> xr.Dataset:
        """Label and check what a user gives: plain arrays in the order of the dims, DataArrays in any order."""
        for name in arrays:
            _validate.one_of("parameter", name, self.parameters)
        coords: dict[str, Any] = {**self.coords, "state": self.names}
        for value in arrays.values():
            if isinstance(value, xr.DataArray):
                coords |= {d: value[d].values for d in ("feature", "symbol") if d in value.coords and value[d].ndim}
        if self.symbols is not None:
            coords["symbol"] = list(self.symbols)
        dims = self.dims(_n_features(arrays, self.dims(2), coords))
        plain = {}
        for name, value in arrays.items():
            if isinstance(value, xr.DataArray):
                value = unpack(value.to_dataset(name=name), {name: dims[name]})[name]
            plain[name] = _numbers(name, value)
            _fill_coords(name, plain[name], dims[name], coords)
        dataset = pack(plain, dims, coords)
        self.check_written(self.arrays(dataset, partial=True))
        return dataset


def state_coords(names: list[Any]) -> dict[str, Any]:
    """Coordinates of the state dimensions."""
    return dict.fromkeys(STATE_DIMS, names)


def _numbers(name: str, value: Any) -> Floats:
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ParameterError(f"{name} is {value!r}, expected an array of numbers.") from None


def _shape(dims: tuple[str, ...], coords: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(len(coords[SAME.get(dim, dim)]) for dim in dims)


def _n_features(arrays: Mapping[str, Any], dims: Dims, coords: Mapping[str, Any]) -> int | None:
    """Number of features as the arrays have it; None if none of them tells."""
    if "feature" in coords:
        return len(coords["feature"])
    for name, value in arrays.items():
        if "feature" in dims[name] and not isinstance(value, xr.DataArray) and np.ndim(value) == len(dims[name]):
            return int(np.shape(value)[dims[name].index("feature")])
    return None


def _fill_coords(name: str, value: Floats, dims: tuple[str, ...], coords: dict[str, Any]) -> None:
    """Check the shape of one parameter and number what has no names yet."""
    for axis, dim in enumerate(dims if value.ndim == len(dims) else ()):
        coords.setdefault(SAME.get(dim, dim), list(range(value.shape[axis])))
    sizes = [len(coords[SAME.get(dim, dim)]) if SAME.get(dim, dim) in coords else "any" for dim in dims]
    if list(value.shape) != sizes:
        raise ParameterError(
            f"{name} has shape {value.shape}, expected ({', '.join(map(str, sizes))}) for dims {dims}."
        )
