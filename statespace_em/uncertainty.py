"""How sure the estimates are: what every model answers about its own fit."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.core import Core
from statespace_em.data import Batch
from statespace_em.diagnostics import standard_errors as errors_of
from statespace_em.diagnostics.information import observed_information
from statespace_em.errors import InformationWarning, ParameterError
from statespace_em.labels import Labels, labelled_rows
from statespace_em.schema import Schema

Quantities = Literal["parameters", "derived"]
STATE = ("state",)


class Uncertain(ABC):
    """A fitted model that can tell how sure its parameters are."""

    @abstractmethod
    def _schema(self) -> Schema:
        """Names, dimensions and domains of the parameters."""

    @abstractmethod
    def _ready(
        self, y: Any, params: xr.Dataset | None, states: Any = None, weights: Any = None, freeze: Any = ()
    ) -> tuple[Core, Any, Batch, Labels, xr.Dataset]:
        """Everything that a question about y needs."""

    def standard_errors(
        self,
        y: Any,
        params: xr.Dataset | None = None,
        *,
        of: Quantities = "parameters",
        freeze: Any = (),
        states: Any = None,
        weights: Any = None,
    ) -> xr.Dataset:
        """Standard errors from the full observed information, the inverse of the whole Hessian.

        The Hessian of the log-likelihood (plus log prior) is that in unconstrained coordinates, from differences of
        the exact score; the delta method brings it back to the parameters.

        Parameters
        ----------
        y, params
            The observations of the fit, and parameters at a maximum (those of the fit unless given).
        of
            "parameters", or "derived" for what follows from them: of hidden Markov models ``persistence`` (the
            probability to stay), ``stationary`` (share of time) and ``duration`` (expected rows in the state).
        freeze, states, weights
            Those that the fit was given.

        Returns
        -------
        xarray.Dataset
            The variables of ``params_`` (or the derived ones, by state). NaN, not available, where a value is fixed,
            frozen, structurally zero or at the boundary of its domain (where no normal approximation holds), and
            where the data do not tell it.

        Warns
        -----
        InformationWarning
            If the information is nearly singular, or the parameters are not at a maximum.

        Examples
        --------
        >>> import statespace_em as sse
        >>> quakes = sse.datasets.earthquakes()
        >>> model = sse.PoissonHMM(["quiet", "active"]).fit(quakes)
        >>> model.standard_errors(quakes).rate.sel(state="active").round(2).item()
        1.38
        """
        errors, _, labels, known, _ = self._errors(y, params, of, freeze, states, weights)
        return self._labelled(errors, labels, known, of)

    def confidence_intervals(
        self,
        y: Any,
        params: xr.Dataset | None = None,
        *,
        level: float = 0.95,
        of: Quantities = "parameters",
        freeze: Any = (),
        states: Any = None,
        weights: Any = None,
    ) -> xr.Dataset:
        """Confidence intervals (Wald) on the natural scale of each parameter.

        Those of probabilities are symmetric in the logit, those of rates and variances in the logarithm, so that
        they stay inside their domain; means, coefficients and covariances are taken as they are. See
        `standard_errors` for the arguments and for where there is none.

        Returns
        -------
        xarray.Dataset
            As `standard_errors`, with a dim ``bound``: "lower", "upper".
        """
        if not isinstance(level, int | float) or isinstance(level, bool) or not 0.0 < level < 1.0:
            raise ParameterError(f"level is {level!r}, expected a number between 0 and 1, such as 0.95.")
        errors, values, labels, known, core = self._errors(y, params, of, freeze, states, weights)
        ends = errors_of.intervals(core, values, errors, level)
        parts = [self._labelled({n: v[..., i] for n, v in ends.items()}, labels, known, of) for i in (0, 1)]
        whole: xr.Dataset = xr.concat(parts, "bound", data_vars="all", coords="minimal", compat="override")
        return whole.assign_coords(bound=["lower", "upper"]).assign_attrs(level=level)

    def _errors(
        self, y: Any, params: xr.Dataset | None, of: Quantities, freeze: Any, states: Any, weights: Any
    ) -> tuple[dict[str, Floats], dict[str, Floats], Labels, xr.Dataset, Core]:
        """Standard errors and values by name, after complaints about the information."""
        _validate.one_of("of", of, ("parameters", "derived"))
        core, tree, batch, labels, known = self._ready(y, params, states, weights, freeze)
        with labelled_rows(labels, self._schema().names):
            information = observed_information(core, core.flatten(tree), batch)
        errors, unknown = errors_of.parameter_errors(information)
        for message in errors_of.complaints(information, unknown):
            warnings.warn(message, InformationWarning, stacklevel=3)
        if of == "parameters":
            return errors, core.flatten(tree), labels, known, core
        values = errors_of.derived_values(core, tree)
        if not values:
            raise ParameterError(f'{type(self).__name__} has no derived quantities: of="parameters".')
        return errors_of.derived_errors(information), values, labels, known, core

    def _labelled(self, arrays: dict[str, Floats], labels: Labels, known: xr.Dataset, of: Quantities) -> xr.Dataset:
        if of == "derived":
            return xr.Dataset({n: (STATE, np.asarray(v)) for n, v in arrays.items()}, {"state": self._schema().names})
        symbols = known["symbol"].values.tolist() if "symbol" in known.coords else None
        return self._schema().label(arrays, labels, symbols)
