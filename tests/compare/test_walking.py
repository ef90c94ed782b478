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


def test_the_calendar_unless_told():
    """Years where rows have dates, else every 250 rows."""
    y = returns(500)
    dated = sse.walk_forward(sse.GaussianHMM(2), y, fit=FAST)
    assert pd.DatetimeIndex(dated["trained_until"].values).strftime("%m-%d").to_list() == ["12-31"]
    numbered = sse.walk_forward(sse.GaussianHMM(2), y.to_numpy(), fit=FAST)
    assert numbered["trained_until"].values.tolist() == [99, 349]


def test_states_keep_their_meaning_between_refits():
    """Without a rule of order the states of each fit stand as they fell; the walk aligns them."""
    y = returns(400)
    found = sse.walk_forward(sse.GaussianHMM(2, order_by=None), y, refit=40, min_train=160, fit=FAST)
    variance = found["fitted_cov"].values[:, :, 0, 0]
    assert (variance[:, 0] < variance[:, 1]).all() or (variance[:, 0] > variance[:, 1]).all()


class Peeks(sse.GaussianHMM):
    """Calls hindsight filtered."""

    def filter(self, y, params=None, **said):
        known = super().filter(y, params, **said)
        return known.assign(filtered=self.e_step(y, params)["gamma"].assign_attrs(known["filtered"].attrs))


class PeeksBarely(sse.GaussianHMM):
    """Standardises by moments of all rows, by one part in a million million."""

    def filter(self, y, params=None, **said):
        known = super().filter(y, params, **said)
        return known.assign(predicted=known["predicted"] * (1.0 + 1e-12 * np.tanh(y.to_numpy().std())))


class PeeksAtTomorrow(sse.GaussianHMM):
    """Rows are off by one: what is called known tonight is what is known tomorrow, and nothing later."""

    def filter(self, y, params=None, **said):
        known = super().filter(y, params, **said)
        late = known["filtered"].values
        return known.assign(filtered=known["filtered"].copy(data=np.vstack([late[1:], late[-1:]])))


@pytest.mark.parametrize(
    ("kind", "variable"), [(Peeks, "filtered"), (PeeksBarely, "predicted"), (PeeksAtTomorrow, "filtered")]
)
def test_the_audit_catches_who_peeks(kind, variable):
    with pytest.raises(LookAheadError, match=f"{variable} of date 2020-.* changed when the rows after date 2020-"):
        sse.walk_forward(kind(2), returns(240), refit=60, min_train=120, fit=FAST, audit=True)


@pytest.mark.parametrize("kind", ["poisson", "categorical"])
def test_other_families_walk_too(kind):
    model, params = parameters_of(kind, 2, np.random.default_rng(0))
    y = model.sample(160, params, seed=1)["y"].values
    assert kind == "poisson" or model.symbols is not None
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
    with pytest.raises(
        DataError, match=r"y has 120 rows, but the first fit needs 200 and a row to predict.* pass more rows, or"
    ):
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


# several sequences, known states, weights, symbols


def panel():
    """Three assets on one calendar: one from the first day, one that ends early, one that comes late, with a gap."""
    whole = returns(260)
    return {"a": whole, "b": 1.5 * returns(170, seed=4), "c": returns(260, seed=5).iloc[200:].drop(whole.index[230])}


@pytest.mark.parametrize("window", ["expanding", 100])
def test_a_panel_walks_on_one_calendar(window):
    y = panel()
    model = sse.GaussianHMM(["calm", "stress"])
    options = {"refit": 50, "min_train": 120, "window": window, "fit": FAST}
    found = sse.walk_forward(model, y, audit=2, **options)
    assert found["filtered"].dims == ("sequence", "date", "state")
    assert found["sequence"].values.tolist() == ["a", "b", "c"]
    assert found["date"].values[0] == y["a"].index[120].to_datetime64()
    assert found["used_refit"].values.tolist() == [0] * 50 + [1] * 50 + [2] * 40
    for key, series in y.items():
        seen = found["log_score"].sel(sequence=key).notnull()
        assert seen.sum() == (series.index >= y["a"].index[120]).sum()
    for number, begin in enumerate([120, 170, 220]):
        first = 0 if window == "expanding" else begin - window
        days = y["a"].index[first:begin]
        train = {key: part[part.index.isin(days)] for key, part in y.items() if part.index.isin(days).any()}
        assert found["n_train"].values[number] == sum(map(len, train.values()))
        fit = sse.GaussianHMM(["calm", "stress"]).fit(train, **FAST)
        np.testing.assert_array_equal(found["fitted_cov"][number], fit.params_["cov"])
        rows = y["c"][(y["c"].index >= days[0])]
        if number == 2:
            known = fit.filter(rows)["filtered"].sel(date=rows.index[-20:])
            np.testing.assert_array_equal(found["filtered"].sel(sequence="c", date=rows.index[-20:]), known)
    # the removal of what comes later changes no bit, also where a sequence has not begun
    short = {key: part[part.index < y["a"].index[199]] for key, part in y.items()}
    again = sse.walk_forward(model, {key: part for key, part in short.items() if len(part)}, **options)
    for name in ("filtered", "predicted", "log_score", "mean", "variance"):
        expected = found[name].sel(sequence=["a", "b"]).transpose("sequence", "date", ...)[:, : again.sizes["date"]]
        np.testing.assert_array_equal(again[name].transpose("sequence", "date", ...), expected)


