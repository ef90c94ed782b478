"""Unconstrained, unit-free coordinates of constrained parameters.

Each parameter has a domain, a word: "simplex" (probabilities along the last axis), "positive", "covariance"
(positive definite along the last two axes), "nonnegative", "location" (real, in units of the data) or "real"
(no units).
Coordinates are taken relative to a reference value, so that they do not change with the units of the data and
entries that are structurally zero in the reference stay so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal, TypeAlias

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.kernels.simplex import squared_shares

Domain: TypeAlias = Literal["simplex", "positive", "nonnegative", "covariance", "location", "real"]

NEXT_TO_ZERO = 1e-5  # probabilities below this are asked whether they belong there
GROWTH = 1e-3  # least relative growth in one EM step that tells they do not
RAISED = 1e-4  # where they are put


@cache
def below_diagonal(size: int) -> tuple[Ints, Ints]:
    """Rows and columns below the diagonal; looked up several times in every step of a fit."""
    rows, columns = np.tril_indices(size, -1)
    return rows, columns


def to_vector(value: Floats, reference: Floats, domain: Domain, scale: Floats | None = None) -> Floats:
    """Coordinates (M,) of ``value``; ``scale`` is the unit of a "location"."""
    if domain == "simplex":
        return np.sqrt(value[reference > 0.0])  # Fisher's metric is flat here, and an entry that vanishes stays finite
    if domain == "nonnegative":
        return np.sqrt(value[reference > 0.0] / reference[reference > 0.0])
    if domain == "positive":
        return np.log(np.ravel(value / reference))
    if domain == "covariance":
        return _log_cholesky(value, reference)
    difference = value - reference
    return np.ravel(difference / scale if domain == "location" and scale is not None else difference)


def from_vector(vector: Floats, reference: Floats, domain: Domain, scale: Floats | None = None) -> Floats:
    """Inverse of `to_vector`: the value with the shape of ``reference``."""
    return taken(vector, reference, domain, scale)[0]


def taken(vector: Floats, reference: Floats, domain: Domain, scale: Floats | None = None) -> tuple[Floats, Floats]:
    """Value of the first coordinates of several parameters, see `from_vector`, and the other coordinates."""
    if domain == "simplex":
        value, size = np.empty(reference.shape), reference.shape[-1]
        own = np.ascontiguousarray(reference).reshape(-1, size)
        return value, vector[squared_shares(vector, own, value.reshape(-1, size)) :]
    used = n_coordinates(reference, domain)
    vector, rest = vector[:used], vector[used:]
    if domain == "positive":
        return reference * np.exp(vector).reshape(reference.shape), rest
    if domain == "nonnegative":
        value = np.array(reference)
        value[reference > 0.0] *= np.square(vector)
        return value, rest
    if domain == "covariance":
        return _from_log_cholesky(vector, reference), rest
    difference = vector.reshape(reference.shape)
    return reference + (difference * scale if domain == "location" and scale is not None else difference), rest


def lifted(value: Floats, image: Floats) -> Floats | None:
    """Probabilities with those raised that are next to zero but grow from ``value`` to its EM ``image``.

    At a maximum no probability grows (Karush, Kuhn and Tucker); one that EM multiplies by more than 1 while it is
    next to zero has been driven past where it belongs, and would take very long to come back.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        grows = (value > 0.0) & (value < NEXT_TO_ZERO) & (image > (1.0 + GROWTH) * value)
    if not grows.any():
        return None
    raised = np.where(grows, RAISED, value)
    return np.asarray(raised / raised.sum(-1, keepdims=True))


def pull_back_simplex(gradient: Floats, value: Floats, reference: Floats) -> Floats:
    """Gradient in the coordinates of probabilities along the last axis, from that with respect to the entries."""
    along = (value * np.where(value > 0.0, gradient, 0.0)).sum(-1, keepdims=True)
    return np.asarray((2.0 * np.sqrt(value) * (gradient - along))[reference > 0.0])


def pull_back(gradient: Floats, value: Floats, reference: Floats) -> Floats:
    """Gradient in the coordinates of a covariance (p, p), from the symmetric G with d objective = tr(G d value)."""
    whitener = np.linalg.cholesky(reference)
    factor = np.linalg.solve(whitener, np.linalg.cholesky(value))
    change = 2.0 * whitener.T @ gradient @ whitener @ factor
    below = change[below_diagonal(len(value))]
    return np.concatenate([np.diag(change) * np.diag(factor), below])


def gradient_vector(
    gradient: Floats, value: Floats, reference: Floats, domain: Domain, scale: Floats | None = None
) -> Floats:
    """Gradient in the coordinates of `to_vector`, from that with respect to the entries of ``value``.

    That of a covariance is the symmetric G with d objective = tr(G d cov).
    """
    if domain == "simplex":
        return pull_back_simplex(gradient, value, reference)
    if domain == "nonnegative":
        support = reference > 0.0
        return np.asarray(2.0 * np.sqrt(value * reference)[support] * gradient[support])
    if domain == "positive":
        return np.ravel(gradient * value)
    if domain == "covariance":
        size = value.shape[-1]
        parts = zip(*(matrix.reshape(-1, size, size) for matrix in (gradient, value, reference)))
        return np.concatenate([pull_back(*part) for part in parts])
    return np.ravel(gradient * scale if domain == "location" and scale is not None else gradient)


def joined(parts: Sequence[Floats]) -> Floats:
    """One vector of those of several parameters; empty where there are none."""
    return np.concatenate(parts) if parts else np.empty(0)


def n_coordinates(reference: Floats, domain: Domain) -> int:
    """Length of the vector of one parameter."""
    if domain in ("simplex", "nonnegative"):
        return int(np.count_nonzero(reference > 0.0))
    if domain == "covariance":
        size = reference.shape[-1]
        return int(reference.size // size**2 * (size * (size + 1) // 2))
    return int(reference.size)


def n_free(value: Floats, domain: Domain) -> int:
    """Return the number of free values: coordinates, less one for every set of probabilities that sums to 1."""
    sums = int((value > 0.0).any(-1).sum()) if domain == "simplex" else 0
    return n_coordinates(value, domain) - sums


def _log_cholesky(value: Floats, reference: Floats) -> Floats:
    """Log-Cholesky coordinates (Pinheiro & Bates 1996) of matrices (..., p, p) in the space whitened by a reference."""
    size = value.shape[-1]
    if size == 1:  # which needs no library that takes longer to call than all the rest
        return 0.5 * np.log(np.ravel(value / reference))
    factor = np.linalg.solve(np.linalg.cholesky(reference), np.linalg.cholesky(value)).reshape(-1, size, size)
    rows, columns = below_diagonal(size)
    diagonal = np.diagonal(factor, axis1=1, axis2=2)
    return np.concatenate([np.log(diagonal), factor[:, rows, columns]], axis=1).ravel()


def _from_log_cholesky(vector: Floats, reference: Floats) -> Floats:
    size = reference.shape[-1]
    if size == 1:
        return reference * np.exp(2.0 * vector).reshape(reference.shape)
    parts = vector.reshape(-1, size * (size + 1) // 2)
    factor = np.zeros((len(parts), size, size))
    diagonal, (rows, columns) = np.arange(size), below_diagonal(size)
    factor[:, diagonal, diagonal] = np.exp(parts[:, :size])
    factor[:, rows, columns] = parts[:, size:]
    half = np.linalg.cholesky(reference) @ factor.reshape(reference.shape)
    return np.asarray(half @ np.swapaxes(half, -1, -2))
