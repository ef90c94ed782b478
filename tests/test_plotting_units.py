"""Figures of states, components, innovations and residuals: how many panels, which units, what room they take."""

from itertools import pairwise

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em import plotting


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def seasonal_fit():
    rng = np.random.default_rng(0)
    wave = 8 * np.sin(2 * np.pi * np.arange(72) / 12)
    y = pd.Series(
        50 + rng.normal(0, 0.5, 72).cumsum() + wave, pd.date_range("2015", periods=72, freq="MS"), name="sales"
    )
    y.attrs["units"] = "kt"
    model = sse.designs.local_trend() + sse.designs.seasonal(12)
    return y, model.fit(y, n_starts=1, tol=1e-2)


def test_states_that_nobody_asked_for_are_few_and_components_have_units():
    y, model = seasonal_fit()
    posterior = model.e_step(y)
    panels = plotting.plot_states(y, posterior)
    assert len(panels) == 6
    assert panels[0].get_title(loc="left").endswith("; 6 of 13, states= chooses")
    assert len(plotting.plot_states(y, posterior, states=list(posterior["state"].values))) == 13
    (signal,) = plotting.plot_states(y, posterior, model.params_)
    assert "of 13" not in signal.get_title(loc="left")
    labels = [ax.get_ylabel() for ax in plotting.plot_components(model.decompose(y))]
    assert labels == ["level (kt)", "slope", "seasonal (kt)", "irregular (kt)"]
    assert "units" not in model.decompose(y.to_numpy()).attrs


def test_units_stand_beside_innovations():
    y, model = seasonal_fit()
    assert [ax.get_ylabel() for ax in plotting.plot_innovations(model.filter(y), y)] == ["sales (kt)"]
    assert [ax.get_ylabel() for ax in plotting.plot_innovations(model.filter(y))] == ["sales"]
    radar = sse.datasets.radar()["measured"]
    model = sse.designs.constant_velocity(["east", "north"], density=0.3, noise=625.0).fit(radar)
    panels = plotting.plot_innovations(model.filter(radar), radar)
    assert [ax.get_ylabel() for ax in panels] == ["east (m)", "north (m)"]
    assert panels[-1].get_xlabel() == "time (s)"


def test_every_axis_of_a_motion_has_its_measurements_behind_it():
    model = sse.designs.constant_velocity(["east", "north"]) + sse.designs.ar(1)
    y = pd.DataFrame(np.random.default_rng(1).normal([0.0, 100.0], size=(40, 2)), columns=["east", "north"])
    parts = model.fit(y, n_starts=1, tol=1e-2).decompose(y)
    panels = dict(zip(parts["component"].values.tolist(), plotting.plot_components(parts), strict=True))
    for axis in y:
        dots = next(line for line in panels[axis].get_lines() if line.get_linestyle() == "None")
        np.testing.assert_allclose(dots.get_ydata(), y[axis], atol=1e-8)
    assert not [line for line in panels["ar_east"].get_lines() if line.get_linestyle() == "None"]


def test_the_histogram_of_residuals_fills_its_panel():
    quakes = sse.datasets.earthquakes()
    panel = plotting.plot_residuals(sse.PoissonHMM(2).fit(quakes, n_starts=1).residuals(quakes))[3]
    low, high = panel.get_ylim()
    assert low > 0.3
    assert high < 2.0


def test_figures_of_a_panel_say_whose_they_are_and_have_its_units():
    """Sequences in a dict have their attributes each, as they come from `geodesy.to_plane`."""
    radar = sse.datasets.radar()["measured"].to_pandas()
    radar.attrs["units"] = {"east": "m", "north": "m"}
    panel = {"Ann": radar.iloc[:60], "Bob": radar.iloc[60:140]}
    model = sse.designs.constant_velocity(["east", "north"], density=0.3, noise=625.0).fit(panel)
    assert model.params_["measurement_cov"].attrs["units"] == "m^2"
    assert sse.designs.constant_velocity(["east", "north"], density=0.3).fit(panel).summary()["unit"].tolist() == [
        "m^2"
    ]
    known, posterior = model.filter(panel), model.e_step(panel)
    track = plotting.plot_track(panel, posterior, model.params_, sequence="Bob")
    assert track.get_title(loc="left") == "Smoothed track of Bob: with hindsight, data 1:T"
    assert (track.get_xlabel(), track.get_ylabel()) == ("east (m)", "north (m)")
    states = plotting.plot_states(panel, posterior, model.params_, sequence="Ann")
    assert states[0].get_title(loc="left").startswith("Smoothed signal of Ann: ")
    innovations = plotting.plot_innovations(known, panel, sequence="Ann")
    assert innovations[0].get_title(loc="left") == "Innovations of Ann: measured less predicted, data 1:t-1"
    assert innovations[0].get_ylabel() == "east (m)"
    consistency = plotting.plot_consistency(sse.checks.nis(known), sequence="Bob")
    assert consistency.get_title(loc="left").startswith("NIS of Bob: ")
    wide = pd.DataFrame(30.0 * radar.to_numpy(), radar.index, radar.columns)  # in no known unit: long numbers
    for rows in (wide.iloc[60:140], wide.iloc[:60]):
        ax = plotting.plot_track(rows, model.e_step(rows), model.params_)
        plt.gcf().canvas.draw()
        boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
        assert len(boxes) > 1
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
