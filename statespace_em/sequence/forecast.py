"""Forecasts of any sequence model: draws of parameters averaged, quantiles of the mixture, densities, labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from statespace_em._typing import AnyArray, Floats
from statespace_em.data import Batch
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import Labels, show
from statespace_em.predictive import Part, Predictive, joined

DRAWS = ("draw", "replicate")  # dims along which parameters are equally probable
SPREADS = {"variance": "mean", "cov": "mean", "predicted_cov": "predicted"}  # second moments and what they are around


def check_levels(levels: Any) -> Floats:
    """Levels of quantiles as an array; none for None.

    Raises
    ------
    ParameterError
        If one is not strictly between 0 and 1.
    """
    values = _numbers("quantiles", [] if levels is None else levels)
    bad = ~((values > 0.0) & (values < 1.0))
    if bad.any():
        raise ParameterError(f"quantiles holds {show(values[bad][0])}, expected levels between 0 and 1, such as 0.05.")
    return values


def _numbers(name: str, given: Any) -> Floats:
    try:
        return np.atleast_1d(np.asarray(given, dtype=float))
    except (TypeError, ValueError):
        raise ParameterError(f"{name} is {show(given)}, expected a list of numbers.") from None


def parameter_draws(params: xr.Dataset) -> list[xr.Dataset]:
    """One Dataset a draw where parameters come with a dim ``draw``, or `bootstrap`'s ``replicate``; else just these."""
    dim = next((name for name in DRAWS if name in params.dims), None)
    if dim is None:
        return [params]
    return [params.isel({dim: i}, drop=True) for i in range(params.sizes[dim])]


def merged(predictives: Sequence[Predictive]) -> Predictive:
    """Mixture of equally probable predictive distributions."""
    if len(predictives) == 1:
        return predictives[0]
    share = 1.0 / len(predictives)
    parts = [Part(part.weight * share, part.components) for one in predictives for part in one.parts]
    return Predictive(joined(parts), predictives[0].discrete)


def averaged(forecasts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Moments over equally probable forecasts: means of means, and the law of total variance."""
    if len(forecasts) == 1:
        return forecasts[0]
    attrs = {name: forecasts[0][name].attrs for name in forecasts[0].data_vars}
    every = xr.concat(forecasts, "draw", coords="minimal", compat="override")
    result = every.mean("draw")
    for name, centre in SPREADS.items():
        if name in every:
            away = every[centre] - result[centre]
            twice = away
            for dim in every[name].dims:
                if str(dim).endswith("_aux"):
                    twice = away.rename({str(dim).removesuffix("_aux"): dim})
            spread = (away * twice).mean("draw").transpose(*result[name].dims)
            result[name] = result[name] + spread
    for variable, own in attrs.items():
        result[variable].attrs = own
    return result.assign_coords({n: c for n, c in forecasts[0].coords.items() if n not in result.coords})


def add_quantiles(dataset: xr.Dataset, predictive: Predictive, levels: Floats) -> xr.Dataset:
    """Add ``quantile`` (..., level, feature) to a Dataset with ``mean`` (..., feature)."""
    if not len(levels):
        return dataset
    if "mean" not in dataset:
        raise ParameterError("symbols have no order and so no quantiles: use prob, or leave quantiles out.")
    mean = dataset["mean"]
    values = np.stack([predictive.quantile(level) for level in levels])
    quantile = xr.DataArray(values.reshape(len(levels), *mean.shape), dims=("level", *mean.dims), attrs=mean.attrs)
    return dataset.assign(quantile=quantile.transpose(*mean.dims[:-1], "level", "feature")).assign_coords(level=levels)


def density_dataset(forecast: xr.Dataset, predictive: Predictive, at: Any) -> xr.Dataset:
    """Density and distribution function at given values, labelled like the mean (..., feature) of a forecast."""
    if "mean" not in forecast:
        raise ParameterError("symbols have no density: the probabilities are in prob of forecast(y, horizon).")
    mean = forecast["mean"]
    values = _numbers("at", at)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ParameterError("at holds no numbers to evaluate the density at, or has more than one axis: pass a list.")
    every = values.reshape(-1, 1, 1, 1)  # before sequence, horizon, feature
    found = {}
    for name, function in (("density", predictive.density), ("cdf", predictive.cdf)):
        array = xr.DataArray(function(every).reshape(len(values), *mean.shape), dims=("value", *mean.dims))
        found[name] = array.transpose(*mean.dims[:-1], "value", "feature").assign_attrs(mean.attrs)
    return xr.Dataset(found, mean.coords).assign_coords(value=values)


def one_sequence(batch: Batch, labels: Labels) -> int:
    """Last row of the one sequence there is, a panel of one too, or DataError."""
    if len(labels.keys) > 1:
        raise DataError(f"y has {len(labels.keys)} sequences: simulate how one of them goes on.")
    return len(batch.y) - 1


def future_paths(states: AnyArray, y: Floats, params: xr.Dataset) -> xr.Dataset:
    """Label simulated paths: names (path, horizon) or values (path, horizon, n) of states, and y, codes as symbols."""
    values = params["symbol"].values[y.astype(int)] if "symbol" in params.coords else y
    dims = ("path", "horizon", "state_name")[: states.ndim]
    features = np.atleast_1d(params["feature"].values)
    return xr.Dataset(
        {"y": (("path", "horizon", "feature"), values), "state": (dims, states)},
        {"horizon": np.arange(1, y.shape[1] + 1), "feature": features},
    )
