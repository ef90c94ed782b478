"""The EM loop: any model with a tractable E- and M-step, and nothing about time, labels or priors.

Dempster, Laird & Rubin 1977. Acceleration is Anderson mixing of the EM map on unconstrained coordinates
(Walker & Ni 2011, type II) with the objective as safeguard, as in DAAREM (Henderson & Varadhan 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

from statespace_em._typing import Floats

P = TypeVar("P")
D_contra = TypeVar("D_contra", contravariant=True)
D = TypeVar("D")
S = TypeVar("S")

Status: TypeAlias = Literal["converged", "max_iter", "decreased", "degenerate"]
OnStep: TypeAlias = Callable[["Step"], None]

ROUND_OFF = 64 * float(np.finfo(float).eps)
NOISE = 1e-8  # nats: what the log-likelihood of data at a level far above their noise loses to round-off
CONFIRM = 3  # consecutive steps that must agree that the gain still to come is small
WINDOW = 2  # steps over which an accelerated gain is measured: single ones are erratic
MEMORY = 8  # past steps that Anderson mixing combines
REPEAT = 1e-3  # nats within which two short runs are taken to be on the same path
LEAP = 0.5  # longest leap beyond the EM step along any coordinate; they are free of units and of order 1
SAME_OPTIMUM = 1e-4  # nats within which two starts count as having found the same optimum
SHORT = 12  # E-steps given to each start before the best are polished


class EMModel(Protocol[P, D_contra, S]):
    """What the loop needs of a model."""

    def e_step(self, params: P, data: D_contra) -> tuple[S, float]:
        """Additive statistics and log p(data | params) in nats."""
        ...

    def m_step(self, statistics: S, previous: P) -> P:
        """Maximise the expected log joint plus log prior."""
        ...

    def log_prior(self, params: P) -> float:
        """Log prior density; 0.0 under flat priors."""
        ...

    def to_vector(self, params: P, reference: P) -> Floats | None:
        """Unconstrained, unit-free coordinates of the free parameters; None if there are none to offer."""
        ...

    def from_vector(self, vector: Floats, reference: P) -> P:
        """Inverse of `to_vector`; what is not free is taken from the reference."""
        ...


@runtime_checkable
class HasVanishing(Protocol):
    """An `EMModel` with probabilities, which EM can neither bring back from next to zero nor tell from zero soon."""

    def lifted(self, params: Any, image: Any) -> Any | None:
        """Parameters with the probabilities raised that are next to zero but grow under EM; None if none do."""
        ...


class Step(NamedTuple):
    """One accepted E-step; both terms belong to the same parameters."""

    iteration: int  # number of E-steps made so far, from 1
    log_likelihood: float
    log_prior: float

    @property
    def objective(self) -> float:
        """Log likelihood plus log prior, in nats."""
        return self.log_likelihood + self.log_prior


class EMResult(NamedTuple, Generic[P, S]):
    """The end of a run: ``params`` own the last entry of ``trace`` and produced ``statistics``."""

    params: P
    statistics: S
    trace: tuple[Step, ...]
    status: Status
    n_steps: int  # E-steps made, rejected ones included

    @property
    def objective(self) -> float:
        """Log likelihood plus log prior at ``params``, in nats."""
        return self.trace[-1].objective


class _Anderson:
    """Propose the next point from the last few steps of a fixed-point map.

    Mixing looks for any fixed point. Beside a saddle, where EM's own steps grow, it would lead back to it; what is
    proposed then is a leap ahead along the EM step, of the length that SQUAREM takes (Varadhan & Roland 2008, S3).
    """

    def __init__(self) -> None:
        self.last: tuple[Floats, Floats] | None = None  # point and residual
        self.steps: list[Floats] = []
        self.changes: list[Floats] = []  # of the residual over each step

    def reset(self) -> None:
        self.last = None
        self.steps.clear()
        self.changes.clear()

    def propose(self, x: Floats, image: Floats) -> Floats | None:
        """Return the mixed point, or None while the map has been seen only once."""
        residual, last = image - x, self.last
        self.last = x, residual
        if last is None:
            return None
        self.steps.append(x - last[0])
        self.changes.append(residual - last[1])
        del self.steps[: 1 - MEMORY], self.changes[: 1 - MEMORY]
        steps, changes = np.array(self.steps).T, np.array(self.changes).T
        size = np.linalg.norm(changes, axis=0)
        size[size == 0.0] = 1.0
        mix, *_ = np.linalg.lstsq(changes / size, residual, rcond=1e-10)
        leap = -(steps + changes) @ (mix / size)
        if (residual + leap) @ residual < 0.0:
            leap = residual * (np.linalg.norm(self.steps[-1]) / size[-1])
        longest = float(np.abs(leap).max())
        if not np.isfinite(longest):
            return None
        # early leaps may land beside the boundary (a nearly singular covariance), from where EM hardly moves
        return np.asarray(image + leap * min(1.0, LEAP / max(longest, LEAP)))


def _gain_to_come(objectives: list[float], window: int) -> float:
    """Remaining gain in nats by Aitken's geometric series over the last two windows; inf if unknown."""
    if len(objectives) < 2 * window + 1:
        return np.inf
    recent = objectives[-1] - objectives[-1 - window]
    before = objectives[-1 - window] - objectives[-1 - 2 * window]
    if recent <= ROUND_OFF * (1.0 + abs(objectives[-1])):
        return 0.0
    if recent >= before:
        return np.inf
    ratio = recent / before
    return recent * ratio / (1.0 - ratio)


