"""Questions to a model in continuous time: each is answered at the times of the rows it is about."""

from __future__ import annotations

import copy
from abc import abstractmethod
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
from statespace_em.sequence.filter_row import By, Guard, owners
from statespace_em.sequence.flow import shock_gradients
from statespace_em.sequence.lgssm_params import positions
from statespace_em.sequence.lgssm_specification import DIMS
from statespace_em.sequence.motion_rows import (
    labelled_at,
    squared,
    times_ahead,
    unit_of,
    units_of,
    with_times,
    with_units,
)
from statespace_em.sequence.motion_stream import Dynamics, MotionStream
from statespace_em.sequence.motion_times import Grid, grid_of, step_of
from statespace_em.sequence.state_space import StateSpaceModel
from statespace_em.sequence.stream_kalman import check_streams
from statespace_em.sequence.timed_definition import FOLLOW, Own, Timed, values_of
from statespace_em.uncertainty import Quantities


class TimedModel(Timed):
    """What models in continuous time answer, whatever they are made of."""

    def fit(self, y: Any, **options: Any) -> Self:
        """Estimate what is free; see `LatentModel.fit` for the options. Units are those of y and of its times."""
        StateSpaceModel.fit(self, y, **options)
        self.tell_units(y)
        return self

    def summary(self) -> pd.DataFrame:
        """What was estimated: ``value`` and ``unit``, such as of densities and of the noise of each sensor."""
        return with_units(StateSpaceModel.summary(self), self._known(None))

    def tell_units(self, y: Any) -> None:
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
        moving = self._moving()
        if moving:
            self.params_["observation"].attrs["moving"] = moving
        self.params_["transition"].attrs.update(step=told, time_units=of_time)
        if grid is not None:
            self.params_["transition"].attrs["row_step"] = grid.step
        for name in self._flow_over(1.0).names_of(free=False)[:1]:
            if name.partition("_density")[1]:
                self.params_["process_cov"].attrs["density_units"] = unit_of(name, of_y, of_time)

    @abstractmethod
    def _moving(self) -> list[str]:
        """States of a target that moves, where those of noises and biases are beside them; else empty."""

    def _estimate(self, y: Any, options: FitOptions, *known: Any) -> Fit:
        bound = self._on(y, options.start)
        if options.start is not None:
            options = options._replace(start=bound._start(options.start))
        found = StateSpaceModel._estimate(bound, y, options, *known)
        own = Own(found.arrays["transition"], found.arrays["process_cov"])
        assert bound._grid is not None
        shown = bound._shown(own, self._shown_step(bound._grid))
        return found._replace(schema=self._schema(), arrays=found.arrays | shown)

    def _ready(self, y: Any, params: xr.Dataset | None, *more: Any, **options: Any) -> Any:
        """As of `LatentModel`; with ``freeze``, which questions about estimates have, the tree has own parameters."""
        if self._grid is not None:
            return StateSpaceModel._ready(self, y, params, *more, **options)
        known = self._known(params)
        asked = options.get("freeze", more[2] if len(more) > 2 else None) is not None
        bound = self._on(y, known, base=self._step_of(known), held=None if asked else self._own(known))
        inner = bound._start(known) if asked else bound._inner(known)
        core, tree, batch, labels, _ = StateSpaceModel._ready(bound, y, inner, *more, **options)
        return core, tree, batch, labels, known

    def _named(self, core: Core, tree: Any) -> dict[str, Floats]:
        """Named values of a tree with own parameters, which questions about estimates have, see `_ready`."""
        return StateSpaceModel._named(self._at(Grid(1.0), 1.0, None), core, tree)

    def _drawn_parameters(self, drawn: list[dict[str, Floats]], labels: Labels, known: xr.Dataset) -> xr.Dataset:
        step = self._step_of(known)
        bound = self._at(Grid(step), step, None)
        shown = [a | bound._shown(Own(a["transition"], a["process_cov"]), step) for a in drawn]
        return StateSpaceModel._drawn_parameters(self, shown, labels, known)

    def _errors(
        self, y: Any, params: xr.Dataset | None, of: Quantities, freeze: Any, states: Any, weights: Any
    ) -> tuple[dict[str, Floats], dict[str, Floats], Labels, xr.Dataset, Core, dict[str, str]]:
        found = StateSpaceModel._errors(self, y, params, of, freeze, states, weights)
        if of != "parameters":
            return found
        errors, values, labels, known, core, notes = found
        shown = self._flow_over(self._step_of(known)).shown_cov()
        own = self._flow_over(1.0).own_noise().read(np.nan_to_num(errors["process_cov"], nan=0.0))
        told = own > 0.0
        makes = np.abs(shown.design) > 0.0
        alone = (makes.sum(0) == 1) & (makes & told[:, None, None]).any(0)  # else errors of several add up
        spread = np.abs(np.tensordot(own, shown.design, 1))
        errors = errors | {"process_cov": np.where(alone, spread, np.nan)}
        seen = self._view(self._pieces(1.0))
        errors["observation"] = np.full(seen.shape, np.nan)
        values |= {name: values_of(known, name) for name in FOLLOW[:2]} | {"observation": seen}
        return errors, values, labels, known, core, notes

    def m_step(
        self, y: Any, posterior: xr.Dataset, params: xr.Dataset | None = None, *, weights: Any = None
    ) -> xr.Dataset:
        """New parameters that maximise the expected log joint under this posterior; see `LatentModel.m_step`.

        The size of a source of noise moves to the mean square, over steps, of the shocks that the posterior expects.
        Decays of autoregressions and cycles have no closed form: they stay, ``fit`` finds them by the score.
        """
        known = self._known(params)
        step, own = self._step_of(known), self._own(known)
        bound = self._on(y, known, base=step, held=own)
        found = StateSpaceModel.m_step(bound, y, posterior, bound._inner(known), weights=weights)
        batch, labels, _ = bound._read(y, None)
        names = {"gamma": ("state",), "cov": ("state", "state_aux"), "cross_cov": ("state", "next_state")}
        moments = [labels.flat(posterior[name], dims) for name, dims in names.items()]
        flow = bound._flow
        slopes, entries, n_pairs = shock_gradients(flow.matrices(*own), flow.kinds, positions(batch), batch, moments)
        noise = np.zeros_like(slopes)
        tree = bound._core(n_features=batch.y.shape[1]).build(bound._schema().arrays(bound._inner(known)))
        by_Q = flow.back(tree._replace(transition=own.transition, process_cov=own.cov), noise, slopes, entries)[1]
        pattern = flow.own_noise()
        cov = pattern.build(pattern.read(flow.scatter(own.cov, by_Q, n_pairs) / n_pairs))
        shown = self._schema().dataset(bound._shown(Own(own.transition, cov), step))
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
        view = self._view(self._pieces(1.0))
        if view.ndim == 3:
            raise ParameterError(
                f"{asked}, where the columns of the regression are not known: use smooth(y), filter(y)."
            )
        return view

    def parameters_at(self, y: Any, params: xr.Dataset | None = None) -> xr.Dataset:
        """Parameters at every row of y, ([sequence,] time, ...): the dynamics that lead from it to the next.

        This is what `checks.auxiliary_residuals` needs where rows are uneven.
        """
        known = self._known(params)
        bound = self._on(y, known, base=self._step_of(known), held=self._own(known))
        batch, labels, _ = bound._read(y, known)
        grid, entries = bound._grid, positions(batch)
        assert grid is not None
        assert bound._held is not None
        flow = bound._flow.over(np.full(len(batch.y), grid.step) if grid.gaps is None else grid.gaps[entries])
        found = dict(zip(("transition", "process_cov"), flow.matrices(*bound._held)))
        rows = {name: (DIMS[name], value[flow.kinds]) for name, value in found.items()}
        view = bound._view(bound._pieces(bound._base))
        if view.ndim == 3:
            known, rows["observation"] = known.drop_dims("time"), (DIMS["observation"], view[entries])
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
    ) -> MotionStream:
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
        base, own = self._step_of(known), self._own(known)
        flow = self._at(Grid(base), base, own)._flow

        @lru_cache(maxsize=8)
        def over_gap(gap: float) -> tuple[Floats, Floats]:
            A, Q = flow.over(np.array([gap])).matrices(*own)
            return A[0], Q[0]

        def tree(gaps: Floats) -> Any:
            bound = self._at(Grid(1.0, gaps), base, own)
            return bound._core(n_features=known.sizes["feature"]).build(bound._schema().arrays(bound._inner(known)))

        check_streams(tree(np.ones(1)), self.likelihood)
        dynamics = Dynamics(self._row_step(known), over_gap, tree, self.likelihood, self.unit, self.step is None)
        return MotionStream(self, known, dynamics, guard)

    def sample(self, n_steps: Any, params: xr.Dataset | None = None, *, seed: int | None = None) -> xr.Dataset:
        """Simulate one sequence: ``state`` (time, state_name) and ``y`` (time, feature).

        ``n_steps`` is the number of rows, even as those of the fit, or their times. States with a diffuse start begin
        at 0, for nothing else is known of them.
        """
        known = self._known(params)
        counted = np.ndim(n_steps) == 0
        times = None if counted else pd.Index(n_steps)
        grid = Grid(self._row_step(known)) if times is None else grid_of([times], self.unit, 0)
        bound = self._at(grid, self._step_of(known), self._own(known))
        n_rows = n_steps if times is None else len(times)
        drawn: xr.Dataset = StateSpaceModel.sample(bound, n_rows, bound._inner(known), seed=seed)
        if times is None:
            return drawn.assign_coords(time=grid.step * np.arange(n_steps)) if grid.step != 1.0 else drawn
        return drawn.assign_coords(time=times)

    def _drawn(self, labels: Labels, which: int, params: xr.Dataset, seed: int) -> xr.Dataset:
        times = labels.times[which]
        return self.sample(times if self.step is None else len(times), params, seed=seed)

    def _future(self, y: Any, horizon: int, params: xr.Dataset, *said: Any) -> tuple[xr.Dataset, Predictive]:
        found, predictive = StateSpaceModel._future(self._until(horizon), y, horizon, params, *said)
        labels = self._read(y, params)[1]
        if labels.time in found.coords:
            return found, predictive
        grid = self._on(y, params)._grid
        assert grid is not None
        steps = [grid.step if grid.gaps is None else step_of(times, self.unit, grid.step) for times in labels.times]
        later = [times_ahead(times, step, self.unit, horizon) for times, step in zip(labels.times, steps)]
        if any(times is None for times in later):
            return found, predictive
        if labels.sequence is None:
            return found.assign_coords({labels.time: ("horizon", later[0])}), predictive
        stamps = np.array([list(times) for times in later if times is not None])
        return found.assign_coords(timestamp=((labels.sequence, "horizon"), stamps)), predictive

    def _simulated(
        self, y: Any, horizon: int, n_paths: int, params: xr.Dataset, rng: np.random.Generator, *said: Any
    ) -> xr.Dataset:
        return StateSpaceModel._simulated(self._until(horizon), y, horizon, n_paths, params, rng, *said)

    def _until(self, horizon: int) -> Self:
        """Copy whose dynamics go on for some steps after the last row."""
        later = copy.copy(self)
        later._ahead = horizon
        return later
