"""Models of motion: dense Gaussian oracle at uneven times, exact EM steps, sensors, the shipped track, bad input."""

import numpy as np
import oracles_gaussian as oracle
import pandas as pd
import pytest
import xarray as xr
from scipy import integrate, linalg

import statespace_em as sse
from statespace_em import checks, designs
from statespace_em.errors import DataError, NotFittedError, ParameterError
from statespace_em.sequence.motion import motion, over
from statespace_em.sequence.time_grid import grid_of

QUICK = {"n_starts": 1}


def times(rng, T, spread=1.0):
    return np.cumsum(np.exp(rng.normal(0.0, spread, T)))


def simulated(seed, T=40, d=2, density=0.5, noise=4.0, missing=0.1, spread=1.0):
    """Positions of a target of constant velocity at uneven times, exact, one axis after the other."""
    rng = np.random.default_rng(seed)
    at = times(rng, T, spread)
    y = np.empty((T, d))
    for axis in range(d):
        s = rng.normal(0.0, 3.0, 2)
        for t, h in enumerate(np.diff(at, prepend=at[0])):
            Q = density * np.array([[h**3 / 3, h**2 / 2], [h**2 / 2, h]])
            s = np.array([[1, h], [0, 1]]) @ s
            s = s + (np.linalg.cholesky(Q) @ rng.normal(size=2) if h > 0 else 0.0)
            y[t, axis] = s[0] + np.sqrt(noise) * rng.normal()
    y[rng.random(y.shape) < missing] = np.nan
    return xr.DataArray(y, dims=("time", "feature"), coords={"time": at, "feature": list("xyz")[:d]})


def dense(y, gaps, density, noise, m0, P0):
    """The oracle's parameters of constant velocity, from the closed form."""
    d = y.shape[1]
    one = np.eye(d)
    A = [np.kron([[1, h], [0, 1]], one) for h in gaps]
    Q = [density * np.kron([[h**3 / 3, h**2 / 2], [h**2 / 2, h]], one) for h in gaps]
    n = 2 * d
    return oracle.Parameters(
        np.array(A), np.zeros((1, n)), np.array(Q), np.eye(d, n)[None], np.zeros((1, d)), noise * one[None], m0, P0
    )


def test_uneven_times_against_one_joint_gaussian():
    y = simulated(0, T=9)
    gaps = np.append(np.diff(y["time"]), 1.0)
    m0, P0 = np.array([1.0, -1.0, 0.5, 0.0]), np.diag([50.0, 40.0, 9.0, 4.0])
    model = designs.constant_velocity(2, density=0.7, noise=3.0, initial="known", initial_mean=m0, initial_cov=P0).fit(
        y
    )
    expected = oracle.posterior(y.values, dense(y.values, gaps, 0.7, 3.0, m0, P0))
    assert model.score(y) == pytest.approx(expected.log_likelihood, rel=1e-11)
    posterior, known = model.e_step(y), model.filter(y)
    for found, wanted in (
        (posterior["gamma"], expected.mean), (posterior["cov"], expected.cov),
        (posterior["cross_cov"], expected.cross_cov), (known["filtered"], expected.filtered_mean),
        (known["predicted_cov"], expected.predicted_cov), (known["innovation"], expected.innovation),
        (known["innovation_cov"], expected.innovation_cov), (known["log_likelihood"], expected.contributions),
        (model.decode(y), expected.mean),
    ):  # fmt: skip
        np.testing.assert_allclose(found.values, wanted, rtol=1e-8, atol=1e-10)
    # the future: three steps of the median gap
    step = float(np.median(np.diff(y["time"])))
    later = np.vstack([y.values, np.full((3, 2), np.nan)])
    ahead = oracle.posterior(later, dense(later, [*gaps[:-1], step, step, step, step], 0.7, 3.0, m0, P0))
    future = model.forecast(y, 3)
    np.testing.assert_allclose(future["predicted"].values, ahead.mean[-3:], rtol=1e-9)
    np.testing.assert_allclose(future["predicted_cov"].values, ahead.cov[-3:], rtol=1e-9, atol=1e-9)
    paths = model.simulate(y, 3, 4000, seed=1)
    spread = np.sqrt(np.diag(future["cov"].values[-1]))
    np.testing.assert_allclose(paths["y"].values[:, -1].mean(0), future["mean"].values[-1], atol=0.06 * spread.max())


