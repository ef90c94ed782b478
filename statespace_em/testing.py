"""Contracts of a family and of a model, as checks that anyone may run on their own; no test framework needed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from statespace_em._typing import Floats
from statespace_em.domains import Domain, from_vector, n_coordinates, to_vector
from statespace_em.emissions.base import EmissionFamily, HasConditionals, HasDomains, HasMoments
from statespace_em.sequence.base import SequenceModel

Family = EmissionFamily[Any, Any]


def check_emission_family(
    family: Family,
    params: Any,
    y: Floats,
    *,
    reference: Callable[[Any, Floats], Floats] | None = None,
    seed: int = 0,
    draws: int = 20_000,
    tolerance: float = 1e-9,
) -> None:
    """Check that a family keeps the contract of `EmissionFamily`.

    Parameters
    ----------
    family
        The family; it may have any prior.
    params
        Parameters of K states, inside their domains.
    y
        Complete rows (N, D) to check with; a few dozen. Entries are removed where that is part of a check.
    reference
        The log density (N, K) of complete rows computed another way, if there is one.
    seed, draws
        Of the simulations.
    tolerance
        Relative, of what should agree to round-off.

    Raises
    ------
    AssertionError
        With a sentence that says which part of the contract does not hold.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace_em.emissions import Poisson
    >>> from statespace_em.emissions.poisson import PoissonParams
    >>> y = np.random.default_rng(0).poisson(3.0, size=(40, 1)).astype(float)
    >>> check_emission_family(Poisson(), PoissonParams(np.array([[2.0], [5.0]])), y)
    """
    y = np.asarray(y, dtype=float)
    rng = np.random.default_rng(seed)
    _require(not np.isnan(y).any(), "y must be complete: the check removes entries itself")
    _require(tuple(params._fields) == tuple(family.dims), "the fields of the parameters must be the keys of dims")
    log_prob = np.asarray(family.log_prob(params, y))
    weights = rng.dirichlet(np.ones(log_prob.shape[1]), len(y)) * rng.uniform(0.5, 1.5, (len(y), 1))
    _check_log_prob(family, params, y, log_prob, tolerance)
    if reference is not None:
        _close(log_prob, reference(params, y), tolerance, "log_prob differs from the reference density")
    _check_marginals(family, params, y, tolerance)
    _check_integrated(family, params, y[:5])
    _check_conditionals(family, params, y, tolerance)
    for before in (params, None):
        _check_statistics(family, before, y, weights, tolerance)
    _check_prior(family, params)
    _check_maximiser(family, params, y, weights, rng)
    _check_missing(family, params, y, weights, rng)
    _check_sample(family, params, draws, seed)


def check_model(model: Any, y: Any, params: xr.Dataset | None = None, *, tolerance: float = 1e-9) -> None:
    """Check that a model with discrete states answers consistently about ``y``.

    The posterior, the filter, the path and the log-likelihood are one distribution seen from several sides; an EM
    step never lowers the objective; later rows do not change what was known before.

    Parameters
    ----------
    model
        A hidden Markov model or a mixture.
    y
        One sequence, an array or a DataFrame.
    params
        Parameters to check with; those of the fit unless given.
    tolerance
        Of probabilities, absolute, and of log-likelihoods, relative.

    Raises
    ------
    AssertionError
        With a sentence that says what is inconsistent.

    Examples
    --------
    >>> import statespace_em as sse
    >>> y = sse.datasets.earthquakes()
    >>> check_model(sse.PoissonHMM(2).fit(y), y)
    """
    params = model.params_ if params is None else params
    posterior, score = model.e_step(y, params), model.score(y, params)
    gamma = posterior["gamma"].values
    _close(gamma.sum(-1), np.ones(len(gamma)), tolerance, "gamma does not sum to 1 over states")
    _close(float(posterior["log_likelihood"].sum()), score, tolerance, "e_step and score differ in log-likelihood")
    if "xi" in posterior:
        _check_pairs(gamma, posterior["xi"].values, tolerance)
    _check_step(model, y, posterior, params, score, tolerance)
    if isinstance(model, SequenceModel):
        _check_filter(model, y, params, gamma, score, tolerance)
        best = float(model.decode(y, params)["log_prob"])
        _require(
            best <= score + tolerance * (1.0 + abs(score)), "the best path is more probable than all paths together"
        )
    again = type(model)(**model.get_params())
    same = [getattr(again, name) is getattr(model, name) for name in inspect.signature(type(model)).parameters]
    _require(same, "the model cannot be rebuilt from get_params")
    _close(again.score(y, params), score, 0.0, "score is not a pure function of settings, params and y")
    if hasattr(model, "trace_") and params is model.params_:
        _check_trace(model, y, tolerance)


def _require(condition: Any, sentence: str) -> None:
    if not np.all(condition):
        raise AssertionError(f"{sentence}.")


def _close(left: Any, right: Any, tolerance: float, sentence: str) -> None:
    left, right = np.asarray(left, float), np.asarray(right, float)
    _require(left.shape == right.shape, f"{sentence}: shapes {left.shape} and {right.shape}")
    same = (left == right) | (np.abs(left - right) <= tolerance * (1.0 + np.abs(right)))
    _require(same | (np.isnan(left) & np.isnan(right)), sentence)


# a family


def _check_log_prob(family: Family, params: Any, y: Floats, log_prob: Floats, tolerance: float) -> None:
    _require(log_prob.ndim == 2 and len(log_prob) == len(y), "log_prob must have shape (N, K)")
    _require(~np.isnan(log_prob), "log_prob must not be NaN")
    alone = np.concatenate([family.log_prob(params, row[None]) for row in y])
    _close(alone, log_prob, tolerance, "log_prob of a row depends on the other rows")
    blank = family.log_prob(params, np.full_like(y[:2], np.nan))
    _close(blank, np.zeros_like(log_prob[:2]), tolerance, "log_prob of a row without any entry must be 0")


def _check_marginals(family: Family, params: Any, y: Floats, tolerance: float) -> None:
    """A row with a single entry seen has the density of that entry's marginal."""
    for d in range(y.shape[1]):
        only = np.full_like(y, np.nan)
        only[:, d] = y[:, d]
        expected = _marginal_log_density(family, params, y[:, d], d)
        _close(
            family.log_prob(params, only), expected, 10 * tolerance, f"log_prob of entry {d} differs from its marginal"
        )
    if isinstance(family, HasMoments):
        marginals = family.marginals(params)
        for name, value in zip(("mean", "var"), family.moments(params)):
            _close(value, getattr(marginals, name)(), 10 * tolerance, f"moments: {name} differs from its marginals")


