"""Student-t noise: the bound against quadrature, its rise, its stationary point; outliers of the shipped track."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import statespace_em as sse
from statespace_em import checks, designs, robust
from statespace_em.errors import DataError, ParameterError


def level(density=None):
    return sse.LinearGaussianSSM(
        ["level"], transition=[[1]], process_cov=[["q"]] if density is None else [[density]], observation=[[1]],
        measurement_cov=[["r"]] if density is None else [[0.5]], initial="known", initial_mean=[0], initial_cov=[[2.0]],
    )  # fmt: skip


@pytest.mark.parametrize(("y", "most"), [([0.4, 0.9], 0.15), ([0.4, 5.0], 0.7)])
def test_the_bound_is_below_the_likelihood_and_close(y, most):
    """Two rows, all parameters known: the likelihood is a double integral over the weights."""
    y, nu = np.array(y), 4.0
    found = robust.fit_student(level(1.0), y, dof=nu)
    nodes = (np.arange(400) + 0.5) / 400
    w = stats.gamma(nu / 2, scale=2 / nu).ppf(nodes)
    cov = np.array([[2.0, 2.0], [2.0, 3.0]])
    total = 0.0
    for one in w:
        S = np.broadcast_to(cov, (400, 2, 2)) + np.array([[0.5 / one, 0], [0, 0]]) + np.zeros((400, 2, 2))
        S[:, 1, 1] += 0.5 / w
        det = S[:, 0, 0] * S[:, 1, 1] - S[:, 0, 1] ** 2
        square = (S[:, 1, 1] * y[0] ** 2 - 2 * S[:, 0, 1] * y[0] * y[1] + S[:, 0, 0] * y[1] ** 2) / det
        total += (np.exp(-0.5 * square) / (2 * np.pi * np.sqrt(det))).mean() / 400
    gap = np.log(total) - found.trace["objective"].iloc[-1]
    assert 0.0 < gap < most
    assert found.weights.values[1] < found.weights.values[0]


def test_the_bound_rises_to_a_stationary_point():
    rng = np.random.default_rng(1)
    y = np.cumsum(rng.normal(size=150)) + 0.7 * rng.standard_t(3, size=150)
    y[rng.random(150) < 0.1] = np.nan
    found = robust.fit_student(level(), y)
    assert found.converged
    assert (np.diff(found.trace["objective"]) > -1e-9).all()
    q, r = found.model.summary().loc[["q", "r"], "value"]
    mean, var = found.posterior["gamma"].values[:, 0], found.posterior["cov"].values[:, 0, 0]
    seen = ~np.isnan(y)
    square = (y - mean)[seen] ** 2 + var[seen]
    weight = found.weights.values
    np.testing.assert_allclose(weight[seen], (4.0 + 1.0) / (4.0 + square / r), rtol=1e-3)
    assert (weight[~seen] == 1.0).all()
    assert r == pytest.approx((weight[seen] * square).mean(), rel=1e-3)
    moves = np.diff(mean) ** 2 + var[1:] + var[:-1] - 2 * found.posterior["cross_cov"].values[:-1, 0, 0]
    assert q == pytest.approx(moves.mean(), rel=1e-3)


def test_many_degrees_of_freedom_are_the_normal():
    rng = np.random.default_rng(2)
    y = np.cumsum(rng.normal(size=80)) + rng.normal(size=80)
    found = robust.fit_student(level(), y, dof=1e7)
    normal = level().fit(y)
    assert found.trace["objective"].iloc[-1] == pytest.approx(normal.score(y), abs=1e-3)
    np.testing.assert_allclose(found.weights, 1.0, atol=1e-5)


def test_outliers_of_the_radar_cost_next_to_nothing():
    radar = sse.datasets.radar()
    truth, measured = radar["true_position"].values, radar["measured"]

    def error(posterior):
        return np.sqrt(((posterior["gamma"].values[:, :2] - truth) ** 2).mean())

    clean = measured.where(~radar["outlier"])
    told = designs.constant_velocity(["east", "north"], density=0.3, noise=625.0).fit(clean)
    found = robust.fit_student(designs.constant_velocity(["east", "north"]), measured)
    plain = designs.constant_velocity(["east", "north"]).fit(measured)
    assert error(found.posterior) < 1.02 * error(told.e_step(clean))  # told which are the outliers, and the truth
    assert error(plain.e_step(measured)) > 1.5 * error(found.posterior)
    weights = found.weights
    assert weights[radar["outlier"]].max() < 0.2
    assert found.model.summary().loc["noise_var", "value"].item() == pytest.approx(625, rel=0.15)
    rows = measured.dropna("time")
    uneven = robust.fit_student(designs.constant_velocity(["east", "north"]), rows)
    np.testing.assert_allclose(uneven.weights, weights.sel(time=rows["time"]), rtol=1e-3, atol=1e-5)
    estimated = robust.fit_student(designs.constant_velocity(["east", "north"]), measured, dof=None)
    assert 1.0 < estimated.dof < 4.0
    assert estimated.trace["objective"].iloc[-1] > found.trace["objective"].iloc[-1]
    assert (np.diff(estimated.trace["objective"]) > -1e-9).all()


def test_a_gate_judges_by_what_passed_before():
    radar = sse.datasets.radar()
    model = designs.constant_velocity(["east", "north"], density=0.3, noise=625.0).fit(radar["measured"])
    outside = checks.gated(model, radar["measured"])
    assert (outside & radar["outlier"]).sum() >= 15
    assert (outside & ~radar["outlier"]).sum() <= 3
    kept = model.filter(radar["measured"].where(~outside))
    again = checks.gate(kept)
    assert not again.any()  # what is left passes the gate it was judged by
    each = checks.gated(model, radar["measured"], by="feature")
    assert each.dims == ("time", "feature")
    assert each.sum() >= 20


def test_what_has_no_student_noise():
    y = xr.DataArray(np.random.default_rng(3).normal(size=(30, 2)), dims=("time", "feature"))
    with pytest.raises(ParameterError, match="Student-t noise needs a fixed observation"):
        robust.fit_student(sse.LinearGaussianSSM(2), y)
    with pytest.raises(ParameterError, match="dof is -1, expected a positive number"):
        robust.fit_student(level(), y[:, :1], dof=-1)
    with pytest.raises(DataError, match="y has 2 sequences: fit them one by one"):
        robust.fit_student(level(), [y.values[:, 0], y.values[:, 1]])
    model = level(1.0).fit([y.values[:, 0], y.values[:, 1]])
    with pytest.raises(DataError, match="gate them one by one"):
        checks.gated(model, [y.values[:, 0], y.values[:, 1]])
