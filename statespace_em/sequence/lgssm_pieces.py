"""Pieces of a long series that can be passed over side by side, since a settled filter forgets.

Of what a pass is begun with, L^h is left after h rows of one gain, the filter following x[t + 1] = L x[t] + c[t]. A
pass that begins that many rows before a piece, with any state at all, comes to it with the same numbers. Cuts of a
sequence depend on its own rows, not on the number of threads, and not on the sequences beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints

PIECE = 16_384  # rows
FARTHEST = 3 * PIECE // 16  # rows to begin before: done twice
GONE = 2.0**-96  # of a standard deviation that is left: nothing is of a row 1e15 of them away that came just before


class Piece(NamedTuple):
    """Rows ``begin`` to ``end`` - 1, and how many rows before or after them a pass begins; 0 at the ends of it all."""

    begin: int
    end: int
    lead: int


def pieces(slot: Ints, first: Bools, memory: Callable[[int], int], *, forward: bool) -> list[Piece]:
    """Cut rows where they have settled, into pieces to be passed over ``forward`` or backward.

    ``first`` (N,) marks where sequences begin, which a piece may go on over. ``memory`` tells how many rows a state is
    remembered under the gain of a row, 0 where that is too many.
    """
    n_rows, cuts, leads = len(slot), [0], [0]
    remembered: dict[int, int] = {}
    for cut in _candidates(first):
        gain = int(slot[cut])
        if slot[cut - 1] != gain:
            continue
        if gain not in remembered:
            remembered[gain] = memory(cut)
        lead = remembered[gain]
        rows = slice(cut - lead - 1, cut + 1) if forward else slice(cut - 1, cut + lead + 1)
        inside = lead > 0 and rows.start >= 0 and rows.stop <= n_rows
        if inside and (slot[rows] == gain).all() and not first[rows].any():
            cuts.append(cut)
            leads.append(lead)
    ends = [*cuts[1:], n_rows]
    return [Piece(*piece) for piece in zip(cuts, ends, leads if forward else [*leads[1:], 0])]


def _candidates(first: Bools) -> Iterator[int]:
    """Rows at every `PIECE` of a sequence."""
    bounds = np.unique([0, *np.flatnonzero(first), len(first)])
    for i in np.flatnonzero(np.diff(bounds) > PIECE):
        yield from range(int(bounds[i]) + PIECE, int(bounds[i + 1]), PIECE)


def rows_remembered(L: Floats, cov: Floats) -> int:
    """Rows after which nothing is left of a state that is multiplied by L, in standard deviations; 0: too many."""
    deviation = np.sqrt(np.diag(cov))
    deviation = np.where(deviation > 0.0, deviation, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):  # of a state without noise that grows
        powers = [L * deviation / deviation[:, None]]  # of 1, 2, 4, 8, ... rows
        while not _is_gone(powers[-1]):
            if 2 ** (len(powers) - 1) >= FARTHEST:
                return 0
            powers.append(powers[-1] @ powers[-1])
    left, n_rows = np.eye(len(L)), 0  # the most rows that leave something
    for i in reversed(range(len(powers) - 1)):
        longer = left @ powers[i]
        if not _is_gone(longer):
            left, n_rows = longer, n_rows + 2**i
    return n_rows + 1 if n_rows < FARTHEST else 0


def _is_gone(left: Floats) -> bool:
    return bool(np.abs(left).max() <= GONE)
