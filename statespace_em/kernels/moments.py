"""Moments of all the data from those of the states around their centres: the small arithmetic of M-steps.

numpy takes longer to begin an operation on so few numbers than to do all of them here.
"""

from __future__ import annotations

from statespace_em._typing import Floats
from statespace_em.kernels._jit import jit


@jit
def within_and_pooled(
    weight: Floats, first: Floats, second: Floats, centre: Floats, average: Floats, within: Floats, pooled: Floats
) -> bool:
    """Averages and sums of squares around them of every state, and the variance of all the data.

    ``weight``, ``first`` and ``second`` moments around ``centre`` are (D, K), as are ``average`` and ``within``;
    ``pooled`` is (D,). A state without weight has its centre for average. Returns whether every weight is positive.
    """
    D, K = weight.shape
    full = True
    for d in range(D):
        count, total = 0.0, 0.0
        for k in range(K):
            shift = 0.0
            if weight[d, k] > 0.0:
                shift = first[d, k] / weight[d, k]
            else:
                full = False
            average[d, k] = centre[d, k] + shift
            within[d, k] = second[d, k] - weight[d, k] * (shift * shift)
            count += weight[d, k]
            total += weight[d, k] * centre[d, k] + first[d, k]
        count = max(count, 1e-300)
        middle = total / count
        square = 0.0
        for k in range(K):
            off = centre[d, k] - middle
            square += second[d, k] + off * (2.0 * first[d, k] + weight[d, k] * off)
        pooled[d] = square / count
    return full
