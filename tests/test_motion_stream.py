"""Streams of moving targets: the batch filter row by row, at uneven times, with gates; saved and resumed."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em import checks, designs
from statespace_em.errors import DataError, ParameterError

CHECKED = ("filtered", "filtered_cov", "predicted", "innovation", "innovation_cov", "log_likelihood")


def track(seed=1, T=60):
    rng = np.random.default_rng(seed)
    start = {"initial": "known", "initial_mean": np.zeros(4), "initial_cov": np.eye(4)}
    source = designs.constant_velocity(2, density=0.5, noise=4.0, **start).fit(np.zeros((5, 2)))
    y = source.sample(np.cumsum(rng.exponential(1.0, T)), seed=seed)["y"]
    y[1, 0] = np.nan
    y[20:24] = np.nan
    y[40] += 60.0
    return y


def followed(stream, y, time=lambda row: float(row["time"])):
    return [stream.update(row.values, time=time(row)) for row in y]


@pytest.mark.parametrize("settings", [{}, {"likelihood": "full"}, {"initial": "known", "initial_mean": np.zeros(4),
                                      "initial_cov": np.eye(4)}], ids=["diffuse", "full", "known"])  # fmt: skip
def test_a_stream_at_uneven_times_is_the_filter(settings):
    y = track()
    model = designs.constant_velocity(2, density=0.5, noise=4.0, **settings).fit(y)
    stream = model.stream()
    steps = followed(stream, y)
    known, found = model.filter(y), stream.dataset(steps)
    for name in CHECKED:
        np.testing.assert_allclose(found[name], known[name], rtol=1e-7, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(found["nis"].values[5:], checks.nis(known)["nis"].values[5:], rtol=1e-8)
    assert stream.log_likelihood == pytest.approx(model.score(y), rel=1e-12)
    last = float(y["time"][-1])
    mean, cov = stream.predict(last + 7.0)
    there = model.at(y, last + 7.0)
    np.testing.assert_allclose(mean, there["smoothed"].values[0], rtol=1e-9)
    np.testing.assert_allclose(cov, there["smoothed_cov"].values[0], rtol=1e-9)
    np.testing.assert_allclose(stream.predicted, model.forecast(y, 1)["predicted"].values[0], rtol=1e-9)


def test_dates_and_rows_without_times():
    y = track()
    dated = y.to_pandas().set_axis(pd.Timestamp("2024-03-01") + pd.to_timedelta(y["time"].values, unit="h"))
    model = designs.constant_velocity(2, density=0.5, noise=4.0, unit="h").fit(dated)
    stream = model.stream()
    steps = [stream.update(row, time=time) for time, row in dated.iterrows()]
    np.testing.assert_allclose(steps[-1].filtered, model.filter(dated)["filtered"].values[-1], rtol=1e-8)
    radar = sse.datasets.radar()["measured"]  # a row each 2 s: those of a stream come as often unless told
    even = designs.constant_velocity(["east", "north"], density=0.3, noise=625.0).fit(radar)
    stream = even.stream()
    steps = [stream.update(row) for row in radar.values[:40]]
    np.testing.assert_allclose(steps[-1].filtered, even.filter(radar)["filtered"].values[39], rtol=1e-8)


@pytest.mark.parametrize("by", ["row", "feature"])
def test_a_gate_in_a_stream_is_that_of_the_checks(by):
    y = track()
    y[50, 1] += 40.0
    model = designs.constant_velocity(2, density=0.5, noise=4.0).fit(y)
    stream = model.stream(gate=0.999, by=by)
    steps = followed(stream, y)
    outside = checks.gated(model, y, level=0.999, by=by)
    found = np.array([step.outside for step in steps])
    np.testing.assert_array_equal(found if by == "feature" else found.any(1), outside.values)
    assert found[40].all()
    assert found[50].tolist() == ([True, True] if by == "row" else [False, True])
    left = model.filter(y.where(~outside))
    np.testing.assert_allclose(steps[-1].filtered, left["filtered"].values[-1], rtol=1e-9)
    assert stream.log_likelihood == pytest.approx(float(left["log_likelihood"].sum()), rel=1e-10)
    assert steps[40].nis > 100.0  # it is told how far off the row was, and the row itself
    assert np.isfinite(steps[40].innovation).all()
    assert stream.dataset(steps)["outside"].dims == ("time", "feature")


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_saved_and_resumed(tmp_path, cut):
    y = track()
    model = designs.constant_velocity(2, density=0.5, noise=4.0).fit(y)
    whole = followed(model.stream(gate=0.999), y)
    stream = model.stream(gate=0.999)
    followed(stream, y[:cut])
    stream.save(tmp_path / "stream.nc")
    again = designs.MotionModel.resume(tmp_path / "stream.nc")
    rest = followed(again, y[cut:])
    np.testing.assert_array_equal(rest[-1].filtered, whole[-1].filtered)
    assert rest[40 - cut].outside.all()
    assert again.log_likelihood == pytest.approx(sum(step.log_likelihood for step in whole), rel=1e-12)


def test_what_a_stream_of_motion_refuses():
    y = track()
    model = designs.constant_velocity(2, density=0.5, noise=4.0).fit(y)
    stream = model.stream()
    followed(stream, y[:3])
    with pytest.raises(DataError, match="rows must come in the order of time"):
        stream.update(y.values[3], time=0.0)
    with pytest.raises(DataError, match="is before that of the last row"):
        stream.predict(0.0)
    with pytest.raises(ParameterError, match="gate is 2, expected a probability"):
        model.stream(gate=2)
    with pytest.raises(ParameterError, match="by is 'entry'"):
        model.stream(gate=0.99, by="entry")
    with pytest.raises(ParameterError, match="marginal likelihood of a diffuse start, which rests on all rows"):
        designs.constant_velocity(2, density=0.5, noise=4.0, likelihood="marginal").fit(y).stream()
    fixed = designs.constant_velocity(2, density=0.5, noise=4.0, initial="fixed").fit(y)
    unknown = fixed.params_.assign(initial_mean=np.nan * fixed.params_["initial_mean"])
    with pytest.raises(ParameterError, match="a stream needs a first state, but initial_mean is not known"):
        fixed.stream(unknown)
    blank = model.stream()
    for t in range(64):
        blank.update([np.nan, np.nan], time=float(t))
    with pytest.raises(DataError, match="the first 64 rows do not determine the diffuse first state"):
        blank.update([1.0, 2.0], time=64.0)
    assert xr.DataArray(blank.predicted_cov).isnull().sum() == 0


def test_a_fixed_first_state_streams_from_its_estimate():
    """As `filter` does; a bias of a sensor, which is such a constant, does not keep a target from being followed."""
    y = track()
    both = xr.concat([y, y + 3.0], "feature").assign_coords(feature=["a x", "a y", "b x", "b y"])
    sensors = {"a": ["x", "y"], "b": ["x", "y"]}
    model = designs.constant_velocity(2, density=0.5, noise=4.0, sensors=sensors) + designs.constant().on("b")
    for fitted, rows in ((designs.constant_velocity(2, noise=4.0, initial="fixed").fit(y), y), (model.fit(both), both)):
        stream = fitted.stream()
        steps = followed(stream, rows)
        known = fitted.filter(rows)
        seen = np.isfinite(known["filtered_cov"].values).all((1, 2))
        assert seen.sum() > 50
        np.testing.assert_allclose(
            np.array([step.filtered for step in steps])[seen], known["filtered"].values[seen], rtol=1e-8, atol=1e-8
        )
        assert stream.log_likelihood == pytest.approx(fitted.score(rows), rel=1e-9)
