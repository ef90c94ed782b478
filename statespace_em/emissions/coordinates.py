"""The free parameters of any family as one vector, for the accelerator and for standard errors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.domains import Domain, gradient_vector, joined, n_free, taken, to_vector
from statespace_em.emissions.base import HasDomains, HasScore
from statespace_em.emissions.evaluate import family_statistics, log_density, params_type
from statespace_em.emissions.sharing import groups_of, representatives, summed_within

STEP = 1e-5  # of the differences of a family that does not know its score; coordinates are of order 1


class _Free(NamedTuple):
    """A parameter with coordinates."""

    name: str
    domain: Domain
    groups: Ints | None  # number of the value in each state, where some states share it
    first: Any  # a state of each group; all states where each has its own

    def own(self, params: Any) -> Floats:
        """Values without repetition."""
        value: Floats = getattr(params, self.name)
        return value if self.groups is None else value[self.first]


class EmissionCoordinates:
    """Unconstrained, unit-free coordinates of what is free; what that is gets worked out once.

    Parameters
    ----------
    family
        The family; it has coordinates if it states its domains, or if nothing is free.
    scale
        Unit (D,) of a "location".
    frozen
        Names of parameters that are not free.
    """

    def __init__(self, family: Any, scale: Any = 1.0, frozen: tuple[str, ...] = ()) -> None:
        self.family, self.scale = family, scale
        self.names = tuple(family.dims)
        names = [name for name in self.names if name not in frozen]
        self.known = not names or isinstance(family, HasDomains)
        real: Domain = "real"  # to count by
        domains = family.domains if names and self.known else dict.fromkeys(names, real)
        self.free = [_Free(name, domains[name], *_sharing(family, name)) for name in names]

    def to_vector(self, params: Any, reference: Any) -> Floats | None:
        """Coordinates relative to a reference; None where the family does not state its domains."""
        return joined(self.parts(params, reference)) if self.known else None

    def parts(self, params: Any, reference: Any) -> list[Floats]:
        """Coordinates of one parameter after the other, of a family that states its domains."""
        return [to_vector(one.own(params), one.own(reference), one.domain, self.scale) for one in self.free]

    def from_vector(self, vector: Floats, reference: Any) -> Any:
        """Inverse of `to_vector`; what is not free is taken from the reference."""
        values = {}
        for one in self.free:
            value, vector = taken(vector, one.own(reference), one.domain, self.scale)
            values[one.name] = value if one.groups is None else value[one.groups]
        rest = (values[name] if name in values else getattr(reference, name) for name in self.names)
        return params_type(self.names)(*rest)

    def score(self, params: Any, y: Floats, weights: Floats, reference: Any) -> Floats:
        """Gradient of the weighted log density of all rows; weights (N, K)."""
        if isinstance(self.family, HasScore):
            statistics = family_statistics(self.family, params, y, weights)  # type: ignore[arg-type]
            return self.gradient(params, statistics, reference)
        return self.differences(params, y, weights, reference)

    def gradient(self, params: Any, statistics: Any, reference: Any) -> Floats:
        """Gradient of the expected log density that the statistics stand for, of a family that knows its score."""
        score = self.family.score(params, statistics) if self.free else {}
        parts = []
        for one in self.free:
            own = score[one.name] if one.groups is None else summed_within(score[one.name], one.groups)
            parts.append(gradient_vector(own, one.own(params), one.own(reference), one.domain, self.scale))
        return joined(parts)

    def differences(self, params: Any, y: Floats, weights: Floats, reference: Any) -> Floats:
        """Gradient of the weighted log density of all rows, for a family that does not know its score."""

        def total(vector: Floats) -> float:
            log_b = log_density(self.family, self.from_vector(vector, reference), y)
            return float((weights * np.where(weights > 0.0, log_b, 0.0)).sum())

        centre = self.to_vector(params, reference)
        assert centre is not None
        steps = STEP * np.eye(len(centre))
        return np.array([(total(centre + step) - total(centre - step)) / (2.0 * STEP) for step in steps])

    def n_free(self, params: Any) -> int:
        """Count the free parameters; entry by entry where the family does not state its domains."""
        return sum(n_free(one.own(params), one.domain) for one in self.free)


def _sharing(family: Any, name: str) -> tuple[Ints | None, Any]:
    groups = groups_of(family, name)
    return groups, slice(None) if groups is None else representatives(groups)
