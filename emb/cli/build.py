"""emb build."""

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
    Distill,
    Epochs,
    Forms,
    Json,
    LearningRate,
    PixelRange,
    Prune,
    PruneCriterion,
    PruneEpochs,
    PruneSteps,
    Seed,
    SkipBad,
    TrustModel,
    Weights,
    complete_recipe,
    complete_target,
)


def build(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|FILE",
            help="A recipe's name, a recipe file (.toml), or a model: .keras, .h5, SavedModel, .tflite, .onnx.",
            autocompletion=complete_recipe,
        ),
    ],
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMES",
            help="float32, float16, dynamic, int8, int8-qat, int8-uint8, int16x8, int4w; several with commas.",
        ),
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option(metavar="IMAGES", help="Train images to calibrate with."),
    ] = None,
    calibration_method: Annotated[str | None, typer.Option(metavar="METHOD", help="minmax, percentile or mse.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Repair int8 files that lose more accuracy on validation images; an error if nothing helps.",
        ),
    ] = None,
    keep_float: Annotated[
        bool | None,
        typer.Option(
            "--keep-float/--no-keep-float",
            help="Whether a repair may leave the worst layers in float32; else only for a --target that runs them.",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMATS", help="tflite or tflite,onnx."),
    ] = None,
    data: Data = None,
    data_dir: DataDirectory = None,
    skip_bad: SkipBad = False,
    pixels: PixelRange = None,
    trust_model: TrustModel = False,
    weights: Weights = None,
    epochs: Epochs = None,
    no_train: Annotated[
        bool, typer.Option("--no-train", help="Keep the weights that the network begins with: random, or --weights.")
    ] = False,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    prune: Prune = None,
    prune_criterion: PruneCriterion = None,
    prune_steps: PruneSteps = None,
    prune_epochs: PruneEpochs = None,
    distill: Distill = False,
    assignments: Assignments = None,
    backend: Backend = None,
    devices: Devices = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Build for a target; refused, before the training, if the model does not fit it.",
            autocompletion=complete_target,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build what does not fit the target, and let the report say so.")
    ] = False,
    forms: Forms = False,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; builds/<name>-<schemes> by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train, prune, quantize, export, verify, measure.

    Ends with a table of what each file costs in accuracy, bytes and time, and with a directory that holds them.
    """
    from emb.cli.options import epochs_of
    from emb.cli.output import print_json, stdout
    from emb.cli.progress import Bars
    from emb.pipeline.build import build as run_build

    with Bars() as bars:
        report = run_build(
            recipe,
            data=data,
            data_dir=data_dir,
            trust_model=trust_model,
            output_directory=output,
            assignments=assignments or (),
            overrides={
                "quantize.schemes": quantize,
                "quantize.calibration_images": calibration,
                "quantize.calibration_method": calibration_method,
                "repair.max_drop": max_drop,
                "repair.keep_float": None if keep_float is None else "allow" if keep_float else "never",
                "export.formats": formats,
                "data.skip_bad": skip_bad or None,
                "model.weights": weights,
                "input.pixels": pixels,
                "train.epochs": epochs_of(epochs, no_train=no_train),
                "train.batch_size": batch_size,
                "train.learning_rate": learning_rate,
                "train.seed": seed,
                "prune": prune,
                "prune.criterion": prune_criterion,
                "prune.steps": prune_steps,
                "prune.epochs": prune_epochs,
                "prune.distill": distill or None,
            },
            listener=bars,
            backend=backend,
            devices=devices,
            target=target,
            force=force,
            forms=forms,
        )
    if as_json:
        print_json(report.to_json())
    else:
        from emb.report.text import render

        stdout().print(render(report))
    if report.errors:
        raise typer.Exit(1)
