"""Models of y as a sum of components: y taken apart again, and regressors that must reach as far as the question."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import xarray as xr

from statespace_em.data import Batch
from statespace_em.errors import DataWarning
from statespace_em.labels import Labels, labelled_rows
from statespace_em.predictive import Predictive
from statespace_em.segments import Segments
from statespace_em.sequence.components import NOISY
from statespace_em.sequence.decomposition import View, check_asked, decomposed, units_of_y
from statespace_em.sequence.lgssm_filter import filtered_moments
from statespace_em.sequence.lgssm_params import positions
from statespace_em.sequence.lgssm_smoother import smooth
from statespace_em.sequence.regressors import check_ahead, check_times, segments_of
from statespace_em.sequence.state_space import StateSpaceModel
from statespace_em.sequence.summand import Addable, placed

MANY = 150  # states from which a season is told to be dear


class ComponentSum(Addable, StateSpaceModel):
    """What sums of components answer, from row to row and in continuous time alike."""

    components: Sequence[Any]
    noise: str

    def on(self, where: str) -> Self:
        """The same of one sensor, or of one column, of the motion that it is added to."""
        return type(self)(**(self.get_params() | {"components": placed(self.components, where)}))

    def decompose(
        self,
        y: Any,
        params: xr.Dataset | None = None,
        *,
        of: Literal["smoothed", "filtered"] = "smoothed",
        level: float = 0.95,
    ) -> xr.Dataset:
        """Take y apart: level, slope, seasonal, cycle, effects of regressors, irregular, each with its interval.

        Parameters
        ----------
        y, params
            Observations, and parameters (those of the fit unless given).
        of
            "smoothed": with hindsight, given all of y; "filtered": as it was known at each time.
        level
            Probability of the intervals.

        Returns
        -------
        xarray.Dataset
            ``mean`` ([sequence,] time, component) in units of y, ``variance`` in their square, and the ends ``lower``
            and ``upper`` of the interval. The components marked by the coordinate ``in_y`` add up to y where it was
            seen (all but the slope, which is that of the level per row, or per unit of time); ``kind`` says what each
            is ("regression" for the effect of a column), and with several columns of y ``column`` of which of them it
            is part. "irregular" is what is left of y, NaN where it is missing. Where a diffuse start is not yet
            determined the mean is NaN, the variance infinite; constants that start "fixed" count as known.

        Examples
        --------
        >>> import statespace_em as sse
        >>> flow = sse.datasets.nile()
        >>> parts = sse.designs.local_level().fit(flow).decompose(flow)
        >>> parts["component"].values.tolist()
        ['level', 'irregular']
        >>> parts["mean"].sel(year=1900).values.round(1).tolist(), flow[1900].item()
        ([919.5, -79.5], 840.0)
        """
        check_asked(of, level)
        _, tree, batch, labels, _ = self._prepare(y, params)
        with labelled_rows(labels, self._names()):
            if of == "filtered":
                known = filtered_moments(tree, batch, self.likelihood)
                mean, cov = known.filtered_mean, np.asarray(known.filtered_cov)
            else:
                states = smooth(tree, batch)[0]
                mean, cov = states.mean, np.asarray(states.cov)
        return decomposed(
            self._views(y, params, labels), mean, cov, positions(batch), batch.y, labels, noisy=self._noisy(), of=of,
            level=level, units=units_of_y(y),
        )  # fmt: skip

    @abstractmethod
    def _views(self, y: Any, params: xr.Dataset | None, labels: Labels) -> list[View]:
        """The components, as weighted sums of the states at the rows of y."""

    def _noisy(self) -> bool:
        """Whether y has a measurement noise of its own."""
        kinds = [kind for kind, _ in self.components]
        noisy = any(kind in NOISY for kind in kinds) or "arma" not in kinds
        return noisy if self.noise == "auto" else self.noise == "free"

    # regressors know the rows of y

    def _segments(self) -> Segments | None:
        return segments_of(self.components)

    def _check_data(self, batch: Batch, labels: Labels, freeze: Sequence[str]) -> None:
        super()._check_data(batch, labels, freeze)
        seasons = [options["period"] for kind, options in self.components if kind == "seasonal"]
        if seasons and len(self._names()) > MANY:
            warnings.warn(
                f"the model has {len(self._names())} states, most of them of seasonal({max(seasons)}): every row costs "
                f"the cube of that. Ask for the harmonics that the pattern needs, as in seasonal({max(seasons)}, "
                "harmonics=10).",
                DataWarning,
                stacklevel=6,
            )
        check_times(self.components, labels)

    def _future(self, y: Any, horizon: int, params: xr.Dataset, *conditions: Any) -> tuple[xr.Dataset, Predictive]:
        check_ahead(self.components, lambda: self._read(y, params)[1], y, horizon)
        return super()._future(y, horizon, params, *conditions)

    def _simulate_ahead(
        self, y: Any, horizon: int, n_paths: int, params: xr.Dataset, rng: np.random.Generator, *conditions: Any
    ) -> xr.Dataset:
        check_ahead(self.components, lambda: self._read(y, params)[1], y, horizon)
        return super()._simulate_ahead(y, horizon, n_paths, params, rng, *conditions)
