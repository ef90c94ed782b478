"""The array side of a model: what `LatentModel` labels and `run_em` climbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from statespace_em import em
from statespace_em._typing import AnyArray, Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.labels import Dims
from statespace_em.shared import SharedRows

Rows = dict[str, tuple[tuple[str, ...], AnyArray | SharedRows]]


class Posterior(NamedTuple):
    """Result of an E-step before it is labelled."""

    rows: Rows  # name: (dims after time, values with one entry a row)
    sums: Rows  # name: (dims, value), summed over rows
    log_likelihood: Floats  # (S,), nats


class Core(em.EMModel[Any, Batch, Any], Protocol):
    """The array side of a model: an `EMModel` that also offers starts and whole posteriors."""

    row_dims: ClassVar[Dims]  # variables of the posterior that `statistics` needs, with their dims after time
    sum_dims: ClassVar[Dims]  # and those it needs summed over time

    def starts(
        self, batch: Batch, n_starts: int, rng: np.random.Generator, given: Mapping[str, Floats]
    ) -> Iterator[Any]:
        """Parameters to start from; ``given`` are those that the user starts at."""
        ...

    def posterior(self, params: Any, batch: Batch, *, pairs: bool) -> Posterior:
        """Posterior of every row; without ``pairs`` only the sum of those."""
        ...

    def statistics(self, params: Any, batch: Batch, posterior: Mapping[str, Floats]) -> Any:
        """Additive statistics from posterior arrays, as `e_step` would have made them."""
        ...

    def flatten(self, params: Any) -> dict[str, Floats]:
        """Parameters as named arrays."""
        ...

    def build(self, arrays: Mapping[str, Floats]) -> Any:
        """Inverse of `flatten`."""
        ...

    def degenerate(self, params: Any, statistics: Any) -> Bools:
        """Which states (K,) head for a likelihood without bound."""
        ...

    def order_of(self, params: Any, label: Callable[[], xr.Dataset]) -> Ints:
        """Permutation (K,) that puts the states in their stated order; ``label`` labels these parameters."""
        ...

    def arranged(self, params: Any, order: Ints) -> Any:
        """The same parameters with the states in this order."""
        ...

    def n_free(self, params: Any) -> int:
        """Number of free parameters."""
        ...


ENOUGH = 1_000_000  # rows from which to guess where to start
STRETCH = 50_000  # rows of each stretch of time that the guess looks at


def excerpt(batch: Batch) -> Batch:
    """Stretches of a very long batch, evenly spread, each a sequence of its own: enough to guess a start from."""
    n_rows = len(batch.y)
    if n_rows <= ENOUGH:
        return batch
    begins = np.linspace(0, n_rows - STRETCH, ENOUGH // STRETCH).astype(np.int64)
    rows = (begins[:, None] + np.arange(STRETCH)).ravel()
    first = batch.first[rows]
    first[::STRETCH] = True
    starts = np.append(np.flatnonzero(first), len(rows))
    sequence = np.searchsorted(batch.starts, rows[starts[:-1]], side="right") - 1
    return batch.take(rows, starts, sequence)


@runtime_checkable
class HasGradient(Protocol):
    """A core that knows the score: the gradient of the log-likelihood."""

    def gradient(self, params: Any, batch: Batch, reference: Any) -> Floats:
        """Gradient in nats, in the coordinates of ``to_vector``, without the prior."""
        ...


@runtime_checkable
class HasShift(Protocol):
    """A core that may work on data less their middle, in parameters for these."""

    def unshifted(self) -> Core:
        """Return the core whose named arrays are those that this one works with."""
        ...


@runtime_checkable
class HasLikelihood(Protocol):
    """A core whose log-likelihood takes less than an E-step."""

    def log_likelihood(self, params: Any, data: Batch) -> float:
        """Log-likelihood in nats, as `e_step` finds it."""
        ...


@runtime_checkable
class HasDerived(Protocol):
    """A core whose parameters determine other quantities of interest."""

    def derived(self, params: Any) -> dict[str, Floats]:
        """Quantities (K,) by name."""
        ...

    def fixed(self, name: str, like: Bools) -> Bools:
        """Which entries of a parameter the structure of the model fixes; of the shape of ``like``."""
        ...


class Limit(NamedTuple):
    """What is at a limit of the parameters, such as a unit root, at which the likelihood is highest."""

    params: Any  # so far from the limit that differences are exact, so near that nothing else changes
    held: Bools  # (M,), coordinates of ``to_vector`` that stay there
    shrinking: Mapping[str, Bools]  # entries of parameters that go to 0
    values: Mapping[str, tuple[bool, str]]  # values by name: whether they still move, and which limit it is


@runtime_checkable
class HasLimits(Protocol):
    """A core whose likelihood may be highest at a limit of its parameters."""

    def limit(self, params: Any, batch: Batch) -> Limit:
        """What is at a limit; ``params`` as they are where nothing is."""
        ...


@runtime_checkable
class HasProfiled(Protocol):
    """A core with parameters that are not among its coordinates: they have a best value given the others."""

    def profiled_errors(self, information: Any, batch: Batch) -> dict[str, Floats]:
        """Standard errors of these by name, NaN where an entry is not one of them."""
        ...
