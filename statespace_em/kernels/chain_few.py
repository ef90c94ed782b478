"""The recursions of `chain` for at most four states, kept in registers: two to three times as fast.

Arrays of the chain are filled up with zeros to four states; the columns of rows are those there are, the last one
standing in for the others, whose weights are zero. For constant chains without tiny transitions.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.kernels._jit import sums
from statespace_em.kernels.chain import LARGE, LOST, SMALL, TOGETHER, add_pairs

FEW = 4  # states


@sums
def forward_few(b: Floats, pi: Floats, into: Floats, first: Bools, carry: Floats, alpha: Floats, scale: Floats) -> int:
    """As `chain.forward`, with ``pi`` (4,) and ``into`` (4, 4)."""
    N, K = b.shape
    one, two, three = min(1, K - 1), min(2, K - 1), min(3, K - 1)
    is1, is2, is3 = float(min(1, K - 1)), float(min(1, max(0, K - 2))), float(min(1, max(0, K - 3)))
    x0, x1, x2, x3 = carry[0], carry[one], carry[two], carry[three]
    A00, A01, A02, A03 = into[0, 0], into[0, 1], into[0, 2], into[0, 3]
    A10, A11, A12, A13 = into[1, 0], into[1, 1], into[1, 2], into[1, 3]
    A20, A21, A22, A23 = into[2, 0], into[2, 1], into[2, 2], into[2, 3]
    A30, A31, A32, A33 = into[3, 0], into[3, 1], into[3, 2], into[3, 3]
    before, lost = 1.0, 0
    for t in range(N):
        if first[t]:
            before = 1.0
            p0, p1, p2, p3 = pi[0], pi[1], pi[2], pi[3]
        else:
            p0 = (x0 * A00 + x1 * A01) + (x2 * A02 + x3 * A03)
            p1 = (x0 * A10 + x1 * A11) + (x2 * A12 + x3 * A13)
            p2 = (x0 * A20 + x1 * A21) + (x2 * A22 + x3 * A23)
            p3 = (x0 * A30 + x1 * A31) + (x2 * A32 + x3 * A33)
        x0, x1, x2, x3 = p0 * b[t, 0], p1 * b[t, one], p2 * b[t, two], p3 * b[t, three]
        total = (x0 + x1) + (x2 + x3)
        scale[t] = total / before
        if not total > LOST * before:
            lost += 1
            scale[t] = np.nan
            if not total > 0.0:
                x0, x1, x2, x3 = 1.0, is1, is2, is3
                total = float(K)
        while total < SMALL:
            total *= LARGE
            x0, x1, x2, x3 = x0 * LARGE, x1 * LARGE, x2 * LARGE, x3 * LARGE
        before = total
        alpha[t, three] = x3  # from the last to the first: where there are fewer states, the true one comes later
        alpha[t, two] = x2
        alpha[t, one] = x1
        alpha[t, 0] = x0
    for j in range(K):
        carry[j] = alpha[N - 1, j] / before
    return lost


@sums
def backward_few(
    b: Floats,
    A: Floats,
    first: Bools,
    ends: bool,
    alpha: Floats,
    carry: Floats,
    gamma: Floats,
    xi_sum: Floats,
    firsts: Floats,
) -> None:
    """As `chain.backward`, with ``A`` (4, 4) and without the single pairs."""
    N, K = b.shape
    one, two, three = min(1, K - 1), min(2, K - 1), min(3, K - 1)
    is1, is2, is3 = float(min(1, K - 1)), float(min(1, max(0, K - 2))), float(min(1, max(0, K - 3)))
    A00, A01, A02, A03 = A[0, 0], A[0, 1], A[0, 2], A[0, 3]
    A10, A11, A12, A13 = A[1, 0], A[1, 1], A[1, 2], A[1, 3]
    A20, A21, A22, A23 = A[2, 0], A[2, 1], A[2, 2], A[2, 3]
    A30, A31, A32, A33 = A[3, 0], A[3, 1], A[3, 2], A[3, 3]
    m0, m1, m2, m3 = carry[0], is1 * carry[one], is2 * carry[two], is3 * carry[three]
    outer = np.zeros((K, K))
    shares, nexts, waiting = np.empty((K, TOGETHER)), np.empty((K, TOGETHER)), 0
    for t in range(N - 1, -1, -1):
        a0, a1, a2, a3 = alpha[t, 0], is1 * alpha[t, one], is2 * alpha[t, two], is3 * alpha[t, three]
        last = ends if t == N - 1 else first[t + 1]
        if last:
            beta0, beta1, beta2, beta3 = 1.0, 1.0, 1.0, 1.0
        else:
            beta0 = (A00 * m0 + A01 * m1) + (A02 * m2 + A03 * m3)
            beta1 = (A10 * m0 + A11 * m1) + (A12 * m2 + A13 * m3)
            beta2 = (A20 * m0 + A21 * m1) + (A22 * m2 + A23 * m3)
            beta3 = (A30 * m0 + A31 * m1) + (A32 * m2 + A33 * m3)
        norm = 1.0 / ((a0 * beta0 + a1 * beta1) + (a2 * beta2 + a3 * beta3))
        a0, a1, a2, a3 = a0 * norm, a1 * norm, a2 * norm, a3 * norm
        if not last:
            shares[three, waiting], shares[two, waiting], shares[one, waiting], shares[0, waiting] = a3, a2, a1, a0
            nexts[three, waiting], nexts[two, waiting], nexts[one, waiting], nexts[0, waiting] = m3, m2, m1, m0
            waiting += 1
            if waiting == TOGETHER:
                add_pairs(shares, nexts, waiting, outer)
                waiting = 0
        gamma[t, three] = a3 * beta3
        gamma[t, two] = a2 * beta2
        gamma[t, one] = a1 * beta1
        gamma[t, 0] = a0 * beta0
        # a state that cannot be reached tells nothing, and its message could overflow
        m0 = b[t, 0] * beta0 if a0 > 0.0 else 0.0
        m1 = b[t, one] * beta1 if a1 > 0.0 else 0.0
        m2 = b[t, two] * beta2 if a2 > 0.0 else 0.0
        m3 = b[t, three] * beta3 if a3 > 0.0 else 0.0
        size = (m0 + m1) + (m2 + m3)
        if size < SMALL or size > LARGE:
            m0, m1, m2, m3 = m0 / size, m1 / size, m2 / size, m3 / size
        if first[t]:
            for i in range(K):
                firsts[i] += gamma[t, i]
    add_pairs(shares, nexts, waiting, outer)
    carry[three] = m3
    carry[two] = m2
    carry[one] = m1
    carry[0] = m0
    for i in range(K):
        for j in range(K):
            xi_sum[i, j] += A[i, j] * outer[i, j]
