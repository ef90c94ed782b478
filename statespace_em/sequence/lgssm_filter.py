"""Whole posteriors of the linear-Gaussian model, with any start: proper, diffuse or fixed."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import UndeterminedStartError
from statespace_em.sequence.lgssm_expectation import e_step, marginal_terms
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_passes import Smoothed, smoothed_means, smoother
from statespace_em.sequence.lgssm_unknown import Start, heads, proper_start, solve
from statespace_em.shared import replaced


def smooth(params: LGSSMParams, batch: Batch, likelihood: str = "diffuse") -> tuple[Smoothed, Floats]:
    """Moments of every row given all rows, and the log-likelihood (S,) of each sequence."""
    start = proper_start(params, batch)
    found, by_rows = smoother(start.params, batch)
    log_likelihood = np.add.reduceat(by_rows, batch.starts[:-1])
    if not len(start.states):
        return found, log_likelihood
    head, rows, run, _ = heads(start, batch)
    assert run.constants is not None
    try:
        solved = solve(run.constants, head.first, fixed=start.fixed, likelihood=likelihood)
    except UndeterminedStartError as error:
        raise UndeterminedStartError(int(rows[int(str(error))])) from None
    columns = _smoothed_columns(start, head)
    sequence = np.cumsum(head.first) - 1
    found.mean[rows] += np.einsum("tnq,tq->tn", columns, solved.value[sequence])
    spread = columns @ solved.root[sequence]
    later = np.where(head.first[1:, None, None], 0.0, spread[1:])  # that of the next row of the sequence
    cross_cov = np.array(found.cross_cov[rows])
    cross_cov[:-1] += spread[:-1] @ later.transpose(0, 2, 1)
    found = found._replace(
        cov=replaced(found.cov, rows, found.cov[rows] + spread @ spread.transpose(0, 2, 1)),
        cross_cov=replaced(found.cross_cov, rows, cross_cov),
    )
    log_likelihood = log_likelihood + solved.log_likelihood
    if likelihood == "marginal":
        log_likelihood = log_likelihood + marginal_terms(params, batch)
    return found, log_likelihood


def _smoothed_columns(start: Start, batch: Batch) -> Floats:
    """Smoothed response (N, n, q) of the states to the unknown constants: states that begin there, y being 0."""
    p = start.params
    nothing = {
        "state_offset": np.zeros(len(p.initial_mean)), "observation_offset": np.zeros(batch.y.shape[1]),
        "state_input": None, "observation_input": None,
    }  # fmt: skip
    zeros = batch._replace(y=np.where(np.isnan(batch.y), np.nan, 0.0), inputs=None)
    directions = np.eye(len(p.initial_mean))[:, start.states] * np.sqrt(start.stand_in)
    return smoothed_means(p._replace(**nothing), zeros, directions)


def estimated_start(params: LGSSMParams, batch: Batch) -> Floats | None:
    """First mean (n,) with the estimates of what is fixed but unknown of it; None if nothing is."""
    return e_step(params, batch, np.zeros(batch.y.shape[1], np.int64))[0].start
