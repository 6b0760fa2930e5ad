"""emb run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emb.cli.options import Json, PixelRange


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .tflite or .onnx file, or a build's directory.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="JPEG or PNG files.")],
    runtime: Annotated[str | None, typer.Option(help="litert, tflite-runtime or onnxruntime.")] = None,
    mode: Annotated[str, typer.Option(help="default, or reference (TFLite's reference kernels).")] = "default",
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes to print.")] = 3,
    pixels: PixelRange = None,
    as_json: Json = False,
) -> None:
    """Classify images with an exported model.

    Prints the most likely classes of each image with their probabilities.
    """
    from emb.cli.output import print_json, stdout
    from emb.pipeline.classify import classify
    from emb.pipeline.pixels import pixels_of

    answers = classify(model, images, runtime=runtime, mode=mode, top=top, pixels=pixels_of(pixels))
    if as_json:
        print_json([answer.to_json() for answer in answers])
        return
    console = stdout()
    for answer in answers:
        classes = "  ".join(f"{label} {100 * score:.1f} %" for label, score in answer.classes)
        console.print(f"{answer.image}: {classes}", markup=False, highlight=False, soft_wrap=True)
