"""E-step of the linear-Gaussian model: log-likelihood, score and the sums of the EM algorithm."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.sequence import lgssm_plan
from statespace_em.sequence.flow import Flow
from statespace_em.sequence.lgssm_diffuse import LOG_2PI, StandIns, is_diffuse, proper_start
from statespace_em.sequence.lgssm_likelihood import likelihood_of
from statespace_em.sequence.lgssm_params import LGSSMParams, positions, rows_alike, varies
from statespace_em.sequence.lgssm_plan import Section
from statespace_em.sequence.lgssm_regression import Residuals
from statespace_em.sequence.lgssm_sums import Gradients, Sums, sums_of
from statespace_em.sequence.lgssm_sweeps import Kinds, Pass, bytes_of_row
from statespace_em.sequence.row_kinds import few_changes


class Statistics(NamedTuple):
    """Sums of expectations given all y; z = (s, 1, inputs), w = s[t+1] - A s - b and v = y - C s - d, m = 1 + n + k.

    The features fall into blocks with noise of their own; those of a block are completed in the rows that have one.
    Where moments are not wanted, ``S_wz`` and ``S_vz`` of the states are NaN, as are the gradients by A and C, and
    ``S_zz`` and ``S_uu`` leave out the covariances of the states: squares of their means alone.
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


def e_step(
    params: LGSSMParams,
    batch: Batch,
    blocks: Ints,
    fixed: Bools | None = None,
    likelihood: str = "diffuse",
    flow: Flow | None = None,
    kinds: Kinds | None = None,
    plan: Plan | None = None,
    *,
    moments: bool = True,
) -> tuple[Statistics, float]:
    """Statistics and log-likelihood; ``blocks`` (D,) numbers the blocks of the measurement noise.

    Without ``moments`` of the states, which take most of the time where these are many: see `Statistics`; a flow needs
    them.

    With a ``flow`` the parameters are its own: the statistics are of what drives the states, and the gradients those
    of the own parameters. The M-step leaves the transition to the score. ``plan`` is what `planned` makes of the
    batch, if that is known.
    """
    own = params
    params = flowed(params, flow)
    plan = plan or planned(params, batch)
    start = proper_start(params, batch, fixed, plan.stand_ins)
    steps = flow.kinds[positions(batch)] if flow is not None and flow.kinds is not None else None
    work = Pass.of(start, batch, blocks, likelihood, kinds, steps, moments=moments or flow is not None)
    found = sums_of(work, plan.sections)
    if flow is not None:
        found = found._replace(gradients=_of_own(flow, own, found.gradients))
    statistics = _statistics(start.params, batch, blocks, found, kinds, fixed=bool(start.fixed.any()))
    if flow is not None:
        S_ww = flow.scatter(own.process_cov, found.gradients.Q[0], statistics.n_pairs)
        statistics = statistics._replace(S_ww=S_ww, S_wz=np.zeros((len(S_ww), len(statistics.S_zz))))
    total = found.log_likelihood
    if likelihood == "marginal" and not start.fixed.all():
        statistics, total = _marginal(params, batch, blocks, statistics, total, kinds, moments=moments)
    share = _share(batch)
    return (statistics, total) if share == 1.0 else (_times(statistics, share), share * total)


def log_likelihood(
    params: LGSSMParams,
    batch: Batch,
    fixed: Bools | None = None,
    likelihood: str = "diffuse",
    flow: Flow | None = None,
    plan: Plan | None = None,
) -> float:
    """Log-likelihood that `e_step` finds, in nats, by the way forward alone."""
    params = flowed(params, flow)
    plan = plan or planned(params, batch)
    start = proper_start(params, batch, fixed, plan.stand_ins)
    work = Pass.of(start, batch, np.zeros(batch.y.shape[1], np.int64), likelihood, None, None)
    total = likelihood_of(work, plan.sections)
    if likelihood == "marginal" and not start.fixed.all():
        unit, zeros, constant = _unit(params, batch)
        total -= log_likelihood(unit, zeros) + constant
    return _share(batch) * total


def _share(batch: Batch) -> float:
    """Weight of every sequence."""
    return 1.0 if batch.sequence_weight is None else float(batch.sequence_weight[0])


def _times(sums: Statistics, share: float) -> Statistics:
    """Sums of sequences with a weight; the first mean is none."""

    def less(value: Any) -> Any:
        return None if value is None else type(value)(*(share * part for part in value))

    residuals = [part if part is None else less(part)._replace(blocks=part.blocks) for part in (sums.steps, sums.rows)]
    plain = sums._replace(start=None, gradients=None, steps=None, rows=None)
    named = {name: share * value for name, value in plain._asdict().items() if value is not None}
    return Statistics(**named, start=sums.start, gradients=less(sums.gradients), steps=residuals[0], rows=residuals[1])