def test_dynamics_are_the_matrix_exponential():
    rng = np.random.default_rng(1)
    gaps = rng.uniform(0.01, 3, 4)
    a = over(motion(["x"], 3, 0.0, separate=False), gaps)
    for h, A, Q in zip(gaps, a.transition, a.noises[0]):
        np.testing.assert_allclose(A, [[1, h, h**2 / 2], [0, 1, h], [0, 0, 1]], rtol=1e-12)
        wanted = [[h**5 / 20, h**4 / 8, h**3 / 6], [h**4 / 8, h**3 / 3, h**2 / 2], [h**3 / 6, h**2 / 2, h]]
        np.testing.assert_allclose(Q, wanted, rtol=1e-9)
    for order in (2, 3):
        for separate in (False, True):
            moves = motion(["x", "y", "z"], order, 0.0, separate=separate)
            closed = over(moves, gaps)
            for noises, push in zip(closed.noises, moves.pushes, strict=True):
                transitions, covs = oracle.discretised(moves.drift, push, gaps)
                np.testing.assert_allclose(closed.transition, transitions, rtol=1e-12, atol=1e-14)
                np.testing.assert_allclose(noises, covs, rtol=1e-9, atol=1e-14)
    w = 0.7
    moves = motion(["x", "y", "z"], 2, w, separate=False)
    turn = over(moves, gaps)
    for rate in (w, -2.0, 1e-3, 1e-7):  # slow turns too: not one digit lost in differences of small angles
        moves = motion(["x", "y", "z"], 2, rate, separate=False)
        closed, (transitions, covs) = over(moves, gaps), oracle.discretised(moves.drift, moves.pushes[0], gaps)
        np.testing.assert_allclose(closed.transition, transitions, rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(closed.noises[0], covs, rtol=1e-11, atol=1e-15)
    for h, A, Q in zip(gaps, turn.transition, turn.noises[0]):
        s, c = np.sin(w * h), np.cos(w * h)
        np.testing.assert_allclose(A[3:5, 3:5], [[c, -s], [s, c]], atol=1e-13)
        np.testing.assert_allclose(A[:2, 3:5], np.array([[s, c - 1], [1 - c, s]]) / w, atol=1e-13)
        np.testing.assert_allclose(A[2], [0, 0, 1, 0, 0, h], atol=1e-13)
        grid = np.linspace(0, h, 2001)
        flow = np.array([linalg.expm(motion(["x", "y", "z"], 2, w, separate=False).drift * u) for u in grid[::20]])
        push = np.diag([0, 0, 0, 1.0, 1, 1])
        np.testing.assert_allclose(
            Q, integrate.simpson(flow @ push @ flow.swapaxes(1, 2), x=grid[::20], axis=0), atol=1e-8
        )
        np.testing.assert_allclose(Q[3:, 3:], h * np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        designs.constant_velocity(1),
        designs.constant_velocity(2, density="separate", noise="separate"),
        designs.constant_velocity(2, noise="free", initial="fixed"),
        designs.constant_acceleration(1),
        designs.coordinated_turn(0.3, 3),
    ],
    ids=["cv1", "separate", "fixed", "ca1", "turn3"],
)
def test_leaving_blank_rows_out_changes_nothing(model):
    """An even grid with blank rows is the same data as uneven rows without them: one path checks the other."""
    d = len(model._motion.observation)
    y = simulated(2, T=60, d=d, spread=0.0)
    grid = y.assign_coords(time=0.5 * np.arange(60))
    keep = np.random.default_rng(3).random(60) < 0.6
    keep[[0, -1]] = True
    grid[~keep] = np.nan
    rows = grid[keep]
    even, uneven = (type(model)(**model.get_params()).fit(each, **QUICK) for each in (grid, rows))
    assert even.status_ == uneven.status_ == "converged"
    assert uneven.score(rows) == pytest.approx(even.score(grid), abs=2e-8)
    assert uneven.n_parameters_ == even.n_parameters_
    assert uneven.score(grid, even.params_) == pytest.approx(even.score(grid), abs=1e-9)
    assert even.score(rows) == pytest.approx(even.score(grid), abs=1e-7)
    np.testing.assert_allclose(
        even.e_step(rows)["gamma"].values, even.e_step(grid)["gamma"].values[keep], rtol=1e-6, atol=1e-7
    )
    free = [name for name in even.summary().index.get_level_values(0) if "density" in name or "noise" in name]
    assert free
    # another median step: compare what does not depend on it
    there, here = (m.summary().loc[free, "value"].values for m in (uneven, even))
    np.testing.assert_allclose(there, here, rtol=2e-3, atol=1e-9)


def test_a_step_of_em_is_the_mean_of_whitened_squares():
    """The density moves to the mean over steps of tr(inv(Q0) E[w w']) / n, from the oracle's joint moments."""
    y = simulated(4, T=8)
    gaps = np.append(np.diff(y["time"]), 1.0)
    m0, P0 = np.zeros(4), np.diag([50.0, 40.0, 9.0, 4.0])
    settings = {"initial": "known", "initial_mean": m0, "initial_cov": P0}
    params = designs.constant_velocity(2, density=0.7, noise=3.0, **settings).fit(y).params_
    model = designs.constant_velocity(2, **settings)
    p = dense(y.values, gaps, 0.7, 3.0, m0, P0)
    new = model.m_step(y, model.e_step(y, params), params)
    mean, second = oracle.completed(y.values, p)
    total = 0.0
    for t in range(7):
        pick = np.zeros((4, len(mean)))
        pick[:, 4 * t + 4 : 4 * t + 8], pick[:, 4 * t : 4 * t + 4] = np.eye(4), -p.A[t]
        total += np.trace(np.linalg.solve(p.Q[t] / 0.7, pick @ second @ pick.T)) / 4
    model.params_ = new
    assert model.summary().loc["acceleration_density", "value"].item() == pytest.approx(total / 7, rel=1e-8)
    v, count = 0.0, 0
    for t, k in np.argwhere(~np.isnan(y.values)):
        pick = np.zeros(len(mean))
        pick[32 + 2 * t + k], pick[4 * t + k] = 1.0, -1.0
        v, count = v + pick @ second @ pick, count + 1
    assert new["measurement_cov"].values[0, 0] == pytest.approx(v / count, rel=1e-8)
    trace = designs.constant_velocity(2, **settings).fit(y, **QUICK).trace_["objective"].values
    assert (np.diff(trace) >= -1e-9).all()


