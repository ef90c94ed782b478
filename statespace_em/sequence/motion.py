"""Motion in continuous time: what moves, what pushes it, and both over the steps between rows."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.continuous import discretise
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import Labels, show
from statespace_em.patterns import Pattern, fixed, from_entries

AXES = ("x", "y", "z")
PREFIXES = ("", "v_", "a_")  # of the states: position, velocity, acceleration
DENSITIES = {2: "acceleration_density", 3: "jerk_density"}
EVEN = 1e-9  # relative difference up to which gaps are the same


class Motion(NamedTuple):
    """Dynamics ``ds = drift s dt + dw`` of m states seen along D axes."""

    states: list[str]
    drift: Floats  # (n, n), 1 / time
    pushes: Floats  # (J, n, n), covariance of dw per unit of time and of each density
    densities: list[str]  # names (J,) of the densities
    view: Floats  # (D, n)


class Steps(NamedTuple):
    """Dynamics over G gaps."""

    transition: Floats  # (G, n, n)
    noises: Floats  # (J, G, n, n), covariance of the noise per density

    def cov(self, densities: Floats) -> Floats:
        """Covariance of the noise over each gap (G, n, n)."""
        return np.asarray(np.tensordot(densities, self.noises, 1))


def motion(axes: Sequence[str], order: int, rate: float, *, separate: bool) -> Motion:
    """Chain of derivatives along each axis, white noise driving the last; the first two axes may turn.

    ``order`` is the number of derivatives kept, position included; ``rate`` turns the velocity in the plane of the
    first two axes (radians per unit of time, from the first to the second axis); ``separate`` gives every axis a
    density of its own.
    """
    d = len(axes)
    n = order * d
    drift: Floats = np.kron(np.eye(order, k=1), np.eye(d)).astype(float)
    if rate:
        drift[d, d + 1], drift[d + 1, d] = -rate, rate
    single = np.zeros((d, n, n))
    for j in range(d):
        single[j, n - d + j, n - d + j] = 1.0
    word = DENSITIES[order]
    names = [f"{word}_{axis}" for axis in axes] if separate else [word]
    pushes = single if separate else single.sum(0, keepdims=True)
    states = [f"{prefix}{axis}" for prefix in PREFIXES[:order] for axis in axes]
    return Motion(states, drift, pushes, names, np.eye(d, n))


def over(moves: Motion, gaps: Floats) -> Steps:
    """Exact dynamics over each gap; a gap that comes often is worked out once."""
    each, place = np.unique(gaps, return_inverse=True)
    d = len(moves.view)
    order = len(moves.states) // d
    if np.array_equal(moves.drift, np.kron(np.eye(order, k=1), np.eye(d))):
        flow, noise = _chain(order, each)
        axes = np.array([np.diag(push)[-d:] for push in moves.pushes])  # (J, d), which axes a density drives
        transition = np.einsum("gij,kl->gikjl", flow, np.eye(d)).reshape(len(each), order * d, order * d)
        noises = np.einsum("gij,ak,kl->agikjl", noise, axes, np.eye(d)).reshape(len(axes), *transition.shape)
        return Steps(transition[place], noises[:, place])
    found = [discretise(moves.drift, push, each) for push in moves.pushes]
    return Steps(found[0].transition[place], np.stack([step.cov[place] for step in found]))


def _chain(order: int, gaps: Floats) -> tuple[Floats, Floats]:
    """Flow and noise (G, order, order) of one axis that nothing turns: the matrix exponential ends as a polynomial.

    Closed form because an exponential for each of many different gaps would take most of the time of a fit.
    """
    flow, noise = (np.zeros((len(gaps), order, order)) for _ in range(2))
    for i in range(order):
        for j in range(order):
            left, right = order - 1 - i, order - 1 - j
            if j >= i:
                flow[:, i, j] = gaps ** (j - i) / factorial(j - i)
            noise[:, i, j] = gaps ** (left + right + 1) / ((left + right + 1) * factorial(left) * factorial(right))
    return flow, noise


class Grid(NamedTuple):
    """When the rows are."""

    step: float  # between rows; of uneven ones the median
    gaps: Floats | None  # (T,), from each row to the next; None where all are the step


def grid_of(labels: Labels, unit: str, ahead: int) -> Grid:
    """Gaps between rows from the time coordinate, ``ahead`` steps after the end included.

    Raises
    ------
    DataError
        If two rows have the same time, or sequences with uneven rows have different times.
    """
    gaps = [_gaps(index, unit) for index in labels.times]
    longest = max(gaps, key=len)
    every = np.concatenate(gaps)
    if not len(every):
        return Grid(1.0, None)
    step = float(np.median(every))
    if every.min() <= 0.0:
        number = next(i for i, own in enumerate(gaps) if len(own) and own.min() <= 0.0)
        row = int(np.argmin(gaps[number])) + 1
        raise DataError(
            f"two rows have the {labels.time} {show(labels.times[number][row])}: put measurements of one time into "
            "the columns of one row."
        )
    if np.ptp(every) <= EVEN * step:
        return Grid(step, None)
    for own, key in zip(gaps, labels.keys):
        if not np.allclose(own, longest[: len(own)], rtol=EVEN, atol=0.0):
            raise DataError(
                f"the rows of {labels.sequence} {show(key)} are at other times than those of the longest sequence: "
                "give all of them the same times, with NaN where there is no measurement, or fit them one by one."
            )
    return Grid(step, np.concatenate([longest, np.full(1 + ahead, step)]))


def _gaps(index: pd.Index, unit: str) -> Floats:
    """Lengths of the steps of one sequence; 1 where rows have no times."""
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
        return np.asarray(np.diff(index.asi8) / unit_length(unit, index), dtype=float)
    if pd.api.types.is_numeric_dtype(index.dtype):
        return np.diff(index.to_numpy(dtype=float))
    return np.ones(max(len(index) - 1, 0))


def unit_length(unit: str, index: pd.DatetimeIndex | pd.TimedeltaIndex) -> float:
    """Ticks of an index in a unit of time."""
    try:
        return float(pd.Timedelta(f"1 {unit}") / pd.Timedelta(f"1 {index.unit}"))
    except ValueError:
        raise ParameterError(f"unit is {unit!r}, expected a unit of time such as 's', 'h' or 'D'.") from None


def spreads(steps: Steps) -> Floats:
    """Lower factors (G, n, n) of the noise of each step: what white noise of the densities' size does to the state."""
    return np.asarray(np.linalg.cholesky(steps.noises.sum(0)))


