"""What a family p(y | state) must supply to be used in a mixture, a hidden Markov model or anything else here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.domains import Domain

Q = TypeVar("Q")
S = TypeVar("S")
Q_contra = TypeVar("Q_contra", contravariant=True)
S_contra = TypeVar("S_contra", contravariant=True)
Support: TypeAlias = Literal["real", "count", "category", "angle", "positive"]


class EmissionFamily(Protocol[Q, S]):
    """A distribution of one row of y given the state; K states, D features, N rows.

    Parameters and statistics are NamedTuples of arrays; the fields of the parameters are the keys of ``dims``.
    The M-step contract is weighted maximum likelihood (or MAP) on statistics that add up over rows. A dataclass with a
    field ``frozen`` is told which parameters to leave alone, one with ``ties`` which of them some states share, see
    `DiagonalGaussian`; without it states share whole emissions only.
    """

    @property
    def support(self) -> Support:
        """What an entry of y may be; decides how data are read and checked ("angle": any real number)."""
        ...

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Dimension names of each parameter, in the order of the axes: ``{"rate": ("state", "feature")}``."""
        ...

    def log_prob(self, params: Q, y: Floats) -> Floats:
        """Log density (N, K) in nats; missing entries (NaN) integrated out, so that an empty row gives 0.

        Quickest for the models where it is the transpose of a contiguous array (K, N), as the weights they pass are.
        """
        ...

    def statistics(self, params: Q | None, y: Floats, weights: Floats) -> S:
        """Additive statistics of rows with weights (N, K); ``params`` is None before the first M-step."""
        ...

    def m_step(self, statistics: S, previous: Q | None) -> Q:
        """Maximise the expected log likelihood plus log prior; ``previous`` are the params of the statistics."""
        ...

    def log_prior(self, params: Q) -> float:
        """Log prior density in nats; 0.0 when flat."""
        ...

    def sample(self, params: Q, states: Ints, rng: np.random.Generator) -> Floats:
        """Draw y (N, D) given states (N,)."""
        ...

    def marginals(self, params: Q) -> Any:
        """Frozen scipy.stats distribution over (K, D): cdf, ppf, mean, var of each entry of y."""
        ...


@runtime_checkable
class HasDomains(Protocol):
    """A family may also state the domain of each parameter: fits are then accelerated and starts checked."""

    @property
    def domains(self) -> Mapping[str, Domain]:
        """Domain of each parameter, see `statespace_em.domains`."""
        ...


@runtime_checkable
class HasFloor(Protocol[Q_contra, S_contra]):
    """A family whose likelihood may be unbounded says whether it is, and which states head for the boundary."""

    @property
    def bounded(self) -> bool:
        """Whether a prior or frozen parameters keep the likelihood finite."""
        ...

    def at_floor(self, params: Q_contra, statistics: S_contra) -> Bools:
        """Whether each state (K,) has run into the floor that keeps the likelihood finite."""
        ...


@runtime_checkable
class HasPrepared(Protocol[Q_contra]):
    """A family may work out once what the density of every row needs: streams are then quicker."""

    def prepared(self, params: Q_contra) -> Callable[[Floats], Floats]:
        """Return the log density (K,) of one row (D,) as a function of the row, to the bit that of `log_prob`."""
        ...


@runtime_checkable
class HasMoments(Protocol[Q_contra]):
    """A family may give the moments of its `marginals` without scipy.stats, which takes longer to import than a fit."""

    def moments(self, params: Q_contra) -> tuple[Floats, Floats]:
        """Mean and variance (K, D) of each entry of y."""
        ...


@runtime_checkable
class HasConditionals(Protocol[Q_contra]):
    """A family whose entries depend on each other given the state must say how, for residuals of several columns."""

    def conditionals(self, params: Q_contra, y: Floats) -> Any:
        """Frozen scipy.stats distribution over (N, K, D): of each entry given those seen before it in its row."""
        ...


@runtime_checkable
class HasScore(Protocol[Q_contra, S_contra]):
    """A family may also know its score: standard errors are then exact and quick."""

    def score(self, params: Q_contra, statistics: S_contra) -> Mapping[str, Floats]:
        """Gradient of the expected log likelihood at the parameters that the statistics were made with.

        One array a parameter, in nats per unit of it; for a covariance the symmetric G with d objective = tr(G d cov).
        """
        ...


def filled(y: Floats) -> tuple[Floats, Bools]:
    """Return y with 0 in place of NaN, and where it is seen."""
    seen = ~np.isnan(y)
    return np.where(seen, y, 0.0), seen


def by_state(weights: Floats) -> Floats:
    """Weights (N, K) state by state (K, N), as kernels want them; no copy of what has been made so."""
    return np.ascontiguousarray(weights.T)
