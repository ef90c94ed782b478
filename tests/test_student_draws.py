"""Student-t fits by draws: against an exact filter on a grid, quadrature over the weights and dense Gaussians."""

import numpy as np
import pandas as pd
import pytest
from oracles_gaussian import posterior
from oracles_student import log_likelihood, maximum
from scipy import stats
from test_student_errors import CASES, NU

import statespace_em as sse
from statespace_em import _threads, designs, robust
from statespace_em.errors import ConvergenceWarning, ParameterError, SingularInnovationError
from statespace_em.sequence import student_draws
from statespace_em.sequence.continuous_time import ContinuousTimeModel
from statespace_em.sequence.lgssm_smoother import smooth
from statespace_em.sequence.student import best_tail, log_densities
from statespace_em.sequence.student_copies import Problem
from statespace_em.sequence.weighted_rows import numbered


def walk(seed, n=120, q=0.5):
    rng = np.random.default_rng(seed)
    return np.sqrt(q) * rng.normal(size=n).cumsum() + rng.standard_t(4, size=n)


def values_of(found):
    return [found.model.params_[name].item() for name in ("process_cov", "measurement_cov")]


def test_the_oracle_is_the_kalman_filter_where_tails_are_normal():
    y = walk(0, 60)
    y[[0, 20]] = np.nan
    model = designs.local_level().fit(y)
    q, r = (model.params_[name].item() for name in ("process_cov", "measurement_cov"))
    assert log_likelihood(y, q, r, 1e7) == pytest.approx(model.score(y), abs=1e-5)
    assert log_likelihood(y, q, r, 4.0, reach=16.0) == pytest.approx(log_likelihood(y, q, r, 4.0), abs=1e-6)


def gross(seed):
    """One row in twenty is wrong by some ten deviations, and some are missing."""
    y, rng = walk(seed), np.random.default_rng(seed + 100)
    wrong = rng.random(len(y)) < 0.05
    y[wrong] += rng.normal(0.0, 15.0, wrong.sum())
    y[rng.random(len(y)) < 0.1] = np.nan
    return y


@pytest.mark.parametrize("make", [walk, gross])
def test_estimates_errors_and_likelihood_are_those_of_the_exact_maximum(make):
    y = make(1)
    found = robust.fit_student(designs.local_level(), y)
    bound = robust.fit_student(designs.local_level(), y, method="variational", tol=1e-3)
    exact, top, errors = maximum(y, values_of(found), 4.0)
    assert found.converged
    assert found.draws == 256
    assert (np.abs(values_of(found) - exact) < 0.2 * errors).all()  # three deviations by chance of so many draws
    assert top - log_likelihood(y, *values_of(found), 4.0) < 0.01
    assert top - log_likelihood(y, *values_of(bound), 4.0) > 0.1  # which the bound is told from
    assert found.log_likelihood == pytest.approx(top, abs=4.0 * found.log_likelihood_error)
    assert found.log_likelihood_error < 0.2
    assert found.posterior["log_likelihood"].item() == found.log_likelihood
    own = found.standard_errors(y)
    np.testing.assert_allclose([own[name].item() for name in ("level_var", "noise_var")], errors, rtol=0.12)


def test_estimated_degrees_of_freedom_are_those_of_the_exact_maximum():
    y = walk(3, 250)
    found = robust.fit_student(designs.local_level(), y, dof=None)
    exact, top, errors = maximum(y, [*values_of(found), found.dof])
    assert (np.abs([*values_of(found), found.dof] - exact) < 0.25 * errors).all()
    assert top - log_likelihood(y, *values_of(found), found.dof) < 0.03
    assert robust.fit_student(designs.local_level(), y, dof=None, method="variational").dof > 2.0 * exact[2]


