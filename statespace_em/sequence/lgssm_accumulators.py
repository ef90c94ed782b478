"""Where sums of an E-step are added, and what comes into its passes over a linear-Gaussian model."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from statespace_em._typing import Floats
from statespace_em.sequence import lgssm_sweeps as sweeps
from statespace_em.sequence.lgssm_diffuse import Solved, Start, regressed
from statespace_em.sequence.lgssm_plan import Piece, Section
from statespace_em.sequence.lgssm_sweeps import Covs, Entry, Pass, Raw


class Accumulators(NamedTuple):
    """Where sums are added: those of means, and those of covariances."""

    raw: Raw
    covs: tuple[Floats, ...]

    @classmethod
    def blank(cls, work: Pass) -> Self:
        """Nothing yet."""
        return cls(sweeps.blank(work), sweeps.blank_covariances(work))


def added(parts: list[Accumulators]) -> Accumulators:
    """Sums of several accumulators."""
    if len(parts) == 1:
        return parts[0]
    return Accumulators(sum_of([part.raw for part in parts]), folded([part.covs for part in parts]))


def sum_of(raws: list[Raw]) -> Raw:
    """Sums of several passes over means."""
    return raws[0] if len(raws) == 1 else Raw(*(np.sum(each, axis=0) for each in zip(*raws)))


def folded(parts: list[tuple[Floats, ...]]) -> tuple[Floats, ...]:
    """Sums of several passes over covariances."""
    return tuple(np.sum(each, axis=0) for each in zip(*parts))


def entry_of(work: Pass) -> Entry:
    """What comes into a first row."""
    q = work.directions.shape[1]
    return Entry(work.mean, work.cov, work.directions, np.zeros((q, q)), np.zeros(len(work.mean)))


def enter(work: Pass, section: Section, rows: slice, entry: Entry, room: Covs | None) -> Covs:
    """Filter the covariances of consecutive rows of one sequence; see `lgssm_sweeps.filter_covariances`."""
    return sweeps.filter_covariances(work, section, rows, np.arange(rows.stop - rows.start) == 0, entry, room)


def predicted_after(work: Pass, covs: Covs, row: int) -> Floats:
    """Covariance of the state after the last row; where the recursion has settled it stays as it is."""
    last = covs.slot[-1]
    if len(covs.slot) > 1 and covs.slot[-2] == last:
        return np.array(covs.predicted[last])
    A, Q = (value[row if len(value) > 1 else 0] for value in (work.p.A, work.p.Q))
    cov = A @ covs.filtered[last] @ A.T + Q
    return np.asarray((cov + cov.T) / 2.0)


def gram_of_kinds(covs: Covs, section: Section) -> Floats:
    """Information (kinds, q, q) on the unknown constants in the sequences of each kind."""
    found = np.empty((len(section.n_kinds), *covs.gram.shape[1:]))
    for piece in section.kinds:
        found[piece.kind] = covs.gram[piece.offset + sweeps.responding(covs, piece) - 1]
    return found


def estimated_constants(work: Pass, covs: Covs, section: Section, piece: Piece, store: Floats) -> Solved:
    """Estimates of the unknown constants of the sequences of a piece, each by its own rows."""
    kinds, kind = np.unique(piece.kind, return_inverse=True)
    return regressed(
        gram_of_kinds(covs, section)[kinds], sweeps.cross_sums(work, covs, piece, store), kind, work.start,
        piece.begin, likelihood=work.likelihood,
    )  # fmt: skip


def roots_of(work: Pass, gram: Floats) -> Floats:
    """Roots (kinds, q, own) of the covariances of diffuse constants."""
    begins = np.zeros(len(gram), np.int64)
    nothing = np.zeros(gram.shape[:2])
    own = np.flatnonzero(~work.start.fixed)
    start = work.start
    diffuse = Start(start.params, start.states[own], start.stand_in[own], start.fixed[own])
    block = gram[:, own[:, None], own]
    root = np.zeros((*gram.shape[:2], len(own)))
    found = regressed(block, nothing[:, own], None, diffuse, begins, likelihood=work.likelihood)
    root[:, own] = found.root
    return root
