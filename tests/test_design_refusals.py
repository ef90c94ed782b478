"""What designs refuse, before any work is done; and what ends clearly though little can be said."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em import designs, storage
from statespace_em.errors import ConvergenceWarning, DataError, DataWarning, ParameterError, RowError
from statespace_em.priors import InverseWishart

CONSTANT = r"^column 0 is constant \({}\), so its variance has no estimate: leave it out, or give the model a prior"


@pytest.mark.parametrize("model", [designs.ar(2), designs.arma(1, 1), designs.arima(0, 1, 1)], ids=str)
@pytest.mark.parametrize("value", [3.0, 0.0])
def test_a_constant_that_states_explain_exactly(model, value):
    with pytest.raises(DataError, match=CONSTANT.format(f"{value:g}")):
        model.fit(np.full(30, value))


def test_a_prior_bounds_the_likelihood_of_a_constant():
    model = sse.LinearGaussianSSM(
        ["x"], transition=[[1.0]], observation=[[1.0]], measurement_cov=[[0.0]], initial="diffuse",
        process_prior=InverseWishart(dof=3.0, scale=0.1),
    )  # fmt: skip
    model.fit(np.full(10, 2.0))
    assert model.params_["process_cov"].item() > 0.0


def test_three_rows_are_fitted_without_a_word_of_the_arithmetic():
    model = designs.ar(2).fit(np.array([1.0, 2.0, 4.0]))  # warnings are errors here
    assert model.status_ == "converged"
    assert np.isfinite(model.score(np.array([1.0, 2.0, 4.0])))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("model", [designs.ar(2), designs.arima(0, 2, 0)], ids=["ar", "arima"])
def test_a_line_that_is_explained_exactly_ends_in_a_warning(model):
    """Its likelihood has no bound, and the climb ends where arithmetic does."""
    with pytest.warns(ConvergenceWarning):
        model.fit(np.arange(40.0))
    assert model.status_ in ("degenerate", "decreased")


def test_more_harmonics_than_rows_tell():
    with pytest.raises(ParameterError, match=r"harmonics is 40, but rows tell at most 6 of a period of 12 rows"):
        designs.seasonal(12, harmonics=40).fit(np.arange(30.0))


def test_a_season_of_many_states_is_told_to_be_dear():
    model = designs.seasonal(200)
    batch, labels, _ = model._read(np.random.default_rng(0).normal(size=400), None)
    with pytest.warns(DataWarning, match=r"has 199 states, most of them of seasonal\(200\).*harmonics=10"):
        model._check_data(batch, labels, ())
    short = designs.seasonal(200, harmonics=3) + designs.local_level()
    short._check_data(batch, labels, ())  # warnings are errors here


def test_components_that_rows_do_not_tell_apart():
    with pytest.raises(RowError, match="leave out one of two components that rows do not tell apart"):
        (designs.local_level() + designs.local_level()).fit(np.random.default_rng(0).normal(size=20))


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_dates_go_on_by_their_own_step(zone):
    """Without the step that pandas infers as text, which it is about to change, and warns of."""
    dates = pd.DatetimeIndex(pd.date_range("2020-03-25", periods=30, freq="D", tz=zone).tolist())
    y = pd.Series(np.random.default_rng(0).normal(size=30), dates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pd, "infer_freq", None)
        ahead = designs.local_level().fit(y).forecast(y, 2)
    expected = pd.date_range("2020-04-24", periods=2, freq="D", tz=zone)
    assert list(ahead["time"].to_index()) == list(expected)


def test_dates_with_a_time_zone_are_written_in_utc(tmp_path):
    """NetCDF has no time zones: the models' own files need none, tables of rows are written as the README says."""
    dates = pd.date_range("2020-03-25", periods=30, freq="D", tz="Europe/Berlin")
    y = pd.Series(np.random.default_rng(0).normal(size=30), dates)
    model = designs.local_level().fit(y)
    model.save(tmp_path / "model.nc")
    assert type(model).load(tmp_path / "model.nc").score(y) == model.score(y)
    found = model.e_step(y)
    storage.in_utc(found).to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    storage.write_dataset(found, tmp_path / "written.nc")
    for name in ("posterior.nc", "written.nc"):
        with xr.open_dataset(tmp_path / name, engine="h5netcdf") as back:
            again = back.indexes["time"].tz_localize("UTC").tz_convert(back["time"].attrs["time_zone"])
            assert list(again) == list(dates)
            np.testing.assert_array_equal(back["gamma"].values, found["gamma"].values)
    assert storage.in_utc(found.assign_coords(time=range(30))).identical(found.assign_coords(time=range(30)))


