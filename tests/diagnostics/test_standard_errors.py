"""Standard errors against the Hessian of the log-likelihood, by differences of the likelihood alone."""

import numpy as np
import pytest
from hmm_cases import case, model_of, with_prior

import statespace_em as sse
from statespace_em.diagnostics.information import observed_information
from statespace_em.emissions import Poisson
from statespace_em.errors import InformationWarning, ParameterError

KINDS = ["full", "tied", "diagonal", "spherical", "poisson", "categorical", "channels"]
DATES = sse.datasets.earthquakes()


def hessian(function, x, step):
    """Second differences, of fourth order along the axes."""
    size = len(x)
    result = np.empty((size, size))
    for i in range(size):
        for j in range(i + 1):
            a, b = np.eye(size)[i] * step, np.eye(size)[j] * step
            result[i, j] = result[j, i] = (
                function(x + a + b) - function(x + a - b) - function(x - a + b) + function(x - a - b)
            ) / (4.0 * step**2)
    return result


def test_poisson_hidden_markov_model_in_its_own_parameters():
    """Everything by hand: the free values are two rates and two probabilities, the first state is certain."""
    tolerance = 1e-4
    model = sse.PoissonHMM(["quiet", "active"]).fit(DATES, tol=1e-12)
    top = model.params_

    def log_likelihood(x):
        move = np.array([[1.0 - x[0], x[0]], [x[1], 1.0 - x[1]]])
        params = top.assign(
            rate=(top.rate.dims, x[2:, None]), transition=(top.transition.dims, move), initial=("state", [1.0, 0.0])
        )
        return model.score(DATES, params)

    x = np.array([top.transition[0, 1], top.transition[1, 0], *top.rate.values.ravel()])
    scale = np.array([0.1, 0.1, 1.0, 1.0])
    inverse = np.linalg.inv(-hessian(lambda z: log_likelihood(x + scale * z), np.zeros(4), 1e-2))
    expected = scale * np.sqrt(np.diag(inverse))
    errors = model.standard_errors(DATES)
    assert set(errors.data_vars) == set(top.data_vars)
    assert errors.rate.dims == top.rate.dims
    np.testing.assert_allclose(errors.transition[0], expected[[0, 0]], rtol=20 * tolerance)
    np.testing.assert_allclose(errors.transition[1], expected[[1, 1]], rtol=20 * tolerance)
    np.testing.assert_allclose(errors.rate.values.ravel(), expected[2:], rtol=20 * tolerance)
    assert np.isnan(errors.initial).all()
    # the delta method, by hand
    stay = 1.0 - x[:2]
    derived = model.standard_errors(DATES, of="derived")
    np.testing.assert_allclose(derived.persistence, errors.transition.values.diagonal(), rtol=1e-8)
    np.testing.assert_allclose(derived.duration, expected[:2] / (1.0 - stay) ** 2, rtol=20 * tolerance)
    slope = np.array([-x[1], x[0]]) / (x[0] + x[1]) ** 2  # of the share of the first state
    cov = np.diag(scale[:2]) @ inverse[:2, :2] @ np.diag(scale[:2])
    np.testing.assert_allclose(derived.stationary[0], np.sqrt(slope @ cov @ slope), rtol=20 * tolerance)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.InformationWarning")
