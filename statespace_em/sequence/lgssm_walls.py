"""The linear-Gaussian model near a unit root of states that start stationary; see `statespace_em.sequence.decays`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from statespace_em._typing import Bools
from statespace_em.core import Limit
from statespace_em.patterns import Pattern
from statespace_em.sequence.decays import Placed, in_step, lags, log_room
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_stationary import undamped
from statespace_em.sequence.lgssm_structure import Structure

NEAR = 1e-2  # distance from the unit circle from which going there is tried
INSIDE = 1e-7  # distance at which the variance of the states is exact enough for differences of the score
CLOSE = 1e-6  # distance from which a moving average goes along: one that all but cancels is too steep to climb on there
BACK = (1e-2, 1e-4, 1e-6)  # distances tried for a root that may not belong there


def onto_walls(structure: Structure, params: LGSSMParams) -> Iterator[LGSSMParams]:
    """Parameters with one root near the unit circle put there."""
    for decay, pattern in _decays(structure):
        roots = decay.roots(pattern, params.transition)
        away = np.where(decay.at_wall(roots), np.inf, 1.0 - np.abs(roots))
        if (away < NEAR).any():
            yield from map(structure.complete, _moved(pattern, decay, params, int(np.argmin(away)), decay.wall))


def off_walls(structure: Structure, params: LGSSMParams) -> Iterator[LGSSMParams]:
    """Parameters with one root moved away from the unit circle."""
    for decay, pattern in _decays(structure):
        if _at_wall(decay, pattern, params):
            j = int(np.argmax(np.abs(decay.roots(pattern, params.transition))))
            for distance in BACK:
                yield from map(structure.complete, _moved(pattern, decay, params, j, distance))


def undecaying(structure: Structure, params: LGSSMParams) -> Bools:
    """States (n,) that start stationary and do not decay, as nearly as arithmetic goes."""
    found = np.zeros(len(params.initial_mean), bool)
    if structure.stationary is None or params.transition.ndim > 2:
        return found
    known = np.zeros(len(found), bool)
    for decay, pattern in _decays(structure):
        known |= decay.states
        if _at_wall(decay, pattern, params):
            found |= decay.states & structure.stationary
    for part in undamped(params.transition, structure.stationary):
        found[part] |= not known[part].any()
    return found


def limit(structure: Structure, params: LGSSMParams, log_likelihood: Callable[[LGSSMParams], float]) -> Limit:
    """What is on the unit circle: there the variance of the disturbances vanishes, or that of the states has no bound.

    The latter may be where a diffuse state takes it up. Which it is the likelihood tells, a little inside.
    """
    shrinking = np.zeros(params.process_cov.shape, bool)
    values: dict[str, tuple[bool, str]] = {}
    there = params
    for decay, pattern in _decays(structure):
        for j in np.flatnonzero(decay.at_wall(decay.roots(pattern, params.transition))):
            tried = [structure.complete(moved) for moved in _moved(pattern, decay, there, int(j), INSIDE)]
            best = int(np.argmax([log_likelihood(each) for each in tried]))
            there = tried[best]
            words = "unit root: the likelihood is highest without decay"
            values |= dict.fromkeys(decay.names, (len(decay.names) > 1, words))
            if decay.driven is not None and best == 0:
                shrinking |= decay.driven
                values |= dict.fromkeys(decay.noise, (False, f"{words}, it is 0 there"))
    return Limit(there, _held(structure, params), {"process_cov": shrinking}, values)


def _held(structure: Structure, reference: LGSSMParams) -> Bools:
    """Which coordinates of `Structure.to_vector` are those of roots on the unit circle."""
    found = [np.zeros(0, bool)]
    for name in structure.names:
        size = len(structure.patterns[name].names)
        if name == "transition" and structure.decays:
            found.append(structure.decaying(reference.transition, np.ones(reference.transition.shape)).at_wall())
            continue
        if name in structure.noises:
            origin = structure.kinds_of(name, reference)
            size = len(structure.noises[name].to_vector(origin, origin))
        found.append(np.zeros(size, bool))
    return np.concatenate(found)


def begun(structure: Structure, params: LGSSMParams, start: LGSSMParams) -> LGSSMParams:
    """Start whose disturbances of decays are those that its variance of the states needs at these parameters."""
    cov = np.array(start.process_cov)
    for decay, pattern in _decays(structure):
        if decay.driven is None:
            continue
        own, other = (decay.roots(pattern, each.transition) for each in (params, start))
        if (np.abs(own) < 1.0).all() and (np.abs(other) < 1.0).all():
            cov[decay.driven] *= min(np.exp(log_room(np.arctanh(own)) - log_room(np.arctanh(other))), 1.0)
    return start._replace(process_cov=cov)


def _decays(structure: Structure) -> Iterator[tuple[Placed, Pattern]]:
    for decay in structure.decays:
        pattern = structure.patterns["transition"]
        assert isinstance(pattern, Pattern)
        yield decay, pattern


def _at_wall(decay: Placed, pattern: Pattern, params: LGSSMParams) -> bool:
    return bool(decay.at_wall(decay.roots(pattern, params.transition)).any())


def _moved(pattern: Pattern, decay: Placed, params: LGSSMParams, j: int, distance: float) -> Iterator[dict[str, Any]]:
    """Values with one root so far from the unit circle; the variance of the states is kept, or that of the noise.

    With the latter that of the states has a bound as well where a moving average all but cancels with the root.
    """
    values = pattern.read(params.transition)
    roots = decay.roots(pattern, params.transition)
    there = np.array(roots)
    there[j] = np.sign(roots[j]) * (1.0 - distance)
    values[decay.places] = lags(there)[0] if decay.kind == "lags" else values[decay.places] * (there[0] / roots[0])
    moved = params._asdict() | {"transition": pattern.build(values)}
    if decay.driven is not None:
        share = np.exp(log_room(np.arctanh(there)) - log_room(np.arctanh(roots)))
        yield moved | {"process_cov": np.where(decay.driven, share * params.process_cov, params.process_cov)}
        if decay.shortest is not None:  # in continuous time it is their density that stays
            share *= float(np.prod(np.log(np.abs(roots)) / np.log(np.abs(there))))
            moved["process_cov"] = np.where(decay.driven, share * params.process_cov, params.process_cov)
    yield moved
    if len(decay.shocks) and 1.0 - abs(roots[j]) < CLOSE:
        own = pattern.read(params.transition)
        values[decay.shocks] = in_step(own[decay.places], values[decay.places], own[decay.shocks])
        yield moved | {"transition": pattern.build(values)}
