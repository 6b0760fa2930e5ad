"""emb bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emb.cli.options import DataDirectory, Json, PixelRange


def bench(
    models: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="A .tflite or .onnx file, or a build's directory.")
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR|FILE.npz", help="Test images; those of the file's own build by default."),
    ] = None,
    data_dir: DataDirectory = None,
    runtime: Annotated[str | None, typer.Option(help="Measure on this runtime alone.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for one inference.")] = 1,
    pixels: PixelRange = None,
    crops: Annotated[
        int | None,
        typer.Option(help="Average over crops of each image: 1 (the centre), 5 (and corners), 10 (and mirrored)."),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Measure several models as one that averages their probabilities.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure a model file on every runtime.

    Latency and peak memory; accuracy too, where there are test images.
    """
    from emb.cli.output import print_json, stdout
    from emb.errors import SpecError
    from emb.pipeline.bench import bench as run_bench
    from emb.pipeline.ensemble import ensemble as run_ensemble
    from emb.pipeline.pixels import pixels_of
    from emb.report.text import render_bench, render_ensemble

    if len(models) > 1 and not ensemble:
        raise SpecError(
            "emb bench measures one model or build at a time",
            why=f"{len(models)} were given",
            fix="name one, or add --ensemble to measure them as one",
        )
    result = (run_ensemble if ensemble else run_bench)(
        models if ensemble else models[0],
        data=data,
        data_dir=data_dir,
        runtime=runtime,
        threads=threads,
        pixels=pixels_of(pixels),
        crops=crops,
    )
    if as_json:
        print_json(result.to_json())
    else:
        stdout().print(render_ensemble(result) if ensemble else render_bench(result))
    if result.errors:
        raise typer.Exit(1)
