"""Tops of Whittle's likelihood, and the default fits of free states that start there."""

import numpy as np
import pytest
from scipy.optimize import minimize

import statespace_em as sse
from statespace_em.sequence.spectral_start import in_place_of, spectral_starts
from statespace_em.sequence.whittle import whittle_tops


def arma(ar, ma, n, seed, noise=0.0):
    rng = np.random.default_rng(seed)
    shocks = rng.normal(size=n + 200)
    driven = np.convolve(shocks, np.append(1.0, ma))[: len(shocks)]
    y = np.zeros(len(shocks))
    for t in range(len(y)):
        y[t] = driven[t] + sum(a * y[t - k - 1] for k, a in enumerate(ar) if t > k)
    return y[200:] + noise * rng.normal(size=n)


def spectrum(top, angle):
    a = 1.0 - np.exp(-1j * np.outer(angle, np.arange(1, len(top.ar) + 1))) @ top.ar
    g = np.exp(-1j * np.outer(angle, np.arange(len(top.ma)))) @ top.ma
    return np.abs(g / a) ** 2 + top.noise


def test_a_top_is_a_maximum_of_whittles_likelihood():
    """By an optimizer that knows nothing of the scoring, from the top that was found and from elsewhere."""
    y = arma([1.2, -0.6], [0.4], 300, 1)
    x = y - y.mean()
    taper = np.hanning(len(x) + 2)[1:-1]
    x = (x - np.sum(x * taper) / taper.sum()) * taper / np.linalg.norm(taper)
    power = np.abs(np.fft.rfft(x)[1:]) ** 2
    z = np.exp(-2j * np.pi * np.outer(np.arange(1, len(power) + 1), np.arange(3)) / len(x))

    def misfit(v):
        total = np.abs(z[:, :2] @ v[2:4]) ** 2 / np.abs(1.0 - z[:, 1:] @ v[:2]) ** 2
        return np.mean(np.log(total) + power / total)

    top = whittle_tops(y, 2, 1, 1, noise=False, rng=np.random.default_rng(0))[0]
    ends = [minimize(misfit, v, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}).fun
            for v in ([*top.ar, *top.ma], [0.5, -0.3, 1.0, 0.0])]  # fmt: skip
    assert misfit(np.array([*top.ar, *top.ma])) == pytest.approx(min(ends), abs=1e-5)


@pytest.mark.parametrize("noise", [False, True])
def test_the_best_top_is_near_the_truth(noise):
    y = arma([0.5, 0.3], [0.5], 4_000, 2, noise=1.5 * noise)
    top = whittle_tops(y, 2, 1, 3, noise=noise, rng=np.random.default_rng(0))[0]
    angle = np.linspace(0.2, 3.0, 9)
    truth = np.abs((1 + 0.5 * np.exp(-1j * angle)) / (1 - 0.5 * np.exp(-1j * angle) - 0.3 * np.exp(-2j * angle))) ** 2
    np.testing.assert_allclose(spectrum(top, angle), truth + 2.25 * noise, rtol=0.35)


def test_tops_are_stable_and_scale_with_y():
    y = arma([1.2, -0.6], [0.4], 300, 3)
    tops, larger = (whittle_tops(c * y, 3, 2, 4, noise=True, rng=np.random.default_rng(0)) for c in (1.0, 1e3))
    assert len(tops) == len(larger) >= 1
    for top in tops:
        assert np.abs(np.roots(np.append(1.0, -top.ar))).max() < 1.0
    angle = np.linspace(0.1, 3.0, 9)
    np.testing.assert_allclose(1e6 * spectrum(tops[0], angle), spectrum(larger[0], angle), rtol=1e-3)


@pytest.mark.parametrize("y", [np.arange(5.0), np.full(50, 3.0)], ids=["short", "constant"])
def test_what_tells_nothing_gives_no_tops(y):
    assert whittle_tops(y, 2, 1, 3, noise=True, rng=np.random.default_rng(0)) == []


@pytest.mark.parametrize("level", [0.0, 50.0])
def test_a_start_in_the_basis_of_a_model_has_the_spectrum_of_its_top(level):
    y = level + arma([0.9, -0.4], [], 200, 4, noise=0.5)
    model = sse.LinearGaussianSSM(3, observation=[[1.0, 0.5, -0.2]], initial="stationary")
    batch = model._read(y, None)[0]
    guess = next(iter(model._core(batch=batch, given={}).starts(batch, 1, np.random.default_rng(0), {})))
    starts = spectral_starts(batch, 3, np.random.default_rng(0), centred=False)
    assert any(abs((start.observation @ start.initial_mean).item()) > 10.0 for start in starts) == (level > 10.0)
    angle = np.linspace(0.1, 3.0, 7)

    def power(p):
        ways = [(p.observation @ np.linalg.inv(np.exp(1j * w) * np.eye(3) - p.transition))[0] for w in angle]
        return [np.real(way @ p.process_cov @ way.conj()) + p.measurement_cov.item() for way in ways]

    for start in starts:
        moved = in_place_of(guess, start, {"observation"})
        assert np.array_equal(moved.observation, guess.observation)
        np.testing.assert_allclose(power(moved), power(start), rtol=1e-8)


def test_three_free_states_of_the_nile_end_at_the_best_top_that_is_known():
    flow = sse.datasets.nile()
    model = sse.LinearGaussianSSM(
        3, observation=[[1, 0, 0]], observation_offset="free", initial="stationary"
    ).fit(flow)  # fmt: skip
    assert model.status_ == "converged"
    assert model.score(flow) == pytest.approx(-634.0664726, abs=1e-6)  # by principal directions alone: 635.9404 below 0