def _entry(family: Family, params: Any, d: int) -> list[Any]:
    """Marginal distributions of entry ``d``, one a state, as functions of plain numbers."""
    marginals = family.marginals(params)
    if isinstance(marginals, np.ndarray):
        return list(marginals[:, d])
    return [_Slice(marginals, k, d) for k in range(np.asarray(marginals.mean()).shape[0])]


class _Slice:
    """One state and entry of a frozen distribution over (K, D)."""

    def __init__(self, marginals: Any, k: int, d: int) -> None:
        self.marginals, self.where = marginals, (k, d)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.marginals, name)

        def evaluate(*values: Any) -> Any:
            columns = [np.asarray(value)[..., None, None] for value in values]
            return np.asarray(method(*columns))[(..., *self.where)]

        return evaluate


def _marginal_log_density(family: Family, params: Any, values: Floats, d: int) -> Floats:
    kind = "logpmf" if family.support in ("count", "category") else "logpdf"
    with np.errstate(divide="ignore"):
        return np.stack([getattr(entry, kind)(values) for entry in _entry(family, params, d)], axis=1)


def _check_conditionals(family: Family, params: Any, y: Floats, tolerance: float) -> None:
    """The conditional distributions of a family that states them multiply to the density of what is seen."""
    if not isinstance(family, HasConditionals):
        return
    y = y.copy()
    y[1::3, 0] = np.nan
    one = family.conditionals(params, y)
    log_density = one.logpmf if family.support in ("count", "category") else one.logpdf
    total = np.nansum(log_density(y[:, None, :]), axis=2)
    _close(total, family.log_prob(params, y), tolerance, "the conditionals do not multiply to the density of a row")


