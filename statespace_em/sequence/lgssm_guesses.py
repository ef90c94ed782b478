"""Where EM for the linear-Gaussian model starts, one guess after the other.

The first come from the principal directions of windows of y, each with a longer window. Of several states that are free
as a whole most of the next are those that the spectrum of one column suggests, the best by their likelihood first, or,
of several columns, any modes at random. One state also starts along curves. Where variances alone are free the
likelihood tells how they are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import UNRESOLVED, ParameterError
from statespace_em.patterns import Pattern
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.flow import Flow
from statespace_em.sequence.lgssm_curves import Curve, curves
from statespace_em.sequence.lgssm_diffuse import beginning
from statespace_em.sequence.lgssm_level import Level, level_of
from statespace_em.sequence.lgssm_loading import typical
from statespace_em.sequence.lgssm_params import INPUTS, LGSSMParams
from statespace_em.sequence.lgssm_random_start import random_start
from statespace_em.sequence.lgssm_row_start import guessed_rows, typical_value
from statespace_em.sequence.lgssm_start import CALM, SHARES, guessed_params, structured_guess, without_inputs
from statespace_em.sequence.spectral_start import in_place_of, in_turn, livelier, spectral_starts
from statespace_em.sequence.variance_shares import likely_shares, shared_variances

FEW = 2_000  # rows on which starts are compared
BEST = 13  # starts of a spectrum, after which come others near them
ALONG = {2: (0, 1e-4), 3: (0, 1e-6), 4: (1, 1e-4)}  # starts of one state: which curve, and share of the steps of y
DRAWN = 4  # every so many starts one is a guess from windows or at random, where a spectrum suggests the others


class Free(NamedTuple):
    """What is free in a model, in the terms of `statespace_em.sequence.lgssm_core.LGSSMCore`."""

    n_states: int
    frozen: tuple[str, ...]
    patterns: Mapping[str, Pattern | RowPattern]
    varying: Mapping[str, Floats]
    loadings: Mapping[str, Floats]
    guesses: Mapping[str, Sequence[float]]
    flow: Flow | None
    stationary: bool

    @property
    def rows(self) -> dict[str, RowPattern]:
        """Patterns of what changes over rows."""
        return {name: own for name, own in self.patterns.items() if isinstance(own, RowPattern)}

    @property
    def typical(self) -> dict[str, Pattern]:
        """Patterns of a typical row."""
        return {name: own.typical() if isinstance(own, RowPattern) else own for name, own in self.patterns.items()}


class _Guesser:
    """Guesses of one model from one batch of data, from windows of y: all that is free is what they suggest."""

    def __init__(self, free: Free, batch: Batch, rng: np.random.Generator, given: Mapping[str, Floats]) -> None:
        self.free, self.rng, self.given = free, rng, given
        self.offset = "observation_offset" not in free.frozen
        self.patterns = free.typical
        if free.flow is not None:  # guess the noise that the states gather, of which the pattern is what drives it
            self.patterns["process_cov"] = free.flow.process_cov_pattern()
        known = {name: value for name, value in {**free.varying, **given}.items() if name in INPUTS}
        present = [name for name in INPUTS if name not in free.frozen or name in known]
        batch, self.effects = without_inputs(batch, free.n_states, self.patterns, free.rows, known, present)
        self.level = _level(free, batch, given)
        self.batch = batch if self.level is None else self.level.out_of(batch)
        self.centred = self.offset or self.level is not None
        self.held = {*free.frozen, *free.varying, *free.loadings, *free.rows, *given}

    def guess(self, i: int) -> LGSSMParams:
        """Guess number ``i``, each from longer windows."""
        free, most = self.free, CALM if self.free.stationary or self.level is not None else 1.0
        if not (free.patterns or free.varying):
            return guessed_params(self.batch, free.n_states, extra=i, offset=self.offset, given=self.given, most=most)
        loadings = free.loadings
        about = {
            name: typical_value(own, self.given[name], loadings.get(name))
            for name, own in free.rows.items()
            if name in self.given
        }
        return structured_guess(
            self.batch, free.n_states, self.patterns, free.varying, {**self.given, **about}, i, offset=self.offset,
            most=most, guesses=free.guesses, rng=self.rng, draws=free.flow is None,
            loadings={name: typical(loading) for name, loading in loadings.items()},
        )  # fmt: skip

    def values(self, guess: LGSSMParams) -> dict[str, Any]:
        """Values by name: of y with its level and inputs, and in the terms of the patterns."""
        free = self.free
        if not (free.patterns or free.varying) and "initial_cov" in free.frozen:
            guess = guess._replace(initial_cov=guess.process_cov)
        guess = guess if self.level is None else self.level.told(guess)
        guess = guess._replace(**guessed_rows(free.rows, guess, free.loadings))
        if free.flow is not None:
            driven = free.patterns["process_cov"]
            cov = self.patterns["process_cov"].read(guess.process_cov)[: len(driven.names)]
            guess = guess._replace(process_cov=driven.build(cov))
        return guess._asdict() | self.effects | dict(self.given)


def guesses(
    free: Free,
    batch: Batch,
    n_starts: int,
    rng: np.random.Generator,
    given: Mapping[str, Floats],
    objective: Callable[[Mapping[str, Any]], float],
) -> Iterator[dict[str, Any]]:
    """Values by name to start at, which are compared by their ``objective``.

    An initial covariance that is held is that of one step: a wide one would be overcome by a change of basis
    in which it is small, a vanishing one makes the likelihood unbounded where the measurement noise vanishes.
    """
    guesser, height = _Guesser(free, batch, rng, given), partial(_height, objective)
    size = free.n_states, batch.y.shape[1]
    noises = shared_variances(free.patterns, {*free.frozen, *free.varying, *given}, free.loadings, size)
    if noises:
        few, values = beginning(guesser.batch, FEW), guesser.values(guesser.guess(0))
        diffuse = (len(few.starts) - 1) * int(np.isinf(values["initial_cov"]).any(-1).sum())
        n_entries = int((~np.isnan(few.y)).sum()) - diffuse
        yield from likely_shares(noises, values, free.loadings, n_starts, height, n_entries)
        return
    along = _curves(guesser)
    any_dynamics = n_starts > len(SHARES) and _is_any(guesser, "transition", "process_cov")
    spectral = _spectral(guesser, height) if any_dynamics and size[1] == 1 else []
    drawn = any_dynamics and size[1] > 1 and _is_any(guesser, "observation", "measurement_cov")
    for i in range(n_starts):
        guess = guesser.guess(i)
        curve, share = ALONG.get(i, (0, 0.0))
        if share and curve < len(along):
            guess = _along(along[curve], guess, guesser, share)
        elif spectral and i >= len(SHARES) and (i % DRAWN if free.stationary else i % 2):
            guess = spectral.pop(0)
        elif drawn and i > len(SHARES) and i % 2:
            guess = random_start(guess, guesser.batch, rng)
        yield guesser.values(guess)


def _spectral(guesser: _Guesser, height: Callable[[Mapping[str, Any]], float]) -> list[LGSSMParams]:
    """Guesses with the dynamics of a spectrum, and its noise where that is free."""
    free, guess, noise = guesser.free, guesser.guess(0), guesser.free.patterns.get("measurement_cov")
    bound = {*free.patterns, *free.frozen, *guesser.given}

    def explained(start: LGSSMParams) -> LGSSMParams:
        found = in_place_of(guess, start, bound)
        if isinstance(noise, Pattern) and noise.names and "measurement_cov" not in free.loadings:
            return found._replace(measurement_cov=noise.build(noise.read(start.measurement_cov)))
        return found

    found = spectral_starts(guesser.batch, free.n_states, np.random.default_rng(0), centred=guesser.centred)
    if free.stationary:  # else one row can be explained exactly, and the likelihood ranks first what comes near that
        found = in_turn(sorted(found, key=lambda start: -height(guesser.values(explained(start)))))
    again = [livelier(start) for start in found[:BEST]]
    return [explained(start) for start in (*found[:BEST], *again, *found[BEST:])]


def _along(curve: Curve, guess: LGSSMParams, guesser: _Guesser, share: float) -> LGSSMParams:
    """Guess of one state that follows a curve, but for a share of the steps of y."""

    def written(name: str, value: Floats) -> Floats:
        pattern = patterns.get(name)
        value = value if pattern is None else pattern.build(pattern.read(value))
        return getattr(guess, name) if name in guesser.held else value

    y, patterns = guesser.batch.y, guesser.free.typical
    view, size = guess.observation, np.linalg.norm(guess.observation) / np.linalg.norm(curve.amplitude)
    view = written("observation", curve.amplitude[:, None] * size)
    steps = np.nanmean(np.square(np.diff(y, axis=0)), axis=0)
    steps = np.where(steps > 0.0, steps, np.nanvar(y, axis=0))
    variance = share * float(np.max(np.square(view[:, 0]) * steps)) / np.square(view).sum() ** 2
    told = {
        "transition": np.array([[curve.decay]]),
        "process_cov": np.array([[variance]]),
        "measurement_cov": np.diag(curve.noise),
        "initial_mean": np.linalg.pinv(view) @ curve.amplitude,
        "observation_offset": curve.middle,
    }
    return guess._replace(observation=view, **{name: written(name, value) for name, value in told.items()})


def _curves(guesser: _Guesser) -> list[Curve]:
    """Curves that one state may follow; none where its dynamics or disturbances are bound, or have to settle.

    Nor where the first value of one sequence is a constant, or may become one: without measurement noise that explains
    the first row exactly, and a curve would stand for a likelihood without bound.
    """
    free, batch, held = guesser.free, beginning(guesser.batch, FEW), guesser.held
    own, first, spread = (free.typical.get(name) for name in ("transition", "initial_mean", "initial_cov"))
    bound = free.n_states > 1 or free.flow is not None or free.stationary or (own is not None and not own.names)
    shrinks = "initial_cov" not in held and (spread is None or bool(spread.names)) and len(batch.starts) == 2
    constant = first is not None and bool(np.isnan(first.constant).any())
    if bound or shrinks or constant or {"transition", "process_cov"} & held:
        return []
    if not np.isfinite(np.diff(batch.y, axis=0)).any(0).all() or not np.nanstd(batch.y, axis=0).all():
        return []
    return curves(batch.y, batch.starts, centred=guesser.centred)


def _height(objective: Callable[[Mapping[str, Any]], float], values: Mapping[str, Any]) -> float:
    """Objective of values, to be compared with others in all units of y; -inf where there is none."""
    try:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            found = objective(values)
    except (*UNRESOLVED, ParameterError):
        return -np.inf
    return round(found, 6) if np.isfinite(found) else -np.inf


def _level(free: Free, batch: Batch, given: Mapping[str, Floats]) -> Level | None:
    """Level that an offset of the states takes up, where y is seen alike in every row."""
    if free.flow is not None or "observation_offset" in free.varying or "observation" in free.rows:
        return None
    return level_of(batch, free.n_states, free.typical, free.frozen, given)


def _is_any(guesser: _Guesser, *names: str) -> bool:
    """Whether parameters of several states are free as a whole, where y is seen alike in every row."""
    free = guesser.free
    alone = free.flow is None and "observation" not in {*free.rows, *free.varying} and free.n_states > 1
    return alone and not {*free.patterns, *guesser.held} & {*names}
