"""M-step of one side of a linear-Gaussian model: coefficients with a pattern, then the noise of what they leave.

Only sums by kind of row appear, and mostly all rows are of one kind: with r the residual, z the regressors and W the
precision of the noise, free values x that move the coefficients of kind t along D_jt solve
sum_kt tr(D_jt' W_t D_kt S_zz,t) x_k = sum_t tr(D_jt' W_t S_rz,t); no Kronecker product is formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels import regression
from statespace_em.priors import InverseWishart
from statespace_em.sequence.lgssm_loading import enters
from statespace_em.sequence.lgssm_noise import Noise

ROUNDS = 50
SETTLED = 1e-12  # relative change of the noise at which coefficients and noise agree
CHUNK = 4096  # kinds of rows whose designs are written out at a time


class Residuals(NamedTuple):
    """Sums of one side in residuals of the current coefficients, by kind of row."""

    scatter: Floats  # (kinds, p, p), r r'
    cross: Floats  # (kinds, p, m), r z'
    squares: Floats  # (kinds, blocks, m, m), z z' over the rows of each block
    counts: Floats  # (kinds, blocks)
    blocks: Ints  # (p,), the block of each residual


class Coefficients(Protocol):
    """What is free in the coefficients of one side."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the free values."""
        ...

    @property
    def columns(self) -> Ints | None:
        """Columns that are free, every entry for itself; None where one is free in part, tied, or varies."""
        ...

    def dense(self, begin: int, end: int) -> Floats:
        """Design (n_free, kinds, p, m) of some kinds of rows, or of all in one."""
        ...


def update(
    coefficients: Coefficients, sums: Residuals, noise: Noise, cov: Floats, prior: InverseWishart
) -> tuple[Floats, Floats]:
    """Change (kinds | 1, p, m) of the coefficients and the noise covariance that maximise together.

    Where ties make the coefficients depend on the noise, both are updated in turn until they agree. The covariance is
    (p, p), or (kinds, p, p) where it depends on the kind of row.
    """
    counts = sums.counts[:, sums.blocks]
    if noise.loading is not None:
        counts = sums.counts[:, :1] * enters(noise.loading)
    one = len(sums.scatter) == 1
    change = np.zeros((1, *sums.cross.shape[1:]))
    # free as a whole or not at all: a noise that is the same in all rows then does not matter (Zellner 1962)
    columns = coefficients.columns if one else None
    if columns is not None and len(columns) and not noise.by_row and cov.ndim == 2:
        known = _at_once(columns, sums)
        if known is not None:
            return known[0][None], noise.mode(known[1], counts[0], cov, prior)
    for _ in range(ROUNDS):
        if len(coefficients.names):
            change = _by_values(coefficients, sums, cov) if columns is None else _by_columns(columns, sums)
        scatter, before = _scatter(sums, change if len(coefficients.names) else None), cov
        if noise.by_row:
            cov = noise.mode(scatter, counts, cov, prior)
        elif cov.ndim == 2:
            cov = noise.mode(scatter[0] if one else scatter.sum(0), counts[0] if one else counts.sum(0), cov, prior)
        if columns is not None or not len(coefficients.names) or cov is before:
            break
        if np.abs(cov - before).max() <= SETTLED * np.abs(cov).max():
            break
    return change, cov


def _at_once(free: Ints, sums: Residuals) -> tuple[Floats, Floats] | None:
    """Change and scatter (p, p) of what it leaves; None where the moments next to do not determine it."""
    (cross,), (scatter,) = sums.cross, sums.scatter
    change, left = np.zeros(cross.shape), np.empty(scatter.shape)
    arrays = (np.ascontiguousarray(part) for part in (scatter, cross, sums.squares[0], sums.blocks, free))
    return (change, left) if regression.regress(*arrays, change, left) else None


def _by_columns(free: Ints, sums: Residuals) -> Floats:
    (cross,), (squares,) = sums.cross, sums.squares
    change = np.zeros(cross.shape)
    for j, square in enumerate(squares):
        moved = _regression(cross[:, free], square[free][:, free])
        own = (sums.blocks == j)[:, None]
        change[:, free] = moved if len(squares) == 1 else np.where(own, moved, change[:, free])
    return change[None]


