"""The linear-Gaussian model near singular noise: faces of its covariances, and likelihoods without bound.

The score is that of the filter, which inverts covariances of innovations only: it is exact also where a covariance is
singular, and its sign there says whether the likelihood rises with a variance (the conditions of Karush, Kuhn and
Tucker).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.sequence.cones import Cone, spectral
from statespace_em.sequence.lgssm_loading import typical
from statespace_em.sequence.lgssm_noise import SCALES, Block, Noise
from statespace_em.sequence.lgssm_params import LGSSMParams, span_of
from statespace_em.sequence.lgssm_row_noise import RowNoise
from statespace_em.sequence.lgssm_structure import Structure

SHARES = (1e-2, 1e-4, 1e-6)  # of its value at the start, below which a variance may belong at 0
NONE = 1e-13  # share that is the round-off of none, along directions that are no variances on their own
ROUND_OFF = 4.0 * float(np.finfo(float).eps)
LIFTS = (1.0, 0.1, 1e-2, 1e-3, 1e-4)  # nats that its slope promises, tried for a variance that does not
TINY = 1e-4  # of the largest variance at the start: a start that says nothing of where a variance belongs
EXACT = 1e-10  # share of its scale below which a variance is none, and a row is explained without error
FIRST = 1e-8  # share of the variance of y that is left where a fixed first state is taken to be fitted exactly
AT_ONCE = 65_536  # rows whose covariances are looked at together


def onto_faces(structure: Structure, params: LGSSMParams, start: LGSSMParams) -> Iterator[LGSSMParams]:
    """Parameters with small free variances, along any direction, at 0; as many as possible first."""
    tried = -1
    for share in SHARES:
        values, n_small = params._asdict(), 0
        for name, parts in _noises(structure, params, start):
            covs = []
            for noise, cov, began in parts:
                inner, origin = np.array(noise.inner(cov)), noise.inner(began)
                for block, square in _squares(noise):
                    cone = noise.cone(block, origin[square])
                    none = 0.0 if block.kind in SCALES else _none(cone, inner[square])
                    found, n = _reduced(cone, inner[square], none, share)
                    inner[square], n_small = noise.exact(block, found), n_small + n
                covs.append(noise.outer(inner))
            values[name] = structure.with_constant(name, covs, params)
        if n_small and n_small != tried:
            yield structure.complete(values)
        tried = n_small


def off_faces(
    structure: Structure, params: LGSSMParams, gradients: dict[str, Floats], start: LGSSMParams
) -> Iterator[LGSSMParams]:
    """Parameters with those variances raised that are next to 0 but along which the likelihood rises.

    ``gradients`` are those of `Structure.entry_gradients`.
    """
    starts = [np.diag(noise.inner(own)) for _, parts in _noises(structure, start, start) for noise, own, _ in parts]
    tiny = TINY * max((float(each.max()) for each in starts), default=0.0)
    for lift in LIFTS:
        values, n_raised = params._asdict(), 0
        for name, parts in _noises(structure, params, start):
            covs = []
            for (noise, cov, began), gradient in zip(
                parts, structure.noises[name].constant_gradients(0.5 * gradients[name])
            ):
                inner, origin = np.array(noise.inner(cov)), noise.inner(began)
                slopes = noise.inner_gradient(gradient)
                for block, square in _squares(noise):
                    low = np.inf if origin[square].diagonal().max() < tiny else SHARES[0]
                    found, n = _raised(noise.cone(block, origin[square]), inner[square], slopes[square], low, lift)
                    inner[square], n_raised = noise.exact(block, found), n_raised + n
                covs.append(noise.outer(inner))
            values[name] = structure.with_constant(name, covs, params)
        if not n_raised:
            return
        yield structure.complete(values)


def _none(cone: Cone, cov: Floats) -> float:
    """Share of the scale that is the round-off of none: where scales differ, that of the largest along the smallest."""
    return max(NONE, ROUND_OFF * float(np.linalg.norm(cone.inverse, 2) ** 2 * np.abs(cov).max()))


def _reduced(cone: Cone, cov: Floats, none: float, share: float) -> tuple[Floats, int]:
    """Covariance without the variances between two shares of the scale, and how many these are."""
    white = cone.white(cov)
    values = np.linalg.eigvalsh(white)
    small = (values > none) & (values < share)
    if not small.any():
        return cov, 0
    return cone.colour(spectral(white, lambda v: np.where(v < share, 0.0, v))), int(small.sum())


def _raised(cone: Cone, cov: Floats, slopes: Floats, low: float, lift: float) -> tuple[Floats, int]:
    """Covariance with more variance where there is next to none and the slope promises ``lift`` nats of it."""
    white = cone.white(cov)
    values, vectors = np.linalg.eigh(white)
    near = vectors[:, values < low]
    if not near.shape[1]:
        return cov, 0
    corner = near @ near.T
    up = spectral(cone.element(cone.read(corner @ cone.gradient(slopes) @ corner)), lambda v: np.maximum(v, 0.0))
    promised = float(np.square(up).sum())
    if promised == 0.0:
        return cov, 0
    added = lift * up / promised
    if not np.linalg.eigvalsh(added)[-1] > np.linalg.eigvalsh(corner @ white @ corner)[-1]:
        return cov, 0
    return cone.colour(white + added), 1


def at_zero(structure: Structure, params: LGSSMParams) -> list[str]:
    """Names of the free variances that are exactly 0, and of other free covariances that are singular."""
    found = []
    for name, noise, cov, _ in _each(structure, params, params):
        inner = noise.inner(cov)
        for block, square in _squares(noise):
            if block.kind in SCALES:
                found += [noise.pattern.names[j] for j, v in zip(block.values, noise.read(block, inner)) if v == 0.0]
            elif span_of(inner[square]) is not None:
                found.append(name)
    return list(dict.fromkeys(found))


def vanished(structure: Structure, params: LGSSMParams, start: LGSSMParams) -> dict[str, Floats]:
    """Directions (p, k) without variance of every free covariance, which had some at the start."""
    found = {}
    for name, parts in _noises(structure, params, start):
        whole = structure.noises[name]
        columns = np.eye(whole.pattern.shape[0]) if whole.loading is None else typical(whole.loading)
        away = np.zeros((columns.shape[1], 0))
        for number, (noise, cov, began) in enumerate(parts):
            lost = _lost(noise, noise.inner(cov), noise.inner(began))
            if isinstance(whole, RowNoise):
                own = whole.directions(number)
                lost = own @ lost if own.shape[1] == len(lost) else own[:, : own.shape[1] * bool(lost.size)]
            away = np.hstack([away, lost])
        if away.size:
            seen = columns @ away
            found[name] = seen / np.linalg.norm(seen, axis=0)
    return found


def _lost(noise: Noise, inner: Floats, origin: Floats) -> Floats:
    """Directions (r, k) of disturbances without variance, which had some at the start."""
    away = np.zeros((len(inner), 0))
    for block in noise.blocks:
        square = np.ix_(block.rows, block.rows)
        own = np.zeros((len(inner), 0))
        if block.kind in SCALES:
            lost = block.rows[np.diag(inner)[block.rows] < EXACT * np.diag(origin)[block.rows]]
            own = np.eye(len(inner))[:, lost]
        elif span_of(origin[square]) is None:
            directions = _null_directions(inner[square])
            own = np.zeros((len(inner), directions.shape[1]))
            own[block.rows] = directions
        away = np.hstack([away, own])
    return away


def is_singular(structure: Structure, params: LGSSMParams, start: LGSSMParams) -> bool:
    """Whether a free covariance has a direction with next to no variance, but some at the start."""
    for _, noise, cov, began in _each(structure, params, start):
        inner, origin = noise.inner(cov), noise.inner(began)
        for block in noise.blocks:
            square = np.ix_(block.rows, block.rows)
            if block.kind == "general":
                if _null_directions(inner[square], SHARES[1]).size:
                    return True
            elif (np.linalg.eigvalsh(noise.cone(block, origin[square]).white(inner[square]))[:1] < SHARES[1]).any():
                return True
    return False


def _noises(
    structure: Structure, params: LGSSMParams, start: LGSSMParams
) -> Iterator[tuple[str, list[tuple[Noise, Floats, Floats]]]]:
    """Free covariances as constant noises, with their values there and at the start."""
    for name in structure.names:
        if name in structure.noises:
            noise = structure.noises[name]
            there, began = (noise.constant(structure.kinds_of(name, each)) for each in (params, start))
            yield name, [(own, cov, first) for (own, cov), (_, first) in zip(there, began)]


def _each(structure: Structure, params: LGSSMParams, start: LGSSMParams) -> Iterator[tuple[str, Noise, Floats, Floats]]:
    for name, parts in _noises(structure, params, start):
        for noise, cov, began in parts:
            yield name, noise, cov, began


def _squares(noise: Noise) -> list[tuple[Block, Any]]:
    """Blocks that are of a cone, and where they stand."""
    return [(block, np.ix_(block.rows, block.rows)) for block in noise.blocks if block.kind != "general"]


def _null_directions(cov: Floats, share: float = EXACT) -> Floats:
    """Directions (p, k) of unit length without variance; a variance that counts is one of the round-off of others."""
    scale = np.sqrt(np.where(np.diag(cov) > 0.0, np.diag(cov), 1.0))
    values, vectors = np.linalg.eigh(cov / np.outer(scale, scale))
    away = vectors[:, values < share] / scale[:, None]
    return np.asarray(away / np.linalg.norm(away, axis=0))


def begins_exactly(params: LGSSMParams, fixed: Bools) -> bool:
    """Whether first states that are ``fixed`` (n,) but unknown leave a direction of the first row next to no noise."""
    found = params.observation, params.measurement_cov, params.process_cov
    C, R, Q = (value if value.ndim == 2 else value[0] for value in found)
    first = C @ np.where(fixed[:, None] | fixed, 0.0, params.initial_cov) @ C.T + R
    later = first + C @ Q @ C.T
    scale = np.sqrt(np.where(np.diag(later) > 0.0, np.diag(later), 1.0))
    return bool(np.linalg.eigvalsh(first / np.outer(scale, scale))[0] < FIRST)


def explains_exactly(innovation_cov: Floats) -> bool:
    """Whether some row (N, D, D; NaN where missing) is predicted with next to no error, in units of a typical one."""
    variance = np.diagonal(innovation_cov, axis1=1, axis2=2)
    if np.isnan(variance).all(0).any():
        return False
    sd = np.sqrt(np.nanmedian(variance, axis=0))
    if not (sd > 0.0).all():
        return True
    for begin in range(0, len(innovation_cov), AT_ONCE):
        white = innovation_cov[begin : begin + AT_ONCE] / np.outer(sd, sd)
        white = np.where(np.isnan(white), np.eye(len(sd)), white)
        if np.linalg.eigvalsh(white)[:, 0].min() < EXACT:
            return True
    return False
