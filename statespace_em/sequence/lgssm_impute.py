"""Missing measurements given everything that was seen: the smoothed state, and the noise of the same row."""

from __future__ import annotations

import numpy as np
import xarray as xr

from statespace_em._typing import Floats
from statespace_em.data import Batch
from statespace_em.labels import Labels, seeing
from statespace_em.sequence.lgssm_params import LGSSMParams, by_row
from statespace_em.sequence.lgssm_passes import Smoothed


def completed(params: LGSSMParams, batch: Batch, smoothed: Smoothed) -> tuple[Floats, Floats]:
    """Mean and variance (N, D) of every entry of y given all entries seen; those seen have variance 0.

    Given the noise v_o of the entries seen in a row, that of its missing ones is N(B' v_o, R_mm - R_mo B) with
    B = inv(R_oo) R_om, whatever the state.
    """
    rows = by_row(params, batch)
    mean, variance = np.array(batch.y), np.zeros(batch.y.shape)
    for t in np.flatnonzero(np.isnan(batch.y).any(1)):
        C, d, R = (value[t if len(value) > 1 else 0] for value in (rows.C, rows.d, rows.R))
        missing = np.isnan(batch.y[t])
        seen = ~missing
        B = np.linalg.pinv(R[np.ix_(seen, seen)], hermitian=True) @ R[np.ix_(seen, missing)]
        slope = C[missing] - B.T @ C[seen]
        away = batch.y[t, seen] - d[seen]
        mean[t, missing] = d[missing] + slope @ smoothed.mean[t] + B.T @ away
        noise = R[np.ix_(missing, missing)] - R[np.ix_(missing, seen)] @ B
        variance[t, missing] = np.diag(slope @ smoothed.cov[t] @ slope.T + noise)
    return mean, variance


def imputed(mean: Floats, variance: Floats, level: float, labels: Labels) -> xr.Dataset:
    """Label them, with the interval that holds an entry with probability ``level``."""
    from scipy.special import ndtri  # here because it is slow to import, and fits do without

    half = float(ndtri(0.5 + level / 2.0)) * np.sqrt(variance)
    values = {"mean": mean, "variance": variance, "lower": mean - half, "upper": mean + half}
    rows = {name: (("feature",), value) for name, value in values.items()}
    dataset = labels.dataset(rows, {"feature": labels.features})
    return seeing(dataset, "1:T")
