"""Data far from 0: a fit ends where it ends for the same data at 0, with states and offsets moved by hand."""

import numpy as np
import pytest

import statespace_em as sse
from statespace_em.sequence.lgssm_shift import FAR

LEVELS = (2.0**12, 2.0**40)  # steps of y have a standard deviation of about 1; y + level is exact
AROUND = {"process_cov": "free", "observation": [[1]], "measurement_cov": "free"}


def series(n: int, phi: float, seed: int) -> np.ndarray:
    """Autoregression with noise, in eighths."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=n)
    for t in range(1, n):
        found[t] += phi * found[t - 1]
    return np.round(8.0 * (found + rng.normal(size=n) / 2.0)) / 8.0


Y, WALK = series(80, 0.7, 1), np.round(8.0 * np.cumsum(series(60, 0.0, 2))) / 8.0
DESIGNS = sse.designs
CASES = {
    "offset of states": (lambda: sse.LinearGaussianSSM(["x"], **AROUND, state_offset="free", initial="stationary"), Y),
    "offset, diffuse": (lambda: sse.LinearGaussianSSM(["x"], **AROUND, state_offset="free", initial="diffuse"), Y),
    "offset of y": (lambda: sse.LinearGaussianSSM(["x"], **AROUND, observation_offset="free"), Y),
    "free loading": (
        lambda: sse.LinearGaussianSSM(1, process_cov=[[1]], state_offset="free", initial="stationary"), Y,
    ),
    "two states": (
        lambda: sse.LinearGaussianSSM(
            transition=[["a", "b"], [1, 0]], process_cov=[["q", 0], [0, 0]], observation=[[1, 0]],
            measurement_cov="free", state_offset=["c", 0], initial="stationary",
        ), Y,
    ),
    "local level": (lambda: DESIGNS.local_level(), WALK),
    "trend": (lambda: DESIGNS.local_trend(), np.cumsum(WALK) / 8.0),
    "level and ar": (lambda: DESIGNS.local_level() + DESIGNS.ar(1), 4.0 * series(60, -0.8, 7) + WALK),
    "arima": (lambda: DESIGNS.arima(1, 1, 1), WALK),
    "constant and arma": (lambda: DESIGNS.constant() + DESIGNS.arma(1, 1), Y),
    "seasonal": (lambda: DESIGNS.local_level() + DESIGNS.seasonal(4), WALK + np.resize([1.0, 0.0, -1.0, 2.0], 60)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_fits_end_where_they_end_at_0(case):
    made, y = CASES[case]
    here = made().fit(y)
    assert here.converged_
    for level in LEVELS:
        there = made().fit(y + level)
        assert there.status_ == "converged"
        assert there.trace_.objective.iloc[-1] == pytest.approx(here.trace_.objective.iloc[-1], abs=1e-8)
        resolved = level * 2.0**-52 * len(y)  # what rounding of given parameters does
        assert there.score(y + level) == pytest.approx(here.score(y), abs=max(1e-8, resolved))
        moved = {"state_offset", "observation_offset", "initial_mean"}
        for name in set(here.params_.data_vars) - moved:
            np.testing.assert_allclose(there.params_[name], here.params_[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_offset_that_comes_back_is_that_of_the_level():
    level, (made, y) = 2.0**30, CASES["offset of states"]
    here, there = made().fit(y), made().fit(y + level)
    phi = float(there.params_.transition[0, 0])
    assert float(there.params_.state_offset[0]) == pytest.approx(
        float(here.params_.state_offset[0]) + (1.0 - phi) * level, rel=1e-12
    )
    assert float(there.params_.initial_mean[0]) - level == pytest.approx(float(here.params_.initial_mean[0]), abs=1e-4)
    b, b_far = (float(m.standard_errors(own).state_offset[0]) for m, own in ((here, y), (there, y + level)))
    spread = float(there.standard_errors(y + level).transition[0, 0])
    assert b_far == pytest.approx(level * spread, rel=1e-6)  # (1 - phi) level, less by b what is next to nothing
    assert b < 1.0


@pytest.mark.parametrize(
    "case", ["offset of states", "constant and arma", "offset, diffuse", "free loading", "level and ar"]
)
def test_standard_errors_far_from_0(case):
    made, y = CASES[case]
    level = 2.0**30
    here, there = made().fit(y).standard_errors(y), made().fit(y + level).standard_errors(y + level)
    for name in set(here.data_vars) - {"state_offset", "initial_mean"}:
        np.testing.assert_allclose(there[name], here[name], rtol=1e-3, err_msg=name)
    if case != "free loading":  # whose states are where loadings put them
        np.testing.assert_allclose(there.initial_mean, here.initial_mean, rtol=1e-3)


def test_the_score_at_a_level_is_that_of_exact_arithmetic():
    mpmath = pytest.importorskip("mpmath")
    made, y = CASES["offset of states"]
    y = y[:12] + 1e9
    model = made().fit(y)
    A, b, Q, R = (float(np.ravel(model.params_[n])[0])
                  for n in ("transition", "state_offset", "process_cov", "measurement_cov"))  # fmt: skip
    with mpmath.workdps(60):
        A, b, Q, R = map(mpmath.mpf, (A, b, Q, R))
        cov = mpmath.matrix(12, 12)
        for i in range(12):
            for j in range(12):
                cov[i, j] = Q / (1 - A**2) * A ** abs(i - j) + (R if i == j else 0)
        away = mpmath.matrix([mpmath.mpf(float(value)) - b / (1 - A) for value in y])
        exact = -(12 * mpmath.log(2 * mpmath.pi) + mpmath.log(mpmath.det(cov)) + (away.T * cov**-1 * away)[0]) / 2
    assert model.score(y) == pytest.approx(float(exact), abs=1e-5)
    assert model.trace_.objective.iloc[-1] == pytest.approx(float(exact), abs=1e-5)


def test_starts_and_frozen_values_are_those_of_y_as_it_is():
    made, y = CASES["offset of states"]
    level = 2.0**30
    first = made().fit(y + level)
    again = made().fit(y + level, start=first.params_)
    assert again.score(y + level) == pytest.approx(first.score(y + level), abs=1e-5)
    assert len(again.trace_) < len(first.trace_)
    part = made().fit(y + level, start=first.params_[["state_offset", "process_cov"]])
    assert part.trace_.objective.iloc[-1] == pytest.approx(first.trace_.objective.iloc[-1], abs=1e-8)
    known = made().fit(y + level, start=first.params_[["transition"]], freeze=["transition"])
    assert float(known.params_.transition[0, 0]) == float(first.params_.transition[0, 0])
    assert known.trace_.objective.iloc[-1] == pytest.approx(first.trace_.objective.iloc[-1], abs=1e-8)


def test_columns_that_follow_move_and_others_stay():
    rng = np.random.default_rng(3)
    y = np.round(8.0 * np.column_stack([series(60, 0.8, 4) + 2.0**30, series(60, 0.5, 5)])) / 8.0
    y[rng.integers(60, size=5), 0] = np.nan
    pieces = {"process_cov": "free", "measurement_cov": "diagonal", "observation": np.eye(2)}
    model = sse.LinearGaussianSSM(2, **pieces, observation_offset=["c", 0])
    far, near = model.fit(y).score(y), model.fit(y - [2.0**30, 0.0]).score(y - [2.0**30, 0.0])
    assert far == pytest.approx(near, abs=1e-5)
    shift = model._core(batch=sse.data.as_batch(y)[0], given={}).shift
    assert shift.middle[1] == 0.0
    assert abs(shift.middle[0] - 2.0**30) < 10.0


@pytest.mark.parametrize(
    "pieces",
    [
        {"transition": "free", "initial": "stationary"},  # about 0
        {"transition": [[0.9]], "initial": "diffuse"},
        {"transition": [[1]], "initial": "known", "initial_mean": [0], "initial_cov": [[1]]},
        {"transition": "free", "state_offset": [1.0], "initial": "diffuse"},
    ],
)
def test_models_that_do_not_follow_stay(pieces):
    model = sse.LinearGaussianSSM(["x"], **{**AROUND, **pieces})
    assert model._core(batch=sse.data.as_batch(Y + 1e6)[0], given={}).shift is None


def test_near_0_nothing_moves():
    made, y = CASES["offset of states"]
    model, steps = made(), np.std(np.diff(y))
    near, far = (y - np.median(y) + share * FAR * steps for share in (0.99, 1.01))
    assert model._core(batch=sse.data.as_batch(near)[0], given={}).shift is None
    assert model._core(batch=sse.data.as_batch(far)[0], given={}).shift is not None


def test_a_prior_on_offsets_keeps_data_where_they_are():
    prior = sse.priors.MatrixNormal(precision=(0.0, 1.0))
    model = sse.LinearGaussianSSM(["x"], **AROUND, state_offset="free", initial="diffuse", transition_prior=prior)
    assert model._core(batch=sse.data.as_batch(Y + 1e6)[0], given={}).shift is None
    model = sse.LinearGaussianSSM(["x"], **AROUND, state_offset="free", initial="diffuse")
    assert model._core(batch=sse.data.as_batch(Y + 1e6)[0], given={}).shift is not None


def test_a_track_in_millimetres_of_a_grid():
    rng = np.random.default_rng(6)
    track = (
        np.round(8.0 * (np.cumsum(np.cumsum(rng.normal(size=(60, 2)), 0), 0) + 3.0 * rng.normal(size=(60, 2)))) / 8.0
    )
    model = DESIGNS.constant_velocity(2)
    near, far = model.fit(track).summary().value, model.fit(track + np.array([2.0**40, 2.0**39])).summary().value
    np.testing.assert_allclose(far, near, rtol=1e-5)


def test_a_drifting_coefficient_beside_a_level():
    X = np.sin(np.arange(60.0))
    model = DESIGNS.local_level() + DESIGNS.regression(X, drifting=True)
    here, there = model.fit(WALK + X).summary().value, model.fit(WALK + X + 2.0**30).summary().value
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-8)
