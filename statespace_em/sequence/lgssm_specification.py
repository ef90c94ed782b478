"""Constructor arguments of a linear-Gaussian model turned into patterns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.domains import Domain
from statespace_em.errors import ParameterError
from statespace_em.labels import listed
from statespace_em.patterns import Pattern, check_symmetric, fixed, from_entries, from_word
from statespace_em.row_entries import check_symmetric_rows, from_rows, is_by_row, shape_of
from statespace_em.row_panels import has_panels
from statespace_em.row_patterns import RowPattern
from statespace_em.segments import Segments
from statespace_em.sequence.decays import Decay
from statespace_em.sequence.flow import Flow
from statespace_em.sequence.lgssm_loading import check_ranks, loaded, unloaded
from statespace_em.sequence.lgssm_params import INPUTS, NDIM, ROWWISE
from statespace_em.sequence.lgssm_structure import COVARIANCES

DIMS = {
    "transition": ("next_state", "state"),
    "process_cov": ("state", "state_aux"),
    "observation": ("feature", "state"),
    "measurement_cov": ("feature", "feature_aux"),
    "initial_mean": ("state",),
    "initial_cov": ("state", "state_aux"),
    "state_offset": ("state",),
    "observation_offset": ("feature",),
    "state_input": ("state", "input"),
    "observation_input": ("feature", "input"),
}
OPTIONAL = ("state_offset", "observation_offset", "state_input", "observation_input")  # "zero" leaves them out
INITIAL = ("estimated", "free", "known", "tied", "diffuse", "fixed", "stationary")
MIXED = ("diffuse", "fixed", "known", "stationary")  # may differ from state to state
DIM_KIND = {
    "state": "state", "next_state": "state", "state_aux": "state", "feature": "feature", "feature_aux": "feature",
    "input": "input",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Specification:
    """What a model is made of, once the number of features is known."""

    names: list[Any]  # of the states
    n_features: int | None
    patterns: Mapping[str, Pattern | RowPattern]  # of what was written other than as "free"
    varying: Mapping[str, Floats]  # fixed values with an entry for every row
    initial: str | tuple[str, ...]  # a word, or one for each state
    loadings: Mapping[str, Floats] = field(default_factory=dict)  # of the noises: patterns are of what they load
    absent: tuple[str, ...] = OPTIONAL  # offsets and effects of inputs that are zero
    guesses: Mapping[str, Sequence[float]] = field(default_factory=dict)  # first values by name, one a start
    flow: Flow | None = None  # that makes the dynamics of each step of transition and process_cov
    regressors: Mapping[Any, int] = field(default_factory=dict)  # states that are coefficients of known columns
    guess_from: Callable[[Batch], Mapping[str, Sequence[float]]] | None = None  # first values that the data suggest
    canonical: Callable[[Mapping[str, float]], dict[str, float]] | None = None  # of equal likelihood
    decays: tuple[Decay, ...] = ()  # of states that start stationary
    segments: Segments | None = None  # whose rows they are, where sequences have some of their own

    def starts_as(self, word: str) -> Bools:
        """Which states (n,) start in this way."""
        if isinstance(self.initial, str):
            return np.full(len(self.names), self.initial == word)
        return np.array([each == word for each in self.initial])

    def estimated(self, name: str, shape: tuple[int, ...]) -> Bools:
        """Which entries of a parameter of this shape are not given: all of one that is free as a whole."""
        pattern, unknown = self.patterns.get(name), self.starts_as("fixed")
        if name == "initial_mean" and unknown.any():
            return unknown
        part = pattern is not None and bool(pattern.names) and pattern.shape == shape
        return pattern.touched if pattern is not None and part else np.ones(shape, bool)

    def value(self, name: str) -> Floats | None:
        """Value of a parameter that the specification fixes; None where it is not fixed."""
        if name in self.varying:
            return self.varying[name]
        pattern = self.patterns.get(name)
        if pattern is None or pattern.names or isinstance(pattern, RowPattern):
            return None
        loading = self.loadings.get(name)
        return loaded(pattern.constant, loading)

    def sized(self, params: xr.Dataset) -> xr.Dataset:
        """Parameters that tell the columns of y, also where every matrix that would is fixed, and so left out."""
        return params if "feature" in params.dims else params.assign_coords(feature=np.arange(self.n_features or 1))

    def free_values(self, name: str, value: Floats) -> dict[str, float]:
        """Free values by name behind the value of a parameter."""
        pattern = self.patterns[name]
        return dict(zip(pattern.names, pattern.read(unloaded(value, self.loadings.get(name))).tolist()))

    @property
    def by_row(self) -> dict[str, int]:
        """Number of rows of every parameter that is given for each."""
        own = {name: pattern.n_rows for name, pattern in self.patterns.items() if isinstance(pattern, RowPattern)}
        return own | {name: len(value) for name, value in self.varying.items()}

    @property
    def has_inputs(self) -> bool:
        """Whether the model has known inputs."""
        return not set(INPUTS) <= set(self.absent)

    def columns(self, n_inputs: int) -> tuple[Ints, Ints]:
        """Columns of (states, 1, inputs) that each side has."""
        n = len(self.names)
        found = []
        for offset, effect in ((OPTIONAL[0], OPTIONAL[2]), (OPTIONAL[1], OPTIONAL[3])):
            own = [*range(n), *([n] if offset not in self.absent else [])]
            own += [] if effect in self.absent else range(n + 1, n + 1 + n_inputs)
            found.append(np.array(own))
        return found[0], found[1]

    @property
    def known(self) -> tuple[str, ...]:
        """Parameters that need not be given because the specification fixes them, or they follow."""
        known = [name for name in DIMS if self.value(name) is not None]
        if not isinstance(self.initial, str) or self.initial in ("diffuse", "fixed", "stationary"):
            known += ["initial_mean", "initial_cov"]
        if self.initial == "tied":
            known.append("initial_cov")
        return tuple(dict.fromkeys((*known, *self.absent)))

    @property
    def own_names(self) -> dict[str, tuple[str, ...]]:
        """Names that the user gave to free values, by parameter; of what is given for every row all of them."""
        named = {
            n: tuple(word for word in p.names if isinstance(p, RowPattern) or not word.startswith(n))
            for n, p in self.patterns.items()
        }
        return {name: words for name, words in named.items() if words}

    def named_values(self, value_of: Callable[[str], Floats]) -> dict[str, float]:
        """Free values that the user, or a design, has given a name."""
        values: dict[str, float] = {}
        for name, words in self.own_names.items():
            free = self.free_values(name, value_of(name))
            values |= {word: free[word] for word in words}
        return values

    def named_domains(self, names: Sequence[str]) -> dict[str, Domain]:
        """Where these values may lie: variances above 0, what follows from others too, coefficients anywhere."""
        domains: dict[str, Domain] = dict.fromkeys(names, "positive")
        for name, words in self.own_names.items():
            variances = set(self.patterns[name].on_diagonal) if name.endswith("_cov") else set()
            domains |= {word: "positive" if word in variances else "real" for word in words}
        return domains | {word: "simplex" for word in names if word.endswith("damping")}  # between 0 and 1

    @property
    def unnamed(self) -> tuple[str, ...]:
        """Parameters with free values that the user gave no name."""
        told = {name for name, words in self.own_names.items() if len(words) == len(self.patterns[name].names)}
        estimated = {"initial_mean"} if self.starts_as("fixed").any() else set()
        return tuple(name for name in DIMS if name not in ({*self.known, *told} - estimated))


def parse_matrix(
    name: str,
    value: Any,
    shape: tuple[int | None, ...],
    all_of: Segments | None = None,
    dims: Sequence[str] | None = None,
) -> Pattern | RowPattern | Floats | None:
    """Pattern of one argument, an array with a leading axis of rows, or None for "free" as a whole.

    ``shape`` may have None where the number of features is not known yet; words then have no pattern. ``all_of`` are
    the rows of a model in which sequences have some of their own: what they share is the same for each. ``dims`` names
    the axes where they are not those of the parameter.
    """
    dims = DIMS[name] if dims is None else dims
    symmetric = name in COVARIANCES
    if isinstance(value, str):
        if value == "free":
            return None
        known = tuple(size for size in shape if size is not None)
        if len(known) < len(shape):
            return None
        return from_word(value, known, name, symmetric=symmetric)
    if isinstance(value, xr.DataArray):
        value = _transposed(name, value)
    pattern: Pattern | RowPattern
    if name in ROWWISE and is_by_row(value, NDIM[name]):
        found, segments = from_rows(value, name, NDIM[name])
        if all_of is not None:
            found = expand_to_sequences(found, name, segments, all_of)
        own = found.shape[1:] if isinstance(found, np.ndarray) else found.shape
        _check_shape(name, own, shape, dims)
        if symmetric:
            _check_rows(name, found)
        return found
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str) and np.ndim(value[1]) == 2:
        pattern = _scaled(name, value[0], value[1])
    elif _is_numbers(value):
        array = np.asarray(value, dtype=float)
        _validate.finite("number", name, array)
        pattern = fixed(array)
    else:
        pattern = from_entries(value, name, symmetric=symmetric)
    _check_shape(name, pattern.shape, shape, dims)
    if symmetric and not pattern.names:
        _validate.covariance(name, pattern.constant, (), semi=True)
    return pattern


def expand_to_sequences(
    found: RowPattern | Pattern | Floats, name: str, own: Segments | None, segments: Segments
) -> RowPattern | Pattern | Floats:
    """What sequences have of their own, or share, row by row, for the rows of each."""
    if isinstance(found, Pattern):
        return found
    rows: Any = found.kind if isinstance(found, RowPattern) else found
    rows = segments.of_each(rows, name) if own is None else own.as_of(segments, rows)
    return replace(found, kind=rows) if isinstance(found, RowPattern) else np.asarray(rows, dtype=float)


def segments_in(name: str, value: Any) -> Segments | None:
    """Sequences whose rows an argument is written for; None where it is the same for all."""
    if isinstance(value, xr.DataArray):
        value = _transposed(name, value)
    return from_rows(value, name, NDIM[name])[1] if has_panels(value, NDIM[name]) else None


def _check_rows(name: str, found: RowPattern | Pattern | Floats) -> None:
    """Refuse covariances of rows that are not symmetric, or known and no covariances."""
    if isinstance(found, RowPattern):
        check_symmetric_rows(found, name)
    elif isinstance(found, np.ndarray) or not found.names:
        _validate.covariance(name, found if isinstance(found, np.ndarray) else found.constant, (), semi=True)
    else:
        check_symmetric(found, name)


def parse_loading(name: str, value: Any, size: int | None) -> Floats:
    """Check how disturbances enter: a matrix (states or features, disturbances) of full column rank, or one a row.

    Raises
    ------
    ParameterError
        If it has another shape, or two disturbances enter alike.
    """
    kind = "state" if name == "process_loading" else "feature"
    if isinstance(value, xr.DataArray):
        value = _loading_in_order(name, value, kind)
    rows = "any" if size is None else size
    try:
        matrix = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ParameterError(
            f"{name} is not all numbers: how disturbances enter is known, ({rows}, any) for dims ({kind}, "
            "disturbance). Names belong to their covariance, or to the coefficients of the states."
        ) from None
    if matrix.ndim == 3 and matrix.size and size in (None, matrix.shape[1]):
        _validate.finite("number", name, matrix)
        check_ranks(name, matrix)
        return matrix
    if matrix.ndim != 2 or not matrix.size or (size is not None and len(matrix) != size):
        raise ParameterError(
            f"{name} has shape {matrix.shape}, expected ({rows}, any) for dims ({kind}, disturbance), or with an axis "
            "of rows before them."
        )
    _validate.finite("number", name, matrix)
    scale = np.abs(matrix).max(0)
    if np.linalg.matrix_rank(matrix / np.where(scale > 0.0, scale, 1.0)) < matrix.shape[1]:
        raise ParameterError(
            f"{name} has {matrix.shape[1]} columns of rank {np.linalg.matrix_rank(matrix)}: disturbances that enter "
            "alike, or not at all, cannot be told apart; leave some out."
        )
    return matrix


def _loading_in_order(name: str, value: xr.DataArray, kind: str) -> Floats:
    other = [dim for dim in value.dims if dim not in ("time", kind)]
    if kind not in value.dims or len(other) != 1:
        raise ParameterError(f"{name} has dims {value.dims}, expected ({kind}, disturbance), or with a time dim.")
    return value.transpose(*(["time"] if "time" in value.dims else []), kind, *other).values


def _is_numbers(value: Any) -> bool:
    try:
        array = np.asarray(value)
    except ValueError:
        return False
    return array.dtype.kind in "fiub" and array.ndim > 0


def _transposed(name: str, value: xr.DataArray) -> Any:
    dims = DIMS[name]
    if set(value.dims) == set(dims):
        return value.transpose(*dims).values
    if set(value.dims) == {"time", *dims}:
        return value.transpose("time", *dims).values
    other = [dim for dim in value.dims if dim not in ("time", *dims)]
    if "time" in value.dims and len(other) == 1 and len(value.dims) == len(dims) + 2:
        return value.transpose(other[0], "time", *dims)
    if set(value.dims) == {"sequence", *dims}:
        return value.transpose("sequence", *dims)
    raise ParameterError(f"{name} has dims {value.dims}, expected {dims}, or with a time or sequence dim: rename them.")


def _scaled(name: str, word: str, matrix: Any) -> Pattern:
    """Return a free scale times a known matrix."""
    known = np.asarray(matrix, dtype=float)
    _validate.finite("number", f"the matrix that {word!r} scales in {name}", known)
    if name in COVARIANCES:
        _validate.covariance(f"the matrix that {word!r} scales in {name}", known, (), semi=True)
    if not known.any():
        raise ParameterError(f"the matrix that {word!r} scales in {name} is zero: no scale of it can be estimated.")
    return Pattern((word,), np.zeros(known.shape), known[None])


def _check_shape(name: str, have: tuple[int, ...], expected: tuple[int | None, ...], dims: Sequence[str]) -> None:
    fits = len(have) == len(expected) and all(size is None or size == mine for mine, size in zip(have, expected))
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in expected)
        raise ParameterError(f"{name} has shape {have}, expected ({sizes}) for dims ({', '.join(dims)}).")


def parse_initial(value: Any, names: Sequence[Any]) -> str | tuple[str, ...]:
    """Check how the states start: one word, or one for each state."""
    if isinstance(value, str):
        _validate.one_of("initial", value, INITIAL)
        return value
    if not isinstance(value, list | tuple):
        raise ParameterError(f"initial is {value!r}, expected one of {listed(INITIAL)}, or a list with one a state.")
    if len(value) != len(names):
        raise ParameterError(f"initial has {len(value)} words, expected one for each of {len(names)} states.")
    for word in value:
        _validate.one_of("initial", word, MIXED)
    return tuple(value)


def _lengths(row: Any) -> tuple[int, ...]:
    return (len(row), *_lengths(row[0])) if isinstance(row, list | tuple | np.ndarray) and len(row) else ()


def infer_size(arguments: Mapping[str, Any], kind: str) -> int | None:
    """Number of states or features as the first matrix that tells has it; None if none does."""
    for name, value in arguments.items():
        if not isinstance(value, list | tuple | dict | np.ndarray | xr.DataArray):
            continue
        if isinstance(value, xr.DataArray):
            for dim in DIMS[name]:
                if dim in value.dims and (dim.startswith(kind) or dim.endswith(kind)):
                    return int(value.sizes[dim])
            continue
        if name in ROWWISE and is_by_row(value, NDIM[name]):
            shape = shape_of(value, NDIM[name])
            for dim, size in zip(DIMS[name], shape or ()):
                if dim.startswith(kind) or dim.endswith(kind):
                    return int(size)
            continue
        if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str) and np.ndim(value[1]) == 2:
            value = value[1]
        first = value[0] if len(value) else 0
        shape = np.shape(value) if isinstance(value, np.ndarray) else (len(value), *_lengths(first))
        own = DIMS[name]
        for dim, size in zip(own, shape if len(shape) == len(own) else ()):
            if dim.startswith(kind) or dim.endswith(kind):
                return int(size)
    return None
