"""What the values of a linear-Gaussian model must be: refused before work is done."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import show
from statespace_em.patterns import Pattern, fixed
from statespace_em.row_patterns import RowPattern
from statespace_em.schema import Schema
from statespace_em.sequence.lgssm_loading import loaded, unloaded
from statespace_em.sequence.lgssm_params import DOMAINS, INPUTS, positions
from statespace_em.sequence.lgssm_row_checks import values_of_rows
from statespace_em.sequence.lgssm_specification import DIM_KIND, DIMS, Specification


def schema_of(spec: Specification, inputs: Sequence[Any] | None, of_steps: Collection[str]) -> Schema:
    """Names and dims of the parameters; ``of_steps`` are those that depend on the step between rows."""
    there = {name: own for name, own in DIMS.items() if name not in set(INPUTS) & set(spec.absent)}
    dims = {name: ("time", *own) if name in spec.by_row else own for name, own in there.items()}
    coords: dict[str, Any] = {"time": range(max(spec.by_row.values()))} if spec.by_row else {}
    if inputs is not None:
        coords["input"] = inputs

    def check_written(arrays: Mapping[str, Floats]) -> None:
        check_given(spec, {name: value for name, value in arrays.items() if name not in of_steps}, "")

    rows = {} if spec.segments is None else spec.segments.told
    return Schema(spec.names, lambda n_features: dims, check_values, spec.known, None, coords, check_written, rows)


def check_values(arrays: Mapping[str, Floats]) -> None:
    """Refuse values that are not finite, or no covariances."""
    for name, value in arrays.items():
        if name == "initial_cov" and np.isinf(np.diag(value)).any():
            known = np.isfinite(np.diag(value))
            if value[~known][:, known].any() or not (value[~known][:, ~known] == np.diag(np.diag(value)[~known])).all():
                raise ParameterError("initial_cov has a covariance with a diffuse state, expected 0 there.")
            value = value[np.ix_(known, known)]
        if DOMAINS.get(name) == "covariance":
            _validate.covariance(name, value, (), semi=True)
        elif name != "initial_mean" or not np.isnan(value).any():
            _validate.finite("number", name, value)


def check_rows(spec: Specification, batch: Batch) -> None:
    """Refuse data longer than a matrix that is given for every row."""
    if spec.segments is not None:  # of each sequence, which has been found there
        return
    longest = int(np.diff(batch.starts).max())
    check_length(spec, longest, f"y has {longest}")


def check_length(spec: Specification, longest: int, told: str) -> None:
    """Refuse more rows than a matrix is given for; ``told`` says who has so many."""
    for name, length in spec.by_row.items():
        if length < longest and name == "observation" and spec.regressors:
            raise DataError(
                f"X of the regression is given for {length} rows, but {told}: give X a row for every row of y, and for "
                "those after it where forecasts are wanted."
            )
        if length < longest:
            dims = ", ".join(("time", *DIMS[name]))
            shape = spec.patterns[name].shape if name in spec.patterns else spec.varying[name].shape[1:]
            raise DataError(
                f"{name} is given for {length} rows, but {told}: give it for every row, with shape {(longest, *shape)} "
                f"for dims ({dims})."
            )


def check_names(spec: Specification, batch: Batch, keys: Sequence[Any]) -> None:
    """Refuse to estimate what no row of y depends on, and names that are those of the sequences."""
    given = {name: pattern for name, pattern in spec.patterns.items() if isinstance(pattern, RowPattern)}
    rows = np.unique(positions(batch)) if given else np.zeros(0, np.int64)
    for name, pattern in given.items():
        if len(keys) > 1 and set(pattern.names) == set(keys):
            first, second = pattern.names[:2]
            raise DataError(
                f"{name} is written with the names {first!r}, {second!r}, ..., which are those of the sequences of y. "
                f"Factors of each sequence stand under one name, {{'r': {{{first!r}: ..., {second!r}: ...}}}}, known "
                f"numbers under 1, {{1: {{{first!r}: ...}}}}; values of each, call otherwise."
            )
        lost = pattern.unseen(rows)
        if lost:
            raise DataError(
                f"{name} has {lost[0]!r} in rows after the last of y only: y says nothing of it, give it a number."
            )


def check_given(spec: Specification, given: Mapping[str, Floats], where: str = " in start") -> None:
    """Refuse values that the structure does not allow."""
    for name, value in given.items():
        if name not in spec.patterns or name in ("initial_mean", "initial_cov"):
            continue
        pattern, loading = spec.patterns[name], spec.loadings.get(name)
        if isinstance(pattern, RowPattern) and value.ndim > len(pattern.shape):
            value = value[: pattern.n_rows]
        own = value.shape[1:] if isinstance(pattern, RowPattern) else value.shape
        shape = pattern.shape if loading is None else (loading.shape[-2],) * 2
        if shape != own:
            raise ParameterError(f"{name} has shape {own}{where}, the model has {shape}.")
        if not holds(pattern, loading, value):
            raise ParameterError(
                f"{name}{where} is not of the structure given to the model: {_entry_off(spec, name, value)}its fixed "
                f"entries must have their values, and tied ones the same. Names in the model make {name} free."
            )


def _entry_off(spec: Specification, name: str, value: Floats) -> str:
    """Say which entry is furthest from what the structure makes of the others."""
    pattern = spec.patterns[name]
    if isinstance(pattern, RowPattern) or name in spec.loadings:
        return ""
    allowed = pattern.build(pattern.read(value))
    where = np.unravel_index(np.abs(value - allowed).argmax(), value.shape)
    labels: dict[str, Sequence[Any]] = {"state": spec.names, "feature": range(len(value)), "input": range(len(value.T))}
    at = ", ".join(f"{dim} {show(labels[DIM_KIND[dim]][int(i)])}" for dim, i in zip(DIMS[name], where))
    return f"({at}) is {value[where]:g}, where the model has {allowed[where]:g}; "


def with_frozen(
    spec: Specification, given: Mapping[str, Floats], freeze: Sequence[str]
) -> tuple[dict[str, Pattern | RowPattern], dict[str, Floats]]:
    """Patterns, and what is known for every row, where some parameters stay as they are given."""
    patterns, varying = dict(spec.patterns), dict(spec.varying)
    for name in [name for name in freeze if name in given and name in patterns]:
        pattern, loading = patterns[name], spec.loadings.get(name)
        if isinstance(pattern, RowPattern):
            varying[name] = values_of_rows(pattern, given[name], loading)
            del patterns[name]
        elif loading is None:
            patterns[name] = fixed(given[name])
    return patterns, varying


def holds(pattern: Pattern | RowPattern, loading: Floats | None, value: Floats) -> bool:
    """Whether a value is of a pattern, or what a loading makes of one."""
    if loading is None:
        return pattern.holds(value)
    inner = unloaded(value, loading)
    off = np.abs(loaded(inner, loading) - value).max(initial=0.0)
    return pattern.holds(inner) and bool(off <= 1e-8 * np.abs(value).max(initial=0.0))


def values_of(params: xr.Dataset, name: str) -> Floats:
    """Value of a parameter with its axes in order."""
    return np.asarray(params[name].transpose(..., *DIMS[name]).values, dtype=float)