def test_units_of_time_and_of_y():
    y = simulated(5, T=80)
    model = designs.constant_velocity(2).fit(y, **QUICK)
    per_second = model.summary().loc[["acceleration_density", "noise_var"], "value"].values
    dated = y.assign_coords(time=pd.Timestamp("2024-03-01") + pd.to_timedelta(y["time"].values, unit="s"))
    for unit, factor in (("s", 1.0), ("min", 60.0**3), ("ms", 1e-9)):
        other = designs.constant_velocity(2, unit=unit).fit(dated, **QUICK)
        found = other.summary().loc[["acceleration_density", "noise_var"], "value"].values
        np.testing.assert_allclose(found, per_second * [factor, 1.0], rtol=1e-4)
        np.testing.assert_allclose(
            other.decode(dated).sel(state="x"), model.decode(y).sel(state="x"), rtol=1e-5, atol=1e-5
        )
    scaled = designs.constant_velocity(2).fit(1e-5 * y, **QUICK)
    np.testing.assert_allclose(
        scaled.summary().loc[["acceleration_density", "noise_var"], "value"].values, 1e-10 * per_second, rtol=1e-4
    )


def test_very_uneven_times_reach_a_maximum():
    y = simulated(6, T=150, spread=2.0, missing=0.0)
    model = designs.constant_velocity(2).fit(y)
    assert model.status_ == "converged"
    assert model.starts_["objective"].max() - model.starts_["objective"][model.starts_["found_by"] > 0].min() < 1e-6
    q, r = model.summary().loc[["acceleration_density", "noise_var"], "value"]
    top = model.score(y)
    for dq, dr in ((1.02, 1), (0.98, 1), (1, 1.02), (1, 0.98)):
        assert designs.constant_velocity(2, density=q * dq, noise=r * dr).fit(y).score(y) < top
    assert 0.2 < q / 0.5 < 3.0
    assert 0.4 < r / 4.0 < 2.5


def test_the_shipped_track_with_and_without_the_truth():
    radar = sse.datasets.radar()
    scans = radar["measured"].where(~radar["outlier"])
    truth = radar["true_position"].values
    estimated = designs.constant_velocity(["east", "north"]).fit(scans)
    known = designs.constant_velocity(
        ["east", "north"], density=radar.attrs["acceleration_density"], noise=radar.attrs["noise_sd"] ** 2
    ).fit(scans)
    for answer in (lambda model: model.e_step(scans)["gamma"], lambda model: model.filter(scans)["filtered"]):
        error, best = (
            np.sqrt(((answer(model).values[2:, :2] - truth[2:]) ** 2).mean()) for model in (estimated, known)
        )
        assert error < 1.02 * best
    found = checks.nis(estimated.filter(scans))
    assert found["average_lower"] < found["average"] < found["average_upper"]
    q, r = estimated.summary().loc[["acceleration_density", "noise_var"], "value"]
    errors = estimated.standard_errors(scans)
    assert abs(q - 0.3) < 2 * errors["process_cov"].values[2, 2] / 2
    assert abs(r - 625) < 2 * errors["measurement_cov"].values[0, 0]


def test_standard_errors_at_uneven_times():
    y = simulated(2, T=120, spread=0.0).assign_coords(time=2.0 * np.arange(120))
    keep = np.random.default_rng(3).random(120) < 0.7
    keep[[0, -1]] = True
    grid = y.where(xr.DataArray(keep, dims="time"))
    even, uneven = (designs.constant_velocity(2, density="separate").fit(each, **QUICK) for each in (grid, y[keep]))
    one, other = even.standard_errors(grid), uneven.standard_errors(y[keep])
    np.testing.assert_allclose(other["process_cov"], one["process_cov"], rtol=1e-3)
    np.testing.assert_allclose(other["measurement_cov"], one["measurement_cov"], rtol=1e-3)
    ends = uneven.confidence_intervals(y[keep])["process_cov"]
    value = uneven.params_["process_cov"].values.diagonal()
    assert (ends.sel(bound="lower").values.diagonal() < value).all()
    assert (ends.sel(bound="upper").values.diagonal() > value).all()
    drawn = uneven.bootstrap(y[keep], n_replicates=40, seed=1)["process_cov"].values[:, 2, 2]
    assert drawn.std() == pytest.approx(other["process_cov"].values[2, 2], rel=0.4)
    assert drawn.mean() == pytest.approx(uneven.params_["process_cov"].values[2, 2], rel=0.3)
    assert dict(even.bootstrap(grid, n_replicates=2).sizes)["replicate"] == 2


