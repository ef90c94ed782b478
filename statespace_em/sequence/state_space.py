"""What every linear-Gaussian state-space model can do, however its matrices are written down."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em.core import Core
from statespace_em.data import Batch
from statespace_em.domains import Domain
from statespace_em.errors import DataError, DataWarning, ParameterError
from statespace_em.families import check_constant_columns
from statespace_em.fitting import NoBound
from statespace_em.inputs import scale_of, takes_inputs
from statespace_em.labels import Labels, labelled_rows, seeing
from statespace_em.predictive import Predictive, joint_normal, normal
from statespace_em.priors import InverseWishart, MatrixNormal
from statespace_em.scale.lazily import chunkwise
from statespace_em.schema import Schema, state_coords
from statespace_em.sequence.base import future_dataset
from statespace_em.sequence.even_rows import outside, warn_of_gaps
from statespace_em.sequence.filter_row import By, Guard, filter_dataset, guarded, owners
from statespace_em.sequence.identifiable_inputs import check_inputs_identified
from statespace_em.sequence.identifiable_noise import check_noise_identified
from statespace_em.sequence.identifiable_offsets import check_offsets_identified
from statespace_em.sequence.lgssm_core import LGSSMCore
from statespace_em.sequence.lgssm_filter import filtered_moments
from statespace_em.sequence.lgssm_forecast import Future, future_moments, predicted_rows
from statespace_em.sequence.lgssm_no_bound import no_bound
from statespace_em.sequence.lgssm_params import PARAMETERS, LGSSMParams, by_row, positions
from statespace_em.sequence.lgssm_priors import check_sizes
from statespace_em.sequence.lgssm_row_checks import check_with_rows
from statespace_em.sequence.lgssm_shift import shift_for
from statespace_em.sequence.lgssm_simulation import fixed_lag_smoother
from statespace_em.sequence.lgssm_smoother import estimated_start, imputed, smooth
from statespace_em.sequence.lgssm_specification import DIMS, Specification
from statespace_em.sequence.lgssm_values import check_given, check_names, check_rows, schema_of, values_of, with_frozen
from statespace_em.sequence.simulation_model import SimulationModel
from statespace_em.sequence.stream_kalman import KalmanStream, check_streams

LIKELIHOODS = ("diffuse", "full", "marginal")
NOISE_PRIORS, MOVE_PRIORS = ("process_prior", "measurement_prior"), ("transition_prior", "observation_prior")


class StateSpaceModel(SimulationModel):
    """A linear-Gaussian state-space model whose matrices a `Specification` describes."""

    likelihood: str
    process_prior: InverseWishart
    measurement_prior: InverseWishart
    transition_prior: MatrixNormal = MatrixNormal()
    observation_prior: MatrixNormal = MatrixNormal()
    _of_steps: tuple[str, ...] = ()  # parameters that depend on the time between rows; none where a row is a step

    def _settle(self, y: Any) -> None:
        unknown = self._specification(None).starts_as("fixed")
        if unknown.any():  # the estimate at the maximum
            _, params, batch, labels, _ = self._prepare(y, None)
            params = params._replace(initial_mean=np.where(unknown, np.nan, params.initial_mean))
            with labelled_rows(labels, self._names()):
                start = estimated_start(params, batch)
            self.params_["initial_mean"] = self.params_["initial_mean"].copy(data=start)

    @takes_inputs
    @chunkwise
    def decode(self, y: Any, params: xr.Dataset | None = None) -> xr.DataArray:
        """Most probable states given all of y: the smoothed mean ([sequence,] time, state)."""
        _, tree, batch, labels, _ = self._prepare(y, params)
        with labelled_rows(labels, self._names()):
            mean = smooth(tree, batch)[0].mean
        decoded = labels.dataset({"state_mean": (("state",), mean)}, state_coords(self._names()))["state_mean"]
        decoded.attrs["conditioning"] = "1:T"
        return decoded

    @takes_inputs
    @chunkwise
    def filter(
        self, y: Any, params: xr.Dataset | None = None, *, gate: float | None = None, by: By = "row", dof: Any = None
    ) -> xr.Dataset:
        """Kalman filter: the states as they were known at each time; later rows never change them.

        With a ``gate`` or ``dof``, see `stream`, it bears wrong measurements, as a stream does.

        Returns
        -------
        xarray.Dataset
            ``filtered`` and ``predicted`` ([sequence,] time, state) with ``filtered_cov``, ``predicted_cov``; the
            ``innovation`` (time, feature) y - E[y | past] with ``innovation_cov``, NaN where y is missing; and
            ``log_likelihood`` (time) in nats. Each has ``attrs["conditioning"]``. Where nothing is known yet of a
            diffuse state its variance is infinite, and so is that of what depends on it; means of states are then 0,
            innovations NaN. Covariances that many rows share are kept once, written out when read, or by ``.load()``.
            With a gate or ``dof`` also ``nis`` (time), and by entry (time, feature) what was ``outside`` and left
            out, and the ``weight`` of its precision; the likelihood is that of what was taken, or its lower bound.
        """
        _, tree, batch, labels, _ = self._prepare(y, params)
        found: Any
        with labelled_rows(labels, self._names()):
            if gate is None and dof is None:
                found = filtered_moments(tree, batch, self.likelihood)
            else:
                features = labels.features.tolist()
                names = owners(by, features, self._sensor_names())
                guard = Guard.of(gate, dof, names, tree.measurement_cov, features)
                found = guarded(tree, batch, guard, self.likelihood)
        return filter_dataset(found, labels, state_coords(self._names()))

    def left_out(self, y: Any, params: Any = None, *, gate: float, by: By = "row", inputs: Any = None) -> xr.DataArray:
        """Which measurements a filter with a gate leaves out, ([sequence,] time[, feature]); see `checks.gated`.

        ``gate`` and ``by`` as in `stream`; by "row" the answer has no features.
        """
        outside: xr.DataArray = self.filter(y, params, gate=gate, by=by, inputs=inputs)["outside"]
        return outside.any("feature", keep_attrs=True) if by == "row" else outside

    def _future(
        self, y: Any, horizon: int, params: xr.Dataset, states: Any = None, weights: Any = None
    ) -> tuple[xr.Dataset, Predictive]:
        _, tree, batch, labels, _ = self._prepare(y, params, states, weights)
        with labelled_rows(labels, self._names()):
            end = smooth(tree, batch)[0]
        self._check_ahead(labels, horizon)
        last = batch.starts[1:] - 1
        there = positions(batch)[last] + 1
        if self._inputs is None and not self._is_constant:
            found = future_moments(tree, end.mean[last], end.cov[last], there, horizon)
        else:  # each sequence has inputs, or matrices, of its own
            rows = [None] * len(last) if self._inputs is None else self._inputs.ahead(labels, horizon)
            parts = [
                future_moments(self._from_row(tree, int(row), own), end.mean[[i]], end.cov[[i]], np.array([1]), horizon)
                for i, row, own in zip(last, there, rows)
            ]
            found = Future(*(np.concatenate(each) for each in zip(*parts)))
        variance = np.diagonal(found.signal_cov, axis1=-2, axis2=-1)
        variables = {
            "predicted": (("state",), found.mean),
            "predicted_cov": (("state", "state_aux"), found.cov),
            "mean": (("feature",), found.signal),
            "variance": (("feature",), variance),
            "cov": (("feature", "feature_aux"), found.signal_cov),
        }
        coords = {**state_coords(self._names()), "feature": labels.features, "feature_aux": labels.features}
        return seeing(future_dataset(variables, labels, coords), "1:T"), normal(found.signal, variance)

    def _one_step(self, core: Core, tree: Any, batch: Batch) -> Predictive:
        known, p = filtered_moments(tree, batch, self.likelihood), by_row(tree, batch)
        return normal(*predicted_rows(p.C, p.d, p.R, known.predicted_mean, np.asarray(known.predicted_cov)))

    def _joint(self, core: Core, tree: Any, batch: Batch) -> Predictive:
        known = filtered_moments(tree, batch, self.likelihood)
        cov = np.asarray(known.innovation_cov)
        blind = ~np.isfinite(np.diagonal(cov, axis1=1, axis2=2))  # nothing was expected there
        shown = np.where(blind[:, :, None] | blind[:, None, :], np.nan, cov)
        return joint_normal(np.where(blind, np.nan, batch.y), np.where(blind, np.nan, known.innovation), shown)

    @takes_inputs
    def fixed_lag(self, y: Any, lag: int, params: xr.Dataset | None = None) -> xr.Dataset:
        """Fixed-lag smoother: the states as they were known ``lag`` rows later; 0 is `filter`.

        Returns
        -------
        xarray.Dataset
            ``smoothed`` E[s_t | y_1..t+lag] ([sequence,] time, state) and ``smoothed_cov``; the last ``lag`` rows of a
            sequence know all of it and no more.
        """
        _validate.at_least("lag", lag, 0, whole=True)
        _, tree, batch, labels, _ = self._prepare(y, params)
        with labelled_rows(labels, self._names()):
            mean, cov = fixed_lag_smoother(tree, batch, lag, self.likelihood)
        rows = {"smoothed": (("state",), mean), "smoothed_cov": (("state", "state_aux"), cov)}
        return seeing(labels.dataset(rows, state_coords(self._names())), f"1:t+{lag}")

    @takes_inputs
    @chunkwise
    def impute(self, y: Any, params: xr.Dataset | None = None, *, level: float = 0.95) -> xr.Dataset:
        """Missing entries of y given everything that was seen, with intervals.

        Returns
        -------
        xarray.Dataset
            ``mean`` ([sequence,] time, feature), y itself where it was seen; ``variance``, 0 there; and ``lower`` and
            ``upper``, the ends of the interval that holds a missing entry with probability ``level``.

        Examples
        --------
        >>> import statespace_em as sse
        >>> flow = sse.datasets.nile().astype(float)
        >>> flow.loc[1900:1904] = float("nan")
        >>> found = sse.designs.local_level().fit(flow).impute(flow)
        >>> found["mean"].sel(year=slice(1899, 1901)).values.round().ravel().tolist()
        [774.0, 977.0, 960.0]
        """
        _validate.probability("level", level)
        _, tree, batch, labels, _ = self._prepare(y, params)
        with labelled_rows(labels, self._names()):
            return imputed(tree, batch, smooth(tree, batch)[0], level, labels)

    def stream(
        self, params: xr.Dataset | None = None, *, gate: float | None = None, by: By = "row", dof: Any = None
    ) -> KalmanStream:
        """Kalman filter that takes one row at a time, from the start of a sequence, in constant memory.

        A diffuse first state is taken as it is. What changes from row to row comes with its row: inputs, regressors,
        or matrices; see `update`. With a ``gate``, the probability that a good measurement passes, what does not is
        left out and reported; with ``dof``, degrees of freedom of Student-t noise as `robust.fit_student` finds them,
        it loses its weight, under the variational bound of each row. What is judged together says ``by``: "row",
        "feature" (single entries) or "sensor".

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
        known, tree = self._plain_parameters(params)
        check_streams(tree, self.likelihood)
        names = owners(by, known["feature"].values.tolist(), self._sensor_names())
        guard = Guard.of(gate, dof, names, tree.measurement_cov, known["feature"].values.tolist())
        spec = self._specification(known.sizes["feature"])
        return KalmanStream(self, known, tree, self.likelihood, spec, guard)

    def _plain_parameters(self, params: xr.Dataset | None) -> tuple[xr.Dataset, LGSSMParams]:
        known = self._specification(None).sized(self._known(params))
        return known, self._core(n_features=known.sizes["feature"]).build(self._schema().arrays(known))

    def summary(self) -> pd.DataFrame:
        """What was estimated, one row an entry: parameter, row and column by name, value.

        Free values that have a name come first, under it; then the entries of what has free values without one.
        What the constructor fixes, or what follows, is in ``params_`` only.
        """
        params = self._known(None)
        spec = self._specification(params.sizes["feature"])
        values = self._own_values(spec, lambda name: values_of(params, name))
        entries: list[tuple[Any, Any, Any, float]] = [(word, "", "", value) for word, value in values.items()]
        for name, dims in DIMS.items():
            if name in params and name in spec.unnamed:
                value = params[name].transpose(*dims)
                for where in np.argwhere(spec.estimated(name, value.shape)):
                    at = [value[dim].values[i] for dim, i in zip(dims, where)]
                    entries.append((name, at[0], at[1] if len(at) > 1 else "", value.values[*where].item()))
        *keys, values_ = zip(*entries) if entries else ((), (), (), ())
        codes, levels = zip(*(pd.factorize(pd.Series(key, dtype=object)) for key in keys))
        index = pd.MultiIndex(levels, codes, names=["parameter", "row", "column"])  # in order: fast to look up
        return pd.DataFrame({"value": values_}, index)

    def _own_values(self, spec: Specification, value_of: Any) -> dict[str, Any]:
        values = spec.named_values(value_of)
        return values | self._derived(values)

    def _named(self, core: Core, tree: Any) -> dict[str, Any]:
        return self._own_values(self._specification(tree.measurement_cov.shape[-1]), core.flatten(tree).__getitem__)

    def _named_domains(self, names: Sequence[str]) -> dict[str, Domain]:
        return self._specification(None).named_domains(names)

    # what LatentModel asks for

    def _fixed_parameters(self) -> xr.Dataset | None:
        schema, spec = self._schema(), self._specification(None)
        if schema.required or spec.starts_as("fixed").any():
            return None
        core = self._core(n_features=spec.n_features)
        return schema.label(core.flatten(core.build({})), pd.RangeIndex(spec.n_features or 1), None)

    @abstractmethod
    def _derived(self, values: Mapping[str, float]) -> dict[str, float]:
        """Quantities with a meaning of their own that follow from the named values."""

    def _sensor_names(self) -> list[str] | None:
        """What measures each column (D,), where the model has sensors."""
        return None

    def _support(self) -> str:
        return "real"

    def _schema(self) -> Schema:
        inputs = None if self._inputs is None else self._inputs.names
        return schema_of(self._specification(None), inputs, self._of_steps)

    def _core(
        self,
        *,
        n_symbols: int | None = None,
        freeze: Sequence[str] = (),
        batch: Batch | None = None,
        given: Collection[str] | None = None,
        n_features: int | None = None,
    ) -> LGSSMCore:
        _validate.one_of("likelihood", self.likelihood, LIKELIHOODS)
        size = batch.y.shape[1] if batch is not None else n_features
        inputs = None if batch is None else batch.inputs
        spec = self._specification(size)
        if batch is not None:
            check_rows(spec, batch)
        single = spec.initial == "estimated" and (batch is None or len(batch.starts) == 2)
        tied = spec.initial == "tied" or (single and given is not None and "initial_cov" not in given)
        tied = tied and "initial_cov" not in spec.patterns
        for kind, names in ((InverseWishart, NOISE_PRIORS), (MatrixNormal, MOVE_PRIORS)):
            for name in names:
                _validate.instance(name, getattr(self, name), kind)
        priors = (self.process_prior, self.measurement_prior), (self.transition_prior, self.observation_prior)
        check_with_rows(spec, *priors, tied=tied and given is not None)
        columns, sizes = spec.columns(0 if inputs is None else inputs.shape[1]), (len(spec.names), size)
        for name, n_rows, own in zip(MOVE_PRIORS, sizes, columns):
            if n_rows is not None:
                check_sizes(name, getattr(self, name), (n_rows, len(own)))
        kept = {*freeze, *spec.absent, *spec.varying, *(("initial_cov",) if single or tied else ())}
        if spec.initial == "known":
            kept |= {"initial_mean", "initial_cov"}
        patterns, varying = with_frozen(spec, {}, ())
        if isinstance(given, Mapping):
            check_given(spec, given)
            if spec.initial == "known" and not {"initial_mean", "initial_cov"} <= {*given, *patterns}:
                raise ParameterError("initial is 'known': give initial_mean and initial_cov to the model or in start=.")
            patterns, varying = with_frozen(spec, given, freeze)
        guesses, shift = dict(spec.guesses), None
        if batch is not None and given is not None:  # a fit, or a question about estimates
            held = {name: given[name] for name in freeze} if isinstance(given, Mapping) else {}
            freely = priors[1][0].is_flat, priors[1][1].is_flat
            shift = shift_for(spec, batch, patterns, {**varying, **held}, kept, freely)
        if batch is not None and isinstance(given, Mapping) and spec.guess_from is not None:
            guesses |= spec.guess_from(batch if shift is None else shift.centred(batch))
        unknown, stationary = spec.starts_as("fixed"), spec.starts_as("stationary")
        return LGSSMCore(
            len(spec.names), tuple(name for name in PARAMETERS if name in kept),
            *priors[0], tied, patterns, varying, spec.loadings,
            unknown if unknown.any() and given is not None else None, stationary if stationary.any() else None,
            self.likelihood, guesses, spec.flow, scale_of(batch) if spec.has_inputs else None,
            priors[1], columns, spec.canonical, spec.decays, shift,
        )  # fmt: skip

    def _given_by(self, arrays: Mapping[str, Any]) -> tuple[str, ...]:
        noise = arrays.get("process_cov", np.zeros(0))
        follows = np.array_equal(arrays.get("initial_cov", np.ones(0)), noise)  # as in a fit of one sequence
        return tuple(name for name in arrays if name != "initial_cov" or not follows)

    def _check_data(self, batch: Batch, labels: Labels, freeze: Sequence[str]) -> None:
        core = self._core(batch=batch, freeze=freeze)
        spec = self._specification(batch.y.shape[1])
        check_names(spec, batch, labels.keys.tolist())
        if self.transition_prior.is_flat and self.observation_prior.is_flat:
            check_offsets_identified(spec, freeze)
            if self._inputs is not None and self._given is None and batch.inputs is not None:  # not of a sample
                check_inputs_identified(spec, batch, self._inputs.names, freeze)
            if self.process_prior.is_flat and self.measurement_prior.is_flat:
                check_noise_identified(spec, freeze)
        moving = [name for name in ("transition", "process_cov") if name not in freeze and core.may_move(name)]
        if moving and self.process_prior.is_flat and (np.diff(batch.starts) < 2).all():
            raise DataError("no sequence has two rows: the dynamics have no estimate. Freeze them, or give a prior.")
        if np.isnan(batch.y).all():
            raise DataError("every entry of y is missing: there is nothing to fit.")
        self._check_enough(batch)
        noisy = "measurement_cov" not in freeze and core.may_move("measurement_cov") and self.measurement_prior.is_flat
        exact = "process_cov" in moving and core.has_no_noise() and self.process_prior.is_flat
        if noisy or exact:
            check_constant_columns(batch.y, list(labels.features))
        if not self._of_steps:
            warn_of_gaps(labels)

    def _check_enough(self, batch: Batch) -> None:
        """Warn where the first states take all that there is to see."""
        spec, seen = self._specification(batch.y.shape[1]), int((~np.isnan(batch.y)).sum())
        taken = int(spec.starts_as("diffuse").sum()) * (len(batch.starts) - 1) + int(spec.starts_as("fixed").sum())
        if taken and seen <= taken:
            message = (
                f"y has {seen} entries, and as many first states of which nothing is known ({taken}): nothing is left "
                "to estimate the other values from, which stay about where they started. Give more rows."
            )
            warnings.warn(message, DataWarning, stacklevel=outside())

    def _default_starts(self) -> int:
        return 3

    def _no_bound(self, batch: Batch, states: Sequence[Any]) -> NoBound:
        quiet = self.measurement_prior.is_flat
        return no_bound(self._specification(batch.y.shape[1]), batch, states, self.likelihood, quiet=quiet)

    def _suggest_prior(self, batch: Batch) -> str:
        var = float(np.nanmean(np.nanvar(batch.y, axis=0)))
        prior = f"InverseWishart(dof={batch.y.shape[1] + 2}, scale={0.02 * var:.2g})"
        return f"{type(self).__name__}(..., measurement_prior={prior})"
