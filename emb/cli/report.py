"""emb report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from emb.cli.options import Json

_PAGE = Path("report.html")


def report(
    builds: Annotated[
        list[Path] | None,
        typer.Argument(metavar="BUILD...", help="Builds' directories or names in builds/; all of builds/ by default."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Two builds, the old one and the new one: what has changed.")
    ] = False,
    max_accuracy_drop: Annotated[
        float | None, typer.Option(min=0, metavar="POINTS", help="With --compare: exit code 1 if a file loses more.")
    ] = None,
    max_size_growth: Annotated[
        float | None,
        typer.Option(min=0, metavar="PERCENT", help="With --compare: exit code 1 if a file grows by more."),
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="Show what was measured on this runtime alone.")] = None,
    file_format: Annotated[
        Literal["table", "markdown", "csv", "html"],
        typer.Option("--format", help="For the terminal, a page, a spreadsheet, or a browser."),
    ] = "table",
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where --format html writes its one file; report.html here by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put what builds measured beside each other, with the frontier of accuracy against size and time.

    Nothing is measured anew. With --compare the two builds are held against each other, for a team's CI: the exit code
    is 1 where a limit that is stated is passed.
    """
    from emb.errors import SpecError

    limits = {"--max-accuracy-drop": max_accuracy_drop, "--max-size-growth": max_size_growth}
    stated = [flag for flag, value in limits.items() if value is not None]
    if output is not None and file_format != "html":
        raise SpecError("--output is for a page", why="all else is printed", fix="add --format html")
    if compare:
        if runtime is not None or file_format in ("csv", "html"):
            flag = "--runtime" if runtime is not None else f"--format {file_format}"
            raise SpecError(f"{flag} does not go with --compare", fix="leave it out, or take --json")
        _compare(
            builds or [],
            file_format=file_format,
            as_json=as_json,
            accuracy_drop=max_accuracy_drop,
            size_growth=max_size_growth,
        )
        return
    if stated:
        raise SpecError(
            f"{stated[0]} is for two builds", why="it limits what a change may cost", fix="add --compare OLD NEW"
        )
    if file_format == "html":
        _page(builds or [], output or _PAGE, runtime=runtime, as_json=as_json)
        return
    _overview(builds or [], runtime=runtime, file_format=file_format, as_json=as_json)


def _page(builds: list[Path], path: Path, *, runtime: str | None, as_json: bool) -> None:
    from emb.errors import SpecError
    from emb.pipeline.page import write_page

    if as_json:
        raise SpecError("--json does not go with --format html", fix="leave one of them out")
    write_page(builds, path, runtime=runtime)
    typer.echo(path)


def _overview(builds: list[Path], *, runtime: str | None, file_format: str, as_json: bool) -> None:
    from emb.cli.output import print_json, stdout
    from emb.pipeline.reports import overview
    from emb.report.overview import render_sections, sections_csv, sections_markdown

    sections = overview(builds, runtime=runtime)
    if as_json:
        print_json({"sections": [section.to_json() for section in sections]})
    elif file_format == "table":
        stdout().print(render_sections(sections))
    else:
        typer.echo((sections_csv if file_format == "csv" else sections_markdown)(sections), nl=False)


def _compare(
    builds: list[Path], *, file_format: str, as_json: bool, accuracy_drop: float | None, size_growth: float | None
) -> None:
    from emb.cli.output import print_json, stdout
    from emb.errors import SpecError
    from emb.pipeline.reports import regressions
    from emb.report.overview import regressions_markdown, render_regressions
    from emb.spec.overview import Limits

    if len(builds) != 2:
        raise SpecError(
            f"--compare holds two builds against each other, not {len(builds)}",
            fix="name the old one first, then the new one: emb report --compare OLD NEW",
        )
    found = regressions(*builds, limits=Limits(accuracy_drop=accuracy_drop, size_growth=size_growth))
    if as_json:
        print_json(found.to_json())
    elif file_format == "table":
        stdout().print(render_regressions(found))
    else:
        typer.echo(regressions_markdown(found), nl=False)
    if found.faults:
        raise typer.Exit(1)
