"""Starts that are unknown along some directions: the filter's response to unknown constants (de Jong 1991).

Symbols, shapes and slots as in kalman.py and kalman_covariances.py.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import jit


@jit
def filter_columns(
    y: Floats, first: Bools, slot: Ints, A: Floats, C: Floats, d: Floats, gain: Floats, whiten: Floats,
    predicted_mean: Floats, B: Floats, W: Floats, gram: Floats, cross: Floats,
) -> None:  # fmt: skip
    """Fill the predicted response ``W`` (N, n, q) of the state to constants that move the first one along B (n, q).

    The innovation given these constants is v - E delta; ``gram`` (N, q, q) and ``cross`` (N, q) get E' inv(S) E
    and E' inv(S) v of every row.
    """
    N, D = y.shape
    n, q = B.shape
    s, E, v = np.empty((n, q)), np.empty((D, q)), np.empty(D)
    F, z = np.empty((D, q)), np.empty(D)
    for t in range(N):
        a, c, c0 = (t - 1) * int(A.shape[0] > 1), t * int(C.shape[0] > 1), t * int(d.shape[0] > 1)
        for j in range(q):
            for i in range(n):
                value = B[i, j]
                if not first[t]:
                    value = 0.0
                    for k in range(n):
                        value += A[a, i, k] * s[k, j]
                W[t, i, j] = value
        for k in range(D):
            v[k] = y[t, k] - d[c0, k]
            for i in range(n):
                v[k] -= C[c, k, i] * predicted_mean[t, i]
            missing = np.isnan(y[t, k])
            for j in range(q):
                value = 0.0
                for i in range(n):
                    value += C[c, k, i] * W[t, i, j]
                E[k, j] = 0.0 if missing else value
            v[k] = 0.0 if missing else v[k]
        for k in range(D):
            z[k] = 0.0
            for m in range(k + 1):
                z[k] += whiten[slot[t], k, m] * v[m]
            for j in range(q):
                value = 0.0
                for m in range(k + 1):
                    value += whiten[slot[t], k, m] * E[m, j]
                F[k, j] = value
        for i in range(q):
            value = 0.0
            for k in range(D):
                value += F[k, i] * z[k]
            cross[t, i] = value
            for j in range(q):
                value = 0.0
                for k in range(D):
                    value += F[k, i] * F[k, j]
                gram[t, i, j] = value
        for i in range(n):
            for j in range(q):
                value = W[t, i, j]
                for k in range(D):
                    value -= gain[slot[t], k, i] * E[k, j]
                s[i, j] = value


@jit
def responses(y: Floats, first: Bools, A: Floats, C: Floats, B: Floats, weight: Floats, total: Floats) -> None:
    """Add to ``total`` (q,) the squared response of the entries seen to the constants, weighted by feature (D,)."""
    N, D = y.shape
    n, q = B.shape
    s, moved = np.zeros((n, q)), np.zeros((n, q))
    for t in range(N):
        a, c = (t - 1) * int(A.shape[0] > 1), t * int(C.shape[0] > 1)
        for j in range(q):
            for i in range(n):
                value = B[i, j]
                if not first[t]:
                    value = 0.0
                    for k in range(n):
                        value += A[a, i, k] * s[k, j]
                moved[i, j] = value
        for j in range(q):
            for i in range(n):
                s[i, j] = moved[i, j]
            for k in range(D):
                if not np.isnan(y[t, k]):
                    value = 0.0
                    for i in range(n):
                        value += C[c, k, i] * s[i, j]
                    total[j] += weight[k] * value * value
