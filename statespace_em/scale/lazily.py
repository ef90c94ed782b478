"""Questions about chunked data: the answer of each chunk is worked out when it is wanted, where the chunk is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar, cast

import numpy as np
import xarray as xr

from statespace_em import _threads
from statespace_em._typing import AnyArray
from statespace_em.errors import ParameterError
from statespace_em.labels import type_of_blank
from statespace_em.scale.chunks import Chunks, Conditions, cut, import_dask, is_chunked
from statespace_em.scale.conditions import chunks_with_conditions, dummy_conditions

Method = TypeVar("Method", bound=Callable[..., Any])
Ask = Callable[[xr.DataArray, Conditions], Any]
FROM_Y = ("length", "timestamp")  # coordinates that follow from those of y
ANSWER = "_answer"  # name of a DataArray while it is a Dataset


def chunkwise(method: Method) -> Method:
    """Let a method ``(self, y, ..., params=None)`` of a model answer chunk by chunk where y is Dask-backed.

    The answer has the labels and dims that it has in memory, with Dask arrays in place of numbers.
    """
    signature = inspect.signature(method)

    @wraps(method)
    def asked(self: Any, y: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_chunked(y):
            return method(self, y, *args, **kwargs)
        options = dict(signature.bind(self, y, *args, **kwargs).arguments)
        for name in ("self", "y"):
            del options[name]
        if options.get("n_draws"):
            raise ParameterError(
                "n_draws= is not taken together with chunked data, as no chunk knows all: draw parameters once, "
                "as in params=model.parameter_draws(y, n_draws) of data in memory."
            )
        states, weights = options.pop("states", None), options.pop("weights", None)
        self._check_takes(states, weights)
        options["params"] = self._known(options.get("params"))
        model = type(self)(**self.get_params())  # without what a fit left: it travels
        chunks = chunks_with_conditions(cut(y), states, weights, self._chunk_inputs(options["params"]))
        ask = partial(_ask, model, method.__name__, options)
        seen = self._support() == "real"
        return mapped(ask, chunks, chunks.dummy(seen=seen), rows_ahead=int(options.get("horizon", 0)))

    return cast(Method, asked)


def _ask(model: Any, name: str, options: dict[str, Any], part: xr.DataArray, conditions: Conditions) -> Any:
    states, weights, inputs = conditions
    given = {"states": states, "weights": weights, "inputs": None if inputs is None else inputs[0]}
    own = {word: value for word, value in given.items() if value is not None}
    with _threads.limited(1):
        return getattr(model, name)(part, **options, **own)


def mapped(ask: Ask, chunks: Chunks, like: xr.DataArray, *, rows_ahead: int = 0) -> Any:
    """Answer of all chunks; asked first about a sequence made up, whose answer has the labels of all answers.

    Its entries are numbers where any will do: rows without any do not determine a diffuse start.
    """
    dask = import_dask()
    dummy = ask(like, dummy_conditions(chunks.conditions[0], chunks, rows_ahead))
    whole = _as_dataset(dummy)
    ragged = len(np.unique(chunks.lengths)) > 1
    types = {name: _type(variable, ragged and chunks.time in variable.dims) for name, variable in whole.items()}
    longest = int(chunks.lengths.max())
    answer = partial(_answer, ask, types, chunks.time, longest)
    whole_chunks = zip(chunks.parts, chunks.conditions)
    parts = [dask.delayed(answer, pure=False, nout=len(types))(part, conditions) for part, conditions in whole_chunks]
    variables = {
        str(name): (variable.dims, _assembled(dask, [part[i] for part in parts], variable, types[name], chunks))
        for i, (name, variable) in enumerate(whole.items())
    }
    dataset = xr.Dataset(variables, _coords(dummy, chunks))
    for name, variable in whole.items():
        dataset[name].attrs.update(variable.attrs)
    dataset = dataset.set_coords([name for name in whole if name in dummy.coords])
    return dataset if isinstance(dummy, xr.Dataset) else dataset[ANSWER].rename(dummy.name)


def _as_dataset(answer: Any) -> xr.Dataset:
    """Everything to be worked out as variables of a Dataset, without coordinates."""
    dataset = answer.to_dataset(name=ANSWER) if isinstance(answer, xr.DataArray) else answer
    worked_out = [name for name in dataset.coords if name not in dataset.dims and name not in FROM_Y]
    worked_out = [name for name in worked_out if dataset[name].ndim or name == "log_prob"]
    dataset = dataset.reset_coords(worked_out)
    return dataset.drop_vars(list(dataset.coords))


def _type(variable: xr.DataArray, padded: bool) -> np.dtype[Any]:
    if variable.dtype == bool:
        return variable.dtype  # as in memory: no row is not outside its gate
    return np.promote_types(variable.dtype, type_of_blank(variable.values)) if padded else variable.dtype


def _assembled(dask: Any, blocks: list[Any], variable: xr.DataArray, dtype: np.dtype[Any], chunks: Chunks) -> Any:
    """Put the blocks of one variable together: one after the other, or summed where it has no sequences."""
    rest = dict(zip(variable.dims, variable.shape))
    each = []
    for block, size in zip(blocks, chunks.sizes):
        shape = tuple(size if dim == chunks.sequence else n for dim, n in rest.items())
        each.append(dask.array.from_delayed(block, shape, dtype, meta=np.empty((0,) * len(shape), dtype)))
    if chunks.sequence in variable.dims:
        return dask.array.concatenate(each, axis=variable.dims.index(chunks.sequence))
    return each[0] if len(each) == 1 else dask.array.stack(each).sum(0)


def _coords(dummy: Any, chunks: Chunks) -> dict[Any, Any]:
    """Coordinates of the whole answer, in the order that they have in the dummy's."""
    y, sequence, time = chunks.array, chunks.sequence, chunks.time
    own = {name: coord.variable for name, coord in dummy.coords.items() if name in dummy.dims or not coord.ndim}
    own = {name: variable for name, variable in own.items() if name != "log_prob"}
    if sequence is None or sequence not in dummy.dims:
        return own
    own[sequence] = chunks.keys
    if time not in dummy.dims:
        return own
    whole = {sequence: own.pop(sequence), "length": (sequence, chunks.lengths)}
    if time in y.indexes or "timestamp" not in y.coords:
        return whole | own
    del own[time]
    longest = int(chunks.lengths.max())
    stamps = y["timestamp"].isel({time: slice(0, longest)}).variable
    inside = xr.DataArray(np.arange(longest) < chunks.lengths[:, None], dims=(sequence, time))
    return whole | own | {"timestamp": stamps if inside.all() else xr.DataArray(stamps).where(inside).variable}


# where the chunk is


def _answer(
    ask: Ask, types: dict[Any, np.dtype[Any]], time: str, longest: int, part: xr.DataArray, conditions: Conditions
) -> tuple[AnyArray, ...]:
    found = _as_dataset(ask(part, conditions))
    return tuple(_padded(found[name], time, longest, dtype) for name, dtype in types.items())


def _padded(variable: xr.DataArray, time: str, longest: int, dtype: np.dtype[Any]) -> AnyArray:
    """Values as long as those of the longest sequence of any chunk."""
    values = variable.values.astype(dtype)
    if time not in variable.dims or variable.sizes[time] == longest:
        return values
    axis = variable.dims.index(time)
    width = [(0, longest - values.shape[axis] if i == axis else 0) for i in range(values.ndim)]
    blank: Any = {"O": None, "b": False}.get(dtype.kind, np.nan)
    return np.pad(values, width, constant_values=blank)
