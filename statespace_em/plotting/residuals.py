"""Residuals as figures: normal, uniform, independent."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from statespace_em.errors import DataError
from statespace_em.plotting import _style as style
from statespace_em.plotting._inputs import Floats, listed, one_sequence, time_labels
from statespace_em.plotting._style import AxesArray

BAND = 0.95
SHADE = "0.88"
DOT = 9.0


class _Shown(NamedTuple):
    pit: Floats  # (N,)
    normal: Floats  # (N,)
    time: style.TimeAxis
    name: Hashable
    of: str  # which of several columns and sequences, for the title


def plot_residuals(
    residuals: xr.Dataset, *, feature: Hashable = None, sequence: Hashable = None, lags: int = 20, axes: Any = None
) -> AxesArray:
    """Show residuals of one column: over time, against the normal, their autocorrelations, and their histogram.

    Parameters
    ----------
    residuals : Dataset
        What ``residuals(y)`` of a model returned.
    feature, sequence : label, optional
        Which column and sequence; they may be left out where there is one only.
    lags : int
        Autocorrelations shown.
    axes : sequence of four Axes, optional
        Where to draw.

    Returns
    -------
    ndarray of four Axes

    Raises
    ------
    DataError
        When the Dataset is not of residuals, or the column or sequence does not exist.

    Notes
    -----
    Under a true model all grey bands hold 95 per cent: pointwise for the quantiles (order statistics of uniform
    draws are beta distributed) and the bars of the histogram (binomial), and for each autocorrelation of the
    residuals and of their squares.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import statespace_em as sse
    >>> quakes = sse.datasets.earthquakes()
    >>> panels = sse.plotting.plot_residuals(sse.PoissonHMM(2).fit(quakes).residuals(quakes))
    >>> [panel.get_title(loc="left") for panel in panels]
    ['Residuals', 'Against the normal', 'Autocorrelation', 'Against the uniform']
    """
    shown = _read(residuals, feature, sequence)
    panels = style.grid_axes(axes, 4, width=4.2, height=2.8, n_columns=2)
    seen = ~np.isnan(shown.normal)
    if seen.sum() < 3:
        raise DataError(f"there are {int(seen.sum())} residuals of {listed([shown.name])[1:-1]}, expected at least 3")
    _draw_time(panels[0], shown)
    _draw_quantiles(panels[1], np.sort(shown.normal[seen]))
    _draw_correlations(panels[2], shown.normal, min(lags, int(seen.sum()) - 2))
    _draw_histogram(panels[3], shown.pit[seen])
    for panel in panels:
        style.tidy(panel)
    return panels


def _read(residuals: Any, feature: Hashable, sequence: Hashable) -> _Shown:
    if not isinstance(residuals, xr.Dataset) or not {"pit", "residual"} <= set(residuals.data_vars):
        raise DataError("expected pit and residual; pass what residuals(y) of a model returned")
    features = residuals["feature"].values.tolist()
    if feature is None and len(features) == 1:
        feature = features[0]
    if feature not in features:
        what = "there are several columns" if feature is None else f"column {feature!r} does not exist"
        raise DataError(f"{what}; choose feature= from {listed(features)}")
    found = []
    for name in ("pit", "residual"):
        array = residuals[name].sel(feature=feature, drop=True)
        if array.ndim == 2:
            array = one_sequence(array, str(array.dims[0]), sequence)
        found.append(array)
    time = str(found[0].dims[0])
    axis = style.time_axis(time_labels(found[0], time), len(found[0]), time)
    several = [style.text(feature)] if len(features) > 1 else []
    several += [style.text(sequence)] if residuals["pit"].ndim == 3 else []
    return _Shown(found[0].values, found[1].values, axis, feature, ", ".join(several))


def _draw_time(ax: Axes, shown: _Shown) -> None:
    ax.axhspan(-1.96, 1.96, color=SHADE, linewidth=0, zorder=0)
    many = len(shown.normal) > 500
    ax.scatter(shown.time.position, shown.normal, s=3.0 if many else DOT, color=style.PALETTE[0], linewidth=0, zorder=2)
    style.draw_time_axis(ax, shown.time)
    ax.set_ylabel("normal score", fontsize=style.TEXT)
    style.set_title(ax, f"Residuals: {shown.of}" if shown.of else "Residuals")


def _draw_quantiles(ax: Axes, values: Floats) -> None:
    from scipy import stats  # slow to import

    n = len(values)
    rank = np.arange(1, n + 1)
    expected = stats.norm.ppf((rank - 0.5) / n)
    tail = (1.0 - BAND) / 2.0
    low, high = (stats.norm.ppf(stats.beta(rank, n + 1 - rank).ppf(level)) for level in (tail, 1.0 - tail))
    ax.fill_between(expected, low, high, color=SHADE, linewidth=0, zorder=0)
    ends = np.array([expected[0], expected[-1]])
    ax.plot(ends, ends, color=style.FAINT, linewidth=0.8, zorder=1)
    ax.scatter(expected, values, s=DOT, color=style.PALETTE[0], linewidth=0, zorder=2)
    ax.set_xlabel("quantile of the normal", fontsize=style.TEXT)
    ax.set_ylabel("normal score", fontsize=style.TEXT)
    style.set_title(ax, "Against the normal")


def _draw_correlations(ax: Axes, normal: Floats, lags: int) -> None:
    n = int((~np.isnan(normal)).sum())
    limit = 1.96 / np.sqrt(n)
    lag = np.arange(1, lags + 1)
    ax.axhspan(-limit, limit, color=SHADE, linewidth=0, zorder=0)
    ax.axhline(0.0, color=style.FAINT, linewidth=0.8, zorder=1)
    for shift, values, label, colour in (
        (-0.15, normal, "residuals", style.PALETTE[0]),
        (0.15, normal**2, "squares", style.PALETTE[1]),
    ):
        height = _autocorrelation(values, lags)
        ax.vlines(lag + shift, 0.0, height, color=colour, linewidth=1.2, zorder=2)
        ax.scatter(lag + shift, height, s=DOT, color=colour, linewidth=0, zorder=3, label=label)
        limit = max(limit, float(np.abs(height).max()))
    ax.set_ylim(-1.15 * limit, 1.45 * limit)  # room for the legend
    ax.set_xlim(0.2, lags + 0.8)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("lag (rows)", fontsize=style.TEXT)
    ax.legend(frameon=False, fontsize=style.SMALL, ncols=2, loc="upper right", borderaxespad=0.1, handletextpad=0.1)
    style.set_title(ax, "Autocorrelation")


def _autocorrelation(values: Floats, lags: int) -> Floats:
    away = values - np.nanmean(values)
    total = np.nansum(away**2)
    return np.array([np.nansum(away[lag:] * away[:-lag]) / total for lag in range(1, lags + 1)])


def _draw_histogram(ax: Axes, pit: Floats) -> None:
    from scipy import stats  # slow to import

    bins = int(np.clip(len(pit) // 15, 5, 20))
    tail = (1.0 - BAND) / 2.0
    limits = stats.binom(len(pit), 1.0 / bins).ppf([tail, 1.0 - tail]) * bins / len(pit)
    ax.axhspan(*limits, color=SHADE, linewidth=0, zorder=0)
    ax.axhline(1.0, color=style.FAINT, linewidth=0.8, zorder=1)
    heights, edges = np.histogram(pit, bins=bins, range=(0.0, 1.0))
    ax.stairs(heights * bins / len(pit), edges, color=style.PALETTE[0], linewidth=1.4, zorder=2, baseline=None)
    ends = [*limits, float(heights.min()) * bins / len(pit), float(heights.max()) * bins / len(pit)]
    room = 0.15 * (max(ends) - min(ends))
    ax.set_xlim(0.0, 1.0)
    ax.set_ylim(max(min(ends) - room, 0.0), max(ends) + room)
    ax.set_xlabel("probability integral transform", fontsize=style.TEXT)
    ax.set_ylabel("density", fontsize=style.TEXT)
    style.set_title(ax, "Against the uniform")
