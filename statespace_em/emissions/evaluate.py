"""Any family over many rows, in blocks that fit the cache."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.domains import lifted
from statespace_em.emissions.base import EmissionFamily, HasDomains
from statespace_em.kernels.emissions import diagonal_sums

BLOCK = 4096  # rows evaluated at a time, so that temporaries stay in the cache


@cache
def params_type(names: tuple[str, ...]) -> Any:
    """Return a NamedTuple with these fields: all that a family asks of its parameters."""
    return namedtuple("Params", names)


def add(left: Any, right: Any) -> Any:
    """Add the statistics of two sets of rows."""
    return type(left)(*(a + b for a, b in zip(left, right)))


def blocks(n_rows: int) -> Iterator[slice]:
    """Split rows into blocks that fit the cache."""
    return (slice(begin, min(begin + BLOCK, n_rows)) for begin in range(0, n_rows, BLOCK))


def log_density(family: EmissionFamily[Any, Any], params: Any, y: Floats) -> Floats:
    """Log densities (N, K) of all rows, evaluated block by block."""
    first = family.log_prob(params, y[:BLOCK])
    if len(y) <= BLOCK:
        return np.ascontiguousarray(first)
    result = np.empty((len(y), first.shape[1]))
    for rows in blocks(len(y)):
        result[rows] = family.log_prob(params, y[rows])
    return result


def family_statistics(family: EmissionFamily[Any, Any], params: Any, y: Floats, weights: Floats) -> Any:
    """Statistics of all rows, added up block by block."""
    total = None
    for rows in blocks(len(y)):
        part = family.statistics(params, y[rows], weights[rows])
        total = part if total is None else add(total, part)
    return total


def guessed_emission(family: EmissionFamily[Any, Any], y: Floats, gamma: Floats) -> Any:
    """One M-step on guessed responsibilities; the second pass is around the first one's means, which is exact."""
    params = None
    for _ in range(2):
        params = family.m_step(family_statistics(family, params, y, gamma), params)
    return params


def emission_lifted(family: Any, params: Any, image: Any) -> Any | None:
    """Parameters with vanishing but growing probabilities raised; None if the family has none."""
    names = tuple(family.dims)
    if not isinstance(family, HasDomains):
        return None
    values = {name: getattr(params, name) for name in names}
    raised = {n: lifted(v, getattr(image, n)) for n, v in values.items() if family.domains[n] == "simplex"}
    found = {name: value for name, value in raised.items() if value is not None}
    return params_type(names)(**(values | found)) if found else None


def emission_arranged(family: EmissionFamily[Any, Any], params: Any, order: Ints) -> Any:
    """Parameters of a family with the states in this order."""
    values = {}
    for name, dims in family.dims.items():
        value = getattr(params, name)
        values[name] = value[order] if dims[0] == "state" else value
    return params_type(tuple(family.dims))(**values)


def column_scale(y: Floats) -> Floats:
    """Standard deviation of each column, the unit in which the accelerator measures locations."""
    centre = np.zeros((y.shape[1], 1))
    for _ in range(2):  # around the mean, where squares keep their digits
        count, first, second = np.zeros((3, *centre.shape))
        for rows in blocks(len(y)):
            diagonal_sums(y[rows], centre, np.ones((1, len(y[rows]))), count, first, second)
        count = np.maximum(count, 1.0)
        centre = centre + first / count
    spread = np.sqrt(second[:, 0] / count[:, 0])
    return np.asarray(np.where(spread > 0.0, spread, 1.0))
