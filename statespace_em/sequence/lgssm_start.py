"""Where EM for the linear-Gaussian model starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.patterns import Pattern, components
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.lgssm_diffuse import beginning
from statespace_em.sequence.lgssm_loading import loaded
from statespace_em.sequence.lgssm_params import LGSSMParams, effects_of, positions

SHARES = ((0.3, 0.3), (0.001, 0.5), (1.0, 0.01))  # of the variance of steps of y, given to the state and to the noise
ROUND_OFF = 1e-12  # share of the largest eigenvalue that the smallest of a singular matrix may have
CALM = 0.98  # spectral radius up to which dynamics do not explode
STEADY = 1.0 - 1e-6  # and up to which those are taken that the data suggest
ENOUGH = 100_000  # rows of which the windows of a guess are made: they take many times the memory of y
HORIZON = 10  # rows over which a disturbance of the state is followed


def interpolated(y: Floats, starts: Ints) -> Floats:
    """Bridge missing entries column by column, by straight lines within a sequence, means where it has no value."""
    whole = np.array(y)
    for begin, end in pairwise(starts):
        part = whole[begin:end]
        for d in range(y.shape[1]):
            seen = ~np.isnan(part[:, d])
            if not seen.any():
                part[:, d] = np.nanmean(y[:, d])
            elif not seen.all():
                part[:, d] = np.interp(np.arange(end - begin), np.flatnonzero(seen), part[seen, d])
    return whole


def _windows(y: Floats, starts: Ints, length: int) -> tuple[Floats, Bools]:
    """Rows of ``length`` successive samples side by side (the last is repeated at an end), and where a row follows."""
    ends = np.repeat(starts[1:], np.diff(starts))
    index = np.minimum(np.arange(len(y))[:, None] + np.arange(length), ends[:, None] - 1)
    follows = np.arange(len(y)) + 1 < ends
    return y[index].reshape(len(y), -1), follows


def guessed_params(
    batch: Batch, n_states: int, *, extra: int, offset: bool, given: Mapping[str, Floats], most: float = 1.0
) -> LGSSMParams:
    """Subspace guess (Van Overschee & De Moor 1996, simplified): states are the principal scores of windows.

    Where ``observation`` is given, states are what it sees of y, so that all guesses are in its basis. ``extra``
    lengthens the windows, ``offset`` takes the mean of y for an offset; ``most`` bounds the spectral radius of the
    dynamics. The first `ENOUGH` rows tell.
    """
    batch = beginning(batch, ENOUGH)
    y = interpolated(batch.y, batch.starts)
    size = y.shape[1]
    middle = y.mean(0) if offset else np.zeros(size)
    scale = np.where(y.std(0) > 0.0, y.std(0), 1.0)
    length = -(-n_states // size) + 1 + extra
    windows, follows = _windows((y - middle) / scale, batch.starts, length)
    *_, right = np.linalg.svd(windows[:20_000], full_matrices=False)
    right = right[:n_states]
    if len(right) < n_states:  # fewer rows than states: the rest start as noise that nothing loads on
        right = np.vstack([right, np.eye(windows.shape[1])[: n_states - len(right)]])
    observation = scale[:, None] * right[:, :size].T
    states = windows @ right.T
    hidden = "transition" not in given and len(given.get("observation", right)) < n_states
    if "observation" in given:
        own, observation = observation, given["observation"]
        states = states @ seen_by(observation, own).T if hidden else (y - middle) @ np.linalg.pinv(observation).T
    before, after = states[:-1][follows[:-1]], states[1:][follows[:-1]]
    transition = np.linalg.lstsq(before, after, rcond=None)[0].T if len(before) > n_states else 0.9 * np.eye(n_states)
    transition = transition / max(np.abs(np.linalg.eigvals(transition)).max() / most, 1.0)
    transition = given.get("transition", transition)
    noise = after - before @ transition.T if len(before) > n_states else states
    error = y - middle - states @ observation.T
    spread = states.T @ states / len(states)
    first = states[batch.starts[:-1]].mean(0)
    jitter = 0.05 * np.diag(np.diag(spread)) + 1e-3 * np.trace(spread) / n_states * np.eye(n_states)
    return LGSSMParams(
        transition,
        noise.T @ noise / len(noise) + 0.1 * jitter,
        observation,
        error.T @ error / len(error) + 0.05 * np.diag(scale**2),
        first,
        spread + jitter,
        np.zeros(n_states),
        middle,
    )


def seen_by(observation: Floats, own: Floats) -> Floats:
    """Change of basis (n, n) of states that ``own`` sees to some that ``observation`` (D, n) sees alike, D < n."""
    D = len(observation)
    hidden, rest = (np.linalg.svd(matrix)[2][D:] for matrix in (observation, own))
    shown = np.linalg.pinv(observation) @ own
    return np.asarray(shown + np.linalg.norm(shown, 2) * hidden.T @ rest)


def without_inputs(
    batch: Batch,
    n_states: int,
    patterns: Mapping[str, Pattern],
    rows: Mapping[str, RowPattern],
    given: Mapping[str, Floats],
    present: Sequence[str],
) -> tuple[Batch, dict[str, Floats]]:
    """Take out of y what a regression on the inputs explains; returns the rest and the first effects of inputs.

    ``patterns`` are those of a typical row where there are others for all ``rows``.
    """
    if batch.inputs is None:
        return batch, {}
    U, found = batch.inputs, {}
    if "state_input" in present:
        found["state_input"] = np.zeros((n_states, U.shape[1]))
    if "observation_input" in present:
        columns = [~np.isnan(column) for column in batch.y.T]
        regressors = np.hstack([U, np.ones((len(U), 1))])
        slopes = [np.linalg.lstsq(regressors[own], y[own], rcond=None)[0][:-1] for own, y in zip(columns, batch.y.T)]
        found["observation_input"] = np.array(slopes)
    for name, value in found.items():
        if name in patterns:
            found[name] = rows.get(name, patterns[name]).build(patterns[name].read(value))
    found |= {name: given[name] for name in found if name in given}
    if "observation_input" in found:
        batch = batch._replace(y=batch.y - effects_of(found["observation_input"], U, positions(batch)))
    return batch, found


def structured_guess(
    batch: Batch,
    n_states: int,
    patterns: Mapping[str, Pattern],
    varying: Mapping[str, Floats],
    given: Mapping[str, Floats],
    which: int,
    *,
    offset: bool,
    most: float,
    guesses: Mapping[str, Sequence[float]],
    loadings: Mapping[str, Floats],
    rng: np.random.Generator,
    draws: bool,
) -> LGSSMParams:
    """Guess under patterns: the subspace guess as close as the patterns come, noises from the steps of y.

    Guesses differ in how the variance of the steps is shared between states and measurements; after the first few it
    is spread at random, and with ``draws`` so are dynamics and the signs of loadings that have names.
    """
    fixed = {
        name: loaded(pattern.constant, loadings.get(name)) for name, pattern in patterns.items() if not pattern.names
    }
    fixed |= {name: value.mean(0) for name, value in varying.items()}
    usable = {name: value for name, value in {**fixed, **given}.items() if name in ("observation", "transition")}
    free = offset and "observation_offset" not in fixed
    found = guessed_params(batch, n_states, extra=which, offset=free, given=usable, most=most)
    if "observation" in patterns and "observation" not in usable:
        found = _in_units(found, patterns["observation"], patterns.get("transition"), batch.y)
    guess = found._asdict()
    for name in guess:
        if name in patterns and not name.endswith("cov"):
            values = patterns[name].read(guess[name])
            guess[name] = patterns[name].build(_suggested(patterns[name], values, guesses, which))
    if which >= len(SHARES) and draws:
        guess |= _drawn(guess, patterns, guesses, rng)
    guess |= usable
    suggested = "transition" in patterns and not set(guesses).isdisjoint(patterns["transition"].names)
    guess["transition"] = _calmed(guess["transition"], patterns.get("transition"), STEADY if suggested else CALM)
    state_share, noise_share = SHARES[which % len(SHARES)]
    step = _step_variance(batch)
    seen = varying.get("observation")  # a regressor may be 0 on average
    view = guess["observation"] if seen is None else np.sqrt((seen**2).mean(0))
    scales = {
        "process_cov": state_share / _impact(guess["transition"], view, loadings.get("process_cov"), step),
        "measurement_cov": noise_share * _shared(step, loadings.get("measurement_cov")),
    }
    for name, scale in scales.items():
        if which >= len(SHARES):
            scale = scale * np.exp(rng.normal(size=scale.shape))
        inner = _spread(patterns[name], scale) if name in patterns else _covariance(scale, which, rng)
        if name in patterns and not set(guesses).isdisjoint(patterns[name].names):
            inner = patterns[name].build(_suggested(patterns[name], patterns[name].read(inner), guesses, which))
        guess[name] = loaded(inner, loadings.get(name))
    if "initial_cov" in patterns:
        guess["initial_cov"] = _spread(patterns["initial_cov"], np.diag(guess["initial_cov"]))
    return LGSSMParams(**{**guess, **fixed, **varying})


def _drawn(
    guess: Mapping[str, Floats],
    patterns: Mapping[str, Pattern],
    guesses: Mapping[str, Sequence[float]],
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """Dynamics with eigenvalues at random, and loadings of the other sign, where nothing else is suggested."""
    found, A = {}, guess["transition"]
    dynamics, view = (patterns.get(name) for name in ("transition", "observation"))
    if dynamics is None:
        free = rng.normal(size=A.shape)
        found["transition"] = rng.uniform(0.2, CALM) / np.abs(np.linalg.eigvals(free)).max() * free
    elif dynamics.names and set(guesses).isdisjoint(dynamics.names):
        found["transition"] = dynamics.build(rng.normal(size=len(dynamics.names)))
    if view is not None and view.names:
        values = view.read(guess["observation"])
        found["observation"] = view.build(rng.choice([-1.0, 1.0], len(values)) * values)
    return found


def _in_units(guess: LGSSMParams, view: Pattern, dynamics: Pattern | None, y: Floats) -> LGSSMParams:
    """Guess with states in the units of y where numbers in ``observation`` or, from there on, ``transition`` say so."""
    scale = np.nanstd(y, axis=0)
    seen = view.constant != 0.0
    units = np.sqrt((seen * np.where(scale > 0.0, scale, 1.0)[:, None] ** 2).sum(0))
    units[units > 0.0] /= np.sqrt((view.constant**2).sum(0))[units > 0.0]
    linked = np.zeros((len(units),) * 2, bool) if dynamics is None else dynamics.constant != 0.0
    for _ in units:
        near = (linked | linked.T) * units
        units = np.where(units > 0.0, units, near.max(1))
    units[units == 0.0] = 1.0
    return guess._replace(
        transition=guess.transition * units[:, None] / units,
        observation=guess.observation / units,
        initial_mean=guess.initial_mean * units,
        initial_cov=guess.initial_cov * np.outer(units, units),
    )


def _suggested(pattern: Pattern, values: Floats, guesses: Mapping[str, Sequence[float]], which: int) -> Floats:
    """Free values with the guesses of a start in their place."""
    suggested = [guesses[word][which % len(guesses[word])] if word in guesses else None for word in pattern.names]
    return np.array([value if own is None else own for value, own in zip(values, suggested)])


def _step_variance(batch: Batch) -> Floats:
    """Variance of the steps of each feature (D,)."""
    y = interpolated(batch.y, batch.starts)
    inner = np.ones(len(y) - 1, bool)
    inner[batch.starts[1:-1] - 1] = False
    steps = np.diff(y, axis=0)[inner]
    found = steps.var(0) if len(steps) > 1 else y.var(0)
    return np.where(found > 0.0, found, np.where(y.var(0) > 0.0, y.var(0), 1.0))


def _covariance(variances: Floats, which: int, rng: np.random.Generator) -> Floats:
    """Diagonal at first, then with correlations at random (Wishart)."""
    if which < len(SHARES):
        return np.diag(variances)
    root = np.sqrt(variances)[:, None] * rng.normal(size=(len(variances), len(variances) + 2))
    return np.asarray(root @ root.T / root.shape[1])


def _shared(variance: Floats, loading: Floats | None) -> Floats:
    """Variance of disturbances (r,) that make up about these variances (D,) of features."""
    return variance if loading is None else np.asarray(np.linalg.pinv(loading) ** 2 @ variance)


def _impact(transition: Floats, observation: Floats, loading: Floats | None, step: Floats) -> Floats:
    """Mean square that each disturbance of size 1 (r,) adds to the next rows of y, in units of ``step``."""
    enters = np.eye(len(transition)) if loading is None else loading
    effect, total = observation, np.zeros(enters.shape[1])
    for _ in range(HORIZON):
        total += ((effect @ enters) ** 2 / step[:, None]).sum(0) / (HORIZON * len(step))
        effect = effect @ transition
    known = total[total > 0.0]
    return np.where(total > 0.0, total, known.mean() if len(known) else 1.0)


def _calmed(transition: Floats, pattern: Pattern | None, most: float = CALM) -> Floats:
    """Shrink free values until the dynamics grow by no more than ``most`` a row, apart from what is fixed to do so."""
    if pattern is None or not pattern.names:
        return transition
    values = pattern.read(transition)
    parts = [
        part for part in components(pattern.linked | pattern.linked.T) if pattern.touched[np.ix_(part, part)].any()
    ]
    calm = [max(most, _radius(pattern.constant, part) + 1e-6) for part in parts]  # a trend of its own must not count
    for _ in range(400):  # a guess in another basis may be far off
        if all(_radius(pattern.build(values), part) < own for part, own in zip(parts, calm)):
            break
        values = 0.9 * values
    return pattern.build(values)


def _radius(matrix: Floats, part: Ints) -> float:
    """Spectral radius of the dynamics of some states."""
    return float(np.abs(np.linalg.eigvals(matrix[np.ix_(part, part)])).max())


def _spread(pattern: Pattern, variances: Floats) -> Floats:
    """Covariance of the pattern close to a diagonal one."""
    if not pattern.names:
        return pattern.constant
    singular = None  # what a known matrix without full rank scales never becomes regular
    for factor in 2.0 ** np.arange(20):
        cov = pattern.build(np.maximum(pattern.read(factor * np.diag(variances)), 0.0 if factor > 1.0 else -np.inf))
        used = pattern.touched.any(0) | (np.diag(cov) > 0.0)
        values = np.linalg.eigvalsh(cov[np.ix_(used, used)])
        if values[0] > ROUND_OFF * values[-1]:
            return cov
        if singular is None and values[0] > -ROUND_OFF * values[-1]:
            singular = cov
    return cov if singular is None else singular
