"""Every family, covariance and prior that ships keeps the contract of `EmissionFamily`."""

import numpy as np
import pytest
from scipy import linalg, stats

from statespace_em.emissions import Categorical, Gaussian, Poisson
from statespace_em.emissions.categorical import CategoricalParams
from statespace_em.emissions.diagonal import FLOOR, DiagonalParams
from statespace_em.emissions.gaussian import GaussianParams
from statespace_em.emissions.poisson import PoissonParams
from statespace_em.priors import Dirichlet, Gamma, NormalInverseGamma, NormalInverseWishart
from statespace_em.testing import check_emission_family

K, D, N = 2, 3, 60
RNG = np.random.default_rng(11)
MEAN = RNG.normal(size=(K, D))
ROOT = RNG.normal(size=(K, D, D))
COV = ROOT @ ROOT.transpose(0, 2, 1) / D + 0.5 * np.eye(D)
REAL = MEAN[0] + RNG.normal(size=(N, D)) @ np.linalg.cholesky(COV[0]).T
COUNTS = RNG.poisson(4.0, size=(N, 2)).astype(float)
CODES = RNG.integers(4, size=(N, 2)).astype(float)

DIAGONAL_PRIORS = [
    None,
    NormalInverseGamma(shape=2.0, scale=0.7),
    NormalInverseGamma(shape=1.0, scale=(0.5, 1.0, 2.0), mean=(1.0, -1.0, 0.3), strength=4.0),
]
FULL_PRIORS = [
    None,
    NormalInverseWishart(dof=6.0, scale=0.7),
    NormalInverseWishart(
        dof=5.0, scale=((1.0, 0.3, 0.0), (0.3, 2.0, 0.1), (0.0, 0.1, 0.5)), mean=(1.0, -1.0, 0.3), strength=4.0
    ),
]


def normal(params, y):
    cov = params.cov if hasattr(params, "cov") else params.var
    columns = []
    for k, mean in enumerate(params.mean):
        own = cov[k] if cov.shape[:1] == (len(params.mean),) else cov
        own = np.diag(np.broadcast_to(own, mean.shape)) if own.ndim < 2 else own
        columns.append(stats.multivariate_normal(mean, own).logpdf(y))
    return np.stack(columns, axis=1)


def poisson(params, y):
    return stats.poisson(params.rate).logpmf(y[:, None]).sum(-1)


def categorical(params, y):
    codes = y.astype(int)
    return np.log([[np.prod([p[d, c] for d, c in enumerate(row)]) for p in params.prob] for row in codes])


@pytest.mark.parametrize("prior", FULL_PRIORS)
@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_full_gaussian(covariance, prior):
    params = GaussianParams(MEAN, COV if covariance == "full" else COV[1])
    check_emission_family(Gaussian(covariance, prior), params, REAL, reference=normal)


@pytest.mark.parametrize("prior", DIAGONAL_PRIORS)
@pytest.mark.parametrize("covariance", ["diagonal", "spherical"])
def test_diagonal_gaussian(covariance, prior):
    var = np.diagonal(COV, axis1=1, axis2=2)
    params = DiagonalParams(MEAN, var if covariance == "diagonal" else var[:, 0])
    check_emission_family(Gaussian(covariance, prior), params, REAL, reference=normal)


@pytest.mark.parametrize("prior", [Gamma(), Gamma(shape=3.0, rate=0.5), Gamma(shape=1.0, rate=2.0)])
def test_poisson(prior):
    params = PoissonParams(np.array([[2.0, 6.0], [5.0, 3.0]]))
    check_emission_family(Poisson(prior), params, COUNTS, reference=poisson)


@pytest.mark.parametrize("count", [0, 1, 17, 255, 256, 257, 1_000, 10**6, 10**8, 10**12, 2**53])
def test_poisson_keeps_its_digits(count):
    """Against 50 digits, from far below the rate to far above it; both sides of where the formula changes."""
    mpmath = pytest.importorskip("mpmath")
    sd = max(count, 1) ** 0.5
    near = count + sd * np.array([-3.0, -1e-3, 0.0, 1e-3, 3.0, 30.0])
    rates = np.concatenate([near, count * np.array([0.5, 0.91, 1.1]), [3.0 * count + 1.0]])
    rates = rates[rates > 0.0]
    found = Poisson().log_prob(PoissonParams(rates[:, None]), np.array([[float(count)]]))[0]
    with mpmath.workdps(50):
        n, rate = mpmath.mpf(count), [mpmath.mpf(float(value)) for value in rates]
        expected = [float(n * mpmath.log(value) - value - mpmath.loggamma(n + 1)) for value in rate]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_large_and_small_counts_side_by_side():
    rates = np.array([[3.0, 1e7], [0.0, 9e6]])
    y = np.array([[2.0, 1e7], [np.nan, 1e7 + 5.0], [0.0, np.nan], [400.0, 12.0]])
    with np.errstate(invalid="ignore"):
        expected = np.where(np.isnan(y)[:, None], 0.0, stats.poisson.logpmf(y[:, None], rates)).sum(-1)
    np.testing.assert_allclose(Poisson().log_prob(PoissonParams(rates), y), expected, rtol=1e-8)