@pytest.mark.parametrize("structure", [{}, {"initial": "stationary"}, {"tie": [[0, 1]]}, {"prior": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_every_family_against_differences_of_the_likelihood(kind, structure):
    """In the coordinates of the core, anywhere: the information need not be at a maximum."""
    _, params, y = case(kind, 2, 120, 3, holes=True)
    model = with_prior(kind, 2) if "prior" in structure else model_of(kind, 2, **structure)
    if "initial" in structure:
        params = params.drop_vars("initial")
    if "tie" in structure:
        own = [n for n in model._family().dims if params[n].dims[0] == "state"]
        params = params.assign({n: params[n].isel(state=[0, 0]).assign_coords(state=[0, 1]) for n in own})
    core, tree, batch, _, _ = model._prepare(y, params)
    found = observed_information(core, core.flatten(tree), batch)

    def objective(z):
        moved = core.from_vector(found.centre + found.basis @ z, found.reference)
        return core.e_step(moved, batch)[1] + core.log_prior(moved)

    expected = -hessian(objective, np.zeros(found.basis.shape[1]), 1e-4)
    matrix = (found.vectors * found.values) @ found.vectors.T
    np.testing.assert_allclose(matrix, expected, atol=1e-4 * np.abs(expected).max())
    assert found.basis.shape[1] == core.n_free(tree)


def test_a_family_without_a_score_is_differenced():
    class Bare:
        def __init__(self):
            self.own = Poisson()

        def __getattr__(self, name):
            if name in ("score", "own"):
                raise AttributeError(name)
            return getattr(self.own, name)

    fit = sse.PoissonHMM(2).fit(DATES)
    bare = sse.HMM(2, Bare())
    errors, expected = bare.standard_errors(DATES, fit.params_), fit.standard_errors(DATES)
    for name in expected.data_vars:
        np.testing.assert_allclose(errors[name], expected[name], rtol=1e-5)


def test_one_state_has_textbook_errors():
    y = case("full", 1, 80, 3)[2]
    model = sse.GaussianHMM(1).fit(y)
    errors, cov = model.standard_errors(y), model.params_["cov"].values[0]
    np.testing.assert_allclose(errors["mean"][0], np.sqrt(np.diag(cov) / 80), rtol=1e-6)
    expected = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / 80)
    np.testing.assert_allclose(errors["cov"][0], expected, rtol=1e-6)
    counts = case("poisson", 1, 60, 2)[2]
    poisson = sse.PoissonHMM(1).fit(counts)
    np.testing.assert_allclose(poisson.standard_errors(counts).rate[0], np.sqrt(counts.mean(0) / 60), rtol=1e-6)


def test_mixture_of_known_components_is_binomial():
    letters = np.repeat(["a", "b"], [30, 70])
    mixture = sse.Mixture(2, sse.emissions.Categorical())
    params = mixture.parameters(weight=[0.3, 0.7], prob=[[1.0, 0.0], [0.0, 1.0]]).assign_coords(symbol=["a", "b"])
    errors = mixture.standard_errors(letters, params, freeze=["prob"])
    np.testing.assert_allclose(errors.weight, np.sqrt(0.3 * 0.7 / 100), rtol=1e-6)
    assert np.isnan(errors.prob).all()


@pytest.mark.filterwarnings("ignore::statespace_em.errors.LocalOptimumWarning")
def test_what_is_fixed_or_frozen_has_none():
    fit = sse.PoissonHMM(3, transition="left-right", initial=[1, 0, 0]).fit(DATES, n_starts=3)
    errors = fit.standard_errors(DATES)
    below = np.tril(np.ones((3, 3), bool), -1)
    assert np.isnan(errors.transition.values[below]).all()
    assert np.isnan(errors.transition[2, 2])
    assert np.isnan(errors.initial).all()
    assert np.isfinite(errors.rate).all()
    frozen = fit.standard_errors(DATES, freeze=["rate"])
    assert np.isnan(frozen.rate).all()
    assert (frozen.transition[0, 0] <= errors.transition[0, 0]).item()


def test_local_level_of_the_nile():
    """Durbin & Koopman's example: the standard errors that statsmodels and KFAS users report for exact ML."""
    model = sse.LinearGaussianSSM(["level"], initial="known")
    start = model.parameters(
        transition=[[1]], observation=[[1]], process_cov=[[5e3]], measurement_cov=[[2e4]], initial_mean=[0],
        initial_cov=[[1e7]],
    )  # fmt: skip
    nile, freeze = sse.datasets.nile(), ["transition", "observation"]
    model.fit(nile, start=start, freeze=freeze)
    errors = model.standard_errors(nile, freeze=freeze)
    top = np.array([model.params_.process_cov.item(), model.params_.measurement_cov.item()])

    def score(z):
        q, r = top * np.exp(z)
        return model.score(
            nile,
            model.params_.assign(
                process_cov=(model.params_.process_cov.dims, [[q]]),
                measurement_cov=(model.params_.measurement_cov.dims, [[r]]),
            ),
        )

    expected = top * np.sqrt(np.diag(np.linalg.inv(-hessian(score, np.zeros(2), 1e-2))))
    got = [errors.process_cov.item(), errors.measurement_cov.item()]
    np.testing.assert_allclose(got, expected, rtol=1e-3)


def test_what_the_data_do_not_tell_is_not_available():
    """The rows of a state that is never visited."""
    model = sse.PoissonHMM(2)
    params = model.parameters(initial=[1, 0], transition=[[1, 0], [0.5, 0.5]], rate=[[3.0], [8.0]])
    y = np.random.default_rng(0).poisson(3.0, size=60)
    params = params.assign(rate=(("state", "feature"), [[y.mean()], [8.0]]))
    with pytest.warns(InformationWarning, match="singular in 2 directions.*transition, rate"):
        errors = model.standard_errors(y, params)
    np.testing.assert_allclose(errors.rate[0], np.sqrt(y.mean() / 60), rtol=1e-6)
    assert np.isnan(errors.rate[1]).all()
    assert np.isnan(errors.transition[1]).all()


def test_a_slope_is_reported():
    fit = sse.PoissonHMM(2).fit(DATES)
    off = fit.params_.assign(rate=fit.params_.rate * 1.02)
    with pytest.warns(InformationWarning, match="not at a maximum: a Newton step would gain"):
        fit.standard_errors(DATES, off)


# intervals


def test_intervals_stay_in_their_domain_and_cover_their_value():
    y = case("diagonal", 2, 200, 3)[2]
    fit = sse.GaussianHMM(2, "diagonal").fit(y)
    ends = fit.confidence_intervals(y, level=0.9)
    assert ends.bound.values.tolist() == ["lower", "upper"]
    low, high = ends.sel(bound="lower"), ends.sel(bound="upper")
    for name in ("transition", "mean", "var"):
        assert (low[name] < fit.params_[name]).all()
        assert (high[name] > fit.params_[name]).all()
    assert (low["transition"] > 0.0).all()
    assert (high["transition"] < 1.0).all()
    assert (low["var"] > 0.0).all()
    reach = 1.6448536269514722 * fit.standard_errors(y)["mean"]
    np.testing.assert_allclose(high["mean"] - low["mean"], 2.0 * reach, rtol=1e-9)
    wide = fit.confidence_intervals(y, of="derived")
    assert (wide["duration"].sel(bound="lower") > 1.0).all()
    with pytest.raises(ParameterError, match="level is 95"):
        fit.confidence_intervals(y, level=95)
    with pytest.raises(ParameterError, match="of is 'both'"):
        fit.standard_errors(y, of="both")
    with pytest.raises(ParameterError, match="freeze is 'rates'"):
        fit.standard_errors(y, freeze=["rates"])
