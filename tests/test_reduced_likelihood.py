"""The exact likelihood of many models at once, against the dense Gaussian density."""

import numpy as np
import pytest
from scipy.linalg import toeplitz
from scipy.stats import multivariate_normal

from statespace_em.sequence.reduced_form import ReducedForm, StationaryComponent
from statespace_em.sequence.reduced_likelihood import climbed, fits, log_likelihoods


def arma(p, q):
    """Reduced form of an ARMA model alone."""
    names = tuple(f"ar{i}" for i in range(p)) + tuple(f"ma{i}" for i in range(q))
    component = StationaryComponent("arma", "arma_var", names, p, np.ones(1))
    return ReducedForm(np.ones(1), (component,), (), np.zeros((0, 1 + max(p, q, 1))))


def autocovariances(ar, ma, n):
    """Those of disturbances of variance 1, from the weights of 4 000 past ones."""
    weights = np.zeros(4000)
    for j in range(len(weights)):
        weights[j] = 1.0 if j == 0 else ma[j - 1] if j <= len(ma) else 0.0
        weights[j] += sum(a * weights[j - 1 - i] for i, a in enumerate(ar) if j > i)
    return np.array([weights[k:] @ weights[: len(weights) - k] for k in range(n)])


MODELS = [
    ([0.5, 0.2, -0.3], [0.4, -0.2]), ([0.0, 0.0, 0.95], [1.0, 0.0]), ([1.6, -0.9, 0.1], [-2.5, 1.3]),
    ([0.0, 0.0, 0.0], [0.0, 0.0]),
]  # one of them not invertible, one on the border  # fmt: skip


@pytest.mark.parametrize("n_known", [0, 1, 2])
def test_it_is_the_dense_density_at_the_best_variance_and_effects(n_known):
    rng = np.random.default_rng(0)
    y, X = rng.normal(size=30).cumsum(), rng.normal(size=(30, n_known))
    ar, ma = (np.array(part) for part in zip(*MODELS))
    found = fits(*arma(3, 2).read(np.hstack([ar, ma])), np.column_stack([y, X]))
    for i, (a, m) in enumerate(MODELS):
        cov = toeplitz(autocovariances(a, m, 30))
        precision = np.linalg.inv(cov)
        left = y - X @ np.linalg.solve(X.T @ precision @ X, X.T @ precision @ y) if n_known else y
        variance = left @ precision @ left / 30
        assert found.variance[i] == pytest.approx(variance, rel=1e-8)
        density = multivariate_normal(np.zeros(30), variance * cov).logpdf(left)
        assert found.log_likelihood[i] == pytest.approx(density, abs=1e-8)
        np.testing.assert_allclose(np.square(found.error[:, i]).mean(), 1.0, rtol=1e-12)
        np.testing.assert_allclose(found.log_spread[:, i].sum(), np.linalg.slogdet(cov)[1], atol=1e-8)


def test_what_is_not_stationary_has_no_likelihood():
    y = np.random.default_rng(0).normal(size=(40, 1))
    found = log_likelihoods(arma(1, 1), np.array([[0.5, 0.1], [1.0, 0.1], [-1.2, 0.1], [0.5, 6e3]]), y)
    np.testing.assert_array_equal(np.isfinite(found), [True, False, False, False])
    assert log_likelihoods(arma(1, 1), np.zeros((0, 2)), y).shape == (0,)


def test_ascents_only_go_up_and_end_where_the_likelihood_is_flat():
    rng = np.random.default_rng(1)
    y = np.column_stack([rng.normal(size=80).cumsum(), np.ones(80)])
    begun = rng.uniform(-0.6, 0.6, (6, 3))
    before = log_likelihoods(arma(2, 1), begun, y)
    few, value = climbed(arma(2, 1), begun, y, 3)
    assert (value >= before).all()
    np.testing.assert_allclose(log_likelihoods(arma(2, 1), few, y), value, atol=1e-9)
    there, top = climbed(arma(2, 1), few, y, 60)
    best = there[np.argmax(top)]
    for unit in np.eye(3):
        around = log_likelihoods(arma(2, 1), best + 1e-4 * np.array([[0.0, 0.0, 0.0], unit, -unit]), y)
        assert abs(around[1] - around[2]) / 2e-4 < 1e-3 * (1.0 + abs(around[1] - 2.0 * around[0] + around[2]) / 1e-8)
