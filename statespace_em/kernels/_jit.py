"""The only file that knows numba, but for the vectors of `_lanes`."""

from __future__ import annotations

import logging
import time

import numba
from numba.core import event

# kernels: functions that Python calls
jit = numba.njit(cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True)  # type: ignore[call-overload]

# for parts of kernels that only kernels call: what Python would call them through, which takes a good part of the time
# of compilation where there are many arguments, is not made. To call one from Python ends the process.
part = numba.njit(  # type: ignore[call-overload]
    cache=True, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)

# for parts that allocate nothing and are called often: the references to their arrays are not counted, as in helpers
bare = numba.njit(  # type: ignore[call-overload]
    cache=True, nogil=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True
)

# for helpers of kernels: passing array arguments would cost more than the work, and so would counting the references
# to them (a quarter of the Kalman filter), so helpers allocate nothing; not for Python either
inlined = numba.njit(  # type: ignore[call-overload]
    cache=True, nogil=True, error_model="numpy", forceinline=True, _nrt=False, no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)  # fmt: skip

# for loops that add: the compiler may reorder the terms, and so use vectors; NaN and inf keep their meaning
sums = numba.njit(  # type: ignore[call-overload]
    cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"}, no_cfunc_wrapper=True
)

PATIENCE = 0.5  # seconds of compilation after which to say what it waits for
NOTICE = (
    "statespace_em is compiling for this machine, which takes some seconds and is done once: the result is kept "
    "on disk (silence this with logging.getLogger('statespace_em').setLevel('ERROR'))"
)


class Notice(event.Listener):
    """Say once that kernels are being compiled, when that has been noticeable; never where they come from disk."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.spent = 0.0
        self.said = False

    def on_start(self, what: event.Event) -> None:
        """Before a function is compiled."""
        if self.said or not what.data["dispatcher"].py_func.__module__.startswith("statespace_em."):
            return
        if self.spent > PATIENCE:
            self.said = True
            logging.getLogger("statespace_em").warning(NOTICE)
        if self.began is None:
            self.began = time.perf_counter()

    def on_end(self, what: event.Event) -> None:
        """After it."""
        if self.began is not None:
            self.spent += time.perf_counter() - self.began
            self.began = None


event.register("numba:compile", Notice())  # type: ignore[no-untyped-call]
