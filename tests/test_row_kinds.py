"""Matrices that change a few times settle in between, and all that is worked out is what it is row by row."""

from __future__ import annotations

import lgssm_cases
import numpy as np
import pytest
import xarray as xr
from oracles_gaussian import Parameters, posterior, random_parameters

import statespace_em as sse
from statespace_em.data import Batch
from statespace_em.sequence import lgssm_params, lgssm_plan, row_kinds
from statespace_em.sequence.lgssm_expectation import e_step, planned
from statespace_em.sequence.lgssm_params import by_row
from statespace_em.sequence.lgssm_passes import Part, blank_filtered, filter_covariances, kalman_filter, smoother
from statespace_em.sequence.lgssm_sweeps import Kinds
from statespace_em.sequence.row_kinds import ALIKE, NONE, alike, few_changes

T = 700
BREAKS = {"A": [400], "Q": [150, 400, 500], "C": [300], "R": [150, 600]}


def regime(name):
    return np.searchsorted(BREAKS[name], np.arange(T), side="right")


def broken(which="AQCR", n=3, size=2) -> Parameters:
    """Parameters with breaks; Q comes back to what it was at first."""
    rng = np.random.default_rng(11)
    p = random_parameters(rng, n, size)
    factors = {"A": [1.0, 0.8], "Q": [1.0, 4.0, 1.0, 0.3], "C": [1.0, -0.7], "R": [1.0, 0.2, 2.0]}
    return p._replace(
        **{k: np.array(factors[k])[regime(k), None, None] * getattr(p, k) for k in which}, b=rng.normal(size=(T, n))
    )


def params_of(p: Parameters, diffuse=()):
    cov = p.P0.copy()
    cov[list(diffuse)] = cov[:, list(diffuse)] = 0.0
    cov[diffuse, diffuse] = np.inf
    return lgssm_cases.params_of(p)._replace(initial_cov=cov)


def batch_of(lengths=(T,), missing=0.0):
    rng = np.random.default_rng(12)
    y = rng.normal(size=(sum(lengths), 2))
    y[rng.random(y.shape) < missing] = np.nan
    return Batch(y, np.cumsum([0, *lengths]))


def row_by_row(monkeypatch):
    monkeypatch.setattr(lgssm_params, "alike", lambda *arguments: NONE)


def flat(found):
    sums, value = found
    return [np.asarray(part) for part in (*sums[:12], *sums.gradients, value) if part is not None]


def check_close(found, expected, rtol=1e-11):
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=rtol, atol=rtol * np.nanmax(np.abs(other), initial=1.0))


@pytest.mark.parametrize("missing", [0.0, 0.02])
@pytest.mark.parametrize("which", ["A", "Q", "C", "R", "QR", "AQCR"])
def test_filter_and_smoother_are_those_of_every_row_on_its_own(which, missing, monkeypatch):
    p = broken(which)
    params, batch = params_of(p), batch_of((T, 350, T), missing)
    found = *kalman_filter(params, batch, innovations=True), *smoother(params, batch)[0]
    row_by_row(monkeypatch)
    expected = *kalman_filter(params, batch, innovations=True), *smoother(params, batch)[0]
    check_close([np.asarray(each) for each in found], [np.asarray(each) for each in expected])


