"""The diagnosis names what was put into the case, and nothing else."""

import numpy as np
import pytest

import statespace_em as sse
from statespace_em.diagnostics.diagnose import rate_of_em
from statespace_em.diagnostics.information import observed_information

QUAKES = sse.datasets.earthquakes()


def checks(table):
    return dict(zip(table["check"], table["where"]))


def two_regimes(seed=0, n_rows=600):
    model = sse.GaussianHMM(["a", "b"], "diagonal", initial="uniform")
    truth = model.parameters(
        initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.2, 0.8]], mean=[[0.0], [5.0]], var=[[1.0], [1.0]]
    )
    return model, model.sample(n_rows, truth, seed=seed)["y"].values


def test_a_sound_fit_has_no_findings():
    model, y = two_regimes()
    assert model.fit(y).diagnose(y).empty


def test_boundary_by_name():
    fit = sse.PoissonHMM(["quiet", "active"]).fit(QUAKES)
    table = fit.diagnose(QUAKES)
    assert checks(table) == {"boundary": "initial of 'active'"}
    assert table.columns.tolist() == ["check", "where", "value", "finding", "advice"]
    assert fit.diagnose(QUAKES, freeze=["initial"]).empty
    held = sse.PoissonHMM(["quiet", "active"], initial=[1, 0]).fit(QUAKES)
    assert held.diagnose(QUAKES).empty  # what is fixed is not found


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_starved_state():
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.normal(size=300), [40.0, 41.0, 40.5], rng.normal(size=100)])
    model = sse.GaussianHMM(["usual", "odd"], "diagonal", initial="uniform", order_by="mean").fit(y)
    table = model.diagnose(y)
    assert checks(table)["starved state"] == "state 'odd'"
    assert "3 rows are expected" in table.set_index("check").loc["starved state", "finding"]


def test_states_that_are_alike():
    y = np.random.default_rng(1).poisson(4.0, size=200)
    model = sse.PoissonHMM(["a", "b"])
    params = model.parameters(initial=[0.5, 0.5], transition=[[0.5, 0.5], [0.5, 0.5]], rate=[[y.mean()], [y.mean()]])
    found = checks(model.diagnose(y, params))
    assert found["alike states"] == "states 'a', 'b'"
    assert "information" in found  # one of the two is not told by the data


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_a_floor_that_binds():
    rng = np.random.default_rng(2)
    y = rng.normal(size=60)
    y[20:26] = 0.25
    model = sse.GaussianHMM(["free", "stuck"], "diagonal")
    start = model.parameters(
        initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.2, 0.8]], mean=[[0.0], [0.25]], var=[[1.0], [1e-4]]
    )
    model.fit(y, start=start)
    assert model.status_ == "degenerate"
    assert checks(model.diagnose(y))["floor binds"] == "state 'stuck'"


def test_a_place_that_is_not_a_maximum():
    model, y = two_regimes()
    model.fit(y)
    off = model.params_.assign(mean=model.params_["mean"] + 0.2)
    assert "not at a maximum" in checks(model.diagnose(y, off))


def test_rate_of_em_is_the_ratio_of_plain_steps():
    tolerance = 1e-3
    model, y = two_regimes(n_rows=200)
    model.fit(y, tol=1e-12)
    start = model.params_.assign(mean=model.params_["mean"] + 0.01)
    plain = sse.GaussianHMM(["a", "b"], "diagonal", initial="uniform")
    distance = []
    params = start
    for _ in range(25):
        params = plain.m_step(y, plain.e_step(y, params), params)
        distance.append(np.linalg.norm(params["mean"].values - model.params_["mean"].values))
    core, tree, batch, _, _ = model._prepare(y, None)
    rate = rate_of_em(core, batch, observed_information(core, core.flatten(tree), batch))
    np.testing.assert_allclose(rate, distance[-6] / distance[-7], rtol=50 * tolerance)


def test_a_slow_fit_is_called_slow():
    """Mixture components that overlap: much of the information is missing."""
    rng = np.random.default_rng(3)
    y = np.concatenate([rng.normal(0.0, 1.0, 300), rng.normal(1.2, 1.0, 300)])
    mixture = sse.Mixture(2, sse.emissions.Gaussian("tied"), order_by="mean").fit(y, max_iter=20_000)
    table = mixture.diagnose(y)
    assert "EM rate" in checks(table)
    assert table.set_index("check").loc["EM rate", "value"] < 1.0


def test_a_model_of_real_states_has_one_too():
    model = sse.LinearGaussianSSM(["level"], initial="known")
    start = model.parameters(
        transition=[[1]], observation=[[1]], process_cov=[[5e3]], measurement_cov=[[2e4]], initial_mean=[0],
        initial_cov=[[1e7]],
    )  # fmt: skip
    nile, freeze = sse.datasets.nile(), ["transition", "observation"]
    assert model.fit(nile, start=start, freeze=freeze).diagnose(nile, freeze=freeze).empty
