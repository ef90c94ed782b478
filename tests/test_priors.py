"""Each prior: density as scipy has it, mode as an optimiser finds it, flat by default."""

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import xlogy

from statespace_em.errors import ParameterError
from statespace_em.priors import Dirichlet, Gamma, InverseWishart, NormalInverseGamma, NormalInverseWishart


def differences(values):
    return np.subtract(values[1:], values[0])


def same_up_to_a_constant(ours, theirs, tolerance=1e-10):
    np.testing.assert_allclose(differences(ours), differences(theirs), rtol=tolerance, atol=tolerance)


def covariances(rng, n, size=3):
    root = rng.normal(size=(n, size, size))
    return root @ root.transpose(0, 2, 1) + 0.3 * np.eye(size)


def maximum(function, start):
    """Best point of a smooth function, to optimiser accuracy."""
    found = optimize.minimize(lambda x: -function(x), start, method="BFGS", options={"gtol": 1e-8})
    return found.x


def test_dirichlet_density():
    rng, concentration = np.random.default_rng(0), (1.5, 2.0, 4.0)
    probs = rng.dirichlet(np.ones(3), size=8)
    prior = Dirichlet(concentration)
    same_up_to_a_constant(
        [prior.log_density(p) for p in probs], [stats.dirichlet(concentration).logpdf(p) for p in probs]
    )
    rows = rng.dirichlet(np.ones(3), size=(8, 3))
    np.testing.assert_allclose(prior.log_density(rows[0]), sum(prior.log_density(p) for p in rows[0]), rtol=1e-14)


def test_sticky_dirichlet_density_and_mode():
    tolerance = 1e-6
    rng, prior = np.random.default_rng(1), Dirichlet(1.5, sticky=7.0)
    matrices = rng.dirichlet(np.ones(3), size=(8, 3))
    own = 1.5 + 7.0 * np.eye(3)
    theirs = [sum(stats.dirichlet(a).logpdf(p) for a, p in zip(own, m)) for m in matrices]
    same_up_to_a_constant([prior.log_density(m) for m in matrices], theirs)
    counts = rng.gamma(2.0, size=(3, 3))

    def softmax(x):
        e = np.exp(x.reshape(3, 3))
        return e / e.sum(1, keepdims=True)

    best = maximum(lambda x: float(np.sum(xlogy(counts, softmax(x))) + prior.log_density(softmax(x))), np.zeros(9))
    np.testing.assert_allclose(prior.mode(counts), softmax(best), rtol=0, atol=tolerance)
    with pytest.raises(ParameterError, match="square"):
        prior.mode(np.ones((2, 3)))


def test_dirichlet_keeps_structural_zeros_and_rows_without_counts():
    previous = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [0.0, 1.0, 0.0]])
    counts = np.array([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0], [5.0, 1.0, 1.0]])
    flat = Dirichlet().mode(counts, previous)
    np.testing.assert_allclose(flat, [[0.75, 0.25, 0.0], [0.1, 0.2, 0.7], [0.0, 1.0, 0.0]], rtol=1e-15)
    informed = Dirichlet(2.0).mode(counts, previous)
    np.testing.assert_allclose(informed, [[4 / 6, 2 / 6, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0]], rtol=1e-15)
    assert Dirichlet(2.0).log_density(np.array([1.0, 0.0])) == 0.0


def test_gamma_density_and_mode():
    tolerance = 1e-6
    prior, rates = Gamma(3.0, 0.5), np.array([0.2, 1.0, 4.0, 9.0])
    same_up_to_a_constant([prior.log_density(r) for r in rates], stats.gamma(3.0, scale=2.0).logpdf(rates))
    total, exposure = 17.0, 6.0

    def objective(x):
        rate = np.exp(x[0])
        return total * x[0] - exposure * rate + prior.log_density(rate)

    np.testing.assert_allclose(prior.mode(total, exposure), np.exp(maximum(objective, [0.0])[0]), rtol=tolerance)
    np.testing.assert_array_equal(Gamma().mode(np.zeros(1), np.zeros(1), previous=np.array([2.5])), [2.5])


def test_normal_inverse_gamma_density_and_mode():
    tolerance = 1e-6
    prior = NormalInverseGamma(shape=2.5, scale=1.2, mean=0.4, strength=3.0)
    rng = np.random.default_rng(2)
    mean, var = rng.normal(size=9), rng.gamma(2.0, size=9)
    theirs = stats.invgamma(2.5, scale=1.2).logpdf(var) + stats.norm(0.4, np.sqrt(var / 3.0)).logpdf(mean)
    same_up_to_a_constant([prior.log_density(m, v) for m, v in zip(mean, var)], theirs)
    y, weight = rng.normal(2.0, 1.5, size=12), rng.uniform(size=12)
    average = np.average(y, weights=weight)
    squares = np.sum(weight * (y - average) ** 2)

    def objective(x):
        m, v = x[0], np.exp(x[1])
        return float(weight @ stats.norm(m, np.sqrt(v)).logpdf(y)) + prior.log_density(m, v)

    best = maximum(objective, [0.0, 0.0])
    got = prior.mode(weight.sum(), average, squares)
    np.testing.assert_allclose(got, [best[0], np.exp(best[1])], rtol=tolerance)


def test_variance_prior_alone_does_not_move_the_mean():
    prior = NormalInverseGamma(shape=2.0, scale=0.5)
    mean, var = prior.mode(np.array([4.0]), np.array([1.0]), np.array([8.0]))
    np.testing.assert_array_equal(mean, [1.0])
    np.testing.assert_allclose(var, (8.0 + 2 * 0.5) / (4.0 + 2 * 3.0), rtol=1e-15)
    values = np.array([0.1, 0.5, 2.0])
    ours = [prior.log_density(np.array(7.0), v) for v in values]
    same_up_to_a_constant(ours, stats.invgamma(2.0, scale=0.5).logpdf(values))


