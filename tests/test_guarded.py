"""Filters of whole batches with a gate or Student-t noise: those of the streams, row by row."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from scipy.special import digamma

import statespace_em as sse
from statespace_em import checks, designs

SENSORS = {"gps": ["x", "y"], "odo": ["v_x", "v_y"]}
GUARDS = (
    {"gate": 0.999}, {"gate": 0.99, "by": "feature"}, {"dof": 4.0}, {"dof": 3.0, "by": "feature"},
)  # fmt: skip
TOLERANCE = {"rtol": 1e-11, "atol": 1e-11}


def track(seed=0, n=90, *, uneven=True, share=0.08):
    """Two sensors at rates of their own, one of them silent for long, with outliers in some entries."""
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.exponential(1.0, n)) if uneven else np.arange(float(n))
    truth = np.column_stack([30.0 * np.sin(t / 9.0), 20.0 * np.cos(t / 11.0)])
    speed = np.column_stack([30.0 / 9.0 * np.cos(t / 9.0), -20.0 / 11.0 * np.sin(t / 11.0)])
    y = np.column_stack([truth + rng.normal(0, 1.0, (n, 2)), speed + rng.normal(0, 0.3, (n, 2))])
    y[np.arange(n) % 3 > 0, :2] = np.nan
    y[30:60, 2:] = np.nan
    y[rng.random(y.shape) < 0.1] = np.nan
    wrong = rng.random(y.shape) < share
    y[wrong] += rng.normal(0, 40.0, int(wrong.sum()))
    columns = ["gps x", "gps y", "odo x", "odo y"]
    return pd.DataFrame(y, pd.Index(t, name="time"), columns)


def motion():
    return designs.constant_velocity(2, density=0.2, noise=[1.0, 0.09], sensors=SENSORS).fit(track(99))


def streamed(model, y, params=None, **guard):
    """Answers of a stream, labelled."""
    stream = model.stream(params, **guard)
    return stream.dataset([stream.update(row.to_numpy(), time=time) for time, row in y.iterrows()]), stream


def agree(found, expected):
    assert set(found.data_vars) == set(expected.data_vars)
    for name in found:
        assert found[name].attrs == expected[name].attrs
        if found[name].dtype == bool:
            np.testing.assert_array_equal(found[name], expected[name])
        else:
            np.testing.assert_allclose(found[name], expected[name], **TOLERANCE)


@pytest.mark.parametrize(
    "guard", [*GUARDS, {"gate": 0.999, "by": "sensor"}, {"dof": {"gps": 3.0, "odo": 9.0}, "by": "sensor"}]
)
@pytest.mark.parametrize("uneven", [False, True])
def test_the_batch_is_the_stream_of_several_sensors_at_any_times(guard, uneven):
    model, y = motion(), track(uneven=uneven)
    found = model.filter(y, **guard)
    expected, stream = streamed(model, y, **guard)
    agree(found, expected)
    assert stream.log_likelihood == pytest.approx(float(found["log_likelihood"].sum()), rel=1e-12)
    judged = found["outside"].any() if "gate" in guard else found["weight"].min() < 0.2
    assert judged


@pytest.mark.parametrize("guard", GUARDS)
def test_the_batch_is_the_stream_of_any_model(guard):
    """Inputs, matrices by row, offsets, a start that is known or diffuse: the dense arithmetic is that of one row."""
    rng = np.random.default_rng(2)
    n = 70
    u, accuracy = rng.normal(size=(n, 1)), rng.uniform(0.5, 2.0, n)
    y = pd.DataFrame(rng.normal(size=(n, 2)).cumsum(0), columns=["a", "b"])
    y[rng.random((n, 2)) < 0.2] = np.nan
    y[rng.random((n, 2)) < 0.1] += 20.0
    given = {
        "transition": [[0.9, 0.2], [0.0, 0.8]], "process_cov": [[1.0, 0.2], [0.2, 0.5]], "state_offset": [0.1, 0.0],
        "observation": [[1.0, 0.3], [0.0, 1.0]], "observation_offset": [0.5, -1.0],
    }  # fmt: skip
    noise = accuracy[:, None, None] * np.diag([1.0, 2.0])
    known = {"initial": "known", "initial_mean": [1.0, 2.0], "initial_cov": [[2.0, 0.1], [0.1, 1.0]]}
    for start in (known, {"initial": "diffuse"}):
        model = sse.LinearGaussianSSM(2, **given, measurement_cov=noise, state_input=[[0.5], [0.2]], **start)
        params = model.parameters(observation=given["observation"])
        found = model.filter(y, params, inputs=u, **guard)
        stream = model.stream(params, **guard)
        steps = [stream.update(row, time=t, inputs=u[t]) for t, row in enumerate(y.to_numpy())]
        agree(found, stream.dataset(steps))


@pytest.mark.parametrize("guard", GUARDS)
def test_panels_are_their_sequences(guard):
    model = motion()
    panel = {"first": track(1), "short": track(2, 12), "blank": track(3, 20) * np.nan, "last": track(4, 60)}
    found = model.filter(panel, **guard)
    for key, y in panel.items():
        alone = model.filter(y, **guard)
        for name in alone:
            own = found[name].sel(sequence=key).values
            np.testing.assert_allclose(own[: len(y)], alone[name].values, **TOLERANCE)
            rest = own[len(y) :]
            assert not rest.any() if rest.dtype == bool else np.isnan(rest).all()
    if "gate" in guard:
        by = guard.get("by", "row")
        outside = checks.gated(model, panel, level=guard["gate"], by=by)
        assert outside.dtype == bool
        assert outside.dims == ("sequence", "time", "feature")[: 2 if by == "row" else 3]
        np.testing.assert_array_equal(outside, found["outside"].any("feature") if by == "row" else found["outside"])


def test_a_gate_by_sensor_leaves_whole_sensors_out():
    model, y = motion(), track(uneven=False, share=0.0)
    y.iloc[21] = [30.0 * np.sin(21 / 9.0), 20.0 * np.cos(21 / 11.0), 500.0, 1.0]
    outside = checks.gated(model, y, level=0.9999, by="sensor")
    assert outside.sel(time=21.0).values.tolist() == [False, False, True, True]
    alone = y.copy()
    alone.iloc[21, 2:] = np.nan
    known, found = model.filter(alone.where(~outside.to_pandas())), model.filter(y, gate=0.9999, by="sensor")
    np.testing.assert_allclose(found["filtered"], known["filtered"], rtol=1e-9, atol=1e-9)


def test_student_weights_are_the_fixed_point_of_each_sensor():
    """Each weight is the expectation (dof + p) / (dof + d) given the states that it leads to."""
    model, y = motion(), track()
    dof = {"gps": 3.0, "odo": 9.0}
    found = model.filter(y, dof=dof, by="sensor")
    view = model.params_["observation"].values
    mean, cov = found["filtered"].values, found["filtered_cov"].values
    square = (y.to_numpy() - mean @ view.T) ** 2 + np.einsum("di,tij,dj->td", view, cov, view)
    square = square / np.diag(model.params_["measurement_cov"])
    begun = np.isfinite(np.linalg.norm(found["predicted_cov"], axis=(1, 2)))
    for name, columns in (("gps", slice(0, 2)), ("odo", slice(2, 4))):
        own = square[:, columns]
        p = (~np.isnan(own)).sum(1)
        expected = (dof[name] + p) / (dof[name] + np.nansum(own, 1))
        rows = begun & (p > 0)
        weight = found["weight"].values[:, columns]
        np.testing.assert_allclose(weight[rows], np.tile(expected[rows], (2, 1)).T, rtol=1e-8)
        assert (weight[~rows] == 1.0).all()


@pytest.mark.parametrize(("guard", "rtol"), [({"gate": 0.9999999999999999}, 1e-10), ({"dof": 1e12}, 1e-7)])
def test_many_degrees_of_freedom_and_a_wide_gate_are_the_plain_filter(guard, rtol):
    model, y = motion(), track(share=0.0)
    plain, found = model.filter(y), model.filter(y, **guard)
    for name in plain:
        np.testing.assert_allclose(found[name], plain[name], rtol=rtol, atol=1e-8)


def test_robust_filters_bear_what_throws_the_plain_one():
    rng = np.random.default_rng(5)
    t = np.arange(300.0)
    truth = np.column_stack([30.0 * np.sin(t / 9.0), 20.0 * np.cos(t / 11.0)])
    y = truth + rng.normal(0, 1.0, truth.shape)
    y[rng.random(300) < 0.08] += 60.0
    model = designs.constant_velocity(2, density=0.5, noise=1.0).fit(y)

    def error(**guard):
        return float(np.sqrt(np.mean((model.filter(y, **guard)["filtered"].values[20:, :2] - truth[20:]) ** 2)))

    assert error(gate=0.9999) < 0.2 * error()
    assert error(dof=4.0) < 0.2 * error()


@pytest.mark.parametrize("by", ["row", "feature", "sensor"])
def test_a_gate_is_that_of_the_plain_filter_of_what_passed(by):
    """The slow way: filter what was left again after every row, and compare squares with their chi-squared limits."""
    model, y = motion(), track(7, 60)
    left, expected = y.copy(), np.zeros(y.shape, bool)
    groups = {"row": [[0, 1, 2, 3]], "feature": [[0], [1], [2], [3]], "sensor": [[0, 1], [2, 3]]}[by]
    for t in range(len(y)):
        known = model.filter(left.iloc[: t + 1])
        if not np.isfinite(known["predicted_cov"].values[t]).all():
            continue
        v, S = known["innovation"].values[t], known["innovation_cov"].values[t]
        for group in groups:
            own = [k for k in group if not np.isnan(v[k])]
            if own and v[own] @ np.linalg.solve(S[np.ix_(own, own)], v[own]) > stats.chi2.ppf(0.8, len(own)):
                expected[t, own] = True
        left.iloc[t] = left.iloc[t].where(~expected[t])
    found = model.filter(y, gate=0.8, by=by)["outside"].values
    assert 20 < expected.sum() < 0.6 * expected.size
    np.testing.assert_array_equal(found, expected)


def test_chunks_are_guarded_as_memory_is():
    pytest.importorskip("dask")
    y = xr.DataArray(
        np.stack([track(seed, uneven=False).to_numpy() for seed in range(4)]), dims=("sequence", "time", "feature")
    )
    model = motion()
    for guard in GUARDS[::3]:
        agree(model.filter(y.chunk(sequence=2), **guard).compute(), model.filter(y, **guard))
    np.testing.assert_array_equal(checks.gated(model, y.chunk(sequence=3)), checks.gated(model, y))
    inside = xr.DataArray(np.arange(90), dims="time") < xr.DataArray([90, 40, 70, 90], dims="sequence")
    ragged = y.where(inside).assign_coords(length=("sequence", [90, 40, 70, 90]))
    found, expected = model.filter(ragged.chunk(sequence=2), gate=0.9).compute(), model.filter(ragged, gate=0.9)
    assert found["outside"].dtype == expected["outside"].dtype == bool
    agree(found, expected)


def test_a_guarded_stream_that_is_resumed_tells_the_same(tmp_path):
    model, y = motion(), track(uneven=False)
    dof = {"gps": 3.0, "odo": 9.0}
    whole, _ = streamed(model, y, dof=dof, by="sensor")
    _, part = streamed(model, y.iloc[:40], dof=dof, by="sensor")
    part.save(tmp_path / "stream.nc")
    again = type(model).resume(tmp_path / "stream.nc")
    steps = [again.update(row.to_numpy(), time=time) for time, row in y.iloc[40:].iterrows()]
    agree(again.dataset(steps), whole.isel(time=slice(40, None)))
    level = sse.LinearGaussianSSM(
        ["level"], transition=[[1]], process_cov=[[0.09]], observation=[[1]], measurement_cov=[[1.0]], initial="diffuse"
    )
    stream = level.stream(level.parameters(measurement_cov=[[1.0]]), gate=0.9)
    stream.update(1.0)
    stream.save(tmp_path / "level.nc")
    resumed = sse.LinearGaussianSSM.resume(tmp_path / "level.nc")
    assert "outside" in resumed.dataset([resumed.update(50.0)])


@pytest.mark.parametrize("dof", [0.7, 4.0, 300.0])
def test_the_likelihood_of_a_robust_filter_is_the_bound(dof):
    """log p(y, s, w) - log q(s) q(w), expected under q: that of the row at its weight, and what the weight costs."""
    y = np.array([[7.0, -1.0], [np.nan, 2.0], [0.5, 0.4]])
    noise = np.array([[1.0, 0.3], [0.3, 2.0]])
    start = {"initial": "known", "initial_mean": [0.0], "initial_cov": [[4.0]]}
    model = sse.LinearGaussianSSM(
        ["level"], transition=[[0.9]], process_cov=[[0.5]], observation=[[1], [1]], measurement_cov=noise, **start
    )
    params = model.parameters(measurement_cov=noise)
    found = model.filter(y, params, dof=dof)
    for t, row in enumerate(y):
        seen = ~np.isnan(row)
        p, m, v = seen.sum(), found["predicted"].values[t, 0], found["predicted_cov"].values[t, 0, 0]
        w, R = found["weight"].values[t, 0], noise[np.ix_(seen, seen)]
        normal = stats.multivariate_normal(np.full(p, m), v + R / w).logpdf(row[seen])
        away, left = row[seen] - found["filtered"].values[t, 0], found["filtered_cov"].values[t, 0, 0]
        far = np.trace(np.linalg.solve(R, np.outer(away, away) + left))
        shape, rate = (dof + p) / 2.0, (dof + far) / 2.0
        q, prior = stats.gamma(shape, scale=1.0 / rate), stats.gamma(dof / 2.0, scale=2.0 / dof)
        from_prior = -q.entropy() - q.expect(prior.logpdf)
        mean_log = digamma(shape) - np.log(rate)
        expected = normal + 0.5 * p * (mean_log - np.log(w)) - from_prior
        assert found["log_likelihood"].values[t] == pytest.approx(expected, abs=1e-7)
