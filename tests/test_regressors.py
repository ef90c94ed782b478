"""Regression on known columns: every question against generalised least squares on the dense joint distribution."""

import numpy as np
import pandas as pd
import pytest

from statespace_em import designs
from statespace_em.errors import DataError

ROWS, AHEAD = 96, 12
EXACT = 1e-7


def drivers():
    """Monthly log counts with a level that drifts, the price of petrol and a law (as in the seat belt data)."""
    rng = np.random.default_rng(5)
    n = ROWS + AHEAD
    months = pd.period_range("1976-01", periods=n, freq="M")
    X = pd.DataFrame({"petrol": 0.1 * rng.normal(size=n).cumsum(), "law": (np.arange(n) >= 70.0) * 1.0}, index=months)
    level = 7.0 + 0.04 * rng.normal(size=n).cumsum()
    y = pd.Series(level + X.to_numpy() @ [-0.3, -0.25] + 0.07 * rng.normal(size=n), months, name="drivers")
    return y, X


def variances(model):
    return model.summary().loc[["level_var", "noise_var"], "value"].to_numpy()


def dense(X, level_var, noise_var, seen):
    """Regressors of constants and covariance of all rows; weights on what was seen."""
    n = len(X)
    F, V = np.column_stack([np.ones(n), X]), level_var * np.minimum.outer(np.arange(n), np.arange(n))
    whole = V + noise_var * np.eye(n)
    return F, V, whole, np.linalg.inv(whole[np.ix_(seen, seen)])


def kriging(y, X, level_var, noise_var):
    """Mean and covariance of the rows after y (Cressie 1993, sec. 3.4): constants are of unknown mean."""
    seen, later = np.arange(len(y)), np.arange(len(y), len(X))
    F, _, whole, weight = dense(X, level_var, noise_var, seen)
    normal = np.linalg.inv(F[seen].T @ weight @ F[seen])
    beta = normal @ F[seen].T @ weight @ y
    link = whole[np.ix_(later, seen)] @ weight
    rest = F[later] - link @ F[seen]
    mean = F[later] @ beta + link @ (y - F[seen] @ beta)
    return mean, whole[np.ix_(later, later)] - link @ whole[np.ix_(seen, later)] + rest @ normal @ rest.T, beta, normal


def log_likelihood(y, X, level_var, noise_var):
    F, _, whole, weight = dense(X, level_var, noise_var, np.arange(len(y)))
    cut = F.T @ weight @ F
    rest = y - F @ np.linalg.solve(cut, F.T @ weight @ y)
    constant = (len(y) - F.shape[1]) * np.log(2 * np.pi)
    return -0.5 * (constant + np.linalg.slogdet(whole)[1] + np.linalg.slogdet(cut)[1] + rest @ weight @ rest)


@pytest.fixture(scope="module")
def found():
    y, X = drivers()
    past = y[:ROWS]
    model = (designs.local_level() + designs.regression(X[:ROWS])).fit(past)
    return model, designs.local_level() + designs.regression(X), past, X.to_numpy()


def test_a_forecast_without_the_regressors_of_the_future_says_how_to_give_them(found):
    model, wider, past, _ = found
    said = (
        r"X of the regression has 96 rows, but a forecast 12 rows beyond the 96 rows of y needs 108\. Write the model "
        r"again with designs\.regression\(X\).*forecast\(y, 12, params=model\.params_\)"
    )
    with pytest.raises(DataError, match=said):
        model.forecast(past, AHEAD)
    with pytest.raises(DataError, match=said):
        model.simulate(past, AHEAD, n_paths=2)
    with pytest.raises(DataError, match="needs 109"):
        wider.forecast(past, AHEAD + 1, params=model.params_)


def test_the_regressors_of_the_future_must_follow_the_rows_of_y(found):
    model, wider, past, _ = found
    with pytest.raises(DataError, match="row 0 of y is at 1976-02, but that of X at 1976-01"):
        wider.forecast(past[1:], 3, params=model.params_)


