"""Figures of residuals: panels, bands, messages."""

import matplotlib
import matplotlib.dates

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import statespace_em as sse
from statespace_em import plotting
from statespace_em.errors import DataError


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    for figure in map(plt.figure, plt.get_fignums()):
        figure.set_dpi(25)
        figure.canvas.draw()
    plt.close("all")


def residuals(n=300, features=("a",)):
    normal = np.random.default_rng(0).normal(size=(n, len(features)))
    normal[min(5, n - 1)] = np.nan
    dims, coords = ("date", "feature"), {"date": pd.date_range("2024-01-01", periods=n), "feature": list(features)}
    return xr.Dataset({"pit": (dims, stats.norm.cdf(normal)), "residual": (dims, normal)}, coords)


def test_four_panels_with_their_data():
    own = residuals()
    time, quantiles, correlation, histogram = plotting.plot_residuals(own, lags=7)
    values = own["residual"].values[:, 0]
    seen = np.sort(values[~np.isnan(values)])
    np.testing.assert_allclose(quantiles.collections[-1].get_offsets()[:, 1], seen)
    expected = stats.norm.ppf((np.arange(1, 300) - 0.5) / 299)
    np.testing.assert_allclose(quantiles.collections[-1].get_offsets()[:, 0], expected)
    assert len(correlation.collections[-1].get_offsets()) == 7
    assert [text.get_text() for text in correlation.get_legend().get_texts()] == ["residuals", "squares"]
    np.testing.assert_allclose(histogram.patches[-1].get_data().values.mean(), 1.0)
    assert time.get_xlim()[0] < time.get_xlim()[1]


def test_the_band_holds_true_residuals_and_not_those_of_a_wrong_model():
    for scale, share in ((1.0, 0.9), (1.5, 0.5)):
        own = residuals()
        quantiles = plotting.plot_residuals(own.assign(residual=scale * own["residual"]))[1]
        band = quantiles.collections[0].get_paths()[0].vertices
        dots = quantiles.collections[-1].get_offsets()
        edges = [band[np.abs(band[:, 0] - x) < 1e-9, 1] for x in dots[:, 0]]
        inside = np.mean([edge.min() <= y <= edge.max() for edge, y in zip(edges, dots[:, 1])])
        assert (inside >= share) == (scale == 1.0)


def test_residuals_of_a_ragged_panel_keep_their_dates_and_say_whose_they_are():
    dates = pd.date_range("2024-01-01", periods=40)
    rng = np.random.default_rng(0)
    y = {key: pd.DataFrame(rng.normal(size=(len(own), 2)), own, ["a", "b"]) for key, own in
         {"long": dates, "late": dates[15:]}.items()}  # fmt: skip
    found = sse.GaussianHMM(1).fit(y).residuals(y)
    first = plotting.plot_residuals(found, feature="b", sequence="late")[0]
    assert first.get_title(loc="left") == "Residuals: b, late"
    edges = matplotlib.dates.date2num([dates[15], dates[-1]])
    np.testing.assert_allclose(first.get_xlim(), [edges[0] - 0.5, edges[1] + 0.5])


def test_columns_and_sequences_are_chosen():
    two = residuals(features=("a", "b"))
    assert len(plotting.plot_residuals(two, feature="b")) == 4
    with pytest.raises(DataError, match=r"there are several columns; choose feature= from \['a', 'b'\]"):
        plotting.plot_residuals(two)
    with pytest.raises(DataError, match="column 'c' does not exist"):
        plotting.plot_residuals(two, feature="c")
    panel = xr.concat([residuals(), residuals()], pd.Index(["u", "v"], name="sequence"))
    assert len(plotting.plot_residuals(panel, sequence="u")) == 4
    with pytest.raises(DataError, match="pass sequence= one of"):
        plotting.plot_residuals(panel)
    with pytest.raises(DataError, match="pass what residuals"):
        plotting.plot_residuals(two["pit"])
    with pytest.raises(DataError, match="there are 1 residuals of 'a', expected at least 3"):
        plotting.plot_residuals(residuals(2))
    with pytest.raises(DataError, match="this figure has 4 panel"):
        plotting.plot_residuals(residuals(), axes=plt.subplots()[1])
