"""Paths of a hidden chain against the enumeration of all of them."""

import itertools

import numpy as np
import pytest
from oracles import chain_oracle, enumerate_paths

from statespace_em.errors import ImpossibleObservationError
from statespace_em.kernels import paths
from statespace_em.sequence.decoding import best_paths, fixed_lag, patient_path
from statespace_em.sequence.forward_backward import filter_states

EXACT = 1e-11


def case(seed, K, T, *, zeros=False, varies=False, extreme=1.0):
    rng = np.random.default_rng(seed)
    log_b = extreme * rng.normal(size=(T, K))
    pi = rng.dirichlet(np.ones(K))
    A = rng.dirichlet(np.ones(K), size=(T if varies else 1, K))
    if zeros:
        A[:, 0, K - 1] = 0.0
        A /= A.sum(-1, keepdims=True)
        pi[0] = 0.0
        pi /= pi.sum()
    return log_b, pi, A


SHAPES = [(1, 3), (2, 6), (3, 5)]


@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("K", "T"), SHAPES)
def test_the_best_paths_are_the_best_of_all(K, T, zeros, varies):
    for seed in range(4):
        log_b, pi, A = case(seed, K, T, zeros=zeros and K > 1, varies=varies)
        every, score = enumerate_paths(log_b, pi, A)
        order = np.argsort(-score, kind="stable")
        possible = order[np.isfinite(score[order])]
        for n in (1, 2, 7, len(every) + 3):
            found, best = best_paths(log_b, pi, A, n)
            wanted = possible[:n]
            np.testing.assert_allclose(best, score[wanted], rtol=EXACT)
            np.testing.assert_array_equal(found, every[wanted])


def test_ties_are_all_listed():
    found, best = best_paths(np.zeros((3, 2)), np.full(2, 0.5), np.full((1, 2, 2), 0.5), 20)
    assert len({tuple(path) for path in found}) == 8
    np.testing.assert_allclose(best, 3 * np.log(0.5))


def runs(path):
    return [(state, len(list(group))) for state, group in itertools.groupby(path)]


@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize("least", [(1, 1, 1), (2, 2, 2), (3, 1, 2), (1, 4, 9)])
def test_the_patient_path_is_the_best_that_keeps_to_the_durations(least, varies):
    for seed in range(6):
        log_b, pi, A = case(seed, 3, 7, zeros=seed % 2 == 1, varies=varies, extreme=3.0)
        every, score = enumerate_paths(log_b, pi, A)
        kept = [all(n >= least[k] for k, n in runs(path)[1:-1]) for path in every]
        best = np.argmax(np.where(kept, score, -np.inf))
        path, found = patient_path(log_b, pi, A, np.array([0, 7]), np.array(least))
        np.testing.assert_array_equal(path, every[best])
        np.testing.assert_allclose(found, [score[best]], rtol=EXACT)


def test_a_patient_path_that_cannot_be_is_refused():
    A = np.array([[[0.0, 1.0], [1.0, 0.0]]])  # must switch at every row
    with pytest.raises(ImpossibleObservationError):
        patient_path(np.zeros((5, 2)), np.full(2, 0.5), A, np.array([0, 5]), np.array([2, 2]))


@pytest.mark.parametrize("most", [2, 6, 9])
def test_counts_of_events_equal_enumeration(most):
    rng = np.random.default_rng(1)
    pi, A = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), size=(5, 3))
    every, score = enumerate_paths(np.zeros((6, 3)), pi, A)
    for at_first, at_step in (
        (np.zeros(3, int), 1 - np.eye(3, dtype=int)),
        (np.array([0, 1, 0]), np.eye(3, dtype=int)[:1].repeat(3, 0)[:, [1, 0, 2]]),
    ):
        counts = [at_first[p[0]] + sum(at_step[i, j] for i, j in itertools.pairwise(p)) for p in every]
        wanted = np.bincount(np.minimum(counts, most), np.exp(score), most + 1)
        found = np.empty(most + 1)
        paths.count_events(pi, A, at_first, np.ascontiguousarray(at_step), found)
        np.testing.assert_allclose(found, wanted, atol=1e-14)


@pytest.mark.parametrize("extreme", [1.0, 600.0])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("varies", [False, True])
def test_a_fixed_lag_is_smoothing_of_fewer_rows(varies, zeros, extreme):
    log_b, pi, A = case(2, 3, 7, zeros=zeros, varies=varies, extreme=extreme)
    starts = np.array([0, 7])
    for lag in (0, 1, 3, 20):
        found = fixed_lag(log_b, pi, A, starts, lag)
        for t in range(7):
            known = min(t + lag + 1, 7)
            gamma = chain_oracle(log_b[:known], pi, A if len(A) == 1 else A[:known])[1]
            np.testing.assert_allclose(found[t], gamma[t], atol=1e-12 * max(1.0, extreme))
    np.testing.assert_array_equal(fixed_lag(log_b, pi, A, starts, 0), filter_states(log_b, pi, A, starts).filtered)


def test_a_fixed_lag_never_reads_further_nor_across_sequences():
    log_b, pi, A = case(5, 3, 40)
    starts = np.array([0, 25, 40])
    whole = fixed_lag(log_b, pi, A, starts, 3)
    np.testing.assert_array_equal(whole[25:], fixed_lag(log_b[25:], pi, A, np.array([0, 15]), 3))
    changed = log_b.copy()
    changed[14:] = -changed[14:]
    np.testing.assert_array_equal(fixed_lag(changed, pi, A, starts, 3)[:11], whole[:11])
    assert (fixed_lag(changed, pi, A, starts, 3)[11] != whole[11]).all()
