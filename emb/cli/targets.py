"""emb targets."""

from __future__ import annotations

from dataclasses import asdict

from emb.cli.options import Json


def targets(as_json: Json = False) -> None:
    """List the machines that emb knows."""
    from emb.cli.output import print_json, stdout
    from emb.pipeline.recipes import load_target, target_names

    known = [load_target(name) for name in target_names()]
    if as_json:
        print_json([asdict(target) for target in known])
        return
    from rich.table import Table

    table = Table("target", "machine", "RAM MiB", "flash MiB", "runs", box=None, pad_edge=False)
    for target in known:
        accelerator = () if target.accelerator.kind == "none" else (target.accelerator.kind,)
        runs = ", ".join((*accelerator, *target.runtimes)) or "TensorFlow Lite Micro"
        table.add_row(target.name, target.summary, _mebibytes(target.ram_bytes), _mebibytes(target.flash_bytes), runs)
    stdout().print(table)


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:g}"[:5] if count else "–"
