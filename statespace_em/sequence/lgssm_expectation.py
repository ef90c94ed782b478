"""E-step of the linear-Gaussian model: log-likelihood, score and the sums of the EM algorithm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.kernels import adjoint
from statespace_em.sequence.flow import Flow
from statespace_em.sequence.lgssm_params import LGSSMParams, by_row, positions
from statespace_em.sequence.lgssm_passes import Part, each
from statespace_em.sequence.lgssm_unknown import LOG_2PI, Start, forward, is_diffuse, proper_start, solve


class Gradients(NamedTuple):
    """Gradients of the log-likelihood, see `kernels.adjoint`; of covariances twice that."""

    A: Floats  # (n, n)
    e: Floats  # (n, 1 + k), of the state offset and the effects of inputs
    Q: Floats  # (n, n)
    C: Floats  # (D, n)
    f: Floats  # (D, 1 + k)
    R: Floats  # (D, D)
    m0: Floats  # (n,)
    P0: Floats  # (n, n)


class Statistics(NamedTuple):
    """Sums of expectations given all y; z = (s, 1, inputs), w = s[t+1] - A s - b and v = y - C s - d, m = 1 + n + k.

    The features fall into blocks with noise of their own; those of a block are completed in the rows that have one.
    """

    S_ww: Floats  # (n, n), over the pairs (t, t + 1) of a sequence
    S_wz: Floats  # (n, m)
    S_zz: Floats  # (m, m)
    n_pairs: int
    S_vv: Floats  # (D, D), within blocks
    S_vz: Floats  # (D, m)
    S_uu: Floats  # (blocks, m, m), z z' over the rows of a block
    n_rows: Floats  # (blocks,)
    first_mean: Floats  # (n,), over the first rows
    first_cov: Floats  # (n, n)
    first_outer: Floats  # (n, n), of mean - m0
    n_sequences: int
    start: Floats | None = None  # (n,), estimate of a first state that is fixed but unknown; else the initial mean
    gradients: Gradients | None = None  # of the log-likelihood; None if made of a posterior


class _Sums(NamedTuple):
    """What a backward pass adds up."""

    gradients: Gradients
    S_zz: Floats
    S_uu: Floats
    counts: Floats
    mean: Floats  # (n,), of the first state
    log_likelihood: float


def e_step(
    params: LGSSMParams,
    batch: Batch,
    blocks: Ints,
    fixed: Bools | None = None,
    likelihood: str = "diffuse",
    flow: Flow | None = None,
) -> tuple[Statistics, float]:
    """Statistics and log-likelihood; ``blocks`` (D,) numbers the blocks of the measurement noise.

    With a ``flow`` the parameters are its own: the statistics are of what drives the states, and the gradients those
    of the own parameters. The M-step leaves the transition to the score.
    """
    own = params
    params = flowed(params, flow)
    start = proper_start(params, batch, fixed)
    back = None if flow is None else partial(flow.back, own)
    place = positions(batch) if np.ndim(params.process_cov) == 3 and flow is not None else None
    parts = each(
        start.params, batch, partial(_expect, start, blocks, likelihood, back, place), whole=bool(start.fixed.any())
    )
    log_likelihood = sum(part.log_likelihood for part in parts)
    statistics = _statistics(start.params, batch, blocks, parts, fixed=bool(start.fixed.any()))
    if flow is not None:
        assert statistics.gradients is not None
        S_ww = flow.scatter(own.process_cov, statistics.gradients.Q, statistics.n_pairs)
        statistics = statistics._replace(S_ww=S_ww, S_wz=np.zeros((len(S_ww), len(statistics.S_zz))))
    if likelihood == "marginal" and not start.fixed.all():
        return _marginal(params, batch, blocks, statistics, log_likelihood)
    return statistics, log_likelihood


def flowed(params: LGSSMParams, flow: Flow | None) -> LGSSMParams:
    """Parameters with the dynamics of every step, where they are the own ones of a flow."""
    return params if flow is None else flow.out(params)


def _expect(
    start: Start, blocks: Ints, likelihood: str, back: Callable[..., tuple[Floats, Floats]] | None, place: Ints | None,
    part: Part,
) -> _Sums:  # fmt: skip
    """Gradients and moments of some sequences."""
    run = forward(start, part)
    log_likelihood = float(run.filtered.log_likelihood.sum())
    mean, response = part.mean, np.zeros((len(part.y), len(part.mean), 0))
    predicted = run.filtered.predicted_mean
    if run.constants is not None:
        known = run.constants
        found = solve(known, part.first, fixed=start.fixed, likelihood=likelihood, offset=part.rows.start)
        log_likelihood += float(found.log_likelihood.sum())
        sequence = np.cumsum(part.first) - 1
        predicted = predicted + np.einsum("tnq,tq->tn", known.response, found.value[sequence])
        if start.fixed.any():
            mean = mean.copy()
            mean[known.states[start.fixed]] += (np.sqrt(known.stand_in) * found.value[0])[start.fixed]
        if not start.fixed.all():
            response = np.ascontiguousarray(known.response @ found.root[sequence][:, :, ~start.fixed])
    n, size, k = len(mean), part.y.shape[1], part.p.U.shape[1]
    m, n_blocks = n + 1 + k, int(blocks.max()) + 1
    shapes = (n, n), (n, 1 + k), (n, n), (size, n), (size, 1 + k), (size, size), (n,), (n, n)
    g = Gradients(*map(np.zeros, shapes))
    S_zz, S_uu, counts = np.zeros((m, m)), np.zeros((n_blocks, m, m)), np.zeros(n_blocks)
    g_A, g_Q = (value[None] if place is None else np.zeros((len(part.y), n, n)) for value in (g.A, g.Q))
    adjoint.backward_sums(
        part.y, part.first, run.gains.slot, part.p.A, part.p.C, part.p.d, part.p.U, blocks, predicted,
        run.filtered.filtered_cov, run.gains.gain, run.gains.whiten, response, g_A, g.e, g_Q, g.C[None],
        g.f, g.R[None], g.m0, g.P0, S_zz, S_uu, counts, part.p.constant,
    )  # fmt: skip
    if back is not None:
        by_A, by_Q = back(g_A, g_Q, None if place is None else place[part.rows])
        g = g._replace(A=by_A, Q=by_Q)
    return _Sums(g, S_zz, S_uu, counts, mean, log_likelihood)


def _statistics(params: LGSSMParams, batch: Batch, blocks: Ints, parts: list[_Sums], *, fixed: bool) -> Statistics:
    """Sums of the EM algorithm from the gradients: no noise covariance is inverted."""
    g = Gradients(*(np.sum(each_part, axis=0) for each_part in zip(*(part.gradients for part in parts))))
    S_zz, S_uu = np.sum([part.S_zz for part in parts], axis=0), np.sum([part.S_uu for part in parts], axis=0)
    counts = np.sum([part.counts for part in parts], axis=0)
    mean, cov, p = parts[0].mean, params.initial_cov, by_row(params, batch)
    n, size, m = len(mean), batch.y.shape[1], len(S_zz)
    n_sequences = len(batch.starts) - 1
    n_pairs = len(batch.y) - n_sequences
    z, u = np.hstack([g.A, g.e]), np.hstack([g.C, g.f])
    S_ww, S_wz = np.full((n, n), np.nan), np.full((n, m), np.nan)
    if len(p.Q) == 1:
        S_ww, S_wz = n_pairs * p.Q[0] + p.Q[0] @ g.Q @ p.Q[0], p.Q[0] @ z
    S_vv, S_vz = np.full((size, size), np.nan), np.full((size, m), np.nan)
    if len(p.R) == 1:
        R = np.where(blocks[:, None] == blocks, p.R[0], 0.0)
        S_vv, S_vz = counts[blocks][:, None] * R + R @ g.R @ R, R @ u
    return Statistics(
        S_ww, S_wz, S_zz, n_pairs, S_vv, S_vz, S_uu, counts, n_sequences * mean + cov @ g.m0,
        n_sequences * cov + cov @ g.P0 @ cov, np.zeros((n, n)), n_sequences,
        mean if fixed else None, g,
    )  # fmt: skip


def _marginal(
    params: LGSSMParams, batch: Batch, blocks: Ints, statistics: Statistics, log_likelihood: float
) -> tuple[Statistics, float]:
    """Add half the log determinant of the sum of squared responses (Francke, Koopman & de Vos 2010).

    That is minus the diffuse log-likelihood of noise of variance 1 that is all zero, up to its 1/2 log 2 pi.
    """
    n, size = params.observation.shape[-1], params.observation.shape[-2]
    unit = params._replace(
        process_cov=np.zeros((n, n)), measurement_cov=np.eye(size), state_offset=np.zeros(n),
        observation_offset=np.zeros(size), initial_mean=np.zeros(n), state_input=None, observation_input=None,
        initial_cov=np.diag(np.where(is_diffuse(params), np.inf, 0.0)),
    )  # fmt: skip
    zeros = batch._replace(y=np.where(np.isnan(batch.y), np.nan, 0.0), inputs=None)
    other, value = e_step(unit, zeros, blocks)
    n_constants = int(is_diffuse(params).sum()) * (len(batch.starts) - 1)
    value += 0.5 * LOG_2PI * (int((~np.isnan(batch.y)).sum()) - n_constants)
    assert statistics.gradients is not None
    assert other.gradients is not None
    g, h = statistics.gradients, other.gradients
    return statistics._replace(gradients=g._replace(A=g.A - h.A, C=g.C - h.C)), log_likelihood - value


def marginal_terms(params: LGSSMParams, batch: Batch) -> Floats:
    """What the marginal likelihood adds to the diffuse one of each sequence."""
    found = []
    for begin, end in zip(batch.starts[:-1], batch.starts[1:]):
        part = batch.cut(begin, end)
        blocks = np.zeros(batch.y.shape[1], np.int64)
        found.append(e_step(params, part, blocks, None, "marginal")[1] - e_step(params, part, blocks)[1])
    return np.array(found)
