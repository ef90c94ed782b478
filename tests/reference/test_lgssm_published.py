"""Published results of the Nile's local level (Durbin & Koopman 2012, ch. 2), each under its own convention."""

import numpy as np
import pytest

import statespace_em as sse

NILE = sse.datasets.nile()
FIXED = ["transition", "observation"]


def level(R, Q, mean=0.0, cov=1e7, initial="known"):
    model = sse.LinearGaussianSSM(["level"], initial=initial)
    return model, model.parameters(
        transition=[[1]], observation=[[1]], process_cov=[[Q]], measurement_cov=[[R]], initial_mean=[mean],
        initial_cov=[[cov]],
    )  # fmt: skip


def test_first_observation_left_out_of_the_sum():
    model, params = level(15099, 1469.1, cov=1e6)
    assert float(model.filter(NILE, params)["log_likelihood"][1:].sum()) == pytest.approx(-632.537695048, abs=1e-8)


def test_diffuse_likelihood_is_the_limit():
    """The diffuse observation counts without its 1/2 log 2 pi F: add them back, and let F grow."""
    cov = 1e9
    model, params = level(15098.5, 1469.1, cov=cov)
    diffuse = model.score(NILE, params) + 0.5 * np.log(2 * np.pi * cov)
    assert diffuse == pytest.approx(-632.545625106, abs=2e-3)
    far = level(15098.5, 1469.1, cov=1e11)[1]
    assert model.score(NILE, far) + 0.5 * np.log(2 * np.pi * 1e11) == pytest.approx(-632.545625106, abs=2e-5)


@pytest.mark.parametrize(
    ("mean", "cov", "R", "Q", "log_likelihood"),
    [(0.0, 1e7, 15099.6857, 1468.5003, -641.5855783461), (0.0, 1e3, 33874.607, 15210.194, -697.8576478992)],
)
def test_maximum(mean, cov, R, Q, log_likelihood):
    spread = float(NILE.var(ddof=0))
    model, start = level(spread, spread, mean, cov)
    at_the_maximum = level(R, Q, mean, cov)[1]
    assert model.score(NILE, at_the_maximum) == pytest.approx(log_likelihood, abs=1e-8)
    model.fit(NILE, start=start, freeze=FIXED, tol=1e-10)
    assert model.converged_
    assert model.score(NILE) == pytest.approx(log_likelihood, abs=1e-8)
    assert float(model.params_["measurement_cov"].squeeze()) == pytest.approx(R, rel=1e-4)
    assert float(model.params_["process_cov"].squeeze()) == pytest.approx(Q, rel=1e-4)


def test_first_state_fixed_but_unknown_is_the_limit_of_a_small_variance():
    """Known to be 1110.97643 at the maximum; with a variance of 1e-4 the difference is far below the digits here."""
    model, params = level(15279.4785, 1279.6314, 1110.97643, 1e-4)
    assert model.score(NILE, params) == pytest.approx(-637.6029320909, abs=1e-6)
    for mean in (1110.0, 1112.0):
        assert model.score(NILE, level(15279.4785, 1279.6314, mean, 1e-4)[1]) < -637.6029320909


@pytest.mark.parametrize(("accelerate", "budget"), [(False, (131, 261, 392)), (True, (25, 42, 48))])
def test_em_budget(accelerate, budget):
    """E-steps to come within 1e-3, 1e-6 and 1e-9 nats; the start counts as the first."""
    spread = float(NILE.var(ddof=0))
    model, start = level(spread, spread)
    model.fit(NILE, start=start, freeze=FIXED, tol=0.0, max_iter=400, accelerate=accelerate)
    objective = model.trace_["objective"]
    for gap, steps in zip((1e-3, 1e-6, 1e-9), budget):
        assert objective.index[objective >= -641.5855783461 - gap][0] <= steps


def test_states_of_the_textbook():
    """Exact diffuse values; a start of variance 1e7 changes them by at most its weight, 15098.5 / 1e7, of the level."""
    model, params = level(15098.52, 1469.18, cov=1e7)
    smooth, known, future = model.e_step(NILE, params), model.filter(NILE, params), model.forecast(NILE, 1, params)
    weight = 15098.5 / 1e7
    predicted = known["predicted"].values[1:4, 0]
    np.testing.assert_allclose(predicted, [1120, 1140.928, 1072.798], rtol=weight)
    np.testing.assert_allclose(known["predicted_cov"].values[1:4, 0, 0], [16567.7, 9368.7, 7250.5], rtol=weight)
    np.testing.assert_allclose(
        smooth["gamma"].values[:5, 0], [1111.668, 1110.858, 1105.266, 1113.516, 1112.378], rtol=weight
    )
    cov = smooth["cov"].values[:, 0, 0]
    np.testing.assert_allclose(cov[:3], [4032.16, 3242.93, 2818.94], rtol=weight)
    # the start is forgotten at the end: these hold to the digits printed
    assert cov[-1] == pytest.approx(4032.16, abs=0.02)
    assert float(future["predicted"].squeeze()) == pytest.approx(798.367, abs=2e-3)
    assert float(future["predicted_cov"].squeeze()) == pytest.approx(5501.347, abs=0.1)


def test_boundary_of_the_buoy():
    """Daily means of the Gulf of Maine: the measurement noise runs to zero, where nothing breaks."""
    y = sse.datasets.buoy().resample("1D").mean()
    model = sse.LinearGaussianSSM(1, initial="known")
    cov = 1e9
    start = model.parameters(
        transition=[[1]], observation=[[1]], process_cov=[[1.0]], measurement_cov=[[1.0]], initial_mean=[0],
        initial_cov=[[cov]],
    )  # fmt: skip
    model.fit(y, start=start, freeze=FIXED)
    diffuse = model.score(y) + 0.5 * np.log(cov)  # all constants: only F of the diffuse observation goes
    assert diffuse == pytest.approx(-215.552050, abs=0.05)
    assert float(model.params_["process_cov"].squeeze()) == pytest.approx(0.170779, rel=0.01)
    assert float(model.params_["measurement_cov"].squeeze()) < 1e-4
