"""What is free in a linear-Gaussian model: patterns of all parameters, their coordinates and their score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.patterns import Pattern, beside, fixed, from_word
from statespace_em.sequence.lgssm_expectation import Gradients
from statespace_em.sequence.lgssm_noise import Noise
from statespace_em.sequence.lgssm_params import DOMAINS, NDIM, PARAMETERS, LGSSMParams, varies
from statespace_em.sequence.lgssm_stationary import add_score, stationary_moments

COVARIANCES = tuple(name for name, domain in DOMAINS.items() if domain == "covariance")


@dataclass(frozen=True, eq=False)
class Structure:
    """Patterns by name; a parameter that is held has a pattern without free values."""

    patterns: Mapping[str, Pattern]
    noises: Mapping[str, Noise]  # of the three covariances
    tied: bool = False  # initial_cov is process_cov
    fixed: Bools | None = None  # states (n,) whose first value is fixed but unknown
    stationary: Bools | None = None  # states (n,) that start in their stationary distribution
    input_scale: Floats | None = None  # (k,), size of the inputs; None: 1

    _made: dict[Any, Pattern] = field(default_factory=dict, repr=False)  # see `beside`

    @cached_property
    def names(self) -> list[str]:
        """Parameters with free values."""
        return [name for name in self.patterns if self.patterns[name].names]

    def is_free(self, name: str) -> bool:
        """Whether a parameter has free values."""
        return name in self.patterns and bool(self.patterns[name].names)

    def is_closed(self, name: str) -> bool:
        """Whether the M-step moves a parameter; products of values have no closed form, they are left to the score."""
        return self.is_free(name) and not self.patterns[name].products

    def beside(self, names: tuple[str, ...], size: int, widths: tuple[int, ...]) -> Pattern:
        """Return what the M-step moves of coefficients (size, widths) side by side, made once."""
        key = (names, size, widths)
        if key not in self._made:
            parts = [
                self.patterns[name] if self.is_closed(name) else fixed(np.zeros((size, width)))
                for name, width in zip(names, widths)
            ]
            self._made[key] = beside(parts)
        return self._made[key]

    @cached_property
    def blocks(self) -> Ints:
        """Block (D,) of the measurement noise that each feature belongs to."""
        noise = self.noises["measurement_cov"]
        size = len(noise.pattern.constant) if noise.loading is None else len(noise.loading)
        found = np.zeros(size, np.int64)
        if noise.loading is None:
            for j, part in enumerate(noise.parts):
                found[part] = j
        return found

    def complete(self, values: Mapping[str, Floats | None]) -> LGSSMParams:
        """Parameters from their values; what follows from others is computed.

        Raises
        ------
        ParameterError
            If a stationary start is asked of dynamics that are not stable.
        """
        params = LGSSMParams(**values)  # type: ignore[arg-type]
        if self.tied:
            params = params._replace(initial_cov=params.process_cov)
        if self.stationary is not None:
            block = np.ix_(self.stationary, self.stationary)
            some = self.stationary
            m, p = stationary_moments(params.transition[block], params.state_offset[some], params.process_cov[block])
            mean, cov = np.array(params.initial_mean), np.array(params.initial_cov)
            mean[some], cov[block] = m, p
            params = params._replace(initial_mean=mean, initial_cov=cov)
        return params

    # coordinates

    def _units(self, reference: LGSSMParams) -> dict[str, Floats]:
        """Unit of each entry of the real parameters, from the scales of states and measurements."""
        noise = np.diag(_mean(reference.measurement_cov, 2))
        feature = np.sqrt(np.where(noise > 0.0, noise, 1.0))
        start = np.diag(reference.initial_cov)
        spread = np.diag(_mean(reference.process_cov, 2)) + np.where(np.isfinite(start), start, 0.0)
        state = np.sqrt(np.where(spread > 0.0, spread, 1.0))
        effects = [value for value in (reference.state_input, reference.observation_input) if value is not None]
        size = np.ones(effects[0].shape[1] if effects else 0) if self.input_scale is None else self.input_scale
        return {
            "transition": state[:, None] / state,
            "observation": feature[:, None] / state,
            "initial_mean": state,
            "state_offset": state,
            "observation_offset": feature,
            "state_input": state[:, None] / size,
            "observation_input": feature[:, None] / size,
        }

    def _steps(self, name: str, units: Mapping[str, Floats]) -> Floats:
        """Unit of each free value of a real parameter."""
        pattern = self.patterns[name]
        if pattern.is_plain:
            return pattern.read(units[name])
        used = pattern.flat != 0.0
        return np.asarray((used * units[name].ravel()).sum(1) / used.sum(1))

    def to_vector(self, params: LGSSMParams, reference: LGSSMParams) -> Floats | None:
        """Coordinates of the free values; None if there are none, or a covariance has become singular."""
        units, parts = self._units(reference), []
        for name in self.names:
            value, origin = getattr(params, name), getattr(reference, name)
            if name in self.noises:
                try:
                    parts.append(self.noises[name].to_vector(value, origin))
                except np.linalg.LinAlgError:
                    return None
            else:
                pattern = self.patterns[name]
                parts.append((pattern.read(value) - pattern.read(origin)) / self._steps(name, units))
        return np.concatenate(parts) if parts else None

    def from_vector(self, vector: Floats, reference: LGSSMParams) -> LGSSMParams:
        """Inverse of `to_vector`."""
        units = self._units(reference)
        values = reference._asdict()
        for name in self.names:
            if name in self.noises:
                values[name], vector = self.noises[name].from_vector(vector, values[name])
            else:
                pattern = self.patterns[name]
                size = len(pattern.names)
                values[name] = pattern.shifted(values[name], self._steps(name, units) * vector[:size])
                vector = vector[size:]
        return self.complete(values)

    def pull_back(self, gradients: dict[str, Floats], params: LGSSMParams, reference: LGSSMParams) -> Floats:
        """Gradient in the coordinates, from that with respect to every entry by name; see `entry_gradients`."""
        units = self._units(reference)
        parts = [
            self.noises[name].pull_back(0.5 * gradients[name], getattr(params, name), getattr(reference, name))
            if name in self.noises
            else self.patterns[name].tangent(getattr(params, name)).pull_back(gradients[name])
            * self._steps(name, units)
            for name in self.names
        ]
        return np.concatenate(parts)

    def entry_gradients(self, found: Gradients, params: LGSSMParams) -> dict[str, Floats]:
        """Gradients of the log-likelihood by parameter, the start included; twice that for covariances."""
        g = {name: np.array(value) for name, value in found._asdict().items()}
        g["b"] = np.array(found.e[:, 0])
        if self.tied:
            g["Q"] = g["Q"] + g["P0"]
        if self.stationary is not None:
            add_score(g, params.transition, params.initial_mean, params.initial_cov, self.stationary)
        return {
            "transition": g["A"], "process_cov": g["Q"], "observation": g["C"], "measurement_cov": g["R"],
            "initial_mean": g["m0"], "initial_cov": g["P0"], "state_offset": g["b"],
            "observation_offset": found.f[:, 0], "state_input": found.e[:, 1:],
            "observation_input": found.f[:, 1:],
        }  # fmt: skip

    def n_free(self) -> int:
        """Number of free values, fixed but unknown first states among them."""
        unknown = 0 if self.fixed is None else int(self.fixed.sum())
        return sum(len(pattern.names) for pattern in self.patterns.values()) + unknown


def _mean(value: Floats, ndim: int) -> Floats:
    return value if value.ndim == ndim else np.asarray(value.mean(0))


def structure_for(
    params: LGSSMParams,
    patterns: Mapping[str, Pattern],
    held: tuple[str, ...],
    loadings: Mapping[str, Floats],
    *,
    tied: bool,
    unknown: Bools | None,
    stationary: Bools | None,
    input_scale: Floats | None,
) -> Structure:
    """Structure of parameters of these shapes: what has no pattern and is not held is free as a whole."""
    found, noises = {}, {}
    for name in PARAMETERS:
        value = getattr(params, name)
        if value is None:
            continue
        loading = loadings.get(name)
        if name in held or varies(params, name):
            size = value.shape[-1] if loading is None else loading.shape[1]
            kept = np.ones((size, size)) if name in COVARIANCES else value
            found[name] = fixed(kept)  # ones: what is held may link everything
        elif name in patterns:
            found[name] = patterns[name]
        else:
            found[name] = from_word("free", value.shape, name, symmetric=NDIM[name] == 2 and name in COVARIANCES)
        if name in COVARIANCES:
            noises[name] = Noise(found[name], loading)
    return Structure(found, noises, tied, unknown, stationary, input_scale)
