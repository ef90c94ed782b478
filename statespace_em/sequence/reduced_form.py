"""What a sum of components is once it is differenced: autocovariances of a stationary series, of many values at once.

A polynomial of the lag takes all that is diffuse out of y. What is left is a sum of moving averages of the disturbances
and of cycles and autoregressions, to which the same was done (Harvey 1989, sec. 2.4.3): its autocovariances follow the
autoregression of all of them from some lag on. They are linear in the variances.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.patterns import from_entries
from statespace_em.sequence.arma import invertible
from statespace_em.sequence.components import Component

ONE = np.ones(1)


class StationaryComponent(NamedTuple):
    """A cycle or an ARMA part."""

    kind: str
    variance: str  # name of that of its disturbances
    names: tuple[str, ...]  # of its coefficients: autoregression and moving average, or cosine and sine
    order: int  # of its autoregression
    filtered: Floats  # polynomial of the lag that is applied to it

    @property
    def degree(self) -> int:
        """Order of the moving average that is left of it by its own autoregression."""
        own = 1 if self.kind == "cycle" else len(self.names) - self.order
        return own + len(self.filtered) - 1

    def ar(self, values: Floats) -> Floats:
        """Autoregression (m, p) of values (m, k)."""
        if self.kind == "cycle":
            return np.stack([2.0 * values[:, 0], -np.square(values).sum(1)], axis=1)
        return values[:, : self.order]

    def autocovariances(self, values: Floats, n: int) -> Floats:
        """First ``n`` ones (m, n) of what is left of it, for disturbances of variance 1."""
        reach = len(self.filtered) - 1
        if self.kind == "cycle":
            turns = (values[:, :1] + 1j * values[:, 1:]) ** np.arange(n + reach)
            own = turns.real / (1.0 - np.square(values).sum(1, keepdims=True))
        else:
            own = autocovariances(values[:, : self.order], values[:, self.order :], n + reach)
        both = np.convolve(self.filtered, self.filtered[::-1])
        lags = np.abs(np.arange(n)[:, None] - np.arange(-reach, reach + 1))
        return np.asarray(own[:, lags] @ both)

    def power(self, values: Floats, angle: Floats) -> Floats:
        """Spectrum (m, F), for disturbances of variance 1."""
        shape = -log_power(-self.ar(values), angle)
        if self.kind != "cycle":
            shape += log_power(values[:, self.order :], angle)
        shape += log_power(self.filtered[None, 1:], angle)
        if self.kind == "cycle":  # Harvey 1989, eq. 2.4.32
            cosine, square = values[:, :1], np.square(values).sum(1, keepdims=True)
            shape += np.log(np.maximum(1.0 + square - 2.0 * cosine * np.cos(angle), 1e-12))
        return np.exp(shape)


class ReducedForm(NamedTuple):
    """A differenced sum; its values are those of the components, then roots of variances unless there is one only."""

    difference: Floats  # polynomial of the lag that is applied to y
    components: tuple[StationaryComponent, ...]
    variances: tuple[str, ...]  # names of the others
    fixed: Floats  # (v, r + 1), autocovariances that those leave

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the values (k,); of variances it is roots."""
        return tuple(name for component in self.components for name in component.names) + self.spreads

    @property
    def spreads(self) -> tuple[str, ...]:
        """Names of the variances among the values."""
        found = *(component.variance for component in self.components), *self.variances
        return found if len(found) > 1 else ()

    @property
    def has_several_tops(self) -> bool:
        """Whether its likelihood may have more than one: an autoregression alone has not."""
        return bool(self.spreads) or any(
            component.kind == "cycle" or len(component.names) > component.order for component in self.components
        )

    @property
    def harmless(self) -> Floats:
        """Values (k,) that are stationary."""
        return np.array([0.0] * (len(self.names) - len(self.spreads)) + [1.0] * len(self.spreads))

    def named(self, values: Floats, variance: float, least: float) -> dict[str, float]:
        """Values (k,) by name where the disturbances have so much more variance; at least enough to add ``least``."""
        found = dict(zip(self.names, values.tolist()))
        sizes = [
            component.autocovariances(values[None, own], 1)[0, 0] for component, own, _ in self.parted(values[None])
        ]
        sizes += self.fixed[:, 0].tolist()
        shown = *(component.variance for component in self.components), *self.variances
        roots = self.roots(values[None])[0]
        return found | {
            name: max(float(variance * root**2), least / max(size, 1e-300))
            for name, root, size in zip(shown, roots, sizes)
        }

    def parted(self, theta: Floats) -> Iterator[tuple[StationaryComponent, slice, Floats]]:
        """Components, which of the values (m, k) are their coefficients, and variances (m,) of their disturbances."""
        begin, spreads = 0, self.roots(theta)
        for i, component in enumerate(self.components):
            yield component, slice(begin, begin + len(component.names)), np.square(spreads[:, i])
            begin += len(component.names)

    def roots(self, theta: Floats) -> Floats:
        """Roots of all variances (m, v)."""
        n = len(self.spreads)
        return theta[:, theta.shape[1] - n :] if n else np.ones((len(theta), 1))

    def are_stationary(self, theta: Floats) -> Bools:
        """Which values (m, k) are those of stationary components."""
        found = np.ones(len(theta), bool)
        for component, own, _ in self.parted(theta):
            with np.errstate(over="ignore", invalid="ignore"):
                found &= is_stationary(component.ar(theta[:, own]))
        return found

    def read(self, theta: Floats) -> tuple[Floats, Floats]:
        """Autoregression (m, p) and autocovariances (m, r + 1)."""
        ar, n = np.ones((len(theta), 1)), self.fixed.shape[1]
        auto = np.square(self.roots(theta)[:, len(self.components) :]) @ self.fixed
        for component, own, variance in self.parted(theta):
            ar = products(ar, -component.ar(theta[:, own]))
            auto = auto + variance[:, None] * component.autocovariances(theta[:, own], n)
        return -ar[:, 1:], auto

    def log_spectrum(self, theta: Floats, angle: Floats) -> Floats:
        """Logarithm of the spectrum (m, F), without its mean over the angles."""
        waves = 2.0 * np.cos(np.outer(np.arange(self.fixed.shape[1]), angle))
        waves[0] = 1.0
        total = np.square(self.roots(theta)[:, len(self.components) :]) @ np.maximum(self.fixed @ waves, 0.0)
        for component, own, variance in self.parted(theta):
            total = total + variance[:, None] * component.power(theta[:, own], angle)
        found = np.log(total + 1e-6 * total.mean(1, keepdims=True))
        return np.asarray(found - found.mean(1, keepdims=True))

    def invertible(self, theta: Floats) -> Floats:
        """The same models with moving averages that can be inverted: one infinitely far away is of lower order."""
        found = np.abs(theta) if not self.components else theta.copy()
        for i, (component, own, _) in enumerate(self.parted(theta)):
            if component.kind == "cycle" or len(component.names) == component.order:
                continue
            ma = slice(own.start + component.order, own.stop)
            for row in found:
                row[ma], factor = invertible(row[ma])
                if self.spreads:
                    row[len(row) - len(self.spreads) + i] *= np.sqrt(factor)
        return found


