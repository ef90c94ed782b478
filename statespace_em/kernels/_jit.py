"""The only file that knows numba, but for the vectors of `_lanes`."""

# mypy: allow-untyped-calls
from __future__ import annotations

import logging
import time
from typing import Any

import numba
from numba.core import codegen, compiler, event

from statespace_em._garbage import pause
from statespace_em._memory import keep_freed

keep_freed()


class _Unfinished(codegen.JITCodeLibrary):
    """Code of a part, which stays as it is until it is in a kernel: that is optimised and made machine code as a whole.

    Else each part would be both by itself, and again within every part around it, for nothing: half of the time.
    """

    def _optimize_final_module(self) -> None:
        """Leave it to the kernel."""

    def _finalize_final_module(self) -> None:
        """Make no machine code."""
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Nowhere."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> _Unfinished:
        """What is told of the environment of the function, in which Python would run it."""
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """No place to keep it: without an environment numba refuses to run what needs one."""


class _PartCompiler(compiler.Compiler):
    """Compiler of parts."""

    def __init__(self, typing: Any, target: Any, library: Any, *rest: Any) -> None:
        super().__init__(typing, target, _Unfinished(target.codegen(), "part"), *rest)


_njit: Any = numba.njit  # to type checkers
_COMMON: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_ADDING = {"reassoc", "contract"}  # the compiler may reorder terms, and so use vectors; NaN and inf keep their meaning

# kernels: functions that Python calls
jit = _njit(cache=True, **_COMMON)

# kernels with loops that add
sums = _njit(cache=True, fastmath=_ADDING, **_COMMON)

# for parts of kernels, which only kernels call: to call one from Python ends the process. Kernels are kept on disk
# with their parts
_PART = _COMMON | {"no_cpython_wrapper": True, "pipeline_class": _PartCompiler}
part = _njit(**_PART)

# parts with loops that add
part_sums = _njit(fastmath=_ADDING, **_PART)

# for parts that allocate nothing and are called often: the references to their arrays are not counted, as in helpers
bare = _njit(_nrt=False, **_PART)

# for helpers of kernels: passing array arguments would cost more than the work, and so would counting the references
# to them (a quarter of the Kalman filter), so helpers allocate nothing
inlined = _njit(forceinline=True, _nrt=False, **_PART)

PACKAGE = "statespace_em."
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
        if self.said or not what.data["dispatcher"].py_func.__module__.startswith(PACKAGE):
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


class Undisturbed(event.Listener):
    """Collect no garbage while numba compiles or loads: to look for some takes a twentieth of that time or more."""

    def on_start(self, what: event.Event) -> None:
        """Before a thread takes hold of the compiler."""
        pause.__enter__()

    def on_end(self, what: event.Event) -> None:
        """After it."""
        pause.__exit__()


event.register("numba:compile", Notice())
event.register("numba:compiler_lock", Undisturbed())
