"""Structural models of one series: trends, seasons, cycles, regressions and autoregressions, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import DataError, ParameterError
from statespace_em.labels import Labels
from statespace_em.patterns import fixed, from_entries
from statespace_em.priors import InverseWishart
from statespace_em.sequence.components import NOISY, Part, built, together
from statespace_em.sequence.lgssm_specification import Specification
from statespace_em.sequence.state_space import StateSpaceModel

NOISE = "noise_var"


class StructuralModel(StateSpaceModel):
    """A sum of components, each with states and parameters that have a meaning; made by `statespace_em.designs`.

    Parameters
    ----------
    components
        Pairs of the name of a component and its options.
    noise
        Whether y has a measurement noise of its own: "auto" gives one to trends, seasons and cycles, and to
        regressions without an autoregression.
    likelihood
        Convention of the likelihood where the start is diffuse, see `LinearGaussianSSM`.
    process_prior, measurement_prior
        Inverse-Wishart priors on the noise covariances; flat by default.
    unsorted
        "error" or "sort": what to do with timestamps that do not increase.
    """

    def __init__(
        self,
        components: Sequence[Any],
        *,
        noise: Literal["auto", "free", "zero"] = "auto",
        likelihood: Literal["diffuse", "full", "marginal"] = "diffuse",
        process_prior: InverseWishart = InverseWishart(),
        measurement_prior: InverseWishart = InverseWishart(),
        unsorted: Literal["error", "sort"] = "error",
    ) -> None:
        self.components = components
        self.noise = noise
        self.likelihood = likelihood
        self.process_prior = process_prior
        self.measurement_prior = measurement_prior
        self.unsorted = unsorted

    def __add__(self, other: Any) -> StructuralModel:
        """Both components side by side; settings are those of the left one."""
        if not isinstance(other, StructuralModel):
            return NotImplemented
        settings = self.get_params() | {"components": [*self.components, *other.components]}
        return StructuralModel(**settings)

    def _derived(self, values: Mapping[str, float]) -> dict[str, float]:
        derived = {}
        for label, (kind, _) in zip(self._labels(), self.components):
            if kind == "cycle":
                a, b = (values[f"{label}cycle_{part}"] for part in ("cos", "sin"))
                derived[f"{label}cycle_damping"] = float(np.hypot(a, b))
                derived[f"{label}cycle_period"] = float(2.0 * np.pi / abs(np.arctan2(b, a)))
        return derived

    def _labels(self) -> list[str]:
        """What stands before the names of each component: nothing, or a number where a kind comes twice."""
        kinds = [kind for kind, _ in self.components]
        return [f"{kind}{kinds[:i].count(kind) + 1}_" if kind in kinds[:i] else "" for i, kind in enumerate(kinds)]

    def _parts(self) -> list[Part]:
        return [built(kind, label, options) for label, (kind, options) in zip(self._labels(), self.components)]

    def _default_starts(self) -> int:
        moving = any(kind == "arma" and options["q"] for kind, options in self.components)
        return 6 if moving else 3  # the likelihood of moving averages has several tops

    def _names(self) -> list[Any]:
        return list(together(self._parts())[0])

    def _specification(self, n_features: int | None) -> Specification:
        if n_features not in (None, 1):
            raise ParameterError(f"y has {n_features} columns, expected one: a structural model is of one series.")
        _validate.one_of("noise", self.noise, ("auto", "free", "zero"))
        parts = self._parts()
        names, transition, cov, view, initial = together(parts)
        if {"diffuse", "fixed"} <= set(initial):
            raise ParameterError(
                "the components start both 'diffuse' and 'fixed': give constant() or regression(X) start='diffuse'."
            )
        kinds = [kind for kind, _ in self.components]
        noisy = any(kind in NOISY for kind in kinds) or "arma" not in kinds
        noisy = noisy if self.noise == "auto" else self.noise == "free"
        words = np.array(initial)
        start = np.diag(np.where(words == "diffuse", np.inf, 0.0))
        with np.errstate(invalid="ignore"):
            patterns = {
                "transition": from_entries(transition, "transition", symmetric=False),
                "process_cov": from_entries(cov, "process_cov", symmetric=True),
                "measurement_cov": from_entries([[NOISE if noisy else 0.0]], "measurement_cov", symmetric=True),
                "initial_mean": fixed(np.where(words == "fixed", np.nan, 0.0)),
                "initial_cov": fixed(start),
            }
        varying: dict[str, Floats] = {}
        if view.ndim == 2:
            varying["observation"] = np.ascontiguousarray(view[:, None, :])
        else:
            patterns["observation"] = fixed(view[None])
        guesses: Mapping[str, Sequence[float]] = {}
        for part in parts:
            guesses = {**guesses, **part.guesses}
        return Specification(names, 1, patterns, varying, tuple(initial), guesses=guesses)

    def _check_data(self, batch: Batch, labels: Labels, freeze: Sequence[str]) -> None:
        super()._check_data(batch, labels, freeze)
        for kind, options in self.components:
            times = options.get("times")
            if kind == "regression" and times is not None:
                own = [str(time) for time in labels.times[0]]
                off = [i for i, (mine, theirs) in enumerate(zip(own, times)) if mine != theirs]
                if off:
                    raise DataError(
                        f"row {off[0]} of y is at {own[off[0]]}, but that of X at {times[off[0]]}: "
                        "give X the rows of y."
                    )
