"""Dask-backed data give the answers that they give in memory, chunk by chunk, and are never loaded as a whole."""

from __future__ import annotations

import pickle
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from scale_cases import DIMS, KEYS, data_of, fresh, model_and_params

import statespace_em as sse
from statespace_em import boundary, em, quasi_newton
from statespace_em.errors import DataError, ImpossibleObservationError, NotFittedError, ParameterError
from statespace_em.scale import core as scale_core
from statespace_em.scale import survey as scale_survey
from statespace_em.scale.chunks import cut
from statespace_em.scale.core import ChunkedCore, added
from statespace_em.scale.workers import check_workers

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

KINDS = ["full", "diagonal", "poisson", "channels", "categorical", "mixture", "linear"]


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


# the same answers as in memory


@pytest.mark.filterwarnings("ignore:stopped after:statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_is_that_in_memory(kind):
    model, _, y = data_of(kind)
    options = {"n_starts": 1, "max_iter": 15, "tol": 0.0, "accelerate": False}
    expected, found = fresh(model).fit(y, **options), fresh(model).fit(y.chunk(sequence=3), **options)
    xr.testing.assert_allclose(found.params_, expected.params_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.trace_, expected.trace_, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:stopped after:statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize(("kind", "max_iter"), [("diagonal", 200), ("linear", 40)])
def test_with_acceleration_it_ends_as_high(kind, max_iter):
    model, params, y = data_of(kind)
    freeze = ["transition", "observation"] if kind == "linear" else []
    options = {"start": params, "freeze": freeze, "max_iter": max_iter, "tol": 1e-8}
    expected, found = fresh(model).fit(y, **options), fresh(model).fit(y.chunk(sequence=3), **options)
    assert found.status_ == expected.status_
    assert found.trace_["objective"].iloc[-1] == pytest.approx(expected.trace_["objective"].iloc[-1], abs=1e-4)


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_lazy_and_labelled_as_in_memory(kind, ragged):
    model, params, y = data_of(kind, ragged=ragged)
    chunked = y.chunk(sequence=3)
    questions = {"e_step": (), "decode": ()}
    if kind != "mixture":
        questions |= {"filter": (), "forecast": (2,)}
    for name, args in questions.items():
        expected, found = (getattr(model, name)(data, *args, params) for data in (y, chunked))
        assert dask.is_dask_collection(found)
        assert found.chunksizes["sequence"] == (3, 3, 1)
        found = found.compute()
        xr.testing.assert_allclose(found, expected, rtol=1e-9)
        assert set(found.coords) == set(expected.coords)
        for variable in expected.data_vars if isinstance(expected, xr.Dataset) else []:
            xr.testing.assert_identical(found[variable].copy(data=expected[variable]), expected[variable])
        types = expected.dtypes if isinstance(expected, xr.Dataset) else expected.dtype
        assert (found.dtypes if isinstance(found, xr.Dataset) else found.dtype) == types
    assert model.score(chunked, params) == pytest.approx(model.score(y, params), rel=1e-12)


def test_pairs_may_be_summed_over_all_chunks():
    model, params, y = data_of("diagonal")
    found = model.e_step(y.chunk(sequence=2), params, xi="sum").compute()
    xr.testing.assert_allclose(found, model.e_step(y, params, xi="sum"), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:of 7 series:statespace_em.errors.ConvergenceWarning")
def test_fit_many_reads_chunks():
    model, _, y = data_of("diagonal")
    options = {"n_starts": 1, "max_iter": 3, "tol": 0.0}
    for one in (y, y.isel(feature=0, drop=True).drop_vars("length").rename(sequence="station")):
        chunked = one.chunk({one.dims[0]: 3})
        expected = sse.fit_many(model, one, **options)
        xr.testing.assert_identical(sse.fit_many(model, chunked, **options), expected)
        xr.testing.assert_identical(sse.fit_many(model, chunked, threads=2, **options), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.isel(sequence=0, drop=True),
        lambda y: y.transpose("feature", "day", "sequence"),
        lambda y: y.drop_vars("day"),
        lambda y: y.rename(sequence="ship").assign_coords(ship=range(7)),
        lambda y: y.rename(day="time").assign_coords(feature=["u", "v"]),
        lambda y: y.rename(day="time").drop_vars("time").assign_coords(
            timestamp=(("sequence", "time"), np.arange(210.0).reshape(7, 30))
        ),
        lambda y: y.to_dataset("feature").rename({0: "u", 1: "v"}),
        lambda y: y.chunk(feature=1),
    ],
    ids=["one sequence", "transposed", "no dates", "own dim", "named", "timestamps", "dataset", "split features"],
)  # fmt: skip
def test_every_shape_of_input(change):
    model, params, y = data_of("diagonal")
    y = change(y)
    chunked = y.chunk({dim: 3 for dim in ("sequence", "ship") if dim in y.dims})
    y = y.compute()
    if "feature" in y.coords and y["feature"].dtype.kind == "U":
        params = params.assign_coords(feature=["u", "v"], feature_aux=["u", "v"]).drop_vars("feature_aux")
    for name in ("e_step", "decode", "filter"):
        expected = getattr(model, name)(y, params)
        xr.testing.assert_identical(getattr(model, name)(chunked, params).compute(), expected)
    options = {"start": params, "max_iter": 3, "tol": 0.0}
    expected = fresh(model).fit(y, **options).params_
    xr.testing.assert_allclose(fresh(model).fit(chunked, **options).params_, expected, rtol=1e-12)


@pytest.mark.parametrize("size", [None, 2, 3])
def test_coordinates_need_not_be_chunked_as_the_entries_are(size):
    model, params, y = data_of("diagonal")
    chunked = y.copy(data=da.from_array(y.values, chunks=(3, -1, 1)))
    if size:
        chunked = chunked.assign_coords(length=("sequence", da.from_array(y["length"].values, chunks=size)))
    for name in ("e_step", "decode"):
        xr.testing.assert_identical(getattr(model, name)(chunked, params).compute(), getattr(model, name)(y, params))
    options = {"start": params, "max_iter": 3, "tol": 0.0}
    expected = fresh(model).fit(y, **options).params_
    xr.testing.assert_allclose(fresh(model).fit(chunked, **options).params_, expected, rtol=1e-12)


def test_a_posterior_is_written_chunk_by_chunk(tmp_path):
    model, params, y = data_of("diagonal")
    model.e_step(y.chunk(sequence=2), params).to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "posterior.nc", engine="h5netcdf") as found:
        xr.testing.assert_allclose(found.load(), model.e_step(y, params))


@pytest.mark.parametrize("kind", ["zarr", "netcdf"])
def test_while_a_posterior_is_written_memory_is_that_of_few_chunks(kind, tmp_path):
    model, params, _ = model_and_params("diagonal")
    if kind == "zarr":
        pytest.importorskip("zarr")

    def write(lazily, name):
        if kind == "zarr":
            lazily.to_zarr(tmp_path / name, consolidated=False)
        else:
            lazily.to_netcdf(tmp_path / name, engine="h5netcdf")

    write(model.e_step(generated(2, model, params, rows=20), params), "first")  # imports are not what is measured
    lazily = model.e_step(generated(40, model, params, rows=2000), params)
    tracemalloc.start()
    write(lazily, "posterior")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < lazily.nbytes / 4
    options = {"engine": "zarr", "consolidated": False} if kind == "zarr" else {"engine": "h5netcdf"}
    with xr.open_dataset(tmp_path / "posterior", **options) as found:
        one = generated(40, model, params, rows=2000).isel(sequence=slice(195, 200)).compute()
        expected = model.e_step(one, params)["gamma"].values
        np.testing.assert_allclose(found["gamma"].isel(sequence=slice(195, 200)).values, expected, rtol=1e-12)


DESIGNS = {
    "level": lambda: sse.designs.local_level(),
    "trend and season": lambda: sse.designs.local_trend() + sse.designs.seasonal(4),
    "regression": lambda: sse.designs.local_level() + sse.designs.regression(np.arange(30.0)[:, None]),
    "motion": lambda: sse.designs.constant_velocity(["value"]),
    "diffuse": lambda: sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], initial="diffuse"),
}


