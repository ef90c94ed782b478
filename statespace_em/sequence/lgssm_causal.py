"""What was known at each time, for any start: the filter's answers with the unknown constants estimated so far."""

from __future__ import annotations

from functools import partial

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.data import Batch
from statespace_em.kernels import diffuse, kalman
from statespace_em.sequence.lgssm_expectation import marginal_terms
from statespace_em.sequence.lgssm_params import LGSSMParams, varies
from statespace_em.sequence.lgssm_passes import Filtered, Part, each, kalman_filter
from statespace_em.sequence.lgssm_unknown import (
    DETERMINED,
    LOG_2PI,
    Constants,
    Start,
    forward,
    is_diffuse,
    proper_start,
)


def causal(params: LGSSMParams, batch: Batch, likelihood: str) -> Filtered:
    """Causal moments of every row with innovations; infinite variances where a diffuse start is not yet determined."""
    params = params._replace(initial_mean=np.nan_to_num(params.initial_mean))  # constants nobody knows yet count as 0
    start = proper_start(params, batch, stand_in=_stand_in(params, batch))
    if not len(start.states):
        return kalman_filter(start.params, batch, innovations=True)
    (found,) = each(start.params, batch, partial(_augmented, start), whole=True)
    known, f, filtered_response, response = found
    after = _so_far(known, batch, inclusive=True)
    before = _so_far(known, batch, inclusive=False)
    filtered_mean, filtered_cov = _moved(f.filtered_mean, np.asarray(f.filtered_cov), filtered_response, after)
    predicted_mean, predicted_cov = _moved(f.predicted_mean, np.asarray(f.predicted_cov), known.response, before)
    innovation, innovation_cov = _moved(f.innovation, np.asarray(f.innovation_cov), response, before, sign=-1.0)
    seen = ~np.isnan(batch.y)
    innovation = np.where(seen, innovation, np.nan)
    innovation_cov = np.where(seen[:, :, None] & seen[:, None, :], innovation_cov, np.nan)
    total = after.log_likelihood - before.log_likelihood
    if likelihood == "full":
        total = total - 0.5 * LOG_2PI * (after.rank - before.rank)
    if likelihood == "marginal":
        total[batch.starts[1:] - 1] += marginal_terms(params, batch)
    return Filtered(
        predicted_mean, predicted_cov, filtered_mean, filtered_cov, f.log_likelihood + total, innovation,
        innovation_cov,
    )  # fmt: skip


def _stand_in(params: LGSSMParams, batch: Batch) -> Floats | None:
    """Variance of the stand-in for each unknown constant, from the parameters and the first row that has entries.

    A value that rested on later rows would move the answers before them by rounding. Between the noise of a row and
    its square neither covariances nor likelihoods lose digits.
    """
    states = np.flatnonzero(is_diffuse(params))
    if not len(states):
        return None
    lengths = [len(getattr(params, name)) for name in ("transition", "observation") if varies(params, name)]
    n_rows = min(lengths, default=len(params.initial_mean))
    A, C, Q, R = (
        getattr(params, name)[:n_rows] if varies(params, name) else getattr(params, name)[None]
        for name in ("transition", "observation", "process_cov", "measurement_cov")
    )
    noise = np.diagonal(R[0] + C[0] @ Q[0] @ C[0].T)
    row = int(np.argmax(~np.isnan(batch.y).all(1)))
    square = np.where(np.isnan(batch.y[row]), 0.0, batch.y[row]) ** 2
    square = np.where(square > 0.0, square, noise)
    scale = np.where(noise > 0.0, np.sqrt(noise) * np.sqrt(square), square)
    scale = np.where(scale > 0.0, scale, 1.0)
    directions = np.ascontiguousarray(np.eye(len(params.initial_mean))[:, states])
    effect = np.zeros(len(states))
    blank, first = np.zeros((n_rows, len(scale))), np.arange(n_rows) == 0
    diffuse.responses(
        blank, first, np.ascontiguousarray(A), np.ascontiguousarray(C), directions, 1.0 / scale, effect
    )  # fmt: skip
    return np.asarray(np.where(effect > 0.0, blank.size / np.where(effect > 0.0, effect, 1.0), scale.mean()))


def _augmented(start: Start, part: Part) -> tuple[Constants, Filtered, Floats, Floats]:
    """Filter of a part with one covariance a row, and the responses of filtered states and innovations."""
    run = forward(start, part, innovations=True)
    known, f = run.constants, run.filtered
    assert known is not None
    seen = ~np.isnan(part.y)
    C = np.broadcast_to(part.p.C, (len(part.y), *part.p.C.shape[1:]))
    response = np.where(seen[:, :, None], C @ known.response, 0.0)
    filtered = known.response - run.gains.gain[run.gains.slot].transpose(0, 2, 1) @ response
    for cov in (f.predicted_cov, f.filtered_cov, f.innovation_cov):
        kalman.expand(run.gains.slot, cov)
    return known, f, filtered, response


class _SoFar:
    """Estimates of the constants from the rows up to each time."""

    def __init__(self, gram: Floats, cross: Floats, stand_in: Floats) -> None:
        values, vectors = np.linalg.eigh(gram)
        known = values > DETERMINED
        safe = np.where(known, values, 1.0)
        score = (vectors.swapaxes(1, 2) @ cross[:, :, None])[:, :, 0]
        self.value = (vectors @ np.where(known, score / safe, 0.0)[:, :, None])[:, :, 0]
        self.root = vectors * np.where(known, 1.0 / np.sqrt(safe), 0.0)[:, None, :]
        self.unknown = vectors * ~known[:, None, :]
        self.rank = known.sum(1)
        gain = np.where(known, 0.5 * score**2 / safe - 0.5 * np.log(safe) + 0.5 * LOG_2PI, 0.0)
        # the prior is flat in the units of the states, also where it is not yet known along all of them
        units = (vectors / stand_in[:, None]).swapaxes(1, 2) @ vectors
        both = known[:, :, None] & known[:, None, :]
        units = np.where(both, units, np.eye(len(stand_in)))
        self.log_likelihood = gain.sum(1) - 0.5 * np.linalg.slogdet(units)[1]


def _so_far(known: Constants, batch: Batch, *, inclusive: bool) -> _SoFar:
    gram, cross = np.empty_like(known.gram), np.empty_like(known.cross)
    for begin, end in zip(batch.starts[:-1], batch.starts[1:]):
        for source, target in ((known.gram, gram), (known.cross, cross)):
            total = np.cumsum(source[begin:end], axis=0)
            target[begin:end] = total
            if not inclusive:
                target[begin + 1 : end] = total[:-1]
                target[begin] = 0.0
    return _SoFar(gram, cross, known.stand_in)


def _moved(mean: Floats, cov: Floats, response: Floats, found: _SoFar, sign: float = 1.0) -> tuple[Floats, Floats]:
    """Moments with the constants estimated; infinite variances where they are not, NaN for their covariances."""
    root = response @ found.root
    mean = mean + sign * (response @ found.value[:, :, None])[:, :, 0]
    cov = cov + root @ root.swapaxes(1, 2)
    size = np.abs(response).max(axis=(1, 2), keepdims=True, initial=0.0)[:, :, 0]
    lost: Bools = (np.abs(response @ found.unknown) > 1e-9 * size[:, :, None]).any(2)
    if lost.any():
        cov = np.where(lost[:, :, None] | lost[:, None, :], np.nan, cov)
        rows, places = np.nonzero(lost)
        cov[rows, places, places] = np.inf
        mean = np.where(lost & (sign > 0.0), 0.0, mean)
    return mean, cov
