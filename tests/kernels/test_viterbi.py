"""Most probable paths against the enumeration of all paths."""

from itertools import pairwise

import numpy as np
import pytest
from oracles import chain_oracle, random_chain

from statespace_em import _threads
from statespace_em.errors import ImpossibleObservationError
from statespace_em.sequence import best_path
from statespace_em.sequence.best_path import most_probable_path


def one(T):
    return np.array([0, T])


@pytest.fixture(params=[16, 272], ids=["rows led singly", "rows led side by side"])
def small_blocks(request, monkeypatch):
    """Blocks of few rows and threads for few of them, so that small cases take every way through them."""
    monkeypatch.setattr(best_path, "ENTRIES", 0)
    monkeypatch.setattr(best_path, "ROWS", request.param)
    monkeypatch.setattr(best_path, "SHARE", 1)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize("extreme", [0.0, 600.0, 5000.0])
@pytest.mark.parametrize(("K", "T"), [(1, 4), (2, 7), (3, 6)])
def test_path_equals_enumeration(K, T, extreme, varies, zeros):
    for seed in range(6):
        log_b, pi, A = random_chain(seed, K, T, zeros=zeros and K > 2, varies=varies, extreme=extreme)
        *_, top, path = chain_oracle(log_b, pi, A)
        found, best = most_probable_path(log_b, pi, A, one(T))
        np.testing.assert_allclose(best, [top], rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(found, path)


def test_impossible_row_is_named():
    log_b = np.array([[0.0, 0.0], [0.0, -np.inf], [-np.inf, 0.0]])
    with pytest.raises(ImpossibleObservationError, match="2"):
        most_probable_path(log_b, np.array([0.5, 0.5]), np.eye(2)[None], one(3))
    log_b[1] = -np.inf
    with pytest.raises(ImpossibleObservationError, match="1"):
        most_probable_path(log_b, np.array([0.5, 0.5]), np.full((1, 2, 2), 0.5), one(3))


CASES = [(False, 0.0), (True, 0.0), (True, 600.0), (True, 5000.0)]


@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize(("zeros", "extreme"), CASES)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_blocks_and_threads_change_no_bit(zeros, extreme, varies, threads, small_blocks, monkeypatch):
    log_b, pi, A = random_chain(5, 3, 3000, zeros=zeros, extreme=extreme, varies=varies)
    for starts in ([0, 3000], [0, 1, 300, 301, 1200, 1203, 3000]):
        with _threads.limited(threads):
            path, best = most_probable_path(log_b, pi, A, np.array(starts))
        with monkeypatch.context() as patch:
            patch.setattr(best_path, "ROWS", 5000)
            whole, expected = most_probable_path(log_b, pi, A, np.array(starts))
        np.testing.assert_array_equal(path, whole)
        np.testing.assert_allclose(best, expected, rtol=1e-13)


def sequences_apart(log_b, pi, A, starts):
    """Paths by the plain recursion, sequence by sequence."""
    with np.errstate(divide="ignore"):
        log_pi, log_A = np.log(pi), np.log(A[0])
    path, best = [], []
    for begin, end in pairwise(starts):
        score, back = log_pi + log_b[begin], []
        for row in log_b[begin + 1 : end]:
            steps = score[:, None] + log_A
            back.append(steps.argmax(0))
            score = steps.max(0) + row
        own = [int(score.argmax())]
        for origin in reversed(back):
            own.append(int(origin[own[-1]]))
        path += reversed(own)
        best.append(score.max())
    return np.array(path), np.array(best)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 7, 12])
@pytest.mark.parametrize("lengths", [[2500], [1, 700, 1, 30, 1500], [10] * 80])
def test_rows_led_side_by_side_equal_the_plain_recursion(n_states, lengths):
    starts = np.cumsum([0, *lengths])
    rng = np.random.default_rng(n_states)
    for stay, spread in [(0.0, 1.0), (0.9, 3.0), (0.999, 0.1), (1.0, 0.1)]:  # the last two forget slowly and never
        log_b, pi, A = random_chain(n_states, n_states, starts[-1])
        A = stay * np.eye(n_states)[None] + (1.0 - stay) * A
        log_b = spread * rng.normal(size=log_b.shape)
        log_b[rng.random(log_b.shape) < 0.01] -= 30.0
        log_b[600:900] *= 1e-4  # as if missing, but without ties
        path, best = sequences_apart(log_b, pi, A, starts)
        got, score = most_probable_path(log_b, pi, A, starts)
        np.testing.assert_array_equal(got, path)
        np.testing.assert_allclose(score, best, rtol=1e-12)


