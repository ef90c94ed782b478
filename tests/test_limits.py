"""Fits that end at a limit say so, and steps that would leave values as they are are refused."""

import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em import designs
from statespace_em.errors import ParameterError


def test_a_cycle_without_damping_is_named():
    """A sine in noise: the stationary cycle loses its noise and its damping, and the likelihood has a limit there."""
    t = np.arange(80)
    y = 3.0 * np.sin(2.0 * np.pi * t / 11.0) + 0.5 * np.random.default_rng(0).normal(size=80)
    model = designs.cycle(11).fit(y, n_starts=2)
    assert model.status_ == "converged"
    values = model.summary()["value"]
    assert values["cycle_damping"].item() > 1.0 - 1e-6
    assert values["cycle_period"].item() == pytest.approx(11.0, rel=0.01)
    assert model.params_["transition"].attrs["boundary"] == (
        "unit root: the likelihood is highest without decay of cycle, cycle*"
    )
    damped = model.parameters(
        transition=(1.0 - 1e-3) * model.params_["transition"].values, process_cov=1e-3 * np.eye(2),
        measurement_cov=model.params_["measurement_cov"].values,
    )  # fmt: skip
    assert model.score(y, damped) < model.score(y)


def test_a_cycle_with_damping_is_not():
    y = sse.datasets.nile()
    model = (designs.constant() + designs.ar(1)).fit(y)
    assert "boundary" not in model.params_["transition"].attrs


def test_plain_em_is_refused_where_it_leaves_products_alone():
    y = np.random.default_rng(1).normal(size=40)
    model = designs.arima(0, 0, 1, seasonal=(0, 0, 1, 4))
    with pytest.raises(ParameterError, match=r"transition has free values without a closed M-step.*leave it out"):
        model.fit(y, accelerate=False)
    model.fit(y, n_starts=1)
    with pytest.raises(ParameterError, match=r"only the exact score moves.*Use fit\(y\)"):
        model.m_step(y, model.e_step(y))
    simple = designs.arma(0, 1)
    simple.fit(y, n_starts=1, accelerate=False, max_iter=5, tol=0.0)  # without products it may be asked for
    simple.m_step(y, simple.e_step(y))


# a survey: designs and structures on series in a table or shipped, against where other optimisers end

SEALS = pd.DataFrame(  # like counts of one population in three places, logs, with years without a count
    np.cumsum(np.random.default_rng(7).normal(size=(20, 1)) * 0.2 + 0.06, 0)
    + 0.1 * np.random.default_rng(8).normal(size=(20, 3)) + [6.0, 7.0, 8.0]
).mask(np.random.default_rng(9).random((20, 3)) < 0.2)  # fmt: skip
BESIDE = {"transition": np.eye(3), "observation": np.eye(3), "state_offset": "free"}
SURVEY = {
    "nile trend": (designs.local_trend, sse.datasets.nile(), -629.8728121),
    "nile smooth trend": (designs.smooth_trend, sse.datasets.nile(), -632.1910756),
    "nile level": (designs.local_level, sse.datasets.nile(), -632.5456251),
    "buoy": (lambda: sse.LinearGaussianSSM(1, observation_offset="free"), sse.datasets.buoy()[:1000], 2127.2461543),
}


@pytest.mark.parametrize("name", SURVEY)
def test_survey_of_shipped_series(name):
    """Best of many starts of L-BFGS-B on the score, found once; statsmodels agrees on the trends."""
    make, y, best = SURVEY[name]
    model = make().fit(y)
    assert model.status_ == "converged"
    assert model.score(y) > best - 1e-6


@pytest.mark.parametrize("process", ["free", "equal", "diagonal", "scalar"])
@pytest.mark.parametrize("initial", ["tied", "diffuse"])
def test_survey_of_structures(process, initial):
    """No move of the estimates, in any direction and singular or not, leads higher by more than was promised."""
    model = sse.LinearGaussianSSM(**BESIDE, process_cov=process, measurement_cov="scalar", initial=initial).fit(SEALS)
    assert model.status_ == "converged"
    best, rng, p = model.score(SEALS), np.random.default_rng(0), model.params_
    pattern = model._specification(3).patterns.get("process_cov")
    scale = float(np.trace(p["process_cov"].values)) + 1e-3
    for size in (1e-4, 1e-3, 1e-2, 0.1, 0.5):
        for _ in range(8):
            move = rng.normal(size=(3, 3))
            cov = p["process_cov"].values + size * scale * (move @ move.T)
            cov = cov if pattern is None else pattern.build(pattern.read(cov))
            other = p.assign(process_cov=p["process_cov"].copy(data=cov))
            other["state_offset"] = p["state_offset"] + size * np.sqrt(scale / 20) * rng.normal(size=3)
            other["measurement_cov"] = p["measurement_cov"] * np.exp(size * rng.normal())
            if initial == "tied":
                other["initial_cov"] = other["initial_cov"].copy(data=cov)
            assert model.score(SEALS, other) < best + 1e-6
