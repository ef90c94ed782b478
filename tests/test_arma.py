"""Moving averages: of those of one likelihood the invertible one is returned."""

import numpy as np
import pytest

import statespace_em as sse
from statespace_em import designs
from statespace_em.sequence.arma import invertible


def autocovariances(coefficients, variance):
    weights = np.append(1.0, coefficients)
    return variance * np.correlate(weights, weights, "full")


@pytest.mark.parametrize(
    "roots", [[2.0], [0.5], [-3.0, 0.2], [1.5 + 0.5j, 1.5 - 0.5j], [0.3, -2.0, 4.0], [1.0, -2.0], [5.0, 0.0]]
)
def test_mirror_has_the_same_autocovariances(roots):
    coefficients = np.poly(roots).real[1:]
    found, factor = invertible(coefficients)
    assert len(found) == len(coefficients)
    assert (np.abs(np.roots(np.append(1.0, found))) <= 1.0 + 1e-9).all()
    np.testing.assert_allclose(autocovariances(found, factor), autocovariances(coefficients, 1.0), rtol=1e-9, atol=1e-9)
    if (np.abs(roots) <= 1.0).all():
        assert factor == 1.0
        np.testing.assert_array_equal(found, coefficients)


@pytest.mark.parametrize("seed", range(3))
def test_fit_of_a_series_from_a_moving_average_with_a_root_outside(seed):
    e = np.random.default_rng(seed).normal(size=121)
    y = e[1:] + 2.5 * e[:-1]
    model = designs.arma(0, 1).fit(y)
    value = model.summary()["value"]
    assert model.converged_
    assert -1.0 <= value["ma1"].item() <= 1.0
    assert model.score(y) == pytest.approx(model.trace_["objective"].iloc[-1], abs=1e-10)
    cov = model.params_["process_cov"].values
    np.testing.assert_allclose(cov, value["arma_var"].item() * (cov != 0.0))


def test_from_a_start_on_the_other_side():
    e = np.random.default_rng(3).normal(size=150)
    y = np.cumsum(e[13:] + 0.5 * e[12:-1] + 0.6 * e[1:-12] + 0.3 * e[:-13])
    model = designs.arima(0, 1, 1, seasonal=(0, 0, 1, 12))
    found = model.fit(y).params_
    values = model.summary()["value"]
    A = found["transition"].values.copy()
    ma, season = values["ma1"].item(), values["seasonal_ma1"].item()
    for row, column in zip(*np.where(np.isclose(A, ma))):
        A[row, column] = 1.0 / ma
    for row, column in zip(*np.where(np.isclose(A, ma * season))):
        A[row, column] = season / ma
    start = model.parameters(transition=A, process_cov=found["process_cov"].values * ma**2)
    assert model.score(y, start) == pytest.approx(model.score(y, found), abs=1e-8)
    again = designs.arima(0, 1, 1, seasonal=(0, 0, 1, 12)).fit(y, start=start)
    assert again.summary()["value"]["ma1"].item() == pytest.approx(ma, rel=1e-8)


def test_what_is_frozen_stays():
    y = np.random.default_rng(4).normal(size=80)
    model = designs.arma(0, 1)
    start = model.parameters(transition=[[0.0, 2.0], [0.0, 0.0]], process_cov=np.ones((2, 2)))
    model.fit(y, start=start, freeze=["transition"])
    assert model.params_["transition"].values[0, 1] == 2.0


def test_summary_lists_what_is_estimated():
    """First values of stationary states follow from the dynamics; the constant is estimated."""
    model = (designs.ar(1) + designs.constant()).fit(sse.datasets.nile())
    table = model.summary().reset_index()
    assert table["parameter"].tolist() == ["ar1", "arma_var", "initial_mean"]
    assert table["row"].tolist()[-1] == "constant"
