"""Ready designs: published optima from default starts, statsmodels at equal parameters, and every question."""

import warnings

import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em import designs
from statespace_em.data import as_batch
from statespace_em.errors import DataError, ParameterError

NILE = sse.datasets.nile()
LH = np.array([
    2.4, 2.4, 2.4, 2.2, 2.1, 1.5, 2.3, 2.3, 2.5, 2.0, 1.9, 1.7, 2.2, 1.8, 3.2, 3.2, 2.7, 2.2, 2.2, 1.9, 1.9, 1.8, 2.7,
    3.0, 2.3, 2.0, 2.0, 2.9, 2.9, 2.7, 2.7, 2.3, 2.6, 2.4, 1.8, 1.7, 1.5, 1.4, 2.1, 3.3, 3.5, 3.5, 3.1, 2.6, 2.1, 3.4,
    3.0, 2.9,
])  # luteinizing hormone in blood at 10 minute intervals (Diggle 1990, table A.1)  # fmt: skip
LYNX = np.array([
    269, 321, 585, 871, 1475, 2821, 3928, 5943, 4950, 2577, 523, 98, 184, 279, 409, 2285, 2685, 3409, 1824, 409, 151,
    45, 68, 213, 546, 1033, 2129, 2536, 957, 361, 377, 225, 360, 731, 1638, 2725, 2871, 2119, 684, 299, 236, 245, 552,
    1623, 3311, 6721, 4254, 687, 255, 473, 358, 784, 1594, 1676, 2251, 1426, 756, 299, 201, 229, 469, 736, 2042, 2811,
    4431, 2511, 389, 73, 39, 49, 59, 188, 377, 1292, 4031, 3495, 587, 105, 153, 387, 758, 1307, 3465, 6991, 6313, 3794,
    1836, 345, 382, 808, 1388, 2713, 3800, 3091, 2985, 3790, 674, 81, 80, 108, 229, 399, 1132, 2432, 3574, 2935, 1537,
    529, 485, 662, 1000, 1590, 2657, 3396,
])  # Canadian lynx trapped 1821-1934 (Campbell & Walker 1977)  # fmt: skip


def free(model):
    table = model.summary()["value"]
    return {key[0]: value for key, value in table.items() if key[1] == "" and key[2] == ""}


@pytest.mark.parametrize(
    ("model", "y", "log_likelihood", "values"),
    [
        (designs.local_level(), NILE, -632.545625103, {"noise_var": 15098.52, "level_var": 1469.18}),
        (designs.ar(1) + designs.constant(), LH, -29.379162, {"ar1": 0.573930}),
        (designs.ar(3) + designs.constant(), LH, -27.092411, {}),
        (designs.ar(2) + designs.constant(), np.log10(LYNX), 6.504660, {"ar1": 1.377605, "ar2": -0.739876}),
    ],
)
def test_published_optima_from_default_starts(model, y, log_likelihood, values):
    model.fit(y)
    assert model.converged_
    assert model.score(y) == pytest.approx(log_likelihood, abs=1e-6)
    assert model.score(y) == pytest.approx(model.trace_["objective"].iloc[-1], abs=1e-8)
    for name, value in values.items():
        assert free(model)[name] == pytest.approx(value, rel=2e-5)


def test_daily_sea_temperature_at_the_boundary():
    y = sse.datasets.buoy().resample("1D").mean()
    model = designs.local_level().set_params(likelihood="full").fit(y)
    walk = float(np.mean(np.diff(y) ** 2))  # the maximum has no measurement noise: a random walk, seen
    assert model.score(y, model.parameters(process_cov=[[walk]], measurement_cov=[[0.0]])) < model.score(y) + 1e-6
    assert model.score(y) == pytest.approx(-215.552050, abs=0.01)  # of a copy of the data with other rounding
    assert free(model)["level_var"] == pytest.approx(walk, rel=1e-4)
    assert free(model)["noise_var"] == 0.0
    assert "boundary" in model.params_["measurement_cov"].attrs


def airline():
    """A short monthly series with a trend and a season."""
    rng, t = np.random.default_rng(3), np.arange(60)
    return 5 + 0.02 * t + np.cumsum(rng.normal(0, 0.02, 60)) + 0.2 * np.sin(2 * np.pi * t / 6) + rng.normal(0, 0.03, 60)


