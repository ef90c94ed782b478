"""Sequence models that known inputs may drive: every question takes ``inputs=``."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, Self

import xarray as xr

from statespace_em.data import Batch
from statespace_em.errors import DataError, ParameterError
from statespace_em.inputs import Inputs, read_inputs, takes_inputs
from statespace_em.labels import Labels, listed
from statespace_em.scale.chunks import is_chunked
from statespace_em.scale.conditions import ChunkInputs, names_of
from statespace_em.segments import Segments
from statespace_em.sequence.base import SequenceModel
from statespace_em.sequence.lgssm_specification import Specification


class InputModel(SequenceModel):
    """A sequence model whose specification may have inputs."""

    @abstractmethod
    def _specification(self, n_features: int | None) -> Specification:
        """Patterns of all matrices; without the number of features, those that do not need it."""

    @abstractmethod
    def _settle(self, y: Any) -> None:
        """Complete what a fit to y found."""

    def _segments(self) -> Segments | None:
        """Rows that each sequence of a panel has matrices for; None where all have the same."""
        return None

    _inputs: Inputs | None = None  # known to the copy of the model that answers a question with ``inputs=``
    _given: Any = None  # inputs of chunked data, of which only the names are read

    e_step = takes_inputs(SequenceModel.e_step)
    m_step = takes_inputs(SequenceModel.m_step)
    score = takes_inputs(SequenceModel.score)
    smooth = takes_inputs(SequenceModel.smooth)
    one_step = takes_inputs(SequenceModel.one_step)
    residuals = takes_inputs(SequenceModel.residuals)
    forecast = takes_inputs(SequenceModel.forecast)
    forecast_density = takes_inputs(SequenceModel.forecast_density)
    simulate = takes_inputs(SequenceModel.simulate)
    standard_errors = takes_inputs(SequenceModel.standard_errors)
    confidence_intervals = takes_inputs(SequenceModel.confidence_intervals)
    parameter_draws = takes_inputs(SequenceModel.parameter_draws)
    bootstrap = takes_inputs(SequenceModel.bootstrap)
    diagnose = takes_inputs(SequenceModel.diagnose)

    def fit(self, y: Any, *, inputs: Any = None, **options: Any) -> Any:
        """Estimate what is free; see `LatentModel.fit` for the other options.

        Parameters
        ----------
        y
            Observations.
        inputs
            Known inputs of a model that has ``state_input`` or ``observation_input``: a row for every row of y, in any
            container that y may be in, without gaps. Rows with times find those of y; rows after the end of y are of
            its future, which forecasts need. One table serves several sequences; a list or dict has one for each.
            Of chunked data, in chunks too (whichever), or in memory.
        """
        if inputs is not None:
            bound = self._with_inputs(inputs, y)
            bound.fit(y, **options)
            self.__dict__.update({name: value for name, value in vars(bound).items() if name.endswith("_")})
            return self
        if is_chunked(y) and self._specification(None).starts_as("fixed").any():
            raise DataError(
                'y is in chunks, but a first state that is "fixed" is one constant for all sequences, which chunks do '
                'not tell one by one: take the start "diffuse", where each sequence has its own, or pass y.compute() '
                "if it fits in memory."
            )
        super().fit(y, **options)
        self._settle(y)
        return self

    def _with_inputs(self, inputs: Any, y: Any) -> Self:
        """Copy of this model that knows the inputs of y."""
        if not self._specification(None).has_inputs:
            raise ParameterError(
                f"inputs= was given, but this {type(self).__name__} has none: LinearGaussianSSM(..., "
                'state_input="free") or observation_input="free" takes them.'
            )
        bound = copy.copy(self)
        if is_chunked(y):
            bound._given, bound._inputs = inputs, names_of(inputs, self.unsorted)
        else:
            bound._inputs = read_inputs(inputs, self.unsorted)
        return bound

    def _check_inputs_given(self) -> None:
        """Refuse to answer without the inputs of a model that has them."""
        if self._inputs is None and self._specification(None).has_inputs:
            raise DataError("the model has inputs, but they are missing: pass inputs=, a row for every row of y.")

    def _read_options(self, params: xr.Dataset | None) -> dict[str, Any]:
        self._check_inputs_given()
        return super()._read_options(params)

    def _read(self, y: Any, params: xr.Dataset | None) -> tuple[Batch, Labels, list[Any] | None]:
        batch, labels, symbols = super()._read(y, params)
        segments = self._segments()
        if segments is not None:
            batch = batch._replace(place=segments.places(labels))
        if self._inputs is None:
            return batch, labels, symbols
        if params is not None and "input" in params.dims:
            self._inputs = self._inputs.arranged(params["input"].values.tolist())
        known = self._inputs
        if self._given is not None:  # of chunks, all of which are wanted here
            known = read_inputs(self._given, self.unsorted).arranged(known.names)
        return known.beside(batch, labels), labels, symbols

    def _known(self, params: xr.Dataset | None, *, needed: bool = True) -> Any:
        found, segments = super()._known(params, needed=needed), self._segments()
        if segments is None or found is None or found.sizes.get("time", segments.n_rows) == segments.n_rows:
            return found
        spec = self._specification(None)
        told = [name for name in spec.by_row if name in found and name not in spec.varying]
        if told:
            raise ParameterError(
                f"{told[0]} in the parameters has {found.sizes['time']} rows, but those of the sequences "
                f"{listed(segments.keys)} are {segments.n_rows}: fit the model that has all rows, those of the future "
                "too, and ask it."
            )
        return found.drop_dims("time")

    def _check_ahead(self, labels: Labels, horizon: int) -> None:
        """Refuse a future that what each sequence has of its own does not reach."""
        segments = self._segments()
        if segments is not None:
            segments.check_ahead(labels, horizon)

    def _as_one_series(self, key: Any, y: Any) -> Any:
        return y if self._segments() is None else {key: y}

    def _chunk_inputs(self, params: xr.Dataset | None) -> ChunkInputs | None:
        if self._segments() is not None:
            raise DataError(
                "y is in chunks, but the model has matrices for each of its sequences: pass y.compute() if it fits in "
                "memory."
            )
        if self._given is None or self._inputs is None:
            return None
        if params is not None and "input" in params.dims:
            self._inputs = self._inputs.arranged(params["input"].values.tolist())
        return self._given, self._inputs.names
