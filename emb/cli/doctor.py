"""emb doctor: says what is here, and whether images are fit to calibrate on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emb.cli.options import Data, DataDirectory, Json, TrustModel, complete_recipe

if TYPE_CHECKING:
    from rich.table import Table

    from emb.pipeline.calibration_doctor import Examination

app = typer.Typer(invoke_without_command=True)


@app.callback()
def doctor(context: typer.Context, data_dir: DataDirectory = None, as_json: Json = False) -> None:
    """Say what is here, and how to get the rest; or examine calibration images.

    Versions, runtimes, data sets, cache. Exits 1 if a build could not run on this machine.
    """
    if context.invoked_subcommand is not None:
        return
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


@app.command("calibration")
def calibration(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|FILE",
            help="A recipe, or a model of your own (.keras, .h5, SavedModel, .tflite, .onnx) with --data.",
            autocompletion=complete_recipe,
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE.npy|FILE.npz",
            help="Your own calibration images, instead of the train images that a build would take.",
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--calibration", metavar="N", min=1, help="How many train images to take.")
    ] = None,
    data: Data = None,
    data_dir: DataDirectory = None,
    trust_model: TrustModel = False,
    as_json: Json = False,
) -> None:
    """Examine calibration images before they decide an int8 model: each finding with its cause and its remedy.

    Their number, classes, pixels, layout and framing beside those of the train images, copies of test images, and,
    where the model is trained already, what its layers make of them. Exits 1 if something would spoil the model.
    """
    from emb.cli.output import print_json, stdout
    from emb.pipeline.calibration_doctor import examine

    found = examine(source, data=data, images=images, calibration=count, data_dir=data_dir, trust_model=trust_model)
    if as_json:
        print_json(found.to_json())
    else:
        console = stdout()
        if found.findings:
            console.print(_table(found))
        for line in _summary(found):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if found.is_broken:
        raise typer.Exit(1)


def _table(found: Examination) -> Table:
    from rich.markup import escape
    from rich.table import Table

    marks = {"remark": "[yellow]remark[/]", "broken": "[bold red]broken[/]"}
    table = Table("", "finding", "cause", "remedy", box=None, pad_edge=False, padding=(0, 2, 1, 0))
    for one in found.findings:
        table.add_row(marks[one.severity], *map(escape, (one.what, one.cause, one.remedy)))
    return table


def _summary(found: Examination) -> list[str]:
    count = len(found.findings)
    said = "nothing to say against them" if not count else f"{count} finding{'' if count == 1 else 's'}"
    lines = [f"examined {found.images}: {said}"]
    if found.skipped:
        lines.append(f"what they do inside the model was not looked at: {found.skipped}")
    return lines