def test_time_zones_of_sequences_with_times_of_their_own(tmp_path):
    dates = pd.date_range("2020-03-25", periods=30, freq="D", tz="Europe/Berlin")
    y = {"a": pd.Series(np.arange(30.0) % 7, dates), "b": pd.Series(np.arange(20.0) % 5, dates[3:23])}
    storage.in_utc(designs.local_level().fit(y).e_step(y)).to_netcdf(tmp_path / "panel.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "panel.nc", engine="h5netcdf") as back:
        stamps = back["timestamp"].sel(sequence="b").values
        np.testing.assert_array_equal(stamps[:20], dates[3:23].tz_convert("UTC").tz_localize(None))
        assert np.isnat(stamps[20:]).all()


velocity = designs.constant_velocity


NO_SENSORS = r"sensors is \['gps'\], expected how many there are, or names with the states"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: designs.local_level(3),
            r"local_level\(3\): too many positional .* called as local_level\(\*, unit",
        ),
        (
            lambda: designs.arima(1, 1),
            r"arima\(1, 1\): missing a required argument: 'q'. It is called as arima\(p",
        ),
        (lambda: designs.seasonal(), r"seasonal\(\): missing a required argument: 'period'"),
        (lambda: velocity(2, dt=3.0), "a setting of constant_velocity is 'dt', expected one of 'density', 'noise'"),
        (lambda: designs.regression("ab"), "X is no table of numbers .*code categories as columns of 0 and 1"),
        (lambda: designs.arima(0, 1, 1, seasonal=12), r"seasonal is 12, expected \(P, D, Q, period\)"),
        (lambda: designs.cycle(np.inf), "period is inf, expected a finite number above 0"),
        (lambda: velocity(0), "dims is 0, expected 1, 2 or 3, or names of the axes"),
        (lambda: velocity(4), "dims is 4, expected 1, 2 or 3, or names of the axes"),
        (lambda: velocity(True), "dims is True, expected 1, 2 or 3"),
        (lambda: velocity("xy"), "dims is 'xy', expected 1, 2 or 3, or names of the axes in a list"),
        (lambda: velocity(None), "dims is None, expected 1, 2 or 3"),
        (lambda: velocity(["a", "a"]), "dims names 'a', 'a', expected up to three different axes"),
        (lambda: velocity([]), "dims names no axis, expected up to three"),
        (lambda: velocity(unit="parsec"), "unit is 'parsec', expected a unit of time: 'W', 'D', 'h', 'min', 's', 'ms'"),
        (lambda: velocity(unit=3), "unit is 3, expected a unit of time"),
        (lambda: designs.local_level(unit="month"), "unit is 'month', expected a unit of time"),
        (lambda: velocity(step=0), "step is 0, expected the time between rows, a number above 0"),
        (
            lambda: velocity(sensors=["gps"]),
            r"sensors is \['gps'\], expected how many there are, or names with the states",
        ),
        (lambda: velocity(likelihood="x"), "likelihood is 'x', expected one of 'diffuse', 'full', 'marginal'"),
        (lambda: velocity(unsorted="x"), "unsorted is 'x', expected one of 'error', 'sort'"),
        (lambda: velocity(measurement_prior=3), "measurement_prior is 3, expected priors.InverseWishart"),
        (lambda: velocity(initial_mean=[0] * 4), "is given, but initial is 'diffuse': leave them out, or say initial="),
        (lambda: designs.coordinated_turn("a"), "rate is 'a', expected a number, radians per unit of time"),
        (
            lambda: designs.local_level() + 3,
            r"3 of type int is no design that can be added; .*local_trend\(\) \+ s",
        ),
        (lambda: "a" + designs.local_level(unit="h"), "'a' of type str is no design"),
        (lambda: velocity() + 3, "3 of type int is no design"),
        (lambda: designs.local_level() + designs.ar, "of type function is no design that can be added: call it first"),
        (lambda: sse.LinearGaussianSSM(1) + designs.ar(1), "written out in one LinearGaussianSSM"),
    ],
)
def test_refused_where_it_is_written(make, match):
    with pytest.raises(ParameterError, match=match):
        make()


def test_a_unit_that_was_set_later_is_refused_where_rows_have_no_dates_too():
    with pytest.raises(ParameterError, match="unit is 'parsec', expected a unit of time"):
        velocity().set_params(unit="parsec").fit(np.zeros((9, 2)))


def test_sum_adds_designs():
    assert repr(sum([designs.local_level(), designs.ar(1)])) == repr(designs.local_level() + designs.ar(1))


def test_a_sensor_of_one_state_may_name_it_without_a_list():
    assert velocity(sensors={"gps": "x"})._sensors.states == ["x"]


@pytest.mark.parametrize(
    "beside", [designs.local_level(), designs.local_level(unit="s"), velocity(1)], ids=["rows", "time", "motion"]
)
def test_regressors_that_end_before_y(beside):
    match = "X of the regression is given for 10 rows, but y has 40: give X a row for every row of y, and for those"
    with pytest.raises(DataError, match=match):
        (beside + designs.regression(np.arange(10.0))).fit(np.arange(40.0) % 7)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (
            designs.seasonal(12.5),
            "period is 12.5, expected a whole number of at least 2 rows; with unit=",
        ),
        (
            designs.regression(np.ones((20, 2))),
            "a level and a constant regressor, or columns that are sums",
        ),
        (
            velocity(1, sensors={"gps": "x", "imu": "x"}) + designs.ar(1),
            r"say which of them has it, as in ar\(1\).on\(",
        ),
        (velocity(1, sensors=2) + designs.constant(), r"as in constant\(\).on\(\"1\"\)"),
    ],
    ids=["period", "columns", "arma", "constant"],
)
def test_remedies_are_what_a_user_writes(model, match):
    y = np.random.default_rng(0).normal(size=(20, 2 if "motion" in repr(model) else 1))
    with pytest.raises((ParameterError, RowError), match=match):
        model.fit(y)
