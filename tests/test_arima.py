"""Seasonal ARIMA designs: products of coefficients, starts from the data, and the published airline models."""

import warnings

import numpy as np
import pytest

import statespace_em as sse
from statespace_em import designs
from statespace_em.errors import ParameterError
from statespace_em.sequence.arma import hannan_rissanen

PASSENGERS = np.array([
    112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118, 115, 126, 141, 135, 125, 149, 170, 170, 158, 133,
    114, 140, 145, 150, 178, 163, 172, 178, 199, 199, 184, 162, 146, 166, 171, 180, 193, 181, 183, 218, 230, 242,
    209, 191, 172, 194, 196, 196, 236, 235, 229, 243, 264, 272, 237, 211, 180, 201, 204, 188, 235, 227, 234, 264,
    302, 293, 259, 229, 203, 229, 242, 233, 267, 269, 270, 315, 364, 347, 312, 274, 237, 278, 284, 277, 317, 313,
    318, 374, 413, 405, 355, 306, 271, 306, 315, 301, 356, 348, 355, 422, 465, 467, 404, 347, 305, 336, 340, 318,
    362, 348, 363, 435, 491, 505, 404, 359, 310, 337, 360, 342, 406, 396, 420, 472, 548, 559, 463, 407, 362, 405,
    417, 391, 419, 461, 472, 535, 622, 606, 508, 461, 390, 432,
])  # thousands of airline passengers a month, 1949-60: Box & Jenkins 1976, series G  # fmt: skip
DEATHS = np.array([
    9007, 8106, 8928, 9137, 10017, 10826, 11317, 10744, 9713, 9938, 9161, 8927, 7750, 6981, 8038, 8422, 8714, 9512,
    10120, 9823, 8743, 9129, 8710, 8680, 8162, 7306, 8124, 7870, 9387, 9556, 10093, 9620, 8285, 8466, 8160, 8034,
    7717, 7461, 7767, 7925, 8623, 8945, 10078, 9179, 8037, 8488, 7874, 8647, 7792, 6957, 7726, 8106, 8890, 9299,
    10625, 9302, 8314, 8850, 8265, 8796, 7836, 6892, 7791, 8192, 9115, 9434, 10484, 9827, 9110, 9070, 8633, 9240,
])  # accidental deaths a month in the USA, 1973-78: Brockwell & Davis 1991, table 1.2  # fmt: skip
AIRLINE = {
    "passengers": (np.log(PASSENGERS), 244.6995, (-0.401828, -0.556945, 0.00134803), 244.6964868),
    "deaths": (DEATHS.astype(float), -425.43999, (-0.430270, -0.552730, 99346.6), -425.4411024),
}


def at(model, y, values):
    """Parameters of a design at these values of its names."""
    spec = model._specification(1)
    built = {
        name: spec.patterns[name].build(np.array([values[word] for word in spec.patterns[name].names]))
        for name in ("transition", "process_cov")
    }
    return model.parameters(**built)


@pytest.mark.parametrize("name", AIRLINE)
def test_airline_models(name):
    """The exact maximum; and the published value, whose unknown past has mean 0 and variance 1e6 times that of e.

    That approximation (R's arima, which leaves the first 13 rows out of the sum) moves it by a few thousandths.
    """
    y, published, values, exact = AIRLINE[name]
    model = designs.arima(0, 1, 1, seasonal=(0, 1, 1, 12))
    params = at(model, y, dict(zip(("ma1", "seasonal_ma1", "arma_var"), values)))
    assert model.score(y, params) == pytest.approx(exact, abs=2e-6)
    A, Q = params.transition.values, params.process_cov.values
    core = model._core(n_features=1)
    past = core.build({"transition": A, "process_cov": Q}).initial_cov
    past = np.where(np.isinf(past), 1e6 * values[2], past)
    near = sse.LinearGaussianSSM(
        transition=A, process_cov=Q, observation=np.eye(27)[:1], measurement_cov=[[0.0]], initial="known",
        initial_mean=np.zeros(27), initial_cov=A @ past @ A.T + Q,
    )  # fmt: skip
    rows = near.filter(y, near.parameters()).log_likelihood.values
    assert rows[13:].sum() == pytest.approx(published, abs=1e-4)


def test_airline_fit():
    y, _, values, exact = AIRLINE["deaths"]
    model = designs.arima(0, 1, 1, seasonal=(0, 1, 1, 12)).fit(y, n_starts=1)
    assert model.converged_
    assert model.score(y) == pytest.approx(exact, abs=1e-6)
    table = model.summary()["value"]
    assert table[["ma1", "seasonal_ma1", "arma_var"]].tolist() == pytest.approx(list(values), rel=1e-4)
    assert model.n_parameters_ == 3
    ahead = model.forecast(y, 12)
    assert np.isfinite(ahead["mean"]).all()