@pytest.mark.filterwarnings("ignore:stopped after:statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("name", DESIGNS)
def test_structured_models_answer_about_chunks_as_in_memory(name):
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.normal(size=(6, 30)), 1) + rng.normal(size=(6, 30)) + 10.0 * rng.normal(size=(6, 1))
    values[1, 4] = np.nan
    y = xr.DataArray(values, {"sequence": KEYS[:6], "time": np.arange(30)}, ("sequence", "time"))
    chunked = y.chunk(sequence=2)
    model, other = DESIGNS[name]().fit(y, max_iter=3), DESIGNS[name]().fit(chunked, max_iter=3)
    xr.testing.assert_allclose(other.params_, model.params_, rtol=1e-9)
    for question in ("e_step", "filter", "decode", "one_step", "smooth", "impute"):
        found = getattr(model, question)(chunked)
        assert dask.is_dask_collection(found)
        xr.testing.assert_allclose(found.compute(), getattr(model, question)(y), rtol=1e-9)
    assert model.score(chunked) == pytest.approx(model.score(y), rel=1e-12)


# what travels and what stays


def generated(n_chunks, model, params, *, rows=8000):
    """Data that exist only while a chunk is being worked on."""

    def block(number):
        draw = model.sample(rows, params, seed=number)["y"].values
        return np.concatenate([draw[None]] * 5)

    parts = [
        da.from_delayed(dask.delayed(block, pure=False)(i), (5, rows, 2), float) for i in range(n_chunks)
    ]  # fmt: skip
    return xr.DataArray(da.concatenate(parts), dims=DIMS)


