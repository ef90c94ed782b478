"""Sums over pairs of rows against the moments of every pair."""

import numpy as np

from statespace_em.kernels.kalman import pair_moments
from statespace_em.kernels.pairs import pair_sums


def test_sums_are_those_of_the_moments_of_every_pair_and_none_crosses_an_end():
    rng = np.random.default_rng(0)
    mean, cross_cov = rng.standard_normal((11, 3)), rng.standard_normal((11, 3, 3))
    first = np.isin(np.arange(11), [0, 4, 5])  # the middle one has a single row
    cross_cov[[3, 4, 10]] = np.nan
    place = rng.permutation(11)  # where the matrix of each row is
    stack = cross_cov[np.argsort(place)]
    each = np.empty(cross_cov.shape)
    pair_moments(mean, stack, place, each)
    np.testing.assert_allclose(each[:-1], cross_cov[:-1] + mean[:-1, :, None] * mean[1:, None], rtol=1e-15)
    found = np.zeros((3, 3))
    for begin in range(0, 11, 4):
        pair_sums(first, mean, stack, place, begin, begin + 4, found)
    np.testing.assert_allclose(found, np.nansum(each, 0), rtol=1e-13)
