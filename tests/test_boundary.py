"""Maxima where a covariance is singular: reached, recognised, and told from a likelihood without bound."""

import warnings

import numpy as np
import pandas as pd
import pytest
from lgssm_cases import core_of
from scipy.optimize import minimize

import statespace_em as sse
from statespace_em.data import as_batch
from statespace_em.errors import ConvergenceWarning
from statespace_em.sequence import lgssm_boundary
from statespace_em.sequence.lgssm_core import LGSSMCore, LGSSMParams

ACCURACY = 1e-6  # nats, as promised


def autoregression(y):
    """Maximum of y[t] = c + a y[t-1] + e with a free first mean: its log-likelihood, a, and the variance of e."""
    x = np.column_stack([np.ones(len(y) - 1), y[:-1]])
    slope, *_ = np.linalg.lstsq(x, y[1:], rcond=None)
    variance = float(np.square(y[1:] - x @ slope).sum() / len(y))
    return -0.5 * len(y) * (np.log(2 * np.pi * variance) + 1.0), slope[1], variance


@pytest.mark.parametrize("offsets", [("observation_offset",), ("observation_offset", "state_offset")])
def test_level_without_measurement_noise_is_an_autoregression(offsets):
    """Half-hourly temperatures: the closed form of the face is the maximum, and the default fit ends on it."""
    y = sse.datasets.buoy()[:1000]
    best, slope, variance = autoregression(y.to_numpy())
    model = sse.LinearGaussianSSM(1, **dict.fromkeys(offsets, "free")).fit(y, n_starts=2)  # others are along curves
    assert model.status_ == "converged"
    assert model.score(y) == pytest.approx(best, abs=ACCURACY / 10)
    assert (model.starts_["objective"] > best - ACCURACY).all()
    p = {name: float(model.params_[name].squeeze()) for name in model.params_ if model.params_[name].size == 1}
    assert p["measurement_cov"] == 0.0
    assert p["transition"] == pytest.approx(slope, abs=1e-5)
    assert p["observation"] ** 2 * p["process_cov"] == pytest.approx(variance, rel=1e-5)
    note = model.params_["measurement_cov"].attrs["boundary"]
    assert note == "singular: the likelihood is highest without variance of temperature"
    assert "boundary" not in model.params_["process_cov"].attrs
    for share in (1e-6, 1e-4, 1e-2):  # no variance is better than any
        noisy = model.params_.copy(deep=True)
        noisy["measurement_cov"] += share * variance
        assert model.score(y, noisy) < best


def test_random_walk_of_the_buoy():
    """Daily means from a vague start: H = 0 exactly, and the variance of the steps in closed form."""
    y = sse.datasets.buoy().resample("1D").mean()
    vague = 1e9
    model = sse.LinearGaussianSSM(["level"], initial="known")
    start = model.parameters(
        transition=[[1]], observation=[[1]], process_cov=[[1.0]], measurement_cov=[[1.0]], initial_mean=[0],
        initial_cov=[[vague]],
    )  # fmt: skip
    model.fit(y, start=start, freeze=["transition", "observation"])
    steps = np.square(np.diff(y))
    variance = steps.mean()
    best = -0.5 * (
        len(steps) * (np.log(2 * np.pi * variance) + 1.0) + np.log(2 * np.pi * vague) + y.iloc[0] ** 2 / vague
    )
    assert model.converged_
    assert float(model.params_["measurement_cov"].squeeze()) == 0.0
    assert model.params_["measurement_cov"].attrs["boundary"].startswith("singular")
    assert float(model.params_["process_cov"].squeeze()) == pytest.approx(variance, rel=1e-6)
    assert model.score(y) == pytest.approx(best, abs=ACCURACY / 10)


def test_constant_level():
    """White noise around a constant: the level's own noise goes to 0, and the mean and variance of y remain."""
    rng = np.random.default_rng(4)
    y = rng.normal(size=80)
    y -= np.polyval(np.polyfit(np.arange(80), y, 1), np.arange(80))  # no trend: a drift would only fit noise
    model = sse.LinearGaussianSSM(["level"], initial="known")
    start = model.parameters(
        transition=[[1]], observation=[[1]], process_cov=[[0.3]], measurement_cov=[[1.0]], initial_mean=[0],
        initial_cov=[[1.0]],
    )  # fmt: skip
    model.fit(y, start=start, freeze=["transition", "observation", "initial_cov"])
    assert model.converged_
    assert float(model.params_["process_cov"].squeeze()) == 0.0
    assert model.params_["process_cov"].attrs["boundary"] == (
        "singular: the likelihood is highest without variance of level"
    )

    def minus(x):
        cov = np.exp(x[0]) * np.eye(80) + 1.0
        return 0.5 * (80 * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] + y @ np.linalg.solve(cov, y))

    assert model.score(y) == pytest.approx(-minimize(minus, [0.0], tol=1e-12).fun, abs=ACCURACY / 10)


