"""A series as the sum of its components: what each part of a structural model adds to y, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.sequence.components import Part

IRREGULAR = "irregular"


class View(NamedTuple):
    """A component as a weighted sum of the states."""

    name: str
    kind: str  # level, slope, seasonal, cycle, regression, ar, ...
    weights: Floats  # (n,) of all states of the model, or (T, n) where they are known for every row
    in_y: bool  # whether y is the sum of it and others


class Moments(NamedTuple):
    """Means and variances (N, k) of components; NaN and infinite where a diffuse start leaves them unknown."""

    mean: Floats
    variance: Floats


def views(kinds: Sequence[tuple[str, Mapping[str, Any]]], parts: Sequence[Part]) -> list[View]:
    """Components of the parts of a model, in their order; those of the same name get numbers."""
    size, begin, found = sum(len(part.states) for part in parts), 0, []
    for (kind, options), part in zip(kinds, parts):
        end = begin + len(part.states)
        for name, sort, own in _own_views(kind, options, part):
            weights = np.zeros((*own.shape[:-1], size))
            weights[..., begin:end] = own
            found.append(View(name, sort, weights, sort != "slope"))
        begin = end
    names = [view.name for view in found]
    numbers = [names[:i].count(name) + 1 for i, name in enumerate(names)]
    return [v._replace(name=f"{v.name} ({i})") if i > 1 else v for v, i in zip(found, numbers)]


def _own_views(kind: str, options: Mapping[str, Any], part: Part) -> list[tuple[str, str, Floats]]:
    """Name, kind and weights of the own states of each component of a part."""
    if kind in ("local_trend", "smooth_trend"):
        return [("level", "level", part.view), ("slope", "slope", np.array([0.0, 1.0]))]
    if kind == "regression":
        return [(name, kind, part.view * np.eye(len(part.states))[j]) for j, name in enumerate(part.states)]
    if kind == "motion":
        return [(part.states[0], kind, part.view)]
    if kind == "arma":
        kind = "arima" if options["d"] else "arma" if options["q"] else "ar"
    kind = "level" if kind == "local_level" else kind
    return [(kind, kind, part.view)]


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


def with_irregular(y: Floats, found: Sequence[View], own: Moments, mean: Floats, cov: Floats, position: Any) -> Moments:
    """Add what is left of y (N,) as the last component; NaN where y is missing or the others are not known."""
    total = np.asarray(sum(view.weights for view in found if view.in_y))
    signal = component_moments([View("", "", total, in_y=True)], mean, cov, position)
    left = y - own.mean[:, [view.in_y for view in found]].sum(1)
    variance = np.where(np.isnan(left), np.nan, signal.variance[:, 0])
    return Moments(np.column_stack([own.mean, left]), np.column_stack([own.variance, variance]))