def seasonal_series(T=120, s=4, seed=1):
    rng = np.random.default_rng(seed)
    e, w = rng.normal(size=T + 50), np.zeros(T + 50)
    for t in range(s + 1, T + 50):
        w[t] = 0.5 * w[t - 1] + 0.6 * w[t - s] - 0.3 * w[t - s - 1] + e[t] + 0.4 * e[t - 1]
    return w[50:]


@pytest.mark.parametrize(
    ("order", "seasonal"), [((1, 0, 1), (1, 0, 0, 4)), ((0, 1, 1), (1, 1, 0, 4)), ((2, 0, 1), (1, 0, 1, 4))]
)
def test_statsmodels_at_equal_parameters(order, seasonal):
    api = pytest.importorskip("statsmodels.api")
    y, (p, _, q), (P, _, Q, _) = seasonal_series(), order, seasonal
    many = {"ar": p, "ma": q, "seasonal_ar": P, "seasonal_ma": Q}
    names = [f"{kind}{i + 1}" for kind, n in many.items() for i in range(n)]
    values = [*np.linspace(0.5, -0.3, len(names)), 1.2]
    model = designs.arima(*order, seasonal=seasonal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = api.tsa.SARIMAX(y, order=order, seasonal_order=seasonal, simple_differencing=True)
        expected = peer.loglike(values)
    assert model.score(y, at(model, y, dict(zip([*names, "arma_var"], values)))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.LocalOptimumWarning")
def test_products_are_fitted_by_the_score():
    """Free coefficients: the score is the gradient, and the maximum is not below that of statsmodels."""
    api = pytest.importorskip("statsmodels.api")
    y = seasonal_series()
    model = designs.arima(1, 0, 1, seasonal=(1, 0, 0, 4)).fit(y)
    core, tree, batch, _, _ = model._prepare(y, None, freeze=())
    x = core.to_vector(tree, tree) + 0.1
    here = core.from_vector(x, tree)
    gradient = core.score_vector(here, core.e_step(here, batch)[0], tree)
    for i, expected in enumerate(gradient):
        ends = [core.e_step(core.from_vector(x + h * np.eye(len(x))[i], tree), batch)[1] for h in (1e-5, -1e-5)]
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(expected, rel=1e-6, abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = api.tsa.SARIMAX(y, order=(1, 0, 1), seasonal_order=(1, 0, 0, 4)).fit(disp=0).llf
    assert model.score(y) > top - 1e-6
    errors = model.standard_errors(y).transition
    assert float(errors[0, 0]) > 0.0
    product = model.params_.transition.values[0, 4]
    table = model.summary()["value"]
    assert product == pytest.approx(-(table["ar1"] * table["seasonal_ar1"]).item(), rel=1e-12)


def test_starts_come_from_the_data():
    rng = np.random.default_rng(0)
    e, y = rng.normal(size=3000), np.zeros(3000)
    for t in range(1, 3000):
        y[t] = 0.7 * y[t - 1] + e[t] - 0.4 * e[t - 1]
    values, variance = hannan_rissanen(np.cumsum(y), (1, 1, 1), (0, 0, 0, 1))
    assert values["ar"] == pytest.approx([0.7], abs=0.1)
    assert values["ma"] == pytest.approx([-0.4], abs=0.1)
    assert variance == pytest.approx(1.0, abs=0.1)
    assert hannan_rissanen(y[:6], (1, 0, 1), (0, 0, 0, 1)) is None
    scaled, _ = hannan_rissanen(1e6 * np.cumsum(y), (1, 1, 1), (0, 0, 0, 1))
    assert scaled["ma"] == pytest.approx(values["ma"], rel=1e-9)


def test_wrong_use_is_refused():
    for call, message in [
        (lambda: designs.arima(0, 1, 1, seasonal=(0, 1, 1)), r"expected \(P, D, Q, period\)"),
        (lambda: designs.arima(0, 1, 1, seasonal=(0, 1, 1, 1)), "period of seasonal is 1"),
        (lambda: designs.arima(0, 1, 1, seasonal=(0, -1, 1, 12)), "D of seasonal is -1"),
    ]:
        with pytest.raises(ParameterError, match=message):
            call()


@pytest.mark.parametrize("kind", ["trigonometric", "dummy"])
def test_a_default_fit_of_trend_and_season_ends_at_the_maximum(kind):
    """Another optimiser on the exact score finds no 1e-6 nats more, from where the fit ended or from elsewhere."""
    optimize = pytest.importorskip("scipy.optimize")
    y = DEATHS.astype(float)
    model = (designs.local_trend() + designs.seasonal(12, kind)).fit(y)
    assert model.converged_
    core, tree, batch, _, _ = model._prepare(y, None, freeze=())
    top = core.to_vector(tree, tree)

    def climb(x):
        params = core.from_vector(x, tree)
        statistics, log_likelihood = core.e_step(params, batch)
        return -log_likelihood, -core.score_vector(params, statistics, tree)

    for start in (top, top + 0.5):
        best = optimize.minimize(climb, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-7})
        assert -best.fun == pytest.approx(model.score(y), abs=1e-6)
