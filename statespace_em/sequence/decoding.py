"""Ways to decode a hidden chain: one best path, k best paths, the best state at each row, patient paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from statespace_em import _validate
from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import Labels
from statespace_em.sequence import hindsight
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
    log_b = core.log_density(params, batch)
    return hindsight.patient_path(log_b, params.initial, params.transition[None], batch.starts, least)


def best_paths(core: HMMCore, params: HMMParams, batch: Batch, labels: Labels, n_paths: int) -> tuple[Ints, Floats]:
    """Most probable paths (R, N) of the one sequence there is, and their log joint probabilities."""
    if labels.sequence is not None:
        raise DataError(f"y has {len(labels.keys)} sequences: ask for the best paths of one of them.")
    log_b = core.log_density(params, batch)
    return hindsight.best_paths(log_b, params.initial, params.transition[None], n_paths)


def fixed_lag(core: HMMCore, params: HMMParams, batch: Batch, lag: int) -> Floats:
    """Probabilities (N, K) given the rows up to ``lag`` later."""
    log_b = core.log_density(params, batch)
    return hindsight.fixed_lag(log_b, params.initial, params.transition[None], batch.starts, lag)
