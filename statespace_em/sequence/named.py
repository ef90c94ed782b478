"""Values of a linear-Gaussian model that have a name of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from statespace_em._typing import Floats
from statespace_em.domains import Domain
from statespace_em.sequence.lgssm_specification import Specification


def named_values(spec: Specification, value_of: Callable[[str], Floats]) -> dict[str, float]:
    """Free values that the user, or a design, has given a name."""
    values: dict[str, float] = {}
    for name, words in spec.own_names.items():
        found = spec.free_values(name, value_of(name))
        values |= {word: found[word] for word in words}
    return values


def named_domains(spec: Specification, names: Sequence[str]) -> dict[str, Domain]:
    """Where these values may lie: variances above 0, what follows from others too, coefficients anywhere."""
    found: dict[str, Domain] = dict.fromkeys(names, "positive")
    for name, words in spec.own_names.items():
        pattern = spec.patterns[name]
        variances = set(pattern.on_diagonal) if name.endswith("_cov") else set()
        found |= {word: "positive" if word in variances else "real" for word in words}
    return found | {word: "simplex" for word in names if word.endswith("damping")}  # between 0 and 1
