"""Auxiliary residuals: which shocks of a linear-Gaussian model were larger than its noises allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import Floats, Ints
from statespace_em.data import as_batch
from statespace_em.errors import DataError
from statespace_em.labels import Labels, listed, seeing, show
from statespace_em.segments import matched

MOMENTS = {"gamma": ("state",), "cov": ("state", "state_aux"), "cross_cov": ("state", "next_state")}
UNITS = ("W", "D", "h", "min", "s", "ms", "us", "ns")
EVEN = 1e-6  # relative difference between steps that are the same
EXACT = 1e-9  # share of a variance below which its difference from another is round-off


def auxiliary_residuals(y: Any, posterior: xr.Dataset, params: xr.Dataset) -> xr.Dataset:
    """Smoothed disturbances by their standard deviations: breaks show in the states', outliers in the measurements'.

    Under the model each is standard normal, but neighbours are correlated (Harvey & Koopman 1992; Durbin & Koopman
    2012, sec. 7.5).

    Parameters
    ----------
    y
        The measurements ([sequence,] time, feature), in any container that the model takes.
    posterior
        What ``e_step(y)`` returned for them.
    params
        The parameters that it was computed with; of a model in continuous time its ``parameters_at(y)``.

    Returns
    -------
    xarray.Dataset
        ``state_shock`` ([sequence,] time, state): the disturbance that leads from each row to the next, NaN in the
        last row and where there is no noise; ``measurement_shock`` (time, feature), NaN where y is missing.

    Raises
    ------
    DataError
        If the posterior is not that of a linear-Gaussian model, or has other rows than y, or the parameters are those
        of one step where rows are another apart.
    """
    missing = [name for name in MOMENTS if name not in posterior]
    if missing:
        raise DataError(
            f"expected gamma, cov and cross_cov, got {listed(posterior.data_vars)}: pass e_step(y) of a "
            "linear-Gaussian model."
        )
    batch, labels, _ = as_batch(y, features=np.atleast_1d(params["feature"].values))
    mean, cov, cross = (_of_rows(posterior[name], labels, dims) for name, dims in MOMENTS.items())
    lost = [name for name in ("transition", "process_cov", "observation", "measurement_cov") if name not in params]
    if lost:
        raise DataError(
            f"the parameters have no {lost[0]}: add it, also where the model fixes it, as params_ of a fit has."
        )
    _check_steps(params["transition"], labels)
    number = np.arange(len(mean)) - np.repeat(batch.starts[:-1] - _begins(params, labels), batch.lengths)
    A, Q, b = (_rows(params, name, number, labels) for name in ("transition", "process_cov", "state_offset"))
    C, R, d = (_rows(params, name, number, labels) for name in ("observation", "measurement_cov", "observation_offset"))
    before = np.setdiff1d(np.arange(len(mean)), batch.starts[1:] - 1)  # rows with one after them
    shock = mean[before + 1] - (A[before] @ mean[before, :, None])[:, :, 0] - b[before]
    linked = A[before] @ cross[before]
    left = cov[before + 1] - linked - linked.swapaxes(1, 2) + A[before] @ cov[before] @ A[before].swapaxes(1, 2)
    state = np.full(mean.shape, np.nan)
    state[before] = _scaled(shock, _diagonal(Q[before]), _diagonal(left))
    error = batch.y - (C @ mean[:, :, None])[:, :, 0] - d
    measurement = _scaled(error, _diagonal(R), _diagonal(C @ cov @ C.swapaxes(1, 2)))
    found = labels.dataset(
        {"state_shock": (("state",), state), "measurement_shock": (("feature",), measurement)},
        {"feature": params["feature"].values, "state": posterior["gamma"]["state"].values},
    )
    return seeing(found, "1:T")


def _check_steps(transition: xr.DataArray, labels: Labels) -> None:
    """Refuse dynamics of one step that are not those between the rows."""
    told = str(transition.attrs.get("step", ""))
    if labels.time in transition.dims:
        return
    remedy = "pass parameters_at(y)."
    if "steps" in told:
        apart = f"{transition.attrs.get('row_step', 1.0):g} apart, not {told.partition(',')[0]}"
        rows = "uneven" if "uneven" in told else apart
        raise DataError(f"the dynamics in params are those of one step, but rows are {rows}: {remedy}")
    step = transition.attrs.get("row_step", np.nan)  # where they follow from times
    for index in labels.times:
        off = np.abs(_gaps(index, str(transition.attrs.get("time_units"))) - step) > EVEN * step
        if off.any():
            row = int(np.argmax(off))
            raise DataError(
                f"the dynamics in params are those of a step of {told}, but rows at {labels.time} {show(index[row])} "
                f"and {show(index[row + 1])} are not one apart: {remedy}"
            )


def _gaps(index: pd.Index, unit: str) -> Floats:
    """Times between rows, in a unit where they are dates; none where there is none, or they are no numbers."""
    if isinstance(index, pd.DatetimeIndex) and unit in UNITS:
        return np.asarray(np.diff(index) / pd.Timedelta(f"1 {unit}"), dtype=np.float64)
    return np.diff(index.to_numpy(dtype=float)) if pd.api.types.is_numeric_dtype(index) else np.zeros(0)


def _of_rows(moment: xr.DataArray, labels: Labels, dims: tuple[str, ...]) -> Floats:
    """Moments (N, ...) of the rows of all sequences."""
    lead = [str(dim) for dim in moment.dims if dim not in dims]
    sequences = labels.sequence is not None
    shape = (*((len(labels.keys),) if sequences else ()), int(labels.lengths.max()))
    got = tuple(moment.sizes[dim] for dim in lead)
    if got != shape:
        raise DataError(f"the posterior has {listed(lead)} of {got}, expected {shape} as y.")
    values = moment.transpose(*lead, *dims).values
    return values[np.arange(shape[-1]) < labels.lengths[:, None]] if sequences else values


def _begins(params: xr.Dataset, labels: Labels) -> Ints:
    """First row (S,) of what varies by row in the parameters: of each sequence, where each has some of its own."""
    if "sequence" not in params.coords or params["sequence"].dims != ("time",):
        return np.zeros(len(labels.keys), np.int64)
    owners = params["sequence"].values.tolist()
    have = list(dict.fromkeys(owners))
    return np.array([owners.index(have[i]) for i in matched(have, labels.keys.tolist(), "the parameters are for")])


def _rows(params: xr.Dataset, name: str, number: Ints, labels: Labels) -> Floats:
    """Values (N, ...) of a parameter, constant or one a row; offsets that the model lacks are zero."""
    dims = {
        "transition": ("next_state", "state"), "process_cov": ("state", "state_aux"),
        "observation": ("feature", "state"), "measurement_cov": ("feature", "feature_aux"),
        "state_offset": ("state",), "observation_offset": ("feature",),
    }[name]  # fmt: skip
    if name not in params:
        return np.zeros((len(number), params.sizes[dims[0]]))
    if labels.sequence in params[name].dims:
        return _of_rows(params[name], labels, dims)
    value = params[name].transpose(..., *dims).values
    if value.ndim == len(dims):
        return np.broadcast_to(value, (len(number), *value.shape))
    if len(number) and len(value) <= number.max():
        raise DataError(f"{name} in the parameters has {len(value)} rows, but y goes on to row {number.max()}.")
    return np.asarray(value[number])


def _diagonal(matrices: Floats) -> Floats:
    return np.diagonal(matrices, axis1=1, axis2=2)


def _scaled(shock: Floats, variance: Floats, left: Floats) -> Floats:
    """Shocks by the standard deviation of their estimates: what the data explain of their variance."""
    explained = variance - left
    known = explained > EXACT * variance
    return np.asarray(np.where(known, shock / np.sqrt(np.where(known, explained, 1.0)), np.nan))