def _mixed(model: EMModel[P, D, S], mixer: _Anderson, params: P, image: P, reference: P) -> P | None:
    """Return the accelerated parameters, or None where there is nothing to extrapolate."""
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            x, mapped = model.to_vector(params, reference), model.to_vector(image, reference)
            if x is None or mapped is None or x.size == 0:
                return None
            point = mixer.propose(x, mapped)
            return None if point is None else model.from_vector(point, reference)
    except (
        ArithmeticError,
        ValueError,
    ):  # a point outside the domain, such as a covariance that has become singular
        return None


def _climb(
    model: EMModel[P, D, S], data: D, params: P, last: Step, iteration: int, *, extrapolated: bool
) -> tuple[P, S, Step] | None:
    """Make an E-step at ``params``; None where an extrapolated point is no higher or cannot be computed."""
    handling: Literal["ignore", "warn"] = "ignore" if extrapolated else "warn"
    try:
        with np.errstate(over=handling, divide=handling, invalid=handling):
            statistics, log_likelihood = model.e_step(params, data)
    except (ArithmeticError, ValueError):
        if extrapolated:
            return None
        raise
    step = Step(iteration, log_likelihood, model.log_prior(params))
    return None if extrapolated and _falls(step, last) else (params, statistics, step)


def _falls(step: Step, last: Step) -> bool:
    """Whether the objective is lower by more than the round-off of a sum of this size; true also of NaN."""
    return not step.objective >= last.objective - ROUND_OFF * (1.0 + abs(last.objective))


def _first(model: EMModel[P, D, S], data: D, start: P, on_step: OnStep | None) -> EMResult[P, S]:
    """Make the first E-step."""
    statistics, log_likelihood = model.e_step(start, data)
    step = Step(1, log_likelihood, model.log_prior(start))
    if on_step is not None:
        on_step(step)
    return EMResult(start, statistics, (step,), "max_iter", 1)


def run_em(
    model: EMModel[P, D, S],
    data: D,
    start: P,
    *,
    max_iter: int = 1000,
    tol: float = 1e-8,
    accelerate: bool = True,
    on_step: OnStep | None = None,
    head: EMResult[P, S] | None = None,
    slow: float = 0.0,
) -> EMResult[P, S]:
    """Climb from ``start`` until the gain still to come is below ``tol`` nats.

    ``max_iter`` counts E-steps. A decrease beyond round-off ends the run with status "decreased" and the best
    parameters seen; with ``accelerate`` an extrapolated point that does not improve is replaced by the EM point.
    With ``head``, an earlier run from the same start, go on where it ended: its E-steps count and are not repeated.
    ``slow`` also ends the run, with status "max_iter", when the last ten steps gained less than that many nats.
    """
    mixer = _Anderson() if accelerate else None
    window = WINDOW if accelerate else 1
    if head is None:
        head = _first(model, data, start, on_step)
    params, statistics, trace, n_steps, agreed = head.params, head.statistics, list(head.trace), head.n_steps, 0
    plain = 0  # steps without mixing, by which EM confirms what the erratic gains of mixed steps say
    needed = CONFIRM  # doubled whenever EM does not confirm, so that mixing gets its time
    while n_steps < max_iter:
        image = model.m_step(statistics, params)
        climbed = None
        trial = _mixed(model, mixer, params, image, start) if mixer and not plain else None
        if mixer and trial is not None:
            n_steps += 1
            climbed = _climb(model, data, trial, trace[-1], n_steps, extrapolated=True)
            if climbed is None:
                mixer.reset()
                if n_steps == max_iter:
                    break
        if climbed is None:
            n_steps += 1
            try:
                climbed = _climb(model, data, image, trace[-1], n_steps, extrapolated=False)
            except (ArithmeticError, ValueError):  # uphill into what arithmetic cannot resolve, such as a unit root
                return EMResult(params, statistics, tuple(trace), "degenerate", n_steps)
            assert climbed is not None
            if _falls(climbed[2], trace[-1]):
                lost = trace[-1].objective - climbed[2].objective
                status: Status = "converged" if lost < NOISE else "decreased"
                return EMResult(params, statistics, tuple(trace), status, n_steps)
        params, statistics, step = climbed
        trace.append(step)
        if on_step is not None:
            on_step(step)
        agreed = agreed + 1 if _gain_to_come([s.objective for s in trace[-2 * window - 1 :]], window) < tol else 0
        if mixer and agreed == needed and plain < 2:
            plain, agreed = plain + 1, needed - 1
            mixer.reset()
        elif mixer and plain:
            sure = _gain_to_come([s.objective for s in trace[-3:]], 1) < tol
            sure = sure or step.objective - trace[-2].objective < 1e-3 * tol
            plain, agreed, needed = 0, needed if sure else 0, needed if sure else 2 * needed
        if agreed == needed:
            lift = model.lifted(params, model.m_step(statistics, params)) if isinstance(model, HasVanishing) else None
            if lift is None or n_steps == max_iter:
                return EMResult(params, statistics, tuple(trace), "converged", n_steps)
            n_steps, agreed = n_steps + 1, 0
            climbed = _climb(model, data, lift, trace[-1], n_steps, extrapolated=True)
            if climbed is None:
                return EMResult(params, statistics, tuple(trace), "converged", n_steps)
            params, statistics, step = climbed
            trace.append(step)
            if mixer:
                mixer.reset()
        if slow > 0.0 and len(trace) > 10 and step.objective - trace[-11].objective < slow:
            break
    return EMResult(params, statistics, tuple(trace), "max_iter", n_steps)


