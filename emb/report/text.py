"""The report on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from emb.report.columns import HEADERS, LEFT_ALIGNED, cells, measuring_notes, notes
from emb.spec.report import BenchReport, Report, Row

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text


def render(report: Report) -> Group:
    """The table, what a reader must know beside it, and where the files are."""
    from rich.text import Text

    place = Text(f"{report.directory}" + ("  (nothing had changed)" if report.cached else ""), style="bold")
    return _page(report.rows, notes(report), report.errors, place, reference_accuracy=report.reference_accuracy)


def render_bench(report: BenchReport) -> Group:
    """The same table for files that were there already."""
    from rich.text import Text

    told = [report.images, *measuring_notes(report.rows, machine=report.machine)]
    return _page(report.rows, told, report.errors, Text(str(report.model), style="bold"), reference_accuracy=None)


def _page(
    rows: Iterable[Row], told: Iterable[str], errors: Iterable[str], last: Text, *, reference_accuracy: float | None
) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    for index, header in enumerate(HEADERS):
        table.add_column(header, justify="left" if index < LEFT_ALIGNED else "right", no_wrap=index >= LEFT_ALIGNED)
    for row in rows:
        table.add_row(*map(escape, cells(row, reference_accuracy=reference_accuracy)))
    dim = [Text(line, style="dim") for line in told]
    failed = [Text(f"error: {error}", style="bold red") for error in errors]
    return Group(table, Text(), *dim, *failed, last)
