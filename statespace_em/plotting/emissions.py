"""What each state emits: densities, bars, and ellipses in the plane."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from statespace_em.errors import DataError
from statespace_em.plotting import _style as style
from statespace_em.plotting._inputs import (
    Floats,
    Observed,
    as_observed,
    choose,
    column_values,
    listed,
    names,
    parameter,
)
from statespace_em.plotting._style import AxesArray
from statespace_em.plotting.track import ellipse_outline

_FAMILIES = {"mean": "Gaussian", "rate": "Poisson", "prob": "categorical"}
MOST_BINS = 80
MOST_DOTS = 20_000


class States(NamedTuple):
    """What all panels share."""

    names: tuple[Hashable, ...]
    weight: Floats | None  # (K,), sums to 1


def plot_emissions(
    params: xr.Dataset,
    y: Any = None,
    *,
    feature: Hashable | list[Hashable] | None = None,
    plane: Sequence[Hashable] | None = None,
    sequence: Hashable | None = None,
    axes: Any = None,
) -> AxesArray:
    """Show what each state emits, over the data when given.

    Gaussian states are densities, Poisson states are bars of their probabilities, categorical states are
    bars for each symbol. Where params has ``weight`` (a mixture) or ``transition`` (its stationary
    distribution), densities and Poisson bars are weighted by it, so that they add up to the black line, which
    is comparable with the data.

    Parameters
    ----------
    params : Dataset
        Parameters of a Gaussian (``mean`` with ``cov`` or ``var``), Poisson (``rate``) or categorical
        (``prob``) model.
    y : Series, DataFrame, DataArray or array, (time,) or (time, feature), optional
        The observations: a grey histogram, or dots in the plane.
    feature : name or list of names, optional
        Features to show; default all, one panel each. Two Gaussian features with a full covariance have a
        third panel with their plane when `y` is given.
    plane : pair of names, optional
        Show only the plane of these two Gaussian features, with the ellipses that hold 50 % and 95 % of a
        state.
    sequence : optional
        The sequence of a panel `y` to show.
    axes : Axes or sequence of Axes, optional
        One for each panel.

    Returns
    -------
    ndarray of Axes

    Raises
    ------
    DataError
        When the family is not one of the three, or when a feature does not exist.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import xarray as xr
    >>> from statespace_em.plotting import plot_emissions
    >>> params = xr.Dataset({"rate": (("state", "feature"), [[2.0], [9.0]])})
    >>> len(plot_emissions(params, [1, 0, 2, 8, 11]))
    1
    """
    name = next((name for name in _FAMILIES if isinstance(params, xr.Dataset) and name in params), None)
    if name is None:
        has = listed(params.data_vars) if isinstance(params, xr.Dataset) else f"a {type(params).__name__}"
        raise DataError(f"params has no {listed(_FAMILIES)[1:-1]}: got {has}; pass the params_ of such a model")
    value = params[name]
    if "feature" not in value.dims:
        value = value.expand_dims("feature" if "feature" in value.coords else {"feature": ["y"]})
    allowed = names(value, "feature")
    states = States(names(value, "state"), _weights(params))
    observed = None if y is None else as_observed(y, sequence=sequence)
    if plane is not None:
        pair = _check_plane(plane, allowed, name)
        panels = style.grid_axes(axes, 1, width=5.4, height=4.2)
        _draw_plane(panels[0], params, value, pair, observed, states)
        style.legend_right(panels[0])
        return panels
    chosen = choose(feature, allowed, "feature")
    both = observed is not None and feature is None and len(allowed) == 2 and "feature_aux" in _dims(params, "cov")
    panels = style.grid_axes(axes, len(chosen) + both, height=2.9)
    draw = {"mean": _draw_gaussian, "rate": _draw_poisson, "prob": _draw_categorical}[name]
    for ax, one in zip(panels, chosen, strict=False):
        column = None if observed is None else column_values(observed, one, allowed)
        symbols = None if observed is None else _symbols(observed, one, allowed)
        draw(
            ax,
            params,
            value.sel(feature=one) if "feature" in value.indexes else value.isel(feature=one),
            allowed.index(one),
            column,
            symbols,
            states,
        )
        ax.set_xlabel(style.text(one) if len(allowed) > 1 or one != 0 else "y", fontsize=style.TEXT)
        style.tidy(ax)
    if both:
        _draw_plane(panels[-1], params, value, list(allowed), observed, states)
    style.legend_right(panels[min(2, len(panels) - 1)], *(panels[:1] if name == "mean" else []))
    return panels


def _weights(params: xr.Dataset) -> Floats | None:
    """Weights of the states: given, or stationary; None when unknown or when a state is transient."""
    if "weight" in params and params.weight.dims == ("state",):
        return np.asarray(params.weight.values, np.float64)
    if "transition" not in params or set(params.transition.dims) != {"state", "next_state"}:
        return None
    transition = parameter(params, "transition", ("state", "next_state")).values.astype(float)
    n = len(transition)
    balance = np.vstack([transition.T - np.eye(n), np.ones(n)])
    weight, _, rank, _ = np.linalg.lstsq(balance, np.append(np.zeros(n), 1.0), rcond=None)
    stationary: Floats = np.asarray(weight)
    return stationary if rank == n and stationary.min() > 1e-6 else None


def _dims(params: xr.Dataset, name: str) -> tuple[Hashable, ...]:
    return params[name].dims if name in params else ()


def _symbols(observed: Observed, feature: Hashable, allowed: tuple[Hashable, ...]) -> tuple[Hashable, ...] | None:
    at = observed.columns.index(feature) if feature in observed.columns else allowed.index(feature)
    return observed.symbols[at]


def _check_plane(plane: Sequence[Hashable], allowed: tuple[Hashable, ...], name: str) -> list[Hashable]:
    pair = choose(list(plane), allowed, "feature")
    if len(pair) != 2 or name != "mean":
        raise DataError(
            f"plane={tuple(plane)!r} of a {_FAMILIES[name]} model; a plane needs two features of a Gaussian "
            f"model; the features are {listed(allowed)}"
        )
    return pair


def _covariances(params: xr.Dataset, mean: xr.DataArray) -> Floats:
    """Covariances (state, feature, feature) whatever their storage: full, tied, diagonal or spherical."""
    n_states, n_features = mean.sizes["state"], mean.sizes["feature"]
    shape = (n_states, n_features, n_features)
    if "cov" in params:
        cov = params["cov"]
        order = [dim for dim in ("state", "feature", "feature_aux") if dim in cov.dims]
        return np.broadcast_to(cov.transpose(*order).values.astype(float), shape)
    if "var" not in params:
        raise DataError(f"params has mean but no cov or var: got {listed(params.data_vars)}")
    var = params["var"]
    table = var.values.astype(float)
    if set(var.dims) == {"state", "feature"}:
        table = var.transpose("state", "feature").values.astype(float)
    elif var.dims == ("state",):
        table = table[:, None]
    return np.broadcast_to(table, (n_states, n_features))[..., None] * np.eye(n_features)


def _draw_gaussian(
    ax: Axes,
    params: xr.Dataset,
    mean: xr.DataArray,
    position: int,
    column: Floats | None,
    _: Any,
    states: States,
) -> None:
    everything = params["mean"] if "feature" in params["mean"].dims else params["mean"].expand_dims("feature")
    sd = np.sqrt(_covariances(params, everything)[:, position, position])[:, None]
    centre = mean.values.astype(float)[:, None]
    near = np.sort((centre + sd * np.linspace(-4, 4, 161)).ravel())
    x = np.union1d(near, np.linspace(near[0], near[-1], 400))
    density = np.exp(-0.5 * ((x - centre) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    density = density if states.weight is None else density * states.weight[:, None]
    if column is not None:
        _draw_histogram(ax, column[np.isfinite(column)])
    for k, colour in enumerate(style.state_colours(len(states.names))):
        ax.fill_between(x, density[k], facecolor=colour, alpha=0.15, linewidth=0)
        ax.plot(x, density[k], color=colour, linewidth=1.5, label=style.state_text(states.names[k]))
    if states.weight is not None and len(states.names) > 1:
        ax.plot(x, density.sum(0), color=style.INK, linewidth=1.0, label="all states", zorder=1.5)
    ax.set_xlim(_visible(x, density, column))
    ax.set_ylim(0, None)
    ax.set_ylabel("density" if states.weight is None else "weighted density", fontsize=style.TEXT)


def _visible(x: Floats, density: Floats, column: Floats | None) -> tuple[float, float]:
    """Return the range where a state is not negligible, widened to all but the rarest of the data."""
    high = (density > 2e-3 * density.max(1, keepdims=True)).any(0)
    left, right = x[high][0], x[high][-1]
    if column is not None and np.isfinite(column).any():
        low, top = np.nanquantile(column, [0.001, 0.999])
        left, right = min(left, low), max(right, top)
    return float(left), float(right)


def _draw_histogram(ax: Axes, values: Floats) -> None:
    if not values.size:
        return
    low, high = np.quantile(values, [0.001, 0.999])
    inside = values[(values >= low) & (values <= high)]
    n_bins = int(np.clip(2 * np.sqrt(len(values)), 8, MOST_BINS))
    if (inside == np.round(inside)).all():  # borders between whole numbers: each bin holds equally many of them
        step = max(1, int(np.ceil((high - low + 1) / n_bins)))
        edges = np.arange(low - 0.5, high + step + 0.5, step)
    else:
        edges = np.linspace(low, high, n_bins + 1)
    counts = np.histogram(values, edges)[0]
    ax.stairs(counts / (len(values) * np.diff(edges)), edges, fill=True, color="0.86", label="data", zorder=0.5)


def _draw_poisson(
    ax: Axes,
    params: xr.Dataset,
    rate: xr.DataArray,
    position: int,
    column: Floats | None,
    _: Any,
    states: States,
) -> None:
    rates = rate.values.astype(float)
    top = int(np.ceil(np.max(rates + 4 * np.sqrt(rates)) + 1))
    low = int(max(0, np.floor(np.min(rates - 4 * np.sqrt(rates)))))
    if column is not None and np.isfinite(column).any():
        low, top = min(low, int(np.nanmin(column))), max(top, int(np.nanmax(column)))
    count = np.arange(low, top + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, top + 1)))])[count]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_rate = np.where(count * rates[:, None] > 0, np.log(rates)[:, None], 0.0)
    impossible = (rates[:, None] == 0) & (count > 0)
    probability = np.where(impossible, 0.0, np.exp(count * log_rate - rates[:, None] - log_factorial))
    probability = probability if states.weight is None else probability * states.weight[:, None]
    edges = np.append(count, top + 1) - 0.5
    if column is not None:
        seen = column[np.isfinite(column)]
        ax.stairs(
            np.histogram(seen, edges)[0] / max(len(seen), 1),
            edges,
            fill=True,
            color="0.86",
            label="data",
            zorder=0.5,
        )
    for k, colour in enumerate(style.state_colours(len(states.names))):
        bars = ax.bar(count, probability[k], width=0.8, color=colour, alpha=0.45, linewidth=0)
        bars.set_label(style.state_text(states.names[k]))
    if states.weight is not None and len(states.names) > 1:
        ax.plot(
            count,
            probability.sum(0),
            color=style.INK,
            linewidth=0.9,
            marker=".",
            markersize=3,
            label="all states",
        )
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, None)
    ax.set_ylabel("probability" if states.weight is None else "weighted probability", fontsize=style.TEXT)


def _draw_categorical(
    ax: Axes,
    params: xr.Dataset,
    prob: xr.DataArray,
    position: int,
    column: Floats | None,
    symbols: Any,
    states: States,
) -> None:
    table = prob.transpose("state", "symbol").values.astype(float)
    used = np.isfinite(table).any(0) & (np.nan_to_num(table).sum(0) > 0)
    labels = [name for name, keep in zip(names(prob, "symbol"), used, strict=True) if keep]
    table, n = table[:, used], len(states.names)
    width = 0.8 / n
    for k, colour in enumerate(style.state_colours(n)):
        ax.bar(
            np.arange(len(labels)) + (k - (n - 1) / 2) * width,
            table[k],
            width=0.92 * width,
            color=colour,
            alpha=0.85,
            linewidth=0,
            label=style.state_text(states.names[k]),
        )
    if column is not None:
        seen = column[np.isfinite(column)]
        found = list(symbols) if symbols is not None else None
        code = [label if found is None else found.index(label) if label in found else -1 for label in labels]
        share = [float(np.mean(seen == c)) if seen.size else np.nan for c in code]
        ax.hlines(
            share,
            np.arange(len(labels)) - 0.45,
            np.arange(len(labels)) + 0.45,
            color=style.INK,
            linewidth=1.2,
            label="data, all states",
        )
    ax.set_xticks(range(len(labels)), [style.text(label) for label in labels])
    ax.set_ylim(0, None)
    ax.set_ylabel("probability in the state", fontsize=style.TEXT)


def _draw_plane(
    ax: Axes,
    params: xr.Dataset,
    mean: xr.DataArray,
    pair: list[Hashable],
    observed: Observed | None,
    states: States,
) -> None:
    allowed = names(mean, "feature")
    rows = [allowed.index(name) for name in pair]
    cov = _covariances(params, mean)[:, rows][:, :, rows]
    centre = mean.transpose("state", "feature").values.astype(float)[:, rows]
    if observed is not None:
        dots = np.column_stack([column_values(observed, name, allowed) for name in pair])
        dots = dots[:: -(-len(dots) // MOST_DOTS)]
        ax.plot(
            *dots.T,
            linestyle="",
            marker=".",
            markersize=3 if len(dots) < 2000 else 1.5,
            color="0.6",
            markeredgewidth=0,
            label="data",
            zorder=1,
        )
    for k, colour in enumerate(style.state_colours(len(states.names))):
        for level, width in ((0.5, 1.0), (0.95, 1.5)):
            outline = ellipse_outline(centre[k], cov[k], level, 181)
            ax.plot(*outline.T, color=colour, linewidth=width)
            ax.fill(*outline.T, facecolor=colour, alpha=0.12, linewidth=0)
        ax.plot(
            *centre[k],
            linestyle="",
            marker="P",
            markersize=7,
            color=colour,
            markeredgecolor="white",
            label=style.state_text(states.names[k]),
            zorder=4,
        )
    ax.set_xlabel(style.text(pair[0]), fontsize=style.TEXT)
    ax.set_ylabel(style.text(pair[1]), fontsize=style.TEXT)
    style.tidy(ax)
