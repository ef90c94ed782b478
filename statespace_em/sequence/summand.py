"""Sums of designs, and what each side brings into one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from reprlib import repr as short
from typing import Any, NamedTuple

from statespace_em.errors import UsageTypeError

SHARED = ("likelihood", "measurement_prior", "unsorted")  # settings that all models of sums have


class Summand(NamedTuple):
    """What a model brings into a sum."""

    components: Sequence[Any]
    unit: str | None  # None: what is said per row
    step: float | None
    settings: Mapping[str, Any]


class Addable(ABC):
    """A design that may stand in a sum: of the same rows, or in continuous time where one side is."""

    @abstractmethod
    def _summand(self) -> Summand:
        """What this model brings into a sum."""

    @abstractmethod
    def _sum(self, left: Summand, right: Summand) -> Any:
        """Model of both; settings are those of the left one."""

    def __add__(self, other: Any) -> Any:
        """Both side by side; settings are those of the left one."""
        return _added(self, other)

    def __radd__(self, other: Any) -> Any:
        """As `__add__`; ``sum(parts)`` begins at 0."""
        return self if isinstance(other, int) and other == 0 else _added(other, self)


def _added(left: Any, right: Any) -> Any:
    for side in (left, right):
        if not isinstance(side, Addable):
            forgotten = ": call it first" if callable(side) else ""
            raise UsageTypeError(
                f"{short(side)} of type {type(side).__name__} is no design that can be added{forgotten}; designs.* "
                "can, as in local_trend() + seasonal(12). Other matrices are written out in one LinearGaussianSSM."
            )
    sides = left._summand(), right._summand()
    return (right if sides[0].unit is None else left)._sum(*sides)


def placed(components: Sequence[Any], where: str) -> list[Any]:
    """Components that one sensor, or one column, alone has."""
    return [(kind, {**options, "on": where}) for kind, options in components]
