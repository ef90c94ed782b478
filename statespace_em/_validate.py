"""Checks of parameter arrays and options; a message says what, where and the remedy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from reprlib import repr as short
from typing import Any, ParamSpec, TypeVar

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.domains import Domain
from statespace_em.errors import ParameterError, UsageTypeError

SUM_TOLERANCE = 1e-8

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def called(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """Refuse arguments that the function does not have in words that say which it has."""
    own = inspect.signature(function)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in own.parameters.values()]
    expected = f"{function.__name__}{inspect.Signature(bare)}"

    @wraps(function)
    def checked(*args: Arguments.args, **options: Arguments.kwargs) -> Answer:
        try:
            own.bind(*args, **options)
        except TypeError as error:
            given = [*map(short, args), *(f"{name}={short(value)}" for name, value in options.items())]
            raise UsageTypeError(
                f"{function.__name__}({', '.join(given)}): {error}. It is called as {expected}."
            ) from None
        return function(*args, **options)

    return checked


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Check an option that is a word."""
    allowed = list(allowed)
    if not any(isinstance(value, type(word)) and value == word for word in allowed):
        raise ParameterError(f"{name} is {_shown(value)}, expected one of {', '.join(map(_shown, allowed))}.")


def at_least(name: str, value: Any, smallest: float, *, whole: bool = False) -> None:
    """Check a number that must not be below a bound."""
    number = isinstance(value, int | np.integer) if whole else isinstance(value, int | float | np.number)
    if not number or isinstance(value, bool) or not value >= smallest:
        kind = "a whole number" if whole else "a number"
        raise ParameterError(f"{name} is {_shown(value)}, expected {kind} of at least {smallest:g}.")


def probability(name: str, value: Any, example: float = 0.95) -> None:
    """Check a number strictly between 0 and 1."""
    if not isinstance(value, int | float | np.number) or not 0.0 < value < 1.0:
        raise ParameterError(f"{name} is {_shown(value)}, expected a probability between 0 and 1, such as {example:g}.")


def instance(name: str, value: Any, kind: type) -> None:
    """Check an object, such as a prior."""
    if not isinstance(value, kind):
        raise ParameterError(
            f"{name} is {_shown(value)}, expected {kind.__module__.split('.')[-1]}.{kind.__name__}(...)."
        )


def generator(seed: int | np.random.Generator | None) -> np.random.Generator:
    """Source of random numbers: new each time for None."""
    if seed is not None and not isinstance(seed, np.random.Generator):
        at_least("seed", seed, 0, whole=True)
    return np.random.default_rng(seed)


def domain(name: str, value: Floats, kind: Domain, rows: Sequence[Any], remedy: str = "") -> None:
    """Check a parameter against its domain, see `statespace_em.domains`; ``rows`` names its first axis."""
    if kind == "simplex":
        simplex(name, value, rows, remedy)
    elif kind == "covariance":
        covariance(name, value, rows)
    elif kind in ("positive", "nonnegative"):
        positive(name, value, rows, zero=kind == "nonnegative")
    else:
        finite("number", name, value, rows)


def simplex(name: str, value: Floats, rows: Sequence[Any], remedy: str = "") -> None:
    """Check probabilities along the last axis; ``rows`` names the entries of the first axis."""
    finite("probability", name, value, rows)
    bad = (value < 0.0) | (value > 1.0 + SUM_TOLERANCE)
    if bad.any():
        where = np.argwhere(bad)[0]
        raise ParameterError(f"{name}{_place(where, rows)} is {value[tuple(where)]:g}, expected a number from 0 to 1.")
    total = np.asarray(value.sum(-1))
    off = np.abs(total - 1.0) > SUM_TOLERANCE
    if off.any():
        where = np.argwhere(off)[0]
        row = f" row {_shown(rows[where[0]])}" if len(where) and len(rows) else ""
        rest = f", position {', '.join(map(str, where[1:]))}," if len(where) > 1 else ""
        remedy = remedy or " Divide it by its sum if these are weights."
        raise ParameterError(f"{name}{row}{rest} sums to {total[tuple(where)]:.10g}, expected 1.{remedy}")


def covariance(name: str, value: Floats, rows: Sequence[Any], *, semi: bool = False) -> None:
    """Check symmetric positive (semi-)definite matrices in the last two axes.

    A third axis before them is of states, which ``rows`` names, or of rows of y where there are no names.
    """
    finite("number", name, value, rows if value.ndim == 3 else ())
    if not value.size:
        return
    whole = value.reshape(-1, *value.shape[-2:])
    each = np.flatnonzero(_differs(whole.reshape(len(whole), -1)))  # those of rows are mostly like the one before
    whole = whole[each]
    scale = np.abs(whole).max(axis=(1, 2))
    skew = np.abs(whole - whole.swapaxes(1, 2)).max(axis=(1, 2)) > 1e-8 * scale
    smallest = np.linalg.eigvalsh(whole)[:, 0]
    round_off = 1e-10 * scale + 1e-14 * scale.max()  # of the others, where one is none
    wrong = skew | ((smallest < -round_off) if semi else ~(smallest > 0.0))
    if not wrong.any():
        return
    i = int(np.argmax(wrong))
    which, number = "", int(each[i])
    if value.ndim == 3:
        which = f" of state {_shown(rows[number])}" if number < len(rows) else f" of row {number}"
    if skew[i]:
        raise ParameterError(f"{name}{which} is not symmetric: pass (cov + cov.T) / 2 if that is what you mean.")
    kind = "semi-definite" if semi else "definite"
    raise ParameterError(
        f"{name}{which} is not positive {kind} (smallest eigenvalue {smallest[i]:.3g}): "
        "check the order of its rows, or add variance to the diagonal."
    )


def _differs(rows: Floats) -> Bools:
    """Whether each row (N, m) is another than the one before it."""
    found = np.zeros(len(rows), bool)
    found[0] = True
    found[1 + np.flatnonzero(rows[1:] != rows[:-1]) // rows.shape[1]] = True
    return found


def positive(name: str, value: Floats, rows: Sequence[Any] = (), *, zero: bool = False) -> None:
    """Check that all entries are above zero, or not below it; ``rows`` names the entries of the first axis."""
    finite("number", name, value, rows)
    bad = value < 0.0 if zero else value <= 0.0
    if bad.any():
        where = np.argwhere(bad)[0]
        kind = "of at least 0" if zero else "above 0"
        raise ParameterError(f"{name}{_place(where, rows)} is {value[tuple(where)]:g}, expected a number {kind}.")


def finite(kind: str, name: str, value: Floats, rows: Sequence[Any] = ()) -> None:
    """Check that there is no NaN or infinity; ``rows`` names the entries of the first axis."""
    if not np.isfinite(value).all():
        where = np.argwhere(~np.isfinite(value))[0]
        raise ParameterError(f"{name}{_place(where, rows)} is {value[tuple(where)]}, which is not a {kind}.")


def _place(where: Sequence[int], rows: Sequence[Any]) -> str:
    """Say which entry of a parameter is meant: its state by name, positions along other axes counted from 0."""
    first, rest = [], [str(int(i)) for i in where]
    if len(rows) and rest:
        first, rest = [f"of state {_shown(rows[int(rest[0])])}"], rest[1:]
    words = [*first, *([f"at position {', '.join(rest)}"] if rest else [])]
    return f" {' '.join(words)}" if words else ""


def _shown(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)
