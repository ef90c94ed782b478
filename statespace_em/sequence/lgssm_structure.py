"""What is free in a linear-Gaussian model: patterns of all parameters, their coordinates and their score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.patterns import Pattern, beside, fixed, from_word
from statespace_em.row_patterns import RowPattern, occurring
from statespace_em.sequence.decays import Decay, Decaying, Placed, placed
from statespace_em.sequence.lgssm_noise import Noise
from statespace_em.sequence.lgssm_params import DOMAINS, NDIM, PARAMETERS, LGSSMParams, positions, varies
from statespace_em.sequence.lgssm_stationary import add_score, stationary_moments
from statespace_em.sequence.lgssm_sums import Gradients
from statespace_em.sequence.lgssm_sweeps import Kinds
from statespace_em.sequence.row_kinds import ALIKE

COVARIANCES = tuple(name for name, domain in DOMAINS.items() if domain == "covariance")
STEPS = ("transition", "state_offset", "state_input", "process_cov")
ROWS = ("observation", "observation_offset", "observation_input", "measurement_cov")


class RowKinds(NamedTuple):
    """Rows that are alike in what has names of one side of the model: the steps, or the measurements."""

    of_row: Ints  # (T,), kind of each row
    first: Ints  # (kinds,), a row of each kind


@dataclass(frozen=True, eq=False)
class Structure:
    """Patterns by name; a parameter that is held has a pattern without free values.

    Where names have factors that vary over rows, patterns, noises and sums are by kind of row.
    """

    patterns: Mapping[str, Pattern | RowPattern]
    noises: Mapping[str, Noise]  # of the three covariances
    tied: bool = False  # initial_cov is process_cov
    fixed: Bools | None = None  # states (n,) whose first value is fixed but unknown
    stationary: Bools | None = None  # states (n,) that start in their stationary distribution
    input_scale: Floats | None = None  # (k,), size of the inputs; None: 1
    steps: RowKinds | None = None  # of the dynamics; None: all rows are of one kind
    rows: RowKinds | None = None  # of the measurements
    decays: tuple[Placed, ...] = ()  # of states that start stationary

    _made: dict[Any, Pattern | Beside] = field(default_factory=dict, repr=False)  # see `beside`

    @cached_property
    def names(self) -> list[str]:
        """Parameters with free values."""
        return [name for name in self.patterns if self.patterns[name].names]

    @cached_property
    def asks_moments(self) -> bool:
        """Whether steps need moments of the states: not where nothing but covariances is free."""
        return self.stationary is not None or any(name not in COVARIANCES for name in self.names)

    def is_free(self, name: str) -> bool:
        """Whether a parameter has free values."""
        return name in self.patterns and bool(self.patterns[name].names)

    def is_closed(self, name: str) -> bool:
        """Whether the M-step moves a parameter; products of values have no closed form, they are left to the score."""
        return self.is_free(name) and not self.patterns[name].products

    def kinds(self, name: str) -> RowKinds | None:
        """Kinds of rows of a parameter whose names have factors that vary over rows; None for others."""
        if not isinstance(self.patterns.get(name), RowPattern):
            return None
        return self.steps if name in STEPS else self.rows

    def kinds_of(self, name: str, params: LGSSMParams) -> Floats:
        """Value of a parameter by kind of row, where its names have factors that vary over rows."""
        kinds, value = self.kinds(name), getattr(params, name)
        return np.asarray(value if kinds is None else value[kinds.first])

    def rows_of(self, name: str, value: Floats) -> Floats:
        """Inverse of `kinds_of`."""
        kinds = self.kinds(name)
        return value if kinds is None else np.asarray(value[kinds.of_row])

    def of_batch(self, params: LGSSMParams, batch: Batch) -> Kinds | None:
        """Kinds of the rows of a batch; None where all are of one."""
        if self.steps is None and self.rows is None:
            return None
        place, found = positions(batch), []
        for kinds, cov in ((self.steps, params.process_cov), (self.rows, params.measurement_cov)):
            if kinds is None:
                found.append((1, ALIKE, cov[None] if cov.ndim == 2 else np.full((1, *cov.shape[1:]), np.nan)))
            else:
                own = cov[None] if cov.ndim == 2 else cov[kinds.first]
                found.append((len(kinds.first), kinds.of_row[place] if len(kinds.first) > 1 else ALIKE, own))
        (n_steps, of_step, process), (n_rows, of_row, measurement) = found
        return Kinds((n_steps, n_rows), of_step, of_row, process, measurement)

    def beside(self, names: tuple[str, ...], size: int, widths: tuple[int, ...]) -> Pattern | Beside:
        """Return what the M-step moves of coefficients (size, widths) side by side, made once."""
        key = (names, size, widths)
        if key not in self._made:
            parts = [
                self.patterns[name] if self.is_closed(name) else fixed(np.zeros((size, width)))
                for name, width in zip(names, widths)
            ]
            kinds = self.steps if names[0] in STEPS else self.rows
            constant = [part for part in parts if isinstance(part, Pattern)]
            alike = kinds is None or len(constant) == len(parts)
            self._made[key] = beside(constant) if alike else Beside(parts, (size, sum(widths)))
        return self._made[key]

    @cached_property
    def blocks(self) -> Ints:
        """Block (D,) of the measurement noise that each feature belongs to."""
        noise = self.noises["measurement_cov"]
        size = noise.pattern.shape[0] if noise.loading is None else noise.loading.shape[-2]
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
            A, b, Q = (first_row(params, name) for name in ("transition", "state_offset", "process_cov"))
            m, p = stationary_moments(A[block], b[some], Q[block])
            mean, cov = np.array(params.initial_mean), np.array(params.initial_cov)
            mean[some], cov[block] = m, p
            params = params._replace(initial_mean=mean, initial_cov=cov)
        return params

    # coordinates

    def decaying(self, origin: Floats, units: Floats) -> Decaying:
        """Coordinates of the transition around a point, where it has decays."""
        pattern = self.patterns["transition"]
        assert isinstance(pattern, Pattern)
        return Decaying(pattern, origin, pattern.steps(units), self.decays)

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

    def to_vector(self, params: LGSSMParams, reference: LGSSMParams) -> Floats | None:
        """Coordinates of the free values; None if there are none, or a covariance has become singular."""
        units, parts = self._units(reference), []
        for name in self.names:
            value, origin = self.kinds_of(name, params), self.kinds_of(name, reference)
            if name in self.noises:
                try:
                    parts.append(self.noises[name].to_vector(value, origin))
                except np.linalg.LinAlgError:
                    return None
            elif name == "transition" and self.decays:
                parts.append(self.decaying(origin, units[name]).read(value))
            else:
                pattern = self.patterns[name]
                parts.append((pattern.read(value) - pattern.read(origin)) / pattern.steps(units[name]))
        return np.concatenate(parts) if parts else None

    def from_vector(self, vector: Floats, reference: LGSSMParams) -> LGSSMParams:
        """Inverse of `to_vector`."""
        units = self._units(reference)
        values = reference._asdict()
        for name in self.names:
            origin = self.kinds_of(name, reference)
            if name in self.noises:
                found, vector = self.noises[name].from_vector(vector, origin)
            else:
                pattern = self.patterns[name]
                size = len(pattern.names)
                if name == "transition" and self.decays:
                    found = self.decaying(origin, units[name]).value(vector[:size])
                else:
                    found = pattern.shifted(origin, pattern.steps(units[name]) * vector[:size])
                vector = vector[size:]
            values[name] = self.rows_of(name, found)
        return self.complete(values)

    def pull_back(self, gradients: dict[str, Floats], params: LGSSMParams, reference: LGSSMParams) -> Floats:
        """Gradient in the coordinates, from that with respect to every entry by name; see `entry_gradients`."""
        units, parts = self._units(reference), []
        for name in self.names:
            value, pattern = self.kinds_of(name, params), self.patterns[name]
            if name in self.noises:
                origin = self.kinds_of(name, reference)
                parts.append(self.noises[name].pull_back(0.5 * gradients[name], value, origin))
            elif name == "transition" and self.decays:
                decaying = self.decaying(reference.transition, units[name])
                parts.append(decaying.pull_back(decaying.read(value), gradients[name]))
            else:
                parts.append(pattern.tangent(value).pull_back(gradients[name]) * pattern.steps(units[name]))
        return np.concatenate(parts)

    def entry_gradients(self, found: Gradients, params: LGSSMParams) -> dict[str, Floats]:
        """Gradients of the log-likelihood by parameter, the start included; twice that for covariances."""
        by_kind = {
            "transition": found.A, "process_cov": found.Q, "observation": found.C, "measurement_cov": found.R,
            "state_offset": found.e[:, :, 0], "state_input": found.e[:, :, 1:],
            "observation_offset": found.f[:, :, 0], "observation_input": found.f[:, :, 1:],
        }  # fmt: skip
        g = {name: value if self.kinds(name) is not None else value.sum(0) for name, value in by_kind.items()}
        g |= {"initial_mean": np.array(found.m0), "initial_cov": np.array(found.P0)}
        if self.tied:
            g["process_cov"] = g["process_cov"] + g["initial_cov"]
        if self.stationary is not None:
            kinds = {
                name: int(own.of_row[0])
                for name in ("transition", "state_offset", "process_cov")
                if (own := self.kinds(name)) is not None
            }
            A = first_row(params, "transition")
            add_score(g, kinds, A, params.initial_mean, params.initial_cov, self.stationary)
        return g

    def n_free(self) -> int:
        """Number of free values, fixed but unknown first states among them."""
        unknown = 0 if self.fixed is None else int(self.fixed.sum())
        return sum(len(pattern.names) for pattern in self.patterns.values()) + unknown


def canonical(
    parts: Mapping[str, Pattern | RowPattern],
    params: LGSSMParams,
    meant: Callable[[Mapping[str, float]], dict[str, float]],
) -> dict[str, Floats]:
    """Parameters whose values, by word, are those that are meant; none where they already are."""
    known = {name: dict(zip(p.names, p.read(getattr(params, name)).tolist())) for name, p in parts.items()}
    before = {word: value for own in known.values() for word, value in own.items()}
    after = meant(before)
    if after == before:
        return {}
    return {name: p.build(np.array([after[word] for word in p.names])) for name, p in parts.items()}


def first_row(params: LGSSMParams, name: str) -> Floats:
    """Value of a parameter in the first row."""
    return np.asarray(getattr(params, name)[0] if varies(params, name) else getattr(params, name))


def _mean(value: Floats, ndim: int) -> Floats:
    return value if value.ndim == ndim else np.asarray(value.mean(0))


@dataclass(frozen=True, eq=False)
class Beside:
    """Coefficients side by side, some of which have factors that vary over rows; all by kind of row."""

    parts: list[Pattern | RowPattern]  # matrices, and vectors as columns
    shape: tuple[int, int]

    columns = None  # none is free in every row alike

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all free values; those of different matrices are different values."""
        return tuple(name for part in self.parts for name in part.names)

    def dense(self, begin: int, end: int) -> Floats:
        """Design (n_free, kinds, size, width) of some kinds, written out."""
        design = np.zeros((len(self.names), end - begin, *self.shape))
        value, column = 0, 0
        for part in self.parts:
            own = part.dense(begin, end)
            wide = (
                own.reshape(*own.shape[:3], -1)
                if own.size
                else own.reshape(0, own.shape[1], self.shape[0], _width(part))
            )
            n, width = len(part.names), _width(part)
            design[value : value + n, :, :, column : column + width] = wide
            value, column = value + n, column + width
        return design


