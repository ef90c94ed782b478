"""Regimes over time: a series coloured by its states, and the states' probabilities."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from statespace_em.errors import DataError
from statespace_em.plotting import _style as style
from statespace_em.plotting._inputs import (
    Latent,
    Observed,
    as_latent,
    as_observed,
    check_probabilities,
    choose,
    listed,
    one_sequence,
    shared_time,
    title,
)
from statespace_em.plotting._style import AxesArray, TimeAxis
from statespace_em.plotting.states import draw_band, level_width

MOST_PANELS = 4
MOST_ROWS = 10_000  # of a stacked area; more rows are averaged in blocks, finer than a printed dot


def plot_regimes(
    y: Any,
    posterior: xr.Dataset | xr.DataArray,
    *,
    path: Any = None,
    events: Mapping[Any, str] | None = None,
    column: Hashable | list[Hashable] | None = None,
    sequence: Hashable | None = None,
    axes: Any = None,
) -> AxesArray:
    """Show a series on a background coloured by regime, above the probabilities of the states.

    Parameters
    ----------
    y : Series, DataFrame, DataArray or array, (time,) or (time, feature)
        The observations, in their own units; a dict of these for a panel. NaN leaves a gap. Each column has a
        panel, at most four; choose others with `column`.
    posterior : Dataset or DataArray
        The result of ``e_step`` (smoothed) or of ``filter`` (filtered), or one variable of it with dims
        ([sequence,] time, state). The title says which data the probabilities know.
    path : DataArray or array of state names, (time,), optional
        Colours of the background, such as the result of ``decode``. Default: the most probable state of each
        row.
    events : mapping of a time to a text, optional
        Thin vertical lines with a text above. Events outside the series are left out.
    column : name or list of names, optional
        Columns of `y` to show.
    sequence : optional
        The sequence of a panel to show.
    axes : sequence of Axes, optional
        One for each column shown and one for the probabilities.

    Returns
    -------
    ndarray of Axes
        The panels from top to bottom; the last one shows the probabilities.

    Raises
    ------
    DataError
        When `posterior` holds no state probabilities, when it has other rows than `y`, or when a column, a
        sequence or a state of `path` does not exist.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import numpy as np, xarray as xr
    >>> from statespace_em.plotting import plot_regimes
    >>> stress = np.repeat([0.1, 0.8], 20)
    >>> gamma = xr.DataArray(np.stack([1 - stress, stress], 1), dims=("time", "state"),
    ...                      coords={"state": ["calm", "stress"]})
    >>> axes = plot_regimes(np.sin(np.arange(40)), xr.Dataset({"gamma": gamma}), events={20: "shock"})
    >>> axes[-1].get_title(loc="left")
    'Smoothed state probabilities: with hindsight, data 1:T'
    """
    latent = as_latent(posterior, sequence=sequence)
    check_probabilities(latent, "plot_states or plot_posterior")
    observed = as_observed(y, sequence=sequence)
    time = shared_time(observed, latent)
    columns = choose(column, observed.columns, "column")
    shown = columns if column is not None else columns[:MOST_PANELS]
    states = _state_rows(latent) if path is None else _path_rows(path, latent, sequence)
    heights = [2.1 if len(shown) == 1 else 1.5] * len(shown) + [1.3]
    heights[0] += 0.5 if events else 0.0
    panels = style.stacked_axes(axes, heights)
    for ax, name in zip(panels[:-1], shown, strict=True):
        draw_spans(ax, states, time.edges, style.state_colours(len(latent.states)))
        _draw_series(ax, observed, observed.columns.index(name), time)
        style.draw_time_axis(ax, time, label=False)
    draw_stack(panels[-1], latent, time)
    style.set_title(panels[-1], title(latent, "state probabilities"))
    style.legend_right(panels[-1], reverse=True)
    above = _regime_title(latent, path)
    if len(shown) < len(columns):
        above += f" ({len(shown)} of {len(columns)} columns; choose with column=)"
    style.set_title(panels[0], above)
    if events:
        _draw_events(panels, events, time)
    return panels


def plot_posterior(
    posterior: xr.Dataset | xr.DataArray,
    *,
    states: Hashable | list[Hashable] | None = None,
    kind: str = "panels",
    level: float = 0.95,
    sequence: Hashable | None = None,
    axes: Any = None,
) -> AxesArray:
    """Show the states over time: probabilities, or means with bands for a linear-Gaussian model.

    Parameters
    ----------
    posterior : Dataset or DataArray
        The result of ``e_step`` or of ``filter``, or one variable of it with dims ([sequence,] time, state).
    states : name or list of names, optional
        States to show; default all.
    kind : {"panels", "stacked"}
        One panel for each state, or the probabilities of all states stacked in one panel.
    level : float
        Probability of a band, for a linear-Gaussian posterior.
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
        When `posterior` holds no states, or when a state or a sequence does not exist.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import numpy as np, xarray as xr
    >>> from statespace_em.plotting import plot_posterior
    >>> gamma = xr.DataArray(np.full((9, 3), 1 / 3), dims=("time", "state"))
    >>> len(plot_posterior(xr.Dataset({"gamma": gamma})))
    3
    """
    latent = as_latent(posterior, sequence=sequence)
    time = style.time_axis(latent.labels, len(latent.mean), latent.time)
    chosen = choose(states, latent.states, "state")
    if kind not in ("panels", "stacked"):
        raise DataError(f"kind is {kind!r}; choose 'panels' or 'stacked'")
    if kind == "stacked":
        check_probabilities(latent, "kind='panels'")
        panels = style.stacked_axes(axes, [2.2])
        draw_stack(panels[0], latent, time)
        style.legend_right(panels[0], reverse=True)
    else:
        panels = style.stacked_axes(axes, [max(0.85, min(1.5, 7 / len(chosen)))] * len(chosen))
        for ax, name in zip(panels, chosen, strict=True):
            _draw_state(ax, latent, latent.states.index(name), time, level)
            style.draw_time_axis(ax, time, label=ax is panels[-1])
    what = "state probabilities" if latent.cov is None else f"states with {100 * level:.4g} % bands"
    style.set_title(panels[0], title(latent, what))
    return panels


def runs(states: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First row of each run of equal values, and the row after its last."""
    borders = np.flatnonzero(np.diff(states)) + 1
    return np.concatenate([[0], borders]).astype(np.intp), np.concatenate([borders, [len(states)]]).astype(np.intp)


