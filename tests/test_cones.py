"""Structured noises with singular maxima: squares of a pattern, their faces, and fits that end where others end."""

import numpy as np
import pytest
from lgssm_cases import core_of
from scipy.optimize import minimize

import statespace_em as sse
from statespace_em.errors import UNRESOLVED
from statespace_em.patterns import from_entries, from_word
from statespace_em.sequence import lgssm_guesses
from statespace_em.sequence.cones import cone_around, is_closed, spectral
from statespace_em.sequence.lgssm_block import Block
from statespace_em.sequence.lgssm_noise import Noise

ACCURACY = 1e-6  # nats, as promised

TWICE = [["a", "c", 0, 0], ["c", "b", 0, 0], [0, 0, "a", "c"], [0, 0, "c", "b"]]  # one free block, twice
CROSSED = [["a", "c", "d", "d"], ["c", "a", "d", "d"], ["d", "d", "b", "e"], ["d", "d", "e", "b"]]
BANDED = [["a", "c", 0], ["c", "b", "c"], [0, "c", "a"]]
CLOSED = {
    "free": (from_word("free", (3, 3), "Q", symmetric=True), "free"),
    "equal": (from_word("equal", (4, 4), "Q", symmetric=True), "cone"),
    "blocks": (from_entries(TWICE, "Q", symmetric=True), "cone"),
    "crossed": (from_entries(CROSSED, "Q", symmetric=True), "cone"),
    "scaled": (from_entries([["2*a", "c"], ["c", "2*a"]], "Q", symmetric=True), "cone"),
    "weighted": (from_entries([["a", 0], [0, "3*a"]], "Q", symmetric=True), "variances"),
}


def member(pattern, rng):
    """Covariance of a pattern, positive definite."""
    values = pattern.read(np.eye(len(pattern.constant))) + 0.2 * rng.normal(size=len(pattern.names))
    cov = pattern.build(values)
    assert np.linalg.eigvalsh(cov)[0] > 0.0
    return cov


@pytest.mark.parametrize("name", CLOSED)
def test_members_are_squares_around_any_of_them(name):
    """Functions of the eigenvalues of a member, whitened by another, are members: none is left out or made up."""
    pattern, kind = CLOSED[name]
    (piece,) = Noise(pattern).closed
    assert piece.block.kind == kind
    rng = np.random.default_rng(0)
    cov, centre = member(pattern, rng), member(pattern, rng)
    cone = cone_around(pattern.design, centre)
    assert is_closed(cone)
    assert cone.size == len(pattern.names)
    np.testing.assert_allclose(cone.colour(cone.white(cov)), cov, atol=1e-13)
    values = np.linalg.eigvalsh(cone.white(cov))
    for function in (np.sqrt, np.square, lambda v: np.where(v < 0.9 * values[-1], 0.0, v)):
        made = cone.colour(spectral(cone.white(cov), function))
        np.testing.assert_allclose(pattern.build(pattern.read(made)), made, atol=1e-13)


def test_a_band_is_no_cone():
    assert Block(from_entries(BANDED, "Q", symmetric=True)).kind == "general"


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("rank", [2, 30])
def test_mode_of_a_noise_is_the_maximum(name, rank):
    """No member near the M-step's covariance has a higher likelihood; one of few residuals may be singular."""
    pattern, _ = CLOSED[name]
    noise, rng, size = Noise(pattern), np.random.default_rng(1), len(pattern.constant)
    residuals = rng.normal(size=(rank, size)) @ member(pattern, rng)
    scatter, counts = residuals.T @ residuals, np.full(size, float(rank))
    found = noise.mode(scatter, counts, member(pattern, rng), sse.priors.InverseWishart())
    np.testing.assert_allclose(pattern.build(pattern.read(found)), found, atol=1e-13)
    assert np.linalg.eigvalsh(found)[0] > -1e-12

    def value(cov):
        sign, log_det = np.linalg.slogdet(cov)
        return -rank * log_det - np.trace(np.linalg.solve(cov, scatter)) if sign > 0.0 else -np.inf

    if np.linalg.eigvalsh(found)[0] > 1e-9:
        for _ in range(20):
            assert value(pattern.build(pattern.read(found) + 0.01 * rng.normal(size=len(pattern.names)))) < value(found)


