"""Which rows a filter with a gate leaves out, in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from statespace_em.errors import DataError
from statespace_em.labels import labelled_rows
from statespace_em.sequence.filter_row import Guard, filtered_row
from statespace_em.sequence.lgssm_causal import causal
from statespace_em.sequence.lgssm_params import by_row


def left_out(model: Any, y: Any, params: xr.Dataset | None, gate: float, by: str) -> xr.DataArray:
    """Label what is outside its gate, (time) or (time, feature), each judged by what passed before it.

    Gates open once a diffuse start is determined, as those of streams do.
    """
    _, tree, batch, labels, _ = model._ready(y, params)
    if labels.sequence is not None:
        raise DataError("y has several sequences: gate them one by one.")
    guard = Guard.of(gate, by, None, np.asarray(tree.measurement_cov))
    p = by_row(tree, batch)
    outside = np.zeros(batch.y.shape, bool)
    mean, cov, begin = tree.initial_mean, tree.initial_cov, 0
    with labelled_rows(labels):
        if not (np.isfinite(cov).all() and np.isfinite(mean).all()):
            found = causal(tree, batch, model.likelihood)
            told = np.isfinite(np.asarray(found.filtered_cov)).all((1, 2))
            last = int(np.argmax(told)) if told.any() else len(batch.y) - 1
            A, b, Q = (value[last if len(value) > 1 else 0] for value in (p.A, p.b, p.Q))
            mean, cov = A @ found.filtered_mean[last] + b, A @ np.asarray(found.filtered_cov[last]) @ A.T + Q
            cov, begin = (cov + cov.T) / 2.0, last + 1
        for t in range(begin, len(batch.y)):
            row = [value[[t if len(value) > 1 else 0]] for value in (p.A, p.b, p.Q, p.C, p.d, p.R)]
            step, mean, cov = filtered_row(batch.y[t], row, mean, cov, guard, t, t)
            outside[t] = step.outside
    if by == "row":
        found = labels.dataset({"outside": ((), np.asarray(outside.any(1)))}, {})
    else:
        found = labels.dataset({"outside": (("feature",), outside)}, {"feature": labels.features})
    outside_of: xr.DataArray = found["outside"].assign_attrs(conditioning="1:t-1")
    return outside_of
