"""Stated rules for the order of states: EM cannot know which regime is which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from statespace_em import _validate
from statespace_em._typing import Floats, Ints
from statespace_em.emissions.base import EmissionFamily

Order: TypeAlias = Callable[[EmissionFamily[Any, Any], Any], Ints]


def _means(family: EmissionFamily[Any, Any], params: Any) -> Floats:
    mean: Floats = np.asarray(family.marginals(params).mean(), dtype=float)
    return np.asarray(mean.mean(1))


def _variances(family: EmissionFamily[Any, Any], params: Any) -> Floats:
    var: Floats = np.asarray(family.marginals(params).var(), dtype=float)
    with np.errstate(divide="ignore"):  # a state of nothing but zero counts has no variance and comes first
        return np.asarray(np.log(var).mean(1))


RULES = {"mean": _means, "variance": _variances}


def rule(name: str | None) -> Order | None:
    """Return the function that gives the permutation (K,) for a rule, or None where states stay as they fell.

    "mean" sorts by the mean over features of the state's mean, "variance" by that of its log variance, both upwards;
    ties, as the variances of a tied covariance are, by the other one.
    """
    _validate.one_of("order_by", name, (*RULES, None))
    if name is None:
        return None
    first, second = (_means, _variances) if name == "mean" else (_variances, _means)
    return lambda family, params: np.lexsort((second(family, params), first(family, params)))
