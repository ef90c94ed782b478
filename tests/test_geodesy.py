"""Degrees to metres and back: lengths on the ellipsoid, round trips, bad input."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statespace_em import geodesy
from statespace_em.errors import DataError, DataWarning


def track(latitude, longitude):
    return pd.DataFrame({"latitude": np.atleast_1d(latitude), "longitude": np.atleast_1d(longitude)}, dtype=float)


def test_a_degree_has_its_published_length():
    """WGS84 at 45 degrees: 111 131.8 m of latitude, 78 846.8 m of longitude (a thousandth is flat enough)."""
    plane = geodesy.to_plane(track([45.001, 45.0], [7.0, 7.001]), origin=(45.0, 7.0))
    assert plane["north"].iloc[0] == pytest.approx(111.1318, abs=2e-4)
    assert plane["east"].iloc[1] == pytest.approx(78.8468, abs=2e-4)


@settings(max_examples=60, deadline=None)
@given(
    origin=st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
    east=st.floats(-2e5, 2e5),
    north=st.floats(-2e5, 2e5),
)
def test_there_and_back(origin, east, north):
    plane = pd.DataFrame({"east": [east], "north": [north]})
    again = geodesy.to_plane(geodesy.to_degrees(plane, origin=origin), origin=origin)
    np.testing.assert_allclose(again[["east", "north"]], plane, rtol=0, atol=1e-7)


def test_labels_gaps_and_other_columns_stay():
    times = pd.date_range("2024-05-01", periods=3, freq="s", name="time")
    gappy = track([np.nan, 60.0, 60.01], [25.0, 25.0, np.nan]).set_axis(times).assign(speed=[1.0, 2.0, 3.0])
    plane = geodesy.to_plane(gappy)
    assert list(plane.columns) == ["east", "north", "speed"]
    assert plane.index.equals(times)
    assert plane.attrs["origin"] == (60.0, 25.0)
    assert plane["east"].isna().tolist() == [True, False, True]
    assert geodesy.to_degrees(plane)["latitude"].iloc[1] == pytest.approx(60.0, abs=1e-12)


def test_across_the_date_line_the_track_goes_on():
    plane = geodesy.to_plane(track([0.0, 0.0], [179.999, -179.999]))
    assert plane["east"].iloc[1] == pytest.approx(222.639, abs=1e-3)


@pytest.mark.parametrize(("km", "share", "short"), [(150, 2.8e-4, 0.014), (500, 3.1e-3, 0.51), (1000, 1.2e-2, 4.1)])
def test_the_plane_is_as_flat_as_stated(km, share, short):
    """Going north on the ellipsoid: its length by quadrature against that in the plane (radii differ by 0.3 %)."""
    start, end = 50.0, 50.0 + km / 111.23
    phi = np.deg2rad(np.linspace(start, end, 20001))
    radius = geodesy.SEMI_MAJOR_AXIS * (1 - geodesy.SQUARED_ECCENTRICITY)
    radius = radius / (1 - geodesy.SQUARED_ECCENTRICITY * np.sin(phi) ** 2) ** 1.5
    length = np.trapezoid(radius, phi)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plane = geodesy.to_plane(track([end, end + 0.001], [7.0, 7.0]), origin=(start, 7.0))
    assert length - plane["north"].iloc[0] == pytest.approx(1000 * short, rel=0.05)
    step = 0.001 * np.deg2rad(1.0) * radius[-1]
    assert 1 - np.diff(plane["north"])[0] / step == pytest.approx(share, rel=0.05)


def test_far_from_the_origin_is_said():
    with pytest.warns(DataWarning, match=r"up to 1108 km from the origin .*: lengths there are up to 2 % too short"):
        geodesy.to_plane(track([50.0, 60.0], [7.0, 7.0]))
    plane = geodesy.to_plane(track([59.0, 60.0], [7.0, 7.0]).assign(speed=1.0))
    assert plane.attrs["units"] == {"east": "m", "north": "m"}
    assert geodesy.to_degrees(plane).attrs["units"] == {"latitude": "degrees", "longitude": "degrees"}


def test_bad_input_is_named():
    with pytest.raises(DataError, match="no column 'longitude'"):
        geodesy.to_plane(track(1.0, 2.0)[["latitude"]])
    with pytest.raises(DataError, match="latitude at 0 is 95, expected degrees from -90 to 90"):
        geodesy.to_plane(track(95.0, 2.0), origin=(0.0, 0.0))
    with pytest.raises(DataError, match=r"longitude at 1 is '2,5', expected degrees, such as 60\.17"):
        geodesy.to_plane(pd.DataFrame({"latitude": [1.0, 2.0], "longitude": ["2.5", "2,5"]}))
    with pytest.raises(DataError, match="latitude at 0 is infinite: mark it missing"):
        geodesy.to_plane(track([np.inf, 0.0], [0.0, 0.0]))
    with pytest.raises(DataError, match="no row has both"):
        geodesy.to_plane(track(np.nan, 2.0))
    with pytest.raises(DataError, match="position at 1 is beyond the horizon of"):
        geodesy.to_plane(track([0.0, 0.0], [0.0, 170.0]))
    with pytest.raises(DataError, match="give origin="):
        geodesy.to_degrees(pd.DataFrame({"east": [0.0], "north": [0.0]}))
    with pytest.raises(DataError, match="position at 0 lies beyond the edge"):
        geodesy.to_degrees(pd.DataFrame({"east": [7e6], "north": [0.0]}), origin=(0.0, 0.0))