def one_by_one(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results of tasks, done in turn."""
    return [task() for task in tasks]


def run_starts(
    model: EMModel[P, D, S],
    data: D,
    starts: Iterable[P],
    *,
    n_polish: int,
    is_degenerate: Callable[[P, S], bool],
    max_iter: int = 1000,
    tol: float = 1e-8,
    accelerate: bool = True,
    on_step: OnStep | None = None,
    run: Callable[..., EMResult[P, S]] = run_em,
    together: Callable[[Sequence[Callable[[], Any]]], list[Any]] = one_by_one,
) -> list[EMResult[P, S]]:
    """Give every start a short run and polish the ``n_polish`` best; one result a start, in their order.

    A run that ``is_degenerate`` (it heads for a likelihood without bound) gets that status and no place
    among the best; it is polished only if nothing else is left. The best run is always a polished one. Where its
    optimum was found once only, the other starts are polished as well, until one agrees.
    ``run`` makes a run, with the arguments of `run_em`; ``together`` does independent tasks, in any order, and
    returns their results in the given one.
    """
    options: dict[str, Any] = {"tol": tol, "accelerate": accelerate, "on_step": on_step}
    starts = list(starts)
    short = max_iter if len(starts) == 1 else min(SHORT, max_iter)

    def judged(end: EMResult[P, S]) -> EMResult[P, S]:
        return end._replace(status="degenerate") if is_degenerate(end.params, end.statistics) else end

    runs = [judged(end) for end in together([partial(run, model, data, s, max_iter=short, **options) for s in starts])]

    def unfinished(i: int) -> bool:
        return runs[i].status == "max_iter" and runs[i].n_steps < max_iter

    def polish(i: int) -> None:
        if unfinished(i):
            runs[i] = judged(run(model, data, starts[i], max_iter=max_iter, head=runs[i], **options))

    order = sorted(range(len(runs)), key=lambda i: (runs[i].status == "degenerate", -runs[i].objective))
    repeats = [i for a, i in pairwise(order) if abs(runs[a].objective - runs[i].objective) < REPEAT]
    queue = [i for i in order if i not in repeats] + repeats  # what is on the same path tells nothing new
    wanted = n_polish
    while queue and wanted > 0:
        now, queue = queue[:wanted], queue[wanted:]
        together([partial(polish, i) for i in now])
        wanted -= sum(runs[i].status != "degenerate" for i in now)
    while unfinished(best_of(runs)):  # a repeat of a run that turned out degenerate may have been passed over
        polish(best_of(runs))
    rest = [i for i in order if unfinished(i)]
    while rest and found_by(runs) == 1:  # an optimum found once may be beaten by what was left behind
        now, rest = rest[:n_polish], rest[n_polish:]
        together([partial(polish, i) for i in now])
    return runs


def found_by(runs: Sequence[EMResult[P, S]]) -> int:
    """Number of starts that found the best optimum, or were on its path when they were left."""
    best = runs[best_of(runs)]
    path = [step.objective for step in best.trace if step.iteration <= SHORT][-1]

    def agrees(run: EMResult[P, S]) -> bool:
        if run.status == "max_iter":
            return abs(run.objective - path) < REPEAT
        return run.status == "converged" and abs(run.objective - best.objective) < SAME_OPTIMUM

    return sum(run is best or agrees(run) for run in runs)


def best_of(runs: Sequence[EMResult[P, S]]) -> int:
    """Index of the highest objective among the runs that are not degenerate, or among all if all are."""
    return max(range(len(runs)), key=lambda i: (runs[i].status != "degenerate", runs[i].objective))
