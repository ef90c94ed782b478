"""Coordinates of a linear-Gaussian model in which covariances are squares: smooth where one becomes singular.

Around a point, a covariance of a `Cone` is ``root @ (X + x)**2 @ root.T``, X being the symmetric root of the point in
the cone's algebra and x the coordinates; what is real is written in units of what the data move. A variance that
belongs at 0 has gradient 0 and negative curvature there, as at any other maximum (Karush, Kuhn and Tucker).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from statespace_em._typing import Floats
from statespace_em.patterns import Pattern
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.cones import spectral
from statespace_em.sequence.decays import Decaying
from statespace_em.sequence.lgssm_block import Block
from statespace_em.sequence.lgssm_expectation import Statistics
from statespace_em.sequence.lgssm_face import Face
from statespace_em.sequence.lgssm_level import moved_together
from statespace_em.sequence.lgssm_modes import Modes, slow_modes, units_of
from statespace_em.sequence.lgssm_noise import Noise
from statespace_em.sequence.lgssm_noise_groups import ClosedForm, FisherScored, NoiseGroup
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_structure import Structure

FLOOR = 1e-3  # share of the variance at the start that a direction without variance is measured in

Gradients = Callable[[LGSSMParams, Statistics], dict[str, Floats]]  # of the objective by parameter and entry


class Scales(NamedTuple):
    """Units in which the parameters are of order 1, and where the states are."""

    state: Floats  # (n, n), root of the covariance of the states over time
    step: Floats  # (n, n), root of that of their steps
    feature: Floats  # (D,), standard deviation of what one step brings to y
    level: Floats  # (n,), mean of the states over time
    seen: Floats  # (n,), move of a state that shows in y as much as one step brings; inf where it shows later


def scales(params: LGSSMParams, sums: Statistics) -> Scales:
    """Units from the parameters and the moments of the states; what varies counts on average."""
    n = len(params.initial_mean)
    C, Q, R = (
        value.mean(0) if value.ndim == 3 else value
        for value in (params.observation, params.process_cov, params.measurement_cov)
    )
    if params.observation.ndim == 3:
        C = np.sqrt(np.square(params.observation).mean(0))
    block = int(np.argmax(sums.n_rows))
    rows, squares = max(float(sums.n_rows[block]), 1.0), sums.S_uu[block]
    feature = np.diag(R + C @ Q @ C.T) + np.nan_to_num(np.diag(sums.S_vv)) / rows
    feature = np.where(feature > 0.0, feature, 1.0)
    middle = squares[:n, n] / rows
    spread = squares[:n, :n] / rows - np.outer(middle, middle) + Q
    load = np.square(C).mean(0)
    spare = np.where(load > 0.0, 1e-4 * feature.mean() / np.where(load > 0.0, load, 1.0), 0.0)
    spread = (spread + spread.T) / 2.0 + np.diag(spare + 1e-6 * np.abs(np.diag(spread)))
    values, vectors = np.linalg.eigh(spread)
    state = vectors * np.sqrt(np.maximum(values, 1e-12 * max(values[-1], 1e-300)))
    white = np.linalg.solve(state, np.linalg.solve(state, Q).T)
    share = max(np.sqrt(max(np.trace(white), 0.0) / n), 1e-2)
    seen = np.sqrt(feature.min()) / np.sqrt(np.where(load > 0.0, load, np.nan))
    return Scales(state, share * state, np.sqrt(feature), middle, np.nan_to_num(seen, nan=np.inf))


class _Side(Protocol):
    """Coordinates of one parameter."""

    size: int

    def value(self, x: Floats) -> Floats:
        """Value at the coordinates."""
        ...

    def pull_back(self, x: Floats, gradient: Floats) -> Floats:
        """Gradient in the coordinates, from that with respect to the entries."""
        ...


class _Whole:
    """A matrix or a vector that is free as a whole: left @ coordinates @ right."""

    def __init__(self, origin: Floats, left: Floats, right: Floats | None) -> None:
        self.origin, self.left, self.right, self.size = origin, left, right, origin.size

    def value(self, x: Floats) -> Floats:
        change = self.left @ x.reshape(self.origin.shape)
        return np.asarray(self.origin + (change if self.right is None else change @ self.right))

    def pull_back(self, x: Floats, gradient: Floats) -> Floats:
        back = self.left.T @ gradient
        return np.ravel(back if self.right is None else back @ self.right.T)


class _Pattern:
    """A real parameter of a pattern: its free values in units."""

    def __init__(self, pattern: Pattern | RowPattern, origin: Floats, units: Floats) -> None:
        self.pattern, self.origin, self.size = pattern, origin, len(pattern.names)
        self.steps = pattern.steps(units)

    def value(self, x: Floats) -> Floats:
        return self.pattern.shifted(self.origin, self.steps * x)

    def pull_back(self, x: Floats, gradient: Floats) -> Floats:
        return np.asarray(self.pattern.tangent(self.value(x)).pull_back(gradient) * self.steps)


class _Square:
    """A block of a cone: coordinates are added to the root that its covariance has in the cone."""

    def __init__(self, block: Block, cov: Floats, began: Floats) -> None:
        self.block, self.cone = block, block.cone(cov + FLOOR * began)
        self.root = spectral(self.cone.white(cov), lambda v: np.sqrt(np.maximum(v, 0.0)))
        self.size = self.cone.size

    def value(self, x: Floats) -> Floats:
        half = self.cone.root @ (self.root + self.cone.element(x))
        return self.block.exact(half @ half.T)

    def pull_back(self, x: Floats, gradient: Floats) -> Floats:
        half = (self.root + self.cone.element(x)) @ self.cone.root.T @ gradient @ self.cone.root
        return self.cone.read(half + half.T)


class _Values:
    """Values of a linear family as they are, in units."""

    def __init__(self, origin: Floats, units: Floats) -> None:
        self.origin, self.units, self.size = origin, units, len(origin)

    def value(self, x: Floats) -> Floats:
        return np.asarray(self.origin + self.units * x)

    def pull_back(self, x: Floats, gradient: Floats) -> Floats:
        return np.asarray(self.units * gradient)


class _Covariance:
    """A noise covariance, group by group: a square, near the `Face` of a pattern without squares, or values."""

    def __init__(self, noise: Noise, origin: Floats, start: Floats) -> None:
        self.noise, self.origin, began = noise, noise.state(origin), noise.state(start)
        self.parts = [(group, _part(group, self.origin, began)) for group in noise.groups]
        self.size = sum(part.size for _, part in self.parts)

    def value(self, x: Floats) -> Floats:
        state = np.array(self.origin)
        for group, part in self.parts:
            group.write(state, part.value(x[: part.size]))
            x = x[part.size :]
        return self.noise.cov(state)

    def pull_back(self, x: Floats, gradient: Floats) -> Floats:
        gradient, found = 0.5 * self.noise.inner_gradient(gradient), []
        for group, part in self.parts:
            found.append(part.pull_back(x[: part.size], group.gradient(gradient)))
            x = x[part.size :]
        return np.concatenate([*found, np.zeros(0)])


def _part(group: NoiseGroup, origin: Floats, start: Floats) -> _Side:
    """Coordinates of what a group reads."""
    if isinstance(group, FisherScored):
        return _Values(group.read(origin), group.units(origin))
    assert isinstance(group, ClosedForm)
    if group.block.kind == "general":
        return Face(group.block.pattern, group.read(origin))
    return _Square(group.block, group.read(origin), group.read(start))


class SquareChart:
    """Coordinates around a point; see `statespace_em.boundary.Chart`. Covariances alone need no ``units``.

    With ``any_basis`` the objective is that of y alone, whatever the basis that its states are written in.
    """

    def __init__(
        self,
        structure: Structure,
        params: LGSSMParams,
        units: Scales | None,
        start: LGSSMParams,
        gradients: Gradients,
        any_basis: bool,
    ) -> None:
        self.structure, self.origin, self.gradients = structure, params, gradients
        modes = slow_modes(structure, params.transition) if any_basis else None
        self.sides: dict[str, _Side] = {}
        for name in structure.names:
            value = structure.kinds_of(name, params)
            if name in structure.noises:
                self.sides[name] = _Covariance(structure.noises[name], value, structure.kinds_of(name, start))
            else:
                assert units is not None
                self.sides[name] = _real(structure, name, value, units, modes)
        self.size = sum(side.size for side in self.sides.values())
        dynamics = self.sides.get("transition")
        self.decaying = dynamics if isinstance(dynamics, Decaying) else None
        self.together = None if units is None else moved_together(
            structure, params, units.level, *(np.linalg.norm(each, axis=1) for each in (units.state, units.step))
        )  # fmt: skip

    def params(self, x: Floats) -> LGSSMParams:
        """Parameters at the coordinates ``x`` (size,)."""
        values, parts = self.origin._asdict(), dict(self._parts(x))
        for name, part in parts.items():
            values[name] = self.structure.rows_of(name, self.sides[name].value(part))
        if self.decaying is not None and "process_cov" in parts:
            values["process_cov"] = self.decaying.scaled(parts["transition"], values["process_cov"])
        if self.together is not None:
            values["state_offset"] = self.together.offset(parts["state_offset"], values)
        return self.structure.complete(values)

    def gradient(self, x: Floats, params: LGSSMParams, statistics: Statistics) -> Floats:
        """Gradient of the objective at the coordinates, from what the E-step at their parameters has found."""
        found, own = self.gradients(params, statistics), dict(self._parts(x))
        whole = found["process_cov"]
        if self.decaying is not None and "process_cov" in own:
            scale = self.decaying.scale(own["transition"])
            found["process_cov"] = scale.T @ whole @ scale
        parts = {name: self.sides[name].pull_back(part, found[name]) for name, part in own.items()}
        if self.together is not None:
            moved = self.together.pull_back(own["state_offset"], params._asdict(), found["state_offset"])
            for name in parts.keys() & {"transition", "observation"}:
                parts[name] = self.sides[name].pull_back(own[name], found[name] + moved[name])
            parts["state_offset"] = moved["state_offset"]
        if self.decaying is not None and "process_cov" in own:
            parts["transition"] += self.decaying.pull_back_scale(own["transition"], params.process_cov, whole)
        return np.concatenate([*parts.values(), np.zeros(0)])

    def _parts(self, x: Floats) -> list[tuple[str, Floats]]:
        ends = np.cumsum([side.size for side in self.sides.values()])
        return list(zip(self.sides, np.split(x, ends[:-1]))) if len(ends) else []


def _real(structure: Structure, name: str, value: Floats, units: Scales, modes: Modes | None) -> _Side:
    """Coordinates of a coefficient, an offset or a mean."""
    away, feature = np.asarray(np.linalg.inv(units.state), dtype=float), np.diag(units.feature)
    left = feature if name.startswith("observation") else units.step
    pattern = structure.patterns[name]
    vector = len(pattern.shape) == 1
    right: Floats | None = None if vector else away
    if name.endswith("input"):
        size = np.ones(pattern.shape[1]) if structure.input_scale is None else structure.input_scale
        right = np.diag(1.0 / size)
    rows = np.linalg.norm(left, axis=1)
    if not name.startswith("observation"):
        rows = np.minimum(rows, units.seen)
    if name == "transition" and structure.decays:
        return structure.decaying(value, rows[:, None] / np.linalg.norm(units.state, axis=1))
    if name == "transition" and modes is not None:
        return Decaying(modes.pattern, value, units_of(modes, units.state, units.step), modes.decays, modes.parts)
    if isinstance(pattern, Pattern) and pattern.is_whole:
        return _Whole(value, left, right)
    across = np.ones(1) if right is None else 1.0 / np.linalg.norm(units.state, axis=1)
    across = np.diag(right) if right is not None and name.endswith("input") else across
    return _Pattern(pattern, value, rows if vector else rows[:, None] * across)
