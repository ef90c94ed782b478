"""Streams of models whose matrices are not the same at every row: what varies comes with its row."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em.errors import DataError, ParameterError

T = 40
rng = np.random.default_rng(0)
X = pd.DataFrame({"price": rng.normal(size=T), "promotion": rng.random(T) < 0.3}).astype(float)
W = rng.uniform(0.5, 3.0, T)
Y = np.cumsum(rng.normal(size=T)) + X.to_numpy() @ [2.0, -1.0] + rng.normal(size=T)
Y[[1, 9, 10]] = np.nan
LATE = np.arange(T) >= 25
SENSOR = {"transition": [[0.9]], "process_cov": [["q"]], "observation": [[1]], "measurement_cov": [[{"r": W}]]}
WIDE = {
    "transition": [[1, W], [0, {"phi": 1.0}]], "process_cov": [[{"q": W}, 0], [0, {"q": 0.1}]],
    "state_offset": [{"m": LATE}, 0], "observation": [[1, {"beta": W}], [1, 0]], "observation_offset": [{"d": W}, 0],
    "measurement_cov": [[np.where(LATE, "late", "early"), 0], [0, "early"]],
}  # fmt: skip


def fitted(model, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(y, max_iter=3)


def same(found, expected):
    for name in found:
        a, b = found[name].values, expected[name].values
        np.testing.assert_array_equal(np.isinf(a), np.isinf(b), err_msg=name)
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12 * np.abs(b[np.isfinite(b)]).max(), err_msg=name)


@pytest.mark.parametrize("how", ["own", "in order", "by name", "in another order"])
def test_a_regression_streams_as_the_batch_filters(how, tmp_path):
    model = fitted(sse.designs.local_level() + sse.designs.regression(X), Y)
    given = {
        "own": [{}] * T,
        "in order": [{"regressors": row} for row in X.to_numpy()],
        "by name": [{"regressors": row} for _, row in X.iterrows()],
        "in another order": [{"regressors": {"promotion": b, "price": a}} for a, b in X.to_numpy()],
    }[how]
    stream = model.stream()
    found = stream.dataset([stream.update(value, **row) for value, row in zip(Y, given)])
    same(found, model.filter(Y))
    resumed = model.stream()
    for i, (value, row) in enumerate(zip(Y, given)):
        if i in (0, 1, 2, 3, 20):
            resumed.save(tmp_path / "stream.nc")
            resumed = type(model).resume(tmp_path / "stream.nc")
        step = resumed.update(value, **row)
        np.testing.assert_array_equal(step.filtered, found.filtered.values[i])
        np.testing.assert_array_equal(step.filtered_cov, found.filtered_cov.values[i])


def test_a_stream_goes_on_where_the_known_rows_end():
    model = fitted(sse.designs.local_level() + sse.designs.regression(X[:30]), Y[:30])
    stream = model.stream()
    steps = [stream.update(value) for value in Y[:30]]
    with pytest.raises(DataError, match=r"given for 30 rows, but row 31 comes: .*update\(row, regressors=...\)"):
        stream.update(Y[30])
    steps += [stream.update(value, regressors=row) for value, row in zip(Y[30:], X.to_numpy()[30:])]
    longer = sse.designs.local_level() + sse.designs.regression(X)
    same(stream.dataset(steps), longer.filter(Y, model.params_.drop_vars("observation")))


@pytest.mark.parametrize("start", ["diffuse", "known"])
@pytest.mark.parametrize("given", [False, True])
def test_matrices_of_rows_stream_as_the_batch_filters(start, given, tmp_path):
    y = np.column_stack([Y, Y[::-1]])
    first = {"initial": start, "initial_mean": [0, 0], "initial_cov": np.eye(2)}
    model = fitted(sse.LinearGaussianSSM(**WIDE, **(first if start == "known" else {"initial": start})), y)
    rows = [
        {
            "transition": [[1, w], [0, "phi"]],
            "process_cov": [[f"{w!r}*q", 0], [0, "0.1*q"]],
            "state_offset": ["m" if late else 0, 0],
            "observation": [[1, {"beta": w}], [1, 0]],
            "observation_offset": [f"{w!r}*d", 0.0],
            "measurement_cov": [["late" if late else "early", 0], [0, "early"]],
        }
        for w, late in zip(W.tolist(), LATE)
    ]
    stream, steps = model.stream(), []
    for i, row in enumerate(y):
        if i in (1, 3, 20):
            stream.save(tmp_path / "stream.nc")
            stream = type(model).resume(tmp_path / "stream.nc")
        steps.append(stream.update(row, matrices=rows[i] if given else None))
    same(stream.dataset(steps), model.filter(y))


def test_loaded_noises_come_for_their_disturbances():
    model = fitted(
        sse.LinearGaussianSSM(
            transition=[[1, 1], [0, 1]], process_loading=[[0.5], [1.0]], process_cov=[[{"q": W}]],
            observation=[[1, 0]], measurement_cov=[["r"]], initial="diffuse",
        ), Y,
    )  # fmt: skip
    stream = model.stream()
    steps = [stream.update(value, matrices={"process_cov": [[{"q": w}]]}) for value, w in zip(Y, W)]
    same(stream.dataset(steps), model.filter(Y))


@pytest.mark.parametrize("how", ["own", "products", "both"])
def test_loadings_of_rows_stream_as_the_batch_filters(how, tmp_path):
    y, rng = np.column_stack([Y, Y[::-1]]), np.random.default_rng(5)
    G = np.array([[[w * w / 2], [w]] for w in W])
    H = np.eye(2) + 0.2 * rng.normal(size=(T, 2, 2))
    model = fitted(
        sse.LinearGaussianSSM(
            transition=[[1, 1], [0, 0.9]], process_loading=G, process_cov=[[{"q": W}]],
            observation=[[1, 0], [0.5, 0.3]],
            measurement_loading=H, measurement_cov=[["r", 0], [0, "s"]], initial="diffuse",
        ), y,
    )  # fmt: skip
    q, r, s = model.summary()["value"].to_numpy()
    products = [
        {"process_cov": q * w * g @ g.T, "measurement_cov": h @ np.diag([r, s]) @ h.T} for w, g, h in zip(W, G, H)
    ]
    both = [
        {
            "process_cov": [[{"q": w}]], "process_loading": g, "measurement_cov": [["r", 0], [0, s]],
            "measurement_loading": h,
        } for w, g, h in zip(W.tolist(), G, H)
    ]  # fmt: skip
    rows = {"own": [None] * T, "products": products, "both": both}[how]
    stream, steps = model.stream(), []
    for i, row in enumerate(y):
        if i in (1, 20):
            stream.save(tmp_path / "stream.nc")
            stream = type(model).resume(tmp_path / "stream.nc")
        steps.append(stream.update(row, matrices=rows[i]))
    same(stream.dataset(steps), model.filter(y))
    np.testing.assert_allclose(stream.log_likelihood, model.score(y), rtol=1e-11)
    for given, message in (
        (
            {"process_cov": [["q", 0], [0, "q"]]},
            "has 'q', expected numbers or names with the loading of the row beside",
        ),
        ({"process_loading": G[0]}, "has 'process_loading' without 'process_cov' of the disturbances: add it"),
        (
            {"process_cov": [["p"]], "process_loading": G[0]},
            "process_cov in matrices= has 'p', expected numbers or 'q'",
        ),
        ({"process_cov": [["q"]], "process_loading": G}, "process_loading in matrices= has 3 axes"),
        ({"process_cov": [["q"]], "process_loading": G[0].T}, r"process_loading has shape \(1, 2\), expected \(2, any"),
    ):
        with pytest.raises(ParameterError, match=message):
            model.stream().update(y[0], matrices=given)


def test_what_does_not_fit_is_refused():
    model = fitted(sse.LinearGaussianSSM(**SENSOR, initial="diffuse"), Y)
    stream = model.stream()
    for given, message in (
        ({"regressors": [1.0]}, "regressors= was given, but the model has no regression"),
        ({"matrices": {"transition": [[1]]}}, "has 'transition', expected those of 'measurement_cov'"),
        ({"matrices": {"measurement_cov": [[{"s": 1.0}]]}}, "has 's', expected numbers or 'r'"),
        ({"matrices": {"measurement_cov": [[{"r": W}]]}}, "expected the matrix .* of one row"),
        ({"matrices": {"measurement_cov": np.eye(2)}}, r"shape \(2, 2\), expected \(1, 1\)"),
        ({"matrices": {"measurement_cov": [[-1.0]]}}, "measurement_cov is not positive"),
    ):
        with pytest.raises(ParameterError, match=message):
            stream.update(1.0, **given)
    assert stream.n_rows == 0
    regression = fitted(sse.designs.local_level() + sse.designs.regression(X), Y).stream()
    with pytest.raises(DataError, match="regressors= of time 0 has no 'promotion', expected"):
        regression.update(1.0, regressors={"price": 1.0})
    with pytest.raises(DataError, match=r"regressors= of time 0 has shape \(1,\), expected \(2,\)"):
        regression.update(1.0, regressors=[1.0])
    plain = sse.designs.local_level().fit(sse.datasets.nile()).stream()
    with pytest.raises(ParameterError, match="'observation', expected none"):
        plain.update(1.0, matrices={"observation": [[1]]})


def test_a_model_of_numbers_alone_streams_and_samples_without_a_fit(tmp_path):
    fixed = {"transition": [[1]], "process_cov": [[2]], "observation": [[1], [1]], "measurement_cov": [[3, 1], [1, 2]]}
    model = sse.LinearGaussianSSM(**fixed, initial="diffuse")
    params, y = model.parameters(), np.column_stack([Y, Y[::-1]])
    stream, steps = model.stream(params), []
    for i, row in enumerate(y):
        if i in (0, 1, 20):
            stream.save(tmp_path / "stream.nc")
            stream = type(model).resume(tmp_path / "stream.nc")
        steps.append(stream.update(row))
    same(stream.dataset(steps), model.filter(y, params))
    np.testing.assert_allclose(stream.log_likelihood, model.score(y, params), rtol=1e-12)
    assert model.sample(5, params, seed=0).y.shape == (5, 2)
