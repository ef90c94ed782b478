"""Tracks in the plane, in their own units or in degrees, with ellipses."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import FuncFormatter, MaxNLocator

from statespace_em.errors import DataError
from statespace_em.geodesy import to_degrees
from statespace_em.plotting import _style as style
from statespace_em.plotting._inputs import (
    Floats,
    Latent,
    as_latent,
    as_observed,
    check_moments,
    choose,
    column_values,
    listed,
    shared_time,
    title,
    whose,
)
from statespace_em.plotting.states import level_width, observation_of, signal_of

N_ELLIPSES = 30
TICK = 0.75  # inches that a long number takes
KILOMETRES = 20_000.0  # metres from which axes are written in kilometres


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
    origin: tuple[float, float] | None = None,
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
        Parameters; ``observation`` and ``observation_offset`` turn states into positions. Of a motion with coloured
        noise or biases beside it, a fit marks the states that move: the path is theirs, the measurements are apart.
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
    origin : pair of floats, optional
        Latitude and longitude where the plane of the track touches the Earth, ``attrs["origin"]`` of what
        `geodesy.to_plane` returned: the axes are then degrees. The features shown are metres east and north.
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
    params = _of_motion(params)
    features, signal, _ = signal_of(latent, cov, params)
    if axes is not None and any(isinstance(name, Axes) for name in np.atleast_1d(np.asarray(axes, dtype=object))):
        raise DataError("axes= names two features; pass the matplotlib Axes as ax=")
    plane = choose(axes, features, "feature")[: None if axes is not None else 2]
    if len(plane) != 2:
        raise DataError(
            f"a track needs two features, got {listed(plane)}; the model has {listed(features)}: plot_states draws one "
            "over time"
        )
    rows = [features.index(name) for name in plane]
    chart = _Chart(origin)
    position = signal[:, rows]
    measured = np.column_stack([column_values(observed, name, features) for name in plane])
    spread = _plane_cov(latent, cov, params, rows)
    ax = style.one_axes(ax, _figure_size(position))
    if truth is not None:
        known = as_observed(truth, sequence=sequence)
        path = np.column_stack([column_values(known, name, features) for name in plane])
        ax.plot(*chart(path).T, color=style.PALETTE[4], linewidth=2.2, alpha=0.7, zorder=1.5, label="truth")
    _draw_path(ax, chart(position), chart(measured), latent.kind or "estimated")
    _draw_ellipses(ax, chart, position, spread, measured, level)
    if forecast is not None:
        _draw_forecast(ax, chart, position[-1], forecast, params, rows, level)
    shared = len(ax.get_shared_x_axes().get_siblings(ax)) > 1 or len(ax.get_shared_y_axes().get_siblings(ax)) > 1
    ax.set_aspect(chart.aspect(position), adjustable="box" if shared else "datalim")
    ax.margins(0.05)
    chart.label(ax, [(name, observed.unit_of(name)) for name in plane])
    style.tidy(ax)
    style.legend_right(ax)
    style.set_title(ax, title(latent, f"track{whose(sequence)}"))
    return ax


def ellipse_outline(centre: Floats, cov: Floats, level: float, n_points: int = 61) -> Floats:
    """Points (..., n_points, 2) on the border of the normal ellipse of the given probability."""
    size, direction = np.linalg.eigh(cov)
    half_axes = direction * np.sqrt(np.maximum(size, 0.0) * -2 * np.log1p(-level))[..., None, :]
    angle = np.linspace(0, 2 * np.pi, n_points)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    outline: Floats = centre[..., None, :] + circle @ np.swapaxes(half_axes, -1, -2)
    return outline


def _of_motion(params: Any) -> Any:
    """Parameters that see nothing but what moves, where they tell what that is."""
    if not isinstance(params, xr.Dataset) or "observation" not in params:
        return params
    moving = np.atleast_1d(params["observation"].attrs.get("moving", []))
    if not len(moving):
        return params
    seen = params["observation"]
    return params.assign(observation=seen.where(seen["state"].isin(moving), 0.0).assign_attrs(seen.attrs))


def _plane_cov(latent: Latent, cov: Floats, params: xr.Dataset, rows: list[int]) -> Floats:
    matrix = observation_of(latent, params)[1][:, rows]
    spread: Floats = matrix @ cov @ np.swapaxes(matrix, 1, 2)
    return spread


class _Chart:
    """Where points of the plane are drawn: as they are, or in degrees."""

    def __init__(self, origin: tuple[float, float] | None) -> None:
        self.origin = origin

    def __call__(self, points: Floats) -> Floats:
        """Points (..., 2) as they are drawn."""
        if self.origin is None:
            return points
        flat = pd.DataFrame(points.reshape(-1, 2), columns=["east", "north"])
        there = to_degrees(flat, origin=self.origin)[["longitude", "latitude"]].to_numpy()
        near = self.origin[1] + (there[:, 0] - self.origin[1] + 180.0) % 360.0 - 180.0  # on across the date line
        found: Floats = np.column_stack([near, there[:, 1]]).reshape(points.shape)
        return found

    def aspect(self, position: Floats) -> float:
        """Length of a unit upwards by that of one to the right."""
        if self.origin is None:
            return 1.0
        latitude = self(position)[:, 1]
        return float(1.0 / np.cos(np.deg2rad(0.5 * (latitude.min() + latitude.max()))))

    def label(self, ax: Axes, plane: list[tuple[Hashable, str]]) -> None:
        """Write names and units on the axes; long ways in metres are written in kilometres."""
        if self.origin is not None:
            plane = [("longitude", "degrees"), ("latitude", "degrees")]
        far = all(unit == "m" for _, unit in plane) and max(np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())) > KILOMETRES
        if self.origin is None and not far:
            width = ax.get_window_extent().width / ax.figure.dpi
            ax.xaxis.set_major_locator(MaxNLocator(max(2, int(width / TICK))))
        for axis, (name, unit) in zip((ax.xaxis, ax.yaxis), plane, strict=True):
            axis.set_label_text(style.with_unit(name, "km" if far else unit), fontsize=style.TEXT)
            if self.origin is not None:
                axis.set_major_locator(MaxNLocator(5))
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.7g}"))
            elif far:
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000.0:g}"))


def _draw_path(ax: Axes, position: Floats, measured: Floats, kind: str) -> None:
    seen = np.asarray(np.isfinite(measured).all(axis=1))
    half = (np.isfinite(measured).any(axis=1) & ~seen).any()
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
            label="no complete measurement" if half else "no measurement",
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


def _draw_ellipses(ax: Axes, chart: _Chart, position: Floats, spread: Floats, measured: Floats, level: float) -> None:
    level_width(level)
    blank = np.flatnonzero(~np.isfinite(measured).all(1))
    gaps = np.split(blank, np.flatnonzero(np.diff(blank) > 1) + 1)
    middles = [gap[len(gap) // 2] for gap in gaps if len(gap)][:N_ELLIPSES]
    along = np.linspace(0, len(position) - 1, min(N_ELLIPSES, len(position))).astype(int)
    rows = np.unique(np.concatenate([along, np.asarray(middles, int)]))
    outlines = chart(ellipse_outline(position[rows], spread[rows], level))
    _add_ellipses(ax, outlines, 0, f"{100 * level:.4g} % ellipse", "ellipses")


def _draw_forecast(
    ax: Axes, chart: _Chart, now: Floats, forecast: xr.Dataset, params: xr.Dataset, rows: list[int], level: float
) -> None:
    if not {"mean", "cov"} <= set(forecast.data_vars) or forecast["mean"].ndim != 2:
        raise DataError(f"forecast has {listed(forecast.data_vars)}; pass the forecast of one track, with mean and cov")
    mean = forecast["mean"].isel(feature=rows).transpose("horizon", "feature").values
    cov = forecast["cov"].isel(feature=rows, feature_aux=rows).transpose("horizon", ...).values
    path = mean
    seen = params["observation"]
    if "moving" in seen.attrs and seen.ndim == 2 and "predicted" in forecast:
        path = (
            forecast["predicted"].transpose("horizon", "state").values
            @ seen.transpose("feature", "state").values[rows].T
        )
    ax.plot(
        *chart(np.vstack([now, path])).T,
        color=style.PALETTE[2],
        linewidth=1.3,
        marker=".",
        markersize=4,
        label="forecast",
    )
    outlines = chart(ellipse_outline(mean, cov, level))
    _add_ellipses(ax, outlines, 2, f"{100 * level:.4g} % of measurements", "forecast")


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
