"""The array side of the linear-Gaussian state-space model: what `LatentModel` labels and the EM loop climbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.core import Limit, Posterior
from statespace_em.data import Batch
from statespace_em.errors import ParameterError
from statespace_em.labels import Dims
from statespace_em.patterns import Pattern
from statespace_em.priors import InverseWishart, MatrixNormal
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence import lgssm_boundary, lgssm_walls
from statespace_em.sequence.decays import Decay
from statespace_em.sequence.exact_recursion import follows_its_past, takes_for_exact
from statespace_em.sequence.flow import Flow
from statespace_em.sequence.identifiable_basis import has_free_units, n_unidentified
from statespace_em.sequence.lgssm_chart import SquareChart, scales
from statespace_em.sequence.lgssm_diffuse import beginning
from statespace_em.sequence.lgssm_expectation import Plan, Statistics, e_step, flowed, log_likelihood, planned
from statespace_em.sequence.lgssm_filter import innovation_covariances
from statespace_em.sequence.lgssm_fixed_start import first_state_errors
from statespace_em.sequence.lgssm_guesses import FEW, Free, guesses
from statespace_em.sequence.lgssm_loading import loaded
from statespace_em.sequence.lgssm_mstep import SIDES, coefficients, m_step
from statespace_em.sequence.lgssm_pairs import pair_moments, pair_sums
from statespace_em.sequence.lgssm_params import DOMAINS, INPUTS, LGSSMParams, varies
from statespace_em.sequence.lgssm_passes import Smoothed
from statespace_em.sequence.lgssm_posterior import posterior_sums
from statespace_em.sequence.lgssm_priors import SidePrior
from statespace_em.sequence.lgssm_resolution import resolution
from statespace_em.sequence.lgssm_row_checks import going_on, values_of_rows
from statespace_em.sequence.lgssm_shift import LOCATIONS, Shift
from statespace_em.sequence.lgssm_smoother import smooth
from statespace_em.sequence.lgssm_stationary import undamped
from statespace_em.sequence.lgssm_structure import STEPS, Structure, canonical, first_row, structure_for

__all__ = ["DOMAINS", "LGSSMCore", "LGSSMParams"]


@dataclass(frozen=True)
class LGSSMCore:
    """E- and M-step of a linear-Gaussian state-space model on plain arrays."""

    n_states: int
    frozen: tuple[str, ...]  # parameters that the M-step leaves alone
    process_prior: InverseWishart = InverseWishart()
    measurement_prior: InverseWishart = InverseWishart()
    tied: bool = False  # initial_cov is process_cov; it counts as frozen
    patterns: Mapping[str, Pattern | RowPattern] = field(default_factory=dict)  # of what is neither frozen nor "free"
    varying: Mapping[str, Floats] = field(default_factory=dict)  # fixed values with an entry for every row
    loadings: Mapping[str, Floats] = field(default_factory=dict)  # of process_cov and measurement_cov
    fixed: Bools | None = None  # states (n,) whose first value is fixed but unknown
    stationary: Bools | None = None  # states (n,) that start in their stationary distribution
    likelihood: str = "diffuse"  # convention where the start is diffuse
    guesses: Mapping[str, Sequence[float]] = field(default_factory=dict)  # first values by name, one a start
    flow: Flow | None = None  # of the dynamics of each step, where the parameters are its own; see `e_step`
    input_scale: Floats | None = None  # (k,), size of the inputs
    coefficient_priors: tuple[MatrixNormal, MatrixNormal] = (MatrixNormal(), MatrixNormal())  # of [A b B] and [C d D]
    columns: tuple[Ints | None, Ints | None] = (None, None)  # of the coefficients that these are of

    meant: Callable[[Mapping[str, float]], dict[str, float]] | None = None  # see `Specification`
    decays: tuple[Decay, ...] = ()  # of states that start stationary
    shift: Shift | None = None  # of data far from 0: all but `flatten`, `build` and data is of data less their middle

    _planned: list[Any] = field(default_factory=list, repr=False, compare=False)  # the last batch, shifted; its plan
    _made: dict[Any, Structure] = field(default_factory=dict, repr=False, compare=False)  # structures by shapes

    row_dims: ClassVar[Dims] = {
        "gamma": ("state",),
        "cov": ("state", "state_aux"),
        "cross_cov": ("state", "next_state"),
    }
    sum_dims: ClassVar[Dims] = {}

    def structure(self, params: LGSSMParams) -> Structure:
        """Return what is free in parameters of these shapes."""
        shapes = tuple(np.shape(value) for value in params._asdict().values())
        if shapes not in self._made:
            self._made[shapes] = structure_for(
                params, self.patterns, self.frozen, self.loadings, tied=self.tied, unknown=self.fixed,
                stationary=self.stationary, input_scale=self.input_scale, decays=self.decays,
            )  # fmt: skip
        return self._made[shapes]

    def e_step(self, params: LGSSMParams, data: Batch, *, moments: bool | None = None) -> tuple[Statistics, float]:
        """Additive statistics and the log-likelihood in nats; ``moments`` None: of states if steps need these."""
        structure, (data, plan) = self.structure(params), self._prepared(params, data)
        wanted = structure.asks_moments if moments is None else moments
        known = self.fixed, self.likelihood, self.flow, structure.of_batch(params, data), plan
        return e_step(params, data, structure.blocks, *known, moments=wanted)

    def log_likelihood(self, params: LGSSMParams, data: Batch) -> float:
        """Log-likelihood in nats, as `e_step` finds it."""
        data, plan = self._prepared(params, data)
        return log_likelihood(params, data, self.fixed, self.likelihood, self.flow, plan)

    def _prepared(self, params: LGSSMParams, data: Batch) -> tuple[Batch, Plan]:
        """Data as E-steps take them, and how these go through them, found once for all that follow each other."""
        known = self._planned[-1] if self._planned else None
        if known is None or known[0] is not data.y or known[1] is not data.starts:
            known = data.y, data.starts, self._around(data).y, planned(flowed(params, self.flow), data)
            self._planned[:] = [known]
        return data._replace(y=known[2]), known[3]

    def _around(self, data: Batch) -> Batch:
        """Data less their middle, if they are far from 0."""
        return data if self.shift is None else self.shift.centred(data)

    def resolution(self, params: LGSSMParams, statistics: Statistics) -> float:
        """Nats by which the log-likelihood may be off, see `statespace_em.sequence.lgssm_resolution`."""
        return resolution(flowed(params, self.flow), statistics)

    def m_step(self, statistics: Statistics, previous: LGSSMParams) -> LGSSMParams:
        """Maximise the expected log joint plus log prior over what is free."""
        structure = self.structure(previous)
        return m_step(structure, statistics, previous, *self._priors)

    def settled(self, params: LGSSMParams, statistics: Statistics) -> LGSSMParams:
        """Parameters with the first mean that the statistics were computed at."""
        return params if statistics.start is None else params._replace(initial_mean=statistics.start)

    def log_prior(self, params: LGSSMParams) -> float:
        """Log prior density in nats, without constants."""
        noises, density = self.structure(params).noises, 0.0
        for (*names, cov), prior in zip(SIDES, self._priors):
            noise = noises[cov]
            if prior.is_silent:
                continue
            try:
                if noise.by_row:
                    density += noise.log_density(self.structure(params).kinds_of(cov, params), prior.noise)
                    continue
                density += prior.log_density(noise, *self._side(params, names, cov))
            except ParameterError as error:
                raise ParameterError(f"{cov}: {error}") from None
        return density

    def to_vector(self, params: LGSSMParams, reference: LGSSMParams) -> Floats | None:
        """Coordinates of what is free; a covariance that is singular in the reference keeps its null space."""
        return self.structure(reference).to_vector(params, reference)

    def from_vector(self, vector: Floats, reference: LGSSMParams) -> LGSSMParams:
        """Inverse of `to_vector`."""
        return self.structure(reference).from_vector(vector, reference)

    def score_vector(self, params: LGSSMParams, statistics: Statistics, reference: LGSSMParams) -> Floats:
        """Gradient of the objective in the coordinates of `to_vector`.

        Raises
        ------
        numpy.linalg.LinAlgError
            If a covariance is singular.
        """
        return self.structure(reference).pull_back(self._gradients(params, statistics), params, reference)

    def _gradients(self, params: LGSSMParams, statistics: Statistics) -> dict[str, Floats]:
        """Gradient of the objective by parameter and entry; twice that for covariances."""
        structure = self.structure(params)
        if statistics.gradients is None:
            raise ParameterError("these statistics were made of a posterior, which does not carry the score.")
        gradients = structure.entry_gradients(statistics.gradients, params)
        for (*names, cov), prior in zip(SIDES, self._priors):
            noise = structure.noises[cov]
            if prior.is_silent:
                continue
            if noise.by_row:
                gradients[cov] = gradients[cov] + noise.prior_gradient(structure.kinds_of(cov, params), prior.noise)
                continue
            moved, spread = prior.gradients(noise, *self._side(params, names, cov))
            gradients[cov] = gradients[cov] + spread
            n = self.n_states
            for name, part in zip(names, (moved[:, :n], moved[:, n], moved[:, n + 1 :])):
                if getattr(params, name) is not None and not varies(params, name):
                    gradients[name] = gradients[name] + part
        return gradients

    @property
    def _priors(self) -> tuple[SidePrior, SidePrior]:
        """Priors of the states' side and of the measurements'."""
        noises = self.process_prior, self.measurement_prior
        process, measurement = map(SidePrior, noises, self.coefficient_priors, self.columns)
        return process, measurement

    def _side(self, params: LGSSMParams, names: list[str], cov: str) -> tuple[Floats, Floats, int]:
        """Noise covariance, coefficients side by side, and number of states, as priors take them."""
        value = getattr(params, cov)
        effects = [getattr(params, name) for name in INPUTS if getattr(params, name) is not None]
        width = self.n_states + 1 + (effects[0].shape[1] if effects else 0)
        matrix, offset, inputs = names
        return value, coefficients(params, (matrix, offset, inputs), value.shape[-1], width), self.n_states

    def chart(self, params: LGSSMParams, statistics: Statistics, start: LGSSMParams) -> SquareChart:
        """Coordinates by roots of the covariances, smooth where one is singular."""
        structure, silent = self.structure(params), all(prior.is_silent for prior in self._priors)
        units = scales(flowed(params, self.flow), statistics) if structure.asks_moments else None
        return SquareChart(structure, params, units, self._begun(params, start), self._gradients, silent)

    def _begun(self, params: LGSSMParams, start: LGSSMParams) -> LGSSMParams:
        """Start whose disturbances of decays are as if these had the variance of the states that they had."""
        return lgssm_walls.begun(self.structure(params), params, start)

    def is_singular(self, params: LGSSMParams, start: LGSSMParams) -> bool:
        """Whether a free covariance is singular, or next to it, and was not at the start."""
        return lgssm_boundary.is_singular(self.structure(params), params, self._begun(params, start))

    def unbounded(self, params: LGSSMParams, data: Batch) -> bool:
        """Whether some row is predicted without error."""
        return lgssm_boundary.predicts_exactly(flowed(params, self.flow), data)

    def explained(self, params: LGSSMParams, data: Batch) -> bool:
        """Whether y follows its own past without error, and the parameters say so."""
        data = self._around(data)
        if not follows_its_past(data, self.n_states):
            return False
        return takes_for_exact(innovation_covariances(flowed(params, self.flow), data), data)

    def onto_faces(self, params: LGSSMParams, start: LGSSMParams) -> Iterator[LGSSMParams]:
        """Parameters with small variances at exactly 0, or with roots on the unit circle."""
        structure = self.structure(params)
        yield from lgssm_boundary.onto_faces(structure, params, self._begun(params, start))
        yield from lgssm_walls.onto_walls(structure, params)

    def off_faces(self, params: LGSSMParams, statistics: Statistics, start: LGSSMParams) -> Iterator[LGSSMParams]:
        """Parameters with variances raised that are next to 0, or roots moved inside, that do not belong there."""
        if statistics.gradients is None:
            return
        structure, slopes = self.structure(params), self._gradients(params, statistics)
        yield from lgssm_boundary.off_faces(structure, params, slopes, self._begun(params, start))
        yield from lgssm_walls.off_walls(structure, params)

    def is_limit(self, params: LGSSMParams) -> bool:
        """Whether states that start stationary hardly decay: that start has a limit where their noise vanishes."""
        return self.stationary is not None and bool(undamped(first_row(params, "transition"), self.stationary))

    def limit(self, params: LGSSMParams, batch: Batch) -> Limit:
        """What is at a limit: roots on the unit circle, and what vanishes with the decay."""
        return lgssm_walls.limit(self.structure(params), params, lambda there: self.log_likelihood(there, batch))

    def steps_are_exact(self) -> bool:
        """Whether dynamics have an M-step: not where they also determine a stationary start."""
        return self.stationary is None

    def left_to_score(self) -> list[str]:
        """Parameters with free values that no M-step moves: products, decays over uneven steps, stationary breaks."""
        moving = {name: pattern for name, pattern in self.patterns.items() if pattern.names and name not in self.frozen}
        bent = [name for name, pattern in moving.items() if isinstance(pattern, Pattern) and pattern.products]
        if self.flow is not None and "transition" in moving:
            bent.append("transition")
        rows = {*self.varying, *(name for name, own in self.patterns.items() if isinstance(own, RowPattern))}
        if self.stationary is not None and rows & set(STEPS):
            bent += [name for name in STEPS if name in moving]
        return bent

    def at_zero(self, params: LGSSMParams) -> list[str]:
        """Names of the free variances that are exactly 0."""
        return lgssm_boundary.at_zero(self.structure(params), params)

    def vanished(self, params: LGSSMParams, start: LGSSMParams) -> dict[str, Floats]:
        """Directions (p, k) in which a free covariance has no variance but had some at the start."""
        structure = self.structure(params)
        found = lgssm_boundary.vanished(structure, params, self._begun(params, start))
        still = lgssm_walls.undecaying(structure, params)
        return found | ({"transition": np.eye(self.n_states)[:, still]} if still.any() else {})

    def starts(
        self, batch: Batch, n_starts: int, rng: np.random.Generator, given: Mapping[str, Floats]
    ) -> Iterator[LGSSMParams]:
        """Guesses, see `statespace_em.sequence.lgssm_guesses`."""
        free = Free(
            self.n_states, self.frozen, self.patterns, self.varying, self.loadings, self.guesses, self.flow,
            self.stationary is not None,
        )  # fmt: skip
        moved = self.shift is not None and LOCATIONS.isdisjoint(given)  # else there are values for y as it is
        few, shown = beginning(batch, FEW), self._around(batch) if moved else batch

        def told(values: Mapping[str, Any]) -> LGSSMParams:
            guess = self.structure(LGSSMParams(**values)).complete(values)
            return guess if self.shift is None or moved else self.shift.to_centred(guess)

        found = guesses(
            free, shown, n_starts, rng, given,
            lambda values: self.log_likelihood(params := told(values), few) + self.log_prior(params),
        )  # fmt: skip
        yield from map(told, found)

    def posterior(self, params: LGSSMParams, batch: Batch, *, pairs: bool) -> Posterior:
        """Posterior of every row."""
        smoothed, log_likelihood = smooth(flowed(params, self.flow), batch, self.likelihood)
        mean, cov, cross_cov = smoothed
        square, pair_dims = ("state", "state_aux"), ("state", "next_state")
        rows = {"gamma": (("state",), mean), "cov": (square, cov), "cross_cov": (pair_dims, cross_cov)}
        if pairs:
            return Posterior(rows | {"xi": (pair_dims, pair_moments(smoothed))}, {}, log_likelihood)
        return Posterior(rows, {"xi": (pair_dims, pair_sums(smoothed, batch.first))}, log_likelihood)

    def statistics(self, params: LGSSMParams | None, batch: Batch, posterior: Mapping[str, Floats]) -> Statistics:
        """Statistics of a given posterior."""
        if params is None:
            raise ParameterError("this M-step needs the parameters that the posterior was made with: pass params=.")
        moments = (np.ascontiguousarray(posterior[name]) for name in ("gamma", "cov", "cross_cov"))
        structure = self.structure(params)
        return posterior_sums(params, batch, Smoothed(*moments), structure.blocks, structure.of_batch(params, batch))

    def flatten(self, params: LGSSMParams) -> dict[str, Floats]:
        """Parameters of y by name; an offset that the model does not have is left out."""
        params = params if self.shift is None else self.shift.from_centred(params)
        absent = [
            name
            for name, own in zip(("state_offset", "observation_offset"), self.columns)
            if name in self.frozen and not getattr(params, name).any() and (own is None or self.n_states not in own)
        ]
        return {name: value for name, value in params._asdict().items() if name not in absent and value is not None}

    def build(self, arrays: Mapping[str, Floats]) -> LGSSMParams:
        """Inverse of `flatten`; offsets may be left out."""
        constants = {
            name: loaded(pattern.constant, self.loadings.get(name))
            for name, pattern in self.patterns.items()
            if isinstance(pattern, Pattern) and not pattern.names
        }
        values = {**constants, **self.varying, **arrays, **going_on(self.varying, arrays)}
        for name, pattern in self.patterns.items():
            if isinstance(pattern, RowPattern) and name in values:
                values[name] = values_of_rows(pattern, values[name], self.loadings.get(name))
        zero = {
            "state_offset": np.zeros(self.n_states),
            "observation_offset": np.zeros(values["observation"].shape[-2]),
        }
        values = {**zero, **values}
        if self.tied:
            values["initial_cov"] = values["process_cov"]
        params = LGSSMParams(**values)
        if self.stationary is not None and "initial_cov" not in arrays:
            params = self.structure(params).complete(values)
        return params if self.shift is None else self.shift.to_centred(params)

    def may_move(self, name: str) -> bool:
        """Whether the M-step can change a parameter."""
        fixed = name in self.patterns and not self.patterns[name].names
        return not (name in self.frozen or name in self.varying or fixed)

    def has_no_noise(self) -> bool:
        """Whether rows are measured without noise."""
        pattern = self.patterns.get("measurement_cov")
        return isinstance(pattern, Pattern) and not pattern.names and not pattern.constant.any()

    def degenerate(self, params: LGSSMParams, statistics: Statistics) -> Bools:
        """Whether a fixed first state is fitted exactly, or units of a diffuse one are free: nothing bounds these.

        Otherwise a variance at zero is a boundary of this model, not a likelihood without bound.
        """
        diffuse = np.isinf(np.diag(params.initial_cov))
        if diffuse.any() and self.likelihood != "marginal" and has_free_units(params, self.structure(params), diffuse):
            return diffuse
        if self.fixed is None or diffuse.any():
            return np.zeros(self.n_states, bool)
        return np.full(self.n_states, lgssm_boundary.begins_exactly(flowed(params, self.flow), self.fixed))

    def unshifted(self) -> LGSSMCore:
        """The same for data as they are."""
        return replace(self, shift=None)

    def profiled_errors(self, information: Any, batch: Batch) -> dict[str, Floats]:
        """Standard errors of first states that are fixed but unknown."""
        if self.fixed is None:
            return {}
        return {
            "initial_mean": first_state_errors(information, batch, self.fixed, self.likelihood, self.flow, self.shift)
        }

    def order_of(self, params: LGSSMParams, label: Callable[[], xr.Dataset]) -> Ints:
        """States of this model have no order."""
        return np.arange(self.n_states)

    def arranged(self, params: LGSSMParams, order: Ints) -> LGSSMParams:
        """States as they are; of the values of one likelihood those that are meant, where all of them are free."""
        names = "transition", "process_cov"
        if self.meant is None or set(names) & set(self.frozen) or not self.process_prior.is_flat:
            return params
        parts = {name: self.patterns[name] for name in names}
        if not all(pattern.names for pattern in parts.values()):
            return params
        new = canonical(parts, params, self.meant)
        return self.structure(params).complete(params._asdict() | new) if new else params

    def n_free(self, params: LGSSMParams) -> int:
        """Free values, less those that a mere change of basis of the states would move."""
        structure = self.structure(params)
        return structure.n_free() - n_unidentified(params, structure)
