"""Proof that nothing before a cut knows of what comes after it."""

from __future__ import annotations

from typing import Any

import xarray as xr

from statespace_em.errors import LookAheadError
from statespace_em.labels import Labels, show


def check_nothing_moved(before: xr.Dataset, again: xr.Dataset, labels: Labels, n_rows: int, where: str) -> None:
    """Compare the first rows (of several sequences: times), and the refits that they used, bit by bit.

    Raises
    ------
    LookAheadError
        Naming the variable and the first row that differs.
    """
    n_refits, time = again.sizes["refit"], labels.time
    if labels.sequence is not None:  # one that begins later is not there without the future
        again = again.reindex({labels.sequence: before[labels.sequence]})
    for name in before.data_vars:
        lead = time if time in before[name].dims else "refit"
        size = n_rows if lead == time else n_refits
        left, right = (one[name].transpose(lead, ...).isel({lead: slice(size)}) for one in (before, again))
        moved = [i for i in range(size) if _bits(left.values[i]) != _bits(right.values[i])]
        if moved:
            raise LookAheadError(
                f"{name} of {lead} {show(left[lead].values[moved[0]])} changed when the rows after {where} did: the "
                "model uses rows that were not there at the time."
            )


def _bits(value: Any) -> Any:
    """Bytes of numbers, so that 0.0 is not -0.0; text and dates as they are."""
    kind = getattr(value, "dtype", None)
    if kind is None:  # a period, a text
        return value
    return value.tobytes() if kind.kind in "fiu" else value.tolist()
