"""What every model here can do: an sklearn-shaped shell over a functional core."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate, fitting
from statespace_em.boundary import HasBoundary, is_bounded
from statespace_em.conditions import check_some, with_conditions
from statespace_em.core import Core, HasLikelihood
from statespace_em.data import Batch, as_batch, fingerprint
from statespace_em.errors import DataError, ParameterError
from statespace_em.fitting import Fit, FitOptions, NoBound
from statespace_em.labels import Labels, labelled_rows, posterior_variable, seeing, summed
from statespace_em.lazy import Deferred
from statespace_em.reports import progress_bar, starts_table, trace_table
from statespace_em.scale.chunks import Chunks, cut, is_chunked
from statespace_em.scale.conditions import ChunkInputs, chunks_with_conditions
from statespace_em.scale.core import ChunkedCore
from statespace_em.scale.lazily import chunkwise
from statespace_em.scale.survey import prepared, survey
from statespace_em.schema import Schema, state_coords
from statespace_em.settings import Settings
from statespace_em.uncertainty import Uncertain


class LatentModel(Settings, Uncertain):
    """A model with hidden states: fitted by EM, asked by labelled questions.

    The constructor stores its arguments as they are; `fit` sets ``params_``, ``trace_``, ``starts_``, ``status_``,
    ``converged_``, ``n_parameters_`` (how many were free) and ``fitted_to_`` (a fingerprint of y); every other method
    is a pure function of the settings, ``params`` and ``y``.
    """

    unsorted: Literal["error", "sort"]
    symbols: Sequence[Any] | None = None  # all that may occur, where the model has symbols and the user said so

    # what a model supplies

    @abstractmethod
    def summary(self) -> pd.DataFrame:
        """Fitted parameters as a table."""

    @abstractmethod
    def _schema(self) -> Schema:
        """Names, dimensions and domains of the parameters."""

    @abstractmethod
    def _support(self) -> str:
        """What an entry of y may be."""

    @abstractmethod
    def _core(
        self,
        *,
        n_symbols: int | None = None,
        freeze: Sequence[str] = (),
        batch: Batch | None = None,
        given: Collection[str] | None = None,
    ) -> Core:
        """The array side of the model; in a fit, ``given`` names the parameters that have a start."""

    @abstractmethod
    def _check_data(self, batch: Batch, labels: Labels, freeze: Sequence[str]) -> None:
        """Raise DataError where the model cannot be fitted to y."""

    @abstractmethod
    def _default_starts(self) -> int:
        """How many starts a fit makes unless told."""

    @abstractmethod
    def _suggest_prior(self, batch: Batch) -> str:
        """A prior that bounds the likelihood, as a user would write it."""

    def _no_bound(self, batch: Batch, states: Sequence[Any]) -> NoBound:
        """Why the likelihood has no bound at these states, if any, and what to do about it."""
        which = ", ".join(map(repr, states))
        return NoBound(
            f"the likelihood has no bound: the variance of state {which} runs to its floor from every start",
            "Use fewer states",
        )

    # fitting

    def fit(
        self,
        y: Any,
        *,
        states: Any = None,
        weights: Any = None,
        start: xr.Dataset | None = None,
        freeze: Sequence[str] = (),
        n_starts: int | None = None,
        max_iter: int = 1000,
        tol: float = 1e-8,
        accelerate: bool = True,
        seed: int = 0,
        threads: int | None = None,
        progress: bool = False,
    ) -> Self:
        """Estimate the parameters by EM: maximum likelihood, or MAP under the priors of the model.

        ``starts_`` tells how each start ended; one with status "max_iter" after a few steps was given a short run
        only, because others were ahead. ``found_by`` counts the starts that converged to the same optimum.

        Parameters
        ----------
        y
            Observations, see `statespace_em.data.as_batch`; NaN marks missing entries. A DataArray of Dask chunks (dims
            sequence, time[, feature], chunked along the sequences) is read chunk by chunk, wherever Dask does its
            work, and never as a whole: starts are guessed from a sample, the same one every time, and all that
            climb side by side share each visit of a chunk.
        states
            Names of the states where they are known, missing where not, in a container like that of y (models with
            discrete states only). The likelihood is then that of y and these states, and states keep their order.
            Of chunked data, as ``weights``, in chunks too, or in a DataArray, list or dict with its sequences.
        weights
            One number a sequence, which multiplies its log-likelihood (2 is the sequence twice), or one a row, which
            multiplies the log density of the row given its state (0 is a missing row; a power likelihood).
        start
            Parameters to start from, once and without restarts; a Dataset that lacks some variables fixes only
            the starts of those it has.
        freeze
            Names of parameters to leave at their start.
        n_starts
            Number of starts; each gets a short run, the best are polished. The default depends on the model.
        max_iter, tol
            Most E-steps a start may take, and the gain still to come, in nats, at which it ends.
        accelerate
            Whether to extrapolate EM steps (monotone all the same) and finish on the score; False is plain EM.
        seed
            Of the guesses; the same call gives the same answer.
        threads
            Number of threads; by default all cores, on 2 048 rows or more. Starts run side by side, and so do the
            passes over a long series; the result does not depend on it, to the last bit. For Dask chunks its scheduler
            decides.
        progress
            Whether to show a progress bar.

        Returns
        -------
        self

        Raises
        ------
        DataError, ParameterError
            If the observations or an option cannot be used.

        Warns
        -----
        ConvergenceWarning
            If the fit ended otherwise than converged, or its optimum was found by one start only.

        Notes
        -----
        Memory beside y, which is held once: a hidden Markov model takes about 40 bytes a row; a linear-Gaussian model
        of n states and D features 9 bytes a row and, on each thread, a workspace of at most 8 (4 n**2 + D**2 + n D +
        2 n + 2 D + 6) bytes for each row of the block it works on: 16 384 rows, or a sequence of up to 65 536 (where
        nothing is missing 8 (n + D + 2) bytes a row, and up to 2**20 rows). Longer sequences go block by block, which
        takes a third to two thirds longer. Data in chunks take a few times the chunks that are worked on at the time,
        and a sample of 50 000 rows.
        """
        options = FitOptions(
            start, () if freeze is None else freeze, n_starts, max_iter, tol, accelerate, seed, threads, progress
        )
        found = self._estimate(y, options, states, weights)
        self.params_ = Deferred(found.schema.label, found.arrays, found.labels.features, found.symbols, found.vanished)
        self.trace_ = Deferred(trace_table, found.chosen.trace)
        self.starts_ = Deferred(starts_table, [(run.objective, run.n_steps, run.status) for run in found.runs])
        self.n_parameters_, self.fitted_to_ = Deferred(found.count_free), found.fitted_to
        self.status_, self.converged_ = found.chosen.status, found.chosen.status == "converged"
        for category, message in found.complaints:
            warnings.warn(message, category, stacklevel=2)
        return self

    def _estimate(self, y: Any, options: FitOptions, states: Any = None, weights: Any = None) -> Fit:
        """Fit without a trace on the model or a warning, as threads need it."""
        schema = self._schema()
        given = options.given(schema)
        data: Batch | Chunks
        if is_chunked(y):
            self._check_takes(states, weights)
            data = chunks_with_conditions(cut(y), states, weights, self._chunk_inputs(options.start))
            batch, telling, labels, symbols, reading = survey(data, self._read_options(options.start), schema.names)
        else:
            batch, labels, symbols = self._read(y, options.start)
            data = telling = batch = self._conditioned(batch, labels, states, weights)
            check_some(batch.weight)
        self._check_data(telling, labels, options.freeze)
        n_symbols = None if symbols is None else len(symbols)
        core = self._core(n_symbols=n_symbols, freeze=options.freeze, batch=telling, given=given)
        n_starts = fitting.number_of_starts(core, batch, options, self._default_starts())
        starts = (begin := partial(fitting.starting_points, core, batch, options, given, schema.required))(n_starts)
        count_free = partial(core.n_free, starts[0])  # at a start: what EM sends to 0 was free to be otherwise
        complaints = fitting.too_few(batch, sum(map(np.size, core.flatten(starts[0]).values())), count_free)
        with labelled_rows(labels, schema.names), progress_bar(options.progress) as on_step:
            if isinstance(data, Chunks):
                engine = ChunkedCore(core, reading, schema.names)
                runs, best = fitting.climb_on(
                    core, engine, data, starts, begin, options, on_step, engine.visits.together
                )
            else:
                climbs = fitting.side_by_side(len(batch.y), options.threads)
                runs, best = fitting.climb_on(core, core, data, starts, begin, options, on_step, climbs)
        chosen = runs[best]
        vanished = {}
        if is_bounded(type(core)) and isinstance(core, HasBoundary):
            vanished = core.vanished(chosen.params, starts[best])
        order = np.arange(len(schema.names))
        if not given and batch.known is None:  # else the states are the user's
            label = partial(schema.label, core.flatten(chosen.params), labels.features, symbols)
            order = core.order_of(chosen.params, label)
        arrays = core.flatten(core.arranged(chosen.params, order))
        why, prior = partial(self._no_bound, batch), partial(self._suggest_prior, batch)
        complaints += fitting.not_converged(chosen, core, schema.names, order, why, prior, options)
        complaints += fitting.found_once(runs, chosen)
        seen = fingerprint(batch, labels)
        return Fit(schema, arrays, labels, symbols, runs, chosen, complaints, count_free, seen, vanished)

    # the E- and the M-step

    @chunkwise
    def e_step(
        self,
        y: Any,
        params: xr.Dataset | None = None,
        *,
        states: Any = None,
        weights: Any = None,
        xi: Literal["each", "sum"] = "each",
    ) -> xr.Dataset:
        """Posterior of the states given all of y.

        Parameters
        ----------
        y, params
            Observations, and parameters (those of the fit unless given).
        states, weights
            As in `fit`; a weight of a sequence does not change its own posterior.
        xi
            "each" returns xi at every time, "sum" only its sum over time, for long series.

        Returns
        -------
        xarray.Dataset
            ``gamma`` ([sequence,] time, state), ``xi`` ([sequence,] time, state, next_state), NaN at the last time of
            a sequence, and ``log_likelihood`` ([sequence]) in nats.
        """
        _validate.one_of("xi", xi, ("each", "sum"))
        core, tree, batch, labels, known = self._prepare(y, params, states, weights)
        with labelled_rows(labels, self._names()):
            posterior = core.posterior(tree, batch, pairs=xi == "each")
        others = {name: xr.Variable(dims, value) for name, (dims, value) in posterior.sums.items()}
        others["log_likelihood"] = labels.per_sequence(posterior.log_likelihood)
        dataset = labels.dataset(posterior.rows, state_coords(self._names()), others)
        seeing(dataset, "1:T")
        dataset.variables["log_likelihood"].attrs["units"] = "nats"
        return dataset

    def m_step(
        self, y: Any, posterior: xr.Dataset, params: xr.Dataset | None = None, *, weights: Any = None
    ) -> xr.Dataset:
        """New parameters that maximise the expected log joint (plus log prior) under this posterior.

        Parameters
        ----------
        y, posterior, weights
            The observations and weights that `e_step` was given, and what it returned.
        params
            The parameters that `e_step` was given; they matter where entries are missing and where probabilities
            are structurally zero.

        Returns
        -------
        xarray.Dataset
            The parameters, labelled as ``params_``.

        Raises
        ------
        ParameterError
            If a free value has no closed form, as in products of values.
        """
        known = self._known(params, needed=False)
        batch, labels, symbols = self._read(y, known)
        batch = self._conditioned(batch, labels, None, weights)
        core = self._core(n_symbols=None if symbols is None else len(symbols), batch=batch)
        fitting.check_closed(core, "Use fit(y)")
        tree = None if known is None else core.build(self._schema().arrays(known))
        arrays = {name: labels.flat(posterior_variable(posterior, name), dims) for name, dims in core.row_dims.items()}
        times: Any = 1.0 if batch.sequence_weight is None else labels.per_sequence(batch.sequence_weight)
        found = {name: posterior_variable(posterior, name) * times for name in core.sum_dims}
        arrays |= {name: summed(found[name], dims) for name, dims in core.sum_dims.items()}
        statistics = core.statistics(tree, batch, arrays)
        return self._schema().label(core.flatten(core.m_step(statistics, tree)), labels.features, symbols)

    # questions that need no hidden path

    def score(self, y: Any, params: xr.Dataset | None = None, *, states: Any = None, weights: Any = None) -> float:
        """Log-likelihood of all of y in nats, summed over sequences; ``states`` and ``weights`` as in `fit`.

        ``params`` count as they are, edited or not: those that the model fixes too, which `parameters` and ``start=``
        hold to their structure.
        """
        if is_chunked(y):
            self._check_takes(states, weights)
            known = self._known(params)
            chunks = chunks_with_conditions(cut(y), states, weights, self._chunk_inputs(known))
            _, reading = prepared(chunks, self._read_options(known))
            core = self._core(n_symbols=known.sizes.get("symbol"))
            tree = core.build(self._schema().arrays(known))
            return ChunkedCore(core, reading, self._names()).e_step(tree, chunks)[1]
        core, tree, batch, labels, _ = self._prepare(y, params, states, weights)
        with labelled_rows(labels, self._names()):
            return core.log_likelihood(tree, batch) if isinstance(core, HasLikelihood) else core.e_step(tree, batch)[1]

    def log_prior(self, params: xr.Dataset | None = None) -> float:
        """Log prior density of the parameters in nats, up to a constant that is 0 under flat priors."""
        known = self._known(params)
        core = self._core(n_symbols=known.sizes.get("symbol"))
        return float(core.log_prior(core.build(self._schema().arrays(known))))

    def parameters(self, **arrays: Any) -> xr.Dataset:
        """Label and check plain arrays as parameters of this model.

        Axes follow the schema of the model; a DataArray may have them in any order. Coordinates are the names of
        the states and, unless DataArrays say otherwise, 0, 1, ... for features and symbols.

        Raises
        ------
        ParameterError
            Naming the parameter, the shape or value that is wrong, and what is expected.
        """
        return self._schema().dataset(arrays)

    # helpers of the above

    def _read(self, y: Any, params: xr.Dataset | None) -> tuple[Batch, Labels, list[Any] | None]:
        """Read y; with parameters, its columns and symbols are theirs."""
        if is_chunked(y):
            raise DataError("y is in chunks, which this question does not take: pass y.compute() if it fits in memory.")
        return as_batch(y, **self._read_options(params))

    def _as_one_series(self, key: Any, y: Any) -> Any:
        """One series of many that are fitted apart, as this model takes it."""
        return y

    def _chunk_inputs(self, params: xr.Dataset | None) -> ChunkInputs | None:
        """Known inputs of chunked data; None where there are none."""
        return None

    def _read_options(self, params: xr.Dataset | None) -> dict[str, Any]:
        """Keywords of `as_batch`."""
        symbols, features = self.symbols, None
        if params is not None:
            if "symbol" in params.dims:
                symbols = params["symbol"].values.tolist()
            if "feature" in params.variables:  # without its coordinates, which cost as much as to read y
                features = np.atleast_1d(params.variables["feature"].values)
        return {"support": self._support(), "symbols": symbols, "features": features, "unsorted": self.unsorted}

    def _conditioned(self, batch: Batch, labels: Labels, states: Any, weights: Any) -> Batch:
        """Add known states and weights, where the model takes them."""
        self._check_takes(states, weights)
        if states is None and weights is None:
            return batch
        return with_conditions(batch, labels, self._names(), states, weights, self.unsorted)

    def _check_takes(self, states: Any, weights: Any) -> None:
        if (states is not None or weights is not None) and not self.takes_states:
            word = "states" if states is not None else "weights"
            raise ParameterError(f"{type(self).__name__} takes no {word}=: it is for models with discrete states.")

    def _given_by(self, arrays: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of the parameters that a fit which ended in these arrays did not have to take from others."""
        return tuple(arrays)

    def _prepare(
        self, y: Any, params: xr.Dataset | None, states: Any = None, weights: Any = None, freeze: Any = None
    ) -> tuple[Core, Any, Batch, Labels, xr.Dataset]:
        """Everything that a question about y needs."""
        known = self._known(params)
        arrays = self._schema().arrays(known)
        batch, labels, symbols = self._read(y, known)
        batch = self._conditioned(batch, labels, states, weights)
        given = None if freeze is None else self._given_by(arrays)  # else no coordinates are asked for
        freeze = tuple(freeze or ())
        for name in freeze:
            _validate.one_of("freeze", name, arrays)
        n_symbols = None if symbols is None else len(symbols)
        core = self._core(n_symbols=n_symbols, freeze=freeze, batch=batch, given=given)
        return core, core.build(arrays), batch, labels, known
