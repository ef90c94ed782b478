"""Every container of the same numbers gives the same batch and the same answers, under the user's own labels."""

from __future__ import annotations

import sys
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em import containers
from statespace_em.data import as_batch
from statespace_em.errors import DataError, ParameterError

NAN = np.nan
Y = np.array([[0.0, 1.0], [2.0, NAN], [3.0, 4.0], [1.0, 0.0], [5.0, 2.0]])
INDEXES = {
    "days": pd.date_range("2020-01-30", periods=5, name="day"),
    "zone": pd.date_range("2020-03-28", periods=5, freq="12h", tz="Europe/Paris"),
    "period": pd.period_range("2020-01", periods=5, freq="M", name="month"),
    "elapsed": pd.timedelta_range("0s", periods=5, freq="s"),
    "year": pd.RangeIndex(1871, 1876, name="year"),
    "seconds": pd.Index([0.0, 0.1, 0.25, 0.5, 1.5], name="t"),
    "words": pd.Index(list("edcba"), name="row"),
    "timestamp": pd.RangeIndex(5, name="timestamp"),
}


@pytest.fixture(scope="module")
def model():
    """Two states, two features, with parameters that carry no feature names."""
    model = sse.GaussianHMM(["calm", "stress"])
    model.params_ = model.parameters(
        initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.2, 0.8]], mean=[[0.0, 0.0], [3.0, 3.0]], cov=[np.eye(2)] * 2
    )
    return model


def frame(index="days", columns=("a", "b"), dtype=float):
    return pd.DataFrame(Y, INDEXES[index], list(columns)).astype(dtype)


def same(batch, y, starts=None):
    np.testing.assert_array_equal(batch.y, y)
    assert batch.y.dtype == float
    assert batch.y.flags.c_contiguous
    assert batch.starts.tolist() == (starts or [0, len(y)])


def answers(model, y, params=None):
    """All that can be asked about y; labels are compared by `xr.testing`."""
    posterior = model.e_step(y, params)
    return {
        "e_step": posterior,
        "decode": model.decode(y, params),
        "filter": model.filter(y, params),
        "forecast": model.forecast(y, 2, params),
        "m_step": model.m_step(y, posterior, params),
        "score": model.score(y, params),
    }


# one sequence

