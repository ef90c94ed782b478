"""The collector of garbage rests while there is nothing to collect, and is left as it was found."""

from __future__ import annotations

import gc
import subprocess
import sys
from threading import Thread

import pytest

from statespace_em._garbage import Pause

CODE = """
import gc
import statespace_em
seen = []
gc.callbacks.append(lambda phase, info: seen.append(phase))
GaussianHMM = statespace_em.GaussianHMM
at_import = len(seen)
{before}
GaussianHMM(2).fit([[1.0], [2.0], [5.0], [7.0], [6.0]] * 4, max_iter=2)
print(at_import, gc.isenabled())
"""


def test_it_rests_while_any_thread_is_inside():
    pause, found = Pause(), []

    def inside():
        with pause:
            found.append(gc.isenabled())

    with pause:
        worker = Thread(target=inside)
        worker.start()
        worker.join()
        found.append(gc.isenabled())
    assert found == [False, False]
    assert gc.isenabled()


def test_who_has_switched_it_off_finds_it_off():
    gc.disable()
    try:
        with Pause():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_it_goes_on_after_an_error():
    with pytest.raises(ZeroDivisionError), Pause():
        1 / 0
    assert gc.isenabled()


@pytest.mark.parametrize(("before", "after"), [("", "True"), ("gc.disable()", "False")])
def test_imports_and_fits_leave_it_as_it_was(before, after):
    code = [sys.executable, "-c", CODE.format(before=before)]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    at_import, enabled = done.stdout.split()
    assert int(at_import) <= 4  # those that begin before it and behind it; without the pause there are hundreds
    assert enabled == after