def test_only_parameters_and_statistics_travel(monkeypatch):
    model, params, _ = model_and_params("diagonal")
    sizes = []

    def compute(*tasks):
        found = dask.compute(*tasks)
        sizes.append(len(pickle.dumps(found)))
        return found

    fake = SimpleNamespace(delayed=dask.delayed, compute=compute)
    monkeypatch.setattr(scale_core, "import_dask", lambda: fake)
    fresh(model).fit(generated(4, model, params), start=params, max_iter=3, tol=0.0)
    assert len(sizes) == 3
    assert max(sizes) < 3000


def test_memory_is_that_of_a_chunk_and_a_sample():
    model, params, _ = model_and_params("diagonal")
    y = generated(30, model, params)
    fresh(model).fit(generated(2, model, params), start=params, max_iter=2, tol=0.0)
    tracemalloc.start()
    fresh(model).fit(y, start=params, max_iter=2, tol=0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    chunk = y.nbytes / 30
    assert peak < 12 * chunk  # and of what an E-step makes of it, such as log densities
    assert y.nbytes > 25 * chunk


def test_starts_are_guessed_from_a_bounded_sample_the_same_every_time(monkeypatch):
    monkeypatch.setattr(scale_survey, "SAMPLE", 2000)
    model, params, _ = model_and_params("diagonal")
    y = generated(6, model, params, rows=400)
    sizes = []
    original = type(model._core()).starts

    def starts(self, batch, *args):
        sizes.append(len(batch.y))
        return original(self, batch, *args)

    monkeypatch.setattr(type(model._core()), "starts", starts)
    first, second = (fresh(model).fit(y, n_starts=2, tol=1e-6) for _ in range(2))
    assert max(sizes) <= 2500
    xr.testing.assert_identical(first.params_, second.params_)
    in_memory = fresh(model).fit(y.compute(), tol=1e-6)
    assert first.trace_["objective"].iloc[-1] == pytest.approx(in_memory.trace_["objective"].iloc[-1], abs=1e-4)


def test_rows_outside_the_sample_are_known_to_the_checks(monkeypatch):
    monkeypatch.setattr(scale_survey, "SAMPLE", 40)
    monkeypatch.setattr(scale_survey, "LEAST", 40)
    rng = np.random.default_rng(0)
    y = np.ones((8, 50, 2))
    y[-1] = rng.normal(size=(50, 2))  # all that varies is in the last chunk
    array = xr.DataArray(y, dims=DIMS).chunk(sequence=1)
    model = sse.GaussianHMM(2, "full", prior=None)
    start = model.parameters(
        initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.1, 0.9]], mean=[[0, 0], [1, 1]], cov=[np.eye(2)] * 2
    )
    assert fresh(model).fit(array, start=start, max_iter=1, tol=0.0).status_ == "max_iter"
    with pytest.raises(DataError, match=r"fewer different rows \(1\) than states"):
        fresh(model).fit(array.isel(sequence=slice(0, 7)), start=start)
    y[..., 1] = 2.0 * y[..., 0]
    with pytest.raises(DataError, match="column 1 follows from the columns before it"):
        fresh(model).fit(xr.DataArray(y, dims=DIMS).chunk(sequence=1), start=start)


def test_the_symbols_of_all_chunks_are_found():
    text = np.array([list("xyxxy"), list("yxyyx"), list("zxzzx")])
    y = xr.DataArray(text, dims=("sequence", "time"))
    model = sse.CategoricalHMM(2).fit(y.chunk(sequence=1), n_starts=1, max_iter=2, tol=0.0)
    assert model.params_["symbol"].values.tolist() == ["x", "y", "z"]