WHOLE = {
    "array": lambda y: y,
    "fortran": np.asfortranarray,
    "long double": lambda y: y.astype(np.longdouble),
    "float32": lambda y: y.astype(np.float32),
    "objects": lambda y: y.astype(object),
    "None": lambda y: np.where(np.isnan(y), None, y),
    "pd.NA": lambda y: np.where(np.isnan(y), pd.NA, y.astype(object)),
    "masked": lambda y: np.ma.array(np.nan_to_num(y, nan=99.0), mask=np.isnan(y)),
    "masked ints": lambda y: np.ma.array(np.nan_to_num(y, nan=99.0).astype(int), mask=np.isnan(y)),
    "frame": pd.DataFrame,
    "frame of objects": lambda y: pd.DataFrame(y).astype(object),
    "Int64": lambda y: pd.DataFrame(y).astype("Int64"),
    "Float64": lambda y: pd.DataFrame(y).astype("Float64"),
    "pyarrow": lambda y: pd.DataFrame(y).astype("double[pyarrow]"),
    "sparse": lambda y: pd.DataFrame(y).astype(pd.SparseDtype(float, NAN)),
    "categories": lambda y: pd.DataFrame(y).astype("category"),
    "ints beside floats": lambda y: pd.DataFrame({0: y[:, 0].astype(int), 1: y[:, 1]}),
    "(time, feature)": lambda y: xr.DataArray(y, dims=("time", "feature")),
    "(feature, time)": lambda y: xr.DataArray(y.T, dims=("feature", "time")),
    "DataArray of objects": lambda y: xr.DataArray(np.where(np.isnan(y), None, y), dims=("time", "feature")),
    "Dataset of one": lambda y: xr.Dataset({"y": (("feature", "time"), y.T)}),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_containers_of_the_same_numbers_give_the_same_answers(model, kind):
    y = WHOLE[kind](Y)
    batch, labels, symbols = as_batch(y)
    same(batch, Y)
    assert symbols is None
    assert labels.sequence is None
    expected, found = answers(model, Y), answers(model, y)
    for name, value in expected.items():
        if name == "score":
            assert found[name] == value
        else:
            xr.testing.assert_identical(found[name], value)


@pytest.mark.parametrize(
    "y",
    [
        [0, 2, 3],
        [0.0, 2, 3],
        (0, 2, 3),
        range(0),
        [Decimal(0), 2, 3.0],
        [False, np.int8(2), np.float32(3)],
        pd.Index([0, 2, 3]),
        pd.array([0, 2, 3]),
        pd.Series([0, 2, 3]),
        np.array([0, 2, 3], np.uint8),
        xr.DataArray([0, 2, 3], dims="time"),
    ],
    ids=lambda y: type(y).__name__,
)
def test_one_column(y):
    if isinstance(y, range):
        y, expected = range(4), np.arange(4.0)[:, None]
    else:
        expected = np.array([[0.0], [2.0], [3.0]])
    same(as_batch(y)[0], expected)


@pytest.mark.parametrize(
    "y",
    [
        [1, None, 0],
        [1, pd.NA, 0],
        [1, NAN, 0],
        [True, None, False],
        pd.array([True, None, False]),
        pd.Series([1, None, 0], dtype="int8[pyarrow]"),
        pd.Series([1, None, 0], dtype="category"),
        np.ma.array([1, 5, 0], mask=[0, 1, 0]),
        np.ma.array([True, True, False], mask=[0, 1, 0]),
    ],
    ids=lambda y: str(getattr(y, "dtype", y)),
)
@pytest.mark.parametrize("support", ["real", "count"])
def test_every_mark_of_missing(y, support):
    same(as_batch(y, support=support)[0], [[1.0], [NAN], [0.0]])


def test_a_plain_float_array_is_not_copied():
    y = np.zeros((10, 2))
    assert as_batch(y)[0].y is y


# labels


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("kind", ["frame", "array", "dataset"])
def test_timestamps_and_column_names_come_back(model, index, kind):
    y = frame(index)
    time = y.index.name or "time"
    if kind != "frame":
        y.index.name = time
        y = y.to_xarray() if kind == "dataset" else y.to_xarray().to_dataarray("feature")
    for name, result in answers(model, y).items():
        if name in ("e_step", "decode", "filter"):
            assert result.indexes[time].equals(INDEXES[index]), name
            assert result.sizes == {time: 5, "state": 2, "next_state": 2} or name != "e_step"
        if name in ("forecast", "m_step"):
            assert result["feature"].values.tolist() == ["a", "b"]
    if hasattr(INDEXES[index], "tz"):
        assert model.e_step(y).indexes[time].tz == INDEXES[index].tz


def test_a_name_of_a_series_comes_back():
    model = sse.PoissonHMM(1).fit(pd.Series([1, 2, 4], name="quakes"))
    assert model.params_["feature"].values.tolist() == ["quakes"]
    assert model.score(pd.Series([1, 2], name="storms")) == model.score([1, 2])  # another series may follow


def test_time_is_found_by_name_by_dates_or_by_not_being_words(model):
    days, names = INDEXES["days"], ["a", "b"]
    for dims, coords in (
        (("b", "time"), {}),
        (("variable", "when"), {"when": days.rename(None)}),
        (("variable", "elapsed"), {"elapsed": INDEXES["elapsed"]}),
        (("channel", "t"), {"channel": names}),
        (("channel", "t"), {"channel": names, "t": np.arange(5)}),
        (("feature", "t"), {}),
    ):
        batch, labels, _ = as_batch(xr.DataArray(Y.T, coords, dims))
        same(batch, Y)
        assert labels.time == dims[1]


def test_columns_of_several_levels_become_tuples(model):
    y = pd.DataFrame(Y, columns=pd.MultiIndex.from_tuples([("return", "a"), ("return", "b")]))
    assert model.m_step(y, model.e_step(y))["feature"].values.tolist() == [("return", "a"), ("return", "b")]


# several sequences

LONG, SHORT = Y, Y[:2]
BOTH, STARTS = np.concatenate([LONG, SHORT]), [0, 5, 7]


def stacked(order=None):
    rows = pd.concat({"u": frame(), "v": frame()[:2]}, names=["animal", "day"])
    return rows if order is None else rows.iloc[order]


SEVERAL = {
    "list": ("sequence", [0, 1], [LONG, SHORT]),
    "tuple": ("sequence", [0, 1], (LONG, SHORT)),
    "lists of rows": ("sequence", [0, 1], [LONG.tolist(), SHORT.tolist()]),
    "dict": ("sequence", ["u", "v"], {"u": LONG, "v": SHORT}),
    "dict with dates as keys": ("sequence", [date(2020, 1, 1), date(2021, 1, 1)], None),
    "dict of frames": ("sequence", ["u", "v"], {"u": frame(), "v": frame()[:2]}),
    "dict of reordered frames": ("sequence", ["u", "v"], {"u": frame(), "v": frame()[:2][["b", "a"]]}),
    "dict of a frame and an array": ("sequence", ["u", "v"], {"u": frame(), "v": SHORT}),
    "list of DataArrays": ("sequence", [0, 1], [xr.DataArray(y.T, dims=("feature", "time")) for y in (LONG, SHORT)]),
    "list of Datasets": ("sequence", [0, 1], [frame().to_xarray(), frame()[:2].to_xarray()]),
    "two levels": ("animal", ["u", "v"], stacked()),
    "two levels, interleaved": ("animal", ["u", "v"], stacked([0, 5, 1, 6, 2, 3, 4])),
    "DataArray with lengths": (
        "animal",
        ["u", "v"],
        xr.DataArray(
            np.stack([LONG, np.full((5, 2), 7.0)]),
            {"animal": ["u", "v"], "length": ("animal", [5, 2])},
            ("animal", "time", "feature"),
        ),
    ),
}
SEVERAL["dict with dates as keys"] = (
    *SEVERAL["dict with dates as keys"][:2],
    {date(2020, 1, 1): LONG, date(2021, 1, 1): SHORT},
)
SEVERAL["DataArray with lengths"][2].values[1, :2] = SHORT


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_sequences(model, kind):
    sequence, keys, y = SEVERAL[kind]
    same(as_batch(y)[0], BOTH, STARTS)
    expected = answers(model, [LONG, SHORT])
    found = answers(model, y)
    assert found["score"] == expected["score"]
    for name in ("e_step", "decode", "filter", "forecast"):
        assert found[name].indexes[sequence].tolist() == keys, name
        plain = found[name].rename({sequence: "sequence"}) if sequence != "sequence" else found[name]
        for variable in ("gamma", "xi", "log_likelihood", "filtered", "predicted", "mean", "state", "log_prob"):
            if variable in plain or variable in plain.coords:
                np.testing.assert_array_equal(plain[variable].values, expected[name][variable].values)
    np.testing.assert_array_equal(found["m_step"]["cov"].values, expected["m_step"]["cov"].values)
    posterior = found["e_step"]
    assert posterior["length"].values.tolist() == [5, 2]
    assert posterior["gamma"][1, 2:].isnull().all()
    assert posterior["gamma"][1, :2].notnull().all()
    assert found["decode"][1, 2:].isnull().all()


def test_a_level_that_is_out_of_order_keeps_the_order_of_appearance():
    batch, labels, _ = as_batch(stacked([5, 6, 0, 1, 2, 3, 4]))
    same(batch, np.concatenate([SHORT, LONG]), [0, 2, 7])
    assert labels.keys.tolist() == ["v", "u"]


def test_series_of_several_names_are_sequences_of_one_column():
    batch, labels, _ = as_batch({"IBM": pd.Series([1.0, 2.0], name="IBM"), "MSFT": pd.Series([3.0], name="MSFT")})
    same(batch, [[1.0], [2.0], [3.0]], [0, 2, 3])
    assert labels.features.tolist() == [0]


@pytest.mark.parametrize("dims", [("sequence", "time"), ("time", "sequence"), ("sequence", "when")])
def test_a_sequence_dim_without_features(dims):
    y = Y.T if dims[0] == "sequence" else Y
    batch, labels, _ = as_batch(xr.DataArray(y, dims=dims))
    same(batch, Y.T.reshape(-1, 1), [0, 5, 10])
    assert labels.time == next(dim for dim in dims if dim != "sequence")


def test_a_dataset_of_several_sequences():
    y = xr.Dataset({name: (("sequence", "time"), np.stack([Y[:, d], Y[::-1, d]])) for d, name in enumerate("ab")})
    batch, labels, _ = as_batch(y)
    same(batch, np.concatenate([Y, Y[::-1]]), [0, 5, 10])
    assert labels.features.tolist() == ["a", "b"]


@pytest.mark.parametrize("index", INDEXES)
def test_timestamps_that_differ_come_back_as_a_coordinate(model, index):
    y = frame(index)
    result = model.e_step({"u": y, "v": y[2:4]})
    time = y.index.name or "time"
    assert result["timestamp"].dims == ("sequence", time)
    assert result["timestamp"].values[1].tolist()[:2] == result["timestamp"].values[0].tolist()[2:4]
    assert pd.isna(result["timestamp"].values[1, 2:]).all()
    if index in ("days", "elapsed"):
        assert result["timestamp"].dtype.kind in "mM"
    # a result for ragged sequences is itself a container
    coords = {name: result[name] for name in ("sequence", "length", "timestamp")}
    padded = xr.DataArray(np.stack([Y, np.full_like(Y, NAN)]), coords, ("sequence", time, "feature"))
    padded.values[1, :2] = Y[2:4]
    batch, labels, _ = as_batch(padded)
    same(batch, np.concatenate([Y, Y[2:4]]), [0, 5, 7])
    assert all(own.tolist() == given.tolist() for own, given in zip(labels.times, (y.index, y.index[2:4])))


def test_equal_timestamps_stay_a_plain_index(model):
    result = model.e_step({"u": frame("zone"), "v": frame("zone")[:3]})
    assert result.indexes["time"].equals(INDEXES["zone"])
    assert "timestamp" not in result.coords


def test_what_sample_draws_can_be_fitted_and_asked(model):
    y = model.sample(200, seed=0)["y"]
    fitted = sse.GaussianHMM(2, order_by="mean").fit(y)
    assert fitted.converged_
    assert fitted.decode(y).sizes == {"time": 200}
    symbols = sse.CategoricalHMM(2).fit(list("xyzzyxxyzyxzxxyzzy"))
    assert symbols.decode(symbols.sample(9, seed=0)["y"]).sizes == {"time": 9}


def calls(work):
    """Number of function calls that work makes: what grows with the rows if something is done row by row."""
    count = 0

    def seen(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_the_work_on_a_list_of_sequences_grows_with_their_number_only():
    def frame(n_sequences):
        return pd.DataFrame({"a": 1.0, "b": 2.0}, pd.MultiIndex.from_product([range(n_sequences), range(5)]))

    small, large = frame(100), frame(1000)
    calls(lambda: as_batch(small))  # what is imported or cached on first use does not count
    assert calls(lambda: as_batch(large)) < 12 * calls(lambda: as_batch(small))


# names of columns against those of the parameters


@pytest.fixture(scope="module")
def labelled(model):
    """The same parameters, known to be of columns a and b."""
    return model.params_.assign_coords(feature=["a", "b"], feature_aux=["a", "b"])


@pytest.mark.parametrize(
    "y",
    [
        frame(),
        frame()[["b", "a"]],
        frame().assign(c=1.0, d="text")[["d", "b", "c", "a"]],
        Y,
        pd.DataFrame(Y),
        frame().to_xarray()[["b", "a"]],
        xr.DataArray(Y[:, ::-1], dims=("time", "feature"), coords={"feature": ["b", "a"]}),
        {"u": frame()[["b", "a"]]},
    ],
    ids=["same", "reordered", "superset", "array", "numbered", "dataset", "dataarray", "dict"],
)
def test_columns_are_found_by_name(model, labelled, y):
    assert model.score(y, labelled) == model.score(Y)


def test_numbered_parameters_take_any_names(model):
    assert model.forecast(frame(columns=("p", "q")), 1)["feature"].values.tolist() == ["p", "q"]
    swapped = pd.DataFrame(Y[:, ::-1], columns=pd.Index([1, 0]))
    assert model.score(swapped) == model.score(Y)  # but numbers are names too


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (frame()[["a"]], r"y has no column 'b', only 'a': add or rename it, or fit again"),
        ({"u": frame(), "v": frame()[["a"]]}, r"y of sequence 'v' has no column 'b', only 'a'"),
        (Y[:, :1], r"y has 1 columns, but the parameters are of 2 \('a', 'b'\): pass as many"),
        (frame()["a"], r"y has 1 columns, but the parameters are of 2 \('a', 'b'\): pass as many"),
    ],
)
def test_columns_that_are_not_there(model, labelled, y, message):
    with pytest.raises(DataError, match=message):
        model.decode(y, labelled)


