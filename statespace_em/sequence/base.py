"""What every sequence model can do on top of fitting: paths, causal answers, the future, simulation."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import storage
from statespace_em.errors import FileFormatError
from statespace_em.labels import Labels
from statespace_em.model import LatentModel
from statespace_em.sequence.stream import Stream, split_state


class SequenceModel(LatentModel):
    """A model of sequences: the order of the rows matters."""

    @abstractmethod
    def decode(self, y: Any, params: xr.Dataset | None = None) -> xr.DataArray:
        """Most probable states given all of y."""

    @abstractmethod
    def filter(self, y: Any, params: xr.Dataset | None = None) -> xr.Dataset:
        """What was known of the states at each time: never touched by later rows."""

    @abstractmethod
    def forecast(self, y: Any, horizon: int, params: xr.Dataset | None = None) -> xr.Dataset:
        """Distribution of the states and observations that follow y."""

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
        frequency = index.freq or (pd.infer_freq(index) if len(index) > 2 else None)
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
