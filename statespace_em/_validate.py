"""Checks of parameter arrays and options; a message says what, where and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from statespace_em._typing import Floats
from statespace_em.domains import Domain
from statespace_em.errors import ParameterError

SUM_TOLERANCE = 1e-8


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Check an option that is a word."""
    allowed = list(allowed)
    if value not in allowed:
        raise ParameterError(f"{name} is {value!r}, expected one of {', '.join(map(repr, allowed))}.")


def at_least(name: str, value: Any, smallest: float, *, whole: bool = False) -> None:
    """Check a number that must not be below a bound."""
    number = isinstance(value, int | np.integer) if whole else isinstance(value, int | float | np.number)
    if not number or isinstance(value, bool) or not value >= smallest:
        kind = "a whole number of" if whole else "a number of"
        raise ParameterError(f"{name} is {value!r}, expected {kind} at least {smallest:g}.")


def simplex(name: str, value: Floats, rows: Sequence[Any], remedy: str = "") -> None:
    """Check probabilities along the last axis; ``rows`` names the entries of the first axis of a matrix."""
    finite("probability", name, value)
    if (value < 0.0).any() or (value > 1.0 + SUM_TOLERANCE).any():
        bad = value[(value < 0.0) | (value > 1.0 + SUM_TOLERANCE)][0]
        raise ParameterError(f"{name} holds {bad:g}, which is not a probability.")
    total = value.sum(-1)
    off = np.abs(total - 1.0) > SUM_TOLERANCE
    if off.any():
        where = np.argwhere(off)[0] if total.ndim else []
        row = f" row {rows[int(where[0])]!r}" if len(where) else ""
        raise ParameterError(f"{name}{row} sums to {total[tuple(where)]:.6g}, expected 1.{remedy}")


def covariance(name: str, value: Floats, rows: Sequence[Any], *, semi: bool = False) -> None:
    """Check symmetric positive (semi-)definite matrices in the last two axes."""
    finite("covariance", name, value)
    size = value.shape[-1]
    for i, matrix in enumerate(value.reshape(-1, size, size)):
        which = f" of state {rows[i]!r}" if value.ndim == 3 and i < len(rows) else ""
        scale = np.abs(matrix).max()
        if not np.allclose(matrix, matrix.T, rtol=0.0, atol=1e-8 * scale):
            raise ParameterError(f"{name}{which} is not symmetric: pass (cov + cov.T) / 2 if that is what you mean.")
        smallest = np.linalg.eigvalsh(matrix)[0]
        if smallest < -1e-10 * scale if semi else not smallest > 0.0:
            kind = "semi-definite" if semi else "definite"
            raise ParameterError(
                f"{name}{which} is not positive {kind} (smallest eigenvalue {smallest:.3g}): "
                "check the order of its rows, or add variance to the diagonal."
            )


def domain(name: str, value: Floats, kind: Domain, rows: Sequence[Any], remedy: str = "") -> None:
    """Check a parameter against its domain, see `statespace_em.domains`; ``rows`` names its first axis."""
    if kind == "simplex":
        simplex(name, value, rows, remedy)
    elif kind == "covariance":
        covariance(name, value, rows)
    elif kind in ("positive", "nonnegative"):
        positive(name, value, zero=kind == "nonnegative")
    else:
        finite("number", name, value)


def positive(name: str, value: Floats, *, zero: bool = False) -> None:
    """Check that all entries are above zero, or not below it."""
    finite("number", name, value)
    bad = value < 0.0 if zero else value <= 0.0
    if bad.any():
        raise ParameterError(
            f"{name} holds {value[bad][0]:g}, expected {'no negative' if zero else 'only positive'} values."
        )


def finite(kind: str, name: str, value: Floats) -> None:
    """Check that there is no NaN or infinity."""
    if not np.isfinite(value).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        raise ParameterError(f"{name} holds {value[where]} at {where}, which is not a {kind}.")
