"""Components of a structural model: a panel for each, over one time axis."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from statespace_em.errors import DataError
from statespace_em.plotting import _style as style
from statespace_em.plotting._inputs import Floats, choose, listed, names, one_sequence, time_labels, whose
from statespace_em.plotting._style import AxesArray, TimeAxis
from statespace_em.plotting.states import draw_band, draw_measurements

WORDS = {
    "1:T": "Smoothed components{}: with hindsight, data 1:T",
    "1:t": "Filtered components{}: known at the time, data 1:t",
}


def plot_components(
    parts: xr.Dataset,
    *,
    components: Hashable | list[Hashable] | None = None,
    sequence: Hashable | None = None,
    axes: Any = None,
) -> AxesArray:
    """Show a series taken apart: a panel for each component with its interval, y behind the level.

    Parameters
    ----------
    parts : Dataset
        What ``decompose(y)`` of a structural model returned; ``attrs["units"]`` of y stand on the axes.
    components : name or list of names, optional
        Those to show; all unless given.
    sequence : optional
        The sequence of a panel to show.
    axes : Axes or sequence of Axes, optional
        One for each panel.

    Returns
    -------
    ndarray of Axes

    Raises
    ------
    DataError
        When the Dataset has no components, or a component or the sequence does not exist.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import statespace_em as sse
    >>> flow = sse.datasets.nile()
    >>> axes = sse.plotting.plot_components(sse.designs.local_level().fit(flow).decompose(flow))
    >>> [ax.get_ylabel() for ax in axes]
    ['level (1e8 m^3 per year)', 'irregular (1e8 m^3 per year)']
    """
    if not isinstance(parts, xr.Dataset) or not {"mean", "lower", "upper", "kind", "in_y"} <= set(parts.variables):
        have = listed(parts.data_vars) if isinstance(parts, xr.Dataset) else type(parts).__name__
        raise DataError(f"expected mean, lower and upper of components, got {have}; pass what decompose(y) returned")
    conditioning = str(parts["mean"].attrs.get("conditioning"))
    mean, lower, upper = (_rows(parts[name], sequence) for name in ("mean", "lower", "upper"))
    time = _time(mean)
    known = names(mean, "component")
    chosen = choose(components, known, "component")
    kinds = dict(zip(known, parts["kind"].values.tolist()))
    columns = dict(zip(known, parts["column"].values.tolist())) if "column" in parts.coords else dict.fromkeys(known)
    firsts = [
        next((name for name in chosen if columns[name] == column and kinds[name] in ("level", "motion")), None)
        for column in dict.fromkeys(columns.values())
    ]
    heights = [2.3 if name in firsts else 1.25 for name in chosen]
    panels, units = style.stacked_axes(axes, heights), str(parts.attrs.get("units", ""))
    band = f"{100 * float(parts.attrs.get('level', np.nan)):.4g} % interval"
    for i, (ax, name) in enumerate(zip(panels, chosen, strict=True)):
        value, low, high = (array.sel(component=name).values for array in (mean, lower, upper))
        if name in firsts:
            draw_measurements(ax, time, *_behind(mean, parts, [columns[other] == columns[name] for other in known]))
        if kinds[name] == "irregular":
            _draw_sticks(ax, time, value)
        else:
            colour = style.PALETTE[i % len(style.PALETTE)]
            draw_band(ax, time, value, (high - low) / 2.0, colour, label=None, band_label=band if i == 0 else None)
            _limit(ax, value, (high - low) / 2.0)
        if kinds[name] not in ("level", "motion", "constant", "irregular"):
            ax.axhline(0.0, color=style.FAINT, linewidth=0.8, zorder=0.9)
        style.label_panel(ax, style.with_unit(name, units if kinds[name] != "slope" else ""), heights[i])
        style.tidy(ax)
        style.few_ticks(ax, 5 if name in firsts else 3)
        style.draw_time_axis(ax, time, label=ax is panels[-1])
    if panels[0].get_legend_handles_labels()[1]:
        style.legend_right(panels[0])
    style.set_title(panels[0], WORDS.get(conditioning, "Components{}").format(whose(sequence)))
    return panels


def _rows(array: xr.DataArray, sequence: Hashable | None) -> xr.DataArray:
    """Rows of one sequence, time first."""
    array = array.transpose(..., "component")
    return array if array.ndim == 2 else one_sequence(array, str(array.dims[0]), sequence)


def _time(array: xr.DataArray) -> TimeAxis:
    name = str(array.dims[0])
    return style.time_axis(time_labels(array, name), array.sizes[name], name)


def _behind(mean: xr.DataArray, parts: xr.Dataset, own: list[bool]) -> tuple[Floats, str]:
    """Return a column of y, less the effects of regressors if there are any, and how to call it."""
    of_regressors = (parts["kind"].values == "regression") & own
    kept = parts["in_y"].values & own & ~of_regressors
    return mean.values[:, kept].sum(1), "y less regressors" if of_regressors.any() else "y"


def _draw_sticks(ax: Axes, time: TimeAxis, value: Floats) -> None:
    seen = np.isfinite(value)
    ax.vlines(time.position[seen], 0.0, value[seen], color="0.45", linewidth=0.9 if len(value) < 500 else 0.5)
    ax.axhline(0.0, color=style.FAINT, linewidth=0.8, zorder=0.9)


def _limit(ax: Axes, value: Floats, half: Floats) -> None:
    """Keep intervals of a start that is hardly known from flattening everything else."""
    seen = np.isfinite(value) & np.isfinite(half)
    if not seen.any():
        return
    typical = float(np.quantile(half[seen], 0.9))
    usual = half <= 3.0 * typical
    low, high = (float(f(value[seen & usual] + sign * half[seen & usual])) for f, sign in ((np.min, -1), (np.max, 1)))
    shown = [line.get_ydata() for line in ax.get_lines()]  # measurements behind a level
    low = min([low, *(float(np.nanmin(y)) for y in shown[:-1] if np.size(y))])
    high = max([high, *(float(np.nanmax(y)) for y in shown[:-1] if np.size(y))])
    margin = 0.05 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + margin)
