"""Seven sequences of every kind of model, for the tests of chunked data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from hmm_cases import case

import statespace_em as sse

DIMS = ("sequence", "time", "feature")
KEYS = list("ABCDEFG")
LENGTHS = np.array([30, 20, 30, 10, 28, 30, 5])
DAYS = pd.date_range("2020-01-01", periods=30, name="day")


def model_and_params(kind):
    """Model, parameters and seven sequences of 30 rows drawn from them."""
    if kind == "linear":
        model = sse.LinearGaussianSSM(["level", "slope"])
        params = model.parameters(
            transition=[[1, 1], [0, 0.9]], process_cov=0.1 * np.eye(2), observation=[[1, 0], [0.5, 1]],
            measurement_cov=np.eye(2), initial_mean=[0, 0], initial_cov=np.eye(2),
        )  # fmt: skip
    elif kind == "mixture":
        model = sse.Mixture(["low", "high"], sse.emissions.Gaussian("diagonal"), order_by="mean")
        params = model.parameters(weight=[0.4, 0.6], mean=[[0, 0], [3, 3]], var=np.ones((2, 2)))
    else:
        model, params, _ = case(kind, 2, 30, 0)
    draws = [model.sample(30, params, seed=seed)["y"].values for seed in range(7)]
    return model, params, np.stack(draws)


def data_of(kind, *, ragged=True):
    model, params, y = model_and_params(kind)
    coords = {"sequence": KEYS, "day": DAYS}
    if ragged:
        coords["length"] = ("sequence", LENGTHS)
    if y.dtype.kind == "f":
        y[0, 3] = np.nan
        y[1, 5, -1] = np.nan
    else:
        y = y.astype(str)
    array = xr.DataArray(y, coords, ("sequence", "day", "feature"), name="obs")
    return model, params, array.isel(feature=0, drop=True) if kind == "categorical" else array


def fresh(model):
    return type(model)(**model.get_params())