# charts

SIZE = {"free": 3, "equal": 4, "blocks": 4, "crossed": 4, "scaled": 2, "weighted": 2, "banded": 3}
WRITTEN = {
    "free": "free", "equal": "equal", "blocks": TWICE, "crossed": CROSSED, "banded": BANDED,
    "scaled": [["2*a", "c"], ["c", "2*a"]], "weighted": [["a", 0], [0, "3*a"]],
}  # fmt: skip


def walks(size, rows, rng, rank=1):
    """Random walks whose steps are of a low rank, seen with noise and gaps."""
    steps = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, size)) + 0.1
    y = np.cumsum(steps, 0) + 0.5 * rng.normal(size=(rows, size))
    y[rng.random(y.shape) < 0.2] = np.nan
    y[0] = np.nan_to_num(y[0])
    return y


@pytest.mark.parametrize(
    ("name", "singular"),
    [*((name, False) for name in SIZE), *((name, True) for name in ("free", "equal", "blocks", "crossed", "scaled"))],
)
def test_gradient_in_a_chart_is_the_slope(name, singular, monkeypatch):
    monkeypatch.setattr(lgssm_guesses, "shared_variances", lambda *args: {})  # parameters do not hang on ranking
    size, rng = SIZE[name], np.random.default_rng(2)
    y = walks(size, 15, rng)
    model = sse.LinearGaussianSSM(
        transition=np.eye(size), observation=np.eye(size), process_cov=WRITTEN[name], measurement_cov="diagonal",
        state_offset="free", initial="tied",
    )  # fmt: skip
    core, batch, start = core_of(model, y)
    point = start
    if singular:
        (piece,) = core.structure(start).noises["process_cov"].closed
        cone = piece.block.cone(start.process_cov)
        lower = spectral(cone.element(0.3 * rng.normal(size=cone.size)), lambda v: np.where(v < v.max(), 0.0, v))
        values = start._asdict() | {"process_cov": piece.block.exact(cone.colour(lower / np.trace(lower)))}
        point = core.structure(start).complete(values)
        assert core.is_singular(point, start)
    chart = core.chart(point, core.e_step(point, batch)[0], start)
    x = 0.05 * rng.normal(size=chart.size)
    there = chart.params(x)
    gradient = chart.gradient(x, there, core.e_step(there, batch)[0])
    step = 1e-5
    for i, expected in enumerate(gradient):
        ends = [core.e_step(chart.params(x + s * step * np.eye(len(x))[i]), batch)[1] for s in (1, -1)]
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected, rel=2e-6, abs=2e-6)


# fits


def outside(model, y, n_starts, seed=0):
    """Highest log-likelihood that BFGS finds in Cholesky coordinates of a free process noise, R = r**2 I."""
    core, batch, start = core_of(model, y)
    structure, rng, size = core.structure(start), np.random.default_rng(seed), y.shape[1]
    step = np.sqrt(np.nanmean(np.nanvar(np.diff(y, axis=0), axis=0)))
    low = np.tril_indices(size)

    def minus(x):
        L = np.zeros((size, size))
        L[low] = x[: len(low[0])]
        rest = x[len(low[0]) :]
        values = start._asdict() | {
            "process_cov": step**2 * L @ L.T, "measurement_cov": (step * rest[0]) ** 2 * np.eye(size),
            "state_offset": step * rest[1 : 1 + size],
        }  # fmt: skip
        if "initial_mean" in structure.names:
            values["initial_mean"] = start.initial_mean + step * rest[1 + size :]
        try:
            params = structure.complete(values)
            statistics, value = core.e_step(params, batch)
        except UNRESOLVED:
            return 1e6, np.zeros(len(x))
        g = structure.entry_gradients(statistics.gradients, params)
        slopes = [step**2 * (g["process_cov"] @ L)[low], [step**2 * rest[0] * np.trace(g["measurement_cov"])]]
        slopes += [step * g["state_offset"]] + ([step * g["initial_mean"]] if "initial_mean" in structure.names else [])
        return -value, -np.concatenate(slopes)

    ends = []
    for _ in range(n_starts):
        n_means = size if "initial_mean" in structure.names else 0
        L = np.tril(0.7 * rng.normal(size=(size, size))) + np.diag(np.exp(rng.normal(size=size)))
        x = np.concatenate([L[low], np.exp(rng.normal(size=1)), 0.3 * rng.normal(size=size + n_means)])
        ends.append(-minimize(minus, x, jac=True, method="BFGS", options={"gtol": 1e-6}).fun)
    return max(ends)


