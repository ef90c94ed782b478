"""Forecast distributions are the mixtures that they claim to be, and calibrated."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hmm_cases import case, parameters_of
from scipy import integrate, stats

import statespace_em as sse
from statespace_em.errors import DataError, ParameterError

LEVELS = [0.05, 0.5, 0.95]


def futures(model, params, n=600, rows=20, horizon=3, seed=1):
    """Sequences cut before their end, and what came after."""
    rng = np.random.default_rng(seed)
    whole = [model.sample(rows + horizon, params, seed=int(rng.integers(2**31)))["y"].values for _ in range(n)]
    return [y[:rows] for y in whole], np.array([y[rows:] for y in whole])


def volatile():
    """Two states with very different variances: the quantiles of the mixture are far from the average of theirs."""
    model = sse.GaussianHMM(2, "diagonal")
    return model, model.parameters(
        initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.3, 0.7]], mean=[[0.1], [-0.5]], var=[[0.25], [9.0]]
    )


def test_intervals_of_90_per_cent_cover_90_per_cent():
    model, params = volatile()
    seen, after = futures(model, params, n=1500)
    forecast = model.forecast(seen, 3, params, quantiles=LEVELS)
    assert forecast["quantile"].dims == ("sequence", "horizon", "level", "feature")
    low, high = forecast["quantile"].sel(level=0.05).values, forecast["quantile"].sel(level=0.95).values
    limit = 4 * np.sqrt(0.9 * 0.1 / 1500)
    cover = ((after > low) & (after < high)).mean((0, 2))
    assert (np.abs(cover - 0.9) < limit).all()
    # fault of a peer: an average of the quantiles of the states covers too little
    sd = params["var"].values[:, 0] ** 0.5
    component = [params["mean"].values[:, 0] + stats.norm.ppf(level) * sd for level in (0.05, 0.95)]
    low, high = (forecast["predicted"].values @ edge for edge in component)
    assert ((after[..., 0] > low) & (after[..., 0] < high)).mean(0)[2] < 0.9 - limit


@pytest.mark.parametrize("kind", ["full", "poisson"])
def test_transforms_of_the_future_are_uniform(kind):
    model, params = parameters_of(kind, 2, np.random.default_rng(4), apart=1.5)
    seen, after = futures(model, params)
    dataset, predictive = model._futures(seen, 3, params)
    pit = predictive.scores(after, np.random.default_rng(0))[0]
    for h in range(3):
        for d in range(2):
            assert stats.kstest(pit[:, h, d], "uniform").pvalue > 1e-3
    np.testing.assert_allclose(dataset["mean"], predictive.mean(), rtol=1e-13)


@pytest.mark.parametrize("kind", ["volatile", "poisson"])
def test_the_forecast_of_a_long_fit_is_calibrated(kind):
    """Estimated parameters in place of the true ones; with a state too few the same transforms are not uniform."""
    if kind == "volatile":
        model, truth = volatile()
    else:
        model = sse.PoissonHMM(2)
        truth = model.parameters(initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.2, 0.8]], rate=[[40.0], [70.0]])
    long = model.sample(6000, truth, seed=3)["y"].values
    seen, after = futures(model, truth, n=1500, seed=6)
    pit = {}
    for n_states in (1, 2):
        fitted = model.set_params(states=n_states).fit(long, n_starts=2)
        draws = np.random.default_rng(0)
        pit[n_states] = fitted._futures(seen, 3, fitted.params_)[1].scores(after, draws)[0][..., 0]
        ends = fitted.forecast(seen, 3, quantiles=[0.05, 0.95])["quantile"].transpose("level", ...).values
    for h in range(3):
        assert stats.kstest(pit[2][:, h], "uniform").pvalue > 1e-3
        assert stats.kstest(pit[1][:, h], "uniform").pvalue < 1e-6
    inside = ((after > ends[0]) & (after < ends[1])).mean((0, 2))
    on_ends = ((after == ends[0]) | (after == ends[1])).mean((0, 2))  # of counts, whose intervals hold 90 % or more
    limit = 4 * np.sqrt(0.9 * 0.1 / 1500)
    assert (inside < 0.9 + limit).all()
    assert (inside + on_ends > 0.9 - limit).all()


def test_a_linear_gaussian_forecast_is_normal_and_calibrated():
    model = sse.LinearGaussianSSM(1)
    params = model.parameters(
        transition=[[0.8]],
        observation=[[1.0]],
        process_cov=[[1.0]],
        measurement_cov=[[0.5]],
        initial_mean=[0],
        initial_cov=[[2]],
    )
    seen, after = futures(model, params)
    forecast = model.forecast(seen, 3, params, quantiles=LEVELS)
    sd = forecast["variance"] ** 0.5
    for level in LEVELS:
        wanted = forecast["mean"] + stats.norm.ppf(level) * sd
        np.testing.assert_allclose(forecast["quantile"].sel(level=level), wanted, rtol=1e-9, atol=1e-9)
    pit = stats.norm.cdf((after - forecast["mean"].values) / sd.values)
    assert stats.kstest(pit[:, 2, 0], "uniform").pvalue > 1e-3


def test_quantiles_density_and_distribution_belong_together():
    model, params = volatile()
    y = pd.Series(
        np.random.default_rng(1).normal(size=30), index=pd.date_range("2024-01-01", periods=30, freq="B", name="date")
    )
    forecast = model.forecast(y, 2, params, quantiles=LEVELS)
    assert forecast["quantile"].dims == ("horizon", "level", "feature")
    assert forecast["quantile"].attrs["conditioning"] == "1:T"
    for h in range(2):
        at = model.forecast_density(y, 2, forecast["quantile"].values[h, :, 0], params)
        np.testing.assert_allclose(at["cdf"][h, :, 0], LEVELS, rtol=1e-10)
        density = lambda x, h=h: model.forecast_density(y, 2, [x], params)["density"].values[h, 0, 0]  # noqa: E731
        mass = integrate.quad(density, -2.0, 1.0, epsabs=1e-9, limit=30)[0]
        cdf = model.forecast_density(y, 2, [-2.0, 1.0], params)["cdf"].values[h, :, 0]
        np.testing.assert_allclose(mass, cdf[1] - cdf[0], rtol=1e-7)
    assert at["density"].dims == ("horizon", "value", "feature")
    assert at["date"].values[0] == np.datetime64("2024-02-12")


def test_quantiles_of_counts_are_counts():
    model, params, y = case("poisson", 2, 30, 2)
    found = model.forecast(y, 2, params, quantiles=[0.1, 0.9])["quantile"]
    np.testing.assert_array_equal(found, np.round(found))
    at = model.forecast_density(y, 2, np.arange(200), params)
    np.testing.assert_allclose(at["density"].sum("value"), 1.0, rtol=1e-9)
    np.testing.assert_allclose(at["density"].cumsum("value"), at["cdf"], atol=1e-12)
    for h, level in ((0, 0.1), (1, 0.9)):
        cdf = at["cdf"].values[h, :, 0]
        assert found.sel(level=level).values[h, 0] == np.argmax(cdf >= level)


@pytest.mark.parametrize("kind", ["full", "poisson"])
def test_simulated_paths_have_the_moments_of_the_forecast(kind):
    model, params, y = case(kind, 2, 30, 3)
    n = 20_000
    paths = model.simulate(y, 3, n, params, seed=1)
    assert paths["y"].dims == ("path", "horizon", "feature")
    forecast = model.forecast(y, 3, params)
    error = 5 * np.sqrt(forecast["variance"] / n)
    assert (np.abs(paths["y"].mean("path") - forecast["mean"]) < error).all()
    np.testing.assert_allclose(paths["y"].var("path"), forecast["variance"], rtol=0.08)
    share = (paths["state"] == 0).mean("path")
    np.testing.assert_allclose(share, forecast["predicted"].sel(state=0), atol=5 * 0.5 / np.sqrt(n))
    pairs = ((paths["state"][:, 0] == 0) & (paths["state"][:, 1] == 1)).mean()
    wanted = forecast["predicted"].values[0, 0] * params["transition"].values[0, 1]
    np.testing.assert_allclose(pairs, wanted, atol=5 * 0.5 / np.sqrt(n))
    xr.testing.assert_identical(model.simulate(y, 3, 5, params, seed=1), model.simulate(y, 3, 5, params, seed=1))


def test_simulated_tracks_have_the_moments_of_the_forecast():
    model, nile = sse.LinearGaussianSSM(["level"]), sse.datasets.nile()
    params = model.parameters(
        transition=[[1]],
        observation=xr.DataArray([[1.0]], {"feature": ["flow"], "state": ["level"]}, ("feature", "state")),
        process_cov=[[1469.1]], measurement_cov=[[15098.5]], initial_mean=[0], initial_cov=[[1e7]],
    )  # fmt: skip
    paths = model.simulate(nile, 4, 20_000, params, seed=2)
    forecast = model.forecast(nile, 4, params)
    np.testing.assert_allclose(paths["y"].mean("path"), forecast["mean"], rtol=0.01)
    np.testing.assert_allclose(paths["y"].var("path"), forecast["variance"], rtol=0.06)
    lag = np.cov(paths["y"].values[:, :2, 0].T)[0, 1]
    np.testing.assert_allclose(lag, forecast["predicted_cov"].values[0, 0, 0], rtol=0.15)


def test_draws_of_parameters_widen_the_forecast():
    model, params = volatile()
    y = np.random.default_rng(1).normal(size=30)
    shifts = [-2.0, 0.0, 2.0]
    draws = xr.concat([params.assign(mean=params["mean"] + shift) for shift in shifts], "draw")
    singles = [model.forecast(y, 2, draws.isel(draw=i)) for i in range(3)]
    both = model.forecast(y, 2, draws, quantiles=LEVELS)
    exact = {"rtol": 1e-12}
    np.testing.assert_allclose(both["mean"], np.mean([one["mean"] for one in singles], axis=0), **exact)
    within = np.mean([one["variance"] for one in singles], axis=0)
    np.testing.assert_allclose(both["variance"], within + np.var([one["mean"] for one in singles], axis=0), **exact)
    at = model.forecast_density(y, 2, both["quantile"].values[1, :, 0], draws)["cdf"].values[1, :, 0]
    np.testing.assert_allclose(at, LEVELS, rtol=1e-10)
    paths = model.simulate(y, 2, 9000, draws, seed=1)
    assert paths.sizes["path"] == 9000
    np.testing.assert_allclose(paths["y"].var("path"), both["variance"], rtol=0.1)
    alike = xr.concat([params, params], "draw")
    xr.testing.assert_allclose(model.forecast(y, 2, alike), model.forecast(y, 2, params))


def test_a_bootstrap_can_be_forecast_with():
    quakes = sse.datasets.earthquakes()
    model = sse.PoissonHMM(2).fit(quakes)
    draws = model.bootstrap(quakes, n_replicates=3)
    singles = [model.forecast(quakes, 2, draws.isel(replicate=i))["mean"] for i in range(3)]
    found = model.forecast(quakes, 2, draws, quantiles=LEVELS)
    np.testing.assert_allclose(found["mean"], np.mean(singles, axis=0), rtol=1e-12)
    assert model.simulate(quakes, 2, 7, draws, seed=0).sizes["path"] == 7


def test_one_draw_of_a_linear_gaussian_model_keeps_its_covariances():
    model, nile = sse.LinearGaussianSSM(1), sse.datasets.nile().to_numpy()
    params = model.parameters(
        transition=[[1]],
        observation=[[1]],
        process_cov=[[1469.1]],
        measurement_cov=[[15098.5]],
        initial_mean=[0],
        initial_cov=[[1e7]],
    )
    draws = xr.concat([params, params.assign(observation=2 * params["observation"])], "draw")
    both = model.forecast(nile, 2, draws)
    singles = [model.forecast(nile, 2, draws.isel(draw=i)) for i in range(2)]
    for name, centre in (("cov", "mean"), ("predicted_cov", "predicted")):
        within = np.mean([one[name] for one in singles], axis=0)
        between = np.var([one[centre] for one in singles], axis=0)
        np.testing.assert_allclose(both[name].values.squeeze(), (within.squeeze() + between.squeeze()), rtol=1e-12)
        assert both[name].dims == singles[0][name].dims


def test_one_step_is_the_forecast_of_one_step():
    for kind in ("full", "poisson", "categorical"):
        model, params, y = case(kind, 2, 12, 5, holes=True)
        one = model.one_step(y, params, quantiles=None if kind == "categorical" else [0.3])
        for t in (3, 7):
            ahead = model.forecast(y[:t], 1, params, quantiles=None if kind == "categorical" else [0.3])
            for name in one.data_vars:
                np.testing.assert_allclose(one[name][t], ahead[name][0], rtol=1e-12)
                assert one[name].attrs["conditioning"] == "1:t-1"
        again = model.one_step(np.concatenate([y, y[::-1]]), params, quantiles=None if kind == "categorical" else [0.3])
        for name in one.data_vars:
            np.testing.assert_array_equal(again[name][:12], one[name])


def test_what_cannot_be_forecast_is_refused():
    model, params = volatile()
    for bad in (0.0, 1.0, -0.1, np.nan):
        with pytest.raises(ParameterError, match=r"quantiles holds .* expected levels between 0 and 1"):
            model.forecast([1.0, 2.0], 1, params, quantiles=[0.5, bad])
    with pytest.raises(ParameterError, match="quantiles is 'median', expected a list of numbers"):
        model.forecast([1.0, 2.0], 1, params, quantiles="median")
    with pytest.raises(ParameterError, match="at is 'x', expected a list of numbers"):
        model.forecast_density([1.0, 2.0], 1, "x", params)
    for call in (
        model.forecast,
        lambda y, h, p: model.forecast_density(y, h, [0.0], p),
        lambda y, h, p: model.simulate(y, h, 3, p),
    ):
        with pytest.raises(ParameterError, match="horizon is 0, expected a whole number of at least 1"):
            call([1.0, 2.0], 0, params)
    with pytest.raises(ParameterError, match="n_paths is 0"):
        model.simulate([1.0, 2.0], 1, 0, params)
    with pytest.raises(DataError, match="y has 2 sequences: simulate how one of them goes on"):
        model.simulate([[1.0, 2.0], [1.0]], 1, 2, params)
    with pytest.raises(ParameterError, match="at holds no numbers"):
        model.forecast_density([1.0, 2.0], 1, [np.nan], params)
    symbols, own, y = case("categorical", 2, 6, 0)
    with pytest.raises(ParameterError, match="symbols have no order and so no quantiles"):
        symbols.forecast(y, 1, own, quantiles=[0.5])
    with pytest.raises(ParameterError, match="symbols have no density"):
        symbols.forecast_density(y, 1, [0.0], own)


# the uncertainty of the parameters, from their asymptotic distribution


def test_draws_of_parameters_have_the_standard_errors():
    quakes = sse.datasets.earthquakes()
    model = sse.PoissonHMM(["quiet", "active"], initial="stationary").fit(quakes)
    draws, errors = model.parameter_draws(quakes, 600, seed=1), model.standard_errors(quakes)
    assert draws.sizes["draw"] == 600
    np.testing.assert_allclose(draws["rate"].std("draw"), errors["rate"], rtol=0.12)
    np.testing.assert_allclose(draws["transition"].sum("next_state"), 1.0, rtol=1e-12)
    for i in range(3):  # each is a whole set of parameters
        assert np.isfinite(model.score(quakes, draws.isel(draw=i)))
    assert draws.isel(draw=slice(9)).equals(model.parameter_draws(quakes, 9, seed=1))
    fixed = sse.PoissonHMM(2, transition=[[0.75, np.nan], [np.nan, np.nan]]).fit(quakes)
    kept = fixed.parameter_draws(quakes, 5)
    np.testing.assert_array_equal(kept["transition"].isel(state=0), np.tile([[0.75, 0.25]], (5, 1)))
    np.testing.assert_allclose(kept["initial"], np.tile(fixed.params_["initial"], (5, 1)), atol=1e-6)  # at the boundary
    frozen = fixed.parameter_draws(quakes, 5, freeze=["rate"])
    np.testing.assert_allclose(frozen["rate"], np.tile(fixed.params_["rate"], (5, 1, 1)), rtol=1e-12)


def test_one_argument_takes_them_into_the_forecast():
    quakes = sse.datasets.earthquakes()
    model = sse.PoissonHMM(2, initial="stationary").fit(quakes)
    levels = {"quantiles": [0.05, 0.95]}
    found = model.forecast(quakes, 3, n_draws=50, **levels)
    expected = model.forecast(quakes, 3, model.parameter_draws(quakes, 50), **levels)
    assert found.equals(expected)
    assert (found["variance"] > model.forecast(quakes, 3)["variance"]).all()
    with pytest.raises(ParameterError, match="n_draws is -1"):
        model.forecast(quakes, 3, n_draws=-1)


def test_the_interval_for_one_state_covers_almost_what_it_says():
    """Of one normal state the coverage is exact: both ends are means and deviations of n rows, so it is Student's t."""
    n = 20
    y = np.random.default_rng(0).normal(size=n)
    model = sse.GaussianHMM(1).fit(y)
    coverage = []
    for n_draws in (0, 400):
        low, high = model.forecast(y, 1, n_draws=n_draws, quantiles=[0.05, 0.95])["quantile"].values.ravel()
        reach = np.array([y.mean() - low, high - y.mean()]) / y.std(ddof=1) / np.sqrt(1.0 + 1.0 / n)
        coverage.append(stats.t(n - 1).cdf(reach).sum() - 1.0)
    np.testing.assert_allclose(coverage[0], 0.866, atol=5e-4)  # parameters taken as if they were known
    assert 0.88 < coverage[1] < 0.9 + 0.005


