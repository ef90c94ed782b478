"""Data sets that ship with the package: each docstring is the codebook.

Every loader returns a fresh, labelled object, needs no network, and carries ``units``, ``source`` and
``licence`` in ``attrs``. ``datasets/README.md`` lists the files, how each was made, and checksums.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em.errors import DataError
from statespace_em.geodesy import to_plane

__all__ = ["buoy", "cycling", "earthquakes", "nile", "old_faithful", "radar", "sp500", "stocks"]

Labelled = TypeVar("Labelled", "pd.Series[Any]", pd.DataFrame)


def stocks() -> pd.DataFrame:
    """Load daily closes and log returns of IBM, MSFT, AAPL and GOOG, 2000-03-01 to 2013-03-01.

    GOOG starts on 2004-08-19 and is NaN before. Only trading days have a row; the longest pause is the week
    before 2001-09-17. AAPL on 2000-09-29 returned -0.73: a profit warning, not an error. Source: Quandl WIKI
    prices, through ``bokeh_sampledata`` 2026.1. Licence: public domain.

    Returns
    -------
    pandas.DataFrame
        3269 trading days from 2000-03-02 (the close before gives its return), indexed by ``date``; columns
        ``(quantity, symbol)``. ``close`` is adjusted for
        splits and dividends: US dollars as of the vendor's last adjustment, after 2013, so compare ratios,
        not levels. ``log_return`` is ``log(close[t] / close[t - 1])``, **not** percent; NaN on a symbol's
        first day.

    Examples
    --------
    >>> returns = stocks()["log_return"]["IBM"]
    >>> returns.index.name, len(returns), round(float(returns.std()), 4)
    ('date', 3269, 0.0176)
    """
    close = _read("stocks", index_col="date", parse_dates=True)
    quantities = {"close": close, "log_return": close.transform(np.log).diff()}
    frame = pd.concat(quantities, axis="columns", sort=False, names=["quantity", "symbol"]).iloc[1:]
    source = "Quandl WIKI prices, through bokeh_sampledata 2026.1"
    return _describe(frame, {"close": "USD, adjusted", "log_return": "1"}, source, "public domain")


def cycling() -> pd.DataFrame:
    """Load a bicycle ride of 73 minutes and 37 km, recorded every second.

    *Where.* The coordinates lie on the map of Watopia, a world of the indoor-riding game Zwift. Power and
    cadence are a rider's; position, altitude and speed are the game's, without the noise of a satellite
    receiver.

    *When.* No row is missing, but ``clock`` is no index: from row 2436 to 2801 it has 64 steps of two seconds
    and 63 repeated stamps, as a sample every 1.0002 s has when its time is cut to whole seconds. The rider
    covers only 3 % more in a "two-second" step, and 3 % less in a "zero-second" one: so ``time`` counts rows.

    Source: a personal ride, through ``bokeh_sampledata`` 2026.1. Licence: CC0-1.0.

    Returns
    -------
    pandas.DataFrame
        4391 rows, indexed by ``time`` since the start (timedelta, every second). ``latitude``, ``longitude``:
        degrees, in steps of 1.3e-6 (0.15 m). ``east``, ``north``: metres from the first point in the plane
        that touches the WGS84 ellipsoid there, see `statespace_em.geodesy`. ``altitude``: m, in steps of 0.2.
        ``speed``: m/s. ``distance``: m. ``power``: W. ``cadence``: 1/min. ``clock``: the logger's stamp, s.

    Examples
    --------
    >>> ride = cycling()
    >>> ride[["east", "north"]].iloc[-1].round().tolist(), int(ride["clock"].duplicated().sum())
    ([117.0, -902.0], 63)
    """
    frame = _read("cycling")
    frame.index = pd.timedelta_range("0s", periods=len(frame), freq="s", name="time")
    for name in ("latitude", "longitude"):
        frame[name] = frame[f"{name}_semicircles"] * (180 / 2**31)
    plane = to_plane(frame[["latitude", "longitude"]])
    frame["east"], frame["north"] = plane["east"], plane["north"]
    units = {"latitude": "degrees", "longitude": "degrees", "east": "m", "north": "m", "altitude": "m"}
    units |= {"speed": "m/s", "distance": "m", "power": "W", "cadence": "1/min", "clock": "s"}
    return _describe(frame[list(units)], units, "personal ride, through bokeh_sampledata 2026.1", "CC0-1.0")


def earthquakes() -> pd.Series[int]:
    """Load the number of earthquakes of magnitude 7 or more in the world, each year 1900 to 2006.

    Source: US Geological Survey, as tabulated in Zucchini, MacDonald & Langrock, *Hidden Markov Models for
    Time Series*, Table 1.1. Licence: published facts.

    Returns
    -------
    pandas.Series
        107 counts (earthquakes per year), indexed by ``year``; overdispersed: mean 19.4, variance 51.6.

    Examples
    --------
    >>> counts = earthquakes()
    >>> int(counts.loc[1900]), int(counts.sum()), int(counts.idxmax())
    (13, 2072, 1943)
    """
    counts = _read("earthquakes", index_col="year")["earthquakes"]
    source = "US Geological Survey, as tabulated in Zucchini, MacDonald & Langrock, Table 1.1"
    return _describe(counts, "earthquakes per year", source, "published facts")


def old_faithful(*, table: str = "azzalini") -> pd.DataFrame:
    """Load eruptions of the Old Faithful geyser: how long they lasted, how long one waited, short or long.

    In the 299 rows, durations at night were noted as short, medium or long and are coded 2, 3 and 4 minutes
    (23, 2 and 53 rows have exactly these values): they are not measurements. No short eruption follows a
    short one. Source: Azzalini & Bowman (1990), *Applied Statistics* 39, 357-365; Haerdle (1991), *Smoothing
    Techniques*. Licence: published facts.

    Parameters
    ----------
    table : {"azzalini", "haerdle"}
        Which published table; see Returns.

    Returns
    -------
    pandas.DataFrame
        ``"azzalini"``: 299 *consecutive* eruptions, 1 to 15 August 1985, indexed by ``eruption`` (from 1).
        ``duration`` (min), ``waiting`` (min, start to start, *before* this eruption), ``length`` (ordered
        categorical, ``short`` < ``long``; long lasts 3 minutes or more).
        ``"haerdle"``: the 272 rows usual for mixtures, indexed by ``row``; ``duration`` (min), ``waiting``
        (min, *until the next* eruption). Whether the rows are consecutive is not documented.

    Raises
    ------
    DataError
        ``table`` is neither of the two.

    Examples
    --------
    >>> old_faithful()["length"].value_counts().to_dict()
    {'long': 194, 'short': 105}
    """
    units = {"duration": "min", "waiting": "min"}
    if table == "haerdle":
        frame = _read("old_faithful_haerdle", index_col="row")[list(units)]
        return _describe(frame, units, "Haerdle (1991), Smoothing Techniques", "published facts")
    if table != "azzalini":
        raise DataError(f"old_faithful has no table {table!r}; use table='azzalini' or table='haerdle'.")
    frame = _read("old_faithful_azzalini", index_col="eruption")
    frame["duration"] = frame["duration_seconds"] / 60
    length = np.where(frame["duration"] >= 3, "long", "short")
    frame["length"] = pd.Categorical(length, categories=["short", "long"], ordered=True)
    units["length"] = "category"
    return _describe(frame[list(units)], units, "Azzalini & Bowman (1990), Applied Statistics 39", "published facts")


def nile() -> pd.Series[float]:
    """Load the annual flow of the river Nile at Aswan, 1871 to 1970.

    Source: Cobb (1978), *Biometrika* 65, 243-251, through ``statsmodels.datasets.nile``. Licence: public
    domain.

    Returns
    -------
    pandas.Series
        100 flows (1e8 m^3 per year), indexed by ``year``; the level drops in 1899.

    Examples
    --------
    >>> float(nile().mean())
    919.35
    """
    flow = _read("nile", index_col="year")["flow"].astype(float)
    source = "Cobb (1978), Biometrika 65, 243-251, through statsmodels.datasets.nile"
    return _describe(flow, "1e8 m^3 per year", source, "public domain")


def buoy() -> pd.Series[float]:
    """Load the sea-surface temperature at buoy B01 in the Gulf of Maine, February 2016 to March 2017.

    24 samples are missing: 2016-06-14 13:30 and 2016-07-08 02:00 to 13:00. The source has two values for
    2017-03-21 16:30 (4.276 and 4.289); the first is kept. Steps of up to 1.6 degrees in half an hour fall on
    summer afternoons. Source: NERACOOS, data set B01_sbe37_all (University of Maine), through
    ``bokeh_sampledata`` 2026.1. Licence: the data may be used and redistributed for free but is not intended
    for legal use, since it may contain inaccuracies. Neither the data Contributor, University of Maine, IOOS,
    NOAA, State of Maine nor the United States Government, nor any of their employees or contractors, makes
    any warranty, express or implied, including warranties of merchantability and fitness for a particular
    purpose, or assumes any legal liability for the accuracy, completeness, or usefulness, of this
    information.

    Returns
    -------
    pandas.Series
        19249 temperatures (degrees Celsius), NaN where none was recorded, indexed by ``time``: UTC without a
        time zone attached, every 30 minutes from 2016-02-15 00:00 to 2017-03-22 00:00.

    Examples
    --------
    >>> temperature = buoy()
    >>> len(temperature), int(temperature.isna().sum())
    (19249, 24)
    """
    days = _read("buoy", index_col="date")  # a row for each day, a column for each half hour
    time = pd.date_range(str(days.index[0]), periods=days.size, freq="30min", name="time")
    temperature = pd.Series(days.to_numpy().ravel(), time, name="temperature").loc[:"2017-03-22 00:00"]
    source = "NERACOOS B01_sbe37_all, through bokeh_sampledata 2026.1"
    licence = "free to use and redistribute, no warranty, not for legal use: see help(datasets.buoy)"
    return _describe(temperature, "degrees Celsius", source, licence)


def radar() -> xr.Dataset:
    """Load a *simulated* radar track with gaps and outliers, and the truth behind it.

    Constant velocity, disturbed by white acceleration of density ``acceleration_density`` (m^2/s^3). Noise is
    Gaussian with standard deviation ``noise_sd``, for outliers ``outlier_sd``. Gaps have geometric lengths.
    Source: simulated for this package; the code stands in ``datasets/README.md``. Licence: CC0-1.0.

    Returns
    -------
    xarray.Dataset
        300 scans, one each 2 s: coordinates ``time`` (s) and ``axis`` (east, north). ``measured`` (time,
        axis): m, NaN in 43 scans that returned nothing. ``true_position`` (time, axis): m. ``true_velocity``
        (time, axis): m/s. ``outlier`` (time): bool, True in 16 measured scans. ``attrs``: the parameters (SI
        units).

    Examples
    --------
    >>> track = radar()
    >>> dict(track.sizes), int(track["outlier"].sum())
    ({'time': 300, 'axis': 2}, 16)
    """
    table = _read("radar")
    data: dict[str, Any] = {"outlier": ("time", table["outlier"].to_numpy() == 1, {"units": "1"})}
    columns = {"measured": "m", "true_position": "m", "true_velocity": "m/s"}
    for name, unit in columns.items():
        values = table[[f"{name}_east", f"{name}_north"]].to_numpy()
        data[name] = (("time", "axis"), values, {"units": unit})
    coordinates = {"time": ("time", table["time"].to_numpy(float), {"units": "s"}), "axis": ["east", "north"]}
    parameters = {"seed": 1, "acceleration_density": 0.3, "noise_sd": 25.0, "outlier_probability": 0.04}
    parameters |= {"outlier_sd": 400.0, "gap_probability": 0.03, "mean_gap_length": 5.0}
    about = {"source": "simulated for statespace_em", "licence": "CC0-1.0", "units": "see each variable"}
    return xr.Dataset(data, coordinates, about | parameters)


def sp500() -> pd.DataFrame:
    """Load the daily S&P 500 index, 1999 to 2018, from the optional package ``arch`` (not shipped here).

    Source: ``arch.data.sp500``. Licence: the figures belong to their vendor; do not redistribute them.

    Returns
    -------
    pandas.DataFrame
        5031 trading days, indexed by ``date``: ``close`` (index points), ``log_return`` (**not** percent).

    Raises
    ------
    ImportError
        ``arch`` is not installed.
    """
    try:
        module = importlib.import_module("arch.data.sp500")
    except ImportError as error:
        raise ImportError("sp500 reads its figures from the package arch: pip install arch") from error
    close = module.load()["Adj Close"].rename_axis("date")
    frame = pd.DataFrame({"close": close, "log_return": np.log(close).diff()})
    units = {"close": "index points", "log_return": "1"}
    return _describe(frame, units, "arch.data.sp500", "not redistributable")


def _folder() -> Path:
    """Return the folder of the data: inside an installed package, or at the top of a checkout."""
    installed = Path(__file__).parent / "_data"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "datasets"


def _read(name: str, **options: Any) -> pd.DataFrame:
    frame: pd.DataFrame = pd.read_csv(_folder() / f"{name}.csv", **options)
    return frame


def _describe(data: Labelled, units: str | dict[str, str], source: str, licence: str) -> Labelled:
    data.attrs.update(units=units, source=source, licence=licence)
    return data
