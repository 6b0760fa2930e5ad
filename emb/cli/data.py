"""emb data: says what data sets are where, and downloads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emb.cli.options import DataDirectory, Json

app = typer.Typer(help="Say which data sets are here, and download them.", no_args_is_help=True)


def _complete(incomplete: str) -> list[str]:
    from emb.data import downloadable

    return [name for name in downloadable() if name.startswith(incomplete)]


@app.command("list")
def list_data(data_dir: DataDirectory = None, as_json: Json = False) -> None:
    """List the data sets and where they lie.

    And how to get those that are missing.
    """
    from emb.cli.output import print_json, stdout
    from emb.data import search_directories

    directories = search_directories(data_dir)
    rows = _rows(directories)
    if as_json:
        print_json({"directories": [str(directory) for directory in directories], "data": rows})
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("data set", "what it is", "where it lies", "size", box=None, pad_edge=False)
    for row in rows:
        missing = f"[yellow]{escape(row['problem'])}[/]\n[dim]{escape(row['fix'])}[/]"
        where = escape(row["directory"]) if row["found"] else missing
        size = f"{row['bytes'] / 1e6:,.1f} MB" if row["found"] else ""
        table.add_row(row["name"], escape(row["summary"]), where, size)
    console = stdout()
    console.print(table)
    console.print("\nlooked in:", *(str(directory) for directory in directories), sep="\n  ", soft_wrap=True)


def _rows(directories: tuple[Path, ...]) -> list[dict[str, Any]]:
    from emb.data import DATA, downloadable, locate
    from emb.spec.dataset import DataRequest

    rows = []
    for name in DATA.names():
        located = locate(name, DataRequest(directories=directories))
        problem = located.problem
        rows.append(
            {
                "name": name,
                "summary": DATA.help(name),
                "found": located.found,
                "directory": str(located.directory) if located.directory else None,
                "files": [path.name for path in located.files],
                "bytes": located.total_bytes,
                "problem": problem.what if problem else "",
                "fix": problem.fix if problem else "",
                "downloadable": name in downloadable(),
            }
        )
    return rows


@app.command("fetch")
def fetch_data(
    name: Annotated[
        str, typer.Argument(help="The data set to download, e.g. mnist.", autocompletion=_complete, show_default=False)
    ],
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Where to put it; the user's cache by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a data set.

    Its files are checked against their published checksums; an interrupted download is continued.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from emb.cli.output import print_json, stderr, stdout
    from emb.data import fetch

    console = stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def advance(file: str, done_bytes: int, total_bytes: int) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total_bytes)
            bars.update(tasks[file], completed=done_bytes)

        fetched = fetch(name, directory=data_dir, progress=advance)
    if as_json:
        print_json(
            {
                "name": fetched.name,
                "directory": str(fetched.directory),
                "files": [path.name for path in fetched.files],
                "bytes": sum(path.stat().st_size for path in fetched.files),
                "downloaded": list(fetched.downloaded),
            }
        )
        return
    done = f"downloaded {len(fetched.downloaded)} files" if fetched.downloaded else "nothing to do"
    stdout().print(f"{fetched.name}: {done}, all in {fetched.directory}", soft_wrap=True, highlight=False, markup=False)
