"""Sums of the M-step from a posterior that is given, rather than from the pass that made it."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch
from statespace_em.kernels import kalman
from statespace_em.sequence.lgssm_expectation import Statistics
from statespace_em.sequence.lgssm_params import LGSSMParams, by_row, positions
from statespace_em.sequence.lgssm_passes import Smoothed
from statespace_em.sequence.lgssm_regression import Residuals
from statespace_em.sequence.lgssm_sweeps import Kinds


def posterior_sums(
    params: LGSSMParams, batch: Batch, smoothed: Smoothed, blocks: Ints, kinds: Kinds | None = None
) -> Statistics:
    """Statistics from the moments of the states, block by block of the measurement noise, and by kind of row."""
    whole = _sums(params, batch, smoothed, blocks)
    if kinds is None:
        return whole
    one, (n_steps, n_rows) = np.zeros(len(params.initial_mean), np.int64), kinds.numbers
    last, steps, rows = np.zeros(len(batch.y), bool), None, None
    last[batch.starts[1:] - 1] = True
    if n_steps > 1:
        parts = []
        for kind in range(n_steps):
            pairs = np.flatnonzero((kinds.of_step == kind) & ~last)
            part = _of_rows(params, batch, smoothed, blocks, np.column_stack([pairs, pairs + 1]))
            parts.append((part.S_ww, part.S_wz, part.S_zz[None], np.array([float(part.n_pairs)])))
        steps = _stacked(parts, one)
    if n_rows > 1:
        parts = []
        for kind in range(n_rows):
            part = _of_rows(params, batch, smoothed, blocks, np.flatnonzero(kinds.of_row == kind)[:, None])
            parts.append((part.S_vv, part.S_vz, part.S_uu, part.n_rows))
        rows = _stacked(parts, blocks)
    return whole._replace(steps=steps, rows=rows)


def _stacked(parts: list[tuple[Floats, Floats, Floats, Floats]], blocks: Ints) -> Residuals:
    scatter, cross, squares, counts = (np.stack(each) for each in zip(*parts))
    return Residuals(scatter, cross, squares, counts, blocks)


def _of_rows(params: LGSSMParams, batch: Batch, smoothed: Smoothed, blocks: Ints, rows: Ints) -> Statistics:
    """Statistics of sequences (S, length) of rows, as if there were no others."""
    place, flat = positions(batch), rows.ravel()
    cut = Batch(batch.y[flat], np.arange(len(rows) + 1) * rows.shape[1])
    cut = cut._replace(place=place[flat], inputs=None if batch.inputs is None else batch.inputs[flat])
    if not len(flat):
        cut = cut._replace(y=np.full((1, batch.y.shape[1]), np.nan), starts=np.array([0, 1]), place=place[:1])
        cut, flat = cut._replace(inputs=None if batch.inputs is None else batch.inputs[:1]), np.zeros(1, np.int64)
    return _sums(params, cut, Smoothed(*(np.ascontiguousarray(np.asarray(value)[flat]) for value in smoothed)), blocks)


def _sums(params: LGSSMParams, batch: Batch, smoothed: Smoothed, blocks: Ints) -> Statistics:
    rows = by_row(params, batch)
    n, size, k = len(params.initial_mean), batch.y.shape[1], rows.U.shape[1]
    n_blocks, m = int(blocks.max()) + 1, n + k + 1
    S_vv, S_vz = np.zeros((size, size)), np.zeros((size, m))
    S_uu, counts = np.zeros((n_blocks, m, m)), np.zeros(n_blocks)
    mean, cov, cross_cov = map(np.asarray, smoothed)
    if k:  # inputs are states that are known and drive nothing here: their effects are in the offsets
        mean, start = np.hstack([mean, rows.U]), np.append(params.initial_mean, np.zeros(k))
        A, b, C = _wider(rows.A, k, k), np.pad(rows.b, ((0, 0), (0, k))), _wider(rows.C, 0, k)
        cov, cross_cov = _wider(cov, k, k), _wider(cross_cov, k, k)
    else:
        A, b, C, start = rows.A, rows.b, rows.C, params.initial_mean
    for j in range(n_blocks):
        own = np.flatnonzero(blocks == j)
        part = kalman.moment_sums(
            np.ascontiguousarray(batch.y[:, own]), batch.first, A, b, np.ascontiguousarray(C[:, own]),
            np.ascontiguousarray(rows.d[:, own]), np.ascontiguousarray(rows.R[:, own][:, :, own]),
            start, mean, np.arange(len(batch.y)), cov, cross_cov,
        )  # fmt: skip
        S_vv[np.ix_(own, own)], S_vz[own], S_uu[j], counts[j] = part.S_vv, part.S_vz, part.S_uu, part.n_rows
    order = np.array([*range(n), n + k, *range(n, n + k)])  # z = (s, 1, inputs)
    square = np.ix_(order, order)
    return Statistics(
        part.S_ww[:n, :n], part.S_wz[:n, order], part.S_zz[square], part.n_pairs, S_vv, S_vz[:, order],
        S_uu[:, order][:, :, order], counts, part.first_mean[:n], part.first_cov[:n, :n], part.first_outer[:n, :n],
        part.n_sequences,
    )  # fmt: skip


def _wider(matrices: Floats, rows: int, columns: int) -> Floats:
    """Matrices (..., p, q) with so many rows and columns of zeros more."""
    return np.pad(matrices, ((0, 0), (0, rows), (0, columns)))