def test_two_sensors_with_their_own_rates_and_noises():
    rng = np.random.default_rng(7)
    one = simulated(8, T=400, noise=1e-12, missing=0.0, spread=0.0)
    y = np.hstack([one.values + rng.normal(0, 1, (400, 2)), one.values + rng.normal(0, 5, (400, 2))])
    y[np.arange(400) % 4 > 0, :2] = np.nan  # the better one reports every fourth row
    y[rng.random(400) < 0.2, 2:] = np.nan
    model = designs.constant_velocity(2, sensors=2).fit(y, **QUICK)
    values = model.summary()["value"]
    assert values["noise_var_1"].item() == pytest.approx(1.0, rel=0.4)
    assert values["noise_var_2"].item() == pytest.approx(25.0, rel=0.15)
    truth = one.values
    errors = [np.sqrt(((model.e_step(y)["gamma"].values[:, :2] - truth) ** 2).mean())]
    for columns in (slice(0, 2), slice(2, 4)):
        alone = designs.constant_velocity(2).fit(y[:, columns], **QUICK)
        errors.append(np.sqrt(((alone.e_step(y[:, columns])["gamma"].values[:, :2] - truth) ** 2).mean()))
    assert errors[0] < min(errors[1:])
    rows = ~np.isnan(y).all(1)
    late = xr.DataArray(y[rows], dims=("time", "feature"), coords={"time": np.flatnonzero(rows)})
    assert model.score(late) == pytest.approx(model.score(y), abs=1e-7)


def test_a_turn_is_followed():
    rng = np.random.default_rng(9)
    at = np.sort(rng.uniform(0, 60, 80))
    circle = 100 * np.column_stack([np.cos(0.2 * at), np.sin(0.2 * at)])
    y = xr.DataArray(circle + rng.normal(0, 2, (80, 2)), dims=("time", "axis"), coords={"time": at, "axis": ["x", "y"]})
    turn = designs.coordinated_turn(0.2).fit(y, **QUICK)
    straight = designs.constant_velocity(2).fit(y, **QUICK)
    assert turn.score(y) > straight.score(y) + 20
    other = designs.coordinated_turn(-0.2).fit(y, **QUICK)
    assert turn.score(y) > other.score(y) + 20


def test_sequences_simulation_streams_and_files(tmp_path):
    y = simulated(10, T=30)
    runs = xr.concat([y, y + 1.0], "run")
    model = designs.constant_velocity(2).fit(runs, **QUICK)
    assert model.e_step(runs)["gamma"].dims == ("run", "time", "state")
    assert model.score(runs) == pytest.approx(2 * model.score(y), abs=1e-7)  # a diffuse start knows no place
    model.save(tmp_path / "model.nc")
    again = designs.MotionModel.load(tmp_path / "model.nc")
    assert again.score(y) == pytest.approx(model.score(y), rel=1e-12)
    even = designs.constant_velocity(2, step=2.0, density=0.5, noise=4.0, initial="known", initial_mean=np.zeros(4),
                                     initial_cov=np.eye(4))  # fmt: skip
    even = even.fit(np.random.default_rng(0).normal(size=(9, 2)))
    drawn = even.sample(200, seed=1)
    assert drawn["time"].values[:3].tolist() == [0.0, 2.0, 4.0]
    back = designs.constant_velocity(2).fit(drawn["y"], **QUICK)
    assert back.summary().loc["acceleration_density", "value"].item() == pytest.approx(0.5, rel=0.5)
    stream = even.stream()
    steps = [stream.update(row) for row in drawn["y"].values[:5]]
    known = model.filter(y)  # a start that is diffuse: go on from the prediction of a row
    begin = {
        "initial_mean": known["predicted"][9].drop_vars("time"),
        "initial_cov": known["predicted_cov"][9].drop_vars("time"),
    }
    assert model.stream(model.params_.assign(begin)).update(y.values[9]).filtered == pytest.approx(
        known["filtered"].values[9], rel=1e-9
    )
    np.testing.assert_allclose(steps[-1].filtered, even.filter(drawn["y"][:5])["filtered"].values[-1], rtol=1e-9)


def test_one_step_ahead_before_the_start_is_known():
    y = simulated(14, T=20, missing=0.0)
    model = designs.constant_velocity(2, density=0.5, noise=4.0).fit(y)
    known, ahead = model.filter(y), model.one_step(y)
    assert np.isnan(ahead["mean"].values[:2]).all()  # nothing is known, and no warning
    assert not np.isfinite(ahead["variance"].values[:2]).any()
    np.testing.assert_allclose(y.values[2:] - ahead["mean"].values[2:], known["innovation"].values[2:], rtol=1e-7)
    found = checks.nis(known)
    assert (found["dof"].values == [0, 0, *[2] * 18]).all()
    assert checks.innovation_tests(known, lags=4)["n"].tolist() == [18, 18]


def test_start_and_freeze():
    y = simulated(11, T=60)
    first = designs.constant_velocity(2).fit(y, **QUICK)
    warm = designs.constant_velocity(2).fit(y, start=first.params_)
    assert warm.trace_["objective"].iloc[0] == pytest.approx(first.score(y), abs=1e-6)
    held = designs.constant_velocity(2).fit(
        y, start=designs.constant_velocity(2, density=3.0, noise=4.0).fit(y).params_, freeze=["process_cov"]
    )
    assert held.summary().loc["acceleration_density", "value"].item() == pytest.approx(3.0, rel=1e-9)