PEERS = {
    "level": (designs.local_level(), {"level": "llevel"}, {"noise_var": 0.1, "level_var": 0.02}),
    "trend": (
        designs.local_trend(), {"level": "lltrend"}, {"noise_var": 0.1, "level_var": 0.02, "slope_var": 0.003},
    ),
    "smooth": (designs.smooth_trend(), {"level": "strend"}, {"noise_var": 0.1, "slope_var": 0.003}),
    "dummy": (
        designs.local_trend() + designs.seasonal(6, "dummy"), {"level": "lltrend", "seasonal": 6},
        {"noise_var": 0.1, "level_var": 0.02, "slope_var": 0.003, "seasonal_var": 0.01},
    ),
    "trigonometric": (
        designs.local_level() + designs.seasonal(6),
        {"level": "llevel", "freq_seasonal": [{"period": 6}], "stochastic_freq_seasonal": [True]},
        {"noise_var": 0.1, "level_var": 0.02, "seasonal_var": 0.01},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PEERS)
def test_statsmodels_at_equal_parameters(name):
    api = pytest.importorskip("statsmodels.api")
    model, settings, values = PEERS[name]
    y = airline()
    y[[7, 30]] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = api.tsa.UnobservedComponents(y, use_exact_diffuse=True, **settings)
        expected = peer.loglike(np.array(list(values.values())))
    model = model.set_params(likelihood="full")
    spec = model._specification(1)
    params = model.parameters(**{
        name: spec.patterns[name].build(np.array([values[word] for word in spec.patterns[name].names]))
        for name in ("process_cov", "measurement_cov")
    })  # fmt: skip
    assert model.score(y, params) == pytest.approx(expected, abs=1e-7)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.LocalOptimumWarning")  # moving averages have several tops
@pytest.mark.parametrize(("p", "d", "q"), [(0, 0, 2), (2, 0, 1), (1, 1, 1)])
def test_arima_at_equal_parameters_and_its_maximum(p, d, q):
    api = pytest.importorskip("statsmodels.api")
    model = designs.arima(p, d, q).fit(LH)
    values = free(model)
    order = [*(f"ar{i + 1}" for i in range(p)), *(f"ma{i + 1}" for i in range(q)), "arma_var"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = api.tsa.SARIMAX(np.diff(LH, d), order=(p, 0, q))
        expected, top = peer.loglike([values[name] for name in order]), peer.fit(disp=0).llf
    assert model.score(LH) == pytest.approx(expected, rel=1e-8)
    assert model.score(LH) > top - 1e-6
    assert model.converged_


ANSWERS = [
    designs.local_trend() + designs.seasonal(4, "dummy"),
    designs.cycle(6.0) + designs.constant(start="diffuse"),
    designs.arma(1, 1) + designs.constant(),
    designs.local_level() + designs.regression(np.arange(50.0) ** 2, drifting=False),
]


@pytest.mark.parametrize("model", ANSWERS)
@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_every_design_answers_every_question(model, tmp_path):
    base = pytest.importorskip("sklearn.base")
    y = pd.Series(airline()[:40], name="sales")
    y.iloc[5] = np.nan
    model = base.clone(model).fit(y, max_iter=60)
    smooth, known, future = model.e_step(y), model.filter(y), model.forecast(y, 5)
    assert float(known["log_likelihood"].sum()) == pytest.approx(model.score(y), rel=1e-9)
    assert float(smooth["log_likelihood"]) == pytest.approx(model.score(y), rel=1e-9)
    np.testing.assert_allclose(known["filtered"][-1], smooth["gamma"][-1], rtol=1e-6, atol=1e-8)
    assert np.isfinite(future["mean"]).all()
    assert (future["variance"] > 0.0).all()
    np.testing.assert_array_equal(model.decode(y), smooth["gamma"])
    assert model.sample(20, seed=1)["y"].shape == (20, 1)
    model.save(tmp_path / "model.nc")
    back = designs.StructuralModel.load(tmp_path / "model.nc")
    assert back.score(y) == model.score(y)
    assert repr(free(back)) == repr(free(model))


def test_regression_is_generalised_least_squares():
    """Diffuse and fixed coefficients of the same model have the same estimate; the errors are an AR(1)."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"price": rng.normal(size=80), "law": (np.arange(80) > 50).astype(float)})
    y = X.to_numpy() @ [2.0, -3.0] + rng.normal(size=80)
    found = []
    for start in ("diffuse", "fixed"):
        model = designs.regression(X, start=start)
        params = model.parameters(measurement_cov=[[1.0]])
        found.append(model.decode(y, params).isel(time=-1).sel(state=["price", "law"]).values)
    ols = np.linalg.lstsq(X.to_numpy(), y, rcond=None)[0]
    np.testing.assert_allclose(found, [ols, ols], rtol=1e-9)


def test_drifting_coefficients_of_a_regressor_that_is_zero_on_average():
    rng = np.random.default_rng(4)
    x = rng.normal(size=60)
    x -= x.mean()
    slope = 1.0 + np.cumsum(rng.normal(0, 0.2, 60))
    y = 2.0 + slope * x + rng.normal(0, 0.3, 60)
    model = designs.regression(pd.DataFrame({"one": 1.0, "x": x}), drifting=True).fit(y)
    assert model.converged_
    assert 0.005 < free(model)["x_var"] < 0.2


def test_moving_averages_start_at_the_scale_of_the_data():
    """The noise of an ARMA enters several states alike: a matrix without full rank, scaled."""
    model = designs.arma(1, 1) + designs.constant()
    batch = as_batch(LH)[0]
    core = model._core(batch=batch, given={})
    for start in core.starts(batch, 3, np.random.default_rng(0), {}):
        assert 1e-3 < start.process_cov[0, 0] < 100.0
        assert start.transition[0, 0] > 0.09  # the constant beside it, which never fades, is none of its business
    assert "boundary" not in model.fit(LH).params_["process_cov"].attrs


def test_cycle_reports_damping_and_period():
    rng, s = np.random.default_rng(1), np.zeros(2)
    turn, y = 0.95 * np.array([[np.cos(0.6), np.sin(0.6)], [-np.sin(0.6), np.cos(0.6)]]), []
    for _ in range(400):
        s = turn @ s + rng.normal(size=2)
        y.append(s[0] + 0.5 * rng.normal())
    model = designs.cycle().fit(np.array(y))
    assert free(model)["cycle_damping"] == pytest.approx(0.95, abs=0.03)
    assert free(model)["cycle_period"] == pytest.approx(2 * np.pi / 0.6, rel=0.05)
    assert model.summary().loc["cycle_period", "value"].item() == free(model)["cycle_period"]


def test_fixed_constants_beside_diffuse_states():
    """A mean that is estimated beside coefficients that are integrated out, and the reverse."""
    t = np.arange(len(NILE))
    X = np.column_stack([np.sin(t / 5.0), t / 50.0])
    noise = np.asarray(NILE, dtype=float)
    model = (designs.constant() + designs.regression(X)).fit(noise)
    mean = model.params_["initial_mean"].sel(state="constant").item()
    left = (
        noise
        - np.column_stack([np.ones(len(t)), X])
        @ np.linalg.lstsq(np.column_stack([np.ones(len(t)), X]), noise, rcond=None)[0]
    )
    assert free(model)["noise_var"] == pytest.approx(np.sum(left**2) / (len(t) - 2), rel=1e-6)  # 2 are diffuse
    assert mean == pytest.approx(np.linalg.lstsq(np.column_stack([np.ones(len(t)), X]), noise, rcond=None)[0][0])
    dam = (np.arange(1871, 1971) > 1898) * 1.0
    model = (designs.local_level() + designs.regression(dam, start="fixed")).fit(NILE)
    same = sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], observation_input="free", initial="diffuse")
    same.fit(NILE, inputs=dam)  # estimated as well, written as an effect of an input
    assert model.score(NILE) == pytest.approx(same.score(NILE, inputs=dam), abs=1e-7)
    assert model.params_["initial_mean"].values[1] == pytest.approx(same.params_["observation_input"].item(), rel=1e-5)
    assert model.n_parameters_ == same.n_parameters_ == 3
    assert np.isfinite(model.forecast(NILE[:90], 5)["mean"]).all()
    assert model.filter(NILE).log_likelihood.sum().item() == pytest.approx(model.score(NILE), rel=1e-9)
    with pytest.raises(sse.errors.UndeterminedStartError, match="1871 begins a sequence whose rows do not determine"):
        (designs.local_level() + designs.constant()).fit(NILE)  # the level is a constant already


def test_sums_number_what_comes_twice():
    model = designs.local_level() + designs.seasonal(4) + designs.seasonal(6)
    names = model._specification(1).own_names["process_cov"]
    assert names == ("level_var", "seasonal_var", "seasonal2_seasonal_var")
    assert len(set(model._names())) == len(model._names()) == 1 + 3 + 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: designs.seasonal(1), "period is 1"),
        (lambda: designs.seasonal(4, "harmonic"), "kind is 'harmonic'"),
        (lambda: designs.ar(-1), "p is -1"),
        (lambda: designs.regression([[1.0], [np.nan]]), "X has nan in row 1, column 0"),
        (lambda: designs.regression([[1.0, 1e300], [2.0, 2e300]]), "'x1' of X is of size 2e.300, too large.*by 1e300"),
        (lambda: designs.regression([[2e-200], [1e-201]]), "'x0' of X is of size 2e-200, too small.*by 1e-200"),
        (lambda: designs.local_level().fit(np.ones((5, 2))), "y has 2 columns, expected one"),
    ],
)
def test_wrong_use_is_refused(call, message):
    with pytest.raises(ParameterError, match=message):
        call()


def test_regressors_must_have_the_rows_of_y():
    X = pd.DataFrame({"x": np.arange(100.0)}, index=NILE.index + 1)
    with pytest.raises(DataError, match="row 0 of y is at 1871, but that of X at 1872"):
        (designs.local_level() + designs.regression(X)).fit(NILE)
    with pytest.raises(DataError, match="given for 50 rows, but y has 100"):
        (designs.local_level() + designs.regression(np.arange(50.0))).fit(NILE)


def test_standard_errors_of_the_nile():
    """Those of the variances, from second differences of the diffuse log-likelihood in logarithms (delta method)."""
    model = designs.local_level().fit(NILE)
    centre = np.log([free(model)["noise_var"], free(model)["level_var"]])

    def value(x):
        R, Q = np.exp(x)
        return model.score(NILE, model.parameters(process_cov=[[Q]], measurement_cov=[[R]]))

    h = 1e-3
    moves = h * np.eye(2)
    hessian = [
        [
            (value(centre + a + b) - value(centre + a - b) - value(centre - a + b) + value(centre - a - b))
            / (4 * h * h)
            for b in moves
        ]
        for a in moves
    ]
    expected = np.exp(centre) * np.sqrt(np.diag(np.linalg.inv(-np.array(hessian))))
    found = model.standard_errors(NILE)
    values = [float(found["measurement_cov"].squeeze()), float(found["process_cov"].squeeze())]
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert np.isnan(found["transition"]).all()
    assert np.isnan(found["initial_cov"]).all()


def test_summary_tells_what_was_estimated():
    y = np.log(np.arange(1.0, 61.0)) + np.tile([0.0, 0.2, -0.2, 0.1], 15)
    design = designs.local_trend() + designs.seasonal(4, kind="dummy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        design = design.fit(y, max_iter=20)
    assert design.summary().index.get_level_values(0).tolist() == [
        "level_var",
        "slope_var",
        "seasonal_var",
        "noise_var",
    ]
    fixed = sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], initial="fixed").fit(sse.datasets.nile())
    assert fixed.summary().index.get_level_values(0).tolist() == ["process_cov", "measurement_cov", "initial_mean"]


@pytest.mark.parametrize(
    ("p", "published"), [(1, {"ar1": 0.1161, "mean": 0.1466}), (3, {"ar3": 0.1421, "mean": 0.0963})]
)
def test_standard_error_of_an_estimated_mean(p, published):
    """As R's arima prints them, for the mean is a parameter there; beside it the others stay what they were."""
    model = (designs.ar(p) + designs.constant()).fit(LH)
    errors = model.standard_errors(LH)
    assert errors["initial_mean"].sel(state="constant").item() == pytest.approx(published["mean"], abs=6e-5)
    assert errors["transition"].values[0, p - 1] == pytest.approx(published[f"ar{p}"], abs=2e-4)
    assert np.isnan(errors["initial_mean"].values[:-1]).all()


def test_errors_of_fixed_states_are_those_of_the_joint_hessian():
    """Two sequences share the first state: the likelihood in it and the variances by differences, inverted whole."""
    rng = np.random.default_rng(5)
    y = {k: 3.0 + np.cumsum(0.5 * rng.normal(size=25)) + rng.normal(size=25) for k in "ab"}
    names = {"transition": [[1]], "process_cov": [["q"]], "observation": [[1]], "measurement_cov": [["r"]]}
    model = sse.LinearGaussianSSM(**names, initial="fixed").fit(y)
    first, cov = model.params_["initial_mean"].item(), model.params_["process_cov"].item()
    noise = model.params_["measurement_cov"].item()

    def value(x):
        known = sse.LinearGaussianSSM(**names, initial="known", initial_mean=[first + x[0]], initial_cov=[[0.0]])
        params = known.parameters(process_cov=[[cov * np.exp(x[1])]], measurement_cov=[[noise * np.exp(x[2])]])
        return known.score(y, params)

    step, unit = 1e-3, np.eye(3)
    hessian = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            signs = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
            hessian[i, j] = sum(s * value(step * (a * unit[i] + b * unit[j])) for a, b, s in signs) / (4 * step**2)
    expected = np.sqrt(np.diag(np.linalg.inv(-hessian)))
    errors = model.standard_errors(y)
    assert errors["initial_mean"].item() == pytest.approx(expected[0], rel=1e-4)
    assert errors["process_cov"].item() == pytest.approx(expected[1] * cov, rel=1e-4)
    interval = model.confidence_intervals(y)["initial_mean"].values.ravel()
    assert interval == pytest.approx([first - 1.959964 * expected[0], first + 1.959964 * expected[0]], rel=1e-4)
