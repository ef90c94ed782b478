"""States are put in a stated order, and an optimum that one start alone found is reported."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hmm_cases import case

import statespace_em as sse
from statespace_em import em
from statespace_em.errors import LocalOptimumWarning, ParameterError
from statespace_em.fitting import found_once
from statespace_em.order import rule

RNG = np.random.default_rng(0)
STATE = np.repeat([0, 1, 2, 1, 0, 2], 50)
Y = pd.DataFrame(
    {
        "small": 1e-3 * (np.array([5.0, 0.0, -5.0])[STATE] + RNG.normal(size=300)),
        "large": 1e3 * (np.array([0.0, 4.0, 8.0])[STATE] + np.array([1.0, 3.0, 0.3])[STATE] * RNG.normal(size=300)),
    }
)


def fitted(order_by, y=Y):
    return sse.GaussianHMM(3, "diagonal", order_by=order_by).fit(y, n_starts=4).params_


def test_order_by_one_column():
    assert (np.diff(fitted(("mean", "small"))["mean"].sel(feature="small")) > 0.0).all()
    assert (np.diff(fitted(["mean", "large"])["mean"].sel(feature="large")) > 0.0).all()
    assert (np.diff(fitted(("variance", "large"))["var"].sel(feature="large")) > 0.0).all()


def test_order_by_persistence_and_by_a_function():
    assert (np.diff(np.diag(fitted("persistence")["transition"])) > 0.0).all()
    down = fitted(lambda params: -params["mean"].sel(feature="small"))
    assert (np.diff(down["mean"].sel(feature="small")) < 0.0).all()
    letters = case("categorical", 2, 200, 1)[2][:, 0]
    stay = sse.CategoricalHMM(2, order_by="persistence").fit(letters, n_starts=3).params_["transition"]
    assert stay[0, 0] < stay[1, 1]


def test_states_of_one_mean_are_put_in_order_by_the_variance():
    """Volatility regimes with a shared mean: ties of the first rule are broken by the other moment."""
    family = sse.emissions.Gaussian("diagonal")
    own = family.m_step(
        family.statistics(None, np.array([[-3.0], [3.0], [-1.0], [1.0]]), np.eye(2)[[0, 0, 1, 1]]), None
    )
    np.testing.assert_array_equal(own.mean[0], own.mean[1])
    tree = SimpleNamespace(emission=own)
    assert rule("mean", "real")(family, tree, None).tolist() == [1, 0]
    assert rule("variance", "real")(family, tree, None).tolist() == [1, 0]
    y = np.where(STATE == 1, 3.0, 1.0) * np.random.default_rng(1).normal(size=300)
    var = sse.GaussianHMM(2, "diagonal", tie={"mean": "all"}).fit(y, n_starts=2).params_["var"]
    assert var[0] < 2.0 < var[1]


@pytest.mark.parametrize("order_by", ["mean", "variance"])
def test_order_of_several_columns_does_not_know_units(order_by):
    own = fitted(order_by)["mean"] * [1e6, 1.0] + [5.0, -2e3]
    other = fitted(order_by, Y * [1e6, 1.0] + [5.0, -2e3])["mean"]
    np.testing.assert_allclose(other, own, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (sse.GaussianHMM(2, order_by="size"), "'persistence'"),
        (sse.GaussianHMM(2, order_by=("mean", "height")), "column 'height', but y has 'small', 'large'"),
        (sse.GaussianHMM(2, order_by=lambda params: [1.0]), "expected one number for each of the 2 states"),
        (sse.Mixture(2, sse.emissions.Gaussian(), order_by="persistence"), "expected one of 'mean', 'variance'"),
    ],
)
def test_rules_that_cannot_be_used(model, message):
    with pytest.raises(ParameterError, match=message):
        model.fit(Y, n_starts=1)


def test_symbols_have_no_mean():
    with pytest.raises(ParameterError, match="symbols have no mean"):
        sse.CategoricalHMM(2, order_by="mean").fit(list("abab"))


def run_of(objective, status="converged", n_steps=30):
    trace = tuple(em.Step(i + 1, objective - 1.0 / (i + 1) + 1.0 / n_steps, 0.0) for i in range(n_steps))
    return em.EMResult(None, None, trace, status, n_steps)


def test_an_optimum_found_once_is_reported():
    high, low = run_of(-10.0), run_of(-12.0)
    ((category, message),) = found_once([low, high, low], high)
    assert category is LocalOptimumWarning
    assert "one of 3 starts only, 2 others converged to lower ones (the next 2 nats below)" in message
    assert found_once([low, high, run_of(-10.0 + 1e-6), low], high) == []
    on_its_path = run_of(high.trace[em.SHORT - 1].objective, "max_iter", em.SHORT)
    assert found_once([low, high, low, on_its_path], high) == []
    assert found_once([high], high) == []


def test_a_fit_warns_of_it():
    with pytest.warns(LocalOptimumWarning, match="found by one of 10 starts only"):
        sse.PoissonHMM(5).fit(sse.datasets.earthquakes())
