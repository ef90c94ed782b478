"""Residuals of true models are uniform and independent, those of wrong models are not."""

import numpy as np
import pytest
from hmm_cases import case, family_of, parameters_of
from lgssm_cases import oracle_of
from oracles_gaussian import joint
from scipy import special, stats

import statespace_em as sse
from statespace_em.emissions import FullGaussian, Poisson
from statespace_em.errors import ParameterError
from statespace_em.predictive import Part, Predictive, mixture, rosenblatt

N_SEEDS = 100


def passes(pit, least=1e-3):
    values = pit[~np.isnan(pit)]
    return stats.kstest(values, "uniform").pvalue > least


@pytest.mark.parametrize("kind", ["full", "spherical", "poisson", "categorical"])
def test_a_true_model_passes_and_a_wrong_one_fails(kind):
    model, params = parameters_of(kind, 2, np.random.default_rng(5), apart=1.5)
    if kind == "poisson":
        params = params.assign(rate=(("state", "feature"), np.array([[3.0, 2.0], [12.0, 7.0]])))
    wrong = params.copy(deep=True)
    if kind == "categorical":
        wrong["prob"] = wrong["prob"] * 0 + np.array([0.4, 0.3, 0.2, 0.1])
    else:
        name = "rate" if kind == "poisson" else "mean"
        wrong[name] = wrong[name].mean("state") + 0 * wrong[name]
    true, false = [], []
    for seed in range(N_SEEDS):
        y = model.sample(250, params, seed=seed)["y"].values
        true.append(passes(model.residuals(y, params, seed=seed)["pit"].values))
        if seed < 20:
            false.append(passes(model.residuals(y, wrong, seed=seed)["pit"].values))
    assert sum(true) >= 0.99 * N_SEEDS
    assert sum(false) <= 4


def test_a_true_linear_gaussian_model_passes_and_a_wrong_one_fails():
    model = sse.LinearGaussianSSM(2)
    params = model.parameters(
        transition=[[0.9, 0.2], [0.0, 0.7]], observation=[[1.0, 0.5], [0.3, 1.0]], process_cov=[[1.0, 0.3], [0.3, 0.5]],
        measurement_cov=[[0.5, 0.2], [0.2, 0.8]], initial_mean=[0, 0], initial_cov=[[3, 0], [0, 3]],
    )  # fmt: skip
    wrong = params.assign({name: 0.4 * params[name] for name in ("process_cov", "measurement_cov")})
    rng = np.random.default_rng(0)
    draws = [model.sample(200, params, seed=seed)["y"].values for seed in range(N_SEEDS)]
    for y in draws:
        y[rng.random(y.shape) < 0.1] = np.nan
    assert sum(passes(model.residuals(y, params)["pit"].values) for y in draws) >= 0.99 * N_SEEDS
    assert sum(passes(model.residuals(y, wrong)["pit"].values) for y in draws[:20]) <= 4


def observations_of(params, T):
    """Mean and covariance of all rows, entry after entry, from the dense oracle."""
    mean, cov = joint(oracle_of(params), T)
    return mean[2 * T :], cov[2 * T :, 2 * T :]


def test_linear_gaussian_residuals_by_dense_conditioning():
    model, tolerance = sse.LinearGaussianSSM(2), 1e-10
    params = model.parameters(
        transition=[[0.9, 0.2], [0.0, 0.7]], observation=[[1.0, 0.5], [0.3, 1.0]], process_cov=[[1.0, 0.3], [0.3, 0.5]],
        measurement_cov=[[0.5, 0.2], [0.2, 0.8]], initial_mean=[1, 0], initial_cov=[[3, 0], [0, 3]],
    )  # fmt: skip
    y = model.sample(6, params, seed=1)["y"].values
    y[2, 0] = y[4] = np.nan
    mean, cov = observations_of(params, 6)
    seen = ~np.isnan(y).ravel()
    factor = np.linalg.cholesky(cov[np.ix_(seen, seen)])  # entries in order of time, then column
    scores = np.linalg.solve(factor, y.ravel()[seen] - mean[seen])
    found = model.residuals(y, params)
    np.testing.assert_allclose(found["residual"].values.ravel()[seen], scores, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found["pit"].values.ravel()[seen], stats.norm.cdf(scores), atol=tolerance)
    assert np.isnan(found["pit"].values.ravel()[~seen]).all()
    one = model.one_step(y, params)
    before = np.arange(12) < 6  # the first three rows, seen entries only
    given = before & seen
    gain = cov[6:8][:, given] @ np.linalg.inv(cov[np.ix_(given, given)])
    np.testing.assert_allclose(one["mean"][3], mean[6:8] + gain @ (y.ravel()[given] - mean[given]), rtol=tolerance)
    np.testing.assert_allclose(one["variance"][3], np.diag(cov[6:8, 6:8] - gain @ cov[given][:, 6:8]), rtol=tolerance)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("kind", ["full", "tied", "diagonal"])