def reduced(parts: Sequence[tuple[str, Mapping[str, Any], Component]], noise: str | None) -> ReducedForm | None:
    """Reduced form of components of these kinds and options, without what is not seen alike in every row.

    ``noise`` is the name of the variance of a measurement noise, if there is one. None where no component is in it that
    starts stationary, or one has seasons of its own.
    """
    parts = [own for own in parts if own[2].observation.ndim == 1 and own[0] != "constant"]
    if not {"cycle", "arma"} & {kind for kind, *_ in parts} or any("seasonal" in options for _, options, _ in parts):
        return None
    own_roots = [_unit_roots(*own) for own in parts]
    whole = reduce(np.convolve, own_roots, ONE)
    components, responses = [], {} if noise is None else {noise: [whole]}
    for i, (kind, options, part) in enumerate(parts):
        cov = from_entries(part.process_cov, "process_cov", symmetric=True)
        if kind in ("cycle", "arma"):
            others = reduce(np.convolve, own_roots[:i] + own_roots[i + 1 :], ONE)
            order = 2 if kind == "cycle" else options["p"]
            components.append(StationaryComponent(kind, cov.names[0], tuple(part.guesses), order, others))
            continue
        for name, design in zip(cov.names, cov.design):
            values, vectors = np.linalg.eigh(design)
            roots = (vectors * np.sqrt(np.maximum(values, 0.0))).T
            responses[name] = [_response(part, root, whole) for root in roots if root.any()]
    degree = sum(component.order for component in components)
    left = [component.degree - component.order for component in components]
    left += [len(own) - 1 for every in responses.values() for own in every]
    fixed = np.zeros((len(responses), 1 + max(degree + max(left), degree, 1)))
    for row, every in zip(fixed, responses.values()):
        for own in every:
            row[: len(own)] += np.convolve(own, own[::-1])[len(own) - 1 :]
    return ReducedForm(whole, tuple(components), tuple(responses), fixed)


