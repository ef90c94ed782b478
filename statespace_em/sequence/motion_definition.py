"""What a model of motion is made of, on rows at any times."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import xarray as xr

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import ParameterError
from statespace_em.labels import Labels, listed
from statespace_em.patterns import Pattern, fixed
from statespace_em.priors import InverseWishart
from statespace_em.scale.chunks import is_chunked
from statespace_em.sequence.lgssm_specification import DIMS, Specification
from statespace_em.sequence.motion import Motion, Steps, over, spreads
from statespace_em.sequence.motion_settings import (
    Sensors,
    first_state,
    known_densities,
    motion_of,
    noise_pattern,
    sensors_of,
)
from statespace_em.sequence.motion_times import Grid, grid_of
from statespace_em.sequence.state_space import StateSpaceModel

FOLLOW = ("transition", "process_cov", "observation")  # known once the steps and the densities are


class Moving(StateSpaceModel):
    """A target in continuous time, seen on rows whose times a copy of the model knows."""

    kind: str
    dims: int | Sequence[str]
    rate: float
    density: Any
    noise: Any
    sensors: int | Mapping[str, Sequence[str]]
    step: float | None
    unit: str
    initial: str
    initial_mean: Any
    initial_cov: Any

    process_prior = InverseWishart()

    # the times of the rows: a copy of the model knows them while a question about y is answered

    _grid: Grid | None = None  # of the rows of y
    _known_densities: Floats | None = None  # None while they are estimated
    _steps: Steps | None = None  # dynamics between the rows, where these are uneven
    _ahead: int = 0  # steps after the last row that are asked for

    def _read(self, y: Any, params: xr.Dataset | None) -> tuple[Batch, Labels, list[Any] | None]:
        batch, labels, symbols = StateSpaceModel._read(self, y, params)
        place = None if self._grid is None else self._grid.place
        return (batch if place is None else batch._replace(place=place)), labels, symbols

    def _on(self, y: Any, params: xr.Dataset | None, densities: Floats | None = None) -> Self:
        """Copy of this model that knows the times of the rows of y."""
        even = self.step is not None or is_chunked(y)
        grid = self._usual if even else grid_of(self._read(y, params)[1].times, self.unit, self._ahead)
        return self._at(grid, densities)

    def _at(self, grid: Grid, densities: Floats | None) -> Self:
        """Copy of this model with rows on a grid."""
        bound = copy.copy(self)
        bound._grid, bound._known_densities = grid, densities
        bound._steps = None if grid.gaps is None else over(self._motion, grid.gaps)
        return bound

    @property
    def _usual(self) -> Grid:
        """Even rows, at the step of the model or of its fit."""
        if self._grid is not None:
            return self._grid
        params = getattr(self, "params_", None)
        fitted = 1.0 if params is None else self._step_of(params)
        return Grid(fitted if self.step is None else float(self.step))

    def _step_of(self, params: xr.Dataset) -> float:
        """Step that the dynamics of these parameters are for."""
        if "transition" not in params:
            return 1.0 if self.step is None else float(self.step)
        matrix, moves = values_of(params, "transition"), self._motion
        d = len(moves.view)
        if not self.rate:
            return float(matrix[0, d])
        return float(np.arctan2(matrix[d + 1, d], matrix[d, d]) / self.rate)

    def _densities_of(self, params: xr.Dataset) -> Floats:
        """Densities behind the process noise of parameters."""
        known = self._fixed_densities()
        if known is not None:
            return known
        if "process_cov" not in params:
            raise ParameterError(
                "the parameters have no process_cov: pass what fit found, or fix density= in the model."
            )
        steps = over(self._motion, np.array([self._step_of(params)]))
        pattern = Pattern(tuple(self._motion.densities), np.zeros(steps.noises.shape[2:]), steps.noises[:, 0])
        return pattern.read(values_of(params, "process_cov"))

    # what the model is made of

    @property
    def _motion(self) -> Motion:
        return motion_of(self.kind, self.dims, self.rate, self.density)

    @property
    def _sensors(self) -> Sensors:
        return sensors_of(self.sensors, self._motion)

    def _fixed_densities(self) -> Floats | None:
        """Densities given as numbers."""
        return known_densities(self.density, self._motion)

    def _names(self) -> list[Any]:
        return self._motion.states

    def _derived(self, values: Mapping[str, float]) -> dict[str, float]:
        return {}

    def _specification(self, n_features: int | None) -> Specification:
        moves, grid, sensors = self._motion, self._usual, self._sensors
        if n_features not in (None, len(sensors.view)):
            raise ParameterError(
                f"y has {n_features} columns, expected {len(sensors.view)}: {listed(sensors.states)} of "
                f"{len(set(sensors.owner))} sensor(s)."
            )
        known = self._fixed_densities()
        n = len(moves.states)
        varying: dict[str, Floats] = {}
        spread: Floats | None = None
        patterns = {"measurement_cov": noise_pattern(self.noise, sensors), "observation": fixed(sensors.view)}
        if self._steps is None:
            steps = over(moves, np.array([grid.step]))
            free = Pattern(tuple(moves.densities), np.zeros((n, n)), steps.noises[:, 0])
            patterns["transition"] = fixed(steps.transition[0])
            patterns["process_cov"] = free if known is None else fixed(free.build(known))
        elif self._known_densities is not None:
            varying = {"transition": self._steps.transition, "process_cov": self._steps.cov(self._known_densities)}
        else:
            white = np.stack([np.diag(own) for own in self._whitened])
            free = Pattern(tuple(moves.densities), np.zeros((n, n)), white)
            patterns["process_cov"] = free if known is None else fixed(free.build(known))
            varying, spread = {"transition": self._steps.transition}, spreads(self._steps)
        patterns |= first_state(self.initial, self.initial_mean, self.initial_cov, moves.states)
        return Specification(
            moves.states, len(sensors.view), patterns, varying, (self.initial,) * n, spread=spread,
        )  # fmt: skip

    @property
    def _whitened(self) -> Floats:
        """Which of the whitened states (J, n) each density drives: those of its axis."""
        moves = self._motion
        d, n_densities = len(moves.view), len(moves.densities)
        axis = np.arange(len(moves.states)) % d
        return np.ones((1, len(axis))) if n_densities == 1 else np.asarray(axis == np.arange(d)[:, None], dtype=float)

    def _estimated(self, cov: Floats) -> Floats:
        """Densities in the covariance that a fit found."""
        pattern = self._specification(None).patterns["process_cov"]
        known = self._fixed_densities()
        return pattern.read(cov) if known is None else known

    def _shown(self, densities: Floats) -> dict[str, Floats]:
        """Dynamics over the usual step."""
        step = self._usual.step
        if abs(self.rate) * step >= np.pi:
            raise ParameterError(f"rate is {self.rate}: over a step of {step:g} it turns by more than half a circle.")
        steps = over(self._motion, np.array([step]))
        view = self._sensors.view
        return {"transition": steps.transition[0], "process_cov": steps.cov(densities)[0], "observation": view}

    def _inner(self, known: xr.Dataset) -> xr.Dataset:
        """Parameters on the grid of this copy: those that follow from the densities anew."""
        inner = known.drop_vars([name for name in FOLLOW if name in known])
        if self._steps is not None:
            return inner
        arrays, names = self._shown(self._densities_of(known)), self._names()
        inner = inner.assign({name: (DIMS[name], arrays[name]) for name in ("transition", "process_cov")})
        return inner.assign_coords(dict.fromkeys(("state", "state_aux", "next_state"), names))


def values_of(params: xr.Dataset, name: str) -> Floats:
    """Entries of a parameter in the order of its dims."""
    return np.asarray(params[name].transpose(*DIMS[name]).values, dtype=float)
