"""Parameters of the linear-Gaussian state-space model as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.domains import Domain

DOMAINS: Mapping[str, Domain] = {
    "transition": "real",
    "process_cov": "covariance",
    "observation": "real",
    "measurement_cov": "covariance",
    "initial_mean": "real",
    "initial_cov": "covariance",
    "state_offset": "real",
    "observation_offset": "real",
}


class LGSSMParams(NamedTuple):
    """Parameters of a linear-Gaussian state-space model; n states, D features."""

    transition: Floats  # (n, n), A
    process_cov: Floats  # (n, n), Q
    observation: Floats  # (D, n), C
    measurement_cov: Floats  # (D, D), R
    initial_mean: Floats  # (n,), of the first state, before the first row is seen
    initial_cov: Floats  # (n, n)
    state_offset: Floats  # (n,), b
    observation_offset: Floats  # (D,), d


class Span(NamedTuple):
    """Range of a singular covariance, r of n dimensions."""

    basis: Floats  # (n, r)
    inverse: Floats  # (r, n), its left inverse; the covariance is basis basis'


def span_of(cov: Floats) -> Span | None:
    """Return the range of a covariance; None where that is everything."""
    try:
        np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        scale = np.sqrt(np.where(np.diag(cov) > 0.0, np.diag(cov), 1.0))
        values, vectors = np.linalg.eigh(cov / np.outer(scale, scale))
        kept = values > 16 * len(cov) * np.finfo(float).eps
        roots = np.sqrt(values[kept])
        return Span(scale[:, None] * vectors[:, kept] * roots, (vectors[:, kept] / roots).T / scale)
    return None
