"""Slow and obvious: the answers by enumerating every path of a hidden chain."""

from __future__ import annotations

import itertools

import numpy as np


def enumerate_paths(log_b, pi, A):
    """All paths (M, T) of one sequence with their log joint probabilities (M,); A is (1 | T, K, K)."""
    T, K = log_b.shape
    paths = np.array(list(itertools.product(range(K), repeat=T)))
    with np.errstate(divide="ignore"):
        log_pi, log_A = np.log(pi), np.log(A)
    score = log_pi[paths[:, 0]] + log_b[0, paths[:, 0]]
    for t in range(1, T):
        step = log_A[0 if len(A) == 1 else t - 1]
        score = score + step[paths[:, t - 1], paths[:, t]] + log_b[t, paths[:, t]]
    return paths, score


def chain_oracle(log_b, pi, A):
    """log-likelihood, gamma, xi (T - 1, K, K), filtered, predicted, best score and path of one sequence."""
    T, K = log_b.shape
    paths, score = enumerate_paths(log_b, pi, A)
    top = score.max()
    weight = np.exp(score - top)
    total = weight.sum()
    weight /= total
    gamma = np.array([[weight[paths[:, t] == k].sum() for k in range(K)] for t in range(T)])
    xi = np.array(
        [
            [[weight[(paths[:, t] == i) & (paths[:, t + 1] == j)].sum() for j in range(K)] for i in range(K)]
            for t in range(T - 1)
        ]
    )
    filtered, predicted = np.empty((T, K)), np.empty((T, K))
    for t in range(T):
        seen, part = enumerate_paths(log_b[: t + 1], pi, A if len(A) == 1 else A[: t + 1])
        blind = part - log_b[t, seen[:, t]] if np.isfinite(log_b[t]).all() else None
        for out, values in ((filtered, part), (predicted, blind)):
            if values is None:
                before, prior = enumerate_paths(
                    np.vstack([log_b[:t], np.zeros((1, K))]), pi, A if len(A) == 1 else A[: t + 1]
                )
                seen, values = before, prior
            w = np.exp(values - values.max())
            out[t] = [w[seen[:, t] == k].sum() / w.sum() for k in range(K)]
    return top + np.log(total), gamma, xi, filtered, predicted, top, paths[np.argmax(score)]


def random_chain(seed, K, T, *, zeros=False, varies=False, extreme=0.0):
    """Log densities (T, K), initial and transition probabilities; ``extreme`` ones are far apart in a row."""
    rng = np.random.default_rng(seed)
    log_b = rng.normal(size=(T, K)) * 3.0 + extreme * rng.normal(size=(T, K))
    pi = rng.dirichlet(np.ones(K))
    A = rng.dirichlet(np.ones(K), size=(T if varies else 1, K))
    if zeros:
        A[:, 0, K - 1] = 0.0
        A[:, K - 1, 0] = 0.0
        A /= A.sum(-1, keepdims=True)
        pi[0] = 0.0
        pi /= pi.sum()
        log_b[2] = 0.0
    return log_b, pi, A
