"""Labels: written as a user reads them, packed and unpacked by name."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from statespace_em.errors import ParameterError
from statespace_em.labels import Labels, listed, pack, show, state_names, unpack

DAYS = pd.date_range("2020-01-01", periods=3)


def labels(*times, sequence="animal", time="day"):
    keys = pd.Index(["u", "v", "w"][: len(times)])
    return Labels(time, tuple(times), pd.Index(["a", "b"]), sequence, keys)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (DAYS[0], "2020-01-01"),
        (DAYS.values[0], "2020-01-01"),
        (pd.Timestamp("2020-01-01 03:00"), "2020-01-01 03:00:00"),
        (pd.Timestamp("2020-01-01 03:00", tz="UTC"), "2020-01-01 03:00:00+00:00"),
        (datetime(2020, 1, 1, 3), "2020-01-01 03:00:00"),
        (date(2020, 1, 1), "2020-01-01"),
        (pd.Period("2020-01", "M"), "2020-01"),
        (pd.Timedelta("90min"), "0 days 01:30:00"),
        (np.timedelta64(90, "m"), "0 days 01:30:00"),
        (pd.Interval(0, 1), "(0, 1]"),
        (np.str_("calm"), "'calm'"),
        (np.float64(0.5), "0.5"),
        (np.int64(3), "3"),
        (np.True_, "True"),
        (("a", np.int64(1)), "('a', 1)"),
        (None, "None"),
        (pd.NaT, "NaT"),
        (np.datetime64("NaT"), "NaT"),
        (pd.NA, "<NA>"),
    ],
)
def test_show(value, text):
    assert show(value) == text


def test_long_lists_are_cut_short():
    assert listed(["a", 1]) == "'a', 1"
    assert listed(range(12), 3) == "0, 1, 2, ... (12 in all)"


def test_where_counts_within_the_sequence():
    own = labels(DAYS, DAYS[:1], DAYS[1:])
    places = [own.where(row) for row in range(6)]
    assert places == [
        "day 2020-01-01 of animal 'u'",
        "day 2020-01-02 of animal 'u'",
        "day 2020-01-03 of animal 'u'",
        "day 2020-01-01 of animal 'v'",
        "day 2020-01-02 of animal 'w'",
        "day 2020-01-03 of animal 'w'",
    ]
    assert own.where(3, 1) == "column 'b', day 2020-01-01 of animal 'v'"
    assert labels(DAYS, sequence=None).where(2, 0) == "column 'a', day 2020-01-03"


@pytest.mark.parametrize("times", [(DAYS,), (DAYS, DAYS[:1]), (DAYS, DAYS[1:], DAYS[:1]), (DAYS, DAYS)])
@pytest.mark.parametrize("sequence", [None, "animal"])
def test_flat_undoes_dataset(times, sequence):
    own = labels(*(times[:1] if sequence is None else times), sequence=sequence)
    values = np.arange(2.0 * own.lengths.sum()).reshape(-1, 2)
    dataset = own.dataset({"gamma": (("state",), values)}, {"state": ["calm", "stress"], "unused": [1]})
    assert set(dataset.dims) == {"day", "state"} | ({sequence} - {None})
    np.testing.assert_array_equal(own.flat(dataset["gamma"], ("state",)), values)
    np.testing.assert_array_equal(own.flat(dataset["gamma"].transpose("state", ...), ("state",)), values)


def test_flat_refuses_what_belongs_to_other_rows():
    own, gamma = (
        labels(DAYS, DAYS[:1]),
        xr.DataArray(np.zeros((2, 4, 2)), dims=("animal", "day", "state"), name="gamma"),
    )
    with pytest.raises(ParameterError, match=r"^gamma has 2 x 4 entries along animal, day, but y has 2 x 3: pass what"):
        own.flat(gamma, ("state",))
    with pytest.raises(ParameterError, match=r"^gamma has dims \(day, state\), expected \(animal, day, state\): pass"):
        own.flat(gamma[0], ("state",))
    with pytest.raises(ParameterError, match=r"^gamma has dims \(animal, day, state\), expected \(animal, day\)"):
        own.flat(gamma, ())


def test_padding_keeps_types():
    own = labels(DAYS, DAYS[:1])
    words = own.dataset({"state": ((), np.array(["calm", "calm", "stress", "calm"]))}, {})["state"]
    assert words.values[0].tolist() == ["calm", "calm", "stress"]
    assert words.isnull().values.tolist() == [[False] * 3, [False, True, True]]
    whole = labels(DAYS, DAYS).dataset({"state": ((), np.arange(6))}, {})["state"]
    assert whole.dtype == int


@pytest.mark.parametrize(
    ("index", "kind"),
    [
        (DAYS, "M"),
        (DAYS - DAYS[0], "m"),
        (pd.RangeIndex(3), "f"),
        (pd.Index([0.5, 1.0, 2.0]), "f"),
        (DAYS.tz_localize("Europe/Paris"), "O"),
        (DAYS.to_period(), "O"),
        (pd.Index(["p", "q", "r"]), "O"),
    ],
    ids=["dates", "elapsed", "ints", "floats", "zone", "period", "words"],
)
def test_a_coordinate_of_timestamps(index, kind):
    stamps = labels(index, index[1:]).time_coords()["timestamp"][1]
    assert stamps.dtype.kind == kind
    assert pd.Index(stamps[0]).tolist() == index.tolist()
    assert pd.Index(stamps[1, :2]).tolist() == index[1:].tolist()
    assert pd.isna(stamps[1, 2])


def test_equally_long_sequences_keep_whole_numbers():
    stamps = labels(pd.RangeIndex(3), pd.RangeIndex(1, 4)).time_coords()["timestamp"][1]
    assert stamps.dtype == int


DIMS = {"transition": ("state", "next_state"), "cov": ("state", "feature", "feature_aux")}


def test_unpack_goes_by_name():
    arrays = {"transition": np.array([[0.9, 0.1], [0.2, 0.8]]), "cov": np.arange(8.0).reshape(2, 2, 2)}
    dataset = pack(arrays, DIMS, {"state": ["calm", 1], "feature": ["a", "b"]})
    assert dataset["next_state"].values.tolist() == ["calm", 1]
    turned = xr.Dataset({name: value.T for name, value in dataset.items()})
    for name, value in unpack(turned, DIMS).items():
        np.testing.assert_array_equal(value, arrays[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("cov"), "no variable 'cov': this model needs transition, cov, and was given transition"),
        (lambda d: d[[]], "and was given none"),
        (
            lambda d: d.rename(next_state="to"),
            r"transition has dims \(state, to\), expected \(state, next_state\): rename",
        ),
        (lambda d: {}, r"params is a dict, expected an xarray\.Dataset: label plain arrays with model\.parameters"),
    ],
)
def test_unpack_refuses_other_dims(change, message):
    dataset = pack({"transition": np.eye(2), "cov": np.zeros((2, 2, 2))}, DIMS, {})
    with pytest.raises(ParameterError, match=message):
        unpack(change(dataset), DIMS)


def test_state_names():
    assert state_names(2) == state_names(np.int64(2)) == [0, 1]
    names = state_names(np.array(["calm", "stress"]))
    assert names == ["calm", "stress"]
    assert all(type(name) is str for name in names)
    assert state_names(pd.Index([1, 2])) == [1, 2]


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (0, "the number of states is 0, expected at least 1"),
        (2.0, r"states is 2\.0, expected a count or a list of names such as \['calm', 'stress'\]"),
        (True, "states is True, expected a count"),
        (None, "states is None, expected a count"),
        ("ab", "states is 'ab', expected a count or a list"),
        ({"a", "b"}, "expected a count or a list"),
        ([], "states has no names"),
        (["a", "b", "a"], "states has the name 'a' twice, expected one different name a state"),
        (["a", None], "states holds None, which is not a name: use strings or numbers"),
        ([("a", 1), ("b", 1)], r"states holds \('a', 1\), which is not a name"),
    ],
)
def test_bad_state_names(states, message):
    with pytest.raises(ParameterError, match=message):
        state_names(states)


def test_datasets_with_the_same_names_share_nothing_that_can_be_changed():
    dims, coords = {"mean": ("state", "feature")}, {"state": ["calm", "stress"], "feature": ["IBM"]}
    one, other = (pack({"mean": np.full((2, 1), value)}, dims, coords) for value in (1.0, 2.0))
    one["mean"].attrs["units"] = "per cent"
    one["state"].attrs["order"] = "variance"
    one.attrs["made"] = "here"
    one["mean"][0, 0] = 5.0
    third = pack({"mean": np.full((2, 1), 3.0)}, dims, coords)
    for dataset, value in ((other, 2.0), (third, 3.0)):
        assert not dataset.attrs
        assert not dataset["mean"].attrs
        assert not dataset["state"].attrs
        assert (dataset["mean"] == value).all()


@pytest.mark.parametrize(
    ("names", "others"),
    [
        ([0, 1], [0.0, 1.0]),
        ([0, 1], ["0", "1"]),
        ([0.0, 1.0], [-0.0, 1.0]),
        ([True, False], [1, 0]),
        (["a", 1], ["a", "1"]),
    ],
)
def test_names_that_are_equal_but_not_the_same_are_kept_apart(names, others):
    dims = {"initial": ("state",)}
    for given in (names, others, names):
        found = pack({"initial": np.ones(2)}, dims, {"state": given})["state"].values.tolist()
        assert [(type(name), str(name)) for name in found] == [(type(name), str(name)) for name in given]
