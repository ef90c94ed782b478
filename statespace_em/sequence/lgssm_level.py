"""Where states are on average: an offset of theirs takes it up, with the dynamics as they may be.

An offset says where states settle only together with the dynamics, ``(I - A) level``. Where y is far from 0 a small
change of the dynamics alone would move the states far away: the two are guessed, and changed, together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.patterns import Pattern, fixed, from_word
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_structure import Structure

APART = 1e-6  # of I - A, in relation to its size, from which on states settle somewhere


class Level(NamedTuple):
    """Where y is on average, as far as a free offset of the states brings it there."""

    middle: Floats  # (D,)
    offset: Pattern  # of the states
    view: Pattern  # of the observation

    def out_of(self, batch: Batch) -> Batch:
        """Data around 0."""
        return batch._replace(y=batch.y - self.middle)

    def told(self, guess: LGSSMParams) -> LGSSMParams:
        """Guess for y less its middle as one for y; loadings, as free as they are, go with where several rows are."""
        levels, constant = _levels(guess.transition, self.offset)
        values = np.linalg.pinv(guess.observation @ levels) @ (self.middle - guess.observation @ constant)
        level = constant + levels @ values
        view = guess.observation
        if self.view.names:
            weight = np.linalg.lstsq(guess.process_cov + np.outer(level, level), level, rcond=None)[0]
            view = view + np.outer(self.middle - view @ level, weight)
            view = self.view.build(self.view.read(view))
        return guess._replace(
            observation=view, initial_mean=guess.initial_mean + level, state_offset=self.offset.build(values)
        )


def level_of(
    batch: Batch,
    n_states: int,
    patterns: Mapping[str, Pattern],
    held: Collection[str],
    given: Mapping[str, Floats],
) -> Level | None:
    """Level of y for a model whose free offset of the states takes it up; None where states do not settle by it.

    ``patterns`` are of what is not free as a whole nor ``held``, in a typical row; ``given`` are values to start at.
    """
    D = batch.y.shape[1]
    shapes = {"transition": (n_states,) * 2, "observation": (D, n_states), "state_offset": (n_states,)}
    whole = {name: from_word("free", shape, name, symmetric=False) for name, shape in shapes.items()}
    own = {**whole, "observation_offset": fixed(np.zeros(D)), **patterns}
    A, C = (_any_value(own[name], name in held, given.get(name)) for name in ("transition", "observation"))
    offset, constant, view = (own[name] for name in ("state_offset", "observation_offset", "observation"))
    absent = "observation_offset" in held or ("observation_offset" in patterns and not constant.names)
    if (
        A is None
        or C is None
        or not absent
        or "state_offset" in held
        or {"state_offset", "observation_offset"} & set(given)
    ):
        return None
    away = np.linalg.svd(np.eye(n_states) - A, compute_uv=False)
    if not offset.names or offset.products or not away[-1] > APART * max(away[0], 1.0):
        return None
    middle = np.nan_to_num(np.nanmean(batch.y, axis=0)) - constant.constant
    if view.names and "observation" not in given:
        return Level(middle, offset, view)
    levels = C @ _levels(A, offset)[0]
    return Level(levels @ np.linalg.pinv(levels) @ middle, offset, fixed(C))


def _any_value(pattern: Pattern, held: bool, given: Floats | None) -> Floats | None:
    """Some value of a matrix, as good as any other; None where every row has its own."""
    if given is not None:
        return given if given.ndim == 2 else None
    if held:
        return None
    return pattern.build(np.random.default_rng(0).uniform(-0.5, 0.5, len(pattern.names)))


def _levels(transition: Floats, pattern: Pattern) -> tuple[Floats, Floats]:
    """Where states settle (n, k) by each value of their offset, and (n,) by what is known of it."""
    offsets = np.vstack([pattern.flat, pattern.constant]).T
    found = np.asarray(np.linalg.pinv(np.eye(len(transition)) - transition) @ offsets, dtype=float)
    return found[:, :-1], found[:, -1]


class Together:
    """An offset of the states in coordinates that leave y where it is on average while other matrices move.

    ``b = b0 + own @ x - (A - A0) @ level`` as nearly as what is free reaches it. States that start stationary have
    their mean for a coordinate, ``level = level0 + means @ x``: beside a unit root a small offset would move it far
    away; and where loadings move, it goes against them, ``- back @ (C - C0) @ level0``.
    """

    def __init__(
        self, pattern: Pattern, origin: LGSSMParams, level: Floats, own: Floats, means: Floats, back: Floats
    ) -> None:
        self.origin, self.level, self.own, self.means, self.back = origin, level, own, means, back
        self.reach = np.asarray(pattern.flat.T @ np.linalg.pinv(pattern.flat.T))  # onto what is free

    def _level(self, x: Floats, params: Mapping[str, Any]) -> tuple[Floats, Floats]:
        """Level (n,), and how far it has gone against the loadings."""
        against = -self.back @ (params["observation"] - self.origin.observation) @ self.level
        return self.level + self.means @ x + against, against

    def offset(self, x: Floats, params: Mapping[str, Any]) -> Floats:
        """Offset (n,) at its coordinates (k,) and other parameters."""
        A0 = self.origin.transition
        level, against = self._level(x, params)
        change = self.own @ x + against - A0 @ against - (params["transition"] - A0) @ level
        return np.asarray(self.origin.state_offset + self.reach @ change)

    def pull_back(self, x: Floats, params: Mapping[str, Any], gradient: Floats) -> dict[str, Floats]:
        """Gradients in the coordinates (k,), and with respect to entries of other parameters by way of the offset."""
        A = params["transition"]
        slope = self.reach @ gradient
        along = self.own - (A - self.origin.transition) @ self.means
        by_loading = -self.back.T @ (slope - A.T @ slope)
        return {
            "state_offset": along.T @ slope,
            "transition": -np.outer(slope, self._level(x, params)[0]),
            "observation": np.outer(by_loading, self.level),
        }


def moved_together(
    structure: Structure, params: LGSSMParams, level: Floats, sd: Floats, step: Floats
) -> Together | None:
    """How the offset goes with the dynamics; None where one of them is not free, or not the same in every row.

    ``sd`` (n,) is how far states go from their ``level``, ``step`` (n,) in one step.
    """
    dynamics, offset = (structure.patterns.get(name) for name in ("transition", "state_offset"))
    if not (isinstance(dynamics, Pattern) and isinstance(offset, Pattern) and dynamics.names and offset.names):
        return None
    if offset.products or params.observation.ndim > 2:
        return None
    own = offset.flat.T * offset.steps(step)
    means, back = np.zeros(own.shape), np.zeros(params.observation.shape[::-1])
    if structure.stationary is not None:
        some = structure.stationary
        level = np.where(some, params.initial_mean, level)
        inner = np.flatnonzero(~offset.flat[:, ~some].any(1))
        away = np.eye(int(some.sum())) - params.transition[np.ix_(some, some)]
        moved = np.linalg.solve(away, offset.flat[np.ix_(inner, some)].T)
        scale = 1.0 / np.abs(moved / sd[some, None]).max(0, initial=0.0)
        means[np.ix_(some, inner)] = moved * scale
        own[:, inner] = offset.flat[inner].T * scale
        back = means @ np.linalg.pinv(params.observation @ means)
    return Together(offset, params, level, own, means, back)
