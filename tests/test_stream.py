"""Streams: the answers of `filter` row by row, in any form of row, saved and resumed."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from oracles_gaussian import random_parameters

import statespace_em as sse
from statespace_em.errors import (
    DataError,
    FileFormatError,
    ImpossibleObservationError,
    NotFittedError,
    ParameterError,
    SingularInnovationError,
)

rng = np.random.default_rng(0)


def kalman(n=3, D=2, T=60):
    p = random_parameters(np.random.default_rng([n, D]), n, D)
    model = sse.LinearGaussianSSM(n, state_offset="free", observation_offset="free")
    params = model.parameters(
        transition=p.A[0], state_offset=p.b[0], process_cov=p.Q[0], observation=p.C[0], observation_offset=p.d[0],
        measurement_cov=p.R[0], initial_mean=p.m0, initial_cov=p.P0,
    )  # fmt: skip
    y = model.sample(T, params, seed=1).y.values
    return model, params, np.where(np.random.default_rng(2).random(y.shape) < 0.2, np.nan, y)


def chain(kind, T=60):
    initial, transition = [0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]]
    emission = {
        "full": {"mean": [[0, 0], [2, 1]], "cov": [np.eye(2), [[2, 1], [1, 1]]]},
        "diagonal": {"mean": [[0, 0], [2, 1]], "var": [[1, 2], [3, 1]]},
        "poisson": {"rate": [[1.0], [5.0]]},
        "symbols": {"prob": [[0.2, 0.8], [0.9, 0.1]]},
    }[kind]
    model = {
        "full": sse.GaussianHMM(["a", "b"]),
        "diagonal": sse.GaussianHMM(["a", "b"], "diagonal"),
        "poisson": sse.PoissonHMM(["a", "b"]),
        "symbols": sse.CategoricalHMM(["a", "b"], symbols=["up", "down"]),
    }[kind]
    params = model.parameters(initial=initial, transition=transition, **emission)
    y = model.sample(T, params, seed=3).y.values
    blank = np.random.default_rng(4).random(y.shape) < 0.2
    return model, params, np.where(blank, None, y) if kind == "symbols" else np.where(blank, np.nan, y)


CASES = {
    "kalman": kalman,
    **{kind: lambda kind=kind, **k: chain(kind, **k) for kind in ("full", "diagonal", "poisson", "symbols")},
}


def follow(stream, y):
    return stream.dataset([stream.update(row) for row in y])


@pytest.mark.parametrize("case", CASES)
def test_equals_the_batch_filter(case):
    model, params, y = CASES[case]()
    stream = model.stream(params)
    found, expected = follow(stream, y), model.filter(y, params)
    xr.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert found.data_vars.keys() == expected.data_vars.keys()
    for name in expected.data_vars:
        assert found[name].attrs == expected[name].attrs
        assert found[name].dims == expected[name].dims
    assert stream.n_rows == len(y)
    assert stream.log_likelihood == pytest.approx(model.score(y, params), rel=1e-12)


def test_equals_the_batch_filter_when_its_covariances_have_settled():
    model, params, _ = kalman()
    y = model.sample(700, params, seed=2).y.values
    xr.testing.assert_allclose(follow(model.stream(params), y), model.filter(y, params), rtol=1e-12, atol=1e-12)


def test_a_state_that_underflows_is_not_lost():
    """After 400 rows at 0 the second state has weight 1e-700; it is the only one that can emit the last row."""
    model = sse.HMM(2, sse.emissions.Poisson())
    params = model.parameters(initial=[0.5, 0.5], transition=np.eye(2), rate=[[0.0], [4.0]])
    y = np.array([0.0] * 400 + [3.0])
    xr.testing.assert_allclose(follow(model.stream(params), y), model.filter(y, params), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_predicts_the_next_row_before_it_comes(case):
    model, params, y = CASES[case](T=8)
    stream = model.stream(params)
    for row in y:
        before = stream.predicted
        step = stream.update(row)
        np.testing.assert_array_equal(step.predicted, before)
    np.testing.assert_allclose(stream.predicted, model.forecast(y, 1, params).predicted[0], rtol=1e-12, atol=1e-12)


def test_a_step_is_not_changed_by_later_ones():
    for case in CASES.values():
        model, params, y = case(T=8)
        stream = model.stream(params)
        step = stream.update(y[0])
        before = [np.array(value) for value in step]
        for row in y[1:]:
            stream.update(row)
        for value, old in zip(step, before):
            np.testing.assert_array_equal(value, old)


@pytest.mark.parametrize("case", CASES)
def test_resumed_stream_continues_as_if_nothing_had_happened(case, tmp_path):
    model, params, y = CASES[case]()
    whole = model.stream(params)
    expected = [whole.update(row) for row in y]
    stream = model.stream(params)
    for row in y[:25]:
        stream.update(row)
    stream.save(tmp_path / "stream.nc")
    resumed = type(model).resume(tmp_path / "stream.nc")
    assert (resumed.n_rows, resumed.log_likelihood, resumed.time) == (25, stream.log_likelihood, 24)
    assert resumed.model.get_params().keys() == model.get_params().keys()
    for row, old in zip(y[25:], expected[25:]):
        for value, wanted in zip(resumed.update(row), old):
            np.testing.assert_array_equal(value, wanted)
    assert resumed.log_likelihood == whole.log_likelihood


def test_a_new_stream_can_be_saved_and_times_are_kept(tmp_path):
    model, params, _ = chain("poisson")
    stream = model.stream(params)
    stream.save(tmp_path / "new.nc")
    assert sse.PoissonHMM.resume(tmp_path / "new.nc").time is None
    stream.update(3, time=pd.Timestamp("2024-03-01 12:00:00.000000001"))
    stream.save(tmp_path / "new.nc")
    resumed = sse.PoissonHMM.resume(tmp_path / "new.nc")
    assert resumed.time == stream.time
    with pytest.raises(DataError, match="time 2024-03-01 comes after"):
        resumed.update(1, time=pd.Timestamp("2024-03-01"))
    day = stream.update(2, time=datetime.datetime(2024, 3, 2))
    assert stream.dataset([day]).time.values[0] == np.datetime64("2024-03-02")


def test_rows_of_every_kind():
    model, params, _ = kalman(2, 2)
    params = params.assign_coords(feature=["x", "y"], feature_aux=["x", "y"])
    forms = [
        [1.5, -2.0], (1.5, -2), np.array([1.5, -2.0]), np.array([1.5, -2.0], "float32"),
        [np.float32(1.5), np.int64(-2)],
        {"x": 1.5, "y": -2.0}, {"y": -2.0, "x": 1.5, "z": "else"}, pd.Series({"y": -2.0, "x": 1.5}),
        pd.Series([1.5, -2.0]), xr.DataArray([1.5, -2.0], dims="feature"),
    ]  # fmt: skip
    expected = model.stream(params).update([1.5, -2.0])
    for row in forms:
        np.testing.assert_array_equal(model.stream(params).update(row).filtered, expected.filtered)
    partly = model.stream(params).update([1.5, np.nan]).filtered
    for row in ([1.5, None], [1.5, pd.NA], {"x": 1.5, "y": None}, pd.Series({"x": 1.5, "y": np.nan})):
        np.testing.assert_array_equal(model.stream(params).update(row).filtered, partly)
    blank = model.stream(params).update([None, None])
    assert blank.log_likelihood == 0.0
    np.testing.assert_array_equal(blank.filtered, blank.predicted)


def test_single_values_are_rows_of_one_column():
    model, params, _ = chain("poisson")
    expected = model.stream(params).update([4.0]).filtered
    for row in (4, 4.0, np.int64(4), np.array(4), {0: 4}, {"count": 4}):
        np.testing.assert_array_equal(model.stream(params).update(row).filtered, expected)
    model, params, _ = chain("symbols")
    expected = model.stream(params).update("up").filtered
    for row in (["up"], np.array(["up"]), pd.Series(["up"]), np.str_("up")):
        np.testing.assert_array_equal(model.stream(params).update(row).filtered, expected)


BAD = {
    "infinite": ("kalman", [1.0, np.inf], r"inf is not finite \(column 1, time 7\)"),
    "text": ("kalman", [1.0, "a"], r"'a' is not a number \(column 1, time 7\)"),
    "short": ("kalman", [1.0], "1 columns, but the parameters are of 2"),
    "number for two": ("kalman", 1.0, "1 columns, but the parameters are of 2"),
    "matrix": ("kalman", np.ones((1, 2)), r"the row at time 7 has shape \(1, 2\), expected \(2,\)"),
    "no column": ("kalman", {"a": 1.0}, "1 columns, but the parameters are of 2"),
    "negative": ("poisson", -1, r"-1 is negative, but counts are expected .*time 7"),
    "half": ("poisson", 1.5, r"1.5 is not a whole number.*time 7"),
    "unseen": ("symbols", "sideways", r"the symbol 'sideways' .*time 7.* is not among 'up', 'down'"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_rows_are_refused_and_leave_the_stream_as_it_was(what):
    case, row, message = BAD[what]
    model, params, y = CASES[case](T=3)
    stream = model.stream(params)
    stream.update(y[0], time=3)
    before = stream.predicted
    with pytest.raises(DataError, match=message):
        stream.update(row, time=7)
    assert (stream.n_rows, stream.time) == (1, 3)
    np.testing.assert_array_equal(stream.predicted, before)
    stream.update(y[1], time=7)


def test_a_name_that_is_missing_is_named():
    model, params, _ = kalman(2, 2)
    params = params.assign_coords(feature=["x", "y"], feature_aux=["x", "y"])
    with pytest.raises(DataError, match="no column 'y', only 'x', 'z'"):
        model.stream(params).update({"x": 1.0, "z": 2.0})


def test_impossible_rows_are_refused_and_leave_the_stream_as_it_was():
    model, _, _ = chain("poisson")
    params = model.parameters(initial=[1, 0], transition=np.eye(2), rate=[[0.0], [3.0]])
    stream = model.stream(params)
    stream.update(0, time=pd.Timestamp("2024-01-01"))
    with pytest.raises(ImpossibleObservationError, match="the observation at time 2024-01-02 has probability zero"):
        stream.update(1, time=pd.Timestamp("2024-01-02"))
    assert stream.n_rows == 1
    np.testing.assert_array_equal(stream.predicted, [1.0, 0.0])

    model, params, _ = kalman(1, 2)
    params["measurement_cov"] = 0.0 * params["measurement_cov"]
    stream = model.stream(params)
    with pytest.raises(SingularInnovationError, match="the observation at time 0 has a predicted covariance"):
        stream.update([1.0, 2.0])
    assert stream.n_rows == 0


def test_times_go_forward_and_are_of_one_kind():
    model, params, _ = chain("poisson")
    stream = model.stream(params)
    stream.update(1, time=5)
    with pytest.raises(DataError, match="time 5 comes after 5: rows must come in the order of time"):
        stream.update(1, time=5)
    with pytest.raises(DataError, match="time 2024-01-01 cannot be compared with 5"):
        stream.update(1, time=pd.Timestamp("2024-01-01"))
    stream.update(1, time="a name")


def test_what_is_not_ready_is_refused(tmp_path):
    model, params, y = chain("poisson")
    with pytest.raises(NotFittedError, match="no parameters yet"):
        model.stream()
    stream = model.stream(params)
    with pytest.raises(ParameterError, match="steps is empty"):
        stream.dataset([])
    model.params_ = params
    model.save(tmp_path / "model.nc")
    stream.save(tmp_path / "stream.nc")
    with pytest.raises(FileFormatError, match=r"holds a PoissonHMM: read it with PoissonHMM.load"):
        sse.PoissonHMM.resume(tmp_path / "model.nc")
    with pytest.raises(FileFormatError, match=r"holds a stream of PoissonHMM: read it with PoissonHMM.resume"):
        sse.PoissonHMM.load(tmp_path / "stream.nc")
    with pytest.raises(FileFormatError, match=r"holds a stream of PoissonHMM: read it with PoissonHMM.resume"):
        sse.GaussianHMM.resume(tmp_path / "stream.nc")
    damaged = xr.load_dataset(tmp_path / "stream.nc", engine="h5netcdf").drop_vars("stream_log_predicted")
    damaged.to_netcdf(tmp_path / "damaged.nc", engine="h5netcdf")
    with pytest.raises(FileFormatError, match="lacks 'log_predicted'"):
        sse.PoissonHMM.resume(tmp_path / "damaged.nc")


def test_memory_does_not_grow():
    import tracemalloc

    model, params, y = kalman(2, 1)
    stream = model.stream(params)

    def run(rows):
        for _ in range(rows):
            stream.update(1.0)

    run(100)
    tracemalloc.start()
    run(50)
    before = tracemalloc.get_traced_memory()[0]
    run(2000)
    assert tracemalloc.get_traced_memory()[0] < before + 10_000
    tracemalloc.stop()
