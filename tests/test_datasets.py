"""The data sets are what their codebooks say, and the files are the ones that were checked."""

from __future__ import annotations

import csv
import hashlib
import re
import socket
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from statespace_em import datasets
from statespace_em.errors import DataError

FILES = sorted(path.name for path in datasets._folder().glob("*.csv"))
LOADERS = [name for name in datasets.__all__ if name != "sp500"]


def load(name):
    return getattr(datasets, name)()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a loader tried to open a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.usefixtures("no_network")
def test_loaders_describe_what_they_return(name):
    data = load(name)
    assert {"units", "source", "licence"} <= set(data.attrs)
    if isinstance(data, pd.DataFrame):
        assert set(data.attrs["units"]) == set(data.columns.get_level_values(0))
    if isinstance(data, xr.Dataset):
        assert all("units" in variable.attrs for variable in data.data_vars.values())
    else:
        assert data.index.name is not None
        assert data.index.is_unique
        assert data.index.is_monotonic_increasing


@pytest.mark.parametrize("name", LOADERS)
def test_loaders_return_a_fresh_object(name):
    first = load(name)
    first.attrs["units"] = "changed"
    if isinstance(first, xr.Dataset):
        first["measured"][:] = 0.0
    else:
        first.iloc[:] = first.iloc[::-1].to_numpy()
    again = load(name)
    assert again.attrs["units"] != "changed"
    assert not again.equals(first)


@pytest.mark.parametrize("name", FILES)
def test_checksums(name):
    text = (datasets._folder() / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"\| (\w+\.csv) \| `([0-9a-f]{64})` \|", text))
    assert sorted(listed) == FILES
    assert hashlib.sha256((datasets._folder() / name).read_bytes()).hexdigest() == listed[name]


