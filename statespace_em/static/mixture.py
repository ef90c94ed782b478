"""Finite mixtures: the families of the hidden Markov models on the same engine, without time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Bools, Floats, Ints
from statespace_em.core import Core, Posterior, excerpt
from statespace_em.data import Batch
from statespace_em.domains import Domain, gradient_vector, lifted, n_free, taken, to_vector
from statespace_em.emissions.base import EmissionFamily, HasDomains, HasFloor
from statespace_em.emissions.coordinates import EmissionCoordinates
from statespace_em.emissions.evaluate import (
    column_scale,
    emission_arranged,
    emission_lifted,
    family_statistics,
    guessed_emission,
    log_density,
    params_type,
)
from statespace_em.errors import ImpossibleObservationError, ImpossibleStateError
from statespace_em.families import (
    bound,
    check_constant,
    check_domains,
    check_members,
    check_rows,
    drawn_dataset,
    emission_summary,
    shown_dims,
    suggested_prior,
)
from statespace_em.labels import Dims, Labels, labelled_rows, name_array, state_names
from statespace_em.model import LatentModel
from statespace_em.order import Order, rule
from statespace_em.predictive import rosenblatt
from statespace_em.priors import Dirichlet
from statespace_em.residuals import labelled_residuals
from statespace_em.scale.lazily import chunkwise
from statespace_em.schema import Schema
from statespace_em.start import responsibilities, with_known

N_STARTS = 10


class MixtureParams(NamedTuple):
    """Parameters of a mixture; the fields of ``emission`` are those of the family."""

    weight: Floats  # (K,)
    emission: Any


class MixtureStatistics(NamedTuple):
    """Additive statistics: expected rows of each component, and those of the family."""

    weight: Floats  # (K,)
    emission: Any


@dataclass(frozen=True)
class MixtureCore:
    """E- and M-step of a mixture on plain arrays."""

    family: EmissionFamily[Any, Any]
    weight_prior: Dirichlet
    n_states: int
    frozen: tuple[str, ...] = ()
    scale: Any = 1.0
    order: Order | None = None  # rule of the order of the components

    row_dims: ClassVar[Dims] = {"gamma": ("state",)}
    sum_dims: ClassVar[Dims] = {}

    @cached_property
    def coordinates(self) -> EmissionCoordinates:
        """Coordinates of the emissions."""
        return EmissionCoordinates(self.family, self.scale, self.frozen)

    def _responsibilities(self, params: MixtureParams, batch: Batch) -> tuple[Floats, Floats]:
        """Posterior of the components (N, K) and log density of each row (N,)."""
        with np.errstate(divide="ignore"):
            log_joint = log_density(self.family, params.emission, batch.y) + np.log(params.weight)
        if batch.known is not None:
            elsewhere = (batch.known[:, None] >= 0) & (batch.known[:, None] != np.arange(self.n_states))
            log_joint = np.where(elsewhere, -np.inf, log_joint)
        top = log_joint.max(1)
        if not top.min() > -np.inf:
            row = int(np.argmin(top > -np.inf))
            if batch.known is not None and batch.known[row] >= 0:
                raise ImpossibleStateError(row, int(batch.known[row]))
            raise ImpossibleObservationError(row)
        log_joint -= top[:, None]
        gamma = np.exp(log_joint, out=log_joint)
        total = gamma.sum(1)
        gamma /= total[:, None]
        return gamma, np.log(total) + top

    def e_step(self, params: MixtureParams, data: Batch) -> tuple[MixtureStatistics, float]:
        """Additive statistics and the log-likelihood in nats."""
        gamma, log_rows = self._responsibilities(params, data)
        total = log_rows.sum() if data.weight is None else log_rows @ data.weight
        return self.statistics(params, data, {"gamma": gamma}), float(total)

    def statistics(
        self, params: MixtureParams | None, batch: Batch, posterior: Mapping[str, Floats]
    ) -> MixtureStatistics:
        """Statistics of a given posterior."""
        gamma = posterior["gamma"] if batch.weight is None else posterior["gamma"] * batch.weight[:, None]
        emission = family_statistics(self.family, None if params is None else params.emission, batch.y, gamma)
        return MixtureStatistics(gamma.sum(0), emission)

    def m_step(self, statistics: MixtureStatistics, previous: MixtureParams | None) -> MixtureParams:
        """Dirichlet mode for the weights, the family's own M-step for the rest; frozen blocks stay."""
        old = MixtureParams(None, None) if previous is None else previous  # type: ignore[arg-type]
        weight = old.weight if "weight" in self.frozen else self.weight_prior.mode(statistics.weight, old.weight)
        if set(self.family.dims) <= set(self.frozen):
            return MixtureParams(weight, old.emission)
        return MixtureParams(weight, self.family.m_step(statistics.emission, old.emission))

    def log_prior(self, params: MixtureParams) -> float:
        """Log prior density in nats, without constants."""
        return self.weight_prior.log_density(params.weight) + self.family.log_prior(params.emission)

    def to_vector(self, params: MixtureParams, reference: MixtureParams) -> Floats | None:
        """Unconstrained coordinates of what is not frozen."""
        emission = self.coordinates.to_vector(params.emission, reference.emission)
        if emission is None or "weight" in self.frozen:
            return emission
        return np.concatenate([to_vector(params.weight, reference.weight, "simplex"), emission])

    def from_vector(self, vector: Floats, reference: MixtureParams) -> MixtureParams:
        """Inverse of `to_vector`."""
        weight = reference.weight
        if "weight" not in self.frozen:
            weight, vector = taken(vector, weight, "simplex")
        return MixtureParams(weight, self.coordinates.from_vector(vector, reference.emission))

    def gradient(self, params: MixtureParams, batch: Batch, reference: MixtureParams) -> Floats:
        """Score, the gradient of the log-likelihood, in the coordinates of `to_vector` (Fisher's identity)."""
        gamma = self._responsibilities(params, batch)[0]
        gamma = gamma if batch.weight is None else gamma * batch.weight[:, None]
        emission = self.coordinates.score(params.emission, batch.y, gamma, reference.emission)
        if "weight" in self.frozen:
            return emission
        ratio = np.divide(gamma.sum(0), params.weight, out=np.zeros_like(params.weight), where=params.weight > 0.0)
        return np.concatenate([gradient_vector(ratio, params.weight, reference.weight, "simplex"), emission])

    @property
    def domains(self) -> Mapping[str, Domain]:
        """Domain of each parameter of a family that states them."""
        simplex: Domain = "simplex"
        return {"weight": simplex, **(self.family.domains if isinstance(self.family, HasDomains) else {})}

    def lifted(self, params: MixtureParams, image: MixtureParams) -> MixtureParams | None:
        """Probabilities raised that are next to zero but grow under EM; None if none do."""
        weight = lifted(params.weight, image.weight)
        emission = emission_lifted(self.family, params.emission, image.emission)
        if weight is None and emission is None:
            return None
        return MixtureParams(
            params.weight if weight is None else weight, params.emission if emission is None else emission
        )

    def starts(
        self, batch: Batch, n_starts: int, rng: np.random.Generator, given: Mapping[str, Floats]
    ) -> Iterator[MixtureParams]:
        """One M-step on each guess of the responsibilities."""
        batch = excerpt(batch)
        category = self.family.support == "category"
        guesses = responsibilities(batch.y, batch.first, self.n_states, n_starts, category=category, rng=rng)
        for gamma in guesses:
            if batch.known is not None:
                gamma = with_known(gamma, batch.known)
            if batch.weight is not None:
                gamma = gamma * (batch.weight / batch.weight.mean())[:, None]
            yield MixtureParams(gamma.mean(0), guessed_emission(self.family, batch.y, gamma))

    def posterior(self, params: MixtureParams, batch: Batch, *, pairs: bool) -> Posterior:
        """Posterior of every row; there are no pairs to sum."""
        gamma, log_rows = self._responsibilities(params, batch)
        return Posterior({"gamma": (("state",), gamma)}, {}, np.add.reduceat(log_rows, batch.starts[:-1]))

    def flatten(self, params: MixtureParams) -> dict[str, Floats]:
        """Parameters by name."""
        return {
            "weight": params.weight,
            **{name: getattr(params.emission, name) for name in self.family.dims},
        }

    def build(self, arrays: Mapping[str, Floats]) -> MixtureParams:
        """Inverse of `flatten`."""
        names = tuple(self.family.dims)
        return MixtureParams(arrays["weight"], params_type(names)(*(arrays[n] for n in names)))

    def degenerate(self, params: MixtureParams, statistics: MixtureStatistics) -> Bools:
        """Components at the floor of the family, if it has one."""
        if isinstance(self.family, HasFloor):
            return self.family.at_floor(params.emission, statistics.emission)
        return np.zeros(self.n_states, bool)

    def order_of(self, params: MixtureParams, label: Callable[[], xr.Dataset]) -> Ints:
        """Permutation by the rule of the model; the identity without one."""
        return np.arange(self.n_states) if self.order is None else self.order(self.family, params, label)

    def arranged(self, params: MixtureParams, order: Ints) -> MixtureParams:
        """Components in this order."""
        return MixtureParams(params.weight[order], emission_arranged(self.family, params.emission, order))

    def n_free(self, params: MixtureParams) -> int:
        """Free parameters; frozen blocks do not count."""
        count = self.coordinates.n_free(params.emission)
        return count + (0 if "weight" in self.frozen else n_free(params.weight, "simplex"))


