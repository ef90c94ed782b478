"""Exact score of the linear-Gaussian model from its E-step (Fisher's identity; Shumway & Stoffer 2017, sec. 6.3)."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.kernels.kalman import GaussianSums
from statespace_em.priors import InverseWishart
from statespace_em.sequence.lgssm_params import LGSSMParams


def score(
    params: LGSSMParams, sums: GaussianSums, process_prior: InverseWishart, measurement_prior: InverseWishart
) -> dict[str, Floats]:
    """Gradient of log-likelihood plus log prior with respect to every parameter, in nats per unit of it.

    For a covariance it is the symmetric matrix G with d objective = tr(G d cov).

    Raises
    ------
    numpy.linalg.LinAlgError
        If a covariance is singular.
    """
    process, coefficients = _regression_score(
        params.process_cov, sums.S_ww, sums.S_wz, sums.n_pairs, process_prior
    )  # fmt: skip
    measurement, loadings = _regression_score(
        params.measurement_cov, sums.S_vv, sums.S_vz, sums.n_rows, measurement_prior
    )  # fmt: skip
    precision = np.linalg.inv(params.initial_cov)
    away = sums.first_mean - sums.n_sequences * params.initial_mean
    spread = sums.first_cov + sums.first_outer
    return {
        "transition": coefficients[:, :-1],
        "state_offset": coefficients[:, -1],
        "process_cov": process,
        "observation": loadings[:, :-1],
        "observation_offset": loadings[:, -1],
        "measurement_cov": measurement,
        "initial_mean": precision @ away,
        "initial_cov": 0.5 * (precision @ spread @ precision - sums.n_sequences * precision),
    }


def _regression_score(
    cov: Floats, residual: Floats, cross: Floats, count: float, prior: InverseWishart
) -> tuple[Floats, Floats]:
    """Gradients with respect to a noise covariance and to the coefficients of the regression it belongs to."""
    size = len(cov)
    precision = np.linalg.inv(cov)
    scatter = residual + prior.matrix(size)
    gradient = 0.5 * (precision @ scatter @ precision - (count + prior.weight(size)) * precision)
    return (gradient + gradient.T) / 2.0, precision @ cross
