"""Models of motion: positions measured at even or uneven times, by one sensor or several."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.core import Core
from statespace_em.errors import ParameterError
from statespace_em.fitting import Fit, FitOptions
from statespace_em.labels import Labels, listed
from statespace_em.patterns import Pattern, fixed
from statespace_em.predictive import Predictive
from statespace_em.priors import InverseWishart
from statespace_em.scale.chunks import is_chunked
from statespace_em.sequence.lgssm_specification import DIMS, Specification
from statespace_em.sequence.motion import AXES, Grid, Motion, Steps, grid_of, motion, noise_pattern, over, spreads
from statespace_em.sequence.state_space import StateSpaceModel
from statespace_em.uncertainty import Quantities

ORDERS = {"constant_velocity": 2, "constant_acceleration": 3, "coordinated_turn": 2}
FOLLOW = ("transition", "process_cov", "observation")  # known once the steps and the densities are


class MotionModel(StateSpaceModel):
    """A target that white noise pushes, in continuous time; made by `statespace_em.designs`.

    The dynamics over each step follow exactly from the time coordinate of y, whatever its gaps: ``params_`` shows
    them for a step of the median length, every question about y uses those of its own rows. Rows without times are
    one unit apart.

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
        Number of sensors, each measuring all axes: y has the columns of the first, then those of the second, ...
        A sensor that reports less often has NaN in the other rows.
    step
        Time between rows; None takes it from the time coordinate.
    unit
        Unit of time of what is per time, where the coordinate has dates.
    initial
        Of the first state: "diffuse", "fixed" (unknown constants), or "known": ``initial_mean``, ``initial_cov``.
    likelihood, measurement_prior, unsorted
        As in `LinearGaussianSSM`.

    Notes
    -----
    A stream needs a proper first state: what `filter` predicts for a row k once the start is determined,
    ``params_.assign(initial_mean=known.predicted.isel(time=k, drop=True), initial_cov=...)``.
    """

    process_prior = InverseWishart()

    def __init__(
        self,
        kind: Literal["constant_velocity", "constant_acceleration", "coordinated_turn"],
        dims: int | Sequence[str] = 2,
        *,
        rate: float = 0.0,
        density: Any = "equal",
        noise: Any = "equal",
        sensors: int = 1,
        step: float | None = None,
        unit: str = "s",
        initial: Literal["diffuse", "fixed", "known"] = "diffuse",
        initial_mean: Any = None,
        initial_cov: Any = None,
        likelihood: Literal["diffuse", "full", "marginal"] = "diffuse",
        measurement_prior: InverseWishart = InverseWishart(),
        unsorted: Literal["error", "sort"] = "error",
    ) -> None:
        self.kind = kind
        self.dims = dims
        self.rate = rate
        self.density = density
        self.noise = noise
        self.sensors = sensors
        self.step = step
        self.unit = unit
        self.initial = initial
        self.initial_mean = initial_mean
        self.initial_cov = initial_cov
        self.likelihood = likelihood
        self.measurement_prior = measurement_prior
        self.unsorted = unsorted

    # the times of the rows: a copy of the model knows them while a question about y is answered

    _grid: Grid | None = None  # of the rows of y
    _known_densities: Floats | None = None  # None while they are estimated
    _steps: Steps | None = None  # dynamics between the rows, where these are uneven
    _ahead: int = 0  # steps after the last row that are asked for

    def _on(self, y: Any, params: xr.Dataset | None, densities: Floats | None = None) -> Self:
        """Copy of this model that knows the times of the rows of y."""
        bound = copy.copy(self)
        if self.step is not None or is_chunked(y):
            bound._grid = self._usual
        else:
            bound._grid = grid_of(self._read(y, params)[1], self.unit, self._ahead)
        bound._known_densities = densities
        gaps = bound._grid.gaps
        bound._steps = None if gaps is None else over(self._motion, gaps)
        return bound

    @property
    def _usual(self) -> Grid:
        """Even rows, at the step of the model or of its fit."""
        if self._grid is not None:
            return self._grid
        params = getattr(self, "params_", None)
        fitted = 1.0 if params is None else self._step_of(params)
        return Grid(fitted if self.step is None else float(self.step), None)

    def _step_of(self, params: xr.Dataset) -> float:
        """Step that the dynamics of these parameters are for."""
        if "transition" not in params:
            return 1.0 if self.step is None else float(self.step)
        matrix, moves = _values(params, "transition"), self._motion
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
        return pattern.read(_values(params, "process_cov"))

    # what the model is made of

    @property
    def _axes(self) -> list[str]:
        if isinstance(self.dims, int | np.integer):
            if not 1 <= self.dims <= len(AXES):
                raise ParameterError(f"dims is {self.dims}, expected 1, 2 or 3, or names of the axes.")
            return list(AXES[: int(self.dims)])
        axes = [str(name) for name in self.dims]
        if not 1 <= len(axes) <= len(AXES) or len(set(axes)) < len(axes):
            raise ParameterError(f"dims names {listed(axes)}, expected up to three different axes.")
        return axes

    @property
    def _motion(self) -> Motion:
        _validate.one_of("kind", self.kind, tuple(ORDERS))
        axes, turns = self._axes, self.kind == "coordinated_turn"
        if turns and (len(axes) < 2 or not np.isfinite(self.rate) or not self.rate):
            raise ParameterError(
                f"a turn of rate {self.rate} along {listed(axes)}: it needs two axes and a rate that is not 0."
            )
        if not turns and self.rate:
            raise ParameterError(f"rate is {self.rate}, but only a coordinated_turn turns.")
        separate = not isinstance(self.density, str) and np.ndim(self.density) > 0
        separate = separate or (isinstance(self.density, str) and self.density == "separate")
        if turns and separate:
            raise ParameterError("a turn mixes its axes: its density is one for all, 'equal' or a number.")
        return motion(axes, ORDERS[self.kind], float(self.rate) if turns else 0.0, separate=separate)

    def _fixed_densities(self) -> Floats | None:
        """Densities given as numbers."""
        if isinstance(self.density, str):
            _validate.one_of("density", self.density, ("equal", "separate"))
            return None
        values = np.atleast_1d(np.asarray(self.density, dtype=float))
        size = len(self._motion.densities)
        if values.shape != (size,) or not np.isfinite(values).all() or not (values > 0.0).all():
            raise ParameterError(f"density is {self.density!r}, expected a positive number, or one for each axis.")
        return values

    def _names(self) -> list[Any]:
        return self._motion.states

    def _derived(self, values: Mapping[str, float]) -> dict[str, float]:
        return {}

    def _specification(self, n_features: int | None) -> Specification:
        moves, grid = self._motion, self._usual
        _validate.at_least("sensors", self.sensors, 1, whole=True)
        view = np.tile(moves.view, (int(self.sensors), 1))
        if n_features not in (None, len(view)):
            raise ParameterError(
                f"y has {n_features} columns, expected {len(view)}: {listed(self._axes)} of {self.sensors} sensor(s)."
            )
        known = self._fixed_densities()
        n = len(moves.states)
        varying: dict[str, Floats] = {}
        spread: Floats | None = None
        patterns = {"measurement_cov": noise_pattern(self.noise, self._axes, self.sensors)}
        if self._steps is None:
            steps = over(moves, np.array([grid.step]))
            free = Pattern(tuple(moves.densities), np.zeros((n, n)), steps.noises[:, 0])
            patterns |= {"transition": fixed(steps.transition[0]), "observation": fixed(view)}
            patterns["process_cov"] = free if known is None else fixed(free.build(known))
        elif self._known_densities is not None:
            varying = {"transition": self._steps.transition, "process_cov": self._steps.cov(self._known_densities)}
            patterns["observation"] = fixed(view)
        else:
            white = np.stack([np.diag(own) for own in self._whitened])
            free = Pattern(tuple(moves.densities), np.zeros((n, n)), white)
            patterns["process_cov"] = free if known is None else fixed(free.build(known))
            varying, spread = {"transition": self._steps.transition}, spreads(self._steps)
            patterns["observation"] = fixed(view)
        _validate.one_of("initial", self.initial, ("diffuse", "fixed", "known"))
        patterns |= self._first_state(n)
        return Specification(
            moves.states, len(view), patterns, varying, (self.initial,) * n, spread=spread,
        )  # fmt: skip

    @property
    def _whitened(self) -> Floats:
        """Which of the whitened states (J, n) each density drives: those of its axis."""
        moves = self._motion
        d, n_densities = len(moves.view), len(moves.densities)
        axis = np.arange(len(moves.states)) % d
        return np.ones((1, len(axis))) if n_densities == 1 else np.asarray(axis == np.arange(d)[:, None], dtype=float)

    def _first_state(self, n: int) -> dict[str, Pattern]:
        if self.initial != "known":
            at, spread = (0.0, np.inf) if self.initial == "diffuse" else (np.nan, 0.0)
            return {"initial_mean": fixed(np.full(n, at)), "initial_cov": fixed(np.diag(np.full(n, spread)))}
        if self.initial_mean is None or self.initial_cov is None:
            raise ParameterError("initial is 'known': give initial_mean and initial_cov.")
        mean, cov = np.asarray(self.initial_mean, dtype=float), np.asarray(self.initial_cov, dtype=float)
        if mean.shape != (n,) or cov.shape != (n, n):
            raise ParameterError(
                f"initial_mean has shape {mean.shape} and initial_cov {cov.shape}, expected {(n,)} and {(n, n)} for "
                f"the states {listed(self._motion.states)}."
            )
        _validate.finite("number", "initial_mean", mean)
        _validate.covariance("initial_cov", cov, (), semi=True)
        return {"initial_mean": fixed(mean), "initial_cov": fixed(cov)}

    # fits and questions, at the times of y

    def _estimate(self, y: Any, options: FitOptions, *known: Any) -> Fit:
        bound = self._on(y, options.start)
        if options.start is not None:
            options = options._replace(start=bound._start(options.start))
        found = StateSpaceModel._estimate(bound, y, options, *known)
        densities = bound._estimated(found.arrays["process_cov"])
        return found._replace(arrays=found.arrays | bound._shown(densities))

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
        view = np.tile(self._motion.view, (self.sensors, 1))
        return {"transition": steps.transition[0], "process_cov": steps.cov(densities)[0], "observation": view}

    def _start(self, start: xr.Dataset) -> xr.Dataset:
        """Start of a fit on the rows that this copy knows."""
        kept = start.drop_vars([name for name in FOLLOW if name in start])
        if "process_cov" not in start:
            return kept
        cov = self._specification(None).patterns["process_cov"].build(self._densities_of(start))
        names = self._names()
        return kept.assign(process_cov=(DIMS["process_cov"], cov)).assign_coords(state=names, state_aux=names)

    def _ready(self, y: Any, params: xr.Dataset | None, *more: Any, **options: Any) -> Any:
        if self._grid is not None:
            return StateSpaceModel._ready(self, y, params, *more, **options)
        known = self._known(params)
        densities = self._densities_of(known)
        bound = self._on(y, known, densities=densities)
        inner = known.drop_vars([name for name in FOLLOW if name in known])
        if bound._steps is None:
            arrays = bound._shown(densities)
            names = self._names()
            inner = inner.assign({name: (DIMS[name], arrays[name]) for name in ("transition", "process_cov")})
            inner = inner.assign_coords(dict.fromkeys(("state", "state_aux", "next_state"), names))
        core, tree, batch, labels, _ = StateSpaceModel._ready(bound, y, inner, *more, **options)
        return core, tree, batch, labels, known

    def m_step(
        self, y: Any, posterior: xr.Dataset, params: xr.Dataset | None = None, *, weights: Any = None
    ) -> xr.Dataset:
        """New parameters that maximise the expected log joint under this posterior; see `LatentModel.m_step`.

        The estimate of a density is the mean over steps of ``tr(inv(Q0) E[w w']) / n``, Q0 being the covariance of
        the noise of the step per density.
        """
        known = self._known(params)
        if self._on(y, known)._steps is None:
            bound = self._on(y, known)
            found = StateSpaceModel.m_step(bound, y, posterior, bound._start(known), weights=weights)
            densities = bound._estimated(_values(found, "process_cov"))
        else:
            bound = self._on(y, known, self._densities_of(known))
            inner = known.drop_vars([name for name in FOLLOW if name in known])
            found = StateSpaceModel.m_step(bound, y, posterior, inner, weights=weights)
            fixed_at = self._fixed_densities()
            densities = bound._mean_squares(posterior) if fixed_at is None else fixed_at
        shown = self._schema().dataset(bound._shown(densities)).drop_vars(("feature", "feature_aux"), errors="ignore")
        kept = {name: found[name] for name in ("measurement_cov", "initial_mean", "initial_cov")}
        return shown.assign(kept).assign_coords({dim: found[dim] for dim in ("feature", "feature_aux")})

    def _mean_squares(self, posterior: xr.Dataset) -> Floats:
        """Expected squares (J,) of what drives the states, over the steps that this copy knows."""
        assert self._steps is not None
        mean, cov = posterior["gamma"].transpose(..., "state").values, posterior["cov"].values
        cross = posterior["cross_cov"].transpose(..., "state", "next_state").values[..., :-1, :, :]
        n_steps = cross.shape[-3]
        A, spread = self._steps.transition[:n_steps], spreads(self._steps)[:n_steps]
        shock = mean[..., 1:, :] - (A @ mean[..., :-1, :, None])[..., 0]
        linked = A @ cross
        moment = cov[..., 1:, :, :] - linked - linked.swapaxes(-1, -2) + A @ cov[..., :-1, :, :] @ A.swapaxes(1, 2)
        moment += shock[..., :, None] * shock[..., None, :]
        white = np.linalg.solve(spread, np.linalg.solve(spread, moment).swapaxes(-1, -2))
        squares = np.nanmean(np.diagonal(white, axis1=-2, axis2=-1).reshape(-1, mean.shape[-1]), axis=0)
        return np.array([squares[own > 0.0].mean() for own in self._whitened])

    def sample(self, n_steps: int, params: xr.Dataset | None = None, *, seed: int | None = None) -> xr.Dataset:
        """Simulate one sequence at even times: ``state`` (time, state) and ``y`` (time, feature).

        States with a diffuse start begin at 0, for nothing else is known of them.
        """
        step = self._step_of(self._known(params))
        drawn: xr.Dataset = StateSpaceModel.sample(self, n_steps, params, seed=seed)
        return drawn.assign_coords(time=step * np.arange(n_steps)) if step != 1.0 else drawn

    def bootstrap(self, y: Any, params: xr.Dataset | None = None, **options: Any) -> xr.Dataset:
        """Parametric bootstrap, of even rows only; see `Uncertain.bootstrap`."""
        known = self._known(params)
        if self._on(y, known)._steps is not None:
            raise ParameterError("the bootstrap simulates even rows, and those of y are not: put NaN between them.")
        even = type(self)(**(self.get_params() | {"step": self._step_of(known)}))
        found: xr.Dataset = StateSpaceModel.bootstrap(even, y, known, **options)
        return found

    def _errors(
        self, y: Any, params: xr.Dataset | None, of: Quantities, freeze: Any, states: Any, weights: Any
    ) -> tuple[dict[str, Floats], dict[str, Floats], Labels, xr.Dataset, Core]:
        known = self._known(params)
        bound = self._on(y, known)
        found = StateSpaceModel._errors(bound, y, bound._start(known), of, freeze, states, weights)
        if bound._steps is None or of != "parameters":
            return found
        errors, values, labels, _, core = found
        alone = np.isfinite(errors["process_cov"]).diagonal()
        steps = over(self._motion, np.array([self._step_of(known)]))
        each = np.array([np.where(alone, np.diag(errors["process_cov"]), 0.0)[own > 0.0][-1] for own in self._whitened])
        blank = {name: np.full(_values(known, name).shape, np.nan) for name in ("transition", "observation")}
        spread = np.abs(steps.cov(each)[0])
        errors = errors | blank | {"process_cov": np.where(spread > 0.0, spread, np.nan)}
        return errors, values | {name: _values(known, name) for name in FOLLOW}, labels, known, core

    def _future(self, y: Any, horizon: int, params: xr.Dataset, *said: Any) -> tuple[xr.Dataset, Predictive]:
        return StateSpaceModel._future(self._until(horizon), y, horizon, params, *said)

    def _simulated(
        self, y: Any, horizon: int, n_paths: int, params: xr.Dataset, rng: np.random.Generator, *said: Any
    ) -> xr.Dataset:
        return StateSpaceModel._simulated(self._until(horizon), y, horizon, n_paths, params, rng, *said)

    def _until(self, horizon: int) -> Self:
        """Copy whose dynamics go on for some steps after the last row."""
        later = copy.copy(self)
        later._ahead = horizon
        return later


def _values(params: xr.Dataset, name: str) -> Floats:
    return np.asarray(params[name].transpose(*DIMS[name]).values, dtype=float)
