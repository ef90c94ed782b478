"""Components of structural models: against the dense posterior, their sum against y, and their figure."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from lgssm_cases import oracle_of
from oracles_diffuse import diffuse

from statespace_em import designs, plotting
from statespace_em.errors import DataError, ParameterError

T = 16
X = pd.DataFrame({"price": np.sin(np.arange(T) * 1.7), "law": (np.arange(T) > 8).astype(float)})
SUM = designs.local_trend() + designs.seasonal(4, "dummy") + designs.regression(X, drifting=True)
VIEWS = {"level": [0], "slope": [1], "seasonal": [2], "price": [5], "law": [6]}  # states of each component


def series(seed=0, missing=(3, 10)):
    rng = np.random.default_rng(seed)
    y = 5.0 + 0.3 * np.arange(T) + np.tile([1.0, -1.0, 0.5, -0.5], 4) + rng.normal(size=T)
    y[list(missing)] = np.nan
    return pd.Series(y, pd.period_range("2001Q1", periods=T, freq="Q"), name="sales")


def params_of(model):
    free = {"process_cov": [0.3, 0.05, 0.1, 0.2, 0.02], "measurement_cov": [0.5]}
    spec = model._specification(1)
    return model.parameters(**{name: spec.patterns[name].build(np.array(values)) for name, values in free.items()})


def dense(model, params, y):
    """Posterior mean (T, n) and covariance (T n, T n) of the states by generalised least squares."""
    spec = model._specification(1)
    view = spec.varying["observation"]
    p = oracle_of(params, transition=spec.patterns["transition"].constant, observation=view)
    known = p._replace(m0=0.0 * p.m0, P0=0.0 * p.P0).rows(slice(0, len(y)))
    _, _, mean, cov = diffuse(y.to_numpy()[:, None], known, np.ones(len(p.m0), bool))
    return mean, cov, view[: len(y), 0]


def test_components_have_the_moments_of_the_dense_posterior():
    model, y = SUM, series()
    params = params_of(model)
    found = model.decompose(y, params, level=0.9)
    mean, cov, view = dense(model, params, y)
    n = mean.shape[1]
    assert found["component"].values.tolist() == [*VIEWS, "irregular"]
    for t in range(T):
        own = cov[t * n : (t + 1) * n, t * n : (t + 1) * n]
        for name, states in VIEWS.items():
            weights = np.zeros(n)
            weights[states] = 1.0 if name == "slope" else view[t, states]
            here = found.isel(time=t).sel(component=name)
            np.testing.assert_allclose(here["mean"], weights @ mean[t], rtol=1e-8, atol=1e-8)
            np.testing.assert_allclose(here["variance"], weights @ own @ weights, rtol=1e-7, atol=1e-9)
        rest = found.isel(time=t).sel(component="irregular")
        if np.isnan(y.iloc[t]):
            assert np.isnan([rest["mean"], rest["variance"], rest["lower"]]).all()
        else:
            np.testing.assert_allclose(rest["mean"], y.iloc[t] - view[t] @ mean[t], rtol=1e-7, atol=1e-8)
            np.testing.assert_allclose(rest["variance"], view[t] @ own @ view[t], rtol=1e-7, atol=1e-9)
    width = (found["upper"] - found["lower"]) ** 2
    np.testing.assert_allclose(width, (2 * 1.6448536269514722) ** 2 * found["variance"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("of", ["smoothed", "filtered"])
def test_components_add_up_to_y(of):
    y = series()
    found = SUM.decompose(y, params_of(SUM), of=of)
    assert found["in_y"].values.tolist() == [True, False, True, True, True, True]
    assert found["kind"].values.tolist() == ["level", "slope", "seasonal", "regression", "regression", "irregular"]
    assert found["mean"].attrs["conditioning"] == {"smoothed": "1:T", "filtered": "1:t"}[of]
    total = found["mean"].isel(component=found["in_y"].values).sum("component", skipna=False).values
    known = np.isfinite(total)
    np.testing.assert_allclose(total[known], y[known], rtol=1e-14)
    gaps = [3, 10] if of == "smoothed" else [*range(7), 10]  # a fourth season is first seen in row 7
    np.testing.assert_array_equal(np.flatnonzero(~known), gaps)


def test_filtered_components_rest_on_no_later_row():
    y, params = series(), params_of(SUM)
    whole = SUM.decompose(y, params, of="filtered")
    part = SUM.decompose(y.iloc[:12], params, of="filtered")
    for name in part.data_vars:
        np.testing.assert_array_equal(part[name], whole[name][:12])
    assert np.isinf(whole["variance"].isel(time=0).sel(component="level"))
    assert np.isnan(whole["mean"].isel(time=0).sel(component="level"))
    last = SUM.decompose(y, params).isel(time=-1)
    np.testing.assert_allclose(whole["mean"].isel(time=-1), last["mean"], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (designs.ar(2) + designs.constant(), ["ar", "constant"]),
        (designs.arma(1, 1), ["arma"]),
        (designs.arima(1, 1, 0), ["arima"]),
        (designs.cycle(6.0) + designs.local_level(), ["cycle", "level", "irregular"]),
        (designs.seasonal(4) + designs.seasonal(3), ["seasonal", "seasonal (2)", "irregular"]),
        (designs.smooth_trend(), ["level", "slope", "irregular"]),
    ],
)
@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_every_design_comes_apart(model, names):
    y = series(1, missing=())
    found = model.fit(y, max_iter=20).decompose(y)
    assert found["component"].values.tolist() == names
    total = found["mean"].isel(component=found["in_y"].values).sum("component")
    np.testing.assert_allclose(total, y, rtol=1e-7, atol=1e-7)
    assert (found["variance"] >= 0.0).all()


def test_several_series_come_apart_together():
    model = designs.local_level()
    params = model.parameters(process_cov=[[0.2]], measurement_cov=[[1.0]])
    both = model.decompose({"a": series(), "b": series(1).iloc[:9]}, params)
    alone = model.decompose(series(1).iloc[:9], params)
    assert both["mean"].dims == ("sequence", "time", "component")
    np.testing.assert_allclose(both["mean"].sel(sequence="b")[:9], alone["mean"], rtol=1e-12)
    axes = plotting.plot_components(both, sequence="b")
    assert len(axes) == 2
    plt.close(axes[0].figure)


def test_wrong_use_is_refused():
    y, params = series(), params_of(SUM)
    with pytest.raises(ParameterError, match="of is 'predicted'"):
        SUM.decompose(y, params, of="predicted")
    with pytest.raises(ParameterError, match="level is 95"):
        SUM.decompose(y, params, level=95)
    with pytest.raises(DataError, match="expected mean, lower and upper of components, got \\['gamma'\\]"):
        plotting.plot_components(xr.Dataset({"gamma": ("time", [1.0])}))
    with pytest.raises(DataError, match="component 'cycle' does not exist"):
        plotting.plot_components(SUM.decompose(y, params), components="cycle")


@pytest.mark.parametrize("of", ["smoothed", "filtered"])
def test_the_figure_has_a_panel_a_component(of):
    y = series()
    found = SUM.decompose(y, params_of(SUM), of=of)
    axes = plotting.plot_components(found)
    assert [ax.get_ylabel() for ax in axes] == found["component"].values.tolist()
    assert axes[0].get_title(loc="left").startswith(of.capitalize())
    dots = axes[0].get_lines()[0].get_ydata()  # y less what regressors explain
    effect = found["mean"].sel(component=["price", "law"]).sum("component").values
    seen = np.isfinite(dots)
    np.testing.assert_allclose(dots[seen], (y.to_numpy() - effect)[seen], rtol=1e-9)
    low, high = axes[2].get_ylim()
    reach = np.abs(found["mean"].sel(component="seasonal")).max().item()
    assert low < -reach < reach < high < 20.0 * reach
    some = plotting.plot_components(found, components=["seasonal", "irregular"])
    assert len(some) == 2
    plt.close("all")