def test_filter_and_smoother_are_those_of_the_dense_oracle():
    p = broken(n=2, size=1).rows(slice(360, 440))  # one break, and what is before and after it settles
    batch = Batch(np.random.default_rng(3).normal(size=(80, 1)), np.array([0, 80]))
    smoothed, values = smoother(params_of(p), batch)
    dense = posterior(batch.y, p)
    np.testing.assert_allclose(values, dense.contributions, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(smoothed.mean, dense.mean, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(np.asarray(smoothed.cov), dense.cov, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(np.asarray(smoothed.cross_cov)[:-1], dense.cross_cov[:-1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("long", [False, True], ids=["whole", "block by block"])
@pytest.mark.parametrize("missing", [0.0, 0.02])
@pytest.mark.parametrize("diffuse", [(), (0, 2)], ids=["proper", "diffuse"])
@pytest.mark.parametrize("which", ["Q", "R", "AQCR"])
def test_sums_are_those_of_every_row_on_its_own(which, diffuse, missing, long, monkeypatch):
    p = broken(which)
    params, batch = params_of(p, diffuse), batch_of((T, 350), missing)
    if long:
        monkeypatch.setattr(lgssm_plan, "WHOLE", 100)
        monkeypatch.setattr(lgssm_plan, "BLOCK", 64)
        monkeypatch.setattr(lgssm_plan, "SETTLING", 1)
    kinds = Kinds((4, 3), regime("Q")[by_entry(batch)], regime("R")[by_entry(batch)], *distinct(params))
    found = [e_step(params, batch, np.zeros(2, int), kinds=own) for own in (None, kinds)]
    row_by_row(monkeypatch)
    expected = [e_step(params, batch, np.zeros(2, int), kinds=own) for own in (None, kinds)]
    for one, other in zip(found, expected):
        check_close(flat(one), flat(other))
    assert any(section.long for section in planned(params, batch).sections) is long


def by_entry(batch):
    return lgssm_params.positions(batch)


def distinct(params):
    """Noise covariances by regime."""
    rows = [np.searchsorted(regime(k), np.arange(regime(k).max() + 1)) for k in "QR"]
    covs = params.process_cov, params.measurement_cov
    return [cov[None] if cov.ndim == 2 else cov[row] for cov, row in zip(covs, rows)]


def test_few_covariances_differ():
    p = broken()
    many = 5_000
    params = params_of(p._replace(**{k: np.repeat(getattr(p, k), 20, 0)[: 14 * many] for k in "AQCR"}, b=p.b[:1]))
    y = np.random.default_rng(1).normal(size=(14_000, 2))
    batch = Batch(y, np.array([0, len(y)]))
    part = Part(y, batch.first, slice(0, len(y)), by_row(params, batch), params.initial_mean, params.initial_cov)
    gains = filter_covariances(part, blank_filtered(y, 3, innovations=False))[1]
    assert gains.slot.max() < 600  # seven regimes; without breaks there are some 70


def test_rows_are_numbered_by_what_is_around_them():
    first = np.zeros(40, bool)
    first[[0, 10]] = True
    Q = np.where(np.arange(30) < 5, 1.0, 2.0)[:, None, None]
    place = np.concatenate([np.arange(10), np.arange(30)])
    number = alike([Q], [], place, first)
    np.testing.assert_array_equal(number[:10], number[10:20])
    assert len(set(number[1:5])) == len(set(number[6:10])) == 1
    assert len({number[4], number[5], number[6]}) == 3  # row 5 has one step behind it and the other before it
    np.testing.assert_array_equal(alike([np.ones((30, 2, 2))], [np.ones((30, 1, 2))], None, first[:30]), ALIKE)
    np.testing.assert_array_equal(alike([np.arange(30.0)[:, None, None]], [], None, first[:30]), NONE)
    assert few_changes(ALIKE)
    assert not few_changes(NONE)
    assert not few_changes(np.arange(100) // 50)
    assert few_changes(np.arange(2000) // 1000)


def test_of_very_many_runs_neighbours_are_compared(monkeypatch):
    Q = np.repeat(np.arange(12) % 3, 4).astype(float)[:, None, None]
    first = np.arange(48) == 0
    few = alike([Q], [], None, first)
    monkeypatch.setattr(row_kinds, "FEW", 5)
    many = alike([Q], [], None, first)
    assert few[13] == few[1]
    assert many[13] != many[1]
    np.testing.assert_array_equal(np.diff(few[1:]) == 0, np.diff(many[1:]) == 0)


def test_a_fit_with_a_break_is_that_of_every_row_on_its_own(monkeypatch):
    rng = np.random.default_rng(2)
    late = np.arange(600) >= 300
    y = np.cumsum(rng.normal(size=600) * np.where(late, 3.0, 0.5)) + rng.normal(size=600)
    options = {"max_iter": 5, "tol": 0.0, "accelerate": False}

    def fitted():
        return sse.LinearGaussianSSM(
            transition=[[1]], process_cov=[[np.where(late, "q_late", "q_early")]], observation=[[1]],
            measurement_cov=[[np.where(late, "r_late", "r_early")]], initial="diffuse",
        ).fit(y, **options)  # fmt: skip

    model = fitted()
    row_by_row(monkeypatch)
    other = fitted()
    np.testing.assert_allclose(model.trace_, other.trace_, rtol=1e-12)


def test_uneven_steps_settle_between_gaps(monkeypatch):
    """A model in continuous time whose rows are regular but for a few gaps: sums by length of step."""
    hours = np.concatenate([np.arange(300), 310 + np.arange(200), 520 + np.arange(200)]).astype(float)
    level = np.random.default_rng(5).normal(size=len(hours)).cumsum()
    y = xr.DataArray(level[:, None], {"time": hours}, ("time", "feature"))
    options = {"max_iter": 4, "tol": 0.0, "n_starts": 1}
    model = (sse.designs.local_trend(unit="h") + sse.designs.ar(1)).fit(y, **options)
    found = model.e_step(y)
    row_by_row(monkeypatch)
    other = (sse.designs.local_trend(unit="h") + sse.designs.ar(1)).fit(y, **options)
    np.testing.assert_allclose(model.trace_, other.trace_, rtol=1e-11)
    same = other.e_step(y, model.params_)
    for name in ("gamma", "cov", "log_likelihood"):
        np.testing.assert_allclose(found[name], same[name], rtol=1e-9, atol=1e-10)
