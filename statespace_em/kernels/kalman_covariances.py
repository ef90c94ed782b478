"""Covariances of a linear-Gaussian model: they depend on which entries of y are seen, never on their values.

Rows of equal history (of entries seen, and of matrices where these vary) have equal covariances, so each distinct one
is worked out and kept once: ``slot[t]`` is the place of row t in the stacks of the filter, ``place[t]`` in those of the
smoother. Without missing entries a constant model has a few dozen, whatever the number of rows and sequences, because
the recursions settle, and so they do between breaks. Slots are numbered as they first occur from the front
(slot[t] <= t), places from the back, so that `expand` turns a stack that has room for every row into one entry a row in
place. Symbols and conventions as in kalman.py.
"""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels._jit import inlined, jit
from statespace_em.kernels._linalg import (
    EPS,
    cholesky,
    find_seen,
    mirror,
    sandwich,
    sandwich_rows,
    settled,
    solve_lower,
    solve_upper,
    times_transposed,
)
from statespace_em.kernels.kalman_wide import smooth_by_rows

LOG_2PI = 1.8378770664093453
SHORTEST = 16  # undisturbed rows before a covariance recursion is asked whether it has settled
FULL = -1  # status: more of them differ than the stacks have room for
FEW_STATES = 7  # up to which sums entry by entry are faster than whole rows at a time
ONE_STEP = np.int64(1)  # numbers written where they are used are types of their own: functions are compiled for each
AT_ONCE = 64  # rows whose gaps are looked at together where there are none
MOST = 32  # histories compared with a new row; beyond that it is worked out without looking further


