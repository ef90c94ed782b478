"""M-step of one side of a linear-Gaussian model: coefficients with a pattern, then the noise of what they leave.

Only sums appear: with r the residual, z the regressors and W the precision of the noise, free values x that move the
coefficients along D_j solve  sum_k tr(D_j' W D_k S_zz) x_k = tr(D_j' W S_rz); no Kronecker product is formed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
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
    separate = _whole_columns(coefficients)
    for _ in range(ROUNDS):
        if len(coefficients.names):
            change = _by_columns(coefficients, sums) if separate else _by_values(coefficients, sums, cov)
        before, cov = cov, noise.mode(_scatter(sums, change), counts, cov, prior)
        if separate or not len(coefficients.names) or not noise.blocks:
            break
        if np.abs(cov - before).max() <= SETTLED * np.abs(cov).max():
            break
    return change, cov


def _whole_columns(pattern: Pattern) -> bool:
    """Whether every column is free as a whole or not at all: the noise then does not matter (Zellner 1962)."""
    touched = pattern.touched
    return pattern.is_plain and bool((touched.all(0) | ~touched.any(0)).all())


def _by_columns(pattern: Pattern, sums: Residuals) -> Floats:
    change = np.zeros(pattern.shape)
    free = np.asarray(pattern.touched.all(0))
    for j, square in enumerate(sums.squares):
        rows = sums.blocks == j
        change[rows] = _regression(sums.cross[rows], square, free)
    return change


def _regression(cross: Floats, square: Floats, free: Bools) -> Floats:
    """Least-squares change of the free columns; what the moments do not determine stays."""
    change = np.zeros(cross.shape)
    moments = square[free][:, free]
    diagonal = moments.diagonal()
    scale = np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(moments / (scale[:, None] * scale))
    inverse = np.where(values > 1e-13 * values[-1], 1.0 / np.where(values > 0.0, values, 1.0), 0.0)
    change[:, free] = ((cross[:, free] / scale) @ vectors * inverse) @ vectors.T / scale
    return change


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


def beside(patterns: list[Pattern]) -> Pattern:
    """Put matrices (vectors as columns) side by side; names of different matrices are different values."""
    names = tuple(name for pattern in patterns for name in pattern.names)
    parts, designs, first = [], [], 0
    for pattern in patterns:
        rows = len(pattern.constant)
        parts.append(pattern.constant.reshape(rows, pattern.constant.size // rows))
        design = np.zeros((len(names), rows, parts[-1].shape[1]))
        design[first : first + len(pattern.names)] = pattern.design.reshape(
            len(pattern.names), rows, parts[-1].shape[1]
        )
        designs.append(design)
        first += len(pattern.names)
    return Pattern(names, np.hstack(parts), np.concatenate(designs, axis=2))
