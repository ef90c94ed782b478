"""Stationary starts of dynamics that are another in every row: those of the first row settle it."""

import numpy as np
import pytest
from lgssm_cases import core_of, em_steps, score_and_slopes
from oracles_gaussian import Parameters, posterior

import statespace_em as sse
from statespace_em.errors import ParameterError, UnstableDynamicsError

T = 40
RNG = np.random.default_rng(1)
LATE = np.arange(T) >= 22
X, W = RNG.normal(size=T), RNG.uniform(0.5, 2.0, T)
PLAIN = {"transition": [["phi"]], "process_cov": [["q"]], "observation": [[1]], "measurement_cov": [["r"]]}
CASES = {
    "variance": {**PLAIN, "process_cov": [[np.where(LATE, "after", "before")]]},
    "coefficient": {**PLAIN, "transition": [[np.where(LATE, "after", "before")]]},
    "offset": {**PLAIN, "state_offset": [{"m": 1, "b": LATE}]},
    "known coefficient": {**PLAIN, "transition": [[np.where(LATE, 0.5, 0.8)]]},
    "known noise": {**PLAIN, "process_cov": [[W]]},
    "two states": {
        "transition": [["a", {"b": 1 + 0.1 * X}], [0, "c"]], "process_cov": [[{"q": W}, 0], [0, "s"]],
        "observation": [[1, 0], [0.3, 1]], "measurement_cov": [["r", 0], [0, "r"]],
    },
    "beside a level": {
        "transition": [[1, 0], [0, "c"]], "process_cov": [[np.where(LATE, "after", "before"), 0], [0, "s"]],
        "observation": [[1, 1]], "measurement_cov": [["r"]], "initial": ["known", "stationary"],
        "initial_mean": [0.2, 0.0], "initial_cov": [[3.0, 0.0], [0.0, 0.0]],
    },
}  # fmt: skip


def data(columns, seed=2):
    rng, state, y = np.random.default_rng(seed), 0.0, np.empty((T, columns))
    for t in range(T):
        state = 0.7 * state + (2.0 if LATE[t] else 1.0) * rng.normal()
        y[t] = state + 0.5 * rng.normal(size=columns)
    y[rng.random(y.shape) < 0.1] = np.nan
    return y


def model_of(case):
    return sse.LinearGaussianSSM(**({"initial": "stationary"} | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_the_score_is_the_slope_and_steps_never_lose(case):
    core, batch, params = core_of(model_of(case), data(len(CASES[case]["observation"])))
    trace, params = em_steps(core, batch, params, 4)
    assert (np.diff(trace) > -1e-10).all()
    found, slopes = score_and_slopes(core, batch, params)
    np.testing.assert_allclose(found, slopes, rtol=1e-6, atol=1e-7 * max(1.0, np.abs(slopes).max()))


@pytest.mark.parametrize("case", CASES)
def test_a_fit_is_at_the_top_of_the_dense_likelihood(case):
    y = data(len(CASES[case]["observation"]))
    model = model_of(case).fit(y)
    assert model.status_ == "converged"
    assert (np.diff(model.trace_["objective"]) > -1e-8).all()
    params = {name: value.values for name, value in model.params_.data_vars.items()}
    assert dense(params, CASES[case], y) == pytest.approx(model.score(y), rel=1e-10)
    spec = model._specification(y.shape[1])
    for name, pattern in spec.patterns.items():
        if name.startswith("initial"):
            continue
        values = pattern.read(params[name])
        for j, value in enumerate(values):  # no value alone does better
            for factor in (0.98, 1.02):
                moved = np.where(np.arange(len(values)) == j, value * factor, values)
                there = dense(params | {name: pattern.build(moved)}, CASES[case], y)
                assert there <= model.score(y) + 1e-9
    ahead = model.forecast(y, 1) if all(n > T for n in spec.by_row.values()) else None
    assert ahead is None  # rows of the future are not known
    assert model.sample(10, seed=0)["y"].shape == (10, y.shape[1])


def dense(params, case, y):
    """Log-likelihood of one joint Gaussian whose first state has the moments that row 0 settles to."""
    rows = {name: value if value.ndim == 3 else value[None] for name, value in params.items() if value.ndim > 1}
    b = params.get("state_offset", np.zeros(len(rows["transition"][0])))
    b = b if b.ndim == 2 else b[None]
    A, Q = rows["transition"][0], rows["process_cov"][0]
    some = np.array([word == "stationary" for word in case.get("initial", ["stationary"] * len(A))])
    mean, cov = np.array(case.get("initial_mean", np.zeros(len(A)))), np.array(case.get("initial_cov", 0.0 * A))
    block = np.ix_(some, some)
    n = int(some.sum())
    mean[some] = np.linalg.solve(np.eye(n) - A[block], b[0][some])
    cov[block] = np.linalg.solve(np.eye(n * n) - np.kron(A[block], A[block]), Q[block].ravel()).reshape(n, n)
    p = Parameters(
        rows["transition"], b, rows["process_cov"], rows["observation"], np.zeros((1, y.shape[1])),
        rows["measurement_cov"], mean, cov,
    )  # fmt: skip
    return posterior(y, p).log_likelihood


def test_equal_rows_are_a_constant_model():
    y = data(1)
    one = sse.LinearGaussianSSM(**PLAIN, initial="stationary").fit(y)
    same = sse.LinearGaussianSSM(**{**PLAIN, "process_cov": [[{"q": np.ones(T)}]]}, initial="stationary").fit(y)
    assert same.score(y) == pytest.approx(one.score(y), abs=1e-7)
    np.testing.assert_allclose(same.summary()["value"], one.summary()["value"], rtol=1e-3)


def test_panels_start_alike():
    y = {"a": data(1), "b": data(1, seed=3)[:30]}
    factors = {"a": W, "b": np.append(W[:1], X[1:30] ** 2 + 0.1)}
    model = sse.LinearGaussianSSM(**{**PLAIN, "process_cov": [[{"q": factors}]]}, initial="stationary").fit(y)
    assert model.status_ == "converged"
    total = 0.0
    for key, own in y.items():
        one = sse.LinearGaussianSSM(**{**PLAIN, "process_cov": [[{"q": factors[key]}]]}, initial="stationary")
        values = model.summary()["value"].to_numpy()
        params = one.parameters(
            transition=[[values[0]]], process_cov=values[1] * factors[key][:, None, None], measurement_cov=[[values[2]]]
        )
        total += one.score(own, params)
    assert model.score(y) == pytest.approx(total, rel=1e-12)
    apart = {"a": W, "b": W[1:31]}
    with pytest.raises(
        ParameterError, match=r"process_cov is not the same in the first rows of the sequences 'a', 'b'"
    ):
        sse.LinearGaussianSSM(**{**PLAIN, "process_cov": [[{"q": apart}]]}, initial="stationary").fit(y)
    with pytest.raises(ParameterError, match="state_offset is not the same in the first rows of the sequences"):
        sse.LinearGaussianSSM(**{**PLAIN, "state_offset": [{1: apart}]}, initial="stationary").fit(y)


def test_what_cannot_be_is_refused():
    y = data(1)
    model = model_of("variance").fit(y)
    with pytest.raises(ParameterError, match=r"dynamics by row with a stationary start\), which only the exact score"):
        model.m_step(y, model.e_step(y))
    first = np.where(np.arange(T) == 0, 1.1, 0.5)
    with pytest.raises(UnstableDynamicsError, match=r"modulus 1\.1"):
        sse.LinearGaussianSSM(**{**PLAIN, "transition": [[first]]}, initial="stationary").fit(y)
