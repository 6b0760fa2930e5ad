"""emb bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emb.cli.options import DataDirectory, Json, PixelRange


def bench(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite or .onnx file, or a build's directory.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR|FILE.npz", help="Test images; those of the file's own build by default."),
    ] = None,
    data_dir: DataDirectory = None,
    runtime: Annotated[str | None, typer.Option(help="Measure on this runtime alone.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for one inference.")] = 1,
    pixels: PixelRange = None,
    as_json: Json = False,
) -> None:
    """Measure a model file on every runtime.

    Latency and peak memory; accuracy too, where there are test images.
    """
    from emb.cli.output import print_json, stdout
    from emb.pipeline.bench import bench as run_bench
    from emb.pipeline.pixels import pixels_of

    result = run_bench(model, data=data, data_dir=data_dir, runtime=runtime, threads=threads, pixels=pixels_of(pixels))
    if as_json:
        print_json(result.to_json())
    else:
        from emb.report.text import render_bench

        stdout().print(render_bench(result))
    if result.errors:
        raise typer.Exit(1)
