"""Smoothed covariances of many states, whose rows fill the vectors of the processor; see kalman_covariances.py."""

from __future__ import annotations

from statespace_em._typing import Floats
from statespace_em.kernels._jit import bare
from statespace_em.kernels._linalg import EPS, add_product, add_sparse, cholesky, mirror, solve_rows, turn


@bare
def smooth_by_rows(
    s: int, ahead: int, after: int, v: int, a: int, q: int, A: Floats, Q: Floats, predicted: Floats, filtered: Floats,
    J: Floats, cov: Floats, cross_cov: Floats, F: Floats, G: Floats, work: Floats, turned: Floats, inverse: Floats,
) -> None:  # fmt: skip
    """Fill Cov(s[t] | y) and Cov(s[t], s[t+1] | y) of place v, given those of place ``after``.

    Before that the gain of slot s where ``ahead`` is the slot of the next row, not -1. Entries a of A, q of Q count.
    """
    n = filtered.shape[1]
    if ahead >= 0:
        for i in range(n):
            for j in range(n):
                G[i, j], work[i, j] = predicted[ahead, i, j], 0.0
        add_sparse(A[a], filtered[s], work)
        cholesky(G, n, 4 * n * EPS, inverse)
        solve_rows(G, inverse, work)
        turn(work, J[s])
    cross_cov[v] = 0.0
    add_product(1.0, J[s], cov[after], cross_cov[v])
    for i in range(n):
        for j in range(n):
            F[i, j], G[i, j] = 1.0 if i == j else 0.0, cross_cov[v, i, j]
            work[i, j], cov[v, i, j], turned[i, j] = 0.0, 0.0, Q[q, max(i, j), min(i, j)]
    add_product(-1.0, J[s], A[a], F)
    add_product(1.0, J[s], turned, G)
    add_product(1.0, F, filtered[s], work)
    turn(F, turned)
    add_product(1.0, work, turned, cov[v])
    turn(J[s], turned)
    add_product(1.0, G, turned, cov[v])
    mirror(cov[v])
