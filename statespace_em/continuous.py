"""Linear dynamics in continuous time, discretised exactly for steps of any length."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats
from statespace_em.errors import ParameterError


class Step(NamedTuple):
    """What happens to the state over a step, one entry a gap."""

    transition: Floats  # (G, n, n)
    offset: Floats  # (G, n)
    cov: Floats  # (G, n, n), of the noise gathered on the way


def discretise(drift: Floats, diffusion: Floats, gaps: Floats, offset: Floats | None = None) -> Step:
    """Exact solution of ``ds = (drift @ s + offset) dt + dw``, ``Cov dw = diffusion dt``, over each gap.

    A step h that is short against the dynamics takes its three integrals from one matrix exponential (Van Loan
    1978); longer steps are doublings of it, ``cov(2h) = A(h) cov(h) A(h)' + cov(h)``, which neither overflow where
    the dynamics are stable nor lose the positive semi-definite form.

    Parameters
    ----------
    drift, diffusion
        Matrices (n, n): the first in 1 / time; the second in units of state^2 / time, positive semi-definite.
    gaps
        Lengths of the steps (G,), at least 0, in the same unit of time.
    offset
        Constant drive (n,) in units of state / time; zero if not given.

    Raises
    ------
    ParameterError
        If a gap is negative or not finite, or shapes do not agree.

    Examples
    --------
    A random walk whose velocity is a random walk, over 2 s:

    >>> step = discretise(np.array([[0.0, 1.0], [0.0, 0.0]]), np.diag([0.0, 3.0]), np.array([2.0]))
    >>> step.transition[0].tolist(), step.cov[0].round(12).tolist()
    ([[1.0, 2.0], [0.0, 1.0]], [[8.0, 6.0], [6.0, 6.0]])
    """
    drift, diffusion = np.asarray(drift, dtype=float), np.asarray(diffusion, dtype=float)
    gaps = np.atleast_1d(np.asarray(gaps, dtype=float))
    size = len(drift)
    drive = np.zeros(size) if offset is None else np.asarray(offset, dtype=float)
    for name, value, shape in (("drift", drift, 2), ("diffusion", diffusion, 2), ("offset", drive, 1)):
        if value.shape != (size,) * shape:
            raise ParameterError(f"{name} has shape {value.shape}, expected {(size,) * shape}.")
    bad = ~(np.isfinite(gaps) & (gaps >= 0.0))
    if bad.any():
        raise ParameterError(f"the gap number {int(np.argmax(bad))} is {gaps[bad][0]:g}, expected at least 0.")
    speed = np.abs(drift).sum(1).max()
    doublings = np.zeros(len(gaps), dtype=int)
    fast = speed * gaps > 1.0
    doublings[fast] = np.ceil(np.log2(speed * gaps[fast])).astype(int)
    step = _short(drift, diffusion, drive, gaps / 2.0**doublings)
    for i in range(doublings.max(initial=0)):
        step = _doubled(step, doublings > i)
    return step


def _short(drift: Floats, diffusion: Floats, drive: Floats, gaps: Floats) -> Step:
    """Van Loan's block exponential; the drive is a state that stays one."""
    from scipy.linalg import expm  # here because it is slow to import, and few designs need it

    n = len(drift)
    generator = np.zeros((2 * n, 2 * n))
    generator[:n, :n] = -drift
    generator[:n, n:] = diffusion
    generator[n:, n:] = drift.T
    flow = expm(generator * gaps[:, None, None])
    cov = flow[:, n:, n:].swapaxes(1, 2) @ flow[:, :n, n:]
    driven = np.zeros((n + 1, n + 1))
    driven[:n, :n], driven[:n, n] = drift, drive
    moved = expm(driven * gaps[:, None, None])
    return Step(moved[:, :n, :n], moved[:, :n, n], (cov + cov.swapaxes(1, 2)) / 2.0)


def _doubled(step: Step, chosen: Bools) -> Step:
    """Two steps in one, for the chosen gaps."""
    A, b, Q = (part[chosen] for part in step)
    transition, offset, cov = step
    transition[chosen] = A @ A
    offset[chosen] = (A @ b[:, :, None])[:, :, 0] + b
    cov[chosen] = A @ Q @ A.swapaxes(1, 2) + Q
    return Step(transition, offset, (cov + cov.swapaxes(1, 2)) / 2.0)
