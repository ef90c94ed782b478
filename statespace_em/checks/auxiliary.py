"""Auxiliary residuals: which shocks of a linear-Gaussian model were larger than its noises allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from statespace_em._typing import Floats
from statespace_em.errors import DataError
from statespace_em.labels import listed

EXACT = 1e-9  # share of a variance below which its difference from another is round-off


def auxiliary_residuals(y: Any, posterior: xr.Dataset, params: xr.Dataset) -> xr.Dataset:
    """Smoothed disturbances by their standard deviations: breaks show in the states', outliers in the measurements'.

    Under the model each is standard normal, but neighbours are correlated (Harvey & Koopman 1992; Durbin & Koopman
    2012, sec. 7.5).

    Parameters
    ----------
    y
        The measurements of one sequence (time, feature).
    posterior
        What ``e_step(y)`` returned for them.
    params
        The parameters that it was computed with; of a model of motion on uneven rows its ``parameters_at(y)``.

    Returns
    -------
    xarray.Dataset
        ``state_shock`` (time, state): the disturbance that leads from each row to the next, NaN in the last row and
        where there is no noise; ``measurement_shock`` (time, feature), NaN where y is missing.

    Raises
    ------
    DataError
        If the posterior is not that of one sequence, or has other rows than y, or the parameters are those of one
        step where rows are uneven.
    """
    missing = [name for name in ("gamma", "cov", "cross_cov") if name not in posterior]
    if missing or posterior["gamma"].ndim != 2:
        raise DataError(
            f"expected gamma, cov and cross_cov of one sequence, got {listed(posterior.data_vars)} with dims "
            f"{listed(posterior.dims)}: pass e_step(y) of a linear-Gaussian model."
        )
    gamma = posterior["gamma"].transpose(..., "state")
    time = str(gamma.dims[0])
    if "steps" in str(params["transition"].attrs.get("step", "")) and time not in params["transition"].dims:
        raise DataError("the dynamics in params are those of one step, but rows are uneven: pass parameters_at(y).")
    mean, cov = gamma.values, posterior["cov"].transpose(time, "state", "state_aux").values
    cross = posterior["cross_cov"].transpose(time, "state", "next_state").values[:-1]
    A, Q, b = (_rows(params, name, len(mean)) for name in ("transition", "process_cov", "state_offset"))
    C, R, d = (_rows(params, name, len(mean)) for name in ("observation", "measurement_cov", "observation_offset"))
    values = np.asarray(y, dtype=float).reshape(len(y), -1)
    if values.shape != (len(mean), C.shape[1]):
        raise DataError(f"y has shape {values.shape}, expected {(len(mean), C.shape[1])} as the posterior.")
    shock = mean[1:] - (A[:-1] @ mean[:-1, :, None])[:, :, 0] - b[:-1]
    linked = A[:-1] @ cross
    left = cov[1:] - linked - linked.swapaxes(1, 2) + A[:-1] @ cov[:-1] @ A[:-1].swapaxes(1, 2)
    state = np.full(mean.shape, np.nan)
    state[:-1] = _scaled(shock, _diagonal(Q[:-1]), _diagonal(left))
    error = values - (C @ mean[:, :, None])[:, :, 0] - d
    measurement = _scaled(error, _diagonal(R), _diagonal(C @ cov @ C.swapaxes(1, 2)))
    found = xr.Dataset(
        {"state_shock": (gamma.dims, state), "measurement_shock": ((time, "feature"), measurement)},
        {"feature": params["feature"].values, "state": gamma["state"].values},
    )
    found = found.assign_coords({time: gamma[time]} if time in gamma.coords else {})
    for name in found.data_vars:
        found[name].attrs["conditioning"] = "1:T"
    return found


def _rows(params: xr.Dataset, name: str, n_rows: int) -> Floats:
    """Values (N, ...) of a parameter, constant or one a row; offsets that the model lacks are zero."""
    dims = {
        "transition": ("next_state", "state"), "process_cov": ("state", "state_aux"),
        "observation": ("feature", "state"), "measurement_cov": ("feature", "feature_aux"),
        "state_offset": ("state",), "observation_offset": ("feature",),
    }[name]  # fmt: skip
    if name not in params:
        return np.zeros((n_rows, params.sizes[dims[0]]))
    value = params[name].transpose(..., *dims).values
    return np.broadcast_to(value, (n_rows, *value.shape)) if value.ndim == len(dims) else value[:n_rows]


def _diagonal(matrices: Floats) -> Floats:
    return np.diagonal(matrices, axis1=1, axis2=2)


def _scaled(shock: Floats, variance: Floats, left: Floats) -> Floats:
    """Shocks by the standard deviation of their estimates: what the data explain of their variance."""
    explained = variance - left
    known = explained > EXACT * variance
    return np.asarray(np.where(known, shock / np.sqrt(np.where(known, explained, 1.0)), np.nan))