def test_the_engine_offers_all_that_the_loop_may_ask_of_a_core():
    """A protocol that the loop asks of a core must be passed on by the engine."""
    offered = {name for name in dir(ChunkedCore) if not name.startswith("_")}
    for protocol in (em.EMModel, em.HasVanishing, em.HasResolution, quasi_newton.HasScore, boundary.HasBoundary):
        assert {name for name in vars(protocol) if not name.startswith("_")} <= offered
    asked = [
        value for module in (em, quasi_newton) for value in vars(module).values() if getattr(value, "_is_protocol", 0)
    ]
    known = {"EMModel", "HasVanishing", "HasResolution", "HasScore", "HasBoundary", "Protocol"}
    assert {value.__name__ for value in asked} <= known


def test_statistics_are_added_entry_by_entry():
    left = (np.ones(2), (1.0, None), SimpleNamespace)
    assert added((1, (2.0, None)), (3, (4.0, None))) == (4, (6.0, None))
    np.testing.assert_array_equal(added(left[:2], left[:2])[0], [2.0, 2.0])


# bad input


def blocks_of(*parts):
    """Chunks that are declared like the first, whatever they hold."""
    first = parts[0]
    arrays = [da.from_delayed(dask.delayed(part), part.shape, first.dtype) for part in parts]
    return xr.DataArray(da.concatenate(arrays), dims=DIMS)


ROWS = np.random.default_rng(0).normal(size=(2, 10, 2))
WHOLE = xr.DataArray(np.concatenate([ROWS] * 3), dims=DIMS)
BEFORE = {
    "time": (
        lambda: WHOLE.chunk(time=5),
        r"y is chunked along 'time' \(2 chunks\).*y.chunk\({'time': -1, 'sequence': 'auto'}\)",
    ),
    "one sequence": (lambda: WHOLE[0].chunk(time=5), r"use y.chunk\({'time': -1}\)"),
    "objects": (lambda: WHOLE.astype(object).chunk(sequence=2), r"dtype object.*y.astype\(float\)"),
    "no sequences": (
        lambda: xr.DataArray(da.zeros((2, 10, 2), chunks=((2, 0), 10, 2)), dims=DIMS),
        r"chunk 1 of y has no sequences: use y.chunk\({'sequence': 2}\)",
    ),
    "no sequence at all": (
        lambda: xr.DataArray(da.zeros((0, 10, 2)), dims=DIMS),
        "y holds no sequence: pass at least one",
    ),
    "no rows": (lambda: WHOLE[:, :0].chunk(sequence=2), "chunk 0 of y has no rows"),
    "length 0": (
        lambda: WHOLE.assign_coords(length=("sequence", [3, 0, 3, 3, 3, 3])).chunk(sequence=2),
        "y of sequence 1 has no rows",
    ),
    "unknown": (
        lambda: xr.DataArray((x := da.from_array(ROWS, chunks=1))[x[:, 0, 0] > -9.0], dims=DIMS),
        "sizes of the chunks of y are not known: call y.data.compute_chunk_sizes",
    ),
    "dims": (lambda: WHOLE.expand_dims(draw=2).chunk(sequence=2), "y has dims"),
    "times": (lambda: WHOLE.assign_coords(time=[*range(9), 3]).chunk(sequence=2), "time 3.* occurs more than once"),
}  # fmt: skip
VISIT = {
    "mixed dtypes": (
        lambda: blocks_of(ROWS, ROWS.astype(np.float32)),
        "chunk 1 of y holds float32, but y is declared float64",
    ),
    "mixed kinds": (lambda: blocks_of(ROWS, ROWS.astype(str)), "chunk 1 of y holds <U.*, but y is declared float64"),
    "infinite": (lambda: blocks_of(ROWS, np.where(ROWS > 1.0, np.inf, ROWS)), r"inf is not finite .* of sequence 2"),
}  # fmt: skip


@pytest.mark.parametrize("what", [*BEFORE, *VISIT])
def test_bad_chunks_are_refused_before_the_work(what, monkeypatch):
    make, message = {**BEFORE, **VISIT}[what]
    y = make()
    monkeypatch.setattr(em, "run_starts", lambda *_, **__: pytest.fail("began to work"))
    if what in BEFORE:
        monkeypatch.setattr(dask, "compute", lambda *_, **__: pytest.fail("loaded a chunk"))
    with pytest.raises(DataError, match=message):
        sse.GaussianHMM(2).fit(y)


