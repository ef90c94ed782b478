"""What the E-step of a linear-Gaussian model adds up, section by section and always in the same order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from statespace_em import _threads
from statespace_em._typing import Floats, Ints
from statespace_em.kernels.steady import ROWS
from statespace_em.sequence import lgssm_sweeps as sweeps
from statespace_em.sequence.lgssm_accumulators import (
    Accumulators,
    added,
    entry_of,
    estimated_constants,
    gram_of_kinds,
    roots_of,
    sum_of,
)
from statespace_em.sequence.lgssm_blockwise import FilterRun, filter_blockwise, sums_blockwise
from statespace_em.sequence.lgssm_collapse import collapsed_sums
from statespace_em.sequence.lgssm_cuts import Cut, back, cuts_of, entering_mean
from statespace_em.sequence.lgssm_diffuse import regressed
from statespace_em.sequence.lgssm_passes import FEW
from statespace_em.sequence.lgssm_plan import Piece, Section, headed
from statespace_em.sequence.lgssm_sweeps import Covs, Pass, Raw


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


class Sums(NamedTuple):
    """Gradients and moments of all sequences; see `lgssm_expectation.Statistics` where moments are not wanted."""

    gradients: Gradients
    S_zz: Floats  # (kinds of steps, m, m), over pairs
    S_uu: Floats  # (kinds of rows, blocks, m, m), over the rows with an entry of a block
    counts: Floats  # (kinds of rows, blocks), these rows
    mean: Floats  # (n,), of the first state
    log_likelihood: float  # nats


def sums_of(work: Pass, sections: tuple[Section, ...]) -> Sums:
    """Log-likelihood, gradients and moments of all sequences; always added in the same order.

    Sums by kind of row may take more memory than the rows: there is one set of accumulators then, and one thread.
    """
    into = Accumulators.blank(work) if work.n_kinds > 1 or work.n_steps else None
    with _threads.limited(1 if len(work.y) < FEW or into else None):
        mean, gain = work.mean, 0.0
        values: list[list[Floats | None]] = [[None] * len(section.pieces) for section in sections]
        if work.start.fixed.any():
            values, mean, gain = estimated(work, sections)
        tasks = [partial(_section, work, section, value, into) for section, value in zip(sections, values)]
        found = _threads.run(tasks)
    whole = into or added([own for own, _ in found])
    return _sums(work, whole, mean, gain + sum(value for _, value in found))


def estimated(work: Pass, sections: tuple[Section, ...]) -> tuple[list[list[Floats | None]], Floats, float]:
    """Regress on constants that belong to all sequences: values by section and piece, the first mean, nats to add."""
    seen = _threads.run([partial(_look, work, section) for section in sections])
    gram, cross = np.concatenate([look.gram for look in seen]), [part for look in seen for part in look.cross]
    pieces = [piece for section in sections for piece in section.pieces]
    offsets = np.cumsum([0, *(len(look.gram) for look in seen)])
    kind = [piece.kind + offset for section, offset in zip(sections, offsets) for piece in section.pieces]
    solved = regressed(
        gram, np.concatenate(cross), np.concatenate(kind), work.start,
        np.concatenate([piece.begin for piece in pieces]), likelihood=work.likelihood,
    )  # fmt: skip
    mean, chosen = work.mean.copy(), work.start.fixed
    mean[work.start.states[chosen]] += (np.sqrt(work.start.stand_in) * solved.value[0])[chosen]
    parts = iter(np.split(solved.value, np.cumsum([len(piece.begin) for piece in pieces])[:-1]))
    return [[next(parts) for _ in section.pieces] for section in sections], mean, float(solved.log_likelihood.sum())


def _look(work: Pass, section: Section) -> FilterRun:
    if section.long:
        return filter_blockwise(work, section)
    covs, cross = sweeps.filter_covariances(work, section, section.rows, section.begins, entry_of(work)), []
    for piece in section.pieces:
        head = headed(piece, sweeps.responding(covs, piece))
        store = sweeps.forward_means(work, covs, head, work.mean)[0]
        cross.append(sweeps.cross_sums(work, covs, head, store))
    return FilterRun(gram_of_kinds(covs, section), cross, [], 0.0)


def _section(
    work: Pass, section: Section, values: list[Floats | None], into: Accumulators | None
) -> tuple[Accumulators, float]:
    """Sums of one section, added to ``into`` if there is one, and the log-likelihood."""
    if (done := collapsed_sums(work, section, into)) is not None:
        return done
    if section.long:
        return sums_blockwise(work, section, values[0], into)
    covs = sweeps.filter_covariances(work, section, section.rows, section.begins, entry_of(work))
    by_covs = into.covs if into else sweeps.blank_covariances(work)
    raw = into.raw if into else None

    def covariances() -> tuple[Raw | None, float]:
        info = np.zeros(work.cov.shape)
        sweeps.backward_covariances(work, covs, section.rows, section.times, 0.0, info, by_covs)
        return None, 0.0

    tasks: list[Callable[[], tuple[Raw | None, float]]] = [covariances]
    for whole, value in zip(section.pieces, values):
        for cut in cuts_of(work, covs, section, whole) if raw is None else [Cut(whole)]:
            tasks.append(partial(_piece_sums, work, covs, section, cut, value, raw))
    if len(work.start.states):
        root = roots_of(work, gram_of_kinds(covs, section)) * np.sqrt(section.n_kinds)[:, None, None]
        for e in range(root.shape[2]):
            for piece in section.kinds:
                way = np.ascontiguousarray(root[piece.kind, :, e])
                tasks.append(partial(_spread_sums, work, covs, piece, way, raw))
    found = _threads.run(tasks)
    total = sum(value for _, value in found)
    return into or Accumulators(sum_of([own for own, _ in found if own]), by_covs), total


def _piece_sums(
    work: Pass, covs: Covs, section: Section, cut: Cut, value: Floats | None, raw: Raw | None
) -> tuple[Raw, float]:
    """Sums of the means of some sequences, and their log-likelihood."""
    piece, starts = cut.piece, cut.before is None
    store, log_likelihood, mean = sweeps.forward_means(work, covs, piece, entering_mean(work, covs, cut, work.mean))
    total = float(log_likelihood.sum())
    if len(work.start.states) and starts:
        if value is None:
            solved = estimated_constants(work, covs, section, piece, store)
            value, total = solved.value, total + float(solved.log_likelihood.sum())
        sweeps.shifted(work, covs, piece, value, store)
    raw = raw or sweeps.blank(work)
    back(work, covs, cut, store, mean, raw, starts=starts)
    return raw, total


def _spread_sums(work: Pass, covs: Covs, piece: Piece, root: Floats, raw: Raw | None) -> tuple[Raw, float]:
    """Sums of what diffuse constants leave unknown, along one of their directions (S, q)."""
    head = headed(piece, sweeps.responding(covs, piece))
    store = np.zeros((head.n_tiles, len(work.mean) + work.y.shape[1], ROWS))
    sweeps.shifted(work, covs, head, root, store)
    raw = raw or sweeps.blank(work)
    sweeps.backward_means(work, covs, head, store, 0.0, None, raw)
    return raw, 0.0


def _sums(work: Pass, into: Accumulators, mean: Floats, log_likelihood: float) -> Sums:
    """Put the parts together, by kind of step and of measurement."""
    raw = into.raw
    g_A, g_Q, g_C, g_R, g_P0, S_zz, S_uu, counts, by_A, by_Q = into.covs
    n, size = len(work.mean), work.y.shape[1]
    if not work.moments:
        g_A, g_C = (np.full((work.n_kinds, height, n), np.nan) for height in (n, size))
        S_zz, S_uu = np.zeros(1), np.zeros(1)
    whole = _both(raw.total)
    r, u, z, one = slice(n), slice(n, n + size), slice(n + size, None), 2 * n + size
    s, square = slice(n + size, one), whole[:, z, z]
    steps, rows = (partial(_by_kind, kinds, number) for kinds, number in zip(work.kinds.T, work.numbers))
    gradients = Gradients(
        by_A + raw.by_A if work.n_steps else steps(g_A + whole[:, r, s]), steps(whole[:, r, one:]),
        by_Q + raw.by_Q if work.n_steps else steps(g_Q + whole[:, r, r]),
        rows(g_C + whole[:, u, s]), rows(whole[:, u, one:]), rows(g_R + whole[:, u, u]), raw.g_m0, g_P0 + raw.g_P0,
    )  # fmt: skip
    S_zz, S_uu = S_zz + (square - _both(raw.ends)), S_uu + (square[:, None] - _both(raw.unseen))
    return Sums(gradients, steps(S_zz), rows(S_uu), rows(counts), mean, log_likelihood)


def _by_kind(kinds: Ints, number: int, value: Floats) -> Floats:
    """Add what belongs to the same of so many kinds."""
    if len(kinds) == 1:
        return value
    found = np.zeros((number, *value.shape[1:]))
    np.add.at(found, kinds, value)
    return found


def _both(below: Floats) -> Floats:
    """Symmetric matrices (..., p, p) from their lower triangles, nothing being above."""
    whole = below + below.swapaxes(-1, -2)
    diagonal = np.arange(below.shape[-1])
    whole[..., diagonal, diagonal] *= 0.5
    return whole
