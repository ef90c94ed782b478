"""Properties of structured linear-Gaussian models: random patterns, units, bases, copies, long and singular data."""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lgssm_cases import core_of

import statespace_em as sse
from statespace_em import designs

STARTS = ("diffuse", "fixed", "stationary", "known")


@st.composite
def entries(draw, rows, columns, letter):
    """A matrix of numbers, names (some of them twice) and expressions linear in names."""
    names = [f"{letter}{i}" for i in range(3)]
    kinds = st.sampled_from(["number", "name", "name", "linear"])

    def entry():
        kind, name = draw(kinds), draw(st.sampled_from(names))
        number = draw(st.sampled_from([0.0, 0.3, -0.2, 0.5]))
        return number if kind == "number" else name if kind == "name" else f"{number} - 0.5*{name}"

    return [[entry() for _ in range(columns)] for _ in range(rows)]


@st.composite
def models(draw):
    """A model with random patterns in its dynamics, its view and its noises, a start, and data."""
    n, D = draw(st.integers(1, 2)), draw(st.integers(2, 3))
    start = draw(st.sampled_from(STARTS))
    scale = np.array([[2.0, 0.5], [0.5, 1.0]])[:n, :n]
    tied = [["q" if i == j else 0.0 for j in range(n)] for i in range(n)]
    noise = draw(st.sampled_from(["diagonal", "free", tied, ("q", scale)]))
    measure = draw(st.sampled_from(["diagonal", "scalar", "equal", "free"]))
    fixed_view = (np.eye(D, n) + 0.2).tolist()
    view = draw(st.one_of(st.just(fixed_view), entries(D, n, "c"))) if start != "diffuse" else fixed_view
    known = {"initial_mean": [0.5] * n, "initial_cov": np.eye(n).tolist()} if start == "known" else {}
    arguments = {
        "transition": draw(entries(n, n, "a")), "process_cov": noise, "observation": view, "measurement_cov": measure,
        "initial": start, **known,
    }  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y = np.cumsum(rng.normal(size=(30, D)), 0) * 0.3 + rng.normal(size=(30, D))
    y[rng.random(y.shape) < 0.1] = np.nan
    return arguments, y


def started(arguments, y):
    """Core and a point inside; None where the structure does not allow the start."""
    model = sse.LinearGaussianSSM(**arguments)
    return core_of(model, y)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(models())
def test_em_climbs_and_leaves_what_is_fixed_to_the_bit(case):
    try:
        core, batch, point = started(*case)
    except sse.errors.ParameterError:  # a stationary start of dynamics that are not stable
        return
    last = -np.inf
    for _ in range(12):
        try:
            statistics, value = core.e_step(point, batch)
        except sse.errors.UndeterminedStartError:  # a view that does not show every state
            return
        assert value >= last - 1e-9 * (1.0 + abs(value))
        last, point = value, core.m_step(statistics, point)
        for name, pattern in core.patterns.items():
            array = np.asarray(getattr(point, name))
            if name.startswith("initial"):
                continue
            still = ~pattern.touched
            np.testing.assert_array_equal(array[still], pattern.constant[still], err_msg=name)
            for design in pattern.design:  # entries that are one name alone
                alone = (design == 1.0) & ((pattern.design != 0.0).sum(0) == 1) & (pattern.constant == 0.0)
                assert len(np.unique(array[alone])) <= 1, name


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(models())
def test_score_is_the_slope_of_the_likelihood(case):
    try:
        core, batch, point = started(*case)
        vector = core.to_vector(point, point)
        gradient = core.score_vector(point, core.e_step(point, batch)[0], point)
    except (sse.errors.ParameterError, sse.errors.UndeterminedStartError):
        return
    step, scale = 1e-4, 1.0 + np.abs(gradient).max(initial=0.0)
    for i, expected in enumerate(gradient):
        away = [core.from_vector(vector + s * step * np.eye(len(vector))[i], point) for s in (2, 1, -1, -2)]
        far, near, back, behind = (core.e_step(there, batch)[1] for there in away)
        slope = (8.0 * (near - back) - (far - behind)) / (12.0 * step)
        assert abs(slope - expected) <= 1e-6 * scale


# designs

SERIES = 5 + 0.02 * np.arange(60) + np.cumsum(np.random.default_rng(3).normal(0, 0.05, 60))
SERIES = SERIES + np.tile([0.2, -0.1, 0.1, -0.2], 15) + np.random.default_rng(4).normal(0, 0.1, 60)
X = np.column_stack([np.sin(np.arange(60.0)), np.arange(60) > 30]).astype(float)
DESIGNS = {
    "level": designs.local_level(),
    "trend": designs.local_trend(),
    "smooth trend": designs.smooth_trend(),
    "dummy": designs.local_level() + designs.seasonal(4, "dummy"),
    "trigonometric": designs.smooth_trend() + designs.seasonal(4),
    "cycle": designs.cycle(4.0) + designs.local_level(),
    "ar": designs.ar(2) + designs.constant(),
    "arma": designs.arma(1, 1) + designs.constant(),
    "arima": designs.arima(1, 1, 1),
    "regression": designs.local_level() + designs.regression(X),
    "drifting": designs.regression(X, drifting=True) + designs.constant(start="diffuse"),
    "constant": designs.constant() + designs.ar(1),
}


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::statespace_em.errors.LocalOptimumWarning")
@pytest.mark.parametrize("factor", [1e-5, 1e6])
@pytest.mark.parametrize("name", DESIGNS)
def test_fits_scale_with_the_units_of_y(name, factor):
    base = pytest.importorskip("sklearn.base")
    one, other = (base.clone(DESIGNS[name]).fit(part) for part in (SERIES, factor * SERIES))
    n_diffuse = sum(word == "diffuse" for word in one._specification(1).initial)
    entries = len(SERIES) - n_diffuse
    assert other.score(factor * SERIES) + entries * np.log(factor) == pytest.approx(one.score(SERIES), abs=1e-6)
    if name == "arma":  # a moving average and its mirror image have one likelihood: either may come
        return
    found, scaled = one.summary()["value"], other.summary()["value"]
    for (word, row, column), value in found.items():
        power = 2 if word.endswith("_var") else 1 if word == "initial_mean" else 0
        got = scaled.loc[(word, row, column)]
        assert got == pytest.approx(factor**power * value, rel=5e-3, abs=1e-7 * factor**power)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::statespace_em.errors.LocalOptimumWarning")
