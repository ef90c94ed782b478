"""Known states and weights of rows, read beside y and aligned with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch, as_batch
from statespace_em.errors import DataError
from statespace_em.labels import Labels, listed, show

Unsorted = Literal["error", "sort"]
LABELLED = (pd.Series, pd.DataFrame, xr.DataArray, xr.Dataset)


def with_conditions(
    batch: Batch, labels: Labels, names: Sequence[Any], states: Any, weights: Any, unsorted: Unsorted
) -> Batch:
    """Add known states and weights to a batch; None leaves either out.

    Parameters
    ----------
    states
        Name of the state of each row, missing where it is not known, in a container like that of y.
    weights
        One number a row, in a container like that of y, or one number a sequence.

    Raises
    ------
    DataError
        Naming the value, the place and the remedy.
    """
    if states is not None:
        batch = batch._replace(known=_known(states, labels, names, unsorted))
    if weights is None:
        return batch
    whole = per_sequence(weights, labels)
    if whole is not None:
        check_weights(whole, labels, "sequence")
        return batch._replace(sequence_weight=whole)
    return batch._replace(row_weight=_row_weights(weights, labels, unsorted))


def _known(states: Any, labels: Labels, names: Sequence[Any], unsorted: Unsorted) -> Ints:
    try:
        given, own, _ = as_batch(states, support="category", symbols=names, unsorted=unsorted)
    except DataError as error:
        raise DataError(f"states= cannot be read: {error}".replace("the symbol", "the state")) from None
    _check_alike("states", states, own, labels)
    if given.y.shape[1] != 1:
        raise DataError(f"states= has {given.y.shape[1]} columns, expected one name a row.")
    return np.where(np.isnan(given.y[:, 0]), -1, given.y[:, 0]).astype(np.int64)


def _row_weights(weights: Any, labels: Labels, unsorted: Unsorted) -> Floats:
    try:
        given, own, _ = as_batch(weights, unsorted=unsorted)
    except DataError as error:
        raise DataError(f"weights= cannot be read: {error}") from None
    _check_alike("weights", weights, own, labels)
    if given.y.shape[1] != 1:
        raise DataError(f"weights= has {given.y.shape[1]} columns, expected one number a row.")
    check_weights(given.y[:, 0], labels, "row")
    return np.asarray(given.y[:, 0])


def per_sequence(weights: Any, labels: Labels) -> Floats | None:
    """One number a sequence (S,), in the order of the sequences; None if these are weights of rows."""
    if labels.sequence is None:
        return None
    if isinstance(weights, xr.DataArray):
        if weights.dims != (labels.sequence,):
            return None
        keyed = labels.sequence in weights.coords
        weights = weights.to_series() if keyed else weights.values
    if isinstance(weights, pd.Series):
        if isinstance(weights.index, pd.MultiIndex):
            return None
        weights = dict(zip(weights.index, weights.to_numpy()))
    if isinstance(weights, Mapping):
        if any(np.ndim(value) for value in weights.values()):
            return None
        missing = [key for key in labels.keys if key not in weights]
        strange = [key for key in weights if key not in labels.keys]
        if missing or strange:
            which, remedy = (missing, "give each a number") if missing else (strange, "leave them out")
            word = "has no weight of" if missing else "names what is no sequence of y:"
            raise DataError(f"weights= {word} {labels.sequence} {listed(which)}: {remedy}.")
        weights = [weights[key] for key in labels.keys]
    try:
        values = np.asarray(weights, dtype=float)
    except (TypeError, ValueError):
        return None
    if values.ndim != 1:
        return None
    if len(values) != len(labels.keys):
        raise DataError(
            f"weights= holds {len(values)} numbers, expected one for each of the {len(labels.keys)} sequences, or a "
            "container like y with one number a row."
        )
    return values


def _check_alike(name: str, given: Any, own: Labels, labels: Labels) -> None:
    """Refuse rows that are not those of y."""
    if len(own.times) != len(labels.times):
        raise DataError(f"{name}= has {len(own.times)} sequences, but y has {len(labels.times)}.")
    for key, mine, theirs in zip(labels.keys, labels.times, own.times):
        where = "" if labels.sequence is None else f" in {labels.sequence} {show(key)}"
        if len(mine) != len(theirs):
            raise DataError(f"{name}= has {len(theirs)} rows{where}, but y has {len(mine)}: give one entry a row.")
        if _is_labelled(given) and not mine.equals(theirs):
            row = int(np.argmax(np.asarray(mine != theirs)))
            raise DataError(
                f"{name}= and y are of different rows{where}: row {row} is {show(theirs[row])} there and "
                f"{show(mine[row])} in y. Reindex it like y."
            )


def check_some(weight: Floats | None) -> None:
    """Refuse to fit to rows that all have weight 0."""
    if weight is not None and not weight.any():
        raise DataError("weights= are all zero: there is nothing to fit.")


def _is_labelled(given: Any) -> bool:
    if isinstance(given, Mapping):
        return any(isinstance(part, LABELLED) for part in given.values())
    if isinstance(given, list | tuple):
        return any(isinstance(part, LABELLED) for part in given)
    return isinstance(given, LABELLED)


def check_weights(values: Floats, labels: Labels, kind: Literal["row", "sequence"]) -> None:
    """Refuse weights that are not finite numbers of at least 0."""
    bad = ~(np.isfinite(values) & (values >= 0.0))
    if not bad.any():
        return
    i = int(np.argmax(bad))
    where = labels.where(i) if kind == "row" else f"{labels.sequence} {show(labels.keys[i])}"
    raise DataError(f"weights= holds {values[i]:g} ({where}): expected a finite number of at least 0.")
