"""How sure the estimates are: what every model answers about its own fit."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import AnyArray, Floats
from statespace_em.boundary import HasBoundary
from statespace_em.core import Core, HasProfiled
from statespace_em.data import Batch
from statespace_em.diagnostics import diagnose
from statespace_em.diagnostics import standard_errors as errors_of
from statespace_em.diagnostics.bootstrap import replicates
from statespace_em.diagnostics.information import observed_information
from statespace_em.domains import Domain
from statespace_em.errors import InformationWarning, ParameterError
from statespace_em.fitting import Fit, FitOptions
from statespace_em.labels import Labels, labelled_rows
from statespace_em.schema import Schema

Quantities = Literal["parameters", "derived", "named"]
STATE = ("state",)


@runtime_checkable
class HasNames(Protocol):
    """A model with values that have a name of their own."""

    def _named(self, core: Core, tree: Any) -> dict[str, Floats]:
        """Those values."""
        ...

    def _named_domains(self, names: Sequence[str]) -> dict[str, Domain]:
        """Where they may lie."""
        ...


class Uncertain(ABC):
    """A fitted model that can tell how sure its parameters are."""

    takes_states: ClassVar[bool] = False  # whether states are discrete: may be known, and rows weighted

    @abstractmethod
    def sample(self, n: int, params: xr.Dataset | None = None, *, seed: int | None = None) -> xr.Dataset:
        """Simulate n rows of one sequence: ``y`` (time, feature) and their ``state``."""

    @abstractmethod
    def _names(self) -> list[Any]:
        """Names of the states."""

    @abstractmethod
    def _schema(self) -> Schema:
        """Names, dimensions and domains of the parameters."""

    @abstractmethod
    def _estimate(self, y: Any, options: FitOptions, states: Any = None, weights: Any = None) -> Fit:
        """Fit without a trace on the model or a warning, as threads need it."""

    @abstractmethod
    def _prepare(
        self, y: Any, params: xr.Dataset | None, states: Any = None, weights: Any = None, freeze: Any = None
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
            "named": the values that `summary` shows under a name of their own, such as "level_var" of a design.
        freeze, states, weights
            Those that the fit was given.

        Returns
        -------
        xarray.Dataset
            The variables of ``params_`` (or the derived ones, by state; or one number a name). NaN, not available,
            where a value is fixed, frozen, structurally zero or at the boundary of its domain (where no normal
            approximation holds), and where the data do not tell it; ``attrs["boundary"]`` says which one, such as a
            variance at 0 or a unit root, and the others are given that it is there. A first state that is fixed but
            unknown has the error of its generalised least squares estimate, the uncertainty of all else in it.

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
        errors, _, labels, known, _, notes = self._errors(y, params, of, freeze, states, weights)
        return _noted(self._labelled(errors, labels, known, of), notes)

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
        _validate.probability("level", level)
        errors, values, labels, known, core, notes = self._errors(y, params, of, freeze, states, weights)
        domains = self._named_domains(list(values)) if of == "named" and isinstance(self, HasNames) else {}
        ends = errors_of.intervals(core, values, errors, level, domains)
        parts = [self._labelled({n: v[..., i] for n, v in ends.items()}, labels, known, of) for i in (0, 1)]
        whole: xr.Dataset = xr.concat(parts, "bound", data_vars="all", coords="minimal", compat="override")
        whole = whole.assign_coords(bound=["lower", "upper"]).assign_attrs(level=level)
        return _noted(whole, notes)

    def parameter_draws(
        self,
        y: Any,
        n_draws: int = 200,
        params: xr.Dataset | None = None,
        *,
        freeze: Any = (),
        states: Any = None,
        weights: Any = None,
        seed: int = 0,
    ) -> xr.Dataset:
        """Draw parameters from their asymptotic distribution: how sure the fit is, as `forecast` takes it.

        The draws are normal around the maximum in unconstrained coordinates (logarithms of variances, square roots
        of probabilities and rates), with the inverse of the full observed information as covariance: of the same
        origin as `standard_errors`, and as cheap. `bootstrap` does without the normal approximation.

        Parameters
        ----------
        y, params, freeze, states, weights
            As in `standard_errors`.
        n_draws
            Number of draws.
        seed
            The same seed gives the same draws.

        Returns
        -------
        xarray.Dataset
            The variables of ``params_`` with a dim ``draw``. What is fixed, frozen, at the boundary or not told by the
            data is the same in all.

        Warns
        -----
        InformationWarning
            If the information is nearly singular, or the parameters are not at a maximum.

        Examples
        --------
        >>> import statespace_em as sse
        >>> quakes = sse.datasets.earthquakes()
        >>> model = sse.PoissonHMM(["quiet", "active"]).fit(quakes)
        >>> draws = model.parameter_draws(quakes, 500)
        >>> draws.rate.sel(state="active").std("draw").round(1).item()
        1.4
        >>> ahead = model.forecast(quakes, 5, draws, quantiles=[0.05, 0.95])   # or n_draws=500 in place of draws
        """
        _validate.at_least("n_draws", n_draws, 1, whole=True)
        _validate.at_least("seed", seed, 0, whole=True)
        core, tree, batch, labels, known = self._prepare(y, params, states, weights, freeze)
        with labelled_rows(labels, self._names()):
            information = observed_information(core, core.flatten(tree), batch)
        _, unknown = errors_of.parameter_errors(information)
        for message in errors_of.complaints(information, unknown):
            warnings.warn(message, InformationWarning, stacklevel=2)
        rng = np.random.default_rng(seed)
        drawn = [core.flatten(information.draw(rng)) for _ in range(n_draws)]
        return self._drawn_parameters(drawn, labels, known)

    def _drawn_parameters(self, drawn: list[dict[str, Floats]], labels: Labels, known: xr.Dataset) -> xr.Dataset:
        parts = [self._labelled(arrays, labels, known, "parameters") for arrays in drawn]
        whole: xr.Dataset = xr.concat(parts, "draw", data_vars="all", coords="minimal", compat="override")
        return whole.assign_coords(draw=np.arange(len(parts)))

    def bootstrap(
        self,
        y: Any,
        params: xr.Dataset | None = None,
        *,
        n_replicates: int = 200,
        freeze: Any = (),
        states: Any = None,
        weights: Any = None,
        seed: int = 0,
        threads: int | None = None,
        progress: bool = False,
    ) -> xr.Dataset:
        """Parametric bootstrap: fits of simulations from the model, each as long and with the same gaps as y.

        Every refit climbs from ``params``, and its states are put in their order (`compare.match_states`). Unlike
        `standard_errors` this needs no normal approximation; what is zero in ``params`` stays zero, however. It tells
        how estimates scatter over data such as the model makes, `standard_errors` how sharp the likelihood of these
        data is: over simulations the two agree on average, for one short series they may differ by a third, where its
        states can be told apart less (or better) than usual (Efron & Hinkley 1978).

        Parameters
        ----------
        y, params
            The observations of the fit, for their shape; and the parameters (those of the fit unless given).
        n_replicates
            Number of simulations.
        freeze
            Names of the parameters that the fit left alone.
        states, weights
            Those that the fit was given. Refits are told the simulated states of the rows whose state is known, and
            have the same weights: the spread is that of this estimator under the model, in which a sequence of
            weight 2 is one sequence that counts twice (to `standard_errors` it is two).
        seed, threads, progress
            As in `fit`.

        Returns
        -------
        xarray.Dataset
            The variables of ``params_`` with a dim ``replicate``, and the ``status`` and ``log_likelihood`` (nats) of
            each refit; ``.std("replicate")`` and ``.quantile([0.025, 0.975], "replicate")`` are what one asks of it.
        """
        _validate.at_least("n_replicates", n_replicates, 1, whole=True)
        _validate.at_least("seed", seed, 0, whole=True)
        if threads is not None:
            _validate.at_least("threads", threads, 1, whole=True)
        core, _, batch, labels, known = self._prepare(y, params, states, weights, freeze)
        options = FitOptions(start=known, freeze=tuple(freeze))

        def refit(drawn: Any, *said: Any) -> tuple[xr.Dataset, str, float]:
            fit = self._estimate(drawn, options, *said)
            params = self._schema().label(fit.arrays, fit.labels.features, fit.symbols)
            return params, fit.chosen.status, fit.chosen.trace[-1].log_likelihood

        def draw(which: int, number: int) -> tuple[AnyArray, AnyArray]:
            drawn = self._simulate_like(labels, which, known, number)
            return np.asarray(drawn["y"].values), np.asarray(drawn["state"].values)

        return replicates(
            draw, refit, batch, labels, core, known, n=n_replicates, seed=seed, threads=threads, progress=progress
        )

    def diagnose(
        self, y: Any, params: xr.Dataset | None = None, *, freeze: Any = (), states: Any = None, weights: Any = None
    ) -> pd.DataFrame:
        """What is wrong with a fit, and what to do about it, in words.

        Parameters
        ----------
        y, params, freeze, states, weights
            As in `standard_errors`.

        Returns
        -------
        pandas.DataFrame
            One row a finding: ``check`` ("starved state", "alike states", "floor binds", "boundary", "information",
            "not at a maximum", "EM rate"), ``where``, ``value`` (of what the check measures), ``finding`` and
            ``advice``. No rows: nothing was found.

        Examples
        --------
        >>> import statespace_em as sse
        >>> quakes = sse.datasets.earthquakes()
        >>> sse.PoissonHMM(["quiet", "active"]).fit(quakes).diagnose(quakes)[["check", "where"]].values.tolist()
        [['boundary', "initial of 'active'"]]
        """
        core, tree, batch, labels, known = self._prepare(y, params, states, weights, freeze)
        names, found = self._names(), diagnose.Findings()
        with labelled_rows(labels, names):
            statistics = core.e_step(tree, batch)[0]
            if self.takes_states:
                gamma = np.asarray(core.posterior(tree, batch, pairs=False).rows["gamma"][1])
                diagnose.starved(found, gamma, batch, core.n_free(tree) / len(names), names)
                diagnose.alike(found, gamma, names)
            diagnose.at_floor(found, core.degenerate(tree, statistics), names)
            if isinstance(core, HasBoundary):
                diagnose.without_variance(found, core.at_zero(tree))
            try:
                information = observed_information(core, core.flatten(tree), batch)
            except ParameterError as error:
                found.add("information", "all parameters", np.nan, str(error), "see the other findings")
                return found.table()
            labelled = self._labelled(core.flatten(tree), labels, known, "parameters")
            diagnose.without_decay(found, information)
            diagnose.at_boundary(found, core, information, labelled, freeze)
            diagnose.curvature(found, information)
            diagnose.speed(found, diagnose.rate_of_em(core, batch, information))
        return found.table()

    def _simulate_like(self, labels: Labels, which: int, params: xr.Dataset, seed: int) -> xr.Dataset:
        """Simulate one of the sequences of y, at its times."""
        return self.sample(len(labels.times[which]), params, seed=seed)

    def _errors(
        self, y: Any, params: xr.Dataset | None, of: Quantities, freeze: Any, states: Any, weights: Any
    ) -> tuple[dict[str, Floats], dict[str, Floats], Labels, xr.Dataset, Core, dict[str, str]]:
        """Standard errors and values by name, what is said of some, after complaints about the information."""
        _validate.one_of("of", of, ("parameters", "derived", "named"))
        core, tree, batch, labels, known = self._prepare(y, params, states, weights, freeze)
        with labelled_rows(labels, self._names()):
            information = observed_information(core, core.flatten(tree), batch)
        errors, unknown = errors_of.parameter_errors(information)
        notes = errors_of.notes(information, tree, known)
        for message in errors_of.complaints(information, unknown):
            warnings.warn(message, InformationWarning, stacklevel=3)
        if of == "parameters":
            if isinstance(core, HasProfiled):
                for name, own in core.profiled_errors(information, batch).items():
                    errors[name] = np.where(np.isnan(own), errors[name], own)
            return errors, core.flatten(tree), labels, known, core, notes
        if of == "named":
            values = self._named(core, tree) if isinstance(self, HasNames) else {}
            if not values or not isinstance(self, HasNames):
                raise ParameterError(f"no parameter of this {type(self).__name__} has a name of its own.")
            named = errors_of.named_errors(information, partial(self._named, core))
            return named, values, labels, known, core, notes
        values = errors_of.derived_values(core, tree)
        if not values:
            raise ParameterError(f'{type(self).__name__} has no derived quantities: of="parameters".')
        return errors_of.derived_errors(information), values, labels, known, core, notes

    def _labelled(self, arrays: dict[str, Floats], labels: Labels, known: xr.Dataset, of: Quantities) -> xr.Dataset:
        if of == "named":
            return xr.Dataset({n: ((), float(v)) for n, v in arrays.items()})
        if of == "derived":
            return xr.Dataset({n: (STATE, np.asarray(v)) for n, v in arrays.items()}, {"state": self._names()})
        symbols = known["symbol"].values.tolist() if "symbol" in known.coords else None
        return self._schema().label(arrays, labels.features, symbols)


def _noted(found: xr.Dataset, notes: dict[str, str]) -> xr.Dataset:
    """Results that say what is at a boundary."""
    for name, words in notes.items():
        if name in found:
            found[name].attrs["boundary"] = words
    return found
