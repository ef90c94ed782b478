"""What every sequence model can do on top of fitting: paths, causal answers, the future, simulation."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate, storage
from statespace_em._typing import AnyArray
from statespace_em.core import Core
from statespace_em.data import Batch
from statespace_em.errors import FileFormatError
from statespace_em.labels import Labels, labelled_rows, seeing
from statespace_em.model import LatentModel
from statespace_em.predictive import Predictive
from statespace_em.residuals import labelled_residuals
from statespace_em.scale.lazily import chunkwise
from statespace_em.sequence.forecast import (
    add_quantiles,
    averaged,
    check_levels,
    density_dataset,
    merged,
    parameter_draws,
)
from statespace_em.sequence.stream import Stream, split_state


class SequenceModel(LatentModel):
    """A model of sequences: the order of the rows matters."""

    @abstractmethod
    def decode(self, y: Any, params: xr.Dataset | None = None) -> xr.DataArray:
        """Most probable states given all of y."""

    @abstractmethod
    def filter(self, y: Any, params: xr.Dataset | None = None) -> xr.Dataset:
        """What was known of the states at each time: never touched by later rows."""

    def smooth(
        self, y: Any, params: xr.Dataset | None = None, *, states: Any = None, weights: Any = None
    ) -> xr.Dataset:
        """States given all of y: the ``gamma`` of `e_step` under the name ``smoothed``, beside `filter`'s words.

        ``states`` and ``weights`` as in `e_step`.

        Returns
        -------
        xarray.Dataset
            ``smoothed`` ([sequence,] time, state), of a linear-Gaussian model also ``smoothed_cov``, and
            ``log_likelihood``; ``attrs["conditioning"]`` is "1:T".
        """
        posterior = self.e_step(y, params, states=states, weights=weights, xi="sum")
        names = {"gamma": "smoothed", "cov": "smoothed_cov"}
        kept = [name for name in (*names, "log_likelihood") if name in posterior]
        return posterior[kept].rename({old: new for old, new in names.items() if old in kept})

    @chunkwise
    def one_step(
        self,
        y: Any,
        params: xr.Dataset | None = None,
        *,
        states: Any = None,
        weights: Any = None,
        quantiles: Any = None,
    ) -> xr.Dataset:
        """Distribution of every row as it was forecast one row before: what `residuals` compare y with.

        Parameters
        ----------
        y, params
            Observations, and parameters (those of the fit unless given).
        states, weights
            As in `fit`; those of the rows before a row count for it.
        quantiles
            Levels between 0 and 1, if any.

        Returns
        -------
        xarray.Dataset
            For numbers ``mean``, ``variance`` ([sequence,] time, feature) and, if asked for, ``quantile``
            (time, level, feature) of the mixture over states; for symbols ``prob``. Later rows never change them.
            NaN where a diffuse start leaves no distribution yet.
        """
        levels = check_levels(quantiles)
        core, tree, batch, labels, known = self._prepare(y, params, states, weights)
        with labelled_rows(labels, self._names()):
            predictive = self._one_step(core, tree, batch)
        features = {"feature": labels.features}
        if self._support() == "category":
            dims = tuple(dim for dim in ("feature", "symbol") if dim in known["prob"].dims)
            prob = predictive.probabilities(known.sizes["symbol"])
            rows = {"prob": (dims, prob if "feature" in dims else prob[:, 0])}
            dataset = labels.dataset(rows, {**features, "symbol": known["symbol"].values})
        else:
            moments = {"mean": predictive.mean(), "variance": predictive.variance()}
            at = {f"quantile {level}": predictive.quantile(level) for level in levels}
            found: dict[str, tuple[tuple[str, ...], AnyArray]] = {n: (("feature",), v) for n, v in moments.items()}
            if at:
                found["quantile"] = (("level", "feature"), np.stack(list(at.values()), axis=1))
            dataset = labels.dataset(found, {**features, "level": levels})
        return seeing(dataset, "1:t-1")

    def residuals(
        self, y: Any, params: xr.Dataset | None = None, *, states: Any = None, weights: Any = None, seed: int = 0
    ) -> xr.Dataset:
        """One-step-ahead residuals: where each entry fell in the distribution forecast for it (Rosenblatt 1952).

        An entry is judged by the rows before it and the entries before it in its own row, so that under a true
        model all residuals are independent, also those of one row. Smoothed probabilities or a decoded path in
        their place would reject a true model. For counts and symbols one uniform draw spreads each jump of the
        distribution function (Dunn & Smyth 1996).

        Parameters
        ----------
        y, params
            Observations, and parameters (those of the fit unless given).
        states, weights
            As in `fit`; those of the rows before a row count for it.
        seed
            Of the draws for counts and symbols; the same seed gives the same residuals.

        Returns
        -------
        xarray.Dataset
            ``pit`` ([sequence,] time, feature), uniform under the model, and ``residual``, its normal score; NaN
            where y is missing. See `checks.residual_tests` and `plotting.plot_residuals`.

        Raises
        ------
        ParameterError
            If the columns of the family depend on each other given the state, and it has no ``conditionals``.
        """
        core, tree, batch, labels, _ = self._prepare(y, params, states, weights)
        with labelled_rows(labels, self._names()):
            predictive = self._joint(core, tree, batch)
        return labelled_residuals(predictive, batch, labels, seed)

    @chunkwise
    def forecast(
        self,
        y: Any,
        horizon: int,
        params: xr.Dataset | None = None,
        *,
        n_draws: int = 0,
        states: Any = None,
        weights: Any = None,
        quantiles: Any = None,
    ) -> xr.Dataset:
        """Distribution of states and observations 1, ..., ``horizon`` steps after the end of y.

        Parameters
        ----------
        y
            Observations.
        horizon
            Number of steps.
        params
            Parameters (those of the fit unless given). With a dim ``draw``, or ``replicate`` as `bootstrap`
            returns them, the forecast is the mixture over the draws: the uncertainty of the parameters is in it.
        n_draws
            Number of draws of the parameters from their asymptotic distribution given y, for the same; 0 takes them
            as if they were known. See `parameter_draws`.
        states, weights
            As in `fit`.
        quantiles
            Levels between 0 and 1, if any.

        Returns
        -------
        xarray.Dataset
            ``predicted`` ([sequence,] horizon, state); for numbers ``mean`` and ``variance`` (horizon, feature) and,
            if asked for, ``quantile`` (horizon, level, feature), each exact for the mixture over states; for symbols
            ``prob`` (horizon, [feature,] symbol). A linear-Gaussian model adds ``predicted_cov`` and ``cov``.
            Regularly dated rows are continued in the coordinate of the time dimension.

        Raises
        ------
        ParameterError
            If the horizon is below 1, or a level is not between 0 and 1.
        """
        levels = check_levels(quantiles)
        _validate.at_least("horizon", horizon, 1, whole=True)
        _validate.at_least("n_draws", n_draws, 0, whole=True)
        if n_draws:
            params = self.parameter_draws(y, n_draws, params, states=states, weights=weights)
        dataset, predictive = self._futures(y, horizon, params, states, weights)
        return add_quantiles(dataset, predictive, levels)

    def forecast_density(
        self,
        y: Any,
        horizon: int,
        at: Any,
        params: xr.Dataset | None = None,
        *,
        states: Any = None,
        weights: Any = None,
    ) -> xr.Dataset:
        """Density and distribution function of the forecast at given values.

        Parameters
        ----------
        y, horizon, params, states, weights
            As in `forecast`.
        at
            Values (in units of y) at which to evaluate.

        Returns
        -------
        xarray.Dataset
            ``density`` (of counts: probability) and ``cdf`` ([sequence,] horizon, value, feature).
        """
        dataset, predictive = self._futures(y, horizon, params, states, weights)
        return density_dataset(dataset, predictive, at)

    def simulate(
        self,
        y: Any,
        horizon: int,
        n_paths: int,
        params: xr.Dataset | None = None,
        *,
        states: Any = None,
        weights: Any = None,
        seed: int | None = None,
    ) -> xr.Dataset:
        """Simulate how one sequence goes on.

        Parameters
        ----------
        y, horizon
            One sequence, and the number of steps after its end.
        n_paths
            Number of independent paths.
        params, states, weights
            As in `forecast`; of several draws of parameters the paths take turns.
        seed
            The same seed gives the same paths.

        Returns
        -------
        xarray.Dataset
            ``y`` (path, horizon, feature) and ``state``: names (path, horizon), or of a linear-Gaussian model values
            (path, horizon, state_name).
        """
        _validate.at_least("horizon", horizon, 1, whole=True)
        _validate.at_least("n_paths", n_paths, 1, whole=True)
        rng, conditions = _validate.generator(seed), (states, weights)
        draws = parameter_draws(self._known(params))
        parts = [
            self._simulate_ahead(y, horizon, n_paths // len(draws) + (i < n_paths % len(draws)), own, rng, *conditions)
            for i, own in enumerate(draws[:n_paths])
        ]
        return parts[0] if len(parts) == 1 else xr.concat(parts, "path")

    def _futures(
        self, y: Any, horizon: int, params: xr.Dataset | None, states: Any = None, weights: Any = None
    ) -> tuple[xr.Dataset, Predictive]:
        """Forecast averaged over draws of parameters, and the mixture that it describes."""
        _validate.at_least("horizon", horizon, 1, whole=True)
        futures = [self._future(y, horizon, own, states, weights) for own in parameter_draws(self._known(params))]
        return averaged([dataset for dataset, _ in futures]), merged([predictive for _, predictive in futures])

    # what a model supplies

    @abstractmethod
    def _one_step(self, core: Core, tree: Any, batch: Batch) -> Predictive:
        """Distribution of every entry given the rows before it."""

    @abstractmethod
    def _joint(self, core: Core, tree: Any, batch: Batch) -> Predictive:
        """Distribution of every entry given the rows before it and the entries before it in its row."""

    @abstractmethod
    def _future(
        self, y: Any, horizon: int, params: xr.Dataset, states: Any = None, weights: Any = None
    ) -> tuple[xr.Dataset, Predictive]:
        """Forecast under one set of parameters, and the distribution (S, horizon, D) that it describes."""

    @abstractmethod
    def _simulate_ahead(
        self,
        y: Any,
        horizon: int,
        n_paths: int,
        params: xr.Dataset,
        rng: np.random.Generator,
        states: Any = None,
        weights: Any = None,
    ) -> xr.Dataset:
        """Paths that continue one sequence under one set of parameters."""

    @abstractmethod
    def sample(self, n_steps: int, params: xr.Dataset | None = None, *, seed: int | None = None) -> xr.Dataset:
        """Simulate one sequence."""

    @abstractmethod
    def stream(self, params: xr.Dataset | None = None) -> Stream[Any]:
        """Filter that takes one row at a time, from the start of a sequence."""

    @classmethod
    def resume(cls, path: str | os.PathLike[str], **settings: Any) -> Stream[Any]:
        """Continue a stream written by its `save`; no code in the file is run.

        Parameters
        ----------
        path
            The file.
        settings
            Constructor arguments of the model to use in place of the saved ones, such as a family of your own.

        Raises
        ------
        FileFormatError
            If the file is not a saved stream of this model, or of a newer version.
        """
        kind, saved, params, fit = storage.load_model(path)
        if kind != storage.STREAM + cls.__name__:
            raise FileFormatError(f"{str(path)!r} holds a {kind}: read it with {storage.reader(kind)}.")
        given = {name: storage.from_json(value) for name, value in saved.items() if name not in settings}
        model = cls(**given, **settings)
        model.params_, state = split_state(params)
        stream = model.stream()
        stream.restore(state, fit["stream"])
        return stream


def future_dataset(
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]], labels: Labels, coords: dict[str, Any]
) -> xr.Dataset:
    """Label arrays (S, horizon, ...) of the future; with one regularly dated sequence the dates come too."""
    lead = () if labels.sequence is None else (labels.sequence,)
    data = {
        name: ((*lead, "horizon", *dims), values[0] if labels.sequence is None else values)
        for name, (dims, values) in variables.items()
    }
    horizon = next(iter(variables.values()))[1].shape[1]
    used = {dim for dims, _ in data.values() for dim in dims}
    own = {dim: values for dim, values in coords.items() if dim in used}
    dataset = xr.Dataset(data, {"horizon": np.arange(1, horizon + 1), **own})
    if labels.sequence is not None:
        return dataset.assign_coords({labels.sequence: labels.keys})
    dates = future_index(labels.times[0], horizon)
    return dataset if dates is None else dataset.assign_coords({labels.time: ("horizon", dates)})


def future_index(index: pd.Index, horizon: int) -> pd.Index | None:
    """Continue an index by its own regular step; None where it has none."""
    if isinstance(index, pd.DatetimeIndex):
        frequency: Any = index.freq or (pd.DatetimeIndex(index, freq="infer").freq if len(index) > 2 else None)
        if frequency is None and _weekdays(index):
            frequency = "B"
        if frequency is None:
            return None
        return pd.date_range(index[-1], periods=horizon + 1, freq=frequency)[1:]
    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(index[-1], periods=horizon + 1)[1:]
    if len(index) < 2 or not (isinstance(index, pd.TimedeltaIndex) or pd.api.types.is_numeric_dtype(index)):
        return None
    steps = np.diff(index.to_numpy())
    if not np.allclose(steps.astype(float), steps[-1].astype(float), rtol=1e-9, atol=0.0):
        return None
    future: pd.Index = pd.Index(index.to_numpy()[-1] + steps[-1] * np.arange(1, horizon + 1))
    return future


def _weekdays(index: pd.DatetimeIndex) -> bool:
    """Whether these are trading days: no weekend, no time of day, and most steps go to the next weekday."""
    days = index.tz_localize(None).values.astype("datetime64[D]")
    if len(days) < 5 or not (index == index.normalize()).all() or not np.is_busday(days).all():
        return False
    return bool(np.mean(np.busday_count(days[:-1], days[1:]) == 1) > 0.8)
