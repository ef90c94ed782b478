"""The EM loop: any model with a tractable E- and M-step, and nothing about time, labels or priors.

Dempster, Laird & Rubin 1977. Acceleration is Anderson mixing of the EM map on unconstrained coordinates with the
objective as safeguard, as in DAAREM (Henderson & Varadhan 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

from statespace_em._typing import Floats
from statespace_em.errors import UNRESOLVED
from statespace_em.mixing import Anderson
from statespace_em.stopping import ROUND_OFF, Confirmation, creeps

P = TypeVar("P")
D_contra = TypeVar("D_contra", contravariant=True)
D = TypeVar("D")
S = TypeVar("S")

Status: TypeAlias = Literal["converged", "max_iter", "decreased", "degenerate"]
OnStep: TypeAlias = Callable[["Step"], None]

TIE = ROUND_OFF / 4  # of an objective, within which runs are taken to have ended together
NOISE = 1e-8  # nats: what the log-likelihood of data at a level far above their noise loses to round-off
REPEAT = 1e-3  # nats within which two short runs are taken to be on the same path
SAME_OPTIMUM = 1e-4  # nats within which two starts count as having found the same optimum
SHORT = 12  # E-steps given to each start before the best are polished
REACH = 10.0  # times what the last half of its short run gained, from which a start is taken to stay below the best


class EMModel(Protocol[P, D_contra, S]):
    """What the loop needs of a model.

    Where parameters that the loop has come to cannot be worked with in floating point, the steps and the coordinates
    raise one of `statespace_em.errors.UNRESOLVED`; any other exception is taken for a fault and ends the fit.
    """

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


@runtime_checkable
class HasResolution(Protocol):
    """An `EMModel` that knows what its log-likelihood loses to round-off where data or covariances are extreme."""

    def resolution(self, params: Any, statistics: Any) -> float:
        """Nats by which the log-likelihood may be off."""
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


class _Proposals(Generic[P]):
    """Accelerated parameters, from what EM makes of those it is shown."""

    def __init__(self, model: EMModel[P, Any, Any], reference: P) -> None:
        self.model, self.reference = model, reference
        self.mixer = Anderson()

    def after(self, params: P, image: P) -> P | None:
        """Return the next parameters to try; None where there is nothing to extrapolate."""
        try:
            with np.errstate(over="raise", divide="raise", invalid="raise"):
                x, mapped = (self.model.to_vector(value, self.reference) for value in (params, image))
                if x is None or mapped is None or x.size == 0:
                    return None
                point = self.mixer.propose(x, mapped)
                return None if point is None else self.model.from_vector(point, self.reference)
        except UNRESOLVED:  # a point outside the domain, such as a covariance that has become singular
            return None


class _Climb(Generic[P, S]):
    """Where a run has come to, and how it goes on."""

    params: P
    statistics: S

    def __init__(self, model: EMModel[P, D, S], data: D, on_step: OnStep | None) -> None:
        self.model, self.data, self.on_step = model, data, on_step
        self.trace: list[Step] = []
        self.objectives: list[float] = []
        self.n_steps = 0

    def resume(self, head: EMResult[P, S]) -> None:
        """Go on from where another run ended."""
        self.params, self.statistics, self.n_steps = head.params, head.statistics, head.n_steps
        self.trace = list(head.trace)
        self.objectives = [step.objective for step in head.trace]

    def step(self, params: P) -> float:
        """Make an E-step; move there unless it leads down, and return by how much it does (NaN: without a value)."""
        self.n_steps += 1
        statistics, log_likelihood = self.model.e_step(params, self.data)
        step = Step(self.n_steps, log_likelihood, self.model.log_prior(params))
        objective = step.objective
        if self.objectives:
            last = self.objectives[-1]
            if not objective >= last - ROUND_OFF * (1.0 + abs(last)):
                return last - objective
        self.params, self.statistics = params, statistics
        self.trace.append(step)
        self.objectives.append(objective)
        if self.on_step is not None:
            self.on_step(step)
        return 0.0

    def leap(self, params: P | None) -> bool:
        """Whether an extrapolated point, if there is one, could be computed and was higher."""
        if params is None:
            return False
        try:
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                return self.step(params) == 0.0
        except UNRESOLVED:
            return False

    def lift(self) -> bool:
        """Raise what has been driven next to zero but grows under EM; False where nothing has, or it gains nothing."""
        if not isinstance(self.model, HasVanishing):
            return False
        lifted = self.model.lifted(self.params, self.model.m_step(self.statistics, self.params))
        return self.leap(lifted)

    def result(self, status: Status) -> EMResult[P, S]:
        """Return the end of the run."""
        return EMResult(self.params, self.statistics, tuple(self.trace), status, self.n_steps)


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
    briefly: bool = False,
) -> EMResult[P, S]:
    """Climb from ``start`` until the gain still to come is below ``tol`` nats.

    ``max_iter`` counts E-steps. A decrease beyond round-off ends the run with status "decreased" and the best
    parameters seen; with ``accelerate`` an extrapolated point that does not improve is replaced by the EM point.
    With ``head``, an earlier run from the same start, go on where it ended: its E-steps count and are not repeated.
    One that climbs ``briefly`` also ends, with status "max_iter", where EM creeps.
    """
    climb: _Climb[P, S] = _Climb(model, data, on_step)
    if head is None:
        climb.step(start)  # as the caller has numpy handle what cannot be computed
    else:
        climb.resume(head)
    with np.errstate(over="warn", divide="warn", invalid="warn"):
        return climb.result(_ascend(climb, _Proposals(model, start), max_iter, tol, accelerate, briefly))


def _ascend(
    climb: _Climb[P, S], proposals: _Proposals[P], max_iter: int, tol: float, accelerate: bool, briefly: bool
) -> Status:
    """Climb until one of the ends that `run_em` describes."""
    model, confirmation = climb.model, Confirmation(tol, mixed=accelerate)
    while climb.n_steps < max_iter:
        image = model.m_step(climb.statistics, climb.params)
        mixes = accelerate and not confirmation.alone
        trial = proposals.after(climb.params, image) if mixes else None
        if not climb.leap(trial):
            if trial is not None:
                proposals.mixer.reset()
                if climb.n_steps == max_iter:
                    break
            try:
                lost = climb.step(image)
            except UNRESOLVED:  # uphill into what arithmetic cannot resolve, such as a unit root
                return "degenerate"
            if lost != 0.0:
                noise = max(NOISE, resolution(model, climb.params, climb.statistics))
                return "converged" if lost < noise else "decreased"
        if confirmation.reached(climb.objectives):
            if climb.n_steps == max_iter or not climb.lift():
                return "converged"
            confirmation.again()
            proposals.mixer.reset()
        elif confirmation.alone:
            proposals.mixer.reset()
        if briefly and creeps(climb.objectives):
            break
    return "max_iter"


def resolution(model: Any, params: Any, statistics: Any) -> float:
    """Nats within which a model knows that its objectives are the same, for all that arithmetic tells."""
    return model.resolution(params, statistics) if isinstance(model, HasResolution) else 0.0


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
    short: int = SHORT,
    run: Callable[..., EMResult[P, S]] = run_em,
    together: Callable[[Sequence[Callable[[], Any]]], list[Any]] = one_by_one,
) -> list[EMResult[P, S]]:
    """Give every start a short run and polish the ``n_polish`` best; one result a start, in their order.

    A run that ``is_degenerate`` gets that status and no place among the best; it is polished only if nothing else is
    left. A start whose likelihood cannot be computed is degenerate; where none can, the error of the first is raised.
    The best one is polished in any case. Where its optimum was found once only, others that may come as far are
    polished until one agrees. ``run`` makes a run, as `run_em`; ``together`` does tasks, with results in their order.
    """
    options: dict[str, Any] = {"tol": tol, "accelerate": accelerate, "on_step": on_step}
    starts = list(starts)
    first = max_iter if len(starts) == 1 else min(short, max_iter)

    def judged(end: EMResult[P, S]) -> EMResult[P, S]:
        return end._replace(status="degenerate") if is_degenerate(end.params, end.statistics) else end

    def begun(start: P) -> EMResult[P, S] | Exception:
        try:
            return judged(run(model, data, start, max_iter=first, **options))
        except UNRESOLVED as error:
            return error

    ends = together([partial(begun, s) for s in starts])
    failed = [end for end in ends if isinstance(end, Exception)]
    if failed and len(failed) == len(ends):
        raise failed[0]
    nowhere: Any = None, (Step(1, -np.inf, 0.0),), "degenerate", 1
    runs = [EMResult(s, *nowhere) if isinstance(end, Exception) else end for s, end in zip(starts, ends)]
    asked: dict[int, int] = {}  # steps of runs when they were last asked to go on: some do not take any more

    def unfinished(i: int) -> bool:
        return runs[i].status == "max_iter" and asked.get(i) != runs[i].n_steps < max_iter

    def polish(i: int, most: int = max_iter) -> None:
        if unfinished(i):
            asked[i] = runs[i].n_steps
            runs[i] = judged(run(model, data, starts[i], max_iter=min(most, max_iter), head=runs[i], **options))

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

    def hopeful(i: int) -> bool:
        return unfinished(i) and (short == SHORT or within_reach(runs[i], runs[best_of(runs)]))

    rest = list(filter(hopeful, order))
    while rest and found_by(runs) == 1:  # an optimum found once may be beaten by what was left behind
        now, rest = rest[:n_polish], rest[n_polish:]
        together([partial(polish, i, max_iter if short == SHORT else 2 * runs[i].n_steps) for i in now])
        rest += filter(hopeful, now)
    while unfinished(best_of(runs)):
        polish(best_of(runs))
    return runs


def within_reach(run: EMResult[P, S], best: EMResult[P, S]) -> bool:
    """Whether a run may come as far as another, going on as in the last half of its steps."""
    before = [step.objective for step in run.trace if step.iteration <= run.n_steps // 2]
    return not before or best.objective - run.objective <= REACH * (run.objective - before[-1])


def found_by(runs: Sequence[EMResult[P, S]]) -> int:
    """Number of starts that found the best optimum, or were on its path when they were left."""
    best = runs[best_of(runs)]

    def agrees(run: EMResult[P, S]) -> bool:
        if run.status == "max_iter":
            path = [step.objective for step in best.trace if step.iteration <= run.n_steps]
            return bool(path) and abs(run.objective - path[-1]) < REPEAT
        return run.status == "converged" and abs(run.objective - best.objective) < SAME_OPTIMUM

    return sum(run is best or agrees(run) for run in runs)


def best_of(runs: Sequence[EMResult[P, S]]) -> int:
    """Index of the highest objective among the runs that are not degenerate, or among all if all are.

    Of those that end together to round-off it is the first that converged: which of them is higher hangs on the order
    of sums, such as over chunks, and their parameters agree to half of the digits only.
    """
    sound = [i for i in range(len(runs)) if runs[i].status != "degenerate"] or list(range(len(runs)))
    highest = max(runs[i].objective for i in sound)
    together = [i for i in sound if runs[i].objective >= highest - TIE * abs(highest)] or sound
    return min(together, key=lambda i: runs[i].status != "converged")
