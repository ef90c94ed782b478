"""How well floating point tells the log-likelihood of a linear-Gaussian model.

Innovations are differences of numbers as large as y and what predicts it: far from 0 each loses its distance in
standard deviations times the unit round-off, and those of rows add up as a random walk does. Their covariance is off by
its condition (that of its correlations: scales do no harm) times the unit, which costs what the likelihood gains where
noises become larger: nothing to first order at a maximum, much where noise is fixed at less than the residuals tell.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.sequence.lgssm_expectation import Statistics
from statespace_em.sequence.lgssm_params import LGSSMParams

UNIT = 4.0 * float(np.finfo(float).eps)
WORST = 1e8  # condition of correlations beyond which a covariance counts as singular, and has other remedies
NAMES = "transition", "state_offset", "process_cov", "observation", "observation_offset", "measurement_cov"


def resolution(params: LGSSMParams, sums: Statistics) -> float:
    """Nats by which a log-likelihood may be off; of what changes from row to row the first row counts."""
    A, b, Q, C, d, R = (_first(getattr(params, name), 1 if name.endswith("offset") else 2) for name in NAMES)
    cov = C @ Q @ C.T + R
    sd, n_entries = np.sqrt(np.diag(cov)), float(sums.n_rows.max()) * len(cov)
    if sums.gradients is None or not n_entries or not (sd > 0.0).all():
        return 0.0
    values = np.linalg.eigvalsh(cov / np.outer(sd, sd))
    condition = float(values[-1]) / max(float(values[0]), float(values[-1]) / WORST)
    off = sum(abs(float(np.trace(noise @ slope[0]))) for noise, slope in ((Q, sums.gradients.Q), (R, sums.gradients.R)))
    states = np.sqrt(np.maximum(np.diag(sums.S_zz)[: len(A)], 0.0) / max(sums.n_pairs, 1))
    terms = np.abs(C) @ (np.abs(A) @ states + np.abs(b) + states) + np.abs(d)
    away = float((terms / sd).max())
    return float(UNIT * (condition * (off + np.sqrt(n_entries)) + away * np.sqrt(n_entries + off)))


def _first(value: Floats, ndim: int) -> Floats:
    return value[0] if value.ndim > ndim else value