def test_bad_input_of_motion():
    y = simulated(12, T=12)
    with pytest.raises(ParameterError, match=r"dims is 2\.5, expected 1, 2 or 3, or names of the axes"):
        sse.designs.constant_velocity(2.5).fit(np.zeros((9, 2)))
    with pytest.raises(ParameterError, match="dims is 4, expected 1, 2 or 3"):
        designs.constant_velocity(4).fit(y)
    with pytest.raises(ParameterError, match="dims names 'x', 'x', expected up to three different axes"):
        designs.constant_velocity(["x", "x"]).fit(y)
    with pytest.raises(ParameterError, match=r"y has 2 columns, expected 3: 'x', 'y', 'z' of 1 sensor"):
        designs.constant_velocity(3).fit(y)
    with pytest.raises(ParameterError, match="it needs two axes and a rate that is not 0"):
        designs.coordinated_turn(0.0).fit(y)
    with pytest.raises(ParameterError, match="a turn mixes its axes"):
        designs.coordinated_turn(0.1, density="separate").fit(y)
    with pytest.raises(ParameterError, match="turns by more than half a circle"):
        designs.coordinated_turn(90.0).fit(y)
    with pytest.raises(ParameterError, match=r"density is -1, expected a positive number"):
        designs.constant_velocity(2, density=-1).fit(y)
    with pytest.raises(ParameterError, match=r"noise has shape \(3,\), expected one variance"):
        designs.constant_velocity(2, noise=[1, 2, 3]).fit(y)
    dated = y.assign_coords(time=pd.date_range("2024", periods=12))
    with pytest.raises(ParameterError, match="unit is 'parsec', expected a unit of time"):
        designs.constant_velocity(2, unit="parsec").fit(dated)
    with pytest.raises(ParameterError, match="initial is 'known': give initial_mean and initial_cov"):
        designs.constant_velocity(2, initial="known").fit(y)
    with pytest.raises(ParameterError, match=r"expected \(4,\) and \(4, 4\) for the states 'x', 'y', 'v_x', 'v_y'"):
        designs.constant_velocity(2, initial="known", initial_mean=[0], initial_cov=[[1]]).fit(y)
    with pytest.raises(NotFittedError, match="call fit"):
        designs.constant_velocity(2).filter(y)
    twice = y.assign_coords(time=np.sort(np.append(y["time"].values[:-1], y["time"].values[3])))
    with pytest.raises(DataError, match="occurs more than once"):
        designs.constant_velocity(2).fit(twice)
    back = pd.Index([0.0, 1.0, 3.0, 2.5])
    with pytest.raises(DataError, match=r"^row 3 has the time 2\.5, which is not after that of the row before it"):
        grid_of([back], "s", 0)
    with pytest.raises(DataError, match=r"unsorted=.sort"):
        designs.constant_velocity(2).fit(y[::-1])
    with pytest.raises(ParameterError, match="sensor 'gps' measures 'w', expected some of 'x', 'y', 'v_x', 'v_y'"):
        designs.constant_velocity(2, sensors={"gps": ["x", "w"]}).fit(y)
    with pytest.raises(ParameterError, match="sensor 'gps' measures nothing"):
        designs.constant_velocity(2, sensors={"gps": []}).fit(y)
    with pytest.raises(ParameterError, match="sensors is empty"):
        designs.constant_velocity(2, sensors={}).fit(y)
    model = designs.constant_velocity(2, density=0.5, noise=4.0).fit(y)
    with pytest.raises(ParameterError, match="times is empty"):
        model.at(y, [])
    with pytest.raises(ParameterError, match="times begin with 'noon', expected times such as 0"):
        model.at(y, ["noon"])
    words = pd.DataFrame(y.values, index=[f"fix {i}" for i in range(12)], columns=["x", "y"])
    with pytest.raises(ParameterError, match=r"the rows are called 'fix 0', \.\.\.: give them dates or numbers"):
        model.at(words, [1.0])
    with pytest.raises(DataError, match=r"rows are uneven: pass parameters_at\(y\)"):
        checks.auxiliary_residuals(y, model.e_step(y), model.params_)


def tracks():
    return {name: simulated(seed, T=T).to_pandas() for name, seed, T in (("a", 1, 30), ("b", 2, 45), ("c", 3, 12))}


