"""Models with parameters and data to ask them about, drawn at random; shared by the tests of HMMs, mixtures and EM."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import statespace_em as sse
from statespace_em.emissions import Categorical, Gaussian, Poisson

FAMILIES = ["full", "tied", "diagonal", "spherical", "poisson", "categorical", "channels"]
N_SYMBOLS = 4


def family_of(kind):
    if kind == "poisson":
        return Poisson()
    return Categorical() if kind in ("categorical", "channels") else Gaussian(kind)


def model_of(kind, n_states, **settings):
    if kind == "poisson":
        return sse.PoissonHMM(n_states, order_by=None, **settings)
    if kind in ("categorical", "channels"):
        return sse.CategoricalHMM(n_states, symbols=list("abcd"), **settings)
    return sse.GaussianHMM(n_states, kind, order_by=None, **settings)


def emission_of(kind, n_states, rng, n_features=2, apart=2.0):
    """Parameters of the family by name."""
    if kind == "poisson":
        return {"rate": rng.gamma(2.0, 3.0, size=(n_states, n_features))}
    if kind == "categorical":
        return {"prob": rng.dirichlet(np.ones(N_SYMBOLS), size=n_states)}
    if kind == "channels":
        return {"prob": rng.dirichlet(np.ones(N_SYMBOLS), size=(n_states, n_features))}
    mean = apart * rng.normal(size=(n_states, n_features))
    root = rng.normal(size=(n_states, n_features, n_features))
    cov = root @ root.transpose(0, 2, 1) + 0.3 * np.eye(n_features)
    if kind == "full":
        return {"mean": mean, "cov": cov}
    if kind == "tied":
        return {"mean": mean, "cov": cov[0]}
    var = np.diagonal(cov, axis1=1, axis2=2)
    return {"mean": mean, "var": var if kind == "diagonal" else var[:, 0]}


def chain_of(n_states, rng, zeros=False):
    initial = rng.dirichlet(np.ones(n_states))
    transition = rng.dirichlet(np.ones(n_states), size=n_states) + 2.0 * np.eye(n_states)
    if zeros:
        transition[0, -1] = 0.0
        initial[0] = 0.0
    return {"initial": initial / initial.sum(), "transition": transition / transition.sum(1, keepdims=True)}


def parameters_of(kind, n_states, rng, *, zeros=False, **options):
    model = model_of(kind, n_states)
    arrays = {**chain_of(n_states, rng, zeros), **emission_of(kind, n_states, rng, **options)}
    return model, model.parameters(**arrays)


def holes_in(y, rng, share=0.2):
    """Remove single entries and one whole row."""
    missing = rng.random(y.shape) < share
    missing[len(y) // 2] = True
    if y.dtype.kind in "fi":
        return np.where(missing, np.nan, y)
    return np.where(missing, None, y.astype(object))


def case(kind, n_states, n_rows, seed, *, zeros=False, holes=False, **options):
    """Model, parameters and one sequence drawn from them."""
    rng = np.random.default_rng(seed)
    model, params = parameters_of(kind, n_states, rng, zeros=zeros, **options)
    y = model.sample(n_rows, params, seed=seed)["y"].values
    return model, params, holes_in(y, rng) if holes else y


def log_densities(kind, params, y):
    """Log densities (N, K) row by row from scipy: missing entries left out."""
    from scipy import stats

    n_states = params.sizes["state"]
    result = np.zeros((len(y), n_states))
    for n, row in enumerate(y):
        seen = np.array([value is not None and value == value for value in row])
        for k in range(n_states if seen.any() else 0):
            result[n, k] = _log_density(kind, params.isel(state=k, drop=True), row, seen, stats)
    return result


def _log_density(kind, own, row, seen, stats):
    if kind in ("categorical", "channels"):
        prob = own["prob"].values.reshape(len(row), -1)
        return sum(np.log(prob[d]["abcd".index(row[d])]) for d in np.flatnonzero(seen))
    if kind == "poisson":
        return stats.poisson(own["rate"].values[seen]).logpmf(row[seen].astype(float)).sum()
    cov = own["cov"].values if "cov" in own else np.diag(np.broadcast_to(own["var"].values, len(row)))
    density = stats.multivariate_normal(own["mean"].values[seen], cov[np.ix_(seen, seen)])
    return density.logpdf(row[seen].astype(float))


def with_prior(kind, n_states):
    """The same model under priors that are not flat."""
    chain = {"initial_prior": sse.priors.Dirichlet(1.5), "transition_prior": sse.priors.Dirichlet(1.2, sticky=3.0)}
    if kind == "poisson":
        own = sse.priors.Gamma(2.0, 0.3)
    elif kind in ("categorical", "channels"):
        own = sse.priors.Dirichlet(1.7)
    elif kind in ("full", "tied"):
        own = sse.priors.NormalInverseWishart(dof=5.0, scale=0.4, mean=0.5, strength=1.5)
    else:
        own = sse.priors.NormalInverseGamma(shape=1.0, scale=0.4, mean=0.5, strength=1.5)
    return model_of(kind, n_states, prior=own, **chain)


def mixture_with(family, n_states, prior=None):
    return sse.Mixture(n_states, replace(family, prior=prior) if prior is not None else family)


def rising(model, slack=1e-11):
    """Whether no step of a fit has lost more than round-off."""
    objective = model.trace_["objective"].to_numpy()
    climbs = (np.diff(objective) >= -slack * (1.0 + np.abs(objective[1:]))).all()
    return climbs and model.status_ != "decreased"  # a step that falls is not in the trace
