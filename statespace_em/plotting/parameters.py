"""Transition matrices and the progress of a fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from statespace_em.errors import DataError
from statespace_em.plotting import _style as style
from statespace_em.plotting._inputs import Floats, listed, names, parameter
from statespace_em.plotting._style import AxesArray

_SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#9ec9e6", "#0072B2", "#003f66"])


def plot_transition(params: xr.Dataset | xr.DataArray, *, ax: Axes | None = None) -> Axes:
    """Show the transition matrix as a heat map with the expected duration of each state.

    Parameters
    ----------
    params : Dataset or DataArray
        Parameters with ``transition`` (state, next_state), or that matrix. Rows are the state now, columns
        the next state; a matrix labelled the other way round is transposed.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        When there is no ``transition``, or when a row does not sum to 1.

    Notes
    -----
    The expected duration of state k is ``1 / (1 - transition[k, k])`` in steps: the mean of the geometric
    distribution that an HMM implies.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import xarray as xr
    >>> from statespace_em.plotting import plot_transition
    >>> transition = xr.DataArray([[0.9, 0.1], [0.5, 0.5]], dims=("state", "next_state"))
    >>> [tick.get_text() for tick in plot_transition(transition).child_axes[0].get_yticklabels()]
    ['10.0', '2.0']
    """
    transition = parameter(params, "transition", ("state", "next_state"))
    matrix, states = transition.values.astype(float), names(transition, "state")
    for name, total in zip(states, matrix.sum(1), strict=True):
        if not abs(total - 1) < 1e-6:
            raise DataError(
                f"transition row {listed([name])[1:-1]} sums to {total:.6g}, expected 1; "
                "rows are the state now, columns the next state"
            )
    n = len(states)
    ax = style.one_axes(ax, (min(2.6 + 0.75 * n, 11), min(1.3 + 0.62 * n, 9.5)))
    ax.imshow(matrix, cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
    size = float(np.clip(11 - 0.35 * n, 4.5, 10))
    for (row, column), value in np.ndenumerate(matrix):
        ax.text(
            column,
            row,
            _probability(value),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if value > 0.5 else "0.6" if value == 0 else style.INK,
        )
    shown = [style.text(name) for name in states]
    steep = max(map(len, shown)) > 9 and n > 3
    ax.set_xticks(range(n), shown, rotation=35 if steep else 0, ha="right" if steep else "center")
    ax.set_yticks(range(n), shown)
    ax.set_xlabel("next state", fontsize=style.TEXT)
    ax.set_ylabel("state now", fontsize=style.TEXT)
    _draw_durations(ax, np.diagonal(matrix))
    for edge in np.arange(n - 1) + 0.5:
        ax.axhline(edge, color="0.8", linewidth=0.6)
        ax.axvline(edge, color="0.8", linewidth=0.6)
    ax.spines[:].set(color="0.8", linewidth=0.6)
    ax.tick_params(labelsize=style.SMALL, length=0)
    style.set_title(ax, "Transition probabilities")
    return ax


def plot_trace(trace: pd.DataFrame, *, axes: Any = None) -> AxesArray:
    """Show the progress of a fit: the objective, and on a log axis how far it was from its last value.

    A straight line on the right is EM's linear convergence; its slope is the rate. A line that is still high
    and flat near its end says that the fit stopped too early.

    Parameters
    ----------
    trace : DataFrame
        The ``trace_`` of a fitted model: ``objective`` by iteration, in nats. Steps down are marked in red.
    axes : sequence of two Axes, optional
        Where to draw.

    Returns
    -------
    ndarray of two Axes

    Raises
    ------
    DataError
        When `trace` has no rows or no column ``objective``.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import pandas as pd
    >>> from statespace_em.plotting import plot_trace
    >>> plot_trace(pd.DataFrame({"objective": [-120.0, -101.0, -100.1, -100.0]}))[1].get_yscale()
    'log'
    """
    if not isinstance(trace, pd.DataFrame) or "objective" not in trace:
        has = listed(trace.columns) if isinstance(trace, pd.DataFrame) else f"a {type(trace).__name__}"
        raise DataError(f"trace has no column 'objective': got {has}; pass the trace_ of a fitted model")
    if not len(trace):
        raise DataError("trace has no rows; pass the trace_ of a fitted model")
    left, right = panels = style.grid_axes(axes, 2, width=3.6)
    iteration, objective = trace.index.to_numpy(), trace["objective"].to_numpy(float)
    marker = "." if len(trace) < 60 else ""
    left.plot(iteration, objective, color=style.PALETTE[0], linewidth=1.3, marker=marker)
    down = np.flatnonzero(np.diff(objective) < -1e-9 * np.abs(objective[:-1])) + 1
    if down.size:
        left.plot(iteration[down], objective[down], "x", color=style.PALETTE[1], label="decrease", zorder=3)
        left.legend(frameon=False, fontsize=style.SMALL, loc="lower right")
    gap = objective[-1] - objective[:-1]
    right.set_yscale("log")
    if (gap > 0).any():
        right.plot(
            iteration[:-1],
            np.where(gap > 0, gap, np.nan),
            color=style.PALETTE[0],
            linewidth=1.3,
            marker=marker,
        )
    else:
        right.text(0.5, 0.5, "no step to show", transform=right.transAxes, ha="center", color=style.FAINT)
        right.set_yticks([])
    for ax, text in ((left, "Objective (nats)"), (right, "Gap to the last value (nats)")):
        style.set_title(ax, text)
        ax.set_xlabel(style.text(trace.index.name or "iteration"), fontsize=style.TEXT)
        ax.xaxis.get_major_locator().set_params(integer=True)
        style.tidy(ax)
    style.few_ticks(left)
    right.grid(axis="y", color="0.9", linewidth=0.6)
    return panels


def _probability(value: float) -> str:
    """Three decimals, without writing 1 or 0 for what is neither."""
    if value in (0.0, 1.0):
        return str(int(value))
    if value < 0.0005:
        return "<0.001"
    return ">0.999" if value > 0.9995 else f"{value:.3f}"


def _draw_durations(ax: Axes, stay: Floats) -> None:
    with np.errstate(divide="ignore"):
        duration = 1 / (1 - stay)
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(stay)), [_steps(value) for value in duration])
    right.tick_params(labelsize=style.SMALL, length=0)
    right.set_ylabel("expected duration (steps)", fontsize=style.TEXT, labelpad=7)
    right.spines["right"].set_visible(False)


def _steps(duration: float) -> str:
    if not np.isfinite(duration):
        return "∞"
    return f"{duration:,.0f}" if duration >= 100 else f"{duration:.1f}"
