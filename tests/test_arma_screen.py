"""Starts of mixed ARMA models from the exact likelihood, and the tops that default fits find with them."""

import numpy as np
import pytest
from scipy.signal import lfilter

import statespace_em as sse
from statespace_em import designs
from statespace_em.sequence.arma_screen import screened

LAKE = np.array([
    580.38, 581.86, 580.97, 580.80, 579.79, 580.39, 580.42, 580.82, 581.40, 581.32, 581.44, 581.68, 581.17, 580.53,
    580.01, 579.91, 579.14, 579.16, 579.55, 579.67, 578.44, 578.24, 579.10, 579.09, 579.35, 578.82, 579.32, 579.01,
    579.00, 579.80, 579.83, 579.72, 579.89, 580.01, 579.37, 578.69, 578.19, 578.67, 579.55, 578.92, 578.09, 579.37,
    580.13, 580.14, 579.51, 579.24, 578.66, 578.86, 578.05, 577.79, 576.75, 576.75, 577.82, 578.64, 580.58, 579.48,
    577.38, 576.90, 576.94, 576.24, 576.84, 576.85, 576.90, 577.79, 578.18, 577.51, 577.23, 578.42, 579.61, 579.05,
    579.26, 579.22, 579.38, 579.10, 577.95, 578.12, 579.75, 580.85, 580.41, 579.96, 579.61, 578.76, 578.18, 577.21,
    577.13, 579.10, 578.25, 577.91, 576.89, 575.96, 576.80, 577.68, 578.38, 578.52, 579.74, 579.31, 579.89, 579.96,
])  # level of Lake Huron in feet, 1875-1972: Brockwell & Davis 1991, series A  # fmt: skip
ACCURACY = 1e-6  # nats, as promised


def spectrum(ar, ma, angle):
    z = np.exp(-1j * angle)
    over = np.abs(1.0 + sum(m * z ** (k + 1) for k, m in enumerate(ma))) ** 2
    return over / np.abs(1.0 - sum(a * z ** (k + 1) for k, a in enumerate(ar))) ** 2


def level(y):
    return np.ones((len(y), 1))


@pytest.mark.parametrize("orders", [(2, 2), (3, 1), (0, 3), (3, 3)])
def test_starts_are_stable_invertible_and_ordered_by_the_exact_likelihood(orders):
    p, q = orders
    found = screened(LAKE, level(LAKE), (p, 0, q), 10)
    model = designs.arma(*orders) + designs.constant()
    core, batch = model._core(batch=model._read(LAKE, None)[0], given={}), model._read(LAKE, None)[0]
    scores = []
    for ar, ma, variance in found:
        assert (ar.shape, ma.shape) == ((p,), (q,))
        for coefficients in (-ar, ma):
            assert (np.abs(np.roots(np.append(1.0, coefficients))) <= 1.0 + 1e-9).all()
        named = [f"ar{i + 1}" for i in range(p)] + [f"ma{i + 1}" for i in range(q)]
        words = dict(zip(named, [*ar, *ma])) | {"arma_var": variance}
        start = next(iter(core.starts(batch, 1, np.random.default_rng(0), {})))
        values = {
            n: own.build(np.array([words[w] for w in own.names])) for n, own in core.patterns.items() if own.names
        }
        there = core.structure(start).complete(start._asdict() | values)
        scores.append(core.e_step(there, batch)[1])
    scores = [*scores[:1], *scores[2:]]  # the second is the best one again, from another place
    assert (np.diff(scores) <= 1e-6).all()
    again = screened(2.0**20 * LAKE, level(LAKE), (p, 0, q), 10)
    np.testing.assert_allclose(np.concatenate(again[0][:2]), np.concatenate(found[0][:2]), rtol=1e-8, atol=1e-10)
    assert again[0].variance == pytest.approx(2.0**40 * found[0].variance, rel=1e-8)


def test_starts_are_not_alike_and_one_is_near_the_truth():
    """A narrow peak, which a gap of the moving average nearly fills: a regression on lags does not see it."""
    rng = np.random.default_rng(1)
    turn = 2.0 * np.pi * 0.17
    ar, ma = (-np.array([-2.0 * r * np.cos(turn), r * r]) for r in (0.97, 0.8))
    y = lfilter(np.append(1.0, -ma), np.append(1.0, -ar), rng.normal(size=1000))[500:]
    found = screened(y, level(y), (2, 0, 2), 12)
    angle = np.linspace(0.01, 3.1, 300)
    logs = np.array([np.log(spectrum(a, m, angle)) for a, m, _ in found])
    logs -= logs.mean(1, keepdims=True)
    others = np.vstack([logs[:1], logs[2:]])  # the second is the best one again
    distance = np.abs(others[:, None] - others).mean(2)
    assert distance[~np.eye(len(others), dtype=bool)].min(initial=1.0) > 0.05
    truth = np.log(spectrum(ar, -ma, angle))
    assert np.abs(logs - (truth - truth.mean())).mean(1).min() < 0.2


@pytest.mark.parametrize("y", [LAKE[:7], np.ones(50), np.arange(50.0)])
def test_too_short_or_too_simple_a_series_has_no_such_starts(y):
    assert screened(y, np.column_stack([level(y), np.arange(len(y))]), (2, 0, 1), 5) == []


@pytest.mark.parametrize(
    ("orders", "top"),
    [((2, 2), -102.7941109), ((3, 1), -102.7164223), ((1, 3), -102.9441101), ((3, 2), -102.3168864)],
)  # the best of 40 quasi-Newton ascents from coefficients at random; the first has a unit root of the moving average
def test_default_fits_of_mixed_models_find_the_top(orders, top):
    model = (designs.arma(*orders) + designs.constant()).fit(LAKE)
    assert model.status_ == "converged"
    assert model.score(LAKE) > top - ACCURACY
    assert (model.starts_["status"] != "decreased").all()
    assert len(model.starts_) <= 24


def test_the_top_is_found_that_whittles_likelihood_ranks_low():
    """The best of 500 places that were climbed from; 35 tops of Whittle's likelihood lead to -100.7477 at most."""
    model = (designs.arma(3, 3) + designs.constant()).fit(LAKE)
    assert model.status_ == "converged"
    assert model.score(LAKE) > -100.6631775 - ACCURACY


def test_columns_count_among_what_is_known_of_the_mean():
    """Beside a regression the starts are those of what it leaves, as a fit of both has it."""
    rows = np.random.default_rng(0).normal(size=(len(LAKE), 2))
    found = screened(LAKE + rows @ [30.0, -40.0], np.column_stack([level(LAKE), rows]), (2, 0, 2), 4)
    plain = screened(LAKE, np.column_stack([level(LAKE), rows]), (2, 0, 2), 4)
    np.testing.assert_allclose(np.concatenate(found[0][:2]), np.concatenate(plain[0][:2]), atol=1e-6)


def test_a_likelihood_without_bound_is_said_with_a_start_that_bounds_it():
    """With a free first mean and R = 0 the innovations of a system that cannot be inverted fit ever better."""
    model = sse.LinearGaussianSSM(3, observation_offset="free")
    with pytest.warns(sse.errors.ConvergenceWarning, match='or initial="stationary", or a prior'):
        model.fit(LAKE)
    assert model.status_ == "degenerate"
    model = sse.LinearGaussianSSM(2, observation_offset="free", initial="stationary").fit(LAKE)
    assert model.status_ == "converged"
    assert model.score(LAKE) > -103.2371713 - ACCURACY  # the best of 24 ascents by L-BFGS-B from random starts
