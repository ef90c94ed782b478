"""How figures look: colours of states, axes, time axes. Nothing global is changed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from statespace_em.errors import DataError

AxesArray = npt.NDArray[np.object_]
RGB = tuple[float, float, float]

# Okabe & Ito (2008), Color Universal Design, with olive for their yellow, unreadable as a line on white.
PALETTE = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#999933", "#666666")
INK = "0.15"
FAINT = "0.55"
SMALL = 8.5
TEXT = 10.0
_SECONDS = ((86400.0 * 3, 86400.0, "days"), (3600.0 * 3, 3600.0, "hours"), (60.0 * 3, 60.0, "minutes"))


class TimeAxis(NamedTuple):
    """Positions of the rows on a horizontal axis and how to write them."""

    position: npt.NDArray[np.float64]  # (N,), matplotlib day numbers for dates
    label: str
    dated: bool

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Borders of the rows, (N + 1,): half-way to the neighbours."""
        x = self.position
        if len(x) == 1:
            return np.array([x[0] - 0.5, x[0] + 0.5])
        middle = (x[1:] + x[:-1]) / 2
        return np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])


def state_colours(n_states: int) -> list[RGB]:
    """Colours of states 0..n_states-1: the position of a state fixes its colour in every figure."""
    colours = []
    for k in range(n_states):
        paler = 0.45 * (k // len(PALETTE) % 2)
        r, g, b = to_rgb(PALETTE[k % len(PALETTE)])
        colours.append((r + paler * (1 - r), g + paler * (1 - g), b + paler * (1 - b)))
    return colours


def day_numbers(dates: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return matplotlib's numbers for dates: days since 1970."""
    return np.asarray(mdates.date2num(dates), np.float64)  # type: ignore[no-untyped-call]


def time_axis(labels: pd.Index | None, n_rows: int, name: str) -> TimeAxis:
    """Positions for dates, periods, durations, numbers; anything else is numbered 0..N-1."""
    if labels is None:
        return TimeAxis(np.arange(n_rows, dtype=float), name, False)
    if isinstance(labels, pd.DatetimeIndex):
        return TimeAxis(day_numbers(labels.to_numpy("datetime64[us]")), name, True)
    if isinstance(labels, pd.TimedeltaIndex):
        seconds = labels.total_seconds().to_numpy(float)
        longest = float(np.ptp(seconds))
        unit, word = next(((u, w) for least, u, w in _SECONDS if longest >= least), (1.0, "seconds"))
        return TimeAxis(seconds / unit, f"{name} ({word})", False)
    if pd.api.types.is_numeric_dtype(labels.dtype):
        return TimeAxis(labels.to_numpy(float), name, False)
    return TimeAxis(np.arange(n_rows, dtype=float), name, False)


def draw_time_axis(ax: Axes, time: TimeAxis, *, label: bool = True) -> None:
    """Limits, ticks and label of a horizontal time axis."""
    if time.dated:
        ax.xaxis_date()
        locator = mdates.AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    elif (time.position == np.round(time.position)).all():  # no ticks between whole rows, horizons, years
        ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    edges = time.edges
    ax.set_xlim(edges[0], edges[-1])
    if label and not time.dated:
        ax.set_xlabel(time.label, fontsize=TEXT)


def tidy(ax: Axes) -> None:
    """Leave only the lines that carry information."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.4")
    ax.tick_params(labelsize=SMALL, color="0.4")


def set_title(ax: Axes, title: str) -> None:
    """Write a left-aligned title."""
    ax.set_title(title, loc="left", fontsize=TEXT, color=INK)


def few_ticks(ax: Axes, n: int = 5) -> None:
    """At most n + 1 round values on the vertical axis."""
    ax.yaxis.set_major_locator(MaxNLocator(n))
    ax.ticklabel_format(axis="y", useOffset=False)


def legend_right(ax: Axes, *others: Axes, **options: Any) -> None:
    """Put a legend to the right of the panel, also for the artists of other panels."""
    known: dict[str, Any] = {}
    for one in (*others, ax):
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    ax.legend(
        list(known.values()),
        list(known),
        loc="upper left",
        bbox_to_anchor=(1.005, 1.03),
        frameon=False,
        fontsize=SMALL,
        handlelength=1.2,
        borderaxespad=0.2,
        **options,
    )


def stacked_axes(axes: Any, heights: Sequence[float], *, width: float = 8.0) -> AxesArray:
    """Return the caller's axes, checked, or a new column of panels (heights in inches) over one time axis."""
    if axes is not None:
        return check_axes(axes, len(heights))
    figure, made = plt.subplots(
        len(heights),
        1,
        figsize=(width, sum(heights) + 0.5),
        height_ratios=list(heights),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    _loosen(figure)
    figure.align_ylabels(made[:, 0])
    return made[:, 0]


def grid_axes(axes: Any, n: int, *, width: float = 3.4, height: float = 2.7, n_columns: int = 3) -> AxesArray:
    """Return the caller's axes, checked, or n new panels in rows of at most ``n_columns``."""
    if axes is not None:
        return check_axes(axes, n)
    columns = min(n, n_columns)
    rows = -(-n // columns)
    figure, made = plt.subplots(
        rows, columns, figsize=(max(width * columns, 4.8), height * rows), squeeze=False, layout="constrained"
    )
    _loosen(figure)
    for spare in made.flat[n:]:
        figure.delaxes(spare)
    return made.flat[:n]


def check_axes(axes: Any, n: int) -> AxesArray:
    """One-dimensional array of exactly n Axes."""
    given = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(given) != n or not all(isinstance(ax, Axes) for ax in given):
        raise DataError(
            f"axes: got {len(given)} value(s), this figure has {n} panel(s); pass {n} matplotlib Axes "
            "or leave axes out and a figure is made"
        )
    return given


def one_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the caller's Axes or a new figure of the given size (inches)."""
    if ax is not None:
        return ax
    figure, made = plt.subplots(figsize=size, layout="constrained")
    _loosen(figure)
    return made


def _loosen(figure: Figure) -> None:
    """Margins in inches that keep titles off the border of the page."""
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=0.08, h_pad=0.08)


def text(name: Hashable) -> str:
    """Write a label without matplotlib's special meanings (a leading underscore, dollar signs)."""
    return str(name).replace("$", r"\$").lstrip("_") or "_"


def with_unit(name: Hashable, unit: str) -> str:
    """Write a label with its unit, where that is known."""
    return f"{text(name)} ({unit})" if unit else text(name)


def label_panel(ax: Axes, label: str, height: float) -> None:
    """Write the label of a vertical axis; across where it is longer than the panel is high (inches)."""
    if 0.085 * len(label) > height:
        ax.set_ylabel(label, fontsize=TEXT, rotation=0, ha="right", va="center")
    else:
        ax.set_ylabel(label, fontsize=TEXT)


def state_text(name: Hashable) -> str:
    """Write a state's name; a number becomes 'state 3'."""
    return f"state {name}" if isinstance(name, (int, np.integer)) else text(name)
