"""Starts of a cycle from Whittle's likelihood, and the tops that default fits find with them."""

import numpy as np
import pytest

from statespace_em import designs
from statespace_em.sequence.cycle_screen import _cycle_power, screened_cycles

ACCURACY = 1e-6  # nats, as promised


def cycle(rng, length, period, damping):
    turn = 2.0 * np.pi / period
    A = damping * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    state, found = rng.normal(size=2) / np.sqrt(1.0 - damping**2), np.empty(length)
    for t in range(length):
        found[t] = state[0]
        state = A @ state + rng.normal(size=2)
    return found


def swings(seed=3, length=240):
    """A random walk beside two swings, of which each alone explains much."""
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    fast = 2.0 * np.sin(2.0 * np.pi * t / 5.7 + 1.0)
    return np.cumsum(rng.normal(0.0, 1.0, length)) + 0.2 * cycle(rng, length, 40.0, 0.95) + fast


@pytest.mark.parametrize(("damping", "turn"), [(0.5, 0.3), (0.9, 2.0), (0.97, 0.05)])
def test_the_spectrum_of_a_cycle_is_that_of_its_autocovariances(damping, turn):
    lags = np.arange(2_000)
    covariances = damping**lags * np.cos(turn * lags) / (1.0 - damping**2)
    angle = np.linspace(0.1, 3.0, 7)
    expected = covariances[0] + 2.0 * np.cos(np.outer(angle, lags[1:])) @ covariances[1:]
    found = _cycle_power(np.array(damping), np.array(turn), angle)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("period", [4.0, 11.0, 35.0])
def test_the_first_start_is_near_the_cycle_behind_the_series(period):
    first = screened_cycles(cycle(np.random.default_rng(1), 600, period, 0.98), 5)[0]
    assert 2.0 * np.pi / np.arctan2(first.sin, first.cos) == pytest.approx(period, rel=0.12)
    assert np.hypot(first.cos, first.sin) > 0.9
    assert 0.2 < first.var < 5.0  # truth: 1


def test_seasons_are_left_to_seasons():
    t = np.arange(300)
    y = np.sin(2.0 * np.pi * t / 12) + 0.3 * np.random.default_rng(0).normal(size=300)
    periods = [2.0 * np.pi / np.arctan2(one.sin, one.cos) for one in screened_cycles(y, 12, seasons=[12.0])]
    assert all(abs(12.0 / period - max(round(12.0 / period), 1)) > 0.14 for period in periods)
    assert any(
        abs(period - 12.0) < 1.0 for period in [2 * np.pi / np.arctan2(c.sin, c.cos) for c in screened_cycles(y, 3)]
    )


@pytest.mark.parametrize("y", [np.arange(5.0), np.full(50, 3.0), np.arange(40.0)], ids=["short", "constant", "line"])
def test_what_tells_nothing_gives_no_starts(y):
    assert screened_cycles(y, 5) == []


def test_a_default_fit_finds_the_higher_of_two_swings():
    y = swings()
    model = designs.local_level() + designs.cycle()
    best = max(
        (designs.local_level() + designs.cycle(period=period)).fit(y, n_starts=1).score(y)
        for period in (5.0, 5.7, 8.0, 40.0, 100.0)
    )
    assert model.fit(y).score(y) >= best - ACCURACY
    assert model.summary().loc["cycle_period", "value"].item() == pytest.approx(5.7, rel=0.01)
    assert model.status_ == "converged"


def test_fits_are_the_same_in_every_unit():
    y = swings()[:120]
    one, other = ((designs.local_level() + designs.cycle()).fit(c * y) for c in (1.0, 1e6))
    assert other.score(1e6 * y) == pytest.approx(one.score(y) - 119 * np.log(1e6), abs=1e-5)


def test_a_cycle_turns_one_way_whatever_its_start():
    y = swings()[:120]
    model = designs.local_level() + designs.cycle()
    found = model.fit(y).params_
    turned = found.copy(deep=True)
    for row, column in (("cycle", "cycle*"), ("cycle*", "cycle")):
        where = {"next_state": row, "state": column}
        turned["transition"].loc[where] = -found["transition"].loc[where]
    assert model.score(y, turned) == pytest.approx(model.score(y, found), abs=1e-9)
    again = (designs.local_level() + designs.cycle()).fit(y, start=turned)
    np.testing.assert_allclose(again.params_["transition"], found["transition"], atol=1e-4)
    assert again.params_["transition"].sel(next_state="cycle", state="cycle*").item() > 0.0
