"""What is asked of a model, against one dense Gaussian of all states and all y whose matrices are written out by hand.

The models are those whose rows differ: inputs, matrices by row, names by row, uneven times, several sensors, seasons.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from oracles_diffuse import split
from oracles_gaussian import Parameters, joint
from scipy import stats

import statespace_em as sse
from statespace_em import designs

AHEAD = 3


class Case(NamedTuple):
    model: Any
    params: Any
    y: pd.DataFrame
    p: Parameters  # of the rows of y and of those ahead
    parts: dict  # weights (n,) of the states in each component, by name, for `decompose`
    said: dict = {}  # inputs of the rows of y, and of those ahead


def noisy(rng, n, size, spread=2.0):
    y = np.cumsum(rng.normal(size=(n, size)), 0) + rng.normal(0, spread, (n, size))
    y[rng.random(y.shape) < 0.2] = np.nan
    y[[4, 9, 10]] = np.nan
    return y


def rows(T, **given):
    """Parameters of T rows, each with a leading axis."""
    names = ("A", "b", "Q", "C", "d", "R")
    return Parameters(*(np.asarray(given[name], float) for name in names), given["m0"], given["P0"])


def with_inputs():
    rng = np.random.default_rng(1)
    T = 14
    u = rng.normal(size=(T + AHEAD, 2))
    B, D = np.array([[0.5, -1.0], [0.2, 0.3]]), np.array([[1.0, 0.0], [0.4, 0.7]])
    A, Q, C, R = [[0.9, 0.2], [-0.1, 0.7]], [[1.0, 0.3], [0.3, 0.5]], [[1.0, 0.0], [0.5, 1.0]], [[0.8, 0.4], [0.4, 1.0]]
    b, d, m0, P0 = np.array([0.3, 0.0]), np.array([1.0, -2.0]), np.array([1.0, 0.0]), np.array([[2.0, 0.5], [0.5, 1.0]])
    model = sse.LinearGaussianSSM(
        ["s", "t"], transition=A, process_cov=Q, observation=C, measurement_cov=R, state_offset=b, observation_offset=d,
        state_input=B, observation_input=D, initial="known", initial_mean=m0, initial_cov=P0,
    )  # fmt: skip
    y = pd.DataFrame(noisy(rng, T, 2), columns=["a", "b"])
    p = rows(T, A=[A], b=b + u @ B.T, Q=[Q], C=[C], d=d + u @ D.T, R=[R], m0=m0, P0=P0)
    return Case(model, model.parameters(observation=C, state_input=B, observation_input=D), y, p, {}, {"inputs": u})


def by_row():
    rng = np.random.default_rng(2)
    T = 13
    n = T + AHEAD
    phi, scale, mix = rng.uniform(0.5, 1.0, n), rng.uniform(0.3, 3.0, n), rng.normal(size=(n, 2, 1))
    step = rng.normal(size=n)
    A, Q = phi[:, None, None], scale[:, None, None]
    R = scale[:, None, None] * np.array([[1.0, 0.5], [0.5, 2.0]])
    model = sse.LinearGaussianSSM(
        ["s"], transition=A, process_cov=Q, observation=mix, measurement_cov=R, state_offset=step[:, None],
        observation_offset=np.stack([step, -step], 1), initial="known", initial_mean=[2.0], initial_cov=[[3.0]],
    )  # fmt: skip
    y = pd.DataFrame(noisy(rng, T, 2), columns=["a", "b"])
    p = rows(
        T, A=A, b=step[:, None], Q=Q, C=mix, d=np.stack([step, -step], 1), R=R, m0=np.array([2.0]), P0=np.eye(1) * 3.0
    )
    return Case(model, model.parameters(), y, p, {})


def names_by_row():
    rng = np.random.default_rng(3)
    T = 16
    accuracy, late = rng.uniform(0.3, 3.0, T + AHEAD), np.arange(T + AHEAD) >= 9
    model = sse.LinearGaussianSSM(
        ["level"], transition=[[1]], observation=[[1]], measurement_cov=[[{"r": accuracy}]],
        process_cov=[[np.where(late, "q_late", "q_early")]], observation_offset=[{"dam": 1.0 * late}],
        initial="diffuse",
    )  # fmt: skip
    y = pd.DataFrame(noisy(rng, T, 1), columns=["flow"])
    model.fit(y, max_iter=3, tol=0.0)
    value = model.summary()["value"].droplevel([1, 2])
    p = rows(
        T, A=[[[1.0]]], b=[[0.0]], Q=np.where(late, value["q_late"], value["q_early"])[:, None, None], C=[[[1.0]]],
        d=value["dam"] * late[:, None], R=value["r"] * accuracy[:, None, None], m0=np.zeros(1),
        P0=np.full((1, 1), np.inf),
    )  # fmt: skip
    return Case(model, model.params_, y, p, {})


def gaps_of(t):
    """Gap after each row, those ahead being the median."""
    gaps = np.diff(t)
    return np.concatenate([gaps, np.full(1 + AHEAD, np.median(gaps))])


def trends(h, level_var, slope_var):
    A = np.array([[[1.0, g], [0.0, 1.0]] for g in h])
    Q = slope_var * np.array([[[g**3 / 3, g**2 / 2], [g**2 / 2, g]] for g in h])
    Q[:, 0, 0] += level_var * h
    return A, Q


def stacked(*blocks):
    """Block-diagonal matrices, one a row."""
    n = sum(block.shape[1] for block in blocks)
    found, begin = np.zeros((len(blocks[0]), n, n)), 0
    for block in blocks:
        end = begin + block.shape[1]
        found[:, begin:end, begin:end], begin = block, end
    return found


def decays(h, phi, var):
    power = phi**h
    return power[:, None, None], (var / (1 - phi**2) * (1 - power**2))[:, None, None]


def uneven_trend():
    rng = np.random.default_rng(4)
    T = 15
    t = np.cumsum(rng.uniform(0.3, 2.5, T))
    y = pd.DataFrame(noisy(rng, T, 1, 0.5), pd.Index(t, name="time"), columns=["y"])
    model = (designs.local_trend(unit="s") + designs.ar(1)).fit(y, max_iter=4, tol=0.0, n_starts=1)
    value, h = model.summary()["value"].droplevel([1, 2]), gaps_of(t)
    A, Q = trends(h, value["level_var"], value["slope_var"])
    phi, noise = decays(h, value["ar1"], value["arma_var"])
    P0 = np.diag([np.inf, np.inf, value["arma_var"] / (1 - value["ar1"] ** 2)])
    p = rows(
        T, A=stacked(A, phi), b=np.zeros((1, 3)), Q=stacked(Q, noise), C=[[[1.0, 0.0, 1.0]]], d=[[0.0]],
        R=[[[value["noise_var"]]]], m0=np.zeros(3), P0=P0,
    )  # fmt: skip
    parts = {"level": [1, 0, 0], "slope": [0, 1, 0], "ar": [0, 0, 1], "irregular": [1, 0, 1]}
    return Case(model, model.params_, y, p, parts)


def two_sensors():
    rng = np.random.default_rng(5)
    T = 14
    t = np.cumsum(rng.uniform(0.5, 2.0, T))
    y = noisy(rng, T, 3, 0.5)
    y[1::2, 0] = np.nan
    y = pd.DataFrame(y, pd.Index(t, name="time"), columns=["gps", "odo", "baro"])
    sensors = {"gps": ["x"], "odo": ["v_x"], "baro": ["x"]}
    model = designs.constant_velocity(1, sensors=sensors, density=0.7, noise=[1.0, 0.3, 0.5])
    model = model + designs.constant(start="diffuse").on("baro") + designs.ar(1).on("gps")
    model.fit(y, max_iter=4, tol=0.0, n_starts=1)
    value, h = model.summary()["value"].droplevel([1, 2]), gaps_of(t)
    A, Q = trends(h, 0.0, 0.7)
    phi, noise = decays(h, value["ar1_gps_x"], value["arma_var_gps_x"])
    still = np.ones((len(h), 1, 1))
    P0 = np.diag([np.inf, np.inf, np.inf, value["arma_var_gps_x"] / (1 - value["ar1_gps_x"] ** 2)])
    C = np.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 1, 0]])
    p = rows(
        T, A=stacked(A, still, phi), b=np.zeros((1, 4)), Q=stacked(Q, 0 * still, noise), C=C[None], d=np.zeros((1, 3)),
        R=np.diag([1.0, 0.3, 0.5])[None], m0=np.zeros(4), P0=P0,
    )  # fmt: skip
    parts = {
        "x": [1, 0, 0, 0], "v_x": [0, 1, 0, 0], "constant_baro_x": [0, 0, 1, 0], "ar_gps_x": [0, 0, 0, 1],
        "irregular_gps": C[0], "irregular_odo": C[1], "irregular_baro": C[2],
    }  # fmt: skip
    return Case(model, model.params_, y, p, parts)


def seasons():
    rng = np.random.default_rng(6)
    T = 17
    y = pd.DataFrame(noisy(rng, T, 1, 0.5), columns=["y"])
    model = (designs.local_level() + designs.seasonal(4, kind="dummy")).fit(y, max_iter=4, tol=0.0, n_starts=1)
    value = model.summary()["value"].droplevel([1, 2])
    A = np.zeros((4, 4))
    A[0, 0], A[1, 1:], A[2, 1], A[3, 2] = 1.0, -1.0, 1.0, 1.0
    p = rows(
        T, A=A[None], b=np.zeros((1, 4)), Q=np.diag([value["level_var"], value["seasonal_var"], 0.0, 0.0])[None],
        C=[[[1.0, 1.0, 0.0, 0.0]]], d=[[0.0]], R=[[[value["noise_var"]]]], m0=np.zeros(4), P0=np.diag([np.inf] * 4),
    )  # fmt: skip
    return Case(
        model, model.params_, y, p, {"level": [1, 0, 0, 0], "seasonal": [0, 1, 0, 0], "irregular": [1, 1, 0, 0]}
    )


CASES = {build.__name__: build for build in (with_inputs, by_row, names_by_row, uneven_trend, two_sensors, seasons)}


class Dense(NamedTuple):
    """All states (T + AHEAD, n) and y (T + AHEAD, D) given the entries seen."""

    mean: np.ndarray
    cov: np.ndarray
    n: int
    size: int
    length: int

    def states(self, t):
        return slice(t * self.n, (t + 1) * self.n)

    def y(self, t):
        return slice(self.length * self.n + t * self.size, self.length * self.n + (t + 1) * self.size)


def dense(case, seen_rows=None):
    """Condition on the first rows of y (on all unless told)."""
    y = np.full((len(case.y) + AHEAD, case.y.shape[1]), np.nan)
    y[: len(case.y)] = case.y
    y[len(case.y) if seen_rows is None else seen_rows :] = np.nan
    unknown = ~np.isfinite(np.diag(case.p.P0))
    known = case.p._replace(P0=np.where(np.isfinite(case.p.P0), case.p.P0, 0.0))
    mean, cov, response = split(y, known, unknown) if unknown.any() else (*joint(known, len(y)), None)
    seen = known.m0.size * len(y) + np.flatnonzero(~np.isnan(y))
    gain = np.linalg.solve(cov[np.ix_(seen, seen)], cov[seen]).T
    away = y[~np.isnan(y)] - mean[seen]
    if not unknown.any():
        return Dense(mean + gain @ away, cov - gain @ cov[seen], known.m0.size, y.shape[1], len(y))
    X = response[seen]
    inverse = np.linalg.inv(cov[np.ix_(seen, seen)])
    gram, slope = X.T @ inverse @ X, response - gain @ X
    start = np.linalg.solve(gram, X.T @ inverse @ away)
    spread = slope @ np.linalg.solve(gram, slope.T)
    return Dense(mean + gain @ away + slope @ start, cov - gain @ cov[seen] + spread, known.m0.size, y.shape[1], len(y))


SUMS = ("uneven_trend", "two_sensors", "seasons")
built = cache(lambda name: CASES[name]())


@pytest.fixture(params=CASES)
def case(request):
    return built(request.param)


def of_rows(case):
    """What is said of the rows of y alone."""
    return {name: value[: len(case.y)] for name, value in case.said.items()}


def test_states_given_all_rows(case):
    found, known = case.model.e_step(case.y, case.params, **of_rows(case)), dense(case)
    for t in range(len(case.y)):
        np.testing.assert_allclose(found["gamma"].values[t], known.mean[known.states(t)], rtol=1e-6, atol=1e-7)
        own = known.cov[known.states(t), known.states(t)]
        np.testing.assert_allclose(found["cov"].values[t], own, rtol=1e-6, atol=1e-7 * np.abs(own).max())


def test_states_some_rows_later(case):
    lag = 2
    found = case.model.fixed_lag(case.y, lag, case.params, **of_rows(case))
    for t in range(8, len(case.y)):
        known = dense(case, min(t + lag + 1, len(case.y)))
        np.testing.assert_allclose(found["smoothed"].values[t], known.mean[known.states(t)], rtol=1e-6, atol=1e-7)
        own = known.cov[known.states(t), known.states(t)]
        np.testing.assert_allclose(found["smoothed_cov"].values[t], own, rtol=1e-6, atol=1e-7 * np.abs(own).max())


def test_forecasts_with_intervals(case):
    found, known = case.model.forecast(case.y, AHEAD, case.params, quantiles=[0.05, 0.5], **case.said), dense(case)
    for k in range(AHEAD):
        t = len(case.y) + k
        cov = known.cov[known.y(t), known.y(t)]
        mean, sd = known.mean[known.y(t)], np.sqrt(np.diag(cov))
        np.testing.assert_allclose(found["mean"].values[k], mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found["cov"].values[k], cov, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found["predicted"].values[k], known.mean[known.states(t)], rtol=1e-6, atol=1e-7)
        low, middle = found["quantile"].transpose(..., "horizon", "feature").values[:, k]
        np.testing.assert_allclose(middle, mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(low, mean - 1.6448536269514722 * sd, rtol=1e-6, atol=1e-6)


def test_missing_entries_with_intervals(case):
    found, known = case.model.impute(case.y, case.params, level=0.9, **of_rows(case)), dense(case)
    blank = case.y.isna().to_numpy()
    assert blank.sum() >= 3
    for t, k in np.argwhere(blank):
        at = known.y(t).start + k
        mean, sd = known.mean[at], np.sqrt(known.cov[at, at])
        np.testing.assert_allclose(found["mean"].values[t, k], mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found["variance"].values[t, k], sd**2, rtol=1e-6)
        np.testing.assert_allclose(found["upper"].values[t, k], mean + 1.6448536269514722 * sd, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found["mean"].values[~blank], case.y.to_numpy()[~blank])
    assert (found["variance"].values[~blank] == 0.0).all()


@pytest.mark.parametrize("name", SUMS)
def test_components_with_intervals(name):
    case = built(name)
    found, known = case.model.decompose(case.y, case.params, level=0.9), dense(case)
    assert set(case.parts) <= set(found["component"].values.tolist())
    for name, weights in case.parts.items():
        own = found.isel(component=found["component"].values.tolist().index(name))
        column = own["column"].item() if "column" in own.coords else case.y.columns[0]
        for t in range(len(case.y)):
            mean = np.dot(weights, known.mean[known.states(t)])
            var = np.dot(weights, known.cov[known.states(t), known.states(t)] @ weights)
            if name.startswith("irregular"):
                mean = case.y[column].iloc[t] - mean
                var = np.nan if np.isnan(mean) else var
            np.testing.assert_allclose(own["mean"].values[t], mean, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(own["variance"].values[t], var, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(
                own["lower"].values[t], mean - 1.6448536269514722 * np.sqrt(var), rtol=1e-5, atol=1e-5
            )


def test_draws_have_the_joint_moments(case):
    """Means and covariances of all states of all rows together, whitened: chi-squared distances of 2000 draws."""
    n_draws, T = 2000, len(case.y)
    drawn = case.model.simulate_smoothed(case.y, n_draws, case.params, seed=1, **of_rows(case)).values
    known = dense(case)
    span = slice(0, T * known.n)
    values, vectors = np.linalg.eigh(known.cov[span, span])
    kept = values > 1e-8 * values.max()
    white = (drawn.reshape(n_draws, -1) - known.mean[span]) @ vectors[:, kept] / np.sqrt(values[kept])
    flat = (drawn.reshape(n_draws, -1) - known.mean[span]) @ vectors[:, ~kept]
    assert np.abs(flat).max(initial=0.0) < 1e-3 * np.sqrt(values.max())
    dof = int(kept.sum())
    assert stats.chi2.sf(n_draws * np.sum(white.mean(0) ** 2), dof) > 1e-4
    assert 1e-4 < stats.chi2.cdf(np.sum(white**2), n_draws * dof) < 1.0 - 1e-4
    off = white.T @ white / n_draws - np.eye(dof)
    scores = np.sqrt(n_draws) * off[np.triu_indices(dof, 1)]
    assert np.abs(scores).max() < stats.norm.isf(1e-4 / len(scores))


def test_paths_ahead_have_the_moments_of_the_dense_future(case):
    n_paths = 4000
    drawn = case.model.simulate(case.y, AHEAD, n_paths, case.params, seed=2, **case.said)["y"].transpose(
        "path", "horizon", "feature"
    )
    known = dense(case)
    span = slice(known.y(len(case.y)).start, None)
    root = np.linalg.cholesky(known.cov[span, span])
    white = np.linalg.solve(root, (drawn.values.reshape(n_paths, -1) - known.mean[span]).T)
    assert stats.chi2.sf(n_paths * np.sum(white.mean(1) ** 2), len(white)) > 1e-4
    scores = np.sqrt(n_paths) * (white @ white.T / n_paths - np.eye(len(white)))
    assert np.abs(scores[np.triu_indices(len(white), 1)]).max() < 4.5
    assert np.abs(np.diag(scores)).max() < 4.5 * np.sqrt(2.0)


ASKED = [(asked, name) for asked in ("impute", "fixed_lag") for name in CASES]
ASKED += [("decompose", name) for name in SUMS]
ASKED += [("forecast", name) for name in CASES if name not in SUMS[:2]]  # steps ahead are the median of the panel's


@pytest.mark.parametrize(("asked", "name"), ASKED)
def test_panels_answer_sequence_by_sequence(asked, name):
    case = built(name)
    short = len(case.y) - 2
    panel = {"a": case.y, "b": case.y.iloc[:short]}
    more = {"fixed_lag": (2,), "forecast": (2,)}.get(asked, ())
    said = {name: [value, value[: short + AHEAD]] for name, value in case.said.items()}
    found = getattr(case.model, asked)(panel, *more, case.params, **said)
    for key, y in panel.items():
        own = {name: value[: len(y) + AHEAD] for name, value in case.said.items()}
        alone = getattr(case.model, asked)(y, *more, case.params, **own)
        for variable in alone.data_vars:
            values = found[variable].sel(sequence=key).values[: len(alone[variable].values)]
            np.testing.assert_allclose(values, alone[variable].values, rtol=1e-7, atol=1e-9)
