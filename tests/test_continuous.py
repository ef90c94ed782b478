"""Discretisation: closed forms, quadrature, the semigroup, stiff dynamics, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from statespace_em.continuous import discretise
from statespace_em.errors import ParameterError


def random_dynamics(seed: int, size: int):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    return rng.normal(size=(size, size)), root @ root.T, rng.normal(size=size)


def test_ornstein_uhlenbeck_has_its_closed_form_for_any_gap():
    gaps = np.array([0.0, 1e-9, 0.1, 1.0, 30.0, 1e4])
    step = discretise(np.array([[-0.7]]), np.array([[2.0]]), gaps, np.array([1.4]))
    np.testing.assert_allclose(step.transition[:, 0, 0], np.exp(-0.7 * gaps), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(step.cov[:, 0, 0], -2.0 * np.expm1(-1.4 * gaps) / 1.4, rtol=1e-12)
    np.testing.assert_allclose(step.offset[:, 0], -2.0 * np.expm1(-0.7 * gaps), rtol=1e-12)


def test_constant_acceleration_has_its_closed_form():
    drift = np.eye(3, k=1)
    for h in (0.5, 4.0, 1000.0):
        step = discretise(drift, np.diag([0.0, 0.0, 2.0]), np.array([h]))
        expected = 2.0 * np.array(
            [[h**5 / 20, h**4 / 8, h**3 / 6], [h**4 / 8, h**3 / 3, h**2 / 2], [h**3 / 6, h**2 / 2, h]]
        )
        np.testing.assert_allclose(step.transition[0], [[1, h, h * h / 2], [0, 1, h], [0, 0, 1]], rtol=1e-12)
        np.testing.assert_allclose(step.cov[0], expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_integrals_agree_with_quadrature(seed):
    drift, diffusion, drive = random_dynamics(seed, 3)
    h = 1.7

    def spread(time):
        flow = scipy.linalg.expm(drift * time)
        return np.concatenate([(flow @ diffusion @ flow.T).ravel(), flow @ drive])

    integral, _ = scipy.integrate.quad_vec(spread, 0.0, h, epsabs=1e-13, epsrel=1e-13)
    step = discretise(drift, diffusion, np.array([h]), drive)
    scale = np.abs(integral).max()
    np.testing.assert_allclose(step.cov[0].ravel(), integral[:9], rtol=0, atol=1e-11 * scale)
    np.testing.assert_allclose(step.offset[0], integral[9:], rtol=0, atol=1e-11 * scale)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 4), a=st.floats(0.0, 3.0), b=st.floats(0.0, 3.0))
def test_two_steps_make_one(seed, size, a, b):
    drift, diffusion, drive = random_dynamics(seed, size)
    one, two, both = (
        [part[i] for part in discretise(drift, diffusion, np.array([a, b, a + b]), drive)] for i in range(3)
    )
    close = {"rtol": 1e-9, "atol": 1e-10 * max(np.abs(part).max() for part in both)}
    np.testing.assert_allclose(two[0] @ one[0], both[0], **close)
    np.testing.assert_allclose(two[0] @ one[1] + two[1], both[1], **close)
    np.testing.assert_allclose(two[0] @ one[2] @ two[0].T + two[2], both[2], **close)


def test_stiff_dynamics_neither_overflow_nor_lose_their_form():
    step = discretise(np.diag([-1e6, -1e-6]), np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([1e3]))
    assert np.linalg.eigvalsh(step.cov[0]).min() >= 0.0
    np.testing.assert_allclose(step.cov[0, 0, 0], 0.5e-6, rtol=1e-9)


def test_bad_input_is_named():
    with pytest.raises(ParameterError, match="gap number 1 is -2, expected at least 0"):
        discretise(np.zeros((1, 1)), np.eye(1), np.array([1.0, -2.0]))
    with pytest.raises(ParameterError, match=r"diffusion has shape \(1, 1\), expected \(2, 2\)"):
        discretise(np.zeros((2, 2)), np.eye(1), np.array([1.0]))
