"""Stretches of a chain gone through side by side, against log space and against one row after the other."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statespace_em.errors import ImpossibleObservationError
from statespace_em.kernels import stretches
from statespace_em.kernels._jit import jit
from statespace_em.kernels._lanes import LANES, exp, load, store
from statespace_em.sequence import blocks, forward_backward
from statespace_em.sequence.blocks import first_rows
from statespace_em.sequence.forward_backward import smooth
from statespace_em.sequence.recursions import Chain, Lanes, Logs

recur = jit(stretches.recur.py_func)


def case(seed, K, T, *, spread=3.0, stay=0.0, drift=0.0):
    """A chain without zeros, which forgets the more slowly the larger ``stay``; a part of the rows says nothing."""
    rng = np.random.default_rng(seed)
    log_b = spread * rng.normal(size=(T, K)) - drift
    log_b[rng.random(T) < 0.2] = 0.0
    A = rng.dirichlet(np.ones(K), size=K) + stay * np.eye(K)
    pi = rng.dirichlet(np.ones(K))
    if K > 1:
        pi[0] = 0.0
    return log_b, pi / pi.sum(), (A / A.sum(1, keepdims=True))[None]


def in_log_space(log_b, pi, A, starts):
    """gamma, and the sums and log-likelihoods, in the arithmetic that loses nothing."""
    gamma = np.empty(log_b.shape)

    def keep(begin, end, part):
        gamma[begin:end] = part

    density = blocks.as_density(log_b)
    work = forward_backward._Work(density, Chain(pi, A), starts, keep, np.empty((0, 0, 0)))
    sums = work.sums(Logs(Chain(pi, A), work.first), 0, len(log_b))
    return gamma, sums, work.log_likelihood


def check(log_b, pi, A, starts, exact=1e-12):
    gamma, sums, log_likelihood = in_log_space(log_b, pi, A, starts)
    got = smooth(log_b, pi, A, starts)
    np.testing.assert_allclose(got.gamma, gamma, rtol=0, atol=exact)
    np.testing.assert_allclose(got.xi_sum, sums.xi_sum, rtol=exact, atol=exact)
    np.testing.assert_allclose(got.firsts, sums.firsts, rtol=exact, atol=exact)
    np.testing.assert_allclose(got.log_likelihood, log_likelihood, rtol=exact, atol=exact)


def one(T):
    return np.array([0, T])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    K=st.integers(1, 9),
    T=st.integers(1, 400),
    spread=st.sampled_from([0.01, 1.0, 10.0, 100.0]),
    stay=st.sampled_from([0.0, 10.0, 1e4, 1e12]),
    entries=st.sampled_from([12, 200, 24_576]),
    data=st.data(),
)
def test_equals_log_space(seed, K, T, spread, stay, entries, data):
    cuts = data.draw(st.lists(st.integers(1, T), max_size=6))
    starts = np.unique([0, *cuts, T])
    log_b, pi, A = case(seed, K, T, spread=spread, stay=stay)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "ENTRIES", entries)
        patch.setattr(forward_backward, "KEPT", 1)
        check(log_b, pi, A, starts)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    K=st.integers(2, 7),
    T=st.integers(1, 300),
    spread=st.sampled_from([0.01, 10.0, 100.0, 400.0]),
    kind=st.sampled_from(["left-right", "blocks", "cyclic", "tiny", "some"]),
    entries=st.sampled_from([12, 24_576]),
)
def test_equals_log_space_where_transitions_are_impossible_or_next_to_it(seed, K, T, spread, kind, entries):
    rng = np.random.default_rng(seed)
    log_b, pi, A = case(seed, K, T, spread=spread, stay=1.0)
    own = np.arange(K)
    allowed = {
        "left-right": own[:, None] <= own,
        "blocks": (own[:, None] < K // 2) == (own < K // 2),
        "cyclic": (own - own[:, None]) % K <= 1,
        "tiny": np.ones((K, K), bool),
        "some": (rng.random((K, K)) < 0.5) | np.eye(K, dtype=bool),
    }[kind]
    A = np.where(allowed, A, 0.0)
    if kind == "tiny":
        A = A * 10.0 ** -rng.choice([0.0, 50.0, 150.0, 290.0], size=(K, K))
    A /= A.sum(-1, keepdims=True)
    starts = np.unique([0, *rng.integers(0, T, 3), T])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "ENTRIES", entries)
        check(log_b, pi, A, starts)


@pytest.mark.parametrize("K", [1, 2, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("drift", [0.0, 1e4, -1e4])
def test_equals_one_row_after_the_other(K, drift):
    log_b, pi, A = case(K, K, 900, drift=drift)
    starts = np.array([0, 1, 2, 100, 157, 800, 900])
    side_by_side, alone = smooth(log_b, pi, A, starts), smooth(log_b, pi, A, starts, pairs=True)
    for name in ("gamma", "xi_sum", "firsts", "log_likelihood"):
        np.testing.assert_allclose(getattr(side_by_side, name), getattr(alone, name), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("T", [1, 2, LANES - 1, LANES, LANES + 1, 3 * LANES, 3 * LANES + 1, 127])
def test_sequences_of_one_row_and_first_rows_at_all_borders(T):
    log_b, pi, A = case(T, 3, T, stay=1e3)
    check(log_b, pi, A, np.arange(T + 1))
    length = -(-T // LANES) | 1
    check(log_b, pi, A, np.unique([0, *range(length, T, length), T]))
    check(log_b, pi, A, np.unique([0, *range(length - 1, T, length), T]))


def passes(log_b, pi, A, starts):
    """How often the forward pass went through the stretches."""
    lanes = Lanes(Chain(pi, A), first_rows(starts))
    block, _ = lanes.forward(0, len(log_b), log_b, np.zeros(len(pi)))
    scale, none = np.empty(block.scale.shape), np.empty((0, 1, LANES))
    carry = np.zeros(len(pi))
    return recur(block.b, np.ascontiguousarray(A[0].T), pi, block.starts, True, False, carry, block.alpha, none, scale)


def test_a_chain_that_forgets_takes_two_passes_and_one_that_does_not_two_more():
    starts = one(2000)
    quick, slow = case(1, 3, 2000), case(1, 3, 2000, spread=1e-3, stay=1e9)
    assert passes(*quick, starts) == 2
    assert passes(*slow, starts) == stretches.GUESSED + 1
    check(*quick, starts)
    check(*slow, starts, exact=3e-12)


@pytest.mark.parametrize("K", [1, 2, 3, stretches.FEW, stretches.FEW + 1, 13])
@pytest.mark.parametrize("starts", [[0, 4000], [0, 1, 700, 703, 3999, 4000], [*range(0, 4001, 500)]])
@pytest.mark.parametrize("stay", [20.0, 36.0, 1e2, 1e3, 1e14])
def test_a_slow_chain_whose_rows_say_little_equals_one_row_after_the_other(K, starts, stay):
    log_b, pi, A = case(K, K, 4000, spread=0.03, stay=stay)
    log_b[1234] = -40.0 * np.arange(K)  # but for one
    starts = np.array(starts)
    got, alone = smooth(log_b, pi, A, starts), smooth(log_b, pi, A, starts, pairs=True)
    for name in ("gamma", "xi_sum", "firsts", "log_likelihood"):
        np.testing.assert_allclose(getattr(got, name), getattr(alone, name), rtol=2e-12, atol=2e-12)


@pytest.mark.parametrize("K", [stretches.FEW, stretches.FEW + 1])
def test_states_that_drift_apart_further_than_doubles_reach_come_together_again(K):
    # states that never change: over the first half the rows speak against the true one, then against all others
    log_b = np.zeros((4000, K))
    log_b[:1000, 0] = -1.2
    log_b[3000:, 1:] = -1.3
    A = np.eye(K)[None] * (1.0 - 1e-20) + 1e-20 / K
    check(log_b, np.full(K, 1.0 / K), A / A.sum(-1, keepdims=True), one(4000), exact=3e-12)


def test_a_surprise_long_ago_is_not_forgotten():
    # the first row decides, to the last row of the last stretch, and the last one does so back to the first
    for row in (0, 1999):
        log_b = np.zeros((2000, 2))
        log_b[row, 1] = -300.0
        A = np.array([[[1.0 - 1e-25, 1e-25], [1e-25, 1.0 - 1e-25]]])
        check(log_b, np.array([0.5, 0.5]), A, one(2000), exact=2e-12)


def left_right(K):
    """Transitions (1, K, K) that lead from each state to itself or the next, and a start in the first."""
    A = 0.99 * np.eye(K) + 0.01 * np.eye(K, k=1)
    A[-1, -1] = 1.0
    return np.eye(K)[0], A[None]


def arithmetics(monkeypatch):
    """Names of the arithmetics that sums are made in from here on."""
    used, sums = [], forward_backward._Work.sums

    def noted(self, arithmetic, begin, end):
        used.append(type(arithmetic).__name__ + " strict" * getattr(arithmetic, "strict", False))
        return sums(self, arithmetic, begin, end)

    monkeypatch.setattr(forward_backward._Work, "sums", noted)
    return used


@pytest.mark.parametrize("entries", [300, 24_576])
def test_states_left_behind_for_good_need_no_logs(entries, monkeypatch):
    monkeypatch.setattr(blocks, "ENTRIES", entries)
    pi, A = left_right(3)
    true = np.arange(3000) // 1000
    log_b = np.where(true[:, None] == np.arange(3), 0.0, -3.0) + case(2, 3, 3000, spread=0.1)[0]
    check(log_b, pi, A, np.array([0, 1700, 3000]), exact=3e-12)
    used = arithmetics(monkeypatch)
    smooth(log_b, pi, A, one(3000))
    assert used == ["Lanes"]


@pytest.mark.parametrize("entries", [300, 24_576])
@pytest.mark.parametrize("size", [0.1, 0.5, 1.0, 3.0])
def test_a_state_left_behind_too_early_is_found_again(size, entries, monkeypatch):
    # rows that speak for the last state, of which there is no way back, before more rows that speak for the first
    monkeypatch.setattr(blocks, "ENTRIES", entries)
    pi, A = left_right(3)
    log_b = np.zeros((3000, 3))
    log_b[200:1200, :2] -= size
    log_b[1200:2500, 1:] -= 2.0 * size
    check(log_b, pi, A, np.array([0, 2700, 3000]), exact=1e-11)
    used = arithmetics(monkeypatch)
    smooth(log_b, pi, A, one(3000))
    assert ("Logs" in used) == (size >= 0.5)


@pytest.mark.parametrize("row", [500, 1000, 1001, 2998, 2999])
def test_one_row_that_only_states_left_behind_can_make_is_found(row):
    pi, A = left_right(3)
    log_b = np.zeros((3000, 3))
    log_b[100:row, 0] -= 2.0
    log_b[row, 1:] = -np.inf
    check(log_b, pi, A, one(3000), exact=1e-11)


def test_a_row_beyond_double_precision_sends_its_sequence_to_log_space_and_no_other():
    log_b, pi, A = case(3, 3, 300)  # no sequence begins in the first state
    starts = np.array([0, 90, 130, 300])
    log_b[90] = [0.0, -700.0, -690.0]
    lanes = Lanes(Chain(pi, A), first_rows(starts), strict=True)
    block, fine = lanes.forward(0, 300, log_b, np.zeros(3))
    assert not fine
    np.testing.assert_array_equal(lanes.lost(block), [90])
    check(log_b, pi, A, starts)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_the_first_impossible_row_is_named(bad):
    log_b, pi, A = case(3, 3, 300)
    log_b[[77, 200]] = bad
    with pytest.raises(ImpossibleObservationError, match=r"^77$"):
        smooth(log_b, pi, A, np.array([0, 50, 150, 300]))


@jit
def exponentials(x, y):
    for t in range(x.shape[0]):
        store(y, t, 0, exp(load(x, t, 0)))


def test_the_exponential_is_that_of_exact_arithmetic():
    rng = np.random.default_rng(0)
    x = -np.concatenate([np.linspace(0, 2, 400), 10.0 ** rng.uniform(-17, 2.8, 2000), [0.0, 707.9, 708.1, 745.0, 1e5]])
    x = np.append(x, [-np.inf, np.nan])
    padded = np.zeros(-(-len(x) // LANES) * LANES)
    padded[: len(x)] = x
    found = np.empty((len(padded) // LANES, 1, LANES))
    exponentials(padded.reshape(found.shape), found)
    found = found.ravel()[: len(x)]
    normal = x > -708.0
    exact = [mpmath.exp(mpmath.mpf(value)) for value in x[normal]]
    off = [abs(mpmath.mpf(got) / want - 1) for got, want in zip(found[normal], exact)]
    assert max(off) < 2.3e-16  # two roundings
    assert found[x == 0.0][0] == 1.0
    np.testing.assert_array_equal(found[x < -708.0], 0.0)
    assert np.isnan(found[-1])


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("T", [1, 15, 3 * LANES, 3 * LANES + 1, 200])
def test_both_passes_in_one_are_the_two(T, zeros):
    log_b, pi, A = case(5, 3, T, stay=2.0)
    if zeros:
        A = np.where(np.eye(3, k=2) > 0.0, 0.0, A)
        A /= A.sum(2, keepdims=True)
    starts = np.unique([0, T // 3, T // 2, T])
    first = np.append(first_rows(starts), False)  # a sequence goes on after the block
    first[0] = False  # and before
    lanes = Lanes(Chain(pi, A), first)
    before, after = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.1, 0.5])
    sums = []
    for _ in range(2):
        sums.append([before.copy(), after.copy(), np.zeros((3, 3)), np.zeros(3), np.zeros(len(starts))])
    carry, message, xi_sum, firsts, logs = sums[0]
    block, fine = lanes.forward(0, T, log_b, carry)
    lanes.add_logs(block, 0, logs)
    gamma = lanes.backward(block, message, np.empty((0, 0, 0)), xi_sum, firsts)
    carry, message, xi_sum, firsts, logs = sums[1]
    found, also_fine = lanes.through(0, T, log_b, carry, message, xi_sum, firsts, 0, logs)
    assert fine
    assert also_fine
    np.testing.assert_array_equal(found, gamma)
    for one, other in zip(*sums):
        np.testing.assert_array_equal(one, other)
    again = np.zeros((3, 3))
    lanes.through(0, T, log_b, before.copy(), after.copy(), again, np.zeros(3), 0, np.empty(0))
    np.testing.assert_array_equal(again, xi_sum)
