"""Which sequences share covariances, which go side by side, and what is worked on at a time: found once for a fit.

Covariances depend on which entries are seen, not on their values. Sequences whose missing entries agree, one being as
the beginning of the other, make a group; the longest represents it. Nothing here depends on the number of threads, so
that sums do not either.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from statespace_em._typing import Bools, Floats, Ints
from statespace_em.kernels.steady import ROWS

WHOLE = 65_536  # longest series whose filter is kept while the backward pass goes over it
ROOM = 1_600  # bytes that a row of it may take; of small models longer series are kept
SETTLING = 16  # times as long where covariances settle, as they do where nothing is missing
BLOCK = 16_384  # rows worked on at a time, of longer ones and of several sequences together
ENOUGH = 16  # sequences that are worth their steps side by side
LONGEST = 2_048  # rows of sequences that go side by side: their tiles are to stay in the cache


class Piece(NamedTuple):
    """Sequences whose means one thread works out, in the terms of `kernels.adjoint_rows` and `adjoint_lanes`."""

    begin: Ints  # (k,), first rows
    length: Ints  # (k,)
    offset: Ints  # (k,), first of their slots
    kind: Ints  # (k,), which of the section's kinds they are
    tile: Ints  # (k,)
    lane: Ints  # (k,), column of a tile, or -1: the tiles are of one sequence each
    group: Ints  # (groups + 1,), of those side by side; [0] where none are
    n_tiles: int


class Section(NamedTuple):
    """Groups that are worked on at a time, or one series that is taken block by block."""

    rows: slice | Ints  # of the representatives, end to end
    begins: Bools  # (rows,), first row of each; none, as of the next, for a long series
    times: Floats  # (rows,), sequences that each of these stands for
    pieces: tuple[Piece, ...]  # all sequences
    kinds: tuple[Piece, ...]  # one sequence for each kind, of equal group and length
    n_kinds: Floats  # (kinds,), sequences of each
    complete: bool  # no entry is missing
    long: bool = False


def plan(y: Floats, starts: Ints, *, share: bool, settles: bool | None = None, size: int = ROOM) -> tuple[Section, ...]:
    """Cut sequences into sections; without ``share`` each has covariances of its own.

    ``settles`` says that these stand still where nothing is missing, as they do (None) where they are shared, and
    ``size`` is what the filter of a row takes where they do not, in bytes.
    """
    settles = share if settles is None else settles
    length = np.diff(starts)
    complete = not np.isnan(y).any()
    short = length <= (SETTLING if complete and settles else max(1, ROOM // size)) * WHOLE
    found = [_long(int(a), int(b - a), complete) for a, b in zip(starts[:-1][~short], starts[1:][~short])]
    if not short.any():
        return tuple(found)
    own = np.flatnonzero(short)
    group = np.arange(len(own))
    if share:
        group = np.zeros(len(own), np.int64) if complete else _groups(y, starts, own)
    order = np.lexsort((own, -length[own], group))
    own, group = own[order], group[order]
    heads = np.flatnonzero(np.diff(group, prepend=-1))  # the longest of each group
    rows = np.cumsum(length[own[heads]])
    number = (rows - 1) // BLOCK
    cuts = np.append(heads[np.flatnonzero(np.diff(number, prepend=-1))], len(own))
    sections = [_section(starts, own[a:b], group[a:b], complete) for a, b in pairwise(cuts)]
    return tuple(sections + found)


def _groups(y: Floats, starts: Ints, own: Ints) -> Ints:
    """Group of each sequence, numbered by where the first of them begins."""
    if len(own) == 1:
        return np.zeros(1, np.int64)
    marks = np.packbits(np.isnan(y), axis=1)
    text = [marks[starts[i] : starts[i + 1]].tobytes() for i in own]
    order = sorted(range(len(own)), key=text.__getitem__)
    found, now = np.zeros(len(own), np.int64), order[-1]
    for i in reversed(order):  # what a text begins is sorted before it, with nothing but such between
        now = now if text[now].startswith(text[i]) else i
        found[i] = now
    first = np.full(len(own), len(own))
    np.minimum.at(first, found, np.arange(len(own)))
    return first[found]


def _long(begin: int, n_rows: int, complete: bool) -> Section:
    rows = slice(begin, begin + n_rows)
    piece = single(begin, n_rows, 0)
    return Section(rows, np.zeros(0, bool), np.zeros(0), (piece,), (piece,), np.ones(1), complete, long=True)


def _section(starts: Ints, own: Ints, group: Ints, complete: bool) -> Section:
    """Section of these sequences, ordered by their groups and within these by length."""
    length, begin = np.diff(starts)[own], starts[own]
    heads = np.flatnonzero(np.diff(group, prepend=-1))
    sizes = np.diff(np.append(heads, len(own)))
    bounds = np.concatenate([[0], np.cumsum(length[heads])])
    offset = np.repeat(bounds[:-1], sizes)
    new = np.diff(offset + length, prepend=-1) != 0
    kind = np.cumsum(new) - 1
    n_rows = int(bounds[-1])
    begun = np.bincount(bounds[:-1], weights=sizes, minlength=n_rows + 1)
    count = np.cumsum(begun - np.bincount(offset + length, minlength=n_rows + 1))[:n_rows]
    begins = np.zeros(n_rows, bool)
    begins[bounds[:-1]] = True
    rows: slice | Ints
    if (begin[heads][1:] == begin[heads][:-1] + length[heads][:-1]).all():
        rows = slice(int(begin[0]), int(begin[0]) + n_rows)
    else:
        rows = np.arange(n_rows) + np.repeat(begin[heads] - bounds[:-1], length[heads])
    kinds = np.flatnonzero(new)
    return Section(
        rows, begins, count, _pieces(begin, length, offset, kind),
        _pieces(begin[kinds], length[kinds], offset[kinds], kind[kinds]), np.bincount(kind).astype(float), complete,
    )  # fmt: skip


def _pieces(begin: Ints, length: Ints, offset: Ints, kind: Ints) -> tuple[Piece, ...]:
    heads = np.flatnonzero(np.diff(offset, prepend=-1))
    sizes = np.diff(np.append(heads, len(offset)))
    side = np.repeat((sizes >= ENOUGH) & (length[heads] <= LONGEST), sizes)
    found = []
    for chosen, together in ((np.flatnonzero(~side), False), (np.flatnonzero(side), True)):
        number = (np.cumsum(length[chosen]) - 1) // BLOCK
        if together and len(chosen):
            groups = _side_by_side(offset[chosen])
            number = number[groups[np.searchsorted(groups, np.arange(len(chosen)), side="right") - 1]]
        for a, b in pairwise(np.append(np.flatnonzero(np.diff(number, prepend=-1)), len(chosen))):
            part = chosen[a:b]
            found.append(_piece(begin[part], length[part], offset[part], kind[part], side=together))
    return tuple(found)


def _side_by_side(offset: Ints) -> Ints:
    """First of every set of at most `ROWS` sequences of one group, groups being shared out evenly."""
    heads = np.flatnonzero(np.diff(offset, prepend=-1))
    ends = np.append(heads[1:], len(offset))
    cuts = [np.linspace(a, b, -(-(b - a) // ROWS) + 1)[:-1].astype(int) for a, b in zip(heads, ends)]
    return np.concatenate(cuts)


def _piece(begin: Ints, length: Ints, offset: Ints, kind: Ints, *, side: bool) -> Piece:
    number = np.arange(len(begin))
    if side:
        group = _side_by_side(offset)
        tiles, of = length[group], np.searchsorted(group, number, side="right") - 1
        tile, lane = (np.cumsum(tiles) - tiles)[of], number - group[of]
        group = np.append(group, len(begin))
    else:
        tiles = -(-length // ROWS)
        tile, lane, group = np.cumsum(tiles) - tiles, np.full(len(begin), -1), np.zeros(1, np.int64)
    return Piece(begin, length, offset, kind, tile, lane, group, int(tiles.sum()))


def headed(piece: Piece, length: Ints) -> Piece:
    """Return the first rows of the same sequences, so many of each (k,), in tiles of their own."""
    side = len(piece.group) > 1
    return _piece(piece.begin, length, piece.offset, piece.kind, side=side)


def blocks_of(section: Section) -> list[tuple[slice, Piece]]:
    """Blocks that a long series is taken in: their rows, and these as a piece of their own."""
    assert isinstance(section.rows, slice)
    found = []
    for begin in range(section.rows.start, section.rows.stop, BLOCK):
        rows = slice(begin, min(begin + BLOCK, section.rows.stop))
        found.append((rows, single(begin, rows.stop - begin, 0)))
    return found


def single(begin: int, length: int, offset: int) -> Piece:
    """Return some rows of one sequence as a piece of their own."""
    return _piece(np.array([begin]), np.array([length]), np.array([offset]), np.zeros(1, np.int64), side=False)
