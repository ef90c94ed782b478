"""What a model in continuous time is made of, on rows at any times."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import Labels, listed
from statespace_em.patterns import Pattern, fixed
from statespace_em.priors import InverseWishart
from statespace_em.scale.chunks import is_chunked
from statespace_em.sequence.components import positive_frequencies
from statespace_em.sequence.continuous_components import moving
from statespace_em.sequence.decays import Decay
from statespace_em.sequence.flow import ContinuousComponent, Flow
from statespace_em.sequence.lgssm_specification import DIMS, Specification
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
from statespace_em.sequence.state_space import LIKELIHOODS, StateSpaceModel
from statespace_em.sequence.time_grid import Grid, grid_of, length_of

FROM_BASE = ("transition", "process_cov", "observation")  # follow from the base dynamics and the steps between rows


class BaseDynamics(NamedTuple):
    """Dynamics as they are estimated, whatever the steps between rows; see `Flow`."""

    transition: Floats  # (n, n), over the base step
    diffusion: Floats  # (n, n), diagonal: spectral densities of the noises that drive the states


class ContinuousDefinition(StateSpaceModel):
    """Components in continuous time, measured at rows whose times a copy of the model knows."""

    step: float | None
    unit: str

    process_prior = InverseWishart()
    _of_steps = FROM_BASE

    # the times of the rows: a copy of the model knows them while a question about y is answered

    _grid: Grid | None = None  # of the rows of y
    _base_step: float = 1.0  # step that the base dynamics are over
    _base_dynamics: BaseDynamics | None = None  # None while they are estimated
    _steps_ahead: int = 0  # steps after the last row that are asked for

    @abstractmethod
    def _components(self, base: float) -> list[ContinuousComponent]:
        """What the model is made of; ``base`` is the step that guesses are over."""

    @property
    @abstractmethod
    def _motion_options(self) -> Mapping[str, Any] | None:
        """Settings of `MotionModel` for the motion that is measured, if any."""

    @abstractmethod
    def _step_of(self, params: xr.Dataset) -> float:
        """Step that the dynamics of these parameters are over."""

    @abstractmethod
    def _params_step(self, grid: Grid) -> float:
        """Step that the dynamics in the parameters of a fit are over."""

    # the motion, if there is one

    @property
    def _motion(self) -> Motion | None:
        """Motion that is measured, if any."""
        options = self._motion_options
        return None if options is None else motion_of(*(options[name] for name in ("kind", "dims", "rate", "density")))

    @property
    def _sensors(self) -> Sensors | None:
        """What measures the motion, if any."""
        options, motion = self._motion_options, self._motion
        return None if options is None or motion is None else sensors_of(options["sensors"], motion)

    def _motion_component(self) -> ContinuousComponent:
        """The motion as one of the components."""
        options, motion, sensors = self._motion_options, self._motion, self._sensors
        assert options is not None
        assert motion is not None
        assert sensors is not None
        return moving(motion, sensors.observation, options["initial"], known_densities(options["density"], motion))

    def _measurement_noise(self) -> Pattern:
        """Pattern of the measurement noise."""
        options, sensors = self._motion_options, self._sensors
        assert options is not None
        assert sensors is not None
        return noise_pattern(options["noise"], sensors)

    def _check_columns(self, n_features: int | None) -> None:
        """Refuse another number of columns than the model has."""
        if self._sensors is not None:
            self._sensors.check(n_features)
        elif n_features not in (None, 1):
            raise ParameterError(
                f"y has {n_features} columns, expected one: without a motion a structural model is of one series."
            )

    def _sensor_names(self) -> list[str]:
        """What measures each column (D,), by name."""
        return ["sensor"] if self._sensors is None else [owner.lstrip("_") or "sensor" for owner in self._sensors.owner]

    def _known_first_state(self) -> dict[str, Floats]:
        """Mean and covariance of the first state of the motion, by parameter, where they are known."""
        options, motion = self._motion_options, self._motion
        if options is None or motion is None:
            return {}
        moments = first_state(options["initial"], options["initial_mean"], options["initial_cov"], motion.states)
        return {name: value.constant for name, value in moments.items()} if options["initial"] == "known" else {}

    # reading y

    def _read(self, y: Any, params: xr.Dataset | None) -> tuple[Batch, Labels, list[Any] | None]:
        batch, labels, symbols = super()._read(y, params)
        order = self._by_axis(labels) if params is None else None  # parameters have columns of their own
        if order is not None:
            batch = batch._replace(y=np.ascontiguousarray(batch.y[:, order]))
            labels = replace(labels, features=labels.features[order])
        place = None if self._grid is None else self._grid.place
        return (batch if place is None else batch._replace(place=place)), labels, symbols

    def _by_axis(self, labels: Labels) -> list[int] | None:
        """Order of columns that are called as the states that a single sensor measures; None where it is theirs."""
        wanted, have = [] if self._sensors is None else self._sensors.states, labels.features.tolist()
        if have == wanted or set(have) != set(wanted) or len(have) != len(wanted):
            return None
        return [have.index(name) for name in wanted]

    def _check_data(self, batch: Batch, labels: Labels, freeze: Sequence[str]) -> None:
        if self._by_axis(labels) is not None:  # of chunks, which are read where they are
            states = self._sensors.states if self._sensors is not None else []
            raise DataError(f"y has the columns {listed(labels.features)}, expected {listed(states)}: sort them so.")
        super()._check_data(batch, labels, freeze)

    def _checked(self) -> Self:
        """Refuse settings that contradict each other, whatever y is."""
        length_of(self.unit)
        if self.step is not None and not (isinstance(self.step, int | float | np.number) and 0.0 < self.step < np.inf):
            raise ParameterError(f"step is {self.step!r}, expected the time between rows, a number above 0.")
        _validate.one_of("likelihood", self.likelihood, LIKELIHOODS)
        _validate.one_of("unsorted", self.unsorted, ("error", "sort"))
        _validate.instance("measurement_prior", self.measurement_prior, InverseWishart)
        self._specification(None)
        return self

    def _bound(
        self, y: Any, params: xr.Dataset | None, *, base_step: float | None = None, dynamics: BaseDynamics | None = None
    ) -> Self:
        """Copy of this model that knows the times of the rows of y."""
        length_of(self.unit)
        even = self.step is not None or is_chunked(y)
        if even:
            grid = self._even_grid(params)
        else:
            labels, segments = self._read(y, params)[1], self._segments()
            begins = None if segments is None else segments.begins[segments.numbers(labels)]
            grid = grid_of(labels.times, self.unit, self._steps_ahead, begins)
            if all(len(index) == 1 for index in labels.times) and params is not None:  # which tell no step
                grid = Grid(self._row_step(params))
        return self._with_grid(grid, grid.step if base_step is None else base_step, dynamics)

    def _row_step(self, known: xr.Dataset) -> float:
        """Time from a row to the next where nothing else is said: the step of the model, or that of the fit."""
        told = known["transition"].attrs.get("row_step") if "transition" in known else None
        return self._even_grid(known).step if self.step is not None or told is None else float(told)

    def _with_grid(self, grid: Grid, base_step: float, dynamics: BaseDynamics | None) -> Self:
        """Copy of this model with rows on a grid."""
        bound = copy.copy(self)
        bound._grid, bound._base_step, bound._base_dynamics = grid, base_step, dynamics
        return bound

    def _even_grid(self, params: xr.Dataset | None) -> Grid:
        """Even rows, at the step of the model or of these parameters, by default those of its fit."""
        if self.step is not None:
            return Grid(float(self.step))
        params = getattr(self, "params_", None) if params is None else params
        return Grid(1.0 if params is None else self._step_of(params))

    @property
    def _flow(self) -> Flow:
        """Components over the steps between the rows."""
        components = self._components(self._base_step)
        if self._grid is None:
            step = self._even_grid(None).step if self.step is None else self._params_step(Grid(self.step))
            return Flow(components, step, np.array([step]))
        if self._grid.gaps is None:
            return Flow(components, self._base_step, np.array([self._grid.step]))
        return Flow.of(components, self._base_step, self._grid.gaps)

    def _base_dynamics_of(self, params: xr.Dataset) -> BaseDynamics:
        """Base dynamics behind the parameters that users see."""
        missing = [name for name in FROM_BASE[:2] if name not in params]
        flow = self._flow_over_step(self._step_of(params))
        pattern = flow.base_transition()
        if missing and ((missing[0] == "transition" and pattern.names) or flow.names_of(free=True)):
            raise ParameterError(f"the parameters have no {missing[0]}: pass what fit found, or fix it in the model.")
        transition = values_of(params, "transition") if "transition" in params else pattern.constant
        process_cov = values_of(params, "process_cov") if "process_cov" in params else None
        return BaseDynamics(transition, flow.diffusion_of(process_cov))

    def _flow_over_step(self, step: float) -> Flow:
        """Components over one step."""
        return Flow(self._components(step), step, np.array([step]))

    # what the model is made of

    def _names(self) -> list[Any]:
        return _numbered([name for component in self._components(1.0) for name in component.states])

    def _specification(self, n_features: int | None) -> Specification:
        self._check_columns(n_features)
        flow = self._flow
        components = flow.components
        varying: dict[str, Floats] = {}
        patterns = {"measurement_cov": self._measurement_noise()}
        guesses = {name: values for component in components for name, values in component.guesses.items()}
        if self._base_dynamics is None:
            noise = flow.process_cov_pattern() if self._grid is None else flow.diffusion()
            patterns |= {"transition": flow.base_transition(), "process_cov": noise}
        else:
            dynamics = dict(zip(("transition", "process_cov"), flow.matrices(*self._base_dynamics)))
            if flow.kinds is None:
                patterns |= {name: fixed(value[0]) for name, value in dynamics.items()}
            else:
                varying = {name: value[flow.kinds] for name, value in dynamics.items()}
        observation = self._observation(components)
        if observation.ndim == 3:
            varying["observation"] = np.ascontiguousarray(observation)
        else:
            patterns["observation"] = fixed(observation)
        if self._motion is None:  # summaries have the order of the same components by rows
            patterns["measurement_cov"] = patterns.pop("measurement_cov")
        words = [word for component in components for word in component.initial]
        patterns |= self._first_patterns(words)
        if self._base_dynamics is not None:  # dynamics by row do not tell what is stationary
            cov, settled = np.array(patterns["initial_cov"].constant), flow.stationary(*self._base_dynamics)
            own = np.flatnonzero(~np.isnan(settled))
            cov[own, own] = settled[own]
            patterns["initial_cov"] = fixed(cov)
            words = ["known" if word == "stationary" else word for word in words]
        decays = [
            Decay(
                "turn" if len(component.root) == 2 else "lags",
                component.root,
                tuple(component.names),
                shortest=float(flow.gaps[flow.gaps > 0.0].min(initial=flow.base)) / flow.base,
            )
            for component in components
            if component.root
        ]
        free_flow = flow if self._grid is not None and self._base_dynamics is None else None
        turns = [component.root[1] for component in components if len(component.root) == 2]
        return Specification(
            self._names(), observation.shape[-2], patterns, varying, tuple(words), guesses=guesses, flow=free_flow,
            decays=tuple(decays), segments=self._segments(), regressors=self._regressors(components),
            canonical=partial(positive_frequencies, turns) if turns else None,
        )  # fmt: skip

    def _regressors(self, components: Sequence[ContinuousComponent]) -> dict[Any, int]:
        """States that are coefficients of known columns, and where they are."""
        known = [component.observation.ndim == 3 for component in components for _ in component.states]
        return {name: i for i, (name, is_known) in enumerate(zip(self._names(), known)) if is_known}

    def _observation(self, components: Sequence[ContinuousComponent]) -> Floats:
        """Observation matrix (D, n), or (T, D, n) where columns are known for every row."""
        parts = [component.observation for component in components]
        length = max((len(part) for part in parts if part.ndim == 3), default=0)
        lead = (length,) if length else ()
        return np.concatenate([np.broadcast_to(part, (*lead, *part.shape[-2:])) for part in parts], axis=-1)

    def _first_patterns(self, words: list[str]) -> dict[str, Pattern]:
        """Patterns of the moments of the first state."""
        each = np.array(words)
        mean = np.where(each == "fixed", np.nan, 0.0)
        cov = np.diag(np.where(each == "diffuse", np.inf, 0.0)) if len(each) else np.zeros((0, 0))
        known = self._known_first_state()
        if known:
            own = np.flatnonzero(each == "known")
            mean[own], cov[np.ix_(own, own)] = known["initial_mean"], known["initial_cov"]
        return {"initial_mean": fixed(mean), "initial_cov": fixed(cov)}

    def _dynamics_over(self, dynamics: BaseDynamics, step: float) -> dict[str, Floats]:
        """Matrices over a step, from the dynamics over the base step."""
        flow = self._flow_over_step(self._base_step)
        A, diffusion = flow.rebased(*dynamics, step)
        there = self._flow_over_step(step)
        A, Q = (value[0] for value in there.matrices(A, diffusion))
        unbound = copy.copy(self)
        unbound._grid = None
        return {"transition": A, "process_cov": Q, "observation": unbound._observation(unbound._components(step))}

    def _params_on_grid(self, known: xr.Dataset) -> xr.Dataset:
        """Parameters without those that this copy, which knows the rows, works out for each of them."""
        gone = [*FROM_BASE, "time"]
        if self._base_dynamics is not None and "initial_cov" in known:
            own, given = self._specification(None).value("initial_cov"), values_of(known, "initial_cov")
            if own is not None and np.allclose(given, own, rtol=1e-9, atol=0.0):  # not a start of the user's
                gone.append("initial_cov")
        return known.drop_vars([name for name in gone if name in known.variables])

    def _start_on_grid(self, start: xr.Dataset) -> xr.Dataset:
        """Start of a fit on the rows that this copy knows: with the base dynamics in the place of matrices."""
        kept = self._params_on_grid(start)
        if "process_cov" not in start and "transition" not in start:
            return kept
        flow, names = self._flow_over_step(self._step_of(start)), self._names()
        dynamics = BaseDynamics(*flow.rebased(*self._base_dynamics_of(start), self._base_step))
        coords = dict.fromkeys(("state", "state_aux", "next_state"), names)
        return kept.assign(
            transition=(DIMS["transition"], dynamics.transition), process_cov=(DIMS["process_cov"], dynamics.diffusion)
        ).assign_coords(coords)


def _numbered(names: list[str]) -> list[str]:
    """Names of which those that come again have a number."""
    return [f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name for i, name in enumerate(names)]
