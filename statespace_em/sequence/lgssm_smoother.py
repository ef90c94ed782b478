"""Smoothed states of the linear-Gaussian model, with any start: proper, diffuse or fixed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import UndeterminedStartError
from statespace_em.labels import Labels, seeing
from statespace_em.sequence.lgssm_collapse import SHARE
from statespace_em.sequence.lgssm_diffuse import Heads, Start, heads, proper_start, solve
from statespace_em.sequence.lgssm_expectation import e_step, marginal_terms
from statespace_em.sequence.lgssm_params import LGSSMParams, by_row, numbered, taken
from statespace_em.sequence.lgssm_passes import Smoothed, smoothed_means, smoother, steps_back
from statespace_em.shared import joined, replaced

WORTH = 2_000  # rows times constants from which on it takes less time to hand these over, sequence by sequence


def smooth(params: LGSSMParams, batch: Batch, likelihood: str = "diffuse") -> tuple[Smoothed, Floats]:
    """Moments of every row given all rows, and the log-likelihood (S,) of each sequence."""
    start = proper_start(params, batch)
    if not len(start.states):
        found, by_rows = smoother(start.params, batch)
        return found, np.add.reduceat(by_rows, batch.starts[:-1])
    long = batch.lengths * len(start.states) >= WORTH
    head = heads(start, batch, until_determined=bool(long.any()) and not start.fixed.any())
    if (head.lasting & long).any():
        found, log_likelihood = _sequence_by_sequence(start, batch, head.batch.lengths, head.lasting & long, likelihood)
    else:
        given = _conditional(start, batch, heads(start, batch) if head.lasting.any() else head, likelihood)
        found, log_likelihood = _marginal(given), given.log_likelihood
    if likelihood == "marginal":
        log_likelihood = log_likelihood + marginal_terms(params, batch)
    return found, log_likelihood


class _Conditional(NamedTuple):
    """Moments of the states given the unknown constants of the start, and what these add."""

    moments: Smoothed  # means at the estimates of the constants; covariances given these
    rows: Ints  # (M,), which respond to them
    loading: Floats  # (M, n, q), on the constants in units of their deviations: its outer product is what they add
    log_likelihood: Floats  # (S,)


def _conditional(start: Start, batch: Batch, head: Heads, likelihood: str) -> _Conditional:
    found, by_rows = smoother(start.params, batch)
    log_likelihood = np.add.reduceat(by_rows, batch.starts[:-1])
    known, rows = head.run.constants, head.rows
    assert known is not None
    try:
        solved = solve(known, head.batch.first, start, likelihood=likelihood)
    except UndeterminedStartError as error:
        raise UndeterminedStartError(int(rows[error.args[0]]), *error.args[1:]) from None
    columns = _smoothed_columns(start, head.batch)
    sequence = np.cumsum(head.batch.first) - 1
    found.mean[rows] += np.einsum("tnq,tq->tn", columns, solved.value[sequence])
    return _Conditional(found, rows, columns @ solved.root[sequence], log_likelihood + solved.log_likelihood)


def _marginal(given: _Conditional) -> Smoothed:
    """Moments with what the unknown constants add; the covariances given them are changed in place."""
    found, rows, loading = given.moments, given.rows, given.loading
    cross_cov = np.array(found.cross_cov[rows])  # NaN where the next row is of another sequence
    cross_cov[:-1] += loading[:-1] @ loading[1:].transpose(0, 2, 1)
    return found._replace(
        cov=replaced(found.cov, rows, found.cov[rows] + loading @ loading.transpose(0, 2, 1)),
        cross_cov=replaced(found.cross_cov, rows, cross_cov),
    )


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


# constants whose effect never dies out: collapsed into the state after the first rows (de Jong & Chu-Chun-Lin 1994)


def _sequence_by_sequence(
    start: Start, batch: Batch, lengths: Ints, lasting: Bools, likelihood: str
) -> tuple[Smoothed, Floats]:
    """Moments where the start has an effect on all rows of some sequences: see `_collapsed`; the others as ever."""
    log_likelihood, numbers, parts = np.empty(len(lasting)), [], []
    whole = [np.arange(a, b) for a, b in pairwise(batch.starts)]
    others = [rows for rows, apart in zip(whole, lasting) if not apart]
    if others:
        together = np.concatenate(others)
        with numbered(together):
            rest = taken(batch, together, np.cumsum([0, *map(len, others)]))
            given = _conditional(start, rest, heads(start, rest), likelihood)
        log_likelihood[~lasting] = given.log_likelihood
        numbers.append(together)
        parts.append(_marginal(given))
    for s in np.flatnonzero(lasting):
        n_head = max(int(lengths[s]), len(whole[s]) // SHARE)
        with numbered(whole[s]):
            alone = taken(batch, whole[s], np.array([0, len(whole[s])]))
            found, log_likelihood[s] = _collapsed(start, alone, n_head, likelihood)
        numbers.append(whole[s])
        parts.append(found)
    return _joined(numbers, parts), log_likelihood


def _joined(rows: list[Ints], parts: list[Smoothed]) -> Smoothed:
    values: Any = (joined(rows, each) for each in zip(*parts))
    return Smoothed(*values)


def _collapsed(start: Start, batch: Batch, n_head: int, likelihood: str) -> tuple[Smoothed, float]:
    """Moments of one sequence whose first rows, the head, tell its constants, and its log-likelihood.

    What is predicted of the state after the head, N(m, P), is an ordinary first state of the rows that follow, which
    make of it N(m', P'). Given that state, a state of the head is on average B times as far from its mean as this one
    from m, so that it has the mean + B (m' - m) and the covariance given the state + B P' B', sums of squares all.
    """
    T = len(batch.y)
    rows = np.arange(n_head + 1)  # with that of the state handed over, of which the head has no y
    head = taken(batch, rows, np.array([0, n_head + 1]))
    head.y[-1] = np.nan
    with numbered(rows):
        given = _conditional(start, head, heads(start, head), likelihood)
        gains, step_cov = steps_back(start.params, head)
    mean, conditional_cov = given.moments.mean, np.asarray(given.moments.cov)
    loading = np.zeros((n_head + 1, *given.loading.shape[1:]))
    loading[given.rows] = given.loading
    last = loading[-1]
    cov = conditional_cov[-1] + last @ last.T
    collapsed = start.params._replace(initial_mean=mean[-1], initial_cov=(cov + cov.T) / 2.0)
    after = np.arange(n_head, T)
    with numbered(after):
        rest, by_rows = smoother(collapsed, taken(batch, after, np.array([0, T - n_head])))

    # given the constants: regression of a state of the head on the one after it, and the covariance that this leaves
    slope, residual_cov = np.empty_like(conditional_cov), np.zeros_like(conditional_cov)
    slope[-1] = np.eye(len(cov))
    for t in range(n_head - 1, -1, -1):
        slope[t] = gains[t] @ slope[t + 1]
        residual_cov[t] = step_cov[t] + gains[t] @ residual_cov[t + 1] @ gains[t].T
    # of the constants on the state after the head
    constants_slope = last.T @ _inverse(collapsed.initial_cov)
    direct = loading - slope @ last  # effect of the constants on a state of the head, given the one after it
    variance, axes = np.linalg.eigh(np.eye(len(constants_slope)) - constants_slope @ last)
    residual, B = direct @ (axes * np.sqrt(np.maximum(variance, 0.0))), slope + direct @ constants_slope
    future = B @ np.asarray(rest.cov[[0]])[0]
    cov = residual_cov + residual @ residual.transpose(0, 2, 1) + future @ B.transpose(0, 2, 1)
    cross_cov = gains @ residual_cov[1:] + residual[:-1] @ residual[1:].transpose(0, 2, 1)
    cross_cov = cross_cov + future[:-1] @ B[1:].transpose(0, 2, 1)
    moments = mean + B @ (rest.mean[0] - mean[-1]), (cov + cov.transpose(0, 2, 1)) / 2.0, cross_cov
    first = Smoothed(*(each[:n_head] for each in moments))
    return _joined([rows[:-1], after], [first, rest]), float(given.log_likelihood[0] + by_rows.sum())


def _inverse(cov: Floats) -> Floats:
    """Inverse of a covariance, or of what is not singular of it, whatever the units of its states."""
    deviation = np.sqrt(np.diag(cov))
    units = np.where(deviation > 0.0, deviation, 1.0)
    return np.asarray(np.linalg.pinv(cov / np.outer(units, units), hermitian=True) / np.outer(units, units))


def estimated_start(params: LGSSMParams, batch: Batch) -> Floats | None:
    """First mean (n,) with the estimates of what is fixed but unknown of it; None if nothing is."""
    return e_step(params, batch, np.zeros(batch.y.shape[1], np.int64))[0].start


def imputed(params: LGSSMParams, batch: Batch, smoothed: Smoothed, level: float, labels: Labels) -> xr.Dataset:
    """Missing entries of y given all that was seen, and the intervals that hold each with probability ``level``."""
    from scipy.special import ndtri  # here because it is slow to import, and fits do without

    mean, variance = _completed(params, batch, smoothed)
    half = float(ndtri(0.5 + level / 2.0)) * np.sqrt(variance)
    values = {"mean": mean, "variance": variance, "lower": mean - half, "upper": mean + half}
    rows = {name: (("feature",), value) for name, value in values.items()}
    dataset = labels.dataset(rows, {"feature": labels.features})
    return seeing(dataset, "1:T")


def _completed(params: LGSSMParams, batch: Batch, smoothed: Smoothed) -> tuple[Floats, Floats]:
    """Mean and variance (N, D) of every entry of y given all entries seen; those seen have variance 0.

    Given the noise v_o of the entries seen in a row, that of its missing ones is N(B' v_o, R_mm - R_mo B) with
    B = inv(R_oo) R_om, whatever the state.
    """
    rows = by_row(params, batch)
    mean, variance = np.array(batch.y), np.zeros(batch.y.shape)
    for t in np.flatnonzero(np.isnan(batch.y).any(1)):
        C, d, R = (value[t if len(value) > 1 else 0] for value in (rows.C, rows.d, rows.R))
        missing = np.isnan(batch.y[t])
        seen = ~missing
        B = np.linalg.pinv(R[np.ix_(seen, seen)], hermitian=True) @ R[np.ix_(seen, missing)]
        slope = C[missing] - B.T @ C[seen]
        away = batch.y[t, seen] - d[seen]
        mean[t, missing] = d[missing] + slope @ smoothed.mean[t] + B.T @ away
        noise = R[np.ix_(missing, missing)] - R[np.ix_(missing, seen)] @ B
        variance[t, missing] = np.diag(slope @ smoothed.cov[t] @ slope.T + noise)
    return mean, variance
