"""Modes of free dynamics that hardly decay, and default fits that end there."""

import numpy as np
import pytest
from scipy.optimize import minimize

import statespace_em as sse
from statespace_em.sequence.lgssm_modes import slow_modes
from statespace_em.sequence.lgssm_stationary import stationary_moments

RNG = np.random.default_rng(5)
BASIS = np.array([[1.0, 0.4, -0.3], [0.2, 1.0, 0.5], [-0.6, 0.1, 1.0]])
TURN = 0.995 * np.array([[np.cos(0.7), np.sin(0.7)], [-np.sin(0.7), np.cos(0.7)]])
INNER = {
    "pair": np.block([[TURN, np.zeros((2, 1))], [np.zeros((1, 2)), np.array([[0.6]])]]),
    "roots": np.diag([0.99, -0.999, 0.4]),
    "all": np.block([[TURN, np.zeros((2, 1))], [np.zeros((1, 2)), np.array([[0.985]])]]),
}


def three_states(inner):
    """A free model of three states, parameters with these dynamics, and data."""
    model = sse.LinearGaussianSSM(3, observation=[[1, 0, 0]], initial="stationary", observation_offset="free")
    y = np.cumsum(RNG.normal(size=40)) * 0.3 + RNG.normal(size=40)
    batch = model._read(y, None)[0]
    core = model._core(batch=batch, given={})
    guess = next(iter(core.starts(batch, 1, np.random.default_rng(0), {})))
    A = BASIS @ inner @ np.linalg.inv(BASIS)
    Q = 0.1 * BASIS @ (np.diag([0.2, 0.3, 1.0]) + 0.05) @ BASIS.T
    return core, batch, core.structure(guess).complete(guess._asdict() | {"transition": A, "process_cov": Q})


@pytest.mark.parametrize("kind", INNER)
def test_modes_are_a_basis_of_the_dynamics(kind):
    core, _, params = three_states(INNER[kind])
    modes = slow_modes(core.structure(params), params.transition)
    values = modes.pattern.read(params.transition)
    np.testing.assert_allclose(modes.pattern.build(values), params.transition, atol=1e-12)
    sizes = sorted(np.ravel([decay.roots(modes.pattern, params.transition) for decay in modes.decays]))
    np.testing.assert_allclose(sizes, {"pair": [0.995], "roots": [-0.999, 0.99], "all": [0.985, 0.995]}[kind])
    for part in modes.parts:
        np.testing.assert_allclose(part @ part, part, atol=1e-12)
        np.testing.assert_allclose(part @ params.transition, params.transition @ part, atol=1e-12)


@pytest.mark.parametrize("kind", INNER)
def test_charts_around_slow_modes_have_the_exact_gradient(kind):
    core, batch, params = three_states(INNER[kind])
    chart = core.chart(params, core.e_step(params, batch)[0], params)
    for name, value in chart.params(np.zeros(chart.size))._asdict().items():
        if value is not None:
            np.testing.assert_allclose(value, getattr(params, name), rtol=1e-9, atol=1e-9)
    x = 0.05 * np.random.default_rng(1).normal(size=chart.size)
    there = chart.params(x)
    step = 1e-6 * np.eye(chart.size)
    rises = [core.e_step(chart.params(x + e), batch)[1] - core.e_step(chart.params(x - e), batch)[1] for e in step]
    slopes = chart.gradient(x, there, core.e_step(there, batch)[0])
    np.testing.assert_allclose(slopes, np.array(rises) / 2e-6, rtol=2e-6, atol=2e-6)


def test_a_mode_that_decays_less_keeps_its_variance():
    core, batch, params = three_states(INNER["pair"])
    chart = core.chart(params, core.e_step(params, batch)[0], params)
    there = chart.params(np.eye(chart.size)[0])  # one in the inverse hyperbolic tangent of the modulus
    modes = slow_modes(core.structure(params), params.transition)
    before, after = (
        np.linalg.inv(modes.basis) @ stationary_moments(p.transition, np.zeros(3), p.process_cov)[1]
        @ np.linalg.inv(modes.basis).T for p in (params, there)
    )  # fmt: skip
    assert np.abs(np.linalg.eigvals(there.transition)).max() > 0.999
    np.testing.assert_allclose(np.trace(after[:2, :2]), np.trace(before[:2, :2]), rtol=0.02)


