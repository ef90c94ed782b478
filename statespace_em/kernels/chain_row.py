"""One row of the filter of a hidden chain, for streams; symbols as in chain.py."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.kernels._jit import jit


@jit
def chain_step(log_b: Floats, log_A: Floats, log_now: Floats, filtered: Floats) -> float:
    """Turn ``log_now`` (K,), log p(state | rows before), into that of the next; fill p(state | rows so far).

    Returns log p(row | rows before) in nats; where that is -inf, ``log_now`` stays.
    """
    K = log_b.shape[0]
    joint = log_now + log_b
    top = joint.max()
    if not top > -np.inf:
        return -np.inf
    total = 0.0
    for i in range(K):
        total += np.exp(joint[i] - top)
    scale = top + np.log(total)
    for i in range(K):
        joint[i] -= scale
        filtered[i] = np.exp(joint[i])
    for j in range(K):
        top = -np.inf
        for i in range(K):
            top = max(top, joint[i] + log_A[i, j])
        total = 0.0
        if top > -np.inf:
            for i in range(K):
                total += np.exp(joint[i] + log_A[i, j] - top)
        log_now[j] = top + np.log(total) if total > 0.0 else -np.inf
    return scale
