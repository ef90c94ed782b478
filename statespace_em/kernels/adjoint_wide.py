"""What the future says of covariances of many states, whose rows fill the vectors of the processor; see adjoint.py."""

from __future__ import annotations

from statespace_em._typing import Floats
from statespace_em.kernels._jit import bare
from statespace_em.kernels._linalg import add_product, add_sparse_turned, mirror, turn


@bare
def backward_rows(A: Floats, info: Floats, AI: Floats, M: Floats, work: Floats) -> None:
    """A' I, turned, and M = A' I A."""
    n = info.shape[0]
    for i in range(n):
        for j in range(n):
            M[i, j], work[i, j] = 0.0, 0.0
    add_sparse_turned(A, info, work)  # A' I
    turn(work, AI)
    add_sparse_turned(A, AI, M)
    for i in range(n):
        for j in range(i):
            M[j, i] = M[i, j]


@bare
def moment_rows(A: Floats, P_f: Floats, AI: Floats, MP: Floats, IA: Floats, V: Floats) -> None:
    """M P_f, I A P_f, and P_f M P_f, which the future takes from P_f."""
    n = P_f.shape[0]
    for i in range(n):
        for j in range(n):
            MP[i, j], IA[i, j], V[i, j] = 0.0, 0.0, 0.0
    add_product(1.0, AI, P_f, IA)
    add_sparse_turned(A, IA, MP)
    add_product(1.0, P_f, MP, V)
    for i in range(n):
        for j in range(i):
            V[j, i] = V[i, j]


@bare
def gain_times(gain: Floats, M: Floats, KM: Floats) -> None:
    """Fill KM = K' M (D, n)."""
    D, n = gain.shape
    for k in range(D):
        for j in range(n):
            KM[k, j] = 0.0
        for i in range(n):
            a = gain[k, i]
            for j in range(n):
                KM[k, j] += a * M[i, j]


@bare
def update_rows(
    count: float, C: Floats, CS: Floats, gain: Floats, KM: Floats, M: Floats, info: Floats, MK: Floats
) -> None:  # fmt: skip
    """C' inv(S) C + (I - K C)' M (I - K C), by changes of M of rank 1; M is overwritten, below its diagonal.

    ``KM`` is that of `gain_times`, ``MK`` (n,) work space.
    """
    D, n = C.shape
    for k in range(D):
        for i in range(n):
            MK[i] = KM[k, i]  # M is symmetric: (M - C' K M) K' from M K' and K M K'
        for h in range(D):
            value = 0.0
            for j in range(n):
                value += KM[h, j] * gain[k, j]
            for i in range(n):
                MK[i] -= C[h, i] * value
        for i in range(n):
            a, b = C[k, i], MK[i]
            for j in range(i + 1):
                M[i, j] += a * (count * CS[k, j] - KM[k, j]) - b * C[k, j]
    for i in range(n):
        for j in range(i + 1):
            info[i, j] = M[i, j]
    mirror(info)
