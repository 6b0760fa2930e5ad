"""Several builds beside each other, and one beside an older one: for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emb.report.columns import ABSENT, cells, estimate_range
from emb.report.columns import HEADERS as ROW_HEADERS
from emb.report.tables import markdown_table
from emb.spec.comparison import LEAST_DIFFERENCE
from emb.spec.overview import Change, Entry, Regressions, Section

if TYPE_CHECKING:
    from rich.console import Group

HEADERS = (
    *("build", "format", "scheme", "runtime", "target"),
    *("bytes", "accuracy %", "95 %", "median µs", "estimated µs", "frontier"),
)
# Of builds for a target.
_OPTIONAL = ("target", "estimated µs")
CHANGE_HEADERS = (
    *("format", "scheme", "runtime", "old %", "new %", "points"),
    *("old bytes", "new bytes", "growth %", "old µs", "new µs"),
)
_LEFT_ALIGNED, _CHANGE_LEFT_ALIGNED = HEADERS[:5], 3


def entry_cells(entry: Entry) -> tuple[str, ...]:
    """The texts of one line, in the order of HEADERS."""
    shown = dict(zip(ROW_HEADERS, cells(entry.row), strict=True))
    on = [name for name, is_on in (("size", entry.smallest), ("time", entry.fastest)) if is_on]
    if entry.device:
        shown["runtime"] += f" on {entry.device}"
    shown |= {
        "build": entry.build,
        "target": entry.target or ABSENT,
        "estimated µs": estimate_range(entry.estimate),
        "frontier": ", ".join(on),
    }
    return tuple(shown[name] for name in HEADERS)


def _table(section: Section) -> tuple[list[str], list[list[str]], int]:
    """(headers, the texts of each line, how many columns are aligned to the left), without columns that say nothing."""
    rows = [entry_cells(entry) for entry in section.entries]
    kept = [
        place
        for place, name in enumerate(HEADERS)
        if name not in _OPTIONAL or any(row[place] != ABSENT for row in rows)
    ]
    headers = [HEADERS[place] for place in kept]
    return headers, [[row[place] for place in kept] for row in rows], sum(name in _LEFT_ALIGNED for name in headers)


def change_cells(change: Change) -> tuple[str, ...]:
    """The texts of one line, in the order of CHANGE_HEADERS."""
    both = [
        dict(zip(ROW_HEADERS, cells(row), strict=True)) if row else dict.fromkeys(ROW_HEADERS, ABSENT)
        for row in (change.old, change.new)
    ]
    named = dict(zip(ROW_HEADERS, cells(change.row), strict=True))
    return (
        *(named[name] for name in ("format", "scheme", "runtime")),
        *(one["accuracy %"] for one in both),
        ABSENT if change.points is None else f"{change.points:+.2f}",
        *(one["bytes"] for one in both),
        ABSENT if change.growth is None else f"{change.growth:+.2f}",
        *(one["median µs"] for one in both),
    )


def section_notes(section: Section) -> list[str]:
    """What the marks mean, and where the times are from."""
    machines = sorted({entry.machine for entry in section.entries if entry.row.latency})
    estimates = sorted({(entry.target, entry.estimate.source) for entry in section.entries if entry.estimate})
    said = [
        f"times measured on {machine}" if machine else "times of reports that name no machine" for machine in machines
    ]
    return [
        "frontier: nothing here is at least as accurate and smaller (size), or faster on the same machine (time)"
        f"; times less than {LEAST_DIFFERENCE:.0%} apart count as equal",
        *said,
        *(["times of different machines are not compared"] if len(machines) > 1 else []),
        *(f"estimated, not measured: the latency on {target}; source: {source}" for target, source in estimates),
    ]


def regression_notes(regressions: Regressions) -> list[str]:
    """Below the table of changes: how far its times can be trusted."""
    old, new = regressions.old, regressions.new
    if regressions.is_one_machine:
        times = f"times measured one after the other on {new.machine}; emb bench OLD NEW --compare takes them in turn"
    elif old.machine and new.machine:
        times = f"times measured on two machines, {old.machine} and {new.machine}: they say nothing of the models"
    else:
        times = "times of reports that do not both name their machine"
    return [f"{new.directory} against {old.directory}; {new.data.judges}", times]


def render_sections(sections: Sequence[Section]) -> Group:
    """For the terminal."""
    from rich.console import Group
    from rich.text import Text

    from emb.report.text import Figures

    parts: list[object] = []
    for section in sections:
        headers, rows, left_aligned = _table(section)
        parts += [
            Text(section.data.judges, style="bold"),
            Figures(headers=headers, rows=rows, left_aligned=left_aligned),
        ]
        parts += [Text(), *(Text(line, style="dim") for line in section_notes(section)), Text()]
    return Group(*parts[:-1])  # type: ignore[arg-type]  # every one is a renderable


def render_regressions(regressions: Regressions) -> Group:
    """For the terminal."""
    from rich.console import Group
    from rich.text import Text

    from emb.report.text import Figures

    rows = [change_cells(change) for change in regressions.changes]
    table = Figures(headers=CHANGE_HEADERS, rows=rows, left_aligned=_CHANGE_LEFT_ALIGNED)
    told = [Text(line, style="dim") for line in regression_notes(regressions)]
    return Group(
        table, Text(), *told, *(Text(f"limit passed: {fault}", style="bold red") for fault in regressions.faults)
    )


def sections_markdown(sections: Sequence[Section]) -> str:
    """One table for each section."""
    parts = []
    for section in sections:
        headers, rows, left_aligned = _table(section)
        notes = [f"- {line}" for line in section_notes(section)]
        parts.append(
            "\n".join([f"## {section.data.judges}", "", *markdown_table(headers, rows, left=left_aligned), "", *notes])
        )
    return "\n\n".join(parts) + "\n"


def regressions_markdown(regressions: Regressions) -> str:
    """A table, what must be known beside it, and the limits that are passed."""
    rows = [change_cells(change) for change in regressions.changes]
    lines = markdown_table(CHANGE_HEADERS, rows, left=_CHANGE_LEFT_ALIGNED)
    lines += ["", *(f"- {line}" for line in regression_notes(regressions))]
    lines += [f"- **limit passed:** {fault}" for fault in regressions.faults]
    return "\n".join(lines) + "\n"


def sections_csv(sections: Sequence[Section]) -> str:
    """Raw figures, one line a file and runtime: shares in [0, 1], bytes, microseconds."""
    stream = io.StringIO()
    fields = ("data", "build", "device", "target", "file", "format", "scheme", "runtime")
    fields += (
        "bytes",
        "gzip_bytes",
        "parameters",
        "macs",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "median_us",
        "p90_us",
        "p99_us",
        "estimated_lowest_us",
        "estimated_highest_us",
        "estimated_by",
        "machine",
        "source",
    )
    fields += ("on_size_frontier", "on_latency_frontier")
    writer = csv.DictWriter(stream, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for section in sections:
        for entry in section.entries:
            line = entry.to_json()
            times = line["latency_us"] or {"median": None, "p90": None, "p99": None}
            estimate = line["estimated_us"] or {"lowest_us": None, "highest_us": None, "source": None}
            writer.writerow(
                {
                    **line,
                    "data": section.data.name,
                    "device": entry.device,
                    "median_us": times["median"],
                    "p90_us": times["p90"],
                    "p99_us": times["p99"],
                    "estimated_lowest_us": estimate["lowest_us"],
                    "estimated_highest_us": estimate["highest_us"],
                    "estimated_by": estimate["source"],
                }
            )
    return stream.getvalue()
