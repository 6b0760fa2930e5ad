"""The report as Markdown."""

from __future__ import annotations

from emb.report.columns import HEADERS, LEFT_ALIGNED, cells, notes
from emb.report.pruning import layer_table, pruning_lines
from emb.report.tables import markdown_table
from emb.report.target import fault_lines, target_lines
from emb.spec.report import Report


def render(report: Report) -> str:
    """A page: the table, the notes, the target, errors, the time of each stage and the hashes of the files."""
    rows = [cells(row, reference_accuracy=report.reference_accuracy) for row in report.rows]
    lines = [f"# {report.recipe} on {report.data.name}", "", *markdown_table(HEADERS, rows, left=LEFT_ALIGNED)]
    lines += ["", *(f"- {note}" for note in notes(report))]
    if report.pruning:
        lines += ["", "## Pruning", "", *(f"- {line}" for line in pruning_lines(report.pruning, report.rows))]
        lines += ["", *layer_table(report.pruning)]
    for repair in report.repairs:
        lines += ["", f"## Repair of {repair.scheme}", "", *(f"- {line}" for line in repair.lines())]
    if report.target:
        lines += ["", f"## Target: {report.target.name}", ""]
        lines += [f"- {line}" for line in (*target_lines(report.target), *fault_lines(report.target))]
    if report.errors:
        lines += ["", "## Errors", "", *(f"- {' '.join(error.split())}" for error in report.errors)]
    lines += ["", "## Time", "", "| stage | seconds |", "| --- | ---: |"]
    lines += [f"| {stage} | {seconds:.1f} |" for stage, seconds in report.seconds.items()]
    lines += ["", "## Files", "", "| file | parameters | MACs | sha256 |", "| --- | ---: | ---: | --- |"]
    files = {row.file: f"| {row.file} | {row.parameters:,} | {row.macs:,} | `{row.sha256}` |" for row in report.rows}
    lines += files.values()
    return "\n".join(lines) + "\n"