def test_transforms_by_their_definition(kind, holes):
    """Mixture over states, weights moved by the earlier columns: from scipy's conditional normals."""
    tolerance = 1e-10
    model, params, y = case(kind, 2, 12, 3, holes=holes)
    predicted = model.filter(y, params)["predicted"].values
    pit = model.residuals(y, params)["pit"].values
    covs = params["cov"].values if "cov" in params else np.array([np.diag(v) for v in params["var"].values])
    covs = np.broadcast_to(covs, (2, 2, 2))
    for t, row in enumerate(y):
        weight = predicted[t]
        for d in range(2):
            if np.isnan(row[d]):
                assert np.isnan(pit[t, d])
                continue
            below = 0.0
            densities = np.ones(2)
            for k in range(2):
                mean, var = params["mean"].values[k, d], covs[k, d, d]
                if d == 1 and not np.isnan(row[0]):
                    slope = covs[k, 1, 0] / covs[k, 0, 0]
                    mean, var = mean + slope * (row[0] - params["mean"].values[k, 0]), var - slope * covs[k, 0, 1]
                below += weight[k] * stats.norm(mean, var**0.5).cdf(row[d])
                densities[k] = stats.norm(mean, var**0.5).pdf(row[d])
            np.testing.assert_allclose(pit[t, d], below, rtol=tolerance, atol=tolerance)
            weight = weight * densities / (weight * densities).sum()


def test_earlier_columns_move_the_weights():
    """Transforms of each column by itself are uniform, too, but not independent: the states couple the columns."""
    model, params = parameters_of("diagonal", 2, np.random.default_rng(0))
    table = ("state", "feature")
    params = params.assign(
        mean=(table, np.array([[-1.5, -1.0], [1.5, 1.0]])),
        var=(table, np.ones((2, 2))),
        transition=(("state", "next_state"), np.full((2, 2), 0.5)),
    )
    y = model.sample(3000, params, seed=2)["y"].values
    residual = model.residuals(y, params)["residual"].values
    core, tree, batch, _, _ = model._prepare(y, params)
    alone = model._one_step(core, tree, batch).scores(y, np.random.default_rng(0))[1]
    limit = 4.0 / np.sqrt(3000)
    assert abs(np.corrcoef(residual.T)[0, 1]) < limit
    assert abs(np.corrcoef(alone.T)[0, 1]) > 3 * limit


def test_smoothed_weights_would_reject_a_true_model():
    """Fault of a peer: residuals from hindsight."""
    model, params = parameters_of("diagonal", 2, np.random.default_rng(2), apart=1.2)
    y = model.sample(3000, params, seed=3)["y"].values[:, :1]
    params = params.isel(feature=[0])
    core, tree, batch, _, _ = model._prepare(y, params)
    peeking = mixture(core.family, tree.emission, model.e_step(y, params)["gamma"].values)
    assert not passes(peeking.scores(y, np.random.default_rng(0))[0])
    assert passes(model.residuals(y, params)["pit"].values)


def test_counts_are_spread_over_their_jump_by_the_seed():
    model, params, y = case("poisson", 2, 40, 1, holes=True)
    found = model.residuals(y, params, seed=4)
    np.testing.assert_array_equal(found["pit"], model.residuals(y, params, seed=4)["pit"])
    assert (found["pit"] != model.residuals(y, params, seed=5)["pit"]).any()
    core, tree, batch, _, _ = model._prepare(y, params)
    joint = model._joint(core, tree, batch)
    filled = np.where(np.isnan(y), 0.0, y)
    below, upto = joint.cdf(filled - 1.0), joint.cdf(filled)
    seen = ~np.isnan(y)
    inside = (found["pit"].values >= below - 1e-12) & (found["pit"].values <= upto + 1e-12)
    assert inside[seen].all()
    assert np.isnan(found["pit"].values[~seen]).all()
    longer = model.residuals(np.vstack([y, y]), params, seed=4)
    np.testing.assert_array_equal(longer["pit"][:40], found["pit"])  # later rows change no bit


def test_an_outlier_keeps_a_finite_score():
    params = sse.GaussianHMM(1).parameters(initial=[1.0], transition=[[1.0]], mean=[[0.0]], cov=[[[1.0]]])
    y = [-1e4, -30.0, 0.5, 30.0, 50.0, 1e6]  # from 38 on the tail itself is no longer a number
    found = sse.GaussianHMM(1).residuals(y, params)["residual"].values.ravel()
    np.testing.assert_allclose(found, y, rtol=1e-9)
    two = sse.GaussianHMM(2).parameters(
        initial=[0.5, 0.5], transition=[[0.5, 0.5], [0.5, 0.5]], mean=[[0.0], [0.0]], cov=[[[1.0]], [[4.0]]]
    )
    far = sse.GaussianHMM(2).residuals([-300.0, 100.0], two)["residual"].values.ravel()
    np.testing.assert_allclose(far, stats_of_a_tail(np.array([-300.0, 100.0])), rtol=1e-9)


