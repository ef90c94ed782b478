"""First values of names whose factors change from row to row: those of a typical row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from statespace_em._typing import Floats
from statespace_em.row_patterns import RowPattern
from statespace_em.sequence.lgssm_loading import loaded, typical, unloaded
from statespace_em.sequence.lgssm_params import LGSSMParams
from statespace_em.sequence.lgssm_start import ROUND_OFF

FLOOR = 0.1  # share of a typical variance that a name on the diagonal starts with at least


def typical_value(pattern: RowPattern, value: Floats, loading: Floats | None) -> Floats:
    """Value in a typical row of a parameter (T, ...)."""
    inner = pattern.typical().build(pattern.read(unloaded(value, loading)))
    return inner if loading is None else loaded(inner, typical(loading))


def guessed_rows(
    rows: Mapping[str, RowPattern], guess: LGSSMParams, loadings: Mapping[str, Floats]
) -> dict[str, Floats]:
    """Parameters for every row from guesses for a typical one; variances are raised until all rows have them."""
    found = {}
    for name, pattern in rows.items():
        if getattr(guess, name) is None:  # effects of inputs, which have guesses of their own
            continue
        loading = loadings.get(name)
        about = None if loading is None else typical(loading)
        values = pattern.typical().read(unloaded(getattr(guess, name), about))
        if name.endswith("_cov"):
            values = _raised(pattern, values)
        found[name] = loaded(pattern.build(values), loading)
    return found


def _raised(pattern: RowPattern, values: Floats) -> Floats:
    """Values at which the covariances of all rows are regular, or at least have no negative eigenvalue.

    Names on the diagonal are made positive, then doubled until that is so.
    """
    variance = np.diag(pattern.typical().build(values))
    least = FLOOR * pattern.steps(np.broadcast_to(np.maximum(variance, variance.mean()), pattern.shape))
    own, singular = np.isin(pattern.names, pattern.on_diagonal), None
    for factor in 2.0 ** np.arange(20):
        tried = np.where(own, factor * np.maximum(values, least if factor > 1.0 else values), values)
        covs = pattern.build(tried)[pattern.first]
        used = np.diagonal(covs, axis1=1, axis2=2) != 0.0
        filled = np.where(used[:, :, None] | used[:, None, :], covs, np.eye(covs.shape[1]) * covs.max())
        eigenvalues = np.linalg.eigvalsh(filled)
        if (eigenvalues[:, 0] > ROUND_OFF * eigenvalues[:, -1]).all():
            return tried
        if singular is None and (eigenvalues[:, 0] >= -ROUND_OFF * eigenvalues[:, -1]).all():
            singular = tried
    return values if singular is None else singular
