"""Starts of models of which variances alone are free: the likelihood tells how they share what y varies by."""

import numpy as np
import pytest

import statespace_em as sse
from statespace_em import designs
from statespace_em.patterns import fixed, from_entries
from statespace_em.sequence.variance_shares import APART, DECADES, _places, likely_shares, shared_variances

NONE = {}
SIZES = (2, 2)


def walk(seed=0, n=150):
    rng = np.random.default_rng(seed)
    return 40.0 * rng.normal(size=n).cumsum() * 0.1 + 3.0 * rng.normal(size=n)


def level_of(y):
    """Log-likelihood of a level with a diffuse start, and how its noises are written."""
    model = sse.LinearGaussianSSM(
        transition=[[1]], process_cov=[["q"]], observation=[[1]], measurement_cov=[["r"]], initial="diffuse"
    )
    patterns = {
        name: from_entries([[word]], name, symmetric=True)
        for name, word in (("process_cov", "q"), ("measurement_cov", "r"))
    }

    def log_likelihood(values):
        covs = {name: values[name] for name in patterns}
        return model.score(y, model.parameters(initial_mean=[0.0], initial_cov=[[np.inf]], **covs))

    return patterns, log_likelihood


def test_the_scale_of_all_variances_is_at_its_best():
    """No common factor of what is returned has a higher likelihood, whatever the units of the guess."""
    y = walk()
    patterns, log_likelihood = level_of(y)
    guess = {"process_cov": np.array([[7e4]]), "measurement_cov": np.array([[2e-3]])}
    for found in likely_shares(patterns, guess, NONE, 6, log_likelihood, len(y) - 1):
        here = log_likelihood(found)
        for factor in (0.999, 1.001):
            assert log_likelihood({name: factor * found[name] for name in patterns}) < here


def test_the_likeliest_comes_first_and_others_are_apart():
    y = walk()
    patterns, log_likelihood = level_of(y)
    guess = {"process_cov": np.ones((1, 1)), "measurement_cov": np.ones((1, 1))}
    found = likely_shares(patterns, guess, NONE, 3, log_likelihood, len(y) - 1)
    ratios = [np.log10(one["process_cov"] / one["measurement_cov"]).item() for one in found]
    assert log_likelihood(found[0]) == max(map(log_likelihood, found))
    assert min(abs(a - b) for i, a in enumerate(ratios) for b in ratios[:i]) >= APART
    best = designs.local_level().fit(y)
    assert best.score(y) - log_likelihood(found[0]) < 1.0


def test_all_that_is_asked_for_is_made():
    y = walk(n=40)
    patterns, log_likelihood = level_of(y)
    guess = {"process_cov": np.ones((1, 1)), "measurement_cov": np.ones((1, 1))}
    found = likely_shares(patterns, guess, NONE, 60, log_likelihood, 39)
    assert len(found) == len({one["process_cov"].item() for one in found}) == 60
    assert len(designs.local_level().fit(y, n_starts=30, max_iter=3, tol=0.0).starts_) == 30


def test_what_is_known_of_a_noise_has_a_scale():
    """With a known measurement noise there is no common factor: places are taken as they are."""
    y = walk()
    patterns, log_likelihood = level_of(y)
    patterns["process_cov"] = from_entries([["a", 0.0], [0.0, "b"]], "process_cov", symmetric=True)

    def of_two(values):
        return log_likelihood({"process_cov": values["process_cov"][:1, :1], "measurement_cov": np.ones((1, 1))})

    known = {"process_cov": patterns["process_cov"]}
    guess = {"process_cov": np.diag([5.0, 2.0])}
    for found in likely_shares(known, guess, NONE, 4, of_two, len(y) - 1):
        logs = np.log10(np.diag(found["process_cov"]) / [5.0, 2.0])
        assert logs.max() == 0.0
        assert logs.min() >= -DECADES


def test_covariances_go_with_their_variances():
    """The correlation of a guess is that of all ways to share its variances."""
    noise = from_entries([["a", "c"], ["c", "b"]], "process_cov", symmetric=True)
    guess = {"process_cov": np.array([[4.0, -1.0], [-1.0, 9.0]])}
    for found in likely_shares({"process_cov": noise}, guess, NONE, 20, lambda values: 0.0, 0):
        cov = found["process_cov"]
        assert cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]) == pytest.approx(-1.0 / 6.0, rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_places_are_spread_evenly(n):
    places = _places(n, 300 * n)
    for j in range(n):
        others = np.delete(places[np.arange(300) * n + j], j, axis=1) / -DECADES
        assert (places[np.arange(300) * n + j, j] == 0.0).all()
        thirds = np.histogramdd(others[:, :2], bins=3, range=[(0.0, 1.0)] * min(n - 1, 2))[0]
        expected = len(others) / thirds.size
        assert np.abs(thirds - expected).max() < 0.35 * expected


def test_only_models_of_variances_are_asked():
    two = from_entries([["a", 0.0], [0.0, "b"]], "process_cov", symmetric=True)
    view, rest = fixed(np.ones((1, 2))), {"measurement_cov"}
    assert shared_variances({"process_cov": two, "observation": view}, {*rest, "transition"}, NONE, SIZES)
    assert not shared_variances({"process_cov": two, "observation": view}, rest, NONE, SIZES)  # dynamics are free
    assert not shared_variances({"process_cov": two}, {*rest, "transition"}, NONE, SIZES)  # loadings are
    assert not shared_variances(
        {"process_cov": two, "observation": view}, {"transition"}, NONE, SIZES
    )  # a noise as a whole
    one = from_entries([["a", 0.0], [0.0, "a"]], "process_cov", symmetric=True)
    assert not shared_variances(
        {"process_cov": one, "observation": view}, {*rest, "transition"}, NONE, SIZES
    )  # one variance
    alone = shared_variances({"process_cov": one, "observation": view}, {"transition"}, NONE, (2, 1))
    assert alone["measurement_cov"].on_diagonal == list(alone["measurement_cov"].names)


def test_a_default_fit_begins_near_the_top():
    """Of a trend with a season, a noise of which hardly moves it; it was 600 nats away."""
    rng = np.random.default_rng(0)
    n = 300
    y = 0.3 * rng.normal(size=n).cumsum() + rng.normal(size=n) + 2.0 * np.sin(np.arange(n) * 2 * np.pi / 12)
    model = designs.local_trend() + designs.seasonal(12)
    begun = model.fit(y, n_starts=1, max_iter=1, tol=0.0).score(y)
    assert model.fit(y).score(y) - begun < 20.0


def test_of_two_tops_the_higher_is_found():
    """Where a level and a season both explain y, tops are 6 nats apart; no other was found by 16 starts."""
    rng = np.random.default_rng(77)
    for _ in range(2):
        n = int(rng.integers(40, 250))
        scale = np.exp(rng.normal(size=4) * 2.5)
        level = np.cumsum(scale[0] * rng.normal(size=n) + np.cumsum(scale[1] * 0.1 * rng.normal(size=n)))
        y = level + np.tile(rng.normal(size=12), n // 12 + 1)[:n] * scale[3] + scale[2] * rng.normal(size=n)
    model = designs.smooth_trend() + designs.seasonal(7) + designs.seasonal(4, kind="dummy")
    assert model.fit(y).score(y) == pytest.approx(-1229.2253700, abs=1e-6)
