"""Standard errors of first states that are fixed but unknown, and of parameters under their own names."""

import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em import designs
from statespace_em.errors import ParameterError

NILE = sse.datasets.nile()
TREND = {"transition": [[1, 1], [0, 1]], "observation": [[1, 0]], "process_cov": [["level", 0], [0, "slope"]]}


def hessian(function, centre, steps):
    """Second differences."""
    moves = np.diag(steps)
    return np.array(
        [
            [
                (
                    function(centre + a + b)
                    - function(centre + a - b)
                    - function(centre - a + b)
                    + function(centre - a - b)
                )
                / (4.0 * np.abs(a).sum() * np.abs(b).sum())
                for b in moves
            ]
            for a in moves
        ]
    )


def test_errors_of_a_fixed_first_state_are_those_of_the_joint_likelihood():
    """The first state counts as a parameter: all of them together, by differences of the known-start likelihood."""
    rng = np.random.default_rng(2)
    slope = 0.3 + np.cumsum(rng.normal(0.0, 0.3, 90))
    y = np.cumsum(slope + rng.normal(0.0, 1.0, 90)) + rng.normal(0.0, 2.0, 90)
    y[[0, 1, 40]] = [np.nan, y[1], np.nan]
    model = sse.LinearGaussianSSM(**TREND, measurement_cov=[["noise"]], initial="fixed").fit(y)
    p = model.params_
    variances = [p["process_cov"][0, 0].item(), p["process_cov"][1, 1].item(), p["measurement_cov"].item()]
    centre = np.array([*np.log(variances), *p["initial_mean"].values])

    def value(x):
        known = sse.LinearGaussianSSM(
            **TREND, initial="known", initial_mean=x[3:].tolist(), initial_cov=np.zeros((2, 2))
        )
        params = known.parameters(process_cov=np.diag(np.exp(x[:2])), measurement_cov=[[np.exp(x[2])]])
        return known.score(y, params)

    assert value(centre) == pytest.approx(model.score(y), rel=1e-12)
    joint = np.sqrt(np.diag(np.linalg.inv(-hessian(value, centre, [1e-3, 1e-3, 1e-3, 0.1, 0.1]))))
    found = model.standard_errors(y)
    np.testing.assert_allclose(found["initial_mean"], joint[3:], rtol=1e-4)
    np.testing.assert_allclose(np.diag(found["process_cov"]), joint[:2] * variances[:2], rtol=1e-4)
    reach = model.confidence_intervals(y)["initial_mean"]
    np.testing.assert_allclose(reach.sel(bound="upper") - p["initial_mean"], 1.959964 * joint[3:], rtol=1e-4)


def test_an_unknown_mean_of_an_autoregression_has_an_error():
    """The closed form of a stationary AR(1): the mean is generalised least squares, all else being known."""
    y = NILE.to_numpy()
    model = (designs.ar(1) + designs.constant()).fit(y)
    phi, variance = (float(model.summary().loc[name, "value"].iloc[0]) for name in ("ar1", "arma_var"))
    told = (2.0 + (len(y) - 2) * (1.0 - phi)) / (1.0 + phi)  # 1' inverse(autocorrelation) 1
    known = variance / (1.0 - phi**2) / told
    found = model.standard_errors(y)["initial_mean"].sel(state="constant").item()
    assert found == pytest.approx(np.sqrt(known), rel=5e-3)  # what the others add is of second order
    assert found >= np.sqrt(known) * (1.0 - 1e-9)


def test_errors_and_intervals_under_the_names_of_the_summary():
    model = designs.local_level().fit(NILE)
    plain, named = model.standard_errors(NILE), model.standard_errors(NILE, of="named")
    assert list(named) == ["level_var", "noise_var"]
    assert named["level_var"].item() == pytest.approx(plain["process_cov"].item(), rel=1e-9)
    ends = model.confidence_intervals(NILE, of="named", level=0.9)
    value = model.summary().loc["noise_var", "value"].item()
    low, high = ends["noise_var"].values
    assert 0.0 < low < value < high
    assert low * high == pytest.approx(value**2, rel=1e-9)  # symmetric in the logarithm


