"""What a user says about the structure of a chain, as patterns of fixed and free entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Bools, Floats
from statespace_em.errors import ParameterError
from statespace_em.labels import show
from statespace_em.structure import Pattern, connected, reachable

MASKS = ("free", "left-right", "cyclic", "banded")
INITIALS = ("free", "stationary", "uniform")
SUM_TOLERANCE = 1e-8
STATIONARY_TOLERANCE = 1e-6


def transition_pattern(given: Any, names: Sequence[Any]) -> Pattern:
    """Fixed entries of a transition matrix from a word, a mask (True = allowed) or numbers with NaN where free.

    Raises
    ------
    ParameterError
        Naming the state, the value and the remedy.
    """
    size = len(names)
    if isinstance(given, str) or _is_band(given):
        return Pattern(np.where(_named_mask(given, size), np.nan, 0.0))
    dims = ("state", "next_state")
    value = _array("transition", given, dims, names, f'{", ".join(map(repr, MASKS))}, ("banded", width)')
    if value.dtype.kind == "b":
        _check_mask(value.astype(bool), names)
        return Pattern(np.where(value.astype(bool), np.nan, 0.0))
    fixed = _fixed("transition", value)
    for i, row in enumerate(fixed):
        _check_row("transition", row, names, f" row {show(names[i])}", [f"{show(names[i])} -> "] * size)
    return Pattern(fixed)


def initial_pattern(given: Any, names: Sequence[Any]) -> Pattern:
    """Fixed entries of an initial distribution; everything is free under "free" and "stationary"."""
    size = len(names)
    if isinstance(given, str):
        _validate.one_of("initial", given, INITIALS)
        return Pattern(np.full(size, 1.0 / size if given == "uniform" else np.nan))
    fixed = _fixed("initial", _array("initial", given, ("state",), names, ", ".join(map(repr, INITIALS))))
    _check_row("initial", fixed, names, "", [""] * size)
    return Pattern(fixed)


def check_chain(initial: Pattern, transition: Pattern, names: Sequence[Any], *, stationary: bool) -> None:
    """Refuse a chain with a state that no allowed path visits, or without one stationary distribution."""
    allowed = transition.allowed
    for i, name in enumerate(names):
        if not allowed[:, i].any() and not initial.fixed[i] > 0.0:
            raise ParameterError(
                f"state {show(name)} cannot be reached: transition= allows no step to it. Allow one, or say that the "
                "chain begins there by giving initial= in numbers."
            )
    found = reachable(initial.allowed, allowed)
    if not found.all():
        state = names[int(np.argmin(found))]
        raise ParameterError(
            f"state {show(state)} cannot be reached: no allowed path from a possible first state leads to it. Allow "
            "a step to it in transition=, or let the chain begin there."
        )
    if stationary and not connected(allowed):
        raise ParameterError(
            'initial="stationary" needs a chain in which every state can be reached from every other; with this '
            'transition= some states are left for good: use initial="free", or fix it.'
        )


def check_fixed(name: str, value: Floats, pattern: Pattern, names: Sequence[Any]) -> None:
    """Raise ParameterError where parameters contradict what the model fixes."""
    if value.shape != pattern.fixed.shape:
        return
    off = ~pattern.free & (np.abs(value - pattern.fixed) > SUM_TOLERANCE)
    if off.any():
        where = tuple(int(i) for i in np.argwhere(off)[0])
        words = " -> ".join(show(names[i]) for i in where)
        raise ParameterError(
            f"{name} of {words} is {value[where]:g}, but {name}= of the model fixes it at {pattern.fixed[where]:g}: "
            "change one of them."
        )


def check_stationary(transition: Floats | None, initial: Floats | None) -> None:
    """Raise ParameterError where an initial distribution is not the stationary one of the transitions."""
    if initial is None:
        return
    if transition is None or np.abs(initial @ transition - initial).max() > STATIONARY_TOLERANCE:
        raise ParameterError(
            'initial is not the stationary distribution of transition, as initial="stationary" of the model says it '
            "is: leave it out of the parameters, it follows from transition."
        )


def _is_band(given: Any) -> bool:
    return isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[0], str)


def _named_mask(given: Any, size: int) -> Bools:
    word, width = (given, 1) if isinstance(given, str) else given
    _validate.one_of("transition", word, MASKS)
    if not isinstance(given, str) and word != "banded":
        raise ParameterError(f'transition is {given!r}: only "banded" takes a width.')
    _validate.at_least("the width of banded", width, 1, whole=True)
    step = np.arange(size) - np.arange(size)[:, None]
    if word == "free":
        return np.ones((size, size), bool)
    if word == "left-right":
        return step >= 0
    if word == "cyclic":
        return np.asarray((step == 0) | (step % size == 1 % size))
    return np.asarray(np.abs(step) <= width)


def _array(name: str, given: Any, dims: tuple[str, ...], names: Sequence[Any], words: str) -> Any:
    """Plain array from what a user gives, labelled states in the order of the model."""
    value = _ordered(name, given, dims, names)
    if value.dtype.kind == "O":
        truths = all(isinstance(entry, bool | np.bool_) for entry in value.ravel())
        try:
            value = value.astype(bool if truths else float)
        except (TypeError, ValueError):
            value = value.astype(str)
    if value.dtype.kind not in "fiub":
        raise ParameterError(f"{name} is {given!r}, expected {words}, or an array with one entry for each of {dims}.")
    if value.shape != (len(names),) * len(dims):
        raise ParameterError(
            f"{name} has shape {value.shape}, expected {(len(names),) * len(dims)} for dims {dims} of {len(names)} "
            "states."
        )
    return value


def _ordered(name: str, given: Any, dims: tuple[str, ...], names: Sequence[Any]) -> Any:
    if isinstance(given, pd.Series | pd.DataFrame):
        given = xr.DataArray(given.to_numpy(), given.axes)
    if isinstance(given, xr.DataArray):
        if all(str(dim).startswith("dim_") for dim in given.dims) and given.ndim == len(dims):  # axes without a name
            given = given.rename(dict(zip(given.dims, dims)))
        if set(given.dims) != set(dims):
            raise ParameterError(f"{name} has dims {given.dims}, expected {dims}: rename them.")
        for dim in dims:
            have = given[dim].values.tolist() if dim in given.coords else list(names)
            if set(have) != set(names) or len(have) != len(names):
                raise ParameterError(f"{name} is of states {have}, the model has {list(names)}.")
            given = given.sel({dim: list(names)}) if dim in given.coords else given
        return given.transpose(*dims).values
    try:
        return np.asarray(given)
    except ValueError:
        return np.asarray(given, dtype=object)


def _fixed(name: str, value: Any) -> Floats:
    fixed = np.array(value, dtype=float)
    bad = ~np.isnan(fixed) & ~((fixed >= 0.0) & (fixed <= 1.0 + SUM_TOLERANCE))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        mask = " For a mask of allowed steps give booleans (True, False)." if name == "transition" else ""
        raise ParameterError(f"{name} fixes {fixed[where]:g} at position {where}, expected a number from 0 to 1.{mask}")
    return fixed


def _check_row(name: str, row: Floats, names: Sequence[Any], which: str, before: list[str]) -> None:
    free, total = np.isnan(row), float(np.nansum(row))
    if not free.any() and abs(total - 1.0) > SUM_TOLERANCE:
        hint = " For a mask of allowed steps give booleans (True, False)." if name == "transition" else ""
        raise ParameterError(f"{name}{which} is fixed at values that sum to {total:.10g}, expected 1.{hint}")
    if free.any() and total > 1.0 + SUM_TOLERANCE:
        raise ParameterError(f"{name}{which} fixes values that sum to {total:.10g}, more than 1: lower them.")
    if free.any() and total > 1.0 - SUM_TOLERANCE:
        k = int(np.argmax(free))
        raise ParameterError(
            f"{name}{which} fixes values that sum to 1, which leaves nothing for {before[k]}{show(names[k])}: write 0 "
            "there, or lower the others."
        )


def _check_mask(mask: Bools, names: Sequence[Any]) -> None:
    for i, name in enumerate(names):
        others = np.arange(len(names)) != i
        if not mask[i].any():
            raise ParameterError(
                f"the mask of transition= lets state {show(name)} not be left: its row allows no next state, not even "
                "itself."
            )
        if len(names) > 1 and not mask[i, others].any() and not mask[others, i].any():
            raise ParameterError(
                f"the mask of transition= lets state {show(name)} neither be reached from another state nor left: "
                "drop the state, or allow a step. Separate chains, one a sequence, are written in numbers "
                "(transition=np.eye(K))."
            )
