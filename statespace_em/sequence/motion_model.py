"""Models of motion: positions measured at even or uneven times, by one sensor or several."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.core import Core
from statespace_em.errors import DataError, ParameterError
from statespace_em.fitting import Fit, FitOptions
from statespace_em.labels import Labels
from statespace_em.predictive import Predictive
from statespace_em.priors import InverseWishart
from statespace_em.scale.chunks import is_chunked
from statespace_em.sequence.lgssm_params import positions
from statespace_em.sequence.lgssm_specification import DIMS
from statespace_em.sequence.motion import mean_squares, over
from statespace_em.sequence.motion_definition import FOLLOW, Moving, values_of
from statespace_em.sequence.motion_rows import labelled_at, times_ahead, units_of, units_of_densities, with_times
from statespace_em.sequence.motion_stream import Dynamics, MotionStream
from statespace_em.sequence.motion_sum import as_component
from statespace_em.sequence.motion_times import Grid, grid_of
from statespace_em.sequence.state_space import StateSpaceModel
from statespace_em.sequence.structural import StructuralModel
from statespace_em.uncertainty import Quantities


class MotionModel(Moving):
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

    def __init__(
        self,
        kind: Literal["constant_velocity", "constant_acceleration", "coordinated_turn"],
        dims: int | Sequence[str] = 2,
        *,
        rate: float = 0.0,
        density: Any = "equal",
        noise: Any = "equal",
        sensors: int | Mapping[str, Sequence[str]] = 1,
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

    def __add__(self, other: Any) -> StructuralModel:
        """Structural model of a motion along one axis and other components, on even rows."""
        return as_component(self) + other if isinstance(other, StructuralModel) else NotImplemented

    def __radd__(self, other: Any) -> StructuralModel:
        """As `__add__`; settings are those of the left one."""
        return other + as_component(self) if isinstance(other, StructuralModel) else NotImplemented

    # fits and questions, at the times of y

    def fit(self, y: Any, **options: Any) -> Self:
        """Estimate what is free; see `LatentModel.fit` for the options. Units are those of y and of its times."""
        StateSpaceModel.fit(self, y, **options)
        self.tell_units(y)
        return self

    def tell_units(self, y: Any) -> None:
        """Write into the attributes of ``params_`` what its numbers are units of, as y tells it."""
        labels = self._read(y, self.params_)[1] if not is_chunked(y) else None
        index = pd.RangeIndex(0) if labels is None else labels.times[0]
        of_y, of_time = units_of(y, index, self.unit)
        density = units_of_densities(len(self._motion.states) // len(self._motion.view), of_y, of_time)
        self.params_["measurement_cov"].attrs["units"] = f"{of_y}^2"
        self.params_["process_cov"].attrs["density_units"] = density
        uneven = labels is not None and self.step is None and grid_of(labels.times, self.unit, 0).gaps is not None
        step = f"{'median of uneven steps, ' if uneven else ''}{self._step_of(self.params_):g} {of_time}"
        self.params_["transition"].attrs["step"] = step

    def summary(self) -> pd.DataFrame:
        """What was estimated: ``value`` and ``unit`` of the densities and of the noise of each sensor."""
        found = StateSpaceModel.summary(self)
        units = {
            "noise": self.params_["measurement_cov"].attrs.get("units", ""),
            "density": self.params_["process_cov"].attrs.get("density_units", ""),
        }
        names = found.index.get_level_values(0)
        return found.assign(unit=[next((unit for word, unit in units.items() if word in name), "") for name in names])

    def _estimate(self, y: Any, options: FitOptions, *known: Any) -> Fit:
        bound = self._on(y, options.start)
        if options.start is not None:
            options = options._replace(start=bound._start(options.start))
        found = StateSpaceModel._estimate(bound, y, options, *known)
        densities = bound._estimated(found.arrays["process_cov"])
        return found._replace(schema=self._schema(), arrays=found.arrays | bound._shown(densities))

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
        bound = self._on(y, known, self._densities_of(known))
        core, tree, batch, labels, _ = StateSpaceModel._ready(bound, y, bound._inner(known), *more, **options)
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
            densities = bound._estimated(values_of(found, "process_cov"))
        else:
            bound = self._on(y, known, self._densities_of(known))
            found = StateSpaceModel.m_step(bound, y, posterior, bound._inner(known), weights=weights)
            fixed_at = self._fixed_densities()
            densities = bound._estimate_of(y, posterior) if fixed_at is None else fixed_at
        shown = self._schema().dataset(bound._shown(densities)).drop_vars(("feature", "feature_aux"), errors="ignore")
        kept = {name: found[name] for name in ("measurement_cov", "initial_mean", "initial_cov")}
        return shown.assign(kept).assign_coords({dim: found[dim] for dim in ("feature", "feature_aux")})

    def _estimate_of(self, y: Any, posterior: xr.Dataset) -> Floats:
        """Densities (J,) that maximise the expected log density of the states, over the steps that this copy knows."""
        assert self._steps is not None
        batch, labels, _ = self._read(y, None)
        names = {"gamma": ("state",), "cov": ("state", "state_aux"), "cross_cov": ("state", "next_state")}
        mean, cov, cross = (labels.flat(posterior[name], dims) for name, dims in names.items())
        inside = np.ones(len(batch.y), bool)
        inside[batch.starts[1:] - 1] = False
        return mean_squares(self._steps, positions(batch), inside, (mean, cov, cross), self._whitened)

    def at(self, y: Any, times: Any, params: xr.Dataset | None = None) -> xr.Dataset:
        """States given all of y at any times, measured or not: before, between and after the rows.

        Parameters
        ----------
        y, params
            Measurements, and parameters (those of the fit unless given).
        times
            Dates, or numbers where the rows have numbers; put in order.

        Returns
        -------
        xarray.Dataset
            ``smoothed`` ([sequence,] time, state) with ``smoothed_cov``, and of a measurement taken then ``mean``
            (time, feature) with ``cov``; the noise of the sensors is in it.

        Examples
        --------
        >>> import statespace_em as sse
        >>> radar = sse.datasets.radar()
        >>> model = sse.designs.constant_velocity(["east", "north"]).fit(radar["measured"])
        >>> there = model.at(radar["measured"], [11.0, 700.0])               # between two scans, and after the last
        >>> (there["smoothed_cov"].sel(state="east", state_aux="east") ** 0.5).round(0).values.tolist()
        [22.0, 440.0]
        """
        known = self._known(params)
        batch, labels, _ = self._read(y, known)
        wider = with_times(batch, labels, times)
        every = self.smooth(wider.y, known)
        sequence = np.arange(len(wider.rows))[:, None]
        mean, cov = every["smoothed"].values, every["smoothed_cov"].values
        mean, cov = (
            value[wider.rows[0]][None] if labels.sequence is None else value[sequence, wider.rows]
            for value in (mean, cov)
        )
        C, R = self._sensors.view, values_of(known, "measurement_cov")
        columns, square = {"feature": labels.features, "feature_aux": labels.features}, ("feature", "feature_aux")
        values = {
            "smoothed": (("state",), mean),
            "smoothed_cov": (("state", "state_aux"), cov),
            "mean": (("feature",), mean @ C.T),
            "cov": (square, C @ cov @ C.T + R),
        }
        return labelled_at(values, wider, labels, {**self._schema().state_coords, **columns})

    def parameters_at(self, y: Any, params: xr.Dataset | None = None) -> xr.Dataset:
        """Parameters with the dynamics of every row of y, (time, ...): those that lead to the row after it.

        This is what `checks.auxiliary_residuals` needs where rows are uneven.
        """
        known = self._known(params)
        batch, labels, _ = self._read(y, known)
        if labels.sequence is not None:
            raise DataError(f"y has {len(labels.keys)} sequences: ask for one at a time.")
        bound = self._on(y, known, self._densities_of(known))
        grid, n_rows = bound._usual, len(batch.y)
        steps = over(self._motion, np.full(n_rows, grid.step) if grid.gaps is None else grid.gaps[:n_rows])
        dynamics = {"transition": steps.transition, "process_cov": steps.cov(self._densities_of(known))}
        rows = {name: ((labels.time, *DIMS[name]), value) for name, value in dynamics.items()}
        found: xr.Dataset = known.assign(rows).assign_coords(labels.time_coords())
        return found

    def stream(  # type: ignore[override]  # a stream all the same
        self,
        params: xr.Dataset | None = None,
        *,
        gate: float | None = None,
        by: Literal["row", "feature"] = "row",
    ) -> MotionStream:
        """Kalman filter that takes one row at a time, at whatever times they come; a diffuse start is fine.

        Parameters
        ----------
        params
            Parameters (those of the fit unless given).
        gate
            Probability with which a good measurement passes, such as 0.999; what does not is left out and reported,
            as `checks.gated` does. None takes everything.
        by
            Whether rows or single entries are judged.

        Examples
        --------
        >>> import statespace_em as sse
        >>> radar = sse.datasets.radar()
        >>> model = sse.designs.constant_velocity(["east", "north"], density=0.3, noise=625.0).fit(radar["measured"])
        >>> stream = model.stream(gate=0.997)
        >>> steps = [stream.update(row, time=float(row["time"])) for row in radar["measured"]]
        >>> sum(bool(step.outside.any()) for step in steps), int(radar["outlier"].sum())
        (17, 16)
        >>> mean, cov = stream.predict(time=610.0)                         # 12 s after the last row
        """
        known = self._known(params)
        densities = self._densities_of(known)
        _validate.one_of("by", by, ("row", "feature"))
        if gate is not None and not 0.0 < gate < 1.0:
            raise ParameterError(f"gate is {gate!r}, expected a probability between 0 and 1, such as 0.999.")
        if self.initial == "fixed" or self.likelihood == "marginal":
            raise ParameterError(
                'a start that is "fixed", and the marginal likelihood, rest on all rows: a stream takes '
                'initial="diffuse" or "known", and likelihood="diffuse" or "full".'
            )

        @lru_cache(maxsize=8)
        def over_gap(gap: float) -> tuple[Floats, Floats]:
            steps = over(self._motion, np.array([gap]))
            return steps.transition[0], steps.cov(densities)[0]

        def tree(gaps: Floats) -> Any:
            bound = self._at(Grid(1.0, gaps), densities)
            inner = bound._inner(known)
            return bound._core(n_features=known.sizes["feature"]).build(bound._schema().arrays(inner))

        step = self._step_of(known) if self.step is None else float(self.step)
        dynamics = Dynamics(step, over_gap, tree, self.likelihood, self.unit, self.step is None)
        return MotionStream(self, known, dynamics, gate, by)

    def sample(self, n_steps: Any, params: xr.Dataset | None = None, *, seed: int | None = None) -> xr.Dataset:
        """Simulate one sequence: ``state`` (time, state_name) and ``y`` (time, feature).

        ``n_steps`` is the number of rows, even as those of the fit, or their times. States with a diffuse start begin
        at 0, for nothing else is known of them.
        """
        known = self._known(params)
        if np.ndim(n_steps) == 0:
            step = self._step_of(known)
            drawn: xr.Dataset = StateSpaceModel.sample(self, n_steps, params, seed=seed)
            return drawn.assign_coords(time=step * np.arange(n_steps)) if step != 1.0 else drawn
        times = pd.Index(n_steps)
        bound = self._at(grid_of([times], self.unit, 0), self._densities_of(known))
        drawn = StateSpaceModel.sample(bound, len(times), bound._inner(known), seed=seed)
        return drawn.assign_coords(time=times)

    def _drawn(self, times: pd.Index, params: xr.Dataset, seed: int) -> xr.Dataset:
        return self.sample(times if self.step is None else len(times), params, seed=seed)

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
        blank = {name: np.full(values_of(known, name).shape, np.nan) for name in ("transition", "observation")}
        spread = np.abs(steps.cov(each)[0])
        errors = errors | blank | {"process_cov": np.where(spread > 0.0, spread, np.nan)}
        return errors, values | {name: values_of(known, name) for name in FOLLOW}, labels, known, core

    def _future(self, y: Any, horizon: int, params: xr.Dataset, *said: Any) -> tuple[xr.Dataset, Predictive]:
        found, predictive = StateSpaceModel._future(self._until(horizon), y, horizon, params, *said)
        labels = self._read(y, params)[1]
        if labels.sequence is not None or labels.time in found.coords:
            return found, predictive
        step = self._on(y, params)._usual.step
        later = times_ahead(labels.times[0], step, self.unit, horizon)
        return (found if later is None else found.assign_coords({labels.time: ("horizon", later)})), predictive

    def _simulated(
        self, y: Any, horizon: int, n_paths: int, params: xr.Dataset, rng: np.random.Generator, *said: Any
    ) -> xr.Dataset:
        return StateSpaceModel._simulated(self._until(horizon), y, horizon, n_paths, params, rng, *said)

    def _until(self, horizon: int) -> Self:
        """Copy whose dynamics go on for some steps after the last row."""
        later = copy.copy(self)
        later._ahead = horizon
        return later
