"""The report on the terminal: one table where it fits, two lines a row where it does not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emb.report.columns import HEADERS, LEFT_ALIGNED, cells, measuring_notes, notes
from emb.report.pruning import pruning_lines
from emb.report.target import fault_lines, target_lines
from emb.spec.report import BenchReport, Report, Row

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderResult
    from rich.text import Text


def render(report: Report) -> Group:
    """The table, what a reader must know beside it, and where the files are."""
    place = f"{report.directory}" + ("  (nothing had changed)" if report.cached else "")
    told, faults = notes(report), []
    if report.pruning:
        told += ["", *pruning_lines(report.pruning, report.rows)]
    for repair in report.repairs:
        told += ["", *repair.lines()]
    if report.target:
        told += ["", *target_lines(report.target)]
        faults = fault_lines(report.target)
    return _page(report.rows, told, report.errors, place, reference_accuracy=report.reference_accuracy, faults=faults)


def render_ensemble(report: BenchReport) -> Group:
    """Members and ensemble by the names of their files, accuracy first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("file", overflow="fold")
    for header in ("accuracy %", "95 %", "bytes", "MACs", "median µs"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in report.rows:
        shown = dict(zip(HEADERS, cells(row), strict=True))
        figures = (shown["accuracy %"], shown["95 %"], shown["bytes"], f"{row.macs:,}", shown["median µs"])
        table.add_row(row.file, *figures)
    told = [
        report.images,
        "the ensemble's bytes and MACs are its members' sums; it was not timed",
        *measuring_notes(report.rows, machine=report.machine),
    ]
    return Group(table, Text(), *(Text(line, style="dim") for line in told))


def _page(
    rows: Iterable[Row],
    told: Iterable[str],
    errors: Iterable[str],
    last: str,
    *,
    reference_accuracy: float | None,
    faults: Iterable[str] = (),
) -> Group:
    from rich.console import Group
    from rich.text import Text

    figures = Figures(
        headers=HEADERS,
        rows=[cells(row, reference_accuracy=reference_accuracy) for row in rows],
        left_aligned=LEFT_ALIGNED,
    )
    dim = [Text(line, style="dim") for line in told]
    failed = [Text(fault, style="bold red") for fault in faults]
    failed += [Text(f"error: {error}", style="bold red") for error in errors]
    return Group(figures, Text(), *dim, *failed, Text(last, style="bold"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A table that is laid out when the width is known. No figure is ever cut off.

    left_aligned: so many columns, of names, which get a line of their own where all do not fit beside the figures.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    left_aligned: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [max(map(len, column)) for column in zip(self.headers, *self.rows, strict=True)]
        left = self.left_aligned
        if sum(widths) + 2 * (len(widths) - 1) <= options.max_width:
            yield _line(self.headers, widths, gap=2, left=left, style="bold")
            for row in self.rows:
                yield _line(row, widths, gap=2, left=left)
            return
        # The names on a line of their own; the figures then need 80 columns.
        yield _line(self.headers[left:], widths[left:], gap=1, left=0, style="bold")
        for row in self.rows:
            yield _line(("  ".join(row[:left]),), [0], gap=0, left=left)
            yield _line(row[left:], widths[left:], gap=1, left=0)


def _line(texts: Sequence[str], widths: Sequence[int], *, gap: int, left: int, style: str = "") -> Text:
    """Texts in columns, the first `left` aligned to the left and the others to the right."""
    from rich.text import Text

    padded = [
        text.ljust(width) if index < left else text.rjust(width)
        for index, (text, width) in enumerate(zip(texts, widths, strict=True))
    ]
    return Text((" " * gap).join(padded).rstrip(), style=style)
