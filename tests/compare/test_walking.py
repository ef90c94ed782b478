"""Walks: each row from what was there on its day, and an audit that catches those who peek."""

import numpy as np
import pandas as pd
import pytest
from hmm_cases import parameters_of

import statespace_em as sse
from statespace_em.compare import table
from statespace_em.errors import ConvergenceWarning, DataError, LookAheadError, ParameterError

FAST = {"n_starts": 2, "tol": 1e-4}


def returns(n=420, seed=3):
    model, params = parameters_of("diagonal", 2, np.random.default_rng(1), apart=1.0)
    params = params.assign(var=(("state", "feature"), np.array([[1.0, 1.0], [9.0, 9.0]])))
    y = model.sample(n, params, seed=seed)["y"].values[:, 0]
    return pd.Series(y, index=pd.date_range("2020-01-01", periods=n, freq="D", name="date"), name="asset")


@pytest.fixture(scope="module")
def walk():
    y = returns()
    model = sse.GaussianHMM(["calm", "stress"])
    return y, sse.walk_forward(model, y, refit="QE", min_train=150, fit=FAST, quantiles=[0.1], audit=2)


def test_the_shape_of_a_walk(walk):
    y, found = walk
    first = pd.Timestamp("2020-07-01")  # the first quarter that begins after 150 rows
    assert found["date"].values[0] == first.to_datetime64()
    assert found.sizes["date"] == (y.index >= first).sum()
    until = pd.DatetimeIndex(found["trained_until"].values).strftime("%Y-%m-%d").to_list()
    assert until == ["2020-06-30", "2020-09-30", "2020-12-31"]
    assert found["n_train"].values.tolist() == [182, 274, 366]
    assert found["filtered"].dims == ("date", "state")
    assert found["quantile"].dims == ("date", "level", "feature")
    assert found["fitted_transition"].dims == ("refit", "state", "next_state")
    assert found["state"].values.tolist() == ["calm", "stress"]
    conditions = {
        name: found[name].attrs.get("conditioning") for name in ("filtered", "predicted", "log_score", "mean")
    }
    assert conditions == {"filtered": "1:t", "predicted": "1:t-1", "log_score": "1:t-1", "mean": "1:t-1"}
    assert found.attrs["audit"].endswith("cuts: 2")


def test_every_row_is_what_a_fit_on_earlier_rows_says(walk):
    y, found = walk
    for row in (0, 91, 92, 200, found.sizes["date"] - 1):
        day = pd.Timestamp(found["date"].values[row])
        until = pd.Timestamp(found["trained_until"].values[found["used_refit"].values[row]])
        assert until < day
        model = sse.GaussianHMM(["calm", "stress"]).fit(y[:until], **FAST)
        known = model.filter(y[:day]).isel(date=-1)
        np.testing.assert_array_equal(known["filtered"], found["filtered"][row])
        np.testing.assert_array_equal(known["predicted"], found["predicted"][row])
        np.testing.assert_array_equal(known["log_likelihood"], found["log_score"][row])
        ahead = model.forecast(y[: day - pd.Timedelta("1D")], 1, quantiles=[0.1])
        for name in ("mean", "variance", "quantile"):
            np.testing.assert_allclose(found[name][row], ahead[name][0], rtol=1e-12)


@pytest.mark.parametrize("window", ["expanding", 120])
def test_later_rows_change_no_bit(window):
    y = returns(300)
    options = {"refit": 60, "min_train": 120, "window": window, "fit": FAST}
    model = sse.GaussianHMM(2)
    whole = sse.walk_forward(model, y, **options)
    for end in (181, 220, 299):
        short = sse.walk_forward(model, y[:end], **options)
        n = short.sizes["date"]
        for name in ("filtered", "predicted", "log_score", "mean", "variance"):
            assert short[name].values.tobytes() == whole[name].values[:n].tobytes()
    starts = pd.DatetimeIndex(whole["trained_from"].values)
    days = 0 if window == "expanding" else 60
    assert ((starts - y.index[0]).days == [0, days, 2 * days]).all()


def test_a_window_that_rolls_forgets():
    y = returns(260)
    rolled = sse.walk_forward(sse.GaussianHMM(2), y, refit=50, window=100, fit=FAST)
    changed = y.copy()
    changed.iloc[:50] += 5.0
    again = sse.walk_forward(sse.GaussianHMM(2), changed, refit=50, window=100, fit=FAST)
    np.testing.assert_array_equal(rolled["log_score"][50:], again["log_score"][50:])
    assert (rolled["log_score"][:50].values != again["log_score"][:50].values).all()


def test_states_keep_their_meaning_between_refits():
    """Without a rule of order the states of each fit stand as they fell; the walk aligns them."""
    y = returns(400)
    found = sse.walk_forward(sse.GaussianHMM(2, order_by=None), y, refit=40, min_train=160, fit=FAST)
    variance = found["fitted_cov"].values[:, :, 0, 0]
    assert (variance[:, 0] < variance[:, 1]).all() or (variance[:, 0] > variance[:, 1]).all()


class Peeks(sse.GaussianHMM):
    """Calls hindsight filtered."""

    def filter(self, y, params=None):
        known = super().filter(y, params)
        return known.assign(filtered=self.e_step(y, params)["gamma"].assign_attrs(known["filtered"].attrs))


