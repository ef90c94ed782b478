"""Pieces of a long series whose means are worked out side by side in an E-step; see `lgssm_pieces`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.sequence import lgssm_pieces
from statespace_em.sequence import lgssm_sweeps as sweeps
from statespace_em.sequence.lgssm_pieces import rows_remembered
from statespace_em.sequence.lgssm_plan import Piece, Section, single
from statespace_em.sequence.lgssm_sweeps import Covs, Pass, Raw


class Cut(NamedTuple):
    """Sequences, or a piece of a long one with what is passed over before and after it for nothing but to come in."""

    piece: Piece
    before: Piece | None = None
    after: Piece | None = None


def cuts_of(work: Pass, covs: Covs, section: Section, whole: Piece) -> list[Cut]:
    """Cut a long series that has settled into pieces of their own, see `lgssm_pieces`."""
    (begin, *others), length, offset = whole.begin, int(whole.length[0]), int(whole.offset[0])
    if others or not section.complete or len(work.p.alike) != 1 or length <= lgssm_pieces.PIECE:
        return [Cut(whole)]

    def memory(row: int) -> int:
        slot, A = covs.slot[offset + row], work.p.A[0]
        return rows_remembered(A - A @ covs.gain[slot].T @ work.p.C[0], covs.predicted[slot])

    def rows(first: int, last: int) -> Piece:
        return single(begin + first, last - first, offset + first)

    first = np.zeros(length, bool)
    found = lgssm_pieces.pieces(covs.slot[offset : offset + length], first, memory, forward=True)
    if len(covs.reach) and covs.reach[offset] > found[0].end:
        return [Cut(whole)]
    ahead = [*(piece.lead for piece in found[1:]), 0]
    return [
        Cut(
            rows(piece.begin, piece.end), rows(piece.begin - piece.lead, piece.begin) if piece.lead else None,
            rows(piece.end, min(piece.end + lead, length)) if lead else None,
        )
        for piece, lead in zip(found, ahead)
    ]  # fmt: skip


def entering_mean(work: Pass, covs: Covs, cut: Cut, start: Floats) -> Floats:
    """Mean predicted of the first row, which is ``start`` (n,) unless something is passed over before."""
    return start if cut.before is None else sweeps.forward_means(work, covs, cut.before, 0.0 * start)[2]


def back(work: Pass, covs: Covs, cut: Cut, store: Floats, mean: Floats, raw: Raw, *, starts: bool) -> Floats:
    """Add to ``raw``, given the mean predicted after the piece; what its rows say on their first state (n,)."""
    end = np.zeros(len(mean))
    if cut.after is not None:
        later = sweeps.forward_means(work, covs, cut.after, mean)[0]
        sweeps.backward_means(work, covs, cut.after, later, 1.0, end, sweeps.blank(work), starts=False)
    sweeps.backward_means(work, covs, cut.piece, store, 1.0, end, raw, starts=starts, goes_on=cut.after is not None)
    return end
