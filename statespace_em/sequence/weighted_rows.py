"""Rows of y whose entries are multiplied by known factors, as weights of their precision do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import ParameterError
from statespace_em.labels import Labels
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.lgssm_params import positions
from statespace_em.sequence.lgssm_specification import Specification
from statespace_em.sequence.state_space import StateSpaceModel
from statespace_em.sequence.student import squared_distances


class WeightedRows(StateSpaceModel):
    """The model of entries that are multiplied by known factors: its noise has the same covariance in every row."""

    def __init__(self, inner: StateSpaceModel, factor: Floats, batch: Batch) -> None:
        self.inner, self.factor, self.batch = inner, factor, batch
        self.likelihood = inner.likelihood
        self.process_prior, self.measurement_prior = inner.process_prior, inner.measurement_prior
        self.unsorted, self._inputs = inner.unsorted, inner._inputs
        self._of_steps = inner._of_steps

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"inner": self.inner, "factor": self.factor, "batch": self.batch}

    @property
    def plain_view(self) -> Floats:
        """Observation matrix (D, n), or (N, D, n) by row, of entries as they are."""
        spec = self.inner._specification(None)
        view = spec.value("observation")
        if view is None or not {"observation_offset", "observation_input"} <= set(spec.absent):
            raise ParameterError(
                "observation is not known, or there is an observation_offset or observation_input: Student-t noise "
                "needs a fixed observation and nothing beside it, as designs have it."
            )
        return view if view.ndim == 2 else view[positions(self.batch)]

    def _read(self, y: Any, params: xr.Dataset | None) -> tuple[Batch, Labels, list[Any] | None]:
        batch, labels, symbols = StateSpaceModel._read(self, y, params)
        return batch._replace(place=np.arange(len(batch.y))), labels, symbols  # factors differ from row to row

    def _specification(self, n_features: int | None) -> Specification:
        spec = self.inner._specification(n_features)
        place = positions(self.batch)
        patterns = {
            name: pattern.at(place) if isinstance(pattern, RowPattern) else pattern
            for name, pattern in spec.patterns.items()
            if name != "observation"
        }
        varying = {name: value[place] for name, value in spec.varying.items()}
        varying["observation"] = self.factor[:, :, None] * self.plain_view
        flow = None if spec.flow is None else spec.flow.placed(place)
        return replace(spec, patterns=patterns, varying=varying, flow=flow, segments=None)

    def _names(self) -> list[Any]:
        return self.inner._names()

    def _derived(self, values: Any) -> dict[str, float]:
        return {}


def numbered(names: Sequence[Any]) -> Ints:
    """Number (D,) of the owner of each column, from their names."""
    return np.array([list(dict.fromkeys(names)).index(name) for name in names])


def distances(y: Floats, view: Floats, mean: Floats, cov: Floats | None, noise: Floats, owners: Ints) -> Floats:
    """Expected squared Mahalanobis distances (N, G) of what is seen from what states of these moments say."""
    seen = ~np.isnan(y)
    error = np.where(seen, y - (view @ mean[:, :, None])[:, :, 0], 0.0)
    square = error[:, :, None] * error[:, None, :]
    square = square if cov is None else square + view @ cov @ np.swapaxes(view, -1, -2)
    return squared_distances(square, seen, noise, owners)
