"""The report on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.report.columns import HEADERS, LEFT_ALIGNED, cells, notes
from emb.spec.report import Report

if TYPE_CHECKING:
    from rich.console import Group


def render(report: Report) -> Group:
    """The table, what a reader must know beside it, and where the files are."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    for index, header in enumerate(HEADERS):
        table.add_column(header, justify="left" if index < LEFT_ALIGNED else "right", no_wrap=index >= LEFT_ALIGNED)
    for row in report.rows:
        table.add_row(*map(escape, cells(row, reference_accuracy=report.reference_accuracy)))
    told = [Text(line, style="dim") for line in notes(report)]
    failed = [Text(f"error: {error}", style="bold red") for error in report.errors]
    place = Text(f"{report.directory}" + ("  (nothing had changed)" if report.cached else ""), style="bold")
    return Group(table, Text(), *told, *failed, place)
