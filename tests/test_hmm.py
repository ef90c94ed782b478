"""Hidden Markov models against the enumeration of all paths, and identities that any E-step must satisfy."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr
from hmm_cases import FAMILIES, case, log_densities, parameters_of
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import chain_oracle
from scipy.special import xlogy

import statespace_em as sse
from statespace_em import _threads, core
from statespace_em.data import Batch
from statespace_em.errors import DataError, ImpossibleObservationError

EXACT = 1e-12
PLAIN = ["full", "diagonal", "poisson", "categorical"]


def close(left, right, tolerance=EXACT):
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def oracle(kind, params, y):
    return chain_oracle(log_densities(kind, params, y), params["initial"].values, params["transition"].values[None])


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_answers_equal_enumeration(kind, zeros, holes):
    for seed in range(3):
        model, params, y = case(kind, 3, 7, seed, zeros=zeros, holes=holes)
        log_likelihood, gamma, xi, filtered, predicted, best, path = oracle(kind, params, y)
        posterior = model.e_step(y, params)
        close(posterior["gamma"], gamma)
        close(posterior["xi"][:-1], xi)
        assert np.isnan(posterior["xi"][-1]).all()
        close(posterior["log_likelihood"], log_likelihood)
        close(model.score(y, params), log_likelihood)
        close(model.e_step(y, params, xi="sum")["xi"], xi.sum(0))
        known = model.filter(y, params)
        close(known["filtered"], filtered)
        close(known["predicted"], predicted)
        close(known["log_likelihood"].sum(), log_likelihood)
        decoded = model.decode(y, params)
        np.testing.assert_array_equal(decoded, path)
        close(decoded["log_prob"], best)


@pytest.mark.parametrize("kind", FAMILIES)
def test_ragged_sequences_equal_enumeration_one_by_one(kind):
    model, params, first = case(kind, 2, 6, 0, holes=True)
    y = {"u": first, "v": case(kind, 2, 1, 1)[2], "w": case(kind, 2, 4, 2)[2]}
    posterior, known, decoded = model.e_step(y, params), model.filter(y, params), model.decode(y, params)
    total, pairs = 0.0, 0.0
    for key, part in y.items():
        log_likelihood, gamma, xi, filtered, predicted, best, path = oracle(kind, params, part)
        own, n = posterior.sel(sequence=key), len(part)
        close(own["gamma"][:n], gamma)
        assert np.isnan(own["gamma"][n:]).all()
        close(own["xi"][: n - 1], xi.reshape(n - 1, 2, 2))
        assert np.isnan(own["xi"][n - 1 :]).all()
        close(own["log_likelihood"], log_likelihood)
        close(known["filtered"].sel(sequence=key)[:n], filtered)
        close(known["predicted"].sel(sequence=key)[:n], predicted)
        np.testing.assert_array_equal(decoded.sel(sequence=key)[:n].values.astype(int), path)
        close(decoded["log_prob"].sel(sequence=key), best)
        total, pairs = total + log_likelihood, pairs + xi.sum(0)
    close(model.score(y, params), total)
    close(model.e_step(y, params, xi="sum")["xi"], pairs + np.zeros((2, 2)))


def expected_log_joint(kind, params, y, posterior):
    """Q: initial, transition and emission terms under a given posterior."""
    gamma, pairs = posterior["gamma"].values, posterior["xi"].sum("time").values
    emission = log_densities(kind, params, y)
    return float(
        xlogy(gamma[0], params["initial"].values).sum()
        + xlogy(pairs, params["transition"].values).sum()
        + np.where(gamma > 0.0, gamma * emission, 0.0).sum()
    )


def entropy_of_path(posterior):
    """Entropy in nats of the posterior chain: of its first state and of each next one given the last."""
    gamma, xi = posterior["gamma"].values, posterior["xi"].values[:-1]
    return float(-xlogy(gamma[0], gamma[0]).sum() - xlogy(xi, xi).sum() + xlogy(gamma[:-1], gamma[:-1]).sum())


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_expected_log_joint_plus_entropy_is_the_log_likelihood(kind, zeros):
    tolerance = 1e-11
    model, params, y = case(kind, 3, 80, 4, zeros=zeros, holes=True)
    posterior = model.e_step(y, params)
    bound = expected_log_joint(kind, params, y, posterior) + entropy_of_path(posterior)
    close(bound, model.score(y, params), tolerance)
    other = parameters_of(kind, 3, np.random.default_rng(5))[1]
    off = model.e_step(y, other)
    lower = expected_log_joint(kind, params, y, off) + entropy_of_path(off)
    assert lower < model.score(y, params)


@pytest.mark.parametrize("kind", FAMILIES)
def test_gradient_of_the_expected_log_joint_is_the_score(kind):
    tolerance = 1e-5
    step = 1e-5
    model, params, y = case(kind, 2, 40, 6, holes=True)
    posterior = model.e_step(y, params)
    rng = np.random.default_rng(7)
    for name in params.data_vars:
        for _ in range(3):
            direction = rng.normal(size=params[name].shape)
            if name == "cov":
                direction = direction + np.swapaxes(direction, -1, -2)
            if name in ("initial", "transition", "prob"):
                direction -= direction.mean(-1, keepdims=True)
            direction *= step * np.abs(params[name].values).min()
            ends = [params.assign({name: params[name] + s * direction}) for s in (-1.0, 1.0)]
            slope = np.subtract(*(model.score(y, end) for end in ends[::-1]))
            expected = np.subtract(*(expected_log_joint(kind, end, y, posterior) for end in ends[::-1]))
            np.testing.assert_allclose(slope, expected, rtol=tolerance, atol=1e-10)


@pytest.mark.parametrize("kind", PLAIN)
@given(cut=st.integers(1, 59), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_later_rows_change_no_bit_of_the_filter(kind, cut, seed):
    model, params, y = case(kind, 3, 60, seed, zeros=True, holes=True)
    whole, part = model.filter(y, params), model.filter(y[:cut], params)
    for name in ("filtered", "predicted", "log_likelihood"):
        np.testing.assert_array_equal(part[name], whole[name][:cut])


def test_later_blocks_change_no_bit_of_the_filter():
    model, params, y = case("full", 2, 5000, 0)
    whole, part = model.filter(y, params), model.filter(y[:4100], params)
    np.testing.assert_array_equal(part["filtered"], whole["filtered"][:4100])


@pytest.mark.parametrize("kind", FAMILIES)
def test_forecast_is_the_chain_and_mixture_by_hand(kind):
    model, params, y = case(kind, 3, 30, 8)
    ahead = model.forecast(y, 4, params)
    now = model.filter(y, params)["filtered"].values[-1]
    for h in range(4):
        now = now @ params["transition"].values
        close(ahead["predicted"][h], now)
        if "prob" in ahead:
            close(ahead["prob"][h], np.tensordot(now, params["prob"].values, 1))
            continue
        mean = params["rate" if kind == "poisson" else "mean"].values
        var = mean
        if kind != "poisson":
            full = "cov" in params
            var = np.diagonal(params["cov"].values, axis1=-2, axis2=-1) if full else params["var"].values
            var = var[:, None] if kind == "spherical" else var
        middle = now @ mean
        close(ahead["mean"][h], middle)
        close(ahead["variance"][h], now @ (var + mean**2) - middle**2, 1e-11)


@pytest.mark.parametrize("kind", FAMILIES)
def test_sample_follows_the_chain(kind):
    n_rows = 20_000
    model, params, _ = case(kind, 2, 5, 9)
    drawn = model.sample(n_rows, params, seed=1)
    assert drawn.identical(model.sample(n_rows, params, seed=1))
    state = drawn["state"].values.astype(int)
    counts = np.zeros((2, 2))
    np.add.at(counts, (state[:-1], state[1:]), 1.0)
    share, transition = counts / counts.sum(1, keepdims=True), params["transition"].values
    error = np.sqrt(transition * (1.0 - transition) / counts.sum(1, keepdims=True))
    assert (np.abs(share - transition) < 5.0 * error).all()


def test_likelihood_ratios_of_1e_400_through_structural_zeros():
    model = sse.GaussianHMM(2, "diagonal")
    far = np.sqrt(2.0 * 400.0 * np.log(10.0))  # density ratio of 1e-400 against a mean at 0
    params = model.parameters(initial=[0.5, 0.5], transition=np.eye(2), mean=[[0.0], [far]], var=[[1.0], [1.0]])
    y = np.array([[0.0], [far / 2.0], [far], [far]])
    log_likelihood, gamma, *_ = oracle("diagonal", params, y)
    posterior = model.e_step(y, params)
    close(posterior["log_likelihood"], log_likelihood)
    close(posterior["gamma"], gamma)
    np.testing.assert_array_equal(posterior["gamma"][:, 0], 0.0)  # 1e-400 is below the smallest number


def test_impossible_observation_is_named_by_its_time():
    model = sse.CategoricalHMM(2, symbols=["a", "b"])
    params = model.parameters(initial=[1.0, 0.0], transition=np.eye(2), prob=[[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ImpossibleObservationError, match="time 2"):
        model.score(["a", "a", "b"], params)


@pytest.mark.parametrize("kind", FAMILIES)
def test_one_row_and_one_state(kind):
    model, params, y = case(kind, 1, 1, 0)
    posterior = model.e_step(y, params)
    close(posterior["gamma"], [[1.0]])
    close(posterior["log_likelihood"], log_densities(kind, params, y).sum())
    model, params, y = case(kind, 3, 1, 0)
    close(model.score(y, params), oracle(kind, params, y)[0])


def test_a_million_rows():
    tolerance = 1e-9
    rng = np.random.default_rng(0)
    model = sse.GaussianHMM(2, "diagonal", order_by=None)
    params = model.parameters(
        initial=[0.5, 0.5], transition=[[0.99, 0.01], [0.02, 0.98]], mean=[[0.0], [1.0]], var=[[1.0], [4.0]]
    )
    y = np.where(np.arange(10**6) % 1000 < 600, 1.0, 2.0) * rng.standard_normal(10**6)
    posterior = model.e_step(y, params, xi="sum")
    np.testing.assert_allclose(posterior["gamma"].sum("state"), 1.0, rtol=tolerance)
    np.testing.assert_allclose(posterior["xi"].sum(), 10**6 - 1, rtol=tolerance)
    with pytest.warns(sse.errors.ConvergenceWarning, match="max_iter"):
        model.fit(y, start=params, max_iter=3)
    assert (np.diff(model.trace_["objective"]) > 0.0).all()
    np.testing.assert_allclose(model.score(y), model.trace_["objective"].iloc[-1], rtol=tolerance)


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "spherical"])
def test_a_constant_column_is_refused_by_name(covariance):
    y = xr.DataArray(
        np.column_stack([np.random.default_rng(0).normal(size=50), np.full(50, 3.0)]),
        {"feature": ["a", "b"]},
        ("time", "feature"),
    )
    with pytest.raises(DataError, match="'b' is constant"):
        sse.GaussianHMM(2, covariance).fit(y)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_state_that_is_never_visited_keeps_its_emission(kind):
    model, params, y = case(kind, 3, 50, 3)
    transition = np.array([[0.5, 0.5, 0.0], [0.4, 0.6, 0.0], [0.2, 0.3, 0.5]])
    params = params.assign(initial=("state", [0.5, 0.5, 0.0]), transition=(("state", "next_state"), transition))
    new = model.m_step(y, model.e_step(y, params), params)
    for name in set(new.data_vars) - {"initial"}:
        if kind == "tied" and name == "cov":
            continue
        np.testing.assert_array_equal(new[name][2], params[name][2])
    close(new["transition"].sum("next_state"), np.ones(3))
    np.testing.assert_array_equal(new["transition"][:2, 2], [0.0, 0.0])
    fitted = model.fit(y, start=params)
    assert np.isfinite(fitted.score(y))


def test_named_columns_keep_their_labels_in_a_forecast():
    returns = sse.datasets.stocks()["log_return"][["IBM", "MSFT"]].iloc[:300]
    assert returns.columns.name == "symbol"
    model = sse.GaussianHMM(2, "diagonal").fit(100 * returns, n_starts=2, max_iter=20, tol=0.0)
    ahead = model.forecast(100 * returns, 2)
    assert ahead["mean"].sel(feature="MSFT").dims == ("horizon",)
    assert ahead["mean"].dims == ("horizon", "feature")


@pytest.mark.parametrize(
    ("emission", "message"), [("poisson", "has no support"), (sse.emissions.Poisson, r"Poisson\(\)")]
)
def test_what_is_not_a_family_is_refused(emission, message):
    with pytest.raises(sse.errors.ParameterError, match=message):
        sse.HMM(2, emission=emission).fit([1, 2, 3])


def test_a_family_of_the_same_name_is_not_mistaken_for_ours(tmp_path):
    class Poisson(sse.emissions.Poisson):
        pass

    counts = sse.datasets.earthquakes()
    sse.HMM(2, emission=Poisson()).fit(counts, n_starts=1).save(tmp_path / "model.nc")
    with pytest.raises(sse.errors.ParameterError, match="pass it again"):
        sse.HMM.load(tmp_path / "model.nc")
    again = sse.HMM.load(tmp_path / "model.nc", emission=Poisson())
    assert np.isfinite(again.score(counts))


def test_a_start_of_a_very_long_series_is_guessed_from_stretches_of_it(monkeypatch):
    monkeypatch.setattr(core, "ENOUGH", 200)
    monkeypatch.setattr(core, "STRETCH", 50)
    batch = Batch(np.arange(1000.0)[:, None], np.array([0, 20, 300, 980, 1000]))
    some = core.excerpt(batch)
    assert len(some.y) == 200
    steps = np.diff(some.y[:, 0])[~some.first[1:]]
    np.testing.assert_array_equal(steps, np.ones(len(steps)))  # rows of a stretch follow each other
    assert some.y[0, 0] == 0.0
    assert some.y[-1, 0] == 999.0
    assert set(batch.starts[:-1]) & set(some.y[:, 0]) <= set(some.y[some.first, 0])
    assert core.excerpt(Batch(np.ones((200, 1)), np.array([0, 200]))).starts.tolist() == [0, 200]


def peak_of_e_step(n_rows, threads):
    """Most bytes that an E-step holds at once."""
    batch = Batch(np.random.default_rng(0).normal(size=(n_rows, 1)), np.array([0, n_rows]))
    model = sse.GaussianHMM(3, "diagonal")
    engine = model._core(batch=batch)
    params = next(engine.starts(Batch(batch.y[:1000], np.array([0, 1000])), 1, np.random.default_rng(0), {}))
    engine.e_step(params, batch)  # compiled
    with _threads.limited(threads):
        tracemalloc.start()
        engine.e_step(params, batch)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_the_memory_of_an_e_step_does_not_grow_with_the_rows():
    short, long = peak_of_e_step(150_000, 1), peak_of_e_step(600_000, 1)
    assert long - short < 4 * 450_000  # bytes; one array of a double a state would be 24 a row
    assert long < 16e6
    assert peak_of_e_step(600_000, 2) < 16e6  # what two threads hold at the same moment is a matter of chance
