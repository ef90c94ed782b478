"""Null spaces and regressions by hand against LAPACK."""

from __future__ import annotations

import numpy as np
import pytest

from statespace_em.kernels.null_space import null_space, product
from statespace_em.kernels.regression import is_definite, regress


@pytest.mark.parametrize(("rows", "columns", "rank"), [(5, 8, 5), (8, 5, 3), (12, 40, 7), (6, 6, 0), (4, 0, 0)])
def test_null_spaces_are_those_of_the_singular_values(rows, columns, rank):
    rng = np.random.default_rng(rows)
    moves = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
    found = null_space(moves, 1e-9)
    assert found.shape == (rows - rank, rows)
    np.testing.assert_allclose(found @ found.T, np.eye(rows - rank), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found @ moves, 0.0, atol=1e-12 * max(1.0, np.abs(moves).max(initial=0.0)))


def test_products():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 7)), rng.normal(size=(7, 3))
    np.testing.assert_allclose(product(a, b), a @ b, rtol=1e-13)


@pytest.mark.parametrize("blocks", [(0, 0, 0), (0, 1, 0)])
@pytest.mark.parametrize("free", [[0, 1, 2, 3], [1, 3]])
def test_regressions_leave_what_least_squares_leaves(free, blocks):
    rng = np.random.default_rng(1)
    block, free = np.array(blocks), np.array(free)
    z = [rng.normal(size=(30, 4)) for _ in range(max(blocks) + 1)]
    r = rng.normal(size=(30, 3))
    cross = np.array([r[:, i] @ z[j] for i, j in enumerate(blocks)])
    change, left = np.zeros((3, 4)), np.empty((3, 3))
    assert regress(r.T @ r, cross, np.array([part.T @ part for part in z]), block, free, change, left)
    rest = np.empty(r.shape)
    for i, j in enumerate(blocks):
        expected = np.linalg.lstsq(z[j][:, free], r[:, i], rcond=None)[0]
        np.testing.assert_allclose(change[i, free], expected, rtol=1e-11)
        rest[:, i] = r[:, i] - z[j] @ change[i]
    same = block[:, None] == block
    np.testing.assert_allclose(left[same], (rest.T @ rest)[same], rtol=1e-11)
    assert change.any(0).tolist() == [i in free for i in range(4)]


def test_a_regression_on_columns_that_depend_on_each_other_is_left_to_others():
    z = np.random.default_rng(2).normal(size=(30, 2)) @ np.ones((2, 3))
    args = np.eye(2), np.ones((2, 3)), (z.T @ z)[None], np.zeros(2, np.int64), np.arange(3)
    assert not regress(*args, np.zeros((2, 3)), np.empty((2, 2)))


def test_definite_matrices():
    assert is_definite(np.array([[2.0, 1.0], [1.0, 2.0]]))
    assert not is_definite(np.array([[1.0, 2.0], [2.0, 1.0]]))
    assert not is_definite(np.zeros((2, 2)))
