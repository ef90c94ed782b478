"""dynamax in double precision, compiled before the clock starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.case import Side
from benchmarks.simulate import Linear


def chain_side(y: np.ndarray, params: Any) -> Side:
    """Posteriors of a Gaussian hidden Markov model and the sum of the pairs."""
    jax = _jax()
    from dynamax.hidden_markov_model import DiagonalGaussianHMM

    array = jax.numpy.array
    model = DiagonalGaussianHMM(*params["mean"].shape)
    tree, _ = model.initialize(
        initial_probs=array(params["initial"].values),
        transition_matrix=array(params["transition"].values),
        emission_means=array(params["mean"].values),
        emission_scale_diags=array(np.sqrt(params["var"].values)),
    )
    compiled, rows = jax.jit(model.smoother), array(y)

    def numbers(found: Any) -> dict[str, np.ndarray]:
        pairs = {"xi": found.trans_probs, "gamma": found.smoothed_probs}
        return {"log_likelihood": found.marginal_loglik, **pairs}

    return Side(lambda: jax.block_until_ready(compiled(tree, rows)), numbers)


def smoother_side(y: np.ndarray, values: Linear) -> Side:
    """Smoothed means and covariances of a linear-Gaussian model."""
    jax = _jax()
    from dynamax.linear_gaussian_ssm import lgssm_smoother

    _, tree = _linear(values)
    compiled, rows = jax.jit(lgssm_smoother), jax.numpy.array(y)

    def numbers(found: Any) -> dict[str, np.ndarray]:
        mean, pairs = np.asarray(found.smoothed_means), np.asarray(found.smoothed_cross_covariances)
        return {
            "log_likelihood": found.marginal_loglik,
            "mean": mean,
            "cov": found.smoothed_covariances,
            "cross_cov": pairs - mean[:-1, :, None] * mean[1:, None, :],
        }

    return Side(lambda: jax.block_until_ready(compiled(tree, rows)), numbers)


def e_step_side(y: np.ndarray, values: Linear) -> Side:
    """Sufficient statistics of a linear-Gaussian model: one E-step, no M-step."""
    jax = _jax()
    model, tree = _linear(values)
    compiled, rows = jax.jit(model.e_step), jax.numpy.array(y)
    return Side(
        lambda: jax.block_until_ready(compiled(tree, rows)),
        lambda found: {"log-likelihood": found[1], "sum of s s'": found[0][2][0]},
    )


def _linear(values: Linear) -> tuple[Any, Any]:
    from dynamax.linear_gaussian_ssm import LinearGaussianSSM

    array = _jax().numpy.array
    n_features, n_states = values.observation.shape
    model = LinearGaussianSSM(n_states, n_features, has_dynamics_bias=False, has_emissions_bias=False)
    tree, _ = model.initialize(
        initial_mean=array(values.initial_mean),
        initial_covariance=array(values.initial_cov),
        dynamics_weights=array(values.transition),
        dynamics_covariance=array(values.process_cov),
        emission_weights=array(values.observation),
        emission_covariance=array(values.measurement_cov),
    )
    return model, tree


def _jax() -> Any:
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax
