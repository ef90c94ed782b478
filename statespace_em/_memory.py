"""Memory for large results, in large pages where the system has them."""

from __future__ import annotations

import ctypes
import math
import os

import numpy as np

from statespace_em._typing import Floats

PAGE = 1 << 21  # bytes of a large page
LEAST = 1 << 20  # bytes from which on large pages are worth it
ASKED = 1 << 22  # bytes from which on numpy asks the system for large pages
MOST_KEPT = 3 << 23  # bytes of the largest piece that is kept for the next one when it is freed
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
FIXES = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_"}


def empty(*shapes: tuple[int, ...]) -> list[Floats]:
    """Arrays of any numbers, one after the other in one piece of memory.

    The system hands out fresh memory page by page, when it is first written to. For a page of 4 KiB that takes longer
    than to compute what is written there, so large pieces begin and end where large pages do.
    """
    sizes = [math.prod(shape) for shape in shapes]
    n_bytes, begin = 8 * sum(sizes), 0
    if n_bytes < LEAST:
        room = np.empty(sum(sizes))
    else:
        room = np.empty((max(-(-n_bytes // PAGE) * PAGE + PAGE, ASKED)) // 8)
        begin = -room.ctypes.data % PAGE // 8
    parts = []
    for size, shape in zip(sizes, shapes):
        parts.append(room[begin : begin + size].reshape(shape))
        begin += size
    return parts


def keep_freed() -> None:
    """Let memory that is freed be used again, as it is in every process that has once freed something large.

    The allocator of Linux gives pieces back to the system from a size on that grows with the largest it has seen
    freed (mallopt(3), M_MMAP_THRESHOLD). In a fresh process E-steps of some thousand rows would get all their memory
    anew, page by page, which takes five times as long as the arithmetic. The piece is never written to.

    The environment can fix that size, and Dask fixes it at 64 KiB for the workers it starts, where every E-step would
    take nine times as long: there both sizes are set to what they would have grown to.
    """
    np.empty(MOST_KEPT, np.uint8)
    if not FIXES.isdisjoint(os.environ):
        allocator = ctypes.CDLL(None)
        if hasattr(allocator, "mallopt"):  # not on macOS, nor with musl
            allocator.mallopt(M_MMAP_THRESHOLD, MOST_KEPT)
            allocator.mallopt(M_TRIM_THRESHOLD, 2 * MOST_KEPT)
