"""Parameters of the linear-Gaussian state-space model as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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
