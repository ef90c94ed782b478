"""Differenced sums of components: the likelihood is that of the states, the spectrum that of the autocovariances."""

import numpy as np
import pytest

from statespace_em import designs
from statespace_em.sequence.reduced_form import (
    StationaryComponent,
    autocovariances,
    is_stationary,
    products,
    reduced,
    stable,
)
from statespace_em.sequence.reduced_likelihood import fits
from statespace_em.sequence.reduced_screen import _places

ROWS = 48
CONSTANT, TREND, COLUMN = designs.constant(), designs.local_trend(), np.arange(ROWS) % 7 == 3
SUMS = [
    CONSTANT + designs.arma(2, 1),
    designs.arma(1, 3) + designs.regression(COLUMN, start="fixed") + CONSTANT,
    designs.arima(1, 1, 1),
    designs.arima(0, 2, 1),
    CONSTANT + designs.cycle(),
    designs.local_level() + designs.ar(2),
    TREND + designs.cycle(),
    designs.smooth_trend() + designs.cycle() + designs.cycle(),
    designs.local_level() + designs.seasonal(4) + designs.cycle() + designs.ar(1),
    TREND + designs.seasonal(4, kind="dummy") + designs.arma(1, 1),
    designs.cycle() + designs.arima(1, 1, 1),
]


def form_of(model):
    trios = [(kind, options, part) for (kind, options), part in zip(model.components, model._built())]
    return reduced(trios, "noise_var" if model._noisy() else None)


def rows_of(model, form, y):
    columns = np.column_stack([y, model._columns(len(y))]).T
    rows = np.array([np.convolve(own, form.difference, "valid") for own in columns]).T
    return rows[:, np.abs(rows).max(0) > 1e-9]


@pytest.mark.parametrize("model", SUMS, ids=lambda model: " ".join(kind for kind, _ in model.components))
def test_the_likelihood_is_that_of_the_states_up_to_a_constant(model):
    rng = np.random.default_rng(0)
    y = np.cumsum(rng.normal(size=ROWS)) + 3.0 * np.sin(np.arange(ROWS)) + 10.0
    form = form_of(model)
    theta = _places(form, rows_of(model, form, y)[:, 0])[:6]
    found = fits(*form.read(theta), rows_of(model, form, y))
    batch = model._read(y, None)[0]
    core = model._core(batch=batch, given={})
    start = next(iter(core.starts(batch, 1, rng, {})))
    away = []
    for values, variance, log_likelihood in zip(theta, found.variance, found.log_likelihood):
        words = form.named(values, variance, 0.0)
        parts = {n: p.build(np.array([words[w] for w in p.names])) for n, p in core.patterns.items() if p.names}
        there = core.structure(start).complete(start._asdict() | parts)
        away.append(log_likelihood - core.e_step(there, batch)[1])
    np.testing.assert_allclose(away, away[0], atol=1e-6)
    if model.components[0][0] in ("constant", "arma"):
        assert away[0] == pytest.approx(0.0, abs=1e-6)  # seasons begin in units of their own


@pytest.mark.parametrize("model", SUMS, ids=lambda model: " ".join(kind for kind, _ in model.components))
def test_the_spectrum_is_that_of_the_autocovariances(model):
    form = form_of(model)
    theta = _places(form, np.random.default_rng(0).normal(size=ROWS))[:60]
    decay = [np.abs(np.roots([1.0, *-own])).max(initial=0.0) for own in form.read(theta)[0]]
    theta = theta[np.array(decay) < 0.99][:3]
    ar, auto = form.read(theta)
    n, angle = 20_000, np.linspace(0.3, 2.9, 5)
    lags = np.zeros((3, n))
    lags[:, : auto.shape[1]] = auto
    for k in range(auto.shape[1], n):
        lags[:, k] = (ar * lags[:, k - ar.shape[1] : k][:, ::-1]).sum(1)
    expected = lags[:, :1] + 2.0 * lags[:, 1:] @ np.cos(np.outer(np.arange(1, n), angle))
    found = form.log_spectrum(theta, angle)
    expected = np.log(expected + 1e-6 * expected.mean(1, keepdims=True))
    np.testing.assert_allclose(found, expected - expected.mean(1, keepdims=True), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [TREND, designs.local_level() + designs.seasonal(4), designs.arima(0, 1, 1, seasonal=(0, 1, 1, 4))],
)
def test_sums_without_cycles_or_autoregressions_and_products_have_none(model):
    assert form_of(model) is None


