"""A model whose settings leave nothing free knows its parameters: it answers without a fit."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em import designs
from statespace_em.errors import NotFittedError, ParameterError

NILE = sse.datasets.nile()
LEVEL = {"transition": [[1.0]], "process_cov": [[1469.1]], "observation": [[1.0]], "measurement_cov": [[15098.5]]}
PLANE = pd.DataFrame({"east": NILE.to_numpy(float), "north": NILE.to_numpy(float)[::-1]})

MODELS = {
    "diffuse": (sse.LinearGaussianSSM(**LEVEL, initial="diffuse"), NILE),
    "stationary": (sse.LinearGaussianSSM(**(LEVEL | {"transition": [[0.5]]}), initial="stationary"), NILE),
    "known": (
        sse.LinearGaussianSSM(**LEVEL, initial="known", initial_mean=[1000.0], initial_cov=[[1e4]]),
        NILE,
    ),
    "by row": (
        sse.LinearGaussianSSM(**(LEVEL | {"measurement_cov": np.full((103, 1, 1), 1.5e4)}), initial="diffuse"),
        NILE,
    ),
    "motion": (designs.constant_velocity(["east", "north"], density=3.0, noise=1.5e4), PLANE),
    "turn": (designs.coordinated_turn(0.1, ["east", "north"], density=3.0, noise=1.5e4, step=2.0), PLANE),
}


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_the_same_model_after_a_fit(name, tmp_path):
    model, y = MODELS[name]
    fitted = type(model)(**model.get_params())
    fitted.fit(y)
    assert fitted.n_parameters_ == 0
    asked = {
        "score": lambda m: m.score(y),
        "e_step": lambda m: m.e_step(y),
        "filter": lambda m: m.filter(y),
        "decode": lambda m: m.decode(y),
        "forecast": lambda m: m.forecast(y, 2),
        "sample": lambda m: m.sample(4, seed=3),
        "fixed_lag": lambda m: m.fixed_lag(y, 2),
        "residuals": lambda m: m.residuals(y),
        "m_step": lambda m: m.m_step(y, m.e_step(y)),
        "simulate": lambda m: m.simulate(y, 2, 3, seed=1),
        "summary": lambda m: m.summary(),
    }
    for question, ask in asked.items():
        found, expected = ask(model), ask(fitted)
        if question == "score":
            assert found == pytest.approx(expected, rel=1e-13)
        elif question == "summary":
            assert len(found) == len(expected) == 0
        else:
            names = ("feature", "feature_aux")
            found, expected = (each.drop_vars(names, errors="ignore") for each in (found, expected))
            xr.testing.assert_allclose(found, expected, rtol=1e-12)
    assert not hasattr(model, "params_")  # nothing was estimated
    model.save(tmp_path / "model.nc")
    assert type(model).load(tmp_path / "model.nc").score(y) == pytest.approx(fitted.score(y), rel=1e-13)


@pytest.mark.parametrize("name", ["diffuse", "known", "motion"])
def test_streams(name):
    model, y = MODELS[name]
    stream = model.stream()
    steps = [stream.update(row) for row in np.atleast_2d(y.to_numpy(float).T).T]
    np.testing.assert_allclose(steps[-1].filtered, model.filter(y)["filtered"].values[-1], rtol=1e-9)


def test_a_motion_looks_between_rows():
    model, y = MODELS["motion"]
    assert np.isfinite(model.at(y, [3.5])["mean"]).all()


def test_the_published_likelihood_of_the_nile():
    # Durbin & Koopman (2012), section 2.10.2, at their estimates
    model = sse.LinearGaussianSSM(**LEVEL, initial="diffuse")
    assert model.score(NILE) == pytest.approx(-632.5456, abs=5e-5)


@pytest.mark.parametrize(
    "model",
    [
        sse.LinearGaussianSSM(**LEVEL),  # the first state is estimated
        sse.LinearGaussianSSM(**LEVEL, initial="fixed"),
        sse.LinearGaussianSSM(**(LEVEL | {"process_cov": [["q"]]}), initial="diffuse"),
        designs.constant_velocity(density=1.0),
        designs.constant_velocity(density=1.0, noise=1.0) + designs.ar(1),
        sse.GaussianHMM(1),
    ],
    ids=["estimated", "fixed", "free", "noise", "ar", "hmm"],
)
def test_what_is_free_must_be_fitted(model):
    with pytest.raises(NotFittedError, match=r"has no parameters yet: call fit\(y\) first, or pass params="):
        model.score(NILE)
    with pytest.raises(NotFittedError, match=r"has no attribute 'params_' yet: call fit\(y\) first"):
        model.params_


def test_no_standard_errors_where_nothing_is_estimated():
    model = sse.LinearGaussianSSM(**LEVEL, initial="diffuse")
    with pytest.raises(ParameterError, match="nothing in the model is free: there is no estimate to have a standard"):
        model.standard_errors(NILE)


def test_a_fixed_state_without_an_estimate_is_no_start_of_a_filter():
    model = sse.LinearGaussianSSM(**LEVEL, initial="fixed")
    params = model.parameters()
    assert model.score(NILE, params) == pytest.approx(model.fit(NILE).score(NILE), rel=1e-12)
    for ask in (model.filter, model.residuals, lambda y, p: model.fixed_lag(y, 1, p)):
        with pytest.raises(ParameterError, match="the first state is fixed but unknown, and at the time it has no"):
            ask(NILE, params)
