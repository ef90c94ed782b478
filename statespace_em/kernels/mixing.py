"""Anderson mixing of a fixed-point map (Walker & Ni 2011, type II): the small arithmetic of one proposal.

With the coordinates along the rows of (n, p) arrays everything runs along memory; numpy would take longer to begin
each of these operations than all of them take here.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.kernels._jit import part, part_sums, sums

SWEEPS = 30  # of Jacobi rotations, at most; they converge quadratically, in about six
EPS = 2.220446049250313e-16


@part
def triangular(columns: Floats, rest: Floats, R: Floats, c: Floats) -> None:
    """Fill the factor ``R`` (n, n) and ``c`` = Q' rest of the least-squares problem of ``columns`` (n, p) and ``rest``.

    Modified Gram-Schmidt with the right-hand side as a further column, which is backward stable (Bjorck 1967). The
    columns become those of Q, ``rest`` (p,) the residual.
    """
    n, p = columns.shape
    for j in range(n):
        square = 0.0
        for i in range(p):
            square += columns[j, i] * columns[j, i]
        R[j, j] = np.sqrt(square)
        inverse = 1.0 / R[j, j] if square > 0.0 else 0.0
        for i in range(p):
            columns[j, i] *= inverse
        for k in range(j + 1, n + 1):
            other = columns[k] if k < n else rest
            along = 0.0
            for i in range(p):
                along += columns[j, i] * other[i]
            for i in range(p):
                other[i] -= along * columns[j, i]
            if k < n:
                R[j, k] = along
            else:
                c[j] = along


@part
def orthogonal_columns(W: Floats, V: Floats) -> None:
    """Rotate the columns of ``W`` (n, n) until they are orthogonal, and those of ``V`` along (Hestenes 1958)."""
    n = W.shape[0]
    for _ in range(SWEEPS):
        rotated = False
        for a in range(n):
            for b in range(a + 1, n):
                one, other, inner = 0.0, 0.0, 0.0
                for i in range(n):
                    one += W[i, a] * W[i, a]
                    other += W[i, b] * W[i, b]
                    inner += W[i, a] * W[i, b]
                if not abs(inner) > EPS * np.sqrt(one * other):
                    continue
                rotated = True
                cotangent = (other - one) / (2.0 * inner)  # of twice the angle
                tangent = 1.0 / (abs(cotangent) + np.sqrt(1.0 + cotangent * cotangent))
                if cotangent < 0.0:
                    tangent = -tangent
                cosine = 1.0 / np.sqrt(1.0 + tangent * tangent)
                sine = cosine * tangent
                for i in range(n):
                    W[i, a], W[i, b] = cosine * W[i, a] - sine * W[i, b], sine * W[i, a] + cosine * W[i, b]
                    V[i, a], V[i, b] = cosine * V[i, a] - sine * V[i, b], sine * V[i, a] + cosine * V[i, b]
        if not rotated:
            break


@part_sums
def least_squares(columns: Floats, target: Floats, cut: float, mix: Floats) -> None:
    """Fill ``mix`` (n,) with the shortest minimiser of the distance from ``target`` (p,) to mix @ columns (n, p).

    Singular values up to ``cut`` times the largest count as zero. ``columns`` are worked in.
    """
    n = len(columns)
    W, V, c, rest = np.empty((n, n)), np.empty((n, n)), np.empty(n), np.empty(len(target))
    for i in range(n):
        for j in range(n):
            W[i, j], V[i, j] = 0.0, 1.0 if i == j else 0.0
    for i in range(len(target)):
        rest[i] = target[i]
    triangular(columns, rest, W, c)
    orthogonal_columns(W, V)
    size, largest = np.empty(n), 0.0
    for j in range(n):
        size[j] = 0.0
        for i in range(n):
            size[j] += W[i, j] * W[i, j]
        largest = max(largest, size[j])
        mix[j] = 0.0
    for j in range(n):
        if not size[j] > cut * cut * largest:
            continue
        along = 0.0
        for i in range(n):
            along += W[i, j] * c[i]
        for i in range(n):
            mix[i] += V[i, j] * (along / size[j])


@sums
def mixed(
    x: Floats, image: Floats, last: Floats, steps: Floats, changes: Floats, count: int, cut: float, longest: float,
    point: Floats,
) -> bool:  # fmt: skip
    """Fill ``point`` (p,) with the next point after ``x`` and its ``image``; return whether it is finite.

    ``last`` (2, p) holds the point before and its residual, and receives the new ones; ``steps`` and ``changes`` of
    the residual (m, p) the last m of them in turn, of which ``count`` have been seen with this one. The leap beyond
    the image is at most ``longest`` along any coordinate.
    """
    m, p = steps.shape
    newest, n = (count - 1) % m, min(count, m)
    residual, scaled, size, mix = np.empty(p), np.empty((n, p)), np.empty(n), np.empty(n)
    for i in range(p):
        residual[i] = image[i] - x[i]
        steps[newest, i], changes[newest, i] = x[i] - last[0, i], residual[i] - last[1, i]
        last[0, i], last[1, i] = x[i], residual[i]
    for j in range(n):
        square = 0.0
        for i in range(p):
            square += changes[j, i] * changes[j, i]
        size[j] = np.sqrt(square) if square > 0.0 else 1.0
        for i in range(p):
            scaled[j, i] = changes[j, i] / size[j]
    least_squares(scaled, residual, cut, mix)
    leap, ahead = np.empty(p), 0.0
    for i in range(p):
        leap[i] = 0.0
    for j in range(n):
        weight = mix[j] / size[j]
        for i in range(p):
            leap[i] -= weight * (steps[j, i] + changes[j, i])
    for i in range(p):
        ahead += (residual[i] + leap[i]) * residual[i]
    if ahead < 0.0:
        square = 0.0
        for i in range(p):
            square += steps[newest, i] * steps[newest, i]
        for i in range(p):
            leap[i] = residual[i] * (np.sqrt(square) / size[newest])
    farthest, finite = 0.0, True
    for i in range(p):
        finite &= abs(leap[i]) < np.inf
        farthest = max(farthest, abs(leap[i]))
    share = min(1.0, longest / max(farthest, longest))
    for i in range(p):
        point[i] = image[i] + share * leap[i]
    return finite
