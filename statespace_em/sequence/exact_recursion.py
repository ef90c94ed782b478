"""Series without noise: a line, a wave, a power follow their own past, and no variance can be told from them."""

from __future__ import annotations

import numpy as np

from statespace_em._typing import Floats
from statespace_em.data import Batch

ROWS = 1_000  # of a series that are looked at
LAGS = 12  # at most
ERROR = 1e-12  # of its largest value, that a series which follows its past exactly is off by
PRECISE = 1e-3  # of the steps of y: standard deviation of an innovation below which a fit takes it for exact


def follows_its_past(batch: Batch, lags: int) -> bool:
    """Whether every column of y is a linear recursion with so many lags and a constant, as far as arithmetic tells."""
    longest = int(np.argmax(np.diff(batch.starts)))
    begin, end = (int(row) for row in batch.starts[longest : longest + 2])
    return all(_is_exact(column, min(lags, LAGS)) for column in batch.y[begin : min(end, begin + ROWS)].T)


def _is_exact(x: Floats, lags: int) -> bool:
    if len(x) <= lags:
        return False
    columns = np.stack([x[lags - k : len(x) - k] for k in range(lags + 1)] + [np.ones(len(x) - lags)], axis=1)
    columns = columns[~np.isnan(columns).any(1)]
    if len(columns) < 3 * (lags + 2):
        return False
    found = np.linalg.lstsq(columns[:, 1:], columns[:, 0], rcond=None)[0]
    return bool(np.abs(columns[:, 0] - columns[:, 1:] @ found).max() <= ERROR * np.nanmax(np.abs(x)))


def takes_for_exact(innovation_cov: Floats, batch: Batch) -> bool:
    """Whether innovations with covariances (N, D, D; NaN where missing) are next to nothing, beside the steps of y."""
    spread = np.sqrt(np.nanmedian(np.diagonal(innovation_cov, axis1=1, axis2=2), axis=0))
    steps = np.nanstd(np.diff(batch.y, axis=0), axis=0)
    size = np.where(steps > 0.0, steps, np.nanstd(batch.y, axis=0))
    return bool((spread < PRECISE * size).any())
