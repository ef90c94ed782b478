"""Known states and weights of chunked data; several starts share the visits of the chunks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import xarray as xr
from scale_cases import DIMS, KEYS, LENGTHS, data_of, fresh, model_and_params

from statespace_em.errors import DataError, ParameterError
from statespace_em.scale import survey as scale_survey

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

WHOLE = xr.DataArray(np.random.default_rng(0).normal(size=(7, 30, 2)), dims=DIMS)


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


# what is said of the rows


def said_of(y, how):
    """Known states and weights of rows, in one of the containers that they may come in."""
    rng = np.random.default_rng(1)
    names = np.where(rng.random((7, 30)) < 0.3, rng.integers(0, 2, (7, 30)).astype(float), np.nan)
    numbers = rng.random((7, 30))
    coords = {name: y.coords[name] for name in ("sequence", "day", "length") if name in y.coords}
    states, weights = (xr.DataArray(value, coords, ("sequence", "day")) for value in (names, numbers))
    if how == "in memory":
        return states, weights
    if how == "chunked":
        return states.chunk(sequence=2), weights.chunk(sequence=2)
    if how == "chunked otherwise":
        return states.chunk(sequence=3, day=10), weights.chunk(sequence=1)
    cut_states, cut_weights = (
        {key: value.values[i, : int(n)] for i, (key, n) in enumerate(zip(KEYS, LENGTHS))} for value in (states, weights)
    )
    if how == "dict":
        return cut_states, {key: cut_weights[key] for key in reversed(KEYS)}
    return list(cut_states.values()), dict(zip(KEYS, np.arange(7.0)))


@pytest.mark.parametrize("how", ["in memory", "chunked", "chunked otherwise", "dict", "list and one a sequence"])
@pytest.mark.parametrize("kind", ["diagonal", "categorical"])
def test_states_and_weights_of_chunks_are_those_in_memory(kind, how):
    model, params, y = data_of(kind)
    states, weights = said_of(y, how)
    known = [states[key] for key in KEYS] if how == "dict" else states
    weighed = {key: weights[key] for key in KEYS} if how == "dict" else weights
    chunked = y.chunk(sequence=2)
    plain, ours = {"states": known, "weights": weighed}, {"states": states, "weights": weights}
    assert model.score(chunked, params, **ours) == pytest.approx(model.score(y, params, **plain), rel=1e-12)
    expected = model.e_step(y, params, **plain)
    xr.testing.assert_allclose(model.e_step(chunked, params, **ours).compute(), expected, rtol=1e-12)
    expected = model.decode(y, params, states=known)
    xr.testing.assert_equal(model.decode(chunked, params, states=states).compute(), expected)
    options = {"start": params, "max_iter": 4, "tol": 0.0}
    one, other = fresh(model).fit(y, **options, **plain), fresh(model).fit(chunked, **options, **ours)
    xr.testing.assert_allclose(one.params_, other.params_, rtol=1e-11)


def test_guessed_starts_know_the_states_of_chunks(monkeypatch):
    monkeypatch.setattr(scale_survey, "SAMPLE", 60)
    monkeypatch.setattr(scale_survey, "LEAST", 10)
    model, params, y = data_of("diagonal", ragged=False)
    states, weights = said_of(y, "chunked")
    found = fresh(model).fit(y.chunk(sequence=2), states=states, weights=weights, max_iter=400)
    expected = fresh(model).fit(y, states=states.compute(), weights=weights.compute(), max_iter=400)
    assert found.score(y.chunk(sequence=2), states=states, weights=weights) == pytest.approx(
        expected.score(y, states=states.compute(), weights=weights.compute()), abs=1e-5
    )


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("states", [[0.0, 1.0]] * 3, "states= has 3 sequences, but y has 7"),
        ("states", {"A": [0.0]}, "states= says nothing of sequence 'B', 'C'"),
        ("states", {key: [0.0] for key in [*KEYS, "Z"]}, "names what is no sequence of y: sequence 'Z'"),
        ("states", [[5.0] * 30] * 7, "states= cannot be read"),
        ("states", np.zeros((7, 30)), "states= is of type ndarray, expected for chunked data"),
        ("states", WHOLE.isel(feature=0, sequence=0, drop=True), "expected those of y, 'sequence' among them"),
        ("states", WHOLE.isel(feature=0, sequence=[0, 1], drop=True), "states= has 2 sequences, but y has 7"),
        ("weights", [1.0, 2.0], "weights= holds 2 numbers, expected one for each of the 7"),
        ("weights", [1.0] * 6 + [-1.0], "weights= holds -1"),
        ("weights", [0.0] * 7, "weights= are all zero"),
        ("weights", xr.zeros_like(WHOLE.isel(feature=0, drop=True)).chunk(sequence=1), "weights= are all zero"),
        ("weights", [[1.0] * 4] * 7, "weights= has 4 rows in sequence"),
    ],
)
def test_what_is_said_of_other_rows_is_refused(name, given, message):
    model, _, _ = model_and_params("diagonal")
    y = WHOLE.assign_coords(sequence=KEYS).chunk(sequence=2)
    if isinstance(given, xr.DataArray) and given.sizes.get("sequence") == 7:
        given = given.assign_coords(sequence=KEYS)
    with pytest.raises(DataError, match=message):
        fresh(model).fit(y, **{name: given})


def test_sequences_in_another_order_are_refused():
    model, params, y = data_of("diagonal", ragged=False)
    states, _ = said_of(y, "in memory")
    with pytest.raises(DataError, match=r"in another order: use \.sel\(sequence=y\.sequence\)"):
        model.score(y.chunk(sequence=2), params, states=states.isel(sequence=slice(None, None, -1)))


@pytest.mark.parametrize("name", ["states", "weights"])
def test_models_without_states_take_nothing_said_of_rows(name):
    model, params, y = data_of("linear")
    for ask in (model.fit, partial(model.score, params=params), partial(model.e_step, params=params)):
        with pytest.raises((ParameterError, TypeError), match=f"{name}"):
            ask(y.chunk(sequence=2), **{name: [1.0] * 7})


@pytest.mark.filterwarnings("ignore:stopped after:statespace_em.errors.ConvergenceWarning")
def test_all_starts_share_a_visit_of_a_chunk():
    reads = []

    def load(number, block):
        reads.append(number)
        return block

    model, _, y = data_of("diagonal", ragged=False)
    blocks = [dask.delayed(load, pure=False)(i, y.values[i : i + 1]) for i in range(7)]
    array = da.concatenate([da.from_delayed(block, (1, 30, 2), float) for block in blocks])
    chunked = y.copy(data=array)
    found = fresh(model).fit(chunked, n_starts=6, max_iter=5)
    apart = [fresh(model).fit(chunked, n_starts=1, max_iter=5)]
    n_reads = {number: reads.count(number) for number in range(7)}
    assert set(n_reads.values()) == {1 + 5 + 1 + 5}  # a survey and five E-steps, whether for one start or six
    assert len(found.starts_) == 6
    assert found.trace_["objective"].iloc[-1] >= apart[0].trace_["objective"].iloc[-1] - 1e-9
    expected = fresh(model).fit(y, n_starts=6, max_iter=5)
    np.testing.assert_allclose(found.starts_["objective"], expected.starts_["objective"], rtol=1e-12)