def _check_integrated(family: Family, params: Any, y: Floats) -> None:
    """Removing an entry integrates it out: the joint density is a density with the stated marginals."""
    if y.shape[1] == 1:
        return
    for d in range(y.shape[1]):
        without = y.copy()
        without[:, d] = np.nan
        expected = family.log_prob(params, without)
        for k, entry in enumerate(_entry(family, params, d)):
            values, log_measure = _quadrature(family, entry)
            rows = np.repeat(y, len(values), axis=0)
            rows[:, d] = np.tile(values, len(y))
            joint = family.log_prob(params, rows)[:, k].reshape(len(y), -1) + log_measure
            total = np.exp(joint - expected[:, [k]]).sum(1)
            _close(total, np.ones(len(y)), 1e-4, f"log_prob without entry {d} is not log_prob with it integrated out")


def _quadrature(family: Family, entry: Any) -> tuple[Floats, Floats]:
    """Values of one entry, and the log of what each stands for."""
    if family.support in ("count", "category"):
        values = np.arange(0.0, float(entry.ppf(1.0 - 1e-12)) + 1.0)
        return values, np.zeros(len(values))
    nodes, size = np.polynomial.legendre.leggauss(400)
    values = np.asarray(entry.ppf((nodes + 1.0) / 2.0))
    return values, np.log(size / 2.0) - entry.logpdf(values)


def _check_statistics(family: Family, params: Any, y: Floats, weights: Floats, tolerance: float) -> None:
    whole = family.statistics(params, y, weights)
    cut = len(y) // 3
    if params is not None:  # before there are parameters a family may fill gaps from the block at hand
        parts = family.statistics(params, y[:cut], weights[:cut]), family.statistics(params, y[cut:], weights[cut:])
        for name, value, a, b in zip(whole._fields, whole, *parts):
            _close(value, a + b, tolerance, f"statistics are not additive over rows: {name}")
    thrice = family.statistics(params, y, 3.0 * weights)
    mixed = family.statistics(params, y, 3.0 * weights + weights[::-1])
    other = family.statistics(params, y, weights[::-1])
    for name, value, a, b, c in zip(whole._fields, whole, thrice, mixed, other):
        _close(a, 3.0 * value, tolerance, f"statistics are not linear in the weights: {name}")
        _close(b, a + c, tolerance, f"statistics are not linear in the weights: {name}")


def _check_prior(family: Family, params: Any) -> None:
    prior, log_prior = getattr(family, "prior", None), family.log_prior(params)
    _require(np.ndim(log_prior) == 0 and np.isfinite(log_prior), "log_prior must be a finite number")
    if prior is not None and prior == type(prior)():
        _require(log_prior == 0.0, "log_prior must be exactly 0 under the default, flat prior")


def _check_maximiser(family: Family, params: Any, y: Floats, weights: Floats, rng: np.random.Generator) -> None:
    best = family.m_step(family.statistics(params, y, weights), params)
    sentence = "m_step is not the maximiser of the weighted log likelihood plus log prior"
    _check_stationary(family, best, y, weights, 1e-6, sentence)
    top = _objective(family, best, y, weights)
    slack = 1e-10 * (1.0 + abs(top))
    _require(top >= _objective(family, params, y, weights) - slack, f"{sentence}: it fell below its starting point")
    centre = _vector(family, best, best)
    for size in (1e-3, 1e-1, 0.5):
        for _ in range(10):
            nearby = _params(family, centre + size * rng.standard_normal(len(centre)), best)
            _require(top >= _objective(family, nearby, y, weights) - slack, sentence)


def _check_missing(family: Family, params: Any, y: Floats, weights: Floats, rng: np.random.Generator) -> None:
    """EM over missing entries climbs the likelihood of the entries seen and ends where that is stationary."""
    holes = np.where(rng.random(y.shape) < 0.3, np.nan, y)
    holes[0] = np.nan
    value = _objective(family, params, holes, weights)
    for _ in range(2000):
        params = family.m_step(family.statistics(params, holes, weights), params)
        before, value = value, _objective(family, params, holes, weights)
        _require(value >= before - 1e-10 * (1.0 + abs(before)), "with missing entries an M-step lowers the objective")
        if value - before < 1e-13 * (1.0 + abs(before)):
            break
    sentence = "with missing entries EM does not end at a maximum of the objective"
    _check_stationary(family, params, holes, weights, 1e-4, sentence)