# what cannot be read

TWO = xr.DataArray(Y, dims=("time", "feature"))
UNREADABLE = {
    "None": (None, r"^y is None, expected an array, Series"),
    "number": (3.0, r"^y is a float, expected an array"),
    "text": ("abc", r"^y is 'abc', expected an array"),
    "generator": ((i for i in range(3)), r"^y is a generator, expected an array"),
    "set": ({1, 2}, r"^y is a set, expected an array"),
    "dict of numbers": ({"u": 1, "v": 2}, r"^y of sequence 'u' is an int, expected an array"),
    "empty list": ([], r"^y has no rows: pass at least one\.$"),
    "empty dict": ({}, r"^y holds no sequence: pass at least one"),
    "empty array": (np.zeros((0, 2)), r"^y has no rows: pass at least one\.$"),
    "no columns": (np.zeros((3, 0)), r"^y has no columns: pass at least one"),
    "empty frame": (pd.DataFrame(), r"^y has no rows"),
    "empty Dataset": (xr.Dataset(), r"^y is a Dataset without variables"),
    "empty sequence": ([Y, Y[:0]], r"^y of sequence 1 has no rows: pass at least one, or leave it out"),
    "None in a list": ([Y, None], r"^y is a list of sequences, but its entry 1 is None: leave it out"),
    "number in a list": ([Y, 2], r"but its entry 1 is an int"),
    "ragged rows": ([[[1, 2], [3]]], r"^the rows of y of sequence 0 are not of equal length: mark .* NaN"),
    "scalar array": (np.array(3.0), r"^y has shape \(\), expected \(N,\) or \(N, D\)"),
    "three axes": (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\), .* several sequences go in a list"),
    "four axes": (np.zeros((2, 3, 4, 5)), r"shape \(2, 3, 4, 5\)"),
    "four dims": (
        xr.DataArray(np.zeros((2, 2, 2, 2)), dims=("sequence", "time", "feature", "k")),
        r"of sequence 0 has dims \(time, feature, k\)",
    ),
    "three unknown dims": (
        xr.DataArray(np.zeros((2, 2, 2)), dims=list("abc")),
        r"dims \(a, b, c\): name them 'sequence', 'time'",
    ),
    "no time": (xr.DataArray([1.0], dims="feature"), r"dims \(feature\), none of which is time"),
    "Dataset of sample": (
        xr.Dataset({"state": ("time", list("abcde")), "y": TWO}),
        r"state \(time\); y \(time, feature\)\): pass one of them, as in y\['y'\]",
    ),
    "stacked": (TWO.stack(both=("time", "feature")), r"dimension 'both' of y is stacked: unstack it"),
    "complex": (np.array([1j, 2]), r"column 0 has dtype complex128, expected numbers: leave it out, or pass real"),
    "complex objects": ([1j, 2], r"^1j is not a number \(column 0, time 0\)"),
    "dates": (
        pd.DataFrame({"when": INDEXES["days"]}),
        r"column 'when' has dtype datetime64.*: leave it out, or make it the index",
    ),
    "date objects": ([1, date(2020, 1, 2)], r"^2020-01-02 is not a number \(column 0, time 1\)"),
    "text in a column": (
        frame().astype(object).replace({4.0: "four"}),
        r"^'four' is not a number \(column 'b', day 2020-02-01\): convert it",
    ),
    "text of digits": (["1", "2"], r"^'1' is not a number \(column 0, time 0\)"),
    "fields": (np.array([(1, 2.0)], [("a", int), ("b", float)]), r"fields 'a', 'b': pass pd.DataFrame\(y\)"),
    "three levels": (pd.DataFrame({"a": [1]}, pd.MultiIndex.from_tuples([(1, 2, 3)])), r"has 3 levels, expected two"),
    "levels in a list": ([stacked()], r"the index of y of sequence 0 has 2 levels, expected one"),
    "missing key": (
        frame().set_index(pd.MultiIndex.from_arrays([["u", "u", None, "v", "v"], range(5)], names=["dog", "t"])),
        r"dog is missing at row 2 \(time 2\): drop that row or name its dog",
    ),
    "same column twice": (pd.DataFrame(Y, columns=["a", "a"]), r"^y has the column 'a' twice: rename or drop one"),
    "other columns": (
        {"u": frame(), "v": frame(columns=("a", "c"))},
        r"^sequence 'v' has columns 'a', 'c', but sequence 'u' has 'a', 'b'",
    ),
    "fewer columns": ([Y, Y[:, :1]], r"^sequence 1 has columns 0, but sequence 0 has 0, 1"),
    "reserved name": (
        frame().rename_axis("state"),
        r"dimension 'state', which means something else in the results: rename it",
    ),
    "same name twice": (stacked().rename_axis(["t", "t"]), r"dimension 't', which means"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_input(kind):
    y, message = UNREADABLE[kind]
    with pytest.raises(DataError, match=message) as caught:
        as_batch(y)
    assert "np." not in str(caught.value)
    assert "Timestamp(" not in str(caught.value)


@pytest.mark.parametrize("family", [sse.emissions.Gaussian(), sse.emissions.Poisson()], ids=["gaussian", "poisson"])
@pytest.mark.filterwarnings("ignore::statespace_em.errors.DataWarning")  # few rows on purpose
def test_what_is_all_missing_cannot_be_fitted_but_can_be_asked(family):
    y = np.c_[[0, 1, 5, 6, 1, 0, 7], np.full(7, NAN)]
    with pytest.raises(DataError, match="column 1 has no value at all, so it tells nothing: leave it out"):
        sse.HMM(2, family).fit(y)
    with pytest.raises(DataError, match=r"missing: there is nothing to fit"):
        sse.HMM(2, family).fit(np.full((7, 2), NAN))
    model = sse.HMM(2, family).fit(np.c_[y[:, 0], y[::-1, 0]])
    assert np.isfinite(model.score(y))
    assert model.score(np.full((3, 2), NAN)) == pytest.approx(0.0, abs=1e-12)


def test_options():
    with pytest.raises(ParameterError, match="unsorted is 'sorted', expected one of 'error', 'sort'"):
        as_batch(Y, unsorted="sorted")
    with pytest.raises(ParameterError, match="support is 'counts', expected one of 'real', 'count'"):
        as_batch(Y, support="counts")


# order of time

UNORDERED = {
    "days": (["2020-01-02", "2020-01-01"], "2020-01-01 comes after 2020-01-02"),
    "hours": (["2020-01-02 00:00", "2020-01-01 03:00"], "2020-01-01 03:00:00 comes after 2020-01-02"),
}


@pytest.mark.parametrize("times", UNORDERED)
def test_timestamps_that_go_back(times):
    stamps, message = UNORDERED[times]
    y = pd.Series([1.0, 2.0], pd.DatetimeIndex(stamps, name="day"), name="a")
    with pytest.raises(DataError, match=f"^day {message}: sort y first, or build the model with unsorted='sort'"):
        as_batch(y)
    with pytest.raises(DataError, match="of sequence 'u' comes after"):
        as_batch({"u": y})
    batch, labels, _ = as_batch(y, unsorted="sort")
    same(batch, [[2.0], [1.0]])
    assert labels.times[0].is_monotonic_increasing


@pytest.mark.parametrize(
    ("index", "first", "second"),
    [
        (pd.PeriodIndex(["2020-02", "2020-01"], freq="M"), "2020-02", "2020-01"),
        (pd.to_timedelta([2, 1], "s"), "0 days 00:00:02", "0 days 00:00:01"),
        (pd.Index([2, 1]), "2", "1"),
        (pd.Index([0.5, 0.25]), "0.5", "0.25"),
        (pd.Index([date(2020, 1, 2), date(2020, 1, 1)]), "2020-01-02", "2020-01-01"),
        (pd.DatetimeIndex(["2020-01-02", "2020-01-01"], tz="UTC"), "2020-01-02", "2020-01-01"),
    ],
    ids=["period", "timedelta", "int", "float", "date", "zone"],
)
def test_every_kind_of_time_is_checked(index, first, second):
    with pytest.raises(DataError, match=f"^time {second} comes after {first}: sort y first"):
        as_batch(pd.Series([1.0, 2.0], index))
    with pytest.raises(DataError, match=f"^time {first} occurs more than once: average or drop the duplicates"):
        as_batch(pd.Series([1.0, 2.0], index[[0, 0]]))
    same(as_batch(pd.DataFrame({"a": [1.0, 2.0]}, index), unsorted="sort")[0], [[2.0], [1.0]])
    array = xr.DataArray([1.0, 2.0], {"time": index}, ("time",))
    same(as_batch(array, unsorted="sort")[0], [[2.0], [1.0]])


def test_missing_timestamps():
    y = pd.Series([1.0, 2.0], pd.DatetimeIndex(["2020-01-01", None], name="day"))
    with pytest.raises(DataError, match="day is missing at row 1: drop that row or give it a day"):
        as_batch(y)


def test_names_of_rows_need_no_order():
    same(as_batch(pd.Series([1.0, 2.0, 3.0], ["b", "a", "a"]))[0], [[1.0], [2.0], [3.0]])


# symbols


def test_symbols_are_sorted_and_missing_ones_are_nan():
    for marks in ([None, NAN, pd.NA], [None] * 3):
        y = np.array(["b", marks[0], "a", marks[1], "b", marks[2]], dtype=object)
        for given in (y, pd.Series(y), pd.Series(y, dtype="string"), pd.Series(y, dtype="category"), y.tolist()):
            batch, _, symbols = as_batch(given, support="category")
            same(batch, np.array([[1.0, NAN, 0.0, NAN, 1.0, NAN]]).T)
            assert symbols == ["a", "b"]


@pytest.mark.parametrize(
    ("y", "symbols"),
    [
        (np.array(["b", "a"]), ["a", "b"]),
        ([3, 1], [1, 3]),
        (np.array([3, 1], np.int8), [1, 3]),
        (np.array([3.0, 1.0]), [1, 3]),
        ([2.5, 1.0], [1, 2.5]),
        (np.array([True, False]), [False, True]),
        (pd.Series([True, False], dtype="boolean"), [False, True]),
        (pd.Series([3, 1], dtype="Int64"), [1, 3]),
        (pd.Series(["b", "a"], dtype="string[pyarrow]"), ["a", "b"]),
        (xr.DataArray(["b", "a"], dims="time"), ["a", "b"]),
        (pd.Series(pd.Categorical(["lo", "hi"], ["none", "hi", "lo"])), ["none", "hi", "lo"]),
        (pd.Series(pd.Categorical([2, 1])), [1, 2]),
    ],
    ids=str,
)
def test_types_of_symbols(y, symbols):
    batch, _, found = as_batch(y, support="category")
    assert found == symbols
    assert [type(s) for s in found] == [type(s) for s in symbols]
    assert [found[int(code)] for code in batch.y[:, 0]] == np.asarray(y).tolist()


def test_several_channels_share_the_symbols():
    y = pd.DataFrame({"left": list("aab"), "right": ["c", None, "a"]})
    batch, _, symbols = as_batch(y, support="category")
    same(batch, [[0.0, 2.0], [0.0, NAN], [1.0, 0.0]])
    assert symbols == ["a", "b", "c"]


def test_shared_categories_keep_their_order_and_different_ones_are_united():
    shared = pd.CategoricalDtype(["c", "a", "b"])
    y = {"u": pd.Series(list("ab"), dtype=shared), "v": pd.Series(["b"], dtype=shared)}
    assert as_batch(y, support="category")[2] == ["c", "a", "b"]
    y = {"u": pd.Series(list("ab"), dtype="category"), "v": pd.Series(["d"], dtype="category")}
    batch, _, symbols = as_batch(y, support="category")
    assert symbols == ["a", "b", "d"]
    same(batch, [[0.0], [1.0], [2.0]], [0, 2, 3])
    mixed = pd.DataFrame({"p": pd.Categorical(["b", "a"]), "q": ["c", "c"]})
    assert as_batch(mixed, support="category")[2] == ["a", "b", "c"]


def test_the_order_of_given_symbols_is_kept():
    model = sse.CategoricalHMM(2, symbols=["z", "y", "x"]).fit(list("xyxxyyxyxxyxyx"))
    assert model.params_["symbol"].values.tolist() == ["z", "y", "x"]
    assert (model.params_["prob"].sel(symbol="z") == 0.0).all()
    assert as_batch(pd.Categorical(["x", "y"], ["x", "y", "unused"]), support="category", symbols="yx")[2] == ["y", "x"]


@pytest.mark.parametrize(
    ("y", "where"),
    [
        (pd.Series(["x", "w"], pd.DatetimeIndex(["2020-01-01", "2020-01-02"])), "column 0, time 2020-01-02"),
        (["x", "w"], "column 0, time 1"),
        ({"u": ["x", "y"], "v": ["y", "y", "w"]}, "column 0, time 2 of sequence 'v'"),
        (pd.Series(["x", "w"], dtype="category"), "column 0, time 1"),
    ],
)
def test_unseen_symbols(y, where):
    model = sse.CategoricalHMM(2).fit(list("xyxxyyxyxxyxyx"))
    with pytest.raises(DataError, match=rf"^the symbol 'w' \({where}\) is not among 'x', 'y': mark it missing, or fit"):
        model.decode(y)


def test_a_long_list_of_symbols_is_cut_short():
    with pytest.raises(DataError, match=r"not among 0, 1, .*, 9, \.\.\. \(40 in all\): mark it"):
        as_batch([99], support="category", symbols=range(40))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, "a"], "several types, such as 1 and 'a': make them one, as in y.astype"),
        ([None, None], "y holds no symbol at all: every entry is missing"),
        (pd.Series([["a"], ["b"]]), "cannot be symbols, such as lists"),
    ],
)
def test_what_cannot_be_symbols(y, message):
    with pytest.raises(DataError, match=message):
        as_batch(y, support="category")


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        (3, r"symbols is 3, expected a list such as \['a', 'b'\]"),
        ([], "symbols is empty: name at least one"),
        (["a", "b", "a"], "symbols holds 'a' twice"),
        (["a", NAN], "symbols holds nan, which marks missing entries"),
        (["a", None], "symbols holds None, which marks missing entries"),
    ],
)
def test_bad_lists_of_symbols(symbols, message):
    with pytest.raises(ParameterError, match=message):
        sse.CategoricalHMM(2, symbols=symbols).fit(["a", "b", "a", "a"])


