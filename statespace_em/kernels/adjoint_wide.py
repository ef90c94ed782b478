"""What the future says of covariances of many states, whose rows fill the vectors of the processor; see adjoint.py."""

from __future__ import annotations

from statespace_em._typing import Floats
from statespace_em.kernels._jit import bare
from statespace_em.kernels._linalg import add_product, add_sparse_turned, turn


@bare
def backward_rows(
    A: Floats, info: Floats, P_f: Floats, AI: Floats, M: Floats, MP: Floats, IA: Floats, V: Floats
) -> None:  # fmt: skip
    """M = A' I A, M P_f, I A P_f, and P_f M P_f, which the future takes from P_f."""
    n = P_f.shape[0]
    for i in range(n):
        for j in range(n):
            M[i, j], MP[i, j], IA[i, j], V[i, j] = 0.0, 0.0, 0.0, 0.0
    add_sparse_turned(A, info, V)  # A' I
    turn(V, AI)
    add_sparse_turned(A, AI, M)
    add_product(1.0, AI, P_f, IA)
    add_sparse_turned(A, IA, MP)
    for i in range(n):
        for j in range(n):
            V[i, j] = 0.0
    add_product(1.0, P_f, MP, V)
    for i in range(n):
        for j in range(i):
            M[j, i] = M[i, j]
            V[j, i] = V[i, j]


@bare
def update_rows(
    count: float, C: Floats, CS: Floats, gain: Floats, M: Floats, info: Floats, KM: Floats, MK: Floats
) -> None:  # fmt: skip
    """C' inv(S) C + (I - K C)' M (I - K C), by changes of M of rank D; M is overwritten, the last are work space."""
    D, n = C.shape
    for k in range(D):
        for j in range(n):
            KM[k, j] = 0.0
        for i in range(n):
            a = gain[k, i]
            for j in range(n):
                KM[k, j] += a * M[i, j]
    for k in range(D):
        for i in range(n):
            a = C[k, i]
            if a != 0.0:
                for j in range(n):
                    M[i, j] -= a * KM[k, j]
    for k in range(D):
        for i in range(n):
            value = 0.0
            for j in range(n):
                value += M[i, j] * gain[k, j]
            MK[k, i] = value
    for k in range(D):
        for i in range(n):
            a, b = MK[k, i], count * C[k, i]
            for j in range(n):
                M[i, j] += b * CS[k, j] - a * C[k, j]
    for i in range(n):
        for j in range(i + 1):
            info[i, j] = M[i, j]
            info[j, i] = M[i, j]
