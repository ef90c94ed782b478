"""Forward-backward, filter and Viterbi against the enumeration of all paths."""

import numpy as np
import pytest
from oracles import chain_oracle

from statespace_em.errors import ImpossibleObservationError
from statespace_em.sequence.forward_backward import filter_states, most_probable_path, smooth


def case(seed, K, T, *, zeros=False, varies=False, extreme=0.0):
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


def one(T):
    return np.array([0, T])


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize("extreme", [0.0, 600.0, 5000.0])
@pytest.mark.parametrize(("K", "T"), [(1, 4), (2, 7), (3, 6)])
def test_posterior_equals_enumeration(K, T, extreme, varies, zeros):
    if zeros and K < 3:
        zeros = False
    for seed in range(6):
        log_b, pi, A = case(seed, K, T, zeros=zeros, varies=varies, extreme=extreme)
        ll, gamma, xi, filtered, predicted, top, path = chain_oracle(log_b, pi, A)
        got = smooth(log_b, pi, A, one(T), pairs=True)
        np.testing.assert_allclose(got.log_likelihood, [ll], rtol=1e-12, atol=1e-12)
        exact = 1e-12 + 4 * np.spacing(np.abs(log_b).max() * T)  # log-densities of 1e4 carry no more digits
        np.testing.assert_allclose(got.gamma, gamma, rtol=0, atol=exact)
        np.testing.assert_allclose(got.xi[:-1], xi, rtol=0, atol=exact)
        assert np.isnan(got.xi[-1]).all()
        np.testing.assert_allclose(got.xi_sum, xi.sum(0), rtol=0, atol=1e-11)
        np.testing.assert_allclose(got.firsts, gamma[0], rtol=0, atol=exact)
        causal = filter_states(log_b, pi, A, one(T))
        np.testing.assert_allclose(causal.filtered, filtered, rtol=0, atol=exact)
        np.testing.assert_allclose(causal.predicted, predicted, rtol=0, atol=exact)
        np.testing.assert_allclose(causal.log_likelihood.sum(), ll, rtol=1e-12, atol=1e-12)
        found, best = most_probable_path(log_b, pi, A, one(T))
        np.testing.assert_allclose(best, [top], rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(found, path)


def test_likelihood_ratios_of_1e_400_through_structural_zeros():
    # two absorbing states: the loser of the first row, 1e-400 behind, wins by 1e+800 on the last
    log_b = np.array([[0.0, -400 * np.log(10)], [0.0, 0.0], [-800 * np.log(10), 0.0]])
    pi, A = np.array([0.5, 0.5]), np.eye(2)[None]
    ll, gamma, *_ = chain_oracle(log_b, pi, A)
    got = smooth(log_b, pi, A, one(3))
    np.testing.assert_allclose(got.log_likelihood, [ll], rtol=1e-14)
    np.testing.assert_allclose(got.gamma, gamma, rtol=0, atol=1e-15)
    np.testing.assert_allclose(got.gamma[0], [0.0, 1.0], rtol=0, atol=1e-15)


def test_only_reachable_state_is_far_below_the_best():
    log_b = np.array([[0.0, -2000.0], [0.0, -3000.0], [0.0, 0.0]])
    pi, A = np.array([0.0, 1.0]), np.array([[[0.5, 0.5], [0.0, 1.0]]])
    got = smooth(log_b, pi, A, one(3))
    np.testing.assert_allclose(got.log_likelihood, [-5000.0], rtol=1e-14)
    np.testing.assert_array_equal(got.gamma, np.tile([0.0, 1.0], (3, 1)))


def test_sequences_together_equal_sequences_apart_also_when_one_needs_log_space():
    parts = [case(s, 3, 5 + s, zeros=True, extreme=e) for s, e in enumerate([0.0, 5000.0, 0.0, 5000.0])]
    pi, A = parts[0][1:]
    starts = np.cumsum([0] + [len(p[0]) for p in parts])
    together = smooth(np.vstack([p[0] for p in parts]), pi, A, starts, pairs=True)
    apart = [smooth(p[0], pi, A, one(len(p[0])), pairs=True) for p in parts]
    np.testing.assert_allclose(together.gamma, np.vstack([a.gamma for a in apart]), rtol=0, atol=1e-13)
    np.testing.assert_allclose(together.xi, np.vstack([a.xi for a in apart]), rtol=0, atol=1e-13)
    np.testing.assert_allclose(together.xi_sum, sum(a.xi_sum for a in apart), rtol=0, atol=1e-12)
    np.testing.assert_allclose(together.log_likelihood, np.concatenate([a.log_likelihood for a in apart]), rtol=1e-13)


@pytest.mark.parametrize("extreme", [0.0, 3000.0])
def test_future_rows_change_no_bit_of_the_filter(extreme):
    log_b, pi, A = case(3, 3, 60, zeros=True, extreme=extreme)
    whole = filter_states(log_b, pi, A, one(60))
    for cut in range(1, 60):
        part = filter_states(log_b[:cut], pi, A, one(cut))
        np.testing.assert_array_equal(part.filtered, whole.filtered[:cut])
        np.testing.assert_array_equal(part.predicted, whole.predicted[:cut])


@pytest.mark.parametrize("function", [smooth, filter_states, most_probable_path])
def test_impossible_row_is_named(function):
    log_b = np.array([[0.0, 0.0], [0.0, -np.inf], [-np.inf, 0.0]])
    with pytest.raises(ImpossibleObservationError, match="2"):
        function(log_b, np.array([0.5, 0.5]), np.eye(2)[None], one(3))
    log_b[1] = -np.inf
    with pytest.raises(ImpossibleObservationError, match="1"):
        function(log_b, np.array([0.5, 0.5]), np.full((1, 2, 2), 0.5), one(3))