def _check_stationary(family: Family, params: Any, y: Floats, weights: Floats, tolerance: float, sentence: str) -> None:
    """The gradient in unconstrained coordinates vanishes, by central differences."""
    centre, step = _vector(family, params, params), 1e-4
    for i in range(len(centre)):
        ends = [centre.copy(), centre.copy()]
        ends[0][i] -= step
        ends[1][i] += step
        low, high = (_objective(family, _params(family, end, params), y, weights) for end in ends)
        _require(abs(high - low) / (2.0 * step) <= tolerance * len(y), sentence)


def _objective(family: Family, params: Any, y: Floats, weights: Floats) -> float:
    log_prob = np.where(weights > 0.0, family.log_prob(params, y), 0.0)
    return float((weights * log_prob).sum() + family.log_prior(params))


def _domain(family: Family, name: str) -> Domain:
    return family.domains[name] if isinstance(family, HasDomains) else "real"


def _vector(family: Family, params: Any, reference: Any) -> Floats:
    pairs = [(name, getattr(params, name), getattr(reference, name)) for name in family.dims]
    return np.concatenate([to_vector(value, other, _domain(family, name)) for name, value, other in pairs])


def _params(family: Family, vector: Floats, reference: Any) -> Any:
    values = []
    for name in family.dims:
        value, domain = getattr(reference, name), _domain(family, name)
        size = n_coordinates(value, domain)
        values.append(from_vector(vector[:size], value, domain))
        vector = vector[size:]
    return type(reference)(*values)


def _check_sample(family: Family, params: Any, draws: int, seed: int) -> None:
    n_states = len(_entry(family, params, 0))
    states = np.tile(np.arange(n_states), draws)
    y = family.sample(params, states, np.random.default_rng(seed))
    again = family.sample(params, states, np.random.default_rng(seed))
    _require(np.array_equal(y, again), "the same generator must give the same sample")
    _require(y.shape[0] == len(states) and not np.isnan(y).any(), "sample must have shape (N, D) and no gaps")
    for d in range(y.shape[1]):
        for k, entry in enumerate(_entry(family, params, d)):
            part, mean, var = y[states == k, d], float(entry.mean()), float(entry.var())
            where = f"of state {k}, entry {d} differs from that of marginals"
            _require(abs(part.mean() - mean) <= 6.0 * np.sqrt(var / draws) + 1e-12, f"the mean of the sample {where}")
            squares = (part - mean) ** 2
            _require(
                abs(squares.mean() - var) <= 6.0 * squares.std() / np.sqrt(draws) + 1e-12,
                f"the variance of the sample {where}",
            )


# a model


def _check_pairs(gamma: Floats, xi: Floats, tolerance: float) -> None:
    _require(np.isnan(xi[-1]), "xi must be NaN at the last row: there is no next state")
    _close(xi[:-1].sum(2), gamma[:-1], tolerance, "xi summed over next_state is not gamma")
    _close(xi[:-1].sum(1), gamma[1:], tolerance, "xi summed over state is not gamma of the next row")


def _check_step(model: Any, y: Any, posterior: xr.Dataset, params: xr.Dataset, score: float, tolerance: float) -> None:
    following = model.m_step(y, posterior, params)
    before, after = score + model.log_prior(params), model.score(y, following) + model.log_prior(following)
    _require(after >= before - tolerance * (1.0 + abs(before)), "an EM step lowers the objective")


def _check_filter(model: Any, y: Any, params: xr.Dataset, gamma: Floats, score: float, tolerance: float) -> None:
    known = model.filter(y, params)
    filtered = known["filtered"].values
    _close(known["filtered"].values[-1], gamma[-1], tolerance, "filtered and smoothed differ at the last row")
    _close(float(known["log_likelihood"].sum()), score, tolerance, "the filter and score differ in log-likelihood")
    cut = max(1, len(filtered) // 2)
    part = model.filter(y[:cut], params)
    for name in ("filtered", "predicted"):
        _require(np.array_equal(part[name].values, known[name].values[:cut]), f"{name} changes when later rows arrive")


def _check_trace(model: Any, y: Any, tolerance: float) -> None:
    objective = model.trace_["objective"].to_numpy()
    owned = model.score(y) + model.log_prior()
    _close(owned, objective[-1], tolerance, "the parameters do not own the last entry of the trace")
    _require(np.diff(objective) >= -tolerance * (1.0 + abs(owned)), "the objective of the trace decreases")
