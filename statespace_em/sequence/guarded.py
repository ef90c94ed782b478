"""The Kalman filter of whole batches with a gate or with Student-t noise: the answers of a guarded stream."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import ParameterError
from statespace_em.sequence.filter_row import Guard, Guarded, guarded_rows, square_of
from statespace_em.sequence.lgssm_filter import filtered_moments
from statespace_em.sequence.lgssm_params import LGSSMParams, by_row
from statespace_em.sequence.lgssm_passes import Filtered


def guarded(params: LGSSMParams, batch: Batch, guard: Guard, likelihood: str) -> Guarded:
    """Causal moments of every row, each judged, or weighted, by what came before it in its sequence.

    The guard begins once the rows have determined a diffuse start, as those of streams do.
    """
    rows, p = Guarded.empty(len(batch.y), len(params.initial_mean), batch.y.shape[1]), by_row(params, batch)
    early = None
    if not (np.isfinite(params.initial_cov).all() and np.isfinite(params.initial_mean).all()):
        if likelihood == "marginal":
            raise ParameterError(
                "the marginal likelihood of a diffuse start rests on all rows, also on those that a guard leaves out: "
                'use likelihood="diffuse" or "full".'
            )
        early = filtered_moments(params, batch, likelihood)
    for begin, end in zip(batch.starts[:-1].tolist(), batch.starts[1:].tolist()):
        mean, cov = np.array(params.initial_mean), np.array(params.initial_cov)
        if early is not None:
            begin, mean, cov = _determined(early, rows, begin, end)
        own = rows.cut(begin, end)
        guarded_rows(batch.y[begin:end], p.cut(begin, end)[:6], mean, (cov + cov.T) / 2.0, guard, own, begin)
    return rows


def _determined(early: Filtered, rows: Guarded, begin: int, end: int) -> tuple[int, Floats, Floats]:
    """Copy the rows that determine the start of a sequence; return the row after them and its prediction."""
    filtered_cov = np.asarray(early.filtered_cov[begin:end])
    told = np.isfinite(filtered_cov).all((1, 2))
    later = begin + int(np.argmax(told)) + 1 if told.any() else end
    taken = slice(begin, later)
    pairs = (
        (rows.predicted, early.predicted_mean), (rows.predicted_cov, early.predicted_cov),
        (rows.filtered, early.filtered_mean), (rows.filtered_cov, early.filtered_cov),
        (rows.innovation, early.innovation), (rows.innovation_cov, early.innovation_cov),
        (rows.log_likelihood, early.log_likelihood),
    )  # fmt: skip
    for own, known in pairs:
        own[taken] = known[taken]
    rows.nis[taken] = [square_of(*each) for each in zip(rows.innovation[taken], rows.innovation_cov[taken])]
    if later == end:
        return end, np.zeros(rows.filtered.shape[1]), np.zeros(rows.filtered_cov.shape[1:])
    return later, np.array(early.predicted_mean[later]), np.array(early.predicted_cov[later])
