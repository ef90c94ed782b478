"""Consistency of a filter as figures: innovations with their bands, NIS or NEES over time."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from statespace_em.errors import DataError
from statespace_em.plotting import _style as style
from statespace_em.plotting._inputs import listed, names, one_sequence, units_of, whose
from statespace_em.plotting._style import AxesArray
from statespace_em.plotting.states import level_width

SHADE = "0.88"


def plot_innovations(
    known: xr.Dataset, y: Any = None, *, level: float = 0.95, sequence: Hashable | None = None, axes: Any = None
) -> AxesArray:
    """Show what each measurement added to its prediction, with the band it keeps under a true model.

    Parameters
    ----------
    known : Dataset
        What ``filter(y)`` of a linear-Gaussian model returned.
    y : Series, DataFrame or DataArray, optional
        The measurements, whose ``attrs["units"]`` stand on the axes: a word, or one for each column.
    level : float
        Probability of the band of each entry; entries outside it are marked.
    sequence : optional
        The sequence of a panel to show.
    axes : Axes or sequence of Axes, optional
        One for each feature.

    Returns
    -------
    ndarray of Axes

    Raises
    ------
    DataError
        When the Dataset has no innovations, or the sequence does not exist.
    """
    if not isinstance(known, xr.Dataset) or not {"innovation", "innovation_cov"} <= set(known.data_vars):
        raise DataError(
            "expected innovation and innovation_cov; pass what filter(y) of a linear-Gaussian model returned"
        )
    innovation, cov = (_single(known[name], 2 + extra, sequence) for extra, name in enumerate(VARIABLES))
    value = innovation.transpose(..., "feature").values
    variance = np.diagonal(cov.transpose(..., "feature", "feature_aux").values, axis1=1, axis2=2)
    time = _time(innovation)
    features = names(innovation, "feature")
    units = {} if y is None else units_of(y, features)
    clock = units.get(time.label, "")
    time = time._replace(label=style.with_unit(time.label, clock)) if clock else time
    height = max(1.2, 2.6 - 0.4 * len(features))
    panels = style.stacked_axes(axes, [height] * len(features))
    half = level_width(level) * np.sqrt(np.where(np.isfinite(variance), variance, np.nan))
    for d, ax in enumerate(panels):
        seen = np.flatnonzero(np.isfinite(value[:, d]) & np.isfinite(half[:, d]))
        ax.axhline(0.0, color=style.FAINT, linewidth=0.8, zorder=1)
        at, wide = time.position[seen], half[seen, d]
        ax.fill_between(at, -wide, wide, color=SHADE, linewidth=0, label=f"{100 * level:.4g} % band", gid="band")
        _dots(ax, at, value[seen, d], np.abs(value[seen, d]) > wide)
        _clip(ax, value[seen, d], 2.5 * float(np.median(wide)) if len(wide) else 1.0)
        name = features[d]
        style.label_panel(ax, style.with_unit(name, units.get(name, units.get("", ""))), height)
        _finish(ax, time, last=ax is panels[-1])
    style.legend_right(panels[0])
    style.set_title(panels[0], f"Innovations{whose(sequence)}: measured less predicted, data 1:t-1")
    return panels


def plot_consistency(found: xr.Dataset, *, sequence: Hashable | None = None, ax: Axes | None = None) -> Axes:
    """Show NIS or NEES over time with its chi-squared band; rows outside it are marked.

    Parameters
    ----------
    found : Dataset
        What ``checks.nis`` or ``checks.nees`` returned.
    sequence : optional
        The sequence of a panel to show.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        When the Dataset is of something else, or the sequence does not exist.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import numpy as np, xarray as xr
    >>> from statespace_em import checks, plotting
    >>> known = xr.Dataset({"innovation": (("time", "feature"), np.ones((9, 1))),
    ...                     "innovation_cov": (("time", "feature", "feature_aux"), np.ones((9, 1, 1)))})
    >>> plotting.plot_consistency(checks.nis(known)).get_title(loc="left")
    'NIS: 100 % of 9 rows in the 95 % band'
    """
    kind = next((name for name in ("nis", "nees") if isinstance(found, xr.Dataset) and name in found), None)
    if kind is None:
        have = listed(found.data_vars) if isinstance(found, xr.Dataset) else type(found).__name__
        raise DataError(f"expected nis or nees, got {have}; pass what checks.nis or checks.nees returned")
    rows = {name: _single(found[name], 1, sequence) for name in (kind, "lower", "upper")}
    value, lower, upper = (rows[name].values for name in (kind, "lower", "upper"))
    time = _time(rows[kind])
    seen = np.flatnonzero(np.isfinite(value))
    ax = style.one_axes(ax, (8.0, 3.0))
    at = time.position[seen]
    band = str(found[kind].attrs.get("description", "")).split(" its ")[-1].split(" under")[0] or "band"
    ax.fill_between(at, lower[seen], upper[seen], step="mid", color=SHADE, linewidth=0, label=band, gid="band")
    outside = (value[seen] < lower[seen]) | (value[seen] > upper[seen])
    _dots(ax, at, value[seen], outside)
    most = float(upper[seen].max(initial=1.0))
    ax.set_ylim(0.0, max(1.1 * most, min(float(value[seen].max(initial=0.0)) * 1.05, 4.0 * most)))
    beyond = int((value[seen] > ax.get_ylim()[1]).sum())
    if beyond:
        ax.annotate(
            f"{beyond} above", (0.995, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize=style.SMALL
        )
    ax.set_ylabel(kind.upper(), fontsize=style.TEXT)
    _finish(ax, time, last=True)
    style.legend_right(ax)
    share = 100.0 * float(1.0 - outside.mean()) if len(outside) else np.nan
    style.set_title(ax, f"{kind.upper()}{whose(sequence)}: {share:.3g} % of {len(seen)} rows in the {band}")
    return ax


VARIABLES = ("innovation", "innovation_cov")


def _single(array: xr.DataArray, ndim: int, sequence: Hashable | None) -> xr.DataArray:
    """Rows of one sequence; the time dim comes first, or after that of the sequences."""
    return array if array.ndim == ndim else one_sequence(array, str(array.dims[0]), sequence)


def _time(array: xr.DataArray) -> style.TimeAxis:
    name = str(array.dims[0])
    index = array.indexes.get(name)
    if index is None and "timestamp" in array.coords:
        index = pd.Index(array["timestamp"].values)
    return style.time_axis(index, array.sizes[name], name)


def _dots(ax: Axes, at: Any, value: Any, outside: Any) -> None:
    size = float(np.clip(6.4 - 1.4 * np.log10(max(len(value), 1)), 1.0, 4.0))
    for chosen, colour, label in ((~outside, style.PALETTE[0], "inside"), (outside, style.PALETTE[2], "outside")):
        ax.plot(
            at[chosen], value[chosen], linestyle="", marker="o", markersize=size, markeredgewidth=0, color=colour,
            label=label,
        )  # fmt: skip


def _clip(ax: Axes, value: Any, least: float) -> None:
    """Keep a few outliers from flattening everything else: they are counted in a corner."""
    reach = max(least, 1.1 * float(np.quantile(np.abs(value), 0.9)) if len(value) else 0.0)
    most = float(np.abs(value).max(initial=0.0))
    limit = min(1.05 * most, 2.0 * reach) if most > reach else reach
    ax.set_ylim(-limit, limit)
    beyond = int((np.abs(value) > limit).sum())
    if beyond:
        ax.annotate(
            f"{beyond} beyond", (0.995, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize=style.SMALL
        )


def _finish(ax: Axes, time: style.TimeAxis, *, last: bool) -> None:
    style.tidy(ax)
    style.few_ticks(ax)
    style.draw_time_axis(ax, time, label=last)
