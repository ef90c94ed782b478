"""Bootstrap: the states of every refit are those of the fit, and its spread is that of the information."""

import numpy as np
import pandas as pd
import pytest
from hmm_cases import case

import statespace_em as sse
from statespace_em.errors import ParameterError


def returns():
    model = sse.GaussianHMM(["calm", "wild"], "diagonal", initial="uniform")
    truth = model.parameters(
        initial=[0.5, 0.5], transition=[[0.95, 0.05], [0.1, 0.9]], mean=[[0.1], [-0.2]], var=[[1.0], [9.0]]
    )
    y = model.sample(1000, truth, seed=3)["y"].values[:, 0]
    return model, pd.Series(y, pd.date_range("2020-01-01", periods=1000, name="date"), name="r")


def test_spread_agrees_with_the_information():
    model, y = returns()
    model.fit(y)
    drawn = model.bootstrap(y, n_replicates=60, seed=1)
    assert drawn.sizes["replicate"] == 60
    assert set(drawn.data_vars) == {*model.params_.data_vars, "status", "log_likelihood"}
    assert (drawn["status"] == "converged").all()
    assert (drawn["var"].sel(state="calm") < drawn["var"].sel(state="wild")).all()
    errors = model.standard_errors(y)
    for name in ("mean", "var", "transition"):
        ratio = drawn[name].std("replicate") / errors[name]
        assert ((ratio > 0.65) & (ratio < 1.5)).all(), name
        away = (drawn[name].mean("replicate") - model.params_[name]) / errors[name]
        assert (np.abs(away) < 0.7).all(), name


def test_the_same_seed_gives_the_same_draws_on_any_number_of_threads():
    model, y = returns()
    model.fit(y, n_starts=2)
    before = model.params_.copy(deep=True)
    one, two = (model.bootstrap(y, n_replicates=4, seed=7, threads=threads) for threads in (1, 2))
    assert one.identical(two)
    assert not one.equals(model.bootstrap(y, n_replicates=4, seed=8))
    assert model.params_.identical(before)


@pytest.mark.parametrize("kind", ["poisson", "categorical"])
def test_gaps_and_sequences_are_kept(kind, monkeypatch):
    _, params, first = case(kind, 2, 40, 3, holes=True)
    y = {"u": first, "v": case(kind, 2, 25, 4)[2]}
    model = sse.HMM(2, sse.emissions.Poisson()) if kind == "poisson" else sse.CategoricalHMM(2, symbols=list("abcd"))
    seen = []
    own = type(model)._estimate
    monkeypatch.setattr(type(model), "_estimate", lambda self, y, *more: seen.append(y) or own(self, y, *more))
    drawn = model.bootstrap(y, params, n_replicates=2)
    assert drawn.sizes["replicate"] == 2
    for parts in seen:
        assert {key: len(part) for key, part in parts.items()} == {"u": 40, "v": 25}
        np.testing.assert_array_equal(pd.isna(parts["u"].values), pd.isna(first))


def test_states_are_aligned():
    """A refit that comes back with its states exchanged is put right."""
    model, y = returns()
    model.fit(y, n_starts=2)

    class Exchanged(sse.GaussianHMM):
        def _estimate(self, y, options, states=None, weights=None):
            fit = super()._estimate(y, options, states, weights)
            turned = {
                name: value[::-1, ::-1] if name == "transition" else value[::-1] for name, value in fit.arrays.items()
            }
            return fit._replace(arrays=turned)

    turned = Exchanged(["calm", "wild"], "diagonal", initial="uniform").bootstrap(y, model.params_, n_replicates=3)
    expected = model.bootstrap(y, n_replicates=3)
    np.testing.assert_array_equal(turned["var"], expected["var"])
    np.testing.assert_array_equal(turned["transition"], expected["transition"])


def test_the_local_level_model_has_one_too():
    model = sse.LinearGaussianSSM(["level"], initial="known")
    start = model.parameters(
        transition=[[1]], observation=[[1]], process_cov=[[1469.0]], measurement_cov=[[15099.0]], initial_mean=[1100],
        initial_cov=[[1e4]],
    )  # fmt: skip
    drawn = model.bootstrap(sse.datasets.nile(), start, n_replicates=3, freeze=["transition", "observation"])
    assert (drawn["transition"] == 1.0).all()
    assert (drawn["measurement_cov"] > 0.0).all()


def test_options_are_checked():
    model, y = returns()
    model.fit(y, n_starts=1)
    with pytest.raises(ParameterError, match="n_replicates is 0"):
        model.bootstrap(y, n_replicates=0)
    with pytest.raises(ParameterError, match="threads is 0"):
        model.bootstrap(y, n_replicates=1, threads=0)


def test_progress_is_shown(capsys):
    model, y = returns()
    model.fit(y, n_starts=1)
    model.bootstrap(y, n_replicates=2, progress=True)
    assert "bootstrap" in capsys.readouterr().err


def test_known_states_and_weights_are_those_of_the_fit(monkeypatch):
    """Refits know the simulated states where the fit knew states, and weigh rows and sequences as it did."""
    model, y = returns()
    y = y[:200]
    states = pd.Series(np.where(np.arange(200) % 4 == 0, np.where(y.abs() > 3.0, "wild", "calm"), None), y.index)
    weights = pd.Series(np.linspace(0.5, 1.5, 200), y.index)
    model.fit(y, states=states, weights=weights)
    seen = []
    own = type(model)._estimate
    monkeypatch.setattr(type(model), "_estimate", lambda self, *given: seen.append(given) or own(self, *given))
    drawn = model.bootstrap(y, states=states, weights=weights, n_replicates=3)
    assert (drawn["status"] == "converged").all()
    for _, _, known, power in seen:
        assert [value is not None for value in known] == states.notna().tolist()
        np.testing.assert_array_equal(power, weights)
    assert len({tuple(known) for _, _, known, _ in seen}) == 3  # simulated, not those of y
    parts = {"u": y[:120].to_numpy(), "v": y[120:].to_numpy()}
    seen.clear()
    model.bootstrap(parts, model.params_, weights={"u": 1.0, "v": 3.0}, n_replicates=1)
    np.testing.assert_array_equal(seen[0][3], [1.0, 3.0])
    told = {"u": [None] * 120, "v": ["calm"] * 80}
    model.bootstrap(parts, model.params_, weights={"u": np.ones(120), "v": np.ones(80)}, states=told, n_replicates=1)
    assert [sum(value is not None for value in part) for part in seen[1][2]] == [0, 80]
    assert [len(part) for part in seen[1][3]] == [120, 80]
