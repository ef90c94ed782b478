"""Fits of data far from 0, such as prices in cents or coordinates of a grid, take place on centred data.

A row 1e9 standard deviations from 0 leaves a double seven digits for what it says, and sums of squares none. Where a
model follows a shift of the data by one of its states and offsets, and of nothing else,

    C v + (d - d') = middle,    b - b' = (I - A) v,    m - m' = v,

it fits y less its middle as it fits y: the fit takes place there, and its end is moved back. Whether a model follows is
a question of linear algebra, asked at random values of its dynamics and loadings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.data import Batch
from statespace_em.patterns import Pattern
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.flow import Flow
from statespace_em.sequence.lgssm_diffuse import is_diffuse
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_specification import Specification

FAR = 100.0  # standard deviations of the steps of y from 0, from which on the fit is one of y less its middle
ROWS = 100_000  # rows that tell where a column is, or as many entries where these have none
POINTS = 3  # random values of what is free: a model that follows at some follows at almost all
ROUND_OFF = 1e-12  # singular value of round-off, equations and unknowns being of order 1
LOCATIONS = {"state_offset", "observation_offset", "initial_mean"}  # what may move


class FreeLocations(NamedTuple):
    """Locations of a model that may follow a shift of the data."""

    first: Bools  # (n,), states whose first mean may
    state: Floats  # (n, k), design of the offsets of the states by free value
    observation: Floats  # (D, j), of the offsets of the observations

    def equations(self, A: Floats, C: Floats) -> Floats:
        """Coefficients (equations, unknowns) of a shift of states and offsets, and, last, of the data (D)."""
        (D, j), (n, k), m = self.observation.shape, self.state.shape, int(self.first.sum())
        loadings, steps = _rows(C[..., self.first]), _rows((np.eye(n) - A)[..., self.first])
        many = len(loadings) // D
        offsets, data = np.tile(self.observation, (many, 1)), np.tile(-np.eye(D), (many, 1))
        state_offsets = np.tile(-self.state, (len(steps) // n, 1))
        equations = np.block([
            [loadings, np.zeros((len(loadings), k)), offsets, data],
            [steps, state_offsets, np.zeros((len(steps), j + D))],
        ])  # fmt: skip
        equations = equations / _sizes(equations, axis=1)
        tall = len(equations) > 4 * (m + k + j + D)
        return np.asarray(np.linalg.qr(equations, mode="r")) if tall else equations


@dataclass(frozen=True, eq=False)
class Shift:
    """Centres the data of a model, and shifts its parameters there and back."""

    middle: Floats  # (D,)
    free: FreeLocations
    flow: Flow | None

    def centred(self, batch: Batch) -> Batch:
        """Data less their middle."""
        return batch._replace(y=batch.y - self.middle)

    def to_centred(self, params: LGSSMParams) -> LGSSMParams:
        """Parameters for y less its middle, from those for y."""
        return self._shifted(params, -1.0)

    def from_centred(self, params: LGSSMParams) -> LGSSMParams:
        """Inverse of `to_centred`."""
        return self._shifted(params, 1.0)

    def _shifted(self, params: LGSSMParams, sign: float) -> LGSSMParams:
        A = params.transition if self.flow is None else self.flow.out(params).transition
        equations, D = self.free.equations(A, params.observation), len(self.middle)
        sizes = _sizes(equations[:, :-D], axis=0)
        right = -equations[:, -D:] @ self.middle
        move = np.linalg.lstsq(equations[:, :-D] / sizes, right, rcond=ROUND_OFF)[0]
        move = np.where(np.abs(move) > ROUND_OFF * np.abs(move).max(), move, 0.0) / sizes.ravel()
        m, k = int(self.free.first.sum()), self.free.state.shape[1]
        states = np.zeros(len(self.free.first))
        states[self.free.first] = move[:m]
        mean, diffuse = params.initial_mean, is_diffuse(params)
        return params._replace(
            initial_mean=np.where(diffuse, mean, mean + sign * states),
            state_offset=params.state_offset + sign * (self.free.state @ move[m : m + k]),
            observation_offset=params.observation_offset + sign * (self.free.observation @ move[m + k :]),
        )


def shift_for(
    spec: Specification,
    batch: Batch,
    patterns: Mapping[str, Pattern | RowPattern],
    held: Mapping[str, Floats],
    kept: Collection[str],
    freely: tuple[bool, bool],
) -> Shift | None:
    """Shift of a model; None where y is not far from 0, or the model cannot follow.

    ``patterns`` are of what is not free as a whole, ``held`` values of what is not free at all, ``kept`` the names of
    all that is not, and ``freely`` says whether offsets of states and observations have no prior.
    """
    middle = _middle(batch.y)
    if middle is None:
        return None
    D, n = len(middle), len(spec.names)
    offsets = (
        _by_value(patterns.get(name), size, moves=freely[i] and name not in {*kept, *held})
        for i, (name, size) in enumerate((("state_offset", n), ("observation_offset", D)))
    )
    free = FreeLocations(_first(spec, patterns, kept), *offsets)
    if not (free.first.any() or free.state.size or free.observation.size):
        return None
    reachable = np.eye(D)
    rng, own = np.random.default_rng(0), {**patterns, **held}
    for _ in range(POINTS):
        A, C, Q = (_random_value(own.get(name), shape, rng) for name, shape in
                   (("transition", (n, n)), ("observation", (D, n)), ("process_cov", (n, n))))  # fmt: skip
        equations = free.equations(A if spec.flow is None else spec.flow.matrices(A, Q)[0], C)
        sizes = _sizes(equations, axis=0)
        follows = _orthonormal((_null_space(equations / sizes) / sizes.T)[-D:])
        both = _null_space(np.concatenate([np.eye(D) - reachable, np.eye(D) - follows @ follows.T]))
        reachable = both @ both.T
    middle = np.where(np.abs(reachable) > ROUND_OFF, reachable, 0.0) @ middle
    return Shift(middle, free, spec.flow) if middle.any() else None


def _first(spec: Specification, patterns: Mapping[str, Any], kept: Collection[str]) -> Bools:
    """States (n,) whose first mean moves with the data."""
    diffuse, own = spec.starts_as("diffuse"), patterns.get("initial_mean")
    if not isinstance(spec.initial, str) or spec.initial in ("diffuse", "fixed", "stationary"):
        free = spec.starts_as("fixed") | spec.starts_as("stationary")
    elif isinstance(own, Pattern):
        free = own.touched if own.is_plain else np.zeros(len(diffuse), bool)
    else:
        free = np.full(len(diffuse), own is None)
    return np.asarray(diffuse | (free & ("initial_mean" not in kept)))


def _by_value(pattern: Pattern | RowPattern | None, size: int, *, moves: bool) -> Floats:
    """Offsets (size, k) by free value, as far as they move alike in every row."""
    if not moves or isinstance(pattern, RowPattern) or (pattern is not None and pattern.products):
        return np.zeros((size, 0))
    return np.eye(size) if pattern is None else np.asarray(pattern.flat.T)


def _middle(y: Floats) -> Floats | None:
    """Middle (D,) of the columns that are far from 0, 0 for others; None where none is."""
    found = np.zeros(y.shape[1])
    for j, column in enumerate(y.T):
        seen = column[:ROWS][~np.isnan(column[:ROWS])]
        if len(seen) < 2:
            seen = column[~np.isnan(column)][:ROWS]
        if len(seen) > 1:
            middle = float(np.median(seen))
            found[j] = middle if abs(middle) > FAR * float(np.std(np.diff(seen))) else 0.0
    return found if found.any() else None


def _random_value(own: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Known value of a matrix, or a random one of its pattern."""
    if own is None:
        return rng.uniform(-0.5, 0.5, shape)
    if isinstance(own, Pattern | RowPattern):
        return own.build(rng.uniform(0.1, 0.5, len(own.names)))
    return np.asarray(own)


def _rows(matrices: Floats) -> Floats:
    """Rows of a matrix, or of the distinct ones of several, below each other."""
    if matrices.ndim == 2:
        return matrices
    if not matrices.size:  # no state moves
        return np.asarray(matrices[0])
    return np.unique(matrices, axis=0).reshape(-1, matrices.shape[-1])


def _sizes(matrix: Floats, *, axis: int) -> Floats:
    sizes = np.linalg.norm(matrix, axis=axis, keepdims=True)
    return np.where(sizes > 0.0, sizes, 1.0)


def _null_space(matrix: Floats) -> Floats:
    """Directions (columns) that a matrix takes to 0, up to round-off."""
    _, values, axes = np.linalg.svd(matrix)
    return np.asarray(axes[int((values > ROUND_OFF).sum()) :].T)


def _orthonormal(columns: Floats) -> Floats:
    """Orthonormal columns with the same range, up to round-off."""
    axes, values, _ = np.linalg.svd(columns / max(float(np.abs(columns).max(initial=0.0)), 1e-300))
    return np.asarray(axes[:, : int((values > ROUND_OFF).sum())])
