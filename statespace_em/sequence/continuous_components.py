"""Components of structural models in continuous time, as components of a flow.

What each does over a gap h: the level of a random walk gains the variance ``h * level_var``; a trend moves by its
slope, and the noise that the slope gathers enters the level as h^3 / 3 (the integrated Wiener process); a season turns
by its phase in the time coordinate and gains ``h * seasonal_var``; an autoregression of order 1 and a damped cycle are
the exact discretisation of the Ornstein-Uhlenbeck process and of its rotation. All variances are per unit of time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from statespace_em._typing import Floats
from statespace_em.errors import ParameterError
from statespace_em.labels import listed
from statespace_em.sequence.components import swings_about
from statespace_em.sequence.flow import ContinuousComponent
from statespace_em.sequence.motion import Motion, Steps, chain, over

IN_ROWS = "what moves from row to row only cannot be put on uneven times: write the model without unit= and motions"


def _seen_first(kind: str, states: list[str], names: list[str], at: Sequence[int], **more: Any) -> ContinuousComponent:
    """ContinuousComponent whose first state is seen, and each of whose sources enters one state."""
    n = len(states)
    drives = np.zeros((len(names), n))
    drives[np.arange(len(names)), list(at)] = 1.0
    return ContinuousComponent(kind, states, np.eye(1, n), ["diffuse"] * n, names, drives, **more)


def level(label: str) -> ContinuousComponent:
    """Random walk."""
    return _seen_first("local_level", ["level"], [f"{label}level_var"], [0], over=_walk(1, 1), ranks=(1,))


def trend(label: str) -> ContinuousComponent:
    """Level and slope, each pushed by noise of its own (Harvey 1989, sec. 9.2)."""

    def steps(gaps: Floats) -> Steps:
        flow, pushed = chain(2, gaps)
        walk = np.zeros_like(pushed)
        walk[:, 0, 0] = gaps
        return Steps(flow, np.stack([walk, pushed]))

    names = [f"{label}level_var", f"{label}slope_var"]
    return _seen_first("local_trend", ["level", "slope"], names, [0, 1], over=steps, ranks=(1, 2))


def smooth_trend(label: str) -> ContinuousComponent:
    """Integrated random walk."""

    def steps(gaps: Floats) -> Steps:
        flow, pushed = chain(2, gaps)
        return Steps(flow, pushed[None])

    return _seen_first("smooth_trend", ["level", "slope"], [f"{label}slope_var"], [1], over=steps, ranks=(2,))


def season(label: str, *, period: float, kind: str, harmonics: int | None = None) -> ContinuousComponent:
    """Harmonics that turn with the time coordinate and change slowly."""
    if kind == "dummy":
        raise ParameterError(f'seasonal(kind="dummy"): {IN_ROWS}, or take kind="trigonometric".')
    number = int(np.ceil(period / 2.0)) - 1 if harmonics is None else harmonics
    if number < 1:
        raise ParameterError(
            f"seasonal({period:g}) has no harmonic slower than two units of time: say harmonics=, how many there are."
        )
    names = [f"harmonic {j + 1}{star}" for j in range(number) for star in ("", "*")]
    n = len(names)

    def steps(gaps: Floats) -> Steps:
        turn = np.zeros((len(gaps), n, n))
        for j in range(number):
            angle = 2.0 * np.pi * (j + 1) * gaps / period
            turn[:, 2 * j, 2 * j] = turn[:, 2 * j + 1, 2 * j + 1] = np.cos(angle)
            turn[:, 2 * j, 2 * j + 1] = np.sin(angle)
            turn[:, 2 * j + 1, 2 * j] = -np.sin(angle)
        return Steps(turn, (gaps[:, None, None] * np.eye(n))[None])

    observation = np.tile([1.0, 0.0], number)[None]
    return ContinuousComponent(
        "seasonal", names, observation, ["diffuse"] * n, [f"{label}seasonal_var"], np.ones((1, n)), over=steps,
        ranks=(n,),
    )  # fmt: skip


def cycle(label: str, *, period: float | None, base: float) -> ContinuousComponent:
    """Damped rotation; the search begins at periods of the rows, or at that given."""
    a, b = f"{label}cycle_cos", f"{label}cycle_sin"
    guesses = swings_about(20.0 if period is None else max(period / base, 2.5), a, b)
    return ContinuousComponent(
        "cycle", ["cycle", "cycle*"], np.eye(1, 2), ["stationary"] * 2, [f"{label}cycle_var"], np.ones((1, 2)),
        root=(a, b), guesses=guesses, stem=f"{label}cycle_",
    )  # fmt: skip


def autoregression(label: str, *, p: int, q: int, d: int, seasonal: Any = None) -> ContinuousComponent:
    """Ornstein-Uhlenbeck process: an autoregression of order 1 over any step."""
    if (p, q, d) != (1, 0, 0) or seasonal is not None:
        raise ParameterError(
            f"arima({p}, {d}, {q}{', seasonal' if seasonal is not None else ''}): {IN_ROWS}. In continuous time there "
            "are ar(1), whose correlation dies away, and cycle(), which swings as it does."
        )
    name = f"{label}ar1"
    return ContinuousComponent(
        "arma", ["arma -0"], np.eye(1), ["stationary"], [f"{label}arma_var"], np.ones((1, 1)), root=(name,),
        guesses={name: [0.5, 0.9, 0.2]}, stem=f"{label}ar_",
    )  # fmt: skip


def regression(
    label: str, *, X: Any, names: Sequence[str], drifting: bool, start: str, times: Any, rows: Any
) -> ContinuousComponent:
    """Coefficients of known columns: fixed, or random walks; ``rows`` (T,) of X belong to the entries."""
    n, known = len(names), np.asarray(X, dtype=float)
    sources = [f"{label}{name}_var" for name in names] if drifting else []
    observation = known if rows is None else known[np.minimum(rows, len(known) - 1)]
    return ContinuousComponent(
        "regression", list(names), observation[:, None, :], [start] * n, sources, np.eye(len(sources), n),
        over=_walk(n, len(sources)), ranks=(1,) * len(sources),
    )  # fmt: skip


def constant(label: str, *, start: str) -> ContinuousComponent:
    """A level that never moves."""
    return _seen_first("constant", ["constant"], [], [], over=_walk(1, 0))._replace(initial=[start])


def _walk(n: int, driven: int) -> Callable[[Floats], Steps]:
    """States that stay where they are; the first are random walks with a noise of their own."""

    def steps(gaps: Floats) -> Steps:
        noises = np.zeros((driven, len(gaps), n, n))
        for j in range(driven):
            noises[j, :, j, j] = gaps
        return Steps(np.broadcast_to(np.eye(n), (len(gaps), n, n)), noises)

    return steps


def moving(moves: Motion, observation: Floats, initial: str, known: Floats | None) -> ContinuousComponent:
    """A target that white noise pushes; ``observation`` (D, n) is what sensors measure."""
    axes = len(moves.observation)
    drives = np.array([np.diag(push) for push in moves.pushes])
    order = len(moves.states) // axes
    return ContinuousComponent(
        "motion", moves.states, observation, [initial] * len(moves.states), moves.densities,
        drives, over=lambda gaps: over(moves, gaps), ranks=tuple(int(order * own.sum()) for own in drives), known=known,
    )  # fmt: skip


BUILDERS: Mapping[str, Callable[..., ContinuousComponent]] = {
    "local_level": level, "local_trend": trend, "smooth_trend": smooth_trend, "seasonal": season, "cycle": cycle,
    "arma": autoregression, "regression": regression, "constant": constant,
}  # fmt: skip


def called(component: ContinuousComponent, suffix: str) -> ContinuousComponent:
    """The component with a suffix on its states and on the names of its values."""
    if not suffix:
        return component
    return component._replace(
        states=[f"{name}{suffix}" for name in component.states],
        names=[f"{name}{suffix}" for name in component.names],
        root=tuple(f"{name}{suffix}" for name in component.root),
        guesses={f"{name}{suffix}": values for name, values in component.guesses.items()},
        suffix=suffix,
    )


def seen_in(component: ContinuousComponent, columns: Sequence[int], size: int) -> ContinuousComponent:
    """The component as some of ``size`` columns see it, with the weights that one has."""
    observation = np.zeros((*component.observation.shape[:-2], size, len(component.states)))
    observation[..., list(columns), :] = component.observation
    return component._replace(observation=observation)


def check_different(components: Sequence[ContinuousComponent]) -> None:
    """Refuse names that two components share."""
    names = [name for component in components for name in (*component.names, *component.root)]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ParameterError(f"two components have values called {listed(twice)}: rename columns or axes.")
