"""Measurements with outliers: Student-t noise in a linear-Gaussian model, by EM."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import ConvergenceWarning, ParameterError
from statespace_em.fitting import FitOptions
from statespace_em.labels import Labels, labelled_rows, seeing
from statespace_em.row_patterns import RowPattern
from statespace_em.schema import state_coords
from statespace_em.sequence.continuous_definition import BaseDynamics
from statespace_em.sequence.continuous_time import ContinuousTimeModel
from statespace_em.sequence.filter_row import By, owners
from statespace_em.sequence.lgssm_pairs import pair_moments
from statespace_em.sequence.lgssm_specification import DIMS
from statespace_em.sequence.lgssm_values import values_of
from statespace_em.sequence.state_space import StateSpaceModel
from statespace_em.sequence.student import best_dof, divergence, expected_weights, shape_and_rate
from statespace_em.sequence.student_copies import Problem, rows_of_copies
from statespace_em.sequence.student_draws import chains_of, climbed, is_exact
from statespace_em.sequence.student_errors import student_errors
from statespace_em.sequence.student_evidence import evidence
from statespace_em.sequence.weighted_rows import WeightedRows, distances, numbered

STEPS = 6  # of EM between two updates of the weights
SIZE, DRAWS = 100_000, (16, 256)  # states times rows of all draws, and how many draws at least and at most
NEAR = 1e-2  # nats to which the bound is climbed before draws go on
METHODS = ("likelihood", "variational")
Method = Literal["likelihood", "variational"]


class StudentFit(NamedTuple):
    """What `fit_student` found."""

    model: Any  # the model with its parameters; on its own it takes all measurements for good ones
    posterior: xr.Dataset  # as of e_step: gamma, cov, cross_cov, xi ([sequence,] time, ...) and log_likelihood
    weights: xr.DataArray  # ([sequence,] time[, feature]), precision in units of the common one: near 0 for an outlier
    dof: Any  # a number; a dict by sensor where each has its own
    trace: pd.DataFrame  # nats: the "gain" of each round and its number of "draws"; the "objective" of the bound
    converged: bool
    by: By = "row"  # what has a weight of its own
    method: Method = "likelihood"
    log_likelihood: float = np.nan  # nats, the bound if "variational"; NaN where draws do not tell it
    log_likelihood_error: float = 0.0  # its Monte Carlo standard error
    draws: int = 0  # none under the bound
    seed: int = 0

    def standard_errors(self, y: Any, *, inputs: Any = None) -> xr.Dataset:
        """Standard errors of the named values, given the degrees of freedom; see `student_errors.student_errors`.

        Parameters
        ----------
        y, inputs
            Those of the fit.

        Examples
        --------
        >>> import statespace_em as sse
        >>> flow = sse.datasets.nile()
        >>> found = sse.robust.fit_student(sse.designs.local_level(), flow)
        >>> found.standard_errors(flow)["noise_var"].round(-2).item()         # of 8500
        2200.0
        """
        return student_errors(self.model, y, self.dof, self.by, inputs, self.draws, self.seed)


def fit_student(
    model: Any,
    y: Any,
    *,
    dof: float | None = 4.0,
    by: By = "row",
    method: Method = "likelihood",
    draws: int | None = None,
    seed: int = 0,
    max_iter: int = 200,
    tol: float = 1e-6,
    inputs: Any = None,
) -> StudentFit:
    """Estimate a model whose measurement noise is Student-t, so that outliers lose their weight.

    The noise of row t is N(0, measurement_cov / w_t) with w_t ~ Gamma(dof / 2, dof / 2): jointly Student-t over the
    entries that share a weight (``measurement_cov`` is its scale, not its covariance).

    The likelihood has no closed form, but given the weights it is Gaussian. Rounds of draws of the weights given y,
    each followed by the maximum of the average log-likelihood given these, climb it (Monte Carlo EM, Wei & Tanner
    1990). Estimates are off those of maximum likelihood by the chance of the draws: by some 0.04 standard errors for
    256 of them, 0.1 for 50. The fit has converged when a round with all draws gains no more than draws make by chance.
    ``seed`` decides them all.

    The variational bound of the log-likelihood under q(states) q(weights) needs no draws, is several times faster and
    rises in every step (Tipping & Lawrence 2005 for regression); streams and filters with ``dof`` take it too. But it
    takes noise for better known than it is: estimates do not come to the true values with more rows, variances of
    processes are about a third too low, and degrees of freedom far too high.

    Parameters
    ----------
    model
        A `LinearGaussianSSM` or a design with a known ``observation`` and no free ``observation_offset``. It is not
        changed.
    y
        Observations; several sequences too.
    dof
        Degrees of freedom; None estimates them, between 0.5 and 200. Of normal noise with a few gross errors the
        estimate is about 2, and the scale less than the variance of good measurements, which a gate would then leave
        out; with 4 they are much the same.
    by
        What has a weight of its own: "row", "feature" (each entry of a row), or "sensor" (the entries of each sensor
        of a model of motion). What is weighted apart must have independent noise, and has its own degrees of freedom
        where these are estimated.
    method
        "likelihood", or "variational" for its bound.
    draws
        Number of draws of all weights, rounded up to whole rounds of up to 32 chains. By default 100 000 over rows
        times states, but 16 at least and 256 at most; errors by chance go with 1 / sqrt(draws).
    seed
        Of the draws; the same call gives the same answer.
    max_iter, tol
        Most rounds; or updates of the weights under the bound, and the gain of one of them, in nats, at which they end.
    inputs
        Of a model with ``state_input``, as of ``model.fit``.

    Warns
    -----
    ConvergenceWarning
        If the fit ended before it converged.

    Raises
    ------
    ParameterError
        If the model sees the states in a way that is not known, or noise that is weighted apart is correlated.

    Examples
    --------
    >>> import statespace_em as sse
    >>> radar = sse.datasets.radar()                                       # outliers are not marked for the model
    >>> found = sse.robust.fit_student(sse.designs.constant_velocity(["east", "north"]), radar["measured"])
    >>> bool(found.weights[radar["outlier"]].median() < 0.05), bool(found.weights[~radar["outlier"]].median() > 0.9)
    (True, True)
    """
    if not isinstance(model, StateSpaceModel):
        raise ParameterError(
            f"{type(model).__name__} has no measurement noise that could be Student-t: pass a linear-Gaussian model, "
            "such as designs.local_level()."
        )
    if dof is not None and not (isinstance(dof, int | float | np.number) and dof > 0.0):
        raise ParameterError(f"dof is {dof!r}, expected a positive number, or None to estimate it.")
    _validate.one_of("method", method, METHODS)
    _validate.at_least("max_iter", max_iter, 1, whole=True)
    _validate.at_least("tol", tol, 0.0)
    _validate.at_least("seed", seed, 0, whole=True)
    if draws is not None:
        _validate.at_least("draws", draws, 2, whole=True)
    driven = model if inputs is None else model._with_inputs(inputs, y)
    inner = driven._bound(y, None) if isinstance(driven, ContinuousTimeModel) else driven
    batch, labels, _ = inner._read(y, None)
    names = owners(by, labels.features.tolist(), model._sensor_names())
    task = _Task(inner, y, batch, labels, names)
    if method == "variational":
        found = _climbed_bound(task, dof, max_iter, tol)
        total, error, n = float(found.trace["objective"].max()), 0.0, 0  # it rises; NaN where there is none
    else:
        n = draws or int(np.clip(SIZE // max(1, len(batch.y) * len(inner._names())), *DRAWS))
        found, total, error = _climbed_draws(task, dof, max_iter, n, seed)
    fitted = type(model)(**model.get_params())
    fitted.params_ = _unscaled(fitted, inner, found.params, found.now)
    if isinstance(fitted, ContinuousTimeModel):
        fitted.label_units(y)
    single = len(found.nu) == 1
    rows = found.weight[:, 0] if single else found.weight[:, task.owner]
    weights = labels.dataset(
        {"weight": (() if single else ("feature",), rows)}, {} if single else {"feature": labels.features}
    )["weight"]
    freedom = float(found.nu[0]) if single else dict(zip(dict.fromkeys(names), found.nu.tolist()))
    if not found.converged:
        message = (
            f"the fit ended after {len(found.trace)} rounds before it converged: raise max_iter, or, where a noise of "
            "the measurements runs to 0 (weights then have nothing to multiply), use fit, or a prior on it."
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=2)
    return StudentFit(
        fitted, found.posterior, weights, freedom, found.trace, found.converged, by, method, total, error, n, seed
    )


class _Task(NamedTuple):
    """A model, bound to the rows of y."""

    inner: StateSpaceModel
    y: Any
    batch: Batch
    labels: Labels
    names: Sequence[Any]  # (D,), of what the weight of each column belongs to

    @property
    def owner(self) -> Ints:
        """Number (D,) of that."""
        return numbered(self.names)


class _Found(NamedTuple):
    """Where a climb ended."""

    now: WeightedRows  # the model with these weights
    params: xr.Dataset  # of it
    weight: Floats  # (N, G)
    nu: Floats  # (G,)
    posterior: xr.Dataset
    trace: pd.DataFrame
    converged: bool


def _climbed_bound(task: _Task, dof: float | None, max_iter: int, tol: float) -> _Found:
    """Climb the variational bound.

    In turn over the parameters and q(states), by EM with the weights held, and over q(w_t) = Gamma((dof + p) / 2,
    (dof + d) / 2), where p is the number of entries and d the expected squared Mahalanobis distance of the smoothed
    residual.
    """
    inner, y, batch, labels, owner = *task[:4], task.owner
    n_owners = int(owner.max()) + 1
    seen = ~np.isnan(batch.y)
    entries = seen.astype(float) @ (owner[:, None] == np.arange(n_owners))  # (N, G)
    nu = np.full(n_owners, 4.0 if dof is None else float(dof))
    weight, bound = np.ones(entries.shape), np.full(len(batch.y), -np.inf)  # no distribution yet: not in the bound
    start, trace, converged = None, [-np.inf], False
    for _ in range(max_iter):
        now, held = WeightedRows(inner, np.sqrt(weight)[:, owner], batch), weight
        _check_apart(now, owner, task.names)
        scaled = _like(y, labels, now.factor * batch.y)
        with labelled_rows(labels):
            fit = now._estimate(scaled, FitOptions(start=start, max_iter=STEPS if start is not None else 1000))
        start = now._schema().label(fit.arrays, labels.features, None).drop_vars("observation")  # that of these weights
        trace.append(fit.chosen.trace[-1].objective + float(bound.sum()))
        if np.isfinite(trace[-2]) and trace[-1] - trace[-2] < tol:
            converged = True
            break
        if is_exact(start["measurement_cov"].transpose(..., "feature", "feature_aux").values):
            break
        posterior = _named(now.e_step(scaled, start), labels)
        distance = _distances(now.plain_view, start, posterior, labels, batch, owner)
        if dof is None:
            nu = np.array([best_dof(entries[:, g], distance[:, g], nu[g]) for g in range(n_owners)])
        weight, log_weight = expected_weights(nu, entries, distance)
        gain = 0.5 * entries * log_weight - divergence(*shape_and_rate(nu, entries, distance), nu / 2.0)
        bound = np.where(entries > 0, gain, 0.0).sum(1)
        weight = np.where(entries > 0, weight, 1.0)
    assert start is not None
    posterior = _named(now.e_step(scaled, start), labels)
    table = pd.DataFrame({"objective": trace[2:]}).rename_axis("iteration")
    return _Found(now, start, held, nu, posterior, table, converged)


def _climbed_draws(task: _Task, dof: float | None, max_iter: int, draws: int, seed: int) -> tuple[_Found, float, float]:
    """Climb the likelihood by draws from where the bound is high; also its value, and the Monte Carlo error of that."""
    inner, batch, labels = task.inner, task.batch, task.labels
    near = _climbed_bound(task, 4.0 if dof is None else dof, max_iter, NEAR)
    arrays = near.now._schema().arrays(near.params)
    problem = Problem(inner, batch, task.owner, tuple(arrays))
    one = problem.copies(near.weight[None])
    chains = chains_of(problem, near.weight, draws, seed)
    begin = problem.gathered(one.core.build(arrays))
    with labelled_rows(labels), rows_of_copies(len(batch.y)):
        end = climbed(chains, begin, near.nu, free=dof is None, draws=draws, max_iter=max_iter)
        told = evidence(chains, end.params, end.nu, draws)
    now = WeightedRows(inner, np.sqrt(told.weight)[:, task.owner], batch)
    params = now._schema().label(one.core.flatten(end.params), labels.features, None).drop_vars("observation")
    square, pairs = ("state", "state_aux"), ("state", "next_state")
    mean, cov, cross = told.moments
    rows = {"gamma": (("state",), mean), "cov": (square, cov), "cross_cov": (pairs, cross)}
    rows["xi"] = pairs, pair_moments(told.moments)
    total = {"log_likelihood": labels.per_sequence(told.log_likelihood)}
    posterior = seeing(labels.dataset(rows, state_coords(inner._names()), total), "1:T")
    posterior["log_likelihood"].attrs["units"] = "nats"
    table = pd.DataFrame(end.gains, columns=["gain", "draws"]).rename_axis("iteration")
    found = _Found(now, params, told.weight, end.nu, posterior, table, end.converged)
    return found, float(told.log_likelihood.sum()), float(np.sqrt((told.error**2).sum()))


def _check_apart(now: WeightedRows, owner: Ints, names: Sequence[Any]) -> None:
    """Refuse noise that may be correlated between columns with weights of their own."""
    pattern = now._specification(len(owner)).patterns.get("measurement_cov")
    apart = owner[:, None] != owner
    linked = np.ones(apart.shape, bool) if pattern is None else pattern.linked
    if (linked & apart).any():
        i, j = np.argwhere(linked & apart)[0]
        raise ParameterError(
            f"the noises of {names[i]!r} and {names[j]!r} may be correlated, so they cannot be weighted apart: use "
            'by="row", or a measurement_cov that is "diagonal".'
        )


def _like(y: Any, labels: Labels, values: Floats) -> Any:
    """Values in place of those of y, as a container that is read like y."""
    ends = np.cumsum(labels.lengths)[:-1]
    frames = [
        pd.DataFrame(part, index=index, columns=labels.features)
        for part, index in zip(np.split(values, ends), labels.times)
    ]
    return frames[0] if labels.sequence is None else dict(zip(labels.keys, frames))


def _named(posterior: xr.Dataset, labels: Labels) -> xr.Dataset:
    """Return the posterior with the name that y has for its sequences."""
    return posterior if labels.sequence is None else posterior.rename({"sequence": labels.sequence})


def _distances(
    view: Floats, params: xr.Dataset, posterior: xr.Dataset, labels: Labels, batch: Batch, owners: Ints
) -> Floats:
    """Expected squared Mahalanobis distances (N, G) of what is seen from what the states say, by owner."""
    mean = labels.flat(posterior["gamma"], ("state",))
    cov = labels.flat(posterior["cov"], ("state", "state_aux"))
    noise = params["measurement_cov"].transpose(..., "feature", "feature_aux").values
    return distances(batch.y, view, mean, cov, noise, owners)


def _unscaled(model: Any, inner: Any, params: xr.Dataset, now: WeightedRows) -> xr.Dataset:
    """Parameters of the model from those of its scaled rows."""
    if isinstance(model, ContinuousTimeModel):
        own = BaseDynamics(*(values_of(params, name) for name in ("transition", "process_cov")))
        shown = inner._dynamics_over(own, inner._params_step(inner._grid))
        dynamics = model._schema().dataset(shown).drop_vars(("feature", "feature_aux"), errors="ignore")
        kept = {name: params[name] for name in ("measurement_cov", "initial_mean", "initial_cov")}
        return dynamics.assign(kept).assign_coords(feature=params["feature"], feature_aux=params["feature_aux"])
    spec, weighted = now.inner._specification(None), now._specification(None)
    view = spec.value("observation")
    assert view is not None
    plain = params.drop_vars("time", errors="ignore").drop_dims("time", errors="ignore")
    by_row = {"observation": view, **spec.varying}
    for name, pattern in spec.patterns.items():
        if isinstance(pattern, RowPattern):
            values = weighted.free_values(name, params[name].transpose("time", *DIMS[name]).values)
            matrix, loading = pattern.build(np.array(list(values.values()))), spec.loadings.get(name)
            by_row[name] = matrix if loading is None else loading @ matrix @ loading.T
    dims = {
        name: DIMS[name] if value.ndim == len(DIMS[name]) else ("time", *DIMS[name]) for name, value in by_row.items()
    }
    return plain.assign({name: (dims[name], value) for name, value in by_row.items()})
