"""What the values of a linear-Gaussian model must be: refused before work is done."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import DataError, ParameterError
from statespace_em.patterns import Pattern
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


def check_given(spec: Specification, given: Mapping[str, Floats]) -> None:
    """Refuse a start that the structure does not allow."""
    for name, value in given.items():
        if name not in spec.patterns or name in ("initial_mean", "initial_cov"):
            continue
        pattern, loading = spec.patterns[name], spec.loadings.get(name)
        shape = pattern.shape if loading is None else (len(loading), len(loading))
        if shape != value.shape:
            raise ParameterError(f"{name} has shape {value.shape} in start, the model has {shape}.")
        if not holds(pattern, loading, value):
            raise ParameterError(
                f"{name} in start is not of the structure given to the model: its fixed entries must have their "
                "values, and tied ones the same."
            )


def holds(pattern: Pattern, loading: Floats | None, value: Floats) -> bool:
    """Whether a value is of a pattern, or what a loading makes of one."""
    if loading is None:
        return pattern.holds(value)
    left = np.linalg.pinv(loading)
    inner = left @ value @ left.T
    off = np.abs(loading @ inner @ loading.T - value).max(initial=0.0)
    return pattern.holds(inner) and bool(off <= 1e-8 * np.abs(value).max(initial=0.0))


def plain(params: xr.Dataset, name: str) -> Floats:
    """Value of a parameter with its axes in order."""
    return np.asarray(params[name].transpose(*DIMS[name]).values, dtype=float)