def draw_spans(
    ax: Axes, states: npt.NDArray[np.intp], edges: npt.NDArray[np.float64], colours: list[style.RGB]
) -> None:
    """Colour the background, one rectangle a run and one artist a state."""
    first, last = runs(states)
    for k, colour in enumerate(colours):
        mine = states[first] == k
        if mine.any():
            left, right = edges[first[mine]], edges[last[mine]]
            ax.broken_barh(
                list(zip(left, right - left)),
                (0, 1),
                transform=ax.get_xaxis_transform(),
                facecolor=colour,
                alpha=0.28,
                linewidth=0,
                zorder=0,
                gid=f"state-{k}",
            )


def draw_stack(ax: Axes, latent: Latent, time: TimeAxis) -> None:
    """Probabilities as a stacked area; each row is as wide as its share of the time axis."""
    edges, values = _averaged(time.edges, latent.mean)
    x = np.repeat(edges, 2)[1:-1]
    total = np.vstack([np.zeros(len(values)), np.cumsum(values, 1).T])
    for k, colour in enumerate(style.state_colours(len(latent.states))):
        ax.fill_between(
            x,
            np.repeat(total[k], 2),
            np.repeat(total[k + 1], 2),
            facecolor=colour,
            alpha=0.85,
            linewidth=0,
            label=style.state_text(latent.states[k]),
        )
    style.tidy(ax)
    style.draw_time_axis(ax, time)
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.set_ylabel("probability", fontsize=style.TEXT)


