"""Decays of states that start stationary, in coordinates in which a unit root is infinitely far away.

Where the likelihood is highest without decay it is approached for ever: the variance of the disturbances goes to 0 with
the decay, and that of the states, their ratio, stays. In entries of the transition such a place is a wall, which an
ascent runs into and creeps along. Here an autoregression has its partial autocorrelations, through atanh (Barndorff-
Nielsen & Schou 1973), a rotation its modulus, through atanh, and its angle; and the variance of the disturbances
counts relative to ``1 - root^2``, so that a decay is moved with the variance of the states as it is. A maximum at the
wall is put at a distance of `WALL` from it, as near as arithmetic makes a difference of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.patterns import Pattern, components

WALL = 1e-11  # distance from the unit circle at which a maximum on it is put
WIDE = 1e-10  # that of several lags: the variance of their states is less precise there
NEAR = 1e-3  # distance from the unit circle from which on a moving average goes along
LEAST = 1e-15  # that arithmetic tells at all
FAINTEST = 1e-250  # that may be left of a decay after a base step
POLAR = 0.5  # modulus of a rotation above which its coordinates are modulus and angle
SHARPEST = 1e-3  # smallest unit of an angle, whose peak is about as wide as the decay


class Decay(NamedTuple):
    """Which free values are the coefficients of a decay."""

    kind: Literal["lags", "turn"]  # of an autoregression, or real and imaginary part of a rotation
    names: tuple[str, ...]  # in the transition
    noise: tuple[str, ...] = ()  # variances in process_cov that drive nothing else
    shocks: tuple[str, ...] = ()  # coefficients in the transition of a moving average of these disturbances
    shortest: float | None = None  # step of those that it goes on over in continuous time, in base steps


class Placed(NamedTuple):
    """A decay among the free values of the transition."""

    kind: str
    places: Ints  # of its values
    states: Bools  # (n,) whose dynamics these values are
    driven: Bools | None  # entries (n, n) of process_cov of its disturbances alone; None: they are shared, or held
    names: tuple[str, ...] = ()  # of its values
    noise: tuple[str, ...] = ()  # of the variances of its disturbances, where these are alone
    shocks: Ints = np.zeros(0, np.int64)  # places of the coefficients of its moving average
    shortest: float | None = None  # step, in base steps, of a decay in continuous time

    @property
    def wall(self) -> float:
        """Distance from the unit circle at which a root is put that belongs on it."""
        return WIDE if self.kind == "lags" and len(self.places) > 1 else WALL

    def at_wall(self, roots: Floats) -> Bools:
        """Which roots are on the unit circle, as nearly as they are put there."""
        return np.asarray(1.0 - np.abs(roots) < 2.0 * self.wall)

    def roots(self, transition: Pattern, array: Floats) -> Floats:
        """Partial autocorrelations, or the modulus, of a transition matrix."""
        values = transition.read(array)[self.places]
        return partials(values) if self.kind == "lags" else np.array([np.hypot(*values)])


def placed(decays: Sequence[Decay], patterns: Mapping[str, Any]) -> tuple[Placed, ...]:
    """Decays all of whose values are free."""
    transition, cov = patterns.get("transition"), patterns.get("process_cov")
    if not isinstance(transition, Pattern):
        return ()
    found = []
    for decay in decays:
        if not set(decay.names) <= set(transition.names):
            continue
        places = np.array([transition.names.index(name) for name in decay.names], np.int64)
        touched = (transition.design[places] != 0.0).any(0)
        driven = None
        if isinstance(cov, Pattern) and decay.noise and set(decay.noise) <= set(cov.names):
            driven = (cov.design[[cov.names.index(name) for name in decay.noise]] != 0.0).any(0)
        noise = () if driven is None else decay.noise
        free = decay.shocks if set(decay.shocks) <= set(transition.names) else ()
        shocks = np.array([transition.names.index(name) for name in free], np.int64)
        found.append(Placed(decay.kind, places, touched.any(0), driven, decay.names, noise, shocks, decay.shortest))
    return tuple(found)


def partials(lags: Floats) -> Floats:
    """Partial autocorrelations of an autoregression, inside (-1, 1) if it is stationary: Durbin-Levinson backwards."""
    left, found = np.array(lags), np.zeros(len(lags))
    for k in range(len(lags) - 1, -1, -1):
        found[k] = left[k]
        if not abs(found[k]) < 1.0:
            return np.full(len(lags), np.nan)
        left = (left[:k] + found[k] * left[:k][::-1]) / (1.0 - found[k] ** 2)
    return found


def lags(partial: Floats) -> tuple[Floats, Floats]:
    """Inverse of `partials`, and its Jacobian (p, p)."""
    p = len(partial)
    values, slopes = np.zeros(0), np.zeros((0, p))
    for k, own in enumerate(partial):
        back, unit = values[::-1], np.eye(p)[k]
        slopes = np.vstack([slopes - own * slopes[::-1] - np.outer(back, unit), unit])
        values = np.append(values - own * back, own)
    return values, slopes


def in_step(before: Floats, after: Floats, shocks: Floats) -> Floats:
    """Moving average (q,) whose roots follow those of an autoregression from ``before`` to ``after``.

    A root that nearly cancels with one of the moving average at a distance d makes states of d^2 / (1 - root^2) of the
    variance of the disturbances (Box & Jenkins 1970, sec. 3.4), which is kept.
    """
    old, new, own = (np.roots(np.append(1.0, each)).astype(complex) for each in (-before, -after, shocks))
    for origin in old[1.0 - np.abs(old) < NEAR] if len(own) else ():
        to, k = new[np.argmin(np.abs(new - origin))], np.argmin(np.abs(own - origin))
        rooms = np.maximum(1.0 - np.abs([to, origin]), LEAST)
        own[k] = to + (own[k] - origin) * np.sqrt(rooms[0] / rooms[1])
    found = np.zeros(len(shocks))  # roots of 0 are left out above
    found[: len(own)] = np.poly(own).real[1:]
    return found


class _Coordinates(Protocol):
    """Coordinates of the values of one decay around a point."""

    bound: int  # how many of them, the first ones, have a wall

    def read(self, values: Floats) -> Floats:
        """Coordinates of values."""
        ...

    def at(self, x: Floats) -> tuple[Floats, Floats, float, Floats]:
        """Values, their Jacobian, the logarithm of ``prod(1 - root^2)`` and its gradient."""
        ...


class _Lags:
    """Partial autocorrelations through atanh; those at the wall stay there."""

    def __init__(self, values: Floats, decay: Placed) -> None:
        self.partial, self.wall, self.bound = partials(values), decay.wall, len(values)
        self.origin, self.held = np.arctanh(self.partial), decay.at_wall(self.partial)

    def read(self, values: Floats) -> Floats:
        return np.where(self.held, 0.0, np.arctanh(partials(values)) - self.origin)

    def at(self, x: Floats) -> tuple[Floats, Floats, float, Floats]:
        u = np.where(self.held, self.origin, self.origin + x)
        partial = np.where(self.held, self.partial, np.tanh(u))
        _check_room(partial[~self.held], self.wall)
        values, slopes = lags(partial)
        moves = np.where(self.held, 0.0, 1.0 - partial**2)
        return values, slopes * moves, log_room(u), np.where(self.held, 0.0, -2.0 * partial)


class _Relaxation:
    """What is left of a decay in continuous time after a base step; after the shortest step it is ``tanh(u)^2``.

    So it is smooth where nothing is left after any step, which is as good as white noise and may be the maximum: the
    coordinate has gradient 0 there, as the root of a variance at 0. In the value itself that is a wall.
    """

    bound = 1

    def __init__(self, values: Floats, decay: Placed) -> None:
        assert decay.shortest is not None
        self.half = 0.5 * min(decay.shortest, 1.0)  # power of the value that is tanh(u)
        self.values, self.wall, self.held = values, decay.wall, bool(decay.at_wall(values)[0])
        self.origin = self._place(values)

    def _place(self, values: Floats) -> Floats:
        log_size = self.half * np.log(values)
        return np.asarray(0.5 * (np.log1p(np.exp(log_size)) - np.log(-np.expm1(log_size))))

    def read(self, values: Floats) -> Floats:
        return np.zeros(1) if self.held else self._place(values) - self.origin

    def at(self, x: Floats) -> tuple[Floats, Floats, float, Floats]:
        u = self.origin if self.held else self.origin + x
        fades = np.exp(-2.0 * np.abs(u))
        size = np.maximum(-np.expm1(-2.0 * np.abs(u)) / (1.0 + fades), FAINTEST**self.half)
        value = self.values if self.held else np.exp((np.log1p(-fades) - np.log1p(fades)) / self.half)
        value = np.maximum(value, FAINTEST)
        _check_room(np.array([]) if self.held else value, self.wall)
        room = -np.expm1(2.0 * np.log(value))
        moves = 0.0 if self.held else np.sign(u) / self.half * 4.0 * fades / (1.0 + fades) ** 2 / size
        return value, np.diag(value * moves), float(np.log(room[0])), np.asarray(-2.0 * value**2 / room * moves)


class _Turn:
    """Modulus of a rotation through atanh, and its angle; a modulus at the wall stays there."""

    bound = 1

    def __init__(self, values: Floats, decay: Placed) -> None:
        self.size = size = float(np.hypot(*values))
        self.wall, self.held = decay.wall, bool(decay.at_wall(np.array([size]))[0])
        self.origin = np.array([np.arctanh(size), np.arctan2(values[1], values[0])])
        self.unit = np.array([1.0, max(1.0 - size, SHARPEST)])

    def read(self, values: Floats) -> Floats:
        size = np.hypot(*values)
        away = np.array([np.arctanh(size), np.arctan2(values[1], values[0])]) - self.origin
        away[0] = 0.0 if self.held else away[0]
        away[1] = (away[1] + np.pi) % (2.0 * np.pi) - np.pi
        return np.asarray(away / self.unit)

    def at(self, x: Floats) -> tuple[Floats, Floats, float, Floats]:
        u, angle = self.origin + self.unit * x
        u, size = (self.origin[0], self.size) if self.held else (u, float(np.tanh(u)))
        c, s, moves = np.cos(angle), np.sin(angle), 0.0 if self.held else 1.0 - size**2
        _check_room(np.array([] if self.held else [size]), self.wall)
        slopes = np.array([[c * moves, -size * s], [s * moves, size * c]]) * self.unit
        return size * np.array([c, s]), slopes, log_room(np.array([u])), np.array([-2.0 * size * (moves > 0.0), 0.0])


class _Plain:
    """Values as they are, in units."""

    bound = 0

    def __init__(self, values: Floats, units: Floats) -> None:
        self.origin, self.units = values, units

    def read(self, values: Floats) -> Floats:
        return np.asarray((values - self.origin) / self.units)

    def at(self, x: Floats) -> tuple[Floats, Floats, float, Floats]:
        return self.origin + self.units * x, np.diag(self.units), 0.0, np.zeros(len(x))


def _part(decay: Placed) -> Floats | None:
    """Onto the states (n, n) that the disturbances of a decay alone drive; None where there are no such."""
    return None if decay.driven is None else np.diag(decay.driven.any(0).astype(float))


def _check_room(roots: Floats, wall: float) -> None:
    """Refuse to go on where arithmetic no longer tells how far away the unit circle is."""
    if (1.0 - np.abs(roots) < 0.5 * wall).any():
        raise FloatingPointError("a root is on the unit circle, as nearly as arithmetic tells.")


def log_room(u: Floats) -> float:
    """Sum of ``log(1 - tanh(u)^2)`` of roots through atanh, without cancellation."""
    size = np.abs(u)
    return float(np.sum(2.0 * (np.log(2.0) - size - np.log1p(np.exp(-2.0 * size)))))


class Decaying:
    """Coordinates of a transition with decays, and of how large their disturbances are."""

    def __init__(
        self,
        pattern: Pattern,
        origin: Floats,
        steps: Floats,
        decays: Sequence[Placed],
        parts: Sequence[Floats | None] | None = None,
    ) -> None:
        self.pattern, self.decays, self.size = pattern, decays, len(pattern.names)
        self.steps, self.array, self.origin = steps, origin, pattern.read(origin)
        self.driven = [_part(decay) for decay in decays] if parts is None else parts
        self.parts = [self._around(decay) for decay in decays]
        self.rooms = [part.at(np.zeros(len(decay.places)))[2] for decay, part in zip(decays, self.parts)]

    def _around(self, decay: Placed) -> _Coordinates:
        values = self.origin[decay.places]
        if decay.shortest is not None and len(values) == 1 and 0.0 < values[0] < 1.0:
            return _Relaxation(values, decay)
        if decay.kind == "lags" and np.isfinite(partials(values)).all():
            return _Lags(values, decay)
        if decay.kind == "turn" and POLAR < np.hypot(*values) < 1.0:
            return _Turn(values, decay)
        return _Plain(values, self.steps[decay.places])

    def read(self, array: Floats) -> Floats:
        """Coordinates (size,) of a transition matrix."""
        values = self.pattern.read(array)
        x = (values - self.origin) / self.steps
        for decay, part in zip(self.decays, self.parts):
            x[decay.places] = part.read(values[decay.places])
        return np.asarray(x)

    def value(self, x: Floats) -> Floats:
        """Transition matrix at the coordinates."""
        values = self.origin + self.steps * x
        for decay, part in zip(self.decays, self.parts):
            values[decay.places] = part.at(x[decay.places])[0]
        if self.pattern.products:
            return self.pattern.build(values)
        return self.pattern.shifted(self.array, values - self.origin)

    def pull_back(self, x: Floats, gradient: Floats) -> Floats:
        """Gradient in the coordinates, from that with respect to the entries."""
        slopes = self.pattern.tangent(self.value(x)).pull_back(gradient)
        found = slopes * self.steps
        for decay, part in zip(self.decays, self.parts):
            found[decay.places] = slopes[decay.places] @ part.at(x[decay.places])[1]
        return np.asarray(found)

    # disturbances, relative to the variance of the states that they make

    def scale(self, x: Floats) -> Floats:
        """Factor S (n, n) of process_cov, S Q S': the identity at the origin."""
        found = np.eye(self.pattern.shape[0])
        for decay, part, origin, driven in zip(self.decays, self.parts, self.rooms, self.driven):
            if driven is not None:
                found = found + np.expm1(0.5 * (part.at(x[decay.places])[2] - origin)) * driven @ found
        return found

    def scaled(self, x: Floats, cov: Floats) -> Floats:
        """Covariance S Q S' of the disturbances."""
        scale = self.scale(x)
        own = np.diag(scale)
        if np.array_equal(scale, np.diag(own)):  # what is 0 stays so
            return np.asarray(cov * np.outer(own, own))
        values, vectors = np.linalg.eigh(cov)
        half = scale @ (vectors * np.sqrt(np.maximum(values, 0.0)))  # a product of three would not stay semi-definite
        return np.asarray(half @ half.T)

    def pull_back_scale(self, x: Floats, cov: Floats, gradient: Floats) -> Floats:
        """Gradient in the coordinates by way of the factor; ``gradient`` is twice that of the entries of ``cov``."""
        found = np.zeros(self.size)
        for decay, part, driven in zip(self.decays, self.parts, self.driven):
            if driven is not None:
                found[decay.places] += 0.5 * float(np.sum(gradient * (driven @ cov))) * part.at(x[decay.places])[3]
        return found

    def at_wall(self) -> Bools:
        """Which coordinates (size,) are those of roots on the unit circle."""
        found = np.zeros(self.size, bool)
        for decay, part in zip(self.decays, self.parts):
            if part.bound:
                roots = decay.roots(self.pattern, self.pattern.build(self.origin))
                found[decay.places[: part.bound]] = decay.at_wall(roots)
        return found


