"""Positions in degrees to metres in a plane, and back."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from statespace_em._typing import Floats
from statespace_em.errors import DataError, DataWarning

SEMI_MAJOR_AXIS = 6378137.0  # WGS84, metres
FLATTENING = 1 / 298.257223563
FAR = 900_000.0  # metres from the origin at which a short length is 1 % too short
PLACES = ("latitude", "longitude", "east", "north")
SQUARED_ECCENTRICITY = FLATTENING * (2 - FLATTENING)


def to_plane(positions: pd.DataFrame, *, origin: tuple[float, float] | None = None) -> pd.DataFrame:
    """Metres east and north of an origin, from ``latitude`` and ``longitude`` in degrees.

    The plane touches the WGS84 ellipsoid at the origin; points on the ellipsoid are projected on it along the
    vertical of the origin (the first two of the topocentric east-north-up coordinates). At a distance d from the origin
    (R = 6371 km), short ways that lead away from it are too short by a share (d / R)^2 / 2: 0.03 % at 150 km, 0.3 % at
    500 km, 1.2 % at 1000 km; the distance itself by a third of that (4 m in 100 km, 4 km in 1000 km). The way back is
    exact at any distance.

    Parameters
    ----------
    positions
        Columns ``latitude`` and ``longitude``, NaN where missing; other columns stay as they are.
    origin
        Latitude and longitude; the first complete row unless given.

    Returns
    -------
    pandas.DataFrame
        Columns ``east`` and ``north`` in place of the two; ``attrs["origin"]`` is what `to_degrees` needs.

    Raises
    ------
    DataError
        If a column is missing, a latitude is not within 90 degrees, or a point lies on the other side of the Earth.

    Warns
    -----
    DataWarning
        If a position is so far from the origin that a length there is more than 1 % too short.

    Examples
    --------
    >>> track = pd.DataFrame({"latitude": [60.0, 60.01], "longitude": [25.0, 25.0]})
    >>> to_plane(track).round(1).to_numpy().tolist()
    [[0.0, 0.0], [0.0, 1114.1]]
    """
    _need(positions, ("latitude", "longitude"))
    latitude, longitude = (_degrees(positions[name]) for name in ("latitude", "longitude"))
    if origin is None:
        complete = ~(np.isnan(latitude) | np.isnan(longitude))
        if not complete.any():
            raise DataError("no row has both latitude and longitude: give origin=(latitude, longitude).")
        origin = float(latitude[complete][0]), float(longitude[complete][0])
    outside = np.abs(latitude) > 90.0
    if outside.any():
        where = positions.index[int(np.argmax(outside))]
        raise DataError(f"latitude at {where} is {latitude[outside][0]:g}, expected degrees from -90 to 90.")
    axes, start = _axes(*origin), _surface(*origin)
    east, north, up = axes @ (_surface(latitude, longitude) - start[:, None])
    if (up < -SEMI_MAJOR_AXIS).any():
        where = positions.index[int(np.argmax(up < -SEMI_MAJOR_AXIS))]
        raise DataError(f"the position at {where} is beyond the horizon of {origin}: choose a nearer origin.")
    far = float(np.nanmax(np.hypot(east, north), initial=0.0))
    if far > FAR:
        warnings.warn(
            f"positions are up to {far / 1000:.0f} km from the origin {origin}: lengths there are up to "
            f"{50 * (far / 6371000.0) ** 2:.0f} % too short. Give an origin in the middle, or cut the track.",
            DataWarning,
            stacklevel=2,
        )
    plane = positions.drop(columns=["latitude", "longitude"]).assign(east=east, north=north)
    plane.attrs = {**positions.attrs, "origin": origin, "units": _units(positions, {"east": "m", "north": "m"})}
    return plane[["east", "north", *[name for name in plane.columns if name not in ("east", "north")]]]


def to_degrees(plane: pd.DataFrame, *, origin: tuple[float, float] | None = None) -> pd.DataFrame:
    """Inverse of `to_plane`: ``latitude`` and ``longitude`` in degrees on the ellipsoid.

    Parameters
    ----------
    plane
        Columns ``east`` and ``north`` in metres.
    origin
        Latitude and longitude of the origin; ``plane.attrs["origin"]`` unless given.

    Raises
    ------
    DataError
        If a column or the origin is missing, or a point lies beyond the edge of the ellipsoid.
    """
    _need(plane, ("east", "north"))
    origin = plane.attrs.get("origin") if origin is None else origin
    if origin is None:
        raise DataError("where the plane touches the Earth is not known: give origin=(latitude, longitude).")
    axes, start = _axes(*origin), _surface(*origin)
    foot = start[:, None] + axes[:2].T @ plane[["east", "north"]].to_numpy(dtype=float).T
    weight = np.array([1.0, 1.0, 1.0 / (1.0 - SQUARED_ECCENTRICITY)])  # the ellipsoid is sum weight x^2 = a^2
    square, half = weight @ axes[2] ** 2, (weight * axes[2]) @ foot
    root = half**2 - square * (weight @ foot**2 - SEMI_MAJOR_AXIS**2)
    if (root < 0.0).any():
        where = plane.index[int(np.argmax(root < 0.0))]
        raise DataError(f"the position at {where} lies beyond the edge of the Earth seen from {origin}.")
    x, y, z = foot + axes[2][:, None] * ((np.sqrt(root) - half) / square)
    latitude = np.rad2deg(np.arctan2(z, (1.0 - SQUARED_ECCENTRICITY) * np.hypot(x, y)))
    found = plane.drop(columns=["east", "north"])
    found.attrs = {**plane.attrs, "units": _units(plane, {"latitude": "degrees", "longitude": "degrees"})}
    found.insert(0, "latitude", latitude)
    found.insert(1, "longitude", np.rad2deg(np.arctan2(y, x)))
    return found


def _units(table: pd.DataFrame, new: dict[str, str]) -> dict[str, str]:
    """Units of the columns: those known of the other ones, and the new ones."""
    known = table.attrs.get("units")
    old = known if isinstance(known, dict) else {}
    return {name: unit for name, unit in old.items() if name in table.columns and name not in PLACES} | new


def _degrees(column: pd.Series[Any]) -> Floats:
    """Column as numbers, NaN where missing."""
    found = pd.to_numeric(column, errors="coerce")
    lost = (found.isna() & column.notna()).to_numpy()
    if lost.any():
        row = int(np.argmax(lost))
        raise DataError(
            f"{column.name} at {column.index[row]} is {column.iloc[row]!r}, expected degrees, such as 60.17."
        )
    values = found.to_numpy(dtype=float, na_value=np.nan)
    if np.isinf(values).any():
        raise DataError(
            f"{column.name} at {column.index[int(np.argmax(np.isinf(values)))]} is infinite: mark it missing."
        )
    return np.asarray(values)


def _need(table: pd.DataFrame, names: tuple[str, ...]) -> None:
    if not isinstance(table, pd.DataFrame):
        raise DataError(f"positions are a {type(table).__name__}, expected a DataFrame with columns {names}.")
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(f"there is no column {missing[0]!r} among {list(table.columns)}.")


def _surface(latitude: Any, longitude: Any) -> Floats:
    """Geocentric coordinates (3, ...) of points on the ellipsoid, metres."""
    phi, lam = np.deg2rad(latitude), np.deg2rad(longitude)
    prime_vertical = SEMI_MAJOR_AXIS / np.sqrt(1.0 - SQUARED_ECCENTRICITY * np.sin(phi) ** 2)
    polar = prime_vertical * (1.0 - SQUARED_ECCENTRICITY) * np.sin(phi)
    return np.array([prime_vertical * np.cos(phi) * np.cos(lam), prime_vertical * np.cos(phi) * np.sin(lam), polar])


def _axes(latitude: float, longitude: float) -> Floats:
    """Unit vectors (3, 3) that point east, north and up at a place."""
    phi, lam = np.deg2rad(latitude), np.deg2rad(longitude)
    east = [-np.sin(lam), np.cos(lam), 0.0]
    north = [-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)]
    up = [np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)]
    return np.array([east, north, up])
