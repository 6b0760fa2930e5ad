"""Opens somebody else's model and writes its float32 .tflite and .onnx. Trains and quantizes nothing.

| given            | .tflite | .onnx | pixels other than raw        | reference predictions |
|------------------|---------|-------|------------------------------|-----------------------|
| .keras, .h5      | yes     | yes   | become part of the graph     | Keras                 |
| SavedModel       | yes     | yes   | stay with the file's input   | TensorFlow            |
| float .tflite    | yes     | no    | stay with the file's input   | by a runtime          |
| float .onnx      | no      | yes   | stay with the file's input   | by a runtime          |
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from emb.errors import ModelError
from emb.spec.contract import Pixels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Source(Protocol):
    """A float model that was opened and found to be an image classifier.

    kind: what it is, for messages.  formats: file formats that `write` can make of it.
    input_shape: (height, width, channels).  classes: number of scores.
    model: the Keras model, None for other kinds.  notes: what its user should know, whole sentences.
    """

    path: Path
    kind: str
    formats: tuple[str, ...]
    input_shape: tuple[int, int, int]
    classes: int
    model: Any
    notes: tuple[str, ...]

    def write(self, path: Path, *, file_format: str, pixels: Pixels = ...) -> Pixels:
        """Write the float32 file in one of `formats`.

        pixels: how what the model takes follows from a raw pixel. Returns the same for the file that was written:
        (1, 0) if the scaling became part of the graph. Raises ExportError for a format that is not in `formats`.
        """

    def predict(self, images: NDArray[np.generic], *, pixels: Pixels = ...) -> NDArray[np.float32] | None:
        """Scores of the model in its own framework, (images, classes) float32; None if it needs a runtime.

        images: (images, height, width, channels) raw pixels.
        """


def without_softmax(source: Source) -> Source:
    """The source with its final softmax taken off. Raises ModelError for anything but a Keras model."""
    from emb.export._head import without_softmax as cut
    from emb.export._source_keras import KerasSource

    if not isinstance(source, KerasSource):
        raise ModelError(
            f"the softmax of {source.path.name} cannot be dropped",
            why=f"emb changes the layers of Keras models; this is {source.kind}",
            fix='set export.softmax = "keep", or give the Keras model',
        )
    return replace(source, model=cut(source.model))


def load_keras(path: Path, *, trust: bool = False) -> Any:
    """Any Keras model, classifier or not. Raises ModelError if the file is missing, damaged or unsafe."""
    from emb.export._source_keras import load_keras as load

    if not Path(path).exists():
        raise ModelError(f"there is no model at {path}", fix="check the path")
    return load(Path(path), trust=trust)


def open_source(path: Path, *, trust: bool = False) -> Source:
    """The model in a .keras, .h5, .tflite or .onnx file or a SavedModel folder.

    trust: load a Keras model that holds Python code (a Lambda layer), which then runs.
    Raises ModelError if the file is missing, damaged, of another kind, unsafe, quantized, or no image classifier.
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(f"there is no model at {path}", fix="check the path")
    if path.is_dir():
        from emb.export._source_savedmodel import open_saved_model

        return open_saved_model(path)
    suffix = path.suffix.lower()
    if suffix in (".keras", ".h5", ".hdf5"):
        from emb.export._source_keras import open_keras

        return open_keras(path, trust=trust)
    if suffix == ".tflite":
        from emb.export._source_files import open_tflite

        return open_tflite(path)
    if suffix == ".onnx":
        from emb.export._source_files import open_onnx

        return open_onnx(path)
    raise ModelError(
        f"{path.name} is of no known model format",
        why=f"emb knows .keras, .h5, .tflite, .onnx and SavedModel folders, not {suffix or 'files without suffix'}",
        fix="save the model with model.save('model.keras') or export it to ONNX",
    )