class PeeksAtThePanel(sse.GaussianHMM):
    """Knows what the last row of its own sequence will be."""

    def filter(self, y, params=None, **said):
        known = super().filter(y, params, **said)
        return known.assign(predicted=known["predicted"] + 1e-9 * float(y.to_numpy()[-1, 0]))


def test_the_audit_of_a_panel_catches_who_peeks():
    with pytest.raises(LookAheadError, match=r"predicted of date 2020-.* changed when the rows after date 2020-"):
        sse.walk_forward(PeeksAtThePanel(2), panel(), refit=60, min_train=120, fit=FAST, audit=True)


def test_known_states_and_weights_walk_along():
    y = returns(240)
    names = pd.Series(np.where(y.abs() > 4.0, "stress", None), y.index, dtype=object)
    weights = pd.Series(np.linspace(0.5, 1.5, 240), y.index)
    model = sse.GaussianHMM(["calm", "stress"])
    said = {"states": names, "weights": weights}
    assert 2 < names.notna().sum() < 100
    found = sse.walk_forward(model, y, refit=60, min_train=120, fit=FAST, audit=1, **said)
    fit = sse.GaussianHMM(["calm", "stress"]).fit(y[:180], states=names[:180], weights=weights[:180], **FAST)
    known = fit.filter(y, **said)
    np.testing.assert_array_equal(found["filtered"][60:], known["filtered"][180:])
    np.testing.assert_array_equal(found["log_score"][60:], known["log_likelihood"][180:])
    np.testing.assert_array_equal(found["mean"][60:], fit.one_step(y, **said)["mean"][180:])


class PeeksAtStates(sse.GaussianHMM):
    """Knows how many states will be known."""

    def filter(self, y, params=None, **said):
        known = super().filter(y, params, **said)
        return known.assign(filtered=known["filtered"] + 1e-9 * said["states"].notna().sum())


def test_the_audit_changes_the_future_of_what_is_said_too():
    y = returns(240)
    states = pd.Series(np.where(y.abs() > 4.0, 1, None), y.index, dtype=object)
    with pytest.raises(LookAheadError, match="filtered of date"):
        sse.walk_forward(PeeksAtStates(2), y, refit=60, min_train=120, fit=FAST, audit=True, states=states)


def test_sequences_keep_their_weights():
    y = panel()
    weights = {"a": 1.0, "b": 2.0, "c": 0.5}
    found = sse.walk_forward(sse.GaussianHMM(2), y, refit=70, min_train=120, fit=FAST, weights=weights, audit=1)
    train = {key: part[part.index < y["a"].index[120]] for key, part in y.items()}
    fit = sse.GaussianHMM(2).fit({key: train[key] for key in "ab"}, weights={"a": 1.0, "b": 2.0}, **FAST)
    np.testing.assert_array_equal(found["fitted_cov"][0], fit.params_["cov"])


def test_symbols_of_the_future_are_not_known():
    """Which symbols occur is something later rows tell, so it has to be said beforehand."""
    model, params = parameters_of("categorical", 2, np.random.default_rng(0))
    y = pd.Series(model.sample(160, params, seed=1)["y"].values[:, 0])
    options = {"refit": 40, "min_train": 80, "fit": FAST}
    silent = sse.CategoricalHMM(2)
    with pytest.raises(ParameterError, match=r"CategoricalHMM names no symbols, .* build it with symbols="):
        sse.walk_forward(silent, y, **options)
    with pytest.raises(ParameterError, match="names no symbols"):
        sse.walk_forward(silent.fit(y), y, **options)
    said = sse.walk_forward(sse.CategoricalHMM(2, symbols=list("abcd")), y, audit=1, **options)
    typed = sse.walk_forward(silent, y.astype(pd.CategoricalDtype(list("abcd"))), audit=1, **options)
    np.testing.assert_array_equal(said["prob"], typed["prob"])


def test_too_few_times_of_a_panel():
    with pytest.raises(DataError, match=r"y has 260 different times, but the first fit needs 300.* pass more rows, or"):
        sse.walk_forward(sse.GaussianHMM(2), panel(), refit=10, window=300)
