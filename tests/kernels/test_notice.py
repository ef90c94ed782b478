"""The line that says what a first use waits for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from statespace_em.kernels import _jit, chain


@pytest.fixture
def lines(caplog):
    return lambda: [record.getMessage() for record in caplog.records if record.name == "statespace_em"]


def compiled(function, notice, *, seconds, monkeypatch):
    clock = iter([0.0, seconds])
    monkeypatch.setattr(_jit.time, "perf_counter", lambda: next(clock))
    event = SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=function)})
    notice.on_start(event)
    notice.on_end(event)


def test_it_is_said_once_when_compiling_has_been_noticeable(lines, monkeypatch):
    notice, ours = _jit.Notice(), chain.forward.py_func
    compiled(ours, notice, seconds=_jit.PATIENCE + 0.1, monkeypatch=monkeypatch)
    assert lines() == []
    for _ in range(3):
        compiled(ours, notice, seconds=0.1, monkeypatch=monkeypatch)
    assert len(lines()) == 1
    assert "compiling for this machine" in lines()[0]


def test_short_compilations_and_those_of_others_are_not_mentioned(lines, monkeypatch):
    notice = _jit.Notice()
    compiled(chain.forward.py_func, notice, seconds=_jit.PATIENCE / 2, monkeypatch=monkeypatch)
    for _ in range(3):
        compiled(lines, notice, seconds=10.0, monkeypatch=monkeypatch)
    compiled(chain.forward.py_func, notice, seconds=0.0, monkeypatch=monkeypatch)
    assert lines() == []
