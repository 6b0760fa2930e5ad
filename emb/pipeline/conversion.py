"""One Keras model as one .tflite, as the build's own stages make it: for what pruning measures. Decides no scheme."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from emb.pipeline.measuring import Timed, medians_in_turn_ns, time_file
from emb.pipeline.pixels import PIXELS
from emb.pipeline.stage import Work
from emb.spec.contract import Pixels
from emb.spec.scheme import Scheme

if TYPE_CHECKING:
    from emb.export.source import Source

# What is converted, measured and thrown away needs no good ranges: they decide neither size nor speed.
FEW_IMAGES = 16
_PAIRS = 3


def converted(source: Source, path: Path, work: Work, *, scheme: Scheme, images: int | None = None) -> Pixels:
    """Write the source as a .tflite in `scheme`; how its input follows from a raw pixel.

    images: so many of the calibration images, all by default. Needs the stage "calibration" if the scheme does.
    """
    from emb.export.source import without_softmax
    from emb.quantize import quantize_tflite

    recipe = work.context.recipe
    if recipe.export.softmax == "drop":
        source = without_softmax(source)
    with tempfile.TemporaryDirectory(prefix="emb-float-") as folder:
        plain = Path(folder) / "model.tflite"
        pixels = source.write(plain, file_format="tflite", pixels=PIXELS[recipe.input.pixels])
        if scheme.name == "float32":
            path.write_bytes(plain.read_bytes())
            return pixels
        quantize_tflite(
            plain,
            path,
            scheme=scheme,
            calibration=np.load(work.file("calibration", "calibration.npy"))[:images] if scheme.calibrated else None,
            method=recipe.quantize.calibration_method,
            pixels=pixels,
            lanes=recipe.quantize.lanes,
            maps=recipe.quantize.maps,
        )
    return pixels


def time_share(path: Path, whole: Path, work: Work, *, pixels: tuple[Pixels, Pixels]) -> float:
    """The time of one inference of `path` as a share of that of `whole`, on one thread of LiteRT, of the golden images.

    Pairs of fresh processes, the two files in turn in each: what disturbs one disturbs the other, and what disturbs
    one pair is outvoted.
    """
    golden = np.load(work.file("data", "golden.npy"))
    one, other = (
        Timed(path=file, pixels=own, runtime="litert") for file, own in zip((path, whole), pixels, strict=True)
    )
    pairs = [medians_in_turn_ns((one, other), golden) for _ in range(_PAIRS)]
    return median(its / others for its, others in pairs)


def median_us(path: Path, work: Work, *, pixels: Pixels) -> float:
    """The median time of one inference on one thread of LiteRT, of the golden images in turn."""
    golden = np.load(work.file("data", "golden.npy"))
    timing = time_file(path, golden, runtime="litert", mode="default", threads=1, pixels=pixels)
    return timing.summary.median_us
