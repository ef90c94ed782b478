"""M-step of one side of a linear-Gaussian model: coefficients with a pattern, then the noise of what they leave.

Only sums appear: with r the residual, z the regressors and W the precision of the noise, free values x that move the
coefficients along D_j solve  sum_k tr(D_j' W D_k S_zz) x_k = tr(D_j' W S_rz); no Kronecker product is formed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.patterns import Pattern
from statespace_em.priors import InverseWishart
from statespace_em.sequence.lgssm_noise import Noise

ROUNDS = 50
SETTLED = 1e-12  # relative change of the noise at which coefficients and noise agree


class Residuals(NamedTuple):
    """Sums of one side in residuals of the current coefficients."""

    scatter: Floats  # (p, p), r r'
    cross: Floats  # (p, m), r z'
    squares: Floats  # (blocks, m, m), z z' over the rows of each block
    counts: Floats  # (blocks,)
    blocks: Ints  # (p,), the block of each residual


def update(
    coefficients: Pattern, sums: Residuals, noise: Noise, cov: Floats, prior: InverseWishart
) -> tuple[Floats, Floats]:
    """Change (p, m) of the coefficients and the noise covariance that maximise together.

    Where ties make the coefficients depend on the noise, both are updated in turn until they agree.
    """
    counts = sums.counts[sums.blocks]
    if noise.loading is not None:
        counts = np.full(noise.loading.shape[1], sums.counts[0])
    change = np.zeros(coefficients.shape)
    columns = coefficients.columns  # free as a whole or not at all: the noise then does not matter (Zellner 1962)
    for _ in range(ROUNDS):
        if len(coefficients.names):
            change = _by_values(coefficients, sums, cov) if columns is None else _by_columns(columns, sums)
        before, cov = cov, noise.mode(_scatter(sums, change), counts, cov, prior)
        if columns is not None or not len(coefficients.names) or not noise.blocks:
            break
        if np.abs(cov - before).max() <= SETTLED * np.abs(cov).max():
            break
    return change, cov


def _by_columns(free: Ints, sums: Residuals) -> Floats:
    change = np.zeros(sums.cross.shape)
    for j, square in enumerate(sums.squares):
        moved = _regression(sums.cross[:, free], square[free][:, free])
        own = (sums.blocks == j)[:, None]
        change[:, free] = moved if len(sums.squares) == 1 else np.where(own, moved, change[:, free])
    return change


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


def _by_values(pattern: Pattern, sums: Residuals, cov: Floats) -> Floats:
    weight = np.linalg.pinv(cov, rcond=1e-14, hermitian=True)
    pattern = _within(pattern, weight @ cov)
    weighted = np.einsum("ab,jbm->jam", weight, pattern.design)
    moved = np.zeros(pattern.design.shape)
    for j, square in enumerate(sums.squares):
        rows = sums.blocks == j
        moved[:, rows] = pattern.design[:, rows] @ square
    flat = weighted.reshape(len(weighted), pattern.constant.size)
    normal = flat @ moved.reshape(flat.shape).T
    right = flat @ sums.cross.ravel()
    scale = np.sqrt(np.where(np.diag(normal) > 0.0, np.diag(normal), 1.0))
    normal = (normal + normal.T) / 2.0 / np.outer(scale, scale)
    values = np.linalg.lstsq(normal, right / scale, rcond=1e-13)[0] / scale
    return np.asarray(np.tensordot(values, pattern.design, 1))


def _within(pattern: Pattern, projector: Floats) -> Pattern:
    """Leave out values that move the mean where there is no noise: given the states they are certain, EM cannot."""
    outside = np.abs(pattern.design - np.einsum("ab,jbm->jam", projector, pattern.design)).max(axis=(1, 2), initial=0.0)
    kept = outside < 1e-8
    if kept.all():
        return pattern
    names = tuple(name for name, keep in zip(pattern.names, kept) if keep)
    return Pattern(names, pattern.constant, pattern.design[kept])


def _scatter(sums: Residuals, change: Floats) -> Floats:
    """Sum of outer products of the residuals after the change, within blocks."""
    half = change @ sums.cross.T
    scatter = sums.scatter - half - half.T
    for j, square in enumerate(sums.squares):
        own = change if len(sums.squares) == 1 else np.where((sums.blocks == j)[:, None], change, 0.0)
        scatter += own @ square @ own.T
    return np.asarray((scatter + scatter.T) / 2.0)
