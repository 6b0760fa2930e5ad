"""Weights that no converter sees: the files are as if it had seen them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.export import _inference, onnx, tflite

NAMES = ("lenet", "mobile", "two_groups", "batch_norm_everywhere", "bottleneck")
EXPORT = {"tflite": tflite.export, "onnx": onnx.export}


@pytest.fixture(scope="module")
def with_every_weight_large(built: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """with_every_weight_large(network, format): the file, where no weight counts as small."""
    folder = tmp_path_factory.mktemp("large")

    def write(name: str, file_format: str, place: str = "first") -> Path:
        path = folder / f"{name}-{place}.{file_format}"
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_inference, "LARGE_WEIGHT", 1)
                EXPORT[file_format](built(name), path)
        return path

    return write


@pytest.mark.parametrize("file_format", EXPORT)
@pytest.mark.parametrize("name", NAMES)
def test_same_scores(
    name: str, file_format: str, built: Any, networks: Any, with_every_weight_large: Any, run: Any
) -> None:
    images = networks.images(name, 4)
    expected = np.asarray(built(name)(images.astype(np.float32), training=False))
    scores = run(with_every_weight_large(name, file_format), images)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_same_operations_in_tflite(name: str, float_file: Any, with_every_weight_large: Any, operations: Any) -> None:
    assert operations(with_every_weight_large(name, "tflite")) == operations(float_file(name, "tflite"))


@pytest.mark.parametrize("name", NAMES)
def test_same_operations_in_onnx(name: str, float_file: Any, with_every_weight_large: Any) -> None:
    large, small = (
        onnx.read_model(path).graph for path in (with_every_weight_large(name, "onnx"), float_file(name, "onnx"))
    )
    assert sorted(node.op_type for node in large.node) == sorted(node.op_type for node in small.node)
    assert [value.name for value in large.input] == ["image"]


@pytest.mark.parametrize("file_format", EXPORT)
def test_same_model_gives_same_bytes(file_format: str, with_every_weight_large: Any) -> None:
    first, again = (with_every_weight_large("two_groups", file_format, place) for place in ("first", "again"))
    assert first.read_bytes() == again.read_bytes()


def test_no_batch_norm_remains_behind_a_convolution(float_file: Any, operations: Any) -> None:
    assert not {"MUL", "ADD", "SUB"} & set(operations(float_file("batch_norm_everywhere", "tflite")))
    assert operations(float_file("bottleneck", "tflite")).count("ADD") == 1
    assert "MUL" not in operations(float_file("bottleneck", "tflite"))


def test_grouped_convolutions_are_one_operation_each(float_file: Any) -> None:
    graph = onnx.read_model(float_file("two_groups", "onnx")).graph
    groups = [
        attribute.i
        for node in graph.node
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group"
    ]
    # The second is the window sum of the normalization.
    assert groups == [1, 1, 2, 4]


@pytest.mark.parametrize("file_format", EXPORT)
def test_relu_behind_layers_without_bias(
    file_format: str, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's converter loses it if it has to transpose the kernel; a bias of zeros is none to it."""
    import keras

    monkeypatch.setattr(_inference, "LARGE_WEIGHT", 1)
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", use_bias=False)(keras.layers.Conv2D(4, 3)(image))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(16, activation="relu")(x)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Dense(16, activation="relu", use_bias=False)(x)))
    EXPORT[file_format](model, tmp_path / f"model.{file_format}")
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
    expected = np.asarray(model(images.astype(np.float32)))
    np.testing.assert_allclose(run(tmp_path / f"model.{file_format}", images), expected, rtol=1e-4, atol=1e-3)
    if file_format == "tflite":
        assert tflite.operation_names(tmp_path / "model.tflite").count("FULLY_CONNECTED") == 3
