"""Components of structural models: a few states each, their dynamics, noise and observation written with names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.errors import ParameterError
from statespace_em.sequence.decays import Decay

Rows = list[list[Any]]  # numbers, names, and expressions linear in names
NOISY = ("local_level", "local_trend", "smooth_trend", "seasonal", "cycle")  # come with a measurement noise


class Component(NamedTuple):
    """A few states of a structural model."""

    states: list[str]
    transition: Rows
    process_cov: Rows
    observation: Floats  # (n,), or (T, n) where it is known for every row
    initial: list[str]  # a word a state
    guesses: Mapping[str, Sequence[float]] = {}  # first values of names in the transition, one a start
    decays: tuple[Decay, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether its states have disturbances."""
        return any(entry != 0.0 for row in self.process_cov for entry in row)


def _diagonal(entries: Sequence[Any]) -> Rows:
    return [[entry if i == j else 0.0 for j in range(len(entries))] for i, entry in enumerate(entries)]


def local_level(label: str) -> Component:
    """Random walk."""
    return Component(["level"], [[1.0]], [[f"{label}level_var"]], np.ones(1), ["diffuse"])


def local_trend(label: str) -> Component:
    """Random walk whose slope is a random walk (Harvey 1989, sec. 2.3)."""
    cov = _diagonal([f"{label}level_var", f"{label}slope_var"])
    return Component(["level", "slope"], [[1.0, 1.0], [0.0, 1.0]], cov, np.array([1.0, 0.0]), ["diffuse"] * 2)


def smooth_trend(label: str) -> Component:
    """Integrated random walk: the level has no noise of its own."""
    return local_trend(label)._replace(process_cov=_diagonal([0.0, f"{label}slope_var"]))


