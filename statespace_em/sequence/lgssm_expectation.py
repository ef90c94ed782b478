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
from statespace_em.sequence.lgssm_params import LGSSMParams, positions
from statespace_em.sequence.lgssm_passes import Part, each
from statespace_em.sequence.lgssm_regression import Residuals
from statespace_em.sequence.lgssm_unknown import LOG_2PI, Start, forward, is_diffuse, proper_start, solve

ALIKE = np.zeros(1, np.int64)  # kind of all rows


class Gradients(NamedTuple):
    """Gradients of the log-likelihood, see `kernels.adjoint`; of covariances twice that."""

    A: Floats  # (kinds of steps, n, n)
    e: Floats  # (kinds of steps, n, 1 + k), of the state offset and the effects of inputs
    Q: Floats  # (kinds of steps, n, n)
    C: Floats  # (kinds of rows, D, n)
    f: Floats  # (kinds of rows, D, 1 + k)
    R: Floats  # (kinds of rows, D, D)
    m0: Floats  # (n,)
    P0: Floats  # (n, n)


class Kinds(NamedTuple):
    """Kinds of the rows of a batch: sums over rows are kept by kind."""

    numbers: tuple[int, int]  # of kinds of steps from a row to the next, and of kinds of measurements
    of_step: Ints  # (N,), or (1,) where all are alike
    of_row: Ints  # (N,), or (1,)
    process_cov: Floats  # (kinds of steps, n, n), or (1, n, n) where it is the same at every row
    measurement_cov: Floats  # (kinds of rows, D, D), or (1, D, D)


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
    steps: Residuals | None = None  # the sums of the first four, where steps are of several kinds
    rows: Residuals | None = None  # those of the next four, where measurements are of several kinds


class _Sums(NamedTuple):
    """What a backward pass adds up."""

    gradients: Gradients
    S_zz: Floats  # (kinds of steps, m, m)
    S_uu: Floats  # (kinds of rows, blocks, m, m)
    counts: Floats  # (kinds of rows, blocks)
    mean: Floats  # (n,), of the first state
    log_likelihood: float


