"""Where EM for the linear-Gaussian model starts."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.data import Batch
from statespace_em.sequence.lgssm_params import LGSSMParams


def _interpolated(y: Floats, starts: Ints) -> Floats:
    """Bridge missing entries column by column, by straight lines within a sequence, means where it has no value."""
    whole = np.array(y)
    for begin, end in pairwise(starts):
        part = whole[begin:end]
        for d in range(y.shape[1]):
            seen = ~np.isnan(part[:, d])
            if not seen.any():
                part[:, d] = np.nanmean(y[:, d])
            elif not seen.all():
                part[:, d] = np.interp(np.arange(end - begin), np.flatnonzero(seen), part[seen, d])
    return whole


def _windows(y: Floats, starts: Ints, length: int) -> tuple[Floats, Bools]:
    """Rows of ``length`` successive samples side by side (the last is repeated at an end), and where a row follows."""
    ends = np.repeat(starts[1:], np.diff(starts))
    index = np.minimum(np.arange(len(y))[:, None] + np.arange(length), ends[:, None] - 1)
    follows = np.arange(len(y)) + 1 < ends
    return y[index].reshape(len(y), -1), follows


def guessed_params(
    batch: Batch, n_states: int, *, extra: int, offset: bool, given: Mapping[str, Floats]
) -> LGSSMParams:
    """Subspace guess (Van Overschee & De Moor 1996, simplified): states are the principal scores of windows.

    Where ``observation`` is given, states are what it sees of y, so that all guesses are in its basis. ``extra``
    lengthens the windows, ``offset`` takes the mean of y for an offset.
    """
    y = _interpolated(batch.y, batch.starts)
    size = y.shape[1]
    middle = y.mean(0) if offset else np.zeros(size)
    scale = np.where(y.std(0) > 0.0, y.std(0), 1.0)
    length = -(-n_states // size) + 1 + extra
    windows, follows = _windows((y - middle) / scale, batch.starts, length)
    *_, right = np.linalg.svd(windows[:20_000], full_matrices=False)
    right = right[:n_states]
    if len(right) < n_states:  # fewer rows than states: the rest start as noise that nothing loads on
        right = np.vstack([right, np.eye(windows.shape[1])[: n_states - len(right)]])
    observation = scale[:, None] * right[:, :size].T
    states = windows @ right.T
    if "observation" in given:
        observation = given["observation"]
        states = (y - middle) @ np.linalg.pinv(observation).T
    before, after = states[:-1][follows[:-1]], states[1:][follows[:-1]]
    transition = np.linalg.lstsq(before, after, rcond=None)[0].T if len(before) > n_states else 0.9 * np.eye(n_states)
    transition = transition / max(np.abs(np.linalg.eigvals(transition)).max(), 1.0)
    transition = given.get("transition", transition)
    noise = after - before @ transition.T if len(before) > n_states else states
    error = y - middle - states @ observation.T
    spread = states.T @ states / len(states)
    first = states[batch.starts[:-1]].mean(0)
    jitter = 0.05 * np.diag(np.diag(spread)) + 1e-3 * np.trace(spread) / n_states * np.eye(n_states)
    return LGSSMParams(
        transition,
        noise.T @ noise / len(noise) + 0.1 * jitter,
        observation,
        error.T @ error / len(error) + 0.05 * np.diag(scale**2),
        first,
        spread + jitter,
        np.zeros(n_states),
        middle,
    )