def test_process_noise_has_no_bias_to_speak_of():
    """Estimates are about the exact ones, above as below; those of the bound would be a deviation or more too low."""
    off = []
    for seed in range(10, 15):
        y = walk(seed, 80, q=0.3)
        found = robust.fit_student(designs.local_level(), y, draws=64)
        exact, _, errors = maximum(y, values_of(found), 4.0)
        off.append((values_of(found)[0] - exact[0]) / errors[0])
    assert np.abs(off).max() < 0.4  # a deviation by chance is about 0.1
    assert abs(np.mean(off)) < 0.15


def test_the_same_seed_gives_the_same_answer_on_any_number_of_threads():
    y = walk(2, 60)
    one, again, other = (robust.fit_student(designs.local_level(), y, draws=16, seed=seed) for seed in (3, 3, 4))
    with _threads.limited(1):
        alone = robust.fit_student(designs.local_level(), y, draws=16, seed=3)
    assert values_of(one) == values_of(again) == values_of(alone)
    assert values_of(one) != values_of(other)
    assert one.log_likelihood == again.log_likelihood


def known():
    return sse.LinearGaussianSSM(
        ["level"], transition=[[1]], process_cov=[[1.0]], observation=[[1]], measurement_cov=[[0.5]], initial="known",
        initial_mean=[0], initial_cov=[[2.0]],
    )  # fmt: skip


def test_two_rows_against_quadrature_over_their_weights():
    """Nothing is free: likelihood, moments of the states and weights are double integrals."""
    y, nu = np.array([0.4, 5.0]), 4.0
    w = stats.gamma(nu / 2, scale=2 / nu).ppf((np.arange(300) + 0.5) / 300)
    one, two = (value.ravel() for value in np.meshgrid(w, w, indexing="ij"))
    prior = np.array([[2.0, 2.0], [2.0, 3.0]])
    seen = np.broadcast_to(prior, (len(one), 2, 2)).copy()
    seen[:, 0, 0] += 0.5 / one
    seen[:, 1, 1] += 0.5 / two
    gain = prior @ np.linalg.inv(seen)
    density = np.exp(-0.5 * (np.linalg.solve(seen, np.broadcast_to(y[:, None], (len(one), 2, 1)))[:, :, 0] @ y))
    density /= 2 * np.pi * np.sqrt(np.linalg.det(seen))
    share = density / density.sum()
    mean = gain @ y
    cov = prior - gain @ prior
    centre = share @ mean
    second = np.einsum("m,mij->ij", share, cov + mean[:, :, None] * mean[:, None, :]) - np.outer(centre, centre)
    found = robust.fit_student(known(), y, dof=nu, draws=4000)
    assert found.log_likelihood == pytest.approx(np.log(density.mean()), abs=4.0 * found.log_likelihood_error)
    assert found.log_likelihood_error < 0.02
    posterior = found.posterior
    np.testing.assert_allclose(posterior["gamma"].values[:, 0], centre, atol=0.12)
    np.testing.assert_allclose(posterior["cov"].values[:, 0, 0], np.diag(second), atol=0.2)
    assert posterior["cross_cov"].values[0, 0, 0] == pytest.approx(second[0, 1], abs=0.2)
    assert posterior["xi"].values[0, 0, 0] == pytest.approx(second[0, 1] + centre.prod(), abs=0.5)
    np.testing.assert_allclose(found.weights, [share @ one, share @ two], atol=0.05)


def problem_of(model, y, by):
    """Problem of a model, and its parameters, as a fit has them."""
    found = robust.fit_student(model, y, dof=NU, by=by, draws=16)
    inner = model._bound(y, found.model.params_, base_step=found.model._step_of(found.model.params_)) if isinstance(
        model, ContinuousTimeModel) else model  # fmt: skip
    batch, labels, _ = inner._read(y, None)
    params = (
        inner._start_on_grid(found.model.params_) if isinstance(model, ContinuousTimeModel) else found.model.params_
    )
    arrays = inner._schema().arrays(params.drop_vars("observation", errors="ignore"), partial=True)
    owner = np.arange(len(labels.features)) if by == "feature" else np.zeros(len(labels.features), int)
    return found, Problem(inner, batch, numbered(owner), tuple(arrays)), arrays


