"""What the values of a linear-Gaussian model must be: refused before work is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import DataError, ParameterError
from statespace_em.sequence.lgssm_params import DOMAINS
from statespace_em.sequence.lgssm_specification import DIMS, Specification


def check_values(arrays: Mapping[str, Floats]) -> None:
    """Refuse values that are not finite, or no covariances."""
    for name, value in arrays.items():
        if name == "initial_cov" and np.isinf(np.diag(value)).any():
            known = np.isfinite(np.diag(value))
            if value[~known][:, known].any() or not (value[~known][:, ~known] == np.diag(np.diag(value)[~known])).all():
                raise ParameterError("initial_cov has a covariance with a diffuse state, expected 0 there.")
            value = value[np.ix_(known, known)]
        if DOMAINS.get(name) == "covariance":
            for part in value.reshape(-1, *value.shape[-2:]) if value.size else ():
                _validate.covariance(name, part, (), semi=True)
        elif name != "initial_mean" or not np.isnan(value).any():
            _validate.finite("number", name, value)


def check_rows(spec: Specification, batch: Batch) -> None:
    """Refuse data longer than a matrix that is given for every row."""
    longest = int(np.diff(batch.starts).max())
    for name, value in spec.varying.items():
        if len(value) < longest:
            raise DataError(f"{name} is given for {len(value)} rows, but y has {longest}: give it for every row.")


def check_given(patterns: Mapping[str, Any], given: Mapping[str, Floats]) -> None:
    """Refuse a start that the structure does not allow."""
    for name, value in given.items():
        if name in patterns and name not in ("initial_mean", "initial_cov"):
            if patterns[name].shape != value.shape:
                raise ParameterError(f"{name} has shape {value.shape} in start, the model has {patterns[name].shape}.")
            if not patterns[name].holds(value):
                raise ParameterError(
                    f"{name} in start is not of the structure given to the model: its fixed entries must have their "
                    "values, and tied ones the same."
                )


def plain(params: xr.Dataset, name: str) -> Floats:
    """Value of a parameter with its axes in order."""
    return np.asarray(params[name].transpose(*DIMS[name]).values, dtype=float)
