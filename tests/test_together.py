"""Features that meet: diffuse starts and walks, known rows and simulations, what a fit was told and comparisons."""

import warnings

import numpy as np
import pandas as pd
import pytest
from lgssm_cases import oracle_of
from oracles_diffuse import split

import statespace_em as sse
from statespace_em import designs
from statespace_em.errors import DataError, ParameterError

STEP = np.column_stack([np.arange(110) >= 28, 1e-4 * np.sin(np.arange(110))]).astype(float)
DIFFUSE = {
    "level": designs.local_level(),
    "trend and season": designs.local_trend() + designs.seasonal(5),
    "regression": designs.local_level() + designs.regression(STEP),
    "integrated": designs.arima(1, 1, 1),
}


def flow():
    return sse.datasets.nile().astype(float)


@pytest.mark.parametrize("name", DIFFUSE)
def test_later_rows_do_not_touch_one_bit_of_a_diffuse_filter(name):
    y, model = flow(), sse.designs.StructuralModel(**DIFFUSE[name].get_params())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # any parameters will do
        model.fit(y, n_starts=1, max_iter=20)
    known = model.filter(y)
    for cut in (1, 2, 5, 28, 29, 60):
        other = y.copy()
        other.iloc[cut:] = -3.0 * y.iloc[cut:].to_numpy()[::-1] - 1.0
        for again in (model.filter(y.iloc[:cut], model.params_), model.filter(other)):
            for variable in known:
                np.testing.assert_array_equal(again[variable].values[:cut], known[variable].values[:cut], str(variable))


def test_the_likelihood_of_each_diffuse_row_is_flat_in_the_units_of_the_states():
    """While k < q constants are determined, the diffuse density of k rows is -1/2 log det(X X') for responses X."""
    y = flow()
    model = designs.local_trend() + designs.seasonal(4, kind="dummy")
    params = model.parameters(
        transition=[[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, -1, -1, -1], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]],
        process_cov=np.diag([1000.0, 10.0, 100.0, 0.0, 0.0]), measurement_cov=[[15000.0]],
    )  # fmt: skip
    p = oracle_of(params, observation=[[1, 0, 1, 0, 0]], initial_mean=np.zeros(5), initial_cov=np.zeros((5, 5)))
    _, _, response = split(y.to_numpy()[:5, None], p, np.ones(5, bool))
    X = response[25:]
    expected = [-0.5 * np.linalg.slogdet(X[:k] @ X[:k].T)[1] for k in range(1, 6)]
    found = model.filter(y, params)["log_likelihood"].values
    np.testing.assert_allclose(np.cumsum(found)[:5], expected, rtol=1e-9)
    assert found.sum() == pytest.approx(model.score(y, params), rel=1e-12)


def test_walks_of_diffuse_models_pass_the_audit_also_by_period():
    y = flow()
    months = pd.Series(y.to_numpy(), pd.period_range("2000-01", periods=len(y), freq="M"))
    for rows in (y, months):
        walk = sse.walk_forward(designs.local_level(), rows, refit=30, min_train=60, fit={"n_starts": 1}, audit=1)
        assert walk.attrs["audit"].startswith("no value before the cut moved")


def test_a_rolling_window_is_refused_where_matrices_belong_to_rows():
    model = designs.local_level() + designs.regression(STEP)
    with pytest.raises(ParameterError, match=r"window is 60, but matrices .* window='expanding'"):
        sse.walk_forward(model, flow(), refit=20, window=60)


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(1871, 1971),
        pd.period_range("2000-01", periods=100, freq="M"),
        pd.date_range("2000-01-01", periods=100, freq="D", tz="Europe/Paris"),
    ],
)
def test_simulated_data_of_a_bootstrap_have_the_rows_of_y(index):
    y = pd.Series(flow().to_numpy(), index)
    model = designs.local_level() + designs.regression(pd.DataFrame({"step": STEP[:100, 0]}, index))
    found = model.fit(y, n_starts=1).bootstrap(y, n_replicates=2)
    assert np.isfinite(found["process_cov"]).all()


@pytest.mark.parametrize("told", ["states", "weights"])
def test_fits_that_were_told_more_than_y_are_not_compared(told):
    quakes = sse.datasets.earthquakes()
    given = pd.Series(1.0, quakes.index) if told == "weights" else pd.Series(None, quakes.index, dtype=object)
    given.iloc[3] = 0.5 if told == "weights" else "quiet"
    model = sse.PoissonHMM(["quiet", "active"])
    fits = {"plain": model.fit(quakes), "told": sse.PoissonHMM(["quiet", "active"]).fit(quakes, **{told: given})}
    with pytest.raises(DataError, match=f"model 'told' was fitted to other data .*with .*{told}"):
        sse.compare.table(fits, quakes)


def test_rows_before_a_diffuse_start_is_determined_have_no_distribution():
    y, model = flow(), designs.local_level()
    model.fit(y)
    known, found = model.filter(y), model.one_step(y, quantiles=[0.1])
    assert all(found[name][0].isnull().all() for name in ("mean", "variance", "quantile"))
    np.testing.assert_allclose(y.to_numpy()[1:, None] - found["mean"][1:], known["innovation"][1:], rtol=1e-9)
    np.testing.assert_allclose(found["variance"][1:, 0], known["innovation_cov"][1:, 0, 0], rtol=1e-12)


def test_errors_of_one_sequence_let_the_first_variance_follow_as_the_fit_did():
    y, level = flow(), {"transition": [[1]], "observation": [[1]]}
    default, tied = (sse.LinearGaussianSSM(**level, initial=initial).fit(y) for initial in ("estimated", "tied"))
    assert default.score(y) == pytest.approx(tied.score(y), rel=1e-9)
    assert default.diagnose(y).empty
    for name in ("process_cov", "measurement_cov", "initial_mean"):
        np.testing.assert_allclose(default.standard_errors(y)[name], tied.standard_errors(y)[name], rtol=1e-4)
