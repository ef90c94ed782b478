"""A motion and a regression on rows a step apart against the dense joint distribution."""

import numpy as np
import pandas as pd
import pytest

import statespace_em as sse
from statespace_em import designs
from statespace_em.errors import ParameterError

ROWS, AHEAD, STEP = 60, 6, 0.5
X = np.cos(np.arange(ROWS + AHEAD) ** 1.5)


def track():
    """Heights every half second: integrated white noise, an effect of a known column, a level that drifts."""
    rng = np.random.default_rng(2)
    velocity = 1.0 + rng.normal(0, 0.5, ROWS + AHEAD).cumsum() * np.sqrt(STEP)
    return velocity.cumsum() * STEP + 2.0 * X + rng.normal(0, 0.3, ROWS + AHEAD)


def dense(density, noise_var):
    """Covariance of rows from the integrated Wiener process (Wahba 1978, eq. 1.5), and what has an unknown factor."""
    t = STEP * np.arange(ROWS + AHEAD)
    early, late = np.minimum.outer(t, t), np.maximum.outer(t, t)
    cov = density * early**2 * (3 * late - early) / 6 + noise_var * np.eye(len(t))
    return cov, np.column_stack([np.ones(len(t)), t, X])


def log_likelihood(y, density, noise_var):
    """Of the data free of the unknown start: the marginal one."""
    cov, F = (part[:ROWS] for part in dense(density, noise_var))
    cov = cov[:, :ROWS]
    weight = np.linalg.inv(cov)
    cut = F.T @ weight @ F
    rest = y - F @ np.linalg.solve(cut, F.T @ weight @ y)
    found = (len(y) - F.shape[1]) * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] + np.linalg.slogdet(cut)[1]
    return -0.5 * (found - np.linalg.slogdet(F.T @ F)[1] + rest @ weight @ rest)


def height(**settings):
    return designs.constant_velocity(["height"], step=STEP, likelihood="marginal", **settings)


@pytest.fixture(scope="module")
def fitted():
    y = track()[:ROWS]
    return (height() + designs.regression(X)).fit(y), y


def test_the_maximum_is_that_of_the_dense_likelihood(fitted):
    model, y = fitted
    assert model.converged_
    top = np.log(model.summary().loc[["acceleration_density", "noise_var"], "value"].to_numpy())
    assert model.score(y) == pytest.approx(log_likelihood(y, *np.exp(top)), abs=1e-8)
    for move in 1e-4 * np.eye(2):
        sides = [log_likelihood(y, *np.exp(top + side)) for side in (move, -move)]
        assert (sides[0] - sides[1]) / 2e-4 == pytest.approx(0.0, abs=1e-3)


def test_forecast_is_that_of_the_dense_distribution(fitted):
    model, y = fitted
    cov, F = dense(*model.summary().loc[["acceleration_density", "noise_var"], "value"])
    seen, later = slice(0, ROWS), slice(ROWS, ROWS + AHEAD)
    weight = np.linalg.inv(cov[seen, seen])
    normal = np.linalg.inv(F[seen].T @ weight @ F[seen])
    beta = normal @ F[seen].T @ weight @ y
    link = cov[later, seen] @ weight
    rest = F[later] - link @ F[seen]
    spread = cov[later, later] - link @ cov[seen, later] + rest @ normal @ rest.T
    ahead = model.forecast(y, AHEAD)
    np.testing.assert_allclose(ahead["mean"][:, 0], F[later] @ beta + link @ (y - F[seen] @ beta), rtol=1e-7)
    np.testing.assert_allclose(ahead["variance"][:, 0], np.diag(spread), rtol=1e-6)
    parts = model.decompose(y)
    np.testing.assert_allclose(parts["mean"].sum("component"), y, atol=1e-7)
    np.testing.assert_allclose(parts["mean"].sel(component="x0"), beta[2] * X[:ROWS], rtol=1e-6)
    assert parts["component"].values.tolist() == ["height", "x0", "irregular"]
    assert np.isfinite(model.filter(y)["filtered"]).all()


