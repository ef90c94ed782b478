"""Known columns of a regression beside the rows of y: whose rows they are, of which times, and whether they suffice.

Those of a panel stand end to end; "sequences" and "lengths" among the options of the component tell whose they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import Floats
from statespace_em.data import LARGEST, SMALLEST
from statespace_em.errors import DataError, ParameterError
from statespace_em.inputs import read_inputs
from statespace_em.labels import Labels, show
from statespace_em.row_panels import common
from statespace_em.scale.chunks import is_chunked
from statespace_em.segments import Segments

Components = Sequence[tuple[str, Mapping[str, Any]]]
OWNERS = ("sequences", "lengths")


def columns_of(X: Any) -> dict[str, Any]:
    """Options of a component that tell its columns, from any container that y may be in.

    Raises
    ------
    ParameterError
        If they cannot be read, or are not known everywhere.
    """
    if not _is_panel(X):
        return _columns_of_one(X)
    try:
        known = read_inputs(X, "error", "X")
    except DataError as error:
        raise ParameterError(str(error)) from None
    plain = not all(isinstance(index, pd.RangeIndex) for index in known.times)
    return {
        "X": np.concatenate(known.parts).tolist(),
        "names": [name if isinstance(name, str) else f"x{name}" for name in known.names],
        "times": [str(time) for index in known.times for time in index] if plain else None,
        "sequences": known.keys,
        "lengths": [len(part) for part in known.parts],
    }


def _is_panel(X: Any) -> bool:
    if isinstance(X, pd.Series | pd.DataFrame):
        return isinstance(X.index, pd.MultiIndex)
    if isinstance(X, xr.DataArray):
        return "sequence" in X.dims or "length" in X.coords or X.ndim > 2
    tables = (np.ndarray, pd.Series, pd.DataFrame, xr.DataArray)
    return isinstance(X, Mapping) or (isinstance(X, list | tuple) and any(isinstance(own, tables) for own in X))


def _columns_of_one(X: Any) -> dict[str, Any]:
    frame = X.to_frame() if isinstance(X, pd.Series) else X
    try:
        rows = np.asarray(frame, dtype=float)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"X is no table of numbers ({error}): code categories as columns of 0 and 1.") from None
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not rows.size:
        raise ParameterError(f"X has shape {np.shape(X)}, expected (rows, columns).")
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise ParameterError(f"X has {rows[row, column]} in row {row}, column {column}: regressors must be known.")
    named = isinstance(frame, pd.DataFrame)
    names = [str(name) for name in frame.columns] if named else [f"x{j}" for j in range(rows.shape[1])]
    plain = named and not frame.index.equals(pd.RangeIndex(len(frame)))
    _check_size(rows, names)
    return {"X": rows.tolist(), "names": names, "times": [str(time) for time in frame.index] if plain else None}


def _check_size(rows: Floats, names: Sequence[str]) -> None:
    """Refuse columns whose squares are beyond floating point: nothing could be told of their coefficients."""
    for name, size in zip(names, np.abs(rows).max(0)):
        if size > LARGEST or 0.0 < size < SMALLEST:
            raise ParameterError(
                f"column {name!r} of X is of size {size:.3g}, too {'large' if size > LARGEST else 'small'}: its square "
                f"is beyond floating point. Change its unit, as by dividing it by 1e{int(np.floor(np.log10(size)))}."
            )


def segments_of(components: Components) -> Segments | None:
    """Rows that the sequences of a panel have columns for; None where all have the same.

    Raises
    ------
    ParameterError
        If two components have them for different rows.
    """
    shared = [len(options["X"]) for _, options in components if "X" in options and _own(options) is None]
    if len(set(shared)) > 1:
        raise ParameterError(
            f"X of one regression has {shared[0]} rows, that of another {next(n for n in shared if n != shared[0])}: "
            "give both for the same rows, those of y and of the future that is asked for."
        )
    return common({f"X of component {i}": own for i, (_, options) in enumerate(components) if (own := _own(options))})


def _own(options: Mapping[str, Any]) -> Segments | None:
    if options.get("sequences") is None:
        return None
    return Segments(tuple(options["sequences"]), tuple(pd.RangeIndex(length) for length in options["lengths"]))


def plain_options(options: Mapping[str, Any], segments: Segments | None) -> dict[str, Any]:
    """Options that a component is built of, its columns for all rows of the model."""
    found = {name: value for name, value in options.items() if name not in ("on", *OWNERS)}
    if segments is not None and "X" in options and options.get("sequences") is None:
        found["X"] = segments.of_each(np.asarray(options["X"], dtype=float), "X")
    return found


def of_sequence(components: Components, which: int) -> list[tuple[str, dict[str, Any]]]:
    """The components with the columns of one sequence alone."""
    found = []
    for kind, options in components:
        own, plain = _own(options), {name: value for name, value in options.items() if name not in OWNERS}
        if own is not None:
            rows = slice(own.begins[which], own.begins[which] + own.lengths[which])
            plain |= {name: options[name] and options[name][rows] for name in ("X", "times")}
        found.append((kind, plain))
    return found


def check_times(components: Components, labels: Labels) -> None:
    """Refuse rows of y and of the regressors that are of different times."""
    for kind, options in components:
        times, segments = options.get("times"), _own(options)
        if kind != "regression" or times is None:
            continue
        begins = [0] if segments is None else segments.begins[segments.numbers(labels)]
        for begin, key, index in zip(begins, labels.keys, labels.times):
            own = [str(time) for time in index]
            off = [i for i, (mine, theirs) in enumerate(zip(own, times[begin:])) if mine != theirs]
            if off:
                where = "" if segments is None or labels.sequence is None else f" of {labels.sequence} {show(key)}"
                raise DataError(
                    f"row {off[0]} of y{where} is at {own[off[0]]}, but that of X at {times[begin + off[0]]}: give X "
                    "the rows of y."
                )


def check_ahead(components: Components, read: Callable[[], Labels], y: Any, horizon: int) -> None:
    """Refuse a future whose regressors are not known; ``read()`` are the labels of y."""
    given = [len(options["X"]) for kind, options in components if kind == "regression"]
    if not given or is_chunked(y):
        return
    labels = read()
    check_times(components, labels)
    segments = segments_of(components)
    if segments is not None:
        segments.check_ahead(labels, horizon)
        return
    needed = max(labels.lengths) + horizon
    if min(given) < needed:
        raise DataError(
            f"X of the regression has {min(given)} rows, but a forecast {horizon} rows beyond the "
            f"{needed - horizon} rows of y needs {needed}. Write the model again with designs.regression(X), X "
            "having the rows of y and of the future, and ask it with the parameters found: "
            f"forecast(y, {horizon}, params=model.params_)."
        )
