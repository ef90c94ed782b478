"""Posteriors of a hidden chain from log-densities: scaled recursions, in log space where scaling cannot do it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.errors import ImpossibleObservationError
from statespace_em.kernels import chain

TINY = 1e-100  # below this a transition no longer guarantees that a dropped state does not matter


class ChainPosterior(NamedTuple):
    """What the E-step of a hidden chain gives; rows of all sequences end to end."""

    gamma: Floats  # (N, K)
    xi: Floats  # (N, K, K), or no rows when only the sum was asked for; NaN at the last row of a sequence
    xi_sum: Floats  # (K, K)
    firsts: Floats  # (K,), sum of gamma over the first rows
    log_likelihood: Floats  # (S,), nats


class ChainFilter(NamedTuple):
    """What is known of a hidden chain at the time."""

    filtered: Floats  # (N, K), p(s_t | y_1..t)
    predicted: Floats  # (N, K), p(s_t | y_1..t-1)
    log_likelihood: Floats  # (N,), log p(y_t | y_1..t-1), nats


class _Scaled(NamedTuple):
    b: Floats  # (N, K), likelihoods over the largest of the row
    alpha: Floats  # (N, K), filtered
    scale: Floats  # (N,)
    log_scale: Floats  # (N,), with the row maxima put back
    lost: Ints  # sequences that scaling cannot represent


def _forward(log_b: Floats, pi: Floats, A: Floats, starts: Ints) -> _Scaled:
    top = log_b.max(1)
    if not top.min() > -np.inf:
        raise ImpossibleObservationError(int(np.argmin(top > -np.inf)))
    b = np.empty(log_b.shape)
    np.subtract(log_b, top[:, None], out=b)
    np.exp(b, out=b)
    sparse = bool(A.min() < TINY)
    if sparse:
        np.maximum(b, chain.UNDERFLOW, out=b, where=log_b > -np.inf)
    alpha, scale = np.empty(log_b.shape), np.empty(len(log_b))
    lost = np.empty(0, dtype=np.int64)
    if chain.forward(b, pi, A, _first(starts), sparse, alpha, scale):
        lost = np.unique(np.searchsorted(starts, np.flatnonzero(np.isnan(scale)), side="right") - 1)
    with np.errstate(invalid="ignore"):
        return _Scaled(b, alpha, scale, np.log(scale) + top, lost)


def _first(starts: Ints) -> np.ndarray:
    first = np.zeros(starts[-1], bool)
    first[starts[:-1]] = True
    return first


def _logs(pi: Floats, A: Floats) -> tuple[Floats, Floats]:
    with np.errstate(divide="ignore"):
        return np.log(pi), np.log(A)


def _log_forward(log_b: Floats, log_pi: Floats, log_A: Floats, offset: int) -> tuple[Floats, Floats, Floats]:
    log_alpha, log_predicted = np.empty((2, *log_b.shape))
    log_scale = np.empty(len(log_b))
    impossible = chain.forward_log(log_b, log_pi, log_A, log_alpha, log_predicted, log_scale)
    if impossible >= 0:
        raise ImpossibleObservationError(offset + impossible)
    return log_alpha, log_predicted, log_scale


def smooth(log_b: Floats, pi: Floats, A: Floats, starts: Ints, *, pairs: bool = False) -> ChainPosterior:
    """Posterior of states and pairs of states given all rows.

    Parameters
    ----------
    log_b
        Log densities (N, K) of the rows of sequences end to end.
    pi, A
        Initial (K,) and transition probabilities (1 or N, K, K).
    starts
        Offsets (S + 1,) of the sequences.
    pairs
        Whether to return every pair, not only their sum.

    Raises
    ------
    ImpossibleObservationError
        With the number of the first row that no path can produce.
    """
    log_b = np.ascontiguousarray(log_b)
    scaled = _forward(log_b, pi, A, starts)
    n_rows, n_states = log_b.shape
    xi = np.full((n_rows if pairs else 0, n_states, n_states), np.nan)
    xi_sum, firsts = np.zeros((n_states, n_states)), np.zeros(n_states)
    log_scale, gamma = scaled.log_scale, scaled.alpha
    log_pi, log_A = _logs(pi, A)
    for begin, end, lost in _runs(starts, scaled.lost):
        rows = slice(begin, end)
        steps = A if len(A) == 1 else A[rows]
        if not lost:
            first = _first(starts)[rows]
            chain.backward(scaled.b[rows], steps, first, scaled.scale[rows], gamma[rows], xi[rows], xi_sum, firsts)
            continue
        log_steps = log_A if len(A) == 1 else log_A[rows]
        log_alpha, _, log_scale[rows] = _log_forward(log_b[rows], log_pi, log_steps, begin)
        chain.backward_log(log_b[rows], log_steps, log_scale[rows], log_alpha, gamma[rows], xi[rows], xi_sum)
        firsts += gamma[begin]
    return ChainPosterior(gamma, xi, xi_sum, firsts, np.add.reduceat(log_scale, starts[:-1]))


def _runs(starts: Ints, lost: Ints) -> list[tuple[int, int, bool]]:
    """Row ranges: each lost sequence alone, the others between them together."""
    runs, begin = [], 0
    for s in lost:
        if starts[s] > begin:
            runs.append((begin, int(starts[s]), False))
        runs.append((int(starts[s]), int(starts[s + 1]), True))
        begin = int(starts[s + 1])
    if begin < starts[-1]:
        runs.append((begin, int(starts[-1]), False))
    return runs


def filter_states(log_b: Floats, pi: Floats, A: Floats, starts: Ints) -> ChainFilter:
    """Causal probabilities; see `smooth` for the arguments. A later row never changes a bit of an earlier one."""
    log_b = np.ascontiguousarray(log_b)
    scaled = _forward(log_b, pi, A, starts)
    filtered, log_scale = scaled.alpha, scaled.log_scale
    predicted = np.empty(log_b.shape)
    chain.predict(filtered, pi, A, _first(starts), predicted)
    log_pi, log_A = _logs(pi, A)
    for s in scaled.lost:
        # from the row that was lost on; before it the scaled values stand, so that the future cannot touch them
        rows = slice(int(starts[s]), int(starts[s + 1]))
        log_steps = log_A if len(A) == 1 else log_A[rows]
        log_alpha, log_predicted, exact = _log_forward(log_b[rows], log_pi, log_steps, rows.start)
        onwards = slice(rows.start + int(np.argmax(np.isnan(scaled.scale[rows]))), rows.stop)
        tail = slice(onwards.start - rows.start, None)
        filtered[onwards], predicted[onwards] = np.exp(log_alpha[tail]), np.exp(log_predicted[tail])
        log_scale[onwards] = exact[tail]
    return ChainFilter(filtered, predicted, log_scale)


def most_probable_path(log_b: Floats, pi: Floats, A: Floats, starts: Ints) -> tuple[Ints, Floats]:
    """Viterbi path (N,) and its log joint probability (S,); see `smooth` for the arguments."""
    n_rows, n_states = log_b.shape
    back = np.empty((n_rows, n_states), dtype=np.uint8 if n_states <= 256 else np.int32)
    path, best = np.empty(n_rows, dtype=np.int64), np.empty(len(starts) - 1)
    impossible = chain.viterbi(np.ascontiguousarray(log_b), *_logs(pi, A), _first(starts), back, path, best)
    if impossible >= 0:
        raise ImpossibleObservationError(impossible)
    return path, best
