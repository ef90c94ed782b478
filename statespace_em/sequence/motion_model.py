"""Models of motion: positions measured at even or uneven times, by one sensor or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from statespace_em.errors import ParameterError
from statespace_em.priors import InverseWishart
from statespace_em.sequence.continuous_model import ContinuousModel, side_by_side
from statespace_em.sequence.continuous_time import ContinuousTimeModel
from statespace_em.sequence.flow import ContinuousComponent
from statespace_em.sequence.lgssm_values import values_of
from statespace_em.sequence.motion_settings import axes_of
from statespace_em.sequence.summand import SHARED, Addable, Summand
from statespace_em.sequence.time_grid import Grid

MOTION = ("kind", "dims", "rate", "density", "noise", "sensors", "initial", "initial_mean", "initial_cov")


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

    @property
    def _motion_options(self) -> Mapping[str, Any]:
        return {name: getattr(self, name) for name in MOTION}

    def _summand(self) -> Summand:
        settings = {name: getattr(self, name) for name in SHARED}
        return Summand([("motion", dict(self._motion_options))], self.unit, self.step, settings)

    def _sum(self, left: Summand, right: Summand) -> ContinuousModel:
        return side_by_side(left, right)

    def _components(self, base: float) -> list[ContinuousComponent]:
        return [self._motion_component()]

    def _step_of(self, params: xr.Dataset) -> float:
        if "transition" not in params:
            return 1.0 if self.step is None else float(self.step)
        matrix, d = values_of(params, "transition"), len(axes_of(self.dims))
        return float(np.arctan2(matrix[d + 1, d], matrix[d, d]) / self.rate) if self.rate else float(matrix[0, d])

    def _params_step(self, grid: Grid) -> float:
        if abs(self.rate) * grid.step >= np.pi:
            raise ParameterError(
                f"rate is {self.rate}: over a step of {grid.step:g} it turns by more than half a circle."
            )
        return grid.step

    def _derived(self, values: Mapping[str, float]) -> dict[str, float]:
        return {}
