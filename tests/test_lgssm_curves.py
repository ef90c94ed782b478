"""Curves that one state follows by itself: found by regression, and where default fits to noise end."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import statespace_em as sse
from statespace_em.sequence.lgssm_curves import curves


def regressed(y, decay, *, centred):
    """Coefficients and mean square of what is left of one gap-free column."""
    X = np.column_stack([decay ** np.arange(len(y)), np.ones(len(y))])[:, : 2 if centred else 1]
    found = np.linalg.lstsq(X, y, rcond=None)[0]
    return found, np.mean((y - X @ found) ** 2)


@pytest.mark.parametrize("centred", [False, True])
def test_a_curve_is_a_regression_on_its_powers(centred):
    y = np.random.default_rng(0).normal(size=(40, 2)) + 1.0
    for curve in curves(y, np.array([0, 40]), centred=centred):
        for d in range(2):
            found, noise = regressed(y[:, d], curve.decay, centred=centred)
            assert curve.noise[d] == pytest.approx(noise, rel=1e-9)
            assert curve.amplitude[d] == pytest.approx(found[0], rel=1e-6)
            assert curve.middle[d] == pytest.approx(found[1] if centred else 0.0, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("decay", [-0.9, 0.8, 1.05, -1.03])
def test_the_curve_that_y_follows_comes_first_with_gaps_and_in_two_sequences(decay):
    rng = np.random.default_rng(1)
    row = np.concatenate([np.arange(30), np.arange(20)])
    y = np.outer(decay**row, [2.0, -1.0]) + 0.05 * rng.normal(size=(50, 2))
    y[rng.random(y.shape) < 0.2] = np.nan
    best = curves(y, np.array([0, 30, 50]), centred=False)[0]
    assert best.decay == pytest.approx(decay, rel=0.03)
    assert best.amplitude == pytest.approx([2.0, -1.0], rel=0.3)


def test_curves_do_not_depend_on_units():
    y = np.random.default_rng(2).normal(size=(50, 1))
    first, second = (curves(c * y, np.array([0, 50]), centred=True) for c in (1.0, 1e6))
    assert [curve.decay for curve in first] == [curve.decay for curve in second]


def highest_of_curves(y, *, centred):
    """Log-likelihood of the best curve with Gaussian noise, by golden sections from a grid: a bound for the fit.

    Of those near which others are lower: what explains the last row only is a limit that no curve reaches.
    """
    n, D = y.shape

    def misfit(decay):
        X = np.column_stack([decay ** np.arange(n), np.ones(n)])[:, : 2 if centred else 1]
        left = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        return np.linalg.slogdet(left.T @ left / n)[1]

    grid = np.exp(np.linspace(-0.2, 6.0 / n, 60))
    grid = np.concatenate([grid, -grid])
    tried = np.array([misfit(decay) for decay in grid])
    tops = [j for j in range(1, len(grid) - 1) if tried[j] < min(tried[j - 1], tried[j + 1])]
    start = grid[min(tops, key=lambda j: tried[j])]
    near = (start - 0.005, start + 0.005)
    best = minimize_scalar(misfit, bounds=near, method="bounded", options={"xatol": 1e-10})
    return -0.5 * n * (D * (np.log(2.0 * np.pi) + 1.0) + best.fun)


@pytest.mark.filterwarnings("ignore:the best optimum was found by one")  # which it may well be
@pytest.mark.parametrize(("D", "centred"), [(1, False), (1, True), (2, False)])
def test_default_fits_of_one_state_to_noise_are_not_below_a_curve(D, centred):
    offset = "free" if centred else "zero"
    for seed in range(8):
        y = np.random.default_rng(seed).normal(size=(40 + 5 * seed, D))
        model = sse.LinearGaussianSSM(1, observation_offset=offset).fit(y)
        assert model.score(y) >= highest_of_curves(y, centred=centred) - 1e-6


def test_a_written_transition_starts_along_curves_too():
    y = np.random.default_rng(7002).normal(size=120)
    first = {"initial": "known", "initial_mean": [0.0], "initial_cov": [[100.0]]}
    written = sse.LinearGaussianSSM(transition=[["phi"]], observation=[[1]], **first).fit(y)
    free = sse.LinearGaussianSSM(1, observation=[[1]], **first).fit(y, n_starts=24)
    assert written.score(y) == pytest.approx(free.score(y), abs=1e-6)


@pytest.mark.filterwarnings("ignore")  # what so few values tell is beside the point
def test_a_series_without_steps_has_no_curves_to_start_along():
    y = np.array([1.0, np.nan, 2.0, np.nan, 1.5, np.nan, 2.5])
    assert sse.LinearGaussianSSM(1).fit(y).status_ in ("converged", "degenerate")