@pytest.mark.parametrize("prior", [Dirichlet(), Dirichlet(2.5), Dirichlet((1.0, 2.0, 3.0, 4.0))])
@pytest.mark.parametrize("channels", [1, 2])
def test_categorical(channels, prior):
    params = CategoricalParams(np.random.default_rng(2).dirichlet(np.ones(4), size=(K, channels)))
    check_emission_family(Categorical(prior, n_symbols=4), params, CODES[:, :channels], reference=categorical)


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_missing_entries_are_marginalised(covariance):
    tolerance = 1e-12
    params = GaussianParams(MEAN, COV if covariance == "full" else COV[1])
    holes = np.where(np.random.default_rng(0).random(REAL.shape) < 0.4, np.nan, REAL)
    got = Gaussian(covariance).log_prob(params, holes)
    for n, row in enumerate(holes):
        seen = ~np.isnan(row)
        for k in range(K):
            cov = params.cov if covariance == "tied" else params.cov[k]
            expected = (
                stats.multivariate_normal(MEAN[k, seen], cov[np.ix_(seen, seen)]).logpdf(row[seen])
                if seen.any()
                else 0.0
            )
            np.testing.assert_allclose(got[n, k], expected, rtol=tolerance, atol=tolerance)


def test_zero_probabilities_and_rates():
    family = Poisson()
    got = family.log_prob(PoissonParams(np.array([[0.0], [2.0]])), np.array([[0.0], [3.0], [np.nan]]))
    np.testing.assert_array_equal(got[:, 0], [0.0, -np.inf, 0.0])
    symbols = Categorical(n_symbols=2)
    log_prob = symbols.log_prob(CategoricalParams(np.array([[[1.0, 0.0]]])), np.array([[0.0], [1.0], [np.nan]]))
    np.testing.assert_array_equal(log_prob[:, 0], [0.0, -np.inf, 0.0])
    previous = CategoricalParams(np.array([[[0.5, 0.5, 0.0]]]))
    kept = Categorical(Dirichlet(3.0)).m_step(
        symbols.statistics(previous, np.array([[0.0]]), np.ones((1, 1))), previous
    )
    assert kept.prob[0, 0, 2] == 0.0


@pytest.mark.parametrize(
    ("family", "params"),
    [
        (Gaussian("full"), GaussianParams(MEAN, COV)),
        (Gaussian("diagonal"), DiagonalParams(MEAN, np.diagonal(COV, axis1=1, axis2=2))),
        (Gaussian("spherical"), DiagonalParams(MEAN, COV[:, 0, 0])),
    ],
)
def test_a_state_without_weight_keeps_its_parameters(family, params):
    weights = np.column_stack([np.ones(N), np.zeros(N)])
    new = family.m_step(family.statistics(params, REAL, weights), params)
    for value, old in zip(new, params):
        np.testing.assert_array_equal(value[1], old[1])
        assert not np.array_equal(value[0], old[0])


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "spherical"])
def test_the_floor_is_the_constrained_maximum(covariance):
    tolerance = 1e-6
    # two states, the second on nearly identical rows: its variance ends at the floor, FLOOR of the pooled one
    y = np.concatenate([REAL, np.full((5, D), 0.3) + 1e-9 * RNG.normal(size=(5, D))])
    weights = np.column_stack([np.arange(len(y)) < N, np.arange(len(y)) >= N]).astype(float)
    family = Gaussian(covariance)
    params = None
    for _ in range(3):
        statistics = family.statistics(params, y, weights)
        params = family.m_step(statistics, params)
    floored = family.at_floor(params, statistics)
    if covariance == "tied":
        assert not floored.any()
        return
    np.testing.assert_array_equal(floored, [False, True])
    pooled = np.cov(y.T, bias=True)
    if covariance == "full":
        relative = linalg.eigh(params.cov[1], pooled, eigvals_only=True)
        np.testing.assert_allclose(relative, FLOOR, rtol=tolerance)
    else:
        expected = np.diag(pooled) if covariance == "diagonal" else np.diag(pooled).mean()
        np.testing.assert_allclose(params.var[1], FLOOR * expected, rtol=tolerance)
