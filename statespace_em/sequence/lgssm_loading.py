"""How disturbances enter states or measurements: known matrices, the same in every row or others."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.errors import ParameterError
from statespace_em.patterns import Pattern, components
from statespace_em.row_patterns import RowPattern

RANK = 1e-10  # least singular value of a loading whose columns have size 1


def loaded(inner: Floats, loading: Floats | None) -> Floats:
    """Noise covariance ``loading @ inner @ loading'`` from that of the disturbances; of the first rows, or all."""
    if loading is None:
        return inner
    own = loading[: inner.shape[-3]] if loading.ndim == 3 <= inner.ndim else loading
    return np.asarray(own @ inner @ own.swapaxes(-1, -2))


def unloaded(cov: Floats, loading: Floats | None) -> Floats:
    """Inverse of `loaded`."""
    if loading is None:
        return cov
    left = np.linalg.pinv(loading[: len(cov)] if loading.ndim == cov.ndim == 3 else loading)
    return np.asarray(left @ cov @ left.swapaxes(-1, -2))


def enters(loading: Floats) -> Bools:
    """Which disturbances (..., r) enter at all."""
    return np.asarray((loading != 0.0).any(-2))


def typical(loading: Floats) -> Floats:
    """Loading (p, r) of a row of middling size, of those where most disturbances enter."""
    if loading.ndim == 2:
        return loading
    many = enters(loading).sum(1)
    rows = np.flatnonzero(many == many.max())
    size = np.abs(loading[rows]).sum((1, 2))
    return np.asarray(loading[rows[np.argsort(size)[len(rows) // 2]]])


def check_ranks(name: str, loading: Floats) -> None:
    """Refuse disturbances of rows that enter alike.

    Raises
    ------
    ParameterError
        Naming the row.
    """
    scale = np.linalg.norm(loading, axis=1, keepdims=True)
    unit = loading / np.where(scale > 0.0, scale, 1.0)
    gram = unit.swapaxes(1, 2) @ unit
    there = enters(loading)
    gram[:, np.arange(gram.shape[1]), np.arange(gram.shape[1])] += ~there  # what does not enter is no matter
    alike = np.linalg.eigvalsh(gram)[:, 0] <= RANK
    if alike.any():
        row = int(np.argmax(alike))
        raise ParameterError(
            f"{name} has {int(there[row].sum())} columns of rank {np.linalg.matrix_rank(loading[row])} in row {row}: "
            "disturbances that enter alike cannot be told apart; leave some out."
        )
    if not there.any(0).all():
        column = int(np.argmin(there.any(0)))
        raise ParameterError(f"{name} has column {column} of zeros in all rows: leave the disturbance out.")


def loaded_rows(name: str, inner: Pattern | RowPattern, loading: Floats) -> RowPattern:
    """Pattern of the disturbances with a kind for every different loading (T, p, r).

    Raises
    ------
    ParameterError
        If rows do not go together, or disturbances that are linked do not enter together.
    """
    if isinstance(inner, Pattern):
        owner, place = np.nonzero(inner.flat)
        inner = RowPattern(
            inner.names, inner.constant[None], owner, place, inner.flat[owner, place][:, None],
            np.zeros(len(loading), np.int64),
        )  # fmt: skip
    if inner.n_rows != len(loading):
        raise ParameterError(
            f"{name} is given for {inner.n_rows} rows, its loading for {len(loading)}: give both for the same rows."
        )
    there = enters(loading)
    for part in components(inner.linked):
        apart = there[:, part].any(1) & ~there[:, part].all(1)
        if apart.any():
            raise ParameterError(
                f"{name} links disturbances of which one enters in row {int(np.argmax(apart))} and another does not: "
                "make them independent (a diagonal covariance), or give the product for every row."
            )
    _, kind = np.unique(loading.reshape(len(loading), -1), axis=0, return_inverse=True)
    both = np.column_stack([inner.kind, kind.ravel()])
    pairs, first, kind = np.unique(both, axis=0, return_index=True, return_inverse=True)
    own, used = pairs[:, 0], there[first][:, :, None] & there[first][:, None, :]
    factors = np.where(used.reshape(len(own), -1)[:, inner.place].T, inner.factors[:, own], 0.0)
    numbers = np.where(used, inner.numbers[own], 0.0)  # what does not enter a row has no variance there
    return RowPattern(inner.names, numbers, inner.owner, inner.place, factors, kind.ravel())
