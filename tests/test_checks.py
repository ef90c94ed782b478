"""Tests of tests: distributions under the null by simulation, power where the model is wrong."""

import numpy as np
import pytest
import xarray as xr
from hmm_cases import case, parameters_of
from scipy import integrate, stats

import statespace_em as sse
from statespace_em import checks
from statespace_em.errors import DataError, ParameterError


def residuals(normal):
    normal = np.atleast_2d(normal.T).T
    coords = {"feature": list("abc")[: normal.shape[1]]}
    dims = ("time", "feature")
    return xr.Dataset({"pit": (dims, stats.norm.cdf(normal)), "residual": (dims, normal)}, coords)


def test_the_limit_of_anderson_and_darling():
    """The limit is a weighted sum of squares of normals; its distribution function by inversion (Gil-Pelaez 1951)."""
    j = np.arange(1, 2001)
    weight = 1 / (j * (j + 1))

    def distribution(x):
        def slope(t):
            log_phi = -0.5 * np.log(1 - 2j * t * weight).sum() + 1j * t / 2001  # the rest by its mean
            return np.exp(log_phi - 1j * t * x).imag / t

        return 0.5 - integrate.quad(slope, 1e-9, 300, limit=1000)[0] / np.pi

    for square in (0.3, 1.0, 1.9, 2.1, 3.9):
        assert checks.anderson_darling_cdf(square) == pytest.approx(distribution(square), abs=3e-5)
    assert checks.anderson_darling_cdf(0.0) == 0.0
    grid = np.linspace(0.01, 8.0, 400)
    assert (np.diff([checks.anderson_darling_cdf(square) for square in grid]) > 0).all()


def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(0)
    tables = [checks.residual_tests(residuals(rng.normal(size=120)), lags=5) for _ in range(400)]
    for name in ("kolmogorov_p", "anderson_p", "ljung_box_p", "ljung_box_squares_p"):
        values = np.array([table[name].item() for table in tables])
        assert stats.kstest(values, "uniform").pvalue > 1e-4, name


def test_statistics_by_their_formulas():
    normal = np.random.default_rng(1).normal(size=(60, 2))
    normal[7, 0] = np.nan
    table = checks.residual_tests(residuals(normal), lags=3)
    assert list(table.index) == ["a", "b", "all"]
    assert table["n"].to_list() == [59, 60, 119]
    z = normal[:, 1]
    away = z - z.mean()
    correlation = np.array([(away[k:] * away[:-k]).sum() for k in (1, 2, 3)]) / (away**2).sum()
    statistic = 60 * 62 * (correlation**2 / (60 - np.arange(1, 4))).sum()
    np.testing.assert_allclose(table.loc["b", "ljung_box"], statistic, rtol=1e-12)
    np.testing.assert_allclose(table.loc["b", "ljung_box_p"], stats.chi2(3).sf(statistic), rtol=1e-12)
    u = np.sort(stats.norm.cdf(z))
    i = np.arange(1, 61)
    square = -60 - ((2 * i - 1) / 60 * (np.log(u) + np.log(1 - u[::-1]))).sum()
    np.testing.assert_allclose(table.loc["b", "anderson"], square, rtol=1e-10)
    np.testing.assert_allclose(table.loc["b", "kolmogorov"], stats.kstest(u, "uniform").statistic, rtol=1e-12)
    assert np.isnan(table.loc["all", "ljung_box"])