# cost


@pytest.mark.parametrize(
    ("make", "support"),
    [
        (lambda y: y, "real"),
        (lambda y: pd.DataFrame(y), "real"),
        (lambda y: pd.DataFrame(y, columns=list("abcd")).assign(e=1), "real"),
        (lambda y: pd.Series(y[:, 0]).astype("Float64"), "real"),
        (lambda y: pd.Series(y[:, 0] > 0).astype(str).astype("category"), "category"),
        (lambda y: (y[:, 0] > 0).astype(int), "category"),
        (lambda y: pd.Series(y[:, 0] > 0).astype(str).astype(object), "category"),
    ],
    ids=["array", "frame", "mixed frame", "Float64", "categories", "ints", "strings"],
)
def test_no_row_is_read_by_itself(make, support):
    y = np.random.default_rng(0).normal(size=(100_000, 4))
    small, large = make(y[:1000]), make(y)
    calls(lambda: as_batch(small, support=support))
    assert calls(lambda: as_batch(large, support=support)) < 2 * calls(lambda: as_batch(small, support=support))


def test_sequences_of_an_array_are_read_as_each_of_them():
    """Labels of the slices are looked at once: columns in another order, time to sort."""
    model = sse.LinearGaussianSSM(1, unsorted="sort")
    params = model.parameters(
        transition=[[0.9]], process_cov=[[1]], observation=[[1], [2]], measurement_cov=np.eye(2),
        initial_mean=[0], initial_cov=[[1]],
    ).assign_coords(feature=["a", "b"], feature_aux=["a", "b"])  # fmt: skip
    values = np.random.default_rng(1).normal(size=(5, 3, 2))
    values[2, 1, 0] = np.nan
    time = pd.to_datetime(["2024-01-03", "2024-01-01", "2024-01-02", "2024-01-05", "2024-01-04"])
    y = xr.DataArray(values, {"time": time, "unit": list("xyz"), "feature": ["b", "a"]}, ("time", "unit", "feature"))
    together = model.e_step(y, params)
    for unit in "xyz":
        alone = model.e_step(y.sel(unit=unit, drop=True), params)
        xr.testing.assert_equal(together.sel(unit=unit).drop_vars(["unit", "length"]), alone)


