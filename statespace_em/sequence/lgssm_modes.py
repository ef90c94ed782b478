"""Modes of free dynamics that hardly decay: coordinates of theirs, however the states are written down.

States of which dynamics, disturbances and what y sees of them are free as a whole have an arbitrary basis; so they have
where y sees one sum of them. Where they start stationary and a root is near the unit circle there is a basis in which
that root is a decay of its own beside the others (see
`statespace_em.sequence.decays`), and changes of dynamics that would mix the two are changes of basis. The disturbances
keep all their entries, those of such a mode relative to the variance that it has.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.patterns import Pattern
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.decays import Placed
from statespace_em.sequence.lgssm_structure import Structure

NEAR = 0.02  # distance from the unit circle below which a mode counts as one that hardly decays
APART = 3.0  # least distance from the others in terms of that: two that may meet have no coordinates of their own
MIXED = 1e5  # condition of the basis from which on modes are not told apart


class Modes(NamedTuple):
    """Dynamics in a basis of the modes that hardly decay and the rest."""

    pattern: Pattern  # of the transition in the basis of the states as they are
    decays: tuple[Placed, ...]  # the modes
    parts: tuple[Floats, ...]  # (n, n) each, onto a mode along the others
    basis: Floats  # (n, n), of the modes, then of the rest


def slow_modes(structure: Structure, transition: Floats) -> Modes | None:
    """Modes that hardly decay; None where there are none, or the basis of the states is not arbitrary."""
    n = len(transition)
    if structure.stationary is None or not structure.stationary.all() or not _basis_is_arbitrary(structure):
        return None
    roots, vectors = np.linalg.eig(transition)
    away = 1.0 - np.abs(roots)
    apart = np.abs(roots[:, None] - roots) + np.where(np.eye(n), np.inf, 0.0)
    slow = (away < NEAR) & (apart.min(1) > APART * away)
    slow &= slow[np.argmin(np.abs(roots[:, None] - roots.conj()), axis=1)]  # both of a pair
    if n < 2 or not slow.any() or not np.linalg.cond(vectors) < MIXED:
        return None
    columns: list[Floats] = []
    kinds: list[Literal["lags", "turn"]] = []
    for j in np.flatnonzero(slow & (roots.imag >= 0.0)):
        turns = roots[j].imag > 0.0
        columns += [vectors[:, j].real, vectors[:, j].imag] if turns else [vectors[:, j].real]
        kinds.append("turn" if turns else "lags")
    k = len(columns)
    others = np.linalg.svd(np.linalg.inv(vectors)[slow])[2][k:] if k < n else np.zeros((0, n))
    return _written(np.column_stack([*columns, *_real_span(others, n - k)]), kinds)


def _basis_is_arbitrary(structure: Structure) -> bool:
    """Whether what else is free undoes any change of the dynamics that keeps their roots."""
    return structure.noises["process_cov"].is_whole and all(
        (isinstance(own, Pattern) and own.is_whole) or _goes_with_any_basis(name, own)
        for name, own in structure.patterns.items()
        if name in ("transition", "state_offset", "state_input", "observation")
    )


def _goes_with_any_basis(name: str, pattern: Pattern | RowPattern) -> bool:
    """Whether a parameter that is held allows it: one sum of the states that is seen, or no offset."""
    if pattern.names or isinstance(pattern, RowPattern):
        return False
    return (name == "observation" and pattern.shape[:-1] == (1,)) or (
        name == "state_offset" and not pattern.constant.any()
    )


def _real_span(vectors: Floats, size: int) -> Floats:
    """Real basis (size, n) of what conjugate vectors span."""
    return np.asarray(np.linalg.svd(np.vstack([vectors.real, vectors.imag]))[2][:size])


def _written(basis: Floats, kinds: list[Literal["lags", "turn"]]) -> Modes:
    """Modes, by kind, and the rest in a basis."""
    n, back = len(basis), np.linalg.inv(basis)
    inner: list[Floats] = []
    decays, parts, first = [], [], 0
    for kind in kinds:
        size = 2 if kind == "turn" else 1
        own = np.zeros((n, n))
        own[range(first, first + size), range(first, first + size)] = 1.0
        places = len(inner) + np.arange(size)
        inner.append(own)
        if kind == "turn":
            sine = np.zeros((n, n))
            sine[first, first + 1], sine[first + 1, first] = 1.0, -1.0
            inner.append(sine)
        names = tuple(f"mode {place}" for place in places)
        decays.append(Placed(kind, places, np.ones(n, bool), np.ones((n, n), bool), names))
        parts.append(basis @ own @ back)
        first += size
    for i in range(first, n):
        for j in range(first, n):
            own = np.zeros((n, n))
            own[i, j] = 1.0
            inner.append(own)
    design = np.array([basis @ own @ back for own in inner])
    names = tuple(f"mode {place}" for place in range(len(inner)))
    return Modes(Pattern(names, np.zeros((n, n)), design), tuple(decays), tuple(parts), basis)


def units_of(modes: Modes, state: Floats, step: Floats) -> Floats:
    """Unit of each free value of the modes, from roots (n, n) of the covariances of the states and of their steps."""
    back = np.linalg.inv(modes.basis)
    size, move = (np.linalg.norm(back @ root, axis=1) for root in (state, step))
    n, k = len(size), int(sum(len(decay.places) for decay in modes.decays))
    return np.append(np.ones(k), (move[k:, None] / size[k:]).ravel()) if k < n else np.ones(k)