class PeeksBarely(sse.GaussianHMM):
    """Standardises by moments of all rows, by one part in a million million."""

    def filter(self, y, params=None):
        known = super().filter(y, params)
        return known.assign(predicted=known["predicted"] * (1.0 + 1e-12 * np.tanh(y.to_numpy().std())))


@pytest.mark.parametrize(("kind", "variable"), [(Peeks, "filtered"), (PeeksBarely, "predicted")])
def test_the_audit_catches_who_peeks(kind, variable):
    with pytest.raises(LookAheadError, match=f"{variable} of date 2020-.* changed when the rows after date 2020-"):
        sse.walk_forward(kind(2), returns(240), refit=60, min_train=120, fit=FAST, audit=True)


@pytest.mark.parametrize("kind", ["poisson", "categorical"])
def test_other_families_walk_too(kind):
    model, params = parameters_of(kind, 2, np.random.default_rng(0))
    y = model.sample(160, params, seed=1)["y"].values
    found = sse.walk_forward(model, y, refit=40, min_train=80, fit=FAST, audit=1)
    assert found["time"].values[0] == 80
    assert ("prob" in found) == (kind == "categorical")
    assert found["log_score"].mean() > -20


def test_a_linear_gaussian_model_walks():
    nile = sse.datasets.nile()
    model = sse.LinearGaussianSSM(["level"], initial="known")
    start = model.parameters(
        transition=[[1]], observation=[[1]], process_cov=[[5e3]], measurement_cov=[[2e4]],
        initial_mean=[0], initial_cov=[[1e7]],
    )  # fmt: skip
    options = {"start": start, "freeze": ["transition", "observation"]}
    found = sse.walk_forward(model, nile, refit=25, min_train=50, fit=options, audit=1)
    fitted = sse.LinearGaussianSSM(["level"], initial="known").fit(nile[:75], **options)
    known = fitted.filter(nile[:80])
    np.testing.assert_array_equal(found["filtered"][29], known["filtered"][79])
    np.testing.assert_array_equal(found["log_score"][29], known["log_likelihood"][79])
    ahead = fitted.forecast(nile[:79], 1)
    np.testing.assert_allclose(found["variance"][29], ahead["variance"][0], rtol=1e-12)


def test_the_table_has_the_rolling_score():
    y = returns(300)
    fits = {k: sse.GaussianHMM(k).fit(y, **FAST) for k in (1, 2)}
    options = {"refit": 60, "min_train": 120, "fit": FAST}
    found = table(fits, y, log_score=options)
    walks = [sse.walk_forward(model, y, **options)["log_score"].mean().item() for model in fits.values()]
    np.testing.assert_allclose(found["log_score"], walks, rtol=1e-13)
    assert found["log_score"][2] > found["log_score"][1]


def test_what_cannot_walk_is_refused():
    y, model = returns(120), sse.GaussianHMM(2)
    with pytest.raises(
        ParameterError, match=r"model is the class GaussianHMM, expected a model such as GaussianHMM\(2\)"
    ):
        sse.walk_forward(sse.GaussianHMM, y, refit=10)
    with pytest.raises(DataError, match=r"y has 120 rows, but the first fit needs 200 and a row to predict"):
        sse.walk_forward(model, y, refit=10, window=200)
    with pytest.raises(DataError, match=r"no refit is due: .* none of the 'YE' periods ends after row 100"):
        sse.walk_forward(model, y, refit="YE")
    with pytest.raises(ParameterError, match="refit is 'YE', but the rows of y have no dates"):
        sse.walk_forward(model, y.to_numpy(), refit="YE", min_train=50)
    with pytest.raises(ParameterError, match="refit is 'often', expected a frequency such as 'YE'"):
        sse.walk_forward(model, y, refit="often", min_train=50)
    with pytest.raises(ParameterError, match="refit is 0, expected a whole number of at least 1"):
        sse.walk_forward(model, y, refit=0, min_train=50)
    for window in ("rolling", 1, 2.5):
        with pytest.raises(ParameterError, match=r"window is .*, expected 'expanding' or a whole number of at least 2"):
            sse.walk_forward(model, y, refit=10, window=window)
    with pytest.raises(ParameterError, match="min_train is 0"):
        sse.walk_forward(model, y, refit=10, min_train=0)
    with pytest.raises(ParameterError, match="audit is -1"):
        sse.walk_forward(model, y, refit=10, min_train=50, audit=-1)
    with pytest.raises(DataError, match="y has 2 sequences, a walk goes along one"):
        sse.walk_forward(model, [y.to_numpy(), y.to_numpy()], refit=10)
    with pytest.raises(DataError, match="the audit needs at least two rows after the first fit"):
        sse.walk_forward(model, y, refit=10, min_train=119, audit=1, fit=FAST)
    flat = y.copy()
    flat.iloc[:60] = 1.0
    with pytest.raises(DataError, match=r"the refit to rows up to 2020-02-19 failed: "):
        sse.walk_forward(model, flat, refit=10, min_train=50)


def test_refits_that_do_not_converge_are_named_once():
    with pytest.warns(ConvergenceWarning, match=r"2 of 2 refits did not converge, see status: .* 2020-03-30") as caught:
        found = sse.walk_forward(sse.GaussianHMM(2), returns(120), refit=20, min_train=90, fit={"max_iter": 2})
    assert len(caught) == 1
    assert found["status"].values.tolist() == ["max_iter"] * 2
