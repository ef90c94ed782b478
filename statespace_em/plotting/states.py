"""Linear-Gaussian models: states and signals with bands over time."""

from __future__ import annotations

from collections.abc import Hashable
from statistics import NormalDist
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.typing import ColorType

from statespace_em.errors import DataError
from statespace_em.plotting import _style as style
from statespace_em.plotting._inputs import (
    Floats,
    Latent,
    Observed,
    as_latent,
    as_observed,
    check_moments,
    choose,
    column_values,
    names,
    parameter,
    shared_time,
    title,
    whose,
)
from statespace_em.plotting._style import AxesArray, TimeAxis

MOST = 6  # panels of states that nobody asked for


def plot_states(
    y: Any,
    posterior: xr.Dataset,
    params: xr.Dataset | None = None,
    *,
    states: Hashable | list[Hashable] | None = None,
    level: float = 0.95,
    sequence: Hashable | None = None,
    axes: Any = None,
) -> AxesArray:
    """Show what a linear-Gaussian model says about the measurements: signal or states with bands.

    Parameters
    ----------
    y : Series, DataFrame, DataArray or array, (time,) or (time, feature)
        The measurements, in their own units; NaN where there is none, and there the band widens.
    posterior : Dataset
        The result of ``e_step`` (gamma and cov), or of ``filter`` (filtered and filtered_cov).
    params : Dataset, optional
        Parameters. With them there is a panel for each feature with the signal
        ``observation @ state + offset`` (units of `y`); the band is that of the signal, without measurement
        noise. Without them there is a panel for each state, and the measurements are drawn where a column has
        the state's name (a single column: in the first panel).
    states : name or list of names, optional
        States to show; with `params`, in panels below those of the signal. Without `params` the first six unless
        given; the harmonics of a season add up in `plot_components`.
    level : float
        Probability of a band at each time.
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
        When `posterior` has no covariances, or other rows than `y`, or when a state does not exist.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import numpy as np, xarray as xr
    >>> from statespace_em.plotting import plot_states
    >>> posterior = xr.Dataset({"gamma": (("time", "state"), np.zeros((9, 1))),
    ...                         "cov": (("time", "state", "state_aux"), np.ones((9, 1, 1)))})
    >>> axes = plot_states(np.sin(np.arange(9)), posterior)
    >>> axes[0].get_title(loc="left")
    'Smoothed states: with hindsight, data 1:T'
    """
    latent = as_latent(posterior, sequence=sequence)
    cov = check_moments(latent)
    observed = as_observed(y, sequence=sequence)
    time = shared_time(observed, latent)
    chosen = [] if params is not None and states is None else choose(states, latent.states, "state")
    chosen = chosen[:MOST] if states is None and axes is None else chosen
    features: tuple[Hashable, ...] = ()
    if params is not None:
        features, signal, variance = signal_of(latent, cov, params)
    n_panels = len(features) + len(chosen)
    height = max(1.2, 2.6 - 0.4 * n_panels)
    panels = style.stacked_axes(axes, [height] * n_panels)
    for d, name in enumerate(features):
        draw_band(
            panels[d],
            time,
            signal[:, d],
            level_width(level) * np.sqrt(variance[:, d]),
            style.PALETTE[0],
            label="signal",
            band_label=f"{100 * level:.4g} % band",
        )
        draw_measurements(panels[d], time, column_values(observed, name, features))
        style.label_panel(panels[d], style.with_unit(name, observed.unit_of(name)), height)
    for ax, name in zip(panels[len(features) :], chosen, strict=True):
        k = latent.states.index(name)
        sd = np.sqrt(np.maximum(cov[:, k, k], 0.0))
        draw_band(
            ax,
            time,
            latent.mean[:, k],
            level_width(level) * sd,
            style.state_colours(k + 1)[k],
            label="state",
            band_label=f"{100 * level:.4g} % band",
        )
        style.label_panel(ax, style.state_text(name), height)
        if params is None:
            _draw_column_of_state(ax, observed, name, time, first=ax is panels[0])
    for ax in panels:
        style.tidy(ax)
        style.few_ticks(ax)
        style.draw_time_axis(ax, time, label=ax is panels[-1])
    style.legend_right(panels[0])
    few = len(chosen) if states is None and len(chosen) < len(latent.states) and not features else 0
    part = f"; {few} of {len(latent.states)}, states= chooses" if few else ""
    style.set_title(panels[0], title(latent, ("signal" if features else "states") + whose(sequence)) + part)
    return panels


