"""What is wrong with a fit, entry by entry and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em._typing import Bools, Floats
from statespace_em.core import Core, HasDerived
from statespace_em.data import Batch
from statespace_em.diagnostics.information import NOT_AT_TOP, Information, domain_of
from statespace_em.labels import show

STARVED = 5.0  # expected rows of a state for each free number of its emission
ALIKE = 0.8  # share of its rows that a state gives away to one other
SLOW = 0.99  # rate of convergence above which EM needs hundreds of steps a digit
MOST = 20  # entries of one parameter that are listed
COLUMNS = ["check", "where", "value", "finding", "advice"]


class Findings:
    """Rows of the table, in the order in which they are found."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, float, str, str]] = []

    def add(self, check: str, where: str, value: float, finding: str, advice: str) -> None:
        """Add a row."""
        self.rows.append((check, where, float(value), finding, advice))

    def table(self) -> pd.DataFrame:
        """One row a finding."""
        return pd.DataFrame(self.rows, columns=COLUMNS)


def starved(found: Findings, gamma: Floats, batch: Batch, numbers: float, names: Sequence[Any]) -> None:
    """States in which hardly any row is expected."""
    seen = ~np.isnan(batch.y).all(1)
    for name, count in zip(names, gamma[seen].sum(0)):
        if count < STARVED * max(numbers, 1.0):
            found.add(
                "starved state",
                f"state {show(name)}",
                count,
                f"{count:.3g} rows are expected in it, for {numbers:.3g} free numbers of its emission",
                "use fewer states, tie its emission to another's, or a prior",
            )


def alike(found: Findings, gamma: Floats, names: Sequence[Any]) -> None:
    """Pairs of states whose posteriors overlap: given one is likely, the other is just as likely."""
    mass = gamma.sum(0)
    overlap = gamma.T @ gamma / np.where(mass > 0.0, mass, 1.0)[:, None]
    for i in range(len(names)):
        for j in range(i):
            # two copies of one state give each other as much as they keep
            share = np.sqrt(overlap[i, j] * overlap[j, i] / max(overlap[i, i] * overlap[j, j], 1e-300))
            if share > ALIKE:
                found.add(
                    "alike states",
                    f"states {show(names[j])}, {show(names[i])}",
                    share,
                    f"their posteriors overlap by {100 * share:.0f} %: the rows hardly tell them apart",
                    "use fewer states, or compare.table with one less",
                )


def at_floor(found: Findings, floors: Bools, names: Sequence[Any]) -> None:
    """States whose variance has run to the floor."""
    for name in np.array(names, dtype=object)[floors]:
        found.add(
            "floor binds",
            f"state {show(name)}",
            np.nan,
            "its variance has run to the floor that keeps the likelihood finite: it sits on a few rows",
            "use fewer states, or a prior that keeps variances away from zero",
        )


def without_variance(found: Findings, names: Sequence[str]) -> None:
    """Free variances at exactly zero."""
    for name in names:
        found.add(
            "boundary",
            name,
            0.0,
            "a variance at zero: the likelihood is highest without it, and it has no standard error",
            "nothing if that is plausible: the component does not move; else a prior keeps it away from zero",
        )


def without_decay(found: Findings, information: Information) -> None:
    """Values at a unit root."""
    for name, (_, words) in ({} if information.limit is None else information.limit.values).items():
        found.add("boundary", name, np.nan, words, "nothing if that is plausible; else a trend or a season is meant")


def at_boundary(found: Findings, core: Core, information: Information, labelled: xr.Dataset, frozen: Any) -> None:
    """Free probabilities and rates at zero."""
    for name, entries in information.boundary.items():
        if name in frozen:
            continue
        free = entries & ~fixed_entries(core, name, entries)
        value = labelled[name]
        free, word = free.reshape(value.shape), "probability" if domain_of(core, name) == "simplex" else "rate"
        for place in np.argwhere(free)[:MOST]:
            labels = [show(value[dim].values[i]) for dim, i in zip(value.dims, place)]
            found.add(
                "boundary",
                f"{name} of {' -> '.join(labels) if name == 'transition' else ', '.join(labels)}",
                value.values[tuple(place)],
                f"a {word} at zero: it has no standard error",
                "nothing if that is plausible; else a Dirichlet or Gamma prior keeps it away from zero",
            )


def fixed_entries(core: Core, name: str, entries: Bools) -> Bools:
    """Entries that the structure of the model fixes."""
    return core.fixed(name, entries) if isinstance(core, HasDerived) else np.zeros(entries.shape, bool)


def curvature(found: Findings, information: Information) -> None:
    """Information that is singular, or a place that is not a maximum."""
    n_flat = int((~information.usable).sum())
    if n_flat:
        smallest = float(information.values[0])
        found.add(
            "information",
            f"{n_flat} of {len(information.values)} directions",
            smallest,
            "the data say nothing in these directions" if smallest > -1.0 else "the likelihood bends upwards there",
            "freeze or fix parameters, use fewer states, or a prior; fit again if it bends upwards",
        )
    if information.decrement > NOT_AT_TOP:
        found.add(
            "not at a maximum",
            "all parameters",
            information.decrement,
            f"a Newton step would gain {information.decrement:.2g} nats",
            "fit until status_ is converged: raise max_iter",
        )


def rate_of_em(core: Core, batch: Batch, information: Information) -> float:
    """Largest eigenvalue of the EM map's derivative at a maximum: the factor by which an error shrinks a step.

    It is the share of the information that is missing (Dempster, Laird & Rubin 1977), found by the power method on
    differences of the map.
    """
    reference = information.reference

    def image(x: Floats) -> Floats:
        tree = core.from_vector(x, reference)
        mapped = core.to_vector(core.m_step(core.e_step(tree, batch)[0], tree), reference)
        assert mapped is not None
        return mapped

    direction = information.basis @ information.vectors[:, 0]
    rate = 0.0
    for _ in range(30):
        step = 1e-4 * direction
        change = image(information.centre + step) - image(information.centre - step)
        moved = information.basis @ (information.basis.T @ change)
        size, before = float(np.linalg.norm(moved)) / 2e-4, rate
        if size == 0.0:
            return 0.0
        direction, rate = moved / np.linalg.norm(moved), size
        if abs(rate - before) < 1e-4 * rate:
            break
    return rate


def speed(found: Findings, rate: float) -> None:
    """Whether plain EM is slow here."""
    if rate > SLOW:
        steps = np.log(0.1) / np.log(min(rate, 1.0 - 1e-12))
        found.add(
            "EM rate",
            "all parameters",
            rate,
            f"plain EM needs {steps:.0f} steps a digit: much of the information is missing",
            "keep accelerate=True and a small tol; see the other findings for why",
        )
