"""Classifies images with an exported model. Trains, converts and measures nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emb.errors import ModelError, RuntimeFailure
from emb.pipeline.deliverable import Deliverable, find
from emb.pipeline.recipes import load_target
from emb.pipeline.scoring import probabilities
from emb.spec.contract import Pixels, TensorContract


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """classes: (label, probability), the most likely first; a model that gives logits gets its softmax here."""

    image: Path
    classes: tuple[tuple[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "image": str(self.image),
            "classes": [{"label": label, "probability": score} for label, score in self.classes],
        }


def classify(
    model: Path,
    images: Iterable[Path],
    *,
    runtime: str | None = None,
    mode: str = "default",
    top: int = 3,
    pixels: Pixels | None = None,
) -> tuple[Answer, ...]:
    """The classes of image files. model: a .tflite or .onnx file, or a build's directory.

    Raises ModelError, DataError (an image that cannot be read, named) or RuntimeFailure.
    """
    from emb.data import read_image
    from emb.runtimes import open_runtime

    deliverable = find(model, pixels=pixels)
    name = runtime or preferred_runtime(deliverable)
    paths = list(images)
    with open_runtime(name, model=deliverable.path, mode=mode) as process:
        shape = image_shape(process.input)
        # All images are read before the first answer: a bad one among them is told at once.
        pictures = np.stack([read_image(path, shape=shape) for path in paths])
        scores = probabilities(process, deliverable, [pictures])
    labels = deliverable.labels or tuple(str(number) for number in range(scores.shape[1]))
    if len(labels) != scores.shape[1]:
        raise ModelError(
            f"{deliverable.path} gives {scores.shape[1]} scores; its contract names {len(labels)} labels",
            fix="build the model again",
        )
    return tuple(_answer(path, row, labels, top) for path, row in zip(paths, scores, strict=True))


def preferred_runtime(deliverable: Deliverable) -> str:
    """The first runtime of the host target that is installed and may run this file."""
    from emb.runtimes import RUNTIMES

    reasons = []
    for name in load_target("host").runtimes:
        runtime = RUNTIMES.get(name)
        if deliverable.format not in runtime.FORMATS:
            continue
        reason = runtime.absence() or runtime.refusal(deliverable.scheme)
        if reason is None:
            return name
        reasons.append(f"{name}: {reason}")
    raise RuntimeFailure(
        f"no runtime here can run {deliverable.path.name}",
        why="\n       ".join(reasons),
        fix="install one of them; emb doctor says how",
    )


def image_shape(tensor: TensorContract) -> tuple[int, int, int]:
    """(height, width, channels) of the images that an input takes. Raises ModelError if it takes no images."""
    shape = tensor.shape[1:]
    if tensor.layout == "NCHW" and len(shape) == 3:
        channels, height, width = shape
    elif tensor.layout == "NHWC" and len(shape) == 3:
        height, width, channels = shape
    elif tensor.layout == "NHWC" and len(shape) == 2:
        (height, width), channels = shape, 1
    else:
        raise ModelError(f"the model's input {tensor.shape} takes no images", fix="give an image classifier")
    return height, width, channels


def _answer(path: Path, scores: Any, labels: tuple[str, ...], top: int) -> Answer:
    order = np.argsort(-scores, kind="stable")[:top]
    return Answer(image=path, classes=tuple((labels[index], float(scores[index])) for index in order))
