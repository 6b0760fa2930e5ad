"""emb doctor."""

from __future__ import annotations

import typer

from emb.cli.options import DataDirectory, Json


def doctor(data_dir: DataDirectory = None, as_json: Json = False) -> None:
    """Say what is here, and how to get the rest.

    Versions, runtimes, data sets, cache. Exits 1 if a build could not run on this machine.
    """
    from emb.cli.output import print_json, stdout
    from emb.pipeline.doctor import examine

    findings = examine(data_dir=data_dir)
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        from rich.markup import escape
        from rich.table import Table

        marks = {"ok": "[green]ok[/]", "absent": "[yellow]absent[/]", "broken": "[bold red]broken[/]"}
        table = Table("", "part", "found", box=None, pad_edge=False)
        for finding in findings:
            detail = escape(finding.found) + (f"\n[dim]{escape(finding.fix)}[/]" if finding.fix else "")
            table.add_row(marks[finding.state], finding.part, detail)
        stdout().print(table)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)