def companion(x, core):
    """Every system of two states and one measurement with its noise, in a basis of its own."""
    q = np.array([[x[2], 0.0], [x[3], x[4]]])
    Q = q @ q.T
    return LGSSMParams(
        np.array([[x[0], 1.0], [x[1], 0.0]]), Q, np.array([[1.0, 0.0]]), np.array([[x[5] ** 2]]), x[6:8], Q,
        np.zeros(2), np.zeros(1),
    )  # fmt: skip


def in_companion_basis(params):
    """Coordinates of `companion` at a fit."""
    A, C = params["transition"].values, params["observation"].values
    observed = np.vstack([C, C @ A])
    a = np.linalg.solve(observed.T, (C @ A @ A).ravel())  # C A^2 = a[1] C A + a[0] C
    T = np.vstack([C, C @ A - a[1] * C])
    Q = T @ params["process_cov"].values @ T.T
    values, vectors = np.linalg.eigh(Q)
    q = np.linalg.qr((vectors * np.sqrt(np.maximum(values, 0.0))).T)[1].T
    R = float(params["measurement_cov"].squeeze())
    return np.array([a[1], a[0], q[0, 0], q[1, 0], q[1, 1], np.sqrt(R), *(T @ params["initial_mean"].values)])


def test_nile_with_two_states():
    """Singular Q: a general optimiser in another basis, from the fit and from around it, finds nothing higher."""
    y = sse.datasets.nile()
    model = sse.LinearGaussianSSM(2).fit(y)
    assert model.converged_
    assert "boundary" in model.params_["process_cov"].attrs
    core, batch = LGSSMCore(2, (), tied=True), as_batch(y)[0]

    def minus(x):
        try:
            return -core.e_step(companion(x, core), batch)[1]
        except ValueError:
            return 1e6

    at = in_companion_basis(model.params_)
    assert -minus(at) == pytest.approx(model.score(y), abs=1e-8)
    rng, scale = np.random.default_rng(0), np.maximum(np.abs(at), [0.1, 0.1, 10, 10, 10, 10, 10, 10])
    ends = []
    for size in (0.0, 0.003, 0.003, 0.01, 0.01):
        began = at + size * scale * rng.normal(size=8)
        end = minimize(lambda z: minus(z * scale), began / scale, method="L-BFGS-B", options={"maxiter": 400})
        end = minimize(lambda z: minus(z * scale), end.x, method="Nelder-Mead", options={"maxiter": 600, "fatol": 1e-9})
        ends.append(-end.fun)
    near = [end for end in ends if end < model.score(y) + 0.5]  # others have left for another maximum
    assert near
    assert max(near) <= model.score(y) + ACCURACY


@pytest.mark.parametrize("c", [1e-4, 1e5])
def test_units_do_not_matter(c):
    y = sse.datasets.buoy()[:300]
    ends = []
    for factor in (1.0, c):
        model = sse.LinearGaussianSSM(1, observation_offset="free").fit(factor * y)
        assert float(model.params_["measurement_cov"].squeeze()) == 0.0
        ends.append(model.score(factor * y) + len(y) * np.log(factor))
    assert ends[0] == pytest.approx(ends[1], abs=ACCURACY)


def rows_of_two():
    """One autoregression seen by two sensors, of which the first has no noise."""
    rng = np.random.default_rng(1)
    level = np.zeros(150)
    for t in range(1, 150):
        level[t] = 0.8 * level[t - 1] + rng.normal()
    return pd.DataFrame({"exact": level, "rough": 2.0 * level + rng.normal(size=150)})


def test_the_feature_without_noise_is_named():
    y = rows_of_two()
    model = sse.LinearGaussianSSM(["level"]).fit(y)
    assert model.converged_
    note = model.params_["measurement_cov"].attrs["boundary"]
    assert note == "singular: the likelihood is highest without variance of +0.999 exact -0.0457 rough"
    R = model.params_["measurement_cov"].values
    assert np.linalg.eigvalsh(R)[0] == pytest.approx(0.0, abs=1e-12)
    _, away = np.linalg.eigh(R)
    for share in (1e-5, 1e-3):  # no variance along it is better than any
        noisy = model.params_.assign(
            measurement_cov=model.params_["measurement_cov"] + share * np.outer(*2 * [away[:, 0]])
        )
        assert model.score(y, noisy) < model.score(y)
    start = model.params_.copy(deep=True)
    start["measurement_cov"] += 0.05 * np.eye(2)
    again = sse.LinearGaussianSSM(["level"]).fit(y, start=start.drop_vars("initial_cov", errors="ignore"))
    assert again.score(y) == pytest.approx(model.score(y), abs=ACCURACY)


