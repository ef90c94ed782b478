"""Many independent fits in one call: each the same as alone, failures reported, results labelled."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hmm_cases import case

import statespace_em as sse
from statespace_em import _threads, em, fitting, many
from statespace_em.errors import ConvergenceWarning, DataError, ParameterError

OPTIONS = {"n_starts": 2, "max_iter": 60, "tol": 1e-6}
KEYS = ["b", "a", "c"]


def drawn(kind="diagonal", n=3, n_rows=60):
    return [case(kind, 2, n_rows, seed, holes=True)[2] for seed in range(n)]


def model_of(kind="diagonal"):
    if kind == "linear":
        return sse.LinearGaussianSSM(["level"])
    if kind == "mixture":
        return sse.Mixture(["low", "high"], sse.emissions.Gaussian("diagonal"), order_by="mean")
    if kind == "poisson":
        return sse.PoissonHMM(["low", "high"])
    return sse.GaussianHMM(["low", "high"], kind)


def alone(model, y, key, fits, options=None):
    """Fit one series as a user would, and compare everything."""
    dim = fits["status"].dims[0]
    with np.testing.suppress_warnings() as caught:
        caught.filter(ConvergenceWarning)
        model.fit(y, **(OPTIONS if options is None else options))
    own = fits.sel({dim: key})
    for name, value in model.params_.data_vars.items():
        np.testing.assert_array_equal(own[name].transpose(*value.dims).values, value.values)
    assert own["log_likelihood"].item() == model.trace_["log_likelihood"].iloc[-1]
    assert own["status"].item() == model.status_
    assert own["message"].item() == ("" if model.converged_ else own["message"].item())
    return own


@pytest.mark.filterwarnings("ignore:of 3 series:statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["diagonal", "poisson", "mixture", "linear"])
def test_each_is_fitted_as_if_it_were_alone(kind):
    ys = dict(zip(KEYS, drawn("poisson" if kind == "poisson" else "diagonal")))
    model = model_of(kind)
    fits = sse.fit_many(model, ys, **OPTIONS)
    assert not hasattr(model, "params_")
    assert fits["status"].dims == ("series",)
    assert fits["series"].values.tolist() == KEYS
    for key, y in ys.items():
        own = alone(model, y, key, fits)
        assert model.score(y, own) == model.score(y)
        xr.testing.assert_allclose(model.e_step(y, own).drop_vars("series", errors="ignore"), model.e_step(y))


@pytest.mark.parametrize("ways", [{"threads": 1}, {"threads": 3}, {"processes": 1}], ids=str)
def test_who_does_the_work_does_not_matter(ways):
    ys = drawn(n_rows=40)
    start = model_of().parameters(
        initial=[0.5, 0.5], transition=[[0.8, 0.2], [0.3, 0.7]], mean=[[0, 0], [2, 2]], var=np.ones((2, 2))
    )
    options = {"start": start, "max_iter": 5, "tol": 0.0}
    xr.testing.assert_identical(
        sse.fit_many(model_of(), ys, **options), sse.fit_many(model_of(), ys, **options, **ways)
    )


@pytest.mark.parametrize(
    ("n_rows", "ways", "spread"), [(2047, {}, False), (2048, {}, True), (40, {"threads": 2}, True)]
)
def test_short_series_are_fitted_one_after_the_other_unless_threads_are_asked_for(monkeypatch, n_rows, ways, spread):
    workers, both = set(), threading.Barrier(2, timeout=60)

    def fitted(model, options, part):
        if spread and len(workers) < 2:
            both.wait()
        workers.add(threading.get_ident())
        return many.Outcome({"rate": np.ones((2, 1))}, pd.RangeIndex(1), None, 0.0, 1, "converged", "")

    monkeypatch.setattr(_threads, "_cores", lambda: 2)
    monkeypatch.setattr(many, "_fit_one", fitted)
    sse.fit_many(model_of("poisson"), [np.ones(n_rows)] * 2, **ways)
    assert len(workers) == 1 + spread


@pytest.mark.parametrize(("n_rows", "spread"), [(2047, False), (2048, True)])
def test_starts_run_side_by_side_where_rows_are_many(n_rows, spread):
    assert fitting.side_by_side(n_rows, None) is (_threads.run if spread else em.one_by_one)
    assert fitting.side_by_side(n_rows, 2) is _threads.run


def containers():
    y = np.stack(drawn())
    days = pd.date_range("2020-01-01", periods=y.shape[1], name="day")
    frames = [pd.DataFrame(part, days, ["u", "v"]) for part in y]
    return {
        "list": (list(y), "series", [0, 1, 2]),
        "dict": (dict(zip(KEYS, frames)), "series", KEYS),
        "levels": (pd.concat(frames, keys=KEYS, names=["ticker", "day"]), "ticker", KEYS),
        "array": (xr.DataArray(y, {"sequence": KEYS}, ("sequence", "time", "feature")), "sequence", KEYS),
        "own dim": (
            xr.DataArray(y, {"station": KEYS, "time": days.values}, ("station", "time", "feature")),
            "station",
            KEYS,
        ),
    }


@pytest.mark.filterwarnings("ignore:of 3 series:statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("kind", containers())
def test_every_container(kind):
    series, dim, keys = containers()[kind]
    fits = sse.fit_many(model_of(), series, **OPTIONS)
    assert fits["status"].dims == (dim,)
    assert fits[dim].values.tolist() == keys
    for key, y in zip(keys, drawn()):
        alone(model_of(), y, key, fits)
    if kind in ("dict", "levels"):
        assert fits["feature"].values.tolist() == ["u", "v"]


@pytest.mark.filterwarnings("ignore:of 3 series:statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("as_array", [False, True])
def test_wide_data_hold_a_series_a_column(as_array):
    wide = pd.DataFrame(np.stack([y[:, 0] for y in drawn()], 1), columns=pd.Index(KEYS, name="symbol"))
    if as_array:
        series = xr.DataArray(wide.values, {"symbol": KEYS}, ("time", "symbol"))
        fits = sse.fit_many(model_of(), series, **OPTIONS)
    else:
        fits = sse.fit_many(model_of(), wide, by="column", **OPTIONS)
    for key in KEYS:
        own = alone(model_of(), wide[key], key, fits)
        assert model_of().score(wide[key], own) == pytest.approx(own["log_likelihood"].item(), rel=1e-14)
    assert fits["mean"].dims == ("symbol", "state", "feature")
    assert fits["feature"].values.tolist() == [0]


def test_columns_are_matched_by_name():
    first, second = (pd.DataFrame(y, columns=["u", "v"]) for y in drawn(n=2))
    fits = sse.fit_many(model_of(), {"a": first, "b": second[["v", "u"]]}, n_starts=1, max_iter=1, tol=0.0)
    same = sse.fit_many(model_of(), {"a": first, "b": second}, n_starts=1, max_iter=1, tol=0.0)
    assert fits["feature"].values.tolist() == ["u", "v"]
    xr.testing.assert_allclose(fits["mean"], same["mean"])


def test_a_symbol_that_a_series_lacks_has_probability_zero():
    series = {"a": list("xyxxyyxyxy"), "b": list("zyzzyyzyzz")}
    model = sse.CategoricalHMM(2)
    fits = sse.fit_many(model, series, n_starts=1, max_iter=3, tol=0.0)
    assert fits["symbol"].values.tolist() == ["x", "y", "z"]
    own = fits.sel(series="b")
    assert (own["prob"].sel(symbol="x") == 0.0).all()
    model.fit(series["b"], n_starts=1, max_iter=3, tol=0.0)
    np.testing.assert_array_equal(own["prob"].sel(symbol=["y", "z"]), model.params_["prob"])
    assert model.score(series["b"], own) == model.score(series["b"])


def test_a_series_that_fails_is_reported_and_does_not_stop_the_others():
    good, broken = drawn(n=2)
    broken[3, 1] = np.inf
    series = {"good": good, "inf": broken, "flat": np.ones((30, 2)), "wide": np.zeros((30, 3)), "none": None}
    with pytest.warns(ConvergenceWarning, match=r"of 5 series 4 need a look .*4 failed.*'inf': inf is not finite"):
        fits = sse.fit_many(model_of(), series, **{**OPTIONS, "max_iter": 1000})
    assert fits["status"].to_series().to_dict() == {
        "good": "converged", "inf": "failed", "flat": "failed", "wide": "failed", "none": "failed",
    }  # fmt: skip
    messages = fits["message"].to_series()
    assert messages["inf"] == "inf is not finite (column 1, time 3): correct it, or mark it missing with NaN."
    assert "fewer different rows" in messages["flat"]
    assert fits["mean"].isel(series=slice(1, None)).isnull().all()
    assert np.isnan(fits["log_likelihood"].values[1:]).all()
    alone(model_of(), good, "good", fits, {**OPTIONS, "max_iter": 1000})


def test_a_width_that_few_have_fails():
    series = [*drawn(n=2), np.random.default_rng(0).normal(size=(30, 3))]
    with pytest.warns(ConvergenceWarning, match=r"this series has 3 columns, but most have 2: fit it apart"):
        fits = sse.fit_many(model_of(), series, n_starts=1)
    assert fits["status"].values.tolist() == ["converged", "converged", "failed"]


def test_an_error_that_is_not_ours_is_reported_with_its_type():
    class Broken(sse.emissions.Poisson):
        def log_prob(self, params, y):
            raise ZeroDivisionError("oops")

    good = case("poisson", 2, 40, 0)[2]
    with pytest.raises(DataError, match=r"not one series could be fitted\. The first, 0: ZeroDivisionError: oops"):
        sse.fit_many(sse.HMM(2, Broken()), [good, good])


def test_progress_counts_the_series(capsys):
    sse.fit_many(model_of(), drawn(n=2), progress=True, n_starts=1)
    assert "2/2" in capsys.readouterr().err


BAD = {
    "no model": (lambda ys: sse.fit_many("GaussianHMM", ys), "model is 'GaussianHMM', expected a model"),
    "class": (lambda ys: sse.fit_many(sse.GaussianHMM, ys), "expected a model such as"),
    "threads": (lambda ys: sse.fit_many(model_of(), ys, threads=0), "threads is 0, expected a whole number"),
    "processes": (lambda ys: sse.fit_many(model_of(), ys, processes=0), "processes is 0, expected"),
    "both": (lambda ys: sse.fit_many(model_of(), ys, threads=1, processes=1), "both threads and processes are given"),
    "option": (lambda ys: sse.fit_many(model_of(), ys, n_start=3), "option is 'n_start', expected one of .*'n_starts'"),
    "value": (lambda ys: sse.fit_many(model_of(), ys, n_starts=0), "n_starts is 0"),
    "by": (lambda ys: sse.fit_many(model_of(), ys, by="row"), "by is 'row'"),
    "columns of a list": (lambda ys: sse.fit_many(model_of(), ys, by="column"), "y is a list"),
    "one series": (lambda ys: sse.fit_many(model_of(), pd.DataFrame(ys[0])), "y is a single series .*by='column'"),
    "none": (lambda ys: sse.fit_many(model_of(), {}), "y holds no series"),
    "twice": (
        lambda ys: sse.fit_many(model_of(), pd.DataFrame(ys[0], columns=["a", "a"]), by="column"),
        "the series 'a' occurs twice",
    ),
    "dim": (
        lambda ys: sse.fit_many(model_of(), xr.DataArray(ys, dims=("state", "time", "feature"))),
        "a dimension 'state', which means something else",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_calls_are_refused_before_any_fit(what, monkeypatch):
    call, message = BAD[what]
    monkeypatch.setattr("statespace_em.many._fit_one", lambda *_: pytest.fail("began to work"))
    with pytest.raises((ParameterError, DataError), match=message):
        call(drawn(n=2))
