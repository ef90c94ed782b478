"""Passes of the Kalman filter and the RTS smoother over a batch: distinct covariances once, means over threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np

from statespace_em import _memory, _threads
from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import SingularInnovationError
from statespace_em.kernels import kalman
from statespace_em.sequence.lgssm_params import LGSSMParams, RowParams, by_row
from statespace_em.sequence.lgssm_pieces import Piece, pieces, rows_remembered
from statespace_em.shared import Matrices, SharedRows, pays

T = TypeVar("T")

BLOCK = 65_536  # rows of whole sequences done at a time by a thread: bounds the memory of an E-step
FEW = 20_000  # rows below which starting threads costs more than they save
FEW_STACKED = 256  # matrices that there is room for at first


class Filtered(NamedTuple):
    """What is known of the states at the time."""

    predicted_mean: Floats  # (N, n)
    predicted_cov: Matrices  # (N, n, n)
    filtered_mean: Floats  # (N, n)
    filtered_cov: Matrices  # (N, n, n)
    log_likelihood: Floats  # (N,), nats
    innovation: Floats  # (N, D), or no rows
    innovation_cov: Matrices  # (N, D, D), or no rows

    def cut(self, rows: slice) -> Filtered:
        """Moments of some rows."""
        return Filtered(*(each[rows] for each in self))


class Smoothed(NamedTuple):
    """What is known of the states in hindsight."""

    mean: Floats  # (N, n)
    cov: Matrices  # (N, n, n)
    cross_cov: Matrices  # (N, n, n), of s_t and s_{t+1}; NaN at the last row of a sequence


class Gains(NamedTuple):
    """What the means of the filter need; all but ``slot`` by slot, see `kernels.kalman_covariances`."""

    slot: Ints  # (N,)
    gain: Floats  # (N, D, n)
    whiten: Floats  # (N, D, D)
    log_norm: Floats  # (N,)


class Part(NamedTuple):
    """Some sequences of a batch, with the parameters of their rows."""

    y: Floats
    first: Bools
    rows: slice
    p: RowParams
    mean: Floats  # (n,), of the first state
    cov: Floats  # (n, n)

    def cut(self, begin: int, end: int) -> Part:
        """Take some of the rows, the first of which begins a sequence."""
        first = self.first[begin:end].copy()
        first[0] = True
        rows = slice(self.rows.start + begin, min(self.rows.start + end, self.rows.stop))
        return Part(self.y[begin:end], first, rows, self.p.cut(begin, end), self.mean, self.cov)


def kalman_filter(params: LGSSMParams, batch: Batch, *, innovations: bool = False) -> Filtered:
    """Causal moments of every row.

    Raises
    ------
    SingularInnovationError
        With the number of the first row whose innovation covariance is not positive definite.
    """
    found = blank_filtered(batch.y, len(params.initial_mean), innovations=innovations)
    parts = each(params, batch, partial(_filter_part, found))
    predicted, filtered, innovation = _given_out(parts, len(batch.y))
    return found._replace(predicted_cov=predicted, filtered_cov=filtered, innovation_cov=innovation)


def innovation_covs(params: LGSSMParams, batch: Batch) -> Floats:
    """Covariances (N, D, D) of the innovations, NaN where y is missing: what `kalman_filter` finds, without the means.

    Raises
    ------
    SingularInnovationError
        As `kalman_filter`.
    """
    found = np.empty((len(batch.y), batch.y.shape[1], batch.y.shape[1]))

    def fill(part: Part) -> None:
        alone = not part.first[1:].any()
        for begin in range(0, len(part.y), BLOCK) if alone else (0,):  # of a long series a block at a time
            block = part.cut(begin, begin + BLOCK) if alone else part
            known, gains = filter_covariances(block, blank_filtered(block.y, len(part.mean), innovations=True))
            np.take(np.asarray(known.innovation_cov), gains.slot, 0, found[block.rows], "clip")
            if block.rows.stop < part.rows.stop:
                A, Q = (value[len(block.y) - 1 if len(value) > 1 else 0] for value in (block.p.A, block.p.Q))
                cov = A @ np.asarray(known.filtered_cov)[gains.slot[-1]] @ A.T + Q
                part = part._replace(cov=(cov + cov.T) / 2.0)

    each(params, batch, fill)
    return found


def smoother(params: LGSSMParams, batch: Batch) -> tuple[Smoothed, Floats]:
    """Moments of every row given all rows, and the log-likelihood (N,) of each given those before it, in nats.

    Raises
    ------
    SingularInnovationError
        As `kalman_filter`, and for the latest row whose mean overflows.
    """
    n_rows = len(batch.y)
    mean, log_likelihood = _memory.empty((n_rows, len(params.initial_mean)), (n_rows,))
    parts = each(params, batch, partial(_smooth_part, mean, log_likelihood))
    return Smoothed(mean, *_given_out(parts, n_rows)), log_likelihood


def smoothed_means(params: LGSSMParams, batch: Batch, starts: Floats) -> Floats:
    """States (N, n, k) expected given all rows, for k means ``starts`` (n, k) of the first state.

    Raises
    ------
    SingularInnovationError
        As `smoother`.
    """
    found = np.empty((len(batch.y), *starts.shape))

    def fill(part: Part) -> None:
        known = blank_filtered(part.y, len(part.mean), innovations=False)
        known, gains = filter_covariances(part, known)
        J = _smooth_covariances(part, gains, known)[0]
        for j, begun in enumerate(np.ascontiguousarray(starts.T)):
            filter_means(part._replace(mean=begun), gains, known)
            _smooth_means(part, gains, known, J, known.filtered_mean)
            found[part.rows, :, j] = known.filtered_mean

    each(params, batch, fill)
    return found


def steps_back(params: LGSSMParams, batch: Batch) -> tuple[Floats, Floats]:
    """Regression of every state but the last of one sequence on the next one, given the rows up to it.

    Returns the coefficients (N - 1, n, n), and the covariances (N - 1, n, n) that are left, sums of squares.

    Raises
    ------
    SingularInnovationError
        As `kalman_filter`.
    """

    def steps(part: Part) -> tuple[Floats, Floats]:
        known, gains = filter_covariances(part, blank_filtered(part.y, len(part.mean), innovations=False))
        slot = gains.slot[:-1]
        J, P = _smooth_covariances(part, gains, known)[0][slot], np.asarray(known.filtered_cov)[slot]
        A, Q = (value[:-1] if len(value) > 1 else value for value in (part.p.A, part.p.Q))
        rest = np.eye(len(part.mean)) - J @ A
        return J, rest @ P @ rest.transpose(0, 2, 1) + J @ Q @ J.transpose(0, 2, 1)

    return each(params, batch, steps, whole=True)[0]


# one part


class _Stacks(NamedTuple):
    """Matrices of a part, and which of them each row has."""

    rows: slice  # of the part
    place: Ints
    used: slice  # where the stacks have matrices
    stacks: list[Any]


def _filter_part(whole: Filtered, part: Part) -> _Stacks:
    known = whole.cut(part.rows)
    known, gains = filter_covariances(part, known)
    filter_means(part, gains, known)
    used = slice(0, int(gains.slot.max()) + 1)
    return _Stacks(part.rows, gains.slot, used, [known.predicted_cov, known.filtered_cov, known.innovation_cov])


def _smooth_part(mean: Floats, log_likelihood: Floats, part: Part) -> _Stacks:
    known = blank_filtered(part.y, len(part.mean), innovations=False)
    # what the smoother makes of a filtered mean takes its place: less memory to touch for the first time
    known = known._replace(log_likelihood=log_likelihood[part.rows], filtered_mean=mean[part.rows])
    known, gains = filter_covariances(part, known)
    J, place, used, stacks = _smooth_covariances(part, gains, known)
    filter_means(part, gains, known)
    _smooth_means(part, gains, known, J, known.filtered_mean)
    return _Stacks(part.rows, place, used, stacks)


def _given_out(parts: list[_Stacks], n_rows: int) -> list[Matrices]:
    """Matrices of every row: shared, or written out; those that were not wanted have no rows."""
    sizes = [part.used.stop - part.used.start for part in parts]
    stacks = list(zip(*(part.stacks for part in parts)))
    if pays(sum(sizes), n_rows):
        for part, begin in zip(parts, np.cumsum([0, *sizes[:-1]])):
            if begin != part.used.start:
                part.place[:] += begin - part.used.start
        place = parts[0].place if len(parts) == 1 else np.concatenate([part.place for part in parts])
        return [
            SharedRows(np.concatenate([own[part.used] for own, part in zip(each_stack, parts)]), place)
            if len(each_stack[0])
            else each_stack[0]
            for each_stack in stacks
        ]
    found, tasks = [], []
    for each_stack in stacks:
        if len(parts) == 1 and len(each_stack[0]) in (0, n_rows):
            found.append(each_stack[0])
            if 0 < sizes[0] < len(each_stack[0]):
                tasks.append(partial(kalman.expand, parts[0].place, each_stack[0]))
            continue
        whole = _memory.empty((n_rows if len(each_stack[0]) else 0, *each_stack[0].shape[1:]))[0]
        found.append(whole)
        for own, part in zip(each_stack, parts):
            if len(own):
                tasks.append(partial(np.take, own, part.place, 0, whole[part.rows], "clip"))
    with _threads.limited(workers(n_rows)):
        _threads.run(tasks)
    return found


# one pass


def blank_filtered(y: Floats, n: int, *, innovations: bool) -> Filtered:
    """Room for the means of every row, and none for covariances."""
    n_rows, size = y.shape
    predicted, filtered, log_likelihood, innovation = _memory.empty(
        (n_rows, n), (n_rows, n), (n_rows,), (n_rows if innovations else 0, size)
    )
    none = np.empty((0, n, n))
    return Filtered(predicted, none, filtered, none, log_likelihood, innovation, np.empty((0, size, size)))


def _rooms(n_rows: int, few: int = FEW_STACKED) -> tuple[int, ...]:
    """Lengths of stacks to try: most often few matrices differ, and memory that is not asked for costs nothing."""
    return (n_rows,) if n_rows < 16 * few else (few, n_rows)  # what is lost is a small part


def filter_covariances(part: Part, known: Filtered) -> tuple[Filtered, Gains]:
    """Covariances of the filter by slot, in place of those of ``known``, and the gains.

    Raises
    ------
    SingularInnovationError
        With the number of the first row whose innovation covariance is not positive definite.
    """
    n_rows, size = part.y.shape
    n, slot = len(part.mean), np.empty(n_rows, np.int64)
    for room in _rooms(n_rows):
        wanted = room if len(known.innovation) else 0
        covs = _memory.empty((room, n, n), (room, n, n), (wanted, size, size))
        gains = _memory.empty((room, size, n), (room, size, size), (room,))
        status = kalman.filter_covariances(
            part.y, part.first, part.p.alike, part.p.A, part.p.Q, part.p.C, part.p.R, part.cov, slot, *covs[:2],
            *gains, covs[2],
        )  # fmt: skip
        if status != kalman.FULL:
            break
    if status:
        raise SingularInnovationError(part.rows.start + status - 1)
    predicted, filtered, innovation = covs
    known = known._replace(predicted_cov=predicted, filtered_cov=filtered, innovation_cov=innovation)
    return known, Gains(slot, *gains)


def filter_means(part: Part, gains: Gains, out: Filtered) -> None:
    """Fill the means of the filter and the log-likelihoods."""

    def memory(row: int) -> int:
        slot = gains.slot[row]
        A, C = (value[row if len(value) > 1 else 0] for value in (part.p.A, part.p.C))
        return rows_remembered(A - A @ gains.gain[slot].T @ C, out.predicted_cov[slot])

    def fill(piece: Piece) -> None:
        begun = part.mean
        if piece.lead:
            before = slice(piece.begin - piece.lead, piece.begin + 1)
            lead = blank_filtered(part.y[before], len(begun), innovations=False)
            _filter_rows(part, gains, before, np.zeros(len(begun)), lead)
            begun = lead.predicted_mean[-1].copy()
        rows = slice(piece.begin, piece.end)
        _filter_rows(part, gains, rows, begun, out.cut(rows))

    _threads.run([partial(fill, piece) for piece in pieces(gains.slot, part.first, memory, forward=True)])


def _filter_rows(part: Part, gains: Gains, rows: slice, begun: Floats, out: Filtered) -> None:
    """Pass over some rows, given what is predicted of the first of them."""
    p = part.p.cut(rows.start, rows.stop)
    kalman.filter_means(
        part.y[rows], part.first[rows], gains.slot[rows], p.A, p.b, p.C, p.d, part.mean, begun, *gains[1:],
        out.predicted_mean, out.filtered_mean, out.log_likelihood, out.innovation,
    )  # fmt: skip


def _smooth_covariances(part: Part, gains: Gains, known: Filtered) -> tuple[Floats, Ints, slice, list[Floats]]:
    """Gains of the smoother by slot; which matrices each row has, where the stacks have any, and the stacks."""
    n_rows, n = known.predicted_mean.shape
    J, place = np.empty(known.filtered_cov.shape), np.empty(n_rows, np.int64)
    turned = np.empty((n, n)) if n > kalman.FEW_STATES else None
    for room in (n_rows,) if len(J) == n_rows else _rooms(n_rows, 4 * len(J)):
        stacks = _memory.empty((room, n, n), (room, n, n))
        lowest = kalman.smooth_covariances(
            part.first,
            gains.slot,
            part.p.A,
            part.p.Q,
            known.predicted_cov,
            known.filtered_cov,
            J,
            place,
            *stacks,
            turned,
        )
        if lowest != kalman.FULL:
            break
    return J, place, slice(lowest, room), stacks


def _smooth_means(part: Part, gains: Gains, known: Filtered, J: Floats, mean: Floats) -> None:
    """Fill the means of the smoother; ``mean`` may be that of the filter."""

    def memory(row: int) -> int:
        return rows_remembered(J[gains.slot[row]], known.filtered_cov[gains.slot[row]])

    def run(begin: int, end: int, ahead: Floats, into: Floats, *, goes_on: bool) -> int:
        rows = slice(begin, end)
        moments = known.predicted_mean[rows], known.filtered_mean[rows]
        status: int = kalman.smooth_means(part.first[rows], gains.slot[rows], J, *moments, into, ahead, goes_on)
        return status

    found = pieces(gains.slot, part.first, memory, forward=False)
    aheads = np.zeros((len(found), mean.shape[1]))
    for piece, ahead in zip(found, aheads):  # before the means of the filter are gone
        if piece.lead:
            run(piece.end, piece.end + piece.lead, ahead, np.empty((piece.lead, len(ahead))), goes_on=False)
    tasks = [
        partial(run, piece.begin, piece.end, ahead, mean[piece.begin : piece.end], goes_on=piece.lead > 0)
        for piece, ahead in zip(found, aheads)
    ]
    for piece, status in reversed(list(zip(found, _threads.run(tasks)))):
        if status:
            raise SingularInnovationError(part.rows.start + piece.begin + status - 1)


# threads


def workers(n_rows: int) -> int:
    """Threads that many rows are worth."""
    return _threads.count() if n_rows >= FEW else 1


def each(params: LGSSMParams, batch: Batch, work: Callable[[Part], T], *, whole: bool = False) -> list[T]:
    """Results of the work on parts of whole sequences, in their order; ``whole`` leaves them together."""
    n_rows = len(batch.y)
    n_parts = 1 if whole else max(workers(n_rows), -(-n_rows // BLOCK))
    wanted = np.linspace(0, n_rows, n_parts + 1)
    cuts = np.unique(batch.starts[np.searchsorted(batch.starts, wanted)])
    first, p = batch.first, by_row(params, batch)
    mean, cov = np.ascontiguousarray(params.initial_mean), np.ascontiguousarray(params.initial_cov)
    parts = [Part(batch.y[a:b], first[a:b], slice(int(a), int(b)), p.cut(a, b), mean, cov) for a, b in pairwise(cuts)]
    return _threads.run([partial(work, part) for part in parts])
