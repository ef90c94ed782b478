"""Linear-Gaussian models: states and signals with bands over time, tracks with ellipses in the plane."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
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
    listed,
    names,
    parameter,
    shared_time,
    title,
)
from statespace_em.plotting._style import AxesArray, TimeAxis

N_ELLIPSES = 30


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
        States to show; with `params`, in panels below those of the signal.
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
    features: tuple[Hashable, ...] = ()
    if params is not None:
        features, signal, variance = _signal(latent, cov, params)
    n_panels = len(features) + len(chosen)
    panels = style.stacked_axes(axes, [max(1.2, 2.6 - 0.4 * n_panels)] * n_panels)
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
        panels[d].set_ylabel(style.text(name), fontsize=style.TEXT)
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
        ax.set_ylabel(style.state_text(name), fontsize=style.TEXT)
        if params is None:
            _draw_column_of_state(ax, observed, name, time, first=ax is panels[0])
    for ax in panels:
        style.tidy(ax)
        style.few_ticks(ax)
        style.draw_time_axis(ax, time, label=ax is panels[-1])
    style.legend_right(panels[0])
    style.set_title(panels[0], title(latent, "signal" if features else "states"))
    return panels


def plot_track(
    y: Any,
    posterior: xr.Dataset,
    params: xr.Dataset,
    *,
    axes: Sequence[Hashable] | None = None,
    truth: Any = None,
    forecast: xr.Dataset | None = None,
    level: float = 0.95,
    sequence: Hashable | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Show a track in the plane: measurements, the smoothed path and ellipses of its uncertainty.

    Parameters
    ----------
    y : DataFrame, DataArray or array, (time, feature)
        The measured positions, in their own units; NaN where there is none, and there the path is dashed.
    posterior : Dataset
        The result of ``e_step`` (gamma and cov), or of ``filter`` (filtered and filtered_cov).
    params : Dataset
        Parameters; ``observation`` and ``observation_offset`` turn states into positions.
    axes : pair of names, optional
        The features to the right and upwards, such as ``("east", "north")``; default the first two.
    truth : DataFrame, DataArray or array, (time, feature), optional
        A known path, with the columns of `y`.
    forecast : Dataset, optional
        The result of ``forecast``: where the target is expected next, with an ellipse for each step that holds a
        measurement with the same probability.
    level : float
        Probability of an ellipse. About thirty are drawn along the path, and one in the middle of each gap.
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
        When `posterior` has no covariances, or other rows than `y`, or when a feature does not exist.
    """
    latent = as_latent(posterior, sequence=sequence)
    cov = check_moments(latent)
    observed = as_observed(y, sequence=sequence)
    shared_time(observed, latent)
    features, signal, _ = _signal(latent, cov, params)
    if axes is not None and any(isinstance(name, Axes) for name in np.atleast_1d(np.asarray(axes, dtype=object))):
        raise DataError("axes= names two features; pass the matplotlib Axes as ax=")
    plane = choose(axes, features, "feature")[: None if axes is not None else 2]
    if len(plane) != 2:
        raise DataError(f"a track needs two features, got {listed(plane)}; the model has {listed(features)}")
    rows = [features.index(name) for name in plane]
    position = signal[:, rows]
    measured = np.column_stack([column_values(observed, name, features) for name in plane])
    spread = _plane_cov(latent, cov, params, rows)
    ax = style.one_axes(ax, _figure_size(position))
    if truth is not None:
        known = as_observed(truth, sequence=sequence)
        path = np.column_stack([column_values(known, name, features) for name in plane])
        ax.plot(*path.T, color=style.PALETTE[4], linewidth=2.2, alpha=0.7, zorder=1.5, label="truth")
    _draw_path(ax, position, measured, latent.kind or "estimated")
    _draw_ellipses(ax, position, spread, measured, level)
    if forecast is not None:
        _draw_forecast(ax, position[-1], forecast, rows, level)
    shared = len(ax.get_shared_x_axes().get_siblings(ax)) > 1 or len(ax.get_shared_y_axes().get_siblings(ax)) > 1
    ax.set_aspect("equal", adjustable="box" if shared else "datalim")
    ax.margins(0.05)
    ax.set_xlabel(style.text(plane[0]), fontsize=style.TEXT)
    ax.set_ylabel(style.text(plane[1]), fontsize=style.TEXT)
    style.tidy(ax)
    style.legend_right(ax)
    style.set_title(ax, title(latent, "track"))
    return ax


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


def ellipse_outline(centre: Floats, cov: Floats, level: float, n_points: int = 61) -> Floats:
    """Points (..., n_points, 2) on the border of the normal ellipse of the given probability."""
    size, direction = np.linalg.eigh(cov)
    half_axes = direction * np.sqrt(np.maximum(size, 0.0) * -2 * np.log1p(-level))[..., None, :]
    angle = np.linspace(0, 2 * np.pi, n_points)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    outline: Floats = centre[..., None, :] + circle @ np.swapaxes(half_axes, -1, -2)
    return outline


def _observation(latent: Latent, params: xr.Dataset) -> tuple[tuple[Hashable, ...], Floats]:
    """Names of the features and the observation matrix, (1 | N, feature, state)."""
    varying = isinstance(params, xr.Dataset) and "observation" in params and latent.time in params.observation.dims
    dims = (latent.time,) * varying + ("feature", "state")
    observation = parameter(params, "observation", dims)
    matrix = observation.values if varying else observation.values[None]
    if matrix.shape[2] != len(latent.states) or len(matrix) not in (1, len(latent.mean)):
        raise DataError(
            f"observation has shape {observation.shape}, the posterior has {len(latent.states)} states "
            f"and {len(latent.mean)} rows; pass the params that the posterior was computed with"
        )
    return names(observation, "feature"), matrix


