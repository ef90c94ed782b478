"""The linear-Gaussian model near singular noise: its chart by factors, its faces, and likelihoods without bound."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Floats
from statespace_em.sequence.lgssm_expectation import Statistics
from statespace_em.sequence.lgssm_params import DOMAINS, LGSSMParams, span_of

NEAR = 1e-3  # variance along a direction, as a share of its scale, from which logarithms are left
MOST = 40  # coordinates; the differences for the curvature cost their square in E-steps
EXACT = 1e-10  # share of its scale below which a variance is none, and a row is explained without error


class Scales(NamedTuple):
    """Units in which the parameters are of order 1."""

    state: Floats  # (n, n), root of the covariance of the states over time
    feature: Floats  # (D,), standard deviation of what one step brings to y
    noise: float  # of a step of the states, as a share of their spread


def scales(params: LGSSMParams, sums: Statistics) -> Scales:
    """Units from the parameters and the moments of the states."""
    n = len(params.initial_mean)
    C, Q = params.observation, params.process_cov
    feature = np.diag(params.measurement_cov + C @ Q @ C.T) + np.diag(sums.S_vv) / max(float(sums.n_rows[0]), 1.0)
    feature = np.where(feature > 0.0, feature, 1.0)
    rows, squares = max(float(sums.n_rows[0]), 1.0), sums.S_uu[0]
    middle = squares[:n, n] / rows
    spread = squares[:n, :n] / rows - np.outer(middle, middle) + Q
    load = np.square(C).mean(0)
    spare = np.where(load > 0.0, 1e-4 * feature.mean() / np.where(load > 0.0, load, 1.0), 0.0)
    spread = (spread + spread.T) / 2.0 + np.diag(spare + 1e-6 * np.abs(np.diag(spread)))
    values, vectors = np.linalg.eigh(spread)
    state = vectors * np.sqrt(np.maximum(values, 1e-12 * max(values[-1], 1e-300)))
    white = np.linalg.solve(state, np.linalg.solve(state, Q).T)
    return Scales(state, np.sqrt(feature), max(np.sqrt(max(np.trace(white), 0.0) / n), 1e-2))


def free_covariances(frozen: Collection[str]) -> list[str]:
    """Names of the covariances that a fit moves."""
    return [name for name, domain in DOMAINS.items() if domain == "covariance" and name not in frozen]


def basis(name: str, start: LGSSMParams, units: Scales) -> Floats:
    """Columns (p, r) that span a covariance: all directions in units, or those of a start that is singular."""
    kept = span_of(getattr(start, name))
    if kept is not None:
        return kept.basis
    return np.diag(units.feature) if name == "measurement_cov" else units.noise * units.state


def white_eigen(name: str, params: LGSSMParams, start: LGSSMParams, units: Scales) -> tuple[Floats, Floats, Floats]:
    """Basis, eigenvalues and eigenvectors of a covariance in it."""
    columns = basis(name, start, units)
    inverse = np.linalg.pinv(columns)
    white = inverse @ getattr(params, name) @ inverse.T
    values, vectors = np.linalg.eigh((white + white.T) / 2.0)
    return columns, np.maximum(values, 0.0), vectors


class FactorChart:
    """Coordinates in which each free covariance is a square L L'; see `statespace_em.boundary.Chart`."""

    def __init__(
        self, params: LGSSMParams, sums: Statistics, start: LGSSMParams, frozen: Collection[str], tied: bool
    ) -> None:
        self.origin, self.tied = params, tied
        units = scales(params, sums)
        away = np.linalg.inv(units.state)
        step, feature = units.noise * units.state, np.diag(units.feature)
        sides = {  # a change of the parameter is left @ coordinates @ right
            "transition": (step, away), "observation": (feature, away), "initial_mean": (step, None),
            "state_offset": (step, None), "observation_offset": (feature, None),
        }  # fmt: skip
        self.sides = {name: sides[name] for name in DOMAINS if name in sides and name not in frozen}
        self.roots = {}
        for name in free_covariances(frozen):
            columns, values, vectors = white_eigen(name, params, start, units)
            self.roots[name] = columns, vectors * np.sqrt(values)
        self.size = sum(getattr(params, name).size for name in self.sides)
        self.size += sum(root.size for _, root in self.roots.values())

    def params(self, x: Floats) -> LGSSMParams:
        """Parameters at the coordinates ``x`` (size,)."""
        values = self.origin._asdict()
        for name, (left, right) in self.sides.items():
            value = values[name]
            change, x = x[: value.size].reshape(value.shape), x[value.size :]
            values[name] = value + (left @ change if right is None else left @ change @ right)
        for name, (columns, root) in self.roots.items():
            change, x = x[: root.size].reshape(root.shape), x[root.size :]
            half = columns @ (root + change)
            values[name] = half @ half.T
        if self.tied:
            values["initial_cov"] = values["process_cov"]
        return LGSSMParams(**values)


def near(params: LGSSMParams, sums: Statistics, start: LGSSMParams, frozen: Collection[str]) -> bool:
    """Whether a free covariance has a direction with next to no variance, in a model small enough for a chart."""
    if sum(getattr(params, name).size for name in DOMAINS if name not in frozen) > MOST:
        return False
    units = scales(params, sums)
    return any(white_eigen(name, params, start, units)[1][0] < NEAR for name in free_covariances(frozen))


def on_face(
    params: LGSSMParams, sums: Statistics, start: LGSSMParams, frozen: Collection[str], share: float
) -> dict[str, Floats]:
    """Free covariances with the variances below this share of their scale at exactly 0."""
    units, found = scales(params, sums), {}
    for name in free_covariances(frozen):
        columns, values, vectors = white_eigen(name, params, start, units)
        if 0.0 < values[0] < share or values[0] == 0.0:
            half = columns @ (vectors[:, values >= share] * np.sqrt(values[values >= share]))
            found[name] = half @ half.T
    return found


def vanished(params: LGSSMParams, start: LGSSMParams, frozen: Collection[str]) -> dict[str, Floats]:
    """Directions (p, k) without variance of every free covariance that had one in all directions at the start."""
    found = {name: _null_directions(getattr(params, name)) for name in free_covariances(frozen)}
    return {n: away for n, away in found.items() if away.size and span_of(getattr(start, n)) is None}


def _null_directions(cov: Floats) -> Floats:
    """Directions (p, k) of unit length without variance; a variance that counts is one of the round-off of others."""
    scale = np.sqrt(np.where(np.diag(cov) > 0.0, np.diag(cov), 1.0))
    values, vectors = np.linalg.eigh(cov / np.outer(scale, scale))
    away = vectors[:, values < EXACT] / scale[:, None]
    return np.asarray(away / np.linalg.norm(away, axis=0))


def explains_exactly(innovation_cov: Floats) -> bool:
    """Whether some row (N, D, D; NaN where missing) is predicted with next to no error, in units of a typical one."""
    variance = np.diagonal(innovation_cov, axis1=1, axis2=2)
    if np.isnan(variance).all(0).any():
        return False
    sd = np.sqrt(np.nanmedian(variance, axis=0))
    if not (sd > 0.0).all():
        return True
    white = innovation_cov / np.outer(sd, sd)
    gaps = np.isnan(white)
    white = np.where(gaps, np.eye(len(sd)), white)
    return bool(np.linalg.eigvalsh(white)[:, 0].min() < EXACT)