def test_bases_that_mean_something_have_no_free_modes():
    model = sse.LinearGaussianSSM(
        transition=[["a", "b"], ["c", "d"]], process_cov="diagonal", observation=[[1, 0]], initial="stationary"
    )
    batch = model._read(np.arange(20.0) % 7, None)[0]
    core = model._core(batch=batch, given={})
    params = next(iter(core.starts(batch, 1, np.random.default_rng(0), {})))
    assert slow_modes(core.structure(params), np.diag([0.999, 0.3])) is None


SEEN = {"two columns": {"observation": np.eye(2)}, "prior": {"process_prior": sse.priors.InverseWishart(6, np.eye(2))}}


@pytest.mark.parametrize("kind", SEEN)
def test_a_basis_that_data_or_prior_tell_keeps_all_of_the_dynamics(kind):
    """Charts had the two roots only, and fits ended as converged where the score by the other entries was steep."""
    rng = np.random.default_rng(3)
    x, y = np.zeros(2), np.empty((120, 2))
    for t in range(120):
        x = np.array([[0.99, 0.1], [0.0, 0.5]]) @ x + rng.normal(size=2)
        y[t] = x + 0.5 * rng.normal(size=2)
    model = sse.LinearGaussianSSM(2, **SEEN[kind], initial="stationary")
    batch = model._read(y, None)[0]
    core = model._core(batch=batch, given={})
    guess = next(iter(core.starts(batch, 1, np.random.default_rng(0), {})))
    params = core.structure(guess).complete(guess._asdict() | {"transition": np.array([[0.99, 0.1], [0.0, 0.5]])})
    chart = core.chart(params, core.e_step(params, batch)[0], params)
    moved = [np.ravel(chart.params(1e-6 * e).transition - params.transition) for e in np.eye(chart.size)]
    assert np.linalg.matrix_rank(np.array(moved) / 1e-6, tol=1e-3) == 4
    fit = sse.LinearGaussianSSM(2, **SEEN[kind], initial="stationary").fit(y)
    held = {name: fit.params_[name] for name in ("process_cov", "observation", "measurement_cov")}
    A = fit.params_["transition"].to_numpy()

    def height(transition):
        there = fit.parameters(transition=transition, **held)  # with the start that follows
        return fit.score(y, there) + fit.log_prior(there)

    entries = 1e-5 * np.eye(4).reshape(4, 2, 2)
    rises = [height(A + e) - height(A - e) for e in entries]
    np.testing.assert_allclose(np.array(rises) / 2e-5, 0.0, atol=1e-2)


def test_a_level_that_nothing_takes_up_is_a_mode_without_decay():
    """Two free states are then a level, all but without decay, and what is left of y: a sum of two decays."""
    x = np.zeros(80)
    for t in range(1, 80):
        x[t] = 0.8 * x[t - 1] + RNG.normal()
    y = 500.0 + x
    free = sse.LinearGaussianSSM(2, observation=[[1, 0]], initial="stationary").fit(y)
    sums = sse.LinearGaussianSSM(
        transition=[["a", 0], [0, "b"]], process_cov="diagonal", observation=[[1, 1]], initial="stationary"
    ).fit(y)  # fmt: skip
    assert free.status_ == "converged"
    assert free.score(y) > sums.score(y) - 1e-6
    assert np.abs(np.linalg.eigvals(free.params_["transition"])).max() > 1.0 - 1e-5


def dense(y, angle, values):
    """Minus the log-likelihood of a line at an angle in white noise, of which logarithms of variances are given."""
    lag = np.subtract.outer(np.arange(len(y)), np.arange(len(y)))
    line, noise = np.exp(values)
    factor = np.linalg.cholesky(line * np.cos(angle * lag) + noise * np.eye(len(y)))
    z = np.linalg.solve(factor, y)
    return 0.5 * z @ z + np.log(np.diag(factor)).sum() + 0.5 * len(y) * np.log(2.0 * np.pi)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_free_states_find_the_best_line(seed):
    """The likelihood has a top at every line that noise seems to have; the highest is between the frequencies."""
    y = np.random.default_rng(seed).normal(size=60)
    y += 0.9 * np.cos(1.234 * np.arange(60) + seed)
    y -= y.mean()
    angles = np.linspace(0.1, 3.1, 301)
    power = [np.abs(y @ np.exp(1j * angle * np.arange(60))) for angle in angles]
    best = angles[int(np.argmax(power))]
    found = minimize(
        lambda v: dense(y, v[2], v[:2]), [np.log(0.4), 0.0, best], method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-10},
    )  # fmt: skip
    model = sse.LinearGaussianSSM(2, observation=[[1, 0]], initial="stationary").fit(y)
    assert model.status_ == "converged"
    assert model.score(y) > -found.fun - 1e-6
