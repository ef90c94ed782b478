"""Published results of the Nile's local level (Durbin & Koopman 2012, ch. 2), each under its own convention."""

import numpy as np
import pytest
from scipy.optimize import minimize

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


# Exactly diffuse: given the first observation, the first state is N(y_1, R), and that observation is used up.


def diffuse(y, R, Q):
    """The local level, its parameters and its data after the first observation under a diffuse start."""
    rest = np.array(y, dtype=float)
    model, params = level(R, Q, mean=float(rest[0]), cov=R)
    rest[0] = np.nan
    return model, params, rest


def test_conventions_of_the_diffuse_likelihood():
    model, params, rest = diffuse(NILE, 15098.5, 1469.1)
    without = model.score(rest, params)
    assert without == pytest.approx(-632.545625106, abs=2e-9)
    assert without - 0.5 * np.log(2 * np.pi) == pytest.approx(-633.464564, abs=5e-7)
    marginal = without + 0.5 * np.log(len(NILE))  # of the contrasts: the level enters every one of n rows with weight 1
    assert marginal == pytest.approx(-630.243040013, abs=2e-9)


def test_maximum_of_the_diffuse_likelihood():
    def minus(x):
        model, params, rest = diffuse(NILE, *np.exp(x))
        return -model.score(rest, params)

    best = minimize(minus, np.log([1e4, 1e3]), method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-7})
    assert best.fun == pytest.approx(632.545625, abs=6e-7)
    np.testing.assert_allclose(np.exp(best.x), [15098.52, 1469.18], rtol=1e-4)
    vague, start = level(1e4, 1e3, cov=1e10)
    vague.fit(NILE, start=start, freeze=FIXED)
    assert float(vague.params_["measurement_cov"].squeeze()) == pytest.approx(15098.52, abs=0.1)
    assert float(vague.params_["process_cov"].squeeze()) == pytest.approx(1469.18, abs=0.1)


@pytest.mark.parametrize(
    ("q", "value"), [(1.0, -495.685), (0.0360, -492.529), (0.0745, -492.105), (0.0974, -492.0707), (0.0973, -492.0707)]
)
def test_concentrated_likelihood(q, value):
    """Durbin & Koopman, table 2.1: the scale profiled out, constants left out; n - 1 observations count."""
    model, params, rest = diffuse(NILE, 1.0, q)
    known = model.filter(rest, params)
    ratio = (known["innovation"] ** 2 / known["innovation_cov"].squeeze("feature_aux"))[1:]
    variance = float(ratio.mean())
    model, params, rest = diffuse(NILE, variance, q * variance)
    constants = 0.5 * (len(NILE) - 1) * (np.log(2 * np.pi) + 1.0)
    digits = 4 if value == -492.0707 else 3
    assert model.score(rest, params) + constants == pytest.approx(value, abs=0.6 * 10.0**-digits)


def test_diffuse_states_of_the_textbook():
    model, params, rest = diffuse(NILE, 15098.52, 1469.18)
    known, smooth, future = model.filter(rest, params), model.e_step(rest, params), model.forecast(rest, 1, params)
    np.testing.assert_allclose(known["predicted"].values[1:4, 0], [1120, 1140.928, 1072.798], atol=6e-4)
    np.testing.assert_allclose(known["predicted_cov"].values[1:4, 0, 0], [16567.7, 9368.7, 7250.5], atol=0.06)
    np.testing.assert_allclose(
        smooth["gamma"].values[:5, 0], [1111.668, 1110.858, 1105.266, 1113.516, 1112.378], atol=6e-4
    )
    cov = smooth["cov"].values[:, 0, 0]
    # a unit in the last digit of the estimates above moves these by 0.01
    np.testing.assert_allclose([*cov[1:3], cov[-1]], [3242.93, 2818.94, 4032.16], atol=0.02)
    np.testing.assert_allclose(cov[0], cov[-1], rtol=1e-12)  # one diffuse end looks like the other in a mirror
    assert float(future["predicted"].squeeze()) == pytest.approx(798.367, abs=6e-4)
    assert float(future["predicted_cov"].squeeze()) == pytest.approx(5501.347, abs=0.02)


