"""emb build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emb.cli.options import DataDirectory, Json, PixelRange, TrustModel, complete_data, complete_recipe


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
            metavar="SCHEMES", help="float32, float16, dynamic, int8, int8-uint8, int16x8; several with commas."
        ),
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option(metavar="IMAGES", help="Train images to calibrate with."),
    ] = None,
    calibration_method: Annotated[str | None, typer.Option(metavar="METHOD", help="minmax, percentile or mse.")] = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMATS", help="tflite or tflite,onnx."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR|FILE.npz",
            help="A data set's name, a folder with one directory per class, or arrays.",
            autocompletion=complete_data,
        ),
    ] = None,
    data_dir: DataDirectory = None,
    pixels: PixelRange = None,
    trust_model: TrustModel = False,
    epochs: Annotated[int | None, typer.Option(help="Passes over the train images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Its highest value.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override any field: --set train.epochs=3. May be repeated."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; builds/<name>-<schemes> by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train, quantize, export, verify, measure.

    Ends with a table of what each file costs in accuracy, bytes and time, and with a directory that holds them.
    """
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
                "export.formats": formats,
                "input.pixels": pixels,
                "train.epochs": epochs,
                "train.batch_size": batch_size,
                "train.learning_rate": learning_rate,
                "train.seed": seed,
            },
            listener=bars,
        )
    if as_json:
        print_json(report.to_json())
    else:
        from emb.report.text import render

        stdout().print(render(report))
    if report.errors:
        raise typer.Exit(1)
