"""What the E-step of a linear-Gaussian model adds up, section by section and always in the same order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self

import numpy as np

from statespace_em import _threads
from statespace_em._typing import Floats, Ints
from statespace_em.kernels.steady import ROWS
from statespace_em.sequence import lgssm_pieces, lgssm_plan
from statespace_em.sequence import lgssm_sweeps as sweeps
from statespace_em.sequence.lgssm_passes import FEW
from statespace_em.sequence.lgssm_pieces import rows_remembered
from statespace_em.sequence.lgssm_plan import Piece, Section, blocks_of, headed, single
from statespace_em.sequence.lgssm_sweeps import Covs, Entry, Pass, Raw
from statespace_em.sequence.lgssm_unknown import regressed


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
    """Gradients and moments of all sequences."""

    gradients: Gradients
    S_zz: Floats  # (kinds of steps, m, m), over pairs
    S_uu: Floats  # (kinds of rows, blocks, m, m), over the rows with an entry of a block
    counts: Floats  # (kinds of rows, blocks), these rows
    mean: Floats  # (n,), of the first state
    log_likelihood: float  # nats


class Ledger(NamedTuple):
    """Where sums are added: those of means, and those of covariances."""

    raw: Raw
    covs: tuple[Floats, ...]

    @classmethod
    def blank(cls, work: Pass) -> Self:
        """Nothing yet."""
        return cls(sweeps.blank(work), sweeps.blank_covariances(work))


def sums_of(work: Pass, sections: tuple[Section, ...]) -> Sums:
    """Log-likelihood, gradients and moments of all sequences; always added in the same order.

    Sums by kind of row may take more memory than the rows: there is one ledger then, and one thread.
    """
    ledger = Ledger.blank(work) if work.n_kinds > 1 or work.n_steps else None
    with _threads.limited(1 if len(work.y) < FEW or ledger else None):
        mean, gain = work.mean, 0.0
        values: list[list[Floats | None]] = [[None] * len(section.pieces) for section in sections]
        if work.start.fixed.any():
            values, mean, gain = _estimated(work, sections)
        tasks = [partial(_section, work, section, value, ledger) for section, value in zip(sections, values)]
        found = _threads.run(tasks)
    whole = ledger or _added([own for own, _ in found])
    return _sums(work, whole, mean, gain + sum(value for _, value in found))


def _added(parts: list[Ledger]) -> Ledger:
    if len(parts) == 1:
        return parts[0]
    return Ledger(_sum_of([part.raw for part in parts]), _folded([part.covs for part in parts]))


def _sum_of(raws: list[Raw]) -> Raw:
    return raws[0] if len(raws) == 1 else Raw(*(np.sum(each, axis=0) for each in zip(*raws)))


def _estimated(work: Pass, sections: tuple[Section, ...]) -> tuple[list[list[Floats | None]], Floats, float]:
    """Regress on constants that belong to all sequences: values by section and piece, the first mean, nats to add."""
    seen = _threads.run([partial(_look, work, section) for section in sections])
    gram, cross = np.concatenate([look.gram for look in seen]), [part for look in seen for part in look.cross]
    pieces = [piece for section in sections for piece in section.pieces]
    offsets = np.cumsum([0, *(len(look.gram) for look in seen)])
    kind = [piece.kind + offset for section, offset in zip(sections, offsets) for piece in section.pieces]
    solved = regressed(
        gram, np.concatenate(cross), np.concatenate(kind), work.start.stand_in,
        np.concatenate([piece.begin for piece in pieces]), fixed=work.start.fixed, likelihood=work.likelihood,
    )  # fmt: skip
    mean, chosen = work.mean.copy(), work.start.fixed
    mean[work.start.states[chosen]] += (np.sqrt(work.start.stand_in) * solved.value[0])[chosen]
    parts = iter(np.split(solved.value, np.cumsum([len(piece.begin) for piece in pieces])[:-1]))
    return [[next(parts) for _ in section.pieces] for section in sections], mean, float(solved.log_likelihood.sum())


class Look(NamedTuple):
    """What a pass forward says on unknown constants, and where a long series can be entered."""

    gram: Floats  # (kinds, q, q)
    cross: list[Floats]  # (S, q), by piece
    entries: list[Entry]
    log_likelihood: float


def _look(work: Pass, section: Section) -> Look:
    if section.long:
        return _look_along(work, section)
    covs, cross = sweeps.filter_covariances(work, section, section.rows, section.begins, _entry(work)), []
    for piece in section.pieces:
        head = headed(piece, sweeps.responding(covs, piece))
        store = sweeps.forward_means(work, covs, head, work.mean)[0]
        cross.append(sweeps.cross_sums(work, covs, head, store))
    return Look(_gram_of_kinds(covs, section), cross, [], 0.0)


def _entry(work: Pass) -> Entry:
    q = work.directions.shape[1]
    return Entry(work.mean, work.cov, work.directions, np.zeros((q, q)), np.zeros(len(work.mean)))


def _gram_of_kinds(covs: Covs, section: Section) -> Floats:
    found = np.empty((len(section.n_kinds), *covs.gram.shape[1:]))
    for piece in section.kinds:
        found[piece.kind] = covs.gram[piece.offset + sweeps.responding(covs, piece) - 1]
    return found


def _section(work: Pass, section: Section, values: list[Floats | None], ledger: Ledger | None) -> tuple[Ledger, float]:
    """Sums of one section, added to the ledger if there is one, and the log-likelihood."""
    if section.long:
        return _along(work, section, values[0], ledger)
    covs = sweeps.filter_covariances(work, section, section.rows, section.begins, _entry(work))
    by_covs = ledger.covs if ledger else sweeps.blank_covariances(work)
    raw = ledger.raw if ledger else None

    def covariances() -> tuple[Raw | None, float]:
        info = np.zeros(work.cov.shape)
        sweeps.backward_covariances(work, covs, section.rows, section.times, 0.0, info, by_covs)
        return None, 0.0

    tasks: list[Callable[[], tuple[Raw | None, float]]] = [covariances]
    for whole, value in zip(section.pieces, values):
        for cut in _cut(work, covs, section, whole) if raw is None else [Cut(whole)]:
            tasks.append(partial(_piece_sums, work, covs, section, cut, value, raw))
    if len(work.start.states):
        root = _roots(work, _gram_of_kinds(covs, section)) * np.sqrt(section.n_kinds)[:, None, None]
        for e in range(root.shape[2]):
            for piece in section.kinds:
                along = np.ascontiguousarray(root[piece.kind, :, e])
                tasks.append(partial(_spread_sums, work, covs, piece, along, raw))
    found = _threads.run(tasks)
    total = sum(value for _, value in found)
    return ledger or Ledger(_sum_of([own for own, _ in found if own]), by_covs), total


def _roots(work: Pass, gram: Floats) -> Floats:
    """Roots (kinds, q, own) of the covariances of diffuse constants."""
    begins = np.zeros(len(gram), np.int64)
    nothing = np.zeros(gram.shape[:2])
    fixed = np.zeros(len(work.start.fixed), bool)
    own = np.flatnonzero(~work.start.fixed)
    block = gram[:, own[:, None], own]
    root = np.zeros((*gram.shape[:2], len(own)))
    found = regressed(
        block, nothing[:, own], None, work.start.stand_in[own], begins, fixed=fixed[own], likelihood=work.likelihood
    )
    root[:, own] = found.root
    return root


class Cut(NamedTuple):
    """Sequences, or a piece of a long one with what is passed over before and after it for nothing but to come in."""

    piece: Piece
    before: Piece | None = None
    after: Piece | None = None


def _cut(work: Pass, covs: Covs, section: Section, whole: Piece) -> list[Cut]:
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
    if len(work.start.states) and covs.reach[offset] > found[0].end:
        return [Cut(whole)]
    ahead = [*(piece.lead for piece in found[1:]), 0]
    return [
        Cut(
            rows(piece.begin, piece.end), rows(piece.begin - piece.lead, piece.begin) if piece.lead else None,
            rows(piece.end, min(piece.end + lead, length)) if lead else None,
        )
        for piece, lead in zip(found, ahead)
    ]  # fmt: skip


def _piece_sums(
    work: Pass, covs: Covs, section: Section, cut: Cut, value: Floats | None, raw: Raw | None
) -> tuple[Raw, float]:
    """Sums of the means of some sequences, and their log-likelihood."""
    piece, starts = cut.piece, cut.before is None
    mean = work.mean if cut.before is None else sweeps.forward_means(work, covs, cut.before, 0.0 * work.mean)[2]
    store, log_likelihood, mean = sweeps.forward_means(work, covs, piece, mean)
    total = float(log_likelihood.sum())
    if len(work.start.states) and starts:
        if value is None:
            kinds, kind = np.unique(piece.kind, return_inverse=True)
            gram = _gram_of_kinds(covs, section)[kinds]
            solved = regressed(
                gram, sweeps.cross_sums(work, covs, piece, store), kind, work.start.stand_in, piece.begin,
                fixed=work.start.fixed, likelihood=work.likelihood,
            )  # fmt: skip
            value, total = solved.value, total + float(solved.log_likelihood.sum())
        sweeps.shifted(work, covs, piece, value, store)
    raw, end = raw or sweeps.blank(work), np.zeros(len(work.mean))
    if cut.after is not None:
        later = sweeps.forward_means(work, covs, cut.after, mean)[0]
        sweeps.backward_means(work, covs, cut.after, later, 1.0, end, sweeps.blank(work), starts=False)
    sweeps.backward_means(work, covs, piece, store, 1.0, end, raw, starts=starts, goes_on=cut.after is not None)
    return raw, total


def _spread_sums(work: Pass, covs: Covs, piece: Piece, root: Floats, raw: Raw | None) -> tuple[Raw, float]:
    """Sums of what diffuse constants leave unknown, along one of their directions (S, q)."""
    head = headed(piece, sweeps.responding(covs, piece))
    store = np.zeros((head.n_tiles, len(work.mean) + work.y.shape[1], ROWS))
    sweeps.shifted(work, covs, head, root, store)
    raw = raw or sweeps.blank(work)
    sweeps.backward_means(work, covs, head, store, 0.0, None, raw)
    return raw, 0.0


def _sums(work: Pass, ledger: Ledger, mean: Floats, log_likelihood: float) -> Sums:
    """Put the parts together, by kind of step and of measurement."""
    raw = ledger.raw
    g_A, g_Q, g_C, g_R, g_P0, S_zz, S_uu, counts, by_A, by_Q = ledger.covs
    n, size = len(work.mean), work.y.shape[1]
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


# a long series, block by block


def _enter(work: Pass, section: Section, rows: slice, entry: Entry, room: Covs | None) -> Covs:
    return sweeps.filter_covariances(work, section, rows, np.arange(rows.stop - rows.start) == 0, entry, room)


def _look_along(work: Pass, section: Section) -> Look:
    """Run the filter over a long series, and keep what it enters each block with."""
    entry, entries, total = _entry(work), [], 0.0
    cross, covs = np.zeros((1, work.directions.shape[1])), None
    for rows, piece in blocks_of(section):
        entries.append(entry)
        covs = _enter(work, section, rows, entry, covs)
        store, log_likelihood, mean = sweeps.forward_means(work, covs, piece, entry.mean)
        cross += sweeps.cross_sums(work, covs, piece, store)
        total += float(log_likelihood.sum())
        cov = _predicted(work, covs, rows.stop - 1)
        settled = section.complete and len(covs.slot) > 1 and covs.slot[-1] == covs.slot[-2]
        settled = settled and work.p.settle(rows.stop - 1, rows.stop + lgssm_plan.BLOCK)
        reach = int(covs.reach[0]) if covs.end.size else 0
        known = np.array(covs.gram[reach - 1]) if reach else entry.known
        entry = Entry(mean, cov, covs.end, known, covs.largest, bool(settled))
    return Look(entry.known[None], [cross], entries, total)


def _predicted(work: Pass, covs: Covs, row: int) -> Floats:
    """Covariance of the state after the last row; where the recursion has settled it stays as it is."""
    last = covs.slot[-1]
    if len(covs.slot) > 1 and covs.slot[-2] == last:
        return np.array(covs.predicted[last])
    A, Q = (value[row if len(value) > 1 else 0] for value in (work.p.A, work.p.Q))
    cov = A @ covs.filtered[last] @ A.T + Q
    return np.asarray((cov + cov.T) / 2.0)


def _along(work: Pass, section: Section, value: Floats | None, ledger: Ledger | None) -> tuple[Ledger, float]:
    """Sums of one long series: the filter once to the end, then again block by block before the pass back."""
    look = _look_along(work, section)
    total, roots = look.log_likelihood, np.zeros((1, 0, 0))
    if len(work.start.states):
        if value is None:
            solved = regressed(
                look.gram, look.cross[0], None, work.start.stand_in, section.pieces[0].begin,
                fixed=work.start.fixed, likelihood=work.likelihood,
            )  # fmt: skip
            value, total = solved.value, total + float(solved.log_likelihood.sum())
        roots = _roots(work, look.gram)
    info, futures = np.zeros(work.cov.shape), [np.zeros(len(work.mean)) for _ in range(1 + roots.shape[2])]
    raws = [ledger.raw if ledger else sweeps.blank(work) for _ in futures]
    by_covs = ledger.covs if ledger else sweeps.blank_covariances(work)
    blocks = blocks_of(section)
    last, room = len(blocks) - 1, None
    for i in range(last, -1, -1):
        (rows, piece), entry = blocks[i], look.entries[i]
        covs = room = _enter(work, section, rows, entry, room)
        ends = {"starts": i == 0, "goes_on": i < last}
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
            sweeps.backward_covariances(work, covs, rows, count, after, info, by_covs, starts=i == 0)

        _threads.run([*tasks, covariances])
    return ledger or Ledger(_sum_of(raws), by_covs), total


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


def _folded(parts: list[tuple[Floats, ...]]) -> tuple[Floats, ...]:
    return tuple(np.sum(each, axis=0) for each in zip(*parts))
