"""Are the offsets identified? Those that a shift of the states makes up for have no estimate."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from statespace_em._typing import Floats
from statespace_em.errors import ParameterError
from statespace_em.labels import listed
from statespace_em.patterns import Pattern, from_word
from statespace_em.sequence.lgssm_specification import Specification

APART = 1e-9  # least singular value of means by unknown, of size 1 each


def check_offsets_identified(spec: Specification, held: Collection[str]) -> None:
    """Refuse free offsets that the mean of y does not tell from each other, or from a first state that is unknown.

    The mean of row t is ``d + C (A^(t-1) s_1 + (I + A + ... + A^(t-2)) b)``, linear in b, d and in s_1 where it is
    diffuse or fixed. Models whose transition or observation is free are left alone: their basis is arbitrary in other
    ways too.

    Raises
    ------
    ParameterError
        Naming the offsets.
    """
    A, C = spec.value("transition"), spec.value("observation")
    if A is None or C is None or A.ndim > 2 or C.ndim > 2:
        return
    known = sum(spec.starts_as(word) for word in ("diffuse", "fixed", "known", "stationary"))
    offsets = [
        _pattern(spec, name, size, held) for name, size in (("state_offset", len(A)), ("observation_offset", len(C)))
    ]
    names = [name for own in offsets if own is not None for name in own.names]
    if any(own is None for own in offsets) or not names or not np.all(known):
        return
    b, d = (own.design.T for own in offsets if own is not None)
    unknown = np.eye(len(A))[:, spec.starts_as("diffuse") | spec.starts_as("fixed")]
    means = _means(A, C, unknown, _settled(A, b, spec), b, d)
    size = np.linalg.norm(means, axis=0)
    means = means / np.where(size > 0.0, size, 1.0)
    first = unknown.shape[1]
    free = np.linalg.matrix_rank(means, APART) - np.linalg.matrix_rank(means[:, :first], APART)
    if free == len(names):
        return
    within = np.linalg.svd(means)[2][np.linalg.matrix_rank(means, APART) :, first:]
    words = [name for name, share in zip(names, np.abs(within).max(0)) if share > APART]
    raise ParameterError(
        f"{listed(words)} cannot be told from the first state, or from each other: a shift of the states makes up for "
        "them. Fix one by a number, let the first state be known, or give the offsets a prior."
    )


def _pattern(spec: Specification, name: str, size: int, held: Collection[str]) -> Pattern | None:
    """Free values of an offset; None where they have rows of their own."""
    if name in spec.absent or name in held:
        return from_word("zero", (size,), name, symmetric=False)
    found = spec.patterns.get(name)
    if found is None and name not in spec.varying:
        return from_word("free", (size,), name, symmetric=False)
    return found if isinstance(found, Pattern) else None


def _settled(A: Floats, b: Floats, spec: Specification) -> Floats:
    """Mean of the first state by offset: that of the states which start stationary."""
    found, own = np.zeros_like(b), np.flatnonzero(spec.starts_as("stationary"))
    found[own] = np.linalg.solve(np.eye(len(own)) - A[np.ix_(own, own)], b[own])
    return found


def _means(A: Floats, C: Floats, unknown: Floats, settled: Floats, b: Floats, d: Floats) -> Floats:
    """Means of the first rows, one under the other, by unknown: first states, offsets of states, of observations."""
    state = np.hstack([unknown, settled, np.zeros((len(A), d.shape[1]))])
    moves = np.hstack([np.zeros(unknown.shape), b, np.zeros((len(A), d.shape[1]))])
    beside = np.hstack([np.zeros((len(C), unknown.shape[1] + b.shape[1])), d])
    rows = []
    for _ in range(2 * len(A) + 2):
        rows.append(C @ state + beside)
        state = A @ state + moves
    return np.concatenate(rows)
