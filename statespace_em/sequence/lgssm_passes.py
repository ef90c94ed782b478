"""Passes of the Kalman filter and the RTS smoother over a batch: distinct covariances once, sequences over threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np

from statespace_em import _threads
from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import SingularInnovationError
from statespace_em.kernels import kalman, pairs
from statespace_em.sequence.lgssm_params import LGSSMParams, RowParams, by_row
from statespace_em.shared import Matrices, SharedRows, pays, stack_of

T = TypeVar("T")

BLOCK = 65_536  # rows of whole sequences done at a time by a thread: bounds the memory of an E-step
FEW = 20_000  # rows below which starting threads costs more than they save


class Filtered(NamedTuple):
    """What is known of the states at the time."""

    predicted_mean: Floats  # (N, n)
    predicted_cov: Matrices  # (N, n, n)
    filtered_mean: Floats  # (N, n)
    filtered_cov: Matrices  # (N, n, n)
    log_likelihood: Floats  # (N,), nats
    innovation: Floats  # (N, D), or no rows
    innovation_cov: Matrices  # (N, D, D), or no rows


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


def kalman_filter(params: LGSSMParams, batch: Batch, *, innovations: bool = False) -> Filtered:
    """Causal moments of every row.

    Raises
    ------
    SingularInnovationError
        With the number of the first row whose innovation covariance is not positive definite.
    """
    found = blank_filtered(batch.y, len(params.initial_mean), innovations=innovations)
    places = each(params, batch, partial(_filter_part, found))
    predicted, filtered, *innovation = _given_out(
        [found.predicted_cov, found.filtered_cov, *([found.innovation_cov] if innovations else [])], places
    )
    found = found._replace(predicted_cov=predicted, filtered_cov=filtered)
    return found._replace(innovation_cov=innovation[0]) if innovations else found


def smoother(params: LGSSMParams, batch: Batch) -> tuple[Smoothed, Floats]:
    """Moments of every row given all rows, and the log-likelihood (N,) of each given those before it, in nats.

    Raises
    ------
    SingularInnovationError
        As `kalman_filter`, and for the latest row whose mean overflows.
    """
    n_rows, n_states = len(batch.y), len(params.initial_mean)
    found, log_likelihood = _blank_smoothed(n_rows, n_states), np.empty(n_rows)
    places = each(params, batch, partial(_smooth_part, found, log_likelihood))
    return Smoothed(found.mean, *_given_out([found.cov, found.cross_cov], places)), log_likelihood


def smoothed_mean(params: LGSSMParams, batch: Batch) -> Floats:
    """States (N, n) expected given all rows."""
    found = np.empty((len(batch.y), len(params.initial_mean)))

    def fill(part: Part) -> None:
        found[part.rows] = _compact(part)[0].mean

    each(params, batch, fill)
    return found


def pair_moments(smoothed: Smoothed) -> Floats:
    """E[s_t s_{t+1}' | y] (N, n, n), NaN at the last row of a sequence."""
    found = np.empty(smoothed.cross_cov.shape)
    distinct, place = stack_of(smoothed.cross_cov)
    cuts = np.linspace(0, len(found), _workers(len(found)) + 1).astype(int)
    tasks = [
        partial(kalman.pair_moments, smoothed.mean[a : b + 1], distinct, place[a:b], found[a:b])
        for a, b in pairwise(cuts)
    ]
    _threads.run(tasks)
    return found


def pair_sums(smoothed: Smoothed, first: Bools) -> Floats:
    """Sum of E[s_t s_{t+1}' | y] (n, n) over the pairs of all sequences; the same for any number of threads."""
    begins = range(0, len(first), BLOCK)
    distinct, place = stack_of(smoothed.cross_cov)
    found = np.zeros((len(begins), *distinct.shape[1:]))
    tasks = [
        partial(pairs.pair_sums, first, smoothed.mean, distinct, place, begin, begin + BLOCK, part)
        for begin, part in zip(begins, found)
    ]
    _threads.run(tasks)
    return np.asarray(found.sum(0))


# one part


class _Places(NamedTuple):
    """Which matrix of its stack each row of a part has."""

    rows: slice  # of the part
    place: Ints
    used: slice  # of the stack: where there are any


def _filter_part(whole: Filtered, part: Part) -> _Places:
    out = Filtered(*(array[part.rows] for array in whole))
    gains = filter_covariances(part, out)
    filter_means(part, gains, out)
    return _Places(part.rows, gains.slot, slice(0, int(gains.slot.max()) + 1))


def _smooth_part(whole: Smoothed, log_likelihood: Floats, part: Part) -> _Places:
    out = Smoothed(*(array[part.rows] for array in whole))
    known = blank_filtered(part.y, len(part.mean), innovations=False)
    # what the smoother makes of a filtered mean takes its place: less memory to touch for the first time
    known = known._replace(log_likelihood=log_likelihood[part.rows], filtered_mean=out.mean)
    gains = filter_covariances(part, known)
    J, place = _smooth_covariances(part, gains, known, out)
    filter_means(part, gains, known)
    _smooth_means(part, gains, known, J, out.mean)
    return _Places(part.rows, place, slice(int(place.min()), len(place)))


def _given_out(stacks: Sequence[Any], parts: list[_Places]) -> list[Matrices]:
    """Matrices of every row: shared ones, or the stacks, in which those of a part stand where its rows are."""
    sizes = [part.used.stop - part.used.start for part in parts]
    if pays(sum(sizes), len(stacks[0])):
        begins = np.cumsum([0, *sizes[:-1]])
        for part, begin in zip(parts, begins):
            if begin != part.used.start:
                part.place[:] += begin - part.used.start
        place = parts[0].place if len(parts) == 1 else np.concatenate([part.place for part in parts])
        return [SharedRows(np.concatenate([stack[p.rows][p.used] for p in parts]), place) for stack in stacks]
    spread = [
        partial(kalman.expand, part.place, stack[part.rows])
        for part, size in zip(parts, sizes)
        for stack in stacks
        if size < len(part.place)
    ]
    with _threads.limited(_workers(len(stacks[0]))):
        _threads.run(spread)
    return list(stacks)


def _compact(part: Part) -> tuple[Smoothed, Ints, Floats]:
    """Smoothed moments, the covariances by place; the places, and the log-likelihoods."""
    known = blank_filtered(part.y, len(part.mean), innovations=False)
    out = _blank_smoothed(len(part.y), len(part.mean))
    gains = filter_covariances(part, known)
    filter_means(part, gains, known)
    J, place = _smooth_covariances(part, gains, known, out)
    _smooth_means(part, gains, known, J, out.mean)
    return out, place, known.log_likelihood


# one pass


def blank_filtered(y: Floats, n: int, *, innovations: bool) -> Filtered:
    """Room for the moments of every row."""
    n_rows, size = y.shape
    wanted = n_rows if innovations else 0
    predicted, filtered, log_likelihood, innovation = _beside((n_rows, n), (n_rows, n), (n_rows,), (wanted, size))
    covs = (np.empty((n_rows, n, n)) for _ in range(2))
    return Filtered(
        predicted, next(covs), filtered, next(covs), log_likelihood, innovation, np.empty((wanted, size, size))
    )


def _beside(*shapes: tuple[int, ...]) -> list[Floats]:
    """Empty arrays in one piece of memory: large pieces come in large pages, small ones fault page by page.

    A fault of 4 KiB takes longer than to compute what is written there.
    """
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    whole = np.empty(ends[-1])
    return [part.reshape(shape) for part, shape in zip(np.split(whole, ends[:-1]), shapes)]


def _blank_smoothed(n_rows: int, n_states: int) -> Smoothed:
    square = (n_rows, n_states, n_states)
    return Smoothed(np.empty((n_rows, n_states)), np.empty(square), np.empty(square))


def filter_covariances(part: Part, out: Filtered) -> Gains:
    """Fill the covariances of the filter by slot.

    Raises
    ------
    SingularInnovationError
        With the number of the first row whose innovation covariance is not positive definite.
    """
    n_rows, size = part.y.shape
    n_states = len(part.mean)
    room = _beside((n_rows, size, n_states), (n_rows, size, size), (n_rows,))
    gains = Gains(np.empty(n_rows, np.int64), *room)
    status = kalman.filter_covariances(
        part.y, part.first, part.p.A, part.p.Q, part.p.C, part.p.R, part.cov, gains.slot, out.predicted_cov,
        out.filtered_cov, gains.gain, gains.whiten, gains.log_norm, out.innovation_cov,
    )  # fmt: skip
    if status:
        raise SingularInnovationError(part.rows.start + status - 1)
    return gains


def filter_means(part: Part, gains: Gains, out: Filtered) -> None:
    """Fill the means of the filter and the log-likelihoods."""
    kalman.filter_means(
        part.y, part.first, gains.slot, part.p.A, part.p.b, part.p.C, part.p.d, part.mean, *gains[1:],
        out.predicted_mean, out.filtered_mean, out.log_likelihood, out.innovation,
    )  # fmt: skip


def _smooth_covariances(part: Part, gains: Gains, known: Filtered, out: Smoothed) -> tuple[Floats, Ints]:
    J, place = np.empty(known.filtered_cov.shape), np.empty(len(part.y), np.int64)
    kalman.smooth_covariances(
        part.first, gains.slot, part.p.A, part.p.Q, known.predicted_cov,
        known.filtered_cov, J, place, out.cov, out.cross_cov,
    )  # fmt: skip
    return J, place


def _smooth_means(part: Part, gains: Gains, known: Filtered, J: Floats, mean: Floats) -> None:
    status = kalman.smooth_means(part.first, gains.slot, J, known.predicted_mean, known.filtered_mean, mean)
    if status:
        raise SingularInnovationError(part.rows.start + status - 1)


# threads


def _workers(n_rows: int) -> int:
    return _threads.count() if n_rows >= FEW else 1


def each(params: LGSSMParams, batch: Batch, work: Callable[[Part], T], *, whole: bool = False) -> list[T]:
    """Results of the work on parts of whole sequences, in their order; ``whole`` leaves them together."""
    n_rows = len(batch.y)
    n_parts = 1 if whole else max(_workers(n_rows), -(-n_rows // BLOCK))
    wanted = np.linspace(0, n_rows, n_parts + 1)
    cuts = np.unique(batch.starts[np.searchsorted(batch.starts, wanted)])
    first, p = batch.first, by_row(params, batch)
    mean, cov = np.ascontiguousarray(params.initial_mean), np.ascontiguousarray(params.initial_cov)
    parts = [Part(batch.y[a:b], first[a:b], slice(int(a), int(b)), p.cut(a, b), mean, cov) for a, b in pairwise(cuts)]
    return _threads.run([partial(work, part) for part in parts])
