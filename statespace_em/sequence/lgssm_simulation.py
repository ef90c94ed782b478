"""Simulation of the linear-Gaussian model, the simulation smoother and the fixed-lag smoother."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import UndeterminedStartError
from statespace_em.kernels import kalman
from statespace_em.sequence.lgssm_filter import filtered_moments
from statespace_em.sequence.lgssm_forecast import matrices_at, root
from statespace_em.sequence.lgssm_params import LGSSMParams, by_row, varies
from statespace_em.sequence.lgssm_smoother import smooth

ROWS = 200_000  # drawn at a time


def smoothed_paths(params: LGSSMParams, batch: Batch, n: int, rng: np.random.Generator) -> Floats:
    """Draws (n, T, states) from the distribution of the states of one sequence given all of y.

    A simulated pair of states and y, moved by the smoothed mean of the difference of the two y (Durbin & Koopman 2002).
    States with a diffuse start may be simulated from 0: the smoother does not care where they begin.
    """
    length, size = len(batch.y), len(params.initial_mean)
    unknown = np.isnan(params.initial_mean)
    if unknown.any():  # a constant: it is what the data say
        first = smooth(params, batch)[0].mean[0]
        params = params._replace(initial_mean=np.where(unknown, first, params.initial_mean))
    each = max(1, ROWS // length)
    found = np.empty((n, length, size))
    for begin in range(0, n, each):
        count = min(each, n - begin)
        inputs = None if batch.inputs is None else np.tile(batch.inputs, (count, 1))
        place = None if batch.place is None else np.tile(batch.place, count)
        starts = np.arange(count + 1) * length
        many = batch._replace(y=np.tile(batch.y, (count, 1)), starts=starts, inputs=inputs, place=place)
        found[begin : begin + count] = simulation_smoother(params, many, rng).reshape(count, length, size)
    return found


def simulation_smoother(params: LGSSMParams, batch: Batch, rng: np.random.Generator) -> Floats:
    """One draw (N, n) of the states of every sequence, whose first mean is known; see `smoothed_paths`."""
    size = len(params.initial_mean)
    diffuse = ~np.isfinite(np.diag(params.initial_cov))
    start = np.where(diffuse[:, None] | diffuse, 0.0, params.initial_cov)
    still = params._replace(
        state_offset=np.zeros(size), observation_offset=np.zeros(batch.y.shape[1]), initial_mean=np.zeros(size),
        state_input=None, observation_input=None,
    )  # fmt: skip
    p = by_row(params, batch)
    states = np.empty((len(batch.y), size))
    kalman.draw_states(
        batch.first, p.A, p.b, root(p.Q), root(start), params.initial_mean, rng.standard_normal(states.shape), states
    )
    noise = (root(p.R) @ rng.standard_normal(batch.y.shape)[:, :, None])[:, :, 0]
    y = (p.C @ states[:, :, None])[:, :, 0] + p.d + noise
    return states + smooth(still, batch._replace(y=batch.y - y, inputs=None))[0].mean


def simulate(tree: LGSSMParams, n_steps: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """States (n_steps, n) and y of one sequence; what is diffuse begins at 0."""
    first = np.arange(n_steps) == 0
    states = np.empty((n_steps, len(tree.initial_mean)))
    at = matrices_at(tree, np.arange(n_steps))
    one = {name: at[name] if varies(tree, name) else at[name][:1] for name in at}
    start_cov = np.where(np.isfinite(tree.initial_cov), tree.initial_cov, 0.0)
    mean = np.nan_to_num(tree.initial_mean)
    kalman.draw_states(
        first, np.array(one["transition"], order="C"), np.array(one["state_offset"], order="C"),  # not to be read only
        root(one["process_cov"]), root(start_cov), mean,
        rng.standard_normal(states.shape), states,
    )  # fmt: skip
    roots = root(one["measurement_cov"])
    shocks = rng.standard_normal((n_steps, roots.shape[1]))
    noise = (roots @ shocks[:, :, None])[:, :, 0]
    y = (at["observation"] @ states[:, :, None])[:, :, 0] + at["observation_offset"] + noise
    return states, y


def fixed_lag_smoother(params: LGSSMParams, batch: Batch, lag: int, likelihood: str) -> tuple[Floats, Floats]:
    """Means (N, n) and covariances of the states given y up to ``lag`` rows later, or to the end of the sequence.

    Backward steps of the smoother from the filtered states (Anderson & Moore 1979, sec. 7.3). A stretch of steps is an
    affine map of what later rows add, and stretches are put together by doubling: log2(lag) turns over the rows. Where
    a diffuse start is not determined yet, the rows up to there are smoothed on their own; infinite variances if that
    does not determine it.
    """
    known, p = filtered_moments(params, batch, likelihood), by_row(params, batch)
    n_rows = len(batch.y)
    ends = np.repeat(batch.starts[1:], np.diff(batch.starts)) - 1
    rows = np.arange(n_rows)
    lag = min(lag, int(batch.lengths.max()))
    target = np.minimum(rows + lag, ends)
    A = np.broadcast_to(p.A, (n_rows, *p.A.shape[1:]))
    filtered_cov = np.asarray(known.filtered_cov)
    proper: Bools = np.asarray(np.isfinite(filtered_cov).all((1, 2)))
    inner = np.flatnonzero(proper & (rows < ends))
    step = _blank(filtered_cov.shape)
    J = _gains(filtered_cov[inner] @ A[inner].swapaxes(1, 2), known.predicted_cov[inner + 1])
    news = known.filtered_mean[inner + 1] - known.predicted_mean[inner + 1]
    shrunk = filtered_cov[inner + 1] - known.predicted_cov[inner + 1]
    step.gain[inner], step.mean[inner] = J, (J @ news[:, :, None])[:, :, 0]
    step.cov[inner] = J @ shrunk @ J.swapaxes(1, 2)
    added, reached, length = _blank(filtered_cov.shape), rows, 1
    while length <= lag:
        if lag & length:
            added = _joined(added, step, reached)
            reached = np.minimum(reached + length, ends)
        step = _joined(step, step, np.minimum(rows + length, ends))
        length *= 2
    mean, cov = known.filtered_mean + added.mean, filtered_cov + added.cov
    first = np.repeat(batch.starts[:-1], np.diff(batch.starts))
    for row in np.flatnonzero(~proper):
        try:
            found = smooth(params, batch.cut(first[row], target[row] + 1))[0]
            mean[row], cov[row] = found.mean[row - first[row]], found.cov[row - first[row]]
        except UndeterminedStartError:
            mean[row], cov[row] = known.filtered_mean[row], filtered_cov[row]
    return mean, cov


class _Stretch(NamedTuple):
    """What rows at the end of a stretch of steps add to the filtered states at its begin, one for each row.

    Zero where the stretch has no steps: of a mean m and a covariance P added to the filtered ones at the end, those
    at the begin are ``gain m + mean`` and ``gain P gain' + cov``.
    """

    gain: Floats  # (N, n, n)
    mean: Floats  # (N, n)
    cov: Floats  # (N, n, n)


def _gains(cross: Floats, cov: Floats) -> Floats:
    """``cross`` times the inverse of a covariance (N, n, n) that may be singular, whatever the units of its rows."""
    size = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    size = np.where(size > 0.0, size, 1.0)
    unit = np.linalg.pinv(cov / (size[:, :, None] * size[:, None, :]), hermitian=True)
    return np.asarray(cross / size[:, None, :] @ unit / size[:, None, :])


def _blank(shape: tuple[int, ...]) -> _Stretch:
    return _Stretch(np.broadcast_to(np.eye(shape[-1]), shape).copy(), np.zeros(shape[:-1]), np.zeros(shape))


def _joined(near: _Stretch, far: _Stretch, begins: Ints) -> _Stretch:
    """Stretches followed by those that begin where they end."""
    gain, mean, cov = (part[begins] for part in far)
    J = near.gain
    return _Stretch(J @ gain, near.mean + (J @ mean[:, :, None])[:, :, 0], near.cov + J @ cov @ J.swapaxes(1, 2))