def test_diagnostics_of_the_textbook():
    model = sse.designs.local_level().fit(NILE)
    table = sse.checks.innovation_tests(model.filter(NILE), lags=9).iloc[0]  # Durbin & Koopman 2012, sec. 2.12.1
    assert table["ljung_box"] == pytest.approx(8.84, abs=5e-3)
    assert table["jarque_bera"] == pytest.approx(0.05, abs=5e-3)
    assert table["heteroscedasticity"] == pytest.approx(0.61, abs=5e-3)  # H(33): the diffuse first row is left out


def test_first_state_fixed_but_unknown():
    """A known start without variance; the log-likelihood is a parabola in its mean, whose top needs three points."""
    R, Q = 15279.4785, 1279.6314
    at = np.array([1000.0, 1100.0, 1200.0])
    values = [level(R, Q, mean, 0.0) for mean in at]
    values = np.array([model.score(NILE, params) for model, params in values])
    a, b, c = np.polyfit(at - 1100.0, values, 2)
    assert 1100.0 - b / (2 * a) == pytest.approx(1110.97643, abs=6e-4)
    assert c - b**2 / (4 * a) == pytest.approx(-637.6029320909, abs=1e-8)
    model, start = level(1e4, 1e4, 1110.97643, 0.0)
    model.fit(NILE, start=start, freeze=FIXED)
    assert model.score(NILE) == pytest.approx(-637.6029320909, abs=1e-8)
    assert float(model.params_["measurement_cov"].squeeze()) == pytest.approx(R, rel=1e-5)
    assert float(model.params_["process_cov"].squeeze()) == pytest.approx(Q, rel=1e-5)


def test_buoy_without_measurement_noise():
    """The diffuse optimum of the Gulf of Maine is a pure random walk: steps over gaps weigh by their length."""
    y = sse.datasets.buoy().resample("1D").mean()
    y["2017-03-21"] = (48 * y["2017-03-21"] + 4.289) / 49  # the source, and so the result, has one time of it twice
    seen = np.flatnonzero(~np.isnan(y))
    Q = float(np.mean(np.diff(y.to_numpy()[seen]) ** 2 / np.diff(seen)))
    np.testing.assert_allclose(Q, 0.170779, atol=6e-7)
    model, params, rest = diffuse(y, 0.0, Q)
    assert model.score(rest, params) - 0.5 * np.log(2 * np.pi) == pytest.approx(-215.552050, abs=6e-7)
    for R in (1e-4, 1e-3):
        model, params, rest = diffuse(y, R, Q)
        assert model.score(rest, params) - 0.5 * np.log(2 * np.pi) < -215.5521


def test_boundary_of_the_buoy():
    """Daily means of the Gulf of Maine: the measurement noise is zero at the maximum, a random walk in closed form.

    The published -215.552050 has a sample that was stored twice.
    """
    y = sse.datasets.buoy().resample("1D").mean()
    model = sse.LinearGaussianSSM(1, initial="known")
    cov = 1e9
    start = model.parameters(
        transition=[[1]], observation=[[1]], process_cov=[[1.0]], measurement_cov=[[1.0]], initial_mean=[0],
        initial_cov=[[cov]],
    )  # fmt: skip
    model.fit(y, start=start, freeze=FIXED)
    diffuse = model.score(y) + 0.5 * np.log(cov)  # all constants: only F of the diffuse observation goes
    seen = np.flatnonzero(y.notna())
    moves = np.diff(y.to_numpy()[seen]) ** 2 / np.diff(seen)  # per day
    walk = -0.5 * (np.log(2 * np.pi * moves.mean() * np.diff(seen)) + 1.0).sum() - 0.5 * np.log(2 * np.pi)
    assert diffuse == pytest.approx(walk, abs=2e-6)
    assert float(model.params_["process_cov"].squeeze()) == pytest.approx(moves.mean(), rel=1e-6)
    assert float(model.params_["measurement_cov"].squeeze()) == 0.0