def _regression(cross: Floats, moments: Floats) -> Floats:
    """Least-squares change of the coefficients; what the moments do not determine stays."""
    diagonal = moments.diagonal()
    scale = np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(moments / (scale[:, None] * scale))
    kept = values > 1e-13 * values[-1]
    if not kept.all():
        values, vectors = values[kept], vectors[:, kept]
    vectors /= scale[:, None]
    return np.asarray((cross @ vectors / values) @ vectors.T)


def _by_values(coefficients: Coefficients, sums: Residuals, cov: Floats) -> Floats:
    covs = cov[None] if cov.ndim == 2 else cov
    weights = _precisions(covs)
    kept = _within(coefficients, covs, weights, len(sums.cross))
    n_free = int(kept.sum())
    normal, right = np.zeros((n_free, n_free)), np.zeros(n_free)
    for begin, end in _chunks(len(sums.cross)):
        design, weight = coefficients.dense(begin, end)[kept], _cut(weights, begin, end)
        cross, squares = sums.cross[begin:end], sums.squares[begin:end]
        weighted = np.broadcast_to(weight @ design, (n_free, *cross.shape)).reshape(n_free, cross.size)
        moved = np.zeros((n_free, *cross.shape))
        for j in range(squares.shape[1]):
            rows = sums.blocks == j
            moved[:, :, rows] = design[:, :, rows] @ squares[:, j]
        normal += weighted @ moved.reshape(n_free, cross.size).T
        right += weighted @ cross.ravel()
    scale = np.sqrt(np.where(np.diag(normal) > 0.0, np.diag(normal), 1.0))
    normal = (normal + normal.T) / 2.0 / np.outer(scale, scale)
    values = np.zeros(len(coefficients.names))
    values[kept] = np.linalg.lstsq(normal, right / scale, rcond=1e-13)[0] / scale
    parts = [coefficients.dense(begin, end) for begin, end in _chunks(len(sums.cross))]
    return np.concatenate([np.tensordot(values, part, 1) for part in parts[: 1 if parts[0].shape[1] == 1 else None]])


def _chunks(n_kinds: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(begin + CHUNK, n_kinds)) for begin in range(0, n_kinds, CHUNK))


def _cut(matrices: Floats, begin: int, end: int) -> Floats:
    return matrices if len(matrices) == 1 else matrices[begin:end]


def _precisions(covs: Floats) -> Floats:
    """Inverses (kinds, p, p); what has no variance gets no weight."""
    variances = np.diagonal(covs, axis1=1, axis2=2)
    if len(covs) > 1 and not (covs * ~np.eye(covs.shape[1], dtype=bool)).any():
        return np.asarray(
            np.where(variances > 0.0, 1.0 / np.where(variances > 0.0, variances, 1.0), 0.0)[:, :, None]
            * np.eye(covs.shape[1])
        )
    return np.asarray(np.linalg.pinv(covs, rcond=1e-14, hermitian=True))


def _within(coefficients: Coefficients, covs: Floats, weights: Floats, n_kinds: int) -> Bools:
    """Which values do not move the mean where there is no noise: given the states those are certain, EM cannot."""
    outside = np.zeros(len(coefficients.names))
    for begin, end in _chunks(n_kinds):
        design = coefficients.dense(begin, end)
        left = design - _cut(weights, begin, end) @ _cut(covs, begin, end) @ design
        outside = np.maximum(outside, np.abs(left).max(axis=(1, 2, 3), initial=0.0))
    return outside < 1e-8


def _scatter(sums: Residuals, change: Floats | None) -> Floats:
    """Sum (kinds, p, p) of outer products of the residuals after the change, within blocks."""
    scatter, n_blocks = sums.scatter, sums.squares.shape[1]
    if change is not None:  # else there may be no sums of products with the states
        half = change @ sums.cross.swapaxes(1, 2)
        scatter = scatter - half - half.swapaxes(1, 2)
        for j in range(n_blocks):
            own = change if n_blocks == 1 else np.where((sums.blocks == j)[:, None], change, 0.0)
            scatter += own @ sums.squares[:, j] @ own.swapaxes(1, 2)
    return np.asarray((scatter + scatter.swapaxes(1, 2)) / 2.0)