def test_a_count_far_out_keeps_a_finite_score():
    params = sse.PoissonHMM(1).parameters(initial=[1.0], transition=[[1.0]], rate=[[20.0]])
    found = sse.PoissonHMM(1).residuals([5000, 20, 800], params, seed=1)
    uniform = np.random.default_rng(1).random((3, 1))[[0, 2], 0]
    for count, drawn, score in zip([5000, 800], uniform, found["residual"].values[[0, 2], 0]):
        beyond = special.logsumexp(stats.poisson(20.0).logpmf(np.arange(count + 1, count + 400)))
        own = np.log1p(-drawn) + stats.poisson(20.0).logpmf(count)
        assert score == pytest.approx(-special.ndtri_exp(np.logaddexp(own, beyond)), rel=1e-3)
    few = sse.PoissonHMM(1).parameters(initial=[1.0], transition=[[1.0]], rate=[[5000.0]])
    assert -110 < sse.PoissonHMM(1).residuals([0, 5000], few, seed=1)["residual"].values[0, 0] < -90


def stats_of_a_tail(x):
    """Normal score of half of N(0, 4) and half of N(0, 1), whose part is nothing there: log p = log(1/2) + log Phi."""
    return np.sign(x) * -special.ndtri_exp(np.log(0.5) + stats.norm.logsf(np.abs(x) / 2))


def test_mixtures_and_several_sequences():
    family = family_of("full")
    _, params, y = case("full", 2, 30, 2, holes=True)
    weights = params.drop_vars(["initial", "transition"]).assign(weight=("state", np.array([0.3, 0.7])))
    found = sse.Mixture(2, family).residuals({"a": y, "b": y[:7]}, weights)
    assert found["pit"].dims == ("sequence", "time", "feature")
    np.testing.assert_array_equal(found["pit"].sel(sequence="b")[:7], found["pit"].sel(sequence="a")[:7])
    rows = params.assign(initial=weights["weight"], transition=params["transition"] * 0 + weights["weight"].values)
    same = sse.GaussianHMM(2).residuals(y, rows)  # a chain with identical rows is a mixture
    np.testing.assert_allclose(same["pit"], found["pit"].sel(sequence="a"), atol=1e-13)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_conditionals_multiply_to_the_joint_density(kind):
    _, params, y = case(kind, 3, 20, 6, holes=True)
    family = family_of(kind)
    own = type("P", (), {"mean": params["mean"].values, "cov": params["cov"].values})
    conditional = family.conditionals(own, y)
    total = np.nansum(conditional.logpdf(y[:, None, :]), axis=2)
    np.testing.assert_allclose(total, family.log_prob(own, y), rtol=1e-11, atol=1e-11)


def test_a_family_that_couples_columns_must_say_how():
    class Silent:
        support, dims = "real", {"mean": ("state", "feature"), "cov": ("state", "feature", "feature_aux")}
        log_prob = staticmethod(FullGaussian().log_prob)
        marginals = staticmethod(FullGaussian().marginals)

    _, params, y = case("full", 2, 20, 6)
    own = type("P", (), {"mean": params["mean"].values, "cov": params["cov"].values})
    with pytest.raises(ParameterError, match=r"the columns of Silent depend on each other .* no method conditionals"):
        rosenblatt(Silent(), own, y, np.full((20, 2), 0.5))
    rosenblatt(Silent(), own, y[:, :1], np.full((20, 2), 0.5))


def test_quantiles_invert_the_distribution_function():
    rng = np.random.default_rng(1)
    weight = rng.dirichlet(np.ones(3), size=(5, 4))[..., None]
    for components in (
        stats.norm(3 * rng.normal(size=(3, 2)), np.exp(rng.normal(size=(3, 2)))),
        stats.gamma(2 + rng.random((3, 2))),
    ):
        one = Predictive([Part(weight, components)], False)
        for level in (1e-12, 0.01, 0.5, 0.93, 1 - 1e-9):
            np.testing.assert_allclose(one.cdf(one.quantile(level)), level, rtol=1e-9)
    counts = mixture(Poisson(), type("P", (), {"rate": np.array([[0.5], [7.0]])}), np.array([[0.4, 0.6], [1.0, 0.0]]))
    for level in (1e-9, 0.2, 0.5, 0.9, 0.9999):
        found = counts.quantile(level)
        assert (counts.cdf(found) >= level).all()
        assert (counts.cdf(found - 1) < level).all()
    np.testing.assert_array_equal(counts.quantile(0.9)[1], stats.poisson(0.5).ppf(0.9))
