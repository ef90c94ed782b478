"""Known inputs (control variables, covariates): read beside y, aligned with its rows, and asked for where they are due.

A question that takes ``inputs=`` is answered by a copy of the model that knows them, so that every other method stays
a function of y and the parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from statespace_em._typing import Floats
from statespace_em.data import Batch, as_batch
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import Labels, listed, show
from statespace_em.segments import matched


class Inputs(NamedTuple):
    """Inputs of every sequence, from its first row on; those after its last row are of its future."""

    parts: tuple[Floats, ...]  # (rows, k) each
    times: tuple[pd.Index, ...]
    names: list[Any]  # of the k inputs
    one: bool  # whether a single table serves all sequences
    keys: list[Any] = []  # names of the sequences

    def arranged(self, names: Sequence[Any]) -> Inputs:
        """Put the columns in the order of these names, where both have names.

        Raises
        ------
        DataError
            If there are not as many, or one is missing.
        """
        if len(names) != len(self.names):
            raise DataError(
                f"inputs= has {len(self.names)} columns ({listed(self.names)}), but the parameters are of "
                f"{len(names)}: {listed(names)}."
            )
        numbers = list(range(len(names)))
        if list(names) in (self.names, numbers) or self.names == numbers:
            return self._replace(names=list(names))
        missing = [name for name in names if name not in self.names]
        if missing:
            raise DataError(f"inputs= has no column {show(missing[0])}, only {listed(self.names)}: add or rename it.")
        order = [self.names.index(name) for name in names]
        return self._replace(parts=tuple(part[:, order] for part in self.parts), names=list(names))

    def of_rows(self, labels: Labels) -> tuple[Floats, ...]:
        """Inputs (rows, k) of every sequence of y from its first row to the end of the inputs.

        Raises
        ------
        DataError
            If a row of y has none.
        """
        which = [0] * len(labels.times)
        if not self.one:
            which = matched(self.keys, labels.keys.tolist(), "inputs= has")
        found = []
        for i, key, times in zip(which, labels.keys, labels.times):
            part, own = self.parts[i], self.times[i]
            where = "" if labels.sequence is None else f" of {labels.sequence} {show(key)}"
            begin = 0
            if not (_is_numbered(own) or _is_numbered(times)):
                place = own.get_indexer(times)
                lost = place < 0
                if lost.any():
                    raise DataError(
                        f"inputs= has no row for {labels.time} {show(times[int(np.argmax(lost))])}{where}: give the "
                        "inputs of every row of y, also where y is missing."
                    )
                if (np.diff(place) != 1).any():
                    row = int(np.argmax(np.diff(place) != 1))
                    raise DataError(
                        f"inputs= has rows between {labels.time} {show(times[row])} and {show(times[row + 1])}{where} "
                        "that y does not have: drop them, or add those rows to y, with NaN."
                    )
                begin = int(place[0])
            if len(part) - begin < len(times):
                raise DataError(f"inputs= has {len(part)} rows{where}, but y has {len(times)}: give one a row.")
            found.append(part[begin:])
        return tuple(found)

    def ahead(self, labels: Labels, horizon: int) -> Floats:
        """Inputs (S, horizon + 1, k) of the last row of every sequence and of its future.

        Raises
        ------
        DataError
            If they do not reach so far.
        """
        found = []
        for key, part, times in zip(labels.keys, self.of_rows(labels), labels.times):
            rows = part[len(times) - 1 : len(times) + horizon]
            if len(rows) < horizon + 1:
                where = "" if labels.sequence is None else f" of {labels.sequence} {show(key)}"
                raise DataError(
                    f"inputs= ends {len(rows) - 1} rows after y{where}, but {horizon} are asked for: give the inputs "
                    "of the rows of y and of their future."
                )
            found.append(rows)
        return np.stack(found)

    def beside(self, batch: Batch, labels: Labels) -> Batch:
        """Batch of y with the inputs of its rows."""
        rows = zip(self.of_rows(labels), labels.lengths)
        return batch._replace(inputs=np.concatenate([part[:length] for part, length in rows]))


def _is_numbered(index: pd.Index) -> bool:
    """Whether rows have no names, just numbers from 0."""
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def read_inputs(inputs: Any, unsorted: Any, told: str = "inputs=") -> Inputs:
    """Read inputs, or other columns that are ``told`` so, from any container that y may be in.

    Raises
    ------
    DataError
        Naming the value, the place and the remedy.
    """
    try:
        given, labels, _ = as_batch(inputs, unsorted=unsorted)
    except DataError as error:
        raise DataError(f"{told} cannot be read: {error}") from None
    if np.isnan(given.y).any():
        row, column = (int(i) for i in np.argwhere(np.isnan(given.y))[0])
        raise DataError(f"{told} is missing ({labels.where(row, column)}): it must be known, fill the gap.")
    parts = tuple(given.y[a:b] for a, b in zip(given.starts[:-1], given.starts[1:]))
    return Inputs(parts, labels.times, list(labels.features), labels.sequence is None, labels.keys.tolist())


def one_row(inputs: Any, names: Sequence[Any], where: str, what: str = "inputs") -> Floats:
    """Inputs (or regressors) (k,) of one row, in order or by name, as a stream takes them.

    Raises
    ------
    DataError
        If they are missing, not numbers, or of other names.
    """
    if not len(names):
        if inputs is not None:
            raise ParameterError(f"{what}= was given, but the model has none.")
        return np.zeros(0)
    told = listed(names)
    if inputs is None:
        raise DataError(f"the model has the {what} {told}, but those of {where} are missing: update(row, {what}=...).")
    if isinstance(inputs, pd.Series | Mapping):
        lost = [name for name in names if name not in inputs]
        if lost:
            raise DataError(f"{what}= of {where} has no {show(lost[0])}, expected {told}.")
        inputs = [inputs[name] for name in names]
    try:
        values = np.atleast_1d(np.asarray(inputs, dtype=float))
    except (TypeError, ValueError):
        raise DataError(f"{what}= of {where} is {inputs!r}, expected numbers for {told}.") from None
    if values.shape != (len(names),):
        raise DataError(f"{what}= of {where} has shape {values.shape}, expected ({len(names)},) for {told}.")
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values)))
        raise DataError(f"{what}= of {where} has {values[bad]} for {show(names[bad])}: {what} must be known.")
    return values


def scale_of(batch: Batch | None) -> Floats | None:
    """Root mean square of each input (k,)."""
    if batch is None or batch.inputs is None:
        return None
    size = np.sqrt(np.mean(batch.inputs**2, axis=0))
    return np.asarray(np.where(size > 0.0, size, 1.0))


def takes_inputs(method: Callable[..., Any]) -> Any:
    """Let a method ``(self, y, ...)`` of a state-space model take the keyword ``inputs``."""
    signature = inspect.signature(method)
    extra = inspect.Parameter("inputs", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Any)
    own = list(signature.parameters.values())
    last = len(own) - int(own[-1].kind is inspect.Parameter.VAR_KEYWORD)

    @wraps(method)
    def asked(self: Any, *args: Any, inputs: Any = None, **kwargs: Any) -> Any:
        model = self if inputs is None else self._with_inputs(inputs, args[0] if args else kwargs.get("y"))
        return method(model, *args, **kwargs)

    asked.__signature__ = signature.replace(parameters=[*own[:last], extra, *own[last:]])  # type: ignore[attr-defined]
    return asked
