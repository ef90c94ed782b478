"""Rows as a table that people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.row import Row

HEADINGS = {
    "targets": "Against the peers",
    "more": "Further comparisons",
    "growth": "How cost grows",
}
COLUMNS = ("work", "peer", "ours", "theirs", "ratio", "target", "", "iteration alone", "processor", "numbers", "MB")


def table(rows: Sequence[Row]) -> str:
    """All rows, section by section."""
    parts = []
    for section, heading in HEADINGS.items():
        inside = [row for row in rows if row["section"] == section]
        if inside:
            parts.append(f"{heading}\n\n{_aligned(_filled([COLUMNS, *(_cells(row) for row in inside)]))}")
    return "\n\n".join(parts) + "\n\n" + summary(rows)


def line(row: Row) -> str:
    """One row while the others are still to come."""
    return " | ".join(cell for cell in _cells(row) if cell)


def summary(rows: Sequence[Row]) -> str:
    """Counts, and what failed."""
    judged = [row for row in rows if "met" in row]
    words = [f"targets met: {sum(row['met'] for row in judged)} of {len(judged)}"] if judged else []
    for status in ("skipped", "disagrees", "failed"):
        found = [f"{row['name']} ({row.get('note') or row.get('where')})" for row in rows if row["status"] == status]
        words += [f"{status}: {len(found)}", *(f"  {name}" for name in found)] if found else []
    return "\n".join(words)


def broken(rows: Sequence[Row]) -> bool:
    """Whether any row disagrees or failed, which no ratio can make good."""
    return any(row["status"] in ("disagrees", "failed") for row in rows)


def _cells(row: Row) -> tuple[str, ...]:
    name, peer = row["work"], row["peer"] or ""
    if "ours" not in row:
        return name, peer, "", "", "", row["target"] or "", row["status"], "", "", row["note"], ""
    theirs = _time(row["theirs"], row["rows"]) if "theirs" in row else ""
    ratio = f"{row['ratio']:.3g}x" if "ratio" in row else ""
    verdict = {True: "met", False: "missed", None: ""}[row.get("met")]
    note = " ".join(part for part in (_agreement(row), f"({row['note']})" if row["note"] else "") if part)
    megabytes = f"{row['peak_megabytes']:.0f}"
    times = _time(row["ours"], row["rows"]), theirs, ratio
    return name, peer, *times, row["target"] or "", verdict, _iteration(row), _processor(row), note, megabytes


def _iteration(row: Row) -> str:
    """Times of one iteration without what a fit costs once: from fits with more and fewer of them."""
    if "iteration" not in row:
        return ""
    ours, theirs, ratio = (row["iteration"][name] for name in ("ours", "theirs", "ratio"))
    return f"{ratio:.3g}x ({ours * 1e6:,.0f} : {theirs * 1e6:,.0f} us)"


def _processor(row: Row) -> str:
    """Ratio of the processor times: what is left of the ratio when nothing runs beside anything else."""
    if "theirs" not in row or not row["ours"]["processor"]:
        return ""
    return f"{row['theirs']['processor'] / row['ours']['processor']:.3g}x"


def _agreement(row: Row) -> str:
    if "deviation" not in row:
        return "not compared" if "theirs" in row else ""
    if row["status"] == "disagrees":
        return f"DISAGREE in {row['where']}: {float(row['deviation']):.0e} > {row['tolerance']:.0e}"
    return f"agree to {row['deviation']:.0e}"


def _time(times: dict[str, float], rows: int) -> str:
    """Median, a row where that means something."""
    if rows:
        return f"{times['median'] / rows * 1e9:,.1f} ns/row"
    return f"{times['median'] * 1e3:,.1f} ms"


def _filled(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Columns in which any row says something."""
    kept = [i for i in range(len(lines[0])) if any(row[i] for row in lines[1:])]
    return [[row[i] for i in kept] for row in lines]


def _aligned(lines: Sequence[Sequence[Any]]) -> str:
    widths = [max(len(row[i]) for row in lines) for i in range(len(lines[0]))]
    lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in lines)
