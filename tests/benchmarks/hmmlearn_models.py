"""hmmlearn at its best: the compiled scaling implementation, and without priors so that the numbers can agree."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from benchmarks.case import Side

FLAT: dict[str, Any] = {"startprob_prior": 1.0, "transmat_prior": 1.0, "implementation": "scaling"}
NO_PRIORS = {**FLAT, "means_prior": 0.0, "means_weight": 0.0, "covars_prior": 0.0, "covars_weight": -1.0}
WORDS = {"full": "full", "diagonal": "diag"}
FIELDS = {"initial": "startprob_", "transition": "transmat_", "mean": "means_", "var": "covars_", "cov": "covars_",
          "rate": "lambdas_", "prob": "emissionprob_"}  # fmt: skip


def gaussian(n_states: int, covariance: str, **settings: Any) -> Any:
    """Return a Gaussian model."""
    return _module().GaussianHMM(n_states, WORDS[covariance], **NO_PRIORS, **settings)


def poisson(n_states: int, n_iter: int) -> Any:
    """Return a model of counts that makes this many iterations."""
    return _module().PoissonHMM(n_states, lambdas_prior=0.0, lambdas_weight=0.0, n_iter=n_iter, tol=-np.inf, **FLAT)


def categorical(n_states: int, n_iter: int) -> Any:
    """Return a model of symbols that makes this many iterations."""
    return _module().CategoricalHMM(n_states, emissionprob_prior=1.0, n_iter=n_iter, tol=-np.inf, **FLAT)


def at(peer: Any, params: Any) -> Any:
    """Give a model parameters of ours."""
    if "mean" in params:
        peer.n_features = params.sizes["feature"]
    if "prob" in params:
        peer.n_features = params.sizes["symbol"]
    for name in params.data_vars:
        setattr(peer, FIELDS[name], np.array(params[name].values))
    return peer


def em_side(peer: Any, y: np.ndarray, lengths: list[int] | None, start: Any, n_iter: int | None = None) -> Side:
    """All iterations of a model from these parameters; only the constructor passes ``tol`` on."""
    settings = peer.get_params() | {"init_params": ""} | ({} if n_iter is None else {"n_iter": n_iter})
    peer = type(peer)(**settings)
    return Side(
        lambda: at(peer, start).fit(y, lengths),
        lambda fitted: {"log-likelihoods": np.array(fitted.monitor_.history)},
    )


def best_of_restarts(y: np.ndarray, n_states: int, n_starts: int, tol: float) -> float:
    """Highest log-likelihood of fits from random starts."""
    fits = [
        gaussian(n_states, "diagonal", n_iter=100_000, tol=tol, random_state=seed).fit(y) for seed in range(n_starts)
    ]
    return max(fit.monitor_.history[-1] for fit in fits)


def tolerance_to_reach(y: np.ndarray, n_states: int, n_starts: int, log_likelihood: float) -> float:
    """Loosest tolerance, in powers of ten, with which `best_of_restarts` gets there."""
    for exponent in range(-4, -13, -1):
        if best_of_restarts(y, n_states, n_starts, 10.0**exponent) >= log_likelihood:
            break
    return float(10.0**exponent)


def _module() -> Any:
    from hmmlearn import hmm

    logging.getLogger("hmmlearn").setLevel(logging.CRITICAL)  # it takes every fixed number of iterations for a failure
    return hmm