class Plan(NamedTuple):
    """What E-steps of parameters of the same shapes have in common."""

    sections: tuple[Section, ...]  # that they take one after another
    stand_ins: StandIns


def planned(params: LGSSMParams, batch: Batch) -> Plan:
    """Plan of E-steps over these data."""
    varying = ("transition", "process_cov", "observation", "measurement_cov")
    share = not any(varies(params, name) for name in varying)
    settles = share or few_changes(rows_alike(params, batch))
    size = bytes_of_row(len(params.initial_mean), batch.y.shape[1])
    sections = lgssm_plan.plan(batch.y, batch.starts, share=share, settles=settles, size=size)
    return Plan(sections, StandIns())


def flowed(params: LGSSMParams, flow: Flow | None) -> LGSSMParams:
    """Parameters with the dynamics of every step, where they are the own ones of a flow."""
    return params if flow is None else flow.out(params)


def _of_own(flow: Flow, own: LGSSMParams, g: Gradients) -> Gradients:
    """Gradients of the own parameters from those of the steps by kind."""
    g_A, g_Q, entries = g.A, g.Q, None
    if flow.kinds is not None:
        there, entries = np.unique(flow.kinds, return_index=True)  # one entry of each kind
        g_A, g_Q = g_A[there], g_Q[there]
    by_A, by_Q = flow.back(own, g_A, g_Q, entries)
    return g._replace(A=by_A[None], Q=by_Q[None])


def _statistics(
    params: LGSSMParams, batch: Batch, blocks: Ints, found: Sums, kinds: Kinds | None, *, fixed: bool
) -> Statistics:
    """Sums of the EM algorithm from the gradients: no noise covariance is inverted."""
    g, S_zz, S_uu, counts, mean, _ = found
    cov = params.initial_cov
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
    with np.errstate(over="raise", invalid="raise"):  # a peak whose slopes are beyond the numbers
        scatter = counts[:, blocks, None] * cov + cov @ spread @ cov
        return Residuals(scatter, cov @ slopes, squares, counts, blocks)


def _marginal(
    params: LGSSMParams, batch: Batch, blocks: Ints, statistics: Statistics, log_likelihood: float, kinds: Kinds | None,
    *, moments: bool,
) -> tuple[Statistics, float]:  # fmt: skip
    """Add half the log determinant of the sum of squared responses (Francke, Koopman & de Vos 2010).

    That is minus the diffuse log-likelihood of noise of variance 1 that is all zero, up to its 1/2 log 2 pi.
    """
    unit, zeros, constant = _unit(params, batch)
    same = kinds and kinds._replace(process_cov=unit.process_cov[None], measurement_cov=unit.measurement_cov[None])
    other, value = e_step(unit, zeros, blocks, kinds=same, moments=moments)
    assert statistics.gradients is not None
    assert other.gradients is not None
    g, h = statistics.gradients, other.gradients
    return statistics._replace(gradients=g._replace(A=g.A - h.A, C=g.C - h.C)), log_likelihood - value - constant


def _unit(params: LGSSMParams, batch: Batch) -> tuple[LGSSMParams, Batch, float]:
    """Model and data of noise of variance 1 that is all zero, and what its log-likelihood has of log 2 pi."""
    n, size = params.observation.shape[-1], params.observation.shape[-2]
    unit = params._replace(
        process_cov=np.zeros((n, n)), measurement_cov=np.eye(size), state_offset=np.zeros(n),
        observation_offset=np.zeros(size), initial_mean=np.zeros(n), state_input=None, observation_input=None,
        initial_cov=np.diag(np.where(is_diffuse(params), np.inf, 0.0)),
    )  # fmt: skip
    zeros = batch._replace(y=np.where(np.isnan(batch.y), np.nan, 0.0), inputs=None, sequence_weight=None)
    n_constants = int(is_diffuse(params).sum()) * (len(batch.starts) - 1)
    return unit, zeros, 0.5 * LOG_2PI * (int((~np.isnan(batch.y)).sum()) - n_constants)


def marginal_terms(params: LGSSMParams, batch: Batch) -> Floats:
    """What the marginal likelihood adds to the diffuse one of each sequence."""
    found = []
    for begin, end in zip(batch.starts[:-1], batch.starts[1:]):
        part = batch.cut(begin, end)
        unit, zeros, constant = _unit(params, part)
        found.append(-log_likelihood(unit, zeros) - constant)
    return np.array(found)
