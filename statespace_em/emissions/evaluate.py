"""Any family over many rows: in blocks that fit the cache, and as a vector for the accelerator."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.domains import Domain, from_vector, gradient_vector, lifted, n_coordinates, n_free, to_vector
from statespace_em.emissions.base import EmissionFamily, HasDomains, HasScore
from statespace_em.emissions.sharing import at_states, own_gradient, own_values
from statespace_em.kernels.emissions import diagonal_sums

STEP = 1e-5  # of the differences of a family that does not know its score; coordinates are of order 1
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


_STATES_DOMAINS: dict[type, bool] = {}


def _states_domains(family: Any) -> bool:
    """Whether a family states its domains, asked once a class: to compare with a protocol takes as long as a kernel."""
    kind = type(family)
    if kind not in _STATES_DOMAINS:
        _STATES_DOMAINS[kind] = isinstance(family, HasDomains)
    return _STATES_DOMAINS[kind]


def emission_vector(family: Any, params: Any, reference: Any, scale: Floats, frozen: tuple[str, ...]) -> Floats | None:
    """Unconstrained coordinates of the free parameters of a family that states its domains."""
    free = [name for name in family.dims if name not in frozen]
    if free and not _states_domains(family):
        return None
    pairs = {n: (own_values(family, n, getattr(params, n)), own_values(family, n, getattr(reference, n))) for n in free}
    parts = [to_vector(*pairs[n], family.domains[n], scale) for n in free]
    return np.concatenate(parts) if parts else np.empty(0)


def emission_from_vector(family: Any, vector: Floats, reference: Any, scale: Floats, frozen: tuple[str, ...]) -> Any:
    """Inverse of `emission_vector`."""
    values = {}
    for name in family.dims:
        values[name] = getattr(reference, name)
        if name not in frozen:
            origin = own_values(family, name, values[name])
            size = n_coordinates(origin, family.domains[name])
            values[name] = at_states(family, name, from_vector(vector[:size], origin, family.domains[name], scale))
            vector = vector[size:]
    return params_type(tuple(family.dims))(**values)


def emission_score(
    family: Any, params: Any, y: Floats, weights: Floats, reference: Any, scale: Floats, frozen: tuple[str, ...]
) -> Floats:
    """Gradient, in the coordinates, of the weighted log density of all rows; weights (N, K)."""
    if isinstance(family, HasScore):
        statistics = family_statistics(family, params, y, weights)  # type: ignore[arg-type]
        return emission_gradient(family, params, statistics, reference, scale, frozen)
    return emission_differences(family, params, y, weights, reference, scale, frozen)


def emission_gradient(
    family: Any, params: Any, statistics: Any, reference: Any, scale: Floats, frozen: tuple[str, ...]
) -> Floats:
    """Gradient of the expected log density that the statistics stand for, of a family that knows its score."""
    free = [name for name in family.dims if name not in frozen]
    score = family.score(params, statistics) if free else {}
    parts = [np.empty(0)]
    for name in free:
        value, origin = (own_values(family, name, getattr(tree, name)) for tree in (params, reference))
        parts.append(
            gradient_vector(own_gradient(family, name, score[name]), value, origin, family.domains[name], scale)
        )
    return np.concatenate(parts)


def emission_differences(
    family: Any, params: Any, y: Floats, weights: Floats, reference: Any, scale: Floats, frozen: tuple[str, ...]
) -> Floats:
    """Gradient of the weighted log density of all rows by differences, for a family that does not know its score."""

    def total(vector: Floats) -> float:
        log_b = log_density(family, emission_from_vector(family, vector, reference, scale, frozen), y)
        return float((weights * np.where(weights > 0.0, log_b, 0.0)).sum())

    centre = emission_vector(family, params, reference, scale, frozen)
    assert centre is not None
    steps = STEP * np.eye(len(centre))
    return np.array([(total(centre + step) - total(centre - step)) / (2.0 * STEP) for step in steps])


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


def emission_n_free(family: Any, params: Any, frozen: tuple[str, ...]) -> int:
    """Count the free parameters of a family; entry by entry where it does not state its domains."""
    real: Domain = "real"
    domains = family.domains if isinstance(family, HasDomains) else dict.fromkeys(family.dims, real)
    free = (name for name in family.dims if name not in frozen)
    return sum(n_free(own_values(family, name, getattr(params, name)), domains[name]) for name in free)


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
