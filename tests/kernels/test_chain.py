"""Forward-backward and filter against the enumeration of all paths."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from oracles import chain_oracle, random_chain

from statespace_em import _threads
from statespace_em.errors import ImpossibleObservationError
from statespace_em.sequence import blocks, forward_backward
from statespace_em.sequence.forward_backward import filter_states, smooth, smooth_sums


class Counted(NamedTuple):
    count: Any


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
        log_b, pi, A = random_chain(seed, K, T, zeros=zeros, varies=varies, extreme=extreme)
        ll, gamma, xi, filtered, predicted, *_ = chain_oracle(log_b, pi, A)
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
    parts = [random_chain(s, 3, 5 + s, zeros=True, extreme=e) for s, e in enumerate([0.0, 5000.0, 0.0, 5000.0])]
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
    log_b, pi, A = random_chain(3, 3, 60, zeros=True, extreme=extreme)
    whole = filter_states(log_b, pi, A, one(60))
    for cut in range(1, 60):
        part = filter_states(log_b[:cut], pi, A, one(cut))
        np.testing.assert_array_equal(part.filtered, whole.filtered[:cut])
        np.testing.assert_array_equal(part.predicted, whole.predicted[:cut])


@pytest.mark.parametrize("function", [smooth, filter_states])
def test_impossible_row_is_named(function):
    log_b = np.array([[0.0, 0.0], [0.0, -np.inf], [-np.inf, 0.0]])
    with pytest.raises(ImpossibleObservationError, match="2"):
        function(log_b, np.array([0.5, 0.5]), np.eye(2)[None], one(3))
    log_b[1] = -np.inf
    with pytest.raises(ImpossibleObservationError, match="1"):
        function(log_b, np.array([0.5, 0.5]), np.full((1, 2, 2), 0.5), one(3))


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Blocks of a few rows and tasks of a few blocks, so that small cases take every way through them."""
    monkeypatch.setattr(blocks, "ENTRIES", 12)
    monkeypatch.setattr(forward_backward, "KEPT", 2)
    monkeypatch.setattr(blocks, "SPANS", 3)
    monkeypatch.setattr(blocks, "SHARE", 1)


@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize(("zeros", "extreme"), [(False, 0.0), (True, 0.0), (True, 600.0), (True, 5000.0)])
def test_many_blocks_equal_one(zeros, extreme, varies, tiny_blocks, monkeypatch):
    log_b, pi, A = random_chain(5, 3, 150, zeros=zeros, extreme=extreme, varies=varies)
    starts = np.array([0, 1, 30, 31, 72, 75, 150])
    cut = smooth(log_b, pi, A, starts, pairs=True), filter_states(log_b, pi, A, starts)
    monkeypatch.setattr(blocks, "ENTRIES", 10_000)
    whole = smooth(log_b, pi, A, starts, pairs=True), filter_states(log_b, pi, A, starts)
    for got, expected in zip(cut, whole):
        for name, value in expected._asdict().items():
            np.testing.assert_allclose(getattr(got, name), value, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("zeros", [False, True])
def test_the_number_of_threads_changes_no_bit(zeros, tiny_blocks):
    log_b, pi, A = random_chain(6, 3, 200, zeros=zeros, extreme=300.0)
    starts = np.array([0, 150, 151, 190, 200])
    results = []
    for threads in (1, 2, 5):
        with _threads.limited(threads):
            results.append(smooth(log_b, pi, A, starts, pairs=True))
    for other in results[1:]:
        for name, value in other._asdict().items():
            np.testing.assert_array_equal(value, getattr(results[0], name), err_msg=name)


def test_visits_see_every_row_once_though_some_sequences_are_done_again(tiny_blocks):
    log_b, pi, A = random_chain(3, 3, 120, zeros=True, extreme=5000.0)
    starts = np.array([0, 50, 90, 120])
    sums, _ = smooth_sums(log_b, pi, A, starts, lambda begin, end, gamma: Counted(np.array([end - begin, gamma.sum()])))
    np.testing.assert_allclose(sums.statistics.count, [120.0, 120.0], rtol=1e-12)


def test_first_impossible_row_is_named_whatever_block_it_is_in(tiny_blocks):
    log_b, pi, A = random_chain(1, 3, 100)
    log_b[[61, 83]] = -np.inf
    for threads in (1, 2):
        with _threads.limited(threads), pytest.raises(ImpossibleObservationError, match="61"):
            smooth(log_b, pi, A, one(100))
    log_b[7] = np.nan
    with pytest.raises(ImpossibleObservationError, match="7"):
        smooth(log_b, pi, A, one(100))


def test_states_that_cannot_be_reached_do_not_overflow_the_backward_pass():
    # only the first state is ever possible, and each row prefers the other by 1e+199
    log_b = np.tile([-199 * np.log(10), 0.0], (60, 1))
    pi, A = np.array([1.0, 0.0]), np.array([[[1.0, 0.0], [0.5, 0.5]]])
    got = smooth(log_b, pi, A, one(60))
    np.testing.assert_allclose(got.gamma, np.tile([1.0, 0.0], (60, 1)), rtol=0, atol=1e-15)
    np.testing.assert_allclose(got.log_likelihood, [60 * log_b[0, 0]], rtol=1e-14)
