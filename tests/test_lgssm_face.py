"""Covariances of patterns that are not closed under squaring: smooth coordinates at their boundary, and fits to it."""

import numpy as np
import pytest
from scipy.optimize import minimize

import statespace_em as sse
from statespace_em.data import as_batch
from statespace_em.errors import UNRESOLVED
from statespace_em.patterns import from_entries
from statespace_em.sequence.lgssm_block import Block
from statespace_em.sequence.lgssm_face import Face

ACCURACY = 1e-6  # nats, as promised

BAND = [["a", "b", 0], ["b", "c", "e"], [0, "e", "f"]]
EQUAL_BAND = [["a", "b", 0], ["b", "a", "b"], [0, "b", "a"]]
KNOWN = [["q", 0.1], [0.1, "2*q"]]


def face_of(entries, values):
    pattern = from_entries(entries, "Q", symmetric=True)
    assert Block(pattern).kind == "general"
    cov = pattern.build(np.array(values))
    return Face(pattern, cov), cov


@pytest.mark.parametrize(
    ("entries", "values"),
    [
        (BAND, [1.0, 0.8, 1.0, 0.5, 0.7]),
        (EQUAL_BAND, [1.0, 0.7]),
        (EQUAL_BAND, [1.0, np.sqrt(0.5)]),
        (KNOWN, [0.08]),
        (KNOWN, [np.sqrt(0.005)]),
    ],
)
def test_coordinates_are_smooth_up_to_the_face(entries, values):
    face, cov = face_of(entries, values)
    assert face.root is not None
    np.testing.assert_allclose(face.value(np.zeros(face.size)), cov, rtol=1e-9, atol=1e-9)
    rng = np.random.default_rng(0)
    G = rng.normal(size=cov.shape)
    G, step = G + G.T, 1e-5
    for x in (
        np.zeros(face.size),
        np.append(-face.root, 0.02 * rng.normal(size=face.size - 1)),
        0.02 * rng.normal(size=face.size),
    ):
        there = face.value(x)
        assert np.linalg.eigvalsh(there)[0] > -1e-14 * np.diag(there).max()
        slope = face.pull_back(x, G)
        for i, expected in enumerate(slope):
            ends = [np.sum(G * face.value(x + s * step * np.eye(face.size)[i])) for s in (1, -1)]
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    on_it = np.linalg.eigvalsh(face.value(np.append(-face.root, np.zeros(face.size - 1))))
    assert on_it[0] == pytest.approx(0.0, abs=1e-12)
    assert face.pull_back(np.append(-face.root, np.zeros(face.size - 1)), G)[0] == pytest.approx(0.0, abs=1e-12)


def test_far_from_the_face_coordinates_are_the_values():
    face, cov = face_of(EQUAL_BAND, [1.0, 0.1])
    assert face.root is None
    np.testing.assert_allclose(face.value(np.array([0.1, 0.0])), cov + 0.1 * np.eye(3), rtol=1e-14)
    with pytest.raises(np.linalg.LinAlgError):
        face.value(np.array([0.0, 1.0]))


def outside(model, y, rng, n_starts=4):
    """Highest log-likelihood that BFGS finds with R = L L', L with one diagonal below: every such band."""
    batch = as_batch(y)[0]
    core = model._core(batch=batch, given={})
    start = next(iter(core.starts(batch, 1, rng, {})))
    structure, size = core.structure(start), y.shape[1]
    unit = np.sqrt(np.diff(y, axis=0).var())
    where = [np.arange(size), np.arange(size)], [np.arange(1, size), np.arange(size - 1)]

    def minus(x):
        L = np.zeros((size, size))
        L[tuple(where[0])], L[tuple(where[1])] = x[:size], x[size : 2 * size - 1]
        roots = x[2 * size - 1 :]
        values = {"measurement_cov": unit**2 * L @ L.T, "process_cov": unit**2 * np.diag(roots**2)}
        try:
            params = structure.complete(start._asdict() | values)
            statistics, value = core.e_step(params, batch)
        except UNRESOLVED:
            return 1e6, np.zeros(len(x))
        g = structure.entry_gradients(statistics.gradients, params)
        slope = unit**2 * g["measurement_cov"] @ L
        noise = unit**2 * np.diag(g["process_cov"]) * roots
        return -value, -np.concatenate([slope[tuple(where[0])], slope[tuple(where[1])], noise])

    ends = [
        minimize(
            minus, np.exp(0.5 * rng.normal(size=3 * size - 1)), jac=True, method="BFGS", options={"gtol": 1e-6}
        ).fun
        for _ in range(n_starts)
    ]
    return -min(ends)


@pytest.mark.parametrize("seed", [2, 8, 20])
def test_singular_bands_are_found_from_every_start(seed):
    """Measurement errors of neighbours that are correlated to the limit of what a band allows."""
    rng = np.random.default_rng(seed)
    mixed = np.eye(3) + 0.9 * np.eye(3, k=1)
    y = 0.3 * rng.normal(size=(60, 3)).cumsum(0) + rng.normal(size=(60, 3)) @ mixed
    model = sse.LinearGaussianSSM(
        transition=np.eye(3), observation=np.eye(3), process_cov="diagonal", measurement_cov=BAND, initial="diffuse"
    )
    best = outside(model, y, np.random.default_rng(0))
    model.fit(y)
    assert model.status_ == "converged"
    assert model.score(y) > best - ACCURACY
    polished = model.starts_[model.starts_["status"] == "converged"]
    assert (polished["objective"] > best - ACCURACY).all()


def test_a_known_covariance_bounds_the_variances_beside_it():
    """Series that step together, with a covariance that is written: the variance ends where the matrix is singular."""
    rng = np.random.default_rng(1)
    y = 0.3 * rng.normal(size=(60, 1)).cumsum(0) * np.array([1.0, 1.4]) + rng.normal(size=(60, 2))
    model = sse.LinearGaussianSSM(
        transition=np.eye(2), observation=np.eye(2), process_cov=KNOWN, measurement_cov="diagonal", initial="diffuse"
    ).fit(y)
    assert model.status_ == "converged"
    assert model.params_["process_cov"].values[0, 0] == pytest.approx(np.sqrt(0.005), rel=1e-9)
    assert "singular" in model.params_["process_cov"].attrs["boundary"]
    at = [
        model.params_.assign(process_cov=model.params_["process_cov"] + d * np.diag([1.0, 2.0])) for d in (1e-6, 1e-3)
    ]
    assert all(model.score(y, params) < model.score(y) for params in at)
