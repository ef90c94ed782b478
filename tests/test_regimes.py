"""The regime report by hand and by pandas, blended moments by simulation-free formulas."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hmm_cases import case, parameters_of

import statespace_em as sse
from statespace_em import regimes
from statespace_em.errors import DataError, DataWarning, ParameterError

DATES = pd.date_range("2020-01-06", periods=10, freq="B", name="date")
HARD = np.repeat([0, 1, 0], [4, 3, 3])


def probabilities(path=HARD, soft=0.0, conditioning="1:t"):
    values = np.eye(2)[path] * (1 - soft) + soft / 2
    coords = {"date": DATES, "state": ["calm", "stress"]}
    return xr.DataArray(values, coords, ("date", "state"), attrs={"conditioning": conditioning})


def returns():
    return pd.Series(np.random.default_rng(0).normal(0.001, 0.02, size=10), index=DATES)


@pytest.mark.parametrize("kind", ["log", "simple"])
def test_hard_probabilities_give_the_moments_of_the_rows(kind):
    values = returns()
    table = regimes.report(values, probabilities(), kind=kind, periods_per_year=250, risk_free=0.01)
    assert list(table.index) == ["calm", "stress"]
    for k, name in enumerate(table.index):
        own = values[k == HARD]
        row = table.loc[name]
        np.testing.assert_allclose(row["mean"], own.mean() * 250, rtol=1e-12)
        np.testing.assert_allclose(row["volatility"], own.std(ddof=0) * 250**0.5, rtol=1e-12)
        np.testing.assert_allclose(row["sharpe"], (row["mean"] - 0.01) / row["volatility"], rtol=1e-12)
        simple = (np.expm1(values) if kind == "log" else values).where(k == HARD, 0.0)
        wealth = pd.concat([pd.Series([1.0]), (1 + simple).cumprod()])
        np.testing.assert_allclose(row["max_drawdown"], (1 - wealth / wealth.cummax()).max(), rtol=1e-12)
    assert table["share"].to_list() == [0.7, 0.3]
    assert table["n_episodes"].to_list() == [2, 1]
    assert table["empirical_duration"].to_list() == [3.5, 3.0]
    np.testing.assert_allclose(table["turnover"], 2 * 250 / 10)  # out and in again
    assert table["expected_duration"].isna().all()
    assert table.attrs["conditioning"] == "1:t"
    assert table.attrs["returns"] == f"{kind}, fraction"
    assert set(table.attrs["units"]) == set(table.columns)


def test_soft_probabilities_are_weights():
    values, soft = returns(), probabilities(soft=0.3)
    table = regimes.report(values, soft)
    weight = soft.sel(state="stress").values
    mean = np.average(values, weights=weight)
    per_year = 9 * 365.2425 / (DATES[-1] - DATES[0]).days
    np.testing.assert_allclose(table.attrs["periods_per_year"], per_year, rtol=1e-12)
    np.testing.assert_allclose(table.loc["stress", "mean"], mean * per_year, rtol=1e-12)
    variance = np.average((values - mean) ** 2, weights=weight)
    np.testing.assert_allclose(table.loc["stress", "volatility"], (variance * per_year) ** 0.5, rtol=1e-12)
    np.testing.assert_allclose(table["share"].sum(), 1.0)


def test_units_of_the_returns_do_not_matter_for_what_has_none():
    values = returns()
    values.iloc[2] = np.nan
    fraction = regimes.report(values, probabilities())
    percent = regimes.report(100 * values, probabilities(), unit="percent")
    for name in ("sharpe", "max_drawdown", "share", "turnover"):
        np.testing.assert_allclose(fraction[name], percent[name], rtol=1e-12)
    np.testing.assert_allclose(100 * fraction["volatility"], percent["volatility"], rtol=1e-12)


def test_expected_durations_and_months():
    params = sse.GaussianHMM(["calm", "stress"]).parameters(transition=[[0.9, 0.1], [0.5, 0.5]])
    index = pd.period_range("2020-01", periods=10, freq="M", name="date")
    monthly = probabilities().assign_coords(date=index)
    table = regimes.report(returns().to_numpy(), monthly, params=params)
    np.testing.assert_allclose(table["expected_duration"], [10.0, 2.0])
    np.testing.assert_allclose(table.attrs["periods_per_year"], 12.0, rtol=0.01)


@pytest.mark.parametrize("kind", ["full", "tied", "diagonal"])
def test_blended_moments_are_those_of_the_forecast(kind):
    model, params, y = case(kind, 3, 20, 2)
    ahead = model.forecast(y, 2, params)
    blended = regimes.blended_moments(params, ahead["predicted"])
    assert blended["cov"].dims == ("horizon", "feature", "feature_aux")
    assert blended["cov"].attrs["conditioning"] == "1:T"
    np.testing.assert_allclose(blended["mean"], ahead["mean"], rtol=1e-12)
    np.testing.assert_allclose(np.diagonal(blended["cov"], axis1=1, axis2=2), ahead["variance"], rtol=1e-12)
    weight = ahead["predicted"].values[0]
    mean = params["mean"].values
    covs = params["cov"].values if "cov" in params else np.array([np.diag(v) for v in params["var"].values])
    second = (weight[:, None, None] * (np.broadcast_to(covs, (3, 2, 2)) + mean[:, :, None] * mean[:, None, :])).sum(0)
    middle = weight @ mean
    np.testing.assert_allclose(blended["cov"][0], second - np.outer(middle, middle), rtol=1e-10, atol=1e-12)
    assert (np.linalg.eigvalsh(blended["cov"]) > 0).all()


def test_spherical_variances_blend():
    params = parameters_of("spherical", 2, np.random.default_rng(0))[1]
    weight = xr.DataArray([1.0, 0.0], {"state": [0, 1]}, ("state",))
    np.testing.assert_allclose(regimes.blended_moments(params, weight)["cov"], params["var"].values[0] * np.eye(2))


def test_two_stocks_by_hand():
    """Every number again, from the fitted parameters and plain numpy, with a blank day and a half-blank one."""
    returns = 100 * sse.datasets.stocks()["log_return"][["IBM", "MSFT"]]["2006":"2009"]
    returns.iloc[100] = np.nan
    returns.iloc[200, 0] = np.nan
    model = sse.GaussianHMM(["calm", "stress"]).fit(returns, n_starts=2)
    known = model.filter(returns)
    weight, days = known["filtered"].values, returns.index
    per_year = (len(days) - 1) / ((days[-1] - days[0]).days / 365.2425)
    assert 250 < per_year < 254
    for asset in returns:
        table = regimes.report(returns[asset], known["filtered"], unit="percent", risk_free=2.0, params=model.params_)
        y = returns[asset].to_numpy()
        seen = ~np.isnan(y)
        for k, state in enumerate(["calm", "stress"]):
            w, row = weight[:, k], table.loc[state]
            mean = (w[seen] * y[seen]).sum() / w[seen].sum()
            variance = (w[seen] * (y[seen] - mean) ** 2).sum() / w[seen].sum()
            wealth, peak, fall = 1.0, 1.0, 0.0
            for share, value in zip(w, y):
                wealth *= 1.0 + (0.0 if np.isnan(value) else share * (np.exp(value / 100) - 1.0))
                peak = max(peak, wealth)
                fall = max(fall, 1.0 - wealth / peak)
            path = weight[:, 1] > 0.5
            runs = np.split(path, np.flatnonzero(np.diff(path)) + 1)
            own = [len(run) for run in runs if run[0] == bool(k)]
            expected = {
                "mean": mean * per_year,
                "volatility": (variance * per_year) ** 0.5,
                "sharpe": (mean * per_year - 2.0) / (variance * per_year) ** 0.5,
                "max_drawdown": fall,
                "share": w.mean(),
                "expected_duration": 1.0 / (1.0 - model.params_["transition"].values[k, k]),
                "empirical_duration": np.mean(own),
                "n_episodes": len(own),
                "turnover": np.abs(np.diff(w)).sum() * per_year / len(w),
            }
            np.testing.assert_allclose(row, [expected[name] for name in table], rtol=1e-10)
        assert table.loc["calm", "volatility"] < 0.6 * table.loc["stress", "volatility"]
    p = model.forecast(returns, 1)["predicted"].isel(horizon=0)
    np.testing.assert_allclose(p, weight[-1] @ model.params_["transition"].values, rtol=1e-10)
    tomorrow = regimes.blended_moments(model.params_, p)
    means, covs = model.params_["mean"].values, model.params_["cov"].values
    middle = p.values[0] * means[0] + p.values[1] * means[1]
    between = sum(p.values[k] * np.outer(means[k] - middle, means[k] - middle) for k in range(2))
    np.testing.assert_allclose(tomorrow["mean"], middle, rtol=1e-12)
    np.testing.assert_allclose(tomorrow["cov"], p.values[0] * covs[0] + p.values[1] * covs[1] + between, rtol=1e-12)


def test_blended_moments_of_a_panel_end_with_its_sequences():
    """What lies past the end of a sequence is unknown, not zero."""
    model, params, y = case("full", 2, 12, 0)
    known = model.filter({"long": y, "short": y[:5]}, params)["predicted"]
    blended = regimes.blended_moments(params, known).sel(sequence="short")
    assert np.isnan(blended["mean"][5:]).all()
    assert np.isnan(blended["cov"][5:]).all()
    alone = regimes.blended_moments(params, model.filter(y[:5], params)["predicted"])
    np.testing.assert_array_equal(blended["cov"][:5], alone["cov"])


def test_one_of_ragged_sequences_is_reported_like_itself():
    model = sse.GaussianHMM(["calm", "stress"])
    values = 100 * sse.datasets.stocks()["log_return"][["IBM", "MSFT"]]["2009":"2010"]
    y = {"IBM": values["IBM"], "MSFT": values["MSFT"]["2010"]}
    model.fit(y, n_starts=1)
    whole = model.filter(y)["filtered"]
    for key, own in y.items():
        found = regimes.report(own, whole.sel(sequence=key), unit="percent")
        pd.testing.assert_frame_equal(found, regimes.report(own, model.filter(own)["filtered"], unit="percent"))


def test_per_cent_that_are_not_called_so_are_warned_of():
    with pytest.warns(DataWarning, match="root mean square of the returns is .* pass unit='percent'"):
        regimes.report(100 * returns(), probabilities())


def test_what_cannot_be_reported_is_refused():
    with pytest.raises(ParameterError, match="periods_per_year cannot be told without dates"):
        regimes.report(returns(), probabilities().assign_coords(date=range(10)))
    with pytest.raises(DataError, match="returns have 9 rows, the probabilities 10"):
        regimes.report(returns()[:9], probabilities())
    with pytest.raises(DataError, match=r"returns have shape \(10, 2\), expected one column"):
        regimes.report(np.zeros((10, 2)), probabilities())
    with pytest.raises(DataError, match="a simple return of -3 loses more than everything: pass unit='percent'"):
        regimes.report(np.full(10, -3.0), probabilities(), kind="simple")
    with pytest.raises(ParameterError, match="kind is 'ln', expected one of 'log', 'simple'"):
        regimes.report(returns(), probabilities(), kind="ln")
    for rate in ("2%", np.nan):
        with pytest.raises(ParameterError, match=r"risk_free is .*, expected a rate a year"):
            regimes.report(returns(), probabilities(), risk_free=rate)
    with pytest.raises(DataError, match="the return of 2020-01-08 is -inf: mark it missing"):
        regimes.report(returns().where(returns().index != DATES[2], -np.inf), probabilities())
    with pytest.raises(ParameterError, match="params is of type GaussianHMM: pass the params_"):
        regimes.report(returns(), probabilities(), params=sse.GaussianHMM(2))
    with pytest.raises(DataError, match=r"returns are not numbers .*'1%'.*: pass numbers"):
        regimes.report(["1%"] * 10, probabilities())
    with pytest.raises(ParameterError, match="unit is 'bp'"):
        regimes.report(returns(), probabilities(), unit="bp")
    with pytest.raises(DataError, match="do not sum to 1"):
        regimes.report(returns(), 2 * probabilities())
    with pytest.raises(DataError, match="pass filtered, predicted or smoothed"):
        regimes.report(returns(), probabilities().isel(date=0))
    two = sse.GaussianHMM(2).parameters(transition=np.eye(2))
    with pytest.raises(
        ParameterError, match="the parameters are of states 0, 1, the probabilities of 'calm', 'stress'"
    ):
        regimes.report(returns(), probabilities(), params=two)
    with pytest.raises(ParameterError, match="params have no mean with cov or var"):
        regimes.blended_moments(two, probabilities())
    with pytest.raises(DataError, match="probabilities have no dim 'state'"):
        regimes.blended_moments(parameters_of("full", 2, np.random.default_rng(0))[1], probabilities()["date"])


def test_labels_that_do_not_fit_are_refused():
    params = parameters_of("full", 2, np.random.default_rng(0))[1]
    weight = probabilities()
    shifted = pd.Series(0.0, weight["date"].to_index() + pd.Timedelta(days=1000))
    with pytest.raises(DataError, match=r"row 0 is .* in the returns and .* in the probabilities: align them"):
        regimes.report(shifted, weight)
    with pytest.raises(DataError, match=r"row 0 is .* in the returns and .* in the probabilities: align them"):
        regimes.report(shifted.rename_axis("date").to_xarray(), weight)
    named = weight.assign_coords(state=params["state"].values)
    with pytest.raises(DataError, match="do not sum to 1 over the states: pass predicted"):
        regimes.blended_moments(params, 2 * named)
    with pytest.raises(ParameterError, match=r"parameters are of states .*, the probabilities of 'a', 'b'"):
        regimes.blended_moments(params, weight.assign_coords(state=["a", "b"]))
