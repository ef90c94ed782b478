"""Known inputs of a linear-Gaussian model: every question against the dense joint Gaussian, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from lgssm_cases import core_of, em_steps, oracle_of, score_and_slopes
from oracles_gaussian import joint, posterior

import statespace_em as sse
from statespace_em.errors import DataError, ParameterError
from statespace_em.priors import InverseWishart

A = [[0.7, 0.2], [-0.1, 0.5]]
C = [[1.0, 0.0], [0.4, 1.0], [0.2, -0.7]]
T, K, HORIZON = 20, 2, 3
NAMES = ["rain", "heat"]

EFFECTS = {
    "free on both sides": {"state_input": "free", "observation_input": "free"},
    "states only": {"state_input": "free"},
    "measurements only": {"observation_input": "free"},
    "fixed": {"state_input": [[0.5, 0.1], [0.0, -0.3]], "observation_input": [[1.0, 0.0], [0.2, 0.4], [0.0, 2.0]]},
    "named": {"state_input": [["b", 0], [0, "b"]], "observation_input": [["d", 1], [0, "2*d"], [0.5, "e"]]},
}
STARTS = {
    "known": {"initial": "known", "initial_mean": [0.3, -0.2], "initial_cov": [[1.0, 0.2], [0.2, 0.5]]},
    "estimated": {},
    "diffuse": {"initial": "diffuse"},
    "fixed": {"initial": "fixed"},
}


def model_of(effects, start="known", **more):
    arguments = {"transition": A, "observation": C, "measurement_cov": "diagonal", **EFFECTS[effects], **STARTS[start]}
    return sse.LinearGaussianSSM(**{**arguments, **more})


def data(seed=0, rows=T, missing=0.2):
    rng = np.random.default_rng(seed)
    U = rng.normal(size=(rows + HORIZON, K)) + 0.5
    state, y = rng.normal(size=2), np.empty((rows, 3))
    B, D = np.array([[0.8, -0.3], [0.1, 0.6]]), np.array([[1.0, 0.0], [0.5, 1.5], [-1.0, 0.3]])
    for t in range(rows):
        y[t] = np.array(C) @ state + D @ U[t] + 0.5 * rng.normal(size=3)
        state = np.array(A) @ state + B @ U[t] + rng.normal(size=2)
    y[rng.random(y.shape) < missing] = np.nan
    return y, U


def dense(params, U):
    """Parameters of the oracle: the inputs are offsets that vary."""
    sizes = {"state_input": params.sizes["state"], "observation_input": params.sizes["feature"]}
    B, D = (params[name].values if name in params else np.zeros((size, K)) for name, size in sizes.items())
    return oracle_of(params, state_offset=U @ B.T, observation_offset=U @ D.T)


@pytest.mark.parametrize("effects", EFFECTS)
def test_moments_and_forecasts_are_those_of_the_dense_gaussian(effects):
    y, U = data()
    model = model_of(effects).fit(y, inputs=U, max_iter=5, tol=0)
    p, one = dense(model.params_, U), {"rtol": 1e-9, "atol": 1e-9}
    expected = posterior(y, p)
    assert model.score(y, inputs=U) == pytest.approx(expected.log_likelihood, rel=1e-11)
    smoothed, known = model.e_step(y, inputs=U), model.filter(y, inputs=U)
    np.testing.assert_allclose(smoothed.gamma, expected.mean, **one)
    np.testing.assert_allclose(smoothed.cov, expected.cov, **one)
    np.testing.assert_allclose(known.filtered, expected.filtered_mean, **one)
    np.testing.assert_allclose(known.predicted, expected.predicted_mean, **one)
    np.testing.assert_allclose(known.innovation, expected.innovation, **one)
    np.testing.assert_allclose(model.smooth(y, inputs=U).smoothed, expected.mean, **one)
    np.testing.assert_allclose(model.decode(y, inputs=U), expected.mean, **one)
    later = posterior(np.vstack([y, np.full((HORIZON, 3), np.nan)]), p)
    ahead = model.forecast(y, HORIZON, inputs=U)
    np.testing.assert_allclose(ahead.predicted, later.mean[T:], **one)
    np.testing.assert_allclose(ahead.predicted_cov, later.cov[T:], **one)
    np.testing.assert_allclose(ahead["mean"], later.mean[T:] @ np.array(C).T + p.d[T:], **one)
    gaps = model.impute(y, inputs=U)
    m, V = joint(p, T)
    seen = T * 2 + np.flatnonzero(~np.isnan(y))
    gain = np.linalg.solve(V[np.ix_(seen, seen)], V[seen]).T
    whole = (m + gain @ (y[~np.isnan(y)] - m[seen]))[T * 2 :].reshape(T, 3)
    np.testing.assert_allclose(gaps["mean"], whole, **one)
    for lag in (0, 2):
        late = model.fixed_lag(y, lag, inputs=U).smoothed.values
        for t in (0, 4):
            short = posterior(y[: t + lag + 1], p.rows(slice(0, t + lag + 1)))
            np.testing.assert_allclose(late[t], short.mean[t], **one)


def set_up(effects, start, **more):
    y, U = data()
    other, W = data(1, 9)
    model = model_of(effects, start, **more)._with_inputs([U, W], [y, other])
    core, batch, point = core_of(model, [y, other], {"initial_cov": np.eye(2)} if start == "estimated" else {})
    vector = core.to_vector(point, point)
    return core, batch, core.from_vector(vector + 0.1 * np.random.default_rng(1).normal(size=vector.size), point)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("effects", EFFECTS)
def test_score_is_the_gradient_and_em_climbs(effects, start):
    core, batch, point = set_up(effects, start, process_prior=InverseWishart(5.0, 2.0))
    score, slopes = score_and_slopes(core, batch, point)
    assert slopes == pytest.approx(score, rel=2e-6, abs=2e-6)
    trace, _ = em_steps(core, batch, point, 30)
    assert (np.diff(trace) >= -1e-10 * np.abs(trace[1:])).all()


@pytest.mark.parametrize("effects", EFFECTS)
def test_m_step_of_a_posterior_is_that_of_the_fit(effects):
    y, U = data()
    model = model_of(effects)
    model.fit(y, inputs=U, max_iter=3, tol=0, accelerate=False, n_starts=1)
    new = model.m_step(y, model.e_step(y, inputs=U), inputs=U)
    again = model_of(effects).fit(y, inputs=U, start=model.params_, max_iter=2, tol=0, accelerate=False)
    for name in new:
        np.testing.assert_allclose(new[name], again.params_[name], rtol=1e-9, atol=1e-12)
    assert set(new.data_vars) == set(model.params_.data_vars)


def test_inputs_alone_are_a_regression():
    """No state noise: least squares of y on the inputs, with the variance of maximum likelihood."""
    rng = np.random.default_rng(3)
    U = np.column_stack([np.ones(40), rng.normal(size=40)])
    y = U @ [2.0, -1.0] + 0.3 * rng.normal(size=40)
    known = {"transition": [[0]], "process_cov": [[0]], "observation": [[1]], "initial": "known"}
    model = sse.LinearGaussianSSM(**known, initial_mean=[0], initial_cov=[[0]], observation_input=[["a", "b"]])
    model.fit(y, inputs=U)
    slopes, rest = np.linalg.lstsq(U, y, rcond=None)[:2]
    np.testing.assert_allclose(model.params_["observation_input"].values[0], slopes, rtol=1e-10)
    assert model.params_["measurement_cov"].item() == pytest.approx(rest[0] / 40, rel=1e-9)
    errors = model.standard_errors(y, inputs=U)["observation_input"].values[0]
    np.testing.assert_allclose(errors, np.sqrt(np.diag(np.linalg.inv(U.T @ U)) * rest[0] / 40), rtol=1e-6)
    assert model.n_parameters_ == 3
    assert model.summary().loc[["a", "b"], "value"].tolist() == pytest.approx(slopes.tolist())


def test_a_break_of_the_nile():
    flow = sse.datasets.nile()
    dam = pd.DataFrame({"dam": (flow.index > 1898) * 1.0}, index=flow.index)
    model = sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], observation_input="free", initial="diffuse")
    model.fit(flow, inputs=dam)
    effect = model.params_["observation_input"]
    assert effect.coords["input"].values.tolist() == ["dam"]
    after = flow[flow.index > 1898].mean() - flow[flow.index <= 1898].mean()
    assert effect.item() == pytest.approx(after, rel=1e-4)  # with the break nothing is left for the level to do
    assert model.params_["process_cov"].item() < 1e-3 * model.params_["measurement_cov"].item()


@pytest.mark.parametrize("factor", [1e-6, 1e5])
def test_units_of_inputs_do_not_matter(factor):
    y, U = data(rows=40)
    one, other = (model_of("free on both sides", "estimated").fit(y, inputs=s * U) for s in (1.0, factor))
    assert one.score(y, inputs=U) == pytest.approx(other.score(y, inputs=factor * U), abs=2e-8)
    np.testing.assert_allclose(one.params_["state_input"], factor * other.params_["state_input"], rtol=1e-3)


def test_basis_of_the_states_is_not_counted():
    y, U = data(rows=40)
    model = sse.LinearGaussianSSM(2, state_input="free", observation_input="free")
    model.fit(y, inputs=U, max_iter=3, tol=0)
    plain = sse.LinearGaussianSSM(2).fit(y, max_iter=3, tol=0)
    assert model.n_parameters_ == plain.n_parameters_ + 2 * K + 3 * K


def labelled(y, U):
    times = pd.date_range("2024-01-01", periods=len(U), name="date")
    return pd.DataFrame(y, times[: len(y)], list("abc")), pd.DataFrame(U, times, NAMES)


def test_rows_find_their_inputs_by_time_and_columns_by_name():
    y, U = data(rows=60)
    frame, inputs = labelled(y, U)
    model = model_of("free on both sides").fit(frame, inputs=inputs)
    assert model.params_["state_input"].coords["input"].values.tolist() == NAMES
    expected = model.score(frame, inputs=inputs)
    assert model.score(frame, inputs=U) == expected
    assert model.score(frame, inputs=inputs[NAMES[::-1]]) == expected
    assert model.score(frame, inputs=xr.DataArray(inputs)) == expected
    assert model.score(frame.iloc[4:], inputs=inputs) == model.score(frame.iloc[4:], inputs=inputs.iloc[4:])
    ahead = model.forecast(frame.iloc[:-2], 2, inputs=inputs)
    assert ahead.sizes["horizon"] == 2
    both = {"u": frame, "v": frame.iloc[2:9]}
    assert model.score(both, inputs=inputs) == pytest.approx(
        expected + model.score(frame.iloc[2:9], inputs=inputs), rel=1e-12
    )
    one = model.forecast(both, 2, inputs=inputs)["mean"].sel(sequence="v")
    np.testing.assert_allclose(one, model.forecast(frame.iloc[2:9], 2, inputs=inputs)["mean"], rtol=1e-12)
    again = model.standard_errors(frame, inputs=inputs)
    assert again["state_input"].coords["input"].values.tolist() == NAMES


def test_simulations_follow_the_inputs(tmp_path):
    y, U = data(rows=30)
    model = model_of("free on both sides").fit(y, inputs=U)
    ahead = model.forecast(y, HORIZON, inputs=U)
    paths = model.simulate(y, HORIZON, 4000, inputs=U, seed=1)
    spread = np.sqrt(ahead["variance"].values / 4000)
    assert (np.abs(paths["y"].mean("path").values - ahead["mean"].values) < 5 * spread).all()
    drawn = model.sample(10, inputs=U, seed=0)
    other = model.sample(10, inputs=2 * U, seed=0)
    B, D = model.params_["state_input"].values, model.params_["observation_input"].values
    state = np.zeros(2)
    for t in range(10):  # the same noise: differences are those of the inputs alone
        np.testing.assert_allclose(other.state[t] - drawn.state[t], state, atol=1e-10)
        np.testing.assert_allclose(other.y[t] - drawn.y[t], np.array(C) @ state + D @ U[t], atol=1e-10)
        state = np.array(A) @ state + B @ U[t]
    draws = model.simulate_smoothed(y, 500, inputs=U, seed=2)
    smoothed = model.e_step(y, inputs=U)
    assert (
        np.abs(draws.mean("path") - smoothed.gamma.values)
        < 5 * np.sqrt(np.diagonal(smoothed["cov"].values, axis1=1, axis2=2) / 500) + 1e-9
    ).all()
    model.save(tmp_path / "model.nc")
    again = sse.LinearGaussianSSM.load(tmp_path / "model.nc")
    assert again.score(y, inputs=U) == model.score(y, inputs=U)
    boot = model.bootstrap(y, n_replicates=2, inputs=U)
    assert boot["state_input"].sizes["replicate"] == 2
    assert model.diagnose(y, inputs=U) is not None
    assert model.residuals(y, inputs=U).sizes == model.one_step(y, inputs=U)["mean"].sizes


def test_what_does_not_fit_is_refused():
    y, U = data()
    frame, inputs = labelled(y, U)
    model = model_of("free on both sides")
    for ask in (lambda: model.fit(y), lambda: model.fit(y, inputs=U).score(y), lambda: model.sample(5)):
        with pytest.raises(DataError, match="the model has inputs, but they are missing: pass inputs="):
            ask()
    with pytest.raises(ParameterError, match="this LinearGaussianSSM has none"):
        sse.LinearGaussianSSM(2).fit(y, inputs=U)
    with pytest.raises(ParameterError, match="this StructuralModel has none"):
        sse.designs.local_level().fit(y[:, :1], inputs=U)
    with pytest.raises(DataError, match="inputs= ends 3 rows after y, but 4 are asked for"):
        model.forecast(y, 4, inputs=U)
    with pytest.raises(DataError, match="inputs= ends 3 rows after y, but 4 are asked for"):
        model.simulate(y, 4, 2, inputs=U)
    with pytest.raises(DataError, match="inputs= has 7 rows, but y has 20"):
        model.score(y, inputs=U[:7])
    with pytest.raises(DataError, match="inputs= has 3 columns"):
        model.score(y, inputs=np.hstack([U, U[:, :1]]))
    with pytest.raises(ParameterError, match="inputs= has 2 columns, but the matrices of the model are for 1"):
        model_of("states only", state_input=[["b"], [0]]).fit(y, inputs=U)
    with pytest.raises(DataError, match="has no row for date 2024-01-03"):
        model.score(frame, inputs=inputs.drop(inputs.index[2]))
    with pytest.raises(DataError, match="has rows between date 2024-01-02 and 2024-01-04 that y does not have"):
        model.score(frame.drop(frame.index[2]), inputs=inputs)
    gap = inputs.copy()
    gap.iloc[3, 1] = np.nan
    with pytest.raises(DataError, match=r"inputs= is missing \(column 'heat', date 2024-01-04"):
        model.score(frame, inputs=gap)
    model.fit(frame, inputs=inputs)
    with pytest.raises(DataError, match="inputs= has no column 'heat'"):
        model.score(frame, inputs=inputs.rename(columns={"heat": "cold"}))
    with pytest.raises(DataError, match="inputs= has 2 sequences, but y has 1"):
        model.score(frame, inputs=[inputs, inputs])
    stream = model.stream()
    with pytest.raises(DataError, match="the model has the inputs 'rain', 'heat', but those of time 0 are missing"):
        stream.update(y[0])
    with pytest.raises(DataError, match="inputs= of time 'first' has no 'heat', expected 'rain', 'heat'"):
        stream.update(y[0], "first", inputs={"rain": 1.0})
    with pytest.raises(DataError, match=r"inputs= of time 0 has shape \(3,\), expected \(2,\) for 'rain', 'heat'"):
        stream.update(y[0], inputs=[1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="inputs= of time 0 has nan for 'heat': inputs must be known"):
        stream.update(y[0], inputs=[1.0, np.nan])
    with pytest.raises(DataError, match="inputs= of time 0 is 'wet', expected numbers for 'rain', 'heat'"):
        stream.update(y[0], inputs="wet")
    with pytest.raises(ParameterError, match="inputs= was given, but the model has none"):
        sse.designs.local_level().fit(sse.datasets.nile()).stream().update(900.0, inputs=[1.0])
    assert stream.n_rows == 0
    with pytest.raises(ParameterError, match="state_input has a free entry in the row of state 1, which has no noise"):
        model_of("states only", process_cov=[["q", 0], [0, 0]]).fit(y, inputs=U)


@pytest.mark.parametrize("effects", ["free on both sides", "states only", "measurements only"])
@pytest.mark.parametrize("start", ["known", "diffuse"])
@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_a_stream_takes_the_inputs_of_each_row(effects, start, tmp_path):
    y, U = data()
    frame, inputs = labelled(y, U)
    model = model_of(effects, start).fit(frame, inputs=inputs, max_iter=20)
    expected, stream, steps = model.filter(frame, inputs=inputs), model.stream(), []
    for t, (date, row) in enumerate(frame.iterrows()):
        own = inputs.iloc[t] if t % 2 else inputs.iloc[t].tolist()  # by name, or in order
        steps.append(stream.update(row if t % 3 else row.to_dict(), date, inputs=own))
        if t in (1, 9):
            stream.save(tmp_path / "stream.nc")
            stream = sse.LinearGaussianSSM.resume(tmp_path / "stream.nc")
    found = stream.dataset(steps)
    for name in found.data_vars:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-10, err_msg=str(name))
    ahead = model.forecast(frame, 1, inputs=inputs)
    np.testing.assert_allclose(stream.predicted, ahead["predicted"][0], rtol=1e-9)
    np.testing.assert_allclose(stream.predicted_cov, ahead["predicted_cov"][0], rtol=1e-9)
