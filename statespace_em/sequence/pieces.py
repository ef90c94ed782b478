"""Components of structural models in continuous time, as pieces of a flow.

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
from statespace_em.sequence.flow import Piece
from statespace_em.sequence.motion import Motion, Steps, chain, over

IN_ROWS = "what moves from row to row only cannot be put on uneven times: write the model without unit= and motions"


def _piece(kind: str, states: list[str], names: list[str], at: Sequence[int], **more: Any) -> Piece:
    """Piece whose first state is seen, and each of whose sources enters one state."""
    n = len(states)
    drives = np.zeros((len(names), n))
    drives[np.arange(len(names)), list(at)] = 1.0
    return Piece(kind, states, np.eye(1, n), ["diffuse"] * n, names, drives, **more)


def level(label: str) -> Piece:
    """Random walk."""
    return _piece("local_level", ["level"], [f"{label}level_var"], [0], over=_walk(1, 1), ranks=(1,))


def trend(label: str) -> Piece:
    """Level and slope, each pushed by noise of its own (Harvey 1989, sec. 9.2)."""

    def steps(gaps: Floats) -> Steps:
        flow, pushed = chain(2, gaps)
        walk = np.zeros_like(pushed)
        walk[:, 0, 0] = gaps
        return Steps(flow, np.stack([walk, pushed]))

    names = [f"{label}level_var", f"{label}slope_var"]
    return _piece("local_trend", ["level", "slope"], names, [0, 1], over=steps, ranks=(1, 2))


def smooth_trend(label: str) -> Piece:
    """Integrated random walk."""

    def steps(gaps: Floats) -> Steps:
        flow, pushed = chain(2, gaps)
        return Steps(flow, pushed[None])

    return _piece("smooth_trend", ["level", "slope"], [f"{label}slope_var"], [1], over=steps, ranks=(2,))


def season(label: str, *, period: float, kind: str, harmonics: int | None = None) -> Piece:
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

    view = np.tile([1.0, 0.0], number)[None]
    return Piece(
        "seasonal", names, view, ["diffuse"] * n, [f"{label}seasonal_var"], np.ones((1, n)), over=steps, ranks=(n,)
    )


def cycle(label: str, *, period: float | None, base: float) -> Piece:
    """Damped rotation; the search begins at periods of the rows, or at that given."""
    a, b = f"{label}cycle_cos", f"{label}cycle_sin"
    guesses = swings_about(20.0 if period is None else max(period / base, 2.5), a, b)
    return Piece(
        "cycle", ["cycle", "cycle*"], np.eye(1, 2), ["stationary"] * 2, [f"{label}cycle_var"], np.ones((1, 2)),
        root=(a, b), guesses=guesses, stem=f"{label}cycle_",
    )  # fmt: skip


def autoregression(label: str, *, p: int, q: int, d: int, seasonal: Any = None) -> Piece:
    """Ornstein-Uhlenbeck process: an autoregression of order 1 over any step."""
    if (p, q, d) != (1, 0, 0) or seasonal is not None:
        raise ParameterError(
            f"arima({p}, {d}, {q}{', seasonal' if seasonal is not None else ''}): {IN_ROWS}. In continuous time there "
            "are ar(1), whose correlation dies away, and cycle(), which swings as it does."
        )
    name = f"{label}ar1"
    return Piece(
        "arma", ["arma -0"], np.eye(1), ["stationary"], [f"{label}arma_var"], np.ones((1, 1)), root=(name,),
        guesses={name: [0.5, 0.9, 0.2]}, stem=f"{label}ar_",
    )  # fmt: skip


def regression(label: str, *, X: Any, names: Sequence[str], drifting: bool, start: str, times: Any, rows: Any) -> Piece:
    """Coefficients of known columns: fixed, or random walks; ``rows`` (T,) of X belong to the entries."""
    n, known = len(names), np.asarray(X, dtype=float)
    sources = [f"{label}{name}_var" for name in names] if drifting else []
    view = known if rows is None else known[np.minimum(rows, len(known) - 1)]
    return Piece(
        "regression", list(names), view[:, None, :], [start] * n, sources, np.eye(len(sources), n),
        over=_walk(n, len(sources)), ranks=(1,) * len(sources),
    )  # fmt: skip


def constant(label: str, *, start: str) -> Piece:
    """A level that never moves."""
    return _piece("constant", ["constant"], [], [], over=_walk(1, 0))._replace(initial=[start])


def _walk(n: int, driven: int) -> Callable[[Floats], Steps]:
    """States that stay where they are; the first are random walks with a noise of their own."""

    def steps(gaps: Floats) -> Steps:
        noises = np.zeros((driven, len(gaps), n, n))
        for j in range(driven):
            noises[j, :, j, j] = gaps
        return Steps(np.broadcast_to(np.eye(n), (len(gaps), n, n)), noises)

    return steps


def moving(moves: Motion, view: Floats, initial: str, known: Floats | None, label: str = "") -> Piece:
    """A target that white noise pushes; ``view`` (D, n) is what sensors measure."""
    axes = len(moves.view)
    drives = np.array([np.diag(push) for push in moves.pushes])
    order = len(moves.states) // axes
    return Piece(
        "motion", moves.states, view, [initial] * len(moves.states), [f"{label}{name}" for name in moves.densities],
        drives, over=lambda gaps: over(moves, gaps), ranks=tuple(int(order * own.sum()) for own in drives), known=known,
    )  # fmt: skip


BUILDERS: Mapping[str, Callable[..., Piece]] = {
    "local_level": level, "local_trend": trend, "smooth_trend": smooth_trend, "seasonal": season, "cycle": cycle,
    "arma": autoregression, "regression": regression, "constant": constant,
}  # fmt: skip


def called(piece: Piece, suffix: str) -> Piece:
    """The piece with a suffix on its states and on the names of its values."""
    if not suffix:
        return piece
    return piece._replace(
        states=[f"{name}{suffix}" for name in piece.states],
        names=[f"{name}{suffix}" for name in piece.names],
        root=tuple(f"{name}{suffix}" for name in piece.root),
        guesses={f"{name}{suffix}": values for name, values in piece.guesses.items()},
        suffix=suffix,
    )


def seen_in(piece: Piece, columns: Sequence[int], size: int) -> Piece:
    """The piece as some of ``size`` columns see it, with the weights that one has."""
    view = np.zeros((*piece.view.shape[:-2], size, len(piece.states)))
    view[..., list(columns), :] = piece.view
    return piece._replace(view=view)


def check_different(pieces: Sequence[Piece]) -> None:
    """Refuse names that two pieces share."""
    names = [name for piece in pieces for name in (*piece.names, *piece.root)]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ParameterError(f"two components have values called {listed(twice)}: rename columns or axes.")
