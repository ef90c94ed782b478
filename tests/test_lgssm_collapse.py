"""Constants handed over to the state after the first rows give what carrying them to the end gives."""

from __future__ import annotations

import numpy as np
import pytest

import statespace_em as sse
from statespace_em.errors import SingularInnovationError
from statespace_em.sequence import (
    lgssm_collapse,
    lgssm_diffuse,
    lgssm_filter,
    lgssm_guesses,
    lgssm_plan,
    lgssm_smoother,
    lgssm_sums,
)

designs = sse.designs


def series(n_rows, *, gaps=False, level=0.0):
    rng = np.random.default_rng(n_rows)
    time = np.arange(n_rows)
    y = rng.normal(size=n_rows).cumsum() * 0.1 + rng.normal(size=n_rows) + 0.01 * time + np.sin(time / 2.0) + level
    if gaps:
        y[rng.random(n_rows) < 0.2] = np.nan
    return y


def factors(n_rows):
    return np.random.default_rng(3).normal(size=(n_rows, 4))


CASES = {
    "monthly": (lambda n: designs.local_trend() + designs.seasonal(12), {}),
    "gaps": (lambda n: designs.local_trend() + designs.seasonal(12), {"gaps": True}),
    "far": (lambda n: designs.local_trend() + designs.seasonal(7), {"level": 1e6}),
    "dummies": (lambda n: designs.local_level() + designs.seasonal(6, kind="dummy"), {}),
    "regression": (lambda n: designs.local_level() + designs.regression(factors(n)), {"gaps": True}),
    "drifting": (lambda n: designs.local_level() + designs.regression(factors(n), drifting=True), {}),
    "polynomials": (lambda n: designs.constant_velocity(2), {}),
}


def sums_of(model, y, values, **options):
    core, tree, batch, *_ = model._prepare(y, values, freeze=())
    statistics, log_likelihood = core.e_step(tree, batch, **options)
    g = statistics.gradients
    return {
        "log_likelihood": log_likelihood, "S_ww": statistics.S_ww, "S_vv": statistics.S_vv, "S_zz": statistics.S_zz,
        "S_wz": statistics.S_wz, "S_vz": statistics.S_vz, "first_outer": statistics.first_outer, "Q": g.Q, "R": g.R,
        "A": g.A, "C": g.C, "e": g.e,
    }  # fmt: skip


def fitted(case, n_rows):
    build, options = CASES[case]
    y, model = series(n_rows, **options), build(n_rows)
    if case == "polynomials":
        y = np.column_stack([y, series(n_rows + 1)[1:]])
    return model.fit(y, max_iter=2, n_starts=1), y


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("n_rows", [100, 700, "700 by blocks"])
@pytest.mark.parametrize("case", CASES)
def test_sums_are_those_of_constants_carried_along(case, n_rows, monkeypatch):
    if n_rows == "700 by blocks":
        n_rows = 700
        for name, value in {"WHOLE": 10, "SETTLING": 1, "BLOCK": 150}.items():
            monkeypatch.setattr(lgssm_plan, name, value)
    model, y = fitted(case, n_rows)
    done = []
    monkeypatch.setattr(
        lgssm_sums, "collapsed_sums", lambda *args: done.append(lgssm_collapse.collapsed_sums(*args)) or done[-1]
    )
    found = sums_of(model, y, model.params_, moments=True)
    assert case == "polynomials" or done[-1] is not None  # those of a moving target are forgotten
    less = sums_of(model, y, model.params_)
    monkeypatch.setattr(lgssm_sums, "collapsed_sums", lambda *args: None)
    expected = sums_of(model, y, model.params_, moments=True)
    for name in ("log_likelihood", "S_ww", "S_vv", "first_outer", "Q", "R", "e"):
        np.testing.assert_allclose(less[name], found[name], rtol=1e-12, atol=1e-12 * np.abs(found[name]).max())
    for name, value in expected.items():
        scale = max(np.abs(value).max(), 1.0, CASES[case][1].get("level", 0.0))
        np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-8 * scale, err_msg=name)
    assert found["log_likelihood"] == pytest.approx(expected["log_likelihood"], abs=1e-8)


