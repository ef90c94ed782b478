"""Consistency of the Kalman filter: dense whitening, statsmodels, bands of true and mistuned models, gates, shocks."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import oracles_gaussian as oracle
import pandas as pd
import pytest
import xarray as xr
from scipy import linalg, stats

import statespace_em as sse
from statespace_em import checks, plotting
from statespace_em.errors import DataError, ParameterError


def tracker(q=1.0, r=25.0, step=1.0):
    model = sse.LinearGaussianSSM(["east", "north", "v_east", "v_north"])
    still, none = np.eye(2), np.zeros((2, 2))
    noise = np.block([[step**3 / 3 * still, step**2 / 2 * still], [step**2 / 2 * still, step * still]])
    params = model.parameters(
        transition=np.block([[still, step * still], [none, still]]),
        observation=np.hstack([still, none]),
        process_cov=q * noise,
        measurement_cov=r * still,
        initial_mean=np.zeros(4),
        initial_cov=np.diag([100.0, 100.0, 25.0, 25.0]),
    )
    return model, params


@pytest.fixture(scope="module")
def runs():
    """Simulated runs of the tracker: y (S, T, feature) and states."""
    model, params = tracker()
    drawn = [model.sample(60, params, seed=seed) for seed in range(40)]
    y = xr.concat([each["y"] for each in drawn], "run")
    state = xr.concat([each["state"].rename(state_name="state") for each in drawn], "run")
    return y.where(np.random.default_rng(0).random(y.shape) > 0.1), state


def test_innovations_are_whitened_entry_by_entry():
    rng = np.random.default_rng(1)
    p = oracle.random_parameters(rng, 2, 3)
    y = oracle.simulate(rng, p, 8, missing=0.3)
    y[3] = np.nan
    model = sse.LinearGaussianSSM(2, state_offset="free", observation_offset="free")
    params = model.parameters(
        transition=p.A[0], state_offset=p.b[0], process_cov=p.Q[0], observation=p.C[0], observation_offset=p.d[0],
        measurement_cov=p.R[0], initial_mean=p.m0, initial_cov=p.P0,
    )  # fmt: skip
    known = model.filter(y, params)
    mean, cov = oracle.joint(p, 8)
    seen = 16 + np.flatnonzero(~np.isnan(y))
    dense = linalg.solve_triangular(
        np.linalg.cholesky(cov[np.ix_(seen, seen)]), y[~np.isnan(y)] - mean[seen], lower=True
    )
    scores = checks.standardised_innovations(known)
    np.testing.assert_allclose(scores.values[~np.isnan(y)], dense, rtol=1e-9, atol=1e-12)
    assert (np.isnan(scores.values) == np.isnan(y)).all()
    np.testing.assert_allclose(scores.values, model.residuals(y, params).residual.values, rtol=1e-7, atol=1e-9)
    found = checks.nis(known)
    np.testing.assert_array_equal(found["dof"], (~np.isnan(y)).sum(1))
    assert np.isnan(found["nis"][3])
    assert np.isnan(found["upper"][3])
    np.testing.assert_allclose(found["average"], (dense**2).mean(), rtol=1e-12)
    row = int(found["dof"].values.argmax())
    tail = stats.chi2(int(found["dof"][row])).ppf([0.025, 0.975])
    np.testing.assert_allclose([found["lower"][row], found["upper"][row]], tail, rtol=1e-12)


def test_a_true_model_keeps_its_bands_and_a_mistuned_one_does_not(runs):
    y, truth = runs
    model, params = tracker()
    known = model.filter(y, params)
    inside = checks.nis(known)
    share = ((inside["nis"] > inside["lower"]) & (inside["nis"] < inside["upper"])).sum() / inside["nis"].count()
    assert share == pytest.approx(0.95, abs=0.015)
    assert ((inside["average"] > inside["average_lower"]) & (inside["average"] < inside["average_upper"])).mean() > 0.85
    for posterior in (known, model.e_step(y, params)):
        found = checks.nees(posterior, truth)
        assert found["nees"].dims == found["dof"].dims == ("run", "time")
        assert found["average"].dims == ("time",)  # independent runs at each time
        good = (found["average"] > found["average_lower"]) & (found["average"] < found["average_upper"])
        assert good.mean() > 0.85
        np.testing.assert_allclose(found["upper"], stats.chi2(4).ppf(0.975), rtol=1e-12)
    for q, r, low in ((1.0, 100.0, True), (0.01, 25.0, False)):
        model, mistuned = tracker(q, r)
        worse = checks.nis(model.filter(y, mistuned))
        side = worse["average"] < worse["average_lower"] if low else worse["average"] > worse["average_upper"]
        assert side.mean() > 0.9
        worse = checks.nees(model.filter(y, mistuned), truth)
        side = worse["average"] < worse["average_lower"] if low else worse["average"] > worse["average_upper"]
        assert side.mean() > 0.5


def test_errors_of_some_of_the_states(runs):
    y, truth = runs
    model, params = tracker()
    known = model.filter(y.isel(run=0), params)
    one = truth.isel(run=0)
    part = checks.nees(known, one.sel(state=["north", "v_north"]))
    frame = pd.DataFrame(one.values[:, [1, 3]], columns=["north", "v_north"])
    xr.testing.assert_allclose(part, checks.nees(known, frame))
    error, cov = one.values - known["filtered"].values, known["filtered_cov"].values
    dense = [e[[1, 3]] @ np.linalg.solve(V[np.ix_([1, 3], [1, 3])], e[[1, 3]]) for e, V in zip(error, cov)]
    np.testing.assert_allclose(part["nees"], dense, rtol=1e-9)
    assert (part["dof"] == 2).all()
    whole = checks.nees(known, one.values)
    assert (whole["dof"] == 4).all()


def test_tests_are_those_of_statsmodels():
    sarimax = pytest.importorskip("statsmodels.tsa.statespace.sarimax")
    rng = np.random.default_rng(2)
    y = np.cumsum(rng.normal(size=120)) + rng.standard_t(3, size=120)
    other = sarimax.SARIMAX(y, order=(1, 0, 0), measurement_error=True, use_exact_diffuse=False)
    fitted = other.smooth([0.8, 1.3, 0.7])
    model = sse.LinearGaussianSSM(["x"])
    params = model.parameters(
        transition=[[0.8]], observation=[[1]], process_cov=[[0.7]], measurement_cov=[[1.3]],
        initial_mean=[0], initial_cov=[[0.7 / 0.36]],
    )  # fmt: skip
    known = model.filter(y, params)
    scores = checks.standardised_innovations(known)
    np.testing.assert_allclose(scores.values[:, 0], fitted.standardized_forecasts_error[0], rtol=1e-7)
    table = checks.innovation_tests(known, lags=7).iloc[0]
    serial = fitted.test_serial_correlation("ljungbox", lags=7)[0]
    normal = fitted.test_normality("jarquebera")[0]
    even = fitted.test_heteroskedasticity("breakvar")[0]
    assert (table["ljung_box"], table["ljung_box_p"]) == pytest.approx((serial[0, -1], serial[1, -1]), rel=1e-8)
    assert (table["jarque_bera"], table["jarque_bera_p"]) == pytest.approx(normal[:2], rel=1e-8)
    assert (table["heteroscedasticity"], table["heteroscedasticity_p"]) == pytest.approx(even, rel=1e-8)


def test_tests_have_power_and_keep_their_size():
    rng = np.random.default_rng(3)

    def table(values):
        ones = np.ones((len(values), 1, 1))
        dims = ("time", "feature")
        return checks.innovation_tests(
            xr.Dataset({"innovation": (dims, values[:, None]), "innovation_cov": ((*dims, "feature_aux"), ones)}),
            lags=5,
        ).iloc[0]

    null = pd.DataFrame([table(rng.normal(size=150)) for _ in range(300)])
    for name in ("ljung_box_p", "jarque_bera_p", "heteroscedasticity_p"):
        assert 0.02 < (null[name] < 0.05).mean() < 0.085
    noise = rng.normal(size=150)
    assert table(noise * np.linspace(0.4, 2, 150))["heteroscedasticity_p"] < 1e-4
    assert table(stats.t(2).ppf(stats.norm.cdf(noise)))["jarque_bera_p"] < 1e-4
    assert table(np.convolve(noise, [1, 1], "same"))["ljung_box_p"] < 1e-4


def test_gates_find_the_outliers_of_the_radar():
    radar = sse.datasets.radar()
    model, params = tracker(0.3, 625.0, 2.0)
    params["initial_cov"] = 1e8 * params["initial_cov"]
    known = model.filter(radar["measured"], params)
    outside = checks.gate(known, level=0.9999)
    assert outside.dims == ("time",)
    assert (outside & radar["outlier"]).sum() >= 14
    assert not outside.values[np.isnan(radar["measured"]).any("axis")].any()
    assert checks.gate(known, by="feature").dims == ("time", "feature")
    cleaned = model.e_step(radar["measured"].where(~outside), params)["gamma"].values[:, :2]
    error, before = (
        np.sqrt(((path - radar["true_position"].values) ** 2).mean())
        for path in (cleaned, model.e_step(radar["measured"], params)["gamma"].values[:, :2])
    )
    assert error < 0.5 * before


def test_auxiliary_residuals_are_smoothed_shocks():
    """E[w | y] has the covariance of w less what is left of it: from the joint Gaussian of states and y."""
    rng = np.random.default_rng(4)
    T = 7
    p = oracle.random_parameters(rng, 2, 2)
    y = oracle.simulate(rng, p, T, missing=0.2)
    model = sse.LinearGaussianSSM(2, state_offset="free", observation_offset="free")
    params = model.parameters(
        transition=p.A[0], state_offset=p.b[0], process_cov=p.Q[0], observation=p.C[0], observation_offset=p.d[0],
        measurement_cov=p.R[0], initial_mean=p.m0, initial_cov=p.P0,
    )  # fmt: skip
    found = checks.auxiliary_residuals(y, model.e_step(y, params), params)
    mean, cov = oracle.joint(p, T)
    seen = 2 * T + np.flatnonzero(~np.isnan(y))
    gain = np.linalg.solve(cov[np.ix_(seen, seen)], cov[seen]).T
    states, explained = mean + gain @ (y[~np.isnan(y)] - mean[seen]), gain @ cov[seen]
    for t in range(T):
        row = np.zeros((2, len(mean)))
        row[:, 2 * t : 2 * t + 2], shift = -p.C[0], -p.d[0]
        row[[0, 1], [2 * T + 2 * t, 2 * T + 2 * t + 1]] = 1.0
        scaled = (row @ states + shift) / np.sqrt(np.diag(row @ explained @ row.T))
        kept = ~np.isnan(y[t])
        np.testing.assert_allclose(found["measurement_shock"].values[t][kept], scaled[kept], rtol=1e-8)
        assert np.isnan(found["measurement_shock"].values[t][~kept]).all()
        if t < T - 1:
            row = np.zeros((2, len(mean)))
            row[:, 2 * t : 2 * t + 2], row[[0, 1], [2 * t + 2, 2 * t + 3]] = -p.A[0], 1.0
            scaled = (row @ states - p.b[0]) / np.sqrt(np.diag(row @ explained @ row.T))
            np.testing.assert_allclose(found["state_shock"].values[t], scaled, rtol=1e-8)
    assert np.isnan(found["state_shock"].values[-1]).all()


def test_a_break_in_the_nile_shows_in_the_level():
    """Durbin & Koopman (2012, fig. 2.8): the dam of 1899 is the largest shock of the level."""
    nile = sse.datasets.nile()
    model = sse.LinearGaussianSSM(["level"])
    params = model.parameters(
        transition=[[1]], observation=[[1]], process_cov=[[1469.1]], measurement_cov=[[15098.5]],
        initial_mean=[0], initial_cov=[[1e7]],
    )  # fmt: skip
    found = checks.auxiliary_residuals(nile, model.e_step(nile, params), params)
    assert int(found["state_shock"].isel(state=0).idxmin()) == 1898  # leads from 1898 to 1899
    assert int(found["measurement_shock"].isel(feature=0).idxmin()) == 1913


def test_what_is_no_filter_is_refused(runs):
    y, truth = runs
    model, params = tracker()
    known = model.filter(y.isel(run=0), params)
    with pytest.raises(DataError, match="pass what filter"):
        checks.nis(model.e_step(y.isel(run=0), params))
    with pytest.raises(ParameterError, match=r"level is 95, expected a probability"):
        checks.nis(known, level=95)
    with pytest.raises(DataError, match="test them one by one"):
        checks.innovation_tests(model.filter(y, params))
    with pytest.raises(DataError, match=r"a column 'up', but the states are 'east'"):
        checks.nees(known, pd.DataFrame({"up": np.zeros(60)}))
    with pytest.raises(DataError, match=r"shape \(59, 4\), expected \(60, 4\)"):
        checks.nees(known, truth.isel(run=0).values[1:])
    with pytest.raises(DataError, match="no states with covariances"):
        checks.nees(known[["log_likelihood"]], truth)
    with pytest.raises(DataError, match="innovations, expected at least 9"):
        checks.innovation_tests(known.isel(time=slice(5)))
    with pytest.raises(DataError, match="expected gamma, cov and cross_cov, got 'filtered'"):
        checks.auxiliary_residuals(y, known, params)
    with pytest.raises(DataError, match=r"the posterior has 'time' of \(60,\), expected \(59,\) as y"):
        checks.auxiliary_residuals(y.isel(run=0)[1:], model.e_step(y.isel(run=0), params), params)


# figures


def test_figures_of_innovations_and_consistency(runs):
    y, truth = runs
    model, params = tracker()
    known = model.filter(y, params)
    panels = plotting.plot_innovations(known.isel(run=0))
    assert len(panels) == 2
    assert panels[0].get_title(loc="left") == "Innovations: measured less predicted, data 1:t-1"
    drawn = sum(len(line.get_xdata()) for line in panels[0].lines if line.get_linestyle() == "None")
    assert drawn == int(y.isel(run=0)[:, 0].notnull().sum())
    plotting.plot_innovations(known, sequence=3)
    ax = plotting.plot_consistency(checks.nis(known, level=0.9), sequence=0)
    assert ax.get_title(loc="left").endswith("rows in the 90 % band")
    assert plotting.plot_consistency(checks.nees(known, truth), sequence=2).get_ylabel() == "NEES"
    with pytest.raises(DataError, match="expected nis or nees"):
        plotting.plot_consistency(known)
    with pytest.raises(DataError, match="pass what filter"):
        plotting.plot_innovations(checks.nis(known))
    plt.close("all")


def test_a_track_with_its_forecast(runs):
    y = runs[0].isel(run=0, drop=True)
    model, params = tracker()
    ahead = model.forecast(y, 5, params)
    ax = plotting.plot_track(y, model.filter(y, params), params, forecast=ahead)
    (ellipses,) = [c for c in ax.collections if c.get_gid() == "forecast"]
    assert len(ellipses.get_paths()) == 5
    corner = ellipses.get_paths()[-1].vertices.mean(0)
    np.testing.assert_allclose(corner, ahead["mean"].values[-1], atol=0.1 * np.sqrt(ahead["variance"].values.max()))
    with pytest.raises(DataError, match="pass the forecast of one track"):
        plotting.plot_track(y, model.filter(y, params), params, forecast=ahead[["mean"]])
    plt.close("all")


def test_auxiliary_residuals_of_a_panel_are_those_of_its_sequences(runs):
    y, _ = runs
    model, params = tracker()
    ragged = {"a": y.isel(run=0), "b": y.isel(run=1)[:25], "c": y.isel(run=2)[:40]}
    whole = checks.auxiliary_residuals(ragged, model.e_step(ragged, params), params)
    assert whole["state_shock"].dims == ("sequence", "time", "state")
    for key, own in ragged.items():
        alone = checks.auxiliary_residuals(own, model.e_step(own, params), params)
        for name in alone:
            padded = whole[name].sel(sequence=key).values
            np.testing.assert_array_equal(padded[: len(own)], alone[name].values)
            assert np.isnan(padded[len(own) :]).all()
