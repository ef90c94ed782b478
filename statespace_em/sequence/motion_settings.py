"""Arguments of a model of motion, checked and turned into what they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.errors import ParameterError
from statespace_em.labels import listed, show
from statespace_em.patterns import Pattern, fixed, from_entries
from statespace_em.sequence.motion import AXES, Motion, motion

ORDERS = {"constant_velocity": 2, "constant_acceleration": 3, "coordinated_turn": 2}


def axes_of(dims: int | Sequence[str]) -> list[str]:
    """Names of the axes.

    Raises
    ------
    ParameterError
        If there are more than three, or two of one name.
    """
    if isinstance(dims, int | np.integer) and not isinstance(dims, bool) and 1 <= dims <= len(AXES):
        return list(AXES[:dims])
    if isinstance(dims, str) or not isinstance(dims, Iterable):
        raise ParameterError(f"dims is {dims!r}, expected 1, 2 or 3, or names of the axes in a list.")
    axes = [str(name) for name in dims]
    if not 1 <= len(axes) <= len(AXES) or len(set(axes)) < len(axes):
        raise ParameterError(f"dims names {listed(axes) or 'no axis'}, expected up to three different axes.")
    return axes


def motion_of(kind: str, dims: int | Sequence[str], rate: float, density: Any) -> Motion:
    """What moves and what drives it."""
    _validate.one_of("kind", kind, tuple(ORDERS))
    axes, turns = axes_of(dims), kind == "coordinated_turn"
    if not isinstance(rate, int | float | np.number):
        raise ParameterError(f"rate is {rate!r}, expected a number, radians per unit of time.")
    if turns and (len(axes) < 2 or not np.isfinite(rate) or not rate):
        raise ParameterError(f"a turn of rate {rate} along {listed(axes)}: it needs two axes and a rate that is not 0.")
    if not turns and rate:
        raise ParameterError(f"rate is {rate}, but only a coordinated_turn turns.")
    separate = density == "separate" if isinstance(density, str) else np.ndim(density) > 0
    if turns and separate:
        raise ParameterError("a turn mixes its axes: its density is one for all, 'equal' or a number.")
    return motion(axes, ORDERS[kind], float(rate) if turns else 0.0, separate=separate)


def known_densities(density: Any, moves: Motion) -> Floats | None:
    """Densities given as numbers; None where they are estimated."""
    if isinstance(density, str):
        _validate.one_of("density", density, ("equal", "separate"))
        return None
    values = np.atleast_1d(np.asarray(density, dtype=float))
    if values.shape != (len(moves.densities),) or not np.isfinite(values).all() or not (values > 0.0).all():
        raise ParameterError(f"density is {density!r}, expected a positive number, or one for each axis.")
    return values


class Sensors(NamedTuple):
    """What measures the target."""

    observation: Floats  # (D, n)
    owner: list[str]  # (D,), suffix of the names of each column's sensor: "", "_1", "_gps"
    states: list[str]  # (D,), the state that each column measures

    def check(self, n_features: int | None) -> None:
        """Refuse another number of columns than the sensors have."""
        if n_features not in (None, len(self.observation)):
            raise ParameterError(
                f"y has {n_features} columns, expected {len(self.observation)}: {listed(self.states)} of "
                f"{len(set(self.owner))} sensor(s)."
            )


def sensors_of(sensors: int | Mapping[str, Sequence[str]], moves: Motion) -> Sensors:
    """Columns of y: ``sensors`` times the positions, or the states that each sensor measures, by name.

    Raises
    ------
    ParameterError
        If a sensor measures nothing, or what is no state.
    """
    axes = moves.states[: len(moves.observation)]
    if isinstance(sensors, Mapping):
        each = {name: [states] if isinstance(states, str) else states for name, states in sensors.items()}
        owners = {f"_{name}": [str(state) for state in states] for name, states in each.items()}
        for owner, states in owners.items():
            strange = [state for state in states if state not in moves.states]
            if strange or not states:
                what = show(strange[0]) if strange else "nothing"
                raise ParameterError(f"sensor {owner[1:]!r} measures {what}, expected some of {listed(moves.states)}.")
        if not owners:
            raise ParameterError("sensors is empty, expected names with the states that each measures.")
    else:
        if not isinstance(sensors, int | np.integer) or isinstance(sensors, bool) or sensors < 1:
            raise ParameterError(
                f"sensors is {sensors!r}, expected how many there are, or names with the states that each measures, "
                'such as {"gps": ["x", "y"]}.'
            )
        owners = {f"_{s + 1}" if sensors > 1 else "": axes for s in range(int(sensors))}
    columns = [(owner, state) for owner, states in owners.items() for state in states]
    places = [moves.states.index(state) for _, state in columns]
    return Sensors(np.eye(len(moves.states))[places], [owner for owner, _ in columns], [state for _, state in columns])


def noise_pattern(noise: Any, sensors: Sensors) -> Pattern:
    """Pattern of the measurement noise: a word, or its value.

    Raises
    ------
    ParameterError
        If the word is none, or the value has another shape.
    """
    columns = [(owner, f"_{state}") for owner, state in zip(sensors.owner, sensors.states)]
    owners = list(dict.fromkeys(sensors.owner))
    size = len(columns)
    if isinstance(noise, str):
        _validate.one_of("noise", noise, ("equal", "separate", "free"))
        entries: list[list[Any]] = [[0.0] * size for _ in range(size)]
        for i, (owner, state) in enumerate(columns):
            entries[i][i] = f"noise_var{owner}" if noise == "equal" else f"noise_var{owner}{state}"
            for j in range(i if noise == "free" else 0):
                entries[i][j] = entries[j][i] = "noise_cov" + "".join(columns[j]) + "".join(columns[i])
        return from_entries(entries, "measurement_cov", symmetric=True)
    value = np.asarray(noise, dtype=float)
    if value.ndim < 2:
        if value.shape == (len(owners),):
            value = value[[owners.index(owner) for owner in sensors.owner]]
        if value.shape not in ((), (size,)):
            raise ParameterError(
                f"noise has shape {value.shape}, expected one variance, {len(owners)} for the sensors, or {size} for "
                "the columns."
            )
        value = np.diag(np.broadcast_to(value, (size,)))
    if value.shape != (size, size):
        raise ParameterError(f"noise has shape {value.shape}, expected ({size}, {size}).")
    _validate.covariance("noise", value, (), semi=True)
    return fixed(value)


def first_state(initial: str, mean: Any, cov: Any, names: Sequence[str]) -> dict[str, Pattern]:
    """Patterns of the moments of the first state.

    Raises
    ------
    ParameterError
        If it is known, and moments are missing or of another shape.
    """
    _validate.one_of("initial", initial, ("diffuse", "fixed", "known"))
    n = len(names)
    if initial != "known":
        if mean is not None or cov is not None:
            raise ParameterError(
                f"initial_mean or initial_cov is given, but initial is {initial!r}: leave them out, or say "
                'initial="known".'
            )
        at, spread = (0.0, np.inf) if initial == "diffuse" else (np.nan, 0.0)
        return {"initial_mean": fixed(np.full(n, at)), "initial_cov": fixed(np.diag(np.full(n, spread)))}
    if mean is None or cov is None:
        raise ParameterError("initial is 'known': give initial_mean and initial_cov.")
    mean, cov = np.asarray(mean, dtype=float), np.asarray(cov, dtype=float)
    if mean.shape != (n,) or cov.shape != (n, n):
        raise ParameterError(
            f"initial_mean has shape {mean.shape} and initial_cov {cov.shape}, expected {(n,)} and {(n, n)} for "
            f"the states {listed(names)}."
        )
    _validate.finite("number", "initial_mean", mean)
    _validate.covariance("initial_cov", cov, (), semi=True)
    return {"initial_mean": fixed(mean), "initial_cov": fixed(cov)}