def _averaged(
    edges: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    block = -(-len(values) // MOST_ROWS)
    starts = np.arange(0, len(values), block)
    counts = np.diff(np.append(starts, len(values)))
    return np.append(edges[starts], edges[-1]), np.add.reduceat(values, starts, axis=0) / counts[:, None]


def _state_rows(latent: Latent) -> npt.NDArray[np.intp]:
    known = np.asarray(np.isfinite(latent.mean).all(axis=1))
    return np.where(known, np.where(known[:, None], latent.mean, 0.0).argmax(1), -1)


def _path_rows(path: Any, latent: Latent, sequence: Hashable | None) -> npt.NDArray[np.intp]:
    if isinstance(path, Mapping):
        path = path[sequence]
    if isinstance(path, xr.DataArray) and path.ndim == 2:
        path = one_sequence(path, str(path.dims[0]), sequence)
    values = np.asarray(path).ravel()
    if len(values) != len(latent.mean):
        raise DataError(
            f"path has {len(values)} rows, the posterior has {len(latent.mean)}; "
            "pass the result of decode for the same y"
        )
    rows = pd.Index(latent.states).get_indexer(pd.Index(values))
    if (rows < 0).any():
        at = int(np.flatnonzero(rows < 0)[0])
        raise DataError(f"path has {listed(values[at : at + 1])[1:-1]} at row {at}; states are {listed(latent.states)}")
    return rows


def _regime_title(latent: Latent, path: Any) -> str:
    if path is None:
        return title(latent, "regimes")
    hindsight = isinstance(path, xr.DataArray) and path.attrs.get("conditioning") == "1:T"
    return "Regimes of the path given" + (": with hindsight, data 1:T" if hindsight else "")


def _draw_series(ax: Axes, observed: Observed, position: int, time: TimeAxis) -> None:
    values, symbols = observed.values[:, position], observed.symbols[position]
    seen = np.isfinite(values)
    padded = np.concatenate([[False], seen, [False]])
    alone = seen & ~padded[:-2] & ~padded[2:]
    if symbols is not None:
        ax.plot(time.position, values, linestyle="", marker="|", markersize=4, color=style.INK)
        ax.set_yticks(range(len(symbols)), [style.text(symbol) for symbol in symbols])
        ax.set_ylim(-0.5, len(symbols) - 0.5)
    else:
        width = float(np.clip(1.2 - 0.2 * np.log10(max(len(values) / 100, 1)), 0.4, 1.2))
        ax.plot(time.position, values, linewidth=width, color=style.INK)
        style.few_ticks(ax)
    if symbols is None and alone.any():
        ax.plot(time.position[alone], values[alone], linestyle="", marker=".", markersize=3, color=style.INK)
    ax.set_ylabel(style.text(observed.columns[position]), fontsize=style.TEXT)
    style.tidy(ax)


def _draw_state(ax: Axes, latent: Latent, k: int, time: TimeAxis, level: float) -> None:
    colour = style.state_colours(len(latent.states))[k]
    if latent.cov is None:
        edges, values = _averaged(time.edges, latent.mean[:, [k]])
        ax.fill_between(
            np.repeat(edges, 2)[1:-1],
            0,
            np.repeat(values[:, 0], 2),
            facecolor=colour,
            alpha=0.85,
            linewidth=0,
        )
        ax.set_ylim(0, 1)
        ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    else:
        sd = np.sqrt(np.maximum(latent.cov[:, k, k], 0.0))
        draw_band(ax, time, latent.mean[:, k], level_width(level) * sd, colour)
        style.few_ticks(ax, 4)
    ax.set_ylabel(style.state_text(latent.states[k]), fontsize=style.TEXT)
    style.tidy(ax)


def _draw_events(panels: AxesArray, events: Mapping[Any, str], time: TimeAxis) -> None:
    position = {_event_position(when, time): text for when, text in events.items()}
    edges = time.edges
    kept = {x: str(text) for x, text in sorted(position.items()) if edges[0] <= x <= edges[-1]}
    if not kept:
        return
    for ax in panels:
        for x in kept:
            ax.axvline(x, color=style.INK, linewidth=0.7, linestyle=(0, (4, 2)), zorder=3, gid="event")
    rotation = _event_rotation(panels[0], kept, edges[-1] - edges[0])
    above = panels[0].secondary_xaxis("top")
    above.spines["top"].set_visible(False)
    above.set_xticks(list(kept), [style.text(text) for text in kept.values()])
    above.tick_params(labelsize=style.SMALL, length=2, color=style.INK, pad=1, labelrotation=rotation)
    for label in above.get_xticklabels():
        label.set(ha="center" if rotation in (0, 90) else "left", rotation_mode="anchor" if rotation == 40 else None)


def _event_position(when: Any, time: TimeAxis) -> float:
    try:
        if not time.dated:
            return float(when)
        return float(style.day_numbers(pd.Timestamp(when).tz_localize(None).to_datetime64()))
    except (TypeError, ValueError) as error:
        kind = "dates" if time.dated else "numbers"
        raise DataError(
            f"event {when!r} is not on the time axis, which has {kind}; key the events by {kind}"
        ) from error


def _event_rotation(ax: Axes, kept: Mapping[float, str], length: float) -> int:
    """Level texts when there is room, slanted when it is tight, upright when the lines almost touch."""
    box = ax.get_position().width * ax.get_figure(root=True).get_figwidth() * 72  # type: ignore[union-attr]
    x = np.array(list(kept)) / length * box
    width = np.array([len(text) for text in kept.values()]) * style.SMALL * 0.55 + 6
    if len(x) == 1 or (np.diff(x) > (width[1:] + width[:-1]) / 2).all():
        return 0
    return 40 if np.diff(x).min() > 2 * style.SMALL else 90
