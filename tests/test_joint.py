"""Tests of innovation vectors: against scipy, statsmodels, and their own distribution."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import statespace_em as sse
from statespace_em import checks
from statespace_em.checks.joint import normality, portmanteau
from statespace_em.errors import DataError, ParameterError


def filtered(values, cov=None):
    n, p = values.shape
    cov = np.broadcast_to(np.eye(p) if cov is None else cov, (n, p, p))
    return xr.Dataset(
        {
            "innovation": (("time", "feature"), values),
            "innovation_cov": (("time", "feature", "feature_aux"), np.array(cov)),
        }
    )


@pytest.mark.parametrize("seed", range(4))
def test_skewness_of_one_series_is_scored_as_scipy_does(seed):
    from statespace_em.checks.joint import _kurtosis_score, _skewness_score

    y = np.random.default_rng(seed).gamma(3.0, size=60)
    skewness, kurtosis = stats.skew(y), stats.kurtosis(y, fisher=False)
    score = _skewness_score(np.array(skewness), 60)
    assert float(score) == pytest.approx(stats.skewtest(y).statistic, rel=1e-12)
    both = score**2 + _kurtosis_score(np.array(skewness), np.array(kurtosis), 60) ** 2
    assert normality(y[:, None]) == pytest.approx(float(both), rel=1e-10)


@pytest.mark.parametrize(("n", "p"), [(30, 1), (40, 3), (200, 5)])
def test_normality_has_its_distribution_under_a_correlated_normal(n, p):
    rng = np.random.default_rng(n)
    root = rng.normal(size=(p, p)) + np.eye(p)
    found = [normality(rng.normal(size=(n, p)) @ root.T) for _ in range(1500)]
    if p == 1 or n > 100:  # rows whitened by few estimates of their own are a little tamer than independent ones
        assert stats.kstest(found, stats.chi2(2 * p).cdf).pvalue > 1e-3
    assert np.mean(np.array(found) > stats.chi2(2 * p).ppf(0.95)) == pytest.approx(0.05, abs=0.02)


def test_normality_does_not_depend_on_units_and_sees_a_joint_departure():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(150, 3))
    assert normality(values * [1e-6, 1.0, 1e4] + [5.0, 0.0, -1.0]) == pytest.approx(normality(values), rel=1e-9)
    mixed = values * np.sqrt(3.0 / rng.chisquare(3.0, size=150))[:, None]
    assert checks.joint_tests(filtered(mixed)).loc["normality", "p"] < 1e-3


def test_portmanteau_is_that_of_statsmodels():
    api = pytest.importorskip("statsmodels.tsa.api")
    rng = np.random.default_rng(0)
    fit = api.VAR(rng.normal(size=(120, 3)).cumsum(0) * 0.1 + rng.normal(size=(120, 3))).fit(1)
    expected = fit.test_whiteness(nlags=8, adjusted=True).test_statistic
    assert portmanteau(np.asarray(fit.resid), 8) == pytest.approx(expected, rel=1e-9)


def test_dependence_on_the_past_of_another_sensor_is_seen():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(300, 2))
    values[1:, 1] = 0.5 * values[:-1, 0] + np.sqrt(0.75) * values[1:, 1]
    assert (checks.innovation_tests(filtered(values), lags=4)["ljung_box_p"] > 0.01).all()
    assert checks.joint_tests(filtered(values), lags=4).loc["portmanteau", "p"] < 1e-6


def test_one_sensor_has_the_ratio_of_variances_of_its_own_test():
    values = np.random.default_rng(2).normal(size=(91, 1))
    values[[3, 40]] = np.nan
    alone, joint = checks.innovation_tests(filtered(values)), checks.joint_tests(filtered(values))
    assert joint.loc["heteroscedasticity", "statistic"] == pytest.approx(alone["heteroscedasticity"].item(), rel=1e-12)
    assert joint.loc["heteroscedasticity", "p"] == pytest.approx(alone["heteroscedasticity_p"].item(), rel=1e-9)


def test_wrong_use_is_refused():
    values = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(ParameterError, match="lags is 0"):
        checks.joint_tests(filtered(values), lags=0)
    gaps = values.copy()
    gaps[:15, 0] = np.nan
    with pytest.raises(DataError, match="5 rows have all innovations"):
        checks.joint_tests(filtered(gaps))
    with pytest.raises(DataError, match="combination of the others"):
        normality(np.column_stack([values, values.sum(1)]))
    two = xr.concat([filtered(values), filtered(values)], "sequence")
    with pytest.raises(DataError, match="several sequences"):
        checks.joint_tests(two)


def test_equal_variances_count_from_the_first_innovation():
    flow = sse.datasets.nile()
    known = sse.designs.local_level().fit(flow).filter(flow)  # the first row of a diffuse start has none
    joint, alone = checks.joint_tests(known).loc["heteroscedasticity"], checks.innovation_tests(known).iloc[0]
    assert joint["statistic"] == pytest.approx(0.61, abs=5e-3)  # Durbin & Koopman 2012, sec. 2.12.1: H(33)
    assert joint["dof"] == 33
    assert (joint["statistic"], joint["p"]) == (alone["heteroscedasticity"], alone["heteroscedasticity_p"])
