"""Starts of cycles and autoregressions from the exact likelihood, and the tops that default fits find with them."""

import numpy as np
import pytest
from scipy.signal import lfilter

import statespace_em as sse
from statespace_em import designs
from statespace_em.sequence.reduced_form import reduced
from statespace_em.sequence.reduced_screen import screened

LAKE = np.array([
    580.38, 581.86, 580.97, 580.80, 579.79, 580.39, 580.42, 580.82, 581.40, 581.32, 581.44, 581.68, 581.17, 580.53,
    580.01, 579.91, 579.14, 579.16, 579.55, 579.67, 578.44, 578.24, 579.10, 579.09, 579.35, 578.82, 579.32, 579.01,
    579.00, 579.80, 579.83, 579.72, 579.89, 580.01, 579.37, 578.69, 578.19, 578.67, 579.55, 578.92, 578.09, 579.37,
    580.13, 580.14, 579.51, 579.24, 578.66, 578.86, 578.05, 577.79, 576.75, 576.75, 577.82, 578.64, 580.58, 579.48,
    577.38, 576.90, 576.94, 576.24, 576.84, 576.85, 576.90, 577.79, 578.18, 577.51, 577.23, 578.42, 579.61, 579.05,
    579.26, 579.22, 579.38, 579.10, 577.95, 578.12, 579.75, 580.85, 580.41, 579.96, 579.61, 578.76, 578.18, 577.21,
    577.13, 579.10, 578.25, 577.91, 576.89, 575.96, 576.80, 577.68, 578.38, 578.52, 579.74, 579.31, 579.89, 579.96,
])  # level of Lake Huron in feet, 1875-1972: Brockwell & Davis 1991, series A  # fmt: skip
JOHNSON = np.log([
    0.71, 0.63, 0.85, 0.44, 0.61, 0.69, 0.92, 0.55, 0.72, 0.77, 0.92, 0.60, 0.83, 0.80, 1.00, 0.77, 0.92, 1.00, 1.24,
    1.00, 1.16, 1.30, 1.45, 1.25, 1.26, 1.38, 1.86, 1.56, 1.53, 1.59, 1.83, 1.86, 1.53, 2.07, 2.34, 2.25, 2.16, 2.43,
    2.70, 2.25, 2.79, 3.42, 3.69, 3.60, 3.60, 4.32, 4.32, 4.05, 4.86, 5.04, 5.04, 4.41, 5.58, 5.85, 6.57, 5.31, 6.03,
    6.39, 6.93, 5.85, 6.93, 7.74, 7.83, 6.12, 7.74, 8.91, 8.28, 6.84, 9.54, 10.26, 9.54, 8.73, 11.88, 12.06, 12.15,
    8.91, 14.04, 12.96, 14.85, 9.99, 16.20, 14.67, 16.02, 11.61,
])  # dollars a share that Johnson & Johnson earned, quarters of 1960-1980: Shumway & Stoffer 2017, ex. 1.1  # fmt: skip
ACCURACY = 1e-6  # nats, as promised


def spectrum(ar, ma, angle):
    z = np.exp(-1j * angle)
    over = np.abs(1.0 + sum(m * z ** (k + 1) for k, m in enumerate(ma))) ** 2
    return over / np.abs(1.0 - sum(a * z ** (k + 1) for k, a in enumerate(ar))) ** 2


def cycle(rng, length, period, damping):
    turn = 2.0 * np.pi / period
    A = damping * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    state, found = rng.normal(size=2) / np.sqrt(1.0 - damping**2), np.empty(length)
    for t in range(length):
        found[t] = state[0]
        state = A @ state + rng.normal(size=2)
    return found


def swings(seed=3, length=240):
    """A random walk beside two swings, of which each alone explains much."""
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    fast = 2.0 * np.sin(2.0 * np.pi * t / 5.7 + 1.0)
    return np.cumsum(rng.normal(0.0, 1.0, length)) + 0.2 * cycle(rng, length, 40.0, 0.95) + fast


