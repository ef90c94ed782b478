"""A real cluster of two worker processes: the fit in memory, data that stay away, and a worker that dies."""

from __future__ import annotations

import logging
import os
import signal
import sys

import numpy as np
import pytest
import xarray as xr
from hmm_cases import case

import statespace_em as sse

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")

N_CHUNKS = 4


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        yield client


def away(y, *, kill=None):
    """Chunks of two sequences that refuse to be loaded by this process.

    ``kill`` is a file: whoever loads the third chunk while it exists removes it and dies.
    """
    here = os.getpid()

    def block(number):
        assert os.getpid() != here, "loaded by the client"
        if kill is not None and number == 2 and os.path.exists(kill):
            os.remove(kill)
            os.kill(os.getpid(), signal.SIGKILL)
        return y[2 * number : 2 * number + 2]

    parts = [da.from_delayed(dask.delayed(block)(i), (2, *y.shape[1:]), float) for i in range(len(y) // 2)]
    return xr.DataArray(da.concatenate(parts), dims=("sequence", "time", "feature"))


def drawn():
    model, params, _ = case("diagonal", 2, 2, 0)
    return model, params, np.stack([model.sample(40, params, seed=seed)["y"].values for seed in range(2 * N_CHUNKS)])


def test_a_fit_is_that_in_memory(client):
    model, _, y = drawn()
    options = {"n_starts": 1, "max_iter": 10, "tol": 0.0, "accelerate": False}
    found = type(model)(**model.get_params()).fit(away(y), **options)
    in_memory = type(model)(**model.get_params()).fit(
        xr.DataArray(y, dims=("sequence", "time", "feature")), **options
    )  # fmt: skip
    xr.testing.assert_allclose(found.params_, in_memory.params_, rtol=1e-9)
    np.testing.assert_allclose(found.trace_, in_memory.trace_, rtol=1e-12)


def test_answers_stay_with_the_workers_until_they_are_wanted(client):
    model, params, y = drawn()
    whole = xr.DataArray(y, dims=("sequence", "time", "feature"))
    posterior = model.e_step(away(y), params)
    xr.testing.assert_allclose(
        posterior["gamma"].mean("time").compute(), model.e_step(whole, params)["gamma"].mean("time")
    )
    there, here = model.decode(away(y), params).compute(), model.decode(whole, params)
    xr.testing.assert_identical(there.drop_vars("log_prob"), here.drop_vars("log_prob"))
    xr.testing.assert_allclose(there["log_prob"], here["log_prob"], rtol=1e-13)  # rows are added in another order
    assert model.score(away(y), params) == pytest.approx(model.score(whole, params), rel=1e-12)


def test_a_worker_killed_in_the_middle_of_a_fit_costs_only_time(client, tmp_path):
    model, params, y = drawn()
    options = {"start": params, "max_iter": 6, "tol": 0.0}
    expected = type(model)(**model.get_params()).fit(away(y), **options)
    kill = tmp_path / "kill"
    before = set(client.run(os.getpid).values())

    def lay(step):
        if step == 3:
            kill.touch()

    array = away(y, kill=str(kill))
    counted = []
    original = sse.scale.core.ChunkedCore.e_step

    def e_step(self, params, data):
        counted.append(1)
        lay(len(counted))
        return original(self, params, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse.scale.core.ChunkedCore, "e_step", e_step)
        found = type(model)(**model.get_params()).fit(array, **options)
    assert len(counted) == 6
    assert not kill.exists()
    client.wait_for_workers(2)
    assert set(client.run(os.getpid).values()) != before
    xr.testing.assert_identical(found.params_, expected.params_)
    assert found.trace_.equals(expected.trace_)


def test_many_series_share_the_workers(client):
    model, params, y = drawn()
    options = {"start": params, "max_iter": 3, "tol": 0.0}
    whole = xr.DataArray(y, dims=("sequence", "time", "feature"))
    expected = sse.fit_many(model, whole, **options)
    xr.testing.assert_identical(sse.fit_many(model, whole, client=client, **options), expected)
    xr.testing.assert_identical(sse.fit_many(model, away(y), **options), expected)
    xr.testing.assert_identical(sse.fit_many(model, away(y), client=client, **options), expected)


def test_a_worker_without_the_package_is_refused_before_the_work(client):
    model, params, y = drawn()

    def hide():
        sys.modules["_hidden"], sys.modules["statespace_em"] = sys.modules["statespace_em"], None

    def show():
        sys.modules["statespace_em"] = sys.modules.pop("_hidden")

    first = sorted(client.scheduler_info()["workers"])[0]
    client.run(hide, workers=[first])
    try:
        for ask in (model.score, model.e_step):
            with pytest.raises(RuntimeError, match=f"worker {first} cannot import statespace_em"):
                ask(away(y), params)
    finally:
        client.run(show, workers=[first])
