"""Why the likelihood of a linear-Gaussian model may have no bound, and what helps.

With one series, y1 - C m - d is the only thing that a free first mean m has to meet. Where a direction c of y has no
noise in the first row, c' (C P C' + R) c = 0, an m that meets it makes the density there infinite; that of later rows
stays finite while A takes noise of the states there, c' C A Q A' C' c > 0. P is 0 for a first state that is fixed, Q
for one that is tied to the noise of the states (then there must be two of them), and what it likes where it is free.
A diffuse first state is counted in its units, of which a likelihood with -log(det(F)) / 2 for what tells it has no
bound where these can be changed for nothing; nor where F vanishes with A, the first row having no entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from statespace_em.data import Batch
from statespace_em.fitting import NoBound
from statespace_em.labels import listed
from statespace_em.patterns import Pattern
from statespace_em.sequence.exact_recursion import follows_its_past
from statespace_em.sequence.lgssm_specification import Specification

UNITS = (
    'Take likelihood="marginal", which has no units, or initial="stationary"; or write numbers in transition, '
    "observation and process_cov until no change of units leaves the model as it is"
)
BEGINS = 'Use initial="stationary", or, where transition is written with numbers, initial="diffuse"'


def no_bound(
    spec: Specification, batch: Batch, states: Sequence[Any], likelihood: str, *, quiet: bool = True
) -> NoBound:
    """Why the likelihood has no bound; states are named where it is their start: fixed or diffuse.

    ``quiet`` says that the measurement noise has no prior that keeps it from 0.
    """
    if follows_its_past(batch, len(spec.names)):
        return NoBound(
            "the likelihood has no bound: y follows its own past without error, as nearly as arithmetic tells (as a "
            "line, a wave, a power do), so that no noise can be estimated from it",
            "Fit what such a part leaves of the measurements, or fix the noise at what y is rounded to",
            by_structure=True,
        )
    unknown = [name for name, diffuse in zip(spec.names, spec.starts_as("diffuse")) if diffuse]
    if unknown and (set(states) & set(unknown) or (likelihood != "marginal" and _changes_units(spec))):
        which = listed(unknown)
        return NoBound(
            f"the likelihood has no bound: units of {which} are free, and a diffuse start is measured in them",
            UNITS,
            prior_helps=False,
            by_structure=True,
        )
    if unknown and likelihood != "marginal" and _begins_blank(batch) and _leads_from(spec, "diffuse"):
        return NoBound(
            f"the likelihood has no bound: a sequence begins with a row that has no entry, so that rows tell the "
            f"diffuse start of {listed(unknown)} through free values of transition alone, and it counts for less the "
            "smaller these are",
            'Leave out the rows before the first that has an entry, or take likelihood="marginal" or '
            'initial="stationary"',
            prior_helps=False,
            by_structure=True,
        )
    if states:
        return NoBound(
            "the likelihood has no bound: a first state that is fixed but unknown explains the first row exactly while "
            "a variance of measurement_cov runs to 0, from every start",
            'Use initial="diffuse"' + (' and likelihood="marginal"' if _units_are_free(spec) else ""),
        )
    if quiet and _begins_anywhere(spec, batch):
        noise = "initial_cov" if spec.initial == "free" else "what process_cov, which it has, shows of itself at once,"
        return NoBound(
            "the likelihood grows without bound: the mean of the first state is free, and one series says nothing else "
            f"of where it begins. It explains first rows exactly while measurement_cov and {noise} run to 0",
            BEGINS,
            by_structure=True,
        )
    settled = spec.initial in ("estimated", "tied", "free", "known")
    return NoBound("", 'Use fewer states, or initial="stationary"' if settled else "Use fewer states")


def _begins_blank(batch: Batch) -> bool:
    """Whether a sequence begins with a row without entries."""
    return bool(np.isnan(batch.y[batch.starts[:-1]]).all(1).any())


def _leads_from(spec: Specification, start: str) -> bool:
    """Whether values of the transition from states that start so are free."""
    pattern, some = spec.patterns.get("transition"), spec.starts_as(start)
    return "transition" not in spec.varying and (pattern is None or bool(pattern.touched[:, some].any()))


def _begins_anywhere(spec: Specification, batch: Batch) -> bool:
    """Whether one series begins where a free mean says, and nothing keeps noise in its first row."""
    if spec.initial not in ("estimated", "tied", "free") or len(batch.starts) > 2:
        return False
    if spec.initial != "free" and len(spec.names) < 2:
        return False
    noise, mean = spec.patterns.get("measurement_cov"), spec.patterns.get("initial_mean")
    silent = noise is None or (isinstance(noise, Pattern) and bool(noise.names) and not noise.constant.any())
    silent = silent and "measurement_cov" not in spec.varying and "initial_cov" not in spec.patterns
    return silent and (mean is None or bool(mean.names)) and _moves(spec, "process_cov")


def _units_are_free(spec: Specification) -> bool:
    """Whether states that are now fixed at first could change their units if they were diffuse."""
    return _changes_units(spec, "fixed") or (_moves(spec, "observation") and _moves(spec, "process_cov"))


def _changes_units(spec: Specification, start: str = "diffuse") -> bool:
    """Whether the size of a state that starts so can be taken up by what leads from it, or to it, to another state."""
    pattern, some = spec.patterns.get("transition"), spec.starts_as(start)
    if pattern is None:
        return "transition" not in spec.varying and len(some) > 1
    apart = pattern.touched & ~np.eye(len(some), dtype=bool)
    return bool(apart[some].any() or apart[:, some].any())


def _moves(spec: Specification, name: str) -> bool:
    """Whether a parameter has free values."""
    pattern = spec.patterns.get(name)
    return name not in spec.varying and (pattern is None or bool(pattern.names))
