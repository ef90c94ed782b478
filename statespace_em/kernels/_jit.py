"""The only file that knows numba."""

from __future__ import annotations

import numba

jit = numba.njit(cache=True, nogil=True, error_model="numpy")

# for helpers of kernels: passing array arguments would cost more than the work
inlined = numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)

# for loops that add: the compiler may reorder the terms, and so use vectors; NaN and inf keep their meaning
sums = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
