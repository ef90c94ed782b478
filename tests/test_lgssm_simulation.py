"""Simulation smoother and fixed-lag smoother against one joint Gaussian, for every kind of start."""

import numpy as np
import oracles_gaussian as oracle
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em.errors import DataError, ParameterError


def cases(T=6):
    rng = np.random.default_rng(0)
    p = oracle.random_parameters(rng, 2, 2)
    y = oracle.simulate(rng, p, T, missing=0.25)
    y[2] = np.nan
    model = sse.LinearGaussianSSM(2, state_offset="free", observation_offset="free")
    params = model.parameters(
        transition=p.A[0], state_offset=p.b[0], process_cov=p.Q[0], observation=p.C[0], observation_offset=p.d[0],
        measurement_cov=p.R[0], initial_mean=p.m0, initial_cov=p.P0,
    )  # fmt: skip
    return model, params, p, y


def test_draws_have_the_joint_distribution_of_the_states():
    model, params, p, y = cases()
    mean, cov = oracle.joint(p, 6)
    m, V = oracle.condition(mean, cov, 12 + np.flatnonzero(~np.isnan(y)), y[~np.isnan(y)])
    n = 40_000
    drawn = model.simulate_smoothed(y, n, params, seed=1)
    assert drawn.dims == ("path", "time", "state_name")
    flat = drawn.values.reshape(n, 12)
    sd = np.sqrt(np.diag(V)[:12])
    np.testing.assert_allclose(flat.mean(0), m[:12], atol=4.5 * (sd / np.sqrt(n)).max())
    scaled = np.cov(flat.T) / np.outer(sd, sd)
    np.testing.assert_allclose(scaled, V[:12, :12] / np.outer(sd, sd), atol=4.5 * np.sqrt(2 / n))
    same = model.simulate_smoothed(y, 3, params, seed=5)
    xr.testing.assert_identical(same, model.simulate_smoothed(y, 3, params, seed=5))


@pytest.mark.parametrize("initial", ["diffuse", "fixed"])
def test_draws_with_an_unknown_start(initial):
    """Mean and covariance of the draws are those of the smoother, uneven times included."""
    rng = np.random.default_rng(2)
    at = np.cumsum(rng.exponential(size=12))
    y = xr.DataArray(np.cumsum(rng.normal(size=12)), dims="time", coords={"time": at})
    model = sse.designs.constant_velocity(1, density=0.5, noise=0.3, initial=initial).fit(y)
    posterior = model.e_step(y)
    n = 20_000
    drawn = model.simulate_smoothed(y, n, seed=3).values
    sd = np.sqrt(np.einsum("tii->ti", posterior["cov"].values))
    np.testing.assert_allclose((drawn.mean(0) - posterior["gamma"].values) / np.maximum(sd, 1e-6), 0, atol=0.04)
    np.testing.assert_allclose(drawn.std(0), sd, rtol=0.03, atol=1e-9)
    step = drawn[:, 1:, 0] * drawn[:, :-1, 0]
    means = drawn.mean(0)[:, 0]
    cross = step.mean(0) - means[1:] * means[:-1]
    np.testing.assert_allclose(
        cross, posterior["cross_cov"].values[:-1, 0, 0], atol=0.05 * (sd[1:, 0] * sd[:-1, 0]).max()
    )


@pytest.mark.parametrize("lag", [0, 1, 3, 6, 10**9])
def test_a_fixed_lag_knows_some_rows_more(lag):
    model, params, p, y = cases(9)
    found = model.fixed_lag(y, lag, params)
    assert found["smoothed"].attrs["conditioning"] == f"1:t+{lag}"
    for t in range(9):
        dense = oracle.posterior(y[: t + lag + 1], p)
        np.testing.assert_allclose(found["smoothed"].values[t], dense.mean[t], rtol=1e-8)
        np.testing.assert_allclose(found["smoothed_cov"].values[t], dense.cov[t], rtol=1e-8)


def test_a_fixed_lag_with_a_diffuse_start_in_several_sequences():
    rng = np.random.default_rng(4)
    y = np.cumsum(rng.normal(size=(2, 10)), axis=1)
    y[0, 0] = np.nan
    runs = [y[0], y[1]]
    model = sse.designs.local_trend().fit(runs, n_starts=1)
    found = model.fixed_lag(runs, 2)
    for k, run in enumerate(runs):
        for t in range(1 if k == 0 else 0, 10):
            part = model.e_step(run[: t + 3])
            np.testing.assert_allclose(found["smoothed"].values[k, t], part["gamma"].values[t], rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(found["smoothed_cov"].values[k, t], part["cov"].values[t], rtol=1e-6, atol=1e-9)
    known = model.filter(runs)
    zero = model.fixed_lag(runs, 0)
    np.testing.assert_allclose(zero["smoothed"].values, known["filtered"].values, rtol=1e-7, atol=1e-9)
    assert np.isinf(zero["smoothed_cov"].values[0, 0].diagonal()).all()


def test_a_lag_in_units_far_apart_and_beyond_the_end_is_the_smoother():
    """Positions in units that make their variances 1e24 times those of the velocities."""
    rng = np.random.default_rng(5)
    model = sse.LinearGaussianSSM(["x", "v"])
    y = np.cumsum(np.cumsum(rng.normal(size=700))) + rng.normal(size=700)
    y[100:130] = np.nan
    unit = np.diag([1e6, 1e-6])
    params = model.parameters(
        transition=unit @ [[1, 1], [0, 1]] @ np.linalg.inv(unit), process_cov=unit @ [[1 / 3, 0.5], [0.5, 1]] @ unit,
        observation=[[1e-6, 0]], measurement_cov=[[1]], initial_mean=[0, 0], initial_cov=unit @ unit * 100,
    )  # fmt: skip
    found, posterior = model.fixed_lag(y, 699, params), model.e_step(y, params)
    np.testing.assert_allclose(found["smoothed"].values, posterior["gamma"].values, rtol=1e-9, atol=1e-12)
    scale = np.sqrt(np.einsum("ti,tj->tij", *[np.diagonal(posterior["cov"].values, axis1=1, axis2=2)] * 2))
    np.testing.assert_allclose(found["smoothed_cov"].values / scale, posterior["cov"].values / scale, atol=1e-9)
    for lag in (13, 64):
        found = model.fixed_lag(y, lag, params)
        for t in (90, 120, 400):
            part = model.e_step(y[: t + lag + 1], params)
            np.testing.assert_allclose(found["smoothed"].values[t], part["gamma"].values[t], rtol=1e-9)


def test_what_cannot_be_drawn():
    model, params, _, y = cases()
    with pytest.raises(ParameterError, match="n_paths is 0, expected a whole number of at least 1"):
        model.simulate_smoothed(y, 0, params)
    with pytest.raises(DataError, match="y has 2 sequences"):
        model.simulate_smoothed([y, y], 2, params)
    with pytest.raises(ParameterError, match="lag is -1, expected a whole number of at least 0"):
        model.fixed_lag(y, -1, params)
