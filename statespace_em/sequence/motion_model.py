"""Models of motion: positions measured at even or uneven times, by one sensor or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from statespace_em._typing import Floats
from statespace_em.errors import ParameterError
from statespace_em.patterns import Pattern
from statespace_em.priors import InverseWishart
from statespace_em.sequence.continuous_components import moving
from statespace_em.sequence.continuous_model import ContinuousModel, side_by_side
from statespace_em.sequence.continuous_time import ContinuousTimeModel
from statespace_em.sequence.flow import ContinuousComponent
from statespace_em.sequence.lgssm_values import values_of
from statespace_em.sequence.motion import Motion
from statespace_em.sequence.motion_settings import (
    Sensors,
    first_state,
    known_densities,
    motion_of,
    noise_pattern,
    sensors_of,
)
from statespace_em.sequence.summand import SHARED, Addable, Summand
from statespace_em.sequence.time_grid import Grid


@dataclass(eq=False, repr=False)
class MotionModel(Addable, ContinuousTimeModel):
    """A target that white noise pushes, in continuous time; made by `statespace_em.designs`.

    The dynamics over each step follow exactly from the time coordinate of y, whatever its gaps: ``params_`` shows
    them for a step of the median length, every question about y uses those of its own rows. Rows without times are
    one unit apart. Several tracks may have their own times.

    Parameters
    ----------
    kind
        "constant_velocity", "constant_acceleration" or "coordinated_turn".
    dims
        Number of axes, or their names.
    rate
        Of the turn, radians per unit of time, from the first to the second axis.
    density
        "equal": the same white noise along all axes, "separate": one of its own along each, or its value (one for
        each axis, or for all), which is then known. Units of y^2 / time^3, of a jerk y^2 / time^5.
    noise
        Variance of the measurements, units of y^2: "equal" (one for each sensor), "separate" (one for each column),
        "free" (a full matrix), or its value, a number, one for each sensor or column, or a matrix.
    sensors
        Number of sensors that each measure the positions, or what each measures, by name:
        ``{"gps": ["x", "y"], "doppler": ["v_x"]}``. y has the columns of the first, then those of the second, ...
        A sensor that reports less often has NaN in the other rows. Each has its own noise.
    step
        Time between rows; None takes it from the time coordinate.
    unit
        Unit of time of what is per time, where the coordinate has dates.
    initial
        Of the first state: "diffuse", "fixed" (unknown constants), or "known": ``initial_mean``, ``initial_cov``.
    likelihood, measurement_prior, unsorted
        As in `LinearGaussianSSM`.
    """

    kind: Literal["constant_velocity", "constant_acceleration", "coordinated_turn"]
    dims: int | Sequence[str] = 2
    _: KW_ONLY
    rate: float = 0.0
    density: Any = "equal"
    noise: Any = "equal"
    sensors: int | Mapping[str, Sequence[str]] = 1
    step: float | None = None
    unit: str = "s"
    initial: Literal["diffuse", "fixed", "known"] = "diffuse"
    initial_mean: Any = None
    initial_cov: Any = None
    likelihood: Literal["diffuse", "full", "marginal"] = "diffuse"
    measurement_prior: InverseWishart = InverseWishart()
    unsorted: Literal["error", "sort"] = "error"

    # what the model is made of

    def _summand(self) -> Summand:
        own = ("kind", "dims", "rate", "density", "noise", "sensors", "initial", "initial_mean", "initial_cov")
        options = {name: getattr(self, name) for name in own}
        return Summand([("motion", options)], self.unit, self.step, {name: getattr(self, name) for name in SHARED})

    def _sum(self, left: Summand, right: Summand) -> ContinuousModel:
        return side_by_side(left, right)

    @property
    def _motion(self) -> Motion:
        return motion_of(self.kind, self.dims, self.rate, self.density)

    @property
    def _sensors(self) -> Sensors:
        return sensors_of(self.sensors, self._motion)

    def _components(self, base: float) -> list[ContinuousComponent]:
        moves = self._motion
        return [moving(moves, self._sensors.observation, self.initial, known_densities(self.density, moves))]

    def _measurement_noise(self) -> Pattern:
        return noise_pattern(self.noise, self._sensors)

    def _check_columns(self, n_features: int | None) -> None:
        self._sensors.check(n_features)

    def _sensor_names(self) -> list[str]:
        return [owner.lstrip("_") or "sensor" for owner in self._sensors.owner]

    def _moving(self) -> list[str]:
        return []

    def _known_first_state(self) -> dict[str, Floats]:
        found = first_state(self.initial, self.initial_mean, self.initial_cov, self._motion.states)
        return {name: pattern.constant for name, pattern in found.items()} if self.initial == "known" else {}

    def _step_of(self, params: xr.Dataset) -> float:
        if "transition" not in params:
            return 1.0 if self.step is None else float(self.step)
        matrix, d = values_of(params, "transition"), len(self._motion.observation)
        return float(np.arctan2(matrix[d + 1, d], matrix[d, d]) / self.rate) if self.rate else float(matrix[0, d])

    def _params_step(self, grid: Grid) -> float:
        if abs(self.rate) * grid.step >= np.pi:
            raise ParameterError(
                f"rate is {self.rate}: over a step of {grid.step:g} it turns by more than half a circle."
            )
        return grid.step

    def _derived(self, values: Mapping[str, float]) -> dict[str, float]:
        return {}
