"""Matrices kept once for many rows read, change, copy and travel as arrays of every row do."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em import shared
from statespace_em.labels import Labels
from statespace_em.shared import FEW, SharedRows, lazily, pays, stack_of

SHARED = {"filter": ("filtered_cov", "predicted_cov", "innovation_cov"), "e_step": ("cov", "cross_cov")}
N_ROWS = FEW + 52
DIMS = ("time", "state", "state_aux")
LABEL = {
    "slice": lambda a: a.isel(time=slice(5, 2000, 3)),
    "last": lambda a: a.isel(time=-1),
    "backward": lambda a: a.isel(time=slice(None, None, -7)),
    "list": lambda a: a.isel(time=[4, 1, 1, -1], state_aux=[1, 0]),
    "mask": lambda a: a.isel(time=np.arange(N_ROWS) % 1000 == 1),
    "labels": lambda a: a.sel(state="x", state_aux="y"),
    "one number": lambda a: a.isel(time=3, state=0, state_aux=1),
    "twice": lambda a: a.isel(time=slice(10, 40)).isel(state=1).isel(time=[2, 5]),
    "diagonal": lambda a: a.isel(state=xr.DataArray([0, 1, 2], dims="k"), state_aux=xr.DataArray([0, 1, 2], dims="k")),
    "points": lambda a: a.isel(time=xr.DataArray([3, 50, 60], dims="k"), state=xr.DataArray([2, 1, 0], dims="k")),
    "transposed": lambda a: a.transpose("state", "time", "state_aux"),
    "moved and cut": lambda a: a.transpose("state", "state_aux", "time").isel(time=slice(2, 5)),
    "arithmetic": lambda a: 2.0 * a**0.5 + a.mean("time"),
    "where": lambda a: a.where(a > 0.5, 0.0),
    "shift": lambda a: a.shift(time=1),
    "numpy": lambda a: np.diagonal(a, axis1=1, axis2=2).copy(),
    "rolled": lambda a: a.roll(time=3),
    "numbers": lambda a: a.data.sum(),
    "table": lambda a: a.isel(state=0, state_aux=slice(2)).to_pandas().to_numpy(),
}


def rows(seed=0):
    """Shared rows whose matrices come in runs, and the array of all of them."""
    rng = np.random.default_rng(seed)
    distinct = rng.random((40, 3, 3))
    place = np.sort(rng.integers(0, 40, N_ROWS))
    return SharedRows(distinct, place), distinct[place]


def pair():
    """A variable that is written out when looked at, and one that is."""
    lazy, dense = rows()
    coords = {"time": np.arange(N_ROWS), "state": list("xyz"), "state_aux": list("xyz")}
    return [xr.Dataset({"cov": (DIMS, values)}, coords) for values in (lazily(lazy), dense)]


def is_lazy(variable):
    return not variable.variable._in_memory


@pytest.mark.parametrize("name", LABEL)
def test_parts_are_those_of_the_array_of_all_rows(name):
    lazy, dense = pair()
    found, expected = LABEL[name](lazy["cov"]), LABEL[name](dense["cov"])
    if isinstance(expected, xr.DataArray):
        xr.testing.assert_identical(found, expected)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["slice", "last", "backward", "labels", "one number", "twice"])
def test_parts_are_cut_before_anything_is_written_out(name, monkeypatch):
    lazy, dense = pair()
    most = LABEL[name](dense["cov"]).size
    write, sizes = shared.written_out, []
    monkeypatch.setattr(shared, "written_out", lambda *args: sizes.append(write(*args)) or sizes[-1])
    LABEL[name](lazy["cov"]).load()
    assert [np.size(each) for each in sizes] == [most]
    assert is_lazy(lazy["cov"])


def test_values_are_written_out_once():
    lazy, dense = pair()
    assert is_lazy(lazy["cov"])
    values = lazy["cov"].values
    np.testing.assert_array_equal(values, dense["cov"].values)
    assert np.shares_memory(lazy["cov"].values, values)
    assert not is_lazy(lazy["cov"])
    values[3] = 9.0  # as arrays of all rows can be changed
    assert (lazy["cov"].isel(time=3) == 9.0).all()


def test_entries_can_be_set():
    for look in (False, True):
        lazy, dense = pair()
        if look:
            lazy.load()
        for dataset in (lazy, dense):
            dataset["cov"][3] = 9.0
            dataset["cov"].loc[{"time": slice(100, 200), "state": "y"}] = np.nan
            dataset["cov"][{"time": [7, 8], "state": 1, "state_aux": [0, 2]}] = -1.0
        xr.testing.assert_identical(lazy, dense)


@pytest.mark.parametrize("prepare", ["untouched", "written", "loaded"])
@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle"])
def test_copies_are_independent(how, prepare):
    lazy, dense = pair()
    if prepare == "written":
        lazy["cov"][0] = dense["cov"][0] = 5.0
    if prepare == "loaded":
        lazy.load()
    ways = {
        "copy": lambda d: d.copy(deep=True),
        "deepcopy": copy.deepcopy,
        "pickle": lambda d: pickle.loads(pickle.dumps(d)),
    }
    other = ways[how](lazy)
    xr.testing.assert_identical(other, dense)
    other["cov"][1] = 1.0
    other["cov"].values[2] = 2.0
    xr.testing.assert_identical(lazy, dense)
    lazy["cov"][3] = 3.0
    assert (other["cov"].isel(time=3) == dense["cov"].isel(time=3)).all()


def test_rows_that_share_matrices_travel_light():
    lazy, dense = pair()
    assert len(pickle.dumps(lazy)) < 0.4 * len(pickle.dumps(dense))


def test_datasets_are_put_together_written_and_shown(tmp_path):
    lazy, dense = pair()
    for join in (lambda d: xr.concat([d, d], "time"), lambda d: xr.concat([d, 2 * d], "run"), lambda d: xr.merge([d])):
        xr.testing.assert_identical(join(lazy), join(dense))
        lazy = pair()[0]
    for where in (None, tmp_path / "a.nc"):
        path = tmp_path / "b.nc" if where is None else where
        pair()[0].to_netcdf(path, engine="h5netcdf")
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            xr.testing.assert_equal(opened.load(), dense)
    lazy = pair()[0]
    assert "cov" in repr(lazy)
    assert "float64" in lazy._repr_html_()
    assert "cov" in repr(lazy["cov"])
    assert "float64" in lazy["cov"]._repr_html_()
    assert is_lazy(lazy["cov"])  # to show it does not write it out
    assert lazy.nbytes == dense.nbytes
    xr.testing.assert_identical(lazy, dense)
    xr.testing.assert_identical(pair()[0].reset_coords(), dense.reset_coords())
    assert lazy.equals(dense)


def test_dask_takes_them_in_chunks():
    pytest.importorskip("dask")
    lazy, dense = pair()
    chunked = lazy.chunk(time=500)
    assert is_lazy(lazy["cov"])
    xr.testing.assert_identical(chunked.compute(), dense)


def test_shared_rows_read_like_an_array():
    lazy, dense = rows()
    assert lazy.shape == dense.shape
    assert len(lazy) == len(dense)
    for key in (3, -1, slice(5, 9), [2, 2], np.arange(N_ROWS) > 40):
        np.testing.assert_array_equal(lazy[key], dense[key])
    np.testing.assert_array_equal(np.asarray(lazy), dense)
    np.testing.assert_array_equal(np.array(lazy, dtype=np.float32), dense.astype(np.float32))
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(lazy, copy=False)
    for which in (lazy, dense):
        stack, place = stack_of(which)
        np.testing.assert_array_equal(stack[place], dense)


@pytest.mark.parametrize(("distinct", "n_rows", "wanted"), [(10, FEW - 1, False), (10, FEW, True)])
def test_few_rows_are_written_out(distinct, n_rows, wanted):
    assert pays(distinct, n_rows) is wanted
    assert not pays(n_rows // 2 + 1, n_rows)
    assert pays(FEW // 2, FEW)


@pytest.mark.parametrize("lengths", [(1500, 1500), (900, 1, 1300)])
def test_sequences_are_padded_with_nan(lengths):
    import pandas as pd

    n_rows = sum(lengths)
    rng = np.random.default_rng(1)
    distinct, place = rng.random((7, 2, 2)), rng.integers(0, 7, n_rows)
    times = tuple(pd.RangeIndex(n) for n in lengths)
    labels = Labels("time", times, pd.Index(["a"]), "sequence", pd.Index(range(len(lengths))))
    found, expected = (
        labels.dataset({"cov": (("state", "state_aux"), values)}, {})
        for values in (SharedRows(distinct, place), distinct[place])
    )
    assert is_lazy(found["cov"])
    xr.testing.assert_identical(
        found.isel(sequence=-1, time=slice(-3, None)), expected.isel(sequence=-1, time=slice(-3, None))
    )
    xr.testing.assert_identical(found, expected)


# answers of models


def model_and_rows(n_rows=N_ROWS, gaps=0.0, **start):
    model = sse.LinearGaussianSSM(["x", "y"])
    params = model.parameters(
        transition=[[0.9, 0.1], [0.0, 0.7]], observation=np.eye(2), process_cov=np.eye(2),
        measurement_cov=2 * np.eye(2), initial_mean=[0, 0], initial_cov=np.eye(2),
    )  # fmt: skip
    y = model.sample(n_rows, params, seed=0)["y"].values
    y[np.random.default_rng(1).random(y.shape) < gaps] = np.nan
    return model, params, y


@pytest.mark.parametrize("question", SHARED)
def test_answers_are_those_of_every_row_written_out(question, monkeypatch):
    model, params, y = model_and_rows()
    y[[100, 101, 700]], y[300, 0] = np.nan, np.nan
    lazy = getattr(model, question)(y, params)
    assert all(is_lazy(lazy[name]) for name in SHARED[question])
    monkeypatch.setattr(shared, "FEW", N_ROWS + 1)
    dense = getattr(model, question)(y, params)
    assert not any(is_lazy(variable) for variable in dense.values())
    xr.testing.assert_identical(lazy, dense)


@pytest.mark.parametrize("question", SHARED)
def test_random_gaps_are_written_out(question):
    model, params, y = model_and_rows(gaps=0.2)
    assert not any(is_lazy(variable) for variable in getattr(model, question)(y, params).values())


@pytest.mark.parametrize("lengths", [(700, 700, 700), (1500, 3, 800)])
def test_answers_on_sequences(lengths, monkeypatch):
    model, params, y = model_and_rows(sum(lengths))
    parts = np.split(y, np.cumsum(lengths)[:-1])
    lazy = model.e_step(parts, params), model.filter(parts, params)
    assert is_lazy(lazy[0]["cov"])
    assert is_lazy(lazy[1]["innovation_cov"])
    monkeypatch.setattr(shared, "FEW", sum(lengths) + 1)
    for found, expected in zip(lazy, (model.e_step(parts, params), model.filter(parts, params))):
        xr.testing.assert_identical(found, expected)


def test_what_reads_them_gives_the_same(monkeypatch):
    model, params, y = model_and_rows()
    y[50] = np.nan

    def answers():
        posterior = model.e_step(y, params)
        known = model.filter(y, params)
        return [
            model.m_step(y, posterior, params), model.fixed_lag(y, 3, params), model.smooth(y, params),
            model.one_step(y, params), model.impute(y, params), model.forecast(y, 2, params),
            model.residuals(y, params),
            sse.checks.auxiliary_residuals(y, posterior, params), sse.checks.gate(known), sse.checks.nis(known),
            sse.checks.standardised_innovations(known), sse.checks.nees(posterior, posterior["gamma"] + 0.1),
            model.simulate_smoothed(y[:100], 3, params, seed=0),
        ]  # fmt: skip

    lazy = answers()
    monkeypatch.setattr(shared, "FEW", N_ROWS + 1)
    for found, expected in zip(lazy, answers()):
        xr.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_they_can_be_plotted():
    import matplotlib.pyplot as plt

    from statespace_em import plotting

    model, params, y = model_and_rows()
    for plot in (
        lambda: plotting.plot_states(y, model.e_step(y, params)),
        lambda: plotting.plot_states(y, model.filter(y, params)),
        lambda: plotting.plot_innovations(model.filter(y, params)),
        lambda: model.e_step(y, params)["cov"].isel(state=0, state_aux=0).plot(),
    ):
        plot()
        plt.close("all")
