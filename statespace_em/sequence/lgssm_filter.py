"""Filtered states and innovations for any start; unknown first states are estimated from the rows so far."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import ParameterError
from statespace_em.kernels import adjoint_constants
from statespace_em.sequence.lgssm_diffuse import (
    DETERMINED,
    LOG_2PI,
    Constants,
    Forward,
    Start,
    covariances,
    first_seen,
    heads,
    is_diffuse,
    proper_start,
)
from statespace_em.sequence.lgssm_expectation import marginal_terms
from statespace_em.sequence.lgssm_params import LGSSMParams, by_row, numbered, taken, varies
from statespace_em.sequence.lgssm_passes import Filtered, innovation_covs, kalman_filter
from statespace_em.shared import joined, replaced


def filtered_moments(params: LGSSMParams, batch: Batch, likelihood: str) -> Filtered:
    """Filtered and predicted moments of every row; infinite variances where a diffuse start is not yet determined."""
    if np.isnan(params.initial_mean).any():
        raise ParameterError(
            "the first state is fixed but unknown, and at the time it has no estimate yet: fit(y) first, give the "
            'parameters an initial_mean, or take initial="diffuse".'
        )
    start = proper_start(params, batch, stand_in=_stand_in(params, batch))
    if not len(start.states):
        return kalman_filter(start.params, batch, innovations=True)
    head, rows, run, lasting = heads(start, batch, until_determined=True)
    if lasting.any():
        return _collapsed(params, start, batch, head.lengths, lasting, likelihood)
    f = kalman_filter(start.params, batch, innovations=True)
    known = run.constants
    assert known is not None
    after, before = _estimates_by_row(known, head)
    filtered_response, response = _responses(start, head, run)
    seen = ~np.isnan(head.y)
    both = seen[:, :, None] & seen[:, None, :]
    filtered_mean, filtered_cov = _with_estimates(f.filtered_mean[rows], f.filtered_cov[rows], filtered_response, after)
    predicted_mean, predicted_cov = _with_estimates(
        f.predicted_mean[rows], f.predicted_cov[rows], known.response, before
    )
    innovation, innovation_cov = _with_estimates(
        f.innovation[rows], f.innovation_cov[rows], response, before, sign=-1.0
    )
    f.filtered_mean[rows], f.predicted_mean[rows] = filtered_mean, predicted_mean
    f.innovation[rows] = np.where(seen, innovation, np.nan)
    total = after.log_likelihood - before.log_likelihood
    if likelihood == "full":
        total = total - 0.5 * LOG_2PI * (after.rank - before.rank)
    f.log_likelihood[rows] += total
    if likelihood == "marginal":
        f.log_likelihood[batch.starts[1:] - 1] += marginal_terms(params, batch)
    return f._replace(
        filtered_cov=replaced(f.filtered_cov, rows, filtered_cov),
        predicted_cov=replaced(f.predicted_cov, rows, predicted_cov),
        innovation_cov=replaced(f.innovation_cov, rows, np.where(both, innovation_cov, np.nan)),
    )


def _collapsed(
    params: LGSSMParams, start: Start, batch: Batch, lengths: Ints, lasting: Bools, likelihood: str
) -> Filtered:
    """Moments where the start has an effect on all rows of some sequences: it is collapsed into an ordinary start.

    What the first rows tell is the start of those after them (de Jong & Chu-Chun-Lin 1994).

    ``lengths`` (S,) of the ``lasting`` sequences are those of their first rows.
    """
    ends = np.where(lasting, batch.starts[:-1] + lengths, batch.starts[1:])
    kept = [np.arange(a, b) for a, b in zip(batch.starts[:-1], ends)]
    rows, starts = np.concatenate(kept), np.cumsum([0, *map(len, kept)])
    with numbered(rows):
        first = filtered_moments(params, taken(batch, rows, starts), "full" if likelihood == "full" else "diffuse")
    parts = [(rows, first)]
    for s in np.flatnonzero(lasting):
        own, last = np.arange(ends[s], batch.starts[s + 1]), starts[s + 1] - 1
        p = by_row(start.params, taken(batch, rows[[last]], np.array([0, 1])))
        cov = p.A[0] @ np.asarray(first.filtered_cov[[last]])[0] @ p.A[0].T + p.Q[0]
        collapsed = start.params._replace(
            initial_mean=p.A[0] @ first.filtered_mean[last] + p.b[0], initial_cov=(cov + cov.T) / 2.0
        )
        with numbered(own):
            parts.append((own, kalman_filter(collapsed, taken(batch, own, np.array([0, len(own)])), innovations=True)))
    numbers, found = zip(*parts)
    values: Any = (joined(numbers, each) for each in zip(*found))
    whole = Filtered(*values)
    if likelihood == "marginal":
        whole.log_likelihood[batch.starts[1:] - 1] += marginal_terms(params, batch)
    return whole


def innovation_covariances(params: LGSSMParams, batch: Batch, *, unknown: bool = True) -> Floats:
    """Covariances (N, D, D) of innovations as of `filtered_moments`: not finite where missing or undetermined.

    They do not depend on what was seen, so that no means are needed. What first states that are ``unknown`` add may be
    left out.
    """
    params = params._replace(initial_mean=np.nan_to_num(params.initial_mean))
    start = proper_start(params, batch, stand_in=_stand_in(params, batch))
    if not (unknown and len(start.states)):
        return innovation_covs(start.params, batch)
    head, rows, run, lasting = heads(start, batch, covariances, until_determined=True)
    if lasting.any():
        blank = batch._replace(y=np.where(np.isnan(batch.y), np.nan, 0.0))
        return np.array(_collapsed(params, start, blank, head.lengths, lasting, "diffuse").innovation_cov)
    found = innovation_covs(start.params, batch)
    assert run.constants is not None
    _, before = _estimates_by_row(run.constants, head)
    seen = ~np.isnan(head.y)
    response = _responses(start, head, run)[1]
    _, cov = _with_estimates(np.zeros(head.y.shape), found[rows], response, before, sign=-1.0)
    found[rows] = np.where(seen[:, :, None] & seen[:, None, :], cov, np.nan)
    return found


def _stand_in(params: LGSSMParams, batch: Batch) -> Floats | None:
    """Variance of the stand-in for each unknown constant, from the parameters and the first row that has entries.

    A value that rested on later rows would move the answers before them by rounding. Between the noise of a row and
    its square neither covariances nor likelihoods lose digits.
    """
    states = np.flatnonzero(is_diffuse(params))
    if not len(states):
        return None
    varying = any(varies(params, name) for name in ("transition", "observation"))
    n_rows = 1 if varying else len(params.initial_mean)  # what is known of later rows must not matter either
    A, C, Q, R = (
        getattr(params, name)[:n_rows] if varies(params, name) else getattr(params, name)[None]
        for name in ("transition", "observation", "process_cov", "measurement_cov")
    )
    noise = np.diagonal(R[0] + C[0] @ Q[0] @ C[0].T)
    row = first_seen(batch.y) or 0
    square = np.where(np.isnan(batch.y[row]), 0.0, batch.y[row]) ** 2
    square = np.where(square > 0.0, square, noise)
    scale = np.where(noise > 0.0, np.sqrt(noise) * np.sqrt(square), square)
    scale = np.where(scale > 0.0, scale, 1.0)
    directions = np.ascontiguousarray(np.eye(len(params.initial_mean))[:, states])
    effect = np.zeros(len(states))
    blank, first = np.zeros((n_rows, len(scale))), np.arange(n_rows) == 0
    adjoint_constants.responses(
        blank, first, np.ascontiguousarray(A), np.ascontiguousarray(C), directions, 1.0 / scale, effect
    )  # fmt: skip
    return np.asarray(np.where(effect > 0.0, blank.size / np.where(effect > 0.0, effect, 1.0), scale.mean()))


def _responses(start: Start, head: Batch, run: Forward) -> tuple[Floats, Floats]:
    """Response of filtered states (M, n, q) and of innovations (M, D, q) to the unknown constants."""
    assert run.constants is not None
    seen, C = ~np.isnan(head.y), by_row(start.params, head).C
    response = np.where(seen[:, :, None], C @ run.constants.response, 0.0)
    return run.constants.response - run.gains.gain[run.gains.slot].swapaxes(1, 2) @ response, response


class _Estimates(NamedTuple):
    """Estimates of the constants from the rows up to each time."""

    value: Floats  # (N, q)
    root: Floats  # (N, q, q), its outer product with itself is their covariance where they are known
    unknown: Floats  # (N, q, q), directions along which they are not
    rank: Ints  # (N,), how many are known
    log_likelihood: Floats  # (N,), nats to add to those of the rows so far

    @classmethod
    def of(cls, gram: Floats, cross: Floats, stand_in: Floats) -> Self:
        """Regress on the constants as far as they are known."""
        values, vectors = np.linalg.eigh(gram)
        known = values > DETERMINED
        safe = np.where(known, values, 1.0)
        score = (vectors.swapaxes(1, 2) @ cross[:, :, None])[:, :, 0]
        gain = np.where(known, 0.5 * score**2 / safe - 0.5 * np.log(safe) + 0.5 * LOG_2PI, 0.0)
        # the prior is flat in the units of the states, also where it is not yet known along all of them
        units = (vectors / stand_in[:, None]).swapaxes(1, 2) @ vectors
        both = known[:, :, None] & known[:, None, :]
        units = np.where(both, units, np.eye(len(stand_in)))
        return cls(
            (vectors @ np.where(known, score / safe, 0.0)[:, :, None])[:, :, 0],
            vectors * np.where(known, 1.0 / np.sqrt(safe), 0.0)[:, None, :],
            vectors * ~known[:, None, :],
            known.sum(1),
            gain.sum(1) - 0.5 * np.linalg.slogdet(units)[1],
        )

    def at(self, rows: Ints) -> Self:
        """Those of some rows."""
        return self._replace(**{name: value[rows] for name, value in self._asdict().items()})


def _estimates_by_row(known: Constants, batch: Batch) -> tuple[_Estimates, _Estimates]:
    """Estimates with each row, and those before it."""
    q = len(known.stand_in)
    gram, cross = (np.zeros((len(batch.y) + 1, *shape)) for shape in ((q, q), (q,)))  # nothing is known by the last
    for begin, end in pairwise(batch.starts):
        for source, target in ((known.gram, gram), (known.cross, cross)):
            target[begin:end] = np.cumsum(source[begin:end], axis=0)
    found = _Estimates.of(gram, cross, known.stand_in)
    earlier = np.where(batch.first, len(batch.y), np.arange(-1, len(batch.y) - 1))
    return found.at(np.arange(len(batch.y))), found.at(earlier)


def _with_estimates(
    mean: Floats, cov: Floats, response: Floats, found: _Estimates, sign: float = 1.0
) -> tuple[Floats, Floats]:
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
        mean = np.where(lost, 0.0 if sign > 0.0 else np.nan, mean)  # an innovation would rest on the stand-ins
    return mean, cov
