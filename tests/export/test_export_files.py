"""The float32 files: equal to Keras, clean, static, quiet, the same on every run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.errors import ExportError, ModelError
from emb.export import onnx, tflite

NAMES = (
    *("lenet", "batch_norm", "residual", "inception", "mobile", "pre_activation", "leaky", "logits"),
    *("two_groups", "batch_norm_everywhere", "bottleneck"),
)


@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
@pytest.mark.parametrize("name", NAMES)
def test_file_gives_what_keras_gives(
    name: str, file_format: str, built: Any, networks: Any, float_file: Any, run: Any
) -> None:
    images = networks.images(name, 4)
    expected = np.asarray(built(name)(images.astype(np.float32), training=False))
    np.testing.assert_allclose(run(float_file(name, file_format), images), expected, rtol=1e-4, atol=1e-4)


def test_lenet_as_tflite_begins_with_the_convolution(float_file: Any, operations: Any) -> None:
    assert operations(float_file("lenet", "tflite")) == [
        "CONV_2D",
        "MAX_POOL_2D",
        "CONV_2D",
        "MAX_POOL_2D",
        "RESHAPE",
        "FULLY_CONNECTED",
        "FULLY_CONNECTED",
        "SOFTMAX",
    ]


def test_lenet_as_onnx_begins_with_the_convolution(float_file: Any) -> None:
    graph = onnx.read_model(float_file("lenet", "onnx")).graph
    assert [node.op_type for node in graph.node] == [
        *("Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool"),
        *("Transpose", "Reshape", "Gemm", "Relu", "Gemm", "Softmax"),
    ]


def test_batch_normalization_is_in_the_convolutions(float_file: Any, operations: Any) -> None:
    assert operations(float_file("batch_norm", "tflite")) == [
        "CONV_2D",
        "CONV_2D",
        "MEAN",
        "FULLY_CONNECTED",
        "SOFTMAX",
    ]


def test_borders_are_read_from_the_files(float_file: Any) -> None:
    given, scores = tflite.border(float_file("lenet", "tflite"))
    assert (given.name, given.shape, given.dtype, given.layout) == ("image", (1, 28, 28, 1), "float32", "NHWC")
    assert (scores.shape, scores.dtype, scores.layout, scores.scale) == ((1, 10), "float32", "NC", None)
    given, scores = onnx.border(float_file("lenet", "onnx"))
    assert (given.name, given.shape, given.dtype, given.layout) == ("image", (1, 1, 28, 28), "float32", "NCHW")
    assert (scores.name, scores.shape, scores.dtype, scores.layout) == ("scores", (1, 10), "float32", "NC")


@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
def test_same_model_gives_same_bytes_and_prints_nothing(
    file_format: str, built: Any, float_file: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = float_file("lenet", file_format).read_bytes()
    capfd.readouterr()
    again = tmp_path / f"again.{file_format}"
    {"tflite": tflite, "onnx": onnx}[file_format].export(built("lenet"), again)
    assert again.read_bytes() == first
    assert capfd.readouterr() == ("", "")


_IN_A_PROCESS = """
import sys
from pathlib import Path
import keras
from emb.export import onnx, tflite
model = keras.saving.load_model(sys.argv[1])
tflite.export(model, Path(sys.argv[2] + ".tflite"))
onnx.export(model, Path(sys.argv[2] + ".onnx"))
"""


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_write_the_same_bytes(built: Any, tmp_path: Path) -> None:
    built("inception").save(tmp_path / "model.keras")
    digests = []
    for seed in ("1", "2"):
        stem = str(tmp_path / f"from-{seed}")
        command = [sys.executable, "-c", _IN_A_PROCESS, str(tmp_path / "model.keras"), stem]
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(tflite.__file__).parents[2]), "PATH": ""}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        digests.append([hashlib.sha256(Path(stem + end).read_bytes()).hexdigest() for end in (".tflite", ".onnx")])
    assert digests[0] == digests[1]


def test_a_model_in_another_precision_is_exported_in_float32(tmp_path: Path, run: Any) -> None:
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, dtype="mixed_bfloat16")(image)
    x = keras.layers.Dense(3, dtype="mixed_bfloat16")(keras.layers.Flatten()(x))
    tflite.export(keras.Model(image, x), tmp_path / "model.tflite")
    kinds = {tflite.type_name(tensor.type) for tensor in tflite.read_graph(tmp_path / "model.tflite").tensors}
    assert kinds == {"float32", "int32"}


def _fourier() -> Any:
    import keras

    @keras.saving.register_keras_serializable("tests")
    class Fourier(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            real, _ = keras.ops.fft2((x, keras.ops.zeros_like(x)))
            return real

    image = keras.Input((8, 8, 1))
    x = Fourier()(image)
    return keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name="fourier")


def test_what_tflite_cannot_do_is_an_error_with_the_converters_words(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        tflite.export(_fourier(), tmp_path / "model.tflite")
    assert caught.value.what == "the model fourier could not be converted to TFLite"
    assert "FFT2D" in caught.value.why
    assert caught.value.fix == "replace the layer that the converter names by one with a TFLite operation"
    assert not (tmp_path / "model.tflite").exists()


def test_what_onnx_cannot_do_is_an_error_with_the_operation(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        onnx.export(_fourier(), tmp_path / "model.onnx")
    assert caught.value.what == "the model fourier could not be converted to ONNX"
    assert caught.value.why.splitlines()[0] == "no ONNX operation for Complex, FFT2D, Real"
    assert not (tmp_path / "model.onnx").exists()


def test_a_model_without_fixed_size_is_refused(tmp_path: Path) -> None:
    import keras

    image = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    model = keras.Model(image, x, name="free")
    with pytest.raises(ModelError) as caught:
        tflite.export(model, tmp_path / "model.tflite")
    assert str(caught.value) == (
        "the model free takes inputs of shape (?, ?, ?, 3)\n"
        "  why: a deployed graph is static: it needs (batch, height, width, channels) with known numbers\n"
        "  fix: rebuild the model on keras.Input(shape=(height, width, channels)) and load its weights"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not a model", "it lacks the mark TFL3; the file is of another kind, cut off or damaged"),
        (b"\x18\x00\x00\x00TFL3", "its tables do not fit together (error); the file is of another kind"),
    ],
)
def test_a_damaged_tflite_is_named(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.tflite is not a readable \.tflite file") as caught:
        tflite.border(path)
    assert why in caught.value.why


def test_a_damaged_onnx_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"model\.onnx is not a readable \.onnx file"):
        onnx.border(path)