def seasonal(label: str, *, period: int, kind: str, harmonics: int | None = None) -> Component:
    """Pattern that repeats after ``period`` rows and changes slowly (Durbin & Koopman 2012, sec. 3.2.2)."""
    if not isinstance(period, int):
        raise ParameterError(
            f"period is {period!r}, expected a whole number of at least 2 rows; with unit=, or beside a motion, it "
            "need not be whole."
        )
    if kind == "dummy":
        n = period - 1
        shift = [[-1.0] * n, *([float(j == i) for j in range(n)] for i in range(n - 1))]
        cov = _diagonal([f"{label}seasonal_var", *[0.0] * (n - 1)])
        return Component([f"season {i}" for i in range(n)], shift, cov, np.eye(n)[0], ["diffuse"] * n)
    if harmonics is not None and harmonics > period // 2:
        raise ParameterError(
            f"harmonics is {harmonics}, but rows tell at most {period // 2} of a period of {period} rows: ask for "
            "fewer, or leave harmonics out."
        )
    blocks, names, observation = [], [], []
    for j in range(1, min(period // 2, harmonics or period) + 1):
        angle = 2.0 * np.pi * j / period
        c, s = np.cos(angle), np.sin(angle)
        blocks.append(np.array([[-1.0]]) if 2 * j == period else np.array([[c, s], [-s, c]]))
        names += [f"harmonic {j}"] if 2 * j == period else [f"harmonic {j}", f"harmonic {j}*"]
        observation += [1.0] if 2 * j == period else [1.0, 0.0]
    n = len(names)
    turn, begin = np.zeros((n, n)), 0
    for block in blocks:
        end = begin + len(block)
        turn[begin:end, begin:end] = block
        begin = end
    cov = _diagonal([f"{label}seasonal_var"] * n)
    return Component(names, turn.tolist(), cov, np.array(observation), ["diffuse"] * n)


def cycle(label: str, *, period: float | None) -> Component:
    """Damped stochastic cycle (Harvey 1989, sec. 2.3): damping * rotation, written with its cosine and sine parts."""
    a, b = f"{label}cycle_cos", f"{label}cycle_sin"
    guesses = swings_about(20.0 if period is None else period, a, b)
    cov = _diagonal([f"{label}cycle_var"] * 2)
    decay = Decay("turn", (a, b), (f"{label}cycle_var",))
    turn: Rows = [[a, b], [f"-{b}", a]]
    return Component(["cycle", "cycle*"], turn, cov, np.array([1.0, 0.0]), ["stationary"] * 2, guesses, (decay,))


def swings_about(period: float, cosine: str, sine: str) -> dict[str, Sequence[float]]:
    """First values, one a start, of the two parts of a cycle: at a period in rows, and at others about it."""
    periods = [max(period * factor, 2.5) for factor in (1.0, 0.4, 2.0, 0.2, 5.0, 0.1)]
    angles = [2.0 * np.pi / own for own in periods]
    return {cosine: [0.9 * np.cos(angle) for angle in angles], sine: [0.9 * np.sin(angle) for angle in angles]}


def positive_frequencies(names: Sequence[str], values: Mapping[str, float]) -> dict[str, float]:
    """Values with cycles that turn one way: a cycle is the same in distribution whichever way it turns."""
    return {**values, **{name: abs(values[name]) for name in names if name in values}}


def arma(label: str, *, p: int, q: int, d: int, seasonal: Sequence[int] = (0, 0, 0, 1)) -> Component:
    """ARIMA(p, d, q)(P, D, Q)s: past values, then w = sum of ar * w before + e + sum of ma * e before, and the past e.

    ``seasonal`` is (P, D, Q, s), whose polynomials multiply the others (Box & Jenkins 1970, ch. 9). The disturbance e
    enters the value, w and its own memory alike: the noise is a free scale of a known matrix.
    """
    P, D, Q, s = seasonal
    own_ar, seasonal_ar = [f"{label}ar{i + 1}" for i in range(p)], [f"{label}seasonal_ar{i + 1}" for i in range(P)]
    ar = _lags(own_ar, seasonal_ar, s, "-")
    own_ma, seasonal_ma = [f"{label}ma{i + 1}" for i in range(q)], [f"{label}seasonal_ma{i + 1}" for i in range(Q)]
    ma = _lags(own_ma, seasonal_ma, s, "+")
    past = _difference(d, D, s)
    n_v, n_w, n_e = len(past), max([1, *ar]), max([0, *ma])
    n = n_v + n_w + n_e
    transition: Rows = [[0.0] * n for _ in range(n)]
    own = {n_v + i - 1: entry for i, entry in ar.items()} | {n_v + n_w + i - 1: entry for i, entry in ma.items()}
    transition[n_v] = [own.get(j, 0.0) for j in range(n)]
    for i in [*range(n_v + 1, n_v + n_w), *range(n_v + n_w + 1, n), *range(1, n_v)]:
        transition[i][i - 1] = 1.0
    if n_v:
        transition[0] = [float(past[j]) if j < n_v else own.get(j, 0.0) for j in range(n)]
    enters = np.zeros(n)
    enters[[0, n_v, *([n_v + n_w] if n_e else [])]] = 1.0
    cov = [[f"{label}arma_var" if enters[i] * enters[j] else 0.0 for j in range(n)] for i in range(n)]
    names = [
        *(f"value -{i}" for i in range(n_v)),
        *(f"arma -{i}" for i in range(n_w)),
        *(f"shock -{i}" for i in range(n_e)),
    ]
    initial = ["diffuse"] * n_v + ["stationary"] * (n_w + n_e)
    decays = [
        Decay("lags", tuple(words), (f"{label}arma_var",), tuple(shocks))
        for words, shocks in ((own_ar, own_ma), (seasonal_ar, seasonal_ma))
        if words
    ]
    return Component(names, transition, cov, np.eye(n)[0], initial, _arma_guesses(label, p, q, P, Q), tuple(decays))


def _lags(words: Sequence[str], seasonal: Sequence[str], period: int, sign: str) -> dict[int, str]:
    """Entries by lag of the product of two lag polynomials; ``sign`` is that of their products."""
    found = {i + 1: word for i, word in enumerate(words)}
    for j, word in enumerate(seasonal):
        for i, other in enumerate(["", *words]):
            lag = (j + 1) * period + i
            entry = f"{sign}{word}*{other}" if other else word
            found[lag] = f"{found[lag]} {'' if entry[0] in '+-' else '+'} {entry}" if lag in found else entry
    return found


def _difference(d: int, seasonal: int, period: int) -> Floats:
    """Weights of the past values in the value whose differences are given."""
    whole = np.ones(1)
    for part in [np.array([1.0, -1.0])] * d + [np.append(1.0, np.append(np.zeros(period - 1), -1.0))] * seasonal:
        whole = np.convolve(whole, part)
    return -whole[1:]


def _arma_guesses(label: str, p: int, q: int, P: int, Q: int) -> dict[str, Sequence[float]]:
    """First values, one a start, of coefficients that the data do not suggest a value of."""
    first, later = [0.1, -0.4, 0.4, 0.9, -0.9, 1.2], [0.05, 0.0, 0.1, 0.5, 0.3, 0.95]
    kinds = ("ar", p), ("seasonal_ar", P), ("ma", q), ("seasonal_ma", Q)
    found: dict[str, Sequence[float]] = {}
    for kind, order in kinds:
        values = ([0.5, 0.1, 0.8], [0.1, 0.0, 0.1]) if kind.endswith("ar") else (first, later)
        found |= {f"{label}{kind}{i + 1}": values[min(i, 1)] for i in range(order)}
    return found


def regression(
    label: str, *, X: Any, names: Sequence[str], drifting: bool, start: str, times: Sequence[str] | None
) -> Component:
    """Coefficients of known columns: fixed, or random walks; ``times`` are the labels of the rows."""
    rows, n = np.asarray(X, dtype=float), len(names)
    cov = _diagonal([f"{label}{name}_var" if drifting else 0.0 for name in names])
    return Component(list(names), np.eye(n).tolist(), cov, rows, [start] * n)


def constant(label: str, *, start: str) -> Component:
    """A level that never moves."""
    return Component(["constant"], [[1.0]], [[0.0]], np.ones(1), [start])


BUILDERS: Mapping[str, Callable[..., Component]] = {
    "local_level": local_level, "local_trend": local_trend, "smooth_trend": smooth_trend, "seasonal": seasonal,
    "cycle": cycle, "arma": arma, "regression": regression, "constant": constant,
}  # fmt: skip


def built(kind: str, label: str, options: Mapping[str, Any]) -> Component:
    """Component of this kind; ``label`` stands before the names of its values."""
    _validate.one_of("component", kind, BUILDERS)
    return BUILDERS[kind](label, **options)


def together(parts: Sequence[Component]) -> tuple[list[str], Rows, Rows, Floats, list[str]]:
    """Names, transition, noise, observation and start of parts side by side; states of the same name get numbers."""
    sizes = [len(part.states) for part in parts]
    n = sum(sizes)
    transition: Rows = [[0.0] * n for _ in range(n)]
    cov: Rows = [[0.0] * n for _ in range(n)]
    names: list[str] = []
    begin = 0
    for part, size in zip(parts, sizes):
        for i in range(size):
            transition[begin + i][begin : begin + size] = part.transition[i]
            cov[begin + i][begin : begin + size] = part.process_cov[i]
        names += part.states
        begin += size
    names = [f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name for i, name in enumerate(names)]
    length = max((len(part.observation) for part in parts if part.observation.ndim == 2), default=0)
    views = [np.broadcast_to(p.observation, (length, len(p.states))) if length else p.observation for p in parts]
    return names, transition, cov, np.concatenate(views, axis=-1), [word for part in parts for word in part.initial]