def _signal(latent: Latent, cov: Floats, params: xr.Dataset) -> tuple[tuple[Hashable, ...], Floats, Floats]:
    """Names (D,), mean (N, D) and variance (N, D) of the measurements without their noise."""
    features, matrix = _observation(latent, params)
    mean = np.einsum("nds,ns->nd", np.broadcast_to(matrix, (len(latent.mean), *matrix.shape[1:])), latent.mean)
    if "observation_offset" in params:
        mean = mean + params.observation_offset.transpose(..., "feature").values
    variance = np.einsum("nds,nds->nd", matrix @ cov, np.broadcast_to(matrix, (len(cov), *matrix.shape[1:])))
    return features, mean, np.maximum(variance, 0.0)


def _plane_cov(latent: Latent, cov: Floats, params: xr.Dataset, rows: list[int]) -> Floats:
    matrix = _observation(latent, params)[1][:, rows]
    spread: Floats = matrix @ cov @ np.swapaxes(matrix, 1, 2)
    return spread


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


def _draw_path(ax: Axes, position: Floats, measured: Floats, kind: str) -> None:
    seen = np.asarray(np.isfinite(measured).any(axis=1))
    ax.plot(
        *measured.T,
        linestyle="",
        marker="o",
        markersize=2.2,
        markeredgewidth=0,
        color="0.45",
        label="measured",
        zorder=1.2,
    )
    bridged = ~(seen[1:] & seen[:-1])
    ax.plot(*_segments(position, ~bridged).T, color=style.PALETTE[0], linewidth=1.3, label=f"{kind} track")
    if bridged.any():
        ax.plot(
            *_segments(position, bridged).T,
            color=style.PALETTE[0],
            linewidth=1.3,
            linestyle=(0, (3, 1.5)),
            label="no measurement",
        )
    for at, marker, label in ((0, "o", "start"), (-1, "s", "end")):
        ax.plot(
            *position[at],
            linestyle="",
            marker=marker,
            markersize=7,
            color="white",
            markeredgecolor=style.INK,
            markeredgewidth=1.4,
            label=label,
            zorder=4,
        )


def _figure_size(position: Floats) -> tuple[float, float]:
    """Inches: a figure with the shape of the track, and room for a legend."""
    width, height = np.ptp(position, axis=0)
    shape = float(np.clip(height / width if width > 0 else 1.6, 0.45, 1.6))
    side = min(5.0, 6.5 / shape)
    return side + 2.0, side * shape + 0.8


def _segments(position: Floats, wanted: npt.NDArray[np.bool_]) -> Floats:
    """Return the steps wanted (N - 1,) of a path as one line, broken by NaN elsewhere."""
    touched = np.concatenate([wanted, [False]]) | np.concatenate([[False], wanted])
    path = np.where(touched[:, None], position, np.nan)
    # A sample between two unwanted steps is NaN by now; a single unwanted step needs a break.
    breaks = np.flatnonzero(~wanted & touched[:-1] & touched[1:]) + 1
    return np.insert(path, breaks, np.nan, axis=0)


def _draw_ellipses(ax: Axes, position: Floats, spread: Floats, measured: Floats, level: float) -> None:
    level_width(level)
    blank = np.flatnonzero(~np.isfinite(measured).any(1))
    gaps = np.split(blank, np.flatnonzero(np.diff(blank) > 1) + 1)
    middles = [gap[len(gap) // 2] for gap in gaps if len(gap)][:N_ELLIPSES]
    along = np.linspace(0, len(position) - 1, min(N_ELLIPSES, len(position))).astype(int)
    rows = np.unique(np.concatenate([along, np.asarray(middles, int)]))
    _add_ellipses(
        ax, ellipse_outline(position[rows], spread[rows], level), 0, f"{100 * level:.4g} % ellipse", "ellipses"
    )


def _draw_forecast(ax: Axes, now: Floats, forecast: xr.Dataset, rows: list[int], level: float) -> None:
    if not {"mean", "cov"} <= set(forecast.data_vars) or forecast["mean"].ndim != 2:
        raise DataError(f"forecast has {listed(forecast.data_vars)}; pass the forecast of one track, with mean and cov")
    mean = forecast["mean"].isel(feature=rows).transpose("horizon", "feature").values
    cov = forecast["cov"].isel(feature=rows, feature_aux=rows).transpose("horizon", ...).values
    ax.plot(
        *np.vstack([now, mean]).T, color=style.PALETTE[2], linewidth=1.3, marker=".", markersize=4, label="forecast"
    )
    _add_ellipses(ax, ellipse_outline(mean, cov, level), 2, f"{100 * level:.4g} % of measurements", "forecast")


def _add_ellipses(ax: Axes, outlines: Floats, colour: int, label: str, gid: str) -> None:
    shade = style.state_colours(colour + 1)[colour]
    ax.add_collection(
        PolyCollection(
            list(outlines),
            facecolor=(*shade, 0.12),
            edgecolor=(*shade, 0.5),
            linewidth=0.6,
            zorder=1.1,
            label=label,
            gid=gid,
        ),
        autolim=True,
    )
    ax.autoscale_view()
