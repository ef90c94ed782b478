"""Dense oracle of the linear-Gaussian model: one joint Gaussian of all states and all y, conditioned by hand.

Nothing recursive and nothing from the package, so that an error there cannot hide here. Short sequences only.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np
from scipy.linalg import expm


class Parameters(NamedTuple):
    """Matrices with a leading axis of length 1 (constant) or N (varying); m0 (n,) and P0 (n, n) without."""

    A: np.ndarray
    b: np.ndarray
    Q: np.ndarray
    C: np.ndarray
    d: np.ndarray
    R: np.ndarray
    m0: np.ndarray
    P0: np.ndarray

    def at(self, name, t):
        value = getattr(self, name)
        return value[t if value.shape[0] > 1 else 0]

    def rows(self, span):
        """Return the parameters of a slice of rows."""
        cut = [value[span] if value.shape[0] > 1 else value for value in self[:6]]
        return Parameters(*cut, self.m0, self.P0)


class Posterior(NamedTuple):
    log_likelihood: float
    contributions: np.ndarray  # (T,), nats per row
    predicted_mean: np.ndarray
    predicted_cov: np.ndarray
    filtered_mean: np.ndarray
    filtered_cov: np.ndarray
    innovation: np.ndarray  # (T, D), NaN where missing
    innovation_cov: np.ndarray
    mean: np.ndarray
    cov: np.ndarray
    cross_cov: np.ndarray  # (T, n, n), Cov(s[t], s[t+1]), NaN at the end


def discretised(drift, diffusion, gaps):
    """Transitions and noises of ``ds = drift s dt + dw`` over gaps, from matrix exponentials (Van Loan 1978).

    Those of a sixteenth of each gap, doubled four times, lose no digits where long ones do.
    """
    n = len(drift)
    flow = expm(np.block([[-drift, diffusion], [np.zeros((n, n)), drift.T]]) * gaps[:, None, None] / 16.0)
    A = flow[:, n:, n:].swapaxes(1, 2)
    Q = A @ flow[:, :n, n:]
    for _ in range(4):
        A, Q = A @ A, A @ Q @ A.swapaxes(1, 2) + Q
    return A, (Q + Q.swapaxes(1, 2)) / 2.0


def joint(p: Parameters, T: int):
    """Mean and covariance of (s[0], ..., s[T-1], y[0], ..., y[T-1]), a linear map of independent shocks."""
    n, D = p.m0.size, p.C.shape[1]
    size = T * (n + D)
    shock_cov = np.zeros((size, size))  # the shocks: s[0] - m0, w[0..T-2], v[0..T-1]
    loading = np.zeros((size, size))
    mean = np.zeros(size)
    for t in range(T):
        s, y = slice(t * n, (t + 1) * n), slice(T * n + t * D, T * n + (t + 1) * D)
        loading[s, s] = np.eye(n)
        if t == 0:
            mean[s], shock_cov[s, s] = p.m0, p.P0
        else:
            old = slice((t - 1) * n, t * n)
            loading[s] += p.at("A", t - 1) @ loading[old]
            mean[s] = p.at("A", t - 1) @ mean[old] + p.at("b", t - 1)
            shock_cov[s, s] = p.at("Q", t - 1)
        loading[y] = p.at("C", t) @ loading[s]
        loading[y, y] += np.eye(D)
        mean[y] = p.at("C", t) @ mean[s] + p.at("d", t)
        shock_cov[y, y] = p.at("R", t)
    return mean, loading @ shock_cov @ loading.T


def condition(mean, cov, where, values):
    """Mean and covariance of everything given the entries ``where``."""
    where = np.asarray(where, int)
    gain = np.linalg.solve(cov[np.ix_(where, where)], cov[where]).T
    return mean + gain @ (values - mean[where]), cov - gain @ cov[where]


def log_density(mean, cov, where, values):
    where = np.asarray(where, int)
    S, v = cov[np.ix_(where, where)], values - mean[where]
    return -0.5 * (where.size * np.log(2 * np.pi) + np.linalg.slogdet(S)[1] + v @ np.linalg.solve(S, v))


def posterior(y, p: Parameters) -> Posterior:
    """All moments of one sequence ``y`` (T, D) with NaN for the missing entries."""
    T, D = y.shape
    n = p.m0.size
    mean, cov = joint(p, T)
    seen = [[T * n + t * D + k for k in range(D) if not np.isnan(y[t, k])] for t in range(T)]
    values = [y[t][~np.isnan(y[t])] for t in range(T)]
    out = Posterior(
        0.0, np.zeros(T), np.zeros((T, n)), np.zeros((T, n, n)), np.zeros((T, n)), np.zeros((T, n, n)),
        np.full((T, D), np.nan), np.full((T, D, D), np.nan),
        np.zeros((T, n)), np.zeros((T, n, n)), np.full((T, n, n), np.nan),
    )  # fmt: skip
    for t in range(T):
        s, row = slice(t * n, (t + 1) * n), ~np.isnan(y[t])
        past, past_values = list(chain(*seen[:t])), np.concatenate([*values[:t], []])
        m, V = condition(mean, cov, past, past_values)
        out.predicted_mean[t], out.predicted_cov[t] = m[s], V[s, s]
        out.innovation[t, row] = values[t] - m[seen[t]]
        out.innovation_cov[t][np.ix_(row, row)] = V[np.ix_(seen[t], seen[t])]
        out.contributions[t] = log_density(m, V, seen[t], values[t])
        m, V = condition(m, V, seen[t], values[t])
        out.filtered_mean[t], out.filtered_cov[t] = m[s], V[s, s]
    everything, all_values = list(chain(*seen)), np.concatenate(values)
    m, V = condition(mean, cov, everything, all_values)
    for t in range(T):
        s, following = slice(t * n, (t + 1) * n), slice((t + 1) * n, (t + 2) * n)
        out.mean[t], out.cov[t] = m[s], V[s, s]
        if t < T - 1:
            out.cross_cov[t] = V[s, following]
    return out._replace(log_likelihood=log_density(mean, cov, everything, all_values))


def completed(y, p: Parameters):
    """Mean (N,) and second moment of all states and all y of one sequence given the observed entries."""
    T = len(y)
    mean, cov = joint(p, T)
    where = T * p.m0.size + np.flatnonzero(~np.isnan(y))
    m, V = condition(mean, cov, where, y[~np.isnan(y)])
    return m, V + np.outer(m, m)


def em_step(sequences, p: Parameters, with_offsets: bool = True) -> Parameters:
    """One exact EM step of constant parameters: joint regressions on the completed data of the sequences.

    Missing entries of y are completed together with the states; rows with nothing observed are left out of
    the regression of y. Without offsets b and d stay as they are.
    """
    n, D = p.m0.size, p.C.shape[1]
    state, measure = np.zeros((2 * n + 1,) * 2), np.zeros((D + n + 1,) * 2)  # of (s', s, 1) and (y, s, 1)
    firsts, n_pairs, n_rows = [], 0, 0
    for y in sequences:
        T = len(y)
        m, second = completed(y, p)
        m, second = np.append(m, 1.0), np.block([[second, m[:, None]], [m[None], np.ones((1, 1))]])
        firsts.append((m[:n], second[:n, :n]))
        for t in range(T):
            s, one = list(range(t * n, (t + 1) * n)), [T * (n + D)]
            if t < T - 1:
                pick = [*range((t + 1) * n, (t + 2) * n), *s, *one]
                state += second[np.ix_(pick, pick)]
                n_pairs += 1
            if not np.isnan(y[t]).all():
                pick = [*range(T * n + t * D, T * n + (t + 1) * D), *s, *one]
                measure += second[np.ix_(pick, pick)]
                n_rows += 1
    A, b, Q = regression(state, n, n_pairs, None if with_offsets else p.b[0])
    C, d, R = regression(measure, D, n_rows, None if with_offsets else p.d[0])
    m0 = np.mean([m for m, _ in firsts], axis=0)
    P0 = np.mean([second for _, second in firsts], axis=0) - np.outer(m0, m0)
    return Parameters(A[None], b[None], Q[None], C[None], d[None], R[None], m0, P0)


def regression(second, size, count, offset=None):
    """Slope, offset and residual covariance from the summed second moments of (target, regressor, 1)."""
    target, z = slice(0, size), slice(size, None)
    if offset is None:
        W = np.linalg.solve(second[z, z], second[z, target]).T
    else:
        x = slice(size, -1)
        W = np.linalg.solve(second[x, x], second[x, target] - np.outer(second[x, -1], offset)).T
        W = np.column_stack([W, offset])
    residual = np.hstack([np.eye(size), -W])
    return W[:, :-1], W[:, -1], residual @ second @ residual.T / count


def m_step(s, p, with_offsets=True):
    """Update constant parameters from residual sums, as the documentation of ``kalman.moment_sums`` says."""

    def update(S_rr, S_rz, S_zz, count):
        size = S_zz.shape[0] - (0 if with_offsets else 1)
        step = np.zeros_like(S_rz)
        step[:, :size] = np.linalg.solve(S_zz[:size, :size], S_rz[:, :size].T).T
        return step, (S_rr - step @ S_rz.T) / count

    state, Q = update(s.S_ww, s.S_wz, s.S_zz, s.n_pairs)
    measure, R = update(s.S_vv, s.S_vz, s.S_uu, s.n_rows)
    m0 = s.first_mean / s.n_sequences
    P0 = (s.first_cov + s.first_outer) / s.n_sequences - np.outer(m0 - p.m0, m0 - p.m0)
    A, b = p.A + state[None, :, :-1], p.b + state[None, :, -1]
    C, d = p.C + measure[None, :, :-1], p.d + measure[None, :, -1]
    return Parameters(A, b, Q[None], C, d, R[None], m0, P0)


def random_parameters(rng, n, D, T=1, varying=(), diagonal_R=False) -> Parameters:
    """Well-behaved parameters; the names in ``varying`` change every step."""

    def stack(name, draw):
        return np.array([draw() for _ in range(T if name in varying else 1)])

    def spread(size):
        root = rng.normal(size=(size, size))
        return root @ root.T / size + 0.2 * np.eye(size)

    return Parameters(
        stack("A", lambda: 0.6 * np.linalg.qr(rng.normal(size=(n, n)))[0] + 0.2 * rng.normal(size=(n, n))),
        stack("b", lambda: rng.normal(size=n)),
        stack("Q", lambda: spread(n)),
        stack("C", lambda: rng.normal(size=(D, n))),
        stack("d", lambda: rng.normal(size=D)),
        stack("R", lambda: np.diag(rng.uniform(0.2, 2, D)) if diagonal_R else spread(D)),
        rng.normal(size=n),
        spread(n),
    )


def simulate(rng, p: Parameters, T: int, missing=0.0):
    """Draw y (T, D) and punch out entries with probability ``missing``."""
    mean, cov = joint(p, T)
    values, vectors = np.linalg.eigh(cov)
    draw = mean + vectors @ (np.sqrt(np.clip(values, 0, None)) * rng.normal(size=mean.size))
    y = draw[T * p.m0.size :].reshape(T, -1)
    return np.where(rng.random(y.shape) < missing, np.nan, y)
