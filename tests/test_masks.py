"""Chains with impossible steps and fixed entries: every answer against the enumeration of all paths."""

import itertools

import numpy as np
import pytest
from hmm_cases import case, log_densities, model_of
from oracles import chain_oracle, enumerate_paths

from statespace_em import paths
from statespace_em.constraints import transition_pattern
from statespace_em.sequence.hmm_core import HMMCore

EXACT = 1e-12
NAN, T, F = np.nan, True, False
ROWS = 6
STATES = [0, 1, 2]
STRUCTURES = {
    "left-right": {"transition": "left-right", "initial": [1.0, 0.0, 0.0]},
    "left-right, any beginning": {"transition": "left-right"},
    "banded": {"transition": "banded", "initial": "uniform"},
    "cyclic": {"transition": "cyclic", "initial": "stationary"},
    "any": {"transition": [[F, T, T], [T, F, F], [F, T, T]], "initial": [NAN, NAN, 0.0]},
    "fixed": {"transition": [[0.7, NAN, NAN], [NAN, 0.0, NAN], [0.2, 0.3, 0.5]], "initial": [0.25, NAN, 0.0]},
}


def close(left, right):
    np.testing.assert_allclose(left, right, rtol=EXACT, atol=EXACT)


def chain(structure, seed):
    """Initial and transition probabilities at random that keep to a structure, and its zeros."""
    rng = np.random.default_rng(seed)
    fixed = transition_pattern(structure["transition"], STATES).fixed
    transition = np.where(np.isnan(fixed), rng.gamma(1.0, size=(3, 3)), 0.0)
    room = 1.0 - np.nansum(fixed, axis=1, keepdims=True)
    transition *= room / np.maximum(transition.sum(1, keepdims=True), 1e-300)
    transition = np.where(np.isnan(fixed), transition, fixed)
    initial = structure.get("initial", "free")
    if initial == "stationary":
        first = np.linalg.lstsq(
            np.vstack([transition.T - np.eye(3), np.ones(3)]), np.array([0.0, 0.0, 0.0, 1.0]), rcond=None
        )[0]
    elif isinstance(initial, str):
        first = np.full(3, 1.0 / 3.0) if initial == "uniform" else rng.dirichlet(np.ones(3))
    else:
        held = np.array(initial)
        open_ = np.where(np.isnan(held), rng.gamma(1.0, size=3), 0.0)
        first = np.where(np.isnan(held), open_ * (1.0 - np.nansum(held)) / max(open_.sum(), 1e-300), held)
    return first, transition


def problem(kind, name, seed, *, known):
    """Model, parameters, y and states=, all possible paths and their log joint probabilities."""
    initial, transition = chain(STRUCTURES[name], seed)
    _, params, y = case(kind, 3, ROWS, seed, holes=True)
    model = model_of(kind, 3, **STRUCTURES[name])
    params = params.assign(initial=("state", initial), transition=(("state", "next_state"), transition))
    log_b = log_densities(kind, params, y)
    said = {}
    if known:  # two rows of a path that is possible
        every, score = enumerate_paths(np.zeros_like(log_b), initial, transition[None])
        path = every[np.flatnonzero(score > -np.inf)[seed % 5 * 3]]
        states = np.full(ROWS, NAN)
        states[[1, 4]] = path[[1, 4]]
        said = {"states": states}
        log_b[~np.isnan(states)[:, None] & (states[:, None] != np.arange(3))] = -np.inf
    return model, params, y, said, log_b, (initial, transition[None])


