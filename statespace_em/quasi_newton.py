"""Quasi-Newton ascent on the exact score, for models that know it: EM creeps where a variance nears its boundary.

The E-step gives the gradient of the log-likelihood for nothing (Fisher's identity: it equals the gradient of the
expected complete-data log-likelihood). The ascent is BFGS with a strong-Wolfe line search (Nocedal & Wright 2006,
alg. 6.1); it ends when the Newton decrement, the gain in nats that a quadratic model still expects, is small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from statespace_em._typing import Floats
from statespace_em.boundary import SAME, SHARPEST, Shape, settle, shape_of
from statespace_em.em import EMModel, EMResult, OnStep, Step, resolution, run_em
from statespace_em.errors import UNRESOLVED, ParameterError

P = TypeVar("P")
D = TypeVar("D")
S = TypeVar("S")

FLAT = 0.1  # squared score over tol, coordinates being of order 1: a poor model of the curvature must not hide a slope
DOUBT = 1e-6  # squared score at which EM is not believed to have converged: it may not move all that is free
PATIENCE = 20  # steps, beside one a coordinate, in which an ascent must learn the curvature
MOST = 150  # coordinates; the curvature costs as many E-steps
FEW = 8  # coordinates whose curvature an ascent always begins with: it costs less than to learn it
FINE = 30  # coordinates of a model whose last digits are worth that
LAST = 3  # Newton steps for them
RISE, STEEP = 1e-4, 0.9  # of the first slope: what a step must gain of it, and what may be left of it
SEARCH = 12  # evaluations along a line, and the bracket below which
NARROW = 1e-3  # of its length a bracket tells no more
LARGEST = 1e100  # slope beyond which, or where it is not a number, there is nothing to climb on
NEXT, LOOKS = 1e-9, 4  # distance and number of points that tell the round-off of objectives
BLURRED = 1e-6  # nats of round-off from which on nothing has converged
ENOUGH = 5e-7  # nats that may be left where no step leads higher, with the curvature or without
CONFIRM = 2  # successive steps that must agree that little is left to gain
LEAST = 8.0 * float(np.finfo(float).eps)  # of the objective: what its round-off hides


class Point(NamedTuple):
    """One evaluation: place, objective (nats) and its gradient."""

    x: Floats
    objective: float
    gradient: Floats


Evaluate = Callable[[Floats], Point | None]  # None where nothing can be computed, or no evaluation is left


def ascend(
    evaluate: Evaluate,
    start: Point,
    *,
    tol: float,
    on_step: Callable[[Point], None],
    inverse: Floats | None = None,
    patience: float = np.inf,
) -> bool:
    """Climb from ``start``, telling ``on_step`` every accepted point; return whether the decrement fell below ``tol``.

    It never goes down: a step that finds no higher point ends the ascent, as do ``patience`` steps. ``inverse`` (p, p)
    is that of minus the second derivatives where these are known.
    """
    here, agreed, spent, made = start, 0, False, 0
    fresh = inverse is None
    inverse = np.eye(len(start.x)) if inverse is None else inverse
    while made < patience:
        direction = inverse @ here.gradient
        decrement = 0.5 * float(here.gradient @ direction)
        flat = float(here.gradient @ here.gradient) < FLAT * tol
        agreed = agreed + 1 if flat and decrement < tol else 0
        untold = flat and decrement <= LEAST * abs(here.objective)  # no step could show what it gains
        if agreed == CONFIRM or decrement == 0.0 or untold:
            return True
        there = _search(evaluate, here, direction)
        if there is None:
            if fresh:  # no higher point even up the gradient: the end of what arithmetic can tell
                return spent
            spent = decrement < tol
            inverse, fresh = np.eye(len(here.x)), True  # a poor model of the curvature: from the gradient again
            agreed = 0
            continue
        inverse = _updated(inverse, there.x - here.x, here.gradient - there.gradient, fresh)
        here, fresh, made = there, False, made + 1
        on_step(here)
    return False


def _search(evaluate: Evaluate, here: Point, direction: Floats) -> Point | None:
    """Find a higher point along ``direction``, mostly one that is less steep (weak Wolfe); None if there is none.

    The step is bracketed (Lewis & Overton 2013, alg. 2.6) and placed by cubics (Nocedal & Wright 2006, eq. 3.59); a
    place where nothing can be computed is too far.
    """
    rise = float(here.gradient @ direction)
    step = 1.0 / max(1.0, float(np.abs(direction).max()))  # coordinates are of order 1: no wild first step
    best, near, low, high = here, here, 0.0, np.inf
    for _ in range(SEARCH):
        there = evaluate(here.x + step * direction)
        if there is not None and there.objective > best.objective:
            best = there
        if there is None or there.objective < here.objective + RISE * step * rise:
            share = 0.1 if there is None else _placed(near, there, direction, step - low)
            high, step = step, low + share * (step - low)
        elif there.gradient @ direction > STEEP * rise:
            near, low, step = there, step, 0.5 * (step + high) if high < np.inf else 3.0 * step
        else:
            return there
        if best is not here and high - low < NARROW * high:
            break
    return best if best.objective > here.objective else None


def _placed(near: Point, far: Point, direction: Floats, apart: float) -> float:
    """Share of the way from one point to another, well inside, at which the cubic through both is highest."""
    first, last = float(near.gradient @ direction) * apart, float(far.gradient @ direction) * apart
    bend = first + last - 3.0 * (far.objective - near.objective)
    root = np.sqrt(max(bend * bend - first * last, 0.0))
    share = 1.0 - (last - root - bend) / (last - first - 2.0 * root) if last - first != 2.0 * root else 0.5
    return float(min(max(share, 0.1), 0.9)) if np.isfinite(share) else 0.5


def _updated(inverse: Floats, step: Floats, change: Floats, fresh: bool) -> Floats:
    """BFGS update of the inverse; scaled to the curvature just seen if it was the identity."""
    curvature = float(step @ change)
    if curvature <= 1e-12 * float(np.linalg.norm(step) * np.linalg.norm(change)):
        return inverse
    if fresh:
        inverse = inverse * (curvature / float(change @ change))
    ratio = 1.0 / curvature
    left = np.eye(len(step)) - ratio * np.outer(step, change)
    return np.asarray(left @ inverse @ left.T + ratio * np.outer(step, step))


@runtime_checkable
class HasScore(Protocol):
    """An `EMModel` that knows the exact score."""

    def score_vector(self, params: Any, statistics: Any, reference: Any) -> Floats:
        """Gradient of log likelihood plus log prior in the coordinates of ``to_vector``.

        Raises ArithmeticError or ValueError where it has none.
        """
        ...


class _Ascent:
    """Evaluations of one model in one chart, and the steps they led to."""

    def __init__(
        self, model: Any, data: Any, head: EMResult[Any, Any], start: Any, max_iter: int, on_step: OnStep | None
    ) -> None:
        self.model, self.data = model, data
        self.chart = model.chart(head.params, head.statistics, start)
        self.max_iter, self.on_step = max_iter, on_step
        self.end = head
        self.n_steps = head.n_steps
        self.made: dict[bytes, tuple[Any, Any, Step]] = {}

    def start(self) -> Point | None:
        """Return the point that the head ended at; None where the model has no coordinates or no score there."""
        x = np.zeros(self.chart.size)
        try:
            gradient = self.chart.gradient(x, self.end.params, self.end.statistics)
        except UNRESOLVED:
            return None
        return Point(x, self.end.objective, gradient) if len(x) and np.abs(gradient).max() < LARGEST else None

    def evaluate(self, x: Floats) -> Point | None:
        if self.n_steps >= self.max_iter:
            return None
        self.n_steps += 1
        try:
            with np.errstate(over="raise", divide="raise", invalid="raise"):
                params = self.chart.params(x)
                statistics, log_likelihood = self.model.e_step(params, self.data)
                step = Step(self.n_steps, log_likelihood, self.model.log_prior(params))
                self.made[x.tobytes()] = params, statistics, step
                point = Point(x, step.objective, self.chart.gradient(x, params, statistics))
                return point if np.abs(point.gradient).max(initial=0.0) < LARGEST else None
        except (*UNRESOLVED, ParameterError):  # as where a prior has no density
            return None

    def shape(self, point: Point, worth: float) -> Shape | None:
        """Curvature around the start; None where it costs too much or there is none."""
        return None if len(point.x) > MOST else shape_of(self.quietly, point.gradient, worth)

    def round_off(self, point: Point) -> float:
        """Nats by which objectives scatter next to a point."""
        rng = np.random.default_rng(0)
        near = [self.quietly(point.x + NEXT * rng.standard_normal(len(point.x)))[0] for _ in range(LOOKS)]
        return float(np.ptp([point.objective, *near]))

    def quietly(self, x: Floats) -> tuple[float, Floats]:
        """Objective and gradient, which do not count as a step."""
        n_steps, limit = self.n_steps, self.max_iter
        self.max_iter = n_steps + 1
        found = self.evaluate(x)
        self.made.pop(x.tobytes(), None)
        self.n_steps, self.max_iter = n_steps, limit
        return (-np.inf, np.full(len(x), np.nan)) if found is None else (found.objective, found.gradient)

    def accept(self, point: Point) -> None:
        params, statistics, step = self.made[point.x.tobytes()]
        step = step._replace(iteration=self.n_steps)
        self.end = EMResult(params, statistics, (*self.end.trace, step), "max_iter", self.n_steps)
        self.made.clear()
        if self.on_step is not None:
            self.on_step(step)


def run_quasi_newton(
    model: EMModel[P, D, S],
    data: D,
    start: P,
    **options: Any,
) -> EMResult[P, S]:
    """Climb, see `_climbed`; without bound where y follows its own past exactly and that has been found."""
    end = _climbed(model, data, start, **options)
    known: Any = model
    return end._replace(status="degenerate") if known.explained(end.params, data) else end


def _climbed(
    model: EMModel[P, D, S],
    data: D,
    start: P,
    *,
    max_iter: int = 1000,
    tol: float = 1e-8,
    accelerate: bool = True,
    on_step: OnStep | None = None,
    head: EMResult[P, S] | None = None,
    informed: bool = False,
) -> EMResult[P, S]:
    """Make accelerated EM steps until they creep, then ascend on the score; see `run_em` for the arguments.

    The model must be one that `HasBoundary`. Ascents are repeated from where the last one ended, in a chart around that
    place, until one gains next to nothing and no variance is to be put at 0 or raised from there. One that stalls goes
    on with the curvature from differences of the score, which do not count as steps; where it cannot, EM does. The
    first begins with it if coordinates are few and EM has come near a top, or if it is to be ``informed``.
    """
    options: dict[str, Any] = {"tol": tol, "accelerate": accelerate, "on_step": on_step}
    known: Any = model
    most, few = (max_iter, FEW) if known.steps_are_exact() else (1, 0)
    end = run_em(model, data, start, max_iter=most, head=head, briefly=True, **options)
    if end.status == "decreased":  # an M-step that is not exact, or round-off in it: the score may know better
        end = end._replace(status="max_iter")
    end = _doubted(model, data, end, start)
    options["tol"] = tol = max(tol, resolution(model, end.params, end.statistics)) if tol > 0.0 else tol
    stalled = spent = False
    unknown = head is None
    while end.n_steps < max_iter:
        singular = known.is_singular(end.params, start)
        if singular and known.unbounded(end.params, data):
            return end._replace(status="degenerate")
        try:
            end = settle(model, data, end, start, max_iter=max_iter, tol=tol, on_step=on_step)
            if end.status != "max_iter":
                return end
            ascent = _Ascent(model, data, end, start, max_iter, on_step)
        except UNRESOLVED:  # too near the ends of the numbers for coordinates
            return end._replace(status="degenerate")
        point = ascent.start()
        if point is None:
            break
        shape = ascent.shape(point, tol) if stalled else None
        first = ascent.shape(point, np.inf) if unknown and len(point.x) <= (FINE if informed else few) else None
        unknown = False
        sharp = shape is not None and bool(shape.unit.min() < SHARPEST)
        if sharp and not known.is_limit(end.params):  # a peak of round-off
            return end._replace(status="degenerate")
        if shape is not None and tol > 0.0 and shape.gain() < (max(tol, ENOUGH) if spent else tol):
            least = end.objective + 10.0 * max(tol, SAME)
            upward = shape.examined(ascent.quietly, 0.0).upward(ascent.quietly, least, tol)
            higher = None if upward is None else ascent.evaluate(upward)
            if higher is None:
                end = end._replace(status="converged", n_steps=ascent.n_steps)
                continue
            ascent.accept(higher)
            end = ascent.end
            continue
        converged = ascend(
            ascent.evaluate, point, tol=tol, on_step=ascent.accept,
            inverse=None if (near := shape or first) is None else near.inverse(), patience=PATIENCE + len(point.x),
        )  # fmt: skip
        gained = ascent.end.objective - end.objective
        end = ascent.end._replace(n_steps=ascent.n_steps)
        if converged and gained <= 10.0 * tol and tol > 0.0 and not (singular and shape is None):
            end = end._replace(status="converged")
        elif gained <= 10.0 * tol and (stalled or len(point.x) > MOST):
            if shape is not None and tol > 0.0 and (sharp or shape.gain() < ascent.round_off(point) < BLURRED):
                end = end._replace(status="converged")  # as far as arithmetic tells
                break
            if shape is None or spent:
                break
            spent = True
        stalled = not converged or gained <= 10.0 * tol
    if end.status == "max_iter":
        end = _doubted(model, data, run_em(model, data, start, max_iter=max_iter, head=end, **options), start)
    if end.status == "decreased" and known.is_singular(end.params, start):  # a peak that arithmetic cannot resolve
        end = end._replace(status="degenerate")
    if end.status == "decreased" and not known.steps_are_exact():  # which may go down
        end = end._replace(status="max_iter")
    return end


def _doubted(model: Any, data: Any, end: EMResult[P, S], start: P) -> EMResult[P, S]:
    """Not converged where the score says that there is more to gain."""
    if end.status != "converged":
        return end
    try:
        point = _Ascent(model, data, end, start, end.n_steps, None).start()
    except UNRESOLVED:
        return end._replace(status="degenerate")
    doubt = max(DOUBT, resolution(model, end.params, end.statistics))
    steep = point is not None and float(point.gradient @ point.gradient) > doubt
    return end._replace(status="max_iter") if steep else end


def refine(model: EMModel[P, D, S], data: D, end: EMResult[P, S], start: P, *, tol: float = np.inf) -> EMResult[P, S]:
    """Take a converged run the last digits of the way: Newton steps with one curvature, while the score shrinks.

    What is within ``tol`` nats of the maximum is within the root of it of the estimates; the digits beyond would be
    those of the path, and not the same in other units of y. Where the curvature shows a way to gain much more than
    ``tol``, the status is "max_iter", and the climb must go on from there.
    """
    ascent = _Ascent(model, data, end, start, end.n_steps + LAST, None)
    point = ascent.start() if ascent.chart.size <= FINE else None
    shape = None if point is None else ascent.shape(point, tol)
    if point is None or shape is None or shape.unit.min() < SHARPEST:
        return end
    least = end.objective + 10.0 * max(tol, SAME)
    upward = shape.upward(ascent.quietly, least, tol) if np.isfinite(tol) else None
    if upward is not None and (higher := ascent.evaluate(upward)) is not None:
        ascent.accept(higher)
        return ascent.end
    inverse, best = shape.inverse(surely=True), point
    for _ in range(LAST):
        there = ascent.evaluate(best.x + inverse @ best.gradient)
        if there is None or there.objective < point.objective - SAME:
            break
        if not shape.decrement(there.gradient) < 0.25 * shape.decrement(best.gradient):
            break
        best = there
    if best is point:
        return end
    params, statistics, step = ascent.made[best.x.tobytes()]
    near = end._replace(
        params=params, statistics=statistics, trace=(*end.trace[:-1], step._replace(iteration=end.n_steps))
    )
    if ascent.model.is_singular(params, start):  # a step leaves no variance at exactly 0
        options: dict[str, Any] = {"max_iter": end.n_steps + LAST, "tol": 1.0, "on_step": None}
        near = settle(model, data, near, start, **options)
    return near._replace(status=end.status, n_steps=end.n_steps)
