"""One row: measured in a process of its own, so that neither memory, threads nor jax disturb the others."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import Case, deviation
from benchmarks.timing import alternate

Row = dict[str, Any]
HERE = Path(__file__).parent


def measure(case: Case, *, quick: bool, repeats: int) -> Row:
    """Do the work of a row in this process."""
    warnings.simplefilter("ignore")  # of the peers
    work = case.prepare(quick=quick)
    timed = alternate(work, repeats)
    row: Row = {**_identity(case), "rows": work.rows, "repeats": repeats, "ours": timed.ours._asdict()}
    notes = [work.note] + ([work.remark(timed.our_result)] if work.remark else [])
    row["note"] = "; ".join(note for note in notes if note)
    row["peak_megabytes"] = peak = _peak_megabytes()
    status, ratio = "ok", None
    if work.theirs is not None and timed.theirs is not None:
        row["theirs"] = timed.theirs._asdict()
        row["ratio"] = ratio = timed.theirs.median / timed.ours.median
        if timed.iteration is not None:
            ours, theirs = timed.iteration
            row["iteration"] = {"ours": ours, "theirs": theirs, "ratio": theirs / ours}
        if work.tolerance is not None:
            off, where = deviation(work.ours.numbers(timed.our_result), work.theirs.numbers(timed.their_result))
            row |= {"deviation": off if np.isfinite(off) else str(off), "where": where, "tolerance": work.tolerance}
            status = "ok" if off <= work.tolerance else "disagrees"
    if case.target is not None and not quick:
        row["met"] = case.target.met(ratio, timed.ours.median, peak)
    return row | {"status": status}


def measure_apart(case: Case, *, quick: bool, repeats: int) -> Row:
    """Do the work of a row in a new process; a failure is a row too."""
    if case.peer is not None and not installed(case.peer):
        return _identity(case) | {"status": "skipped", "note": f"{case.peer} is not installed"}
    command = [
        sys.executable,
        str(HERE),
        "--row",
        case.name,
        "--repeats",
        str(repeats),
        *(["--quick"] if quick else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return _identity(case) | {"status": "failed", "note": reason, "stderr": done.stderr}
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def installed(peer: str) -> bool:
    """Whether a peer can be found, without importing it."""
    return importlib.util.find_spec(peer) is not None


def _identity(case: Case) -> Row:
    target = None if case.target is None else str(case.target)
    return {"name": case.name, "work": case.work, "peer": case.peer, "section": case.section, "target": target}


def _peak_megabytes() -> float:
    """Largest resident memory of this process so far; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
