"""What labelled models ask about a family: the dims shown, checks of values and data, a summary, a suggested_prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import AnyArray, Bools, Floats
from statespace_em.data import Batch
from statespace_em.emissions.base import EmissionFamily, HasDomains, HasFloor
from statespace_em.emissions.sharing import Ties
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import listed, show

Family = EmissionFamily[Any, Any]
KNOWN = {"initial", "weight", "mean", "rate", "var", "cov", "prob"}  # parameters that a summary shows in their own way
NEEDED = ("support", "dims", "log_prob", "statistics", "m_step", "log_prior")


def check_members(family: Any) -> Family:
    """Return the family, or raise ParameterError where it is not one.

    ``sample`` and ``marginals`` are needed only to simulate, forecast and order states.
    """
    if isinstance(family, type):
        raise ParameterError(f"emission is the class {family.__name__}, expected one made of it: {family.__name__}().")
    missing = [name for name in NEEDED if not hasattr(family, name)]
    if missing:
        raise ParameterError(
            f"emission is {family!r}, which has no {missing[0]}: pass a family such as emissions.Poisson(), or see "
            "statespace_em.emissions.EmissionFamily for what one needs."
        )
    checked: Family = family
    return checked


SINGULAR = 1e-12  # smallest eigenvalue of a correlation matrix below which a column follows from the others
FEW = 64  # rows that mostly tell that a column has values and that they differ


def bound(family: Family, n_symbols: int | None, freeze: Sequence[str], ties: Ties = ()) -> Family:
    """Return the family told of the number of symbols, of what the M-step must leave alone and of what is shared."""
    own: dict[str, Any] = {f.name: getattr(family, f.name) for f in fields(family)} if is_dataclass(family) else {}
    changes: dict[str, Any] = {}
    if n_symbols is not None and "n_symbols" in own:
        changes["n_symbols"] = n_symbols
    frozen = tuple(name for name in freeze if name in family.dims)
    if frozen and len(frozen) < len(family.dims):
        if "frozen" not in own:
            raise ParameterError(
                f"freeze names {frozen[0]!r}, but {type(family).__name__} estimates {', '.join(family.dims)} together: "
                "freeze all of them or none."
            )
        changes["frozen"] = frozen
    if ties:
        if "ties" not in own:
            raise ParameterError(
                f"tie shares {ties[0][0]!r} alone, but {type(family).__name__} estimates {', '.join(family.dims)} "
                "together: let the states share their emissions, as in tie=[['a', 'b']]."
            )
        changes["ties"] = ties
    return replace(family, **changes) if changes else family  # type: ignore[type-var]


def shown_dims(family: Family, n_features: int | None) -> dict[str, tuple[str, ...]]:
    """Dimensions of the parameters as users see them: a single channel of symbols has no feature dim."""
    drop = family.support == "category" and n_features in (None, 1)
    return {name: tuple(d for d in dims if not (drop and d == "feature")) for name, dims in family.dims.items()}


def check_domains(family: Family, arrays: Mapping[str, Floats], states: Sequence[Any]) -> None:
    """Raise ParameterError where a parameter of the family is outside its domain."""
    if isinstance(family, HasDomains):
        for name in family.dims:
            if name in arrays:
                rows = states if family.dims[name][0] == "state" else ()
                _validate.domain(name, arrays[name], family.domains[name], rows)


def check_constant(family: Family, y: Floats, features: Sequence[Any]) -> None:
    """Raise DataError where a column is never seen, never moves, or follows from others: it has no estimate."""
    _check_blank(y, features)
    if isinstance(family, HasFloor) and not family.bounded:
        _check_moves(y, features)
        if "cov" in family.dims:
            _check_independent(y, features)


def check_constant_columns(y: Floats, features: Sequence[Any]) -> None:
    """Raise DataError naming a column of a series that leaves a full covariance without an estimate.

    Precise sensors of one thing that wanders far are told apart by their steps.
    """
    _check_blank(y, features)
    _check_moves(y, features)
    if _follows(y) is not None:
        _check_independent(np.diff(y, axis=0), features)


def _check_blank(y: Floats, features: Sequence[Any]) -> None:
    if not np.isnan(y[:FEW]).all(0).any():
        return
    blank = np.isnan(y).all(0)
    if blank.all():
        raise DataError("every entry of y is missing: there is nothing to fit.")
    if blank.any():
        name = features[int(np.argmax(blank))]
        raise DataError(f"column {show(name)} has no value at all, so it tells nothing: leave it out.")


def _check_moves(y: Floats, features: Sequence[Any]) -> None:
    if (np.diff(y[:FEW], axis=0) != 0.0).any(0).all() and not np.isnan(y[:FEW]).any():
        return
    for column, name in zip(y.T, features):
        seen = ~np.isnan(column)
        if seen.sum() > 1 and not _moves(column, seen):
            raise DataError(
                f"column {show(name)} is constant ({column[seen][0]:g}), so its variance has no estimate: leave it "
                "out, or give the model a prior on variances."
            )


def _moves(column: Floats, seen: Bools) -> bool:
    """Whether the entries that are seen are not all the same."""
    first = column[np.argmax(seen)]
    return bool(((column < first) | (column > first)).any())  # false where missing


def _check_independent(y: Floats, features: Sequence[Any]) -> None:
    """Refuse a column that is a linear combination of those before it."""
    column = _follows(y)
    if column is not None:
        raise DataError(
            f"column {show(features[column])} follows from the columns before it ({listed(features[:column])}), so "
            "their covariance has no estimate: leave it out, or use a diagonal covariance or a prior on it."
        )


def _follows(y: Floats) -> int | None:
    """First column that is a linear combination of those before it, in the rows without a missing entry."""
    if y.shape[1] == 1:
        return None
    columns = np.ascontiguousarray(y.T)  # numpy goes through long rows several times faster than through short ones
    gaps = np.isnan(columns).any(0)
    columns = columns[:, ~gaps] if gaps.any() else columns
    if columns.shape[1] <= len(columns):
        return None
    columns = columns - columns[:, :1]
    if not columns.any(1).all():
        return None
    columns /= np.abs(columns).max(1, keepdims=True)
    columns -= columns.mean(1, keepdims=True)
    products = columns @ columns.T
    scale = np.sqrt(products.diagonal())
    correlation = products / (scale[:, None] * scale)
    least = (np.linalg.eigvalsh(correlation[: d + 1, : d + 1])[0] for d in range(1, len(columns)))
    return next((d for d, value in enumerate(least, start=1) if value < SINGULAR), None)


def suggested_prior(model: str, family: Family, y: Floats) -> str:
    """Return a prior in the units of the data that bounds the likelihood, as a user would write it."""
    var = float(np.nanmean(np.nanvar(y, axis=0)))
    if "var" in family.dims:
        return f"{model}(..., prior=NormalInverseGamma(shape=1, scale={0.02 * var:.2g}))"
    if "cov" in family.dims:
        return f"{model}(..., prior=NormalInverseWishart(dof={y.shape[1] + 2}, scale={0.02 * var:.2g}))"
    return "see statespace_em.priors"


def emission_summary(params: xr.Dataset, table: pd.DataFrame) -> pd.DataFrame:
    """Add the emissions to a table with one row a state: "mean a", "sd a", "corr a,b", "rate a", "P(x)"."""
    for name in ("mean", "rate"):
        if name in params:
            for feature in params["feature"].values:
                table[f"{name} {feature}"] = params[name].sel(feature=feature).values
    for own in [name for name in params.data_vars if name not in KNOWN]:
        if params[own].dims == ("state",):
            table[str(own)] = params[own].values
        if params[own].dims == ("state", "feature"):
            for feature in params["feature"].values:
                table[f"{own} {feature}"] = params[own].sel(feature=feature).values
    if "var" in params:
        sd = params["var"] ** 0.5
        shared = sd if "feature" in sd.dims else sd.expand_dims(feature=params["feature"].values)
        for feature in params["feature"].values:
            table[f"sd {feature}"] = shared.sel(feature=feature).values
    if "cov" in params:
        _add_covariances(params, table)
    if "prob" in params:
        prob: xr.DataArray = (
            params["prob"] if "feature" in params["prob"].dims else params["prob"].expand_dims("feature")
        )
        for feature in prob["feature"].values:
            for symbol in prob["symbol"].values:
                which = f"P({symbol})" if prob.sizes["feature"] == 1 else f"P({feature}={symbol})"
                table[which] = prob.sel(feature=feature, symbol=symbol).values
    return table


def _add_covariances(params: xr.Dataset, table: pd.DataFrame) -> None:
    cov = params["cov"]
    names = cov["feature"].values
    matrices = np.broadcast_to(
        cov.transpose(..., "feature", "feature_aux").values, (len(table), len(names), len(names))
    )
    sd = np.sqrt(np.diagonal(matrices, axis1=1, axis2=2))
    for i, feature in enumerate(names):
        table[f"sd {feature}"] = sd[:, i]
    for i in range(len(names)):
        for j in range(i):
            table[f"corr {names[j]},{names[i]}"] = matrices[:, i, j] / (sd[:, i] * sd[:, j])


def check_rows(batch: Batch, n_states: int) -> None:
    """Refuse data with fewer different rows than states."""
    head = batch.y[: 8 * n_states] + 0.0  # no negative zero: rows are told apart by their bits
    if len({row.tobytes() for row in head[~np.isnan(head).any(1)]}) >= n_states:
        return
    rows = batch.y[~np.isnan(batch.y).all(1)]
    if len(rows) == 0:
        raise DataError("every row of y is missing: there is nothing to fit.")
    if len(rows) < 100_000:  # more rows than that are not all alike in practice
        distinct = len(np.unique(rows, axis=0))
        if distinct < n_states:
            raise DataError(f"y has fewer different rows ({distinct}) than states ({n_states}): ask for fewer states.")


def nearly_singular(arrays: Mapping[str, Floats]) -> list[str]:
    """Names of the covariances among these parameters that are close to singular."""
    found = []
    for name, value in arrays.items():
        if name.endswith("cov") and np.isfinite(value).all():  # a diffuse start has no finite variance
            values = np.linalg.eigvalsh(value)
            if (values[..., 0] < 1e-9 * values[..., -1]).any():
                found.append(name)
    return found


def drawn_dataset(states: AnyArray, y: Floats, params: xr.Dataset) -> xr.Dataset:
    """Label simulated states (N,) and rows (N, D), codes as their symbols."""
    values = params["symbol"].values[y.astype(int)] if "symbol" in params.coords else y
    features = np.atleast_1d(params["feature"].values) if "feature" in params.coords else np.arange(y.shape[1])
    return xr.Dataset(
        {"state": ("time", states), "y": (("time", "feature"), values)},
        {"time": np.arange(len(y)), "feature": features},
    )