def test_a_singular_start_is_kept_and_not_called_a_boundary():
    y = np.cumsum(np.cumsum(np.random.default_rng(3).normal(size=100))) + np.random.default_rng(4).normal(size=100)
    model = sse.LinearGaussianSSM(["position", "speed"], initial="known")
    start = model.parameters(
        transition=[[1, 1], [0, 1]], observation=[[1, 0]], process_cov=[[0, 0], [0, 1]], measurement_cov=[[1]],
        initial_mean=[0, 0], initial_cov=100 * np.eye(2),
    )  # fmt: skip
    model.fit(y, start=start, freeze=["transition", "observation"])
    assert model.converged_
    assert "boundary" not in model.params_["process_cov"].attrs
    np.testing.assert_allclose(model.params_["process_cov"].values[0], [0.0, 0.0], atol=1e-12)


def test_a_likelihood_without_bound_is_called_so():
    """The first row is explained exactly by a free mean while later noise enters with a delay: no bound."""
    y = np.random.default_rng(1).normal(size=40)
    model = sse.LinearGaussianSSM(2, initial="tied")
    start = model.parameters(
        transition=[[0.1, 1.0], [0.1, 0.1]], observation=[[1, 0]], process_cov=[[1e-4, 0], [0, 1.0]],
        measurement_cov=[[1e-4]], initial_mean=[y[0], 0.0],
    )  # fmt: skip
    with pytest.warns(ConvergenceWarning, match=r"without bound.*InverseWishart"):
        model.fit(y, start=start, freeze=["observation"])
    assert model.status_ == "degenerate"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior = sse.priors.InverseWishart(dof=3, scale=0.02)  # as the message says
        cured = sse.LinearGaussianSSM(2, initial="tied", measurement_prior=prior)
        cured.fit(y, start=start, freeze=["observation"])
    assert cured.converged_


# variances on their own under patterns: the score is exact on the face, and tells whether one belongs at 0

TREND = {
    "transition": [[1, 1], [0, 1]], "observation": [[1, 0]], "process_cov": [["level", 0], [0, "slope"]],
    "measurement_cov": [["noise"]], "initial": "diffuse",
}  # fmt: skip
WALKS = {
    "transition": np.eye(2), "observation": np.eye(2), "process_cov": ("q", [[2.0, 0.6], [0.6, 1.0]]),
    "measurement_cov": "diagonal", "initial": "diffuse",
}  # fmt: skip


def core_and_point(settings, y, values):
    model = sse.LinearGaussianSSM(**settings)
    core, batch, point = core_of(model, y)
    for name, variances in values.items():
        point = point._replace(**{name: core.patterns[name].build(np.array(variances))})
    return core, batch, point


@pytest.mark.parametrize("zero", ["slope", "noise", "level"])
def test_score_of_a_variance_at_zero_is_one_sided_difference(zero):
    y = sse.datasets.nile().to_numpy()[:40]
    values = {"process_cov": [900.0, 20.0], "measurement_cov": [9000.0]}
    name, place = ("measurement_cov", 0) if zero == "noise" else ("process_cov", ["level", "slope"].index(zero))
    values[name][place] = 0.0
    core, batch, point = core_and_point(TREND, y, values)
    statistics, here = core.e_step(point, batch)
    slope = 0.5 * core.structure(point).entry_gradients(statistics.gradients, point)[name][place, place]
    h, ends = 0.5 if zero != "slope" else 1e-3, []
    for factor in (1.0, 2.0):
        values[name][place] = factor * h
        ends.append(core.e_step(core_and_point(TREND, y, values)[2], batch)[1] - here)
    assert slope == pytest.approx((4.0 * ends[0] - ends[1]) / (2.0 * h), rel=1e-4)


def test_a_variance_is_not_raised_beyond_where_it_began():
    """At a top next to the face its slope is that of round-off, whose promises are of variances out of all bounds."""
    core, _, point = core_and_point(
        TREND, sse.datasets.nile().to_numpy()[:40], {"process_cov": [900.0, 1e-6], "measurement_cov": [9000.0]}
    )
    start = point._replace(process_cov=np.diag([900.0, 20.0]))

    def raised(slope):
        gradients = {"process_cov": np.diag([0.0, slope]), "measurement_cov": np.zeros((1, 1))}
        return [
            each.process_cov[1, 1] for each in lgssm_boundary.off_faces(core.structure(point), point, gradients, start)
        ]

    assert not raised(1e-9)
    np.testing.assert_allclose(raised(0.2), [10.0, 1.0, 0.1, 0.01, 0.001], rtol=1e-2)
    np.testing.assert_allclose(raised(0.02), [10.0, 1.0, 0.1, 0.01], rtol=1e-2)


