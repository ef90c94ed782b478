"""Linear-Gaussian models that simulate: new sequences, futures, and states given y."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.errors import DataError, ParameterError
from statespace_em.inputs import takes_inputs
from statespace_em.labels import Labels, labelled_rows, show
from statespace_em.sequence.forecast import future_paths, one_sequence
from statespace_em.sequence.input_model import InputModel
from statespace_em.sequence.lgssm_forecast import constant_from, from_row, future_draws, with_future_inputs
from statespace_em.sequence.lgssm_params import LGSSMParams, driven, positions
from statespace_em.sequence.lgssm_simulation import simulate, smoothed_paths
from statespace_em.sequence.lgssm_smoother import smooth
from statespace_em.sequence.lgssm_values import check_length


class SimulationModel(InputModel):
    """A linear-Gaussian state-space model from which sequences are drawn."""

    @abstractmethod
    def _plain_parameters(self, params: xr.Dataset | None) -> tuple[xr.Dataset, LGSSMParams]:
        """Parameters with the columns of y that they are for, labelled and plain."""

    def _simulate_ahead(
        self, y: Any, horizon: int, n_paths: int, params: xr.Dataset, rng: np.random.Generator, *conditions: Any
    ) -> xr.Dataset:
        _, tree, batch, labels, known = self._prepare(y, params, *conditions)
        with labelled_rows(labels, self._names()):
            end = smooth(tree, batch)[0]
        last = one_sequence(batch, labels)
        self._check_ahead(labels, horizon)
        length = int(positions(batch)[last]) + 1
        inputs = None if self._inputs is None else self._inputs.ahead(labels, horizon)[0]
        if inputs is not None or self._is_constant:
            tree, length = self._from_row(tree, length, inputs), 1
        states, drawn = future_draws(tree, end.mean[last], end.cov[last], length, horizon, n_paths, rng)
        known = known.assign_coords(feature=labels.features)  # parameters that are all fixed tell none
        return future_paths(states, drawn, known).assign_coords(state_name=self._names())

    @property
    def _is_constant(self) -> bool:
        """Whether what each sequence has of its own is the same in all of its rows."""
        segments = self._segments()
        return segments is not None and segments.constant

    def _from_row(self, tree: LGSSMParams, length: int, inputs: Floats | None) -> LGSSMParams:
        """Parameters from the last row of a sequence on, row 0 now, whose entry is the one before this."""
        tree = constant_from(tree, length - 1) if self._is_constant else from_row(tree, length - 1)
        return tree if inputs is None else with_future_inputs(tree, inputs)

    @takes_inputs
    def simulate_smoothed(
        self, y: Any, n_paths: int, params: xr.Dataset | None = None, *, seed: int | None = None
    ) -> Any:
        """Draw paths of the states given all of y: the simulation smoother (Durbin & Koopman 2002).

        Parameters
        ----------
        y
            One sequence.
        n_paths
            Number of independent paths.
        params
            Parameters (those of the fit unless given).
        seed
            The same seed gives the same paths.

        Returns
        -------
        xarray.DataArray
            States (path, time, state_name) in their own units.

        Raises
        ------
        DataError
            If y has several sequences.
        """
        _validate.at_least("n_paths", n_paths, 1, whole=True)
        _, tree, batch, labels, _ = self._prepare(y, params)
        one_sequence(batch, labels)
        with labelled_rows(labels, self._names()):
            states = smoothed_paths(tree, batch, int(n_paths), _validate.generator(seed))
        coords = {**replace(labels, sequence=None).time_coords(), "state_name": self._names()}
        return xr.DataArray(states, coords, ("path", labels.time, "state_name"), "state", {"conditioning": "1:T"})

    @takes_inputs
    def sample(
        self, n_steps: int, params: xr.Dataset | None = None, *, seed: int | None = None, sequence: Hashable = None
    ) -> xr.Dataset:
        """Simulate one sequence.

        Parameters
        ----------
        n_steps
            Number of rows.
        params
            Parameters (those of the fit unless given).
        seed
            The same seed gives the same sequence.
        sequence
            Name of the sequence whose matrices it has, in a model where each sequence has its own.

        Returns
        -------
        xarray.Dataset
            ``state`` (time, state_name) and ``y`` (time, feature). States with a diffuse start begin at 0, for nothing
            else is known of them.

        Raises
        ------
        DataError
            If inputs, or matrices given for every row, have fewer rows.
        """
        _validate.at_least("n_steps", n_steps, 1, whole=True)
        self._check_inputs_given()
        segments, begin = self._segments(), 0
        if segments is None and sequence is not None:
            raise ParameterError(f"sequence is {sequence!r}, but all sequences have the same matrices: leave it out.")
        if segments is not None:
            _validate.one_of("sequence", sequence, segments.keys)
            which = segments.keys.index(sequence)
            begin, length = int(segments.begins[which]), int(segments.lengths[which])
            if length < n_steps and not segments.constant:
                raise DataError(
                    f"what the model has for sequence {show(sequence)} has {length} rows, but {n_steps} are asked for: "
                    "give it more when the model is made."
                )
        inputs = None if self._inputs is None else self._inputs.parts[0]
        return self._simulate(n_steps, params, seed, begin, inputs)

    def _simulate_like(self, labels: Labels, which: int, params: xr.Dataset, seed: int) -> xr.Dataset:
        segments, n_steps = self._segments(), len(labels.times[which])
        begin = 0 if segments is None else int(segments.begins[segments.numbers(labels)[which]])
        inputs = None if self._inputs is None else self._inputs.of_rows(labels)[which]
        return self._simulate(n_steps, params, seed, begin, inputs)

    def _simulate(
        self, n_steps: int, params: xr.Dataset | None, seed: int | None, begin: int, inputs: Floats | None
    ) -> xr.Dataset:
        """Simulate a sequence whose first row is this one of the matrices that vary."""
        known, tree = self._plain_parameters(params)
        if self._is_constant:
            tree = constant_from(tree, begin)
        else:
            check_length(self._specification(None), begin + n_steps, f"{n_steps} are asked for")
            tree = from_row(tree, begin)
        if inputs is not None:
            if len(inputs) < n_steps:
                raise DataError(f"inputs= has {len(inputs)} rows, but {n_steps} are asked for.")
            tree = driven(tree, inputs[:n_steps])
        states, y = simulate(tree, n_steps, _validate.generator(seed))
        return xr.Dataset(
            {"state": (("time", "component"), states), "y": (("time", "feature"), y)},
            {"time": np.arange(n_steps), "component": self._names(), "feature": known["feature"].values},
        ).rename(component="state_name")