def e_step(
    params: LGSSMParams,
    batch: Batch,
    blocks: Ints,
    fixed: Bools | None = None,
    likelihood: str = "diffuse",
    flow: Flow | None = None,
    kinds: Kinds | None = None,
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
    work = partial(_expect, start, blocks, likelihood, back, place, kinds)
    parts = each(start.params, batch, work, whole=bool(start.fixed.any()))
    log_likelihood = sum(part.log_likelihood for part in parts)
    statistics = _statistics(start.params, batch, blocks, parts, kinds, fixed=bool(start.fixed.any()))
    if flow is not None:
        assert statistics.gradients is not None
        S_ww = flow.scatter(own.process_cov, statistics.gradients.Q[0], statistics.n_pairs)
        statistics = statistics._replace(S_ww=S_ww, S_wz=np.zeros((len(S_ww), len(statistics.S_zz))))
    if likelihood == "marginal" and not start.fixed.all():
        return _marginal(params, batch, blocks, statistics, log_likelihood, kinds)
    return statistics, log_likelihood


def flowed(params: LGSSMParams, flow: Flow | None) -> LGSSMParams:
    """Parameters with the dynamics of every step, where they are the own ones of a flow."""
    return params if flow is None else flow.out(params)


def _expect(
    start: Start, blocks: Ints, likelihood: str, back: Callable[..., tuple[Floats, Floats]] | None, place: Ints | None,
    kinds: Kinds | None, part: Part,
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
    m, n_blocks, (steps, rows) = n + 1 + k, int(blocks.max()) + 1, kinds.numbers if kinds else (1, 1)
    shapes = (steps, n, n), (steps, n, 1 + k), (steps, n, n), (rows, size, n), (rows, size, 1 + k), (rows, size, size)
    g = Gradients(*map(np.zeros, (*shapes, (n,), (n, n))))
    S_zz, S_uu, counts = np.zeros((steps, m, m)), np.zeros((rows, n_blocks, m, m)), np.zeros((rows, n_blocks))
    of_step, of_row = (kinds.of_step, kinds.of_row) if kinds else (ALIKE, ALIKE)
    of_step, of_row = (own[part.rows] if len(own) > 1 else own for own in (of_step, of_row))
    if place is not None:  # each step moves and drives the states in its own way
        g = g._replace(A=np.zeros((len(part.y), n, n)), Q=np.zeros((len(part.y), n, n)))
        of_step = np.arange(len(part.y))
    adjoint.backward_sums(
        part.y, part.first, run.gains.slot, part.p.A, part.p.C, part.p.d, part.p.U, blocks, of_step, of_row, predicted,
        run.filtered.filtered_cov, run.gains.gain, run.gains.whiten, response, g.A, g.e, g.Q, g.C, g.f, g.R, g.m0, g.P0,
        S_zz, S_uu, counts, part.p.constant and steps == 1 and rows == 1,
    )  # fmt: skip
    if back is not None:
        by_A, by_Q = back(g.A, g.Q, None if place is None else place[part.rows])
        g = g._replace(A=by_A[None], Q=by_Q[None])
    return _Sums(g, S_zz, S_uu, counts, mean, log_likelihood)


def _statistics(
    params: LGSSMParams, batch: Batch, blocks: Ints, parts: list[_Sums], kinds: Kinds | None, *, fixed: bool
) -> Statistics:
    """Sums of the EM algorithm from the gradients: no noise covariance is inverted."""
    g = Gradients(*(np.sum(each_part, axis=0) for each_part in zip(*(part.gradients for part in parts))))
    S_zz, S_uu = np.sum([part.S_zz for part in parts], axis=0), np.sum([part.S_uu for part in parts], axis=0)
    counts = np.sum([part.counts for part in parts], axis=0)
    mean, cov = parts[0].mean, params.initial_cov
    n_sequences = len(batch.starts) - 1
    n_pairs = np.array([[float(len(batch.y) - n_sequences)]])
    if kinds is not None and kinds.numbers[0] > 1:
        inner = np.ones(len(batch.y), bool)
        inner[batch.starts[1:] - 1] = False
        n_pairs = np.bincount(kinds.of_step[inner], minlength=kinds.numbers[0]).astype(float)[:, None]
    Q, R = (
        (kinds.process_cov, kinds.measurement_cov)
        if kinds
        else (_constant(params.process_cov), _constant(params.measurement_cov))
    )
    one = np.zeros(len(mean), np.int64)
    steps = _residuals(Q, np.concatenate([g.A, g.e], 2), g.Q, S_zz[:, None], n_pairs, one)
    rows = _residuals(R, np.concatenate([g.C, g.f], 2), g.R, S_uu, counts, blocks)
    several = kinds.numbers if kinds else (1, 1)
    return Statistics(
        steps.scatter.sum(0), steps.cross.sum(0), S_zz.sum(0), len(batch.y) - n_sequences, rows.scatter.sum(0),
        rows.cross.sum(0), S_uu.sum(0), counts.sum(0), n_sequences * mean + cov @ g.m0,
        n_sequences * cov + cov @ g.P0 @ cov, np.zeros(cov.shape), n_sequences, mean if fixed else None, g,
        steps if several[0] > 1 else None, rows if several[1] > 1 else None,
    )  # fmt: skip


def _constant(cov: Floats) -> Floats:
    """Covariance (1, p, p) of all rows; NaN, for sums of residuals that nobody may use, where it differs."""
    return cov[None] if cov.ndim == 2 else np.full((1, *cov.shape[1:]), np.nan)


def _residuals(cov: Floats, slopes: Floats, spread: Floats, squares: Floats, counts: Floats, blocks: Ints) -> Residuals:
    """Sums of residuals from the gradients by the coefficients and by their covariance."""
    if counts.shape[1] > 1:
        cov = np.where(blocks[:, None] == blocks, cov, 0.0)
    scatter = counts[:, blocks, None] * cov + cov @ spread @ cov
    return Residuals(scatter, cov @ slopes, squares, counts, blocks)


def _marginal(
    params: LGSSMParams, batch: Batch, blocks: Ints, statistics: Statistics, log_likelihood: float, kinds: Kinds | None
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
    same = kinds and kinds._replace(process_cov=unit.process_cov[None], measurement_cov=unit.measurement_cov[None])
    other, value = e_step(unit, zeros, blocks, kinds=same)
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