@pytest.mark.parametrize("likelihood", ["diffuse", "full", "marginal"])
def test_the_score_is_that_of_differences(likelihood):
    y = series(150, gaps=True)
    transition = np.zeros((6, 6))  # a trend, an alternation, a wave of four rows, and an autoregression
    transition[:2, :2], transition[3:5, 3:5] = [[1, 1], [0, 1]], [[0, 1], [-1, 0]]
    transition[2, 2], transition[5, 5] = -1.0, 0.9
    model = sse.LinearGaussianSSM(
        transition=transition, process_cov=np.diag([0.1, 0, 0, 0, 0, 0.2]), observation=[[1, 0, 1, 1, 0, 1]],
        measurement_cov="free", initial=["diffuse"] * 5 + ["stationary"], likelihood=likelihood,
    )  # fmt: skip
    core, tree, batch, *_ = model._prepare(y, model.parameters(measurement_cov=[[1.3]]), freeze=())
    found = core.e_step(tree, batch)[0].gradients.R[0]
    step = 1e-4 * tree.measurement_cov
    up, down = (
        core.e_step(tree._replace(measurement_cov=tree.measurement_cov + sign * step), batch)[1] for sign in (1, -1)
    )
    np.testing.assert_allclose(0.5 * found, (up - down) / (2 * step), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_what_the_head_does_not_tell_is_carried_along(monkeypatch):
    y = series(300)
    y[:60] = np.nan
    model = designs.local_trend() + designs.seasonal(12)
    model.fit(y, max_iter=2, n_starts=1)
    found = model.score(y)
    monkeypatch.setattr(lgssm_sums, "collapsed_sums", lambda *args: None)
    assert found == model.score(y)


@pytest.mark.parametrize("case", [case for case in CASES if case != "polynomials"])
@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_filters_go_on_from_what_the_first_rows_tell(case, monkeypatch):
    model, y = fitted(case, 300)
    found = model.filter(y)
    early = model.filter(y[:200])
    for name in found.data_vars:
        np.testing.assert_array_equal(found[name].values[:200], early[name].values, err_msg=name)
    cov = lgssm_filter.innovation_covariances(*model._prepare(y, model.params_)[1:3])
    monkeypatch.setattr(lgssm_diffuse, "MANY", 1000)  # rows: constants are carried to the end
    expected = model.filter(y)
    for name, values in expected.data_vars.items():
        scale = np.abs(values.values[np.isfinite(values.values)]).max()
        np.testing.assert_allclose(found[name], values, rtol=1e-7, atol=1e-9 * scale, err_msg=name)
    np.testing.assert_allclose(cov, found["innovation_cov"].values, rtol=1e-8)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_filters_of_panels_go_on_in_those_that_do_not_forget():
    build, _ = CASES["monthly"]
    panel = {"long": series(300), "short": series(90), "gappy": series(260, gaps=True)}
    model = build(0).fit(panel, max_iter=2, n_starts=1)
    found = model.filter(panel)
    for name, y in panel.items():
        alone = model.filter(y)
        for what in ("filtered", "filtered_cov", "innovation", "log_likelihood"):
            values = found[what].sel(sequence=name).values[: len(y)]
            np.testing.assert_allclose(values, alone[what].values, rtol=1e-8, atol=1e-9, err_msg=f"{name} {what}")


@pytest.mark.parametrize("row", [40, 200])
def test_errors_name_the_row_of_the_whole(row):
    noise = np.tile(np.eye(2), (300, 1, 1))
    noise[row] = 0.0  # two sensors of one level, exact at once
    model = sse.LinearGaussianSSM(
        transition=[[1]], process_cov=[[0]], observation=[[1], [1]], measurement_cov=noise, initial="diffuse"
    )
    y = np.random.default_rng(0).normal(size=(300, 2))
    with pytest.raises(SingularInnovationError, match=f"time {row} of sequence 'long'"):
        model.filter({"short": y[:30], "long": y})


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("n_rows", [200, 700])
@pytest.mark.parametrize("case", CASES)
def test_moments_are_those_of_constants_carried_along(case, n_rows, monkeypatch):
    monkeypatch.setattr(lgssm_guesses, "shared_variances", lambda *args: {})  # parameters do not hang on ranking
    model, y = fitted(case, n_rows)
    core, tree, batch, *_ = model._prepare(y, model.params_, freeze=())
    parts, done = lgssm_smoother._sequence_by_sequence, []
    monkeypatch.setattr(lgssm_smoother, "_sequence_by_sequence", lambda *args: done.append(1) or parts(*args))
    found, log_likelihood = lgssm_smoother.smooth(tree, batch)
    assert bool(done) == (case != "polynomials" and n_rows * len(lgssm_diffuse.proper_start(tree, batch).states) > 2000)
    monkeypatch.setattr(lgssm_smoother, "WORTH", np.inf)
    expected, total = lgssm_smoother.smooth(tree, batch)
    spread = np.sqrt(np.diagonal(np.asarray(expected.cov), axis1=1, axis2=2))
    level = CASES[case][1].get("level", 1.0)
    np.testing.assert_allclose((found.mean - expected.mean) / spread, 0.0, atol=1e-12 + 1e-15 * level)
    for name, later in (("cov", spread), ("cross_cov", np.roll(spread, -1, 0))):
        rows = slice(0, n_rows - 1 if name == "cross_cov" else n_rows)
        own, other = (np.asarray(getattr(each, name))[rows] for each in (found, expected))
        np.testing.assert_allclose((own - other) / (spread[rows, :, None] * later[rows, None, :]), 0.0, atol=1e-12)
    np.testing.assert_allclose(log_likelihood, total, rtol=1e-12, atol=1e-9)


@pytest.mark.filterwarnings("ignore::statespace_em.errors.ConvergenceWarning")
def test_moments_of_a_panel_whose_sequences_are_handed_over_or_not():
    rng = np.random.default_rng(4)
    y = {name: series(n_rows, gaps=True) for name, n_rows in {"a": 900, "b": 40, "c": 700}.items()}
    y["b"][:3] = np.nan
    y["c"][rng.integers(700, size=5)] = np.nan
    model = designs.local_trend() + designs.seasonal(12)
    values = model.fit(y["a"], max_iter=2, n_starts=1).params_
    together = model.e_step(y, values)
    for name, own in y.items():
        alone, rows = model.e_step(own, values), together.sel(sequence=name).isel(time=slice(len(own)))
        for variable in ("gamma", "cov", "cross_cov", "log_likelihood"):
            np.testing.assert_allclose(rows[variable], alone[variable], rtol=1e-9, atol=1e-12, err_msg=variable)
