"""Questions about whole paths, answered from a posterior, against the enumeration of all paths."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hmm_cases import case, log_densities
from oracles import enumerate_paths

import statespace_em as sse
from statespace_em import paths
from statespace_em.errors import DataError, ParameterError

EXACT = 1e-12
T = 6


@pytest.fixture(scope="module")
def known():
    """Posterior of one sequence, all paths and their probabilities."""
    model, params, y = case("diagonal", 3, T, 4, zeros=True, holes=True)
    y = pd.DataFrame(y, index=pd.date_range("2020-01-01", periods=T, name="day"))
    every, score = enumerate_paths(
        log_densities("diagonal", params, y.to_numpy()), params["initial"].values, params["transition"].values[None]
    )
    weight = np.exp(score - score.max())
    return model, params, y, every, weight / weight.sum()


def posterior_of(known):
    model, params, y, *_ = known
    return model.e_step(y, params)


def test_probability_of_a_segment(known):
    *_, every, weight = known
    posterior = posterior_of(known)
    days = posterior["day"].values
    for state, start, stop in itertools.product(range(3), range(T), range(T)):
        if start <= stop:
            wanted = weight[(every[:, start : stop + 1] == state).all(1)].sum()
            found = paths.segment_probability(posterior, state, days[start], days[stop])
            np.testing.assert_allclose(found, wanted, atol=EXACT)
    assert paths.segment_probability(posterior, 1, "2020-01", "2020-01") == pytest.approx(
        paths.segment_probability(posterior, 1, days[0], days[-1])
    )


def test_probability_of_a_change(known):
    *_, every, weight = known
    found = paths.change_probability(posterior_of(known))
    assert np.isnan(found[0])
    assert found.dims == ("day",)
    assert found.attrs["conditioning"] == "1:T"
    for t in range(1, T):
        np.testing.assert_allclose(found[t], weight[every[:, t] != every[:, t - 1]].sum(), atol=EXACT)


def test_distribution_of_switches_and_of_time_in_a_state(known):
    *_, every, weight = known
    switches = np.bincount((np.diff(every, axis=1) != 0).sum(1), weight, T + 1)
    np.testing.assert_allclose(paths.n_switches(posterior_of(known)), switches, atol=EXACT)
    capped = paths.n_switches(posterior_of(known), most=2)
    np.testing.assert_allclose(capped, [*switches[:2], switches[2:].sum()], atol=EXACT)
    for state in range(3):
        inside = np.bincount((every == state).sum(1), weight, T + 1)
        np.testing.assert_allclose(paths.time_in_state(posterior_of(known), state), inside, atol=EXACT)


def test_sampled_paths_have_their_frequencies(known):
    *_, every, weight = known
    n = 20_000
    drawn = paths.sample(posterior_of(known), n, seed=3)
    assert drawn.dims == ("path", "day")
    place = {tuple(path): i for i, path in enumerate(every.tolist())}
    count = np.bincount([place[tuple(path)] for path in drawn.values.tolist()], minlength=len(every))
    assert count[weight < 1e-15].sum() == 0
    common = weight * n >= 5
    square = ((count - n * weight)[common] ** 2 / (n * weight[common])).sum()
    assert square < common.sum() + 4 * np.sqrt(2 * common.sum())  # chi-squared, four standard deviations
    np.testing.assert_array_equal(paths.sample(posterior_of(known), 5, seed=3), drawn[:5])


def test_episodes_of_a_decoded_path(known):
    model, params, y, every, weight = known
    decoded = model.decode(y, params)
    table = paths.episodes(decoded, model.e_step(y, params))
    assert table["rows"].sum() == T
    rebuilt = [state for state, rows in zip(table["state"], table["rows"]) for _ in range(rows)]
    assert rebuilt == decoded.values.tolist()
    assert table["start"].iloc[0] == y.index[0]
    assert table["stop"].iloc[-1] == y.index[-1]
    row = table.iloc[-1]
    wanted = weight[(every[:, T - row["rows"] :] == row["state"]).all(1)].sum()
    np.testing.assert_allclose(row["probability"], wanted, atol=EXACT)
    assert "probability" not in paths.episodes(decoded)


def test_one_row_and_one_of_several_sequences():
    model, params, y = case("poisson", 2, 8, 1)
    several = model.e_step({"a": y, "b": y[:1]}, params)
    alone = model.e_step(y, params)
    np.testing.assert_allclose(paths.n_switches(several.sel(sequence="a")), paths.n_switches(alone), atol=EXACT)
    assert paths.n_switches(several.sel(sequence="b")).values.tolist() == [1.0, 0.0]
    assert paths.sample(several.sel(sequence="b"), 4).shape == (4, 1)
    with pytest.raises(DataError, match=r"has a dim 'sequence': select one, as in posterior.sel\(sequence="):
        paths.change_probability(several)


def test_what_cannot_be_answered_is_refused(known):
    model, params, y, *_ = known
    posterior = posterior_of(known)
    with pytest.raises(DataError, match="xi is summed over time"):
        paths.n_switches(model.e_step(y, params, xi="sum"))
    with pytest.raises(DataError, match="expected gamma and xi"):
        paths.n_switches(model.filter(y, params))
    with pytest.raises(ParameterError, match="state is 'calm', expected one of 0, 1, 2"):
        paths.time_in_state(posterior, "calm")
    with pytest.raises(ParameterError, match="stop is 2021-01-01, which is not among the labels of day"):
        paths.segment_probability(posterior, 0, "2020-01-01", pd.Timestamp("2021-01-01"))
    with pytest.raises(ParameterError, match="is before start"):
        paths.segment_probability(posterior, 0, "2020-01-03", "2020-01-02")
    with pytest.raises(ParameterError, match="n_paths is 0"):
        paths.sample(posterior, 0)
    with pytest.raises(ParameterError, match="most is 0"):
        paths.n_switches(posterior, most=0)
    with pytest.raises(DataError, match="pass what decode"):
        paths.episodes(posterior["gamma"])
    with pytest.raises(DataError, match="decoded has 6 rows, the posterior 5"):
        paths.episodes(model.decode(y, params), model.e_step(y[:5], params))
    level = sse.LinearGaussianSSM(1)
    own = level.parameters(
        transition=[[1]],
        observation=[[1]],
        process_cov=[[1]],
        measurement_cov=[[1]],
        initial_mean=[0],
        initial_cov=[[1]],
    )
    with pytest.raises(DataError, match="linear-Gaussian model: it has no paths"):
        paths.sample(level.e_step([1.0, 2.0], own), 1)


# the model's own answers


def test_ways_to_decode(known):
    model, params, y, every, weight = known
    best = model.best_paths(y, 4, params)
    order = np.argsort(-weight)[:4]
    np.testing.assert_array_equal(best["state"], every[order])
    assert best["state"].dims == ("path", "day")
    np.testing.assert_allclose(np.exp(best["log_prob"] - model.score(y, params)), weight[order], rtol=1e-10)
    np.testing.assert_array_equal(best["state"][0], model.decode(y, params))
    gamma = model.e_step(y, params)["gamma"]
    marginal = model.decode(y, params, method="posterior")
    np.testing.assert_array_equal(marginal, gamma.idxmax("state"))
    assert "log_prob" not in marginal.coords
    kept = [all(n >= 3 for n in lengths(path)[1:-1]) for path in every]
    patient = model.decode(y, params, min_duration=3)
    np.testing.assert_array_equal(patient, every[np.argmax(weight * kept)])
    np.testing.assert_array_equal(model.decode(y, params, min_duration={0: 1}), model.decode(y, params))


def lengths(path):
    return [len(list(group)) for _, group in itertools.groupby(path)]


def test_what_cannot_be_decoded_is_refused(known):
    model, params, y, *_ = known
    with pytest.raises(ParameterError, match="method is 'mean', expected one of 'viterbi', 'posterior'"):
        model.decode(y, params, method="mean")
    with pytest.raises(ParameterError, match="min_duration is 0, expected a whole number of at least 1"):
        model.decode(y, params, min_duration=0)
    with pytest.raises(ParameterError, match="min_duration is 'calm', expected one of 0, 1, 2"):
        model.decode(y, params, min_duration={"calm": 2})
    with pytest.raises(ParameterError, match="goes with method='viterbi' only"):
        model.decode(y, params, method="posterior", min_duration=2)
    with pytest.raises(ParameterError, match="n_paths is 0"):
        model.best_paths(y, 0, params)
    with pytest.raises(DataError, match="y has 2 sequences: ask for the best paths of one"):
        model.best_paths([y.to_numpy(), y.to_numpy()], 2, params)
    with pytest.raises(ParameterError, match="lag is -1, expected a whole number of at least 0"):
        model.fixed_lag(y, -1, params)


def test_smoothing_filtering_and_a_fixed_lag_say_what_they_condition_on(known):
    model, params, y, *_ = known
    smoothed, lagged = model.smooth(y, params), model.fixed_lag(y, 2, params)["smoothed"]
    assert smoothed["smoothed"].attrs["conditioning"] == "1:T"
    assert lagged.attrs["conditioning"] == "1:t+2"
    assert lagged.dims == ("day", "state")
    np.testing.assert_allclose(smoothed["smoothed"], model.e_step(y, params)["gamma"], rtol=1e-13)
    np.testing.assert_allclose(lagged[-3:], smoothed["smoothed"][-3:], atol=EXACT)
    np.testing.assert_array_equal(model.fixed_lag(y, 0, params)["smoothed"], model.filter(y, params)["filtered"])
    np.testing.assert_array_equal(model.fixed_lag(y[:5], 2, params)["smoothed"][:3], lagged[:3])
