"""The Kalman filter with a gate or with Student-t noise, row by row as in streams and for whole batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from statespace_em import _validate
from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.errors import DataError, ParameterError, SingularInnovationError
from statespace_em.kernels import kalman_guarded, kalman_row
from statespace_em.labels import Labels, listed, show
from statespace_em.sequence.lgssm_filter import filtered_moments
from statespace_em.sequence.lgssm_params import LGSSMParams, by_row
from statespace_em.sequence.lgssm_passes import Filtered
from statespace_em.sequence.student import constants

By = Literal["row", "feature", "sensor"]  # what is judged, or weighted, together
DIMS: dict[str, tuple[str, ...]] = {
    "filtered": ("state",),
    "predicted": ("state",),
    "filtered_cov": ("state", "state_aux"),
    "predicted_cov": ("state", "state_aux"),
    "innovation": ("feature",),
    "innovation_cov": ("feature", "feature_aux"),
    "log_likelihood": (),
    "nis": (),
    "outside": ("feature",),
    "weight": ("feature",),
    "mean": ("state",),
    "cov": ("state", "state_aux"),
    "early": ("row", "feature"),
    "guard": ("setting",),
}  # of the fields of a step, and of what streams keep


class KalmanStep(NamedTuple):
    """What is known of the states when a row has come."""

    time: Any
    filtered: Floats  # (n,), E[s_t | y_1..t]
    predicted: Floats  # (n,), E[s_t | y_1..t-1]
    filtered_cov: Floats  # (n, n)
    predicted_cov: Floats  # (n, n)
    innovation: Floats  # (D,), y_t - E[y_t | y_1..t-1]; NaN where missing, or nothing is known yet of a diffuse start
    innovation_cov: Floats  # (D, D); infinite variance where nothing is known yet
    log_likelihood: float  # log p(what was taken of y_t | y_1..t-1), nats; under Student-t noise its lower bound
    nis: float  # normalised innovation squared of the row; NaN where nothing was measured or expected
    outside: Bools  # (D,), entries that the gate left out
    weight: (
        Floats  # (D,), precision of the noise in units of the common one: near 0 for an outlier under Student-t noise
    )


def early_step(found: Filtered, row: int, time: Any) -> KalmanStep:
    """Step from the answer to all rows so far, which no guard has judged: they do not determine a diffuse start yet."""
    innovation, cov = found.innovation[row], found.innovation_cov[row]
    return KalmanStep(
        time, found.filtered_mean[row], found.predicted_mean[row], found.filtered_cov[row], found.predicted_cov[row],
        innovation, cov, float(found.log_likelihood[row]), square_of(innovation, cov),
        np.zeros(len(innovation), bool), np.ones(len(innovation)),
    )  # fmt: skip


def check_determines(n_rows: int, room: int) -> None:
    """Refuse to go on where so many rows have left a diffuse start undetermined."""
    if n_rows == room:
        raise DataError(
            f"the first {n_rows} rows do not determine the diffuse first state: give params a proper initial_mean and "
            "initial_cov."
        )


SEEN: Mapping[str, str] = {
    name: "1:t" if name.startswith(("filtered", "weight")) else "1:t-1" for name in KalmanStep._fields[1:]
}  # what each field has seen


JUDGED = ("nis", "outside", "weight")  # fields that tell what a guard did


@dataclass(frozen=True, eq=False)
class Guard:
    """What keeps wrong measurements out: a gate, or heavy tails."""

    gate: float  # probability that a good measurement passes; NaN: everything does
    owner: Ints  # (D,), number of what each column is judged, or weighted, together with
    dof: Floats  # (G,), of the Student-t noise of each owner; NaN: it is normal

    @cached_property
    def judges(self) -> bool:
        """Whether anything is kept out."""
        return not (np.isnan(self.gate) and np.isnan(self.dof).all())

    @classmethod
    def of(cls, gate: float | None, dof: Any, names: Sequence[Any], noise: Floats, features: Sequence[Any]) -> Guard:
        """Check the settings; ``names`` (D,) says what each column is judged with, ``noise`` is that of the rows."""
        order = list(dict.fromkeys(names))
        owner = np.array([order.index(name) for name in names], dtype=np.int64)
        if gate is not None:
            _validate.probability("gate", gate, 0.999)
        if gate is not None and dof is not None:
            raise ParameterError(
                "gate and dof are both given: a gate leaves outliers out, Student-t noise weighs them."
            )
        if dof is not None:
            _check_weighted(owner, names, noise, features)
        return cls(np.nan if gate is None else gate, owner, _degrees(dof, order))

    def array(self) -> Floats:
        """Numbers that a file keeps: the gate, and owner and degrees of freedom of each column."""
        return np.concatenate([[self.gate], self.owner, self.dof[self.owner]])

    @classmethod
    def read(cls, numbers: Floats) -> Guard:
        """Undo `array`."""
        owner, dof = np.split(numbers[1:], 2)
        first = np.unique(owner, return_index=True)[1]
        return cls(float(numbers[0]), owner.astype(np.int64), dof[first])

    @cached_property
    def tables(self) -> tuple[Ints, Floats, Floats, Floats]:
        """What the kernel asks: owners, limits (D + 1,) of squares, degrees of freedom, constants (G, D + 1)."""
        size = len(self.owner)
        limit = np.full(size + 1, np.inf)
        if not np.isnan(self.gate):
            from scipy.special import chdtri  # here because it is slow to import, and fits do without

            limit[1:] = chdtri(np.arange(1, size + 1), 1.0 - self.gate)
        constant = np.full((len(self.dof), size + 1), np.nan)
        if not np.isnan(self.dof).all():
            constant = constants(self.dof[:, None], np.broadcast_to(np.arange(size + 1.0), constant.shape))
        return self.owner, limit, self.dof, constant


def owners(by: By, features: Sequence[Any], sensors: Sequence[str] | None) -> list[Any]:
    """Name what each column is judged, or weighted, with: its row, nothing, or the columns of its sensor."""
    _validate.one_of("by", by, ("row", "feature", "sensor"))
    if by == "row":
        return ["row"] * len(features)
    if by == "feature":
        return list(features)
    if sensors is None:
        raise ParameterError("by is 'sensor', but only a model of motion has sensors: say 'row' or 'feature'.")
    return list(sensors)


def _degrees(dof: Any, order: Sequence[Any]) -> Floats:
    """Degrees of freedom (G,), from a number, or a dict by owner as `robust.fit_student` returns it."""
    if dof is None:
        return np.full(len(order), np.nan)
    if isinstance(dof, Mapping):
        lost = [name for name in order if name not in dof]
        if lost:
            raise ParameterError(f"dof has no {show(lost[0])}, expected one for each of {listed(order)}.")
    given = [dof[name] for name in order] if isinstance(dof, Mapping) else [dof] * len(order)
    if not all(isinstance(value, int | float | np.number) and value > 0.0 for value in given):
        raise ParameterError(f"dof is {dof!r}, expected a positive number of degrees of freedom.")
    return np.array(given, dtype=float)


def _check_weighted(owner: Ints, names: Sequence[Any], noise: Floats, features: Sequence[Any]) -> None:
    """Refuse Student-t noise where there is none, or where columns weighted apart are correlated."""
    linked = (noise != 0.0).reshape(-1, *noise.shape[-2:]).any(0) & (owner[:, None] != owner)
    if linked.any():
        i, j = np.argwhere(linked)[0]
        raise ParameterError(
            f"the noises of {show(names[i])} and {show(names[j])} are correlated, so they cannot be weighted apart: "
            'by="row".'
        )
    none = (np.diagonal(noise, axis1=-2, axis2=-1) == 0.0).reshape(-1, len(owner)).any(0)
    if none.any():
        raise ParameterError(
            f"measurement_cov has no noise for column {show(features[int(np.argmax(none))])}: what is measured without "
            "error cannot be Student-t. Give it a variance, or use a gate."
        )


def filtered_row(
    y: Floats, matrices: Sequence[Floats], mean: Floats, cov: Floats, guard: Guard, time: Any, number: int
) -> tuple[KalmanStep, Floats, Floats]:
    """Take a row (D,) on its prediction; returns the step and the moments of the next row.

    ``matrices`` are A, b, Q, C, d, R with a leading axis of 1; ``number`` that of the row, for messages.
    """
    if not guard.judges:
        return _plain(y, matrices, mean, cov, time, number)
    later = mean.copy(), cov.copy()
    rows = Guarded.empty(1, len(mean), len(y))
    guarded_rows(y[None], matrices, *later, guard, rows, number)
    return KalmanStep(
        time, rows.filtered[0], mean, rows.filtered_cov[0], cov, rows.innovation[0], rows.innovation_cov[0],
        float(rows.log_likelihood[0]), float(rows.nis[0]), rows.outside[0], rows.weight[0],
    ), *later  # fmt: skip


def conditioning_of(guard: Guard) -> Mapping[str, str]:
    """What a filter tells, and what each has seen: what was judged only where something was."""
    return SEEN if guard.judges else {name: seen for name, seen in SEEN.items() if name not in JUDGED}


class Guarded(NamedTuple):
    """What a guarded filter finds, row by row; fields as of `KalmanStep`."""

    predicted: Floats  # (N, n)
    predicted_cov: Floats  # (N, n, n)
    filtered: Floats  # (N, n)
    filtered_cov: Floats  # (N, n, n)
    innovation: Floats  # (N, D)
    innovation_cov: Floats  # (N, D, D)
    log_likelihood: Floats  # (N,)
    nis: Floats  # (N,)
    outside: Bools  # (N, D)
    weight: Floats  # (N, D)

    @classmethod
    def empty(cls, n_rows: int, n: int, size: int) -> Guarded:
        """Room for rows that nothing is left out of."""
        vector, matrix = (n_rows, n), (n_rows, n, n)
        shapes = vector, matrix, vector, matrix, (n_rows, size), (n_rows, size, size), (n_rows,), (n_rows,)
        return cls(*(np.full(shape, np.nan) for shape in shapes), np.zeros((n_rows, size), bool), np.ones(shapes[4]))  # type: ignore[call-arg]

    def cut(self, begin: int, end: int) -> Guarded:
        """Some of the rows, in the same memory."""
        return Guarded(*(field[begin:end] for field in self))  # type: ignore[arg-type]


def guarded_rows(
    y: Floats, matrices: Sequence[Floats], mean: Floats, cov: Floats, guard: Guard, rows: Guarded, number: int
) -> None:
    """Filter rows (N, D) of one sequence from the prediction of the first; moves it to that of the next."""
    failed = kalman_guarded.guarded_filter(y, *matrices, mean, cov, *guard.tables, *rows)
    if failed:
        raise SingularInnovationError(number + failed - 1)


def _plain(
    y: Floats, matrices: Sequence[Floats], mean: Floats, cov: Floats, time: Any, number: int
) -> tuple[KalmanStep, Floats, Floats]:
    n, size = len(mean), len(y)
    filtered, filtered_cov = np.empty((1, n)), np.empty((1, n, n))
    innovation, innovation_cov = np.empty(size), np.empty((1, size, size))
    later = np.empty(n), np.empty((n, n))
    value, square = kalman_row.kalman_step(
        0, y[None], *matrices, mean, cov, filtered, filtered_cov, innovation, innovation_cov, *later
    )
    if value != value:
        raise SingularInnovationError(number)
    step = KalmanStep(
        time, filtered[0], mean, filtered_cov[0], cov, innovation, innovation_cov[0], value, square,
        np.zeros(size, bool), np.ones(size),
    )  # fmt: skip
    return step, *later


def square_of(innovation: Floats, cov: Floats) -> float:
    """Normalised square of what is known of an innovation."""
    seen = np.flatnonzero(np.isfinite(innovation) & np.isfinite(np.diag(cov)))
    if not len(seen):
        return float("nan")
    if len(seen) == 1:
        return float(innovation[seen[0]] ** 2 / cov[seen[0], seen[0]])
    return float(innovation[seen] @ np.linalg.solve(cov[np.ix_(seen, seen)], innovation[seen]))


def guarded(params: LGSSMParams, batch: Batch, guard: Guard, likelihood: str) -> Guarded:
    """Causal moments of every row, each judged, or weighted, by what came before it in its sequence.

    The guard begins once the rows have determined a diffuse start, as those of streams do.
    """
    rows, p = Guarded.empty(len(batch.y), len(params.initial_mean), batch.y.shape[1]), by_row(params, batch)
    early = None
    if not (np.isfinite(params.initial_cov).all() and np.isfinite(params.initial_mean).all()):
        if likelihood == "marginal":
            raise ParameterError(
                "the marginal likelihood of a diffuse start rests on all rows, also on those that a guard leaves out: "
                'use likelihood="diffuse" or "full".'
            )
        early = filtered_moments(params, batch, likelihood)
    for begin, end in zip(batch.starts[:-1].tolist(), batch.starts[1:].tolist()):
        mean, cov = np.array(params.initial_mean), np.array(params.initial_cov)
        if early is not None:
            begin, mean, cov = _determined(early, rows, begin, end)
        own = rows.cut(begin, end)
        guarded_rows(batch.y[begin:end], p.cut(begin, end)[:6], mean, (cov + cov.T) / 2.0, guard, own, begin)
    return rows


def _determined(early: Filtered, rows: Guarded, begin: int, end: int) -> tuple[int, Floats, Floats]:
    """Copy the rows that determine the start of a sequence; return the row after them and its prediction."""
    filtered_cov = np.asarray(early.filtered_cov[begin:end])
    told = np.isfinite(filtered_cov).all((1, 2))
    later = begin + int(np.argmax(told)) + 1 if told.any() else end
    taken = slice(begin, later)
    pairs = (
        (rows.predicted, early.predicted_mean), (rows.predicted_cov, early.predicted_cov),
        (rows.filtered, early.filtered_mean), (rows.filtered_cov, early.filtered_cov),
        (rows.innovation, early.innovation), (rows.innovation_cov, early.innovation_cov),
        (rows.log_likelihood, early.log_likelihood),
    )  # fmt: skip
    for own, known in pairs:
        own[taken] = known[taken]
    rows.nis[taken] = [square_of(*each) for each in zip(rows.innovation[taken], rows.innovation_cov[taken])]
    if later == end:
        return end, np.zeros(rows.filtered.shape[1]), np.zeros(rows.filtered_cov.shape[1:])
    return later, np.array(early.predicted_mean[later]), np.array(early.predicted_cov[later])


def filter_dataset(found: Filtered | Guarded, labels: Labels, state_coords: Mapping[str, Any]) -> xr.Dataset:
    """Label the answer of a filter, plain or guarded; each variable says what it has seen."""
    values: dict[str, Any] = found._asdict()
    if isinstance(found, Filtered):
        values = {name.removesuffix("_mean"): value for name, value in values.items()}
    outside = values.get("outside")
    if outside is not None:
        values["outside"] = np.where(outside, 1.0, 0.0)  # padding of ragged sequences is not outside either
    rows = {name: (DIMS[name], values[name]) for name in SEEN if name in values}
    coords = {**state_coords, "feature": labels.features, "feature_aux": labels.features}
    dataset = labels.dataset(rows, coords)
    if outside is not None:
        dataset["outside"] = dataset["outside"] == 1.0
    for name in dataset.data_vars:
        dataset.variables[name].attrs["conditioning"] = SEEN[str(name)]
    return dataset
