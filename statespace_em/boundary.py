"""Maxima on the boundary: where a covariance becomes singular, written as a square, it is an ordinary stationary point.

A maximum at a variance of 0 is approached by EM, and by any ascent in logarithms, for ever. In a chart whose
coordinates are the factor of every covariance (cov = L L') the objective is smooth through the boundary: a variance
that belongs at 0 has a factor with gradient 0 and negative curvature there, which are the conditions of Karush, Kuhn
and Tucker. Newton's method with both gradient and curvature from differences of the objective (the exact score of
what is observed without noise is not in the statistics of the E-step) ends in a few steps, and its curvature tells a
maximum from a saddle. What has vanished is put at exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from statespace_em._typing import Floats
from statespace_em.em import EMResult, OnStep, Step

P = TypeVar("P")
D = TypeVar("D")
S = TypeVar("S")

FIRST = 1e-3  # first look along a coordinate
LIMIT = 1e2  # bend at which that look is taken to be accurate
STEP = 1e-3  # of the differences for the gradient, in standard errors
WIDE = 1e-2  # of those for the curvature
LONGEST = 0.5  # Newton step, in coordinates of the chart
SAME = 1e-9  # nats that the objective may lose to a variance put at 0
STEPS = 60  # most Newton steps
ENOUGH = 1e-6  # nats, the accuracy that a fit promises
SHARPEST = 1e-6  # unit below which a peak is of round-off, such as one that only an unstable inverse holds up
SOFT = 1e-3  # curvature that differences cannot tell from none
ESCAPES = (1.0, 0.3, 0.1, 0.03)  # distances tried along a direction that may curve upwards


class Chart(Protocol):
    """Smooth coordinates around a point of the parameters, of order 1 and without units; 0 is the point."""

    size: int

    def params(self, x: Floats) -> Any:
        """Parameters at the coordinates ``x`` (size,)."""
        ...


@runtime_checkable
class HasBoundary(Protocol):
    """An `EMModel` whose parameters include covariances that may become singular at the maximum."""

    def near_boundary(self, params: Any, statistics: Any, start: Any) -> bool:
        """Whether a free covariance is close to singular, in the units of the data."""
        ...

    def chart(self, params: Any, statistics: Any, start: Any) -> Chart:
        """Chart around ``params`` by factors of covariances; what is singular in ``start`` stays so."""
        ...

    def on_face(self, params: Any, statistics: Any, start: Any, share: float) -> Any:
        """Parameters with the variances below this share of their scale at exactly 0."""
        ...

    def vanished(self, params: Any, start: Any) -> dict[str, Floats]:
        """Directions (p, k) in which a covariance, by name, is singular and was not at the start."""
        ...

    def unbounded(self, params: Any, data: Any) -> bool:
        """Whether a row is about to be explained without error, by which a likelihood has no bound."""
        ...


@runtime_checkable
class HasFaces(Protocol):
    """An `EMModel` with variances on their own, whose score is exact also where one is 0."""

    def onto_faces(self, params: Any, start: Any) -> Iterable[Any]:
        """Parameters with variances at 0 that are small, as many as possible first."""
        ...

    def off_faces(self, params: Any, statistics: Any, start: Any) -> Iterable[Any]:
        """Parameters with variances raised that are next to 0 where the likelihood rises with them."""
        ...

    def at_zero(self, params: Any) -> list[str]:
        """Names of free variances that are exactly 0."""
        ...

    def unbounded(self, params: Any, data: Any) -> bool:
        """Whether a row is about to be explained without error, by which a likelihood has no bound."""
        ...


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
            try:
                with np.errstate(over="raise", divide="raise", invalid="raise"):
                    statistics, log_likelihood = model.e_step(params, data)
                    step = Step(end.n_steps, log_likelihood, model.log_prior(params))
                    if not step.objective >= end.objective + least or model.unbounded(params, data):
                        continue
            except (ArithmeticError, ValueError):
                continue
            higher = step.objective > end.objective
            if on_step is not None and higher:
                on_step(step)
            trace = (*(end.trace if higher else end.trace[:-1]), step)
            return EMResult(params, statistics, trace, "max_iter", end.n_steps)
    return end


class _Shape(NamedTuple):
    """Objective around the centre of a chart to second order, in units in which it bends by about 1."""

    unit: Floats  # (p,), of the coordinates
    gradient: Floats  # (p,)
    bend: Floats  # (p,), eigenvalues of minus the second derivatives, ascending
    axes: Floats  # (p, p), their eigenvectors

    def step(self) -> Floats:
        """Newton step in the coordinates of the chart; what curves upwards or not at all goes up the gradient."""
        return np.asarray(self.unit * (self.axes @ (self.axes.T @ self.gradient / self._firm())))

    def gain(self) -> float:
        """Gain in nats that the quadratic model expects of the step."""
        return 0.5 * float(np.sum(np.square(self.axes.T @ self.gradient) / self._firm()))

    def soft(self) -> list[Floats]:
        """Directions that do not surely curve downwards, of the length of a standard error or of the chart."""
        return [self.unit * axis for axis, bend in zip(self.axes.T, self.bend) if bend < SOFT]

    def _firm(self) -> Floats:
        return np.maximum(np.abs(self.bend), SOFT)


def _shape(objective: Callable[[Floats], float], size: int, centre: float) -> _Shape | None:
    """Gradient and curvature by central differences; None where the objective ends within reach or is too sharp.

    A first look along each coordinate sets its unit, so that a difference is neither lost in round-off nor wide.
    """
    unit = np.ones(size)
    if abs(objective(np.zeros(size)) - centre) > ENOUGH:  # the same point by another route of arithmetic
        return None
    for i in range(size):
        for _ in range(4):
            at = np.zeros(size)
            at[i] = FIRST * unit[i]
            seen = abs(objective(at) - 2.0 * centre + objective(-at)) / FIRST**2
            if seen < LIMIT:
                break
            unit[i] /= np.sqrt(seen) if np.isfinite(seen) else 10.0
        unit[i] /= np.sqrt(max(seen, 1.0))
    if unit.min() < SHARPEST:
        return None
    steps, once = np.diag(WIDE * unit), np.empty(size)
    gradient, second = np.empty(size), np.empty((size, size))
    for i in range(size):
        near = STEP / WIDE * steps[i]
        gradient[i] = (objective(near) - objective(-near)) / (2.0 * STEP)
        once[i] = objective(steps[i]) + objective(-steps[i]) - 2.0 * centre
        second[i, i] = once[i] / WIDE**2
        for j in range(i):
            both = objective(steps[i] + steps[j]) + objective(-steps[i] - steps[j]) - 2.0 * centre
            second[i, j] = second[j, i] = (both - once[i] - once[j]) / (2.0 * WIDE**2)
    if not (np.isfinite(gradient).all() and np.isfinite(second).all()):
        return None
    bend, axes = np.linalg.eigh(-second)
    return _Shape(unit, gradient, bend, axes)


def finish(
    model: Any, data: D, end: EMResult[P, S], start: P, *, max_iter: int, tol: float, on_step: OnStep | None
) -> EMResult[P, S]:
    """Maximise from ``end`` by Newton's method in charts through the boundary; the objective never falls by `SAME`.

    The status is "converged" where a maximum is confirmed by its curvature, "degenerate" where the likelihood grows
    without bound or to a peak that arithmetic cannot resolve, "max_iter" otherwise. E-steps at new points count, those
    for differences do not.
    """
    here, spent = end, end.n_steps

    def objective_at(params: P) -> float:
        try:
            with np.errstate(over="raise", divide="raise", invalid="raise"):
                return float(model.e_step(params, data)[1] + model.log_prior(params))
        except (ArithmeticError, ValueError):
            return -np.inf

    def moved(params: P) -> bool:
        """Go there unless the objective is lower."""
        nonlocal here, spent
        spent += 1
        try:
            statistics, log_likelihood = model.e_step(params, data)
            step = Step(spent, log_likelihood, model.log_prior(params))
        except (ArithmeticError, ValueError):
            return False
        if not step.objective >= here.objective - SAME:
            return False
        higher = step.objective > here.objective
        here = EMResult(params, statistics, (*(here.trace if higher else here.trace[:-1]), step), "max_iter", spent)
        if on_step is not None and higher:
            on_step(step)
        return True

    for _ in range(STEPS):
        if spent >= max_iter:
            break
        for share in (1e-2, 1e-4, 1e-6):  # a face that costs nothing is better than next to it
            if moved(model.on_face(here.params, here.statistics, start, share)):
                break
        if model.unbounded(here.params, data):
            return here._replace(status="degenerate", n_steps=spent)
        chart = model.chart(here.params, here.statistics, start)

        def objective(x: Floats, chart: Chart = chart) -> float:
            return objective_at(chart.params(x))

        shape = _shape(objective, chart.size, here.objective)
        if shape is None:
            return here._replace(status="degenerate", n_steps=spent)
        if shape.gain() < tol:
            upward = _upward(objective, shape, here.objective + 10.0 * max(tol, SAME))
            if upward is None:
                return here._replace(status="converged", n_steps=spent)
            moved(chart.params(upward))
            continue
        step = shape.step()
        step *= min(1.0, LONGEST / float(np.abs(step).max()))
        values = [objective(step * 0.5**i) for i in range(10)]
        best = int(np.argmax(values))
        if not values[best] > here.objective:  # the end of what arithmetic can tell
            return here._replace(status="converged" if shape.gain() < ENOUGH else "degenerate", n_steps=spent)
        moved(chart.params(step * 0.5**best))
    return here._replace(n_steps=spent)


def _upward(objective: Callable[[Floats], float], shape: _Shape, least: float) -> Floats | None:
    """A point that is higher than ``least`` along a direction that does not curve downwards; None at a maximum."""
    for axis in shape.soft():
        for far in ESCAPES:
            for x in (far * axis, -far * axis):
                if np.abs(x).max() <= LONGEST and objective(x) > least:
                    return x
    return None
