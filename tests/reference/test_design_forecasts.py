"""Forecasts of designs with intervals: statsmodels at equal parameters, and the dense oracles."""

import warnings

import numpy as np
import pytest
from lgssm_cases import oracle_of
from oracles_diffuse import diffuse
from oracles_gaussian import posterior

from statespace_em import designs

HORIZON = 9
NORMAL = 1.6448536269514722  # a central interval of 90 %


def series(T=60):
    rng, t = np.random.default_rng(3), np.arange(T)
    y = 5 + 0.02 * t + np.cumsum(rng.normal(0, 0.02, T)) + 0.2 * np.sin(2 * np.pi * t / 6) + rng.normal(0, 0.03, T)
    y[[7, 30, T - 1]] = np.nan
    return y


X = np.column_stack([np.cos(np.arange(60 + HORIZON)), np.arange(60 + HORIZON) > 40]).astype(float)
STRUCTURAL = {
    "level": (designs.local_level(), {"level": "llevel"}, {"noise_var": 0.1, "level_var": 0.02}),
    "trend": (
        designs.local_trend(), {"level": "lltrend"}, {"noise_var": 0.1, "level_var": 0.02, "slope_var": 0.003},
    ),
    "smooth trend": (designs.smooth_trend(), {"level": "strend"}, {"noise_var": 0.1, "slope_var": 0.003}),
    "dummy": (
        designs.local_trend() + designs.seasonal(6, "dummy"), {"level": "lltrend", "seasonal": 6},
        {"noise_var": 0.1, "level_var": 0.02, "slope_var": 0.003, "seasonal_var": 0.01},
    ),
    "trigonometric": (
        designs.local_level() + designs.seasonal(6),
        {"level": "llevel", "freq_seasonal": [{"period": 6}], "stochastic_freq_seasonal": [True]},
        {"noise_var": 0.1, "level_var": 0.02, "seasonal_var": 0.01},
    ),
    "regression": (
        designs.local_level() + designs.regression(X), {"level": "llevel", "exog": X[:60], "mle_regression": False},
        {"noise_var": 0.1, "level_var": 0.02},
    ),
}  # fmt: skip


def labelled(model, values):
    spec = model._specification(1)
    names = [name for name in ("transition", "process_cov", "measurement_cov") if spec.patterns[name].names]
    return model.parameters(**{
        name: spec.patterns[name].build(np.array([values[word] for word in spec.patterns[name].names]))
        for name in names
    })  # fmt: skip


def agrees(future, expected, rtol):
    np.testing.assert_allclose(future["mean"].squeeze(), expected.predicted_mean, rtol=rtol)
    np.testing.assert_allclose(future["variance"].squeeze(), np.asarray(expected.se_mean) ** 2, rtol=rtol)
    np.testing.assert_allclose(future["quantile"].squeeze(), expected.conf_int(alpha=0.1), rtol=rtol)


@pytest.mark.parametrize("name", STRUCTURAL)
def test_structural_designs_forecast_as_statsmodels(name):
    api = pytest.importorskip("statsmodels.api")
    model, settings, values = STRUCTURAL[name]
    y = series()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = api.tsa.UnobservedComponents(y, use_exact_diffuse=True, **settings)
        known = {"exog": X[60:]} if "exog" in settings else {}
        expected = peer.smooth(np.array(list(values.values()))).get_forecast(HORIZON, **known)
        found = model.forecast(y, HORIZON, labelled(model, values), quantiles=[0.05, 0.95])
        agrees(found, expected, 1e-7)


@pytest.mark.parametrize(("p", "d", "q"), [(2, 0, 0), (1, 0, 1), (0, 0, 2), (2, 1, 1), (0, 2, 1)])
def test_arima_designs_forecast_as_statsmodels(p, d, q):
    api = pytest.importorskip("statsmodels.api")
    y = series()
    values = dict(zip(["ar1", "ar2"][:p], [0.5, 0.2])) | dict(zip(["ma1", "ma2"][:q], [0.4, -0.2])) | {"arma_var": 0.3}
    model = designs.arima(p, d, q)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = api.tsa.SARIMAX(y, order=(p, d, q), use_exact_diffuse=True)
        expected = peer.smooth(list(values.values())).get_forecast(HORIZON)
        found = model.forecast(y, HORIZON, labelled(model, values), quantiles=[0.05, 0.95])
        agrees(found, expected, 1e-6)


@pytest.mark.parametrize("start", ["stationary", "diffuse"])
def test_forecasts_are_the_dense_posterior_of_rows_that_are_missing(start):
    y = series(32)
    if start == "stationary":
        model, values = designs.arma(2, 1), {"ar1": 0.5, "ar2": 0.2, "ma1": 0.4, "arma_var": 0.3}
    else:
        model, values = STRUCTURAL["dummy"][0], STRUCTURAL["dummy"][2]
    params = labelled(model, values)
    longer = np.append(y, np.full(HORIZON, np.nan))[:, None]
    tree = model._prepare(y, params)[1]
    n = len(tree.initial_mean)
    p = oracle_of(tree, initial_cov=np.where(np.isfinite(tree.initial_cov), tree.initial_cov, 0.0))
    if start == "stationary":
        found = posterior(longer, p)
        mean, covs = found.mean, found.cov
    else:
        _, _, mean, whole = diffuse(longer, p, np.ones(n, bool))
        covs = np.array([whole[t * n : (t + 1) * n, t * n : (t + 1) * n] for t in range(len(longer))])
    future = model.forecast(y, HORIZON, params, quantiles=[0.05, 0.95])
    C, R = tree.observation, tree.measurement_cov
    expected = mean[-HORIZON:] @ C[0]
    variance = np.array([(C @ V @ C.T + R).item() for V in covs[-HORIZON:]])
    np.testing.assert_allclose(future["mean"].squeeze(), expected, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(future["variance"].squeeze(), variance, rtol=1e-8)
    ends = expected[:, None] + NORMAL * np.sqrt(variance)[:, None] * [-1.0, 1.0]
    np.testing.assert_allclose(future["quantile"].squeeze(), ends, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["dummy", "regression"])
def test_draws_of_components_have_the_moments_of_the_posterior(name):
    """The simulation smoother of a diffuse design: means and covariances of the states, within sampling error."""
    model, _, values = STRUCTURAL[name]
    y, n = series(), 4000
    params = labelled(model, values)
    drawn = model.simulate_smoothed(y, n, params, seed=0).values
    exact = model.e_step(y, params)
    for t in (0, 7, 30, 59):
        sd = np.sqrt(np.diag(exact["cov"][t]))
        assert (np.abs(drawn[:, t].mean(0) - exact["gamma"][t].values) <= 4.5 * sd / np.sqrt(n) + 1e-9).all()
        unit = np.where(sd > 0.0, sd, 1.0)
        difference = np.cov(drawn[:, t].T) - exact["cov"][t].values
        assert np.abs(difference / np.outer(unit, unit)).max() < 0.1
