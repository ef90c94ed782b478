"""Blocks of rows that fit the cache, and spans of sequences that are worth a thread."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from statespace_em._typing import Bools, Floats, Ints

ENTRIES = 24_576  # rows times states of a block, so that its arrays stay in the second-level cache
SPANS = 64  # most tasks that sequences are dealt out to
SHARE = 4  # least blocks of such a task: below, waiting for a busy core costs more than a second one gains

Density: TypeAlias = Callable[[int, int], Floats]  # first row and the one after the last -> log densities (n, K)


def first_rows(starts: Ints) -> Bools:
    """Whether each row (N,) is the first of its sequence."""
    first = np.zeros(starts[-1], bool)
    first[starts[:-1]] = True
    return first


def as_density(log_b: Floats | Density) -> Density:
    """Make log densities that are there already look like those that are made block by block."""
    return log_b if callable(log_b) else lambda begin, end: log_b[begin:end]


def row_blocks(begin: int, end: int, n_states: int, stretches: int = 1) -> list[tuple[int, int]]:
    """Cut rows into blocks; where each but the last is to be cut again, into stretches of an odd length.

    Such blocks are longer: what a stretch takes to forget its guess is done twice, and should be little of the whole.
    """
    size = max(ENTRIES // n_states, 1)
    if stretches > 1:
        size = stretches * (max(2 * size // stretches, 1) | 1)
    return [(start, min(start + size, end)) for start in range(begin, end, size)]


def sequence_spans(starts: Ints, n_states: int) -> list[tuple[int, int]]:
    """Cut rows between sequences into spans of much the same size, worth tasks of their own."""
    n_rows = int(starts[-1])
    if len(starts) == 2:
        return [(0, n_rows)]
    number = min(n_rows * n_states // (SHARE * ENTRIES), len(starts) - 1, SPANS)
    if number <= 1:
        return [(0, n_rows)]
    wanted = np.arange(1, number) * (n_rows / number)
    cuts = sorted({0, n_rows, *starts[np.searchsorted(starts, wanted)].tolist()})
    return list(pairwise(cuts))