def found_in(transition: Any, cov: Any, stationary: Bools) -> tuple[Decay, ...]:
    """Decays among states that start stationary and move on their own: ``phi``, ``[[a, b], [-b, a]]``, lags."""
    if not isinstance(transition, Pattern) or transition.products or not stationary.any():
        return ()
    found = []
    for part in components(transition.linked | transition.linked.T):
        inner, outer = np.ix_(part, part), np.ones(transition.shape, bool)
        outer[inner] = False
        names = [j for j, own in enumerate(transition.design) if own[inner].any()]
        if not stationary[part].all() or not names or transition.design[names][:, outer].any():
            continue
        kind = _kind(transition.design[names][:, inner[0], inner[1]], transition.constant[inner])
        if kind is None:
            continue
        noise: tuple[str, ...] = ()
        if isinstance(cov, Pattern) and cov.shape == transition.shape:
            alone = [name for name, own in zip(cov.names, cov.design) if own[inner].any() and not own[outer].any()]
            other = [own for name, own in zip(cov.names, cov.design) if own[inner].any() and name not in alone]
            noise = () if other or cov.constant[inner].any() or cov.products else tuple(alone)
        found.append(Decay(kind, tuple(transition.names[j] for j in names), noise))
    return tuple(found)


def _kind(design: Floats, constant: Floats) -> Literal["lags", "turn"] | None:
    """What the values of a block of the dynamics are; None if they are no decay by their form."""
    k, n = design.shape[:2]
    first = np.eye(n * n)[:n].reshape(n, n, n)
    if k == n and np.array_equal(design, first) and np.array_equal(constant, np.eye(n, k=-1)):
        return "lags"
    cosine, sine = np.eye(2), np.array([[0.0, 1.0], [-1.0, 0.0]])
    if k == n == 2 and not constant.any() and np.array_equal(design[0], cosine):
        return "turn" if np.array_equal(np.abs(design[1]), np.abs(sine)) and design[1].sum() == 0.0 else None
    return None
