"""E-step of the linear-Gaussian model and whole posteriors, with any start: proper, diffuse or fixed.

A start that is unknown along some directions is treated by augmentation (de Jong 1991): the filter runs with a proper
stand-in for the unknown constants, their effect on every prediction is carried along, and a generalised least squares
regression of the innovations on it gives the exact answer, whatever the stand-in. Diffuse constants belong to their
sequence and are integrated out; fixed ones belong to all sequences and are estimated.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import UndeterminedStartError
from statespace_em.kernels import adjoint, diffuse
from statespace_em.sequence.lgssm_params import LGSSMParams, by_row, positions
from statespace_em.sequence.lgssm_passes import (
    Filtered,
    Gains,
    Part,
    Smoothed,
    blank_filtered,
    each,
    filter_covariances,
    filter_means,
    smoothed_mean,
    smoother,
)

LOG_2PI = float(np.log(2.0 * np.pi))
DETERMINED = 1e-11  # least information on an unknown constant, in units of its stand-in


class Constants(NamedTuple):
    """Unknown constants of the start, q of them in units of their stand-in, and what the rows say on them."""

    response: Floats  # (N, n, q), of the predicted state
    gram: Floats  # (N, q, q), information in each row
    cross: Floats  # (N, q)
    stand_in: Floats  # (q,), variance of the stand-in
    states: Ints  # (q,), the states that they are


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


# starts that are unknown along some directions


def is_diffuse(params: LGSSMParams) -> Bools:
    """Which states (n,) have a diffuse start."""
    return np.isinf(np.diag(params.initial_cov))


def is_fixed(params: LGSSMParams) -> Bools | None:
    """Which states (n,) begin at a constant that is not known, marked by a first mean of NaN; None if none does."""
    unknown = np.isnan(params.initial_mean)
    return unknown if unknown.any() else None


def _stand_in(params: LGSSMParams, batch: Batch, states: Ints) -> Floats:
    """Variance for each unknown constant with which it moves y about as much as y moves."""
    rows = by_row(params, batch)
    directions = np.ascontiguousarray(np.eye(len(params.initial_mean))[:, states])
    seen = ~np.isnan(batch.y)
    count, y = np.maximum(seen.sum(0), 1), np.where(seen, batch.y, 0.0)
    level = (y**2).sum(0) / count
    spread = np.where(seen, batch.y - y.sum(0) / count, 0.0)
    spread = (spread**2).sum(0) / count
    scale = np.where(spread > 0.0, spread, np.where(level > 0.0, level, 1.0))
    effect = np.zeros(len(states))
    diffuse.responses(batch.y, batch.first, rows.A, rows.C, directions, 1.0 / scale, effect)
    entries = max(int(seen.sum()), 1)
    return np.asarray(np.where(effect > 0.0, entries / np.where(effect > 0.0, effect, 1.0), float(scale.mean())))


class Forward(NamedTuple):
    """The filter over some sequences, with stand-ins for what is unknown of their start."""

    filtered: Filtered  # covariances by slot
    gains: Gains
    constants: Constants | None  # None: the start is proper


class Start(NamedTuple):
    """First state with stand-ins for what is unknown."""

    params: LGSSMParams  # with a proper start
    states: Ints  # (q,), which are unknown
    stand_in: Floats  # (q,)
    fixed: Bools  # (q,), which of them are constants to be estimated; the others are diffuse


def proper_start(
    params: LGSSMParams, batch: Batch, fixed: Bools | None = None, stand_in: Floats | None = None
) -> Start:
    """Put stand-ins in the place of unknown first states; ``fixed`` marks constants to be estimated."""
    fixed = is_fixed(params) if fixed is None else fixed
    fixed = np.zeros(len(params.initial_mean), bool) if fixed is None else fixed
    unknown = is_diffuse(params) | fixed
    states = np.flatnonzero(unknown)
    if not len(states):
        return Start(params, states, np.zeros(0), np.zeros(0, bool))
    variance = _stand_in(params, batch, states) if stand_in is None else stand_in
    cov = np.where(unknown[:, None] | unknown, 0.0, params.initial_cov)
    mean = np.where(unknown & ~fixed, 0.0, np.nan_to_num(params.initial_mean))
    cov[states, states] = np.where(fixed[states], 0.0, variance)
    return Start(params._replace(initial_mean=mean, initial_cov=cov), states, variance, fixed[states])


def forward(start: Start, part: Part, *, innovations: bool = False) -> Forward:
    """Run the filter over some sequences."""
    found = blank_filtered(part.y, len(part.mean), innovations=innovations)
    gains = filter_covariances(part, found)
    filter_means(part, gains, found)
    if not len(start.states):
        return Forward(found, gains, None)
    n_rows, n_states, q = len(part.y), len(part.mean), len(start.states)
    response, gram, cross = np.empty((n_rows, n_states, q)), np.empty((n_rows, q, q)), np.empty((n_rows, q))
    directions = np.ascontiguousarray(np.eye(n_states)[:, start.states] * np.sqrt(start.stand_in))
    diffuse.filter_columns(
        part.y, part.first, gains.slot, part.p.A, part.p.C, part.p.d, gains.gain, gains.whiten, found.predicted_mean,
        directions, response, gram, cross,
    )  # fmt: skip
    return Forward(found, gains, Constants(response, gram, cross, start.stand_in, start.states))


class Solved(NamedTuple):
    """Estimates of the unknown constants, in units of their stand-ins."""

    value: Floats  # (S, q)
    root: Floats  # (S, q, q), its outer product with itself is their covariance
    log_likelihood: Floats  # (S,), nats to add
    fixed_cov: Floats  # covariance of the estimates of those that are fixed


def solve(known: Constants, first: Bools, *, fixed: Bools, likelihood: str, offset: int = 0) -> Solved:
    """Regress the innovations on the responses: diffuse constants sequence by sequence, fixed ones over all of them.

    ``first`` (N,) marks the first rows, ``fixed`` (q,) the constants to be estimated; ``offset`` is the number of the
    first row in all data, for messages. The fixed ones are regressed on what the diffuse ones leave.
    """
    begins = np.flatnonzero(first)
    gram, cross = np.add.reduceat(known.gram, begins), np.add.reduceat(known.cross, begins)
    n, q = cross.shape
    own, theirs = np.flatnonzero(~fixed), np.flatnonzero(fixed)
    value, root, gain = np.zeros((n, q)), np.zeros((n, q, q)), np.zeros(n)
    fixed_cov = np.zeros((len(theirs), len(theirs)))
    factor = _factor(gram[:, own[:, None], own], np.ones((n, len(own))), begins, offset)
    inverse = np.linalg.inv(factor)
    half = (inverse @ cross[:, own, None])[:, :, 0]
    gain += 0.5 * (half**2).sum(1) - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1)
    gain += 0.5 * np.log(known.stand_in[own]).sum()
    gain += 0.0 if likelihood == "full" else 0.5 * len(own) * LOG_2PI
    if len(theirs):
        shared = inverse @ gram[:, own[:, None], theirs]
        left = gram[:, theirs[:, None], theirs] - shared.swapaxes(1, 2) @ shared
        rest = cross[:, theirs] - (shared.swapaxes(1, 2) @ half[:, :, None])[:, :, 0]
        total = left.sum(0)
        units = np.sqrt(np.diagonal(gram[:, theirs[:, None], theirs].sum(0)))  # one told precisely hides no other
        root_of = _factor(total[None], units[None], begins[:1], offset)[0]
        estimate = np.linalg.solve(root_of.T, np.linalg.solve(root_of, rest.sum(0)))
        value[:, theirs], fixed_cov = estimate, np.linalg.inv(total)
        gain += rest @ estimate - 0.5 * np.einsum("i,sij,j->s", estimate, left, estimate)
        half = half - (shared @ estimate[:, None])[:, :, 0]
    value[:, own] = (inverse.swapaxes(1, 2) @ half[:, :, None])[:, :, 0]
    root[:, own[:, None], own] = inverse.swapaxes(1, 2)
    return Solved(value, root, gain, fixed_cov)


def _factor(gram: Floats, units: Floats, begins: Ints, offset: int) -> Floats:
    """Cholesky factors (S, q, q) of the information on unknown constants, refused where it does not tell them."""
    units = np.where(units > 0.0, units, 1.0)
    if gram.shape[1]:
        eigenvalues = np.linalg.eigvalsh(gram / (units[:, :, None] * units[:, None, :]))
        if not (eigenvalues[:, 0] > DETERMINED).all():
            raise UndeterminedStartError(offset + int(begins[np.argmin(eigenvalues[:, 0])]))
    return np.asarray(np.linalg.cholesky(gram))


# the E-step


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
    spread: Floats | None = None,
) -> tuple[Statistics, float]:
    """Statistics and log-likelihood; ``blocks`` (D,) numbers the blocks of the measurement noise.

    With ``spread`` (T, n, r) the noise of the step after row t is spread[t] e, e ~ N(0, process_cov): the statistics
    are of e.
    """
    inner = params.process_cov
    params = spread_out(params, spread)
    start = proper_start(params, batch, fixed)
    place = positions(batch) if spread is not None else np.zeros(0, np.int64)
    parts = each(
        start.params, batch, partial(_expect, start, blocks, likelihood, spread, place), whole=bool(start.fixed.any())
    )
    log_likelihood = sum(part.log_likelihood for part in parts)
    statistics = _statistics(start.params, batch, blocks, parts, fixed=bool(start.fixed.any()))
    if spread is not None:
        assert statistics.gradients is not None
        S_ww = statistics.n_pairs * inner + inner @ statistics.gradients.Q @ inner
        statistics = statistics._replace(S_ww=S_ww, S_wz=np.zeros((len(inner), len(statistics.S_zz))))
    if likelihood == "marginal" and not start.fixed.all():
        return _marginal(params, batch, blocks, statistics, log_likelihood)
    return statistics, log_likelihood


def spread_out(params: LGSSMParams, spread: Floats | None) -> LGSSMParams:
    """Parameters with the process noise of every step, where that is known up to what drives it; see `e_step`."""
    if spread is None:
        return params
    return params._replace(process_cov=spread @ params.process_cov @ spread.swapaxes(1, 2))


def _expect(start: Start, blocks: Ints, likelihood: str, spread: Floats | None, place: Ints, part: Part) -> _Sums:
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
    g_Q = g.Q[None] if spread is None else np.zeros((len(part.y), n, n))
    adjoint.backward_sums(
        part.y, part.first, run.gains.slot, part.p.A, part.p.C, part.p.d, part.p.U, blocks, predicted,
        run.filtered.filtered_cov, run.gains.gain, run.gains.whiten, response, g.A[None], g.e, g_Q, g.C[None],
        g.f, g.R[None], g.m0, g.P0, S_zz, S_uu, counts, part.p.constant,
    )  # fmt: skip
    if spread is not None:
        own = spread[place[part.rows]]
        g = g._replace(Q=np.asarray((own.swapaxes(1, 2) @ g_Q @ own).sum(0)))
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


# whole posteriors


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
    cov = found.cov + spread @ spread.transpose(0, 2, 1)
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


def marginal_terms(params: LGSSMParams, batch: Batch) -> Floats:
    """What the marginal likelihood adds to the diffuse one of each sequence."""
    found = []
    for begin, end in zip(batch.starts[:-1], batch.starts[1:]):
        part = batch.cut(begin, end)
        blocks = np.zeros(batch.y.shape[1], np.int64)
        found.append(e_step(params, part, blocks, None, "marginal")[1] - e_step(params, part, blocks)[1])
    return np.array(found)
