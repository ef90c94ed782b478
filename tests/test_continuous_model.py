"""Structural models on uneven times against the covariance functions of their processes, written down one by one."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em import checks, designs
from statespace_em.errors import DataError, ParameterError, UndeterminedStartError

ROWS, AHEAD = 50, 4
T = np.cumsum(np.random.default_rng(5).exponential(1.0, ROWS)) + 3.0
VALUES = {
    "level_var": 0.4, "slope_var": 0.02, "seasonal_var": 0.05, "cycle_var": 0.7, "arma_var": 0.5, "noise_var": 0.3,
    "ar1": 0.6, "cycle_cos": 0.5, "cycle_sin": 0.6,
}  # fmt: skip
PERIOD = 4.7


def kernels(t):
    """Covariance of each component over times, and its functions of unknown size."""
    near, far, apart = np.minimum.outer(t, t), np.maximum.outer(t, t), np.abs(np.subtract.outer(t, t))
    one, angles = np.ones(len(t)), 2 * np.pi * np.arange(1, 3) / PERIOD
    v, walk = VALUES, VALUES["level_var"] * near
    wiener = v["slope_var"] * near**2 * (3 * far - near) / 6  # Wahba 1978
    z = complex(v["cycle_cos"], v["cycle_sin"])
    swing = (z**apart).real * v["cycle_var"] / (1 - abs(z) ** 2)
    waves = [f(a * t) for a in angles for f in (np.cos, np.sin)]
    turned = sum(np.cos(a * apart) for a in angles) * v["seasonal_var"] * near
    return {
        "local_level": (walk, [one]),
        "smooth_trend": (wiener, [one, t]),
        "local_trend": (walk + wiener, [one, t]),
        "seasonal": (turned, waves),
        "cycle": (swing, []),
        "ar": (v["ar1"] ** apart * v["arma_var"] / (1 - v["ar1"] ** 2), []),
        "constant": (0.0 * near, [one]),
    }


MAKE = {
    "local_level": designs.local_level, "smooth_trend": designs.smooth_trend, "local_trend": designs.local_trend,
    "seasonal": lambda unit=None: designs.seasonal(PERIOD, harmonics=2, unit=unit), "cycle": designs.cycle,
    "ar": lambda unit=None: designs.ar(1, unit=unit), "constant": lambda unit=None: designs.constant(start="diffuse"),
}  # fmt: skip
SUMS = [("local_level",), ("local_trend", "ar"), ("smooth_trend", "seasonal", "cycle"), ("local_level", "cycle", "ar"),
        ("ar", "constant")]  # fmt: skip


def model_of(names):
    parts = [MAKE[name](unit="h") if name != "constant" else MAKE[name]() for name in names]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total.set_params(likelihood="marginal")


def at_values(model, values=None):
    values = VALUES if values is None else values
    flow = model._flow_over_step(1.0)
    A, Q = flow.base_transition(), flow.process_cov_pattern()
    noise = model._measurement_noise()
    return model.parameters(
        transition=A.build(np.array([values[name] for name in A.names])),
        process_cov=Q.build(np.array([values[name] for name in Q.names])),
        measurement_cov=noise.build(np.array([values[name] for name in noise.names])),
    )


def dense(names, t):
    found = [kernels(t)[name] for name in names]
    noisy = set(names) != {"ar", "constant"}
    cov = sum(part for part, _ in found) + (VALUES["noise_var"] * np.eye(len(t)) if noisy else 0.0)
    return cov, np.column_stack([column for _, columns in found for column in columns])


def simulated(names, seed=3):
    cov, F = dense(names, T)
    rng = np.random.default_rng(seed)
    y = np.linalg.cholesky(cov + 1e-12 * np.eye(ROWS)) @ rng.normal(size=ROWS) + F @ rng.normal(size=F.shape[1])
    y[rng.random(ROWS) < 0.1] = np.nan
    return pd.Series(y, index=pd.Index(T, name="hour"))


@pytest.mark.parametrize("names", SUMS, ids="+".join)
def test_likelihood_and_moments_are_those_of_the_processes(names):
    y, model = simulated(names), model_of(names)
    params = at_values(model)
    seen = ~np.isnan(y.to_numpy())
    cov, F = dense(names, T)
    c, f, rows = cov[np.ix_(seen, seen)], F[seen], y.to_numpy()[seen]
    weight = np.linalg.inv(c)
    cut = f.T @ weight @ f
    beta = np.linalg.solve(cut, f.T @ weight @ rows)
    rest = rows - f @ beta
    parts = (len(rows) - f.shape[1]) * np.log(2 * np.pi) + np.linalg.slogdet(c)[1] + np.linalg.slogdet(cut)[1]
    exact = -0.5 * (parts - np.linalg.slogdet(f.T @ f)[1] + rest @ weight @ rest)
    assert model.score(y, params) == pytest.approx(exact, abs=1e-7)

    there = np.sort(np.random.default_rng(1).uniform(T[0] - 2, T[-1] + 5, 9))
    every = np.concatenate([T, there])
    whole, G = dense(names, every)
    late, early = slice(ROWS, None), np.flatnonzero(np.append(seen, np.zeros(9, bool)))
    link = whole[late, early] @ weight
    mean = G[late] @ beta + link @ rest
    left = G[late] - link @ f
    spread = whole[late, late] - link @ whole[early, late] + left @ np.linalg.solve(cut, left.T)
    found = model.at(y, there, params)
    np.testing.assert_allclose(found["mean"].values.ravel(), mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found["cov"].values.ravel(), np.diag(spread), rtol=1e-6)


@pytest.mark.parametrize("names", [("local_trend", "ar"), ("smooth_trend", "seasonal", "cycle")], ids="+".join)
def test_a_fit_ends_where_the_score_is_zero(names):
    y = simulated(names)
    model = model_of(names).fit(y, n_starts=2)
    assert model.status_ == "converged"
    assert (np.diff(model.trace_["objective"]) > -1e-9).all()
    top = model.summary()["value"].droplevel(["row", "column"])
    names_of = [name for name in VALUES if name in top.index]
    at = {name: float(top[name]) for name in names_of}
    best = model.score(y, at_values(model, at))
    assert best == pytest.approx(model.score(y), abs=1e-8)
    for name in names_of:
        if at[name] > 1e-6:
            for factor in (0.999, 1.001):
                assert model.score(y, at_values(model, at | {name: factor * at[name]})) < best + 1e-7


@pytest.mark.parametrize("make", [
    lambda unit: designs.local_level(unit=unit), lambda unit: designs.seasonal(5, unit=unit),
    lambda unit: designs.local_level(unit=unit) + designs.ar(1, unit=unit), lambda unit: designs.cycle(8.0, unit=unit),
], ids=["level", "season", "level+ar", "cycle"])  # fmt: skip
def test_rows_one_unit_apart_are_steps(make):
    y = sse.datasets.nile().iloc[:60] / 100.0
    row, time = make(None), make("s")
    fitted = row.fit(y, n_starts=1)
    same = dict(fitted.summary()["value"].droplevel([1, 2]))
    found = time.score(y, at_values(time, {**same, "arma_var": same.get("arma_var", 0.0)}))
    assert found == pytest.approx(fitted.score(y), abs=1e-8)
    hourly = y.set_axis(pd.date_range("2024", periods=60, freq="3h"))
    slow = make("h").score(hourly, at_values(make("h"), same))
    assert slow == pytest.approx(make("s").score(y.set_axis(3.0 * np.arange(60)), at_values(time, same)), abs=1e-9)


def test_em_on_a_posterior_is_em_on_the_score():
    y = simulated(("local_trend", "ar"))
    model = model_of(("local_trend", "ar"))
    params = at_values(model)
    core, tree, batch, *_ = model._prepare(y, params, freeze=())
    tree = core.m_step(core.e_step(tree, batch)[0], tree)
    by_score = core.structure(tree).patterns["process_cov"].read(tree.process_cov)
    new = model.m_step(y, model.e_step(y, params), params)
    model.params_ = new
    np.testing.assert_allclose(model.summary().loc[["level_var", "slope_var"], "value"], by_score[:2], rtol=1e-6)
    assert new["measurement_cov"].item() == pytest.approx(tree.measurement_cov[0, 0], rel=1e-7)
    assert model.score(y, new) > model.score(y, params)


def test_axes_of_a_motion_have_their_own():
    beside = designs.seasonal(6.3, harmonics=1) + designs.ar(1)
    both = designs.constant_velocity(["e", "n"], density="separate", noise="separate") + beside
    values = {"ar1_e": 0.5, "ar1_n": 0.7, "arma_var_e": 2.0, "arma_var_n": 1.0, "noise_var": 0.3}
    values |= {f"{name}_{axis}": 0.02 for axis in "en" for name in ("acceleration_density", "seasonal_var")}
    rng, times = np.random.default_rng(8), np.cumsum(np.random.default_rng(8).exponential(1.0, 150))
    drawn = both.sample(times, at_values(both, values | {"noise_var_e": 0.3, "noise_var_n": 0.3}), seed=4)["y"].values
    y = pd.DataFrame(drawn, index=pd.Index(times, name="second"), columns=["e", "n"])
    y[rng.random(y.shape) < 0.1] = np.nan
    fitted = both.fit(y, n_starts=2)
    names = fitted.summary().index.get_level_values(0)
    assert {"acceleration_density_e", "noise_var_n", "seasonal_var_n", "ar1_e", "arma_var_n", "ar_time_e"} <= set(names)
    alone = {axis: designs.constant_velocity([axis]) + beside for axis in y}
    scores = [model.fit(y[axis], n_starts=2).score(y[axis]) for axis, model in alone.items()]
    assert fitted.score(y) == pytest.approx(sum(scores), abs=1e-4)
    parts = fitted.decompose(y)
    assert parts["component"].values.tolist() == [
        "e", "n", "seasonal_e", "seasonal_n", "ar_e", "ar_n", "irregular_e", "irregular_n",
    ]  # fmt: skip
    for axis in y:
        own = parts["mean"].sel(component=(parts["column"] == axis) & parts["in_y"]).sum("component", skipna=False)
        seen = y[axis].notna().to_numpy()
        np.testing.assert_allclose(own[seen], y[axis][seen], atol=1e-8)
    errors = fitted.standard_errors(y, of="named")
    assert np.isfinite([errors["ar1_e"], errors["ar_time_n"], errors["acceleration_density_e"]]).all()
    only = (designs.constant_velocity(["e", "n"]) + designs.ar(1).on("n"))._names()
    assert only == ["e", "n", "v_e", "v_n", "arma -0_n"]


def test_one_of_two_sensors_has_a_bias_and_coloured_noise():
    rng = np.random.default_rng(9)
    t = np.cumsum(rng.exponential(1.0, 300))
    truth = designs.constant_velocity(1, density=0.05, noise=1.0)
    step = {"transition": [[1, 1], [0, 1]], "process_cov": 0.05 * np.array([[1 / 3, 0.5], [0.5, 1]])}
    place = truth.sample(t, truth.parameters(**step, measurement_cov=[[1.0]]), seed=2)["state"].values[:, 0]
    coloured = np.zeros(300)
    for i in range(1, 300):
        phi = np.exp(-(t[i] - t[i - 1]) / 5.0)
        coloured[i] = phi * coloured[i - 1] + np.sqrt(4.0 * (1 - phi**2)) * rng.normal()
    y = np.column_stack([place + rng.normal(0, 0.5, 300), place + 7.0 + coloured + rng.normal(0, 0.5, 300)])
    y = xr.DataArray(y, {"time": t}, ("time", "feature"))
    y[::3, 0] = np.nan
    motion = designs.constant_velocity(1, sensors={"gps": ["x"], "odo": ["x"]})
    model = (motion + designs.constant().on("odo") + designs.ar(1).on("odo")).fit(y)
    assert model.converged_
    parts = model.decompose(y).set_index(component="component")
    bias = parts["mean"].sel(component="constant_odo_x")
    assert bias[0].item() == pytest.approx(7.0, abs=3 * 2.0 / np.sqrt(t[-1] / 10.0))
    values, errors = model.summary()["value"].droplevel([1, 2]), model.standard_errors(y, of="named")
    assert values["ar_time_odo_x"] == pytest.approx(5.0, abs=3 * errors["ar_time_odo_x"].item())
    plain = motion.fit(y)
    kept = [np.sqrt(np.mean((m.decode(y).sel(state="x").values - place) ** 2)) for m in (model, plain)]
    assert kept[0] < 0.5 * kept[1]
    with pytest.raises(ParameterError, match="'gps', 'odo' measure: say which of them has it"):
        (motion + designs.ar(1)).fit(y)


def test_a_panel_with_its_own_times_is_its_series():
    tracks = {key: simulated(("local_trend", "ar"), seed).iloc[: 50 - 7 * seed] for seed, key in enumerate("abc")}
    tracks = {key: y.set_axis(y.index + seed * np.arange(len(y)) / 9.0) for seed, (key, y) in enumerate(tracks.items())}
    model = (designs.local_trend(unit="h") + designs.ar(1)).fit(tracks, n_starts=1)
    assert model.score(tracks) == pytest.approx(sum(model.score(y) for y in tracks.values()), abs=1e-8)
    smoothed = model.e_step(tracks)
    one = model.e_step(tracks["b"])
    np.testing.assert_allclose(smoothed["gamma"].sel(sequence="b")[: len(tracks["b"])], one["gamma"], atol=1e-8)
    drifting = designs.local_level(unit="h") + designs.regression(np.arange(50.0) % 3, drifting=True)
    fitted = drifting.fit(tracks, n_starts=1)
    rows = fitted.parameters_at(tracks["b"])  # regressors of the rows of y, though X has more
    assert rows["observation"].sizes["hour"] == len(tracks["b"]) < 50
    found = checks.auxiliary_residuals(tracks, fitted.e_step(tracks), fitted.parameters_at(tracks))
    alone = checks.auxiliary_residuals(tracks["b"], fitted.e_step(tracks["b"]), rows)
    padded = found["measurement_shock"].sel(sequence="b")[: len(tracks["b"])]
    np.testing.assert_allclose(padded, alone["measurement_shock"], rtol=1e-6, atol=1e-9)
    assert fitted.score(tracks) == pytest.approx(sum(fitted.score(y) for y in tracks.values()), abs=1e-8)


def test_streams_files_forecasts_and_weights(tmp_path):
    y = simulated(("local_trend", "ar"))
    model = (designs.local_trend(unit="h") + designs.ar(1)).fit(y, n_starts=2)
    stream = model.stream()
    steps = [stream.update(value, time=time) for time, value in y.items()]
    known = model.filter(y)
    np.testing.assert_allclose(steps[-1].filtered, known["filtered"].values[-1], rtol=1e-8)
    assert stream.log_likelihood == pytest.approx(model.score(y), rel=1e-10)
    model.save(tmp_path / "model.nc")
    again = designs.ContinuousModel.load(tmp_path / "model.nc")
    assert again.score(y) == pytest.approx(model.score(y), rel=1e-12)
    ahead = model.forecast(y, 3)
    there = model.at(y, ahead["hour"].values)
    np.testing.assert_allclose(ahead["mean"].values, there["mean"].values, rtol=1e-8)
    np.testing.assert_allclose(ahead["variance"].values.ravel(), there["cov"].values.ravel(), rtol=1e-8)
    drawn = model.simulate(y, 3, 4000, seed=1)["y"].values
    np.testing.assert_allclose(
        drawn.mean(axis=tuple(i for i, s in enumerate(drawn.shape) if s == 4000)).ravel(),
        ahead["mean"].values.ravel(),
        atol=0.15,
    )
    found = checks.auxiliary_residuals(y, model.e_step(y), model.parameters_at(y))
    assert np.isfinite(found["state_shock"].sel(state="arma -0").values[5:-1]).all()
    with pytest.raises(DataError, match=r"rows are uneven: pass parameters_at\(y\)"):
        checks.auxiliary_residuals(y, model.e_step(y), model.params_)
    even = pd.Series(np.cumsum(np.random.default_rng(2).normal(size=30)), 2.0 * np.arange(30.0))
    walk = designs.local_level(unit="h").fit(even)
    with pytest.raises(DataError, match=r"but rows are 2 apart, not 1 time: pass parameters_at\(y\)"):
        checks.auxiliary_residuals(even, walk.e_step(even), walk.params_)
    checks.auxiliary_residuals(even, walk.e_step(even), walk.parameters_at(even))
    hours = pd.date_range("2024", periods=59, freq="h")
    for index, other, told in ((2 * np.arange(30), np.arange(30), "2 time"), (hours[::2], hours[:30], "2 h")):
        motion = designs.constant_velocity(["x"], density=0.3, noise=1.0, unit="h").fit(even.set_axis(index))
        checks.auxiliary_residuals(even.set_axis(index), motion.e_step(even.set_axis(index)), motion.params_)
        closer = even.set_axis(other)
        with pytest.raises(DataError, match=f"a step of {told}, but rows at time .* are not one apart: pass param"):
            checks.auxiliary_residuals(closer, motion.e_step(closer), motion.params_)
    assert model.summary().loc[["level_var", "slope_var", "ar_time"], "unit"].tolist() == [
        "y^2/time",
        "y^2/time^3",
        "time",
    ]
    heavy = sse.robust.fit_student(
        model_of(("local_level",)), y.fillna(0.0).where(y.notna()), tol=1e-3, method="variational"
    )
    assert heavy.converged
    draws = model.parameter_draws(y, 5)
    assert np.isfinite(model.score(y, draws.isel(draw=2)))


def test_a_cycle_turns_one_way_whatever_its_start():
    """The other has the same likelihood, and which of them a fit ended in was chance; as of cycles on rows."""
    t = np.cumsum(np.random.default_rng(4).exponential(1.0, 120))
    y = pd.Series(np.sin(2.0 * np.pi * t / 9.0) + np.random.default_rng(5).normal(0.0, 0.4, 120), t)
    model = designs.local_level(unit="s") + designs.cycle(9.0)
    found = model.fit(y, n_starts=1).params_
    turned = found.copy(deep=True)
    for row, column in (("cycle", "cycle*"), ("cycle*", "cycle")):
        turned["transition"].loc[{"next_state": row, "state": column}] *= -1.0
    assert model.score(y, turned) == pytest.approx(model.score(y, found), abs=1e-9)
    again = (designs.local_level(unit="s") + designs.cycle(9.0)).fit(y, start=turned)
    for params in (found, again.params_):
        assert params["transition"].sel(next_state="cycle", state="cycle*").item() > 0.0
    np.testing.assert_allclose(again.summary()["value"], model.summary()["value"], rtol=1e-3)


def test_blank_rows_change_nothing():
    y = simulated(("local_level",))
    model = designs.local_level(unit="h").fit(y)
    other = designs.local_level(unit="h").fit(y.dropna())
    np.testing.assert_allclose(other.summary()["value"], model.summary()["value"], rtol=1e-5)
    assert other.score(y.dropna()) == pytest.approx(other.score(y), abs=1e-9)


def test_simulated_series_give_their_values_back():
    """Standard scores of the estimates over seeds, of a level and coloured noise on gappy times."""
    model = designs.local_level(unit="s") + designs.ar(1)
    truth = {"level_var": 0.02, "ar1": 0.6, "arma_var": 1.0, "noise_var": 0.2}
    params, scores = at_values(model, truth), []
    for seed in range(10):
        t = np.cumsum(np.random.default_rng(seed).exponential(0.7, 400))
        drawn = model.sample(t, params, seed=seed)["y"]
        y = pd.Series(drawn.values[:, 0], index=t)
        fitted = (designs.local_level(unit="s") + designs.ar(1)).fit(y, n_starts=1)
        values, errors = fitted.summary()["value"].droplevel([1, 2]), fitted.standard_errors(y, of="named")
        scores.append([(values[name] - truth[name]) / errors[name].item() for name in ("ar1", "arma_var")])
    scores = np.array(scores)
    assert np.abs(scores.mean(0)).max() < 3.0 / np.sqrt(10)
    assert ((scores**2).mean(0) > 0.3).all()
    assert ((scores**2).mean(0) < 2.6).all()


@pytest.mark.parametrize(("call", "message"), [
    (lambda y: designs.seasonal(12, "dummy", unit="h").fit(y), r'seasonal\(kind="dummy"\): what moves from row to'),
    (lambda y: designs.seasonal(12.5).fit(y), "period is 12.5, expected a whole number"),
    (lambda y: designs.ar(2, unit="h").fit(y), r"arima\(2, 0, 0\): .* there are ar\(1\).* and cycle\(\)"),
    (lambda y: (designs.local_level(unit="h") + designs.arima(0, 1, 1)).fit(y), r"arima\(0, 1, 1\)"),
    (lambda y: designs.seasonal(1.0, unit="D").fit(y), "no harmonic slower than two units of time: say harmonics="),
    (lambda y: designs.local_level(unit="h") + designs.local_level(unit="D"), "unit is 'h' on the left and 'D' on the"),
    (lambda y: designs.constant_velocity(1) + designs.constant_velocity(1), "two motions cannot be added"),
    (lambda y: (designs.local_level(unit="h") + designs.ar(1).on("gps")).fit(y), "arma is on 'gps', but there is one"),
    (lambda y: (designs.constant_velocity(1) + designs.ar(1).on("gps")).fit(y), "is on 'gps', expected one of 'x'"),
    (lambda y: designs.ar(1).on("gps").fit(y), "a component is on 'gps': add it to the motion"),
    (lambda y: designs.local_level(unit="h").fit(np.zeros((9, 2))), "y has 2 columns, expected one"),
    (lambda y: designs.seasonal(12, "dummy", harmonics=2), 'kind="dummy" has none'),
    (lambda y: (designs.StructuralModel([("local_level", {})], process_prior=sse.priors.InverseWishart(3, 1.0))
                + designs.constant_velocity(1)), "process_prior is of noise per row"),
])  # fmt: skip
def test_what_has_no_meaning_in_continuous_time_is_refused(call, message):
    with pytest.raises(ParameterError, match=message):
        call(simulated(("local_level",)))


def test_what_rows_do_not_tell():
    y = simulated(("local_level",))
    model = designs.local_level(unit="h") + designs.regression(np.arange(50.0))
    fitted = model.fit(y, n_starts=1)
    with pytest.raises(ParameterError, match=r"at\(\) looks between rows, where the columns of the regression"):
        fitted.at(y, [5.0])
    with pytest.raises(ParameterError, match="a stream goes on beyond the rows, where the columns"):
        fitted.stream()
    with pytest.raises(DataError, match="X of the regression has 50 rows, but a forecast 2 rows"):
        fitted.forecast(y, 2)
    with pytest.raises(UndeterminedStartError):
        (designs.local_level(unit="h") + designs.constant(start="diffuse")).fit(y)


def test_rows_that_tell_no_time_are_as_far_apart_as_those_of_the_fit(tmp_path):
    """Values of a sum are per unit of time, but rows without times are the steps of the fit; also from a file."""
    rng = np.random.default_rng(3)
    y = pd.Series(np.cumsum(rng.normal(size=60)), pd.Index(0.1 * np.arange(60), name="time"))
    model = (designs.local_level(unit="s") + designs.ar(1)).fit(y, n_starts=1, max_iter=5, tol=0.0)
    model.save(tmp_path / "model.nc")
    for own in (model, type(model).load(tmp_path / "model.nc")):
        np.testing.assert_allclose(own.sample(4, seed=1)["time"], [0.0, 0.1, 0.2, 0.3], atol=1e-12)
        silent, told = own.stream(), own.stream()
        steps = [(silent.update(value), told.update(value, time=time)) for time, value in y.items()]
        np.testing.assert_allclose(steps[-1][0].filtered, steps[-1][1].filtered, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(silent.predicted, own.forecast(y, 1)["predicted"].values[0], rtol=1e-9, atol=1e-12)


def test_the_summary_has_the_order_of_the_same_model_by_rows():
    y = np.random.default_rng(0).normal(size=40).cumsum()
    by_row, by_time = (
        sse.designs.local_trend(unit=unit).fit(y, n_starts=1).summary().index.get_level_values(0)
        for unit in (None, "D")
    )
    assert list(by_row) == list(by_time) == ["level_var", "slope_var", "noise_var"]
