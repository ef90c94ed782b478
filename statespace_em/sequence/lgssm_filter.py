"""Whole posteriors of the linear-Gaussian model, with any start: proper, diffuse or fixed."""

from __future__ import annotations

from functools import partial

import numpy as np

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.sequence.lgssm_expectation import e_step, marginal_terms
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_passes import Smoothed, each, smoothed_mean, smoother
from statespace_em.sequence.lgssm_unknown import Start, forward, proper_start, solve


def smooth(params: LGSSMParams, batch: Batch, likelihood: str = "diffuse") -> tuple[Smoothed, Floats]:
    """Moments of every row given all rows, and the log-likelihood (S,) of each sequence."""
    start = proper_start(params, batch)
    found, by_rows = smoother(start.params, batch)
    log_likelihood = np.add.reduceat(by_rows, batch.starts[:-1])
    if not len(start.states):
        return found, log_likelihood
    (run,) = each(start.params, batch, partial(forward, start), whole=True)
    assert run.constants is not None
    solved = solve(run.constants, batch.first, fixed=start.fixed, likelihood=likelihood)
    columns = _smoothed_columns(start, batch)
    sequence = np.cumsum(batch.first) - 1
    mean = found.mean + np.einsum("tnq,tq->tn", columns, solved.value[sequence])
    spread = columns @ solved.root[sequence]
    cov = np.asarray(found.cov) + spread @ spread.transpose(0, 2, 1)
    cross_cov = np.array(found.cross_cov)
    cross_cov[:-1] += spread[:-1] @ spread[1:].transpose(0, 2, 1)
    log_likelihood = log_likelihood + solved.log_likelihood
    if likelihood == "marginal":
        log_likelihood = log_likelihood + marginal_terms(params, batch)
    return Smoothed(mean, cov, cross_cov), log_likelihood


def _smoothed_columns(start: Start, batch: Batch) -> Floats:
    """Smoothed response (N, n, q) of the states to the unknown constants: states that begin there, y being 0."""
    p = start.params
    nothing = {
        "state_offset": np.zeros(len(p.initial_mean)), "observation_offset": np.zeros(batch.y.shape[1]),
        "state_input": None, "observation_input": None,
    }  # fmt: skip
    zeros = batch._replace(y=np.where(np.isnan(batch.y), np.nan, 0.0), inputs=None)
    columns = []
    for state, variance in zip(start.states, start.stand_in):
        begin = np.sqrt(variance) * np.eye(len(p.initial_mean))[state]
        columns.append(smoothed_mean(p._replace(initial_mean=begin, **nothing), zeros))
    return np.stack(columns, axis=2)


def estimated_start(params: LGSSMParams, batch: Batch) -> Floats | None:
    """First mean (n,) with the estimates of what is fixed but unknown of it; None if nothing is."""
    return e_step(params, batch, np.zeros(batch.y.shape[1], np.int64))[0].start
