"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _note_json(context: typer.Context, value: bool) -> bool:
    # Errors are printed by the command group, which has to know.
    root = context.find_root()
    root.obj = {**(root.obj or {}), "json": value}
    return value


def complete_recipe(incomplete: str) -> list[str]:
    """Shell completion: recipes that begin with what was typed."""
    from emb.pipeline.recipes import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


def complete_data(incomplete: str) -> list[str]:
    """Shell completion: data sets that begin with what was typed."""
    from emb.data import DATA

    return [name for name in DATA.names() if name.startswith(incomplete)]


Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on stdout and nothing else.", callback=_note_json),
]
DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where data sets lie; searched before $EMB_DATA_DIR and the cache.",
    ),
]
TrustModel = Annotated[
    bool, typer.Option("--trust-model", help="Load a model that carries Python code (Lambda layers).")
]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="What Keras trains on: tensorflow or jax; KERAS_BACKEND by default, else tensorflow.",
    ),
]
Devices = Annotated[
    str | None,
    typer.Option("--devices", metavar="N|all", help="GPUs, or CPU devices, that share each batch. Needs jax."),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="imagenet|FILE",
        help="What the network begins with: the published ImageNet weights, or a .keras file of the same architecture.",
    ),
]
PixelRange = Annotated[
    str | None,
    typer.Option(
        "--pixels",
        metavar="RANGE",
        help="What the model's first layer expects: raw (0..255), 0..1 or -1..1. Only for models of your own.",
    ),
]


def epochs_of(epochs: int | None, *, no_train: bool) -> int | None:
    """What --epochs and --no-train say together. Raises SpecError if they contradict each other."""
    if no_train and epochs:
        from emb.errors import SpecError

        raise SpecError(f"--no-train and --epochs {epochs} contradict each other", fix="give one of them")
    return 0 if no_train else epochs
