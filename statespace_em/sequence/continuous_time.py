"""Models in continuous time: every question is answered at the times of the rows that it is about.

A copy of the model that knows these times, ``bound``, is an ordinary linear-Gaussian model with matrices for every row.
What is asked of it is therefore asked of `StateSpaceModel`.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import Floats
from statespace_em.core import Core
from statespace_em.errors import ParameterError
from statespace_em.fitting import Fit, FitOptions
from statespace_em.labels import Labels
from statespace_em.predictive import Predictive
from statespace_em.scale.chunks import is_chunked
from statespace_em.schema import state_coords
from statespace_em.sequence.continuous_definition import FROM_BASE, BaseDynamics, ContinuousDefinition
from statespace_em.sequence.filter_row import By, Guard, owners
from statespace_em.sequence.flow import shock_gradients
from statespace_em.sequence.lgssm_params import positions
from statespace_em.sequence.lgssm_specification import DIMS
from statespace_em.sequence.lgssm_values import values_of
from statespace_em.sequence.state_space import StateSpaceModel
from statespace_em.sequence.stream_continuous import ContinuousStream, Dynamics
from statespace_em.sequence.stream_kalman import check_streams
from statespace_em.sequence.time_grid import Grid, grid_of, step_of
from statespace_em.sequence.time_labels import (
    labelled_at,
    squared,
    times_ahead,
    unit_of,
    units_of,
    with_times,
    with_units,
)
from statespace_em.uncertainty import Quantities


class ContinuousTimeModel(ContinuousDefinition):
    """A linear-Gaussian model in continuous time, whatever its components."""

    def fit(self, y: Any, **options: Any) -> Self:
        """Estimate what is free; see `LatentModel.fit` for the options. Units are those of y and of its times."""
        super().fit(y, **options)
        self.label_units(y)
        return self

    def summary(self) -> pd.DataFrame:
        """What was estimated: ``value`` and ``unit``, such as of densities and of the noise of each sensor."""
        return with_units(super().summary(), self._known(None))

    def label_units(self, y: Any) -> None:
        """Write into the attributes of ``params_`` what its numbers are units of, as y tells it."""
        labels = self._read(y, self.params_)[1] if not is_chunked(y) else None
        index = pd.RangeIndex(0) if labels is None else labels.times[0]
        of_y, of_time = units_of(y, index, self.unit)
        grid = None if labels is None or self.step is not None else grid_of(labels.times, self.unit, 0)
        step = self._step_of(self.params_)
        told = f"{step:g} {of_time}"
        if grid is not None and grid.gaps is not None:
            told = f"median of uneven steps, {told}" if grid.step == step else f"{told}, of uneven steps"
        elif grid is not None and grid.step != step:
            told = f"{told}, of steps of {grid.step:g}"
        self.params_["measurement_cov"].attrs["units"] = squared(of_y)
        moving = [] if self._motion is None else self._motion.states
        if 0 < len(moving) < len(self._names()):  # beside noises and biases
            self.params_["observation"].attrs["moving"] = list(moving)
        self.params_["transition"].attrs.update(step=told, time_units=of_time)
        if grid is not None:
            self.params_["transition"].attrs["row_step"] = grid.step
        for name in self._flow_over_step(1.0).names_of(free=False)[:1]:
            if name.partition("_density")[1]:
                self.params_["process_cov"].attrs["density_units"] = unit_of(name, of_y, of_time)

    def _estimate(self, y: Any, options: FitOptions, *known: Any) -> Fit:
        bound = self._bound(y, options.start)
        if options.start is not None:
            options = options._replace(start=bound._start_on_grid(options.start))
        found = StateSpaceModel._estimate(bound, y, options, *known)
        dynamics = BaseDynamics(found.arrays["transition"], found.arrays["process_cov"])
        assert bound._grid is not None
        shown = bound._dynamics_over(dynamics, self._params_step(bound._grid))
        return found._replace(schema=self._schema(), arrays=found.arrays | shown)

    def _prepare(self, y: Any, params: xr.Dataset | None, *more: Any, **options: Any) -> Any:
        """As of `LatentModel`; with ``freeze``, which questions about estimates have, the tree has base dynamics."""
        known = self._known(params)
        estimates = options.get("freeze", more[2] if len(more) > 2 else None) is not None
        dynamics = None if estimates else self._base_dynamics_of(known)
        bound = self._bound(y, known, base_step=self._step_of(known), dynamics=dynamics)
        inner = bound._start_on_grid(known) if estimates else bound._params_on_grid(known)
        core, tree, batch, labels, _ = StateSpaceModel._prepare(bound, y, inner, *more, **options)
        return core, tree, batch, labels, known

    def _named(self, core: Core, tree: Any) -> dict[str, Floats]:
        """Named values of a tree with base dynamics, which questions about estimates have, see `_prepare`."""
        return StateSpaceModel._named(self._with_grid(Grid(1.0), 1.0, None), core, tree)

    def _drawn_parameters(self, drawn: list[dict[str, Floats]], labels: Labels, known: xr.Dataset) -> xr.Dataset:
        step = self._step_of(known)
        bound = self._with_grid(Grid(step), step, None)
        shown = [a | bound._dynamics_over(BaseDynamics(a["transition"], a["process_cov"]), step) for a in drawn]
        return super()._drawn_parameters(shown, labels, known)

    def _errors(
        self, y: Any, params: xr.Dataset | None, of: Quantities, freeze: Any, states: Any, weights: Any
    ) -> tuple[dict[str, Floats], dict[str, Floats], Labels, xr.Dataset, Core, dict[str, str]]:
        found = super()._errors(y, params, of, freeze, states, weights)
        if of != "parameters":
            return found
        errors, values, labels, known, core, notes = found
        pattern = self._flow_over_step(self._step_of(known)).process_cov_pattern()
        by_source = self._flow_over_step(1.0).diffusion().read(np.nan_to_num(errors["process_cov"], nan=0.0))
        enters = np.abs(pattern.design) > 0.0
        single = (enters.sum(0) == 1) & (enters & (by_source > 0.0)[:, None, None]).any(0)  # else several add up
        process_cov = np.where(single, np.abs(np.tensordot(by_source, pattern.design, 1)), np.nan)
        observation = self._observation(self._components(1.0))
        errors = errors | {"process_cov": process_cov, "observation": np.full(observation.shape, np.nan)}
        values |= {name: values_of(known, name) for name in FROM_BASE[:2]} | {"observation": observation}
        return errors, values, labels, known, core, notes

    def m_step(
        self, y: Any, posterior: xr.Dataset, params: xr.Dataset | None = None, *, weights: Any = None
    ) -> xr.Dataset:
        """New parameters that maximise the expected log joint under this posterior; see `LatentModel.m_step`.

        The size of a source of noise moves to the mean square, over steps, of the shocks that the posterior expects.
        Decays of autoregressions and cycles have no closed form: they stay, ``fit`` finds them by the score.
        """
        known = self._known(params)
        step, dynamics = self._step_of(known), self._base_dynamics_of(known)
        bound = self._bound(y, known, base_step=step, dynamics=dynamics)
        found = StateSpaceModel.m_step(bound, y, posterior, bound._params_on_grid(known), weights=weights)
        batch, labels, _ = bound._read(y, None)
        names = {"gamma": ("state",), "cov": ("state", "state_aux"), "cross_cov": ("state", "next_state")}
        moments = [labels.flat(posterior[name], dims) for name, dims in names.items()]
        flow = bound._flow
        slopes, entries, n_pairs = shock_gradients(
            flow.matrices(*dynamics), flow.kinds, positions(batch), batch, moments
        )
        noise = np.zeros_like(slopes)
        tree = bound._core(n_features=batch.y.shape[1]).build(bound._schema().arrays(bound._params_on_grid(known)))
        tree = tree._replace(transition=dynamics.transition, process_cov=dynamics.diffusion)
        slope = flow.back(tree, noise, slopes, entries)[1]
        pattern = flow.diffusion()
        diffusion = pattern.build(pattern.read(flow.scatter(dynamics.diffusion, slope, n_pairs) / n_pairs))
        shown = self._schema().dataset(bound._dynamics_over(BaseDynamics(dynamics.transition, diffusion), step))
        shown = shown.drop_vars(("feature", "feature_aux"), errors="ignore")
        kept = {name: found[name] for name in ("measurement_cov", "initial_mean", "initial_cov")}
        return shown.assign(kept).assign_coords({dim: found[dim] for dim in ("feature", "feature_aux")})

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
        C, R = self._plain_view("at() looks between rows"), values_of(known, "measurement_cov")
        batch, labels, _ = self._read(y, known)
        wider = with_times(batch, labels, times)
        every = self.smooth(wider.y, known)
        sequence = np.arange(len(wider.rows))[:, None]
        mean, cov = every["smoothed"].values, every["smoothed_cov"].values
        mean, cov = (
            value[wider.rows[0]][None] if labels.sequence is None else value[sequence, wider.rows]
            for value in (mean, cov)
        )
        columns, square = {"feature": labels.features, "feature_aux": labels.features}, ("feature", "feature_aux")
        values = {
            "smoothed": (("state",), mean),
            "smoothed_cov": (("state", "state_aux"), cov),
            "mean": (("feature",), mean @ C.T),
            "cov": (square, C @ cov @ C.T + R),
        }
        return labelled_at(values, wider, labels, {**state_coords(self._names()), **columns})

    def _plain_view(self, asked: str) -> Floats:
        """Observation matrix (D, n), refused where regressors make one for every row."""
        observation = self._observation(self._components(1.0))
        if observation.ndim == 3:
            raise ParameterError(
                f"{asked}, where the columns of the regression are not known: use smooth(y), filter(y)."
            )
        return observation

    def parameters_at(self, y: Any, params: xr.Dataset | None = None) -> xr.Dataset:
        """Parameters at every row of y, ([sequence,] time, ...): the dynamics that lead from it to the next.

        This is what `checks.auxiliary_residuals` needs where rows are uneven.
        """
        known = self._known(params)
        bound = self._bound(y, known, base_step=self._step_of(known), dynamics=self._base_dynamics_of(known))
        batch, labels, _ = bound._read(y, known)
        grid, entries = bound._grid, positions(batch)
        assert grid is not None
        assert bound._base_dynamics is not None
        flow = bound._flow.over(np.full(len(batch.y), grid.step) if grid.gaps is None else grid.gaps[entries])
        found = dict(zip(("transition", "process_cov"), flow.matrices(*bound._base_dynamics)))
        rows = {name: (DIMS[name], value[flow.kinds]) for name, value in found.items()}
        observation = bound._observation(bound._components(bound._base_step))
        if observation.ndim == 3:
            known, rows["observation"] = known.drop_dims("time"), (DIMS["observation"], observation[entries])
        shown = labels.dataset(rows, {})
        whole: xr.Dataset = known.assign({name: shown[name].variable for name in rows})
        return whole.assign_coords(labels.time_coords())

    def stream(  # type: ignore[override]  # a stream all the same
        self,
        params: xr.Dataset | None = None,
        *,
        gate: float | None = None,
        by: By = "row",
        dof: Any = None,
    ) -> ContinuousStream:
        """Kalman filter that takes one row at a time, at whatever times they come; a diffuse start is fine.

        See `LinearGaussianSSM.stream` for the arguments.

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
        self._plain_view("a stream goes on beyond the rows")
        features = known["feature"].values.tolist()
        names = owners(by, features, self._sensor_names())
        guard = Guard.of(gate, dof, names, values_of(known, "measurement_cov"), features)
        base_step, base = self._step_of(known), self._base_dynamics_of(known)
        flow = self._with_grid(Grid(base_step), base_step, base)._flow

        @lru_cache(maxsize=8)
        def over_gap(gap: float) -> tuple[Floats, Floats]:
            A, Q = flow.over(np.array([gap])).matrices(*base)
            return A[0], Q[0]

        def tree(gaps: Floats) -> Any:
            bound = self._with_grid(Grid(1.0, gaps), base_step, base)
            core = bound._core(n_features=known.sizes["feature"])
            return core.build(bound._schema().arrays(bound._params_on_grid(known)))

        check_streams(tree(np.ones(1)), self.likelihood)
        dynamics = Dynamics(self._row_step(known), over_gap, tree, self.likelihood, self.unit, self.step is None)
        return ContinuousStream(self, known, dynamics, guard)

    def sample(self, n_steps: Any, params: xr.Dataset | None = None, *, seed: int | None = None) -> xr.Dataset:
        """Simulate one sequence: ``state`` (time, state_name) and ``y`` (time, feature).

        ``n_steps`` is the number of rows, even as those of the fit, or their times. States with a diffuse start begin
        at 0, for nothing else is known of them.
        """
        known = self._known(params)
        counted = np.ndim(n_steps) == 0
        times = None if counted else pd.Index(n_steps)
        grid = Grid(self._row_step(known)) if times is None else grid_of([times], self.unit, 0)
        bound = self._with_grid(grid, self._step_of(known), self._base_dynamics_of(known))
        n_rows = n_steps if times is None else len(times)
        drawn: xr.Dataset = StateSpaceModel.sample(bound, n_rows, bound._params_on_grid(known), seed=seed)
        if times is None:
            return drawn.assign_coords(time=grid.step * np.arange(n_steps)) if grid.step != 1.0 else drawn
        return drawn.assign_coords(time=times)

    def _simulate_like(self, labels: Labels, which: int, params: xr.Dataset, seed: int) -> xr.Dataset:
        times = labels.times[which]
        return self.sample(times if self.step is None else len(times), params, seed=seed)

    def _future(self, y: Any, horizon: int, params: xr.Dataset, *conditions: Any) -> tuple[xr.Dataset, Predictive]:
        found, predictive = StateSpaceModel._future(self._until(horizon), y, horizon, params, *conditions)
        labels = self._read(y, params)[1]
        if labels.time in found.coords:
            return found, predictive
        grid = self._bound(y, params)._grid
        assert grid is not None
        steps = [grid.step if grid.gaps is None else step_of(times, self.unit, grid.step) for times in labels.times]
        later = [times_ahead(times, step, self.unit, horizon) for times, step in zip(labels.times, steps)]
        if any(times is None for times in later):
            return found, predictive
        if labels.sequence is None:
            return found.assign_coords({labels.time: ("horizon", later[0])}), predictive
        stamps = np.array([list(times) for times in later if times is not None])
        return found.assign_coords(timestamp=((labels.sequence, "horizon"), stamps)), predictive

    def _simulate_ahead(
        self, y: Any, horizon: int, n_paths: int, params: xr.Dataset, rng: np.random.Generator, *conditions: Any
    ) -> xr.Dataset:
        return StateSpaceModel._simulate_ahead(self._until(horizon), y, horizon, n_paths, params, rng, *conditions)

    def _until(self, horizon: int) -> Self:
        """Copy whose dynamics go on for some steps after the last row."""
        later = copy.copy(self)
        later._steps_ahead = horizon
        return later
