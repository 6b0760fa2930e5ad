"""emb check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from emb.cli.options import Assignments, Classes, DataDirectory, Forms, Json, complete_recipe, complete_target

if TYPE_CHECKING:
    from rich.table import Table

    from emb.pipeline.check import Check


def check(
    model: Annotated[
        str,
        typer.Argument(
            metavar="FILE|BUILD|RECIPE",
            help="A .tflite or .onnx file, a build's directory, or a recipe's name or .toml file.",
            autocompletion=complete_recipe,
        ),
    ],
    target: Annotated[
        str,
        typer.Option(metavar="NAME|FILE", help="A target's name or .toml file.", autocompletion=complete_target),
    ],
    classes: Classes = None,
    data_dir: DataDirectory = None,
    assignments: Assignments = None,
    forms: Forms = False,
    as_json: Json = False,
) -> None:
    """Say whether a model fits a target, before it is trained.

    Where each operation will run and why, memory, and an estimate of the latency where one is published for the
    target. A recipe counts as int8 .tflite. Exits with 1 if the model does not fit.
    """
    from emb.cli.output import print_json, stdout
    from emb.pipeline.check import check as check_model

    found = check_model(
        model, target=target, data_dir=data_dir, classes=classes, assignments=assignments or (), forms=forms
    )
    if as_json:
        print_json(found.to_json())
    else:
        console = stdout()
        if found.target.accelerator.kind != "none":
            console.print(_table(found))
        for line in _lines(found):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if found.faults:
        raise typer.Exit(1)


def _table(found: Check) -> Table:
    from rich.table import Table

    table = Table("operation", "name", "runs on", "why", box=None, pad_edge=False)
    for placement in found.placements:
        why = f"{placement.status}: {placement.detail}" if placement.detail else placement.status
        table.add_row(placement.kind, placement.layer or placement.operation, placement.device, why)
    return table


def _lines(found: Check) -> list[str]:
    from emb.deploy import edgetpu_forms
    from emb.report.target import compiler_lines, latency_line, npu_line

    target = found.target
    limits = [
        f"{limit:,} bytes of {what}"
        for limit, what in ((target.ram_bytes, "RAM"), (target.flash_bytes, "flash"))
        if limit
    ]
    lines = [
        "",
        f"{found.source} on {target.name}: {target.summary} ({target.processor})",
        f"file: {found.file_bytes:,} bytes; {found.macs:,} MACs an image",
    ]
    if found.forms_taken:
        lines.append(f"with {edgetpu_forms.told(found.forms_taken)}, the forms that the accelerator takes")
    if found.arena_bytes is not None and found.npu is None:
        lines.append(f"activations: {found.arena_bytes:,} bytes planned, most of them around {found.fullest}")
    if limits:
        lines.append(f"the target has {' and '.join(limits)}")
    if found.npu is not None:
        on_npu = sum(placement.device != "cpu" for placement in found.placements)
        sram = f"{target.accelerator.sram_bytes:,} bytes of SRAM"
        lines.append(f"{on_npu} of {len(found.placements)} operations on the accelerator, which may use {sram}")
        lines.append(npu_line(found.npu))
    elif target.accelerator.kind != "none":
        mapped = sum(placement.device != "cpu" for placement in found.placements)
        lines.append(
            f"predicted: {mapped} of {len(found.placements)} operations on the accelerator, "
            f"{found.cached_bytes:,} bytes of parameters on its chip, {found.streamed_bytes:,} streamed for every image"
        )
        lines += compiler_lines(found.to_json()["compiled"], found.compile_command)
    if found.latency is not None:
        lines.append(latency_line(found.latency))
    elif found.faults:
        lines.append("latency: no estimate for a model that does not fit")
    elif found.npu is None:
        lines.append("latency: no estimate, as none is published for this target and a network of similar size")
    for fault in found.faults:
        lines += [f"does not fit: {fault.what}", f"  why: {fault.why}", f"  fix: {fault.fix}"]
    return lines if found.faults else [*lines, "fits"]
