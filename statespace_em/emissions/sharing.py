"""Parameters that states share one by one: a variance without the mean, say; states that share all are one here."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from statespace_em._typing import Bools, Floats, Ints

Ties: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]  # parameter: number of its value in each state
CYCLES = 200  # of the M-step between means and variances that are shared by different states, at most
STILL = 1e-12  # relative change of all values at which they have settled


def groups_of(family: Any, name: str) -> Ints | None:
    """Number of the value that each state (K,) has of a parameter; None where each has its own."""
    found = dict(getattr(family, "ties", ())).get(name)
    return None if found is None else np.array(found, dtype=np.int64)


def representatives(groups: Ints) -> Ints:
    """First state of each group."""
    return np.unique(groups, return_index=True)[1]


def repeated(groups: Ints) -> Bools:
    """States (K,) whose value is that of an earlier one."""
    found = np.ones(len(groups), bool)
    found[representatives(groups)] = False
    return found


def summed_within(values: Floats, groups: Ints) -> Floats:
    """Sums (G, ...) over the states of each group of values (K, ...)."""
    totals = np.zeros((int(groups.max()) + 1, *values.shape[1:]))
    np.add.at(totals, groups, values)
    return totals


def pooled(values: Floats, groups: Ints | None) -> Floats:
    """Values (K, ...) summed over the states of a group, the sum at each of them."""
    return values if groups is None else summed_within(values, groups)[groups]