def test_sequences_with_the_same_labels_are_checked_once(monkeypatch):
    checked, ordered = [], containers._ordered
    monkeypatch.setattr(containers, "_ordered", lambda *args: checked.append(1) or ordered(*args))
    as_batch(xr.DataArray(np.arange(24.0).reshape(4, 6), dims=("sequence", "time")))
    assert len(checked) == 1


@pytest.mark.parametrize("name", ["gamma", "filtered", "mean", "log_likelihood", "horizon"])
def test_a_time_called_as_results_are_is_refused(name):
    with pytest.raises(DataError, match=f"y has a dimension {name!r}, which means something else in the results"):
        as_batch(pd.Series([1.0, 2.0], pd.Index([0, 1], name=name)))


def test_a_time_that_is_called_by_no_string_is_refused():
    with pytest.raises(DataError, match=r"y has a dimension \('a', 1\), which is no string: rename it"):
        as_batch(xr.DataArray([1.0, 2.0], dims=[("a", 1)]))
    y = pd.Series([1.0, 2.0, 0.5], pd.Index([0, 1, 2], name=("a", 1)))  # pandas lets all be names
    model = sse.LinearGaussianSSM(1)
    params = model.parameters(
        transition=[[1]],
        process_cov=[[1]],
        observation=[[1]],
        measurement_cov=[[1]],
        initial_mean=[0],
        initial_cov=[[1]],
    )
    assert model.filter(y, params)["filtered"].dims == ("('a', 1)", "state")


def test_values_whose_squares_are_nothing_are_refused():
    y = np.array([1.0, -2.0, np.nan, 0.0, 3.0])
    with pytest.raises(
        DataError, match=r"1e-160 is too small: its square is beyond floating point \(column 0, time 0\): "
    ):
        as_batch(1e-160 * y)
    assert as_batch(1e-130 * y)[0].y[1, 0] == -2e-130
    assert as_batch(np.append(y, 1e-300))[0].y[-1, 0] == 1e-300  # one next to nothing among others
    assert not as_batch(0.0 * y)[0].y[:2].any()


def test_arrays_that_are_read_only_stay_so_and_ask_for_no_new_kernels():
    y = np.arange(6.0)
    y.flags.writeable = False
    batch = as_batch(y)[0]
    assert batch.y.flags.writeable
    assert not np.shares_memory(batch.y, y)
    assert not y.flags.writeable
