"""emb train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emb.cli.options import (
    Assignments,
    Backend,
    BatchSize,
    Data,
    DataDirectory,
    Devices,
    Epochs,
    Json,
    LearningRate,
    PixelRange,
    Seed,
    SkipBad,
    TrustModel,
    Weights,
    complete_recipe,
)


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|FILE",
            help="A recipe's name, a recipe file (.toml), or a Keras model to train on: .keras, .h5.",
            autocompletion=complete_recipe,
        ),
    ],
    data: Data = None,
    data_dir: DataDirectory = None,
    skip_bad: SkipBad = False,
    pixels: PixelRange = None,
    trust_model: TrustModel = False,
    weights: Weights = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    assignments: Assignments = None,
    backend: Backend = None,
    devices: Devices = None,
    gradients: Annotated[
        bool, typer.Option("--gradients", help="Record and draw the 2-norm of the gradient per layer and step.")
    ] = False,
    loss_surface: Annotated[
        bool, typer.Option("--loss-surface", help="Draw the loss around the trained model, along two directions.")
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write event files there, for TensorBoard to follow.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; builds/<name>-train by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model, and show how it went.

    Writes the Keras model, its history and its curves. An emb build of the same recipe then finds it trained.
    """
    from emb.cli.output import print_json, stdout
    from emb.cli.progress import Bars
    from emb.pipeline.training import train as run_training

    with Bars() as bars:
        report = run_training(
            recipe,
            data=data,
            data_dir=data_dir,
            trust_model=trust_model,
            output_directory=output,
            assignments=assignments or (),
            overrides={
                "data.skip_bad": skip_bad or None,
                "model.weights": weights,
                "input.pixels": pixels,
                "train.epochs": epochs,
                "train.batch_size": batch_size,
                "train.learning_rate": learning_rate,
                "train.seed": seed,
            },
            listener=bars,
            backend=backend,
            devices=devices,
            gradients=gradients,
            loss_surface=loss_surface,
            tensorboard=tensorboard,
        )
    if as_json:
        print_json(report.to_json())
    else:
        from emb.report.training import render_training

        stdout().print(render_training(report))
