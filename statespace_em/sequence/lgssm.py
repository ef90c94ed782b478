"""The linear-Gaussian state-space model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.core import Core
from statespace_em.data import Batch
from statespace_em.errors import DataError
from statespace_em.families import check_constant_columns
from statespace_em.kernels import kalman
from statespace_em.labels import Labels, labelled_rows, state_names
from statespace_em.predictive import Predictive, joint_normal, normal
from statespace_em.priors import InverseWishart
from statespace_em.scale.lazily import chunkwise
from statespace_em.schema import Schema
from statespace_em.sequence.base import SequenceModel, future_dataset
from statespace_em.sequence.future import future_paths, one_sequence
from statespace_em.sequence.lgssm_core import LGSSMCore
from statespace_em.sequence.lgssm_params import DOMAINS
from statespace_em.sequence.lgssm_passes import kalman_filter, smoothed_mean
from statespace_em.sequence.stream_kalman import KalmanStream

DIMS = {
    "transition": ("next_state", "state"),
    "process_cov": ("state", "state_aux"),
    "observation": ("feature", "state"),
    "measurement_cov": ("feature", "feature_aux"),
    "initial_mean": ("state",),
    "initial_cov": ("state", "state_aux"),
    "state_offset": ("state",),
    "observation_offset": ("feature",),
}
OFFSETS = ("state_offset", "observation_offset")


class LinearGaussianSSM(SequenceModel):
    """State-space model with linear dynamics and Gaussian noise (Kalman 1960; EM: Shumway & Stoffer 1982).

    ``s[t+1] = transition @ s[t] + state_offset + w``, w ~ N(0, process_cov), and
    ``y[t] = observation @ s[t] + observation_offset + v``, v ~ N(0, measurement_cov); the first state has
    ``initial_mean`` and ``initial_cov`` before the first row is seen. Single missing entries are left out exactly.
    A row is a step: where samples are missing from an even grid, their rows must be there, with NaN.

    Parameters
    ----------
    states
        Number of states, or their names.
    initial
        "estimated": the initial mean, and with several sequences the initial covariance. One sequence cannot tell
        it (its estimate runs to 0): there it is held where ``start`` gives it and "tied" where not. "tied": the
        mean is estimated and the covariance is ``process_cov``, as after one step from a fixed but unknown state.
        "free": both in any case; "known": neither. A covariance that is held means nothing in an arbitrary basis:
        with all matrices free, EM would change the basis without end to make it small.
    state_offset, observation_offset
        "zero" or "free".
    process_prior, measurement_prior
        Inverse-Wishart priors on the noise covariances; flat by default.
    unsorted
        "error" or "sort": what to do with timestamps that do not increase.

    Notes
    -----
    Where the likelihood is highest with a singular noise, the fit ends exactly there and says so in
    ``params_["measurement_cov"].attrs["boundary"]`` (or ``"process_cov"``, ``"initial_cov"``).

    With everything free the basis of the states is arbitrary: freeze ``observation`` (or ``transition``) at a
    value with a meaning, as in ``fit(y, start=model.parameters(...), freeze=["observation"])``.

    Examples
    --------
    A local level for the Nile, with a vague initial state:

    >>> import statespace_em as sse
    >>> model = sse.LinearGaussianSSM(["level"], initial="known")
    >>> start = model.parameters(
    ...     transition=[[1]], observation=[[1]], process_cov=[[5e3]], measurement_cov=[[2e4]],
    ...     initial_mean=[0], initial_cov=[[1e7]],
    ... )
    >>> model = model.fit(sse.datasets.nile(), start=start, freeze=["transition", "observation"])
    >>> round(model.score(sse.datasets.nile()), 4)
    -641.5856
    """

    def __init__(
        self,
        states: int | Sequence[Any],
        *,
        initial: Literal["estimated", "free", "known", "tied"] = "estimated",
        state_offset: Literal["zero", "free"] = "zero",
        observation_offset: Literal["zero", "free"] = "zero",
        process_prior: InverseWishart = InverseWishart(),
        measurement_prior: InverseWishart = InverseWishart(),
        unsorted: Literal["error", "sort"] = "error",
    ) -> None:
        self.states = states
        self.initial = initial
        self.state_offset = state_offset
        self.observation_offset = observation_offset
        self.process_prior = process_prior
        self.measurement_prior = measurement_prior
        self.unsorted = unsorted

    @chunkwise
    def decode(self, y: Any, params: xr.Dataset | None = None) -> xr.DataArray:
        """Most probable states given all of y: the smoothed mean ([sequence,] time, state)."""
        _, tree, batch, labels, _ = self._ready(y, params)
        with labelled_rows(labels):
            mean = smoothed_mean(tree, batch)
        decoded = labels.dataset({"state_mean": (("state",), mean)}, self._schema().state_coords)["state_mean"]
        decoded.attrs["conditioning"] = "1:T"
        return decoded

    @chunkwise
    def filter(self, y: Any, params: xr.Dataset | None = None) -> xr.Dataset:
        """Kalman filter: the states as they were known at each time; later rows never change them.

        Returns
        -------
        xarray.Dataset
            ``filtered`` and ``predicted`` ([sequence,] time, state) with ``filtered_cov``, ``predicted_cov``; the
            ``innovation`` (time, feature) y - E[y | past] with ``innovation_cov``, NaN where y is missing; and
            ``log_likelihood`` (time) in nats. Each has ``attrs["conditioning"]``.
        """
        _, tree, batch, labels, _ = self._ready(y, params)
        with labelled_rows(labels):
            known = kalman_filter(tree, batch, innovations=True)
        square, matrix = ("state", "state_aux"), ("feature", "feature_aux")
        rows = {
            "filtered": (("state",), known.filtered_mean),
            "predicted": (("state",), known.predicted_mean),
            "filtered_cov": (square, known.filtered_cov),
            "predicted_cov": (square, known.predicted_cov),
            "innovation": (("feature",), known.innovation),
            "innovation_cov": (matrix, known.innovation_cov),
            "log_likelihood": ((), known.log_likelihood),
        }
        coords = {**self._schema().state_coords, "feature": labels.features, "feature_aux": labels.features}
        dataset = labels.dataset(rows, coords)
        for name in dataset.data_vars:
            dataset.variables[name].attrs["conditioning"] = "1:t" if str(name).startswith("filtered") else "1:t-1"
        return dataset

    def _future(self, y: Any, horizon: int, params: xr.Dataset) -> tuple[xr.Dataset, Predictive]:
        _, tree, batch, labels, _ = self._ready(y, params)
        with labelled_rows(labels):
            known = kalman_filter(tree, batch)
        last = batch.starts[1:] - 1
        mean, cov = known.filtered_mean[last], known.filtered_cov[last]
        means, covs = [], []
        for _ in range(horizon):
            mean = mean @ tree.transition.T + tree.state_offset
            cov = tree.transition @ cov @ tree.transition.T + tree.process_cov
            means.append(mean)
            covs.append(cov)
        predicted, predicted_cov = np.stack(means, 1), np.stack(covs, 1)
        signal = predicted @ tree.observation.T + tree.observation_offset
        signal_cov = tree.observation @ predicted_cov @ tree.observation.T + tree.measurement_cov
        variables = {
            "predicted": (("state",), predicted),
            "predicted_cov": (("state", "state_aux"), predicted_cov),
            "mean": (("feature",), signal),
            "variance": (("feature",), np.diagonal(signal_cov, axis1=-2, axis2=-1)),
            "cov": (("feature", "feature_aux"), signal_cov),
        }
        coords = {**self._schema().state_coords, "feature": labels.features, "feature_aux": labels.features}
        dataset = future_dataset(variables, labels, coords)
        for name in dataset.data_vars:
            dataset[name].attrs["conditioning"] = "1:T"
        return dataset, normal(signal, np.diagonal(signal_cov, axis1=-2, axis2=-1))

    def _one_step(self, core: Core, tree: Any, batch: Batch) -> Predictive:
        known = kalman_filter(tree, batch)
        mean = known.predicted_mean @ tree.observation.T + tree.observation_offset
        cov = tree.observation @ known.predicted_cov @ tree.observation.T + tree.measurement_cov
        return normal(mean, np.diagonal(cov, axis1=-2, axis2=-1))

    def _joint(self, core: Core, tree: Any, batch: Batch) -> Predictive:
        known = kalman_filter(tree, batch, innovations=True)
        return joint_normal(batch.y, known.innovation, known.innovation_cov)

    def _simulated(
        self, y: Any, horizon: int, n_paths: int, params: xr.Dataset, rng: np.random.Generator
    ) -> xr.Dataset:
        _, tree, batch, labels, known = self._ready(y, params)
        with labelled_rows(labels):
            now = kalman_filter(tree, batch)
        last = one_sequence(batch, labels)
        roots = [_root(cov) for cov in (now.filtered_cov[last], tree.process_cov, tree.measurement_cov)]
        size = len(tree.initial_mean)
        state = now.filtered_mean[last] + rng.standard_normal((n_paths, size)) @ roots[0].T
        states = np.empty((n_paths, horizon, size))
        for h in range(horizon):
            state = state @ tree.transition.T + tree.state_offset + rng.standard_normal((n_paths, size)) @ roots[1].T
            states[:, h] = state
        noise = rng.standard_normal((n_paths, horizon, len(roots[2]))) @ roots[2].T
        drawn = states @ tree.observation.T + tree.observation_offset + noise
        return future_paths(states, drawn, known).assign_coords(state_name=self._names())

    def stream(self, params: xr.Dataset | None = None) -> KalmanStream:
        """Kalman filter that takes one row at a time, from the start of a sequence, in constant memory.

        Examples
        --------
        >>> import statespace_em as sse
        >>> model = sse.LinearGaussianSSM(["level"])
        >>> level = model.parameters(
        ...     transition=[[1]], observation=[[1]], process_cov=[[1500]], measurement_cov=[[15000]],
        ...     initial_mean=[1000], initial_cov=[[1e5]],
        ... )
        >>> stream = model.stream(level)
        >>> steps = [stream.update(flow, time=year) for year, flow in sse.datasets.nile().items()]
        >>> steps[-1].filtered.round(1).tolist(), stream.predicted_cov.round(0).tolist()
        ([797.4], [[5552.0]])
        >>> dict(stream.dataset(steps[:3]).filtered.sizes)            # labelled, as filter(y) does
        {'time': 3, 'state': 1}
        """
        known = self._known(params)
        return KalmanStream(self, known, self._core().build(self._schema().arrays(known)))

    def sample(self, n_steps: int, params: xr.Dataset | None = None, *, seed: int | None = None) -> xr.Dataset:
        """Simulate one sequence: ``state`` (time, state) and ``y`` (time, feature)."""
        _validate.at_least("n_steps", n_steps, 1, whole=True)
        known = self._known(params)
        tree = self._core().build(self._schema().arrays(known))
        rng = np.random.default_rng(seed)
        first = np.arange(n_steps) == 0
        states = np.empty((n_steps, len(tree.initial_mean)))
        roots = [_root(cov) for cov in (tree.process_cov, tree.initial_cov, tree.measurement_cov)]
        kalman.draw_states(
            first, tree.transition[None], tree.state_offset[None], roots[0][None], roots[1], tree.initial_mean,
            rng.standard_normal(states.shape), states,
        )  # fmt: skip
        noise = rng.standard_normal((n_steps, len(roots[2]))) @ roots[2].T
        y = states @ tree.observation.T + tree.observation_offset + noise
        return xr.Dataset(
            {"state": (("time", "component"), states), "y": (("time", "feature"), y)},
            {"time": np.arange(n_steps), "component": self._names(), "feature": known["feature"].values},
        ).rename(component="state_name")

    def summary(self) -> pd.DataFrame:
        """Parameters of the fit, one row an entry: parameter, row and column by name, value."""
        params = self._known(None)
        entries = []
        for name, dims in DIMS.items():
            if name in params:
                value = params[name].transpose(*dims)
                for where in np.ndindex(value.shape):
                    labels = [value[dim].values[i] for dim, i in zip(dims, where)]
                    entries.append((name, labels[0], labels[1] if len(labels) > 1 else "", float(value.values[where])))
        table = pd.DataFrame(entries, columns=["parameter", "row", "column", "value"])
        return table.set_index(["parameter", "row", "column"])

    # what LatentModel asks for

    def _names(self) -> list[Any]:
        return state_names(self.states)

    def _support(self) -> str:
        return "real"

    def _schema(self) -> Schema:
        return Schema(self._names(), lambda n_features: DIMS, _check, self._absent())

    def _absent(self) -> tuple[str, ...]:
        absent = tuple(name for name in OFFSETS if getattr(self, name) == "zero")
        return (*absent, "initial_cov") if self.initial == "tied" else absent

    def _core(
        self,
        *,
        n_symbols: int | None = None,
        freeze: Sequence[str] = (),
        batch: Batch | None = None,
        given: Collection[str] | None = None,
    ) -> Core:
        for name in OFFSETS:
            _validate.one_of(name, getattr(self, name), ("zero", "free"))
        _validate.one_of("initial", self.initial, ("estimated", "free", "known", "tied"))
        kept = {*freeze, *self._absent()}
        if self.initial == "known":
            kept |= {"initial_mean", "initial_cov"}
        single = self.initial == "estimated" and (batch is None or len(batch.starts) == 2)
        tied = self.initial == "tied" or (single and given is not None and "initial_cov" not in given)
        if single or tied:
            kept |= {"initial_cov"}
        frozen = tuple(name for name in DOMAINS if name in kept)
        return LGSSMCore(len(self._names()), frozen, self.process_prior, self.measurement_prior, tied)

    def _check_data(self, batch: Batch, labels: Labels, freeze: Sequence[str]) -> None:
        moving = {"transition", "process_cov"} - set(freeze)
        if moving and self.process_prior.is_flat and (np.diff(batch.starts) < 2).all():
            raise DataError("no sequence has two rows: the dynamics have no estimate. Freeze them, or give a prior.")
        if np.isnan(batch.y).all():
            raise DataError("every entry of y is missing: there is nothing to fit.")
        if "measurement_cov" not in freeze and self.measurement_prior.is_flat:
            check_constant_columns(batch.y, list(labels.features))

    def _default_starts(self) -> int:
        return 3

    def _cure(self, batch: Batch) -> str:
        var = float(np.nanmean(np.nanvar(batch.y, axis=0)))
        prior = f"InverseWishart(dof={batch.y.shape[1] + 2}, scale={0.02 * var:.2g})"
        return f"LinearGaussianSSM(..., measurement_prior={prior})"


def _check(arrays: Mapping[str, Floats]) -> None:
    for name, value in arrays.items():
        if DOMAINS[name] == "covariance":
            _validate.covariance(name, value, (), semi=True)
        else:
            _validate.finite("number", name, value)


def _root(cov: Floats) -> Floats:
    """Return a square root of a covariance that may be singular."""
    values, vectors = np.linalg.eigh(cov)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
