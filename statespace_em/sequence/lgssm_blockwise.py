"""E-step over one long linear-Gaussian series, block by block: its filter is not kept in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from statespace_em import _threads
from statespace_em._typing import Floats
from statespace_em.kernels.steady import ROWS
from statespace_em.sequence import lgssm_plan
from statespace_em.sequence import lgssm_sweeps as sweeps
from statespace_em.sequence.lgssm_accumulators import Accumulators, enter, entry_of, predicted_after, roots_of, sum_of
from statespace_em.sequence.lgssm_diffuse import regressed
from statespace_em.sequence.lgssm_plan import Piece, Section, blocks_of, headed
from statespace_em.sequence.lgssm_sweeps import Covs, Entry, Pass, Raw


class FilterRun(NamedTuple):
    """What a pass forward says on unknown constants, and where a long series can be entered."""

    gram: Floats  # (kinds, q, q)
    cross: list[Floats]  # (S, q), by piece
    entries: list[Entry]
    log_likelihood: float


def filter_blockwise(work: Pass, section: Section, start: Entry | None = None) -> FilterRun:
    """Run the filter over a long series, and keep what it enters each block with."""
    entry, entries, total = start or entry_of(work), [], 0.0
    cross, covs = np.zeros((1, entry.response.shape[1])), None
    for rows, piece in blocks_of(section):
        entries.append(entry)
        covs = enter(work, section, rows, entry, covs)
        store, log_likelihood, mean = sweeps.forward_means(work, covs, piece, entry.mean)
        cross += sweeps.cross_sums(work, covs, piece, store)
        total += float(log_likelihood.sum())
        cov = predicted_after(work, covs, rows.stop - 1)
        settled = section.complete and len(covs.slot) > 1 and covs.slot[-1] == covs.slot[-2]
        settled = settled and work.p.settle(rows.stop - 1, rows.stop + lgssm_plan.BLOCK)
        reach = int(covs.reach[0]) if covs.end.size else 0
        known = np.array(covs.gram[reach - 1]) if reach else entry.known
        entry = Entry(mean, cov, covs.end, known, covs.largest, bool(settled))
    return FilterRun(entry.known[None], [cross], entries, total)


def sums_blockwise(
    work: Pass, section: Section, value: Floats | None, into: Accumulators | None
) -> tuple[Accumulators, float]:
    """Sums of one long series: the filter once to the end, then again block by block before the pass back."""
    run = filter_blockwise(work, section)
    total, roots = run.log_likelihood, np.zeros((1, 0, 0))
    if len(work.start.states):
        if value is None:
            solved = regressed(
                run.gram, run.cross[0], None, work.start, section.pieces[0].begin, likelihood=work.likelihood
            )
            value, total = solved.value, total + float(solved.log_likelihood.sum())
        roots = roots_of(work, run.gram)
    raws = [into.raw if into else sweeps.blank(work) for _ in range(1 + roots.shape[2])]
    by_covs = into.covs if into else sweeps.blank_covariances(work)
    _backward_blockwise(work, section, run, value, roots, raws, by_covs, starts=True)
    return into or Accumulators(sum_of(raws), by_covs), total


def sums_of_rest(
    work: Pass, section: Section, entry: Entry, raw: Raw, by_covs: tuple[Floats, ...]
) -> tuple[float, Floats, Floats]:
    """Add the sums of the rest of a series, without unknown constants; log-likelihood, what it says on its first state.

    That is a vector r (n,) and its variance (n, n), see `kernels.adjoint`.
    """
    run = filter_blockwise(work, section, entry)
    info, (future,) = _backward_blockwise(work, section, run, None, np.zeros((1, 0, 0)), [raw], by_covs, starts=False)
    return run.log_likelihood, future, info


def _backward_blockwise(
    work: Pass, section: Section, run: FilterRun, value: Floats | None, roots: Floats, raws: list[Raw],
    by_covs: tuple[Floats, ...], *, starts: bool,
) -> tuple[Floats, list[Floats]]:  # fmt: skip
    """Pass back block by block; what the rows say on their first state, and on its response to the constants."""
    info, futures = np.zeros(work.cov.shape), [np.zeros(len(work.mean)) for _ in raws]
    blocks = blocks_of(section)
    last, room = len(blocks) - 1, None
    for i in range(last, -1, -1):
        (rows, piece), entry = blocks[i], run.entries[i]
        covs = room = enter(work, section, rows, entry, room)
        ends = {"starts": starts and i == 0, "goes_on": i < last}
        tasks: list[Callable[[], None]] = [
            partial(_real_block, work, covs, piece, entry, value, futures[0], raws[0], ends),
            *(
                partial(_unknown_block, work, covs, piece, np.ascontiguousarray(roots[:, :, e]), futures[1 + e],
                        raws[1 + e], ends)
                for e in range(roots.shape[2])
            ),
        ]  # fmt: skip

        def covariances(covs: Covs = covs, rows: slice = rows, i: int = i) -> None:
            after = 0.0 if i == last else 1.0
            count = np.ones(len(covs.slot))
            sweeps.backward_covariances(work, covs, rows, count, after, info, by_covs, starts=starts and i == 0)

        _threads.run([*tasks, covariances])
    return info, futures


def _real_block(
    work: Pass, covs: Covs, piece: Piece, entry: Entry, value: Floats | None, end: Floats, raw: Raw,
    ends: dict[str, bool],
) -> None:  # fmt: skip
    store = sweeps.forward_means(work, covs, piece, entry.mean)[0]
    if value is not None:
        sweeps.shifted(work, covs, piece, value, store)
    sweeps.backward_means(work, covs, piece, store, 1.0, end, raw, **ends)


def _unknown_block(
    work: Pass, covs: Covs, piece: Piece, root: Floats, end: Floats, raw: Raw, ends: dict[str, bool]
) -> None:
    if not covs.reach[0]:
        return  # nothing is left of the start, and nothing comes from behind
    head = headed(piece, sweeps.responding(covs, piece))
    store = np.zeros((head.n_tiles, len(work.mean) + work.y.shape[1], ROWS))
    sweeps.shifted(work, covs, head, root, store)
    sweeps.backward_means(work, covs, head, store, 0.0, end, raw, **ends)
