"""An offset of the states where y is far from 0: default fits reach the maximum that an offset of y has."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

import statespace_em as sse
from statespace_em.data import as_batch

LEVELS = (0.0, 1e2, 1e4, 1e6)
PLAIN = {"transition": "free", "process_cov": "free", "observation": [[1]], "measurement_cov": "free"}


def wave(n: int, phi: float, sd: float, seed: int) -> np.ndarray:
    shocks = np.random.default_rng(seed).normal(size=n) * sd
    found = np.array(shocks)
    for t in range(1, n):
        found[t] += phi * found[t - 1]
    return found


def dense_maximum(y: np.ndarray, starts: list[list[float]]) -> float:
    """Highest log-likelihood of a mean, an AR(1) and noise, from the joint density of the rows."""
    lag = np.abs(np.subtract.outer(np.arange(len(y)), np.arange(len(y))))

    def lost(x: np.ndarray) -> float:
        phi, q, r = np.tanh(x[1]), np.exp(x[2]), np.exp(x[3])
        cov = q / (1 - phi**2) * phi**lag + r * np.eye(len(y))
        return -float(multivariate_normal.logpdf(y, np.full(len(y), y.mean() + x[0]), cov))

    ends = [minimize(lost, x, method="BFGS", options={"gtol": 1e-7}) for x in starts]
    return -min(end.fun for end in ends)


@pytest.mark.parametrize("level", LEVELS)
def test_an_autoregression_with_noise_reaches_its_maximum_at_any_level(level):
    y = level + wave(80, 0.8, 1.0, 1) + np.random.default_rng(2).normal(size=80)
    best = dense_maximum(y, [[0.0, a, b, -b] for a in (0.3, 1.5) for b in (-1.0, 0.5)])
    model = sse.LinearGaussianSSM(**PLAIN, state_offset="free", initial="stationary").fit(y)
    assert model.status_ == "converged"
    assert model.score(y) == pytest.approx(best, abs=1e-7)


@pytest.mark.parametrize("initial", ["stationary", "estimated", "diffuse"])
def test_an_offset_of_the_states_ends_where_an_offset_of_y_does(initial):
    y = 1e6 + wave(60, 0.7, 1.0, 3) + np.random.default_rng(4).normal(size=60)
    y[[7, 20, 21]] = np.nan
    ends = [
        sse.LinearGaussianSSM(**PLAIN, initial=initial, **{name: "free"}).fit(y)
        for name in ("state_offset", "observation_offset")
    ]
    assert [end.status_ for end in ends] == ["converged"] * 2
    assert ends[0].score(y) == pytest.approx(ends[1].score(y), abs=1e-7)


@pytest.mark.parametrize(
    ("pieces", "offset"),
    [
        ({"transition": [["a", "b"], [1, 0]], "process_cov": [["q", 0], [0, 0]], "observation": [[1, 0]]}, ["c", 0]),
        ({"transition": "free", "process_cov": "free", "observation": np.eye(2)}, "free"),
        ({"transition": "diagonal", "process_cov": "diagonal", "observation": np.eye(2)}, ["c", "3*c"]),
    ],
    ids=["one of two lags", "two states", "tied"],
)
def test_offsets_that_are_free_in_part_or_tied(pieces, offset):
    level = np.array([1e5, 3e5])
    ys = [
        level + np.column_stack([wave(50, 0.7, 1.0, 10 + i), wave(50, 0.7, 3.0, 20 + i)])
        + np.random.default_rng(30 + i).normal(size=(50, 2))
        for i in range(2)
    ]  # fmt: skip
    if np.shape(pieces["observation"])[0] == 1:
        ys = [y[:, :1] for y in ys]
    around = {"measurement_cov": "diagonal", "initial": "stationary"}
    model = sse.LinearGaussianSSM(**pieces, **around, state_offset=offset).fit(ys)
    other = sse.LinearGaussianSSM(**pieces, **around, observation_offset="free")
    assert model.status_ == "converged"
    if isinstance(offset, str) or 0 in offset:
        assert model.score(ys) == pytest.approx(other.fit(ys).score(ys), abs=1e-7)
        return
    values = (
        model.params_.state_offset.values
    )  # tied: no offset of y says the same, but a climb from there gains nothing
    assert values[1] == pytest.approx(3.0 * values[0], rel=1e-12)
    again = sse.LinearGaussianSSM(**pieces, **around, state_offset=offset).fit(ys, start=model.params_)
    assert again.score(ys) == pytest.approx(model.score(ys), abs=1e-7)


def test_a_level_that_two_states_share_does_not_run_away():
    """At a unit root of the stationary state its mean was divided by next to 0, and round-off taken for likelihood."""
    y = 100.0 + wave(60, 0.7, 1.0, 5) + np.random.default_rng(6).normal(size=60)
    mixed = {
        "transition": [["p", 0], [0, 1]], "process_cov": "diagonal", "observation": [[1, 1]],
        "measurement_cov": "free", "initial": ["stationary", "diffuse"],
    }  # fmt: skip
    model = sse.LinearGaussianSSM(**mixed, state_offset=["c", 0]).fit(y)
    without = sse.LinearGaussianSSM(**mixed).fit(y)
    assert model.score(y) == pytest.approx(without.score(y), abs=1e-7)
    assert np.abs(model.params_.initial_mean.values).max() < 1e6


def test_loadings_are_guessed_with_the_level_of_their_factor():
    rng = np.random.default_rng(9)
    factor = wave(120, 0.8, 1.0, 10)
    y = np.outer(1e4 + factor, [1.0, 2.0, 3.0]) + rng.normal(size=(120, 3))
    model = sse.LinearGaussianSSM(
        1, process_cov="identity", measurement_cov="diagonal", state_offset="free", initial="stationary"
    ).fit(y)
    assert model.status_ == "converged"
    near = model.parameters(
        **{name: value.values for name, value in model.params_.items()} | {"measurement_cov": np.eye(3)}
    )
    assert model.score(y) == pytest.approx(model.fit(y, start=near).score(y), abs=1e-6)


@pytest.mark.parametrize("n_states", [1, 2, 3])
def test_an_explosive_series_gets_a_stationary_start(n_states):
    y = 1.02 ** np.arange(80) * (1.0 + 0.05 * np.random.default_rng(7).normal(size=80))
    model = sse.LinearGaussianSSM(n_states, initial="stationary").fit(y)
    assert np.abs(np.linalg.eigvals(model.params_.transition.values)).max() < 1.0


@pytest.mark.parametrize("initial", ["stationary", "estimated", ["stationary", "diffuse"]])
def test_coordinates_of_an_offset_have_its_exact_score(initial):
    rng = np.random.default_rng(8)
    y = 50.0 + rng.normal(size=(40, 2)).cumsum(0) * 0.3 + rng.normal(size=(40, 2))
    model = sse.LinearGaussianSSM(
        transition=[["a", "b"], [0, "d"]] if initial == "estimated" else [["a", 0], [0, "d"]],
        process_cov="diagonal", observation=[[1, 0.5], [0.2, 1]], state_offset=["c", 0.1] if "diffuse" in initial else
        ["c", "2*c"], measurement_cov="free", initial=initial,
    )  # fmt: skip
    batch = as_batch(y)[0]
    core = model._core(batch=batch, given={})
    start = core.build(core.flatten(next(iter(core.starts(batch, 1, rng, {})))))
    chart = core.chart(start, core.e_step(start, batch)[0], start)
    x = 0.02 * rng.normal(size=chart.size)

    def score(x: np.ndarray) -> float:
        return core.e_step(chart.params(x), batch)[1]

    there = chart.params(x)
    slopes = chart.gradient(x, there, core.e_step(there, batch)[0])
    steps = 1e-5 * np.eye(chart.size)
    expected = [(score(x + e) - score(x - e)) / 2e-5 for e in steps]
    np.testing.assert_allclose(slopes, expected, rtol=1e-6, atol=1e-5)
