"""What drove the states, given a posterior: the gradient of their expected log density along the noise of each step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.data import Batch


def shock_gradients(
    dynamics: tuple[Floats, Floats], kinds: Ints | None, place: Ints, batch: Batch, moments: Sequence[Floats]
) -> tuple[Floats, Ints, int]:
    """Symmetric matrices G (pairs, n, n) with ``d E log p(states) = tr(G dQ) / 2`` for the step after each row.

    Parameters
    ----------
    dynamics
        Transition and noise (G, n, n) of each kind of step.
    kinds, place
        Kind (T,) of each entry, None if there is one; and entry (N,) of each row.
    moments
        Mean (N, n), covariance (N, n, n) and covariance with the next row (N, n, n) of the states given the data.

    Returns
    -------
    tuple
        The matrices, the entry of each, and their number.
    """
    mean, cov, cross = moments
    inside = np.ones(len(batch.y), bool)
    inside[batch.starts[1:] - 1] = False
    here = np.flatnonzero(inside)
    own = np.zeros(len(here), np.int64) if kinds is None else kinds[place[here]]
    A, Q = dynamics[0][own], dynamics[1]
    shock = mean[here + 1] - (A @ mean[here][:, :, None])[:, :, 0]
    linked = A @ cross[here]
    moment = cov[here + 1] - linked - linked.swapaxes(1, 2) + A @ cov[here] @ A.swapaxes(1, 2)
    moment += shock[:, :, None] * shock[:, None, :]
    inverse = np.linalg.pinv(Q, rcond=1e-13, hermitian=True)[own]
    return inverse @ (moment - Q[own]) @ inverse, place[here], len(here)