def test_what_follows_from_names_has_errors_by_the_delta_method():
    rng, s = np.random.default_rng(1), np.zeros(2)
    turn, y = 0.9 * np.array([[np.cos(0.6), np.sin(0.6)], [-np.sin(0.6), np.cos(0.6)]]), []
    for _ in range(200):
        s = turn @ s + rng.normal(size=2)
        y.append(s[0] + 0.5 * rng.normal())
    model = designs.cycle(10.0).fit(np.array(y))
    errors, ends = model.standard_errors(y, of="named"), model.confidence_intervals(y, of="named")
    assert set(errors) == {"cycle_cos", "cycle_sin", "cycle_var", "noise_var", "cycle_damping", "cycle_period"}
    assert 0.2 < errors["cycle_period"].item() < 0.8
    low, high = ends["cycle_damping"].values
    assert 0.0 < low < model.summary().loc["cycle_damping", "value"].item() < high < 1.0
    low, high = ends["cycle_cos"].values
    np.testing.assert_allclose((low + high) / 2.0, model.summary().loc["cycle_cos", "value"].item(), rtol=1e-9)


def test_models_without_names_say_so():
    model = sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], initial="diffuse").fit(NILE)
    with pytest.raises(ParameterError, match="no parameter of this LinearGaussianSSM has a name of its own"):
        model.standard_errors(NILE, of="named")
    quakes = sse.datasets.earthquakes()
    with pytest.raises(ParameterError, match="no parameter of this PoissonHMM has a name"):
        sse.PoissonHMM(2).fit(quakes).confidence_intervals(quakes, of="named")


@pytest.mark.parametrize("step", [1.0, 2.0, 0.1])
def test_named_errors_of_a_motion_are_those_of_its_own_values(step):
    """By differences of the likelihood, whatever the step; the noise of a step is not the density that drives it."""
    radar = sse.datasets.radar()
    y = radar["measured"].where(~radar["outlier"])[:120]
    y = y.assign_coords(time=step * np.arange(120.0))
    fitted = designs.constant_velocity(["east", "north"]).fit(y)
    names = ["acceleration_density", "noise_var"]
    values = fitted.summary()["value"].droplevel([1, 2])[names].values

    def score(x):
        q, r = np.exp(x)
        return designs.constant_velocity(["east", "north"], density=q, noise=r).fit(y).score(y)

    expected = values * np.sqrt(np.diag(np.linalg.inv(-hessian(score, np.log(values), [1e-3, 1e-3]))))
    errors, ends = fitted.standard_errors(y, of="named"), fitted.confidence_intervals(y, of="named")
    np.testing.assert_allclose([errors[name].item() for name in names], expected, rtol=1e-4)
    middle = [np.sqrt(ends[name].prod("bound").item()) for name in names]  # intervals are those of logarithms
    np.testing.assert_allclose(middle, values, rtol=1e-9)


@pytest.mark.parametrize("unit", ["h", "D"])
def test_named_errors_of_a_trend_in_continuous_time(unit):
    """The noise of the slope enters the level of a step too."""
    rng = np.random.default_rng(4)
    hours = np.cumsum(rng.exponential(6.0, 80)).round(3)
    level = np.cumsum(0.3 * np.cumsum(rng.normal(size=80))) + rng.normal(0, 3.0, 80)
    y = pd.Series(level, pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, "h"))
    fitted = (designs.smooth_trend(unit=unit) + designs.ar(1)).fit(y)
    values = fitted.summary()["value"].droplevel([1, 2])
    ends = fitted.confidence_intervals(y, of="named")
    for name in ("slope_var", "arma_var"):
        assert np.sqrt(ends[name].prod("bound").item()) == pytest.approx(values[name], rel=1e-9)
