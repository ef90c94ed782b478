"""Small sums of M-steps against the rows that they stand for."""

import numpy as np

from statespace_em.kernels.moments import within_and_pooled


def test_moments_are_those_of_the_rows():
    rng = np.random.default_rng(0)
    y, gamma = 5.0 + rng.standard_normal((50, 3)), rng.dirichlet(np.ones(4), 50)
    gamma[:, 3] = 0.0
    gamma /= gamma.sum(1, keepdims=True)
    centre = rng.standard_normal((3, 4))
    away = y.T[:, None, :] - centre[:, :, None]
    weight = np.ascontiguousarray(np.broadcast_to(gamma.sum(0), (3, 4)))
    first, second = (away * gamma.T).sum(2), (away**2 * gamma.T).sum(2)
    average, within, pooled = np.empty((3, 4)), np.empty((3, 4)), np.empty(3)
    assert not within_and_pooled(weight, first, second, centre, average, within, pooled)
    for k in range(3):
        expected = np.average(y, 0, gamma[:, k])
        np.testing.assert_allclose(average[:, k], expected, rtol=1e-13)
        np.testing.assert_allclose(within[:, k], ((y - expected) ** 2 * gamma[:, [k]]).sum(0), rtol=1e-11)
    np.testing.assert_array_equal(average[:, 3], centre[:, 3])
    np.testing.assert_array_equal(within[:, 3], 0.0)
    np.testing.assert_allclose(pooled, y.var(0), rtol=1e-12)
    seen = [np.ascontiguousarray(value[:, :3]) for value in (weight, first, second, centre, average, within)]
    assert within_and_pooled(*seen, pooled)
