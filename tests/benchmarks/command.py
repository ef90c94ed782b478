"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, report
from benchmarks.case import Case
from benchmarks.row import measure, measure_apart

LEAST = 5  # repeats below which a median means little


def cases() -> list[Case]:
    """All rows, in the order of the table."""
    from benchmarks import fresh_process, growth, hidden_markov, linear_gaussian, structural  # not in the parent

    areas = (hidden_markov, linear_gaussian, structural, fresh_process, growth)
    found = [case for area in areas for case in area.cases()]
    return sorted(found, key=lambda case: list(report.HEADINGS).index(case.section))


def main(words: Sequence[str] | None = None) -> int:
    """Measure the rows that are asked for; 1 if a row failed or its numbers disagree, else 0."""
    asked = _arguments(words)
    if asked.row is not None:
        [case] = [case for case in cases() if case.name == asked.row]
        print(json.dumps(measure(case, quick=asked.quick, repeats=asked.repeats)))
        return 0
    chosen = [case for case in cases() if re.search(asked.only, case.name, re.IGNORECASE)]
    if asked.list:
        print("\n".join(case.name for case in chosen))
        return 0
    if not chosen:
        print(f"no row has a name with {asked.only!r}: see --list", file=sys.stderr)
        return 1
    where = machine.describe()
    rows = []
    for case in chosen:
        rows.append(measure_apart(case, quick=asked.quick, repeats=asked.repeats))
        print(report.line(rows[-1]), file=sys.stderr, flush=True)
    sizes = "small sizes, which say nothing about speed" if asked.quick else "full sizes"
    print(f"\n{where['cpu']}, {where['cores']} cores, load {where['load']}; medians of {asked.repeats}, {sizes}\n")
    print(report.table(rows))
    if asked.json is not None:
        asked.json.write_text(json.dumps({"machine": where, "quick": asked.quick, "rows": rows}, indent=1))
    return int(report.broken(rows))


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python tests/benchmarks",
        description="Time statespace_em beside its peers: the same work, in turn, numbers compared. Times are medians; "
        "ratios are theirs over ours, of wall time and of processor time (all threads together). Ends with 1 if any "
        "numbers disagree or a row fails, not if a target is missed.",
    )
    parser.add_argument("--only", default="", metavar="PATTERN", help="rows whose name matches this regular expression")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see whether everything runs")
    parser.add_argument("--repeats", type=int, help=f"timed runs of each side, at least {LEAST} (2 with --quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write versions, processor and all figures there")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and do nothing")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # measure one row in this process and print it as JSON
    asked = parser.parse_args(words)
    least = 2 if asked.quick else LEAST
    asked.repeats = least if asked.repeats is None else asked.repeats
    if asked.repeats < least:
        parser.error(f"--repeats is {asked.repeats}, expected at least {least}: a median of fewer means little")
    try:
        re.compile(asked.only)
    except re.error as wrong:
        parser.error(f"--only is {asked.only!r}, which is not a regular expression: {wrong}")
    if asked.json is not None and (asked.json.is_dir() or not asked.json.absolute().parent.is_dir()):
        parser.error(f"--json is {str(asked.json)!r}, expected a file in a directory that exists")
    return asked