def _unit_roots(kind: str, options: Mapping[str, Any], part: Component) -> Floats:
    """Polynomial of the lag that takes what is diffuse out of a component."""
    if kind in ("arma", "cycle"):
        return np.asarray(np.poly(np.ones(options.get("d", 0))), dtype=float)
    return np.asarray(np.poly(np.array(part.transition, dtype=float)).real, dtype=float)


def _response(part: Component, disturbance: Floats, difference: Floats) -> Floats:
    """Weights by lag of a disturbance (n,) in the differenced y."""
    A, state, seen = np.array(part.transition, dtype=float), disturbance, []
    for _ in difference:
        seen.append(float(part.observation @ state))
        state = A @ state
    return np.asarray(np.convolve(difference, seen)[: len(difference)])


# polynomials of many models


def autocovariances(ar: Floats, ma: Floats, n: int) -> Floats:
    """First ``n`` autocovariances (m, n) of ARMA models (m, p), (m, q) with disturbances of variance 1."""
    p, q = ar.shape[1], ma.shape[1]
    r = max(p, q + 1)
    a, b, psi = np.zeros((r, len(ar))), np.zeros((r, len(ar))), np.zeros((r, len(ar)))
    a[:p], b[0], b[1 : q + 1] = ar.T, 1.0, ma.T
    for j in range(r):
        psi[j] = b[j] + (a[:j] * psi[:j][::-1]).sum(0)
    equations, shocks = np.zeros((len(ar), r + 1, r + 1)), np.zeros((len(ar), r + 1))
    for k in range(r + 1):  # Yule-Walker: the autocovariances that shocks leave
        equations[:, k, k] += 1.0
        for i in range(r):
            equations[:, k, abs(k - i - 1)] -= a[i]
        shocks[:, k] = (b[k:] * psi[: r - k]).sum(0)
    found = np.zeros((max(n, r + 1), len(ar)))
    found[: r + 1] = np.linalg.solve(equations, shocks[..., None])[..., 0].T
    for k in range(r + 1, n):
        found[k] = (a * found[k - r : k][::-1]).sum(0)
    return np.asarray(found[:n].T)


def is_stationary(ar: Floats) -> Bools:
    """Which autoregressions (m, p) have partial autocorrelations inside (-1, 1): Durbin-Levinson backwards."""
    left, found = ar, np.ones(len(ar), bool)
    with np.errstate(all="ignore"):
        for k in range(ar.shape[1] - 1, -1, -1):
            own = left[:, k:]
            found &= np.abs(own[:, 0]) < 1.0 - 1e-9
            left = (left[:, :k] + own * left[:, :k][:, ::-1]) / (1.0 - np.square(own))
    return found


def stable(partial: Floats) -> Floats:
    """Autoregressions (m, p) with these partial autocorrelations (Barndorff-Nielsen & Schou 1973)."""
    found = partial[:, :0]
    for k in range(partial.shape[1]):
        own = partial[:, k : k + 1]
        found = np.hstack([found - own * found[:, ::-1], own])
    return found


def products(whole: Floats, tail: Floats) -> Floats:
    """Products (m, i + k) of polynomials (m, i) with others ``1 + sum of tail * z^k`` (m, k), row by row."""
    rows = max(len(whole), len(tail))
    found = np.zeros((rows, whole.shape[1] + tail.shape[1]))
    for lag, own in enumerate(np.hstack([np.ones((len(tail), 1)), tail]).T):
        found[:, lag : lag + whole.shape[1]] += own[:, None] * whole
    return found


def log_power(coefficients: Floats, angle: Floats) -> Floats:
    """Log of the squared modulus of polynomials ``1 + sum of coefficients * z^k`` (m, k) on the unit circle (m, F)."""
    turn = np.exp(-1j * np.outer(np.arange(1, coefficients.shape[1] + 1), angle))
    return np.asarray(2.0 * np.log(np.abs(1.0 + coefficients @ turn) + 1e-12))