@pytest.mark.parametrize("name", FILES)
def test_row_counts_in_the_readme(name):
    text = (datasets._folder() / "README.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"\| (\w+\.csv) \| (\d+) \|", text))
    with (datasets._folder() / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) - 1 == int(stated[name])
    assert {len(row) for row in rows} == {len(rows[0])}


def test_the_files_are_small():
    assert sum((datasets._folder() / name).stat().st_size for name in FILES) < 1_000_000


def test_stocks():
    data = datasets.stocks()
    symbols = ["IBM", "MSFT", "AAPL", "GOOG"]
    assert data.shape == (3269, 8)
    assert data.columns.names == ["quantity", "symbol"]
    assert list(data["close"]) == list(data["log_return"]) == symbols
    assert isinstance(data.index, pd.DatetimeIndex)
    assert (data.index[0], data.index[-1]) == (pd.Timestamp("2000-03-02"), pd.Timestamp("2013-03-01"))
    assert data["close"].isna().sum().to_dict() == {"IBM": 0, "MSFT": 0, "AAPL": 0, "GOOG": 1121}
    assert data["close"]["GOOG"].first_valid_index() == pd.Timestamp("2004-08-19")
    assert data["log_return"].isna().sum().to_dict() == {"IBM": 0, "MSFT": 0, "AAPL": 0, "GOOG": 1122}
    assert data["close"].min().min() > 0


def test_stock_returns_are_natural_logs_not_percent():
    data = datasets.stocks()
    returns = data["log_return"]["IBM"]
    assert returns.index.name == "date"
    assert returns.std() == pytest.approx(0.0176, abs=5e-5)
    growth = data["close"]["IBM"].iloc[-1] / data["close"]["IBM"].iloc[0]
    assert np.exp(returns.iloc[1:].sum()) == pytest.approx(growth)
    assert data["log_return"]["AAPL"].idxmin() == pd.Timestamp("2000-09-29")


def test_cycling():
    ride = datasets.cycling()
    assert len(ride) == 4391
    assert (np.diff(ride.index) == np.timedelta64(1, "s")).all()
    assert not ride.isna().any(axis=None)
    assert ride["speed"].sum() == pytest.approx(ride["distance"].iloc[-1], rel=1e-3)


def test_cycling_clock_has_the_steps_the_codebook_tells_of():
    ride = datasets.cycling().reset_index()
    step = ride["clock"].diff()
    assert step.value_counts().to_dict() == {1: 4263, 2: 64, 0: 63}
    uneven = step.index[step.isin([0, 2])]
    assert (uneven.min(), uneven.max()) == (2436, 2801)
    ratio = ride["distance"].diff() / ride["speed"].rolling(2).mean()
    assert ratio[step == 2].median() == pytest.approx(1.03, abs=0.01)
    assert ratio[step == 0].median() == pytest.approx(0.97, abs=0.01)


def test_cycling_plane_agrees_with_the_great_circle():
    ride = datasets.cycling()
    assert ride[["east", "north"]].iloc[0].tolist() == [0.0, 0.0]
    latitude, longitude = np.deg2rad(ride["latitude"]), np.deg2rad(ride["longitude"])
    half_latitude = np.sin((latitude - latitude.iloc[0]) / 2) ** 2
    half_longitude = np.sin((longitude - longitude.iloc[0]) / 2) ** 2
    haversine = half_latitude + np.cos(latitude) * np.cos(latitude.iloc[0]) * half_longitude
    great_circle = 2 * 6371008.8 * np.arcsin(np.sqrt(haversine))
    plane = np.hypot(ride["east"], ride["north"])
    # a sphere differs from the ellipsoid by up to 0.6 % at this latitude
    np.testing.assert_allclose(plane, great_circle, rtol=0.006, atol=1e-6)


def test_cycling_plane_measures_the_distance_ridden():
    ride = datasets.cycling()
    path = np.hypot(ride["east"].diff(), ride["north"].diff()).sum()
    assert path == pytest.approx(ride["distance"].iloc[-1], rel=1e-3)


def test_earthquakes():
    counts = datasets.earthquakes()
    assert (counts.index[0], counts.index[-1], len(counts)) == (1900, 2006, 107)
    assert (counts.iloc[0], counts.iloc[-1], counts.sum(), counts.max()) == (13, 11, 2072, 41)
    assert (round(counts.mean(), 1), round(counts.var(), 1)) == (19.4, 51.6)


def test_old_faithful_in_sequence():
    eruptions = datasets.old_faithful()
    assert list(eruptions) == ["duration", "waiting", "length"]
    assert list(eruptions.index) == list(range(1, 300))
    assert eruptions["duration"].mean() == pytest.approx(3.4608, abs=1e-4)
    assert (eruptions["duration"].value_counts().reindex([2, 3, 4]) == [23, 2, 53]).all()
    length = eruptions["length"].astype(str)
    transitions = pd.crosstab(length.to_numpy()[:-1], length.to_numpy()[1:])
    assert transitions.loc[["long", "short"], ["long", "short"]].to_numpy().tolist() == [[89, 105], [104, 0]]


def test_old_faithful_waiting_is_before_the_eruption_in_one_table_and_after_it_in_the_other():
    series, table = datasets.old_faithful(), datasets.old_faithful(table="haerdle")
    assert series["duration"].corr(series["waiting"].shift(-1)) == pytest.approx(0.888, abs=1e-3)
    assert series["duration"].corr(series["waiting"]) == pytest.approx(-0.645, abs=1e-3)
    assert table["duration"].corr(table["waiting"]) == pytest.approx(0.901, abs=1e-3)


def test_old_faithful_for_mixtures():
    table = datasets.old_faithful(table="haerdle")
    assert table.shape == (272, 2)
    assert table.mean().to_dict() == pytest.approx({"duration": 3.487783, "waiting": 70.897059})


def test_old_faithful_lists_its_tables():
    with pytest.raises(DataError, match=r"no table 'haerdl'; use table='azzalini' or table='haerdle'"):
        datasets.old_faithful(table="haerdl")


def test_nile():
    flow = datasets.nile()
    assert (flow.index[0], flow.index[-1], len(flow)) == (1871, 1970, 100)
    assert flow.mean() == pytest.approx(919.35)
    assert flow.loc[:1898].mean() > flow.loc[1899:].mean() + 200


def test_buoy():
    temperature = datasets.buoy()
    assert (len(temperature), temperature.isna().sum()) == (19249, 24)
    assert temperature.index.freq == pd.Timedelta("30min")
    missing = temperature.index[temperature.isna()]
    assert missing[0] == pd.Timestamp("2016-06-14 13:30")
    assert (missing[1], missing[-1]) == (pd.Timestamp("2016-07-08 02:00"), pd.Timestamp("2016-07-08 13:00"))
    assert temperature.index[-1] == temperature.last_valid_index() == pd.Timestamp("2017-03-22")
    assert temperature.loc["2017-03-21 16:30"] == 4.276
    assert (temperature.min(), temperature.max()) == (3.612, 22.15)
    assert temperature.mean() == pytest.approx(10.58971, abs=1e-5)


def test_radar_is_called_simulated_and_has_the_statistics_in_its_attributes():
    track = datasets.radar()
    assert "simulated" in track.attrs["source"]
    assert "*simulated*" in datasets.radar.__doc__
    assert track["measured"].dims == track["true_velocity"].dims == ("time", "axis")
    missing = track["measured"].isnull()
    assert (missing.all("axis") == missing.any("axis")).all()
    assert int(missing.all("axis").sum()) == 43
    assert not (track["outlier"] & missing.all("axis")).any()
    error = track["measured"] - track["true_position"]
    typical = error.where(~track["outlier"])
    assert float(typical.std()) == pytest.approx(track.attrs["noise_sd"], rel=0.1)
    assert float(error.where(track["outlier"]).std()) == pytest.approx(track.attrs["outlier_sd"], rel=0.3)
    interval = float(track["time"].diff("time")[0])
    change = track["true_velocity"].diff("time")
    assert float((change**2).mean()) == pytest.approx(track.attrs["acceleration_density"] * interval, rel=0.2)


def test_radar_truth_is_a_path():
    track = datasets.radar()
    step = track["true_position"].diff("time").to_numpy()
    velocity = track["true_velocity"].to_numpy()
    middle = 2.0 * (velocity[1:] + velocity[:-1]) / 2
    # what is left has variance q dt^3 / 12
    residual_sd = np.sqrt(track.attrs["acceleration_density"] * 2.0**3 / 12)
    assert np.std(step - middle) == pytest.approx(residual_sd, rel=0.1)


def test_sp500_without_arch_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "arch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "arch", None)
    with pytest.raises(ImportError, match="pip install arch"):
        datasets.sp500()


def test_sp500_with_arch():
    pytest.importorskip("arch")
    data = datasets.sp500()
    assert data.shape == (5031, 2)
    assert data.index.name == "date"
    assert data["log_return"].std() == pytest.approx(0.012, abs=1e-3)
