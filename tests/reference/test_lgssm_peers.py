"""Answers at given parameters against statsmodels and pykalman."""

import numpy as np
import pytest
from oracles_gaussian import random_parameters, simulate

import statespace_em as sse

TOLERANCE = 1e-8


def setup(n, D, missing):
    rng = np.random.default_rng([n, D])
    p = random_parameters(rng, n, D)
    y = simulate(rng, p, 60)
    y[rng.random(60) < 0.1] = np.nan  # whole rows
    if missing == "entries":
        y[rng.random(y.shape) < 0.15] = np.nan
    model = sse.LinearGaussianSSM(n)
    params = model.parameters(
        transition=p.A[0], state_offset=p.b[0], process_cov=p.Q[0], observation=p.C[0], observation_offset=p.d[0],
        measurement_cov=p.R[0], initial_mean=p.m0, initial_cov=p.P0,
    )  # fmt: skip
    return model, params, p, y


def close(left, right):
    np.testing.assert_allclose(left, right, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("missing", ["rows", "entries"])
@pytest.mark.parametrize(("n", "D"), [(1, 1), (2, 3), (4, 2)])
def test_statsmodels(n, D, missing):
    statespace = pytest.importorskip("statsmodels.tsa.statespace.kalman_smoother")
    model, params, p, y = setup(n, D, missing)
    peer = statespace.KalmanSmoother(k_endog=D, k_states=n)
    peer.bind(y.copy())
    peer["transition"], peer["state_intercept"], peer["state_cov"] = p.A[0], p.b[0], p.Q[0]
    peer["design"], peer["obs_intercept"], peer["obs_cov"] = p.C[0], p.d[0], p.R[0]
    peer["selection"] = np.eye(n)
    peer.initialize_known(p.m0, p.P0)
    theirs, smooth, known = peer.smooth(), model.e_step(y, params), model.filter(y, params)
    close(model.score(y, params), theirs.llf)
    close(known["log_likelihood"], theirs.llf_obs)
    close(known["filtered"], theirs.filtered_state.T)
    close(known["filtered_cov"], theirs.filtered_state_cov.transpose(2, 0, 1))
    close(known["predicted"], theirs.predicted_state.T[:-1])
    close(smooth["gamma"], theirs.smoothed_state.T)
    close(smooth["cov"], theirs.smoothed_state_cov.transpose(2, 0, 1))
    close(smooth["cross_cov"][:-1], theirs.smoothed_state_autocov.transpose(2, 1, 0)[:-1])
    future = model.forecast(y, 1, params)
    close(future["predicted"][0], theirs.predicted_state.T[-1])
    close(future["predicted_cov"][0], theirs.predicted_state_cov[..., -1])


def test_statsmodels_local_level_at_its_own_maximum():
    structural = pytest.importorskip("statsmodels.tsa.statespace.structural")
    y = sse.datasets.nile()
    peer = structural.UnobservedComponents(y.to_numpy(), "local level")
    peer.ssm.initialize_known(np.zeros(1), 1e7 * np.eye(1))
    peer.ssm.loglikelihood_burn = 0
    model = sse.LinearGaussianSSM(1, initial="known")
    start = model.parameters(
        transition=[[1]], observation=[[1]], process_cov=[[1e4]], measurement_cov=[[1e4]], initial_mean=[0],
        initial_cov=[[1e7]],
    )  # fmt: skip
    model.fit(y, start=start, freeze=["transition", "observation"])
    found = [float(model.params_[name].squeeze()) for name in ("measurement_cov", "process_cov")]
    assert peer.loglike(np.array(found)) == pytest.approx(model.score(y), abs=1e-8)
    assert np.abs(peer.score(np.array(found))).max() < 1e-6


@pytest.mark.parametrize(("n", "D"), [(1, 1), (2, 3), (4, 2)])
def test_pykalman(n, D):
    """Whole rows missing only: it drops a row when one entry is missing. Its offsets lead to the next row as ours."""
    pykalman = pytest.importorskip("pykalman")
    model, params, p, y = setup(n, D, "rows")
    peer = pykalman.KalmanFilter(
        p.A[0], p.C[0], p.Q[0], p.R[0], p.b[0], p.d[0], p.m0, p.P0
    )  # fmt: skip
    masked = np.ma.masked_invalid(y)
    smooth, known = model.e_step(y, params), model.filter(y, params)
    mean, cov = peer.smooth(masked)
    close(smooth["gamma"], mean)
    close(smooth["cov"], cov)
    filtered, filtered_cov = peer.filter(masked)
    close(known["filtered"], filtered)
    close(known["filtered_cov"], filtered_cov)
    seen = ~np.isnan(y).any(1)
    ours = known["log_likelihood"].values
    assert (ours[~seen] == 0.0).all()
    complete = np.where(seen[:, None], y, 0.0)[: int(np.argmin(seen))] if not seen.all() else y
    if len(complete) > 1:
        assert peer.loglikelihood(complete) == pytest.approx(ours[: len(complete)].sum(), rel=TOLERANCE)
