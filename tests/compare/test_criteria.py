"""Information criteria from counts made by hand, and fits that must not be compared."""

import numpy as np
import pandas as pd
import pytest
from hmm_cases import case
from oracles import enumerate_paths

import statespace_em as sse
from statespace_em.compare import fit_each, table
from statespace_em.errors import DataError, DataWarning, NotFittedError, ParameterError


@pytest.fixture(scope="module")
def quakes():
    return sse.datasets.earthquakes()


@pytest.fixture(scope="module")
def fits(quakes):
    return fit_each(
        {"hmm": sse.PoissonHMM, "mixture": lambda k: sse.Mixture(k, sse.emissions.Poisson())}, [1, 2], quakes
    )


def test_criteria_by_their_formulas(fits, quakes):
    found = table(fits, quakes)
    columns = ["log_likelihood", "n_parameters", "aic", "aicc", "bic", "hq", "icl", "status"]
    assert list(found.columns) == columns
    assert found["n_parameters"].to_dict() == {"hmm, 1": 1, "hmm, 2": 5, "mixture, 1": 1, "mixture, 2": 3}
    n, p, log_likelihood = len(quakes), found["n_parameters"], found["log_likelihood"]
    exact = {"rtol": 1e-13}
    np.testing.assert_allclose(found["aic"], 2 * p - 2 * log_likelihood, **exact)
    np.testing.assert_allclose(found["aicc"], found["aic"] + 2 * p * (p + 1) / (n - p - 1), **exact)
    np.testing.assert_allclose(found["bic"], p * np.log(n) - 2 * log_likelihood, **exact)
    np.testing.assert_allclose(found["hq"], 2 * p * np.log(np.log(n)) - 2 * log_likelihood, **exact)
    # Zucchini, MacDonald & Langrock (2016), tables 1.2 and 3.2
    assert log_likelihood.round(4).to_dict() == {
        "hmm, 1": -391.9189, "hmm, 2": -341.8787, "mixture, 1": -391.9189, "mixture, 2": -360.3690
    }  # fmt: skip


def test_icl_is_bic_of_the_most_probable_path():
    y = case("poisson", 2, 9, 3)[2]
    fits = {
        "hmm": sse.PoissonHMM(2).fit(y[:, :1], n_starts=1, max_iter=3, tol=0.0),
        "mixture": sse.Mixture(2, sse.emissions.Poisson()).fit(y[:, :1], n_starts=1, max_iter=3, tol=0.0),
    }
    for name, model in fits.items():
        core, tree, batch, _, _ = model._prepare(y[:, :1], None)
        log_b = model._support() and core.family.log_prob(tree.emission, batch.y)
        initial = tree.initial if name == "hmm" else tree.weight
        transition = tree.transition[None] if name == "hmm" else np.tile(tree.weight, (1, 2, 1))
        best = enumerate_paths(log_b, initial, transition)[1].max()
        row = table({name: model}, y[:, :1]).loc[name]
        np.testing.assert_allclose(row["icl"], np.log(9) * model.n_parameters_ - 2 * best, rtol=1e-12)
        assert row["icl"] >= row["bic"]


def test_frozen_and_structurally_zero_entries_do_not_count():
    model, params, y = case("diagonal", 3, 200, 1)
    cyclic = np.array([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.1, 0.0, 0.9]])
    start = params.assign(transition=(("state", "next_state"), cyclic), initial=("state", np.array([1.0, 0.0, 0.0])))
    options = {"start": start, "max_iter": 1, "tol": 0.0}
    fits = {
        "cyclic": model_of(3).fit(y, **options),
        "frozen": model_of(3).fit(y, **options, freeze=["mean"]),
        "chain frozen": model_of(3).fit(y, **options, freeze=["transition", "initial"]),
    }
    assert table(fits, y)["n_parameters"].to_list() == [3 + 6 + 6, 3 + 6, 6 + 6]


def model_of(n_states):
    return sse.GaussianHMM(n_states, "diagonal", order_by=None)


def test_the_count_survives_saving(tmp_path, fits, quakes):
    fits["hmm, 2"].save(tmp_path / "model.nc")
    again = sse.PoissonHMM.load(tmp_path / "model.nc")
    pd.testing.assert_frame_equal(table({0: again}, quakes), table({0: fits["hmm, 2"]}, quakes))


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_a_linear_gaussian_model_stands_beside_a_hidden_markov_model():
    y = np.cumsum(np.random.default_rng(2).normal(size=(80, 1)), axis=0)
    y[3] = np.nan
    found = table({"level": sse.LinearGaussianSSM(1).fit(y, tol=1e-3), "regimes": sse.GaussianHMM(2).fit(y)}, y)
    assert found.loc["level", "n_parameters"] == 5 - 1  # A, Q, C, R, m, less the unit of the state
    assert np.isnan(found.loc["level", "icl"])
    assert found.loc["regimes", "icl"] > found.loc["regimes", "bic"]
    np.testing.assert_allclose(
        found["bic"], np.log(79) * found["n_parameters"] - 2 * found["log_likelihood"], rtol=1e-13
    )


