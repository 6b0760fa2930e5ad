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


def complete_target(incomplete: str) -> list[str]:
    """Shell completion: targets that begin with what was typed."""
    from emb.pipeline.recipes import target_names

    return [name for name in target_names() if name.startswith(incomplete)]


def complete_data(incomplete: str) -> list[str]:
    """Shell completion: data sets that begin with what was typed."""
    from emb.data import DATA

    return [name for name in DATA.names() if name.startswith(incomplete)]


Forms = Annotated[
    bool,
    typer.Option("--forms", help="Take the recipe in the forms that the target's accelerator needs; says which."),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on stdout and nothing else.", callback=_note_json),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|DIR|FILE.npz",
        help="A data set's name, a folder with one directory per class, or arrays.",
        autocompletion=complete_data,
    ),
]
DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where data sets lie; searched before $EMB_DATA_DIR and the cache.",
    ),
]
Classes = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Of a recipe's model, so that its data set need not be there."),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out images that cannot be decoded; the report names them.")
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
Epochs = Annotated[int | None, typer.Option(help="Passes over the train images.")]
BatchSize = Annotated[int | None, typer.Option(help="Images per step, over all devices.")]
LearningRate = Annotated[float | None, typer.Option(help="Its highest value.")]
Seed = Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")]
Prune = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD:GOAL",
        help="channels:0.5 (of the MACs go), channels:latency=3x, channels:bytes=30kB, blocks with the same goals, "
        "magnitude:0.9, magnitude:2:4, "
        "cluster:16, or none.",
    ),
]
PruneCriterion = Annotated[
    str | None, typer.Option(metavar="NAME", help="What a channel is worth: taylor, l1, l2 or bn-scale.")
]
PruneSteps = Annotated[
    int | None, typer.Option(metavar="N", help="Remove channels in so many steps, each followed by training.")
]
PruneEpochs = Annotated[int | None, typer.Option(metavar="N", help="Passes over the train images after each step.")]
Distill = Annotated[bool, typer.Option("--distill", help="Train the pruned model on what the unpruned one says, too.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any field: --set train.epochs=3. May be repeated."),
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


Host = Annotated[
    str | None,
    typer.Option(metavar="HOST", help="An alias of your ssh configuration, user@name, or ssh://user@name:port."),
]
SshConfig = Annotated[
    Path | None,
    typer.Option("--ssh-config", metavar="FILE", envvar="EMB_SSH_CONFIG", help="For ssh, instead of your own."),
]
