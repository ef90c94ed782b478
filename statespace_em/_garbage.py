"""Python's collection of garbage, which looks through what imports and compilers make again and again, for nothing."""

from __future__ import annotations

import gc
from threading import Lock


class Pause:
    """No garbage is collected while any thread is inside, unless it is not at all."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._paused = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0 and gc.isenabled():
                gc.disable()
                self._paused = True
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._paused:
                self._paused = False
                gc.enable()


pause = Pause()
