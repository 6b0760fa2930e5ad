"""Opens .keras and .h5 files. Looks for Python code in them before Keras gets to load it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import EmbError, ExportError, ModelError
from emb.export import onnx, tflite
from emb.export._converter import converting
from emb.export._inference import image_shape
from emb.spec.contract import Pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

RAW = Pixels()
# Of a batch's pixels. The first activations of a VGG are 21 times as many: 3.3 GB for 256 images of 224x224.
_NUMBERS_AT_ONCE = 1 << 22
LOGITS_NOTE = "the model returns scores that are no probabilities (logits); the highest still names the class"


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasSource:
    """A Source from a .keras or .h5 file; see emb.export.source."""

    path: Path
    model: Any
    input_shape: tuple[int, int, int]
    classes: int
    notes: tuple[str, ...]
    kind: str = "a Keras model"
    formats: tuple[str, ...] = ("tflite", "onnx")

    def write(self, path: Path, *, file_format: str, pixels: Pixels = RAW) -> Pixels:
        """See emb.export.source.Source.write; the scaling becomes part of the graph."""
        if file_format not in self.formats:
            raise ExportError(f"{self.path.name} cannot be written as {file_format}", fix="choose tflite or onnx")
        export = {"tflite": tflite.export, "onnx": onnx.export}[file_format]
        export(self.model, path, pixels=pixels)
        return RAW

    def predict(self, images: NDArray[np.generic], *, pixels: Pixels = RAW) -> NDArray[np.float32]:
        """See emb.export.source.Source.predict."""
        real = images.astype(np.float32) * np.float32(pixels.scale) + np.float32(pixels.offset)
        with converting(f"{self.path.name} cannot be run by Keras"):
            batch_size = max(1, min(256, _NUMBERS_AT_ONCE // int(np.prod(self.input_shape))))
            return np.asarray(self.model.predict(real, batch_size=batch_size, verbose=0), np.float32)


def open_keras(path: Path, *, trust: bool) -> KerasSource:
    """The classifier in a .keras or .h5 file. Errors as for emb.export.source.open_source."""
    model = _without_auxiliaries(load_keras(path, trust=trust))
    shape = image_shape(model)
    scores = tuple(model.outputs[0].shape)
    if len(scores) != 2 or scores[1] is None or scores[1] < 2:
        raise ModelError(
            f"{path.name} returns {scores[1:]} per image",
            why="a classifier returns one score per class, of shape (batch, classes) with 2 classes or more",
            fix="end the model in Dense(classes), behind Flatten or GlobalAveragePooling2D",
        )
    notes = () if _gives_probabilities(model, shape) else (LOGITS_NOTE,)
    return KerasSource(path=path, model=model, input_shape=shape, classes=int(scores[1]), notes=notes)


def _without_auxiliaries(model: Any) -> Any:
    """The model of its first output alone if the others are called auxiliary…: they only helped in training."""
    names = list(getattr(model, "output_names", None) or [])
    if len(names) < 2 or not all(name.startswith("auxiliary") for name in names[1:]):
        return model
    import keras

    return keras.Model(model.inputs, model.outputs[0], name=model.name)


def load_keras(path: Path, *, trust: bool) -> Any:
    """Any Keras model in a .keras or .h5 file; its code is looked for before Keras gets to load it."""
    config = _archived_config(path) if path.suffix.lower() == ".keras" else _hdf5_config(path)
    if not trust:
        _refuse_code(path, config)
    return _load(path, trust=trust)


def _archived_config(path: Path) -> Any:
    fault = "it is no zip archive, which every .keras file is; it may be cut off or of another kind"
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
                if damaged is None:
                    return json.loads(archive.read("config.json"))
                fault = f"its part {damaged} is damaged"
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            fault = f"its archive has no readable config.json ({error})"
    raise ModelError(
        f"{path.name} is not a readable Keras model",
        why=fault,
        fix="save it again with model.save('model.keras'), or copy it again",
    )


def _hdf5_config(path: Path) -> Any:
    import h5py

    fault = "it is no HDF5 file; it may be cut off or of another kind"
    if h5py.is_hdf5(path):
        try:
            with h5py.File(path, "r") as file:
                if "model_config" in file.attrs:
                    return json.loads(file.attrs["model_config"])
                fault = "it holds no architecture, only weights"
        except (OSError, ValueError) as error:
            fault = str(error).splitlines()[0]
    raise ModelError(
        f"{path.name} is not a readable Keras model",
        why=fault,
        fix="save the whole model with model.save('model.keras'), or copy it again",
    )


def _refuse_code(path: Path, config: Any) -> None:
    names = [name for kind, name in _objects(config) if kind in ("Lambda", "__lambda__", "function")]
    if names:
        raise ModelError(
            f"{path.name} holds Python code",
            why=f"its layer {names[0]!r} is a Lambda, and loading it runs whatever code its author put there",
            fix="replace the layer by one of Keras's own, or pass --trust-model if you know the author",
        )


def _objects(config: Any) -> Iterator[tuple[str, str]]:
    """(class name, layer name) of every object in a Keras configuration, at any depth."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            inner = config.get("config")
            name = inner.get("name") if isinstance(inner, dict) else None
            yield config["class_name"], str(name or config["class_name"])
        for value in config.values():
            yield from _objects(value)
    elif isinstance(config, list):
        for value in config:
            yield from _objects(value)


def _load(path: Path, *, trust: bool) -> Any:
    try:
        with converting(""):
            import keras

            import emb.layers  # noqa: F401  registers the layers that Keras lacks

            return keras.saving.load_model(path, compile=False, safe_mode=not trust)
    except EmbError as error:
        raise ModelError(
            f"{path.name} cannot be loaded by Keras {version('keras')}",
            why=error.why,
            fix="a layer class of your own must be replaced by Keras's layers; otherwise save the model again",
        ) from error


def _gives_probabilities(model: Any, shape: tuple[int, int, int]) -> bool:
    """Whether it ends in a softmax, or rows sum to 1 on noisy images, a test that logits pass by no accident."""
    import keras

    history = getattr(model.outputs[0], "_keras_history", None)
    last = history.operation if history else None
    # The usual case, without the seconds that a large network takes to be traced and run.
    if isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax:
        return True
    noise = np.random.default_rng(0).uniform(0, 1, (4, *shape))
    with converting("the model cannot be run by Keras"):
        scores = np.asarray(model.predict(noise.astype(np.float32), verbose=0))
    return bool(scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-3))