def noise_pattern(noise: Any, axes: Sequence[str], sensors: int) -> Pattern:
    """Pattern of the measurement noise of sensors that each measure all axes: a word, or its value.

    Raises
    ------
    ParameterError
        If the word is none, or the value has another shape.
    """
    columns = [(f"_{s + 1}" if sensors > 1 else "", f"_{axis}") for s in range(sensors) for axis in axes]
    size = len(columns)
    if isinstance(noise, str):
        _validate.one_of("noise", noise, ("equal", "separate", "free"))
        entries: list[list[Any]] = [[0.0] * size for _ in range(size)]
        for i, (sensor, axis) in enumerate(columns):
            entries[i][i] = f"noise_var{sensor}" if noise == "equal" else f"noise_var{sensor}{axis}"
            for j in range(i if noise == "free" else 0):
                entries[i][j] = entries[j][i] = "noise_cov" + "".join(columns[j]) + "".join(columns[i])
        return from_entries(entries, "measurement_cov", symmetric=True)
    value = np.asarray(noise, dtype=float)
    if value.ndim < 2:
        value = np.repeat(value, len(axes)) if value.shape == (sensors,) else value
        if value.shape not in ((), (size,)):
            raise ParameterError(
                f"noise has shape {value.shape}, expected one variance, {sensors} for the sensors, or {size} for the "
                "columns."
            )
        value = np.diag(np.broadcast_to(value, (size,)))
    if value.shape != (size, size):
        raise ParameterError(f"noise has shape {value.shape}, expected ({size}, {size}).")
    _validate.covariance("noise", value, (), semi=True)
    return fixed(value)
