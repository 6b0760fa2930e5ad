"""Judges a file by the validation images. What chooses between models looks at these, never at a test image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.stage import Work
from emb.spec.contract import Pixels

RUNTIME_OF = {"tflite": "litert", "onnx": "onnxruntime"}
"""What judges a file of each format."""


def correct_of(path: Path, work: Work, *, pixels: Pixels) -> int:
    """How many validation images a .tflite or .onnx file gives the right class. Raises RuntimeFailure."""
    from emb.runtimes import open_runtime

    validation = work.context.dataset.validation
    with open_runtime(RUNTIME_OF[path.suffix.removeprefix(".")], model=path) as process:
        scores = process.scores(validation.images, pixels=pixels)
    return int(np.sum(scores.argmax(axis=1) == validation.labels))


def validate(work: Work, *, file_format: str, source: str) -> None:
    """validation.json: how many validation images the file of the stage `source` gives the right class."""
    pixels = Pixels(**read_json(work.file(source, "pixels.json")))
    correct = correct_of(work.file(source, f"model.{file_format}"), work, pixels=pixels)
    total = len(work.context.dataset.validation)
    write_json(work.folder / "validation.json", {"correct": correct, "total": total})
