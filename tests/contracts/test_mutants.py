"""Every contract has mutants that must fail it: a check that nothing can fail proves nothing."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

from statespace_em.emissions import Categorical, DiagonalGaussian, FullGaussian, Poisson
from statespace_em.emissions.categorical import CategoricalParams
from statespace_em.emissions.diagonal import DiagonalParams
from statespace_em.emissions.gaussian import GaussianParams
from statespace_em.emissions.poisson import PoissonParams
from statespace_em.priors import Dirichlet, Gamma, NormalInverseGamma, NormalInverseWishart
from statespace_em.testing import check_emission_family

RNG = np.random.default_rng(3)
ROOT = np.array([[1.0, 0.0], [0.8, 0.5]])
REAL = RNG.normal(size=(60, 2)) @ ROOT.T
COUNTS = RNG.poisson(4.0, size=(60, 1)).astype(float)
CODES = RNG.integers(3, size=(60, 1)).astype(float)
FULL = GaussianParams(np.array([[0.0, 0.3], [0.5, -0.4]]), np.array([ROOT @ ROOT.T, np.eye(2)]))
DIAGONAL = DiagonalParams(FULL.mean, np.array([[1.0, 0.7], [2.0, 0.4]]))
RATE = PoissonParams(np.array([[3.0], [6.0]]))
PROB = CategoricalParams(np.array([[[0.2, 0.3, 0.5]], [[0.6, 0.3, 0.1]]]))


@dataclass(frozen=True)
class LyingInverseGamma(NormalInverseGamma):
    def log_density(self, mean, var):
        return super().log_density(mean, var) + float(np.log(var).sum())


@dataclass(frozen=True)
class LyingInverseWishart(NormalInverseWishart):
    def log_density(self, mean, cov):
        return super().log_density(mean, cov) - float(np.linalg.slogdet(cov)[1].sum())


@dataclass(frozen=True)
class LyingGamma(Gamma):
    def log_density(self, value):
        return super().log_density(value) - float(np.log(value).sum())


@dataclass(frozen=True)
class LyingDirichlet(Dirichlet):
    def log_density(self, prob):
        return 2.0 * super().log_density(prob)


@dataclass(frozen=True)
class WithConstant(Gamma):
    def log_density(self, value):
        return super().log_density(value) + 1.0


class Unweighted(DiagonalGaussian):
    def statistics(self, params, y, weights):
        return super().statistics(params, y, np.full_like(weights, 1.0 / weights.shape[1]))


class Averaged(DiagonalGaussian):
    def statistics(self, params, y, weights):
        whole = super().statistics(params, y, weights)
        return type(whole)(*(value / len(y) for value in whole))


class Squared(Poisson):
    def statistics(self, params, y, weights):
        return super().statistics(params, y, weights**2)


class Unbiased(DiagonalGaussian):
    def m_step(self, statistics, previous):
        found = super().m_step(statistics, previous)
        return found._replace(var=found.var * statistics.weight / (statistics.weight - 1.0))


class Pooled(Poisson):
    """A peer's fault: the prior's rate is added to the exposure of all states together."""

    def m_step(self, statistics, previous):
        exposure = np.broadcast_to(statistics.exposure.sum(0), statistics.exposure.shape)
        return super().m_step(statistics._replace(exposure=exposure), previous)


class Smoothed(Categorical):
    def m_step(self, statistics, previous):
        return super().m_step(statistics._replace(counts=statistics.counts + 1e-2), previous)


class GapIsZero(FullGaussian):
    def log_prob(self, params, y):
        return super().log_prob(params, np.nan_to_num(y))


class GapDropsRow(FullGaussian):
    def log_prob(self, params, y):
        return super().log_prob(params, np.where(np.isnan(y).any(1, keepdims=True), np.nan, y))


class GapKeepsNormaliser(DiagonalGaussian):
    def log_prob(self, params, y):
        full = super().log_prob(params, np.zeros_like(y)) - super().log_prob(params, np.zeros_like(y))
        gaps = np.isnan(y) @ np.log(params.var).T
        return super().log_prob(params, y) + full - 0.5 * gaps


class NoConstant(DiagonalGaussian):
    def log_prob(self, params, y):
        return super().log_prob(params, y) + 0.5 * np.log(2.0 * np.pi) * (~np.isnan(y)).sum(1, keepdims=True)


class NotADensity(FullGaussian):
    """Right marginals, wrong joint: the entries are coupled without being normalised."""

    def log_prob(self, params, y):
        coupled = np.isfinite(y).all(1, keepdims=True) * np.nan_to_num(y).prod(1, keepdims=True)
        return super().log_prob(params, y) + 0.1 * coupled


class Neighbours(Poisson):
    def log_prob(self, params, y):
        return super().log_prob(params, y) + 1e-6 * np.nan_to_num(y).sum()


class GapImputedByMean(FullGaussian):
    def statistics(self, params, y, weights):
        whole = super().statistics(params, np.where(np.isnan(y), 0.0, y), weights)
        return (
            whole if params is None else super().statistics(params, np.where(np.isnan(y), params.mean[0], y), weights)
        )


class NoConditionalCovariance(FullGaussian):
    """EM with gaps filled by regression, but without what the regression leaves uncertain."""

    def statistics(self, params, y, weights):
        honest = super().statistics(params, y, weights)
        if params is None:
            return honest
        tiny = super().statistics(params._replace(cov=params.cov * 1.0), y, weights)
        gaps = np.isnan(y) & ~np.isnan(y).all(1, keepdims=True)
        lost = np.einsum("nd,nk->kd", gaps, weights)[:, :, None] * np.eye(y.shape[1]) * params.cov
        return tiny._replace(scatter=tiny.scatter - 0.3 * lost)


class WrongSpread(DiagonalGaussian):
    def sample(self, params, states, rng):
        return super().sample(params._replace(var=params.var**2), states, rng)


class WrongStates(Poisson):
    def sample(self, params, states, rng):
        return super().sample(params, states[::-1], rng)


class OwnGenerator(Poisson):
    def sample(self, params, states, rng):
        return super().sample(params, states, np.random.default_rng())


class WrongMarginals(DiagonalGaussian):
    def marginals(self, params):
        return stats.norm(params.mean, params.var)


class WrongMoments(Poisson):
    def moments(self, params):
        return params.rate, params.rate**2


class UnconditionalConditionals(FullGaussian):
    def conditionals(self, params, y):
        return self.marginals(params)


LYING_GAMMA = LyingInverseGamma(shape=2.0, scale=0.5)
LYING_WISHART = LyingInverseWishart(dof=5.0, scale=0.5)
FAMILIES = {
    "a prior that lies about the variance": (DiagonalGaussian(LYING_GAMMA), DIAGONAL, REAL, "maximiser"),
    "a prior that lies about the covariance": (FullGaussian(LYING_WISHART), FULL, REAL, "maximiser"),
    "a prior that lies about the rate": (Poisson(LyingGamma(3.0, 1.0)), RATE, COUNTS, "maximiser"),
    "a prior that lies about the symbols": (Categorical(LyingDirichlet(2.0), 3), PROB, CODES, "maximiser"),
    "a flat prior with a constant": (Poisson(WithConstant()), RATE, COUNTS, "exactly 0"),
    "statistics that ignore the weights": (Unweighted(), DIAGONAL, REAL, "linear in the weights"),
    "statistics that are averages": (Averaged(), DIAGONAL, REAL, "additive over rows"),
    "statistics that square the weights": (Squared(), RATE, COUNTS, "linear in the weights"),
    "an unbiased variance": (Unbiased(), DIAGONAL, REAL, "maximiser"),
    "a MAP that pools the states": (Pooled(Gamma(2.0, 1.0)), RATE, COUNTS, "maximiser"),
    "an unasked pseudo-count": (Smoothed(n_symbols=3), PROB, CODES, "maximiser"),
    "a gap read as zero": (GapIsZero(), FULL, REAL, "without any entry"),
    "a gap that drops its row": (GapDropsRow(), FULL, REAL, "marginal"),
    "a gap that keeps its normaliser": (GapKeepsNormaliser(), DIAGONAL, REAL, "without any entry"),
    "a density without its constant": (NoConstant(), DIAGONAL, REAL, "marginal"),
    "a joint that is no density": (NotADensity(), FULL, REAL, "integrated out"),
    "rows that are not independent": (Neighbours(), RATE, COUNTS, "other rows"),
    "gaps filled with the mean": (GapImputedByMean(), FULL, REAL, "missing entries"),
    "gaps filled without uncertainty": (NoConditionalCovariance(), FULL, REAL, "missing entries"),
    "a sample with the wrong spread": (WrongSpread(), DIAGONAL, REAL, "variance of the sample"),
    "a sample of other states": (WrongStates(), RATE, COUNTS, "mean of the sample"),
    "a sample that ignores the generator": (OwnGenerator(), RATE, COUNTS, "same generator"),
    "conditionals that forget the columns before": (UnconditionalConditionals(), FULL, REAL, "multiply"),
    "moments of another distribution": (WrongMoments(), RATE, COUNTS, "var differs from its marginals"),
    "marginals with a variance for a scale": (WrongMarginals(), DIAGONAL, REAL, "marginal"),
}


@pytest.mark.parametrize("case", FAMILIES)
def test_broken_family_fails(case):
    family, params, y, sentence = FAMILIES[case]
    with pytest.raises(AssertionError, match=sentence):
        check_emission_family(family, params, y)


def test_parameters_that_do_not_fit_the_dims_fail():
    with pytest.raises(AssertionError, match="keys of dims"):
        check_emission_family(Poisson(), CategoricalParams(RATE.rate), COUNTS)


def test_reference_that_differs_fails():
    with pytest.raises(AssertionError, match="reference"):
        check_emission_family(Poisson(), RATE, COUNTS, reference=lambda params, y: np.zeros((len(y), 2)))


def test_the_honest_parts_of_the_mutants_pass():
    # the same priors with a truthful density: nothing but the lie makes a mutant fail
    truth = replace(Poisson(), prior=Gamma(3.0, 1.0))
    check_emission_family(truth, RATE, COUNTS)
    check_emission_family(DiagonalGaussian(NormalInverseGamma(shape=2.0, scale=0.5)), DIAGONAL, REAL)
    check_emission_family(FullGaussian(NormalInverseWishart(dof=5.0, scale=0.5)), FULL, REAL)
    check_emission_family(Categorical(Dirichlet(2.0), 3), PROB, CODES)
