"""States that are known in some rows, and weights of rows and sequences."""

import numpy as np
import pandas as pd
import pytest
from hmm_cases import case, log_densities, model_of, rising
from oracles import chain_oracle
from scipy.stats import poisson

import statespace_em as sse
from statespace_em.errors import DataError, ImpossibleStateError, ParameterError

EXACT = 1e-12
KINDS = ["full", "poisson", "categorical"]


def close(left, right, tolerance=EXACT):
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def known_of(n_rows, n_states, rng, share=0.4):
    states = rng.integers(n_states, size=n_rows)
    return np.where(rng.random(n_rows) < share, states, np.nan)


@pytest.mark.parametrize("kind", KINDS)
def test_known_states_equal_enumeration(kind):
    for seed in range(3):
        model, params, y = case(kind, 3, 6, seed)
        states = known_of(6, 3, np.random.default_rng(seed))
        log_b = log_densities(kind, params, y)
        log_b[~np.isnan(states)[:, None] & (states[:, None] != np.arange(3))] = -np.inf
        parts = params["initial"].values, params["transition"].values[None]
        log_likelihood, gamma, xi, filtered, _, best, path = chain_oracle(log_b, *parts)
        posterior = model.e_step(y, params, states=states)
        close(posterior["log_likelihood"], log_likelihood)
        close(posterior["gamma"], gamma)
        close(posterior["xi"][:-1], xi)
        close(model.score(y, params, states=states), log_likelihood)
        close(model.filter(y, params, states=states)["filtered"], filtered)
        decoded = model.decode(y, params, states=states)
        np.testing.assert_array_equal(decoded, path)
        close(decoded["log_prob"], best)
        pointwise = model.decode(y, params, states=states, method="posterior")
        np.testing.assert_array_equal(pointwise, gamma.argmax(1))
        patient = model.decode(y, params, states=states, min_duration=1)
        np.testing.assert_array_equal(patient, path)


@pytest.mark.parametrize("kind", KINDS)
def test_row_weights_equal_enumeration(kind):
    model, params, y = case(kind, 3, 6, 1)
    weights = np.array([1.0, 0.0, 2.5, 0.3, 1.0, 0.0])
    parts = params["initial"].values, params["transition"].values[None]
    log_likelihood, gamma, *_ = chain_oracle(weights[:, None] * log_densities(kind, params, y), *parts)
    posterior = model.e_step(y, params, weights=weights)
    close(posterior["log_likelihood"], log_likelihood)
    close(posterior["gamma"], gamma)
    close(model.score(y, params, weights=weights), log_likelihood)