@pytest.mark.parametrize(("initial", "seed"), [("tied", 1), ("tied", 2), ("diffuse", 3)])
def test_free_noise_of_few_directions(initial, seed):
    """As counts of seals of several regions that move together: the default fit ends at the best that others find."""
    y = walks(3, 24, np.random.default_rng(seed))
    model = sse.LinearGaussianSSM(
        transition=np.eye(3), observation=np.eye(3), state_offset="free", measurement_cov="scalar", initial=initial
    )
    best = outside(model, y, 6)
    model.fit(y)
    assert model.status_ == "converged"
    assert model.score(y) > best - ACCURACY
    assert "boundary" in model.params_["process_cov"].attrs
    values = np.linalg.eigvalsh(model.params_["process_cov"].values)
    assert values[0] / values[-1] == pytest.approx(0.0, abs=1e-15)
    assert (np.diff(model.trace_["objective"]) > -1e-8).all()


def test_equal_variances_of_walks_in_step():
    """One common step: variance and covariance are equal, all differences of the series are without variance."""
    rng = np.random.default_rng(11)
    y = np.cumsum(rng.normal(size=40))[:, None] + 0.3 * rng.normal(size=(40, 3))
    model = sse.LinearGaussianSSM(
        transition=np.eye(3), observation=np.eye(3), process_cov="equal", measurement_cov="scalar", initial="diffuse"
    ).fit(y)
    assert model.converged_
    assert (model.starts_["status"] == "converged").all()
    Q = model.params_["process_cov"].values
    assert Q[0, 1] == pytest.approx(Q[0, 0], rel=1e-12)
    assert "boundary" in model.params_["process_cov"].attrs

    def minus(x):  # steps of one common walk, each series with a level of its own
        params = model.parameters(process_cov=np.full((3, 3), np.exp(x[0])), measurement_cov=np.exp(x[1]) * np.eye(3))
        return -model.score(y, params)

    assert model.score(y) > -minimize(minus, [0.0, -2.0], tol=1e-12).fun - ACCURACY
    for share in (1e-6, 1e-3):  # a covariance below the variance is worse
        params = model.params_.assign(process_cov=model.params_["process_cov"] + share * Q[0, 0] * np.eye(3))
        assert model.score(y, params) < model.score(y)


def test_blocks_in_common_that_are_singular():
    """Two animals, the same noise of two coordinates of which one follows from the other."""
    rng = np.random.default_rng(6)
    steps = rng.normal(size=(60, 2, 1)) * np.array([1.0, 2.0])
    y = np.cumsum(steps, 0).reshape(60, 4) + 0.3 * rng.normal(size=(60, 4))
    arguments = {"transition": np.eye(4), "observation": np.eye(4), "measurement_cov": "scalar", "initial": "diffuse"}
    model = sse.LinearGaussianSSM(process_cov=TWICE, **arguments).fit(y)
    assert model.converged_
    Q = model.params_["process_cov"].values
    np.testing.assert_array_equal(Q[:2, :2], Q[2:, 2:])
    assert np.linalg.eigvalsh(Q)[1] == pytest.approx(0.0, abs=1e-12)

    def minus(x):
        root = np.kron(np.eye(2), np.array([[x[0]], [x[1]]]))
        params = model.parameters(process_cov=root @ root.T, measurement_cov=np.exp(x[2]) * np.eye(4))
        return -model.score(y, params)

    assert model.score(y) > -minimize(minus, [1.0, 2.0, -2.0], tol=1e-12).fun - ACCURACY


def test_no_cone_around_nothing():
    """A covariance that is zero, and was at the start, has no coordinates left."""
    cone = cone_around(np.eye(2)[:, :, None] * np.eye(2)[:, None, :], np.zeros((2, 2)))
    assert cone.size == 0
    assert cone.white(np.zeros((2, 2))).shape == (0, 0)
    assert not cone.colour(cone.element(np.zeros(0))).any()