SCALE = ((2.0, 0.3, 0.0), (0.3, 1.0, 0.2), (0.0, 0.2, 0.5))


@pytest.mark.parametrize("scale", [0.8, SCALE])
def test_inverse_wishart_density_and_mode(scale):
    tolerance = 1e-5
    prior, rng = InverseWishart(7.0, scale), np.random.default_rng(3)
    covs = covariances(rng, 8)
    theirs = [stats.invwishart(7, prior.matrix(3)).logpdf(c) for c in covs]
    same_up_to_a_constant([prior.log_density(c) for c in covs], theirs)
    np.testing.assert_allclose(prior.log_density(covs), sum(prior.log_density(c) for c in covs), rtol=1e-13)
    scatter, count = 5.0 * covs[0], 6.0

    def unpacked(x):
        root = np.zeros((3, 3))
        root[np.tril_indices(3)] = x
        np.fill_diagonal(root, np.exp(np.diag(root)))
        return root @ root.T

    def objective(x):
        cov = unpacked(x)
        fit = -0.5 * (count * np.linalg.slogdet(cov)[1] + np.trace(np.linalg.solve(cov, scatter)))
        return fit + prior.log_density(cov)

    np.testing.assert_allclose(prior.mode(scatter, count), unpacked(maximum(objective, np.zeros(6))), atol=tolerance)


def test_normal_inverse_wishart_density_and_mode():
    tolerance = 1e-9
    prior = NormalInverseWishart(dof=6.0, scale=SCALE, mean=(1.0, 0.0, -1.0), strength=2.5)
    rng = np.random.default_rng(4)
    covs, means = covariances(rng, 8), rng.normal(size=(8, 3))
    theirs = [
        stats.invwishart(6, SCALE).logpdf(c) + stats.multivariate_normal([1.0, 0.0, -1.0], c / 2.5).logpdf(m)
        for c, m in zip(covs, means)
    ]
    same_up_to_a_constant([prior.log_density(m[None], c[None]) for m, c in zip(means, covs)], theirs)
    weight, average, scatter = np.array([9.0]), means[:1], 9.0 * covs[:1]
    mean, cov = prior.mode(weight, average, scatter)

    def objective(m, c):
        away = average[0] - m
        total = scatter[0] + weight[0] * np.outer(away, away)
        fit = -0.5 * (weight[0] * np.linalg.slogdet(c)[1] + np.trace(np.linalg.solve(c, total)))
        return fit + prior.log_density(m[None], c[None])

    step, root = 1e-5, np.linalg.cholesky(cov[0])
    for i in range(3):
        shift = step * np.eye(3)[i]
        slope = (objective(mean[0] + shift, cov[0]) - objective(mean[0] - shift, cov[0])) / (2 * step)
        np.testing.assert_allclose(slope, 0.0, atol=tolerance * 1e3)
        for j in range(i + 1):
            tilt = np.zeros((3, 3))
            tilt[i, j] = step
            up, down = (root @ (np.eye(3) + s * tilt) for s in (1, -1))
            slope = (objective(mean[0], up @ up.T) - objective(mean[0], down @ down.T)) / (2 * step)
            np.testing.assert_allclose(slope, 0.0, atol=tolerance * 1e3)


def test_flat_by_default():
    assert Dirichlet().log_density(np.array([0.3, 0.7])) == 0.0
    assert Gamma().log_density(np.array([3.0])) == 0.0
    assert NormalInverseGamma().log_density(np.ones(2), np.full(2, 1e-9)) == 0.0
    assert InverseWishart().log_density(1e-9 * np.eye(2)) == 0.0
    assert NormalInverseWishart().log_density(np.ones((1, 2)), 1e-9 * np.eye(2)[None]) == 0.0
    np.testing.assert_array_equal(Dirichlet().mode(np.array([1.0, 3.0])), [0.25, 0.75])
    np.testing.assert_array_equal(InverseWishart().mode(4.0 * np.eye(2), 2.0), 2.0 * np.eye(2))


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: Dirichlet(0.5), "concentration"),
        (lambda: Dirichlet(sticky=-1.0), "sticky"),
        (lambda: Gamma(shape=0.5), "shape"),
        (lambda: Gamma(rate=-1.0), "rate"),
        (lambda: NormalInverseGamma(shape=-2.0), "shape"),
        (lambda: NormalInverseGamma(scale=(1.0, -1.0)), "scale"),
        (lambda: NormalInverseGamma(strength=np.nan), "strength"),
        (lambda: InverseWishart(dof=-1.0), "dof"),
        (lambda: NormalInverseWishart(scale=-1.0), "scale"),
        (lambda: InverseWishart(5.0, np.eye(3)).mode(np.eye(2), 1.0), "scale of the prior"),
    ],
)
def test_values_out_of_range_are_named(build, word):
    with pytest.raises(ParameterError, match=word):
        build()


def test_singular_covariance_has_no_density():
    with pytest.raises(ParameterError, match=r"no density at a singular covariance \(variances \[0\.0, 1\.0\]\)"):
        InverseWishart(5.0, 1.0).log_density(np.diag([0.0, 1.0]))
    assert InverseWishart().log_density(np.diag([0.0, 1.0])) == 0.0


def test_priors_compare_and_hash_by_value():
    assert NormalInverseWishart(scale=np.eye(2)) == NormalInverseWishart(scale=((1.0, 0.0), (0.0, 1.0)))
    assert hash(Dirichlet(np.array([1.0, 2.0]))) == hash(Dirichlet((1, 2)))
    assert Dirichlet(2) != Dirichlet(3)
