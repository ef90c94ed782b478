"""Paths and fixed-lag probabilities of a hidden chain from log-densities, sequence by sequence."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.errors import ImpossibleObservationError
from statespace_em.kernels import paths
from statespace_em.sequence.forward_backward import filter_states


def fixed_lag(log_b: Floats, pi: Floats, A: Floats, starts: Ints, lag: int) -> Floats:
    """Probabilities (N, K) of the states given the rows up to ``lag`` later; see `forward_backward.smooth`."""
    smoothed = filter_states(log_b, pi, A, starts).filtered
    log_pi, log_A = _logs(pi, A)
    for rows in _sequences(starts):
        paths.fixed_lag(np.ascontiguousarray(log_b[rows]), log_pi, _steps(log_A, rows), lag, smoothed[rows])
    return smoothed


def best_paths(log_b: Floats, pi: Floats, A: Floats, n_paths: int) -> tuple[Ints, Floats]:
    """Most probable paths (R, N) of one sequence and their log joint probabilities; fewer if no more are possible."""
    n_rows, n_states = log_b.shape
    found, scores = np.empty((n_paths, n_rows), dtype=np.int64), np.empty(n_paths)
    back = np.empty((n_rows, n_states, n_paths), dtype=np.int64)
    n_found = paths.best_paths(np.ascontiguousarray(log_b), *_logs(pi, A), back, found, scores)
    return found[:n_found], scores[:n_found]


def patient_path(log_b: Floats, pi: Floats, A: Floats, starts: Ints, least: Ints) -> tuple[Ints, Floats]:
    """Most probable path (N,) whose episodes last at least so long (K,), and its log joint probability (S,)."""
    path, best = np.empty(len(log_b), dtype=np.int64), np.empty(len(starts) - 1)
    log_pi, log_A = _logs(pi, A)
    for s, rows in enumerate(_sequences(starts)):
        part = np.ascontiguousarray(log_b[rows])
        back = np.empty((*part.shape, int(least.max())), dtype=np.int64)
        best[s] = paths.patient_path(part, log_pi, _steps(log_A, rows), least, back, path[rows])
        if best[s] == -np.inf:
            raise ImpossibleObservationError(rows.start)
    return path, best


def _sequences(starts: Ints) -> list[slice]:
    return [slice(int(begin), int(end)) for begin, end in pairwise(starts)]


def _steps(log_A: Floats, rows: slice) -> Floats:
    return log_A if len(log_A) == 1 else np.ascontiguousarray(log_A[rows])


def _logs(pi: Floats, A: Floats) -> tuple[Floats, Floats]:
    with np.errstate(divide="ignore"):
        return np.log(pi), np.log(A)