def tops(model, y, n):
    """Values by name that a fit of the model starts at."""
    trios = [(kind, options, part) for (kind, options), part in zip(model.components, model._built())]
    form = reduced(trios, "noise_var" if model._noisy() else None)
    return screened(form, y, model._columns(len(y)), n)


def polynomials(top):
    """Coefficients of the autoregression and of the moving average."""
    return (
        [value for name, value in top.items() if name.startswith(word) and "_" not in name] for word in ("ar", "ma")
    )


@pytest.mark.parametrize(
    "model",
    [
        *(designs.arma(p, q) + designs.constant() for p, q in [(2, 2), (3, 1), (0, 3), (3, 3)]),
        designs.local_level() + designs.cycle(),
        designs.local_level() + designs.ar(2),
    ],
    ids=["2 2", "3 1", "0 3", "3 3", "cycle", "level"],
)
def test_starts_are_stable_invertible_and_ordered_by_the_exact_likelihood(model):
    found = tops(model, LAKE, 10)
    batch = model._read(LAKE, None)[0]
    core = model._core(batch=batch, given={})
    start = next(iter(core.starts(batch, 1, np.random.default_rng(0), {})))
    scores = []
    for words in found:
        ar, ma = polynomials(words)
        for coefficients in (-np.array(ar), np.array(ma)):
            assert (np.abs(np.roots(np.append(1.0, coefficients))) <= 1.0 + 1e-9).all()
        parts = {n: p.build(np.array([words[w] for w in p.names])) for n, p in core.patterns.items() if p.names}
        there = core.structure(start).complete(start._asdict() | parts)
        scores.append(core.e_step(there, batch)[1])
    scores = [*scores[:1], *scores[2:]]  # the second is the best one again, from another place
    assert (np.diff(scores) <= 1e-3).all()
    again = tops(model, 2.0**20 * LAKE, 10)
    for name, value in found[0].items():
        size = 2.0**40 if name.endswith("_var") else 1.0
        assert again[0][name] / size == pytest.approx(value, rel=1e-8, abs=1e-10)


def test_starts_are_not_alike_and_one_is_near_the_truth():
    """A narrow peak, which a gap of the moving average nearly fills: a regression on lags does not see it."""
    rng = np.random.default_rng(1)
    turn = 2.0 * np.pi * 0.17
    ar, ma = (-np.array([-2.0 * r * np.cos(turn), r * r]) for r in (0.97, 0.8))
    y = lfilter(np.append(1.0, -ma), np.append(1.0, -ar), rng.normal(size=1000))[500:]
    found = tops(designs.arma(2, 2) + designs.constant(), y, 12)
    angle = np.linspace(0.01, 3.1, 300)
    logs = np.array([np.log(spectrum(*polynomials(top), angle)) for top in found])
    logs -= logs.mean(1, keepdims=True)
    others = np.vstack([logs[:1], logs[2:]])  # the second is the best one again
    distance = np.abs(others[:, None] - others).mean(2)
    assert distance[~np.eye(len(others), dtype=bool)].min(initial=1.0) > 0.05
    truth = np.log(spectrum(ar, -ma, angle))
    assert np.abs(logs - (truth - truth.mean())).mean(1).min() < 0.2


@pytest.mark.parametrize("y", [LAKE[:7], np.ones(50), np.arange(50.0)], ids=["short", "constant", "line"])
def test_what_tells_nothing_gives_no_starts(y):
    assert tops(designs.arma(2, 1) + designs.constant() + designs.regression(np.arange(50.0)), y, 5) == []
    assert tops(designs.local_trend() + designs.cycle(), y, 5) == []


def test_columns_count_among_what_is_known_of_the_mean():
    """Beside a regression the starts are those of what it leaves, as a fit of both has it."""
    rows = np.random.default_rng(0).normal(size=(len(LAKE), 2))
    model = designs.arma(2, 2) + designs.constant() + designs.regression(rows)
    one, other = (tops(model, LAKE + moved, 4)[0] for moved in (0.0, rows @ [30.0, -40.0]))
    assert list(one) == list(other)
    np.testing.assert_allclose(list(one.values()), list(other.values()), atol=1e-6)


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