@pytest.mark.parametrize("n_states", [2, 3, 9])
@pytest.mark.parametrize("lengths", [[9000], [1, 2499, 3500, 3000]])
@pytest.mark.parametrize("threads", [1, 2])
def test_paths_that_do_not_meet_for_thousands_of_rows_equal_the_plain_recursion(n_states, lengths, threads):
    starts = np.cumsum([0, *lengths])
    rng = np.random.default_rng(n_states)
    log_b, pi, _ = random_chain(n_states, n_states, starts[-1])
    for stay, spread in [(0.9999, 0.03), (1.0 - 1e-9, 0.003), (1.0 - 1e-15, 1e-4)]:
        A = stay * np.eye(n_states)[None] + (1.0 - stay) / n_states
        log_b = spread * rng.normal(size=log_b.shape)
        log_b[4321] = -np.arange(n_states)
        path, best = sequences_apart(log_b, pi, A, starts)
        with _threads.limited(threads):
            got, score = most_probable_path(log_b, pi, A, starts)
        np.testing.assert_array_equal(got, path)
        np.testing.assert_allclose(score, best, rtol=1e-12)


@pytest.mark.parametrize("row", [0, 30, 800, 1500, 1999])
def test_a_row_that_only_the_true_beginnings_find_impossible_is_named(row):
    # each of the states is possible, but not the one that the first row has chosen for good
    log_b = np.zeros((2000, 3))
    log_b[0, 1:] = -np.inf
    log_b[row, 0] = -np.inf
    with pytest.raises(ImpossibleObservationError, match=rf"^{row}$"):
        most_probable_path(log_b, np.full(3, 1 / 3), np.eye(3)[None], one(2000))


@pytest.mark.parametrize("threads", [1, 3])
def test_first_impossible_row_is_named(threads, small_blocks):
    log_b, pi, A = random_chain(1, 3, 2000)
    with _threads.limited(threads):
        for row in (0, 7, 271, 272, 999, 1000, 1700, 1999):
            log_b[row] = -np.inf
            with pytest.raises(ImpossibleObservationError, match=rf"^{row}$"):
                most_probable_path(log_b, pi, A, one(2000))
            if row % 2:  # then also with one before it that another thread may come upon later
                log_b[row // 2] = np.nan
                with pytest.raises(ImpossibleObservationError, match=rf"^{row // 2}$"):
                    most_probable_path(log_b, pi, A, one(2000))
                log_b[row // 2] = 0.0
            log_b[row] = 0.0
        A = np.eye(3)[None]  # each half is possible, but not the step between them
        log_b[:1000, 1:], log_b[1000:, :2] = -np.inf, -np.inf
        with pytest.raises(ImpossibleObservationError, match=r"^1000$"):
            most_probable_path(log_b, pi, A, one(2000))


@pytest.mark.parametrize("threads", [1, 2])
def test_of_equally_good_paths_that_with_the_lowest_last_states_is_taken(threads, small_blocks):
    with _threads.limited(threads):
        # the paths that take states 0 and 1 in turns are equally good, whichever comes first
        A = np.array([[[0.1, 0.9], [0.9, 0.1]]])
        path, _ = most_probable_path(np.zeros((2000, 2)), np.full(2, 0.5), A, one(2000))
        np.testing.assert_array_equal(path, np.arange(2000)[::-1] % 2)
        # a row that tells, between many that say nothing
        log_b = np.zeros((2000, 3))
        log_b[1200] = [-1.0, -1.0, 0.0]
        A = np.full((1, 3, 3), 0.25) + 0.25 * np.eye(3)
        path, _ = most_probable_path(log_b, np.full(3, 1 / 3), A, one(2000))
        np.testing.assert_array_equal(path, np.full(2000, 2))
        path, _ = most_probable_path(np.zeros((2000, 3)), np.full(3, 1 / 3), np.full((1, 3, 3), 1 / 3), one(2000))
        np.testing.assert_array_equal(path, np.zeros(2000))
