"""Log-likelihood of a linear-Gaussian model: the way forward of an E-step, without the way back."""

from __future__ import annotations

from functools import partial

import numpy as np

from statespace_em import _threads
from statespace_em.sequence import lgssm_sweeps as sweeps
from statespace_em.sequence.lgssm_accumulators import enter, entry_of, estimated_constants
from statespace_em.sequence.lgssm_blockwise import filter_blockwise
from statespace_em.sequence.lgssm_collapse import collapsed_start
from statespace_em.sequence.lgssm_cuts import Cut, cuts_of, entering_mean
from statespace_em.sequence.lgssm_diffuse import regressed
from statespace_em.sequence.lgssm_passes import FEW
from statespace_em.sequence.lgssm_plan import Section, single
from statespace_em.sequence.lgssm_sums import estimated
from statespace_em.sequence.lgssm_sweeps import Covs, Entry, Pass


def likelihood_of(work: Pass, sections: tuple[Section, ...]) -> float:
    """Log-likelihood of all sequences, in nats; always added in the same order."""
    with _threads.limited(1 if len(work.y) < FEW else None):
        known = bool(work.start.fixed.any())
        gain = estimated(work, sections)[2] if known else 0.0
        return gain + sum(_threads.run([partial(_section, work, section, known) for section in sections]))


def _section(work: Pass, section: Section, known: bool) -> float:
    """Log-likelihood of one section, without what the unknown constants add if that is ``known``."""
    start = collapsed_start(work, section)
    if start is not None:
        head, entry, rest = start
        return head.log_likelihood + _rest(work, section, rest, entry)
    open_start = len(work.start.states) > 0 and not known
    if section.long:
        look = filter_blockwise(work, section)
        if not open_start:
            return look.log_likelihood
        solved = regressed(
            look.gram, look.cross[0], None, work.start, section.pieces[0].begin, likelihood=work.likelihood
        )
        return look.log_likelihood + float(solved.log_likelihood.sum())
    covs = sweeps.filter_covariances(work, section, section.rows, section.begins, entry_of(work))
    tasks = [
        partial(_cut, work, covs, section, cut, open_start)
        for piece in section.pieces
        for cut in cuts_of(work, covs, section, piece)
    ]
    return sum(_threads.run(tasks))


def _rest(work: Pass, section: Section, rows: slice, entry: Entry) -> float:
    """Log-likelihood of the rows of a series after its head."""
    if section.long:
        return filter_blockwise(work, section._replace(rows=rows), entry).log_likelihood
    section = section._replace(long=True)  # rows of which go by number
    covs = enter(work, section, rows, entry, None)
    whole = single(rows.start, rows.stop - rows.start, 0)
    tasks = [partial(_cut, work, covs, section, cut, False, entry) for cut in cuts_of(work, covs, section, whole)]
    return sum(_threads.run(tasks))


def _cut(work: Pass, covs: Covs, section: Section, cut: Cut, open_start: bool, entry: Entry | None = None) -> float:
    mean = entering_mean(work, covs, cut, work.mean if entry is None else entry.mean)
    store, log_likelihood, _ = sweeps.forward_means(work, covs, cut.piece, mean)
    total = float(np.sum(log_likelihood))
    if open_start and cut.before is None:
        total += float(estimated_constants(work, covs, section, cut.piece, store).log_likelihood.sum())
    return total
