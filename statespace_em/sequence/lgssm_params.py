"""Parameters of the linear-Gaussian state-space model as plain arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch
from statespace_em.domains import Domain
from statespace_em.errors import SingularInnovationError
from statespace_em.sequence.row_kinds import ALIKE, alike

DOMAINS: Mapping[str, Domain] = {
    "transition": "real",
    "process_cov": "covariance",
    "observation": "real",
    "measurement_cov": "covariance",
    "initial_mean": "real",
    "initial_cov": "covariance",
    "state_offset": "real",
    "observation_offset": "real",
}
INPUTS = ("state_input", "observation_input")  # present only in models with inputs
PARAMETERS = (*DOMAINS, *INPUTS)
VARYING = ("transition", "process_cov", "observation", "measurement_cov", "state_offset", "observation_offset")
ROWWISE = (*VARYING, *INPUTS)


@dataclass(frozen=True, eq=False, slots=True)
class LGSSMParams:
    """Parameters of a linear-Gaussian state-space model; n states, D features, k inputs.

    Those in `ROWWISE` may have a leading axis of rows (T, ...): entry t belongs to row t of every sequence (to the rows
    whose `Batch.place` is t, if y says so), and where it says how the state moves, to the step to the row after it.
    """

    transition: Floats  # (n, n), A
    process_cov: Floats  # (n, n), Q
    observation: Floats  # (D, n), C
    measurement_cov: Floats  # (D, D), R
    initial_mean: Floats  # (n,), of the first state, before the first row is seen
    initial_cov: Floats  # (n, n); infinite on the diagonal where the first state is diffuse
    state_offset: Floats  # (n,), b
    observation_offset: Floats  # (D,), d
    state_input: Floats | None = None  # (n, k), effect of the inputs of row t on the state of row t + 1
    observation_input: Floats | None = None  # (D, k), effect of the inputs of row t on y

    def _asdict(self) -> dict[str, Any]:
        """Parameters by name, without those that the model does not have."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}

    def _replace(self, **changes: Any) -> LGSSMParams:
        """Return these parameters with some others in their place."""
        return replace(self, **changes)


NDIM = {name: 1 if name.endswith(("offset", "mean")) else 2 for name in (*DOMAINS, *INPUTS)}


def varies(params: LGSSMParams, name: str) -> bool:
    """Whether a parameter has a value for every row."""
    return bool(np.ndim(getattr(params, name)) > NDIM[name])


class RowParams(NamedTuple):
    """Parameters as the kernels take them: a leading axis of length 1 (constant) or N (varying)."""

    A: Floats
    b: Floats
    Q: Floats
    C: Floats
    d: Floats
    R: Floats
    U: Floats  # (N, k), inputs
    alike: Ints  # (1,), (N,) or none, see `row_kinds`

    def cut(self, begin: int, end: int) -> RowParams:
        """Parameters of some of the rows."""
        n_rows = len(self.U)
        A, b, Q, C, d, R, U = (value if len(value) == 1 and n_rows > 1 else value[begin:end] for value in self[:7])
        return RowParams(A, b, Q, C, d, R, U, self.alike if len(self.alike) <= 1 else self.alike[begin:end])

    def settle(self, begin: int, end: int) -> bool:
        """Whether covariances that have settled at a row stay as they are in the rows up to ``end``."""
        return len(self.alike) == 1 or (
            len(self.alike) > 0 and bool((self.alike[begin:end] == self.alike[begin]).all())
        )


def by_row(params: LGSSMParams, batch: Batch) -> RowParams:
    """Parameters for the rows of a batch, effects of the inputs included in the offsets."""
    names = ("transition", "state_offset", "process_cov", "observation", "observation_offset", "measurement_cov")
    place = _entries(params, batch)
    stacked = []
    for name in names:
        value = np.ascontiguousarray(getattr(params, name))
        if not varies(params, name):
            value = value[None]
        elif place is not None:
            value = value[place]
        stacked.append(value[: len(batch.y)])
    A, b, Q, C, d, R = stacked
    U = np.zeros((len(batch.y), 0)) if batch.inputs is None else batch.inputs
    if params.state_input is not None:
        b = b + effects_of(params.state_input, U, place)
    if params.observation_input is not None:
        d = d + effects_of(params.observation_input, U, place)
    return RowParams(A, b, Q, C, d, R, U, rows_alike(params, batch))


def rows_alike(params: LGSSMParams, batch: Batch) -> Ints:
    """Number the rows of a batch by their matrices, see `row_kinds`."""
    steps, rows = (
        [np.ascontiguousarray(getattr(params, name)) for name in names if varies(params, name)]
        for names in (("transition", "process_cov"), ("observation", "measurement_cov"))
    )
    return alike(steps, rows, _entries(params, batch), batch.first) if steps or rows else ALIKE


def _entries(params: LGSSMParams, batch: Batch) -> Ints | None:
    """Entry (N,) of matrices given for every row; None where that is the number of the row."""
    if batch.place is None and len(batch.starts) == 2:
        return None
    return positions(batch) if any(varies(params, name) for name in ROWWISE) else None


def effects_of(matrix: Floats, inputs: Floats, place: Ints | None = None) -> Floats:
    """Effects (N, p) of inputs (N, k) by a matrix (p, k), or (T, p, k); ``place`` (N,) as in `row_kinds`."""
    if matrix.ndim == 2:
        return inputs @ matrix.T
    own = matrix[: len(inputs)] if place is None else matrix[place]
    return np.asarray((own @ inputs[:, :, None])[:, :, 0])


def driven(params: LGSSMParams, inputs: Floats) -> LGSSMParams:
    """Parameters of one sequence with the effects of its inputs (T, k) in offsets of T rows."""
    changes: dict[str, Any] = {"state_input": None, "observation_input": None}
    for effect, offset in (("state_input", "state_offset"), ("observation_input", "observation_offset")):
        matrix, base = getattr(params, effect), getattr(params, offset)
        if matrix is not None:
            changes[offset] = (base[: len(inputs)] if varies(params, offset) else base) + effects_of(matrix, inputs)
    return params._replace(**changes)


def positions(batch: Batch) -> Ints:
    """Entry (N,) of matrices given for every row: by default the number of the row within its sequence."""
    if batch.place is not None:
        return batch.place
    lengths = np.diff(batch.starts)
    return np.arange(len(batch.y)) - np.repeat(batch.starts[:-1], lengths)


def taken(batch: Batch, rows: Ints, starts: Ints) -> Batch:
    """Some rows, as sequences that begin at ``starts``, with what belongs to them."""
    return batch._replace(place=positions(batch)).take(rows, starts)


@contextmanager
def numbered(rows: Ints) -> Iterator[None]:
    """Let errors about a row of those `taken` name its number in the whole batch."""
    try:
        yield
    except SingularInnovationError as error:
        raise SingularInnovationError(int(rows[int(str(error))])) from None


class Span(NamedTuple):
    """Range of a singular covariance, r of n dimensions."""

    basis: Floats  # (n, r)
    inverse: Floats  # (r, n), its left inverse; the covariance is basis basis'


def span_of(cov: Floats) -> Span | None:
    """Return the range of a covariance; None where that is everything."""
    try:
        np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        scale = np.sqrt(np.where(np.diag(cov) > 0.0, np.diag(cov), 1.0))
        values, vectors = np.linalg.eigh(cov / np.outer(scale, scale))
        kept = values > 16 * len(cov) * np.finfo(float).eps
        roots = np.sqrt(values[kept])
        return Span(scale[:, None] * vectors[:, kept] * roots, (vectors[:, kept] / roots).T / scale)
    return None
