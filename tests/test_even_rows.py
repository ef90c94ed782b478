"""Dates that leave steps out are told where a row is a step: not of trading days, nor where times are what they are."""

import warnings

import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em import designs
from statespace_em.errors import ConvergenceWarning, DataWarning

DAILY = pd.Series(np.random.default_rng(0).normal(size=120).cumsum(), pd.date_range("2020-01-01", periods=120))
WEEKDAYS = DAILY[DAILY.index.day_of_week < 5]


def traded(*drop, zone=None, lunch=False):
    """Half-hourly rows of weekdays from 09:30 to 16:00, without those that begin as told."""
    index = pd.date_range("2024-02-26", "2024-03-15 23:59", freq="30min", tz=zone)
    rows = index[index.indexer_between_time("09:30", "16:00")]
    rows = rows[(rows.day_of_week < 5) & ~rows.strftime("%m-%d %H:%M").isin(drop)]
    rows = rows[~rows.strftime("%H:%M").isin(["12:00", "12:30"] if lunch else [])]
    return pd.Series(np.random.default_rng(0).normal(size=len(rows)).cumsum(), rows)


def at(freq, n=120):
    return pd.Series(DAILY.to_numpy()[:n], pd.date_range("2020-01-01", periods=n, freq=freq))


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (DAILY.drop(DAILY.index[[5, 50, 51]]),
         r"time 2020-01-05 is followed by 2020-01-07, where the usual step is 1 days 00:00:00, and 2 of 116 steps are "
         r"longer. Put the rows in with NaN, as y.asfreq\('D'\) does, .*local_level\(unit='D'\)"),
        (at("15min").drop(at("15min").index[30:60]), r"asfreq\('15min'\) does, .*unit='min'"),
        (at("MS").drop(pd.Timestamp("2021-01-01")), r"2020-12-01 is followed by 2021-02-01, .*as y.asfreq does"),
        ({"a": DAILY, "b": DAILY.drop(DAILY.index[7])}, "time 2020-01-07 is followed by 2020-01-09"),
        (traded("02-27 11:00", "02-27 11:30"), r"usual step is 0 days 00:30:00, and 15 of 207 steps are longer"),
        (traded("02-27 09:30", "02-28 09:30", "02-28 10:00"), "a row is a step, but the dates leave some out"),
        (at("h").drop(at("h").index[20:27]), "2020-01-01 19:00:00 is followed by 2020-01-02 03:00:00"),
    ],
    ids=["days", "minutes", "months", "panel", "in a session", "late openings", "over a night"],
)  # fmt: skip
def test_steps_that_dates_leave_out_are_told(y, match):
    with pytest.warns(DataWarning, match=match) as told:
        designs.local_level().fit(y, n_starts=1)
    assert [warning.filename for warning in told] == [__file__]


def test_matrices_take_rows_as_steps_too():
    with pytest.warns(DataWarning, match="a row is a step, but the dates leave some out"):
        sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], initial="diffuse").fit(DAILY.drop(DAILY.index[7]))


@pytest.mark.parametrize(
    "y",
    [DAILY, WEEKDAYS, WEEKDAYS.drop(WEEKDAYS.index[[10, 11]]), at("MS"), at("QS"), at("h"), DAILY.reset_index(drop=1),
     DAILY.drop(DAILY.index[7]).asfreq("D"), traded(), traded("02-26 09:30", "02-28 15:30", "02-28 16:00"),
     traded(lunch=True), traded(zone="America/New_York").tz_convert("UTC")],
    ids=["days", "trading", "holidays", "months", "quarters", "hours", "numbers", "blank", "sessions", "early close",
         "lunch", "summer time"],
)  # fmt: skip
def test_what_is_even_or_of_trading_days_is_taken_as_it_is(y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        designs.local_level().fit(y, n_starts=1)


@pytest.mark.parametrize("model", [designs.local_level(unit="D"), sse.GaussianHMM(1)], ids=["time", "regimes"])
def test_models_that_know_the_times_or_need_none_do_not_warn(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(DAILY.drop(DAILY.index[[5, 50]]), n_starts=1)


def test_outliers_of_a_motion_at_uneven_times_are_weighed_without_a_word():
    y = DAILY.drop(DAILY.index[[5, 50]]).to_frame("x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)  # of two rounds
        sse.robust.fit_student(designs.constant_velocity(["x"], unit="D"), y, max_iter=2)


def test_the_longest_gap_is_told_where_it_is_not_the_first():
    y = DAILY.drop(DAILY.index[[5, *range(50, 60)]])
    with pytest.warns(DataWarning, match=r"The longest, of 11 days 00:00:00, follows 2020-02-19\.$"):
        designs.local_level().fit(y, n_starts=1)
