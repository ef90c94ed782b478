"""Anderson mixing: beside numpy's least squares, and on maps whose fixed point is known."""

import numpy as np
import pytest

from statespace_em.kernels import mixing
from statespace_em.kernels._jit import sums
from statespace_em.mixing import CUT, LEAP, MEMORY, Anderson

least_squares = sums(mixing.least_squares.py_func)


def problem(kind, seed):
    """Columns (n, p) of unit length and a target (p,)."""
    rng = np.random.default_rng(seed)
    n, p = rng.integers(1, 8), rng.integers(1, 30)
    columns = rng.normal(size=(n, p))
    if kind == "repeated":
        columns[-1] = columns[0]
    if kind == "graded":
        columns = columns @ np.diag(10.0 ** -rng.uniform(0, 6, p))
    if kind == "empty":
        columns[n // 2] = 0.0
    if kind == "nearly":
        columns[-1] = columns[0] + 1e-13 * rng.normal(size=p)
    size = np.linalg.norm(columns, axis=1, keepdims=True)
    return columns / np.where(size > 0.0, size, 1.0), rng.normal(size=p)


@pytest.mark.parametrize("kind", ["plain", "repeated", "graded", "empty", "nearly"])
@pytest.mark.parametrize("seed", range(8))
def test_the_shortest_minimiser_is_numpys(kind, seed):
    columns, target = problem(kind, seed)
    expected, _, _, singular = np.linalg.lstsq(columns.T, target, rcond=CUT)
    kept = singular[singular > CUT * singular[0]]
    tolerance = 1e-13 * kept[0] / kept[-1]
    mix = np.empty(len(columns))
    least_squares(columns.copy(), target, CUT, mix)
    np.testing.assert_allclose(mix, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def numpys_proposal(points, images):
    """Type-II Anderson mixing, or the leap ahead, from all that is remembered, by numpy."""
    residuals = [image - x for x, image in zip(points, images)]
    steps, changes = np.diff(points, axis=0)[-MEMORY:].T, np.diff(residuals, axis=0)[-MEMORY:].T
    size = np.linalg.norm(changes, axis=0)
    mix = np.linalg.lstsq(changes / size, residuals[-1], rcond=CUT)[0]
    leap = -(steps + changes) @ (mix / size)
    if (residuals[-1] + leap) @ residuals[-1] < 0.0:
        leap = residuals[-1] * np.linalg.norm(steps[:, -1]) / size[-1]
    return images[-1] + leap * min(1.0, LEAP / np.abs(leap).max())


def test_proposals_are_those_of_the_definition_and_find_a_fixed_point():
    tolerance = 1e-9
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    slope = turn @ np.diag(np.linspace(0.1, 0.8, 12)) @ turn.T
    home = rng.normal(size=12)
    mixer, points, images = Anderson(), [np.zeros(12)], []
    while len(points) < 36:  # more than are remembered
        x = points[-1]
        images.append(home + slope @ (x - home) + 0.01 * np.sin(x - home))
        found = mixer.propose(x, images[-1])
        if found is not None and len(points) < 14:  # later steps are next to round-off
            expected = numpys_proposal(points, images)
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
        points.append(images[-1] if found is None else found)
    np.testing.assert_allclose(points[-1], home, rtol=1e-6, atol=1e-6)


def test_leaps_are_short():
    mixer, x = Anderson(), np.array([0.0, 0.0])
    home = np.array([100.0, 50.0])
    for _ in range(2):
        image = x + 0.1 * (home - x)
        found, x = mixer.propose(x, image), image
    np.testing.assert_allclose(np.abs(found - image).max(), LEAP, rtol=1e-12)
    np.testing.assert_allclose((found - image)[1] / (found - image)[0], 0.5, rtol=1e-12)


def test_what_is_not_finite_is_not_proposed():
    mixer, x = Anderson(), np.array([1.0])
    assert mixer.propose(x, np.array([2.0])) is None
    assert mixer.propose(np.array([2.0]), np.array([np.inf])) is None


def test_after_a_reset_a_map_is_seen_for_the_first_time():
    one, other = Anderson(), Anderson()
    for t in range(4):
        one.propose(np.array([float(t), 1.0]), np.array([1.0, float(t)]))
    one.reset()
    for mixer in (one, other):
        assert mixer.propose(np.array([0.1, 0.2]), np.array([0.2, 0.3])) is None
    x, image = np.array([0.2, 0.3]), np.array([0.25, 0.33])
    np.testing.assert_array_equal(one.propose(x, image), other.propose(x, image))
