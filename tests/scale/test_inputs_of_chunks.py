"""Known inputs of data in chunks: in chunks too or in memory, on threads and on a cluster of two processes."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em.errors import DataError

pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

S, T = 6, 30
rng = np.random.default_rng(0)
U = xr.DataArray(
    rng.normal(size=(S, T + 4, 2)), {"sequence": list("abcdef"), "time": np.arange(T + 4), "input": ["rain", "heat"]},
    ("sequence", "time", "input"),
)  # fmt: skip
LEVEL = np.cumsum(rng.normal(size=(S, T)), axis=1)
Y = (LEVEL + U.values[:, :T] @ [2.0, -1.0])[:, :, None] + 0.5 * rng.normal(size=(S, T, 1))
Y[1, 4] = np.nan
COORDS = {"sequence": list("abcdef"), "time": np.arange(T), "feature": ["flow"]}
WHOLE = xr.DataArray(Y, COORDS, ("sequence", "time", "feature"))
MODEL = {"transition": [[1]], "observation": [[1]], "observation_input": "free", "initial": "diffuse"}


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


def fitted(y, inputs, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sse.LinearGaussianSSM(**MODEL).fit(y, inputs=inputs, max_iter=4, n_starts=1, **options)


def same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-10, err_msg=str(name))


FORMS = {
    "in chunks": lambda: U.chunk({"sequence": 2}),
    "in other chunks": lambda: U.chunk({"sequence": 3, "time": 10}),
    "in memory": lambda: U,
    "a dict": lambda: {key: U.sel(sequence=key, drop=True).to_pandas() for key in "abcdef"},
    "a list": lambda: [U.values[i] for i in range(S)],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_fit_of_chunks_is_that_in_memory(form):
    inputs, chunks = FORMS[form](), WHOLE.chunk({"sequence": 2})
    model, other = fitted(WHOLE, U), fitted(chunks, inputs)
    same(other.params_, model.params_)
    assert other.score(chunks, inputs=inputs) == pytest.approx(model.score(WHOLE, inputs=U), rel=1e-9)
    if form not in ("in chunks", "a list"):
        return
    answers = (
        ("e_step", {}), ("filter", {}), ("decode", {}), ("forecast", {"horizon": 4}), ("one_step", {}),
    )  # fmt: skip
    for name, options in answers:
        found = getattr(other, name)(chunks, inputs=inputs, **options).compute()
        expected = getattr(model, name)(WHOLE, inputs=U, **options)
        if isinstance(found, xr.DataArray):
            found, expected = found.to_dataset(name="_"), expected.to_dataset(name="_")
        same(found, expected)


def test_one_table_serves_all_sequences():
    table = pd.DataFrame(U.values[0], columns=["rain", "heat"])
    model, other = fitted(WHOLE, table), fitted(WHOLE.chunk({"sequence": 2}), table)
    same(other.params_, model.params_)


def test_a_fit_on_a_cluster_is_that_in_memory(client):
    model = fitted(WHOLE, U)
    with client.as_current():
        other = fitted(WHOLE.chunk({"sequence": 2}), U.chunk({"sequence": 2}))
        found = other.filter(WHOLE.chunk({"sequence": 2}), inputs=U.chunk({"sequence": 2})).compute()
    same(other.params_, model.params_)
    same(found, model.filter(WHOLE, inputs=U))


def test_columns_are_found_by_name():
    model = fitted(WHOLE, U)
    turned = U.isel(input=[1, 0]).chunk({"sequence": 3})
    found = model.score(WHOLE.chunk({"sequence": 2}), inputs=turned)
    assert found == pytest.approx(model.score(WHOLE, inputs=U), rel=1e-9)


def test_names_with_factors_of_rows_are_fitted_in_chunks():
    accuracy = rng.uniform(0.5, 2.0, T)
    arguments = {
        "transition": [[{"a": 1.0, "b": np.cos(np.arange(T))}]], "process_cov": [["q"]], "observation": [[1], [0.5]],
        "measurement_cov": [[{"r": accuracy}, 0], [0, "s"]], "initial": "diffuse",
    }  # fmt: skip
    y = np.concatenate([WHOLE.values, WHOLE.values[::-1]], 2)
    whole = xr.DataArray(y, dims=("sequence", "time", "feature"))
    ends = []
    for each in (whole, whole.chunk({"sequence": 2})):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ends.append(sse.LinearGaussianSSM(**arguments).fit(each, max_iter=5, n_starts=1).params_)
    same(ends[1], ends[0])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (lambda: U.isel(sequence=slice(4)).chunk({"sequence": 2}), "inputs= has 4 sequences, but y has 6"),
        (lambda: U.isel(sequence=slice(4)), "inputs= has 4 sequences, but y has 6"),
        (lambda: U.isel(sequence=[1, 0, 2, 3, 4, 5]).chunk({"sequence": 2}), "in another order"),
        (lambda: dict.fromkeys("abcde", U.values[0]), r"says nothing of sequence 'f'"),
        (lambda: [U.values[0]] * 5, "inputs= has 5 sequences, but y has 6"),
        (lambda: U.isel(time=slice(10)).chunk({"sequence": 2}), "inputs= has no row for time 10"),
        (lambda: U.where(U.time != 3).chunk({"sequence": 2}), "inputs= is missing"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, message):
    with pytest.raises(DataError, match=message):
        fitted(WHOLE.chunk({"sequence": 2}), inputs())