def test_intervals_of_two_states_hold_more_with_the_uncertainty_of_the_parameters():
    """The probability of nominal 90 % intervals under the true model, averaged over data sets."""
    model = sse.GaussianHMM(2, "diagonal", order_by=None, initial="uniform")
    truth = model.parameters(
        initial=[0.5, 0.5], transition=[[0.8, 0.2], [0.2, 0.8]], mean=[[0.0], [3.0]], var=[[1.0], [1.0]]
    )
    held: dict[int, list[float]] = {0: [], 25: []}
    for seed in range(16):
        y = model.sample(80, truth, seed=seed)["y"].values
        model.fit(y, start=truth)
        for n_draws, found in held.items():
            ends = model.forecast(y, 1, n_draws=n_draws, quantiles=[0.05, 0.95])["quantile"].values.ravel()
            below = model.forecast_density(y, 1, ends, truth)["cdf"].values.ravel()
            found.append(below[1] - below[0])
    plain, drawn = np.mean(held[0]), np.mean(held[25])
    assert plain < drawn
    assert abs(drawn - 0.9) < 0.03


def test_draws_are_not_made_chunk_by_chunk():
    """Each chunk would draw from what it alone knows."""
    pytest.importorskip("dask")
    model, params, _ = case("poisson", 2, 10, 0)
    y = xr.DataArray(np.ones((4, 10, 2)), dims=("sequence", "time", "feature")).chunk(sequence=2)
    with pytest.raises(ParameterError, match="n_draws= is not taken together with chunked data"):
        model.forecast(y, 2, params, n_draws=5)
    assert model.forecast(y, 2, params)["mean"].sizes["horizon"] == 2


def test_a_series_is_the_column_whatever_it_is_called():
    """A model of one asset can be asked about another; columns of frames go by name."""
    prices = sse.datasets.stocks()["log_return"]["2010":]
    model = sse.GaussianHMM(2).fit(100 * prices["IBM"], n_starts=1)
    other = 100 * prices["MSFT"]
    assert model.score(other) == model.score(other.rename("IBM"))
    assert model.forecast(other, 1)["feature"].values.tolist() == ["IBM"]
    with pytest.raises(DataError, match="no column 'IBM'"):
        model.score(other.to_frame())
