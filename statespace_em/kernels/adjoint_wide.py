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