@pytest.mark.parametrize("name", CASES)
def test_copies_with_weights_are_dense_gaussians(name):
    model, y, by, words, dense = CASES[name]
    found, problem, arrays = problem_of(model, y, by)
    values = found.model.summary()["value"].droplevel([1, 2])
    p, plain = dense([values[word] for word in words]), np.asarray(y)
    weight = np.random.default_rng(0).gamma(2.0, 0.5, (3, *problem.entries.shape))
    weight[:, problem.entries.sum(1) == 0] = 1.0
    copies = problem.copies(weight)
    one = problem.copies(weight[:1])
    whole = copies.states_of(problem.spread(problem.gathered(one.core.build(arrays)), copies))
    told = smooth(whole, copies.alone)[1]
    for k in range(3):
        root = np.sqrt(weight[k])[:, problem.owner]
        oracle = posterior(plain, p._replace(R=p.R / root[:, :, None] / root[:, None, :]))
        jacobian = np.log(root)[~np.isnan(plain)].sum()
        assert told[k] + jacobian == pytest.approx(oracle.log_likelihood, abs=1e-8)
    states = np.random.default_rng(1).normal(size=(3 * len(plain), len(p.m0)))
    distance = problem.distances(copies, problem.gathered(one.core.build(arrays)), states)
    error = np.tile(plain, (3, 1)) - np.einsum(
        "tij,tj->ti", np.broadcast_to(p.C, (len(states), *p.C.shape[1:])), states
    )
    square = np.nan_to_num(error**2 / np.diagonal(np.concatenate([p.R] * (3 if len(p.R) > 1 else 1)), axis1=1, axis2=2))
    np.testing.assert_allclose(distance.sum((1, 2)), square.reshape(3, -1).sum(1), rtol=1e-10)


def test_tails_and_scales_of_residuals_against_their_density():
    rng = np.random.default_rng(5)
    residuals = 1.5 * rng.standard_t(5, size=(3, 400))
    nu, scale, gain = best_tail(np.ones(400), residuals**2, 20.0, scaled=True)
    fitted, _, spread = stats.t.fit(residuals.ravel(), floc=0.0)
    np.testing.assert_allclose([nu, scale], [fitted, spread**2], rtol=2e-3)
    before, after = (stats.t.logpdf(residuals, df, scale=s).sum() / 3 for df, s in ((20.0, 1.0), (nu, np.sqrt(scale))))
    assert gain == pytest.approx(after - before, abs=1e-8)
    held = best_tail(np.ones(400), residuals**2 / spread**2, 20.0, scaled=False)
    assert held[1] == 1.0
    assert held[0] == pytest.approx(fitted, rel=2e-3)
    assert best_tail(np.zeros(3), np.zeros((1, 3)), 7.0, scaled=True) == (7.0, 1.0, 0.0)
    pair = log_densities(4.0, np.full(1, 2.0), np.array([3.0])) - np.log(2 * np.pi)
    assert pair.item() == pytest.approx(stats.multivariate_t(shape=np.eye(2), df=4).logpdf([np.sqrt(3.0), 0.0]))


def test_a_level_that_does_not_move():
    """The maximum is at 0 or next to it; the bound's start, or a round by chance, does not hold it there."""
    y = np.random.default_rng(8).standard_t(4, size=100)
    still = robust.fit_student(designs.local_level(), y, draws=32)
    assert still.converged
    assert 0.0 <= values_of(still)[0] < 0.02
    y = walk(4, 150, q=0.02)
    found = robust.fit_student(designs.local_level(), y, draws=64)
    exact, _, errors = maximum(y, np.maximum(values_of(found), 1e-3), 4.0)
    assert (np.abs(values_of(found) - exact) < 0.4 * errors).all()