def _width(part: Pattern | RowPattern) -> int:
    return 1 if len(part.shape) == 1 else part.shape[1]


def _kinds(params: LGSSMParams, patterns: Mapping[str, Any], names: tuple[str, ...], cov: str) -> RowKinds | None:
    """Kinds of rows of one side; None where no name has a factor that varies. Known noises are all different."""
    own = [patterns[name] for name in names if isinstance(patterns.get(name), RowPattern)]
    if not own:
        return None
    if cov not in patterns and varies(params, cov):
        return RowKinds(*[np.arange(own[0].n_rows)] * 2)
    first, of_row = occurring(own[0].kind, len(own[0].numbers))[1:]
    for pattern in own[1:]:
        both, below = of_row * len(pattern.numbers) + pattern.kind, len(first) * len(pattern.numbers)
        if below > 4 * len(both):
            _, first, of_row = np.unique(both, return_index=True, return_inverse=True)
        else:
            _, first, of_row = occurring(both, below)
    return RowKinds(of_row, first)


def structure_for(
    params: LGSSMParams,
    patterns: Mapping[str, Pattern | RowPattern],
    held: tuple[str, ...],
    loadings: Mapping[str, Floats],
    *,
    tied: bool,
    unknown: Bools | None,
    stationary: Bools | None,
    input_scale: Floats | None,
    decays: Sequence[Decay] = (),
) -> Structure:
    """Structure of parameters of these shapes: what has no pattern and is not held is free as a whole."""
    found: dict[str, Pattern | RowPattern] = {}
    noises: dict[str, Noise] = {}
    patterns = {name: pattern for name, pattern in patterns.items() if name not in held}
    steps, rows = _kinds(params, patterns, STEPS, "process_cov"), _kinds(params, patterns, ROWS, "measurement_cov")
    for name in PARAMETERS:
        value = getattr(params, name)
        if value is None:
            continue
        loading, own = loadings.get(name), patterns.get(name)
        if isinstance(own, RowPattern):
            kinds = steps if name in STEPS else rows
            assert kinds is not None
            found[name] = own = own.at(kinds.first)
            if name in COVARIANCES:
                of_kind = loading[kinds.first] if loading is not None and loading.ndim == 3 else loading
                noises[name] = Noise(own, of_kind)
            continue
        if name in held or varies(params, name):
            size = value.shape[-1] if loading is None else loading.shape[-1]
            kept = np.ones((size, size)) if name in COVARIANCES else value
            found[name] = fixed(kept)  # ones: what is held may link everything
        elif own is not None:
            found[name] = own
        else:
            found[name] = from_word("free", value.shape, name, symmetric=NDIM[name] == 2 and name in COVARIANCES)
        if name in COVARIANCES:
            if loading is not None and loading.ndim == 3:  # what is held is held as a whole
                found[name], loading = fixed(np.ones((value.shape[-1],) * 2)), None
            noises[name] = Noise(found[name], loading)
    alone = {name: pattern for name, pattern in found.items() if name not in loadings}
    return Structure(found, noises, tied, unknown, stationary, input_scale, steps, rows, placed(decays, alone))
