"""Starts in the stationary distribution of the states: its moments and their part of the score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.errors import UnstableDynamicsError
from statespace_em.patterns import components

LARGE = 1e4  # covariance over that of one step, from which digits are lost
REFINED = 1  # steps to get them back
SMALL = 9  # states up to which one set of linear equations is solved
ENOUGH = 1e-17  # what more terms still add, as a share
UNIT = 1e-6  # distance from the unit circle at which a root counts as on it


def stationary_moments(A: Floats, b: Floats, Q: Floats) -> tuple[Floats, Floats]:
    """Mean and covariance of the stationary distribution of ``s' = A s + b + w``.

    Raises
    ------
    UnstableDynamicsError
        If the dynamics are not stable.
    """
    radius = float(np.abs(np.linalg.eigvals(A)).max(initial=0.0))
    if not radius < 1.0:
        raise UnstableDynamicsError(
            f"the dynamics are not stable (an eigenvalue of transition has modulus {radius:.6g}), so there is no "
            'stationary start: use initial="diffuse" for these states.'
        )
    mean = np.linalg.solve(np.eye(len(A)) - A, b)
    cov = _lyapunov(A, Q)
    return np.asarray(mean), np.asarray((cov + cov.T) / 2.0)


def _lyapunov(A: Floats, Q: Floats) -> Floats:
    """Solution of ``P = A P A' + Q`` where A is stable, however nearly it is not."""
    n = len(A)
    if n <= SMALL:
        system = np.eye(n * n) - np.kron(A, A)
        P = np.linalg.solve(system, Q.ravel()).reshape(n, n)
        if np.abs(P).max() > LARGE * np.abs(Q).max():
            a, q = A.astype(np.longdouble), Q.astype(np.longdouble)
            for _ in range(REFINED):  # with residuals of more digits (Higham 2002, sec. 12.1)
                rest = q - (P - a @ P.astype(np.longdouble) @ a.T)
                P = P + np.linalg.solve(system, rest.astype(float).ravel()).reshape(n, n)
        return np.asarray(P)
    while True:  # P = sum A^k Q A'^k, twice as many terms each time
        more = A @ Q @ A.T
        Q, A = Q + more, A @ A
        if not np.abs(more).max() > ENOUGH * np.abs(Q).max():
            return Q


def undamped(A: Floats, states: Bools) -> list[Ints]:
    """Sets of stationary states (n,), linked by the dynamics, that hardly decay."""
    linked = ((A != 0.0) | (A != 0.0).T) & states & states[:, None]
    parts = [part for part in components(linked) if states[part].all()]
    return [part for part in parts if np.abs(np.linalg.eigvals(A[np.ix_(part, part)])).max() > 1.0 - UNIT]


def add_score(
    gradients: dict[str, Floats], kinds: Mapping[str, int], A: Floats, mean: Floats, cov: Floats, states: Bools
) -> None:
    """Add what the moments of the start say about A, b and Q to their gradients, in place.

    ``kinds`` is the kind of the first row for the gradients that are by kind of row. The adjoint of P = A P A' + Q is
    Lambda = A' Lambda A + G, that of m = A m + b is l = A' l + g.
    """
    block = np.ix_(states, states)
    a, m, p = A[block], mean[states], cov[block]
    lam = _lyapunov(a.T, gradients["initial_cov"][block])
    g = np.linalg.solve(np.eye(len(a)) - a.T, gradients["initial_mean"][states])
    own = {name: gradients[name][kind] for name, kind in kinds.items()}
    own = {name: own.get(name, gradients[name]) for name in ("process_cov", "transition", "state_offset")}
    own["process_cov"][block] += lam
    own["transition"][block] += lam @ a @ p + np.outer(g, m)
    own["state_offset"][states] += g
