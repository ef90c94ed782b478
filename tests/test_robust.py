"""Student-t noise: the bound against quadrature, its rise, its stationary point; outliers of the shipped track."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import statespace_em as sse
from statespace_em import checks, designs, robust
from statespace_em.errors import ConvergenceWarning, ParameterError


def level(density=None):
    return sse.LinearGaussianSSM(
        ["level"], transition=[[1]], process_cov=[["q"]] if density is None else [[density]], observation=[[1]],
        measurement_cov=[["r"]] if density is None else [[0.5]], initial="known", initial_mean=[0], initial_cov=[[2.0]],
    )  # fmt: skip


@pytest.mark.parametrize(("y", "most"), [([0.4, 0.9], 0.15), ([0.4, 5.0], 0.7)])
def test_the_bound_is_below_the_likelihood_and_close(y, most):
    """Two rows, all parameters known: the likelihood is a double integral over the weights."""
    y, nu = np.array(y), 4.0
    found = robust.fit_student(level(1.0), y, dof=nu, method="variational")
    nodes = (np.arange(400) + 0.5) / 400
    w = stats.gamma(nu / 2, scale=2 / nu).ppf(nodes)
    cov = np.array([[2.0, 2.0], [2.0, 3.0]])
    total = 0.0
    for one in w:
        S = np.broadcast_to(cov, (400, 2, 2)) + np.array([[0.5 / one, 0], [0, 0]]) + np.zeros((400, 2, 2))
        S[:, 1, 1] += 0.5 / w
        det = S[:, 0, 0] * S[:, 1, 1] - S[:, 0, 1] ** 2
        square = (S[:, 1, 1] * y[0] ** 2 - 2 * S[:, 0, 1] * y[0] * y[1] + S[:, 0, 0] * y[1] ** 2) / det
        total += (np.exp(-0.5 * square) / (2 * np.pi * np.sqrt(det))).mean() / 400
    gap = np.log(total) - found.trace["objective"].iloc[-1]
    assert 0.0 < gap < most
    assert found.weights.values[1] < found.weights.values[0]


def test_the_bound_rises_to_a_stationary_point():
    rng = np.random.default_rng(1)
    y = np.cumsum(rng.normal(size=150)) + 0.7 * rng.standard_t(3, size=150)
    y[rng.random(150) < 0.1] = np.nan
    found = robust.fit_student(level(), y, method="variational")
    assert found.converged
    assert (np.diff(found.trace["objective"]) > -1e-9).all()
    q, r = found.model.summary().loc[["q", "r"], "value"]
    mean, var = found.posterior["gamma"].values[:, 0], found.posterior["cov"].values[:, 0, 0]
    seen = ~np.isnan(y)
    square = (y - mean)[seen] ** 2 + var[seen]
    weight = found.weights.values
    np.testing.assert_allclose(weight[seen], (4.0 + 1.0) / (4.0 + square / r), rtol=1e-3)
    assert (weight[~seen] == 1.0).all()
    assert r == pytest.approx((weight[seen] * square).mean(), rel=1e-3)
    moves = np.diff(mean) ** 2 + var[1:] + var[:-1] - 2 * found.posterior["cross_cov"].values[:-1, 0, 0]
    assert q == pytest.approx(moves.mean(), rel=1e-3)


def test_many_degrees_of_freedom_are_the_normal():
    rng = np.random.default_rng(2)
    y = np.cumsum(rng.normal(size=80)) + rng.normal(size=80)
    found = robust.fit_student(level(), y, dof=1e7, method="variational")
    normal = level().fit(y)
    assert found.trace["objective"].iloc[-1] == pytest.approx(normal.score(y), abs=1e-3)
    np.testing.assert_allclose(found.weights, 1.0, atol=1e-5)


def test_outliers_of_the_radar_cost_next_to_nothing():
    radar = sse.datasets.radar()
    truth, measured = radar["true_position"].values, radar["measured"]

    def error(posterior):
        return np.sqrt(((posterior["gamma"].values[:, :2] - truth) ** 2).mean())

    clean = measured.where(~radar["outlier"])
    told = designs.constant_velocity(["east", "north"], density=0.3, noise=625.0).fit(clean)
    found = robust.fit_student(designs.constant_velocity(["east", "north"]), measured, method="variational")
    plain = designs.constant_velocity(["east", "north"]).fit(measured)
    assert error(found.posterior) < 1.02 * error(told.e_step(clean))  # told which are the outliers, and the truth
    assert error(plain.e_step(measured)) > 1.5 * error(found.posterior)
    weights = found.weights
    assert weights[radar["outlier"]].max() < 0.2
    assert found.model.summary().loc["noise_var", "value"].item() == pytest.approx(625, rel=0.15)
    rows = measured.dropna("time")
    uneven = robust.fit_student(designs.constant_velocity(["east", "north"]), rows, method="variational")
    np.testing.assert_allclose(uneven.weights, weights.sel(time=rows["time"]), rtol=1e-3, atol=1e-5)
    estimated = robust.fit_student(
        designs.constant_velocity(["east", "north"]), measured, dof=None, method="variational"
    )
    assert 1.0 < estimated.dof < 4.0
    assert estimated.trace["objective"].iloc[-1] > found.trace["objective"].iloc[-1]
    assert (np.diff(estimated.trace["objective"]) > -1e-9).all()


def test_a_gate_judges_by_what_passed_before():
    radar = sse.datasets.radar()
    model = designs.constant_velocity(["east", "north"], density=0.3, noise=625.0).fit(radar["measured"])
    outside = checks.gated(model, radar["measured"])
    assert (outside & radar["outlier"]).sum() >= 15
    assert (outside & ~radar["outlier"]).sum() <= 3
    kept = model.filter(radar["measured"].where(~outside))
    again = checks.gate(kept)
    assert not again.any()  # what is left passes the gate it was judged by
    each = checks.gated(model, radar["measured"], by="feature")
    assert each.dims == ("time", "feature")
    assert each.sum() >= 20


def two_sensors(seed=4, T=300):
    """A target seen by a good sensor every third row, and by one with heavy tails at irregular rows."""
    rng = np.random.default_rng(seed)
    source = designs.constant_velocity(2, density=0.5, noise=1.0, step=1.0).fit(np.zeros((5, 2)))
    truth = source.sample(T, seed=seed)["state"].values[:, :2]
    y = np.hstack([truth + rng.normal(0, 2, (T, 2)), truth + 4 * rng.standard_t(2, (T, 1)) * rng.normal(size=(T, 2))])
    y[np.arange(T) % 3 > 0, :2] = np.nan
    y[rng.random(T) < 0.4, 2:] = np.nan
    return y, truth


def test_each_sensor_has_its_own_weight_and_tail():
    y, truth = two_sensors(T=180)
    design = designs.constant_velocity(2, sensors={"gps": ["x", "y"], "sonar": ["x", "y"]})
    found = robust.fit_student(design, y, by="sensor", dof=None, tol=1e-3, method="variational")
    assert found.converged
    assert (np.diff(found.trace["objective"]) > -1e-8).all()
    assert found.dof["sonar"] < 4.0 < 15.0 < found.dof["gps"]
    weight = found.weights.values
    assert found.weights.dims == ("time", "feature")
    np.testing.assert_array_equal(weight[:, 0], weight[:, 1])
    params = found.model.params_["measurement_cov"].values
    posterior = found.posterior
    mean, cov = posterior["gamma"].values, posterior["cov"].values
    for columns, nu in (((0, 1), found.dof["gps"]), ((2, 3), found.dof["sonar"])):  # the fixed point, sensor by sensor
        seen = ~np.isnan(y[:, columns[0]])
        square = sum(((y[:, c] - mean[:, c % 2]) ** 2 + cov[:, c % 2, c % 2]) / params[c, c] for c in columns)
        np.testing.assert_allclose(weight[seen, columns[0]], ((nu + 2) / (nu + square))[seen], rtol=1e-2)
        assert (weight[~seen, columns[0]] == 1.0).all()
    error = np.sqrt(((mean[:, :2] - truth) ** 2).mean())
    plain = design.fit(y, n_starts=1)
    rowwise = robust.fit_student(design, y, tol=1e-3, method="variational")
    assert error < 0.92 * np.sqrt(((plain.decode(y).values[:, :2] - truth) ** 2).mean())
    assert error < np.sqrt(((rowwise.posterior["gamma"].values[:, :2] - truth) ** 2).mean())
    late = np.flatnonzero(~np.isnan(y).all(1))  # rows with nothing left out: uneven times
    rows = xr.DataArray(y[late], {"time": late}, ("time", "feature"))
    uneven = robust.fit_student(design, rows, by="sensor", dof=None, tol=1e-3, method="variational")
    np.testing.assert_allclose(uneven.weights, weight[late], rtol=2e-2, atol=1e-3)
    np.testing.assert_allclose(
        uneven.model.summary()["value"].sort_index(), found.model.summary()["value"].sort_index(), rtol=2e-2
    )


def test_entries_by_themselves():
    rng = np.random.default_rng(6)
    signal = np.cumsum(rng.normal(size=120))
    y = signal[:, None] + rng.normal(size=(120, 2))
    y[60, 0] += 30.0
    model = sse.LinearGaussianSSM(
        transition=[[1]], process_cov=[["q"]], observation=[[1], [1]], measurement_cov="diagonal", initial="diffuse"
    )
    apart, together = (
        robust.fit_student(model, y, by="feature", method="variational"),
        robust.fit_student(model, y, method="variational"),
    )
    assert apart.weights[60, 0] < 0.05
    assert apart.weights[60, 1] > 0.5
    assert together.weights[60] < 0.05  # the row loses both
    assert abs(apart.posterior["gamma"][60, 0] - signal[60]) < 1.5


def test_several_tracks_share_their_noise():
    y = two_sensors(T=80)[0][:, 2:]
    late = np.flatnonzero(~np.isnan(y).all(1))
    track = pd.DataFrame(y[late], index=pd.Index(late, name="second"), columns=["x", "y"])
    one = robust.fit_student(designs.constant_velocity(2), track, method="variational")
    two = robust.fit_student(designs.constant_velocity(2), {"a": track, "b": track}, method="variational")
    assert one.weights.dims == ("second",)
    assert one.model.summary()["unit"].tolist() == ["y^2", "y^2/time^3"]
    assert two.weights.dims == ("sequence", "second")
    np.testing.assert_allclose(two.weights.sel(sequence="b"), one.weights, rtol=1e-3)
    np.testing.assert_allclose(two.model.summary()["value"], one.model.summary()["value"], rtol=1e-3)
    assert two.trace["objective"].iloc[-1] == pytest.approx(2 * one.trace["objective"].iloc[-1], abs=1e-4)
    frame = pd.concat({"a": track, "b": track}, names=["ship"])
    with pytest.warns(ConvergenceWarning, match="before it converged: raise max_iter"):
        named = robust.fit_student(designs.constant_velocity(2), frame, max_iter=3, method="variational")
    assert named.weights.dims == ("ship", "second")
    assert named.posterior["gamma"].dims == ("ship", "second", "state")
    shorter = robust.fit_student(designs.constant_velocity(2), {"a": track, "b": track.iloc[:30]}, method="variational")
    assert shorter.converged
    assert np.isnan(shorter.weights.sel(sequence="b").values[30:]).all()


def test_what_has_no_student_noise():
    y = xr.DataArray(np.random.default_rng(3).normal(size=(30, 2)), dims=("time", "feature"))
    with pytest.raises(ParameterError, match="Student-t noise needs a fixed observation"):
        robust.fit_student(sse.LinearGaussianSSM(2), y)
    with pytest.raises(ParameterError, match="dof is -1, expected a positive number"):
        robust.fit_student(level(), y[:, :1], dof=-1)
    with pytest.raises(ParameterError, match="noises of 0 and 1 may be correlated, so they cannot be weighted apart"):
        robust.fit_student(designs.constant_velocity(2, noise="free"), y, by="feature", method="variational")
    with pytest.raises(ParameterError, match="only a model of motion has sensors"):
        robust.fit_student(level(), y[:, :1], by="sensor", method="variational")
    with pytest.raises(ParameterError, match="by is 'entry'"):
        robust.fit_student(level(), y[:, :1], by="entry", method="variational")


def rows_with_accuracies(seed=3, n=80):
    """A walk, measured with accuracies that are known up to a factor, some rows being wrong."""
    rng = np.random.default_rng(seed)
    accuracy = rng.uniform(0.3, 3.0, n)
    y = np.cumsum(rng.normal(0, 0.7, n)) + np.sqrt(accuracy) * rng.normal(0, 0.6, n)
    y[[10, 30, 60]] += [20.0, -15.0, 9.0]
    y[40:44] = np.nan
    return y, accuracy


def test_noise_with_names_by_row_is_that_of_scaled_rows():
    """N(0, r a_t / w_t) of y_t is N(0, r / w_t) of y_t / sqrt(a_t), which is seen through 1 / sqrt(a_t)."""
    y, accuracy = rows_with_accuracies()
    shared = {
        "transition": [[1]],
        "process_cov": [["q"]],
        "initial": "known",
        "initial_mean": [0],
        "initial_cov": [[2.0]],
    }
    named = sse.LinearGaussianSSM(["s"], **shared, observation=[[1]], measurement_cov=[[{"r": accuracy}]])
    root = np.sqrt(accuracy)
    scaled = sse.LinearGaussianSSM(["s"], **shared, observation=1.0 / root[:, None, None], measurement_cov=[["r"]])
    for dof in (4.0, None):
        found = robust.fit_student(named, y, dof=dof, tol=1e-9, method="variational")
        expected = robust.fit_student(scaled, y / root, dof=dof, tol=1e-9, method="variational")
        assert found.converged
        seen = ~np.isnan(y)
        told = found.trace["objective"].iloc[-1] + np.log(root[seen]).sum()
        assert told == pytest.approx(expected.trace["objective"].iloc[-1], abs=1e-6)
        np.testing.assert_allclose(found.model.summary()["value"], expected.model.summary()["value"], rtol=1e-3)
        np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-3)
        np.testing.assert_allclose(found.dof, expected.dof, rtol=1e-3)
        assert (found.weights.values[[10, 30, 60]] < 0.2).all()
    known = found.model.filter(y, dof=4.0)
    other = expected.model.filter(
        y / root,
        expected.model.params_.assign({name: found.model.params_[name] for name in ("process_cov",)}).assign(
            measurement_cov=found.model.params_["measurement_cov"][0] / accuracy[0]
        ),
        dof=4.0,
    )
    np.testing.assert_allclose(known["filtered"], other["filtered"], rtol=1e-7)


def test_names_by_row_in_panels_and_in_the_dynamics():
    """Two copies tell what one does; the parameters are those of the rows of the model."""
    y, _ = rows_with_accuracies()
    late = np.arange(100) >= 35
    model = sse.LinearGaussianSSM(
        ["s"], transition=[[1]], process_cov=[[np.where(late, "q_late", "q_early")]], observation=[[1]],
        measurement_cov=[["r"]], initial="diffuse",
    )  # fmt: skip
    one, two = (
        robust.fit_student(model, y, tol=1e-8, method="variational"),
        robust.fit_student(model, [y, y], tol=1e-8, method="variational"),
    )
    assert one.model.params_["process_cov"].sizes["time"] == 100
    q = one.model.summary()["value"].droplevel([1, 2])
    np.testing.assert_allclose(one.model.params_["process_cov"][:, 0, 0], np.where(late, q["q_late"], q["q_early"]))
    np.testing.assert_allclose(two.model.summary()["value"], one.model.summary()["value"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(two.weights[1], one.weights, rtol=1e-3)


def test_inputs_of_a_robust_fit():
    """A known push of the state: as an offset by row that is fixed at what was found, the same weights."""
    y, _ = rows_with_accuracies()
    u = np.sin(np.arange(80.0))[:, None]
    shared = {"transition": [[1]], "observation": [[1]], "initial": "diffuse"}
    model = sse.LinearGaussianSSM(["s"], **shared, process_cov=[["q"]], measurement_cov=[["r"]], state_input="free")
    found = robust.fit_student(model, y + 2.0 * np.cumsum(u) - 2.0 * u[:, 0], inputs=u, tol=1e-9, method="variational")
    assert found.model.params_["state_input"].item() == pytest.approx(2.0, abs=0.8)
    p = found.model.params_
    fixed = sse.LinearGaussianSSM(
        ["s"], **shared, process_cov=p["process_cov"].values, measurement_cov=p["measurement_cov"].values,
        state_offset=u * p["state_input"].values,
    )  # fmt: skip
    again = robust.fit_student(fixed, y + 2.0 * np.cumsum(u) - 2.0 * u[:, 0], tol=1e-10, method="variational")
    np.testing.assert_allclose(again.weights, found.weights, rtol=1e-3)
    both = sse.LinearGaussianSSM(["s"], **shared, process_cov=[["q"]], observation_input="free")
    with pytest.raises(ParameterError, match="there is an observation_offset or observation_input"):
        robust.fit_student(both, y, inputs=u, method="variational")
