"""Components in continuous time over uneven steps: matrices of every row, and their gradients back.

The parameters of such a model are the transition over one base step, and a diagonal "process_cov", called diffusion
here, that holds the spectral density (variance per unit of time) of each source of noise. `Flow.out` makes
of them the matrices of every step, exactly, and `Flow.back` takes the score of these matrices to the base parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import UnstableDynamicsError
from statespace_em.patterns import Pattern
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.motion import Steps

TINY = 1e-250  # of a decay over a step: less is not told from nothing


class ContinuousComponent(NamedTuple):
    """A few states that move on their own, in continuous time; J sources of noise drive them.

    Either ``over`` knows the dynamics over gaps up to the sizes of the noises, or the dynamics themselves are
    unknown: a decay, with rotation where there are two states. Such a component has one source; its variance is that of
    what a base step adds, and ``root`` names the free entries of the transition over it.
    """

    kind: str  # of component
    states: list[str]
    observation: Floats  # (D, n), or (T, D, n) where it is known for every row
    initial: list[str]  # a word a state
    names: list[str]  # (J,) of the sources
    drives: Floats  # (J, n), 1 where a source enters the diffusion
    over: Callable[[Floats], Steps] | None = None
    ranks: tuple[int, ...] = ()  # (J,), of the noise that a source makes over a step
    root: tuple[str, ...] = ()
    guesses: Mapping[str, Sequence[float]] = {}  # first values of names, one a start
    known: Floats | None = None  # (J,) where the sizes of the sources are known
    stem: str = ""  # before and after the names of what follows from the root, such as a period
    suffix: str = ""


class Growth(NamedTuple):
    """A decay over steps of u base steps: powers of the complex number z that one step multiplies with."""

    power: Floats  # (G,), complex: z^u
    slope: Floats  # (G,), complex: its derivative
    share: Floats  # (G,), of the variance that one base step adds
    share_slopes: tuple[Floats, Floats]  # (G,) each, derivatives with respect to the parts of z


def growth(z: complex, steps: Floats) -> Growth:
    """Exact discretisation of an Ornstein-Uhlenbeck process, or a damped rotation, over ``steps`` base steps.

    Raises
    ------
    UnstableDynamicsError
        If the process does not decay: an autoregression below 0 is that of no process in continuous time.
    """
    size = abs(z)
    if not (0.0 < size < 1.0) or (z.imag == 0.0 and z.real <= 0.0):
        raise UnstableDynamicsError(
            f"a decay of {z.real:.4g} over a step is that of no stationary process in continuous time, expected a "
            "value between 0 and 1."
        )
    power = np.exp(steps * np.log(z))
    rate = -2.0 * np.log(size)  # of the variance, per base step
    share = np.expm1(-steps * rate) / np.expm1(-rate)
    by_rate = share * (steps * _rest(steps * rate) - _rest(np.array(rate)))
    along = -2.0 / size**2 * by_rate
    return Growth(power, steps * power / z, share, (along * z.real, along * z.imag))


def _rest(x: Floats) -> Floats:
    """``1 / (exp(x) - 1) - 1 / x``, which is smooth at 0."""
    small = np.abs(x) < 0.05
    safe = np.where(small, 1.0, x)
    series = -0.5 + x / 12.0 - x**3 / 720.0 + x**5 / 30240.0
    return np.where(small, series, np.exp(-safe) / -np.expm1(-safe) - 1.0 / safe)


@dataclass(frozen=True, eq=False)
class Flow:
    """Components side by side, over the steps between some rows."""

    components: Sequence[ContinuousComponent]
    base: float  # step that the base transition is over
    gaps: Floats  # (G,), different lengths of steps
    kinds: Ints | None = None  # (T,), which of them each step has; None: all have the only one

    @classmethod
    def of(cls, components: Sequence[ContinuousComponent], base: float, gaps: Floats | None) -> Flow:
        """Flow over these gaps, or over the base step alone."""
        if gaps is None:
            return cls(components, base, np.array([base]))
        each, kinds = np.unique(gaps, return_inverse=True)
        return cls(components, base, each, kinds)

    @property
    def n_states(self) -> int:
        """Number of states of all components."""
        return sum(len(component.states) for component in self.components)

    @cached_property
    def _places(self) -> list[slice]:
        ends = np.cumsum([len(component.states) for component in self.components])
        return [slice(int(end) - len(component.states), int(end)) for component, end in zip(self.components, ends)]

    @cached_property
    def _steps(self) -> list[Steps | None]:
        return [None if component.over is None else component.over(self.gaps) for component in self.components]

    def placed(self, entries: Ints) -> Flow:
        """The flow of rows that have these entries each."""
        return self if self.kinds is None else replace(self, kinds=self.kinds[entries])

    def over(self, gaps: Floats) -> Flow:
        """The same components over other gaps, one an entry."""
        return Flow.of(self.components, self.base, gaps)

    # patterns of the base parameters, and of the noise covariance that users see

    def names_of(self, *, free: bool) -> list[str]:
        """Names of the sources whose sizes are not known, or of all."""
        return [name for part in self.components for name in part.names if part.known is None or not free]

    def base_transition(self) -> Pattern:
        """Pattern of the transition over the base step."""
        n = self.n_states
        constant, names, design = np.zeros((n, n)), [], []
        for component, place in zip(self.components, self._places):
            if component.over is not None:
                constant[place, place] = component.over(np.array([self.base])).transition[0]
                continue
            i = place.start
            for j, name in enumerate(component.root):
                own = np.zeros((n, n))
                if j == 0:
                    own[place, place] = np.eye(place.stop - i)
                else:
                    own[i, i + 1], own[i + 1, i] = 1.0, -1.0
                names.append(name)
                design.append(own)
        return Pattern(tuple(names), constant, np.array(design).reshape(len(names), n, n))

    def diffusion(self) -> Pattern:
        """Pattern of the diffusion."""
        n = self.n_states
        whole = [np.diag(row) for row in self._drives]
        return self._with_known(np.array(whole).reshape(len(whole), n, n))

    def process_cov_pattern(self) -> Pattern:
        """Pattern of the covariance of the noise over the base step."""
        return self._with_known(self.noises())

    def diffusion_of(self, process_cov: Floats | None) -> Floats:
        """Diffusion behind the covariance of the noise over the base step; None where all sizes are known."""
        pattern = self.process_cov_pattern()
        values = np.zeros(0) if process_cov is None else pattern.read(process_cov)
        return self.diffusion().build(values)

    def _with_known(self, whole: Floats) -> Pattern:
        """Pattern of sources (J, n, n), those whose size is known in its constant."""
        n = self.n_states
        sizes = [np.full(len(p.names), np.nan) if p.known is None else p.known for p in self.components]
        known = np.concatenate([*sizes, np.zeros(0)])
        free = np.isnan(known)
        constant = np.tensordot(known[~free], whole[~free], 1) if len(known) else np.zeros((n, n))
        return Pattern(tuple(self.names_of(free=True)), constant, whole[free])

    @property
    def _drives(self) -> Floats:
        """States (J, n) that the sources enter."""
        found = np.zeros((len(self.names_of(free=False)), self.n_states))
        begin = 0
        for component, place in zip(self.components, self._places):
            found[begin : begin + len(component.names), place] = component.drives
            begin += len(component.names)
        return found

    # from the base parameters to those of rows

    def sizes(self, cov: Floats) -> list[Floats]:
        """Sizes (J,) of the sources of each component, from the diffusion."""
        diagonal = np.diag(cov)
        return [
            diagonal[place][component.drives.argmax(1)] if len(component.names) else np.zeros(0)
            for component, place in zip(self.components, self._places)
        ]

    def matrices(self, transition: Floats, cov: Floats) -> tuple[Floats, Floats]:
        """Transition and noise (G, n, n) of each kind of step, from the base transition and the diffusion."""
        n = self.n_states
        A, Q = np.zeros((len(self.gaps), n, n)), np.zeros((len(self.gaps), n, n))
        for component, place, steps, sizes in zip(self.components, self._places, self._steps, self.sizes(cov)):
            if steps is not None:
                A[:, place, place] = steps.transition
                Q[:, place, place] = steps.cov(sizes)
                continue
            grown = growth(self._root(transition, place), self.gaps / self.base)
            for i in range(place.start, place.stop):
                A[:, i, i], Q[:, i, i] = grown.power.real, grown.share * sizes[0]
            if len(component.states) == 2:
                A[:, place.start, place.start + 1] = grown.power.imag
                A[:, place.start + 1, place.start] = -grown.power.imag
        return A, Q

    def _root(self, transition: Floats, place: slice) -> complex:
        i = place.start
        return complex(transition[i, i], transition[i, i + 1] if place.stop - i == 2 else 0.0)

    def out(self, params: LGSSMParams) -> LGSSMParams:
        """Parameters with the dynamics of every step."""
        A, Q = self.matrices(params.transition, params.process_cov)
        picked = (A[0], Q[0]) if self.kinds is None else (A[self.kinds], Q[self.kinds])
        return params._replace(transition=picked[0], process_cov=picked[1])

    def stationary(self, transition: Floats, cov: Floats) -> Floats:
        """Variances (n,) in which decays start; NaN for other states."""
        found = np.full(self.n_states, np.nan)
        for component, place, sizes in zip(self.components, self._places, self.sizes(cov)):
            if component.over is None:
                found[place] = sizes[0] / (1.0 - abs(self._root(transition, place)) ** 2)
        return found

    def rebased(self, transition: Floats, cov: Floats, base: float) -> tuple[Floats, Floats]:
        """Base transition and diffusion for another base step."""
        there = replace(self, gaps=np.array([base]), kinds=None)
        for component, place in zip(self.components, self._places):
            if component.over is None:
                self._check_unit(self._root(transition, place), component.states[0], base)
        A, cov = there.matrices(transition, cov)[0][0], np.array(cov)
        for component, place in zip(self.components, self._places):
            if component.over is None:
                cov[place, place] *= growth(self._root(transition, place), np.array([base / self.base])).share[0]
        return A, cov

    def _check_unit(self, z: complex, state: str, base: float) -> None:
        """Refuse a step over which a decay is over, or a swing cannot be told from a slower one."""
        ratio = base / self.base
        turn, left = abs(np.angle(z)) * ratio, abs(z) ** ratio
        if turn >= np.pi or left < TINY:
            fast = f"swings in {2.0 * np.pi * base / turn:.3g}" if turn >= np.pi else "is forgotten within a fraction"
            raise UnstableDynamicsError(
                f"{state!r} {fast} of a unit of time, over which parameters are stated: take a smaller unit, or scale "
                "numeric times up."
            )

    # and back

    def back(self, base: LGSSMParams, g_A: Floats, g_Q: Floats, entries: Ints | None) -> tuple[Floats, Floats]:
        """Gradients of the base transition and the diffusion from those of the steps at some entries.

        Those of covariances are the symmetric matrices G with ``d log-likelihood = tr(G d cov) / 2``.
        """
        n, kinds = self.n_states, np.zeros(1, np.int64)
        if self.kinds is not None:
            assert entries is not None
            kinds = self.kinds[entries]
        by_A, by_Q = np.zeros((n, n)), np.zeros((n, n))
        sizes = self.sizes(base.process_cov)
        for component, place, steps, size in zip(self.components, self._places, self._steps, sizes):
            g, h = g_A[:, place, place], g_Q[:, place, place]
            if steps is None:
                self._back_root(base, place, (g, h), size[0], kinds, by_A, by_Q)
                continue
            for noise, drives in zip(steps.noises, component.drives):
                total = float(np.einsum("gij,gij->", h, noise[kinds]))
                by_Q[place, place] += np.diag(drives * (total / drives.sum()))
        return by_A, by_Q

    def _back_root(
        self, base: LGSSMParams, place: slice, slopes: tuple[Floats, Floats], size: float, kinds: Ints, by_A: Floats,
        by_Q: Floats,
    ) -> None:  # fmt: skip
        grown = growth(self._root(base.transition, place), self.gaps / self.base)
        g, h = slopes
        i, pair = place.start, place.stop - place.start == 2
        same, noise = np.trace(g, axis1=1, axis2=2), np.trace(h, axis1=1, axis2=2)
        turned = g[:, 0, 1] - g[:, 1, 0] if pair else np.zeros(len(g))
        power, share = grown.slope[kinds], [slope[kinds] for slope in grown.share_slopes]
        real = float(np.sum(same * power.real + turned * power.imag + 0.5 * size * noise * share[0]))
        of_noise = float(np.sum(noise * grown.share[kinds]))
        if not pair:
            by_A[i, i], by_Q[i, i] = real, of_noise
            return
        imaginary = float(np.sum(turned * power.real - same * power.imag + 0.5 * size * noise * share[1]))
        by_A[i, i] = by_A[i + 1, i + 1] = real / 2.0
        by_A[i, i + 1], by_A[i + 1, i] = imaginary / 2.0, -imaginary / 2.0
        by_Q[i, i] = by_Q[i + 1, i + 1] = of_noise / 2.0

    def scatter(self, cov: Floats, g_Q: Floats, n_pairs: int) -> Floats:
        """Expected squares of what drives the states, summed over steps, on the diagonal (n, n) of the diffusion.

        Over a step a source of size q makes the noise of covariance q N, that is q times the sum of r unit shocks,
        r being its rank, whose expected squares are ``q + q^2 tr(G N) / r`` each.
        """
        size, weight = np.diag(cov), np.zeros(len(cov))
        for component, place in zip(self.components, self._places):
            ranks = component.ranks or tuple(int(drives.sum()) for drives in component.drives)
            for drives, rank in zip(component.drives, ranks):
                weight[place] += drives * (drives.sum() / rank)
        return np.diag(size * (n_pairs + size * np.diag(g_Q) * weight))

    def noises(self) -> Floats:
        """Noise (J, n, n) over the base step of each source alone, of size 1."""
        n, found = self.n_states, []
        for component, place in zip(self.components, self._places):
            whole = np.zeros((len(component.names), n, n))
            own = None if component.over is None else component.over(np.array([self.base])).noises[:, 0]
            whole[:, place, place] = [np.diag(drives) for drives in component.drives] if own is None else own
            found.append(whole)
        return np.concatenate([*found, np.zeros((0, n, n))])


def shock_gradients(
    dynamics: tuple[Floats, Floats], kinds: Ints | None, place: Ints, batch: Batch, moments: Sequence[Floats]
) -> tuple[Floats, Ints, int]:
    """Symmetric matrices G (pairs, n, n) with ``d E log p(states) = tr(G dQ) / 2`` for the step after each row.

    Parameters
    ----------
    dynamics
        Transition and noise (G, n, n) of each kind of step.
    kinds, place
        Kind (T,) of each entry, None if there is one; and entry (N,) of each row.
    moments
        Mean (N, n), covariance (N, n, n) and covariance with the next row (N, n, n) of the states given the data.

    Returns
    -------
    tuple
        The matrices, the entry of each, and their number.
    """
    mean, cov, cross = moments
    inside = np.ones(len(batch.y), bool)
    inside[batch.starts[1:] - 1] = False
    here = np.flatnonzero(inside)
    own = np.zeros(len(here), np.int64) if kinds is None else kinds[place[here]]
    A, Q = dynamics[0][own], dynamics[1]
    shock = mean[here + 1] - (A @ mean[here][:, :, None])[:, :, 0]
    linked = A @ cross[here]
    moment = cov[here + 1] - linked - linked.swapaxes(1, 2) + A @ cov[here] @ A.swapaxes(1, 2)
    moment += shock[:, :, None] * shock[:, None, :]
    inverse = np.linalg.pinv(Q, rcond=1e-13, hermitian=True)[own]
    return inverse @ (moment - Q[own]) @ inverse, place[here], len(here)
