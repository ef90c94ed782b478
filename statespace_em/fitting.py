"""One fit: its options, the climb from the starts, and what to say about how it ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from statespace_em import _threads, _validate, em
from statespace_em._typing import Floats, Ints
from statespace_em.boundary import HasBoundary, is_bounded
from statespace_em.core import Core
from statespace_em.data import Batch
from statespace_em.errors import ConvergenceWarning, DataWarning, LocalOptimumWarning, ParameterError
from statespace_em.families import nearly_singular
from statespace_em.labels import Labels
from statespace_em.quasi_newton import refine, run_quasi_newton
from statespace_em.schema import Schema

Complaint = tuple[type[Warning], str]
UNBOUNDED = "the likelihood grows without bound, or to a peak too sharp for arithmetic, from every start"
MOST_STARTS = 24  # of a model with an exact score, or twice as many as it begins with
SHORT = 2_048  # rows below which most of a step is work of Python, whose threads wait for each other
FEW_STARTS, MANY_ROWS = 3, 10_000  # of a model with an exact score
LONGER = 48  # E-steps after which ascents on an exact score are ranked: most are then nearly at their top
MANY, NEARER = 20, 24  # starts, of free states near tops of a spectrum, and E-steps that tell these where they lead
MOST_REFINED = 5  # times that a climb goes on from above where it had converged
RECENT = 10  # E-steps whose gain tells how far a run was from its end
ENOUGH_LOWER = 2  # starts that ended lower before one that ended higher is suspected to be chance


class FitOptions(NamedTuple):
    """Keywords of `LatentModel.fit`, where they are explained."""

    start: xr.Dataset | None = None
    freeze: Sequence[str] = ()
    n_starts: int | None = None
    max_iter: int = 1000
    tol: float = 1e-8
    accelerate: bool = True
    seed: int = 0
    threads: int | None = None
    progress: bool = False

    def given(self, schema: Schema) -> dict[str, Floats]:
        """Check the options against the parameters of a model; return those that it starts at."""
        _validate.at_least("max_iter", self.max_iter, 1, whole=True)
        _validate.at_least("tol", self.tol, 0.0)
        if self.threads is not None:
            _validate.at_least("threads", self.threads, 1, whole=True)
        if self.n_starts is not None:
            _validate.at_least("n_starts", self.n_starts, 1, whole=True)
        _validate.one_of("accelerate", self.accelerate, (True, False))
        _validate.at_least("seed", self.seed, 0, whole=True)
        if isinstance(self.freeze, str):
            raise ParameterError(f"freeze is {self.freeze!r}, expected a list of names: freeze=[{self.freeze!r}].")
        if self.start is not None and not isinstance(self.start, xr.Dataset):
            raise ParameterError(
                f"start is of type {type(self.start).__name__}, expected what model.parameters(...) returns."
            )
        for name in self.freeze:
            _validate.one_of("freeze", name, schema.parameters)
        given = {} if self.start is None else schema.arrays(self.start, partial=True)
        if set(self.freeze) - set(given):
            missing = sorted(set(self.freeze) - set(given))[0]
            raise ParameterError(f"freeze names {missing!r}, whose value is not known: give it in start=.")
        return given


class NoBound(NamedTuple):
    """Why a likelihood has no bound, and what to do about it, beside a prior where that helps."""

    why: str
    remedy: str
    prior_helps: bool = True
    by_structure: bool = False  # of the model with such data, wherever a fit has come to


class Fit(NamedTuple):
    """What a fit found."""

    schema: Schema  # of the parameters
    arrays: dict[str, Floats]  # the parameters by name
    labels: Labels  # of the observations
    symbols: list[Any] | None
    runs: list[em.EMResult[Any, Any]]  # one a start
    chosen: em.EMResult[Any, Any]
    complaints: list[Complaint]  # warnings due
    count_free: Callable[[], int]  # how many parameters are free
    fitted_to: str  # fingerprint of the observations, or of the sample that starts were guessed from
    vanished: dict[str, Floats]  # directions (p, k) in which the maximum has made a covariance singular


def number_of_starts(core: Core, batch: Batch, options: FitOptions, default: int) -> int:
    """How many starts to make: where a score is climbed on many rows few, for their tops are few and steps are dear."""
    if options.n_starts is not None:
        return options.n_starts
    return min(default, FEW_STARTS) if is_bounded(type(core)) and len(batch.y) > MANY_ROWS else default


def starting_points(
    core: Core, batch: Batch, options: FitOptions, given: Mapping[str, Floats], required: Collection[str], n_starts: int
) -> list[Any]:
    """Parameters to climb from: what the user gave, completed by guesses where that is not everything."""
    if set(given) >= set(required):
        return [core.build(given)]
    guesses = core.starts(batch, n_starts, np.random.default_rng(options.seed), given)
    return [core.build({**core.flatten(guess), **given}) for guess in guesses]


def side_by_side(n_rows: int, threads: int | None) -> Callable[[Sequence[Callable[[], Any]]], list[Any]]:
    """What makes climbs on so many rows: threads, unless nobody asked and they would only hand each other the lock."""
    return em.one_by_one if threads is None and n_rows < SHORT else _threads.run


def climb(
    core: Core,
    engine: em.EMModel[Any, Any, Any],
    data: Any,
    starts: Sequence[Any],
    options: FitOptions,
    on_step: em.OnStep | None,
    together: Callable[[Sequence[Callable[[], Any]]], list[Any]],
) -> list[em.EMResult[Any, Any]]:
    """Run from every start, and polish the best.

    The ``engine`` is the core, or what takes its steps on other data. ``together`` makes the climbs from several
    starts, see `em.run_starts`.
    """
    ascends = options.accelerate and is_bounded(type(core))
    many = ascends and isinstance(core, HasBoundary) and not core.steps_are_exact() and len(starts) >= MANY
    if not ascends:
        check_closed(core, "accelerate=False is plain EM: leave it out")
    with _threads.limited(options.threads):
        runs = em.run_starts(
            engine,
            data,
            starts,
            n_polish=3 if ascends else max(3, len(starts) // 3),
            is_degenerate=lambda params, statistics: bool(core.degenerate(params, statistics).any()),
            max_iter=options.max_iter,
            tol=options.tol,
            accelerate=options.accelerate,
            on_step=on_step,
            short=em.SHORT if not ascends else NEARER if many else LONGER,
            run=partial(run_quasi_newton, informed=many) if ascends else em.run_em,
            # ascents on short series would wait for each other's Python; passes over long ones share the cores anyway
            together=em.one_by_one if ascends else together,
        )
    return runs


def climb_on(
    core: Core,
    engine: em.EMModel[Any, Any, Any],
    data: Any,
    starts: list[Any],
    begin: Callable[[int], list[Any]],
    options: FitOptions,
    on_step: em.OnStep | None,
    together: Callable[[Sequence[Callable[[], Any]]], list[Any]],
) -> tuple[list[em.EMResult[Any, Any]], int]:
    """Climb from the starts, and from more of them where a model with an exact score has many tops.

    Starts are added, in place, until the best optimum is found twice or `MOST_STARTS` are made, unless their number
    was asked for; ``begin(n)`` makes n, the first of them the same. Returns the runs and which of them is the best,
    which is taken the last digits of the way.
    """
    runs = climb(core, engine, data, starts, options, on_step, together)
    if not is_bounded(type(core)):
        return runs, em.best_of(runs)
    most = max(MOST_STARTS, 2 * len(starts))
    while options.n_starts is None and 1 < len(starts) < most and found_once(runs, runs[em.best_of(runs)]):
        more = begin(min(2 * len(starts), most))[len(starts) :]
        starts += more
        runs += climb(core, engine, data, more, options, on_step, together)
    best = outdone(runs, em.best_of(runs))
    if options.accelerate and options.tol > 0.0 and runs[best].status == "converged":
        with _threads.limited(options.threads):
            runs[best] = _finished(engine, data, runs[best], starts[best], options, on_step)
    return runs, best


def _finished(
    engine: em.EMModel[Any, Any, Any],
    data: Any,
    end: em.EMResult[Any, Any],
    start: Any,
    options: FitOptions,
    on_step: em.OnStep | None,
) -> em.EMResult[Any, Any]:
    """Take a converged run the last digits of the way; where these lead higher it climbs on."""
    for _ in range(MOST_REFINED):
        refined = refine(engine, data, end, start, tol=options.tol)
        if refined.status == "converged" or refined.n_steps >= options.max_iter:
            return refined if refined.status == "converged" else end
        further = run_quasi_newton(
            engine, data, start, head=refined, max_iter=options.max_iter, tol=options.tol, on_step=on_step
        )
        if further.status != "converged":
            return end
        end = further
    return end


def outdone(runs: Sequence[em.EMResult[Any, Any]], best: int) -> int:
    """Which run to show: one that found no top does not stand for a model of which others climbed without end.

    A top that a run has converged to does, if there are higher places without bound: it is what one wants of such a
    likelihood (as of a mixture's).
    """
    top = max((run.objective for run in runs if run.status == "converged"), default=-np.inf)
    endless = [i for i, run in enumerate(runs) if run.status == "degenerate" and run.objective > top]
    if runs[best].status not in ("max_iter", "decreased") or not endless:
        return best
    return max(endless, key=lambda i: runs[i].objective)


def check_closed(core: Core, remedy: str) -> None:
    """Refuse steps of plain EM where they would leave free values as they are."""
    left = core.left_to_score() if is_bounded(type(core)) and isinstance(core, HasBoundary) else []
    if left:
        raise ParameterError(
            f"{left[0]} has free values without a closed M-step (products of names, decays over uneven steps, or "
            "dynamics by row with a stationary start), which only the exact score moves, as a default fit does. "
            f"{remedy}."
        )


def too_few(batch: Batch, most: int, count_free: Callable[[], int]) -> list[Complaint]:
    """Complain where there are fewer rows with an entry than free parameters, which are ``most`` at most."""
    for rows in (batch.y[: 2 * most], batch.y):  # the first ones mostly tell
        seen = int((~np.isnan(rows)).any(1).sum())
        if seen >= most:
            return []
    n_free = count_free()  # which takes longer than a step on a few rows
    if seen >= n_free:
        return []
    message = (
        f"y has {seen} rows, fewer than the {n_free} free parameters: the estimates will not mean much. "
        "Use fewer states, a smaller covariance structure, or priors."
    )
    return [(DataWarning, message)]


def not_converged(
    run: em.EMResult[Any, Any],
    core: Core,
    names: Sequence[Any],
    order: Ints,
    no_bound: Callable[[Sequence[Any]], NoBound],
    cure: Callable[[], str],
    options: FitOptions,
) -> list[Complaint]:
    """Complain where a run ended otherwise than converged.

    ``no_bound(states)`` says why the likelihood has no bound there, and what else to do; ``cure()`` is a prior that
    bounds it.
    """
    if run.status == "converged":
        return []
    suspects = nearly_singular(core.flatten(run.params))
    singular = f"{' and '.join(suspects)} nearly singular" if suspects else "no covariance is singular"
    ends = run.status == "degenerate"
    bad = core.degenerate(run.params, run.statistics)[order] if ends else np.zeros(len(names), bool)
    found = no_bound([name for name, at_floor in zip(names, bad) if at_floor])
    prior = f", or a prior that keeps variances away from zero: {cure()}" if found.prior_helps else ""
    if ends:
        return [(ConvergenceWarning, f"{found.why or f'{UNBOUNDED} ({singular})'}. {found.remedy}{prior}.")]
    climbing = f" A climb may not end: {found.why}. {found.remedy}{prior}." if found.why and found.by_structure else ""
    if run.status == "max_iter" and options.tol > 0.0:
        return [(ConvergenceWarning, _stopped(run, options) + climbing)]
    if run.status == "decreased":
        message = f"the objective fell by more than round-off ({singular}); the best parameters are kept."
        helps = f" Where a variance runs to zero, a prior on it helps: {cure()}."
        return [(ConvergenceWarning, message + (climbing or helps))]
    return []


def _stopped(run: em.EMResult[Any, Any], options: FitOptions) -> str:
    """Say how far a run came, and what takes it on: more steps, or, where it had some left, something else."""
    recent = [step.objective for step in run.trace[-RECENT - 1 :]]
    gained = f" (the last {len(recent) - 1} gained {recent[-1] - recent[0]:.2g} nats)" if len(recent) > 1 else ""
    said = f"stopped after {run.n_steps} E-steps before it converged{gained}"
    if run.n_steps >= options.max_iter:
        return f"{said}: raise max_iter, or loosen tol={options.tol:g}."
    return (
        f"{said}: the score is still steep, but no step along it led higher, and more of them will not. Go on from "
        "there, as in fit(y, start=model.params_), bring columns to like scales, or try more starts by n_starts=."
    )


def found_once(runs: Sequence[em.EMResult[Any, Any]], chosen: em.EMResult[Any, Any]) -> list[Complaint]:
    """Complain where the best optimum was found by one start only, while others converged to lower ones.

    Then there may well be a higher one. A start that was left after its short run for being on the path of the best
    one counts as having found it.
    """
    lower = [run for run in runs if run.status == "converged" and run.objective < chosen.objective - em.SAME_OPTIMUM]
    if chosen.status != "converged" or em.found_by(runs) > 1 or len(lower) < ENOUGH_LOWER:
        return []
    second = max(run.objective for run in lower)
    message = (
        f"the best optimum was found by one of {len(runs)} starts only, {len(lower)} others converged to lower ones "
        f"(the next {chosen.objective - second:.2g} nats below): there may be a higher one. Raise n_starts="
        f"{len(runs)}, see starts_, or use fewer states."
    )
    return [(LocalOptimumWarning, message)]
