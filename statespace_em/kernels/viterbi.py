"""The most probable path of a finite Markov chain with observed likelihoods (Viterbi 1967; Rabiner 1989).

Arrays are those of `chain`, in logs.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import jit


@jit
def viterbi(
    log_b: Floats, log_pi: Floats, log_into: Floats, first: Bools, carry: Floats, back: Ints, best: Floats
) -> int:
    """Score the best path into each state: ``carry`` (K,) before and after the block (Viterbi 1967; Rabiner, eq. 33).

    ``back[t, k]`` says where the best path into k comes from; at the first row of a sequence, where the best path of
    the one before ends, whose score goes to ``best``. Ties go to the lower index. Returns the first row at which no
    path is possible, or -1.
    """
    N, K = log_b.shape
    varies = int(log_into.shape[0] > 1)
    delta = np.empty(K)
    for t in range(N):
        top = -np.inf
        end = 0
        if first[t]:
            for j in range(1, K):
                end = j if carry[j] > carry[end] else end
            best[t] = carry[end]
        for j in range(K):
            value = log_pi[j]
            where = end
            if not first[t]:
                value = carry[0] + log_into[t * varies, j, 0]
                where = 0
                for i in range(1, K):
                    candidate = carry[i] + log_into[t * varies, j, i]
                    if candidate > value:
                        value = candidate
                        where = i
            back[t, j] = where
            delta[j] = value + log_b[t, j]
            top = max(top, delta[j])
        if not top > -np.inf:
            return t
        for j in range(K):
            carry[j] = delta[j]
    return -1


@jit
def trace_back(back: Ints, last: int, path: Ints) -> None:
    """Follow ``back`` (N, K) from state ``last`` at the end to the ``path`` (N,)."""
    state = last
    for t in range(path.shape[0] - 1, -1, -1):
        path[t] = state
        state = back[t, state]