@pytest.mark.parametrize("build", ["hmm", "mixture"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_of_weight_two_is_the_sequence_twice(kind, build):
    model, params, first = case(kind, 2, 30, 3, holes=True)
    second = case(kind, 2, 20, 4)[2]
    if build == "mixture":
        model = sse.Mixture(2, model._family(), order_by=None)
        params = params.drop_dims("next_state").drop_vars("initial").assign(weight=("state", [0.3, 0.7]))
    once, weights = {"u": first, "v": second}, {"v": 2, "u": 1}
    twice = {"u": first, "v": second, "w": second}
    close(model.score(once, params, weights=weights), model.score(twice, params))
    own = model.m_step(once, model.e_step(once, params, weights=weights), params, weights=weights)
    expected = model.m_step(twice, model.e_step(twice, params), params)
    for name in own.data_vars:
        close(own[name], expected[name], 1e-11)
    fits = [model.fit(once, start=params, weights=weights, max_iter=8, tol=0, accelerate=False).params_]
    fits.append(model.fit(twice, start=params, max_iter=8, tol=0, accelerate=False).params_)
    for name in own.data_vars:
        close(fits[0][name], fits[1][name], 1e-9)


def test_a_sequence_without_weight_is_left_out():
    model, params, first = case("poisson", 2, 30, 3)
    other = 50 + case("poisson", 2, 20, 4)[2]
    only = model.fit([first], start=params, max_iter=6, tol=0).params_
    both = model.fit([first, other], start=params, weights=[1, 0], max_iter=6, tol=0).params_
    for name in only.data_vars:
        close(both[name], only[name], 1e-10)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_em_climbs_under_weights_and_known_states(kind, accelerate):
    rng = np.random.default_rng(5)
    _, _, y = case(kind, 3, 90, 5, holes=True)
    states = known_of(90, 3, rng, 0.2)
    model = model_of(kind, 3)
    model.fit(y, states=states, weights=rng.gamma(2.0, 0.5, size=90), n_starts=3, max_iter=60, accelerate=accelerate)
    assert rising(model)


def test_row_weights_of_zero_are_missing_rows():
    model, params, y = case("full", 2, 40, 6)
    weights = np.ones(40)
    weights[[3, 17]] = 0.0
    blank = np.where(weights[:, None] > 0.0, y, np.nan)
    close(model.score(y, params, weights=weights), model.score(blank, params))
    one = model.m_step(y, model.e_step(y, params, weights=weights), params, weights=weights)
    other = model.m_step(blank, model.e_step(blank, params), params)
    for name in one.data_vars:
        close(one[name], other[name], 1e-11)


def test_known_states_name_the_states():
    """A few labels decide which regime is which, whatever the order by variance says."""
    truth = sse.GaussianHMM(["wild", "calm"], "diagonal")
    params = truth.parameters(
        initial=[0.5, 0.5], transition=[[0.95, 0.05], [0.05, 0.95]], mean=[[0.0], [0.5]], var=[[9.0], [1.0]]
    )
    drawn = truth.sample(600, params, seed=1)
    y = pd.Series(drawn["y"].values[:, 0], pd.date_range("2024-01-01", periods=600))
    states = pd.Series(drawn["state"].values, y.index).where(np.arange(600) % 20 == 0)
    model = sse.GaussianHMM(["wild", "calm"], "diagonal").fit(y, states=states)
    close(model.params_["var"].values.ravel(), [9.0, 1.0], 0.15)
    assert (model.decode(y, states=states).values[::20] == drawn["state"].values[::20]).all()
    assert (model.decode(y).values == drawn["state"].values).mean() > 0.9
    mixture = sse.Mixture(["wild", "calm"], model._family()).fit(y, states=states)
    assert mixture.params_["var"].values[0, 0] > 5.0


def test_an_impossible_known_state_is_named():
    y = pd.Series([1, 2, 3, 4], pd.date_range("2024-01-01", periods=4))
    states = pd.Series([None, "b", None, "a"], y.index)
    model = sse.PoissonHMM(["a", "b"], transition="left-right")
    params = model.parameters(initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.0, 1.0]], rate=[[1.0], [5.0]])
    for ask in (model.score, model.decode, model.filter, model.e_step):
        with pytest.raises(
            ImpossibleStateError, match=r"known state 'a' at time 2024-01-04 has probability zero.* Correct states="
        ):
            ask(y, params, states=states)
    with pytest.raises(ImpossibleStateError, match="'a' at time 2024-01-04"):
        model.fit(y, states=states, n_starts=1)
    mixture = sse.Mixture(["a", "b"], sse.emissions.Poisson())
    own = mixture.parameters(weight=[1.0, 0.0], rate=[[1.0], [5.0]])
    with pytest.raises(ImpossibleStateError, match="'b' at time 2024-01-02"):
        mixture.score(y, own, states=states)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (["a", "z", None, None], "the state 'z' .*is not among 'a', 'b'"),
        (["a", None], "states= has 2 rows, but y has 4"),
        (pd.Series(["a"] * 4, pd.date_range("2025-01-01", periods=4)), "of different rows: row 0 is 2025-01-01"),
    ],
)
def test_known_states_that_cannot_be_used(states, message):
    y = pd.Series([1, 2, 3, 9], pd.date_range("2024-01-01", periods=4))
    with pytest.raises(DataError, match=message):
        sse.PoissonHMM(["a", "b"]).fit(y, states=states)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 1, -2, 1], "weights= holds -2 .*2024-01-03"),
        ([1, np.nan, 1, 1], "weights= holds nan .*2024-01-02"),
        ([1, 1], "weights= has 2 rows, but y has 4"),
        ([0, 0, 0, 0], "all zero"),
        (["x", "y", "x", "y"], "weights= cannot be read"),
    ],
)
def test_weights_that_cannot_be_used(weights, message):
    y = pd.Series([1, 2, 3, 9], pd.date_range("2024-01-01", periods=4))
    with pytest.raises(DataError, match=message):
        sse.PoissonHMM(2).fit(y, weights=weights)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2, 3], "3 numbers, expected one for each of the 2 sequences"),
        ({"u": 1}, "no weight of sequence 'v'"),
        ({"u": 1, "v": 1, "w": 1}, "no sequence of y"),
        ({"u": 1, "v": -1}, "holds -1 .*sequence 'v'"),
    ],
)
def test_weights_of_sequences_that_cannot_be_used(weights, message):
    with pytest.raises(DataError, match=message):
        sse.PoissonHMM(2).fit({"u": [1, 2, 3], "v": [4, 9, 7]}, weights=weights)


