"""Opens TensorFlow SavedModel folders that have a serving signature. Loads no Keras object from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import EmbError, ExportError, ModelError
from emb.export import onnx, tflite
from emb.export._converter import converting
from emb.export._source_keras import LOGITS_NOTE
from emb.spec.contract import Pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

RAW = Pixels()


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModelSource:
    """A Source from a SavedModel folder; see emb.export.source. `loaded` keeps the variables alive."""

    path: Path
    loaded: Any
    signature: Any
    input_shape: tuple[int, int, int]
    classes: int
    notes: tuple[str, ...]
    model: Any = None
    kind: str = "a SavedModel"
    formats: tuple[str, ...] = ("tflite", "onnx")

    def write(self, path: Path, *, file_format: str, pixels: Pixels = RAW) -> Pixels:
        """See emb.export.source.Source.write; the file takes what the model takes."""
        if file_format not in self.formats:
            raise ExportError(f"{self.path.name} cannot be written as {file_format}", fix="choose tflite or onnx")
        function = _function(self.signature, self.input_shape)
        with converting(f"{self.path.name} could not be converted to {file_format}") as log:
            if file_format == "tflite":
                content = tflite.convert(function)
            else:
                content = onnx.convert(function, name=self.path.name, log=log)
        path.write_bytes(content)
        return pixels

    def predict(self, images: NDArray[np.generic], *, pixels: Pixels = RAW) -> NDArray[np.float32]:
        """See emb.export.source.Source.predict."""
        function = _function(self.signature, self.input_shape)
        real = images.astype(np.float32) * np.float32(pixels.scale) + np.float32(pixels.offset)
        with converting(f"{self.path.name} cannot be run by TensorFlow"):
            return np.concatenate([np.asarray(function(image[np.newaxis])) for image in real])


def open_saved_model(path: Path) -> SavedModelSource:
    """The classifier in a SavedModel folder. Errors as for emb.export.source.open_source."""
    if not (path / "saved_model.pb").is_file():
        raise ModelError(
            f"{path.name} is no SavedModel folder",
            why="it holds no saved_model.pb",
            fix="write it with model.export('folder'), or give the .keras file",
        )
    try:
        with converting(""):
            import tensorflow as tf

            loaded = tf.saved_model.load(str(path))
            signature = loaded.signatures["serving_default"]
    except EmbError as error:
        raise ModelError(
            f"the SavedModel {path.name} cannot be loaded", why=error.why, fix="write it with model.export('folder')"
        ) from error
    inputs = list(signature.structured_input_signature[1].values())
    outputs = list(signature.structured_outputs.values())
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{path.name} has {len(inputs)} inputs and {len(outputs)} outputs",
            why="emb deploys image classifiers: one image in, one row of scores out",
            fix="export the part of the model from the one input to the one output that classifies",
        )
    shape = _image_shape(path, inputs[0])
    scores = _run_once(path, signature, shape)
    is_distribution = scores.min() >= 0 and np.isclose(scores.sum(), 1, atol=1e-3)
    return SavedModelSource(
        path=path,
        loaded=loaded,
        signature=signature,
        input_shape=shape,
        classes=scores.shape[1],
        notes=() if is_distribution else (LOGITS_NOTE,),
    )


def _image_shape(path: Path, spec: Any) -> tuple[int, int, int]:
    shape = None if spec.shape.rank is None else tuple(spec.shape)[1:]
    if spec.dtype.name != "float32" or shape is None or len(shape) != 3 or None in shape:
        raise ModelError(
            f"{path.name} takes {spec.dtype.name} inputs of shape {spec.shape}",
            why="emb needs float32 images of (batch, height, width, channels) with known numbers",
            fix="export the model on a keras.Input(shape=(height, width, channels))",
        )
    return shape


def _run_once(path: Path, signature: Any, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    image = np.random.default_rng(0).uniform(0, 1, (1, *shape)).astype(np.float32)
    with converting(f"{path.name} cannot be run by TensorFlow"):
        scores = np.asarray(_function(signature, shape)(image))
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ModelError(
            f"{path.name} returns {scores.shape[1:]} per image",
            why="a classifier returns one score per class, of shape (batch, classes) with 2 classes or more",
            fix="export the model up to its layer of one score per class",
        )
    return scores


def _function(signature: Any, shape: tuple[int, int, int]) -> Any:
    """The signature as a tf.function of one image, from tensor to tensor."""
    import tensorflow as tf

    name = next(iter(signature.structured_input_signature[1]))
    spec = [tf.TensorSpec((1, *shape), tf.float32, name="image")]

    def scores(image: Any) -> Any:
        return next(iter(signature(**{name: image}).values()))

    return tf.function(scores, input_signature=spec)
