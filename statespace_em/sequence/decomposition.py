"""A series as the sum of its components: what each part of a structural model adds to y, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.special import ndtri

from statespace_em import _validate
from statespace_em._typing import Bools, Floats
from statespace_em.labels import Labels, seeing
from statespace_em.sequence.components import Component
from statespace_em.sequence.flow import ContinuousComponent

IRREGULAR = "irregular"


class View(NamedTuple):
    """A component as a weighted sum of the states."""

    name: str
    kind: str  # level, slope, seasonal, cycle, regression, ar, ...
    weights: Floats  # (n,) of all states of the model, or (T, n) where they are known for every row
    in_y: bool  # whether y is the sum of it and others
    column: Any = None  # of y that it is part of; None where y has one


class Moments(NamedTuple):
    """Means and variances (N, k) of components; NaN and infinite where a diffuse start leaves them unknown."""

    mean: Floats
    variance: Floats


def views(kinds: Sequence[tuple[str, Mapping[str, Any]]], parts: Sequence[Component]) -> list[View]:
    """Components of the parts of a model, in their order; those of the same name get numbers."""
    size, begin, found = sum(len(part.states) for part in parts), 0, []
    for (kind, options), part in zip(kinds, parts):
        end = begin + len(part.states)
        for name, sort, own in _own_views(kind, options, part):
            weights = np.zeros((*own.shape[:-1], size))
            weights[..., begin:end] = own
            found.append(View(name, sort, weights, sort != "slope"))
        begin = end
    return _numbered(found)


def _own_views(kind: str, options: Mapping[str, Any], part: Component) -> list[tuple[str, str, Floats]]:
    """Name, kind and weights of the own states of each component of a part."""
    if kind in ("local_trend", "smooth_trend"):
        return [("level", "level", part.observation), ("slope", "slope", np.array([0.0, 1.0]))]
    if kind == "regression":
        return [(name, kind, part.observation * np.eye(len(part.states))[j]) for j, name in enumerate(part.states)]
    if kind == "arma":
        kind = "arima" if options["d"] else "arma" if options["q"] else "ar"
    kind = "level" if kind == "local_level" else kind
    return [(kind, kind, part.observation)]


def continuous_views(components: Sequence[ContinuousComponent], columns: Sequence[Any]) -> list[View]:
    """Views of components in continuous time, in their order, one for each column that sees them."""
    size, begin, found = sum(len(component.states) for component in components), 0, []
    for component in components:
        end = begin + len(component.states)
        for c, column in enumerate(columns):
            own = component.observation[..., c, :]
            if not own.any():
                continue
            for name, sort, part in _views_of(component, own):
                weights = np.zeros((*part.shape[:-1], size))
                weights[..., begin:end] = part
                found.append(View(name, sort, weights, sort != "slope", column))
        begin = end
    return _numbered(found)


def _views_of(component: ContinuousComponent, own: Floats) -> list[tuple[str, str, Floats]]:
    """Name, kind and weights of the own states of each view of a component that a column sees."""
    if component.kind in ("local_trend", "smooth_trend"):
        return [(component.states[0], "level", own), (component.states[1], "slope", np.array([0.0, 1.0]))]
    if component.kind == "regression":
        return [
            (name, component.kind, own * np.eye(len(component.states))[j]) for j, name in enumerate(component.states)
        ]
    if component.kind in ("motion", "local_level"):
        first = int(np.flatnonzero(own)[0])
        return [(component.states[first], "level" if component.kind == "local_level" else component.kind, own)]
    words = {"arma": ("arma -0", "ar"), "seasonal": ("harmonic 1", "seasonal"), "cycle": ("cycle", "cycle")}
    state, word = words.get(component.kind, (component.kind, component.kind))
    return [(component.states[0].replace(state, word), word, own)]


def _numbered(found: list[View]) -> list[View]:
    """Components of which those that come again say which one they are."""
    names = [view.name for view in found]
    numbers = [names[:i].count(name) + 1 for i, name in enumerate(names)]
    return [v._replace(name=f"{v.name} ({i})") if i > 1 else v for v, i in zip(found, numbers)]


def component_moments(found: Sequence[View], mean: Floats, cov: Floats, position: Any) -> Moments:
    """Moments of the components from those of the states (N, n) and (N, n, n); ``position`` (N,) of each row."""
    lost = ~np.isfinite(np.diagonal(cov, axis1=1, axis2=2))
    known = np.where(lost[:, :, None] | lost[:, None, :], 0.0, cov)
    means, variances = np.empty((len(mean), len(found))), np.empty((len(mean), len(found)))
    for j, view in enumerate(found):
        weights = view.weights[position] if view.weights.ndim == 2 else view.weights[None]
        blind: Bools = (lost & (weights != 0.0)).any(1)
        means[:, j] = np.where(blind, np.nan, (weights * mean).sum(1))
        half = (known @ weights[:, :, None])[:, :, 0]
        variances[:, j] = np.where(blind, np.inf, np.maximum((weights * half).sum(1), 0.0))
    return Moments(means, variances)


def check_asked(of: str, level: float) -> None:
    """Refuse other moments than there are, and levels that are no probabilities."""
    _validate.one_of("of", of, ("smoothed", "filtered"))
    _validate.probability("level", level)


def decomposed(
    found: Sequence[View],
    mean: Floats,
    cov: Floats,
    position: Any,
    y: Floats,
    labels: Labels,
    *,
    noisy: bool,
    of: str,
    level: float,
    units: str = "",
) -> xr.Dataset:
    """Moments of components, and of what is left of y (N, D) where it is ``noisy``, with intervals, labelled."""
    moments, views = component_moments(found, mean, cov, position), list(found)
    features: list[Any] = list(labels.features)
    for c, feature in enumerate(features if noisy else []):
        own = [view for view in found if view.in_y and view.column in (None, feature)]
        total = np.asarray(sum(view.weights for view in own))
        signal = component_moments([View("", "", total, in_y=True)], mean, cov, position)
        left = y[:, c] - signal.mean[:, 0]
        variance = np.where(np.isnan(left), np.nan, signal.variance[:, 0])
        moments = Moments(*map(np.column_stack, zip(moments, (left, variance))))
        name = IRREGULAR if len(features) == 1 else f"{IRREGULAR}_{feature}"
        views.append(View(name, IRREGULAR, total, in_y=True, column=feature))
    half = float(ndtri(0.5 + level / 2.0)) * np.sqrt(moments.variance)
    values = {**moments._asdict(), "lower": moments.mean - half, "upper": moments.mean + half}
    names = [view.name for view in views]
    dataset = labels.dataset({n: (("component",), v) for n, v in values.items()}, {"component": names})
    told: dict[str, list[Any]] = {"kind": [view.kind for view in views], "in_y": [view.in_y for view in views]}
    if len(features) > 1:
        told["column"] = [view.column for view in views]
    dataset = dataset.assign_coords({name: ("component", each) for name, each in told.items()})
    seeing(dataset, "1:T" if of == "smoothed" else "1:t")
    return dataset.assign_attrs({"level": level} | ({"units": units} if units else {}))


def units_of_y(y: Any) -> str:
    """Unit of y where its attributes tell one for all columns; else empty."""
    units = getattr(y, "attrs", {}).get("units")
    return units if isinstance(units, str) else ""
