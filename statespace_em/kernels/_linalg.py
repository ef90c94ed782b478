"""Small dense matrices by hand (Golub & Van Loan 4.2): for n <= 10 a library call is mostly overhead."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats, Ints
from statespace_em.kernels._jit import bare, inlined, part

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
def times_transposed(F: Floats, P: Floats, out: Floats) -> None:
    """Fill ``out`` with F P'."""
    for i in range(F.shape[0]):
        for j in range(P.shape[0]):
            value = 0.0
            for k in range(F.shape[1]):
                value += F[i, k] * P[j, k]
            out[i, j] = value


@bare
def add_product(sign: float, M: Floats, X: Floats, out: Floats) -> None:
    """Add ``sign`` M X to ``out``, row by row, so that it fills the vectors of the processor."""
    n, most = M.shape[1], M.shape[1] // 4 * 4
    for i in range(M.shape[0]):
        for k in range(0, most, 4):
            a, b, c, d = sign * M[i, k], sign * M[i, k + 1], sign * M[i, k + 2], sign * M[i, k + 3]
            for j in range(X.shape[1]):
                value = (out[i, j] + a * X[k, j]) + b * X[k + 1, j]
                out[i, j] = (value + c * X[k + 2, j]) + d * X[k + 3, j]
        for k in range(most, n):
            a = sign * M[i, k]
            for j in range(X.shape[1]):
                out[i, j] += a * X[k, j]


@bare
def add_sparse(M: Floats, X: Floats, out: Floats) -> None:
    """Add M X to ``out``, row by row, without the rows of X that count for nothing: most M are nearly empty."""
    for i in range(M.shape[0]):
        for k in range(M.shape[1]):
            a = M[i, k]
            if a != 0.0:
                for j in range(X.shape[1]):
                    out[i, j] += a * X[k, j]


@bare
def add_sparse_turned(M: Floats, X: Floats, out: Floats) -> None:
    """Add M' X to ``out``, as `add_sparse`."""
    for k in range(M.shape[0]):
        for i in range(M.shape[1]):
            a = M[k, i]
            if a != 0.0:
                for j in range(X.shape[1]):
                    out[i, j] += a * X[k, j]


@bare
def sandwich_rows(F: Floats, P: Floats, base: Floats, work: Floats, out: Floats) -> None:
    """As `sandwich`, for many states."""
    n = F.shape[0]
    for i in range(n):
        for j in range(n):
            work[i, j] = 0.0
    add_sparse(F, P, work)
    turn(work, out)
    for i in range(n):
        for j in range(i + 1):
            work[i, j] = base[i, j]
        for j in range(i + 1, n):
            work[i, j] = 0.0
    add_sparse(F, out, work)
    for i in range(n):
        for j in range(i + 1):
            out[i, j] = work[i, j]
    mirror(out)


@bare
def solve_rows(factor: Floats, inverse: Floats, x: Floats) -> None:
    """Replace ``x`` by inv(L') inv(L) x, in the order of `solve_lower` and `solve_upper`, rows at a time."""
    n = x.shape[0]
    for i in range(n):
        for k in range(i):
            a = factor[i, k]
            for j in range(x.shape[1]):
                x[i, j] -= a * x[k, j]
        for j in range(x.shape[1]):
            x[i, j] *= inverse[i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            a = factor[k, i]
            for j in range(x.shape[1]):
                x[i, j] -= a * x[k, j]
        for j in range(x.shape[1]):
            x[i, j] *= inverse[i]


@inlined
def turn(M: Floats, out: Floats) -> None:
    """Fill ``out`` with M'."""
    for i in range(M.shape[0]):
        for j in range(M.shape[1]):
            out[j, i] = M[i, j]


@inlined
def mirror(M: Floats) -> None:
    """Make a matrix symmetric by what is below its diagonal."""
    for i in range(M.shape[0]):
        for j in range(i):
            M[j, i] = M[i, j]


@part
def sandwich(F: Floats, P: Floats, base: Floats, work: Floats, out: Floats) -> None:
    """Fill ``out`` with base + F P F' for symmetric P; only the lower triangle of ``base`` is read."""
    times_transposed(F, P, work)
    for i in range(F.shape[0]):
        for j in range(i + 1):
            value = base[i, j]
            for k in range(F.shape[1]):
                value += work[i, k] * F[j, k]
            out[i, j] = value
            out[j, i] = value


@bare
def settled(old: Floats, new: Floats, lag: int) -> bool:
    """Whether a covariance recursion stands still: two values of it, ``lag`` steps apart, agree to round-off.

    The tolerance is half a rounding unit per step, so that a drift too slow to see in one step still counts,
    and never above 1e-14 of the standard deviations. Over a single step it is that: neighbours must be asked as
    well, for a recursion with a period looks settled at any lag that is a multiple of it.
    """
    tolerance = 1e-14 if lag == 1 else min(1e-14, 0.25 * EPS * lag)
    for i in range(new.shape[0]):
        for j in range(i + 1):
            scale = np.sqrt(new[i, i]) * np.sqrt(new[j, j])  # their product may be beyond the numbers
            if not abs(new[i, j] - old[i, j]) <= tolerance * scale:
                return False
    return True


@inlined
def find_seen(y: Floats, t: int, seen: Ints) -> int:
    """Order the entries of row t in ``seen``, those observed first; return how many these are."""
    p, last = 0, y.shape[1] - 1
    for k in range(y.shape[1]):
        if np.isnan(y[t, k]):
            seen[last] = k
            last -= 1
        else:
            seen[p] = k
            p += 1
    return p
