"""Pass back along the directions that unknown constants leave open: all of them at once, as columns of matrices.

It adds what `lgssm_sweeps.backward_means` makes of one direction after the other. With as many of them as there are
seasons in a year that is a fraction of the time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.sequence.lgssm_sweeps import Covs, Pass, Raw

ENTRIES = 2**19  # of what is written down of the rows that are taken together


class _Rows(NamedTuple):
    """Futures, residuals and states along k directions; see `kernels.adjoint`."""

    r: Floats  # (rows, n, k)
    u: Floats  # (rows, D, k)
    s: Floats  # (rows, n, k), or no rows: not wanted


def add_directions(work: Pass, covs: Covs, rows: slice, ways: Floats, ahead: Floats, raw: Raw) -> None:
    """Add the sums of the first ``rows`` of a sequence along the columns of ``ways`` (q, k).

    The rows after them say ``ahead`` (n, k) on the state that follows.
    """
    (n_rows, size), (n, k), r = covs.y.shape, ahead.shape, ahead
    kind = np.broadcast_to(work.kind if len(work.kind) == 1 else work.kind[rows], n_rows)
    step = max(1, ENTRIES // ((2 * n + size) * k))
    for end in range(n_rows, 0, -step):
        part = slice(max(end - step, 0), end)
        found, r = _back(work, covs, part, ways, r)
        for own in np.unique(kind[part]):
            _add([value[kind[part] == own] for value in found if len(value)], raw.total[own])
        if not work.moments:
            continue
        for t, j in np.argwhere(_unseen(work, covs.y[part])):
            _add([found.s[t : t + 1]], raw.unseen[kind[part][t], j])
        if work.n_steps:
            np.add.at(raw.by_A, work.step[rows][part], found.r @ found.s.swapaxes(1, 2))
            np.add.at(raw.by_Q, work.step[rows][part], found.r @ found.r.swapaxes(1, 2))
    raw.g_P0[:] += r @ r.T


def _back(work: Pass, covs: Covs, part: slice, ways: Floats, r: Floats) -> tuple[_Rows, Floats]:
    """Pass back over some rows; also what they and those after them say on their first state."""
    A, C = (value if len(value) == 1 else value[part] for value in (covs.A, covs.C))
    gain, whiten = (value[covs.slot[part]] for value in (covs.gain, covs.whiten))
    moved = np.where(np.isnan(covs.y[part])[:, :, None], 0.0, C @ covs.W[part]) @ ways
    news = whiten.swapaxes(1, 2) @ (whiten @ moved)  # those of the rows are minus what the directions move
    ahead = gain @ A.swapaxes(1, 2)
    futures, residuals = np.empty((len(moved), *r.shape)), np.empty(moved.shape)
    for t in range(len(moved) - 1, -1, -1):
        futures[t] = r
        residuals[t] = -news[t] - ahead[t] @ r
        r = A[t * (len(A) > 1)].T @ r + C[t * (len(C) > 1)].T @ residuals[t]
    states = np.empty((0, *r.shape))
    if work.moments:
        spread = covs.filtered[covs.slot[part]] @ A.swapaxes(1, 2)
        states = covs.W[part] @ ways - gain.swapaxes(1, 2) @ moved + spread @ futures
    return _Rows(futures, residuals, states), r


def _unseen(work: Pass, y: Floats) -> Bools:
    """Which rows have no entry of which blocks (rows, blocks)."""
    missing = np.isnan(y)
    return np.stack([missing[:, work.blocks == j].all(1) for j in range(work.n_blocks)], axis=1)


def _add(parts: list[Floats], total: Floats) -> None:
    """Add the lower triangle of the sum of x x' over rows and directions, x being the parts one after the other."""
    x = np.concatenate(parts, axis=1).swapaxes(0, 1)
    x = x.reshape(len(x), -1)
    total[: len(x), : len(x)] += np.tril(x @ x.T)
