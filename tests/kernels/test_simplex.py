"""Probabilities from counts and from roots, by hand."""

import numpy as np

from statespace_em.kernels.chain import any_below
from statespace_em.kernels.simplex import shares, squared_shares

PREVIOUS = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [0.0, 1.0, 0.0], [0.3, 0.0, 0.7]])


def test_shares_keep_zeros_and_rows_without_a_count():
    counts = np.array([[3.0, 1.0, 9.0], [0.0, 0.0, 0.0], [5.0, 0.0, 1.0], [1.0, 1.0, 3.0]])
    prob = np.full(PREVIOUS.shape, np.nan)
    shares(counts, PREVIOUS, prob)
    np.testing.assert_array_equal(prob, [[0.75, 0.25, 0.0], PREVIOUS[1], PREVIOUS[2], [0.25, 0.0, 0.75]])


def test_squared_shares_have_a_root_for_each_entry_that_is_not_zero():
    roots = np.array([2.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 5.0])  # the last belongs to what follows
    prob = np.full(PREVIOUS.shape, np.nan)
    assert squared_shares(roots, PREVIOUS, prob) == 8
    np.testing.assert_array_equal(prob, [[0.8, 0.2, 0.0], PREVIOUS[1], PREVIOUS[2], [0.1, 0.0, 0.9]])


def test_any_entry_below():
    values = np.array([[[0.5, 0.5], [0.9, 0.1]], [[1.0, 0.2], [np.nan, 0.3]]])
    assert any_below(values, 0.11)
    assert not any_below(values, 0.1)
