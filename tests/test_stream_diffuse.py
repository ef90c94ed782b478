"""Streams of models whose first state is diffuse: designs, from the first row on."""

from __future__ import annotations

import numpy as np
import pytest

import statespace_em as sse
from statespace_em.errors import DataError, ParameterError

rng = np.random.default_rng(0)
WALK = np.cumsum(rng.normal(size=60)) + rng.normal(size=60) + 1000.0
DESIGNS = {
    "level": sse.designs.local_level,
    "trend and season": lambda: sse.designs.local_trend() + sse.designs.seasonal(4),
    "trend": sse.designs.local_trend,
    "full": lambda: sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], initial="diffuse", likelihood="full"),
}
GAPS = {"none": [], "first": [0, 1], "between": [1, 2, 9]}


def fitted(name):
    with pytest.warns(sse.errors.ConvergenceWarning, match="stopped after 3"):
        return DESIGNS[name]().fit(WALK, max_iter=3, tol=1e-12)


@pytest.mark.parametrize("gaps", GAPS)
@pytest.mark.parametrize("name", DESIGNS)
def test_a_diffuse_start_streams_as_the_batch_filters(name, gaps, tmp_path):
    model, y = fitted(name), WALK.copy()
    y[GAPS[gaps]] = np.nan
    stream = model.stream()
    found, expected = stream.dataset([stream.update(value) for value in y]), model.filter(y)
    for variable in found:
        a, b = found[variable].values, expected[variable].values
        np.testing.assert_array_equal(np.isinf(a), np.isinf(b), err_msg=variable)
        scale = np.abs(b[np.isfinite(b)]).max()
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12 * scale, err_msg=variable)
    resumed = model.stream()
    for i, value in enumerate(y):
        if i in (0, 1, 3, 20):
            resumed.save(tmp_path / "stream.nc")
            resumed = type(model).resume(tmp_path / "stream.nc")
        step = resumed.update(value)
        np.testing.assert_array_equal(step.filtered_cov, found.filtered_cov.values[i])
        np.testing.assert_array_equal(step.filtered, found.filtered.values[i])


def test_before_the_first_row_a_diffuse_state_has_no_finite_variance():
    stream = fitted("level").stream()
    assert np.isinf(stream.predicted_cov).all()
    stream.update(np.nan)
    assert np.isinf(stream.predicted_cov).all()
    stream.update(1000.0)
    assert np.isfinite(stream.predicted_cov).all()


def test_rows_that_never_determine_the_start_are_refused_in_the_end():
    stream = fitted("level").stream()
    for _ in range(110):
        stream.update(np.nan)
    with pytest.raises(DataError, match="the first 110 rows do not determine the diffuse first state"):
        stream.update(1.0)


def test_what_rests_on_all_rows_is_refused():
    model = sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], initial="diffuse", likelihood="marginal")
    params = fitted("full").params_
    with pytest.raises(ParameterError, match='use likelihood="diffuse" or "full"'):
        model.stream(params)


def test_densities_that_are_prepared_are_the_same_to_the_bit():
    cov = [np.eye(3) + 0.5, 2.0 * np.eye(3) + 0.1]
    family = sse.emissions.Gaussian("full")
    params = type("Params", (), {"mean": rng.normal(size=(2, 3)), "cov": np.array(cov)})()
    y = np.where(rng.random((200, 3)) < 0.3, np.nan, rng.normal(size=(200, 3)))
    prepared = family.prepared(params)
    for row in y:
        np.testing.assert_array_equal(prepared(row), family.log_prob(params, row[None])[0])