@pytest.mark.parametrize("length", [40, 100])
def test_rows_predicted_exactly_are_looked_for_without_unknown_constants_first(length, monkeypatch):
    y = sse.datasets.nile().to_numpy()[:length]
    core, batch, point = core_and_point(TREND, y, {"process_cov": [900.0, 0.0], "measurement_cov": [9000.0]})
    asked, known = [], lgssm_boundary.innovation_covariances
    monkeypatch.setattr(
        lgssm_boundary, "innovation_covariances", lambda *args, **how: asked.append(how) or known(*args, **how)
    )
    assert not core.unbounded(point, batch)
    assert asked == [{"unknown": False}]
    monkeypatch.setattr(lgssm_boundary, "DOUBT", np.inf)
    assert not core.unbounded(point, batch)
    assert asked[1:] == [{"unknown": False}, {}]


@pytest.mark.parametrize("tiny", [1e-9, 1e-3])
def test_a_variance_that_does_not_belong_at_zero_leaves_it(tiny):
    """Started next to the face, where EM and ascents in logarithms stand still."""
    rng = np.random.default_rng(0)
    y = np.cumsum(rng.normal(size=150)) + rng.normal(size=150)
    model = sse.designs.local_level()
    best = model.fit(y).score(y)
    start = model.parameters(process_cov=[[tiny]], measurement_cov=[[1.0]])
    other = sse.designs.local_level().fit(y, start=start)
    assert other.score(y) == pytest.approx(best, abs=ACCURACY)


def test_variances_end_at_exactly_zero_and_are_reported():
    y = sse.datasets.nile()
    model = sse.LinearGaussianSSM(**TREND).fit(y)
    assert model.converged_
    table = model.summary()["value"]
    assert table["slope"].item() == 0.0
    assert table["level"].item() > 0.0

    def minus(x):
        params = model.parameters(process_cov=np.diag(np.exp(x[:2])), measurement_cov=[[np.exp(x[2])]])
        return -model.score(y, params)

    inside = max(-minimize(minus, [7.0, s, 9.6], method="Nelder-Mead").fun for s in (-20.0, -3.0, 2.0))
    assert model.score(y) > inside - ACCURACY
    assert "without variance of 1" in model.params_["process_cov"].attrs["boundary"]
    assert "boundary" not in model.params_["measurement_cov"].attrs
    found = model.diagnose(y)
    assert found.loc[found["check"] == "boundary", "where"].tolist() == ["slope"]
    errors = model.standard_errors(y)
    assert np.isnan(errors["process_cov"][1, 1])
    assert float(errors["process_cov"][0, 0]) > 0.0
    assert (np.diff(model.trace_["objective"]) > -1e-9).all()


def test_a_scale_of_a_known_matrix_ends_at_exactly_zero():
    rng = np.random.default_rng(1)
    y = np.array([3.0, -1.0]) + rng.normal(size=(80, 2))  # levels that do not move
    y[::7, 0] = np.nan
    model = sse.LinearGaussianSSM(**WALKS).fit(y)
    assert model.converged_
    assert model.summary().loc["q", "value"].item() == 0.0
    for share in (1e-8, 1e-4):
        moving = model.params_.copy(deep=True)
        moving["process_cov"] = moving["process_cov"] + share * np.array([[2.0, 0.6], [0.6, 1.0]])
        assert model.score(y, moving) < model.score(y)


def test_a_fixed_start_that_is_fitted_exactly_is_named():
    """A random walk without measurement noise: the fixed first state is the first row."""
    y = np.random.default_rng(0).normal(size=30).cumsum()
    model = sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], initial="fixed")
    with pytest.warns(ConvergenceWarning, match='first state that is fixed.*initial="diffuse", or a prior'):
        model.fit(y)
    assert model.status_ == "degenerate"
    assert sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], initial="diffuse").fit(y).converged_


def test_summary_lists_free_entries_only():
    y = np.random.default_rng(0).normal(size=(30, 2)).cumsum(0)
    model = sse.LinearGaussianSSM(
        transition=np.eye(2), process_cov="free", observation=np.eye(2), measurement_cov="diagonal", initial="diffuse"
    ).fit(y)
    entries = model.summary().index.tolist()
    assert entries == [("process_cov", i, j) for i in (0, 1) for j in (0, 1)] + [
        ("measurement_cov", i, i) for i in (0, 1)
    ]


def test_a_fixed_start_is_not_fitted_exactly():
    """Without noise in the first row its density has no bound: no variance is put at 0 there."""
    y = sse.datasets.nile()
    model = sse.LinearGaussianSSM(transition=[[1]], observation=[[1]], initial="fixed").fit(y)
    assert model.score(y) == pytest.approx(-637.6029320909, abs=ACCURACY)
