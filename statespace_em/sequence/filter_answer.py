"""What a Kalman filter found, with its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from statespace_em.labels import Labels
from statespace_em.sequence.filter_row import DIMS, SEEN, Guarded
from statespace_em.sequence.lgssm_passes import Filtered


def filter_dataset(found: Filtered | Guarded, labels: Labels, state_coords: Mapping[str, Any]) -> xr.Dataset:
    """Label the answer of a filter, plain or guarded; each variable says what it has seen."""
    values = _plain(found) if isinstance(found, Filtered) else found._asdict()
    outside = values.get("outside")
    if outside is not None:
        values["outside"] = np.where(outside, 1.0, 0.0)  # padding of ragged sequences is not outside either
    rows = {name: (DIMS[name], values[name]) for name in SEEN if name in values}
    coords = {**state_coords, "feature": labels.features, "feature_aux": labels.features}
    dataset = labels.dataset(rows, coords)
    if outside is not None:
        dataset["outside"] = dataset["outside"] == 1.0
    for name in dataset.data_vars:
        dataset.variables[name].attrs["conditioning"] = SEEN[str(name)]
    return dataset


def _plain(found: Filtered) -> dict[str, Any]:
    return {
        "filtered": found.filtered_mean, "predicted": found.predicted_mean, "filtered_cov": found.filtered_cov,
        "predicted_cov": found.predicted_cov, "innovation": found.innovation,
        "innovation_cov": found.innovation_cov, "log_likelihood": found.log_likelihood,
    }  # fmt: skip