def test_a_wrong_shape_is_refused():
    wrong = xr.DataArray(
        da.from_delayed(dask.delayed(ROWS), (3, 10, 2), float), dims=DIMS
    )  # fmt: skip
    with pytest.raises(DataError, match=r"chunk 0 of y has shape \(2, 10, 2\), but is declared \(3, 10, 2\)"):
        sse.GaussianHMM(2).fit(wrong)


def test_options_are_checked_before_a_chunk_is_read(monkeypatch):
    monkeypatch.setattr(dask, "compute", lambda *_, **__: pytest.fail("loaded a chunk"))
    with pytest.raises(ParameterError, match="threads is 0"):
        sse.GaussianHMM(2).fit(WHOLE.chunk(sequence=2), threads=0)
    for ask in (sse.GaussianHMM(2).e_step, sse.GaussianHMM(2).score):
        with pytest.raises(NotFittedError, match="no parameters yet"):
            ask(WHOLE.chunk(sequence=2))


def test_an_m_step_of_chunks_is_refused():
    model, params, y = data_of("diagonal")
    posterior = model.e_step(y, params)
    with pytest.raises(DataError, match=r"y is in chunks.*y.compute\(\)"):
        model.m_step(y.chunk(sequence=2), posterior, params)


def test_an_impossible_observation_is_named():
    model = sse.CategoricalHMM(2, symbols=list("xyz"))
    params = model.parameters(
        initial=[0.5, 0.5], transition=[[0.5, 0.5], [0.5, 0.5]], prob=[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]
    )
    y = xr.DataArray(np.array([list("xyx"), list("xyz")]), {"sequence": ["a", "b"]}, ("sequence", "time"))
    for chunked in (y, y.chunk(sequence=1)):
        with pytest.raises(ImpossibleObservationError, match="the observation at time 2 of sequence 'b' has"):
            model.score(chunked, params)
        with pytest.raises(ImpossibleObservationError, match="the observation at time 2 of sequence 'b' has"):
            model.decode(chunked, params).compute()


def test_without_dask_the_error_says_how_to_get_it(monkeypatch):
    y = WHOLE.chunk(sequence=2)
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(ImportError, match=r"pip install 'statespace_em\[dask\]'"):
        sse.GaussianHMM(2).fit(y)


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({}, "the cluster at tcp://x has no workers"),
        ({"a": sse.__version__, "b": ModuleNotFoundError("No module named 'statespace_em'")}, "worker b cannot import"),
        ({"a": "0.0.1"}, f"worker a has statespace_em 0.0.1, but this process has {sse.__version__}"),
    ],
    ids=["none", "missing", "older"],
)
def test_workers_are_checked(versions, message):
    client = SimpleNamespace(scheduler=SimpleNamespace(address="tcp://x"), run=lambda *_, **__: versions)
    with pytest.raises(RuntimeError, match=message):
        check_workers(client)


@pytest.mark.parametrize(
    "model",
    [
        sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], initial="fixed"),
        sse.designs.constant_velocity(1, initial="fixed"),
        sse.designs.constant(),
    ],
    ids=["matrices", "motion", "constant"],
)
def test_one_constant_for_all_sequences_is_refused_before_work(model):
    def never(block):
        raise AssertionError("a chunk was read")

    y = xr.DataArray(np.zeros((6, 20)), dims=("sequence", "time")).chunk(sequence=2)
    y = y.copy(data=y.data.map_blocks(never, dtype=float, meta=np.zeros((0, 0))))
    with pytest.raises(DataError, match=r'"fixed" is one constant for all sequences, .* take the start "diffuse"'):
        model.fit(y)


def test_a_row_explained_without_error_is_found_in_any_chunk():
    class Core:
        chart = steps_are_exact = onto_faces = off_faces = is_singular = is_limit = left_to_score = at_zero = (
            vanished
        ) = print  # not asked here

        def unbounded(self, params, batch):
            return bool((batch.y == params).any())

        def explained(self, params, batch):
            return bool((np.nan_to_num(batch.y) < params).all())

    engine = ChunkedCore(Core(), {"support": "real"})
    y = cut(WHOLE.chunk(sequence=2))
    assert engine.unbounded(WHOLE.values[-1, -1, -1], y) is True
    assert engine.unbounded(99.0, y) is False
    assert engine.explained(float(np.nanmax(WHOLE)) + 1.0, y) is True  # of all chunks
    assert engine.explained(float(WHOLE.values[-1, -1, -1]), y) is False
