"""The section "Classes" of a Markdown page: which are recognised worst, and what they are taken for."""

from __future__ import annotations

from collections.abc import Sequence

from emb.report.tables import markdown_table
from emb.spec.measurement import ClassAccuracy
from emb.spec.report import Row

MOST = 20


def classes_section(classes: Sequence[ClassAccuracy], labels: Sequence[str], row: Row) -> str:
    """The classes that are recognised worst first, at most 20 of them. row: the file and runtime that they are of."""
    worst = sorted(classes, key=lambda one: one.recall)[:MOST]
    headers = ("class", "most often taken for", "images", "recognised %", "95 %", "right when answered %")
    lines = ["", "## Classes", "", *markdown_table(headers, [_cells(one, labels) for one in worst], left=2), ""]
    if len(classes) > MOST:
        lines.append(f"- the worst {MOST} of {len(classes):,} classes; `classes.json` has all")
    lines.append(f"- {row.file} on {row.runtime}")
    if row.top5 is not None:
        lines.append(f"- the class is among the five best answers for {100 * row.top5:.2f} % of the images")
    if row.expected_calibration_error is not None:
        lines.append(
            f"- confidence and accuracy lie {100 * row.expected_calibration_error:.2f} points apart "
            "(expected calibration error, 15 bins)"
        )
    return "\n".join(lines) + "\n"


def _cells(one: ClassAccuracy, labels: Sequence[str]) -> tuple[str, ...]:
    taken_for = f"{labels[one.taken_for[0]]} ({one.taken_for[1]:,})" if one.taken_for else "–"
    return (
        labels[one.label],
        taken_for,
        f"{one.images:,}",
        f"{100 * one.recall:.2f}",
        f"{100 * one.low:.2f}–{100 * one.high:.2f}",
        "–" if one.precision is None else f"{100 * one.precision:.2f}",
    )