CASES = [(kind, name) for kind in ("poisson", "full", "categorical") for name in STRUCTURES]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_posterior_filter_and_score(kind, name, known):
    for seed in (1, 2, 3):
        model, params, y, said, log_b, parts = problem(kind, name, seed, known=known)
        log_likelihood, gamma, xi, filtered, *_ = chain_oracle(log_b, *parts)
        posterior = model.e_step(y, params, **said)
        close(posterior["log_likelihood"], log_likelihood)
        close(model.score(y, params, **said), log_likelihood)
        close(posterior["gamma"], gamma)
        close(posterior["xi"][:-1], xi)
        close(model.filter(y, params, **said)["filtered"], filtered)
        impossible = np.broadcast_to(parts[1][0] == 0.0, xi.shape)
        assert (posterior["xi"].values[:-1][impossible] == 0.0).all()
        assert (posterior["gamma"].values[0, parts[0] == 0.0] == 0.0).all()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_best_paths(kind, name, known):
    for seed in (1, 2, 3):
        model, params, y, said, log_b, parts = problem(kind, name, seed, known=known)
        every, score = enumerate_paths(log_b, *parts)
        possible = int((score > -np.inf).sum())
        order = np.argsort(-score)[: min(5, possible)]
        decoded = model.decode(y, params, **said)
        np.testing.assert_array_equal(decoded, every[order[0]])
        close(decoded["log_prob"], score[order[0]])
        best = model.best_paths(y, 5, params, **said)
        close(best["log_prob"][: len(order)], score[order])
        np.testing.assert_array_equal(best["state"][: len(order)], every[order])
        inner = [[len(list(run)) for _, run in itertools.groupby(path)][1:-1] for path in every]
        patient = np.where([min(runs, default=2) >= 2 for runs in inner], score, -np.inf)
        if patient.max() > -np.inf:
            found = model.decode(y, params, min_duration=2, **said)
            np.testing.assert_array_equal(found, every[patient.argmax()])


@pytest.mark.parametrize("name", [name for name in STRUCTURES if name != "cyclic"])  # stationary: see test_structure
def test_an_m_step_divides_what_enumeration_counts(name):
    model, params, y, _, log_b, parts = problem("poisson", name, 1, known=False)
    _, gamma, xi, *_ = chain_oracle(log_b, *parts)
    new = model.m_step(y, model.e_step(y, params), params)
    fixed = transition_pattern(STRUCTURES[name]["transition"], STATES).fixed
    counts = np.where(np.isnan(fixed), xi.sum(0), 0.0)
    room = 1.0 - np.nansum(fixed, axis=1, keepdims=True)
    total = counts.sum(1, keepdims=True)
    visited = total[:, 0] > 0.0
    expected = np.where(np.isnan(fixed), room * counts / np.where(total > 0.0, total, 1.0), fixed)
    close(new["transition"].values[visited], expected[visited])
    close(new["transition"].sum("next_state"), 1.0)
    seen = ~np.equal(y, None) & ~np.isnan(y)
    rate = (gamma.T @ np.where(seen, y, 0.0)) / (gamma.T @ seen)
    close(new["rate"].values, rate)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize(("kind", "name"), [case for case in CASES if case[0] != "poisson"])
def test_what_is_fixed_stays_at_every_iteration(kind, name, accelerate, monkeypatch):
    seen, own = [], HMMCore.e_step
    monkeypatch.setattr(HMMCore, "e_step", lambda self, p, data: seen.append(p) or own(self, p, data))
    y = case(kind, 3, 60, 2)[2]
    model_of(kind, 3, **STRUCTURES[name]).fit(y, n_starts=2, max_iter=20, tol=0, accelerate=accelerate)
    fixed = transition_pattern(STRUCTURES[name]["transition"], STATES).fixed
    held = ~np.isnan(fixed)
    first = STRUCTURES[name].get("initial", "free")
    assert len(seen) > 10
    for tree in seen:
        np.testing.assert_array_equal(tree.transition[held], fixed[held])
        if not isinstance(first, str):
            kept = ~np.isnan(first)
            np.testing.assert_array_equal(tree.initial[kept], np.array(first)[kept])


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_drawn_paths_and_the_future_keep_to_it(name):
    model, params, y, said, log_b, parts = problem("full", name, 2, known=True)
    every, score = enumerate_paths(log_b, *parts)
    weight = np.exp(score - score.max())
    weight /= weight.sum()
    drawn = paths.sample(model.e_step(y, params, **said), 4000, seed=1)
    index = drawn.values @ 3 ** np.arange(ROWS)[::-1]  # the place of a path among all, in the order of enumeration
    found = np.bincount(index, minlength=len(every)) / 4000
    assert (found[weight == 0.0] == 0.0).all()
    assert (np.abs(found - weight) < 5.0 * np.sqrt(weight * (1.0 - weight) / 4000) + 1e-3).all()
    last = chain_oracle(log_b, *parts)[1][-1]
    ahead = model.forecast(y, 3, params, **said)["predicted"]
    for h in range(3):
        close(ahead[h], last @ np.linalg.matrix_power(parts[1][0], h + 1))
