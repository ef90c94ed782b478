"""Mixtures: every row on its own, by Bayes' rule; the engine is that of the hidden Markov models."""

import numpy as np
import pytest
import xarray as xr
from hmm_cases import FAMILIES, case, emission_of, family_of, holes_in, log_densities
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, xlogy

import statespace_em as sse
from statespace_em.errors import ConvergenceWarning, DataError, ImpossibleObservationError
from statespace_em.priors import Dirichlet, Gamma
from statespace_em.testing import check_model

EXACT = 1e-12


def mixture_case(kind, n_states, n_rows, seed, *, holes=False):
    """Mixture, parameters and rows drawn from them."""
    rng = np.random.default_rng(seed)
    hmm, params, _ = case(kind, n_states, 1, seed)
    weight = rng.dirichlet(np.full(n_states, 3.0))
    alike = params.assign(
        initial=("state", weight), transition=(("state", "next_state"), np.tile(weight, (n_states, 1)))
    )
    y = hmm.sample(n_rows, alike, seed=seed)["y"].values
    own = params.drop_vars(["initial", "transition", "next_state"]).assign(weight=("state", weight))
    return sse.Mixture(n_states, family_of(kind)), own, holes_in(y, rng) if holes else y


def bayes(kind, params, y):
    """Responsibilities (N, K) and log density of each row (N,)."""
    joint = log_densities(kind, params, y) + np.log(params["weight"].values)
    total = logsumexp(joint, axis=1)
    return np.exp(joint - total[:, None]), total


def close(left, right, tolerance=EXACT):
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_answers_are_bayes_rule(kind, holes):
    for seed in range(3):
        mixture, params, y = mixture_case(kind, 3, 30, seed, holes=holes)
        gamma, log_rows = bayes(kind, params, y)
        posterior = mixture.e_step(y, params)
        close(posterior["gamma"], gamma)
        close(posterior["log_likelihood"], log_rows.sum())
        close(mixture.score(y, params), log_rows.sum())
        np.testing.assert_array_equal(mixture.decode(y, params), gamma.argmax(1))
        assert set(posterior.data_vars) == {"gamma", "log_likelihood"}


@pytest.mark.parametrize("kind", FAMILIES)
def test_sequences_are_just_rows(kind):
    mixture, params, y = mixture_case(kind, 2, 30, 1, holes=True)
    gamma, log_rows = bayes(kind, params, y)
    posterior = mixture.e_step({"u": y[:20], "v": y[20:]}, params)
    close(posterior["gamma"].sel(sequence="u")[:20], gamma[:20])
    close(posterior["gamma"].sel(sequence="v")[:10], gamma[20:])
    assert np.isnan(posterior["gamma"].sel(sequence="v")[10:]).all()
    close(posterior["log_likelihood"], [log_rows[:20].sum(), log_rows[20:].sum()])


@pytest.mark.parametrize("kind", FAMILIES)
def test_expected_log_joint_plus_entropy_is_the_log_likelihood(kind):
    mixture, params, y = mixture_case(kind, 3, 60, 2, holes=True)
    gamma = mixture.e_step(y, params)["gamma"].values
    joint = log_densities(kind, params, y) + np.log(params["weight"].values)
    close((gamma * joint).sum() - xlogy(gamma, gamma).sum(), mixture.score(y, params), 1e-11)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("kind", FAMILIES)
def test_plain_em_is_a_loop_of_the_public_steps(kind):
    tolerance = 1e-10
    mixture, start, y = mixture_case(kind, 2, 80, 3, holes=True)
    current = start
    for n_steps in range(1, 41):
        if n_steps in (2, 3, 12, 13, 40):
            mixture.fit(y, start=start, accelerate=False, max_iter=n_steps, tol=0)
            for name in start.data_vars:
                close(mixture.params_[name], current[name], tolerance)
        current = mixture.m_step(y, mixture.e_step(y, current), current)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("kind", FAMILIES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=4, deadline=None)
def test_fits_climb_and_keep_the_contract(kind, accelerate, seed):
    _, start, y = mixture_case(kind, 2, 60, seed, holes=True)
    mixture = sse.Mixture(2, family_of(kind), weight_prior=Dirichlet(1.0 + seed % 2))
    mixture.fit(y, start=start, accelerate=accelerate, max_iter=60)
    check_model(mixture, y)
    assert mixture.status_ in ("converged", "max_iter", "degenerate")


