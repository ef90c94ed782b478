"""Dates of rows that are a step each: whether steps seem to be missing among them."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from statespace_em._typing import Ints
from statespace_em.errors import DataWarning
from statespace_em.labels import Labels, show
from statespace_em.sequence.time_grid import UNITS

LONG = 1.5  # in units of the usual step: months differ by less


def warn_of_gaps(labels: Labels) -> None:
    """Warn where dates leave out steps that the model takes for none; those of trading are taken as they are."""
    for index in labels.times:
        dates = index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
        if not isinstance(dates, pd.DatetimeIndex) or len(dates) < 3:
            continue
        steps = np.diff(dates.asi8)
        usual = pd.Timedelta(int(np.median(steps)), unit=dates.unit)
        longer = np.flatnonzero(steps > LONG * np.median(steps))
        if not len(longer) or _of_trading(dates, longer, daily=usual >= pd.Timedelta("1D")):
            continue
        first, months = longer[0], usual >= pd.Timedelta("28D")
        unit = next(unit for unit in UNITS[1:] if usual >= pd.Timedelta(f"1 {unit}"))
        frequency = unit if usual == pd.Timedelta(f"1 {unit}") else to_offset(usual).freqstr
        last = int(np.argmax(steps))
        longest = pd.Timedelta(int(steps[last]), unit=dates.unit)
        most = "" if last == first else f" The longest, of {longest}, follows {show(index[last])}."
        filled = "y.asfreq does" if months else f"y.asfreq({frequency!r}) does"
        warnings.warn(
            f"a row is a step, but the dates leave some out: {labels.time} {show(index[first])} is followed by "
            f"{show(index[first + 1])}, where the usual step is {usual}, and {len(longer)} of {len(steps)} steps are "
            f"longer. Put the rows in with NaN, as {filled}, or take a design in continuous time, as "
            f"designs.local_level(unit={unit!r}).{most}",
            DataWarning,
            stacklevel=outside(),
        )
        return


def _of_trading(dates: pd.DatetimeIndex, longer: Ints, *, daily: bool) -> bool:
    """Whether the steps that are longer are weekends and holidays, or the nights and breaks between sessions.

    Sessions are on weekdays, end every day, and open at one time, or at two where clocks change and dates do not.
    What is longer within a day is a break where it is so, from one time to another, on most days.
    """
    if (dates.day_of_week >= 5).any():
        return False
    if daily:
        return True
    days, clock = dates.normalize(), dates - dates.normalize()
    closes = np.flatnonzero(days[1:] != days[:-1])
    breaks = pd.MultiIndex.from_arrays([clock[lunch := np.setdiff1d(longer, closes)], clock[lunch + 1]])
    usual = breaks.value_counts().to_numpy() if len(breaks) else np.zeros(0)
    return bool(
        len(closes)
        and np.isin(closes, longer).all()
        and clock[closes + 1].nunique() <= 2
        and (2 * usual > len(closes) + 1).all()
    )


def outside() -> int:
    """Stack level of who called the package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("statespace_em"):
        frame, level = frame.f_back, level + 1
    return level
