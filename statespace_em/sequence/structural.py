"""Structural models of one series: trends, seasons, cycles, regressions and autoregressions, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.errors import ParameterError
from statespace_em.labels import Labels
from statespace_em.patterns import fixed, from_entries
from statespace_em.priors import InverseWishart
from statespace_em.sequence.arma import hannan_rissanen, invertible_form
from statespace_em.sequence.component_sum import ComponentSum
from statespace_em.sequence.components import Component, built, positive_frequencies, together
from statespace_em.sequence.decomposition import View, views
from statespace_em.sequence.lgssm_specification import Specification
from statespace_em.sequence.lgssm_start import interpolated
from statespace_em.sequence.reduced_form import reduced
from statespace_em.sequence.reduced_screen import screened
from statespace_em.sequence.regressors import plain_options
from statespace_em.sequence.summand import SHARED, Summand

NOISE = "noise_var"
SCREENED = 24  # tops that are started at


@dataclass(eq=False, repr=False)
class StructuralModel(ComponentSum):
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

    components: Sequence[Any]
    _: KW_ONLY
    noise: Literal["auto", "free", "zero"] = "auto"
    likelihood: Literal["diffuse", "full", "marginal"] = "diffuse"
    process_prior: InverseWishart = InverseWishart()
    measurement_prior: InverseWishart = InverseWishart()
    unsorted: Literal["error", "sort"] = "error"

    def _summand(self) -> Summand:
        settings = {name: getattr(self, name) for name in (*SHARED, "noise", "process_prior")}
        return Summand(self.components, None, None, settings)

    def _sum(self, left: Summand, right: Summand) -> StructuralModel:
        return StructuralModel([*left.components, *right.components], **left.settings)

    def _views(self, y: Any, params: xr.Dataset | None, labels: Labels) -> list[View]:
        return views(self.components, self._built())

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

    def _built(self) -> list[Component]:
        alone = next((options["on"] for _, options in self.components if options.get("on") is not None), None)
        if alone is not None:
            raise ParameterError(
                f"a component is on {alone!r}: add it to the motion that this is a sensor or column of."
            )
        segments = self._segments()
        return [
            built(kind, label, plain_options(options, segments))
            for label, (kind, options) in zip(self._labels(), self.components)
        ]

    def _default_starts(self) -> int:
        parts = [options for kind, options in self.components if kind == "arma"]
        if any("seasonal" in options for options in parts):
            return 2  # a season takes many states: starts are dear, and the one that the data suggest is good
        several = any(kind == "cycle" for kind, _ in self.components) or any(options["q"] for options in parts)
        variances = self._specification(None).patterns["process_cov"].on_diagonal
        if several:
            return 8  # the likelihoods of moving averages and of cycles have several tops
        return 4 if len(variances) > 1 and not parts else 3

    def _names(self) -> list[Any]:
        return list(together(self._built())[0])

    def _specification(self, n_features: int | None) -> Specification:
        if n_features not in (None, 1):
            raise ParameterError(f"y has {n_features} columns, expected one: a structural model is of one series.")
        _validate.one_of("noise", self.noise, ("auto", "free", "zero"))
        parts = self._built()
        names, transition, cov, observation, initial = together(parts)
        words = np.array(initial)
        start = np.diag(np.where(words == "diffuse", np.inf, 0.0))
        with np.errstate(invalid="ignore"):
            patterns = {
                "transition": from_entries(transition, "transition", symmetric=False),
                "process_cov": from_entries(cov, "process_cov", symmetric=True),
                "measurement_cov": from_entries([[NOISE if self._noisy() else 0.0]], "measurement_cov", symmetric=True),
                "initial_mean": fixed(np.where(words == "fixed", np.nan, 0.0)),
                "initial_cov": fixed(start),
            }
        varying: dict[str, Floats] = {}
        if observation.ndim == 2:
            varying["observation"] = np.ascontiguousarray(observation[:, None, :])
        else:
            patterns["observation"] = fixed(observation[None])
        guesses: Mapping[str, Sequence[float]] = {}
        regressors: dict[Any, int] = {}
        for begin, part in zip(np.cumsum([0, *(len(part.states) for part in parts)]), parts):
            guesses = {**guesses, **part.guesses}
            if part.observation.ndim == 2:
                regressors |= {names[begin + i]: int(begin) + i for i in range(len(part.states))}
        kinds = [(label, kind) for label, (kind, _) in zip(self._labels(), self.components)]
        several = {word: [label for label, kind in kinds if kind == word] for word in ("arma", "cycle")}
        return Specification(
            names, 1, patterns, varying, tuple(initial), guesses=guesses, regressors=regressors,
            guess_from=self._guess_from, canonical=partial(_canonical, several) if any(several.values()) else None,
            decays=tuple(decay for part in parts for decay in part.decays), segments=self._segments(),
        )  # fmt: skip

    def _guess_from(self, batch: Batch) -> dict[str, Sequence[float]]:
        """Values that the data suggest of sums with ARIMA parts and cycles, the first of them the best."""
        y = interpolated(batch.y, batch.starts)[: batch.starts[1], 0]
        found: dict[str, Sequence[float]] = {}
        trios = list(zip([kind for kind, _ in self.components], [own for _, own in self.components], self._built()))
        for label, (kind, options, part) in zip(self._labels(), trios):
            orders = (options["p"], options["d"], options["q"]) if kind == "arma" else (0, 0, 0)
            suggested = hannan_rissanen(y, orders, options.get("seasonal", (0, 0, 0, 1))) if kind == "arma" else None
            if suggested is None:
                continue
            values, variance = suggested
            found[f"{label}arma_var"] = [variance if variance > 0.0 else 1.0]
            for name, tried in part.guesses.items():
                stem = name.removeprefix(label)
                word = stem.rstrip("0123456789")
                found[name] = [float(values[word][int(stem.removeprefix(word)) - 1]), *tried]
        wanted = any(options["period"] is not None for kind, options, _ in trios if kind == "cycle")
        form = None if wanted else reduced(trios, NOISE if self._noisy() else None)
        if form is None or not form.has_several_tops:
            return found
        tops = screened(form, y, self._columns(len(y)), SCREENED)
        return found | ({name: [top[name] for top in tops] for name in tops[0]} if tops else {})

    def _columns(self, n_rows: int) -> Floats:
        """What is known of the mean of the first rows (n_rows, k), up to factors."""
        kinds = [kind for kind, _ in self.components]
        views = [
            part.observation for part, kind in zip(self._built(), kinds) if kind == "regression" and not part.moves
        ]
        columns = [observation[:n_rows] for observation in views if len(observation) >= n_rows]
        free_level = not {"arma", "regression"}.issuperset(kinds)
        return np.hstack([np.ones((n_rows, int(free_level))), *columns])


def _canonical(labels: Mapping[str, Sequence[str]], values: Mapping[str, float]) -> dict[str, float]:
    """Values that are shown of several with one likelihood: moving averages that can be inverted, cycles one way."""
    return positive_frequencies(
        [f"{label}cycle_sin" for label in labels["cycle"]], invertible_form(labels["arma"], values)
    )
