"""Least squares from sums: the M-step of one side of a linear-Gaussian model, where numpy takes longer to begin."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.kernels._jit import jit
from statespace_em.kernels._linalg import cholesky, solve_lower, solve_upper

DETERMINED = 1e-10  # least pivot, as a share of its diagonal entry


@jit
def regress(
    scatter: Floats, cross: Floats, squares: Floats, block: Ints, free: Ints, change: Floats, left: Floats
) -> bool:
    """Fill the change of the coefficients that takes most of the residuals away, and the scatter that is left.

    ``scatter`` (p, p) and ``cross`` (p, m) are sums of r r' and r z' in residuals r, ``squares`` (blocks, m, m) those
    of z z' over the rows of the block that a residual is of; ``free`` (k,) are the columns of z whose coefficients
    may change. ``change`` (p, m) comes with zeros; in ``left`` (p, p) residuals of different blocks count as before.
    Returns whether the moments determine the change; else neither result is of use.
    """
    p, k = cross.shape[0], free.shape[0]
    L, x, inverse = np.empty((k, k)), np.empty((k, p)), np.empty(k)
    for j in range(squares.shape[0]):
        for i in range(k):
            for h in range(i + 1):
                L[i, h] = squares[j, free[i], free[h]]
            for a in range(p):
                x[i, a] = cross[a, free[i]] if block[a] == j else 0.0
        if cholesky(L, k, DETERMINED, inverse) > 0:
            return False
        solve_lower(L, inverse, k, x)
        solve_upper(L, inverse, k, x)
        for i in range(k):
            for a in range(p):
                if block[a] == j:
                    change[a, free[i]] = x[i, a]
    for a in range(p):
        for b in range(a + 1):
            value = 0.5 * (scatter[a, b] + scatter[b, a])
            if block[a] == block[b]:  # the normal equations hold: change squares = cross
                for i in range(k):
                    value -= 0.5 * (change[a, free[i]] * cross[b, free[i]] + cross[a, free[i]] * change[b, free[i]])
            left[a, b] = value
            left[b, a] = value
    return True


@jit
def is_definite(matrix: Floats) -> bool:
    """Whether a symmetric matrix is positive definite, to what arithmetic can tell."""
    p = matrix.shape[0]
    L, inverse = np.empty((p, p)), np.empty(p)
    for i in range(p):
        for j in range(i + 1):
            L[i, j] = matrix[i, j]
    return cholesky(L, p, 0.0, inverse) == 0