def test_a_likelihood_without_bound_is_said_with_a_start_that_bounds_it():
    """With a free first mean and R = 0 the innovations of a system that cannot be inverted fit ever better."""
    model = sse.LinearGaussianSSM(3, observation_offset="free")
    with pytest.warns(sse.errors.ConvergenceWarning, match='Use initial="stationary", .*or a prior'):
        model.fit(LAKE)
    assert model.status_ == "degenerate"
    model = sse.LinearGaussianSSM(2, observation_offset="free", initial="stationary").fit(LAKE)
    assert model.status_ == "converged"
    assert model.score(LAKE) > -103.2371713 - ACCURACY  # the best of 24 ascents by L-BFGS-B from random starts


@pytest.mark.parametrize("period", [4.0, 11.0, 35.0])
def test_the_first_start_is_near_the_cycle_behind_the_series(period):
    y = cycle(np.random.default_rng(1), 600, period, 0.98)
    first = tops(designs.local_level() + designs.cycle(), y, 5)[0]
    cosine, sine = first["cycle_cos"], first["cycle_sin"]
    assert 2.0 * np.pi / abs(np.arctan2(sine, cosine)) == pytest.approx(period, rel=0.12)
    assert np.hypot(cosine, sine) > 0.9
    assert 0.2 < first["cycle_var"] < 5.0  # truth: 1


def test_a_default_fit_finds_the_higher_of_two_swings():
    y = swings()
    model = designs.local_level() + designs.cycle()
    best = max(
        (designs.local_level() + designs.cycle(period=period)).fit(y, n_starts=1).score(y)
        for period in (5.0, 5.7, 8.0, 40.0, 100.0)
    )
    assert model.fit(y).score(y) >= best - ACCURACY
    assert model.summary().loc["cycle_period", "value"].item() == pytest.approx(5.7, rel=0.01)
    assert model.status_ == "converged"


NILE, LEVEL = sse.datasets.nile(), designs.local_level()


@pytest.mark.parametrize(
    ("model", "y", "top"),
    [
        (LEVEL + designs.cycle(), NILE, -630.1084331),  # starts by Whittle's likelihood led to -630.2747
        (designs.constant() + designs.arma(2, 2), NILE, -636.1183806),
        (LEVEL + designs.ar(1), JOHNSON, 30.5392204),  # 23.9605: an autoregression of -0.95, which no start was near
        (LEVEL + designs.ar(2), JOHNSON, 36.4945612),  # 30.5392
        (designs.smooth_trend() + designs.ar(2), JOHNSON, 48.6285290),  # 40.6437
        (LEVEL + designs.ar(2), NILE, -630.1084331),  # -630.2902: a pair of roots at a low frequency
    ],
)  # the best of what 23 starts or more led ascents by L-BFGS-B to
def test_default_fits_of_sums_find_the_top(model, y, top):
    assert model.fit(y).score(y) > top - ACCURACY
    assert model.status_ == "converged"


def test_fits_are_the_same_in_every_unit():
    y = swings()[:120]
    one, other = ((designs.local_level() + designs.cycle()).fit(c * y) for c in (1.0, 1e6))
    assert other.score(1e6 * y) == pytest.approx(one.score(y) - 119 * np.log(1e6), abs=1e-5)


def test_a_cycle_turns_one_way_whatever_its_start():
    y = swings()[:120]
    model = designs.local_level() + designs.cycle()
    found = model.fit(y).params_
    turned = found.copy(deep=True)
    for row, column in (("cycle", "cycle*"), ("cycle*", "cycle")):
        where = {"next_state": row, "state": column}
        turned["transition"].loc[where] = -found["transition"].loc[where]
    assert model.score(y, turned) == pytest.approx(model.score(y, found), abs=1e-9)
    again = (designs.local_level() + designs.cycle()).fit(y, start=turned)
    np.testing.assert_allclose(again.params_["transition"], found["transition"], atol=1e-4)
    assert again.params_["transition"].sel(next_state="cycle", state="cycle*").item() > 0.0
