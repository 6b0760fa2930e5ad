"""emb bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emb.cli.options import Json, complete_target


def bundle(
    build: Annotated[Path, typer.Argument(metavar="BUILD", help="A build's directory.")],
    target: Annotated[
        str,
        typer.Option(metavar="NAME|FILE", help="A target's name or .toml file.", autocompletion=complete_target),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where it goes; bundles/<build>-<target> by default.")
    ] = None,
    file: Annotated[
        str | None, typer.Option(metavar="NAME", help="A model of the build; the first int8 one by default.")
    ] = None,
    vendor: Annotated[bool, typer.Option("--vendor", help="Put the wheels in, for a board without a network.")] = False,
    python: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Of the board, 3.11 for example; one of the target's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a directory and a .tar.gz with all that a board needs.

    Model, contract, labels, golden outputs, run.py and its requirements. The same build gives the same bytes.
    """
    from emb.cli.output import print_json, stdout
    from emb.pipeline.bundle import bundle as make_bundle

    made = make_bundle(build, target=target, output_directory=output, file=file, vendor=vendor, python=python)
    if as_json:
        print_json(made.to_json())
        return
    manifest, needs = made.manifest, made.manifest.requires
    python_versions = f", Python {', '.join(needs.python)}" if needs.python else ""
    glibc = f", glibc {needs.glibc}" if needs.glibc else ""
    lines = [
        f"{made.directory}",
        f"{made.archive}  ({made.archive_bytes:,} bytes)",
        f"digest {made.digest}",
        f"{manifest.model} on {manifest.runtime} ({manifest.mode}); golden outputs of "
        + ", ".join(f"{golden.runtime} ({golden.mode})" for golden in manifest.golden),
        f"needs {needs.architecture}{python_versions}{glibc}, {needs.free_bytes:,} bytes",
        *made.notes,
    ]
    for line in lines:
        stdout().print(line, highlight=False, markup=False, soft_wrap=True)