@dataclass(eq=False, repr=False)
class Mixture(LatentModel):
    """Finite mixture of any family: rows are independent, their order does not matter.

    Parameters
    ----------
    states
        Number of components, or their names.
    emission
        Family of p(y | component), see `statespace_em.emissions.EmissionFamily`.
    weight_prior
        Dirichlet prior on the weights; flat by default.
    order_by
        Order of the components after a fit without ``start``, see `HMM`: "mean", "variance" (upwards), one of them
        with a column, a function, or None (as they fell).
    unsorted
        "error" or "sort": what to do with timestamps that do not increase.

    Examples
    --------
    >>> import statespace_em as sse
    >>> waiting = sse.datasets.old_faithful(table="haerdle")["waiting"]
    >>> mixture = sse.Mixture(["short", "long"], sse.emissions.Gaussian(), order_by="mean").fit(waiting)
    >>> mixture.params_["mean"].values.ravel().round(3).tolist()
    [54.615, 80.091]
    """

    takes_states: ClassVar[bool] = True

    states: int | Sequence[Any]
    emission: EmissionFamily[Any, Any]
    _: KW_ONLY
    weight_prior: Dirichlet = Dirichlet()
    order_by: Any = None
    unsorted: Literal["error", "sort"] = "error"

    def sample(self, n_rows: int, params: xr.Dataset | None = None, *, seed: int | None = None) -> xr.Dataset:
        """Draw rows: ``state`` (time,), the name of the component, and ``y`` (time, feature)."""
        _validate.at_least("n_rows", n_rows, 1, whole=True)
        known, rng = self._known(params), _validate.generator(seed)
        tree = self._core(n_symbols=known.sizes.get("symbol")).build(self._schema().arrays(known))
        states = rng.choice(len(tree.weight), size=n_rows, p=tree.weight / tree.weight.sum())
        y = self.emission.sample(tree.emission, states, rng)
        return drawn_dataset(name_array(self._names())[states], y, known)

    @chunkwise
    def decode(
        self, y: Any, params: xr.Dataset | None = None, *, states: Any = None, weights: Any = None
    ) -> xr.DataArray:
        """Most probable component of each row, by name; ``states`` and ``weights`` as in `e_step`.

        The coordinate ``log_prob`` ([sequence]) is the log joint probability of these components and y, in nats.
        """
        posterior = self.e_step(y, params, states=states, weights=weights)
        gamma = posterior["gamma"]
        best = xr.ufuncs.log(gamma.max("state")).sum(gamma.dims[-2])
        decoded = gamma.fillna(-1.0).idxmax("state").where(gamma.notnull().all("state")).rename("state")
        return decoded.assign_coords(log_prob=posterior["log_likelihood"] + best)

    def residuals(self, y: Any, params: xr.Dataset | None = None, *, seed: int = 0) -> xr.Dataset:
        """Where each entry fell in its distribution given the entries before it in its row (Rosenblatt 1952).

        Returns
        -------
        xarray.Dataset
            ``pit`` ([sequence,] time, feature), uniform under the model, and ``residual``, its normal score; NaN
            where y is missing. For counts and symbols a uniform draw of this seed spreads each jump.
        """
        _, tree, batch, labels, _ = self._prepare(y, params)
        weight = np.broadcast_to(tree.weight, (len(batch.y), len(tree.weight)))
        with labelled_rows(labels):
            predictive = rosenblatt(self.emission, tree.emission, batch.y, weight)
        return labelled_residuals(predictive, batch, labels, seed)

    def summary(self) -> pd.DataFrame:
        """Parameters of the fit, one row a component: ``weight``, then the emissions."""
        params = self._known(None)
        table = pd.DataFrame({"weight": params["weight"].values}, index=pd.Index(self._names(), name="state"))
        return emission_summary(params, table)

    def _names(self) -> list[Any]:
        return state_names(self.states)

    def _support(self) -> str:
        return check_members(self.emission).support

    def _schema(self) -> Schema:
        names = self._names()
        check_members(self.emission)

        def dims(n_features: int | None) -> Dims:
            return {"weight": ("state",), **shown_dims(self.emission, n_features)}

        def check(arrays: Mapping[str, Floats]) -> None:
            if "weight" in arrays:
                _validate.simplex("weight", arrays["weight"], names)
            check_domains(self.emission, arrays, names)

        return Schema(names, dims, check)

    def _core(
        self,
        *,
        n_symbols: int | None = None,
        freeze: Sequence[str] = (),
        batch: Batch | None = None,
        given: Collection[str] | None = None,
    ) -> Core:
        return MixtureCore(
            bound(self.emission, n_symbols, freeze),
            self.weight_prior,
            len(self._names()),
            tuple(freeze),
            1.0 if batch is None or given is None else column_scale(batch.y),  # asked for in fits only
            rule(self.order_by, self._support(), words=("mean", "variance")),
        )

    def _check_data(self, batch: Batch, labels: Labels, freeze: Sequence[str]) -> None:
        check_rows(batch, len(self._names()))
        check_constant(bound(self.emission, None, freeze), batch.y, list(labels.features))

    def _default_starts(self) -> int:
        return 1 if len(self._names()) == 1 else N_STARTS

    def _suggest_prior(self, batch: Batch) -> str:
        return suggested_prior("Mixture", self.emission, batch.y)
