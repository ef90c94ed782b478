"""Content of the figures, from Datasets made by hand: panels, titles, colours, spans, bands, messages."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.dates import ConciseDateFormatter, date2num

from statespace_em import geodesy, plotting
from statespace_em.errors import DataError

N = 60
DATES = pd.date_range("2024-01-01", periods=N, freq="B", name="date")
STATES = ["calm", "stress", "crash"]
PATH = np.repeat([0, 1, 0, 2, 1], 12)
RUNS = {0: 2, 1: 2, 2: 1}


@pytest.fixture(autouse=True)
def _close_figures():
    before = dict(matplotlib.rcParams)
    yield
    for figure in map(plt.figure, plt.get_fignums()):
        figure.set_dpi(25)
        figure.canvas.draw()
    plt.close("all")
    assert dict(matplotlib.rcParams) == before, "a figure changed a global setting"


@pytest.fixture
def y():
    return pd.Series(np.random.default_rng(0).normal(size=N), index=DATES, name="return")


def probabilities(variable="gamma", conditioning="1:T", path=PATH, index=DATES, states=STATES):
    table = np.eye(len(states))[path] * 0.7 + 0.3 / len(states)
    coords = {"state": list(states)} | ({} if index is None else {"date": index})
    return xr.Dataset({variable: (("date", "state"), table, {"conditioning": conditioning})}, coords)


def title(ax):
    return ax.get_title(loc="left")


def spans(ax):
    return {c.get_gid(): c for c in ax.collections if str(c.get_gid()).startswith("state-")}


def colours(artists):
    return [tuple(np.round(artist.get_facecolor()[0][:3], 6)) for artist in artists]


def bands(ax):
    """Height of each band (N,)."""
    heights = []
    for band in (c for c in ax.collections if c.get_gid() == "band"):
        corners = band.get_paths()[0].vertices
        n = (len(corners) - 3) // 2
        heights.append(corners[n + 2 : 2 * n + 2, 1][::-1] - corners[1 : n + 1, 1])
    return [np.abs(height) for height in heights]


# plot_regimes


@pytest.mark.parametrize(
    ("variable", "conditioning", "words"),
    [
        ("gamma", "1:T", "Smoothed regimes: with hindsight, data 1:T"),
        ("gamma", None, "Smoothed regimes: with hindsight, data 1:T"),
        ("filtered", "1:t", "Filtered regimes: known at the time, data 1:t"),
        ("filtered", None, "Filtered regimes: known at the time, data 1:t"),
        ("predicted", "1:t-1", "Predicted regimes: known one step before, data 1:t-1"),
        ("predicted", "1:T", "Forecast regimes: after the last row, data 1:T"),
    ],
)
def test_title_says_what_the_probabilities_know(y, variable, conditioning, words):
    panels = plotting.plot_regimes(y, probabilities(variable, conditioning))
    assert title(panels[0]) == words
    assert title(panels[1]) == words.replace("regimes", "state probabilities")


def test_attribute_outranks_the_name_of_a_variable(y):
    array = probabilities("gamma", "1:t").gamma
    assert title(plotting.plot_regimes(y, array)[0]).startswith("Filtered")


def test_unnamed_probabilities_claim_nothing(y):
    array = probabilities().gamma.rename(None)
    array.attrs.clear()
    assert title(plotting.plot_regimes(y, array)[0]) == "Regimes"


def test_one_span_for_each_run_and_one_artist_for_each_state(y):
    top = plotting.plot_regimes(y, probabilities())[0]
    assert {gid: len(c.get_paths()) for gid, c in spans(top).items()} == {f"state-{k}": n for k, n in RUNS.items()}


def test_spans_cover_the_whole_axis_without_overlap(y):
    top = plotting.plot_regimes(y, probabilities())[0]
    widths = [np.ptp(path.vertices[:, 0]) for c in spans(top).values() for path in c.get_paths()]
    assert np.isclose(sum(widths), np.ptp(top.get_xlim()))


def test_path_outranks_the_most_probable_state(y):
    path = xr.DataArray(np.array(STATES)[np.repeat([1, 0], N // 2)], dims="date")
    panels = plotting.plot_regimes(y, probabilities(), path=path)
    assert {gid: len(c.get_paths()) for gid, c in spans(panels[0]).items()} == {"state-0": 1, "state-1": 1}
    assert title(panels[0]) == "Regimes of the path given"
    assert title(panels[1]).startswith("Smoothed")


def test_a_state_has_one_colour_in_every_figure(y):
    panels = plotting.plot_regimes(y, probabilities())
    wanted = [tuple(np.round(to_rgb(c), 6)) for c in ("#0072B2", "#E69F00", "#D55E00")]
    assert colours(spans(panels[0])[f"state-{k}"] for k in range(3)) == wanted
    assert colours(panels[1].collections) == wanted
    one = plotting.plot_posterior(probabilities(), states="crash")
    assert colours(one[0].collections) == wanted[2:]
    params = xr.Dataset({"mean": (("state", "feature"), np.zeros((3, 1))), "var": ("state", np.ones(3))})
    assert colours(plotting.plot_emissions(params)[0].collections) == wanted


def test_stacked_probabilities_fill_the_panel(y):
    bottom = plotting.plot_regimes(y, probabilities())[-1]
    upper = bottom.collections[-1].get_paths()[0].vertices[:, 1]
    assert np.isclose(upper.max(), 1)
    assert bottom.get_ylim() == (0, 1)
    assert [text.get_text() for text in bottom.get_legend().get_texts()] == STATES[::-1]


def test_dates_have_a_date_axis_and_numbers_do_not(y):
    dated = plotting.plot_regimes(y, probabilities())[-1]
    assert isinstance(dated.xaxis.get_major_formatter(), ConciseDateFormatter)
    assert dated.get_xlabel() == ""
    plain = plotting.plot_regimes(y.to_numpy(), probabilities(index=None))[-1]
    assert plain.get_xlim() == (-0.5, N - 0.5)
    assert plain.get_xlabel() == "date"


@pytest.mark.parametrize(
    ("index", "label", "limits"),
    [
        (pd.Index(np.arange(1900, 1900 + N)), "date", (1899.5, 1959.5)),
        (pd.to_timedelta(np.arange(N), unit="min"), "date (minutes)", (-0.5, 59.5)),
        (pd.Index([f"row {i}" for i in range(N)]), "date", (-0.5, 59.5)),
    ],
)
def test_other_time_axes(y, index, label, limits):
    bottom = plotting.plot_regimes(y.to_numpy(), probabilities(index=index))[-1]
    assert bottom.get_xlabel() == label
    assert np.allclose(bottom.get_xlim(), limits)


def test_periods_are_dates(y):
    y.index = pd.period_range("1950-01", periods=N, freq="M")
    bottom = plotting.plot_regimes(y, probabilities(index=None))[-1]
    assert isinstance(bottom.xaxis.get_major_formatter(), ConciseDateFormatter)


def test_events_are_lines_in_every_panel_and_texts_above(y):
    events = {"2024-02-01": "shock", pd.Timestamp("2024-03-01"): "cut", "1999-01-01": "long ago"}
    panels = plotting.plot_regimes(y, probabilities(), events=events)
    for ax in panels:
        lines = [line.get_xdata()[0] for line in ax.lines if line.get_gid() == "event"]
        assert lines == [date2num(np.datetime64("2024-02-01")), date2num(np.datetime64("2024-03-01"))]
    assert [t.get_text() for t in panels[0].child_axes[0].get_xticklabels()] == ["shock", "cut"]


def test_crowded_events_turn_their_texts(y):
    def angle(events):
        ax = plotting.plot_regimes(y, probabilities(), events=events)[0]
        return ax.child_axes[0].get_xticklabels()[0].get_rotation()

    assert angle({"2024-01-20": "a", "2024-03-01": "b"}) == 0
    assert angle({"2024-02-01": "a rather long text", "2024-02-08": "another long text"}) == 40
    assert angle({"2024-02-01": "a", "2024-02-02": "b"}) == 90


def test_columns_have_panels_up_to_four():
    frame = pd.DataFrame(np.zeros((N, 6)), index=DATES, columns=list("abcdef"))
    panels = plotting.plot_regimes(frame, probabilities())
    assert [ax.get_ylabel() for ax in panels] == ["a", "b", "c", "d", "probability"]
    assert "4 of 6 columns" in title(panels[0])
    panels = plotting.plot_regimes(frame, probabilities(), column=["f", "b"])
    assert [ax.get_ylabel() for ax in panels] == ["f", "b", "probability"]


def test_a_value_between_gaps_is_a_dot(y):
    y.iloc[10:20] = np.nan
    y.iloc[15] = 1.0
    top = plotting.plot_regimes(y, probabilities())[0]
    dots = [line for line in top.lines if line.get_marker() == "."]
    assert len(dots) == 1
    assert dots[0].get_ydata().tolist() == [1.0]


def test_symbols_are_written_on_the_axis():
    y = pd.Series(list("ACGT") * (N // 4), index=DATES, name="base")
    top = plotting.plot_regimes(y, probabilities())[0]
    assert [text.get_text() for text in top.get_yticklabels()] == list("ACGT")


def panel(dim="sequence"):
    first, second = probabilities(), probabilities().isel(date=slice(40))
    both = xr.concat([first, second.reindex(date=DATES)], pd.Index(["u", "v"], name=dim))
    return both.assign_coords(length=(dim, [N, 40]))


@pytest.mark.parametrize("dim", ["sequence", "patient"])
def test_a_sequence_of_a_panel(y, dim):
    data = {"u": y, "v": y.iloc[:40]}
    axes = plotting.plot_regimes(data, panel(dim), sequence="v")
    assert sum(len(c.get_paths()) for c in spans(axes[0]).values()) == 4
    assert len(axes[0].lines[0].get_ydata()) == 40
    stacked = pd.concat(data, names=[dim, "date"])
    assert len(plotting.plot_regimes(stacked, panel(dim), sequence="v")[0].lines[0].get_ydata()) == 40


def test_sequences_with_their_own_times(y):
    later = y.iloc[:40].set_axis(DATES[20:])
    stamps = np.stack([DATES.values, np.r_[DATES.values[20:], np.full(20, np.datetime64("NaT"))]])
    posterior = panel().drop_vars("date").assign_coords(timestamp=(("sequence", "date"), stamps))
    for data in ({"u": y, "v": later}, later.to_numpy()):
        axes = plotting.plot_regimes(data, posterior, sequence="v")
        assert np.isclose(axes[0].lines[0].get_xdata()[0], date2num(DATES[20]))


def test_panel_without_a_choice_names_the_sequences(y):
    with pytest.raises(DataError, match=r"2 sequences.*sequence= one of \['u', 'v'\]"):
        plotting.plot_regimes({"u": y, "v": y}, panel())
    with pytest.raises(DataError, match=r"sequence 'w' does not exist; choose from \['u', 'v'\]"):
        plotting.plot_posterior(panel(), sequence="w")
    with pytest.raises(DataError, match="one sequence only; leave it out"):
        plotting.plot_regimes(y, probabilities(), sequence="u")


def test_long_series_are_drawn_with_few_vertices():
    n = 100_000
    path = (np.random.default_rng(0).random(n) < 0.3).astype(int)
    posterior = probabilities(path=path, index=None, states=["a", "b"])
    top, bottom = plotting.plot_regimes(np.zeros(n), posterior)
    assert len(top.collections) == 2
    assert len(bottom.collections[0].get_paths()[0].vertices) < 50_000


def test_axes_of_the_caller_are_used_and_counted(y):
    mine = plt.subplots(2, 1)[1]
    assert list(plotting.plot_regimes(y, probabilities(), axes=mine)) == list(mine)
    with pytest.raises(DataError, match=r"axes: got 1 value\(s\), this figure has 2 panel"):
        plotting.plot_regimes(y, probabilities(), axes=mine[:1])


def test_complaints_of_regimes(y):
    with pytest.raises(DataError, match=r"the Dataset has variables \['xi'\]; pass the result of e_step or filter"):
        plotting.plot_regimes(y, probabilities("xi"))
    with pytest.raises(DataError, match="posterior is a ndarray; pass the Dataset"):
        plotting.plot_regimes(y, np.zeros((N, 2)))
    with pytest.raises(DataError, match="y has 59 rows, the posterior has 60 along 'date'"):
        plotting.plot_regimes(y.iloc[1:], probabilities())
    with pytest.raises(DataError, match=r"row 0 of y is labelled 2024-01-02.* that of the posterior 2024-01-01"):
        plotting.plot_regimes(y.set_axis(DATES + pd.Timedelta("1D")), probabilities())
    with pytest.raises(DataError, match=r"column 'volume' does not exist; choose from \['return'\]"):
        plotting.plot_regimes(y, probabilities(), column="volume")
    with pytest.raises(DataError, match=r"path has 'panic' at row 0; states are \['calm', 'stress', 'crash'\]"):
        plotting.plot_regimes(y, probabilities(), path=["panic"] * N)
    with pytest.raises(DataError, match="path has 3 rows, the posterior has 60"):
        plotting.plot_regimes(y, probabilities(), path=STATES)
    with pytest.raises(DataError, match="event 'someday' is not on the time axis, which has dates"):
        plotting.plot_regimes(y, probabilities(), events={"someday": "x"})
    with pytest.raises(DataError, match="not probabilities; use plot_states"):
        plotting.plot_regimes(y, gaussian())
    with pytest.raises(DataError, match="pass one of them, such as"):
        plotting.plot_regimes(xr.Dataset({"y": y.to_xarray()}), probabilities())


# plot_posterior


def test_posterior_has_a_panel_a_state_or_one_stack():
    panels = plotting.plot_posterior(probabilities("filtered", "1:t"))
    assert [ax.get_ylabel() for ax in panels] == STATES
    assert title(panels[0]) == "Filtered state probabilities: known at the time, data 1:t"
    (stack,) = plotting.plot_posterior(probabilities(), kind="stacked")
    assert len(stack.collections) == 3
    with pytest.raises(DataError, match="kind is 'pie'; choose 'panels' or 'stacked'"):
        plotting.plot_posterior(probabilities(), kind="pie")
    with pytest.raises(DataError, match="state 'boom' does not exist; choose from"):
        plotting.plot_posterior(probabilities(), states="boom")


def test_gaussian_posterior_has_bands():
    panels = plotting.plot_posterior(gaussian())
    assert len(panels) == 4
    assert "95 % bands" in title(panels[0])
    assert np.allclose(bands(panels[0])[0], 2 * 1.959964 * np.sqrt(SPREAD))


# linear-Gaussian figures

GAP = slice(20, 30)
SPREAD = np.where((np.arange(N) >= 20) & (np.arange(N) < 30), 9.0, 1.0)


def gaussian(variable="gamma"):
    angle = np.linspace(0, 3, N)
    mean = np.stack([10 * np.cos(angle), np.ones(N), 10 * np.sin(angle), np.ones(N)], 1)
    cov = SPREAD[:, None, None] * np.diag([1.0, 0.1, 4.0, 0.1])
    return xr.Dataset(
        {
            variable: (("date", "state"), mean),
            "cov" if variable == "gamma" else f"{variable}_cov": (("date", "state", "state_aux"), cov),
        },
        {"date": DATES, "state": ["east", "v_east", "north", "v_north"]},
    )


def motion(**extra):
    observation = (("feature", "state"), np.kron(np.eye(2), [[1.0, 0.0]]))
    return xr.Dataset({"observation": observation, **extra}, {"feature": ["east", "north"]})


@pytest.fixture
def measured():
    table = gaussian().gamma.sel(state=["east", "north"]).to_pandas()
    table.iloc[GAP] = np.nan
    return table


def test_signal_has_the_variance_of_the_observed_states(measured):
    panels = plotting.plot_states(measured, gaussian(), motion())
    assert [ax.get_ylabel() for ax in panels] == ["east", "north"]
    assert title(panels[0]) == "Smoothed signal: with hindsight, data 1:T"
    for ax, scale in zip(panels, (1, 2), strict=True):
        (height,) = bands(ax)
        assert np.allclose(height, 2 * 1.959964 * scale * np.sqrt(SPREAD))
        assert height[GAP].min() > height[:20].max()


def test_signal_includes_the_offset_and_the_level(measured):
    params = motion(observation_offset=("feature", [100.0, 0.0]))
    ax = plotting.plot_states(measured, gaussian(), params, level=0.5)[0]
    line = next(line for line in ax.lines if line.get_label() == "signal")
    assert np.allclose(line.get_ydata(), gaussian().gamma.sel(state="east") + 100)
    assert np.allclose(bands(ax)[0], 2 * 0.67449 * np.sqrt(SPREAD), rtol=1e-4)


def test_time_varying_observation(measured):
    params = motion()
    varying = params.observation.expand_dims(date=DATES) * xr.DataArray(np.arange(N), dims="date")
    ax = plotting.plot_states(measured, gaussian(), xr.Dataset({"observation": varying}))[0]
    line = next(line for line in ax.lines if line.get_label() == "signal")
    assert np.allclose(line.get_ydata(), gaussian().gamma.sel(state="east") * np.arange(N))


def test_a_view_by_row_under_another_name_of_time_and_into_the_future(measured):
    params = motion()
    factor = xr.DataArray(np.arange(N + 5.0), dims="time")
    rows = xr.Dataset({"observation": params.observation.expand_dims(time=N + 5) * factor})
    ax = plotting.plot_states(measured, gaussian(), rows)[0]
    line = next(line for line in ax.lines if line.get_label() == "signal")
    assert np.allclose(line.get_ydata(), gaussian().gamma.sel(state="east") * np.arange(N))


def test_units_stand_on_the_axes_and_long_labels_across(measured):
    measured.attrs["units"] = {"east": "m", "north": "m"}
    panels = plotting.plot_states(measured, gaussian(), motion(), states=["v_east"])
    assert [ax.get_ylabel() for ax in panels] == ["east (m)", "north (m)", "v_east"]
    ax = plotting.plot_track(measured, gaussian(), motion())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("east (m)", "north (m)")
    far = gaussian().assign(gamma=gaussian().gamma * 1e5)
    ax = plotting.plot_track(measured * 1e5, far, motion())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("east (km)", "north (km)")
    assert ax.xaxis.get_major_formatter()(25_000.0, 0) == "25"
    long = {"east": "a name of thirty letters or so", "north": "north"}
    panels = plotting.plot_states(measured.rename(columns=long), gaussian(), motion().assign_coords(
        feature=list(long.values())))  # fmt: skip
    assert [ax.yaxis.label.get_rotation() for ax in panels] == [0.0, 90.0]
    array = xr.DataArray(measured.to_numpy(), {"second": np.arange(N)}, ("second", "feature"), attrs={"units": "m"})
    array["second"].attrs["units"] = "s"
    posterior = gaussian().rename(date="second").assign_coords(second=np.arange(N))
    panels = plotting.plot_states(array, posterior, motion())
    assert panels[0].get_ylabel() == "east (m)"
    assert panels[-1].get_xlabel() == "second (s)"


def test_a_track_in_degrees(measured):
    """The dots are where the fixes were, in degrees, and the map is as wide as the Earth is there."""
    origin = (60.0, 179.9995)  # across the date line
    flat = gaussian().assign(gamma=gaussian().gamma * 100.0)
    ax = plotting.plot_track(100.0 * measured, flat, motion(), truth=100.0 * measured, origin=origin)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("longitude (degrees)", "latitude (degrees)")
    dots = next(line for line in ax.lines if line.get_label() == "measured").get_xydata()
    there = geodesy.to_degrees(100.0 * measured, origin=origin)
    np.testing.assert_allclose(dots[:, 1], there["latitude"], rtol=1e-12)
    np.testing.assert_allclose(np.mod(dots[:, 0], 360.0), np.mod(there["longitude"], 360.0), rtol=1e-12)
    assert np.nanmax(np.abs(dots[:, 0] - origin[1])) < 1.0
    assert ax.get_aspect() == pytest.approx(2.0, rel=0.01)
    ellipses = next(c for c in ax.collections if c.get_gid() == "ellipses").get_paths()
    assert np.ptp(ellipses[0].vertices[:, 0]) == pytest.approx(2 * np.ptp(ellipses[0].vertices[:, 1]), rel=0.6)


def test_half_a_fix_is_no_fix(measured):
    measured.iloc[5, 1] = np.nan
    ax = plotting.plot_track(measured, gaussian(), motion())
    lines = {line.get_label(): line for line in ax.lines}
    assert "no complete measurement" in lines
    assert np.isfinite(lines["no complete measurement"].get_xdata()).sum() == 10 + 2 + 3


def test_states_without_parameters(measured):
    panels = plotting.plot_states(measured, gaussian())
    assert [ax.get_ylabel() for ax in panels] == ["east", "v_east", "north", "v_north"]
    assert ["measured" in [line.get_label() for line in ax.lines] for ax in panels] == [
        True,
        False,
        True,
        False,
    ]
    (one,) = plotting.plot_states(measured["east"], gaussian(), states="v_east")
    assert one.get_ylabel() == "v_east"


def test_signal_and_chosen_states_together(measured):
    panels = plotting.plot_states(measured, gaussian(), motion(), states=["v_east"])
    assert [ax.get_ylabel() for ax in panels] == ["east", "north", "v_east"]


def test_filtered_states_say_so(measured):
    assert title(plotting.plot_states(measured, gaussian("filtered"))[0]).startswith("Filtered states: known")


def test_track_marks_gaps_ends_and_uncertainty(measured):
    ax = plotting.plot_track(measured, gaussian(), motion(), truth=measured.interpolate())
    lines = {line.get_label(): line for line in ax.lines}
    assert {"measured", "smoothed track", "no measurement", "start", "end", "truth"} <= lines.keys()
    solid = np.isfinite(lines["smoothed track"].get_xdata())
    assert solid.sum() == N - 10
    assert np.isfinite(lines["no measurement"].get_xdata()).sum() == 10 + 2
    assert ax.get_aspect() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("east", "north")
    assert lines["start"].get_xdata()[0] == 10


def test_track_without_gaps_has_no_dashes(measured):
    whole = gaussian().gamma.sel(state=["east", "north"]).to_pandas()
    labels = [line.get_label() for line in plotting.plot_track(whole, gaussian(), motion()).lines]
    assert "no measurement" not in labels


def test_track_ellipses_are_few_and_of_the_right_size(measured):
    ax = plotting.plot_track(measured, gaussian(), motion(), axes=("north", "east"))
    (ellipses,) = (c for c in ax.collections if c.get_gid() == "ellipses")
    assert isinstance(ellipses, PolyCollection)
    outlines = [path.vertices for path in ellipses.get_paths()]
    assert 25 <= len(outlines) <= 35
    radius = np.sqrt(-2 * np.log(0.05))
    assert np.allclose(np.ptp(outlines[0], axis=0), [2 * 2 * radius, 2 * radius], rtol=0.01)
    assert max(np.ptp(o[:, 1]) for o in outlines) > 2.9 * np.ptp(outlines[0][:, 1])
    assert ax.get_xlabel() == "north"


def test_segments_split_a_path_at_single_steps():
    from statespace_em.plotting.track import _segments

    path = np.arange(10.0).reshape(5, 2)
    wanted = np.array([True, False, True, False])
    assert _segments(path, wanted)[:, 0].tolist() == pytest.approx([0, 2, np.nan, 4, 6, np.nan], nan_ok=True)
    assert _segments(path, ~wanted)[:, 0].tolist() == pytest.approx([np.nan, 2, 4, np.nan, 6, 8], nan_ok=True)


def test_complaints_of_the_linear_gaussian_figures(measured, y):
    with pytest.raises(DataError, match="posterior has no covariance of the states"):
        plotting.plot_states(y, probabilities())
    with pytest.raises(DataError, match=r"params has no 'observation': got \['rate'\]"):
        plotting.plot_track(measured, gaussian(), xr.Dataset({"rate": ("state", [1.0])}))
    with pytest.raises(DataError, match=r"feature 'up' does not exist; choose from \['east', 'north'\]"):
        plotting.plot_track(measured, gaussian(), motion(), axes=("east", "up"))
    with pytest.raises(DataError, match=r"a track needs two features, got \['east'\]"):
        plotting.plot_track(measured, gaussian(), motion(), axes=("east",))
    with pytest.raises(DataError, match="pass the matplotlib Axes as ax="):
        plotting.plot_track(measured, gaussian(), motion(), axes=plt.subplots()[1])
    with pytest.raises(DataError, match="y has 10 rows, the posterior has 60"):
        plotting.plot_track(measured.iloc[:10], gaussian(), motion())
    with pytest.raises(DataError, match=r"observation has shape .* the posterior has 4 states"):
        plotting.plot_states(measured, gaussian(), motion().isel(state=[0, 1]))
    with pytest.raises(DataError, match="level is 95, expected a probability"):
        plotting.plot_states(measured, gaussian(), level=95)


# parameters


def transition(table, states=("calm", "stress")):
    coords = {"state": list(states), "next_state": list(states)}
    return xr.Dataset({"transition": (("state", "next_state"), table)}, coords)


def test_transition_is_annotated_with_probabilities_and_durations():
    ax = plotting.plot_transition(transition([[0.98, 0.02], [0.0, 1.0]]))
    assert [text.get_text() for text in ax.texts] == ["0.980", "0.020", "0", "1"]
    assert [t.get_text() for t in ax.child_axes[0].get_yticklabels()] == ["50.0", "∞"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("state now", "next state")


def test_transition_never_rounds_to_certainty():
    ax = plotting.plot_transition(transition([[0.9999, 0.0001], [0.5, 0.5]]))
    assert [text.get_text() for text in ax.texts][:2] == [">0.999", "<0.001"]


def test_transition_is_transposed_by_name():
    params = transition([[0.9, 0.1], [0.3, 0.7]])
    for given in (params, params.transpose("next_state", "state"), params.transition):
        ax = plotting.plot_transition(given)
        assert np.allclose(ax.images[0].get_array(), [[0.9, 0.1], [0.3, 0.7]])


def test_complaints_of_transition():
    with pytest.raises(DataError, match=r"transition row 'stress' sums to 0.9, expected 1; rows are the state now"):
        plotting.plot_transition(transition([[0.9, 0.1], [0.2, 0.7]]))
    with pytest.raises(DataError, match=r"params has no 'transition': got \['rate'\]"):
        plotting.plot_transition(xr.Dataset({"rate": ("state", [1.0])}))
    with pytest.raises(DataError, match=r"select one with params.isel\(date=0\)"):
        plotting.plot_transition(transition([[0.9, 0.1], [0.3, 0.7]]).expand_dims(date=2))


def test_trace_shows_the_gap_on_a_log_axis():
    objective = -100 - 0.5 ** np.arange(20)
    left, right = plotting.plot_trace(pd.DataFrame({"objective": objective}))
    assert right.get_yscale() == "log"
    assert np.allclose(right.lines[0].get_ydata(), objective[-1] - objective[:-1])
    assert np.allclose(left.lines[0].get_ydata(), objective)
    assert len(left.lines) == 1


def test_trace_marks_a_decrease():
    left, _ = plotting.plot_trace(pd.DataFrame({"objective": [-5.0, -3.0, -4.0, -2.0]}))
    marks = next(line for line in left.lines if line.get_label() == "decrease")
    assert marks.get_xdata().tolist() == [2]


def test_trace_of_one_iteration_and_of_none():
    _, right = plotting.plot_trace(pd.DataFrame({"objective": [-5.0]}))
    assert right.texts[0].get_text() == "no step to show"
    with pytest.raises(DataError, match="trace has no rows"):
        plotting.plot_trace(pd.DataFrame({"objective": []}))
    with pytest.raises(DataError, match=r"no column 'objective': got \['loss'\]"):
        plotting.plot_trace(pd.DataFrame({"loss": [1.0]}))


# emissions


def mixture(cov_name, cov_dims, cov, weight=(0.25, 0.75), features=("a", "b")):
    mean = [[0.0, 5.0], [4.0, -5.0]]
    variables = {
        "mean": (("state", "feature"), mean),
        cov_name: (cov_dims, cov),
        "weight": ("state", list(weight)),
    }
    return xr.Dataset(variables, {"feature": list(features), "state": ["low", "high"]})


FULL = ("state", "feature", "feature_aux")


def area(line):
    return np.trapezoid(line.get_ydata(), line.get_xdata())


@pytest.mark.parametrize(
    ("name", "dims", "value"),
    [
        ("cov", FULL, np.array([np.diag([1.0, 4.0])] * 2)),
        ("cov", FULL[1:], np.diag([1.0, 4.0])),
        ("var", ("state", "feature"), [[1.0, 4.0], [1.0, 4.0]]),
        ("var", ("feature",), [1.0, 4.0]),
    ],
)
def test_gaussian_densities_are_weighted_and_normalised(name, dims, value):
    panels = plotting.plot_emissions(mixture(name, dims, value))
    assert [ax.get_xlabel() for ax in panels] == ["a", "b"]
    for ax, sd in zip(panels, (1, 2), strict=True):
        low, high, total = ax.lines
        assert (low.get_label(), high.get_label(), total.get_label()) == ("low", "high", "all states")
        assert [area(low), area(high), area(total)] == pytest.approx([0.25, 0.75, 1], rel=1e-3)
        assert low.get_ydata().max() == pytest.approx(0.25 / (sd * np.sqrt(2 * np.pi)), rel=1e-3)


def test_spherical_variance():
    params = mixture("var", ("state",), [1.0, 4.0])
    peaks = [line.get_ydata().max() for line in plotting.plot_emissions(params, feature="b")[0].lines[:2]]
    assert peaks == pytest.approx([0.25 * 0.398942, 0.75 * 0.199471], rel=1e-3)


def test_stationary_distribution_weights_the_states_of_an_hmm():
    params = mixture("var", ("state",), [1.0, 1.0]).drop_vars("weight")
    chain = params.assign(transition=(("state", "next_state"), [[0.9, 0.1], [0.3, 0.7]]))
    low, high, _ = plotting.plot_emissions(chain, feature="a")[0].lines
    assert [area(low), area(high)] == pytest.approx([0.75, 0.25], rel=1e-3)
    absorbing = params.assign(transition=(("state", "next_state"), [[0.9, 0.1], [0.0, 1.0]]))
    for unweighted in (params, absorbing):
        ax = plotting.plot_emissions(unweighted, feature="a")[0]
        assert [area(line) for line in ax.lines] == pytest.approx([1, 1], rel=1e-3)
        assert ax.get_ylabel() == "density"


def test_histogram_is_a_density():
    y = np.random.default_rng(0).normal(size=(2000, 2))
    ax = plotting.plot_emissions(mixture("var", ("feature",), [1.0, 1.0]), y, feature="a")[0]
    (histogram,) = ax.patches
    values, edges, _ = histogram.get_data()
    assert np.sum(values * np.diff(edges)) == pytest.approx(1, abs=0.01)


def test_plane_comes_with_two_correlated_features_or_on_request():
    y = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    params = mixture("cov", FULL, np.array([[[4.0, 1.0], [1.0, 1.0]]] * 2))
    assert len(plotting.plot_emissions(params, y)) == 3
    assert len(plotting.plot_emissions(params)) == 2
    (ax,) = plotting.plot_emissions(params, y, plane=("b", "a"))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("b", "a")
    widths = [np.ptp(line.get_ydata()) for line in ax.lines if len(line.get_ydata()) == 181]
    assert widths == pytest.approx([4 * np.sqrt(-2 * np.log(0.5)), 4 * np.sqrt(-2 * np.log(0.05))] * 2, rel=1e-3)


def test_poisson_bars_are_weighted_probabilities():
    params = xr.Dataset({"rate": (("state", "feature"), [[0.0], [9.0]]), "weight": ("state", [0.4, 0.6])})
    ax = plotting.plot_emissions(params, np.array([0, 0, 3, 9, np.nan]))[0]
    heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
    assert heights[0][0] == pytest.approx(0.4)
    assert sum(heights[0]) == pytest.approx(0.4)
    assert heights[1][9] == pytest.approx(0.6 * 0.131756, rel=1e-4)
    assert sum(heights[1]) == pytest.approx(0.6, rel=1e-3)


@pytest.mark.parametrize("several", [False, True])
def test_categorical_bars_by_state_and_symbol(several):
    table = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    dims = ("state", "symbol")
    if several:
        table, dims = np.stack([table, [[1, 0, np.nan], [0, 1, np.nan]]], 1), ("state", "feature", "symbol")
    coords = {"symbol": list("xyz"), "state": ["p", "q"]} | ({"feature": ["f", "g"]} if several else {})
    y = pd.DataFrame({"f": list("xxyz"), "g": list("xyxy")}) if several else pd.Series(list("xxyz"))
    panels = plotting.plot_emissions(xr.Dataset({"prob": (dims, table)}, coords), y)
    assert len(panels) == 1 + several
    heights = [[bar.get_height() for bar in bars] for bars in panels[0].containers]
    assert heights == [[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]
    shares = [segment[0, 1] for segment in panels[0].collections[0].get_segments()]
    assert shares == [0.5, 0.25, 0.25]
    if several:
        assert [text.get_text() for text in panels[1].get_xticklabels()] == ["x", "y"]


def test_complaints_of_emissions():
    with pytest.raises(DataError, match=r"params has no 'mean', 'rate', 'prob': got \['kappa'\]"):
        plotting.plot_emissions(xr.Dataset({"kappa": ("state", [1.0])}))
    params = mixture("var", ("feature",), [1.0, 1.0])
    with pytest.raises(DataError, match=r"feature 'c' does not exist; choose from \['a', 'b'\]"):
        plotting.plot_emissions(params, feature="c")
    with pytest.raises(DataError, match="a plane needs two features of a Gaussian"):
        plotting.plot_emissions(params, plane=("a",))
    with pytest.raises(DataError, match=r"y has no column 'a'; it has \['z'\]"):
        plotting.plot_emissions(params, pd.Series([1.0, 2.0], name="z"))
    with pytest.raises(DataError, match="params has mean but no cov or var"):
        plotting.plot_emissions(params.drop_vars("var"))
