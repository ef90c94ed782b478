"""Most probable paths against the enumeration of all paths."""

import numpy as np
import pytest
from oracles import chain_oracle

from statespace_em import _threads
from statespace_em.errors import ImpossibleObservationError
from statespace_em.sequence import best_path, blocks
from statespace_em.sequence.best_path import most_probable_path


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


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Blocks of a few rows and tasks of a few blocks, so that small cases take every way through them."""
    monkeypatch.setattr(blocks, "ENTRIES", 12)
    monkeypatch.setattr(blocks, "SPANS", 3)
    monkeypatch.setattr(blocks, "SHARE", 1)
    monkeypatch.setattr(best_path, "SHARE", 1)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize("extreme", [0.0, 600.0, 5000.0])
@pytest.mark.parametrize(("K", "T"), [(1, 4), (2, 7), (3, 6)])
def test_path_equals_enumeration(K, T, extreme, varies, zeros):
    for seed in range(6):
        log_b, pi, A = case(seed, K, T, zeros=zeros and K > 2, varies=varies, extreme=extreme)
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


@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize(("zeros", "extreme"), [(False, 0.0), (True, 0.0), (True, 600.0), (True, 5000.0)])
def test_many_blocks_equal_one(zeros, extreme, varies, tiny_blocks, monkeypatch):
    log_b, pi, A = case(5, 3, 150, zeros=zeros, extreme=extreme, varies=varies)
    starts = np.array([0, 1, 30, 31, 72, 75, 150])
    path = most_probable_path(log_b, pi, A, starts)
    monkeypatch.setattr(blocks, "ENTRIES", 10_000)
    for got, expected in zip(path, most_probable_path(log_b, pi, A, starts)):
        np.testing.assert_allclose(got, expected, rtol=1e-13)


@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize(("zeros", "extreme"), [(False, 0.0), (True, 0.0), (True, 5000.0)])
def test_best_path_from_both_ends_equals_that_from_one(zeros, extreme, varies, tiny_blocks, monkeypatch):
    for rows in (8, 9, 12, 101):
        log_b, pi, A = case(rows, 3, rows, zeros=zeros, extreme=extreme, varies=varies)
        found = []
        for threads in (1, 2):
            with _threads.limited(threads):
                found.append(most_probable_path(log_b, pi, A, one(rows)))
        with monkeypatch.context() as patch:
            patch.setattr(best_path, "SHARE", rows)
            path, best = most_probable_path(log_b, pi, A, one(rows))
        for got, score in found:
            np.testing.assert_array_equal(got, path)
            np.testing.assert_array_equal(score, found[0][1])
            np.testing.assert_allclose(score, best, rtol=1e-14)


def test_best_path_from_both_ends_names_the_first_impossible_row(tiny_blocks):
    log_b, pi, A = case(1, 3, 100)
    for row in (0, 7, 49, 50, 61, 99):
        log_b[row] = -np.inf
        with pytest.raises(ImpossibleObservationError, match=rf"^{row}$"):
            most_probable_path(log_b, pi, A, one(100))
        log_b[row] = 0.0
    A = np.eye(3)[None]  # each half is possible, but not the step between them
    log_b[:50, 1:], log_b[50:, :2] = -np.inf, -np.inf
    with pytest.raises(ImpossibleObservationError, match=r"^50$"):
        most_probable_path(log_b, pi, A, one(100))


def test_of_equally_good_paths_the_middle_state_of_a_long_sequence_is_the_lowest(tiny_blocks):
    # the paths that take states 0 and 1 in turns are equally good, whichever comes first
    A = np.array([[[0.1, 0.9], [0.9, 0.1]]])
    path, _ = most_probable_path(np.zeros((24, 2)), np.full(2, 0.5), A, one(24))
    np.testing.assert_array_equal(path, np.arange(24) % 2)
    assert blocks.row_blocks(0, 24, 2)[2][0] == 12
