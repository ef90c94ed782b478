"""What all hidden Markov models share: labelled answers about one chain."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.constraints import (
    check_chain,
    check_fixed,
    check_stationary,
    initial_pattern,
    transition_pattern,
)
from statespace_em.core import Core
from statespace_em.data import Batch
from statespace_em.emissions.base import EmissionFamily
from statespace_em.emissions.evaluate import column_scale
from statespace_em.errors import DataError, ParameterError
from statespace_em.families import (
    bound,
    check_constant,
    check_domains,
    check_rows,
    drawn_dataset,
    emission_summary,
    shown_dims,
    suggested_prior,
)
from statespace_em.labels import Dims, Labels, labelled_rows, name_array, named, seeing, state_names
from statespace_em.order import rule
from statespace_em.predictive import Predictive, mixture, rosenblatt
from statespace_em.priors import Dirichlet
from statespace_em.scale.lazily import chunkwise
from statespace_em.schema import Schema, state_coords
from statespace_em.sequence.base import SequenceModel, future_dataset
from statespace_em.sequence.chain_block import Chain
from statespace_em.sequence.decoding import best_paths, chain_of, decoded, fixed_lag, least_rows
from statespace_em.sequence.forecast import future_paths, one_sequence
from statespace_em.sequence.hmm_core import HMMCore
from statespace_em.sequence.stationary import stationary
from statespace_em.sequence.stream_chain import ChainStream
from statespace_em.ties import read_ties

TRANSPOSED = (
    " Rows are the state now, columns the next state; if yours are the other way round, label the dims and they "
    "will be transposed for you."
)
N_STARTS = 10


@dataclass(eq=False, repr=False)
class HiddenMarkovModel(SequenceModel):
    """A Markov chain of states that emits the rows of y; the family of the emissions is what models differ in."""

    states: int | Sequence[Any]
    _: KW_ONLY
    transition: Any = "free"
    initial: Any = "free"
    tie: Any = None
    initial_prior: Dirichlet = Dirichlet()
    transition_prior: Dirichlet = Dirichlet()
    order_by: Any = None
    unsorted: Literal["error", "sort"] = "error"

    takes_states: ClassVar[bool] = True

    @abstractmethod
    def _family(self) -> EmissionFamily[Any, Any]:
        """Family of the emissions."""

    @chunkwise
    def decode(
        self,
        y: Any,
        params: xr.Dataset | None = None,
        *,
        states: Any = None,
        weights: Any = None,
        method: Literal["viterbi", "posterior"] = "viterbi",
        min_duration: int | Mapping[Any, int] | None = None,
    ) -> xr.DataArray:
        """Most probable states given all of y.

        Parameters
        ----------
        y, params
            Observations, and parameters (those of the fit unless given).
        states
            Names of the states of the rows where they are known, as in `fit`.
        weights
            As in `fit`; those of sequences change no path, and ``log_prob`` is without them.
        method
            "viterbi": the most probable path as a whole (Viterbi 1967), of equally probable ones one and always the
            same; "posterior": at each row the most probable state, which makes fewest errors row by row but may be a
            path that is impossible.
        min_duration
            Least rows of an episode, for all states or by name; then the path is the most probable one among those
            that keep to it. The first and the last episode may be shorter: the data may have cut them.

        Returns
        -------
        xarray.DataArray
            Names of the states ([sequence,] time); for a path the coordinate ``log_prob`` ([sequence]) is the log
            joint probability of path and y, in nats.
        """
        least = least_rows(min_duration, self._names(), method)
        core, tree, batch, labels, _ = self._prepare(y, params, states, weights)
        with labelled_rows(labels, self._names()):
            path, best = decoded(core, tree, batch, method, least)  # type: ignore[arg-type]
        others = {} if best is None else {"log_prob": labels.per_sequence(best)}
        found = labels.array("state", named(self._names(), path), others)
        found.attrs["conditioning"] = "1:T"
        return found

    def best_paths(
        self, y: Any, n_paths: int, params: xr.Dataset | None = None, *, states: Any = None, weights: Any = None
    ) -> xr.Dataset:
        """Return the k most probable paths of one sequence given all of it (list Viterbi algorithm), best first.

        ``states`` and ``weights`` as in `decode`.

        Returns
        -------
        xarray.Dataset
            ``state``: names (path, time), and ``log_prob`` (path): the log joint probability of path and y, in nats;
            fewer than asked for where no more are possible.
        """
        _validate.at_least("n_paths", n_paths, 1, whole=True)
        core, tree, batch, labels, _ = self._prepare(y, params, states, weights)
        if labels.sequence is not None:
            raise DataError(f"y has {len(labels.keys)} sequences: ask for the best paths of one of them.")
        with labelled_rows(labels, self._names()):
            found, score = best_paths(*chain_of(core, tree, batch), n_paths)  # type: ignore[arg-type]
        names = name_array(self._names())[found]
        dataset = xr.Dataset({"state": (("path", labels.time), names), "log_prob": ("path", score)})
        dataset["state"].attrs["conditioning"] = dataset["log_prob"].attrs["conditioning"] = "1:T"
        return dataset.assign_coords(labels.time_coords())

    @chunkwise
    def fixed_lag(
        self, y: Any, lag: int, params: xr.Dataset | None = None, *, states: Any = None, weights: Any = None
    ) -> xr.Dataset:
        """State probabilities as they were known ``lag`` rows later: between `filter` (0) and `smooth` (all).

        ``states`` and ``weights`` as in `filter`.

        Returns
        -------
        xarray.Dataset
            ``smoothed`` p(s_t | y_1..t+lag) ([sequence,] time, state); the last ``lag`` rows of a sequence know all
            of it and no more. ``attrs["conditioning"]`` is "1:t+lag" with the number in place of lag.
        """
        _validate.at_least("lag", lag, 0, whole=True)
        core, tree, batch, labels, _ = self._prepare(y, params, states, weights)
        with labelled_rows(labels, self._names()):
            smoothed = fixed_lag(*chain_of(core, tree, batch), batch.starts, lag)  # type: ignore[arg-type]
        dataset = labels.dataset({"smoothed": (("state",), smoothed)}, state_coords(self._names()))
        dataset["smoothed"].attrs["conditioning"] = f"1:t+{lag}"
        return dataset

    @chunkwise
    def filter(
        self, y: Any, params: xr.Dataset | None = None, *, states: Any = None, weights: Any = None
    ) -> xr.Dataset:
        """State probabilities as they were known at each time: later rows never change them (Hamilton 1989).

        ``states`` names the states of the rows where they are known; each is conditioned on from its own row on.
        ``weights`` of rows are powers of their densities, as in `fit`; those of sequences change nothing here.

        Returns
        -------
        xarray.Dataset
            ``filtered`` p(s_t | y_1..t), ``predicted`` p(s_t | y_1..t-1), both ([sequence,] time, state), and
            ``log_likelihood`` ([sequence,] time) log p(y_t | y_1..t-1) in nats; each with ``attrs["conditioning"]``.
        """
        core, tree, batch, labels, _ = self._prepare(y, params, states, weights)
        with labelled_rows(labels, self._names()):
            known = core.filter(tree, batch)  # type: ignore[attr-defined]
        rows = {
            "filtered": (("state",), known.filtered),
            "predicted": (("state",), known.predicted),
            "log_likelihood": ((), known.log_likelihood),
        }
        dataset = labels.dataset(rows, state_coords(self._names()))
        for name, seen in (("filtered", "1:t"), ("predicted", "1:t-1"), ("log_likelihood", "1:t-1")):
            dataset[name].attrs["conditioning"] = seen
        return dataset

    def _future(
        self, y: Any, horizon: int, params: xr.Dataset, states: Any = None, weights: Any = None
    ) -> tuple[xr.Dataset, Predictive]:
        core, tree, batch, labels, known = self._prepare(y, params, states, weights)
        with labelled_rows(labels, self._names()):
            now = core.filter(tree, batch).filtered[batch.starts[1:] - 1]  # type: ignore[attr-defined]
        predicted = np.empty((len(now), horizon, now.shape[1]))
        for h in range(horizon):
            now = now @ tree.transition
            predicted[:, h] = now
        variables: dict[str, Any] = {"predicted": (("state",), predicted)}
        coords = {**state_coords(self._names()), "feature": labels.features}
        family = self._family()
        predictive = mixture(family, tree.emission, predicted)
        if family.support == "category":
            dims = tuple(d for d in known["prob"].dims if d != "state")
            prob = np.tensordot(predicted, known["prob"].transpose("state", *dims).values, axes=1)
            variables["prob"] = (dims, prob)
            coords["symbol"] = known["symbol"].values
        else:
            variables["mean"] = (("feature",), predictive.mean())
            variables["variance"] = (("feature",), predictive.variance())
        dataset = future_dataset(variables, labels, coords)
        return seeing(dataset, "1:T"), predictive

    def _one_step(self, core: Core, tree: Any, batch: Batch) -> Predictive:
        known = core.filter(tree, batch)  # type: ignore[attr-defined]
        return mixture(self._family(), tree.emission, known.predicted)

    def _joint(self, core: Core, tree: Any, batch: Batch) -> Predictive:
        known = core.filter(tree, batch)  # type: ignore[attr-defined]
        return rosenblatt(self._family(), tree.emission, batch.y, known.predicted)

    def _simulate_ahead(
        self, y: Any, horizon: int, n_paths: int, params: xr.Dataset, rng: np.random.Generator, *conditions: Any
    ) -> xr.Dataset:
        core, tree, batch, labels, known = self._prepare(y, params, *conditions)
        with labelled_rows(labels, self._names()):
            now = core.filter(tree, batch).filtered[one_sequence(batch, labels)]  # type: ignore[attr-defined]
        states, drawn = core.sample_from(tree, now @ tree.transition, n_paths, horizon, rng)  # type: ignore[attr-defined]
        return future_paths(name_array(self._names())[states], drawn, known)

    def stream(self, params: xr.Dataset | None = None) -> ChainStream:
        """Filter that takes one row at a time, from the start of a sequence, in constant memory.

        Examples
        --------
        >>> import statespace_em as sse
        >>> quakes = sse.datasets.earthquakes()
        >>> model = sse.PoissonHMM(["quiet", "active"]).fit(quakes)
        >>> stream = model.stream()
        >>> for year, count in quakes.items():
        ...     step = stream.update(count, time=year)
        >>> step.filtered.round(3).tolist()                           # p(state | all years so far)
        [0.999, 0.001]
        >>> stream.predicted.round(3).tolist()                        # of the year to come
        [0.928, 0.072]
        """
        known = self._known(params)
        core = self._core(n_symbols=known.sizes.get("symbol"))
        tree = core.build(self._schema().arrays(known))
        return ChainStream(self, known, core, tree)  # type: ignore[arg-type]

    def sample(self, n_steps: int, params: xr.Dataset | None = None, *, seed: int | None = None) -> xr.Dataset:
        """Simulate one sequence.

        Returns
        -------
        xarray.Dataset
            ``state`` (time,) and ``y`` (time, feature); the same seed gives the same draw.
        """
        _validate.at_least("n_steps", n_steps, 1, whole=True)
        known = self._known(params)
        core = self._core(n_symbols=known.sizes.get("symbol"))
        tree = core.build(self._schema().arrays(known))
        path, y = core.sample(tree, n_steps, _validate.generator(seed))  # type: ignore[attr-defined]
        return drawn_dataset(name_array(self._names())[path], y, known)

    def summary(self) -> pd.DataFrame:
        """Parameters of the fit, one row a state.

        Columns: ``initial``; ``stationary`` share of time; ``persistence`` (probability to stay) and ``duration``
        (expected rows in the state); then the emissions.
        """
        params = self._known(None)
        transition = params["transition"].values
        stay = np.diag(transition)
        with np.errstate(divide="ignore"):
            duration = 1.0 / (1.0 - stay)
        columns = {
            "initial": params["initial"].values,
            "stationary": stationary(transition),
            "persistence": stay,
            "duration": duration,
        }
        return emission_summary(params, pd.DataFrame(columns, index=pd.Index(self._names(), name="state")))

    # what LatentModel asks for

    def _names(self) -> list[Any]:
        return state_names(self.states)

    def _support(self) -> str:
        return self._family().support

    def _schema(self) -> Schema:
        family, names = self._family(), self._names()
        chain, ties = self._chain(), read_ties(self.tie, names, family.dims)

        def dims(n_features: int | None) -> Dims:
            own = shown_dims(family, n_features)
            return {"initial": ("state",), "transition": ("state", "next_state"), **own}

        def check(arrays: Mapping[str, Floats]) -> None:
            if "initial" in arrays:
                _validate.simplex("initial", arrays["initial"], names)
                check_fixed("initial", arrays["initial"], chain.initial, names)
            if "transition" in arrays:
                _validate.simplex("transition", arrays["transition"], names, TRANSPOSED)
                check_fixed("transition", arrays["transition"], chain.transition, names)
            if chain.stationary:
                check_stationary(arrays.get("transition"), arrays.get("initial"))
            check_domains(family, arrays, names)
            ties.check(arrays, names)

        return Schema(names, dims, check, ("initial",) if chain.stationary else (), self.symbols)

    def _chain(self, freeze: Sequence[str] = ()) -> Chain:
        names, given = self._names(), self.initial
        is_stationary = isinstance(given, str) and given == "stationary"
        initial, transition = initial_pattern(given, names), transition_pattern(self.transition, names)
        check_chain(initial, transition, names, stationary=is_stationary)
        if is_stationary and "initial" in freeze:
            raise ParameterError(
                "freeze names 'initial', which follows from transition under initial=\"stationary\": freeze that."
            )
        frozen = tuple(name for name in freeze if name in ("initial", "transition"))
        return Chain(initial, transition, self.initial_prior, self.transition_prior, is_stationary, frozen)

    def _core(
        self,
        *,
        n_symbols: int | None = None,
        freeze: Sequence[str] = (),
        batch: Batch | None = None,
        given: Collection[str] | None = None,
    ) -> Core:
        family = self._family()
        ties = read_ties(self.tie, self._names(), family.dims)
        return HMMCore(
            bound(family, n_symbols, freeze, ties.of_cells),
            self._chain(freeze),
            tuple(freeze),
            1.0 if batch is None or given is None else column_scale(batch.y),  # asked for in fits only
            rule(self.order_by, self._support()),
            ties,
        )

    def _check_data(self, batch: Batch, labels: Labels, freeze: Sequence[str]) -> None:
        check_rows(batch, len(self._names()))
        check_constant(bound(self._family(), None, freeze), batch.y, list(labels.features))

    def _default_starts(self) -> int:
        return 1 if len(self._names()) == 1 else N_STARTS

    def _suggest_prior(self, batch: Batch) -> str:
        return suggested_prior(type(self).__name__, self._family(), batch.y)
