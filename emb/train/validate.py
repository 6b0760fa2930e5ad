"""What a model says of a split, and whether model and data fit each other. Knows no training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import DataError, ModelError
from emb.spec.contract import Pixels
from emb.spec.dataset import Split
from emb.train.batches import ahead, as_expected

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

_MOST_IMAGES = 500
_MOST_PIXELS = _MOST_IMAGES * 64 * 64


def predict(model: keras.Model, images: Any, *, pixels: Pixels) -> NDArray[np.float32]:
    """(n, classes) scores of the first output, in batches of one size, as every other size would be compiled anew.

    images: (n, height, width, channels) uint8, an array or anything that gives one for a slice.
    """
    count, height, width, _ = images.shape
    size = _batch_size(count, height=height, width=width)

    def make(number: int) -> tuple[int, NDArray[Any]]:
        batch = images[number * size : (number + 1) * size]
        padded = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0)))
        return len(batch), as_expected(padded, pixels)

    scores = []
    for filled, batch in ahead(make, -(-count // size)):
        answer = model.predict_on_batch(batch)
        first = answer[0] if isinstance(answer, list | tuple) else answer
        scores.append(np.asarray(first)[:filled])
    return np.concatenate(scores)


def accuracy(model: keras.Model, split: Split, *, pixels: Pixels) -> float:
    """Share of the split's images whose highest score is that of their label."""
    return float(np.mean(np.argmax(predict(model, split.images, pixels=pixels), axis=1) == split.labels))


def check_data(train: Split, validation: Split) -> None:
    """Raises DataError for an empty split."""
    for name, split in (("train", train), ("validation", validation)):
        if not len(split):
            raise DataError(
                f"the {name} split is empty",
                fix="give more images, or another data.validation_fraction",
            )


def check_model(model: keras.Model, *, train: Split, validation: Split, pixels: Pixels) -> None:
    """Raises ModelError unless the model turns the images into one probability for each class that occurs."""
    shape = tuple(train.images.shape[1:])
    wanted = tuple(model.input_shape[1:])
    if len(wanted) != 3 or any(side not in (None, given) for side, given in zip(wanted, shape, strict=True)):
        raise ModelError(
            f"the model takes inputs of shape {wanted}; the images have {shape}",
            fix="set input.shape to the model's height, width and channels",
        )
    classes = int(max(train.labels.max(), validation.labels.max())) + 1
    for output in model.outputs:
        sizes = tuple(output.shape[1:])
        if len(sizes) != 1 or sizes[0] < classes:
            raise ModelError(
                f"the model's output has shape {sizes}; the labels need {classes} classes",
                fix="give the model whose classes are those of the data set",
            )
    scores = predict(model, validation.images[:1], pixels=pixels)
    if scores.min() < 0 or not np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        raise ModelError(
            "the model's output is not a probability for each class",
            why=f"the scores of an image sum to {float(scores.sum()):.3g}, not to 1",
            fix="let the model end in a softmax",
        )


def _batch_size(count: int, *, height: int, width: int) -> int:
    """So many images that the largest feature maps fit in memory; a multiple of the devices they are spread on."""
    import keras

    size = min(count, max(_MOST_PIXELS // (height * width), 1), _MOST_IMAGES)
    distribution = keras.distribution.distribution()
    devices = 1 if distribution is None else int(np.prod(distribution.device_mesh.shape))
    return -(-size // devices) * devices
