"""The passes of `chain_lanes` for Python: each alone, and both through one block, as most blocks need them.

To call with so many arrays, and to make those in between, takes Python as long as a thousand rows.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.kernels import chain_lanes
from statespace_em.kernels._jit import jit
from statespace_em.kernels._lanes import LANES

forward, backward, messages, add_logs = (
    jit(each.py_func)
    for each in (chain_lanes.forward, chain_lanes.backward, chain_lanes.messages, chain_lanes.add_logs)
)


@jit
def through(
    log_b: Floats, first: Bools, ends: bool, pi: Floats, A: Floats, sparse: bool, strict: bool, carry: Floats,
    message: Floats, gamma: Floats, xi_sum: Floats, firsts: Floats, sequence: int, log_likelihood: Floats,
) -> bool:  # fmt: skip
    """Fill ``gamma`` and add to the sums, all (K, ...); return False, the sums being wrong, where a row is lost.

    ``log_b`` and ``gamma`` are (K, N), ``first`` (N,) marks first rows, ``ends`` whether a sequence ends with the
    block. ``carry`` and ``message`` (K,) come from the blocks before and after and are moved on. The log-likelihoods
    are added to the sequences, ``sequence`` the one before the first new one, unless ``log_likelihood`` is empty.
    """
    K, N = log_b.shape
    L = -(-N // LANES) | 1
    whole = N == L * LANES
    rows, posterior = log_b, gamma
    if not whole:
        rows, posterior = np.zeros((K, L * LANES)), np.empty((K, L * LANES))
        for k in range(K):
            for t in range(N):
                rows[k, t] = log_b[k, t]
    b, top, scale = np.empty((L, K, LANES)), np.empty((L, 1, LANES)), np.empty((L, 1, LANES))
    starts, stops = np.empty((L, LANES), np.bool_), np.empty((L, LANES), np.bool_)
    alpha = np.empty((L + 1, K, LANES))
    if not chain_lanes.forward(rows, first, ends, pi, A, sparse, strict, carry, b, top, starts, stops, alpha, scale):
        return False
    if log_likelihood.shape[0] > 0:
        chain_lanes.add_logs(scale, top, starts, N, sequence, log_likelihood)
    if not chain_lanes.backward(b, A, first, stops, sparse, strict, alpha, message, posterior, xi_sum, firsts):
        return False
    if not whole:
        for k in range(K):
            for t in range(N):
                gamma[k, t] = posterior[k, t]
    return True
