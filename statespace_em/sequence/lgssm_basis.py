"""How much of a linear-Gaussian model is a mere choice of basis and origin for its states."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from statespace_em._typing import Floats
from statespace_em.sequence.lgssm_params import LGSSMParams


def arbitrary(params: LGSSMParams, frozen: Collection[str], *, tied: bool) -> int:
    """Number of directions in which the free parameters move without changing the distribution of y.

    States s' = M s + v leave y as it is when A, Q, C, m, P, b, d become M A M^-1, M Q M', C M^-1, M m + v, M P M',
    M b + (I - M A M^-1) v, d - C M^-1 v. With M = I + X, those (X, v) that move nothing frozen but something free
    are counted: a difference of two ranks. The free parameters are taken at random, because a first guess is often
    more symmetric than what it stands for.
    """
    rng = np.random.default_rng(0)
    names = [name for name in params._fields if name != "measurement_cov" and not (tied and name == "initial_cov")]
    values = params._asdict()
    for name in [name for name in names if name not in frozen]:
        noise = rng.standard_normal(values[name].shape)
        values[name] = noise @ noise.T if name.endswith("cov") else noise
    generic = LGSSMParams(**values)
    size = len(params.initial_mean)
    still, nothing = np.zeros((size, size)), np.zeros(size)
    moves = [_moved(generic, unit.reshape(size, size), nothing) for unit in np.eye(size * size)]
    moves += [_moved(generic, still, unit) for unit in np.eye(size)]
    return _rank(moves, names) - _rank(moves, [name for name in names if name in frozen])


def _moved(params: LGSSMParams, X: Floats, v: Floats) -> dict[str, Floats]:
    """First-order change of every parameter, each on its own scale."""
    A, C = params.transition, params.observation
    change = {
        "transition": X @ A - A @ X,
        "process_cov": X @ params.process_cov + params.process_cov @ X.T,
        "observation": -C @ X,
        "initial_mean": X @ params.initial_mean + v,
        "initial_cov": X @ params.initial_cov + params.initial_cov @ X.T,
        "state_offset": X @ params.state_offset + v - A @ v,
        "observation_offset": -C @ v,
    }
    return {name: np.ravel(value / (np.abs(getattr(params, name)).max() or 1.0)) for name, value in change.items()}


def _rank(moves: list[dict[str, Floats]], names: list[str]) -> int:
    if not names:
        return 0
    return int(np.linalg.matrix_rank(np.array([np.concatenate([move[name] for name in names]) for move in moves])))
