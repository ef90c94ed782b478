"""E-step over one series whose diffuse constants have an effect on all of its rows: the collapsed filter.

Seasonal patterns and slopes that hardly change, say. To carry q of them along takes q passes over all rows. Where the
first rows, the head, determine them, they collapse into the state (de Jong & Chu-Chun-Lin 1994): what is predicted of
the state after the head, with the constants estimated, is an ordinary first state of the rows that follow. Going back,
these rows say r on it, with variance I (see `kernels.adjoint`). With W the response of the state to the constants and
G the information of the head on them,

    E[constants | y] = their estimate + inv(G) W' r,    Cov(constants | y) = inv(G) - inv(G) W' I W inv(G)

and given the constants, of which the state is then no longer unsure, the rows that follow say r, with variance
I + I W inv(G - W' I W) W' I: a matrix inversion lemma away from de Jong (1991).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from statespace_em import _threads
from statespace_em._typing import Floats
from statespace_em.sequence import lgssm_sweeps as sweeps
from statespace_em.sequence.lgssm_accumulators import Accumulators, enter, entry_of, predicted_after, sum_of
from statespace_em.sequence.lgssm_blockwise import sums_of_rest
from statespace_em.sequence.lgssm_cuts import Cut, back, cuts_of, entering_mean
from statespace_em.sequence.lgssm_diffuse import TOLD, regressed
from statespace_em.sequence.lgssm_directions import add_directions
from statespace_em.sequence.lgssm_plan import BLOCK, Piece, Section, single
from statespace_em.sequence.lgssm_sweeps import Covs, Entry, Pass, Raw

FEW = 4  # constants below which carrying them along is no loss
SHORTEST = 32  # rows of a head
ROWS_EACH = 2  # of it for each constant
SHARE = 256  # of all rows that it is: what it does not tell costs digits
LEAST = 1e-14  # share of the variance of a constant, given the head, that the rows after it leave


class Head(NamedTuple):
    """First rows, and what they tell of the constants."""

    rows: slice
    covs: Covs
    piece: Piece
    store: Floats
    value: Floats  # (1, q), estimates of the constants
    root: Floats  # (q, q), its outer product with itself is their covariance
    moved: Floats  # (n, q), by the columns of the root the state after the head
    log_likelihood: float


def collapsed_sums(work: Pass, section: Section, into: Accumulators | None) -> tuple[Accumulators, float] | None:
    """Sums of a section that is one such series, added to ``into`` if there is one; None if it is not."""
    start = collapsed_start(work, section)
    if start is None:
        return None
    head, entry, rest = start
    by_covs = into.covs if into else sweeps.blank_covariances(work)
    raw, total, info, future = _rest(work, section, rest, entry, by_covs, into)
    _head_sums(work, head, info, future, raw, by_covs)
    return into or Accumulators(raw, by_covs), head.log_likelihood + total


def collapsed_start(work: Pass, section: Section) -> tuple[Head, Entry, slice] | None:
    """First rows of a section that is one such series, what comes into the rest, and its rows; None if it is not."""
    q, alone = len(work.start.states), len(section.pieces) == 1 and len(section.pieces[0].begin) == 1
    if q < FEW or not alone or work.start.fixed.any():
        return None
    assert isinstance(section.rows, slice)
    begin, end = section.rows.start, section.rows.stop
    n_head = min(max(SHORTEST, ROWS_EACH * q, (end - begin) // SHARE), BLOCK)
    if 2 * n_head > end - begin:
        return None
    head = _head(work, section, slice(begin, begin + n_head))
    if head is None:
        return None
    cov = predicted_after(work, head.covs, head.rows.stop - 1) + head.moved @ head.moved.T
    n = len(work.mean)
    mean = sweeps.forward_means(work, head.covs, head.piece, work.mean)[2] + head.covs.end @ head.value[0]
    entry = Entry(mean, (cov + cov.T) / 2.0, np.zeros((n, 0)), np.zeros((0, 0)), np.zeros(n))
    return head, entry, slice(head.rows.stop, end)


def _head(work: Pass, section: Section, rows: slice) -> Head | None:
    """Filter over the first rows; None where they forget the constants, or do not tell them."""
    covs = enter(work, section._replace(long=True), rows, entry_of(work), None)  # rows of which go by number
    n_rows = rows.stop - rows.start
    gram = covs.gram[n_rows - 1]
    if covs.reach[0] < n_rows or not np.linalg.eigvalsh(gram)[0] > TOLD:
        return None
    piece = single(rows.start, n_rows, 0)
    store, log_likelihood, _ = sweeps.forward_means(work, covs, piece, work.mean)
    solved = regressed(
        gram[None],
        sweeps.cross_sums(work, covs, piece, store),
        None,
        work.start,
        piece.begin,
        likelihood=work.likelihood,
    )
    total = float(log_likelihood.sum() + solved.log_likelihood.sum())
    root = solved.root[0]
    return Head(rows, covs, piece, store, solved.value, root, covs.end @ root, total)


def _rest(
    work: Pass,
    section: Section,
    rows: slice,
    entry: Entry,
    by_covs: tuple[Floats, ...],
    into: Accumulators | None,
) -> tuple[Raw, float, Floats, Floats]:
    """Sums of means and the log-likelihood of the rows after the head; what they say on their first state."""
    if section.long:
        raw = into.raw if into else sweeps.blank(work)
        total, future, info = sums_of_rest(work, section._replace(rows=rows), entry, raw, by_covs)
        return raw, total, info, future
    section = section._replace(long=True)
    covs = enter(work, section, rows, entry, None)
    n_rows = rows.stop - rows.start
    whole, info = single(rows.start, n_rows, 0), np.zeros(work.cov.shape)

    def covariances() -> None:
        sweeps.backward_covariances(work, covs, rows, np.ones(n_rows), 0.0, info, by_covs, starts=False)

    def means(cut: Cut) -> tuple[Raw, float, Floats]:
        store, log_likelihood, mean = sweeps.forward_means(
            work, covs, cut.piece, entering_mean(work, covs, cut, entry.mean)
        )
        raw = into.raw if into else sweeps.blank(work)
        return raw, float(log_likelihood.sum()), back(work, covs, cut, store, mean, raw, starts=False)

    cuts = [Cut(whole)] if into else cuts_of(work, covs, section, whole)
    tasks: list[Callable[[], Any]] = [*(partial(means, cut) for cut in cuts), covariances]
    *found, _ = _threads.run(tasks)
    raws, gains, futures = zip(*found)
    return into.raw if into else sum_of(list(raws)), sum(gains), info, futures[0]


def _head_sums(work: Pass, head: Head, info: Floats, future: Floats, raw: Raw, by_covs: tuple[Floats, ...]) -> None:
    """Add the sums of the head, given what the rows after it say on the state they begin with."""
    slope = info @ head.moved
    left, vectors = np.linalg.eigh(np.eye(len(head.root)) - head.moved.T @ slope)
    deviation = np.sqrt(np.maximum(left, LEAST))
    futures = slope @ vectors / deviation
    value = head.value + (head.root @ (head.moved.T @ future))[None]
    info = info + futures @ futures.T
    count = np.ones(len(head.covs.slot))
    sweeps.shifted(work, head.covs, head.piece, value, head.store)
    sweeps.backward_covariances(work, head.covs, head.rows, count, 1.0, info, by_covs)
    sweeps.backward_means(work, head.covs, head.piece, head.store, 1.0, future, raw, goes_on=True)
    add_directions(work, head.covs, head.rows, head.root @ vectors * deviation, -futures, raw)