@pytest.mark.parametrize(
    ("settings", "held", "expected"),
    [  # n = 2 states, D = 2 columns; all of A, Q, C, R, m, P: 4 + 3 + 4 + 3 + 2 + 3
        ({}, [], 16 - 4),  # P tied: any basis
        ({"initial": "free"}, [], 19 - 4),
        ({"state_offset": "free"}, [], 18 - 4),
        ({"state_offset": "free", "observation_offset": "free"}, [], 20 - 6),  # and any origin
        ({}, ["observation"], 12),
        ({}, ["measurement_cov"], 13 - 4),
        ({}, ["transition"], 12 - 4),  # at the identity, which every basis keeps
        ({"initial": "known"}, [], 14 - 1),  # rotations keep a mean of 0 and a round covariance
        ({"initial": "known"}, ["observation"], 10),
    ],
)
def test_an_arbitrary_basis_does_not_count(settings, held, expected):
    model = sse.LinearGaussianSSM(2, **settings)
    eye = np.eye(2)
    values = {"transition": eye, "process_cov": eye, "observation": eye, "measurement_cov": eye, "initial_mean": [0, 0]}
    if settings.get("initial") in ("known", "free"):
        values["initial_cov"] = 10 * eye
    y = np.random.default_rng(0).normal(size=(60, 2)).cumsum(0)
    start = None if settings.get("initial") is None and not held else model.parameters(**values)
    fitted = model.fit(y, start=start, freeze=held, n_starts=1, max_iter=1, tol=0.0)
    assert fitted.n_parameters_ == expected


def test_what_cannot_be_compared_is_refused(fits, quakes):
    with pytest.raises(
        DataError, match=r"model 'hmm, 1' was fitted to other data \(107 rows.*than y \(100 rows.*: fit all models to y"
    ):
        table(fits, quakes[:100])
    changed = quakes.copy()
    changed.iloc[3] += 1
    with pytest.raises(DataError, match="fitted to other data"):
        table(fits, changed)
    frame = quakes.to_frame("count").assign(again=quakes.to_numpy())
    with pytest.raises(DataError, match=r"model 'both' was fitted to columns 'count', 'again', model 'one' to 'count'"):
        table({"one": sse.PoissonHMM(2).fit(frame["count"]), "both": sse.PoissonHMM(2).fit(frame)}, frame)
    with pytest.raises(NotFittedError, match=r"model 'x' was not fitted: call fit\(y\) first"):
        table({"x": sse.PoissonHMM(2)}, quakes)
    with pytest.raises(ParameterError, match="expected a dict of fitted models"):
        table([sse.PoissonHMM(2)], quakes)
    with pytest.raises(ParameterError, match="states is 0, expected a whole number of at least 1"):
        fit_each(sse.PoissonHMM, [0, 1], quakes)
    with pytest.raises(ParameterError, match=r"states is 3, expected a list of numbers of states, such as \[1, 2, 3\]"):
        fit_each(sse.PoissonHMM, 3, quakes)


def test_densities_beside_probabilities_are_warned_of(fits, quakes):
    with pytest.warns(DataWarning, match="model 'hmm, 1' gives probabilities .* model 'normal' densities"):
        table({"hmm, 1": fits["hmm, 1"], "normal": sse.GaussianHMM(1).fit(quakes)}, quakes)


def test_known_states_and_weights_are_told():
    """A sequence of weight 2 is the sequence twice, in every column."""
    parts = {key: sse.datasets.earthquakes()[a:b] for key, a, b in (("u", 0, 50), ("v", 50, 107))}
    weights = {"u": 2.0, "v": 1.0}
    fits = {k: sse.PoissonHMM(k).fit(parts, weights=weights) for k in (1, 2)}
    twice = {"u": parts["u"], "w": parts["u"], "v": parts["v"]}
    plain = {k: sse.PoissonHMM(k).fit(twice) for k in (1, 2)}
    found, expected = table(fits, parts, weights=weights), table(plain, twice)
    np.testing.assert_allclose(
        found.drop(columns="status").astype(float), expected.drop(columns="status").astype(float), rtol=1e-9
    )
    with pytest.raises(DataError, match=r"was fitted to other data .* with the same states= and weights= if any"):
        table(fits, parts)
    states = {"u": [1, 0] * 25, "v": [None] * 57}
    known = {"two": sse.PoissonHMM(2).fit(parts, states=states), "three": sse.PoissonHMM(3).fit(parts, states=states)}
    row = table(known, parts, states=states).loc["two"]
    assert row["log_likelihood"] == known["two"].score(parts, states=states)
    assert row["icl"] >= row["bic"]
    scored = table(
        {2: known["two"]}, parts, states=states, log_score={"refit": 20, "min_train": 60, "fit": {"tol": 1e-3}}
    )
    assert np.isfinite(scored["log_score"]).all()
