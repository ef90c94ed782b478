"""First states that are unknown along some directions: diffuse or fixed (de Jong 1991).

The filter runs with a proper stand-in for the unknown constants, their effect on every prediction is carried along,
and a generalised least squares regression of the innovations on it gives the exact answer, whatever the stand-in.
Diffuse constants belong to their sequence and are integrated out; fixed ones belong to all sequences and are estimated.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import UndeterminedStartError
from statespace_em.kernels import diffuse
from statespace_em.sequence.lgssm_params import LGSSMParams, by_row, positions
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
DETERMINED = 1e-11  # least information on an unknown constant, in units of its stand-in
HEAD = 32  # rows of a sequence in which its response to unknown constants is looked for first
FARTHER = 4  # times as many where it has not died out
GONE = 1e-20  # share of its largest response at which a state has forgotten how it began


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


class Heads(NamedTuple):
    """The first rows of every sequence: those in which its states still respond to unknown constants."""

    batch: Batch
    rows: Ints  # (M,), their numbers in the whole batch
    run: Forward


def heads(start: Start, batch: Batch) -> Heads:
    """Run the filter over the first rows of every sequence, until what is unknown of its start has no effect.

    How many depends on these rows alone, so that answers about a time do not depend on what comes later.
    """
    longest, lengths = batch.lengths, np.full(len(batch.starts) - 1, HEAD)
    while True:
        lengths = np.minimum(lengths, longest)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.arange(starts[-1]) + np.repeat(batch.starts[:-1] - starts[:-1], lengths)
        inputs = None if batch.inputs is None else batch.inputs[rows]
        head = Batch(batch.y[rows], starts, inputs=inputs, place=positions(batch)[rows])
        (run,) = each(start.params, head, partial(forward, start), whole=True)
        assert run.constants is not None
        lasting = ~_gone(run.constants, starts, ~start.fixed) & (lengths < longest)
        if not lasting.any():
            return Heads(head, rows, run)
        lengths = np.where(lasting, FARTHER * lengths, lengths)


def _gone(known: Constants, starts: Ints, own: Bools) -> Bools:
    """Which sequences (S,) have forgotten how they began, and tell those constants that are their ``own``."""
    size = np.abs(known.response).max(2)
    forgotten = (size[starts[1:] - 1] <= GONE * np.maximum.reduceat(size, starts[:-1])).all(1)
    gram = np.add.reduceat(known.gram, starts[:-1])[:, own][:, :, own]
    return np.asarray(forgotten & (np.linalg.eigvalsh(gram) > DETERMINED).all(1))


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