@jit
def filter_covariances(
    y: Floats, first: Bools, alike: Ints, A: Floats, Q: Floats, C: Floats, R: Floats, P0: Floats,
    slot: Ints, predicted: Floats, filtered: Floats, gain: Floats, whiten: Floats, log_norm: Floats,
    innovation_cov: Floats,
) -> int:  # fmt: skip
    """Fill ``slot`` (N,) and, by slot, Cov(s[t] | y[..t-1]), Cov(s[t] | y[..t]) and what the means need.

    That is the transposed gain (D, n), inv(L) (D, D) with L L' the covariance S of the innovation, both 0 where an
    entry is missing, and -log((2 pi)^(p/2) |L|). ``innovation_cov`` receives S, NaN where y is missing, or has no
    rows. Rows of one number in ``alike`` (N,) have equal matrices, those of the step to the next row among them; it has
    one entry where all rows do, and none where few do.
    Returns 0, `FULL`, or 1 + the first row where S is not positive definite. Stacks of N are never full.
    Durbin & Koopman 2012, sec. 4.3, in Joseph form.
    """
    N, D = y.shape
    room, n = predicted.shape[0], P0.shape[0]
    shares = alike.shape[0] > 0
    child, sibling, parent = np.empty(room + 1, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    row, age = np.empty(room, np.int64), np.empty(room, np.int64)
    seen = np.empty(D, np.int64)
    L, inverse, CP, K, work = np.empty((D, D)), np.empty(D), np.empty((D, n)), np.empty((D, n)), np.empty((n, n))
    child[room] = -1  # of the start of a sequence
    n_slots, s = np.int64(0), room
    t = np.int64(0)  # see `ONE_STEP`
    while t < N:
        before = room if first[t] else s
        if before < room and age[before] == 0:
            t = _stay(t, s, y, alike, row[s], first, slot)
            if t == N:
                break
            before = room if first[t] else s
        s = _find_slot(y, alike, t, before, row, child, sibling) if shares else -1
        if s < 0:
            if n_slots == room:
                return FULL
            s, n_slots = n_slots, n_slots + 1
            if before == room:
                for i in range(n):
                    for j in range(n):
                        predicted[s, i, j] = P0[max(i, j), min(i, j)]
            elif age[before] == 0:  # settled rows follow each other, so the step is one that leads to the same again
                for i in range(n):
                    for j in range(n):
                        predicted[s, i, j] = predicted[before, i, j]
            else:
                a, q = (t - 1) * int(A.shape[0] > 1), (t - 1) * int(Q.shape[0] > 1)
                if n > FEW_STATES:
                    sandwich_rows(A[a], filtered[before], Q[q], work, predicted[s])
                else:
                    sandwich(A[a], filtered[before], Q[q], work, predicted[s])
            p = find_seen(y, t, seen)
            c, r = t * int(C.shape[0] > 1), t * int(R.shape[0] > 1)
            norm = innovation_terms(p, seen, C[c], R[r], predicted[s], innovation_cov, s, L, inverse, CP)
            if not norm < np.inf:
                return 1 + t  # type: ignore[return-value]
            log_norm[s] = norm
            filter_gain(p, seen, L, inverse, CP, K, gain[s], whiten[s])
            joseph(p, seen, C[c], R[r], predicted[s], CP, K, work, filtered[s])
            row[s], parent[s], child[s], age[s] = t, before, -1, 1
            if shares:
                sibling[s], child[before] = child[before], s
                if before < room and _equal(y, alike, t, row[before]):
                    age[s] = age[before] + 1
                    if _stands_still(s, age[s], parent, predicted):
                        age[s] = 0
        slot[t] = s
        t += 1
    return 0


@inlined
def _stay(t: int, s: int, y: Floats, alike: Ints, like: int, first: Bools, slot: Ints) -> int:
    """Give the settled slot s to the rows from t on that equal row ``like``; return the row that ends them."""
    D, varies = y.shape[1], alike.shape[0] > 1
    flat, gaps = y.reshape(y.size), False
    for k in range(D):
        gaps = gaps or np.isnan(y[like, k])
    while not gaps and t + AT_ONCE <= y.shape[0]:
        other = False
        for entry in flat[D * t : D * (t + AT_ONCE)]:  # without a way out, so that the compiler takes several at once
            other |= np.isnan(entry)
        for begins in first[t : t + AT_ONCE]:
            other |= begins
        for number in alike[t : t + AT_ONCE] if varies else alike[:0]:
            other |= number != alike[like]
        if other:
            break
        slot[t : t + AT_ONCE] = s
        t += AT_ONCE
    while t < y.shape[0] and not first[t] and _equal(y, alike, t, like):
        slot[t] = s
        t += 1
    return t


@inlined
def _equal(y: Floats, alike: Ints, s: int, t: int) -> bool:
    """Whether the same entries of two rows are missing, and their matrices are equal."""
    varies = int(alike.shape[0] > 1)
    same = alike[s * varies] == alike[t * varies]
    for k in range(y.shape[1]):
        same = same and np.isnan(y[s, k]) == np.isnan(y[t, k])
    return same


@inlined
def _find_slot(y: Floats, alike: Ints, t: int, before: int, row: Ints, child: Ints, sibling: Ints) -> int:
    """Slot that follows another where the entries of row t are seen; -1 if there is none. Age 0: it has settled."""
    s = child[before]
    for _ in range(MOST):
        if s < 0 or _equal(y, alike, t, row[s]):
            break
        s = sibling[s]
    else:
        s = -1
    return s


@inlined
def _stands_still(s: int, age: int, parent: Ints, stack: Floats) -> bool:
    """Whether the recursion that led to s has settled, asked at ages 32, 64, 128, ...; see `settled`."""
    if age < 2 * SHORTEST or age & (age - 1) != 0 or not settled(stack[parent[s]], stack[s], ONE_STEP):
        return False
    old = s
    for _ in range(age // 2):
        old = parent[old]
    return settled(stack[old], stack[s], age // 2)


@inlined
def innovation_terms(
    p: int, seen: Ints, C: Floats, R: Floats, predicted: Floats, innovation_cov: Floats, s: int,
    L: Floats, inverse: Floats, CP: Floats,
) -> float:  # fmt: skip
    """Fill CP = C P and the factor L of S = C P C' + R; return -log((2 pi)^(p/2) |L|), NaN if S is not PD."""
    n = C.shape[1]
    for k in range(p):
        for j in range(n):
            CP[k, j] = 0.0
        for i in range(n):
            a = C[seen[k], i]
            if a != 0.0:
                for j in range(n):
                    CP[k, j] += a * predicted[i, j]
        for m in range(k + 1):
            value = R[seen[k], seen[m]]
            for i in range(n):
                value += CP[k, i] * C[seen[m], i]
            L[k, m] = value
    if innovation_cov.shape[0] > 0:
        for k in range(C.shape[0]):
            for m in range(C.shape[0]):
                innovation_cov[s, k, m] = np.nan
        for k in range(p):
            for m in range(k + 1):
                innovation_cov[s, seen[k], seen[m]] = L[k, m]
                innovation_cov[s, seen[m], seen[k]] = L[k, m]
    if cholesky(L, p, 4 * p * EPS, inverse) > 0:
        return np.nan
    log_norm = 0.0 - 0.5 * p * LOG_2PI
    for k in range(p):
        log_norm += np.log(inverse[k])
    return log_norm


@inlined
def filter_gain(
    p: int, seen: Ints, L: Floats, inverse: Floats, CP: Floats, K: Floats, gain: Floats, whiten: Floats
) -> None:
    """Fill K = inv(S) C P, and the same and inv(L) with zeros where an entry is missing."""
    D, n = gain.shape
    for k in range(D):
        for j in range(n):
            gain[k, j] = 0.0
        for m in range(D):
            whiten[k, m] = 0.0
    for k in range(p):
        for j in range(n):
            K[k, j] = CP[k, j]
        for m in range(k, -1, -1):
            value = 1.0 if m == k else 0.0
            for i in range(m, k):
                value -= L[k, i] * whiten[seen[i], seen[m]]
            whiten[seen[k], seen[m]] = value * inverse[k]
    solve_lower(L, inverse, p, K)
    solve_upper(L, inverse, p, K)
    for k in range(p):
        for j in range(n):
            gain[seen[k], j] = K[k, j]


@inlined
def joseph(
    p: int, seen: Ints, C: Floats, R: Floats, predicted: Floats, CP: Floats, K: Floats, M: Floats, filtered: Floats
) -> None:
    """Write (I - K C) P (I - K C)' + K R K' as M + (K R - M C') K' with M = P - K C P.

    ``K`` is stored transposed; ``CP`` is overwritten.
    """
    n = C.shape[1]
    for i in range(n):
        for j in range(n):
            M[i, j] = predicted[i, j]
        for k in range(p):
            a = K[k, i]
            for j in range(n):
                M[i, j] -= a * CP[k, j]
    for k in range(p):
        for i in range(n):
            CP[k, i] = 0.0
        for m in range(p):
            a = R[seen[m], seen[k]]
            for i in range(n):
                CP[k, i] += K[m, i] * a
        for j in range(n):
            a = C[seen[k], j]
            if a != 0.0:
                for i in range(n):
                    CP[k, i] -= M[i, j] * a
    for i in range(n):
        for j in range(i + 1):
            filtered[i, j] = M[i, j]
        for k in range(p):
            a = CP[k, i]
            for j in range(i + 1):
                filtered[i, j] += a * K[k, j]
    mirror(filtered)


@jit
def smooth_covariances(
    first: Bools, slot: Ints, A: Floats, Q: Floats, predicted: Floats, filtered: Floats,
    J: Floats, place: Ints, cov: Floats, cross_cov: Floats, turned: Floats | None,
) -> int:  # fmt: skip
    """Fill ``place`` (N,), by place Cov(s[t] | y) and Cov(s[t], s[t+1] | y), and the gain ``J`` by slot.

    Rauch, Tung & Striebel 1965 with J = P_f A' inv(P_p), V[t] = (I - J A) P_f (I - J A)' + J (Q + V[t+1]) J',
    a sum of squares; P_p may be singular. The second is NaN where a sequence ends. Places are taken from the end of
    the stacks. Returns the lowest, or `FULL`; stacks of N are never full. With work space ``turned`` (n, n) matrices
    are worked on row by row; without, which is faster up to `FEW_STATES`, entry by entry. Each is compiled when needed.
    """
    N, room, n = first.shape[0], cov.shape[0], filtered.shape[1]
    child, sibling, parent = np.empty(room + 1, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    own, age, known = np.empty(room, np.int64), np.empty(room, np.int64), np.zeros(filtered.shape[0], np.bool_)
    F, L, work, inverse = np.empty((n, n)), np.empty((n, n)), np.empty((n, n)), np.empty(n)
    child[room] = -1  # of the end of a sequence
    lowest, v = np.int64(room), room
    for t in range(N - 1, -1, -1):
        s = slot[t]
        after = room if t == N - 1 or first[t + 1] else v
        if after < room and age[after] == 0 and own[after] == s:
            place[t] = v
            continue
        v = _find_place(s, after, own, child, sibling)
        if v < 0:
            if lowest == 0:
                return FULL
            lowest -= 1
            v = lowest
            if after == room:
                for i in range(n):
                    for j in range(n):
                        cov[v, i, j] = filtered[s, i, j]
                        cross_cov[v, i, j] = np.nan
            else:
                a, q = t * int(A.shape[0] > 1), t * int(Q.shape[0] > 1)
                if turned is not None:
                    ahead = -1 if known[s] else slot[t + 1]
                    smooth_by_rows(
                        s, ahead, after, v, a, q, A, Q, predicted, filtered, J, cov, cross_cov, F, L, work, turned,
                        inverse,
                    )  # fmt: skip
                else:
                    if not known[s]:
                        _smoother_gain(A[a], predicted[slot[t + 1]], filtered[s], J[s], L, inverse, work)
                    times_transposed(J[s], cov[after], cross_cov[v])  # cov is symmetric
                    _smoothed(A[a], Q[q], filtered[s], J[s], cross_cov[v], F, L, work, cov[v])
                known[s] = True
            own[v], parent[v], child[v], age[v] = s, after, -1, 1
            sibling[v], child[after] = child[after], v
            if after < room and own[after] == s:
                age[v] = age[after] + 1
                if _stands_still(v, age[v], parent, cov):
                    age[v] = 0
        place[t] = v
    return int(lowest)


@inlined
def _find_place(s: int, after: int, own: Ints, child: Ints, sibling: Ints) -> int:
    v = child[after]
    for _ in range(MOST):
        if v < 0 or own[v] == s:
            break
        v = sibling[v]
    else:
        v = -1
    return v


@inlined
def _smoother_gain(
    A: Floats, predicted: Floats, filtered: Floats, J: Floats, L: Floats, inverse: Floats, work: Floats
) -> None:
    """Fill J = P_f A' inv(P_p)."""
    n = A.shape[0]
    for i in range(n):
        for j in range(n):
            L[i, j] = predicted[i, j]
    times_transposed(A, filtered, work)
    cholesky(L, n, 4 * n * EPS, inverse)
    solve_lower(L, inverse, n, work)
    solve_upper(L, inverse, n, work)
    for i in range(n):
        for j in range(n):
            J[i, j] = work[j, i]


@inlined
def _smoothed(
    A: Floats, Q: Floats, filtered: Floats, J: Floats, cross_cov: Floats, F: Floats, G: Floats, work: Floats,
    cov: Floats,
) -> None:  # fmt: skip
    """Fill (I - J A) P_f (I - J A)' + (J Q + J V) J', where ``cross_cov`` is J V; Q is read below its diagonal."""
    n = A.shape[0]
    for i in range(n):
        for j in range(n):
            value, other = 1.0 if i == j else 0.0, cross_cov[i, j]
            for k in range(n):
                value -= J[i, k] * A[k, j]
                other += J[i, k] * Q[max(k, j), min(k, j)]
            F[i, j] = value
            G[i, j] = other
    times_transposed(F, filtered, work)
    for i in range(n):
        for j in range(i + 1):
            value = 0.0
            for k in range(n):
                value += work[i, k] * F[j, k] + G[i, k] * J[j, k]
            cov[i, j] = value
            cov[j, i] = value


@jit
def expand(place: Ints, stack: Floats) -> None:
    """Give every row its own entry: ``stack[t] = stack[place[t]]``, whether places look back or ahead."""
    N, n, m = stack.shape
    flat = stack.reshape((N, n * m))
    for t in range(N - 1, -1, -1):
        if place[t] < t:
            for i in range(n * m):
                flat[t, i] = flat[place[t], i]
    for t in range(N):
        if place[t] > t:
            for i in range(n * m):
                flat[t, i] = flat[place[t], i]