def test_forecast_is_that_of_the_dense_distribution(found):
    model, wider, past, X = found
    mean, cov, _, _ = kriging(past.to_numpy(), X, *variances(model))
    ahead = wider.forecast(past, AHEAD, params=model.params_, quantiles=[0.5])
    np.testing.assert_allclose(ahead["mean"].values[:, 0], mean, rtol=EXACT)
    np.testing.assert_allclose(ahead["variance"].values[:, 0], np.diag(cov), rtol=1e-6)
    np.testing.assert_allclose(ahead["quantile"].values[:, 0, 0], mean, rtol=EXACT)
    paths = wider.simulate(past, AHEAD, n_paths=4000, params=model.params_, seed=1)["y"].values[..., 0]
    np.testing.assert_allclose(paths.mean(0), mean, atol=5 * np.sqrt(cov.max() / 4000))


def test_filter_is_that_of_the_dense_distribution(found):
    model, _, past, X = found
    known = model.filter(past)
    for t in (40, 69, ROWS - 1):  # before the law its effect is unknown, and of no weight
        own = X[: t + 1] if t > 70 else X[: t + 1, :1]
        mean, cov, _, _ = kriging(past.to_numpy()[:t], own, *variances(model))
        assert float(known["innovation"][t, 0]) == pytest.approx(past.iloc[t] - mean[0], abs=EXACT)
        assert float(known["innovation_cov"][t, 0, 0]) == pytest.approx(cov[0, 0], rel=1e-6)


def test_components_are_the_effects(found):
    model, wider, past, X = found
    _, _, beta, normal = kriging(past.to_numpy(), X, *variances(model))
    for parts in (model.decompose(past), wider.decompose(past, params=model.params_)):
        for j, name in enumerate(("petrol", "law"), start=1):
            effect = parts.sel(component=name)
            np.testing.assert_allclose(effect["mean"], X[:ROWS, j - 1] * beta[j], atol=EXACT)
            np.testing.assert_allclose(effect["variance"], X[:ROWS, j - 1] ** 2 * normal[j, j], atol=EXACT)
        np.testing.assert_allclose(parts["mean"].sum("component"), past, atol=EXACT)
    states = model.smooth(past)
    np.testing.assert_allclose(states["smoothed"][-1, 1:], beta[1:], rtol=1e-6)
    np.testing.assert_allclose(states["smoothed_cov"][-1, 1:, 1:], normal[1:, 1:], rtol=1e-5)


def test_standard_errors_and_maximum_are_those_of_the_dense_likelihood(found):
    model, _, past, X = found
    y, rows = past.to_numpy(), X[:ROWS]
    top, h = np.log(variances(model)), 1e-3

    def value(x):
        return log_likelihood(y, rows, *np.exp(x))

    moves = h * np.eye(2)
    slope = [(value(top + a) - value(top - a)) / (2 * h) for a in moves]
    assert np.abs(slope).max() < 1e-3
    hessian = [
        [
            (value(top + a + b) - value(top + a - b) - value(top - a + b) + value(top - a - b)) / (4 * h * h)
            for b in moves
        ]
        for a in moves
    ]
    expected = np.exp(top) * np.sqrt(np.diag(np.linalg.inv(-np.array(hessian))))
    errors = model.standard_errors(past)
    assert float(errors["process_cov"][0, 0]) == pytest.approx(expected[0], rel=1e-3)
    assert float(errors["measurement_cov"][0, 0]) == pytest.approx(expected[1], rel=1e-3)


def test_parameters_found_on_fewer_rows_go_on_with_more(found):
    model, wider, past, _ = found
    y, _ = drivers()
    assert wider.score(past, model.params_) == pytest.approx(model.score(past), rel=1e-12)
    with pytest.raises(DataError, match="given for 96 rows, but y has 108"):
        model.score(y)
    assert np.isfinite(wider.score(y, model.params_))
