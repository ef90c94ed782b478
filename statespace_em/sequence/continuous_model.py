"""Structural models in continuous time: of one series, or of each axis of a motion, on rows at any times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em.errors import ParameterError
from statespace_em.labels import Labels, listed
from statespace_em.patterns import Pattern, from_entries
from statespace_em.priors import InverseWishart
from statespace_em.sequence.component_sum import ComponentSum
from statespace_em.sequence.continuous_components import BUILDERS, called, check_different, seen_in
from statespace_em.sequence.continuous_time import ContinuousTimeModel
from statespace_em.sequence.decomposition import View, continuous_views
from statespace_em.sequence.flow import ContinuousComponent
from statespace_em.sequence.regressors import of_sequence, plain_options
from statespace_em.sequence.structural import NOISE
from statespace_em.sequence.summand import SHARED, Summand
from statespace_em.sequence.time_grid import Grid

WRITTEN = {
    "arma": "ar(1)",
    "seasonal": "seasonal(...)",
    "regression": "regression(...)",
}  # as users do


@dataclass(eq=False, repr=False)
class ContinuousModel(ComponentSum, ContinuousTimeModel):
    """A sum of components in continuous time; made by `statespace_em.designs`, with ``unit=`` or from a motion.

    The dynamics over each step follow exactly from the time coordinate of y, whatever its gaps; variances are per unit
    of time, and ``params_`` shows the dynamics over one. On rows one unit apart a level, a season, a cycle and an
    autoregression are what they are per row; a trend is not, for its slope moves between the rows too. Beside a motion
    along several axes every axis has states and values of its own, with its name after theirs: "ar1_east".

    Parameters
    ----------
    components
        Pairs of the name of a component and its options; one may be a "motion", with settings of `MotionModel`.
        "on" among the options names the sensor, or the column, that alone has the component.
    unit
        Unit of time of what is per time, where the coordinate has dates; numbers are taken as they are. A diffuse start
        of a slope is flat in slopes per unit: with likelihood="diffuse" or "full" that of a trend in hours is ln 60
        above that in minutes, whatever the values, which does not matter to the fit. Compare models in one unit,
        or by likelihood="marginal", which is the same in all.
    step
        Time between rows; None takes it from the time coordinate.
    noise
        As of `StructuralModel`; that of a motion is its own setting.
    likelihood, measurement_prior, unsorted
        As in `LinearGaussianSSM`.
    """

    components: Sequence[Any]
    _: KW_ONLY
    unit: str = "s"
    step: float | None = None
    noise: Literal["auto", "free", "zero"] = "auto"
    likelihood: Literal["diffuse", "full", "marginal"] = "diffuse"
    measurement_prior: InverseWishart = InverseWishart()
    unsorted: Literal["error", "sort"] = "error"

    # what the model is made of

    def _summand(self) -> Summand:
        settings = {name: getattr(self, name) for name in (*SHARED, "noise")}
        return Summand(self.components, self.unit, self.step, settings)

    def _sum(self, left: Summand, right: Summand) -> ContinuousModel:
        return side_by_side(left, right)

    @property
    def _motion_options(self) -> Mapping[str, Any] | None:
        return next((options for kind, options in self.components if kind == "motion"), None)

    def _components(self, base: float) -> list[ContinuousComponent]:
        _validate.one_of("noise", self.noise, ("auto", "free", "zero"))
        components: list[ContinuousComponent] = []
        size = 1 if self._sensors is None else len(self._sensors.owner)
        rows, segments = None if self._grid is None else self._grid.rows, self._segments()
        for i, (kind, options) in enumerate(self.components):
            _validate.one_of("component", kind, (*BUILDERS, "motion"))
            if kind == "motion":
                components.append(self._motion_component())
                continue
            more: dict[str, Any] = {"base": base} if kind == "cycle" else {}
            more |= {"rows": rows} if kind == "regression" else {}
            component = BUILDERS[kind](self._label(i), **plain_options(options, segments), **more)
            for columns, suffix in self._places(options.get("on"), kind):
                components.append(seen_in(called(component, suffix), columns, size))
        check_different(components)
        return components

    def _label(self, i: int) -> str:
        """What stands before the names of a component: nothing, or a number where its kind comes again."""
        before = [kind for kind, options in self.components[:i] if options.get("on") == self.components[i][1].get("on")]
        kind = self.components[i][0]
        return f"{kind}{before.count(kind) + 1}_" if kind in before else ""

    def _places(self, on: str | None, kind: str) -> list[tuple[list[int], str]]:
        """Columns that see a copy of a component, and the suffix of its names, one a copy."""
        sensors = self._sensors
        if sensors is None:
            if on is not None:
                raise ParameterError(f"{kind} is on {on!r}, but there is one series only: leave out on().")
            return [([0], "")]
        names = dict.fromkeys(owner.lstrip("_") for owner in sensors.owner)
        if on is None:
            if len(names) > 1:
                raise ParameterError(
                    f"{kind} is beside a motion that sensors {listed(names)} measure: say which of them has it, "
                    f'as in {WRITTEN.get(kind, f"{kind}()")}.on("{next(iter(names))}").'
                )
            chosen = list(range(len(sensors.owner)))
        else:
            chosen = [i for i, owner in enumerate(sensors.owner) if owner.lstrip("_") == on]
            chosen = chosen or [i for i, state in enumerate(sensors.states) if state == on and len(names) == 1]
            if not chosen:
                what = [*(name for name in names if name), *(sensors.states if len(names) == 1 else [])]
                raise ParameterError(f"{kind} is on {on!r}, expected one of {listed(what)}.")
        several = len(sensors.owner) > 1
        return [([i], f"{sensors.owner[i]}_{sensors.states[i]}" if several else "") for i in chosen]

    def _measurement_noise(self) -> Pattern:
        if self._motion_options is not None:
            return super()._measurement_noise()
        return from_entries([[NOISE if super()._noisy() else 0.0]], "measurement_cov", symmetric=True)

    def _noisy(self) -> bool:
        noise = self._measurement_noise()
        return bool(noise.touched.any() or noise.constant.any())

    def _simulate_like(self, labels: Labels, which: int, params: xr.Dataset, seed: int) -> xr.Dataset:
        segments = self._segments()
        if segments is None:
            return super()._simulate_like(labels, which, params, seed)
        components = of_sequence(self.components, segments.numbers(labels)[which])
        alone = ContinuousModel(**(self.get_params() | {"components": components}))
        return alone._simulate_like(labels, which, params.drop_dims("time"), seed)

    def _views(self, y: Any, params: xr.Dataset | None, labels: Labels) -> list[View]:
        return continuous_views(self._bound(y, params)._components(1.0), list(labels.features))

    def _step_of(self, params: xr.Dataset) -> float:
        return 1.0

    def _params_step(self, grid: Grid) -> float:
        return 1.0

    def _default_starts(self) -> int:
        return 6 if any(kind in ("cycle", "arma") for kind, _ in self.components) else 3

    def _derived(self, values: Mapping[str, float]) -> dict[str, float]:
        """Times of decays and periods, in units of time."""
        found: dict[str, float] = {}
        step = self._base_step if self._grid is not None else 1.0
        for component in self._components(self._base_step):
            if not component.root:
                continue
            root = complex(*(values[name] for name in component.root))
            own = {}
            if len(component.root) == 2:
                own["damping"] = abs(root) ** (1.0 / step)
                own["period"] = float(2.0 * np.pi * step / abs(np.angle(root)))
            size = abs(root) if len(component.root) == 2 else root.real
            own["time"] = float(-step / np.log(size)) if 0.0 < size < 1.0 else np.nan
            found |= {f"{component.stem}{word}{component.suffix}": value for word, value in own.items()}
        return found


def side_by_side(*sides: Summand) -> ContinuousModel:
    """Sum of which one side at least is in continuous time.

    Raises
    ------
    ParameterError
        If the sides contradict each other.
    """
    components = [component for side in sides for component in side.components]
    if sum(kind == "motion" for kind, _ in components) > 1:
        raise ParameterError("two motions cannot be added: the target has one, say it along all axes together.")
    if not all(side.settings.get("process_prior", InverseWishart()).is_flat for side in sides):
        raise ParameterError("process_prior is of noise per row: a sum in continuous time does not take it.")
    settings = {name: value for name, value in sides[0].settings.items() if name != "process_prior"}
    for name in ("unit", "step"):
        told = list(dict.fromkeys(value for side in sides if (value := getattr(side, name)) is not None))
        if len(told) > 1:
            raise ParameterError(f"{name} is {told[0]!r} on the left and {told[1]!r} on the right: say the same.")
        if told:
            settings[name] = told[0]
    return ContinuousModel(components, **settings)
