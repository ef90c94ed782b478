"""Structure of hidden Markov models: masks, fixed entries, stationary beginnings, shared emissions."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hmm_cases import case, model_of, rising
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import statespace_em as sse
from statespace_em.constraints import transition_pattern
from statespace_em.errors import ParameterError
from statespace_em.priors import Dirichlet
from statespace_em.sequence.hmm_core import HMMCore
from statespace_em.sequence.stationary import stationary_mode, stationary_of
from statespace_em.structure import Pattern

NAN = np.nan
T, F = True, False


def close(left, right, tolerance=1e-12):
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def watched(monkeypatch):
    """Parameters of every E-step that is made from now on."""
    seen = []
    own = HMMCore.e_step
    monkeypatch.setattr(HMMCore, "e_step", lambda self, p, data: seen.append(p) or own(self, p, data))
    return seen


# masks


def test_words_are_masks():
    def mask(word, size=4):
        return (~np.isnan(transition_pattern(word, list(range(size))).fixed) == 0).astype(int).tolist()

    assert mask("free", 2) == [[1, 1], [1, 1]]
    assert mask("left-right") == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert mask("cyclic") == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]
    assert mask("banded") == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert mask(("banded", 2)) == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("initial", ["free", "uniform", [1.0, 0.0, 0.0]])
@pytest.mark.parametrize("transition", ["left-right", "cyclic", "banded", [[T, T, F], [F, F, T], [T, T, T]]])
def test_zeros_are_exact_at_every_iteration_and_em_climbs(transition, initial, accelerate, monkeypatch):
    allowed = transition_pattern(transition, [0, 1, 2]).allowed
    seen = watched(monkeypatch)
    y = case("poisson", 3, 120, 2)[2]
    model = sse.PoissonHMM(3, transition=transition, initial=initial).fit(
        y, n_starts=3, max_iter=60, accelerate=accelerate
    )
    assert len(seen) > 5
    for tree in seen:
        assert (tree.transition[~allowed] == 0.0).all()
        close(tree.transition.sum(1), 1.0)
        if not isinstance(initial, str):
            np.testing.assert_array_equal(tree.initial, initial)
        elif initial == "uniform":
            np.testing.assert_array_equal(tree.initial, np.full(3, 1.0 / 3.0))
    assert rising(model)


def test_left_to_right_finds_the_segments():
    rng = np.random.default_rng(0)
    level = np.repeat([0.0, 6.0, -3.0, 2.0, 9.0, 1.0], 40)
    model = sse.GaussianHMM(list("abcdef"), transition="left-right", initial=[1, 0, 0, 0, 0, 0])
    path = model.fit(level + rng.normal(size=len(level)), n_starts=3).decode(level)
    assert "".join(path.values) == "".join(letter * 40 for letter in "abcdef")


# fixed entries


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["poisson", "diagonal", "categorical"]), fast=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_fixed_value_is_never_touched(seed, kind, fast):
    rng = np.random.default_rng(seed)
    fixed = np.where(rng.random((3, 3)) < 0.5, NAN, rng.dirichlet(np.ones(3), size=3) * rng.uniform(0.3, 0.9))
    fixed[np.arange(3), rng.integers(3, size=3)] = NAN  # a row needs a free entry to take up the rest
    initial = np.where(rng.random(3) < 0.6, NAN, rng.dirichlet(np.ones(3)) * 0.8)
    initial[rng.integers(3)] = NAN
    y = case(kind, 3, 60, seed % 7)[2]
    model = model_of(kind, 3, transition=fixed, initial=initial)
    model.fit(y, n_starts=2, max_iter=15, tol=0, accelerate=fast)
    held = ~np.isnan(fixed)
    np.testing.assert_array_equal(model.params_["transition"].values[held], fixed[held])
    np.testing.assert_array_equal(model.params_["initial"].values[~np.isnan(initial)], initial[~np.isnan(initial)])
    close(model.params_["transition"].sum("next_state"), 1.0)
    close(model.params_["initial"].sum(), 1.0)
    assert rising(model)


def test_the_mode_under_fixed_entries_is_the_maximum():
    rng = np.random.default_rng(1)
    pattern = Pattern(np.array([[0.3, NAN, NAN], [NAN, 0.0, NAN], [0.2, 0.3, 0.5]]))
    counts, prior = rng.gamma(2.0, size=(3, 3)), Dirichlet(1.5)
    best = pattern.mode(counts, prior)

    def objective(value):
        return float((counts[value > 0] * np.log(value[value > 0])).sum()) + prior.log_density(value)

    for _ in range(50):
        other = pattern.mode(counts * rng.gamma(20.0, size=(3, 3)), prior)
        assert objective(other) < objective(best)
    np.testing.assert_array_equal(best[2], [0.2, 0.3, 0.5])


def test_labelled_structure_goes_by_name():
    table = pd.DataFrame([[NAN, 0.25], [0.0, NAN]], index=["wild", "calm"], columns=["wild", "calm"])
    array = xr.DataArray(
        table.values, {"state": ["wild", "calm"], "next_state": ["wild", "calm"]}, ("state", "next_state")
    )
    for given_ in (table, array, array.transpose()):
        fixed = transition_pattern(given_, ["calm", "wild"]).fixed
        np.testing.assert_array_equal(fixed, [[NAN, 0.0], [0.25, NAN]])


# stationary


def test_stationary_mode_is_the_maximum():
    rng = np.random.default_rng(2)
    for size in (2, 3, 5):
        mask = np.ones((size, size), bool)
        mask[0, -1] = size == 2
        pattern = Pattern(np.where(mask, NAN, 0.0))
        for n_sequences in (1.0, 50.0):
            pairs = rng.gamma(1.0, 5.0, size=(size, size)) * mask
            firsts = rng.dirichlet(np.ones(size)) * n_sequences

            def objective(transition, pairs=pairs, firsts=firsts):
                counted = pairs > 0
                return (pairs[counted] * np.log(transition[counted])).sum() + firsts @ np.log(stationary_of(transition))

            closed = pairs / pairs.sum(1, keepdims=True)
            previous = mask / mask.sum(1, keepdims=True)
            found = stationary_mode(firsts, pairs, pattern, previous, closed)

            def loss(x, mask=mask):
                transition = np.where(mask, np.exp(x.reshape(mask.shape)), 0.0)
                return -objective(transition / transition.sum(1, keepdims=True))

            best = minimize(loss, np.log(np.where(mask, closed, 1.0)).ravel(), method="BFGS", options={"gtol": 1e-7})
            assert objective(found) >= -best.fun - 1e-9
            assert (found[~mask] == 0.0).all()


@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("kind", ["poisson", "full"])
def test_a_stationary_beginning_is_exact_maximum_likelihood(kind, accelerate):
    """Against a maximiser that knows nothing of EM, on several short sequences, where the beginning matters."""
    model, params, _ = case(kind, 2, 5, 0)
    parts = [case(kind, 2, 6, seed)[2][:, :1] for seed in range(12)]
    y = [np.asarray(part, float) for part in parts]
    model = model_of(kind, 2, initial="stationary").fit(y, accelerate=accelerate, n_starts=4, max_iter=5000)
    assert rising(model)
    share = model.params_["initial"].values
    close(share @ model.params_["transition"].values, share)
    top = model.params_

    def loss(x):
        stay = 1.0 / (1.0 + np.exp(-x))
        transition = np.array([[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]])
        return -model.score(y, top.drop_vars("initial").assign(transition=(("state", "next_state"), transition)))

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10})
    close(model.score(y), -best.fun, 1e-8)


def test_a_stationary_beginning_follows_the_transitions():
    model = sse.PoissonHMM(2, initial="stationary")
    params = model.parameters(transition=[[0.9, 0.1], [0.3, 0.7]], rate=[[1.0], [4.0]])
    assert model.score([1, 2, 3], params) == model.score([1, 2, 3], params.assign(initial=("state", [0.75, 0.25])))
    with pytest.raises(ParameterError, match="leave it out"):
        model.score([1, 2, 3], params.assign(initial=("state", [0.5, 0.5])))
    with pytest.raises(ParameterError, match="follows from transition"):
        model.fit([1, 2, 3, 9], start=params.assign(initial=("state", [0.75, 0.25])), freeze=["initial"])
    kept = model.fit([1, 2, 3, 9, 8, 2], start=params, freeze=["transition"]).params_
    np.testing.assert_array_equal(kept["transition"], params["transition"])
    close(kept["initial"], [0.75, 0.25])


# shared emissions


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("kind", ["full", "tied", "poisson", "categorical"])
def test_states_that_share_an_emission(kind, accelerate):
    y = case(kind, 2, 150, 3)[2]
    model = model_of(kind, 3, tie=[[0, 2]]).fit(y, n_starts=3, max_iter=300, accelerate=accelerate, tol=1e-6)
    assert rising(model)
    for name, dims in model._family().dims.items():
        if dims[0] == "state":
            np.testing.assert_array_equal(model.params_[name][0], model.params_[name][2])
    assert np.isfinite(model.score(y))


def test_one_shared_emission_for_all_is_the_pooled_fit():
    y = case("full", 2, 100, 4)[2]
    model = sse.GaussianHMM(3, tie={0: "same", 1: "same", 2: "same"}).fit(y, n_starts=1)
    close(model.params_["mean"][1], y.mean(0), 1e-9)
    close(model.params_["cov"][2], np.cov(y.T, bias=True), 1e-9)


# counting


@pytest.mark.parametrize(
    ("settings_", "expected"),
    [
        ({}, 2 + 6 + 3),
        ({"transition": "left-right"}, 2 + 3 + 3),
        ({"transition": "cyclic"}, 2 + 3 + 3),
        ({"initial": "stationary"}, 6 + 3),
        ({"initial": "uniform"}, 6 + 3),
        ({"initial": [0.5, NAN, NAN]}, 1 + 6 + 3),
        ({"transition": [[0.5, NAN, NAN], [NAN, NAN, NAN], [0.1, 0.2, 0.7]]}, 2 + 1 + 2 + 3),
        ({"tie": [[0, 1]]}, 2 + 6 + 2),
    ],
)
def test_free_parameters(settings_, expected):
    model = sse.PoissonHMM(3, **settings_)
    core = model._core()
    transition = core.chain.transition.mode(np.ones((3, 3)), Dirichlet())
    initial = core.chain.initial.mode(np.ones(3), Dirichlet())
    rate = np.ones((3, 1)) * (2.0 if "tie" in settings_ else np.arange(1.0, 4.0)[:, None])
    tree = core.build({"initial": initial, "transition": transition, "rate": rate})
    assert core.n_free(tree) == expected
    assert model._core(freeze=["rate"]).n_free(tree) == expected - (2 if "tie" in settings_ else 3)


# what is refused


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"transition": "leftright"}, "'left-right'"),
        ({"transition": ("cyclic", 2)}, 'only "banded" takes a width'),
        ({"transition": ("banded", 0)}, "width of banded is 0"),
        ({"transition": [[T, T], [T, F]]}, "shape"),
        ({"transition": [[T, T, F], [T, T, F], [F, F, F]]}, "state 'c' not be left: its row allows no next state"),
        (
            {"transition": [[T, T, F], [T, T, F], [T, T, F]]},
            "state 'c' cannot be reached: transition= allows no step to it. Allow one, or",
        ),
        ({"transition": [[T, T, F], [T, T, F], [F, F, T]]}, "state 'c' neither be reached.* drop the state, or"),
        ({"transition": "left-right", "initial": [0, 1, 0]}, "state 'a' cannot be reached: no allowed path"),
        ({"transition": [[1, 1, 0], [0, 1, 1], [1, 0, 1]]}, "row 'a' is fixed at values that sum to 2.*booleans"),
        ({"transition": [[0.8, 0.8, NAN], [NAN] * 3, [NAN] * 3]}, "row 'a' .*sum to 1.6, more than 1: lower them"),
        ({"transition": [[0.5, 0.5, NAN], [NAN] * 3, [NAN] * 3]}, "leaves nothing for 'a' -> 'c': write 0 there, or"),
        ({"transition": [[-0.5, NAN, NAN], [NAN] * 3, [NAN] * 3]}, "fixes -0.5"),
        ({"transition": 3.0}, "shape"),
        ({"transition": {"a": 1}}, "expected 'free'"),
        ({"initial": "first"}, "'stationary'"),
        ({"initial": [0.5, 0.6, NAN]}, "sum to 1.1"),
        ({"initial": [0.5, 0.6, 0.2]}, "sum to 1.3, expected 1"),
        ({"initial": "stationary", "transition": "left-right"}, "left for good"),
        ({"tie": [["a", "z"]]}, "'z', which is not a state"),
        ({"tie": [["a", "b"], ["b", "c"]]}, "'b' twice"),
        ({"tie": "ab"}, "list of groups"),
    ],
)
def test_structure_that_cannot_be(settings_, message):
    with pytest.raises(ParameterError, match=message):
        sse.PoissonHMM(["a", "b", "c"], **settings_).fit([1, 2, 3, 4, 9])


def test_parameters_that_contradict_the_structure():
    free = sse.PoissonHMM(["a", "b"])
    params = free.parameters(initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.2, 0.8]], rate=[[1.0], [5.0]])
    y = [1, 2, 6, 5]
    with pytest.raises(ParameterError, match=r"transition of 'b' -> 'a' is 0\.2, but transition= of the model fixes"):
        sse.PoissonHMM(["a", "b"], transition="left-right").fit(y, start=params)
    with pytest.raises(ParameterError, match=r"initial of 'a' is 0\.5"):
        sse.PoissonHMM(["a", "b"], initial=[0.3, NAN]).score(y, params)
    with pytest.raises(ParameterError, match="rate of states 'a' and 'b' differ, but tie="):
        sse.PoissonHMM(["a", "b"], tie=[["a", "b"]]).score(y, params)


def test_structure_is_saved(tmp_path):
    table = pd.DataFrame([[NAN, 0.25], [NAN, NAN]], index=["wild", "calm"], columns=["wild", "calm"])
    y = case("poisson", 2, 60, 11)[2]
    for settings_ in (
        {"transition": "left-right"},
        {"transition": ("banded", 1), "initial": "stationary"},
        {"transition": np.array([[T, T], [T, T]]), "tie": [["calm", "wild"]]},
        {"transition": table, "initial": [NAN, NAN]},
    ):
        model = sse.PoissonHMM(["calm", "wild"], **settings_).fit(y, n_starts=2)
        model.save(tmp_path / "model.nc")
        again = sse.PoissonHMM.load(tmp_path / "model.nc")
        assert again.score(y) == model.score(y)
        fresh = model.fit(y, n_starts=2).params_
        assert again.fit(y, n_starts=2).params_.equals(fresh)


# recovery and invariance


@pytest.mark.filterwarnings("ignore::statespace_em.errors.LocalOptimumWarning")
@pytest.mark.parametrize(
    ("word", "transition"),
    [
        ("cyclic", [[0.9, 0.1, 0.0], [0.0, 0.8, 0.2], [0.3, 0.0, 0.7]]),
        ("banded", [[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]]),
    ],
)
def test_a_simulated_chain_is_recovered(word, transition):
    free = sse.PoissonHMM(3)
    truth = free.parameters(initial=[1, 0, 0], transition=transition, rate=[[1.0], [10.0], [30.0]])
    y = free.sample(3000, truth, seed=2)["y"].values
    fit = sse.PoissonHMM(3, transition=word, initial="stationary").fit(y, n_starts=4)
    order = np.argsort(fit.params_["rate"].values.ravel())
    if word == "cyclic":  # a cycle may begin anywhere
        assert np.array_equal(np.roll(order, -int(np.argmin(order))), [0, 1, 2])
    np.testing.assert_allclose(fit.params_["transition"].values[np.ix_(order, order)], transition, atol=0.05)
    np.testing.assert_allclose(fit.params_["rate"].values[order], truth["rate"], rtol=0.05)


@pytest.mark.parametrize("settings_", [{"transition": "cyclic"}, {"initial": "stationary"}, {"tie": [[0, 2]]}])
def test_units_and_the_order_of_sequences_do_not_matter(settings_):
    parts = [case("diagonal", 2, 60, seed)[2] for seed in range(3)]
    model = sse.GaussianHMM(3, "diagonal", order_by=None, **settings_)
    start = model.fit(parts, n_starts=2, max_iter=5, tol=0).params_
    one = model.fit(parts, start=start, tol=1e-10).params_
    moved = start.assign({"mean": 1e3 * start["mean"] + 7.0, "var": 1e6 * start["var"]})
    other = model.fit([1e3 * part + 7.0 for part in parts[::-1]], start=moved, tol=1e-10).params_
    np.testing.assert_allclose(other["mean"], 1e3 * one["mean"] + 7.0, rtol=1e-4, atol=1e-1)
    np.testing.assert_allclose(other["var"], 1e6 * one["var"], rtol=1e-3)
    np.testing.assert_allclose(other["transition"], one["transition"], atol=1e-3)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.LocalOptimumWarning")
@pytest.mark.parametrize("accelerate", [True, False])
def test_em_climbs_from_a_stationary_beginning_under_priors(accelerate):
    model = sse.PoissonHMM(
        3, initial="stationary", initial_prior=Dirichlet(2.0), transition_prior=Dirichlet(1.3, sticky=2.0)
    )
    parts = [case("poisson", 3, 8, seed)[2] for seed in range(10)]
    fit = model.fit(parts, n_starts=3, accelerate=accelerate, tol=1e-7, max_iter=3000)
    assert rising(fit)
    close(fit.score(parts) + fit.log_prior(), fit.trace_["objective"].iloc[-1], 1e-10)
