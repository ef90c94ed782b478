"""One side of a sum of components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SHARED = ("likelihood", "measurement_prior", "unsorted")  # settings that all models of sums have


class Summand(NamedTuple):
    """What a model brings into a sum."""

    components: Sequence[Any]
    unit: str | None  # None: what is said per row
    step: float | None
    settings: Mapping[str, Any]


def placed(components: Sequence[Any], where: str) -> list[Any]:
    """Components that one sensor, or one column, alone has."""
    return [(kind, {**options, "on": where}) for kind, options in components]
