"""Ways to decode a hidden chain: one best path, k best paths, the best state at each row or some rows later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from statespace_em import _validate
from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import ImpossibleObservationError, ParameterError
from statespace_em.kernels import paths
from statespace_em.sequence.forward_backward import filter_states
from statespace_em.sequence.hmm_core import HMMCore, HMMParams

METHODS = ("viterbi", "posterior")


def least_rows(min_duration: Any, names: Sequence[Any], method: str) -> Ints | None:
    """Least number of rows (K,) of an episode in each state; None where any will do.

    Raises
    ------
    ParameterError
        If the method is unknown or does not know durations, or a number is below 1.
    """
    _validate.one_of("method", method, METHODS)
    if min_duration is None:
        return None
    if method != "viterbi":
        raise ParameterError(f"min_duration goes with method='viterbi' only, not with {method!r}.")
    given = min_duration if isinstance(min_duration, Mapping) else dict.fromkeys(names, min_duration)
    for state, rows in given.items():
        _validate.one_of("min_duration", state, names)
        _validate.at_least("min_duration", rows, 1, whole=True)
    return np.array([int(given.get(name, 1)) for name in names], dtype=np.int64)


def decoded(
    core: HMMCore, params: HMMParams, batch: Batch, method: str, least: Ints | None
) -> tuple[Ints, Floats | None]:
    """Path (N,) and its log joint probability (S,); None for the states that are best row by row."""
    if method == "posterior":
        return np.asarray(core.posterior(params, batch, pairs=False).rows["gamma"][1]).argmax(1), None
    if least is None:
        return core.decode(params, batch)
    return patient_path(*chain_of(core, params, batch), batch.starts, least)


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


def best_paths(log_b: Floats, pi: Floats, A: Floats, n_paths: int) -> tuple[Ints, Floats]:
    """Most probable paths (R, N) of one sequence and their log joint probabilities; fewer if no more are possible."""
    n_rows, n_states = log_b.shape
    found, scores = np.empty((n_paths, n_rows), dtype=np.int64), np.empty(n_paths)
    back = np.empty((n_rows, n_states, n_paths), dtype=np.int64)
    n_found = paths.best_paths(np.ascontiguousarray(log_b), *_logs(pi, A), back, found, scores)
    return found[:n_found], scores[:n_found]


def fixed_lag(log_b: Floats, pi: Floats, A: Floats, starts: Ints, lag: int) -> Floats:
    """Probabilities (N, K) of the states given the rows up to ``lag`` later; see `forward_backward.smooth`."""
    smoothed = filter_states(log_b, pi, A, starts).filtered
    log_pi, log_A = _logs(pi, A)
    for rows in _sequences(starts):
        paths.fixed_lag(np.ascontiguousarray(log_b[rows]), log_pi, _steps(log_A, rows), lag, smoothed[rows])
    return smoothed


def _sequences(starts: Ints) -> list[slice]:
    return [slice(int(begin), int(end)) for begin, end in pairwise(starts)]


def _steps(log_A: Floats, rows: slice) -> Floats:
    return log_A if len(log_A) == 1 else np.ascontiguousarray(log_A[rows])


def _logs(pi: Floats, A: Floats) -> tuple[Floats, Floats]:
    with np.errstate(divide="ignore"):
        return np.log(pi), np.log(A)


def chain_of(core: HMMCore, params: HMMParams, batch: Batch) -> tuple[Floats, Floats, Floats]:
    """Log densities, initial and transition probabilities."""
    return core.log_density(params, batch), params.initial, params.transition[None]
