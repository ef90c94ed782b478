"""Measurements with outliers: Student-t noise in a linear-Gaussian model, by EM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import gammaln, psi

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.errors import DataError, ParameterError
from statespace_em.fitting import FitOptions
from statespace_em.labels import labelled_rows
from statespace_em.sequence.lgssm_specification import Specification
from statespace_em.sequence.motion_model import MotionModel
from statespace_em.sequence.state_space import StateSpaceModel

STEPS = 20  # of EM between two updates of the weights
DOFS = (0.5, 200.0)  # between which degrees of freedom are estimated


class StudentFit(NamedTuple):
    """What `fit_student` found."""

    model: Any  # the model with its parameters; on its own it takes all measurements for good ones
    posterior: xr.Dataset  # e_step given the weights: gamma, cov, cross_cov (time, ...)
    weights: xr.DataArray  # (time,), the precision of each row in units of the common one: near 0 for an outlier
    dof: float
    trace: pd.DataFrame  # the objective, nats
    converged: bool


def fit_student(model: Any, y: Any, *, dof: float | None = 4.0, max_iter: int = 200, tol: float = 1e-6) -> StudentFit:
    """Estimate a model whose measurement noise is Student-t, so that outliers lose their weight.

    The noise of row t is N(0, measurement_cov / w_t) with w_t ~ Gamma(dof / 2, dof / 2): jointly Student-t over the
    entries of the row (``measurement_cov`` is its scale, not its covariance). What is maximised is the variational
    lower bound of the log-likelihood under q(states) q(w), in turn over the parameters and q(states), by EM with the
    weights held, and over q(w_t) = Gamma((dof + p) / 2, (dof + d) / 2), where p is the number of entries and d the
    expected squared Mahalanobis distance of the smoothed residual. Every turn raises the bound (Tipping & Lawrence 2005
    for regression).

    Parameters
    ----------
    model
        A `LinearGaussianSSM` or a design with a known ``observation`` and no free ``observation_offset``. It is not
        changed.
    y
        One sequence.
    dof
        Degrees of freedom; None estimates them.
    max_iter, tol
        Most updates of the weights, and the gain of one of them, in nats, at which they end.

    Raises
    ------
    ParameterError
        If the model sees the states in a way that is not known.
    DataError
        If y has several sequences.

    Examples
    --------
    >>> import statespace_em as sse
    >>> radar = sse.datasets.radar()                                       # outliers are not marked for the model
    >>> found = sse.robust.fit_student(sse.designs.constant_velocity(["east", "north"]), radar["measured"])
    >>> bool(found.weights[radar["outlier"]].median() < 0.05), bool(found.weights[~radar["outlier"]].median() > 0.9)
    (True, True)
    """
    if dof is not None and not dof > 0.0:
        raise ParameterError(f"dof is {dof!r}, expected a positive number, or None to estimate it.")
    _validate.at_least("max_iter", max_iter, 1, whole=True)
    inner = model._on(y, None) if isinstance(model, MotionModel) else model
    batch, labels, _ = model._read(y, None)
    if labels.sequence is not None:
        raise DataError(f"y has {len(labels.keys)} sequences: fit them one by one.")
    seen = ~np.isnan(batch.y)
    entries, nu = seen.sum(1).astype(float), 4.0 if dof is None else float(dof)
    weight, bound = np.ones(len(batch.y)), np.full(len(batch.y), -np.inf)  # no distribution yet: not in the bound
    start, trace, converged = None, [-np.inf], False
    for _ in range(max_iter):
        now = _Weighted(inner, np.sqrt(weight))
        scaled = labels.dataset(
            {"y": (("feature",), np.sqrt(weight)[:, None] * batch.y)}, {"feature": labels.features}
        )["y"]
        with labelled_rows(labels):
            fit = now._estimate(scaled, FitOptions(start=start, max_iter=STEPS if start is not None else 1000))
        start = now._schema().label(fit.arrays, labels, None).drop_vars("observation")  # that of these weights
        trace.append(fit.chosen.trace[-1].objective + float(bound.sum()))
        if np.isfinite(trace[-2]) and trace[-1] - trace[-2] < tol:
            converged = True
            break
        posterior = now.e_step(scaled, start)
        distance = _distances(now.plain_view, start, posterior, batch.y)
        shape, rate = (nu + entries) / 2.0, (nu + distance) / 2.0
        weight, log_weight = shape / rate, psi(shape) - np.log(rate)
        if dof is None:
            nu = _best_dof(float((log_weight - weight)[entries > 0].mean()))
        bound = 0.5 * entries * log_weight - _divergence(shape, rate, nu / 2.0)
        bound = np.where(entries > 0, bound, 0.0)
        weight = np.where(entries > 0, weight, 1.0)
    assert start is not None
    posterior = now.e_step(scaled, start)
    found = type(model)(**model.get_params())
    found.params_ = _unscaled(found, inner, start, now.plain_view)
    weights = xr.DataArray(now.factor**2, dims=labels.time, coords=labels.time_coords(), name="weight")
    table = pd.DataFrame({"objective": trace[2:]}).rename_axis("iteration")
    return StudentFit(found, posterior, weights, nu, table, converged)


class _Weighted(StateSpaceModel):
    """The model of rows that are multiplied by known factors: its noise has the same covariance in every row."""

    def __init__(self, inner: StateSpaceModel, factor: Floats) -> None:
        self.inner, self.factor = inner, factor
        self.likelihood = inner.likelihood
        self.process_prior, self.measurement_prior = inner.process_prior, inner.measurement_prior
        self.unsorted = inner.unsorted

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"inner": self.inner, "factor": self.factor}

    @property
    def plain_view(self) -> Floats:
        """Observation matrix ([T,] D, n) of rows as they are."""
        spec = self.inner._specification(None)
        view = spec.value("observation")
        if view is None or "observation_offset" not in spec.absent:
            raise ParameterError(
                "observation is not known, or observation_offset free: Student-t noise needs a fixed observation "
                "without offset, as designs have it."
            )
        return view

    def _specification(self, n_features: int | None) -> Specification:
        spec = self.inner._specification(n_features)
        patterns = {name: pattern for name, pattern in spec.patterns.items() if name != "observation"}
        view = self.plain_view
        rows = np.broadcast_to(view, (len(self.factor), *view.shape[-2:])) if view.ndim == 2 else view
        scaled = self.factor[:, None, None] * rows[: len(self.factor)]
        varying = {name: value[: len(self.factor)] for name, value in spec.varying.items()} | {"observation": scaled}
        return replace(spec, patterns=patterns, varying=varying)

    def _names(self) -> list[Any]:
        return self.inner._names()

    def _derived(self, values: Any) -> dict[str, float]:
        return {}


def _distances(view: Floats, params: xr.Dataset, posterior: xr.Dataset, y: Floats) -> Floats:
    """Expected squared Mahalanobis distance (T,) of what is seen of each row from what the states say."""
    mean, cov = posterior["gamma"].values, posterior["cov"].values
    view = view[: len(y)] if view.ndim == 3 else np.broadcast_to(view, (len(y), *view.shape))
    seen = ~np.isnan(y)
    pair = seen[:, :, None] & seen[:, None, :]
    error = np.where(seen, y - (view @ mean[:, :, None])[:, :, 0], 0.0)
    square = error[:, :, None] * error[:, None, :] + np.where(pair, view @ cov @ view.swapaxes(1, 2), 0.0)
    noise = np.where(pair, params["measurement_cov"].values, np.eye(y.shape[1]))
    return np.asarray(np.trace(np.linalg.solve(noise, square), axis1=1, axis2=2))


def _divergence(shape: Floats, rate: Floats, half: float) -> Floats:
    """Kullback-Leibler divergence of Gamma(shape, rate) from Gamma(half, half)."""
    away = (shape - half) * psi(shape) - gammaln(shape) + gammaln(half)
    return np.asarray(away + half * (np.log(rate) - np.log(half)) + shape * (half - rate) / rate)


def _best_dof(mean: float) -> float:
    """Degrees of freedom that maximise the expected log density of the weights; ``mean`` of E log w - E w."""
    from scipy.optimize import brentq

    def slope(nu: float) -> float:
        return float(np.log(nu / 2.0) + 1.0 - psi(nu / 2.0) + mean)

    low, high = DOFS
    if slope(low) <= 0.0 or slope(high) >= 0.0:
        return low if slope(low) <= 0.0 else high
    return float(brentq(slope, low, high))


def _unscaled(model: Any, inner: Any, params: xr.Dataset, view: Floats) -> xr.Dataset:
    """Parameters of the model from those of its scaled rows."""
    if isinstance(model, MotionModel):
        shown = inner._shown(inner._estimated(params["process_cov"].values))
        dynamics = model._schema().dataset(shown).drop_vars(("feature", "feature_aux"), errors="ignore")
        kept = {name: params[name] for name in ("measurement_cov", "initial_mean", "initial_cov")}
        return dynamics.assign(kept).assign_coords(feature=params["feature"], feature_aux=params["feature_aux"])
    plain = params.assign(observation=(("feature", "state") if view.ndim == 2 else ("time", "feature", "state"), view))
    return plain if view.ndim == 3 else plain.drop_vars("time", errors="ignore")
