"""Stated rules for the order of states: EM cannot know which regime is which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats, Ints
from statespace_em.emissions.base import EmissionFamily, HasMoments
from statespace_em.errors import ParameterError
from statespace_em.labels import listed, show

Family: TypeAlias = EmissionFamily[Any, Any]
Order: TypeAlias = Callable[[Family, Any, Callable[[], xr.Dataset]], Ints]  # family, parameters, what labels them

WORDS = ("mean", "variance", "persistence")


def rule(order_by: Any, support: str, *, words: tuple[str, ...] = WORDS) -> Order | None:
    """Return the function that gives the permutation (K,) for a rule, or None where states stay as they fell.

    Parameters
    ----------
    order_by
        "mean": by the mean of the state, upwards; of several columns by the average over columns of the mean in
        units of the column's typical standard deviation, so that units do not matter. "variance": by the variance,
        upwards; of several columns by the average of its logarithm. "persistence": by the probability to stay,
        upwards. ("mean", column) and ("variance", column): by one column alone. A function: of the labelled
        parameters, returning one number a state, upwards. Ties are broken by the other moments.
    support
        Of the family: symbols have neither mean nor variance.
    words
        Rules that the model offers.

    Raises
    ------
    ParameterError
        If the rule is none of these, or the family does not have what it needs.
    """
    if order_by is None:
        return None
    if callable(order_by):
        return lambda family, params, label: np.argsort(_scores(order_by, label()), kind="stable")
    paired = isinstance(order_by, tuple | list) and len(order_by) == 2 and order_by[0] in WORDS[:2]
    word, column = order_by if paired else (order_by, None)
    _validate.one_of("order_by", word, (*words, None))
    if support == "category" and word != "persistence":
        raise ParameterError(
            f'order_by is {order_by!r}, but symbols have no {word}: use "persistence", a function of the parameters, '
            "or None."
        )

    def order(family: Family, params: Any, label: Callable[[], xr.Dataset]) -> Ints:
        keys = [] if support == "category" else _moments(family, params.emission, label, column)
        if word == "variance":
            keys.reverse()
        if word == "persistence":
            keys.insert(0, np.diag(params.transition))
        return np.lexsort(keys[::-1])

    return order


def _moments(family: Family, emission: Any, label: Callable[[], xr.Dataset], column: Any) -> list[Floats]:
    """Mean and log variance (K,) of every state."""
    if isinstance(family, HasMoments):
        mean, var = family.moments(emission)
    else:
        marginals = family.marginals(emission)
        mean, var = (np.asarray(value, dtype=float) for value in (marginals.mean(), marginals.var()))
    if column is not None:
        features = np.atleast_1d(label()["feature"].values).tolist()
        if column not in features:
            raise ParameterError(f"order_by names column {show(column)}, but y has {listed(features)}.")
        mean, var = (value[:, [features.index(column)]] for value in (mean, var))
    typical = np.sqrt(var.mean(0))
    with np.errstate(divide="ignore"):  # a state of nothing but zero counts has no variance and comes first
        return [(mean / np.where(typical > 0.0, typical, 1.0)).mean(1), np.log(var).mean(1)]


def _scores(function: Callable[[xr.Dataset], Any], labelled: xr.Dataset) -> Floats:
    found = function(labelled)
    scores = np.asarray(found, dtype=float)
    if scores.shape != (labelled.sizes["state"],) or np.isnan(scores).any():
        raise ParameterError(
            f"the function of order_by returned {scores!r}, expected one number for each of the "
            f"{labelled.sizes['state']} states."
        )
    return scores
