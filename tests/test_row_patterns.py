"""Names whose factors change from row to row: against the dense joint Gaussian, differences, and constant patterns."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from lgssm_cases import core_of, em_steps, oracle_of, score_and_slopes
from oracles_gaussian import Parameters, posterior
from scipy.optimize import minimize

import statespace_em as sse
from statespace_em.errors import DataError, ParameterError
from statespace_em.priors import InverseWishart, MatrixNormal

T = 24
RNG = np.random.default_rng(0)
W = RNG.uniform(0.5, 3.0, T)
X = 2.0 * RNG.normal(size=T)
LATE = np.arange(T) >= 15
COS, SIN = np.cos(0.7 * np.arange(T)), np.sin(0.7 * np.arange(T))
WIDE = [[1.0, 0.0], [0.4, 1.0], [0.2, -0.7]]
START = {"initial": "known", "initial_mean": [0.3], "initial_cov": [[2.0]]}
LEVEL = {"transition": [[1]], "process_cov": [["q"]], "observation": [[1]], "measurement_cov": [["r"]]}
COUPLED = [[2.0, 0.4], [0.4, 0.7]]
MIXING = RNG.normal(size=(T, 2, 2))
MIXING[::4, :, 1] = 0.0

CASES = {
    "accuracy of a sensor": {**LEVEL, "measurement_cov": [[{"r": W}]]},
    "break": {**LEVEL, "process_cov": [[np.where(LATE, "q_late", "q_early")]]},
    "time between rows": {**LEVEL, "process_cov": {"q": W}},
    "harmonic": {**LEVEL, "transition": [[{"a": 1.0, "b": COS, "c": SIN}]]},
    "offsets": {
        **LEVEL, "transition": [[0.8]], "state_offset": [{"m": LATE}], "observation_offset": [{"d": X, "e": 1}],
    },
    "row by row": {**LEVEL, "transition": np.array([[["0.5*a" if late else "1 - a"]] for late in LATE], dtype=object)},
    "regressor": {
        "transition": [[0.8, 0], [0, 1]], "process_cov": [["q", 0], [0, 0]], "measurement_cov": "diagonal",
        "observation": [[1, 0], ["c", 1], [{"beta": X}, 0]],
    },
    "everywhere": {
        "transition": [["a", {"b": X}], [0, {"b": 1.0}]], "process_cov": [[{"q": W}, 0], [0, {"q": 1.0}]],
        "observation": [[1, 0], ["c", 1], [{"c": X}, 0.3]],
        "measurement_cov": [[{"r": W, "s": 0.5}, 0, 0], [0, {"r": 1.0}, 0], [0, 0, np.where(LATE, "t", "u")]],
    },
    "multiples of a free matrix": {
        "transition": [[0.5, 0], [0, 0.9]], "process_cov": COUPLED, "observation": WIDE[:2],
        "measurement_cov": [[{"r": W}, {"c": W}], [{"c": W}, {"s": W}]],
    },
    "a free matrix before and after": {
        "transition": "free", "observation": [[1, 0], [0, 1]], "measurement_cov": "diagonal",
        "process_cov": [[["p", "c"], ["c", "q"]] if late else [["r", "d"], ["d", "s"]] for late in LATE],
    },
    "a known matrix of each row": {
        "transition": [[1, 1], [0, 1]], "observation": WIDE, "measurement_cov": "diagonal",
        "process_cov": ("q", np.array([[[w**3 / 3, w**2 / 2], [w**2 / 2, w]] for w in W])),
    },
    "any linear family": {
        "transition": [[0.5, 0], [0, 0.9]], "observation": WIDE, "measurement_cov": "diagonal",
        "process_cov": [[{"a": W, "b": 1}, {"b": 0.2 * X}], [{"b": 0.2 * X}, {"a": 1, "b": 3}]],
    },
    "loading": {
        "transition": [[0.5, "p"], [0.2, 0.9]], "process_loading": [[1.0], [0.5]], "process_cov": [[{"q": W}]],
        "observation": WIDE, "measurement_cov": "diagonal",
    },
    "a loading of each row": {
        "transition": [[1, 1], [0, 0.9]], "process_loading": np.array([[[w * w / 2], [w]] for w in W]),
        "process_cov": [["q"]], "observation": WIDE, "measurement_cov": "diagonal",
    },
    "disturbances of some rows": {
        "transition": [[0.5, 0.1], [0, 0.9]], "process_loading": MIXING, "process_cov": [[{"a": W}, 0], [0, "b"]],
        "observation": WIDE, "measurement_cov": "diagonal",
    },
    "a free matrix through loadings of rows": {
        "transition": [[0.5, "p"], [0, 0.9]], "process_cov": "diagonal",
        "observation": WIDE, "measurement_loading": np.eye(3) + 0.3 * RNG.normal(size=(T, 3, 3)),
        "measurement_cov": [["r", "c", 0], ["c", "s", 0], [0, 0, "t"]],
    },
    "known and named": {
        "transition": [[1, W], [0, {"phi": 1.0, "psi": COS}]], "process_cov": [[W, 0], [0, 1]], "observation": WIDE,
        "measurement_cov": "diagonal",
    },
}  # fmt: skip


SINGULAR = ("regressor", "loading", "a loading of each row", "disturbances of some rows")


def start_of(arguments, word):
    n = 2 if len(arguments["observation"][0]) == 2 else 1
    if word != "known":
        return {"initial": word}
    return {"initial": "known", "initial_mean": [0.3, -0.2][:n], "initial_cov": np.array(COUPLED)[:n, :n]}


def data(arguments, missing, seed=1):
    rng, D = np.random.default_rng(seed), len(arguments["observation"])
    y = 0.5 * rng.normal(size=(T, D)).cumsum(0) + rng.normal(size=(T, D))
    y[rng.random(y.shape) < missing] = np.nan
    return y


def started(arguments, word, y):
    return core_of(sse.LinearGaussianSSM(**arguments, **start_of(arguments, word)), y)


def fitted(model, y, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short or unlikely data
        return model.fit(y, **options)


# the score and the M-step


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("start", ["known", "diffuse", "fixed"])
def test_score_is_the_slope_of_the_log_likelihood(case, start):
    y = data(CASES[case], 0.15)
    core, batch, params = started(CASES[case], start, y)
    params = core.m_step(core.e_step(params, batch)[0], params)
    found, slopes = score_and_slopes(core, batch, params)
    np.testing.assert_allclose(found, slopes, rtol=1e-6, atol=1e-7 * max(1.0, np.abs(slopes).max()))


@pytest.mark.parametrize("case", CASES)
def test_squares_of_roots_have_the_slopes_they_claim(case):
    y = data(CASES[case], 0.1)
    core, batch, start = started(CASES[case], "diffuse", y)
    statistics = core.e_step(start, batch)[0]
    chart = core.chart(start, statistics, start)
    x, step = np.full(chart.size, 0.01), 1e-5
    there = chart.params(x)
    found = chart.gradient(x, there, core.e_step(there, batch)[0])
    slopes = [
        (core.e_step(chart.params(x + step * unit), batch)[1] - core.e_step(chart.params(x - step * unit), batch)[1])
        / (2 * step)
        for unit in np.eye(len(x))
    ]
    np.testing.assert_allclose(found, slopes, rtol=1e-6, atol=1e-7 * max(1.0, np.abs(slopes).max()))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_steps_of_em_never_lose(case, missing):
    core, batch, params = started(CASES[case], "diffuse", data(CASES[case], missing))
    values, _ = em_steps(core, batch, params, 15)
    assert np.diff(values).min() > -1e-10 * abs(values[-1])
    assert values[-1] > values[0] + 1e-3


@pytest.mark.parametrize("case", CASES)
def test_m_step_from_a_posterior_is_that_of_the_pass(case):
    """The sums of the pass come from gradients, those of a posterior from its moments."""
    y = data(CASES[case], 0.15)
    core, batch, params = started(CASES[case], "known", y)
    rows = core.posterior(params, batch, pairs=True).rows
    given = core.statistics(params, batch, {name: value for name, (_, value) in rows.items()})
    made = core.e_step(params, batch, moments=True)[0]
    for side in ("steps", "rows"):
        one, other = getattr(given, side), getattr(made, side)
        assert (one is None) == (other is None)
        if one is not None and np.isfinite(one.scatter).all():
            alike = one.blocks[:, None] == one.blocks
            one, other = (each._replace(scatter=np.where(alike, each.scatter, 0.0)) for each in (one, other))
            for value, expected in zip(one, other):
                np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    new, expected = core.m_step(given, params), core.m_step(made, params)
    for name, value in core.flatten(expected).items():
        np.testing.assert_allclose(getattr(new, name), value, rtol=1e-8, atol=1e-9, err_msg=name)


def expected_density(params, rows, y):
    """Expected log density of states and y of one sequence without gaps, up to constants, row by row."""
    mean, cov, cross = (rows[name][1] for name in ("gamma", "cov", "cross_cov"))

    def at(name, t):
        value = getattr(params, name)
        return value[t] if value.ndim > (1 if name.endswith("offset") else 2) else value

    total = 0.0
    for t in range(len(y)):
        if t < len(y) - 1:
            A, Q = at("transition", t), at("process_cov", t)
            away = mean[t + 1] - A @ mean[t] - at("state_offset", t)
            square = np.outer(away, away) + cov[t + 1] - A @ cross[t] - cross[t].T @ A.T + A @ cov[t] @ A.T
            total -= 0.5 * (np.linalg.slogdet(Q)[1] + np.trace(np.linalg.solve(Q, square)))
        C, R = at("observation", t), at("measurement_cov", t)
        away = y[t] - C @ mean[t] - at("observation_offset", t)
        square = np.outer(away, away) + C @ cov[t] @ C.T
        total -= 0.5 * (np.linalg.slogdet(R)[1] + np.trace(np.linalg.solve(R, square)))
    return total


@pytest.mark.parametrize("case", [case for case in CASES if case not in SINGULAR])
def test_the_m_step_is_a_maximum_of_the_expected_density(case):
    y = data(CASES[case], 0.0)
    core, batch, params = started(CASES[case], "known", y)
    rows = core.posterior(params, batch, pairs=True).rows
    new = core.m_step(core.e_step(params, batch)[0], params)
    x, step = core.to_vector(new, new), 1e-4

    def at(change):
        return expected_density(core.from_vector(x + change, new), rows, y)

    slopes = np.array([(at(step * unit) - at(-step * unit)) / (2 * step) for unit in np.eye(len(x))])
    assert np.abs(slopes).max() < 1e-5
    assert all(at(step * 10 * unit) < at(0.0) and at(-step * 10 * unit) < at(0.0) for unit in np.eye(len(x)))


# the maximum


def one(value):
    return np.reshape(np.broadcast_to(value, T), (T, 1, 1)).astype(float)


def dense_of(case, v):
    """Matrices of a case written out by hand."""
    zero = np.zeros((T, 1))
    p = Parameters(one(1), zero, one(0), one(1), zero, one(0), np.array([0.3]), np.array([[2.0]]))
    if case == "accuracy of a sensor":
        return p._replace(Q=one(v["q"]), R=one(v["r"] * W))
    if case == "break":
        return p._replace(Q=one(np.where(LATE, v["q_late"], v["q_early"])), R=one(v["r"]))
    if case == "time between rows":
        return p._replace(Q=one(v["q"] * W), R=one(v["r"]))
    if case == "harmonic":
        return p._replace(A=one(v["a"] + v["b"] * COS + v["c"] * SIN), Q=one(v["q"]), R=one(v["r"]))
    if case == "offsets":
        b, d = one(v["m"] * LATE)[:, :, 0], one(v["d"] * X + v["e"])[:, :, 0]
        return p._replace(A=one(0.8), b=b, d=d, Q=one(v["q"]), R=one(v["r"]))
    return p._replace(A=one(np.where(LATE, 0.5 * v["a"], 1 - v["a"])), Q=one(v["q"]), R=one(v["r"]))


@pytest.mark.parametrize("case", list(CASES)[:6])
def test_a_fit_ends_at_the_maximum_of_the_dense_likelihood(case):
    y = data(CASES[case], 0.1, seed=3)
    model = fitted(sse.LinearGaussianSSM(**CASES[case], **START), y)
    values = model.summary()["value"].droplevel(["row", "column"])
    names, here = list(values.index), values.to_numpy()
    squares = [name[0] in "qr" for name in names]

    def loss(x):
        v = dict(zip(names, np.where(squares, x**2, x)))
        with np.errstate(all="ignore"):
            found = -posterior_value(y, dense_of(case, v))
        return found if np.isfinite(found) else 1e10

    x0 = np.where(squares, np.sqrt(np.abs(here)), here)
    assert -loss(x0) == pytest.approx(model.score(y), rel=1e-10)
    ends = [minimize(loss, begin, method="BFGS", options={"gtol": 1e-7}) for begin in (x0, x0 + 0.3, 0.5 * x0 + 0.2)]
    best = max(-end.fun for end in ends)
    assert model.score(y) > best - 1e-6
    assert model.n_parameters_ == len(names)


def posterior_value(y, p):
    """Log-likelihood of y as one joint Gaussian."""
    from oracles_gaussian import joint, log_density

    mean, cov = joint(p, len(y))
    seen = len(y) * p.m0.size + np.flatnonzero(~np.isnan(y))
    try:
        return log_density(mean, cov, seen, y[~np.isnan(y)])
    except np.linalg.LinAlgError:
        return -np.inf


# the same as others


def test_equal_rows_are_a_constant_pattern():
    constant = {
        "transition": [["a", "0.3*b"], [0, "b"]], "process_cov": [["q", "0.3*q"], ["0.3*q", "2*q"]],
        "observation": WIDE, "measurement_cov": "diagonal", "state_offset": ["m", 0],
    }  # fmt: skip
    rows = {
        **constant,
        "transition": np.array([[["a", "0.3*b"], [0, "b"]]] * T, dtype=object),
        "process_cov": [[{"q": np.ones(T)}, {"q": 0.3}], [{"q": 0.3}, {"q": 2.0}]],
        "state_offset": [{"m": np.ones(T)}, 0],
    }
    y = data(rows, 0.1)
    core, batch, params = started(constant, "diffuse", y)
    other, _, wide = started(rows, "diffuse", y)
    for _ in range(5):
        params, wide = (each.m_step(each.e_step(p, batch)[0], p) for each, p in ((core, params), (other, wide)))
    for name, value in core.flatten(params).items():
        there = getattr(wide, name)
        np.testing.assert_allclose(np.broadcast_to(value, there.shape), there, rtol=1e-9, atol=1e-11, err_msg=name)
    assert core.n_free(params) == other.n_free(wide)
    ends = [
        fitted(sse.LinearGaussianSSM(**each, initial="diffuse"), y, max_iter=300).trace_["objective"].iloc[-1]
        for each in (constant, rows)
    ]
    assert ends[0] == pytest.approx(ends[1], abs=1e-7)


def test_uneven_steps_are_those_of_a_motion():
    rng, n = np.random.default_rng(4), 40
    times = np.cumsum(rng.uniform(0.3, 2.0, n))
    place = np.cumsum(rng.normal(size=n)).cumsum() + rng.normal(size=n)
    y = xr.DataArray(place[:, None], {"time": times, "feature": ["x"]}, ("time", "feature"))
    motion = sse.designs.constant_velocity(["x"]).fit(y)
    gaps = np.append(np.diff(times), 1.0)
    noise = np.array([[[gap**3 / 3, gap**2 / 2], [gap**2 / 2, gap]] for gap in gaps])
    model = sse.LinearGaussianSSM(
        transition=[[1, gaps], [0, 1]], process_cov=("density", noise), observation=[[1, 0]],
        measurement_cov=[["noise"]], initial="diffuse",
    ).fit(place)  # fmt: skip
    assert model.score(place) == pytest.approx(motion.score(y), abs=1e-7)
    assert model.n_parameters_ == motion.n_parameters_
    ours, theirs = model.summary()["value"].to_numpy(), motion.summary()["value"].to_numpy()
    np.testing.assert_allclose(sorted(ours), sorted(theirs), rtol=1e-4)


def test_units_of_y_and_of_factors_do_not_matter():
    y = data(CASES["everywhere"], 0.1)
    ends = []
    for size, scale in ((1.0, 1.0), (1e3, 1e-4)):
        arguments = {**LEVEL, "measurement_cov": [[{"r": W / scale}]], "process_cov": {"q": W * scale}}
        model = fitted(sse.LinearGaussianSSM(**arguments, initial="diffuse"), size * y[:, :1])
        n_seen = int((~np.isnan(y[:, 0])).sum()) - 1
        ends.append((model.score(size * y[:, :1]) + n_seen * np.log(size), model.params_["measurement_cov"] / size**2))
    assert ends[0][0] == pytest.approx(ends[1][0], abs=1e-6)
    np.testing.assert_allclose(ends[0][1], ends[1][1], rtol=1e-3)


def test_copies_of_a_series_estimate_what_one_does():
    arguments = {**CASES["everywhere"], "initial": "diffuse"}
    y = data(arguments, 0.1)
    model = sse.LinearGaussianSSM(**arguments)
    one_, two = (fitted(model, each, max_iter=20, n_starts=1, accelerate=False).params_ for each in (y, [y, y]))
    for name in one_.data_vars:
        np.testing.assert_allclose(one_[name], two[name], rtol=1e-7, atol=1e-9, err_msg=str(name))
    short = fitted(model, [y, y[:10]], max_iter=20)  # rows of a shorter sequence are the first ones
    assert short.score([y, y[:10]]) == pytest.approx(short.score(y) + short.score(y[:10]), rel=1e-10)


# what a fitted model answers


def test_the_answers_of_a_fitted_model(tmp_path):
    y = pd.Series(data(LEVEL, 0.0)[:, 0], pd.date_range("2020-01-01", periods=T, name="day"))
    model = sse.LinearGaussianSSM(**CASES["accuracy of a sensor"], initial="diffuse").fit(y)
    assert model.params_["measurement_cov"].dims == ("time", "feature", "feature_aux")
    table = model.summary()
    assert table.index.get_level_values("parameter").tolist() == ["q", "r"]
    value = table.loc["r", "value"].item()
    np.testing.assert_allclose(model.params_["measurement_cov"].values.ravel(), value * W, rtol=1e-12)
    assert model.n_parameters_ == 2
    errors = model.standard_errors(y, of="named")
    assert 0.0 < float(errors["r"]) < value * 5
    ends = model.confidence_intervals(y, of="named")["r"]
    assert float(ends[0]) < value < float(ends[1])
    model.save(tmp_path / "model.nc")
    back = sse.LinearGaussianSSM.load(tmp_path / "model.nc")
    assert back.score(y) == model.score(y)
    frozen = sse.LinearGaussianSSM(**CASES["accuracy of a sensor"], initial="diffuse")
    frozen.fit(y, start=model.params_, freeze=["measurement_cov"])
    assert frozen.n_parameters_ == 1
    assert frozen.params_["measurement_cov"].equals(model.params_["measurement_cov"])
    again = sse.LinearGaussianSSM(**CASES["accuracy of a sensor"], initial="diffuse").fit(y, start=model.params_)
    assert again.score(y) == pytest.approx(model.score(y), abs=1e-7)
    drawn = model.sample(T, model.params_.assign(initial_cov=(("state", "state_aux"), [[1.0]])), seed=0)
    assert drawn["y"].shape == (T, 1)
    np.testing.assert_allclose(model.filter(y)["filtered"].isel(day=-1), model.decode(y)[-1], rtol=1e-9)


def test_forecasts_need_the_rows_of_the_future():
    y, n = data(LEVEL, 0.0)[:16], 16
    short = sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": [[{"r": W[:n]}]]}, **START).fit(y)
    with pytest.raises(DataError, match="measurement_cov is given for 16 rows, but row 17 is asked for"):
        short.forecast(y, 1)
    long = sse.LinearGaussianSSM(**CASES["accuracy of a sensor"], **START)
    found = long.forecast(y, 8, short.params_)
    v = short.summary()["value"].droplevel(["row", "column"])
    p = dense_of("accuracy of a sensor", v)
    whole = posterior(np.vstack([y, np.full((8, 1), np.nan)]), p)
    np.testing.assert_allclose(found["predicted"], whole.mean[16:], rtol=1e-9)
    np.testing.assert_allclose(found["variance"].values.ravel(), whole.cov[16:, 0, 0] + v["r"] * W[16:], rtol=1e-9)
    direct = fitted(sse.LinearGaussianSSM(**CASES["accuracy of a sensor"], **START), y)
    assert direct.forecast(y, 8)["mean"].equals(direct.forecast(y, 8, direct.params_)["mean"])
    assert direct.simulate(y, 8, 3, seed=0)["y"].shape == (3, 8, 1)
    early = np.where(LATE, "q_late", "q_early")[:15]
    first = fitted(sse.LinearGaussianSSM(**{**LEVEL, "process_cov": [[early]]}, **START), y[:15])
    with pytest.raises(ParameterError, match="15 rows, in which 'q_late' has no factor"):
        sse.LinearGaussianSSM(**CASES["break"], **START).score(y[:15], first.params_)


def test_a_variance_that_vanishes_is_put_at_zero():
    rng = np.random.default_rng(5)
    level = np.cumsum(np.where(np.arange(80) >= 40, 1.0, 0.0) * rng.normal(size=80))
    y = level + 0.1 * rng.normal(size=80) + np.where(np.arange(80) % 2 > 0, 0.5, -0.5)
    names = np.where(np.arange(80) >= 40, "q_late", "q_early")
    model = fitted(sse.LinearGaussianSSM(**{**LEVEL, "process_cov": [[names]]}, initial="diffuse"), y)
    values = model.summary()["value"].droplevel(["row", "column"])
    assert model.status_ == "converged"
    assert values["q_late"] > 0.3
    assert values["q_early"] == 0.0
    assert "boundary" in model.params_["process_cov"].attrs


def test_sizes_and_kinds_that_are_read():
    same = sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": ("r", W)}, **START)
    other = sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": {"r": W[:, None, None]}}, **START)
    rows = sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": [[("r", pd.Series(W))]]}, **START)
    dims = ("time", "feature", "feature_aux")
    named = xr.DataArray(np.array([[[f"{w}*r"]] for w in W], dtype=object), dims=dims)
    fourth = sse.LinearGaussianSSM(**{**LEVEL, "measurement_cov": named}, **START)
    y = data(LEVEL, 0.1)
    ends = [fitted(model, y).score(y) for model in (same, other, rows, fourth)]
    np.testing.assert_allclose(ends, ends[0], rtol=1e-9)
    pattern = sse.LinearGaussianSSM(**CASES["break"])._specification(1).patterns["process_cov"]
    assert (len(pattern.numbers), pattern.n_rows, pattern.shape) == (2, T, (1, 1))
    constant = sse.LinearGaussianSSM(**{**LEVEL, "process_cov": {"q": [[2.0]]}})._specification(1)
    assert constant.patterns["process_cov"].names == ("q",)
    assert not constant.by_row
    known = sse.LinearGaussianSSM(**{**LEVEL, "transition": [[W]]})._specification(1)
    assert known.varying["transition"].shape == (T, 1, 1)


# bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measurement_cov": [[{"q": W}]]}, "the name 'q' stands in process_cov and in measurement_cov"),
        ({"measurement_cov": [[{"r": W[:9]}]]}, r"9 rows, but y has 24: .* shape \(24, 1, 1\) .*\(time, feature, "),
        ({"measurement_cov": [[{"r": W[:20]}]], "process_cov": {"q": W}}, "given for 20 rows, process_cov for 24"),
        ({"measurement_cov": [[{"r": W - 1.0}]]}, r"-0\.\d+ times 'r' as the variance at \(0, 0\) in row \d+"),
        ({"process_cov": {"q": 1.0 * LATE}, "transition": [["a"]]}, "transition has a free entry for state 0 in row 0"),
        (
            {"measurement_cov": [[{"r": LATE}]], "observation": [[{"c": X}]]},
            "for feature 0 in row 0, where measurement_",
        ),
        ({"measurement_cov": [[{"r": np.where(LATE, np.nan, 1.0)}]]}, r"has nan at \(0, 0\) in row 15"),
        ({"transition": [[{"a": X, "b": X[:7]}]]}, r"entry at \(0, 0\) for 7 rows, others are for 24"),
        (
            {"transition": [[np.where(LATE, "a*b", "a")]]},
            "'a\\*b' at .* in row 15, a product, but it is given for every row.* a name of its own, such as 'a_b'",
        ),
        ({"transition": [[np.where(LATE, "a**2", "a")]]}, "expected a number, a name, or an expression"),
        ({"observation": {"a": np.ones((T, 1, 2))}}, r"observation has shape \(1, 2\), expected \(1, 1\)"),
        ({"transition": {"a": "x"}}, "'a': 'x', expected a name with an array of numbers"),
        (
            {"process_cov": [[{"q": np.where(np.arange(T + 2) < T, 0.0, 1.0), "p": 1}]]},
            "'q' in rows after the last of y",
        ),
        ({"process_cov": {"q": W}, "initial": "estimated"}, "initial_cov is tied to process_cov, which is given for"),
        ({"process_cov": {"q": W}, "process_prior": InverseWishart(3, [[1.0]])}, "process_prior is a prior on a proc"),
        (
            {"transition": [[{"a": W}]], "transition_prior": MatrixNormal([[0.0]], [[1.0]])},
            r"transition_prior is a prior on one transition, but transition has names for every row \('a'\): leave the",
        ),
        ({"process_loading": np.ones((T, 1, 2)), "process_cov": "diagonal"}, "2 columns of rank 1 in row 0"),
        ({"process_loading": np.zeros((T, 1, 1))}, "column 0 of zeros in all rows"),
        ({"process_loading": np.ones((9, 1, 1))}, "process_cov is given for 9 rows, but y has 24"),
        ({"process_loading": np.ones((T, 1, 1)), "process_cov": {"q": W[:20]}}, "20 rows, its loading for 24"),
        ({"process_loading": np.ones((T, 2, 1))}, r"shape \(24, 2, 1\), expected \(1, any\) .* with an axis of rows"),
        (
            {"process_loading": 1.0 * LATE[:, None, None], "transition": [["a"]]},
            "transition has a free entry for state 0 in row 0, where process_cov has no noise",
        ),
    ],
)
def test_contradictions_are_refused(changes, message):
    y = data(LEVEL, 0.0)
    with pytest.raises((ParameterError, DataError), match=message):
        sse.LinearGaussianSSM(**{**LEVEL, "initial": "diffuse", **changes}).fit(y)


def test_sequences_with_matrices_of_their_own_go_end_to_end():
    """Written by hand or each for itself: the likelihood is the sum of those of the sequences."""
    first, second = data(LEVEL, 0.1), data(LEVEL, 0.1, seed=7)
    A, Q, b = np.array([0.9, 0.3]).repeat(T), np.array([0.5, 2.0]).repeat(T), np.zeros(2 * T)
    own = [
        sse.LinearGaussianSSM(
            transition=[[a]], process_cov=[[q]], observation=[[1]], measurement_cov=[["r"]], **START
        ) for a, q in ((0.9, 0.5), (0.3, 2.0))
    ]  # fmt: skip
    A[T - 1], Q[T - 1], b[T - 1] = 0.0, START["initial_cov"][0][0], START["initial_mean"][0]
    whole = sse.LinearGaussianSSM(
        transition=[[A]], process_cov=[[Q]], state_offset=[b], observation=[[1]], measurement_cov=[["r"]], **START
    ).fit(np.concatenate([first, second]))
    r = whole.params_["measurement_cov"].values
    parts = sum(model.score(y, known(model, y, r)) for model, y in zip(own, (first, second)))
    assert whole.score(np.concatenate([first, second])) == pytest.approx(parts, rel=1e-12)
    apart = sse.LinearGaussianSSM(
        transition=[[{1: [np.full(T, 0.9), np.full(T, 0.3)]}]], process_cov=[[{1: [np.full(T, 0.5), np.full(T, 2.0)]}]],
        observation=[[1]], measurement_cov=[["r"]], **START,
    )  # fmt: skip
    assert apart.score([first, second], apart.parameters(measurement_cov=r)) == pytest.approx(parts, rel=1e-12)


def known(model, y, r):
    return model.fit(y).params_.assign(measurement_cov=(("feature", "feature_aux"), r))


def test_linked_disturbances_enter_together():
    wide = {"transition": np.eye(2), "observation": [[1, 0]], "measurement_cov": [["r"]], "initial": "diffuse"}
    with pytest.raises(ParameterError, match="links disturbances of which one enters in row 0 and another does not"):
        sse.LinearGaussianSSM(**wide, process_loading=MIXING, process_cov="free").fit(np.zeros(T))
    backward = xr.DataArray(MIXING.transpose(2, 1, 0), dims=("shock", "state", "time"))
    model = sse.LinearGaussianSSM(**wide, process_loading=backward, process_cov="diagonal")
    np.testing.assert_array_equal(model._specification(1).loadings["process_cov"], MIXING)
    with pytest.raises(ParameterError, match=r"dims \('time', 'a', 'b'\), expected \(state, disturbance\)"):
        sse.LinearGaussianSSM(**wide, process_loading=xr.DataArray(MIXING, dims=("time", "a", "b"))).fit(np.zeros(T))


def test_a_known_covariance_under_a_loading_is_multiplied_out():
    y = data(CASES["disturbances of some rows"], 0.1)
    known = np.diag([0.7, 1.3]) * W[:, None, None]
    kept = {"observation": WIDE, "transition": [[0.5, 0.1], [0, 0.9]], "measurement_cov": "diagonal"}
    one = sse.LinearGaussianSSM(**kept, process_loading=MIXING, process_cov=known, initial="diffuse").fit(y)
    product = MIXING @ known @ MIXING.swapaxes(1, 2)
    other = sse.LinearGaussianSSM(**kept, process_cov=product, initial="diffuse").fit(y)
    assert one.score(y) == pytest.approx(other.score(y), rel=1e-12)


@pytest.mark.parametrize("case", ["a loading of each row", "disturbances of some rows"])
def test_loadings_of_rows_against_the_dense_oracle(case):
    arguments = CASES[case]
    y = data(arguments, 0.2)
    model = fitted(sse.LinearGaussianSSM(**arguments, **start_of(arguments, "known")), y, max_iter=8)
    values = model.summary()["value"].droplevel(["row", "column"])
    G = arguments["process_loading"]
    if case == "a loading of each row":
        inner = np.full((T, 1, 1), values["q"])
    else:
        inner = np.array([np.diag([w * values["a"], values["b"]]) for w in W])
    p = model.params_
    np.testing.assert_allclose(p["process_cov"].values, G @ inner @ G.swapaxes(1, 2), rtol=1e-9, atol=1e-12)
    exact = posterior(y, oracle_of(p, process_cov=G @ inner @ G.swapaxes(1, 2)))
    assert model.score(y) == pytest.approx(exact.log_likelihood, rel=1e-9)
    np.testing.assert_allclose(model.e_step(y).gamma, exact.mean, rtol=1e-7, atol=1e-9)
    best = model.fit(y)
    assert best.status_ == "converged"
    again = sse.LinearGaussianSSM(**arguments, **start_of(arguments, "known")).fit(y, start=best.params_)
    assert again.score(y) == pytest.approx(best.score(y), abs=1e-6)


def test_covariances_that_cannot_be_are_refused():
    wide = {"transition": np.eye(2), "observation": [[1, 0]], "measurement_cov": [["r"]], "initial": "diffuse"}
    for value, message in (
        ([[{"q": W}, {"c": W}], [0, {"q": 1}]], "process_cov is not symmetric in row 0: the factors of 'c'"),
        ([[{"q": W}, W], [1, {"q": 1}]], "process_cov is not symmetric in row 0: its numbers"),
        ([[{"q": W}, {"c": W}], [{"c": W}, 0]], r"a covariance at \(1, ...\) in row 0"),
        ([[{"q": W}, 0], [0, -1]], r"variance -1 at \(1, 1\) in row 0"),
    ):
        with pytest.raises(ParameterError, match=message):
            sse.LinearGaussianSSM(**wide, process_cov=value).fit(np.zeros(T))


def test_a_known_covariance_that_is_none_is_told_by_its_row():
    known = np.tile(np.eye(2), (T, 1, 1))
    for place, message in (
        (np.s_[5, 0, 0], "row 5 is not positive semi-definite"),
        (np.s_[7, 0, 1], "row 7 is not symm"),
    ):
        value = known.copy()
        value[place] = -1.0
        with pytest.raises(ParameterError, match=f"process_cov of {message}"):
            sse.LinearGaussianSSM(2, process_cov=value, initial="diffuse").fit(np.zeros(T))