@pytest.mark.filterwarnings("ignore:the fit ended")  # few draws of few rows do not always settle
def test_sensors_panels_inputs_and_starts():
    """Every way to write a model goes through: shapes, names and a trace that says what it is."""
    rng = np.random.default_rng(9)
    times = np.cumsum(rng.uniform(0.5, 1.5, 30))
    track = np.cumsum(rng.normal(size=(30, 2)), 0)
    wide = np.hstack([track + rng.standard_t(3, size=(30, 2)), track + 2 * rng.normal(size=(30, 2))])
    wide[::3, :2] = np.nan
    frame = pd.DataFrame(wide, times)
    design = designs.constant_velocity(2, sensors={"gps": ["x", "y"], "sonar": ["x", "y"]})
    panel = {"a": frame, "b": frame.iloc[:20]}
    with pytest.warns(ConvergenceWarning, match="after 3 rounds"):
        found = robust.fit_student(design, panel, by="sensor", dof=None, draws=16, max_iter=3)
    assert not found.converged
    assert list(found.trace.columns) == ["gain", "draws"]
    assert set(found.dof) == {"gps", "sonar"}
    assert found.weights.dims == ("sequence", "time", "feature")
    np.testing.assert_array_equal(found.weights[..., 0], found.weights[..., 1])
    assert np.isnan(found.weights.sel(sequence="b").values[20:]).all()
    assert found.posterior["log_likelihood"].sizes == {"sequence": 2}
    assert found.posterior["log_likelihood"].sum().item() == pytest.approx(found.log_likelihood)
    u = np.sin(np.arange(60.0))[:, None]
    pushed = walk(5, 60) + 2.0 * np.cumsum(u) - 2.0 * u[:, 0]
    for initial in ("diffuse", "fixed", "estimated", "stationary"):
        model = sse.LinearGaussianSSM(
            ["s"], transition=[["a"]] if initial == "stationary" else [[1]], observation=[[1]], process_cov=[["q"]],
            measurement_cov=[["r"]], state_input="free", initial=initial,
        )  # fmt: skip
        driven = robust.fit_student(model, pushed, inputs=u, draws=16)
        assert driven.model.params_["state_input"].item() == pytest.approx(2.0, abs=1.0), initial
        assert set(driven.standard_errors(pushed, inputs=u)) >= {"q", "r"}


@pytest.mark.parametrize("method", ["likelihood", "variational"])
def test_rows_without_noise_do_not_converge(method):
    """Weights have nothing to multiply where a line explains every row; it was an error of a matrix."""
    with pytest.warns(ConvergenceWarning, match="a noise of the measurements runs to 0"):
        assert not robust.fit_student(designs.local_level(), np.arange(40.0), method=method, draws=16).converged


@pytest.mark.parametrize(("options", "message"), [
    ({"method": "exact"}, "method is 'exact', expected"), ({"draws": 1}, "draws is 1"), ({"seed": -1}, "seed is -1"),
    ({"draws": 2.5}, "draws is 2.5"), ({"max_iter": 0}, "max_iter is 0"), ({"tol": -1.0}, "tol is -1"),
])  # fmt: skip
def test_settings_that_cannot_be(options, message):
    with pytest.raises(ParameterError, match=message):
        robust.fit_student(designs.local_level(), walk(0, 20), **options)


def test_errors_about_rows_of_copies_name_those_of_y(monkeypatch):
    y = pd.Series(walk(3, 30), pd.date_range("2020-01-01", periods=30))

    def refused(*_):
        raise SingularInnovationError(2 * len(y) + 4)

    monkeypatch.setattr(student_draws, "simulation_smoother", refused)
    with pytest.raises(SingularInnovationError, match="the observation at time 2020-01-05"):
        robust.fit_student(designs.local_level(), y, draws=16)