def test_residuals_of_panels_are_correlated_within_their_sequences():
    """Two assets that move together are no sign of dependence over time, and the padding of a short one counts not."""
    rng = np.random.default_rng(6)
    z = rng.normal(size=(2, 300, 1))
    z[1] = z[0] + 0.1 * rng.normal(size=(300, 1))
    z[1, 200:] = np.nan
    dims = ("sequence", "time", "feature")
    panel = xr.Dataset({"pit": (dims, stats.norm.cdf(z)), "residual": (dims, z)}, {"feature": ["a"]})
    table = checks.residual_tests(panel, lags=4)
    assert table["n"].item() == 500
    away = z[..., 0] - np.nanmean(z)
    pooled = [np.nansum(away[:, k:] * away[:, :-k]) / np.nansum(away**2) for k in (1, 2, 3, 4)]
    pairs = [500 - 2 * k for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(table["ljung_box"], 500 * 502 * (np.square(pooled) / pairs).sum(), rtol=1e-12)
    values = []
    for _ in range(300):
        parts = np.full((3, 60), np.nan)
        for row, n in zip(parts, (60, 45, 30)):
            row[:n] = rng.normal(size=n)
        values.append(checks.ljung_box(parts, 5)[1])
    assert stats.kstest(values, "uniform").pvalue > 1e-4
    slow = np.cumsum(z, axis=1)
    assert checks.ljung_box(slow[..., 0], 4)[1] < 1e-6
    with pytest.raises(ParameterError, match="no two residuals are 3 rows apart: use fewer lags"):
        checks.ljung_box(np.ones((8, 3)), 4)


def test_what_is_wrong_is_found():
    rng = np.random.default_rng(2)
    wide = checks.residual_tests(residuals(1.4 * rng.normal(size=400))).iloc[0]
    assert wide["anderson_p"] < 1e-3
    slow = np.convolve(rng.normal(size=420), np.ones(3) / 3**0.5, "valid")
    assert checks.residual_tests(residuals(slow)).iloc[0]["ljung_box_p"] < 1e-3
    waves = rng.normal(size=1000) * np.repeat([0.4, 1.4], 20)[np.arange(1000) % 40]
    assert checks.residual_tests(residuals(waves)).iloc[0]["ljung_box_squares_p"] < 1e-3


def test_replicated_data():
    quakes = sse.datasets.earthquakes()
    statistics = {"mean": lambda y: np.nanmean(y), "variance": lambda y: np.nanvar(y)}
    one, two = (sse.PoissonHMM(k).fit(quakes) for k in (1, 2))
    plain = checks.predictive_check(one, quakes, statistics, n_replicates=60)
    assert plain.loc["mean", "p_value"] > 0.5
    assert plain.loc["variance", "p_value"] == pytest.approx(2 / 61)
    assert plain.loc["variance", "upper"] < plain.loc["variance", "observed"]
    assert checks.predictive_check(two, quakes, statistics, n_replicates=60).loc["variance", "p_value"] > 0.05
    again = checks.predictive_check(one, quakes, statistics, n_replicates=60)
    assert plain.equals(again)
    missing = quakes.astype(float)
    missing.iloc[:100] = np.nan
    few = checks.predictive_check(two, missing, {"seen": lambda y: (~np.isnan(y)).sum()}, n_replicates=3)
    assert few.loc["seen", "lower"] == few.loc["seen", "upper"] == 7


def test_replicated_panels_and_symbols():
    """Statistics see what y is made of: arrays by key of several sequences, symbols as they are."""
    model, params, y = case("categorical", 2, 40, 3, holes=True)
    model.params_ = params
    seen = []
    share = {"a": lambda y: seen.append(y) or np.mean(y[y != None] == "a"), "n": lambda y: (y != None).sum()}  # noqa: E711
    table = checks.predictive_check(model, y, share, n_replicates=40)
    assert table.loc["a", "observed"] == np.mean([symbol == "a" for symbol in y[:, 0] if symbol is not None])
    assert table.loc["n", ["observed", "lower", "upper"]].nunique() == 1
    assert {part.shape for part in seen} == {(40, 1)}
    assert {symbol for part in seen for symbol in part.ravel()} == {"a", "b", "c", "d", None}
    shares = [np.mean(part[part != None] == "a") for part in seen[1:]]  # noqa: E711
    np.testing.assert_allclose(table.loc["a", "mean"], np.mean(shares))
    stationary = np.linalg.matrix_power(params["transition"].values, 60)[0]
    assert abs(np.mean(shares) - stationary @ params["prob"].values[..., 0]) < 0.1

    quakes = sse.datasets.earthquakes()
    panel = {"early": quakes[:60], "late": quakes[60:]}
    one = sse.PoissonHMM(1).fit(panel)
    found = checks.predictive_check(
        one, panel, {"drop": lambda y: y["late"].mean() - y["early"].mean(), "rows": lambda y: len(y["late"])}
    )
    assert found.loc["drop", "observed"] == pytest.approx(quakes[60:].mean() - quakes[:60].mean())
    assert found.loc["drop", "p_value"] < 0.02  # the rate is not constant
    assert found.loc["rows", ["observed", "lower", "upper"]].to_list() == [47, 47, 47]


def test_filtered_probabilities_of_a_true_model_are_calibrated():
    model, params = parameters_of("diagonal", 2, np.random.default_rng(3), apart=0.7)
    drawn = model.sample(20_000, params, seed=1)
    known = model.filter(drawn["y"].values, params)
    for name in ("filtered", "predicted"):
        table = checks.calibration(known[name], drawn["state"].values)
        used = table[table["n"] > 200]
        assert (np.abs(used["frequency"] - used["probability"]) < 4 * np.sqrt(0.25 / used["n"]) + 0.02).all()
        assert table["n"].sum() == 40_000
    wrong = params.assign(mean=3 * params["mean"])
    table = checks.calibration(model.filter(drawn["y"].values, wrong)["filtered"], drawn["state"].values)
    sure = table[table["probability"] > 0.9].iloc[0]
    assert sure["upper"] < sure["probability"]


def test_a_reliability_table_by_hand():
    probability = xr.DataArray([[0.05, 0.95], [0.95, 0.05], [0.45, 0.55]], {"state": ["a", "b"]}, ("time", "state"))
    table = checks.calibration(probability, ["b", "b", "b"], bins=2)
    assert table["n"].to_list() == [3, 3]
    np.testing.assert_allclose(table["probability"], [0.55 / 3, 2.45 / 3])
    np.testing.assert_allclose(table["frequency"], [1 / 3, 2 / 3])
    low, high = stats.binomtest(1, 3).proportion_ci(method="wilson")
    np.testing.assert_allclose(table[["lower", "upper"]].iloc[0], [low, high], rtol=1e-9)


def test_what_cannot_be_checked_is_refused():
    model, params, y = case("diagonal", 2, 20, 0)
    with pytest.raises(DataError, match="expected pit and residual"):
        checks.residual_tests(model.filter(y, params))
    with pytest.raises(ParameterError, match="lags is 0"):
        checks.residual_tests(model.residuals(y, params), lags=0)
    with pytest.raises(ParameterError, match="lags is 19, but there are 20 residuals"):
        checks.residual_tests(model.residuals(y, params), lags=19)
    with pytest.raises(DataError, match="there are 0 residuals"):
        checks.residual_tests(model.residuals(np.full((4, 2), np.nan), params))
    model.params_ = params
    with pytest.raises(ParameterError, match="statistics is empty"):
        checks.predictive_check(model, y, {})
    with pytest.raises(ParameterError, match=r"the statistic 'both' returned array\(.*\), expected one number"):
        checks.predictive_check(model, y, {"both": lambda y: y.mean(0)})
    known = model.filter(y, params)["filtered"]
    with pytest.raises(DataError, match="truth has 3 rows, the probabilities 20"):
        checks.calibration(known, [0, 1, 0])
    with pytest.raises(DataError, match="truth holds 'calm', which is not a state"):
        checks.calibration(known, ["calm"] * 20)
    with pytest.raises(DataError, match="pass filtered, predicted or smoothed"):
        checks.calibration(known[0], [0])
