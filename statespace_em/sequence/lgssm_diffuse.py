"""Diffuse and fixed but unknown first states: the augmented Kalman filter (de Jong 1991).

The filter runs with a proper stand-in for the unknown constants, their effect on every prediction is carried along,
and a generalised least squares regression of the innovations on it gives the exact answer, whatever the stand-in.
Diffuse constants belong to their sequence and are integrated out; fixed ones belong to all sequences and are estimated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import UndeterminedStartError
from statespace_em.kernels import adjoint_constants
from statespace_em.kernels.adjoint_constants import GONE
from statespace_em.sequence.lgssm_params import LGSSMParams, by_row, numbered, taken
from statespace_em.sequence.lgssm_passes import (
    Filtered,
    Gains,
    Part,
    blank_filtered,
    each,
    filter_covariances,
    filter_means,
)

LOG_2PI = float(np.log(2.0 * np.pi))
ENOUGH = 2_048  # rows that mostly tell how much an unknown constant moves y
FAR = 300.0  # noises that rows may be away from where the filter begins before digits of the likelihood are lost
DETERMINED = 1e-11  # least information on an unknown constant, in units of its stand-in
TURNED = 1e-3  # share of a constant in a direction that rows do not tell, from which on it is named
TOLD = 1e-4  # least information on a constant that is well known, likewise
MANY = 128  # rows of a sequence that have time to tell its constants
HEAD = 32  # rows of a sequence in which its response to unknown constants is looked for first
FARTHER = 4  # times as many where it has not died out


class Constants(NamedTuple):
    """Unknown constants of the start, q of them in units of their stand-in, and what the rows say on them."""

    response: Floats  # (N, n, q), of the predicted state
    gram: Floats  # (N, q, q), information in each row
    cross: Floats  # (N, q)
    stand_in: Floats  # (q,), variance of the stand-in
    states: Ints  # (q,), the states that they are


def is_diffuse(params: LGSSMParams) -> Bools:
    """Which states (n,) have a diffuse start."""
    return np.isinf(np.diag(params.initial_cov))


def is_fixed(params: LGSSMParams) -> Bools | None:
    """Which states (n,) begin at a constant that is not known, marked by a first mean of NaN; None if none does."""
    unknown = np.isnan(params.initial_mean)
    return unknown if unknown.any() else None


class StandIns:
    """Variances of stand-ins; those of the same transition, observation and data are known from the last call."""

    def __init__(self) -> None:
        self._last: tuple[tuple[Any, ...], Floats] | None = None

    def of(self, params: LGSSMParams, batch: Batch, states: Ints) -> Floats:
        """Variance for each unknown constant, see `_stand_in`."""
        key, last = (params.transition, params.observation, batch.y), self._last
        if last is not None and len(last[1]) == len(states) and all(map(is_, key, last[0])):
            return last[1]
        found = _stand_in(params, batch, states)
        self._last = key, found
        return found


def _stand_in(params: LGSSMParams, batch: Batch, states: Ints) -> Floats:
    """Variance for each unknown constant with which it moves y about as much as y moves.

    The first rows tell, unless a constant does not show there: no result depends on what is found, but for round-off.
    """
    for n_rows in (ENOUGH, len(batch.y)):
        found = _moves(params, beginning(batch, n_rows), states)
        if np.isfinite(found).all():
            return found
    seen = ~np.isnan(batch.y)
    level = np.square(batch.y[seen]).mean() if seen.any() else 1.0
    return np.where(np.isfinite(found), found, level if level > 0.0 else 1.0)


def beginning(batch: Batch, n_rows: int) -> Batch:
    """Return the first rows."""
    n_rows = min(n_rows, len(batch.y))
    starts = np.append(batch.starts[batch.starts < n_rows], n_rows)
    return batch.take(slice(n_rows), starts)


def _moves(params: LGSSMParams, batch: Batch, states: Ints) -> Floats:
    """Variance as above, inf where a constant does not move these rows."""
    rows = by_row(params, batch)
    directions = np.ascontiguousarray(np.eye(len(params.initial_mean))[:, states])
    seen = ~np.isnan(batch.y)
    count, y = np.maximum(seen.sum(0), 1), np.where(seen, batch.y, 0.0)
    level = (y**2).sum(0) / count
    spread = np.where(seen, batch.y - y.sum(0) / count, 0.0)
    spread = (spread**2).sum(0) / count
    scale = np.where(spread > 0.0, spread, np.where(level > 0.0, level, 1.0))
    effect = np.zeros(len(states))
    adjoint_constants.responses(batch.y, batch.first, rows.A, rows.C, directions, 1.0 / scale, effect)
    entries = max(int(seen.sum()), 1)
    with np.errstate(over="ignore"):  # next to none is none
        return np.asarray(np.where(effect > 0.0, entries / np.where(effect > 0.0, effect, 1.0), np.inf))


def _near_data(params: LGSSMParams, batch: Batch, states: Ints) -> Floats:
    """Values (q,) of unknown constants from which the filter does not see y far away; 0 where it is near anyhow.

    No result depends on them, but for round-off: what the innovations lose in squares of the distance is not there
    for the regression on the constants to give back. The first rows of one sequence tell by least squares without
    weights, which leaves the distance of others that begin elsewhere.
    """
    nothing, row = np.zeros(len(states)), first_seen(batch.y)
    if row is None:
        return nothing
    begin = int(batch.starts[np.searchsorted(batch.starts, row, side="right") - 1])
    A, Q, C, d, R = (
        np.asarray(getattr(params, name)) for name in
        ("transition", "process_cov", "observation", "observation_offset", "measurement_cov")
    )  # fmt: skip
    A, Q, C, R = (value if value.ndim == 2 else value[min(row, len(value) - 1)] for value in (A, Q, C, R))
    noise = np.diagonal(R) + np.einsum("ki,ij,kj->k", C, Q, C)
    first = np.nan_to_num(batch.y[row] - (d if d.ndim == 1 else d[min(row, len(d) - 1)]))
    if not (np.square(first) > FAR**2 * noise).any():
        return nothing
    return _least_squares(params, batch, states, begin, row)


def first_seen(y: Floats) -> int | None:
    """Number of the first row with an entry."""
    for begin in range(0, len(y), ENOUGH):
        found = np.flatnonzero(~np.isnan(y[begin : begin + ENOUGH]).all(1))
        if found.size:
            return begin + int(found[0])
    return None


def _least_squares(params: LGSSMParams, batch: Batch, states: Ints, begin: int, row: int) -> Floats:
    """Values (q,) of constants that come nearest to the rows from the first that is seen, states having no noise."""
    n = len(params.initial_mean)
    end = min(row + 2 * min(n, HEAD) + 1, int(batch.starts[np.searchsorted(batch.starts, begin, side="right")]))
    head = batch.cut(begin, end)
    p, unknown = by_row(params, head), np.eye(n)[:, states]
    known = np.where(np.isfinite(params.initial_mean), params.initial_mean, 0.0)
    known[states] = 0.0
    effects, rest = [], []
    for t in range(len(head.y)):
        A, b, C, d = (value[t if len(value) > 1 else 0] for value in (p.A, p.b, p.C, p.d))
        seen = ~np.isnan(head.y[t])
        effects.append(C[seen] @ unknown)
        rest.append(head.y[t, seen] - C[seen] @ known - d[seen])
        unknown, known = A @ unknown, A @ known + b
    design = np.concatenate(effects)
    size = np.sqrt(np.square(design).sum(0))
    size = np.where(size > 0.0, size, 1.0)
    found = np.linalg.lstsq(design / size, np.concatenate(rest), rcond=1e-8)[0] / size
    return np.where(np.isfinite(found), found, 0.0)


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
    params: LGSSMParams, batch: Batch, fixed: Bools | None = None, stand_in: Floats | StandIns | None = None
) -> Start:
    """Put stand-ins in the place of unknown first states; ``fixed`` marks constants to be estimated."""
    stand_ins = StandIns() if stand_in is None else stand_in
    fixed = is_fixed(params) if fixed is None else fixed
    fixed = np.zeros(len(params.initial_mean), bool) if fixed is None else fixed
    unknown = is_diffuse(params) | fixed
    states = np.flatnonzero(unknown)
    if not len(states):
        return Start(params, states, np.zeros(0), np.zeros(0, bool))
    variance = stand_ins.of(params, batch, states) if isinstance(stand_ins, StandIns) else stand_ins
    cov = np.where(unknown[:, None] | unknown, 0.0, params.initial_cov)
    mean = np.where(unknown & ~fixed, np.nan, params.initial_mean)
    if isinstance(stand_ins, StandIns) and np.isnan(mean[states]).all():
        mean[states] = _near_data(params, batch, states)
    mean = np.nan_to_num(mean)
    cov[states, states] = np.where(fixed[states], 0.0, variance)
    return Start(params._replace(initial_mean=mean, initial_cov=cov), states, variance, fixed[states])


def covariances(start: Start, part: Part) -> Forward:
    """Run the filter over some sequences without their means, as if rows said nothing on the unknown constants."""
    found, gains = filter_covariances(part, blank_filtered(part.y, len(part.mean), innovations=False))
    if not len(start.states):
        return Forward(found, gains, None)
    n_rows, n_states, q = len(part.y), len(part.mean), len(start.states)
    response, information = np.zeros((n_rows, n_states, q)), np.empty((n_rows, q, q))  # 0 where it is gone
    directions = np.ascontiguousarray(np.eye(n_states)[:, start.states] * np.sqrt(start.stand_in))
    adjoint_constants.columns(
        part.y, part.first, gains.slot, part.p.A, part.p.C, gains.gain, gains.whiten, directions, np.zeros((q, q)),
        np.zeros(n_states), response, information, np.empty(n_rows, np.int64), np.empty((n_states, q)),
        np.empty(n_states),
    )  # fmt: skip
    white = _whitened(part, gains, part.p.C @ response)
    gram, cross = white.swapaxes(1, 2) @ white, np.zeros((n_rows, q))
    return Forward(found, gains, Constants(response, gram, cross, start.stand_in, start.states))


def forward(start: Start, part: Part) -> Forward:
    """Run the filter over some sequences."""
    run = covariances(start, part)
    filter_means(part, run.gains, run.filtered)
    if run.constants is None:
        return run
    p, mean = part.p, run.filtered.predicted_mean[:, :, None]
    white = _whitened(part, run.gains, p.C @ run.constants.response)
    innovation = _whitened(part, run.gains, (part.y - p.d)[:, :, None] - p.C @ mean)
    cross = (white.swapaxes(1, 2) @ innovation)[:, :, 0]
    return run._replace(constants=run.constants._replace(cross=cross))


def _whitened(part: Part, gains: Gains, values: Floats) -> Floats:
    """Values (N, D, k) of the entries that are seen, in units of the innovations and without their correlation."""
    seen = np.where(np.isnan(part.y)[:, :, None], 0.0, values)
    return np.asarray(np.tril(gains.whiten[gains.slot]) @ seen)


class Heads(NamedTuple):
    """The first rows of every sequence: those in which its states still respond to unknown constants."""

    batch: Batch
    rows: Ints  # (M,), their numbers in the whole batch
    run: Forward
    lasting: Bools  # (S,), which sequences go on and still respond, the constants being determined


def heads(
    start: Start,
    batch: Batch,
    run: Callable[[Start, Part], Forward] | None = None,
    *,
    until_determined: bool = False,
) -> Heads:
    """Run the filter over the first rows of every sequence, until what is unknown of its start has no effect.

    It is `forward`, unless ``run`` is given. How many rows depends on these rows alone, so that answers about a time do
    not depend on what comes later. With ``until_determined`` rows that determine the constants well are enough, though
    their effect lasts.
    """
    longest, lengths = batch.lengths, np.full(len(batch.starts) - 1, HEAD)
    while True:
        lengths = np.minimum(lengths, longest)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.arange(starts[-1]) + np.repeat(batch.starts[:-1] - starts[:-1], lengths)
        head = taken(batch, rows, starts)
        with numbered(rows):
            (found,) = each(start.params, head, partial(run or forward, start), whole=True)
        assert found.constants is not None
        size, least = np.abs(found.constants.response).max(2), _information(found.constants, starts, ~start.fixed)
        forgotten = (size[starts[1:] - 1] <= GONE * np.maximum.reduceat(size, starts[:-1])).all(1)
        lasting = ~(forgotten & (least > DETERMINED)) & (lengths < longest)
        left = lasting & (lengths >= MANY) & (least > TOLD) if until_determined else np.zeros(len(lasting), bool)
        if not (lasting & ~left).any():
            return Heads(head, rows, found, left)
        lengths = np.where(lasting & ~left, FARTHER * lengths, lengths)


def _information(known: Constants, starts: Ints, own: Bools) -> Floats:
    """Least information (S,) that sequences have on those constants that are their ``own``."""
    gram = np.add.reduceat(known.gram, starts[:-1])[:, own][:, :, own]
    return np.asarray(np.linalg.eigvalsh(gram).min(1, initial=np.inf))


class Solved(NamedTuple):
    """Estimates of the unknown constants, in units of their stand-ins."""

    value: Floats  # (S, q)
    root: Floats  # (kinds, q, q), its outer product with itself is their covariance
    log_likelihood: Floats  # (S,), nats to add
    fixed_cov: Floats  # covariance of the estimates of those that are fixed


def solve(known: Constants, first: Bools, start: Start, *, likelihood: str, offset: int = 0) -> Solved:
    """Regress the innovations on the responses, see `regressed`.

    ``first`` (N,) marks the first rows; ``offset`` is the number of the first row in all data, for messages.
    """
    begins = np.flatnonzero(first)
    gram, cross = np.add.reduceat(known.gram, begins), np.add.reduceat(known.cross, begins)
    return regressed(gram, cross, None, start, offset + begins, likelihood=likelihood)


def regressed(gram: Floats, cross: Floats, kind: Ints | None, start: Start, begins: Ints, *, likelihood: str) -> Solved:
    """Estimate unknown constants: the diffuse ones sequence by sequence, fixed ones over all of them.

    ``gram`` (kinds, q, q) is the information in the sequences of a kind (None: each is its own), ``cross`` (S, q) what
    their rows say, and ``begins`` (S,) are first rows, for messages. The fixed ones are regressed
    on what the diffuse ones leave.
    """
    n, q = cross.shape
    kind = np.arange(n) if kind is None else kind
    own, theirs = np.flatnonzero(~start.fixed), np.flatnonzero(start.fixed)
    value, root = np.zeros((n, q)), np.zeros((len(gram), q, q))
    fixed_cov = np.zeros((len(theirs), len(theirs)))
    first = np.full(len(gram), begins.max(initial=0))
    np.minimum.at(first, kind, begins)
    factor = _factor(gram[:, own[:, None], own], np.ones((len(gram), len(own))), first, start.states[own])
    inverse = np.linalg.inv(factor)
    half = np.einsum("sij,sj->si", inverse[kind], cross[:, own])
    size = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1) - 0.5 * np.log(start.stand_in[own]).sum()
    size -= 0.0 if likelihood == "full" else 0.5 * len(own) * LOG_2PI
    gain = 0.5 * (half**2).sum(1) - size[kind]
    if len(theirs):
        shared = inverse @ gram[:, own[:, None], theirs]
        left = gram[:, theirs[:, None], theirs] - shared.swapaxes(1, 2) @ shared
        rest = cross[:, theirs] - np.einsum("sij,si->sj", shared[kind], half)
        many = np.bincount(kind, minlength=len(gram))
        total = np.einsum("k,kij->ij", many, left)
        units = np.sqrt(np.einsum("k,kii->i", many, gram[:, theirs[:, None], theirs]))  # one told precisely hides none
        root_of = _factor(total[None], units[None], begins[:1], start.states[theirs])[0]
        estimate = np.linalg.solve(root_of.T, np.linalg.solve(root_of, rest.sum(0)))
        value[:, theirs], fixed_cov = estimate, np.linalg.inv(total)
        gain += rest @ estimate - 0.5 * np.einsum("i,sij,j->s", estimate, left, estimate)[kind]
        half = half - (shared @ estimate)[kind]
    value[:, own] = np.einsum("sji,sj->si", inverse[kind], half)
    root[:, own[:, None], own] = inverse.swapaxes(1, 2)
    return Solved(value, root, gain, fixed_cov)


def _factor(gram: Floats, units: Floats, begins: Ints, states: Ints) -> Floats:
    """Cholesky factors (S, q, q) of the information on unknown constants, refused where it does not tell them."""
    units = np.where(units > 0.0, units, 1.0)
    if gram.shape[1]:
        scaled = gram / (units[:, :, None] * units[:, None, :])
        eigenvalues = np.linalg.eigvalsh(scaled)
        if not (eigenvalues[:, 0] > DETERMINED).all():
            worst = int(np.argmin(eigenvalues[:, 0]))
            values, vectors = np.linalg.eigh(scaled[worst])
            lost = np.abs(vectors[:, values <= DETERMINED]).max(1, initial=0.0) > TURNED
            raise UndeterminedStartError(int(begins[worst]), states[lost].tolist())
    return np.asarray(np.linalg.cholesky(gram))
