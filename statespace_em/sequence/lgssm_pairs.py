"""Second moments of neighbouring states, from what the smoother knows of them."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np

from statespace_em import _threads
from statespace_em._typing import Bools, Floats
from statespace_em.kernels import kalman, pairs
from statespace_em.sequence.lgssm_passes import BLOCK, Smoothed, workers
from statespace_em.shared import stack_of


def pair_moments(smoothed: Smoothed) -> Floats:
    """E[s_t s_{t+1}' | y] (N, n, n), NaN at the last row of a sequence."""
    found = np.empty(smoothed.cross_cov.shape)
    distinct, place = stack_of(smoothed.cross_cov)
    cuts = np.linspace(0, len(found), workers(len(found)) + 1).astype(int)
    tasks = [
        partial(kalman.pair_moments, smoothed.mean[a : b + 1], distinct, place[a:b], found[a:b])
        for a, b in pairwise(cuts)
    ]
    _threads.run(tasks)
    return found


def pair_sums(smoothed: Smoothed, first: Bools) -> Floats:
    """Sum of E[s_t s_{t+1}' | y] (n, n) over the pairs of all sequences; the same for any number of threads."""
    begins = range(0, len(first), BLOCK)
    distinct, place = stack_of(smoothed.cross_cov)
    found = np.zeros((len(begins), *distinct.shape[1:]))
    tasks = [
        partial(pairs.pair_sums, first, smoothed.mean, distinct, place, begin, begin + BLOCK, part)
        for begin, part in zip(begins, found)
    ]
    _threads.run(tasks)
    return np.asarray(found.sum(0))
