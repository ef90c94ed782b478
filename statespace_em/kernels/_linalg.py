"""Small dense matrices by hand (Golub & Van Loan 4.2): for n <= 10 a library call is mostly overhead."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.kernels._jit import inlined

EPS = 2.220446049250313e-16


@inlined
def cholesky(a: Floats, n: int, tolerance: float, inverse: Floats) -> int:
    """Lower factor of ``a[:n, :n]`` in place, reciprocal pivots in ``inverse``; returns the pivots skipped.

    Only the lower triangle is read. A pivot not above ``tolerance`` times its diagonal entry, or not finite,
    is skipped: its column and its reciprocal are zero, so that the solves below apply a generalised inverse.
    """
    skipped = 0
    for j in range(n):
        pivot = a[j, j]
        floor = tolerance * pivot
        for k in range(j):
            pivot -= a[j, k] * a[j, k]
        if pivot > floor and pivot < np.inf:
            root = np.sqrt(pivot)
            inverse[j] = 1.0 / root
        else:
            root = 0.0
            inverse[j] = 0.0
            skipped += 1
        a[j, j] = root
        for i in range(j + 1, n):
            value = a[i, j]
            for k in range(j):
                value -= a[i, k] * a[j, k]
            a[i, j] = value * inverse[j]
    return skipped


@inlined
def solve_lower(factor: Floats, inverse: Floats, n: int, x: Floats) -> None:
    """Replace the first n rows of ``x`` by inv(L) x."""
    for i in range(n):
        for j in range(x.shape[1]):
            value = x[i, j]
            for k in range(i):
                value -= factor[i, k] * x[k, j]
            x[i, j] = value * inverse[i]


@inlined
def solve_upper(factor: Floats, inverse: Floats, n: int, x: Floats) -> None:
    """Replace the first n rows of ``x`` by inv(L') x."""
    for i in range(n - 1, -1, -1):
        for j in range(x.shape[1]):
            value = x[i, j]
            for k in range(i + 1, n):
                value -= factor[k, i] * x[k, j]
            x[i, j] = value * inverse[i]


@inlined
def copy_row(stack: Floats, source: int, target: int) -> None:
    """``stack[target] = stack[source]`` for a stack of matrices."""
    for i in range(stack.shape[1]):
        for j in range(stack.shape[2]):
            stack[target, i, j] = stack[source, i, j]


@inlined
def same_rows(stack: Floats, s: int, t: int) -> bool:
    """Whether two matrices of a stack agree to the last bit."""
    for i in range(stack.shape[1]):
        for j in range(i + 1):
            if stack[s, i, j] != stack[t, i, j]:
                return False
    return True


@inlined
def settled(stack: Floats, s: int, t: int) -> bool:
    """Whether a covariance recursion stands still: rows s and t of the stack agree to round-off.

    The tolerance is half a rounding unit per step, so that a drift too slow to see in one step still counts,
    and never above 1e-14 of the standard deviations. Over a single step it is that: neighbours must be asked as
    well, for a recursion with a period looks settled at any lag that is a multiple of it.
    """
    lag = abs(t - s)
    tolerance = 1e-14 if lag == 1 else min(1e-14, 0.25 * EPS * lag)
    for i in range(stack.shape[1]):
        for j in range(i + 1):
            scale = np.sqrt(stack[t, i, i] * stack[t, j, j])
            if not abs(stack[t, i, j] - stack[s, i, j]) <= tolerance * scale:
                return False
    return True


@inlined
def find_seen(y: Floats, t: int, old: int, seen: Ints) -> tuple[int, bool]:
    """Order the entries of row t in ``seen``, the p observed first; return p and whether the order changed.

    ``old`` is the p of the order found in ``seen``.
    """
    p, last = 0, y.shape[1] - 1
    changed = False
    for k in range(y.shape[1]):
        if np.isnan(y[t, k]):
            place = last
            last -= 1
        else:
            place = p
            p += 1
        changed = changed or seen[place] != k
        seen[place] = k
    return p, changed or p != old
