"""Default fits reach the higher of two tops, also the one where states hardly have noise."""

import numpy as np
import pytest
import xarray as xr

import statespace_em as sse
from statespace_em.data import Batch
from statespace_em.patterns import from_word
from statespace_em.sequence.lgssm_random_start import random_start
from statespace_em.sequence.lgssm_start import CALM, _calmed, guessed_params, seen_by


def test_a_smooth_track_is_found_beside_one_that_follows_a_wave():
    rng = np.random.default_rng(1)
    y = np.cumsum(rng.normal(size=150)) * 0.7 + rng.normal(size=150) + 2 * np.sin(np.arange(150) * 2 * np.pi / 12)
    y[[5, 6, 50]] = np.nan
    track = xr.DataArray(y[:, None], dims=("time", "feature"), coords={"time": 2.0 * np.arange(150)})
    model = sse.designs.constant_velocity(1).fit(track)
    assert model.score(track) == pytest.approx(-304.6573866, abs=1e-6)  # the other top is at -305.4098872


@pytest.mark.parametrize(
    "trend",
    [
        sse.designs.local_trend(),
        sse.LinearGaussianSSM(
            transition=[[1, 1], [0, 1]], process_cov="diagonal", observation=[[1, 0]], initial="diffuse"
        ),
    ],
    ids=["design", "matrices"],
)
def test_a_trend_is_no_lower_than_the_smooth_one_that_it_holds(trend):
    """Of a wave: the level by itself explains it at another top, where all starts that shared evenly ended."""
    rng = np.random.default_rng(0)
    y, state = np.empty(120), np.array([2.0, 0.0])
    for t in range(120):
        y[t] = state[0]
        state = 0.98 * np.array([[np.cos(0.65), np.sin(0.65)], [-np.sin(0.65), np.cos(0.65)]]) @ state
        state += 0.2 * rng.normal(size=2)
    smooth = sse.designs.smooth_trend().fit(y)
    assert trend.fit(y).status_ == "converged"
    assert trend.score(y) >= smooth.score(y) - 1e-6


@pytest.mark.parametrize("size", [0.5, 30.0, 1e6, 1e12])
def test_dynamics_are_calmed_however_wild_their_guess_is(size):
    """A guess in another basis may have 190 on its diagonal: a stationary start refused what was left of it."""
    pattern = from_word("diagonal", (2, 2), "transition", symmetric=False)
    found = _calmed(np.diag([size, -0.3]), pattern)
    assert np.abs(np.diag(found)).max() == pytest.approx(0.5) if size == 0.5 else np.abs(found).max() < CALM


@pytest.mark.parametrize(("level", "best"), [(0.0, -109.798938), (1000.0, -109.478419)])
def test_one_free_state_may_hardly_move(level, best):
    """Noise about a curve that grows or is still: lags do not suggest it, and fits ended half a nat below."""
    y = np.random.default_rng(0).normal(size=80) + level
    model = sse.LinearGaussianSSM(1).fit(y)
    assert model.status_ == "converged"
    assert model.score(y) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(("seed", "best"), [(5, -146.990782), (10, -144.514143)])
def test_several_columns_start_from_modes_of_any_kind(seed, best):
    """Windows of noise suggest none of the modes that explain it best: fits ended a nat or two below."""
    y = np.random.default_rng(seed).normal(size=(40, 3))
    model = sse.LinearGaussianSSM(2, initial="stationary", observation_offset="free").fit(y)
    assert model.status_ == "converged"
    assert model.score(y) > best - 1e-5


@pytest.mark.parametrize("n", [1, 2, 5])
def test_modes_at_random_are_stable_and_in_units_of_y(n):
    rng, y = np.random.default_rng(n), np.random.default_rng(0).normal(size=(30, 2)) * [1e-3, 1e5]
    y[3, 0] = np.nan
    batch = Batch(y, np.array([0, 10, 30]))
    guess = guessed_params(batch, n, extra=0, offset=False, given={})
    kinds = set()
    for _ in range(50):
        start = random_start(guess, batch, rng)
        roots = np.linalg.eigvals(start.transition)
        assert np.abs(roots).max() < 1.0
        assert np.linalg.eigvalsh(start.process_cov)[0] > 0.0
        share = np.diag(start.measurement_cov) / np.nanvar(y, axis=0)
        assert 1e-4 < share.min() < share.max() < 1e2
        kinds |= {"pair" if root.imag else "real" for root in roots}
    assert kinds == ({"real"} if n == 1 else {"real", "pair"})


def test_a_top_without_measurement_noise_and_with_one_disturbance_is_converged():
    """Coordinates of two more disturbances are next to flat there: no step leads higher, and fits took 1000 of them."""
    model = sse.LinearGaussianSSM(3, initial="stationary", observation_offset="free")
    model.fit(sse.datasets.nile())
    assert model.status_ == "converged"
    assert model.score(sse.datasets.nile()) > -634.0664722 - 1e-6
    assert (model.starts_.iterations < 500).all()


def test_the_basis_that_hidden_states_start_in_has_the_units_of_those_that_are_seen():
    """It had a condition of the size of y, and fits of series in hundreds ended in its round-off."""
    own = np.random.default_rng(0).normal(size=(1, 3))
    observation = np.array([[2.0, 0.0, 1.0]])
    found = seen_by(observation, own)
    np.testing.assert_allclose(observation @ found, own)
    np.testing.assert_allclose(seen_by(observation, 1e3 * own), 1e3 * found)
    assert np.linalg.cond(found) < 10.0
    y = sse.datasets.nile()
    ends = [
        sse.LinearGaussianSSM(2, initial="stationary").fit(c * y).score(c * y) + 100.0 * np.log(c) for c in (1, 1e4)
    ]
    assert ends[1] == pytest.approx(ends[0], abs=1e-6)
