"""Kinds of rows, equal where rows have the same matrices: covariances settle within a run of one kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels.runs import runs

ALIKE = np.zeros(1, np.int64)  # all rows are
NONE = np.zeros(0, np.int64)  # hardly any rows are
SETTLING = 256  # rows between changes, so that most have settled
FEW = 4_096  # runs that are compared, beyond those that are neighbours


def alike(steps: Sequence[Floats], rows: Sequence[Floats], place: Ints | None, first: Bools) -> Ints:
    """Number the rows by the matrices that their covariances come from, and lead to: `ALIKE`, `NONE` or (N,).

    ``steps`` are matrices (T, ...) of the steps to the row after, ``rows`` those of measurements; ``place`` (N,) is the
    entry that a row has, None its own number, and ``first`` (N,) marks the first rows of sequences. Rows of one number
    have equal matrices of the step before, the measurement and the step after.
    """
    of_step, of_row = _kinds(steps), _kinds(rows)
    if of_step is None or of_row is None:
        return NONE
    if place is not None:
        of_step, of_row = (kind if len(kind) == 1 else kind[place] for kind in (of_step, of_row))
    elif len(of_step) == len(of_row) == 1:
        return ALIKE
    n_steps, n_rows = int(of_step.max()) + 1, int(of_row.max()) + 1
    if n_steps == n_rows == 1:
        return ALIKE
    before = of_step
    if len(of_step) > 1:
        of_step = of_step[: len(first)]
        before = np.where(first, of_step, np.roll(of_step, 1))
    return np.asarray((before * n_rows + of_row[: len(first)]) * n_steps + of_step)


def few_changes(alike: Ints) -> bool:
    """Whether rows are so often alike that covariances have settled in most of them."""
    return len(alike) > 0 and SETTLING * int(np.count_nonzero(np.diff(alike))) <= len(alike)


def _kinds(matrices: Sequence[Floats]) -> Ints | None:
    """Number (T,) of what each row has of several matrices; (1,) where none varies, None where they hardly repeat."""
    found = ALIKE
    for matrix in matrices:
        kind = _numbered(matrix.reshape(len(matrix), -1))
        if kind is None:
            return None
        found = found * (int(kind.max()) + 1) + kind
    return found


def _numbered(rows: Floats) -> Ints | None:
    """Number of each row, equal where rows are equal (of more than `FEW` runs: where they are neighbours)."""
    run = np.empty(len(rows), np.int64)
    n_runs = runs(rows, run)
    if n_runs == 1:
        return ALIKE
    if 2 * n_runs > len(rows):
        return None
    if n_runs > FEW:
        return run
    first = np.ascontiguousarray(rows[np.flatnonzero(np.diff(run, prepend=-1))])
    whole = first.view(np.dtype((np.void, first.dtype.itemsize * first.shape[1]))).ravel()
    return np.asarray(np.unique(whole, return_inverse=True)[1].ravel()[run])
