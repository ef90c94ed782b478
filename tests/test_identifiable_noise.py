"""Values that no data tell apart are found, at any place; models that are told are left alone."""

import warnings

import numpy as np
import pytest

import statespace_em as sse
from statespace_em import designs
from statespace_em.errors import InformationWarning, ParameterError
from statespace_em.sequence.identifiable_noise import unidentified_values

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 2))
WALK = RNG.normal(size=120).cumsum() + RNG.normal(size=120)
SSM = sse.LinearGaussianSSM
STATIONARY = {"initial": "stationary"}

TOLD = {
    "level": designs.local_level(),
    "trend and seasonal": designs.local_trend() + designs.seasonal(4),
    "dummies": designs.smooth_trend() + designs.seasonal(5, kind="dummy"),
    "level and cycles": designs.local_level() + designs.cycle() + designs.cycle(),
    "autoregressions": designs.ar(2) + designs.ar(1),
    "level and autoregression": designs.local_level() + designs.ar(2),
    "moving average below its autoregression": designs.local_level() + designs.arma(2, 1),
    "arma": designs.arma(3, 3),
    "arima": designs.arima(0, 1, 1, seasonal=(0, 1, 1, 4)),
    "drifting": designs.regression(X, drifting=True),
    "noise of a decaying state": SSM(transition=[["phi"]], observation=[[1]], **STATIONARY),
    "two sensors": SSM(transition=[[1]], observation=[[1], [1]], measurement_cov="diagonal", initial="diffuse"),
    "own level": SSM(
        transition=np.eye(2), process_cov="equal", observation=np.eye(2), measurement_cov="equal", initial="diffuse"
    ),
    "loaded": SSM(
        transition=[[1, 1], [0, 1]], process_cov=[["q"]], process_loading=[[0.5], [1]], observation=[[1, 0]],
        initial="diffuse",
    ),
}  # fmt: skip

WHITE = SSM(transition=[[0]], process_cov=[["q"]], observation=[[1]], measurement_cov=[["r"]], **STATIONARY)
FLAT = {
    "white": (WHITE, {"q", "r"}),
    "white beside a level": (
        SSM(
            transition=[[1, 0], [0, 0]], process_cov=[["q", 0], [0, "w"]], observation=[[1, 1]],
            measurement_cov=[["r"]], initial=["diffuse", "stationary"],
        ),
        {"w", "r"},
    ),
    "levels, which are refused for their start": (designs.local_level() + designs.local_level(), set()),
    "correlated steps": (
        SSM(
            transition=[[1, 1], [0, 1]], process_cov=[["a", "c"], ["c", "b"]], observation=[[1, 0]],
            measurement_cov=[["r"]], initial="diffuse",
        ),
        {"a", "c"},
    ),
    "moving average": (designs.local_level() + designs.arma(1, 1), {"ma1", "arma_var", "noise_var"}),
    "never seen": (
        SSM(
            transition=[[1, 0], [0, "phi"]], process_cov=[["q", 0], [0, "w"]], observation=[[1, 0]],
            initial=["diffuse", "stationary"],
        ),
        {"phi", "w"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", TOLD.values(), ids=TOLD)
def test_values_that_data_tell_are_left_alone(model):
    assert unidentified_values(model._specification(None), ()) == ()


@pytest.mark.parametrize(("model", "names"), FLAT.values(), ids=FLAT)
def test_flat_directions_are_found(model, names):
    assert set(unidentified_values(model._specification(None), ())) == names


def test_the_likelihood_is_flat_where_it_is_said_to_be():
    at = {"q": 0.7, "w": 0.5, "r": 1.1}
    model, names = FLAT["white beside a level"]

    def score(q, w, r):
        params = model.parameters(process_cov=np.diag([q, w]), measurement_cov=[[r]])
        return model.score(WALK, params)

    assert names == {"w", "r"}
    assert score(**at) == pytest.approx(score(0.7, 0.9, 0.7), abs=1e-9)
    assert abs(score(**at) - score(0.7, 0.9, 1.1)) > 0.1


def test_a_white_state_is_refused_with_a_remedy():
    with pytest.raises(ParameterError, match=r"'q', 'r' cannot be told apart: .* only sums of them matter. Fix one"):
        WHITE.fit(WALK)
    model = SSM(transition=[[0]], process_cov=[["q"]], observation=[[1]], measurement_cov=[[0.5]], **STATIONARY)
    found = model.fit(WALK).summary().loc["q", "value"].item()
    assert found == pytest.approx(np.mean(WALK**2) - 0.5, rel=1e-6)


def test_what_is_frozen_or_has_a_prior_counts_as_known():
    prior = sse.priors.InverseWishart(dof=3, scale=1.0)
    model = WHITE.set_params(measurement_prior=prior)
    assert model.fit(WALK).converged_
    model = model.set_params(measurement_prior=sse.priors.InverseWishart())
    start = model.parameters(process_cov=[[1.0]], measurement_cov=[[0.5]])
    assert model.fit(WALK, start=start, freeze=["measurement_cov"]).converged_


def test_values_without_part_in_y_are_refused():
    with pytest.raises(ParameterError, match="'phi', 'w' have no part in y, whatever y is: fix what no measurement"):
        FLAT["never seen"][0].fit(WALK)


def test_a_moving_average_beside_noise_is_fitted_with_a_warning():
    with pytest.warns(InformationWarning, match="'ma1', 'arma_var', 'noise_var' cannot be told apart"):
        model = designs.arma(0, 1).set_params(noise="free").fit(WALK)
    plain = designs.arma(0, 1).fit(WALK)
    assert model.score(WALK) == pytest.approx(plain.score(WALK), abs=1e-4)


def test_the_remedy_of_a_moving_average_works():
    with warnings.catch_warnings():
        warnings.simplefilter("error", InformationWarning)
        (designs.local_level() + designs.arma(1, 1)).set_params(noise="zero").fit(WALK)
