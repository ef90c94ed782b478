"""Pieces of continuous time over uneven steps against the matrix exponential, and gradients against differences."""

import numpy as np
import pytest
from oracles_gaussian import discretised

from statespace_em.errors import ParameterError
from statespace_em.sequence import continuous_components as build
from statespace_em.sequence.flow import Flow, growth
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.motion_settings import motion_of

GAPS = np.array([0.3, 1.0, 2.7, 0.3, 11.0])
BASE = 0.8


def every_component():
    moves = motion_of("constant_acceleration", ["x"], 0.0, "equal")
    return [
        build.level(""),
        build.trend("t_"),
        build.smooth_trend("s_"),
        build.season("", period=3.3, kind="trigonometric", harmonics=2),
        build.cycle("", period=None, base=BASE),
        build.autoregression("", p=1, q=0, d=0),
        build.constant("", start="fixed"),
        build.moving(moves, np.eye(1, 3), "diffuse", None),
    ]


def own(flow, seed=0):
    rng = np.random.default_rng(seed)
    transition = flow.base_transition().build(np.array([0.5, 0.6, 0.7]))
    noise = flow.diffusion()
    return transition, noise.build(rng.uniform(0.2, 2.0, len(noise.names)))


def drift_of(component, place, transition, cov):
    """Generator and diffusion of a component, from its own parameters over the base step."""
    n = place.stop - place.start
    if component.kind in ("cycle", "arma"):
        z = complex(transition[place.start, place.start], transition[place.start, place.start + 1] if n == 2 else 0.0)
        rate = np.log(z) / BASE
        drift = rate.real * np.eye(n) + (rate.imag * np.array([[0, 1], [-1, 0]]) if n == 2 else 0.0)
        total = -np.expm1(2 * rate.real * BASE) / (-2 * rate.real)
        return drift, cov[place, place] / total
    drift = np.zeros((n, n))
    if component.kind in ("local_trend", "smooth_trend", "motion"):
        drift = np.eye(n, k=1)
    if component.kind == "seasonal":
        for j in range(n // 2):
            drift[2 * j, 2 * j + 1], drift[2 * j + 1, 2 * j] = (s * 2 * np.pi * (j + 1) / 3.3 for s in (1, -1))
    return drift, cov[place, place]


def test_steps_are_the_matrix_exponential():
    flow = Flow.of(every_component(), BASE, GAPS)
    transition, cov = own(flow)
    A, Q = (value[flow.kinds] for value in flow.matrices(transition, cov))
    for component, place in zip(flow.components, flow._places):
        transitions, noises = discretised(*drift_of(component, place, transition, cov), GAPS)
        np.testing.assert_allclose(A[:, place, place], transitions, rtol=1e-9, atol=1e-12, err_msg=component.kind)
        np.testing.assert_allclose(Q[:, place, place], noises, rtol=1e-8, atol=1e-12, err_msg=component.kind)


def test_two_steps_make_one():
    flow = Flow.of(every_component(), BASE, np.array([0.4, 1.7, 2.1]))
    A, Q = (value[flow.kinds] for value in flow.matrices(*own(flow)))
    np.testing.assert_allclose(A[1] @ A[0], A[2], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(A[1] @ Q[0] @ A[1].T + Q[1], Q[2], rtol=1e-10, atol=1e-12)


def test_gradients_are_those_of_differences():
    flow = Flow.of(every_component(), BASE, GAPS)
    transition, cov = own(flow)
    rng = np.random.default_rng(1)
    n = flow.n_states
    left, right = rng.normal(size=(2, len(GAPS), n, n))
    right = right + right.swapaxes(1, 2)
    dynamics, noise = flow.base_transition(), flow.diffusion()

    def value(phi, q):
        A, Q = flow.matrices(dynamics.build(phi), noise.build(q))
        return (left * A[flow.kinds]).sum() + 0.5 * (right * Q[flow.kinds]).sum()

    zeros = {name: np.zeros(0) for name in ("observation", "measurement_cov", "initial_mean", "initial_cov")}
    tree = LGSSMParams(
        transition=transition, process_cov=cov, **zeros, state_offset=np.zeros(0), observation_offset=np.zeros(0)
    )
    by_A, by_Q = flow.back(tree, left, right, np.arange(len(GAPS)))
    phi, q = dynamics.read(transition), noise.read(cov)
    for pattern, at, found in ((dynamics, phi, by_A), (noise, q, 0.5 * by_Q)):
        slopes = pattern.pull_back(found)
        for j in range(len(at)):
            move = 1e-4 * np.eye(len(at))[j]
            ends = [value(phi + s * move, q) if pattern is dynamics else value(phi, q + s * move) for s in (1, -1)]
            assert slopes[j] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-6, abs=1e-6), pattern.names[j]


@pytest.mark.parametrize("size", [1e-3, 0.5, 0.97, 1 - 1e-6, 1 - 1e-12])
def test_the_share_of_the_variance_is_smooth_up_to_the_unit_circle(size):
    mp = pytest.importorskip("mpmath")
    mp.mp.dps = 50
    steps = np.array([0.1, 1.0, 7.3])
    grown = growth(complex(size), steps)
    for u, share, slope in zip(steps, grown.share, grown.share_slopes[0]):
        exact = lambda x, u=u: (1 - x ** (2 * mp.mpf(u))) / (1 - x**2)  # noqa: E731
        assert share == pytest.approx(float(exact(mp.mpf(size))), rel=1e-9)
        assert slope == pytest.approx(float(mp.diff(exact, mp.mpf(size), h=mp.mpf(10) ** -20)), rel=1e-6)


def test_another_base_is_the_same_process():
    flow = Flow.of(every_component(), BASE, GAPS)
    transition, cov = own(flow)
    other = Flow.of(every_component(), 0.25, GAPS)
    there = flow.rebased(transition, cov, 0.25)
    for one, two in zip(flow.matrices(transition, cov), other.matrices(*there)):
        np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-12)


def test_what_is_no_process_in_continuous_time():
    with pytest.raises(ParameterError, match=r"a decay of -0\.4 over a step is that of no stationary process"):
        growth(complex(-0.4), np.ones(1))
    with pytest.raises(ParameterError, match=r"a decay of 1\.1 over a step"):
        growth(complex(1.1), np.ones(1))
    flow = Flow.of([build.cycle("", period=None, base=0.01)], 0.01, None)
    with pytest.raises(ParameterError, match=r"'cycle' swings in 0\.\d+ of a unit of time, .* take a smaller unit"):
        flow.rebased(np.array([[0.0, 0.9], [-0.9, 0.0]]), np.eye(2), 1.0)