@pytest.mark.parametrize("settings", [{}, {"density": "separate", "likelihood": "marginal"}, {"initial": "fixed"}])
def test_tracks_with_their_own_times(settings):
    """A panel says of each track what the track alone says, and its likelihood is their product."""
    panel = tracks()
    if "initial" in settings:  # one constant for all: begin alike
        panel = {name: track.iloc[k:] for k, (name, track) in enumerate(panel.items())}
    model = designs.constant_velocity(2, **settings).fit(panel, **QUICK)
    assert model.status_ == "converged"
    again = model.m_step(panel, model.e_step(panel))
    np.testing.assert_allclose(again["process_cov"], model.params_["process_cov"], rtol=1e-3)
    if "initial" in settings:
        return
    assert model.score(panel) == pytest.approx(sum(model.score(track) for track in panel.values()), rel=1e-12)
    posterior, known, lag, full = (
        model.e_step(panel),
        model.filter(panel),
        model.fixed_lag(panel, 3),
        model.impute(panel),
    )
    ahead, there = model.forecast(panel, 2), model.at(panel, [7.5, 90.0])
    for name, track in panel.items():
        n = len(track)
        alone = model.filter(track)
        for found, wanted in (
            (posterior["gamma"], model.e_step(track)["gamma"]), (posterior["cov"], model.e_step(track)["cov"]),
            (known["innovation_cov"], alone["innovation_cov"]), (known["filtered"], alone["filtered"]),
            (lag["smoothed"], model.fixed_lag(track, 3)["smoothed"]), (full["mean"], model.impute(track)["mean"]),
        ):  # fmt: skip
            np.testing.assert_allclose(found.sel(sequence=name).values[:n], wanted, rtol=1e-6, atol=1e-7)
        one = model.at(track, [7.5, 90.0])
        np.testing.assert_allclose(there["smoothed"].sel(sequence=name), one["smoothed"], rtol=1e-6, atol=1e-7)
        steps = np.median(np.diff(track.index)) * np.arange(1, 3) + track.index[-1]
        np.testing.assert_allclose(ahead["timestamp"].sel(sequence=name), steps, rtol=1e-12)
        later = model.at(track, steps)  # the forecast of each goes on from its own end, in its own step
        np.testing.assert_allclose(ahead["mean"].sel(sequence=name), later["mean"], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(ahead["cov"].sel(sequence=name), later["cov"], rtol=1e-6, atol=1e-7)
    assert dict(model.bootstrap(panel, n_replicates=2).sizes)["replicate"] == 2


def test_dates_that_are_single_objects_are_dates_and_text_is_refused():
    rng = np.random.default_rng(5)
    dates = pd.Timestamp("2024-02-27") + pd.to_timedelta(np.cumsum(rng.integers(1, 4, 20)), unit="D")
    y, model = rng.normal(size=20).cumsum(), designs.constant_velocity(1, density=0.2, noise=0.5, unit="D")
    plain = pd.Series(y, dates)
    for single in (dates.date, dates.to_pydatetime()):
        objects = pd.Series(y, pd.Index(single, dtype=object, name="day"))
        assert model.score(objects) == model.score(plain)
        assert model.forecast(objects, 2)["day"].dims == ("horizon",)
        with pytest.raises(DataError, match=r"day 2024-0.-.. comes after 2024-03-.."):
            model.score(objects.iloc[[1, 0, 2]])
    for text in (dates.strftime("%Y-%m-%d"), (dates - dates[0]).days.astype(str)):
        with pytest.raises(DataError, match=r"time '?.* is text, from which steps are not read: make the times dates"):
            model.score(pd.Series(y, text))
    assert model.score(pd.Series(y, [f"row {i}" for i in range(20)])) == model.score(y)
    zones = [dates[0].tz_localize("UTC").to_pydatetime(), dates[1].tz_localize("Asia/Tokyo").to_pydatetime()]
    with pytest.raises(DataError, match="the dates of y have several time zones"):
        model.score(pd.Series(y[:2], pd.Index(zones, dtype=object)))


def test_forecasts_and_residuals_of_tracks_with_steps_of_their_own():
    """A slow sensor and a fast one: what follows is in the step of each, and shocks are those of each alone."""
    fast, slow = simulated(4, T=40).to_pandas(), simulated(5, T=15).to_pandas()
    fast.index, slow.index = 0.5 * np.arange(40.0), 7.0 + 3.0 * np.arange(15.0)
    alone = fast.iloc[[0]]  # one row has no step of its own: that of the others
    panel = {"fast": fast, "slow": slow, "one": alone}
    first = {"initial": "known", "initial_mean": np.zeros(4), "initial_cov": 9.0 * np.eye(4)}
    model = designs.constant_velocity(2, density=0.5, noise=4.0, **first).fit(fast)
    ahead, whole = model.forecast(panel, 3), model.parameters_at(panel)
    assert whole["transition"].dims == ("sequence", "time", "next_state", "state")
    known = model.parameters_at(panel)
    found = checks.auxiliary_residuals(panel, model.e_step(panel), known)
    for name, step in (("fast", 0.5), ("slow", 3.0), ("one", 0.5)):
        own, n = panel[name], len(panel[name])
        later = model.at(own, own.index[-1] + step * np.arange(1, 4))
        np.testing.assert_allclose(ahead["mean"].sel(sequence=name), later["mean"], rtol=1e-8)
        np.testing.assert_allclose(ahead["cov"].sel(sequence=name), later["cov"], rtol=1e-8)
        single = model.parameters_at(own)
        led = whole["transition"].sel(sequence=name)[: n - 1]
        np.testing.assert_allclose(led, single["transition"][:-1], rtol=1e-12)
        residuals = checks.auxiliary_residuals(own, model.e_step(own), single)
        for word, value in residuals.items():
            padded = found[word].sel(sequence=name)
            np.testing.assert_allclose(padded[:n], value, rtol=1e-6, atol=1e-9)
            assert np.isnan(padded[n:]).all()
    lone = model.forecast(alone, 2)  # nothing tells the step but the fit
    np.testing.assert_allclose(lone["time"], alone.index[0] + 0.5 * np.arange(1, 3))
    np.testing.assert_allclose(lone["mean"], model.at(alone, lone["time"].values)["mean"], rtol=1e-8)
    dated = {
        key: frame.set_axis(pd.Timestamp("2024-03-01") + pd.to_timedelta(frame.index, unit="s"))
        for key, frame in panel.items()
    }
    stamps = model.forecast(dated, 3)["timestamp"]
    later = dated["slow"].index[-1] + pd.to_timedelta([3, 6, 9], unit="s")
    assert (stamps.sel(sequence="slow").values == later.values).all()


def test_copies_of_tracks_estimate_what_one_of_each_does():
    panel = tracks()
    once = designs.constant_velocity(2).fit(panel, **QUICK)
    twice = designs.constant_velocity(2).fit(panel | {name + "2": track for name, track in panel.items()}, **QUICK)
    np.testing.assert_allclose(twice.summary()["value"], once.summary()["value"], rtol=1e-5)
    assert twice.score(panel) == pytest.approx(once.score(panel), abs=1e-7)


def test_between_the_rows_and_after_them_against_one_joint_gaussian():
    y = simulated(15, T=8)
    m0, P0 = np.array([1.0, -1.0, 0.5, 0.0]), np.diag([50.0, 40.0, 9.0, 4.0])
    model = designs.constant_velocity(2, density=0.7, noise=3.0, initial="known", initial_mean=m0, initial_cov=P0).fit(
        y
    )
    at = y["time"].values
    asked = np.array([at[-1] + 9.0, 0.5 * (at[2] + at[3]), at[4]])
    every = np.union1d(at, asked)
    rows = np.full((len(every), 2), np.nan)
    rows[np.searchsorted(every, at)] = y.values
    expected = oracle.posterior(rows, dense(rows, np.append(np.diff(every), 1.0), 0.7, 3.0, m0, P0))
    found = model.at(y, asked)
    assert found["time"].values.tolist() == sorted(asked)
    place = np.searchsorted(every, np.sort(asked))
    np.testing.assert_allclose(found["smoothed"], expected.mean[place], rtol=1e-8)
    np.testing.assert_allclose(found["smoothed_cov"], expected.cov[place], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found["mean"], expected.mean[place, :2], rtol=1e-8)
    np.testing.assert_allclose(found["cov"], expected.cov[place, :2, :2] + 3.0 * np.eye(2), rtol=1e-7, atol=1e-9)
    dated = y.to_pandas().set_axis(pd.Timestamp("2024-03-01", tz="Europe/Oslo") + pd.to_timedelta(at, unit="s"))
    noon = dated.index[2] + pd.Timedelta(0.5 * (at[3] - at[2]), unit="s")
    np.testing.assert_allclose(model.at(dated, noon)["smoothed"][0], found["smoothed"][0], atol=1e-6)
    later = model.forecast(dated, 2)["time"].to_index()
    assert (later[0] - dated.index[-1]).total_seconds() == pytest.approx(np.median(np.diff(at)), abs=1e-6)
    wide = xr.DataArray(rows, {"time": every}, ("time", "feature"))
    aside, again = (
        checks.auxiliary_residuals(each, model.e_step(each), model.parameters_at(each)) for each in (y, wide)
    )
    seen = np.searchsorted(every, at)
    np.testing.assert_allclose(again["measurement_shock"].values[seen], aside["measurement_shock"], rtol=1e-6)
    drawn = model.sample(at, seed=1)
    np.testing.assert_array_equal(drawn["time"], at)


def test_consistency_at_uneven_times():
    """NIS and NEES of the model that made the tracks, and of two that did not; the gate is the same band."""
    rng = np.random.default_rng(17)
    start = {"initial": "known", "initial_mean": np.zeros(4), "initial_cov": np.diag([9.0, 9.0, 1.0, 1.0])}
    at = np.cumsum(rng.exponential(1.0, 60))

    def model(density, noise):
        return designs.constant_velocity(2, density=density, noise=noise, **start).fit(np.zeros((5, 2)))

    true = model(0.5, 4.0)
    drawn = [true.sample(at, seed=seed) for seed in range(40)]
    runs = xr.concat([one["y"] for one in drawn], "run")
    truth = xr.concat([one["state"].rename(state_name="state") for one in drawn], "run")
    known = true.filter(runs)
    found, errors = checks.nis(known), checks.nees(known, truth)
    inside = (found["nis"] > found["lower"]) & (found["nis"] < found["upper"])
    assert float(inside.mean()) == pytest.approx(0.95, abs=0.015)
    kept = (found["average"] > found["average_lower"]) & (found["average"] < found["average_upper"])
    assert kept.mean() > 0.85
    held = (errors["average"] > errors["average_lower"]) & (errors["average"] < errors["average_upper"])
    assert held.mean() > 0.88  # at each time, over the runs
    gate = checks.gate(known, level=0.975)
    np.testing.assert_array_equal(gate, found["nis"] > found["upper"])  # the upper end of a central 95 % band
    for wrong in (model(0.02, 4.0), model(0.5, 1.0)):
        other = wrong.filter(runs)
        found, errors = checks.nis(other), checks.nees(other, truth)
        assert (found["average"] > found["average_upper"]).mean() > 0.9
        assert (errors["average"] > errors["average_upper"]).mean() > 0.8
    wide = checks.nis(model(0.5, 16.0).filter(runs))
    assert (wide["average"] < wide["average_lower"]).mean() > 0.9


def test_a_sensor_of_speed_beside_one_of_place():
    """Positions now and then, a velocity along one axis at other times: each with noise of its own."""
    rng = np.random.default_rng(16)
    truth = designs.constant_velocity(2, density=0.5, noise=1.0, step=1.0).fit(np.zeros((5, 2)))
    states = truth.sample(2000, seed=2)["state"].values
    y = np.full((2000, 3), np.nan)
    fixes, doppler = np.arange(2000) % 5 == 0, rng.random(2000) < 0.7
    y[fixes, :2] = states[fixes, :2] + rng.normal(0, 6, (fixes.sum(), 2))
    y[doppler, 2] = states[doppler, 2] + rng.normal(0, 2.0, doppler.sum())
    both = designs.constant_velocity(2, sensors={"gps": ["x", "y"], "doppler": ["v_x"]}).fit(y, **QUICK)
    value = both.summary()["value"].droplevel([1, 2])
    assert value["noise_var_gps"] == pytest.approx(36, rel=0.15)
    assert value["noise_var_doppler"] == pytest.approx(4.0, rel=0.15)
    assert value["acceleration_density"] == pytest.approx(0.5, rel=0.3)
    alone = designs.constant_velocity(2).fit(y[:, :2], **QUICK)
    error, other = (
        np.sqrt(np.mean((model.decode(rows).values - states)[:, [0, 2]] ** 2, axis=0))
        for model, rows in ((both, y), (alone, y[:, :2]))
    )
    assert (error < 0.9 * other).all()
    known = designs.constant_velocity(
        2, sensors={"gps": ["x", "y"], "doppler": ["v_x"]}, noise=[36.0, 4.0], density=0.5
    )
    np.testing.assert_array_equal(np.diag(known.fit(y).params_["measurement_cov"]), [36, 36, 4])


def test_units_are_told(tmp_path):
    radar = sse.datasets.radar()["measured"]
    model = designs.constant_velocity(["east", "north"]).fit(radar, **QUICK)
    assert model.summary()["unit"].droplevel([1, 2]).to_dict() == {
        "noise_var": "m^2", "acceleration_density": "m^2/s^3"
    }  # fmt: skip
    assert model.params_["transition"].attrs["step"] == "2 s"
    model.save(tmp_path / "model.nc")
    again = designs.MotionModel.load(tmp_path / "model.nc")
    assert again.summary()["unit"].tolist() == ["m^2", "m^2/s^3"]
    frame = radar.dropna("time").to_pandas()
    frame.attrs["units"] = {"east": "m", "north": "m"}
    frame.index = pd.Timestamp("2024") + pd.to_timedelta(frame.index, unit="s")
    jerk = designs.constant_acceleration(["east", "north"], unit="min").fit(frame, **QUICK)
    assert jerk.summary()["unit"].tolist() == ["m^2", "m^2/min^5"]
    assert jerk.params_["transition"].attrs["step"].startswith("median of uneven steps, 0.0333333 min")
    frame.attrs.clear()
    plain = designs.constant_velocity(["east", "north"]).fit(frame.reset_index(drop=True), **QUICK)
    assert plain.summary()["unit"].tolist() == ["y^2", "y^2/time^3"]


def test_columns_called_as_the_axes_go_by_name():
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"north": 100.0 + rng.normal(size=40).cumsum(), "east": rng.normal(size=40).cumsum()})
    model = designs.constant_velocity(["east", "north"])
    turned, sorted_ = model.fit(y, **QUICK).e_step(y), y[["east", "north"]]
    assert model.params_["feature"].values.tolist() == ["east", "north"]
    xr.testing.assert_identical(turned, model.fit(sorted_, **QUICK).e_step(sorted_))
    assert turned.gamma.sel(state="north").mean() > 50.0
    other = y.set_axis(["a", "b"], axis=1)  # other names go in order
    assert model.fit(other, **QUICK).e_step(other).gamma.sel(state="east").mean() > 50.0


@pytest.mark.parametrize("like", [pd.date_range("2020", periods=30), pd.timedelta_range("1 s", periods=30)])
@pytest.mark.parametrize("times", [3.5, [1, 2], np.array([5.5])])
def test_numbers_are_no_times_of_rows_with_dates(like, times):
    """They would be taken for nanoseconds since 1970."""
    y = pd.Series(np.random.default_rng(0).normal(size=30).cumsum(), like)
    model = designs.local_level(unit="D").fit(y, **QUICK)
    with pytest.raises(ParameterError, match=r"times begin with [135.]+, expected times such as"):
        model.at(y, times)


def test_times_of_a_zone_are_no_times_of_rows_without():
    y = pd.DataFrame(
        np.random.default_rng(0).normal(size=(30, 2)).cumsum(0), pd.date_range("2020", periods=30, freq="s")
    )
    model = designs.constant_velocity(2).fit(y, **QUICK)
    with pytest.raises(ParameterError, match=r"times begin with .*, expected times such as"):
        model.at(y, [pd.Timestamp("2020-01-01 00:00:03", tz="UTC")])