@pytest.mark.parametrize("freeze", [("weight",), ("rate",)])
def test_frozen_blocks(freeze):
    mixture, start, y = mixture_case("poisson", 3, 200, 5)
    mixture.fit(y, start=start, freeze=freeze)
    for name in freeze:
        np.testing.assert_array_equal(mixture.params_[name], start[name])
    other = ({"weight", "rate"} - set(freeze)).pop()
    step = mixture.m_step(y, mixture.e_step(y))
    np.testing.assert_allclose(step[other], mixture.params_[other], rtol=1e-4, atol=1e-4)
    assert not np.allclose(mixture.params_[other], start[other], rtol=1e-3)


def test_map_weights_and_rates_are_stationary():
    step = 1e-5
    y = sse.datasets.earthquakes()
    mixture = sse.Mixture(2, sse.emissions.Poisson(Gamma(3.0, 0.2)), weight_prior=Dirichlet(4.0)).fit(y)

    def objective(weight, rates):
        params = mixture.params_.assign(weight=("state", weight), rate=(("state", "feature"), rates))
        return mixture.score(y, params) + mixture.log_prior(params)

    weight, rates = mixture.params_["weight"].values, mixture.params_["rate"].values
    shift = step * np.array([1.0, -1.0])
    slopes = [objective(weight + shift, rates) - objective(weight - shift, rates)]
    for k in range(2):
        bump = step * np.eye(2)[:, [k]]
        slopes.append(objective(weight, rates + bump) - objective(weight, rates - bump))
    np.testing.assert_allclose(np.array(slopes) / (2 * step), 0.0, atol=5e-3)
    assert mixture.log_prior() != 0.0


def test_a_component_without_rows_stays_where_it_was():
    mixture, params, y = mixture_case("diagonal", 3, 50, 6)
    params = params.assign(weight=("state", [0.5, 0.5, 0.0]))
    new = mixture.m_step(y, mixture.e_step(y, params), params)
    assert new["weight"][2] == 0.0
    np.testing.assert_array_equal(new["mean"][2], params["mean"][2])
    np.testing.assert_array_equal(new["var"][2], params["var"][2])


def test_more_components_never_fit_worse():
    y = sse.datasets.old_faithful(table="haerdle")
    scores = [sse.Mixture(k, sse.emissions.Gaussian("tied")).fit(y).score(y) for k in (1, 2, 3)]
    assert scores == sorted(scores)


def test_generic_emissions_need_no_names_of_parameters():
    rng = np.random.default_rng(0)
    y = xr.DataArray(rng.normal(size=(80, 2)), {"feature": ["a", "b"]}, ("time", "feature"))
    mixture = sse.Mixture(["one", "two"], sse.emissions.Gaussian("spherical"), order_by="variance").fit(y)
    assert mixture.summary().columns.tolist() == ["weight", "mean a", "mean b", "sd a", "sd b"]
    variance = mixture.params_["var"].values
    assert variance[0] <= variance[1]
    assert set(mixture.decode(y).values) <= {"one", "two"}


def test_errors_are_said_in_the_terms_of_the_user():
    with pytest.raises(DataError, match="different rows"):
        sse.Mixture(4, family_of("diagonal")).fit([1.0, 2.0, 1.0, 2.0])
    mixture = sse.Mixture(2, family_of("poisson"))
    params = mixture.parameters(weight=[0.5, 0.5], rate=[[0.0], [0.0]])
    with pytest.raises(ImpossibleObservationError, match="time 1"):
        mixture.score([0.0, 1.0], params)
    with pytest.raises(sse.errors.NotFittedError, match="fit"):
        mixture.score([0.0, 1.0])


def test_spikes_are_reported():
    mixture = sse.Mixture(["low", "high"], family_of("diagonal"))
    with pytest.warns(ConvergenceWarning, match=r"Mixture\(..., "):
        mixture.fit(np.tile([0.0, 0.0, 5.0], 20))
    assert mixture.status_ == "degenerate"


def test_emission_cases_cover_every_family_that_ships():
    names = {type(family_of(kind)).__name__ for kind in FAMILIES}
    assert names == {"FullGaussian", "DiagonalGaussian", "Poisson", "Categorical"}
    assert all(emission_of(kind, 2, np.random.default_rng(0)) for kind in FAMILIES)


def test_sample_has_the_weights_and_the_emissions_and_obeys_its_seed():
    mixture = sse.Mixture(["few", "many"], sse.emissions.Poisson())
    params = mixture.parameters(weight=[0.3, 0.7], rate=[[2.0], [9.0]])
    drawn = mixture.sample(20_000, params, seed=1)
    assert drawn.identical(mixture.sample(20_000, params, seed=1))
    few = drawn["y"].where(drawn["state"] == "few").mean().item()
    share = (drawn["state"] == "few").mean().item()
    assert share == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / 20_000))
    assert few == pytest.approx(2.0, abs=5 * np.sqrt(2.0 / 6_000))
