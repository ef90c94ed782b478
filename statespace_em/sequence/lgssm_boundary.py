"""The linear-Gaussian model near singular noise: faces of its covariances, and likelihoods without bound.

The score is that of the filter, which inverts covariances of innovations only: it is exact also where a covariance is
singular, and its sign there says whether the likelihood rises with a variance (the conditions of Karush, Kuhn and
Tucker).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.data import Batch
from statespace_em.sequence.cones import Cone, spectral
from statespace_em.sequence.lgssm_block import SCALES, Block
from statespace_em.sequence.lgssm_filter import innovation_covariances
from statespace_em.sequence.lgssm_loading import typical
from statespace_em.sequence.lgssm_noise import Noise
from statespace_em.sequence.lgssm_params import LGSSMParams, span_of
from statespace_em.sequence.lgssm_structure import Structure

SHARES = (1e-2, 1e-4, 1e-6)  # of its value at the start, below which a variance may belong at 0
NONE = 1e-13  # share that is the round-off of none, along directions that are no variances on their own
ROUND_OFF = 4.0 * float(np.finfo(float).eps)
LIFTS = (1.0, 0.1, 1e-2, 1e-3, 1e-4)  # nats that its slope promises, tried for a variance that does not
TINY = 1e-4  # of the largest variance at the start: a start that says nothing of where a variance belongs
EXACT = 1e-10  # share of its scale below which a variance is none, and a row is explained without error
DOUBT = 1e4 * EXACT  # share below which it is looked at more closely
FIRST = 1e-8  # share of the variance of y that is left where a fixed first state is taken to be fitted exactly
AT_ONCE = 65_536  # rows whose covariances are looked at together


def onto_faces(structure: Structure, params: LGSSMParams, start: LGSSMParams) -> Iterator[LGSSMParams]:
    """Parameters with small free variances, along any direction, at 0; as many as possible first."""
    tried = -1
    for share in SHARES:
        values, n_small = params._asdict(), 0
        for name, noise, state, origin in _noises(structure, params, start):
            for piece in noise.cones:
                block, cov = piece.block, piece.read(state)
                cone = block.cone(piece.read(origin))
                none = 0.0 if block.kind in SCALES else _none(cone, cov)
                found, n = _reduced(cone, cov, none, share)
                piece.write(state, block.exact(found))
                n_small += n
            values[name] = structure.rows_of(name, noise.cov(state))
        if n_small and n_small != tried:
            yield structure.complete(values)
        tried = n_small


def off_faces(
    structure: Structure, params: LGSSMParams, gradients: dict[str, Floats], start: LGSSMParams
) -> Iterator[LGSSMParams]:
    """Parameters with those variances raised that are next to 0 but along which the likelihood rises.

    ``gradients`` are those of `Structure.entry_gradients`.
    """
    free = [name for name in structure.names if name in structure.noises]
    began = [structure.noises[name].inner(structure.kinds_of(name, start)) for name in free]
    tiny = TINY * max((float(np.diagonal(each, axis1=-2, axis2=-1).max()) for each in began), default=0.0)
    for lift in LIFTS:
        values, n_raised = params._asdict(), 0
        for name, noise, state, origin in _noises(structure, params, start):
            slopes = noise.inner_gradient(0.5 * gradients[name])
            for piece in noise.cones:
                first = piece.read(origin)
                low = np.inf if first.diagonal().max() < tiny else SHARES[0]
                found, n = _raised(piece.block.cone(first), piece.read(state), piece.gradient(slopes), low, lift)
                piece.write(state, piece.block.exact(found))
                n_raised += n
            values[name] = structure.rows_of(name, noise.cov(state))
        if n_raised:
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
    """Covariance with more variance where there is next to none and the slope promises ``lift`` nats of it.

    A slope that promises them of more than at the start is that of a top, which round-off leaves.
    """
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
    most = np.linalg.eigvalsh(added)[-1]
    if not most > np.linalg.eigvalsh(corner @ white @ corner)[-1] or (most > 1.0 and low < np.inf):
        return cov, 0
    return cone.colour(white + added), 1


def at_zero(structure: Structure, params: LGSSMParams) -> list[str]:
    """Names of the free variances that are exactly 0, and of other free covariances that are singular."""
    found = []
    for name, noise, state, _ in _noises(structure, params, params):
        for piece in noise.cones:
            block, cov = piece.block, piece.read(state)
            if block.kind in SCALES:
                found += [word for word, v in zip(block.pattern.names, block.variances(cov)) if v == 0.0]
            elif span_of(cov) is not None:
                found.append(name)
    return list(dict.fromkeys(found))


def vanished(structure: Structure, params: LGSSMParams, start: LGSSMParams) -> dict[str, Floats]:
    """Directions (p, k) without variance of every free covariance, which had some at the start."""
    found = {}
    for name, noise, state, origin in _noises(structure, params, start):
        size = noise.pattern.shape[0]
        columns = np.eye(size) if noise.loading is None else typical(noise.loading)
        lost = [
            piece.directions(_lost(piece.block, piece.read(state), piece.read(origin)), size) for piece in noise.closed
        ]
        away = np.hstack([np.zeros((size, 0)), *lost])
        if away.size:
            seen = columns @ away
            found[name] = seen / np.linalg.norm(seen, axis=0)
    return found


def _lost(block: Block, cov: Floats, origin: Floats) -> Floats:
    """Directions (r, k) of a block without variance, which had some at the start."""
    if block.kind in SCALES:
        return np.eye(len(cov))[:, np.diag(cov) < EXACT * np.diag(origin)]
    return _null_directions(cov) if span_of(origin) is None else np.zeros((len(cov), 0))


def is_singular(structure: Structure, params: LGSSMParams, start: LGSSMParams) -> bool:
    """Whether a free covariance has a direction with next to no variance, but some at the start."""
    for _, noise, state, origin in _noises(structure, params, start):
        for piece in noise.closed:
            cov, began = piece.read(state), piece.read(origin)
            if piece.block.kind == "general":
                if _null_directions(cov, SHARES[1]).size:
                    return True
            elif (np.linalg.eigvalsh(piece.block.cone(began).white(cov))[:1] < SHARES[1]).any():
                return True
    return False


def _noises(
    structure: Structure, params: LGSSMParams, start: LGSSMParams
) -> Iterator[tuple[str, Noise, Floats, Floats]]:
    """Free covariances, with their states there and at the start."""
    for name in structure.names:
        if name in structure.noises:
            noise = structure.noises[name]
            there, began = (noise.state(structure.kinds_of(name, each)) for each in (params, start))
            yield name, noise, there, began


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


def predicts_exactly(params: LGSSMParams, batch: Batch) -> bool:
    """Whether some row is predicted with next to no error, in units of a typical one.

    To leave out what unknown first states add is to underrate errors, and takes a fraction of the time.
    """
    if not _any_exact(innovation_covariances(params, batch, unknown=False), DOUBT):
        return False
    cov = innovation_covariances(params, batch)
    cov[~np.isfinite(cov)] = np.nan
    return _any_exact(cov, EXACT)


def _any_exact(innovation_cov: Floats, share: float) -> bool:
    """Whether a row (N, D, D; NaN where missing) has less than a share of the error of a typical one."""
    variance = np.diagonal(innovation_cov, axis1=1, axis2=2)
    if np.isnan(variance).all(0).any():
        return False
    sd = np.sqrt(np.nanmedian(variance, axis=0))
    if not (sd > 0.0).all():
        return True
    for begin in range(0, len(innovation_cov), AT_ONCE):
        white = innovation_cov[begin : begin + AT_ONCE] / np.outer(sd, sd)
        white = np.where(np.isnan(white), np.eye(len(sd)), white)
        if np.linalg.eigvalsh(white)[:, 0].min() < share:
            return True
    return False
