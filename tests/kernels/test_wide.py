"""Products for many states are those of numpy, and what is made of them is the score."""

from __future__ import annotations

import numpy as np
import pytest

import statespace_em as sse
from statespace_em.kernels._jit import jit
from statespace_em.kernels._linalg import sandwich_rows
from statespace_em.kernels.adjoint_wide import backward_rows, gain_times, moment_rows, update_rows


def matrices(share, n=9):
    rng = np.random.default_rng(n)
    A = rng.normal(size=(n, n)) * (rng.random((n, n)) < share)
    roots = rng.normal(size=(2, n, n))
    return A, *(root @ root.T for root in roots)


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_backward_products(share):
    A, info, P = matrices(share)
    AI, M, MP, IA, V = np.full((5, 9, 9), 7e77)
    jit(backward_rows.py_func)(A, info, AI, M, V)
    jit(moment_rows.py_func)(A, P, AI, MP, IA, V)
    inner = A.T @ info @ A
    for found, expected in ((M, inner), (MP, inner @ P), (IA, info @ A @ P), (V, P @ inner @ P)):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_array_equal(V, V.T)


@pytest.mark.parametrize("size", [1, 2, 20])
def test_information_of_a_row(size):
    """That of more columns than states too, whose work space is no larger."""
    rng, n = np.random.default_rng(size), 9
    C, gain, inverse = rng.normal(size=(size, n)), rng.normal(size=(size, n)), np.cov(rng.normal(size=(size, 99)))
    inverse, M = inverse.reshape(size, size), matrices(1.0)[1]
    info, KM, MK, loop = np.full((n, n), 7e77), np.full((size, n), 7e77), np.full(n, 7e77), np.eye(n) - gain.T @ C
    expected = 3.0 * C.T @ inverse @ C + loop.T @ M @ loop
    jit(gain_times.py_func)(gain, M, KM)
    jit(update_rows.py_func)(3.0, C, inverse @ C, gain, KM, M.copy(), info, MK)
    np.testing.assert_allclose(info, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_array_equal(info, info.T)


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_sandwich(share):
    A, base, P = matrices(share)
    work, out = np.full((2, 9, 9), 7e77)
    jit(sandwich_rows.py_func)(A, P, np.tril(base), work, out)
    expected = A @ P @ A.T + base
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_array_equal(out, out.T)


def test_the_score_of_many_states_is_that_of_differences():
    rng = np.random.default_rng(1)
    y = rng.normal(size=(60, 2)).cumsum(0)
    y[rng.random(y.shape) < 0.2] = np.nan
    model = sse.LinearGaussianSSM(9)
    params = model.parameters(
        transition=0.9 * np.linalg.qr(rng.normal(size=(9, 9)))[0], process_cov=np.eye(9) + 0.3,
        observation=rng.normal(size=(2, 9)), measurement_cov=np.eye(2), initial_mean=np.zeros(9), initial_cov=np.eye(9),
    )  # fmt: skip
    core, tree, batch, *_ = model._prepare(y, params, freeze=())
    gradients = core.e_step(tree, batch)[0].gradients
    for name, slope in (
        ("transition", gradients.A[0]),
        ("process_cov", gradients.Q[0]),
        ("observation", gradients.C[0]),
    ):
        value = getattr(tree, name)
        way = rng.normal(size=value.shape)
        way = way + way.T if name == "process_cov" else way
        step = 1e-5
        up, down = (core.e_step(tree._replace(**{name: value + sign * step * way}), batch)[1] for sign in (1.0, -1.0))
        half = 0.5 if name == "process_cov" else 1.0  # gradients by covariances are kept twice
        np.testing.assert_allclose(half * (slope * way).sum(), (up - down) / (2 * step), rtol=1e-6)
