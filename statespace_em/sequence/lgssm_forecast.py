"""The future of a linear-Gaussian model: moments and simulated paths, with matrices that may vary over time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.errors import DataError
from statespace_em.sequence.lgssm_params import ROWWISE, VARYING, LGSSMParams, driven, varies


class Future(NamedTuple):
    """Moments of states and measurements (S, horizon, ...)."""

    mean: Floats
    cov: Floats
    signal: Floats
    signal_cov: Floats


def matrices_at(params: LGSSMParams, rows: Ints) -> dict[str, Floats]:
    """Parameters (len(rows), ...) at the rows of their own sequences.

    Raises
    ------
    DataError
        Where a matrix given for every row is not given for these.
    """
    found = {}
    for name in VARYING:
        value = getattr(params, name)
        if varies(params, name):
            if rows.max() >= len(value):
                raise DataError(
                    f"{name} is given for {len(value)} rows, but row {int(rows.max()) + 1} is asked for: give it for "
                    "the future too, in a model with more rows of it that is asked with these parameters."
                )
            found[name] = value[rows]
        else:
            found[name] = np.broadcast_to(value, (len(rows), *value.shape))
    return found


def with_future_inputs(params: LGSSMParams, inputs: Floats) -> LGSSMParams:
    """Parameters driven by inputs (horizon + 1, k), which begin at the same row as matrices that vary."""
    for name in ROWWISE:
        if varies(params, name) and len(getattr(params, name)) < len(inputs):
            raise DataError(f"{name} is not given for all {len(inputs) - 1} rows after y: give it for the future too.")
    return driven(params, inputs)


def constant_from(params: LGSSMParams, row: int) -> LGSSMParams:
    """Parameters whose matrices that vary are those of one row for good."""
    return params._replace(**{name: getattr(params, name)[row] for name in ROWWISE if varies(params, name)})


def from_row(params: LGSSMParams, begin: int) -> LGSSMParams:
    """Parameters whose matrices that vary begin at a row."""
    return params._replace(**{name: getattr(params, name)[begin:] for name in ROWWISE if varies(params, name)})


def future_moments(params: LGSSMParams, mean: Floats, cov: Floats, lengths: Ints, horizon: int) -> Future:
    """Moments after sequences of these lengths whose last states have ``mean`` (S, n) and ``cov`` (S, n, n)."""
    steps = []
    for h in range(horizon):
        now, there = matrices_at(params, lengths - 1 + h), matrices_at(params, lengths + h)
        A, C = now["transition"], there["observation"]
        mean = _times(A, mean) + now["state_offset"]
        cov = A @ cov @ A.swapaxes(1, 2) + now["process_cov"]
        signal = _times(C, mean) + there["observation_offset"]
        steps.append((mean, cov, signal, C @ cov @ C.swapaxes(1, 2) + there["measurement_cov"]))
    return Future(*(np.stack(parts, 1) for parts in zip(*steps)))


def future_draws(
    params: LGSSMParams, mean: Floats, cov: Floats, length: int, horizon: int, n_paths: int, rng: Any
) -> tuple[Floats, Floats]:
    """Paths of states (n_paths, horizon, n) and measurements after a sequence whose last state has these moments."""
    size = len(mean)
    state = mean + rng.standard_normal((n_paths, size)) @ root(cov).T
    states, drawn = [], []
    for h in range(horizon):
        rows = np.array([length - 1 + h]), np.array([length + h])
        now, there = ({name: value[0] for name, value in matrices_at(params, row).items()} for row in rows)
        state = state @ now["transition"].T + now["state_offset"]
        state = state + rng.standard_normal((n_paths, size)) @ root(now["process_cov"]).T
        noise = rng.standard_normal((n_paths, len(there["measurement_cov"]))) @ root(there["measurement_cov"]).T
        states.append(state)
        drawn.append(state @ there["observation"].T + there["observation_offset"] + noise)
    return np.stack(states, 1), np.stack(drawn, 1)


def predicted_rows(C: Floats, d: Floats, R: Floats, mean: Floats, cov: Floats) -> tuple[Floats, Floats]:
    """Mean and variance (N, D) of rows from the predicted states; infinite where these are."""
    lost = ~np.isfinite(np.diagonal(cov, axis1=1, axis2=2))
    known = np.where(lost[:, :, None] | lost[:, None, :], 0.0, cov)
    variance = np.diagonal(C @ known @ C.swapaxes(-1, -2) + R, axis1=1, axis2=2)
    blind = (np.abs(C) @ lost[:, :, None].astype(float))[:, :, 0] > 0.0
    return _times(C, mean) + d, np.where(blind, np.inf, variance)


def root(cov: Floats) -> Floats:
    """Return square roots of covariances (..., n, n) that may be singular."""
    values, vectors = np.linalg.eigh(cov)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :])


def _times(matrices: Floats, vectors: Floats) -> Floats:
    return np.asarray((matrices @ vectors[:, :, None])[:, :, 0])