def level_width(level: float) -> float:
    """Half the width of a central normal interval, in standard deviations."""
    if not 0 < level < 1:
        raise DataError(f"level is {level}, expected a probability between 0 and 1 such as 0.95")
    return NormalDist().inv_cdf((1 + level) / 2)


def draw_band(
    ax: Axes,
    time: TimeAxis,
    mean: Floats,
    half_width: Floats,
    colour: ColorType,
    *,
    label: str | None = None,
    band_label: str | None = None,
) -> None:
    """Draw a line with a band around it."""
    ax.fill_between(
        time.position,
        mean - half_width,
        mean + half_width,
        facecolor=colour,
        alpha=0.22,
        linewidth=0,
        label=band_label,
        gid="band",
    )
    ax.plot(time.position, mean, color=colour, linewidth=1.2 if len(mean) < 2000 else 0.8, label=label)


def observation_of(latent: Latent, params: xr.Dataset) -> tuple[tuple[Hashable, ...], Floats]:
    """Names of the features and the observation matrix, (1 | N, feature, state)."""
    has = params["observation"].dims if isinstance(params, xr.Dataset) and "observation" in params else ()
    rows = tuple(str(dim) for dim in has if dim in (latent.time, "time"))  # the time of y may have another name
    observation = parameter(params, "observation", (*rows, "feature", "state"))
    matrix = observation.values[: len(latent.mean)] if rows else observation.values[None]  # the future may be there too
    if matrix.shape[2] != len(latent.states) or len(matrix) not in (1, len(latent.mean)):
        raise DataError(
            f"observation has shape {observation.shape}, the posterior has {len(latent.states)} states "
            f"and {len(latent.mean)} rows; pass the params that the posterior was computed with"
        )
    return names(observation, "feature"), matrix


def signal_of(latent: Latent, cov: Floats, params: xr.Dataset) -> tuple[tuple[Hashable, ...], Floats, Floats]:
    """Names (D,), mean (N, D) and variance (N, D) of the measurements without their noise."""
    features, matrix = observation_of(latent, params)
    mean = np.einsum("nds,ns->nd", np.broadcast_to(matrix, (len(latent.mean), *matrix.shape[1:])), latent.mean)
    if "observation_offset" in params:
        offset = params.observation_offset.transpose(..., "feature").values
        mean = mean + (offset if offset.ndim == 1 else offset[: len(mean)])  # the future may be there too
    variance = np.einsum("nds,nds->nd", matrix @ cov, np.broadcast_to(matrix, (len(cov), *matrix.shape[1:])))
    return features, mean, np.maximum(variance, 0.0)


def draw_measurements(ax: Axes, time: TimeAxis, values: Floats, label: str = "measured") -> None:
    """Draw dots, the smaller the more there are."""
    size = float(np.clip(6.8 - 1.4 * np.log10(max(len(values), 1)), 1.0, 4.5))
    ax.plot(
        time.position,
        values,
        linestyle="",
        marker="o",
        markersize=size,
        markeredgewidth=0,
        color="0.4",
        label=label,
        zorder=1.2,
    )


def _draw_column_of_state(ax: Axes, observed: Observed, name: Hashable, time: TimeAxis, *, first: bool) -> None:
    if name in observed.columns:
        draw_measurements(ax, time, observed.values[:, observed.columns.index(name)])
    elif first and len(observed.columns) == 1:
        draw_measurements(ax, time, observed.values[:, 0])
