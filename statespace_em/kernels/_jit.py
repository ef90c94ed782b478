"""The only file that knows numba."""

from __future__ import annotations

import numba

jit = numba.njit(cache=True, nogil=True, error_model="numpy")

# for helpers of kernels: passing array arguments would cost more than the work, and so would counting the references
# to them (a quarter of the Kalman filter), so helpers allocate nothing
inlined = numba.njit(  # type: ignore[call-overload]
    cache=True, nogil=True, error_model="numpy", forceinline=True, _nrt=False
)

# for loops that add: the compiler may reorder the terms, and so use vectors; NaN and inf keep their meaning
sums = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
