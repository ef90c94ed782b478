"""One row of the Kalman filter, with a gate or with Student-t noise: what streams and `checks.gated` do at each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from statespace_em import _validate
from statespace_em._typing import Bools, Floats
from statespace_em.errors import ParameterError, SingularInnovationError
from statespace_em.kernels import kalman_row
from statespace_em.sequence.student import divergence, expected_weights, shape_and_rate, squared_distances

ROUNDS = 100  # most updates of the weights of a row
SETTLED = 1e-10  # relative change of the weights at which they end
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


SEEN: Mapping[str, str] = {
    name: "1:t" if name.startswith(("filtered", "weight")) else "1:t-1" for name in KalmanStep._fields[1:]
}  # what each field has seen


JUDGED = ("nis", "outside", "weight")  # fields that tell what a guard did


class Guard(NamedTuple):
    """What keeps wrong measurements out: a gate, or heavy tails."""

    gate: float = np.nan  # probability that a good measurement passes; NaN: everything does
    by_feature: bool = False  # whether entries are judged one by one, else rows
    dof: float = np.nan  # of Student-t noise; NaN: it is normal

    @classmethod
    def of(cls, gate: float | None, by: str, dof: float | None, noise: Floats) -> Guard:
        """Check the settings; ``noise`` is the measurement noise."""
        _validate.one_of("by", by, ("row", "feature"))
        if gate is not None and not 0.0 < gate < 1.0:
            raise ParameterError(f"gate is {gate!r}, expected a probability between 0 and 1, such as 0.999.")
        if dof is not None and not dof > 0.0:
            raise ParameterError(f"dof is {dof!r}, expected a positive number of degrees of freedom.")
        if gate is not None and dof is not None:
            raise ParameterError(
                "gate and dof are both given: a gate leaves outliers out, Student-t noise weighs them."
            )
        if dof is not None and by == "feature" and noise[..., ~np.eye(noise.shape[-1], dtype=bool)].any():
            raise ParameterError(
                'the noises of the columns are correlated, so they cannot be weighted apart: by="row".'
            )
        return cls(np.nan if gate is None else gate, by == "feature", np.nan if dof is None else dof)

    def array(self) -> Floats:
        """Numbers that a file keeps."""
        return np.array([float(value) for value in self])


def filtered_row(
    y: Floats, matrices: Sequence[Floats], mean: Floats, cov: Floats, guard: Guard, time: Any, number: int
) -> tuple[KalmanStep, Floats, Floats]:
    """Take a row (D,) on its prediction; returns the step and the moments of the next row.

    ``matrices`` are A, b, Q, C, d, R with a leading axis of 1; ``number`` that of the row, for messages.
    """
    found, later = _plain(y, matrices, mean, cov, time, number)
    if not np.isnan(guard.dof):
        return _weighted(y, matrices, found, guard, number)
    outside = _outside(found, guard)
    if outside.any():
        taken, later = _plain(np.where(outside, np.nan, y), matrices, mean, cov, time, number)
        found = taken._replace(
            innovation=found.innovation, innovation_cov=found.innovation_cov, nis=found.nis, outside=outside
        )
    return found, *later


def _plain(
    y: Floats, matrices: Sequence[Floats], mean: Floats, cov: Floats, time: Any, number: int
) -> tuple[KalmanStep, tuple[Floats, Floats]]:
    n, size = len(mean), len(y)
    filtered, filtered_cov = np.empty((1, n)), np.empty((1, n, n))
    innovation, innovation_cov = np.empty((1, size)), np.empty((1, size, size))
    later = np.empty(n), np.empty((n, n))
    value = kalman_row.kalman_step(
        y[None], *matrices, mean, cov, filtered, filtered_cov, innovation, innovation_cov, *later
    )
    if np.isnan(value):
        raise SingularInnovationError(number)
    step = KalmanStep(
        time, filtered[0], mean, filtered_cov[0], cov, innovation[0], innovation_cov[0], value,
        square_of(innovation[0], innovation_cov[0]), np.zeros(size, bool), np.ones(size),
    )  # fmt: skip
    return step, later


def square_of(innovation: Floats, cov: Floats) -> float:
    """Normalised square of what is known of an innovation."""
    seen = np.flatnonzero(np.isfinite(innovation) & np.isfinite(np.diag(cov)))
    if not len(seen):
        return float("nan")
    if len(seen) == 1:
        return float(innovation[seen[0]] ** 2 / cov[seen[0], seen[0]])
    return float(innovation[seen] @ np.linalg.solve(cov[np.ix_(seen, seen)], innovation[seen]))


def _outside(found: KalmanStep, guard: Guard) -> Bools:
    """Entries (D,) that the gate leaves out."""
    seen = np.isfinite(found.innovation)
    if np.isnan(guard.gate) or not seen.any():
        return np.zeros(len(seen), bool)
    from scipy.special import chdtri  # here because it is slow to import, and fits do without

    if guard.by_feature:
        with np.errstate(invalid="ignore"):
            far = found.innovation**2 > chdtri(1, 1.0 - guard.gate) * np.diag(found.innovation_cov)
        return np.asarray(seen & far)
    return np.asarray(seen & (found.nis > chdtri(int(seen.sum()), 1.0 - guard.gate)))


def _weighted(
    y: Floats, matrices: Sequence[Floats], plain: KalmanStep, guard: Guard, number: int
) -> tuple[KalmanStep, Floats, Floats]:
    """Take a row under Student-t noise: the states and the weights in turn, each given the other, until they agree.

    That is the fixed point of `robust.fit_student` for this row, what came before being known.
    """
    *dynamics, C, d, R = matrices
    size, seen = len(y), ~np.isnan(y)
    owners = np.arange(size) if guard.by_feature else np.zeros(size, np.int64)
    belongs = owners[:, None] == np.arange(owners.max() + 1)
    entries = seen.astype(float) @ belongs
    nu = np.full(len(entries), guard.dof)
    weight = np.ones(len(entries))
    step, later = plain, (plain.predicted, plain.predicted_cov)
    for _ in range(ROUNDS):
        each = weight[owners]
        noise = R[0] / np.sqrt(each[:, None] * each)
        step, later = _plain(y, (*dynamics, C, d, noise[None]), plain.predicted, plain.predicted_cov, step.time, number)
        error = np.where(seen, y - C[0] @ step.filtered - d[0], 0.0)
        second = np.outer(error, error) + C[0] @ step.filtered_cov @ C[0].T
        distance = squared_distances(second[None], seen[None], R[0], owners)[0]
        before, weight = weight, np.where(entries > 0.0, expected_weights(nu, entries, distance)[0], 1.0)
        if np.abs(weight - before).max() <= SETTLED * before.max():
            break
    shape, rate = shape_and_rate(nu, entries, distance)
    log_weight = expected_weights(nu, entries, distance)[1]
    bound = 0.5 * entries * (log_weight - np.log(weight)) - divergence(shape, rate, nu / 2.0)
    found = step._replace(
        innovation=plain.innovation, innovation_cov=plain.innovation_cov, nis=plain.nis, weight=weight[owners],
        log_likelihood=step.log_likelihood + float(bound[entries > 0.0].sum()),
    )  # fmt: skip
    return found, *later