def test_a_climb_into_a_unit_root_ends_where_arithmetic_does():
    """A cycle beside a constant makes up a trend as its damping goes to 1, where its start has no distribution."""
    model = (designs.cycle(8.0) + designs.constant(start="diffuse")).fit(SERIES)
    assert np.isfinite(model.score(SERIES))
    assert set(model.starts_["status"]) <= {"converged", "max_iter", "degenerate"}


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::statespace_em.errors.LocalOptimumWarning")
@pytest.mark.parametrize("name", ["level", "dummy", "ar", "regression", "arima"])
def test_several_copies_of_a_series_estimate_what_one_does(name):
    base = pytest.importorskip("sklearn.base")
    one = base.clone(DESIGNS[name]).fit(SERIES)
    three = base.clone(DESIGNS[name]).fit(dict.fromkeys("abc", SERIES))
    assert three.score(dict.fromkeys("abc", SERIES)) == pytest.approx(3.0 * one.score(SERIES), abs=1e-6)
    np.testing.assert_allclose(three.summary()["value"], one.summary()["value"], rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("start", ["known", "diffuse", "stationary"])
def test_basis_of_the_states_changes_the_basis_only(start):
    """A structured model in another basis: the same likelihood, signal and forecasts; states and covariances turned."""
    T = np.array([[1.0, 0.4], [-0.3, 2.0]])
    back = np.linalg.inv(T)
    A, C, Q, R = np.array([[0.7, 0.2], [-0.1, 0.5]]), np.array([[1.0, 0.0], [0.3, 1.0]]), np.diag([0.4, 0.1]), 0.3
    y = np.random.default_rng(0).normal(size=(25, 2)).cumsum(0)
    y[4, 1] = np.nan
    found = []
    for turn, undo in ((np.eye(2), np.eye(2)), (T, back)):
        known = {"initial_mean": turn @ [0.5, -1.0], "initial_cov": turn @ turn.T} if start == "known" else {}
        model = sse.LinearGaussianSSM(
            transition=turn @ A @ undo, observation=C @ undo, process_cov=("q", turn @ Q @ turn.T),
            measurement_cov="scalar", initial=start, likelihood="marginal", **known,
        )  # fmt: skip
        params = model.parameters(process_cov=2.0 * turn @ Q @ turn.T, measurement_cov=R * np.eye(2))
        found.append((model.score(y, params), model.e_step(y, params), model.forecast(y, 3, params), model.fit(y)))
    (one, plain, ahead, fit), (two, turned, later, refit) = found
    assert two == pytest.approx(one, rel=1e-10)
    np.testing.assert_allclose(turned["gamma"], plain["gamma"].values @ T.T, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(turned["cov"], T @ plain["cov"].values @ T.T, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(later["mean"], ahead["mean"], rtol=1e-8)
    np.testing.assert_allclose(later["cov"], ahead["cov"], rtol=1e-8)
    assert refit.score(y) == pytest.approx(fit.score(y), abs=1e-6)


def test_a_million_rows_and_a_nearly_singular_noise_have_no_negative_variance():
    rng = np.random.default_rng(0)
    T = 1_000_000
    y = np.cumsum(rng.normal(0.0, 1.0, T)) + rng.normal(0.0, 1e-6, T)
    y[rng.random(T) < 0.05] = np.nan
    model = designs.local_trend()
    params = model.parameters(process_cov=np.diag([1.0, 1e-14]), measurement_cov=[[1e-12]])
    core, tree, batch, _, _ = model._prepare(y, params)
    statistics, value = core.e_step(tree, batch)
    assert np.isfinite(value)
    new = core.m_step(statistics, tree)
    assert np.diag(new.process_cov).min() >= 0.0
    assert new.measurement_cov.min() >= 0.0
    known = model.filter(y, params)
    cov = known["filtered_cov"].values[5:]
    scale = np.sqrt(np.einsum("tii->ti", cov).clip(1e-300))
    smallest = np.linalg.eigvalsh(cov / scale[:, :, None] / scale[:, None, :])[:, 0].min()
    assert smallest >= -1e-12
    assert float(known["innovation_cov"].min()) > 0.0


def test_nearly_singular_structured_noise_smooths_without_a_negative_eigenvalue():
    rng = np.random.default_rng(1)
    loading = np.array([[1.0, 1.0 - 1e-7], [1.0 - 1e-7, 1.0]])
    y = np.cumsum(rng.multivariate_normal([0, 0], loading, 3000), 0)
    y[rng.random(y.shape) < 0.1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sse.LinearGaussianSSM(
            transition=np.eye(2), observation=np.eye(2), process_cov=("q", loading), measurement_cov="diagonal",
            initial="diffuse",
        ).fit(y, max_iter=60)  # fmt: skip
    for name, found in (("cov", model.e_step(y)), ("filtered_cov", model.filter(y))):
        cov = found[name].values[3:]
        values = np.linalg.eigvalsh(cov)
        assert values.min() >= -1e-13 * values.max(), name
    assert np.linalg.eigvalsh(model.params_["process_cov"].values)[0] >= 0.0
