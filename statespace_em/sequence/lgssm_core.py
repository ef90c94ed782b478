"""The array side of the linear-Gaussian state-space model: Kalman filter, RTS smoother and a joint M-step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.core import Posterior
from statespace_em.data import Batch
from statespace_em.domains import from_vector, n_coordinates, n_free, pull_back, to_vector
from statespace_em.errors import ParameterError
from statespace_em.kernels.kalman import GaussianSums
from statespace_em.labels import Dims
from statespace_em.priors import InverseWishart
from statespace_em.sequence import lgssm_boundary
from statespace_em.sequence.lgssm_basis import arbitrary
from statespace_em.sequence.lgssm_params import DOMAINS, LGSSMParams, span_of
from statespace_em.sequence.lgssm_passes import (
    Smoothed,
    expectations,
    kalman_filter,
    moment_sums,
    pair_moments,
    smoother,
)
from statespace_em.sequence.lgssm_score import score
from statespace_em.sequence.lgssm_start import guessed_params


@dataclass(frozen=True)
class LGSSMCore:
    """E- and M-step of a linear-Gaussian state-space model on plain arrays."""

    n_states: int
    frozen: tuple[str, ...]  # parameters that the M-step leaves alone
    process_prior: InverseWishart = InverseWishart()
    measurement_prior: InverseWishart = InverseWishart()
    tied: bool = False  # initial_cov is process_cov; it counts as frozen

    row_dims: ClassVar[Dims] = {
        "gamma": ("state",),
        "cov": ("state", "state_aux"),
        "cross_cov": ("state", "next_state"),
    }
    sum_dims: ClassVar[Dims] = {}

    def e_step(self, params: LGSSMParams, data: Batch) -> tuple[GaussianSums, float]:
        """Additive statistics and the log-likelihood in nats."""
        return expectations(params, data)

    def m_step(self, statistics: GaussianSums, previous: LGSSMParams) -> LGSSMParams:
        """Joint regressions for [A b] and [C d], then Q and R from their residuals (Shumway & Stoffer 1982)."""
        s = statistics
        new = previous._asdict()
        shift = s.first_mean - s.n_sequences * previous.initial_mean
        if "initial_mean" not in self.frozen:
            new["initial_mean"] = s.first_mean / s.n_sequences
        moved = new["initial_mean"] - previous.initial_mean
        outer = np.outer(moved, shift)
        first = s.first_cov + s.first_outer - outer - outer.T + s.n_sequences * np.outer(moved, moved)
        if "initial_cov" not in self.frozen:
            new["initial_cov"] = first / s.n_sequences
        n_steps, steps = (s.n_pairs + s.n_sequences, s.S_ww + first) if self.tied else (s.n_pairs, s.S_ww)
        for names, cross, square, residual, count, prior in (
            (("transition", "state_offset", "process_cov"), s.S_wz, s.S_zz, steps, n_steps, self.process_prior),
            (
                ("observation", "observation_offset", "measurement_cov"),
                s.S_vz, s.S_uu, s.S_vv, s.n_rows, self.measurement_prior,
            ),
        ):  # fmt: skip
            if count == 0 and prior.is_flat:  # nothing speaks
                continue
            matrix, offset, cov = names
            free = np.repeat([matrix not in self.frozen, offset not in self.frozen], [self.n_states, 1])
            scatter = residual
            if free.any():
                change = _regression(cross, square, free)
                new[matrix] = new[matrix] + change[:, :-1]
                new[offset] = new[offset] + change[:, -1]
                half = change @ cross.T
                scatter = residual - half - half.T + change @ square @ change.T
            if cov not in self.frozen:
                new[cov] = prior.mode(_semidefinite((scatter + scatter.T) / 2.0), count)
        return self._complete(new)

    def _complete(self, values: dict[str, Floats]) -> LGSSMParams:
        """Parameters from their values, the tied one from its twin."""
        return LGSSMParams(**(values | {"initial_cov": values["process_cov"]} if self.tied else values))

    def log_prior(self, params: LGSSMParams) -> float:
        """Log prior density in nats, without constants."""
        density = 0.0
        for name, prior in (("process_cov", self.process_prior), ("measurement_cov", self.measurement_prior)):
            try:
                density += prior.log_density(getattr(params, name))
            except ParameterError as error:
                raise ParameterError(f"{name}: {error}") from None
        return density

    def _units(self, reference: LGSSMParams) -> dict[str, Floats]:
        """Unit of each real parameter, from the scales of states and measurements."""
        spread = np.diag(reference.process_cov) + np.diag(reference.initial_cov)
        state = np.sqrt(np.where(spread > 0.0, spread, 1.0))
        noise = np.diag(reference.measurement_cov)
        feature = np.sqrt(np.where(noise > 0.0, noise, 1.0))
        return {
            "transition": state[:, None] / state,
            "observation": feature[:, None] / state,
            "initial_mean": state,
            "state_offset": state,
            "observation_offset": feature,
        }

    def to_vector(self, params: LGSSMParams, reference: LGSSMParams) -> Floats | None:
        """Coordinates of what is not frozen; a covariance that is singular in the reference keeps its null space."""
        units = self._units(reference)
        parts = []
        for name, domain in DOMAINS.items():
            if name in self.frozen:
                continue
            value, origin = getattr(params, name), getattr(reference, name)
            if domain == "covariance":
                span = span_of(origin)
                if span is not None:
                    value, origin = span.inverse @ value @ span.inverse.T, np.eye(len(span.inverse))
                try:
                    parts.append(to_vector(value, origin, domain))
                except np.linalg.LinAlgError:  # it has become singular since
                    return None
            else:
                parts.append(to_vector(value, origin, "location", units[name]))
        return np.concatenate(parts) if parts else None

    def from_vector(self, vector: Floats, reference: LGSSMParams) -> LGSSMParams:
        """Inverse of `to_vector`."""
        units = self._units(reference)
        values = reference._asdict()
        for name, domain in DOMAINS.items():
            if name in self.frozen:
                continue
            origin = values[name]
            span = span_of(origin) if domain == "covariance" else None
            if span is not None:
                origin = np.eye(len(span.inverse))
            size = n_coordinates(origin, domain)
            if domain == "covariance":
                value = from_vector(vector[:size], origin, domain)
            else:
                unit = units[name].ravel().reshape(origin.shape)
                value = from_vector(vector[:size], origin, "location", unit)
            values[name] = value if span is None else span.basis @ value @ span.basis.T
            vector = vector[size:]
        return self._complete(values)

    def score_vector(self, params: LGSSMParams, statistics: GaussianSums, reference: LGSSMParams) -> Floats:
        """Gradient of the objective in the coordinates of `to_vector`.

        Raises
        ------
        numpy.linalg.LinAlgError
            If a covariance is singular.
        """
        gradients = score(params, statistics, self.process_prior, self.measurement_prior)
        if self.tied:
            gradients["process_cov"] = gradients["process_cov"] + gradients["initial_cov"]
        units = self._units(reference)
        return np.concatenate(
            [
                np.ravel(gradients[name] * units[name])
                if name in units
                else pull_back(gradients[name], getattr(params, name), getattr(reference, name))
                for name in DOMAINS
                if name not in self.frozen
            ]
        )

    def near_boundary(self, params: LGSSMParams, statistics: GaussianSums, start: LGSSMParams) -> bool:
        """Whether a free covariance is close to singular."""
        return lgssm_boundary.near(params, statistics, start, self.frozen)

    def chart(self, params: LGSSMParams, statistics: GaussianSums, start: LGSSMParams) -> lgssm_boundary.FactorChart:
        """Coordinates by factors of the covariances, smooth where one is singular."""
        return lgssm_boundary.FactorChart(params, statistics, start, self.frozen, self.tied)

    def on_face(self, params: LGSSMParams, statistics: GaussianSums, start: LGSSMParams, share: float) -> LGSSMParams:
        """Parameters with the variances below this share of their scale at exactly 0."""
        face = lgssm_boundary.on_face(params, statistics, start, self.frozen, share)
        return self._complete(params._asdict() | face)

    def unbounded(self, params: LGSSMParams, data: Batch) -> bool:
        """Whether some row is predicted without error."""
        return lgssm_boundary.explains_exactly(kalman_filter(params, data, innovations=True).innovation_cov)

    def vanished(self, params: LGSSMParams, start: LGSSMParams) -> dict[str, Floats]:
        """Directions (p, k) in which a free covariance has no variance but had some at the start."""
        return lgssm_boundary.vanished(params, start, self.frozen)

    def starts(
        self, batch: Batch, n_starts: int, rng: np.random.Generator, given: Mapping[str, Floats]
    ) -> Iterator[LGSSMParams]:
        """Guesses from the principal directions of windows of y, each start with a longer window.

        An initial covariance that is held is that of one step: a wide one would be overcome by a change of basis
        in which it is small, a vanishing one makes the likelihood unbounded where the measurement noise vanishes.
        """
        for i in range(n_starts):
            centred = "observation_offset" not in self.frozen
            guess = guessed_params(batch, self.n_states, extra=i, offset=centred, given=given)
            guess = guess._replace(initial_cov=guess.process_cov) if "initial_cov" in self.frozen else guess
            yield self._complete(guess._asdict() | dict(given))

    def posterior(self, params: LGSSMParams, batch: Batch, *, pairs: bool) -> Posterior:
        """Posterior of every row."""
        smoothed, row_log_likelihood = smoother(params, batch)
        mean, cov, cross_cov = smoothed
        square, pair_dims = ("state", "state_aux"), ("state", "next_state")
        rows = {"gamma": (("state",), mean), "cov": (square, cov), "cross_cov": (pair_dims, cross_cov)}
        log_likelihood = np.add.reduceat(row_log_likelihood, batch.starts[:-1])
        if pairs:
            return Posterior(rows | {"xi": (pair_dims, pair_moments(smoothed))}, {}, log_likelihood)
        inside = ~batch.first[1:]
        xi = mean[:-1][inside].T @ mean[1:][inside] + cross_cov[:-1][inside].sum(0)
        return Posterior(rows, {"xi": (pair_dims, xi)}, log_likelihood)

    def statistics(self, params: LGSSMParams | None, batch: Batch, posterior: Mapping[str, Floats]) -> GaussianSums:
        """Statistics of a given posterior."""
        if params is None:
            raise ParameterError("this M-step needs the parameters that the posterior was made with: pass params=.")
        moments = (np.ascontiguousarray(posterior[name]) for name in ("gamma", "cov", "cross_cov"))
        return moment_sums(params, batch, Smoothed(*moments))

    def flatten(self, params: LGSSMParams) -> dict[str, Floats]:
        """Parameters by name; an offset that is zero and stays so is left out."""
        absent = [
            n for n in ("state_offset", "observation_offset") if n in self.frozen and not getattr(params, n).any()
        ]
        return {name: value for name, value in params._asdict().items() if name not in absent}

    def build(self, arrays: Mapping[str, Floats]) -> LGSSMParams:
        """Inverse of `flatten`; offsets may be left out."""
        n_states, size = len(arrays["transition"]), len(arrays["measurement_cov"])
        zero = {"state_offset": np.zeros(n_states), "observation_offset": np.zeros(size)}
        return self._complete({**zero, **arrays})

    def degenerate(self, params: LGSSMParams, statistics: GaussianSums) -> Bools:
        """No state: a variance at zero is a boundary of this model, not a likelihood without bound."""
        return np.zeros(self.n_states, bool)

    def order_of(self, params: LGSSMParams, labelled: xr.Dataset) -> Ints:
        """States of this model have no order."""
        return np.arange(self.n_states)

    def arranged(self, params: LGSSMParams, order: Ints) -> LGSSMParams:
        """States as they are."""
        return params

    def n_free(self, params: LGSSMParams) -> int:
        """Entries that are not frozen, less those that a mere change of basis of the states would move."""
        free = sum(n_free(getattr(params, name), domain) for name, domain in DOMAINS.items() if name not in self.frozen)
        return free - arbitrary(params, self.frozen, tied=self.tied)


def _semidefinite(scatter: Floats) -> Floats:
    """Take away the negative eigenvalues that round-off leaves where a noise vanishes."""
    values, vectors = np.linalg.eigh(scatter)
    return scatter if values[0] >= 0.0 else np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def _regression(cross: Floats, square: Floats, free: Bools) -> Floats:
    """Change of the coefficients (rows of ``cross``) on the free regressors; regressors are scaled to alike size."""
    change = np.zeros(cross.shape)
    part = square[np.ix_(free, free)]
    size = np.sqrt(np.where(np.diag(part) > 0.0, np.diag(part), 1.0))
    solution = np.linalg.lstsq(part / np.outer(size, size), (cross[:, free] / size).T, rcond=1e-14)[0]
    change[:, free] = solution.T / size
    return change
