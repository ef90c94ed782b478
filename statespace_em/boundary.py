"""Maxima on the boundary: where a covariance becomes singular, written as a square, it is an ordinary stationary point.

A maximum at a variance of 0 is approached by EM, and by any ascent in logarithms, for ever. In a chart whose
coordinates are roots of the covariances the objective is smooth through the boundary: a variance that belongs at 0 has
a root with gradient 0 and negative curvature there, which are the conditions of Karush, Kuhn and Tucker. What is small
and loses nothing by it is put at exactly 0; what is at 0 and does not belong there is raised, as the score says. Where
an ascent stalls it goes on with the curvature from differences of the exact gradient, which also tells a maximum from a
saddle.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import cache
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from statespace_em._typing import Floats
from statespace_em.em import EMResult, OnStep, Step
from statespace_em.errors import UNRESOLVED, ParameterError

P = TypeVar("P")
D = TypeVar("D")
S = TypeVar("S")

Look = Callable[[Floats], tuple[float, Floats]]  # objective and gradient; -inf and NaN where there are none

FIRST = 1e-4  # first look along a coordinate
NEAR = 1e-2  # of the differences for the curvature, in standard errors
LONGEST = 0.5  # move along a direction that may curve upwards, in coordinates of the chart
SAME = 1e-9  # nats that the objective may lose to a variance put at 0
SHARPEST = 1e-6  # unit below which a peak is of round-off, such as one that only an unstable inverse holds up
SOFT = 1e-3  # curvature that differences cannot tell from none
TORN = 0.05  # difference between two derivatives that should agree, from which on they are taken over longer steps
LEAST = 1e-5  # curvature that is still some, at a maximum
ESCAPES = (1.0, 0.3, 0.1, 0.03)  # distances tried along a direction that may curve upwards


class Chart(Protocol):
    """Smooth coordinates around a point of the parameters, of order 1 and without units; 0 is the point."""

    size: int

    def params(self, x: Floats) -> Any:
        """Parameters at the coordinates ``x`` (size,)."""
        ...

    def gradient(self, x: Floats, params: Any, statistics: Any) -> Floats:
        """Gradient (size,) of log likelihood plus log prior, from the statistics of the E-step at ``params``."""
        ...


@runtime_checkable
class HasBoundary(Protocol):
    """An `EMModel` that knows its exact score, also where a covariance is singular, as it may be at the maximum."""

    def chart(self, params: Any, statistics: Any, start: Any) -> Chart:
        """Chart around ``params`` by roots of covariances; what is singular in ``start`` stays so."""
        ...

    def onto_faces(self, params: Any, start: Any) -> Iterable[Any]:
        """Parameters with variances at 0 that are small, as many as possible first."""
        ...

    def off_faces(self, params: Any, statistics: Any, start: Any) -> Iterable[Any]:
        """Parameters with variances raised that are next to 0 where the likelihood rises with them."""
        ...

    def is_singular(self, params: Any, start: Any) -> bool:
        """Whether a free covariance is singular, or next to it, and was not at the start."""
        ...

    def is_limit(self, params: Any) -> bool:
        """Whether the parameters are next to a place that has a likelihood only as a limit, such as a unit root."""
        ...

    def steps_are_exact(self) -> bool:
        """Whether an M-step is the maximum that it is meant to be; else the score climbs from the start."""
        ...

    def left_to_score(self) -> list[str]:
        """Parameters with free values that no M-step moves, such as products of names."""
        ...

    def at_zero(self, params: Any) -> list[str]:
        """Names of free variances that are exactly 0."""
        ...

    def vanished(self, params: Any, start: Any) -> dict[str, Floats]:
        """Directions (p, k) in which a covariance, by name, is singular and was not at the start."""
        ...

    def explained(self, params: Any, data: Any) -> bool:
        """Whether all rows are explained without error because they follow each other exactly."""
        ...

    def unbounded(self, params: Any, data: Any) -> bool:
        """Whether a row is about to be explained without error, by which a likelihood has no bound."""
        ...


@cache
def is_bounded(kind: Hashable) -> bool:
    """Whether a class `HasBoundary`: to look at every method of a protocol takes longer than a small E-step."""
    return isinstance(kind, type) and issubclass(kind, HasBoundary)


def settle(
    model: Any, data: D, end: EMResult[P, S], start: P, *, max_iter: int, tol: float, on_step: OnStep | None
) -> EMResult[P, S]:
    """Put variances at 0 where that loses nothing, raise those that do not belong there.

    The status is "max_iter" where the parameters have moved, and the climb must go on. E-steps at new points count.
    """
    tasks = (model.onto_faces(end.params, start), -SAME), (model.off_faces(end.params, end.statistics, start), 10 * tol)
    for candidates, least in tasks:
        for params in candidates:
            if end.n_steps >= max_iter:
                return end
            end = end._replace(n_steps=end.n_steps + 1)
            there = _tried(model, data, end, params, least, on_step)
            if there is not None and not model.unbounded(params, data):
                return there
    return end


def _tried(
    model: Any, data: Any, end: EMResult[P, S], params: P, least: float, on_step: OnStep | None
) -> EMResult[P, S] | None:
    """Go to the parameters; None where the objective does not gain ``least``."""
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            statistics, log_likelihood = model.e_step(params, data)
            step = Step(end.n_steps, log_likelihood, model.log_prior(params))
    except (*UNRESOLVED, ParameterError):  # as where a prior has no density
        return None
    if not step.objective >= end.objective + least:
        return None
    higher = step.objective > end.objective
    if on_step is not None and higher:
        on_step(step)
    return EMResult(params, statistics, (*(end.trace if higher else end.trace[:-1]), step), "max_iter", end.n_steps)


class Shape(NamedTuple):
    """Objective around the centre of a chart to second order, in units in which it bends by about 1."""

    unit: Floats  # (p,), of the coordinates
    gradient: Floats  # (p,)
    bend: Floats  # (p,), eigenvalues of minus the second derivatives
    axes: Floats  # (p, p), their eigenvectors
    floor: Floats  # (p,), curvature along each that differences cannot tell from none

    def inverse(self, *, surely: bool = False) -> Floats:
        """Inverse (p, p) of minus the second derivatives; what curves upwards counts as if it curved downwards.

        With ``surely`` only along what surely curves downwards.
        """
        axes = self.unit[:, None] * self.axes
        weights = np.where(self.bend > LEAST, 1.0 / np.maximum(self.bend, LEAST), 0.0) if surely else 1.0 / self._firm()
        return np.asarray(axes * weights @ axes.T)

    def decrement(self, gradient: Floats) -> float:
        """Gain in nats that is expected where the gradient is this, along what surely curves downwards."""
        along = np.where(self.bend > LEAST, self.axes.T @ (self.unit * gradient), 0.0)
        return 0.5 * float(np.sum(np.square(along) / np.maximum(self.bend, LEAST)))

    def gain(self) -> float:
        """Gain in nats that the quadratic model expects of a Newton step."""
        return 0.5 * float(np.sum(np.square(self.axes.T @ self.gradient) / self._firm()))

    def upward(self, look: Look, least: float, worth: float) -> Floats | None:
        """A point that is higher than ``least`` along a direction that may curve upwards; None at a maximum.

        Where a slope that would be ``worth`` so many nats leads along a valley, which may be bent, the steps are
        followed by one of Newton's across it.
        """
        slopes = self.axes.T @ self.gradient
        promising = _worth(slopes) > worth
        for k in np.flatnonzero((self.bend < -LEAST) | (promising & (self.bend < SOFT))):
            way = np.asarray((self.unit * self.axes[:, k]) * (-1.0 if slopes[k] < 0.0 else 1.0))
            for x in (sign * far * way for far in ESCAPES for sign in (1.0, -1.0)):
                if np.abs(x).max() > LONGEST:
                    continue
                objective, gradient = look(x)
                if objective > least:
                    return np.asarray(x)
                if promising[k] and np.isfinite(objective):
                    back = np.asarray(x + self._across(gradient))
                    if objective + 0.5 * float(gradient @ (back - x)) > least and look(back)[0] > least:
                        return back
        return None

    def examined(self, look: Look, worth: float) -> Shape:
        """The same with central differences along what hardly curves, if its slope may be ``worth`` so many nats."""
        inner, floor = np.diag(self.bend), self.floor.copy()
        for k in np.flatnonzero((self.bend < SOFT) & (floor == SOFT) & (_worth(self.axes.T @ self.gradient) >= worth)):
            way = NEAR * self.unit * self.axes[:, k]
            change = self.axes.T @ (self.unit * (look(-way)[1] - look(way)[1])) / (2.0 * NEAR)
            if np.isfinite(change).all():
                inner[k], inner[:, k], floor[k] = change, change, LEAST
        if np.array_equal(floor, self.floor):
            return self
        bend, turned = np.linalg.eigh(inner)
        return self._replace(bend=bend, axes=self.axes @ turned, floor=np.square(turned).T @ floor)

    def _across(self, gradient: Floats) -> Floats:
        """Newton step (p,) along what surely curves downwards much."""
        along = self.axes.T @ (self.unit * gradient)
        return np.asarray(
            self.unit * (self.axes @ np.where(self.bend > SOFT, along / np.maximum(self.bend, SOFT), 0.0))
        )

    def _firm(self) -> Floats:
        return np.maximum(np.abs(self.bend), self.floor)


def _worth(slopes: Floats) -> Floats:
    """Gain in nats along axes with these slopes, at most."""
    return np.asarray(0.5 * np.square(slopes) / LEAST)


def shape_of(look: Look, gradient: Floats, worth: float) -> Shape | None:
    """Curvature by differences of the gradient, which is given where they start; None where it ends within reach.

    What is next to none is `Shape.examined`.
    """
    size = len(gradient)
    unit, rows, steps = np.ones(size), np.empty((size, size)), np.empty(size)
    for i in range(size):
        step = FIRST
        for _ in range(4):
            rows[i], steps[i] = (look(step * np.eye(size)[i])[1] - gradient) / step, step
            bend = abs(rows[i, i])
            if not np.isfinite(bend):
                step *= -0.1
                continue
            unit[i] = 1.0 / np.sqrt(max(bend, 1.0))
            if abs(step) < 3.0 * NEAR * unit[i]:
                break
            step = NEAR * unit[i]
    if not np.isfinite(rows).all():
        return None
    bends = -unit[:, None] * rows * unit
    if np.abs(bends - bends.T).max() > TORN:  # by round-off in the gradients
        for j in np.flatnonzero(np.abs(steps) < 0.3 * NEAR * unit):
            found = (look(NEAR * unit[j] * np.eye(size)[j])[1] - gradient) / (NEAR * unit[j])
            bends[j] = -unit[j] * found * unit if np.isfinite(found).all() else bends[j]
    shape = Shape(unit, unit * gradient, *np.linalg.eigh((bends + bends.T) / 2.0), np.full(size, SOFT))
    return shape.examined(look, worth)
