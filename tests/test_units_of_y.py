"""Other units of y change the units of the estimates and nothing else: to round-off, whatever path the fit took."""

import numpy as np
import pytest

import statespace_em as sse
from statespace_em import designs

UNITS = {
    "process_cov": 2, "measurement_cov": 2, "initial_cov": 2, "state_offset": 1, "observation_offset": 1,
    "initial_mean": 1,
}  # fmt: skip
RNG = np.random.default_rng(0)
NILE = sse.datasets.nile().to_numpy().astype(float)
QUARTERS = 10 + 0.3 * np.cumsum(RNG.normal(size=60)) + np.tile([1, -1, 0.5, -0.5], 15) + 0.3 * RNG.normal(size=60)
WALKS = np.cumsum(RNG.normal(size=(40, 1)) * np.ones(3) + 0.1 * RNG.normal(size=(40, 3)), 0)
WALKS = WALKS + 0.3 * RNG.normal(size=(40, 3))
STEPS = np.diff(WALKS, axis=0)
TRACK = np.cumsum(np.cumsum(RNG.normal(size=60))) + RNG.normal(size=60)
SIDE = {"transition": np.eye(3), "observation": np.eye(3)}

CASES = {
    "level": (designs.local_level, NILE),
    "trend": (designs.local_trend, NILE),
    "smooth": (designs.smooth_trend, NILE),
    "seasonal": (lambda: designs.local_level() + designs.seasonal(4), QUARTERS),
    "dummy": (lambda: designs.local_trend() + designs.seasonal(4, "dummy"), QUARTERS),
    "cycle": (lambda: designs.constant() + designs.cycle(), NILE),
    "ar": (lambda: designs.ar(2) + designs.constant(), NILE),
    "arma": (lambda: designs.arma(1, 1) + designs.constant(), NILE),
    "arima": (lambda: designs.arima(0, 1, 1), NILE),
    "regression": (lambda: designs.local_level() + designs.regression(np.arange(100.0) >= 28), NILE),
    "motion": (lambda: designs.constant_velocity(1), TRACK),
    "free": (lambda: sse.LinearGaussianSSM(**SIDE, measurement_cov="scalar", initial="diffuse"), WALKS),
    "equal": (lambda: sse.LinearGaussianSSM(**SIDE, process_cov="equal", measurement_cov="scalar",
                                            initial="diffuse"), WALKS),
    "drift": (lambda: sse.LinearGaussianSSM(**SIDE, state_offset="free", measurement_cov="diagonal",
                                            process_cov="diagonal", initial="tied"), WALKS),
    "stationary": (lambda: sse.LinearGaussianSSM(transition="diagonal", observation=np.eye(3), process_cov="diagonal",
                                                 measurement_cov="scalar", initial="stationary"), STEPS),
    "loads": (lambda: sse.LinearGaussianSSM(transition=[["a", 0.3], [0, "b"]], observation=[[1, 0], [1, "c"]],
                                            process_cov="scalar", measurement_cov=[["r", "s"], ["s", "r"]],
                                            initial="stationary"), STEPS[:, :2] + STEPS[::-1, 1:]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_estimates_follow_the_units(name):
    make, y = CASES[name]
    base = make().fit(y, n_starts=2)
    assert base.converged_
    for c in (1e-6, 3.0, 1e6):
        other = make().fit(c * y, n_starts=2)
        assert other.converged_
        for word, value in base.params_.items():
            here, there = value.values, other.params_[word].values / c ** UNITS.get(word, 0)
            finite = np.isfinite(here)
            np.testing.assert_array_equal(finite, np.isfinite(there))
            scale = np.abs(here[finite]).max(initial=0.0)
            np.testing.assert_allclose(there[finite], here[finite], rtol=0.0, atol=1e-9 * scale, err_msg=word)


def test_a_free_basis_takes_up_the_units():
    """Everything free: what does not depend on the basis follows, the variances of steps and measurements."""
    base, y = sse.LinearGaussianSSM(1, observation_offset="free").fit(NILE), NILE
    for c in (1e-6, 3.0, 1e6):
        other = sse.LinearGaussianSSM(1, observation_offset="free").fit(c * y)
        a, b = base.params_, other.params_
        for left, right, power in (
            (a["transition"], b["transition"], 0), (a["measurement_cov"], b["measurement_cov"], 2),
            (a["observation"] ** 2 * a["process_cov"].values, b["observation"] ** 2 * b["process_cov"].values, 2),
        ):  # fmt: skip
            assert float(right.squeeze()) / c**power == pytest.approx(float(left.squeeze()), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-140, 1e140])
@pytest.mark.parametrize("model", [designs.local_trend(), designs.constant_velocity(1)], ids=["trend", "velocity"])
def test_units_may_be_far_from_those_of_numbers(model, scale):
    """Squares of variances and slopes have no place among numbers: likelihoods were wrong from 1e77 on."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=60).cumsum() + rng.normal(size=60)
    expected = model.fit(y).score(y) - 58 * np.log(scale)
    found = model.fit(scale * y)
    assert found.status_ == "converged"
    assert found.score(scale * y) == pytest.approx(expected, rel=1e-12)
