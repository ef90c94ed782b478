"""Residuals as labelled results."""

from __future__ import annotations

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em.data import Batch
from statespace_em.labels import Labels, seeing
from statespace_em.predictive import Predictive


def labelled_residuals(predictive: Predictive, batch: Batch, labels: Labels, seed: int) -> xr.Dataset:
    """Probability integral transforms and normal scores of every entry of y under its predictive distribution."""
    _validate.at_least("seed", seed, 0, whole=True)
    pit, normal = predictive.scores(batch.y, np.random.default_rng(seed))
    rows = {"pit": (("feature",), pit), "residual": (("feature",), normal)}
    dataset = labels.dataset(rows, {"feature": labels.features})
    seeing(dataset, "1:t-1")
    dataset["pit"].attrs["description"] = "uniform on (0, 1) under the model, independent over rows and columns"
    dataset["residual"].attrs["description"] = "standard normal under the model, independent over rows and columns"
    return dataset