def test_the_sum_goes_both_ways_and_is_saved(fitted, tmp_path):
    model, y = fitted
    assert (designs.regression(X) + height())._names() == ["x0", "height", "v_height"]
    model.save(tmp_path / "model.nc")
    assert designs.ContinuousModel.load(tmp_path / "model.nc").score(y) == model.score(y)
    errors = model.standard_errors(y)["process_cov"]
    assert np.isfinite(errors.sel(state="v_height", state_aux="v_height"))


def test_a_motion_alone_is_the_same_in_both_forms():
    alone = designs.constant_acceleration(["h"], step=STEP, density=0.2, noise=0.1)
    summed = designs.constant_acceleration(["h"], step=STEP, density=0.2) + designs.regression(X)
    inner = alone.fit(track()).params_  # over the step; those of a sum over one unit of time
    steps = summed._flow_over_step(STEP).process_cov_pattern(), summed._flow_over_step(STEP).base_transition()
    np.testing.assert_allclose(steps[0].constant[:3, :3], inner["process_cov"], rtol=1e-12)
    np.testing.assert_allclose(steps[1].constant[:3, :3], inner["transition"], rtol=1e-12)


def test_what_is_no_model_cannot_be_added():
    with pytest.raises(TypeError, match="of type GaussianHMM is no design that can be added"):
        designs.constant_velocity(1) + sse.GaussianHMM(2)
    with pytest.raises(ParameterError, match="of type GaussianHMM is no design that can be added"):
        sse.GaussianHMM(2) + designs.constant_velocity(1)


def test_the_figure_of_a_track_is_that_of_what_moves(tmp_path):
    """Not of the position plus its coloured noise, or of a position as a biased sensor sees it; also from a file."""
    plotting, plt = sse.plotting, pytest.importorskip("matplotlib.pyplot")
    rng = np.random.default_rng(8)
    t = np.arange(80.0)
    place = np.column_stack([np.cumsum(np.cumsum(rng.normal(0, 0.2, 80))) for _ in range(2)])
    y = pd.DataFrame(place + np.array([50.0, -30.0]) + rng.normal(0, 1.0, (80, 2)), columns=["gps x", "gps y"])
    y[["map x", "map y"]] = place + rng.normal(0, 2.0, (80, 2))
    y.iloc[30:40] = np.nan
    y.index = pd.Index(t, name="time")
    sensors = {"gps": ["x", "y"], "map": ["x", "y"]}
    model = designs.constant_velocity(2, density=0.04, noise=[1.0, 4.0], sensors=sensors)
    model = (model + designs.constant().on("gps") + designs.ar(1).on("map")).fit(y, n_starts=1, max_iter=5, tol=0.0)
    model.save(tmp_path / "model.nc")
    posterior, ahead = model.e_step(y), model.forecast(y, 4)
    for params in (model.params_, type(model).load(tmp_path / "model.nc").params_):
        ax = plotting.plot_track(y, posterior, params, forecast=ahead)
        lines = {line.get_label(): line.get_xydata() for line in ax.lines}
        states = posterior["gamma"].sel(state=["x", "y"]).values
        np.testing.assert_allclose(lines["start"], states[:1])
        drawn = lines["smoothed track"]
        np.testing.assert_allclose(drawn[:30], states[:30])
        np.testing.assert_allclose(lines["forecast"][1:], ahead["predicted"].sel(state=["x", "y"]).values)
        outlines = next(c for c in ax.collections if c.get_gid() == "ellipses").get_paths()
        variance = posterior["cov"].sel(state="x", state_aux="x").values[0]
        assert np.ptp(outlines[0].vertices[:, 0]) == pytest.approx(2 * np.sqrt(5.991465 * variance), rel=1e-3)
        plt.close("all")
    np.testing.assert_allclose(lines["measured"], y[["gps x", "gps y"]])