def test_an_autoregression_alone_has_one_top():
    assert not form_of(designs.ar(2) + CONSTANT).has_several_tops
    assert form_of(designs.arma(1, 1)).has_several_tops
    assert form_of(designs.ar(1) + designs.local_level()).has_several_tops


def test_moving_averages_become_invertible_and_nothing_else_changes():
    form = form_of(designs.local_level() + designs.arma(1, 2))
    theta = np.array([[0.5, 2.5, 0.1, 0.7, 0.2, 0.3], [0.5, 0.2, 0.1, 0.7, 0.2, 0.3]])
    found = form.invertible(theta)
    np.testing.assert_allclose(found[1], theta[1])
    assert (np.abs(np.roots([1.0, *found[0, 1:3]])) < 1.0).all()
    for one, other in zip(form.read(theta), form.read(found)):
        np.testing.assert_allclose(one, other, rtol=1e-10)


def test_each_component_has_some_variance_at_a_start():
    form = form_of(CONSTANT + designs.cycle())
    words = form.named(np.array([0.5, 0.3, 2.0, 0.0]), 3.0, 0.01)
    assert words == {
        "cycle_cos": 0.5, "cycle_sin": 0.3, "cycle_var": pytest.approx(12.0), "noise_var": pytest.approx(0.01),
    }  # fmt: skip


# polynomials of many models


def test_autocovariances_are_those_of_the_weights():
    ar, ma = np.array([[0.5, 0.3], [1.2, -0.8]]), np.array([[0.4], [-2.0]])
    found = autocovariances(ar, ma, 9)
    for i in range(2):
        weights = np.zeros(3_000)
        weights[:2] = 1.0, ar[i, 0] + ma[i, 0]
        for k in range(2, len(weights)):
            weights[k] = ar[i] @ weights[k - 2 : k][::-1]
        expected = [weights[: len(weights) - k] @ weights[k:] for k in range(9)]
        np.testing.assert_allclose(found[i], expected, rtol=1e-10)


def test_a_cycle_is_damped_and_turns():
    component = StationaryComponent("cycle", "cycle_var", ("a", "b"), 2, np.ones(1))
    turn, lags = 0.7, np.arange(6)
    values = 0.9 * np.array([[np.cos(turn), np.sin(turn)]])
    expected = 0.9**lags * np.cos(turn * lags) / (1.0 - 0.81)
    np.testing.assert_allclose(component.autocovariances(values, 6)[0], expected, rtol=1e-12)


def test_stability_is_told_by_the_roots():
    rng = np.random.default_rng(0)
    ar = rng.normal(scale=0.8, size=(200, 3))
    by_roots = [np.abs(np.roots([1.0, *-own])).max() < 1.0 for own in ar]
    np.testing.assert_array_equal(is_stationary(ar), by_roots)
    assert 20 < sum(by_roots) < 180
    assert is_stationary(stable(rng.uniform(-1.0, 1.0, (50, 4)))).all()


def test_products_of_polynomials():
    rng = np.random.default_rng(0)
    one, tail = rng.normal(size=(1, 3)), rng.normal(size=(5, 2))
    expected = [np.convolve(one[0], [1.0, *own]) for own in tail]
    np.testing.assert_allclose(products(one, tail), expected, rtol=1e-12)
