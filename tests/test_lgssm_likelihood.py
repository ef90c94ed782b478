"""The way forward alone finds the log-likelihood of an E-step, to the last bit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em import _threads
from statespace_em.sequence import lgssm_plan, lgssm_sums

designs = sse.designs
RNG = np.random.default_rng(0)
WALK = RNG.normal(size=(900, 2)).cumsum(0) + RNG.normal(size=(900, 2))
GAPPY = np.where(np.random.default_rng(1).random(WALK.shape) < 0.2, np.nan, WALK)
START = {"initial_mean": np.zeros(2), "initial_cov": np.eye(2)}
MODELS = {
    "known": sse.LinearGaussianSSM(2, initial="known", **START),
    "diffuse": sse.LinearGaussianSSM(2, initial="diffuse"),
    "full": sse.LinearGaussianSSM(2, initial="diffuse", likelihood="full"),
    "marginal": sse.LinearGaussianSSM(2, initial="diffuse", likelihood="marginal"),
    "fixed": sse.LinearGaussianSSM(2, initial="fixed"),
    "stationary": sse.LinearGaussianSSM(2, initial="stationary"),
    "motion": designs.constant_velocity(["east", "north"]),
}
DATA = {
    "one": WALK,
    "gaps": GAPPY,
    "panel": {name: WALK[k * 40 : k * 40 + n] for k, (name, n) in enumerate({"a": 130, "b": 60, "c": 130}.items())},
    "many": {k: GAPPY[20 * k : 20 * k + 30] for k in range(40)},
}


@pytest.fixture(params=[False, True], ids=["whole", "by blocks"])
def by_blocks(request, monkeypatch):
    if request.param:
        for name, value in {"WHOLE": 10, "SETTLING": 1, "BLOCK": 150}.items():
            monkeypatch.setattr(lgssm_plan, name, value)


def both(model, y):
    core, tree, batch, *_ = model._prepare(y, model.params_, freeze=())
    return core.log_likelihood(tree, batch), core.e_step(tree, batch)[1]


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.usefixtures("by_blocks")
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", MODELS)
def test_it_is_that_of_an_e_step(name, data):
    model = MODELS[name].fit(DATA[data], n_starts=1, max_iter=2, tol=0.0)
    found, expected = both(model, DATA[data])
    assert found == pytest.approx(expected, rel=1e-14)
    assert model.score(DATA[data]) == found


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.usefixtures("by_blocks")
@pytest.mark.parametrize("threads", [1, 2])
def test_so_it_is_where_constants_are_handed_over(threads, monkeypatch):
    model = designs.local_trend() + designs.seasonal(12)
    model.fit(GAPPY[:, 0], n_starts=1, max_iter=2, tol=0.0)
    with _threads.limited(threads):
        found, expected = both(model, GAPPY[:, 0])
    assert found == pytest.approx(expected, rel=1e-14)
    handed = lgssm_sums.collapsed_sums
    done = []
    monkeypatch.setattr(lgssm_sums, "collapsed_sums", lambda *args: done.append(handed(*args) is not None))
    both(model, GAPPY[:, 0])
    assert done == [True]


def test_so_it_is_with_regressors():
    y = WALK[:, 0]
    model = (designs.local_level() + designs.regression(WALK[:, 1:])).fit(y)
    found, expected = both(model, y)
    assert found == pytest.approx(expected, rel=1e-14)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_so_it_is_at_times_of_its_own():
    times = pd.date_range("2026-01-01", periods=900, freq="h") + pd.to_timedelta(RNG.integers(0, 50, 900), unit="min")
    y = pd.Series(WALK[:, 0], index=times)
    model = designs.local_trend(unit="h").fit(y, max_iter=5, n_starts=1)
    assert model.score(y) == pytest.approx(float(model.e_step(y)["log_likelihood"]), rel=1e-12)