def test_a_model_without_discrete_states_takes_neither():
    model = sse.LinearGaussianSSM(1)
    with pytest.raises(ParameterError, match="LinearGaussianSSM takes no states="):
        model.fit(np.arange(10.0), states=[0] * 10)


# every question takes both


def test_what_is_said_of_the_rows_counts_in_every_answer():
    """Against enumeration: the filter, the future, lags, best paths and predictions under states and weights."""
    model, params, y = case("poisson", 3, 6, 1)
    states = np.array([np.nan, 1.0, np.nan, np.nan, 2.0, np.nan])
    weights = np.array([1.0, 1.0, 0.0, 2.0, 0.5, 1.0])
    said = {"states": states, "weights": weights}
    log_b = weights[:, None] * log_densities("poisson", params, y)
    log_b[~np.isnan(states)[:, None] & (states[:, None] != np.arange(3))] = -np.inf
    transition = params["transition"].values
    _, gamma, _, filtered, predicted, best, path = chain_oracle(log_b, params["initial"].values, transition[None])
    close(model.smooth(y, params, **said)["smoothed"], gamma)
    known = model.filter(y, params, **said)
    close(known["filtered"], filtered)
    close(known["predicted"], predicted)
    close(model.fixed_lag(y, 0, params, **said)["smoothed"], filtered)
    close(model.fixed_lag(y, 6, params, **said)["smoothed"], gamma)
    many = model.best_paths(y, 4, params, **said)
    np.testing.assert_array_equal(many["state"][0], path)
    close(many["log_prob"][0], best)
    np.testing.assert_array_equal(model.decode(y, params, **said), path)
    ahead = [filtered[-1] @ transition, gamma[-1] @ transition @ transition]
    close(model.forecast(y, 2, params, **said)["predicted"], ahead)
    one = model.one_step(y, params, **said)
    close(one["mean"], predicted @ params["rate"].values)
    own = model.residuals(y, params, **said)["pit"].values[:, 0]
    below = (predicted * poisson(params["rate"].values[:, 0]).cdf(y[:, :1] - 1.0)).sum(1)
    above = (predicted * poisson(params["rate"].values[:, 0]).cdf(y[:, :1])).sum(1)
    assert ((own >= below - 1e-12) & (own <= above + 1e-12)).all()
    drawn = model.simulate(y, 1, 4000, params, **said, seed=1)["state"].values[:, 0]
    close([(drawn == k).mean() for k in range(3)], filtered[-1] @ transition, 0.04)
    at = model.forecast_density(y, 1, [2.0], params, **said)["density"][0, 0, 0]
    close(at, filtered[-1] @ transition @ poisson(params["rate"].values[:, 0]).pmf(2.0))


def test_a_stream_takes_known_states():
    model, params, y = case("full", 3, 30, 2)
    states = known_of(30, 3, np.random.default_rng(3))
    stream = model.stream(params)
    steps = [stream.update(row, state=None if np.isnan(s) else int(s)) for row, s in zip(y, states)]
    known = model.filter(y, params, states=states)
    close([step.filtered for step in steps], known["filtered"])
    close(stream.log_likelihood, known["log_likelihood"].sum())
    with pytest.raises(ParameterError, match="state is 7"):
        stream.update(y[0], state=7)
    counts = sse.PoissonHMM(["a", "b"], transition="left-right")
    own = counts.parameters(initial=[0.0, 1.0], transition=[[0.9, 0.1], [0.0, 1.0]], rate=[[1.0], [5.0]])
    with pytest.raises(ImpossibleStateError, match="the known state 'a' at time 0 has probability zero"):
        counts.stream(own).update(3, state="a")


def test_linear_gaussian_answers_refuse_states_by_name():
    model = sse.designs.local_level().fit(sse.datasets.nile())
    nile = sse.datasets.nile()
    for ask in (model.smooth, model.residuals, model.one_step, lambda y, **said: model.forecast(y, 2, **said)):
        with pytest.raises(ParameterError, match="takes no states=: it is for models with discrete states"):
            ask(nile, states=[None] * len(nile))
