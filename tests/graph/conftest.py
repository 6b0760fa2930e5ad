"""Real models, converted once a session: LeNet-5 and a network of many kinds of layers, as TFLite and ONNX."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _randomize(model: Any) -> Any:
    """Every weight another number: converters drop biases that are zero, and share equal ones."""
    rng = np.random.default_rng(7)
    model.set_weights([rng.uniform(0.01, 0.1, weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="session")
def lenet() -> Any:
    """LeNet-5 with 61,706 parameters, on raw pixels."""
    from keras import Input, Sequential, layers

    return _randomize(
        Sequential(
            [
                Input((28, 28, 1), name="pixels"),
                layers.Rescaling(1 / 255, name="rescale"),
                layers.Conv2D(6, 5, padding="same", activation="relu", name="conv1"),
                layers.MaxPooling2D(2, name="pool1"),
                layers.Conv2D(16, 5, activation="relu", name="conv2"),
                layers.MaxPooling2D(2, name="pool2"),
                layers.Flatten(name="flatten"),
                layers.Dense(120, activation="relu", name="dense1"),
                layers.Dense(84, activation="relu", name="dense2"),
                layers.Dense(10, activation="softmax", name="scores"),
            ],
            name="lenet",
        )
    )


@pytest.fixture(scope="session")
def mixed() -> Any:
    """Branches, a depthwise, a separable, a grouped and a transposed convolution, batch normalization, a mean."""
    from keras import Input, Model, layers

    image = Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = layers.SeparableConv2D(8, 3, padding="same", activation="relu", name="separable")(y)
    x = layers.Add(name="residual")([x, y])
    left = layers.Conv2D(8, 5, strides=2, padding="same", name="left")(x)
    right = layers.MaxPooling2D(3, 2, padding="same", name="right")(x)
    x = layers.Concatenate(name="concat")([left, right])
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="transposed")(x)
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Dropout(0.2, name="drop")(x))
    return _randomize(Model(image, layers.Dense(5, name="scores")(x), name="mixed"))


@pytest.fixture(scope="session")
def models(lenet: Any, mixed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of model files."""
    folder = tmp_path_factory.mktemp("models")
    with warnings.catch_warnings():
        # TFLiteConverter, of every model with integer inputs and outputs.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected", UserWarning)
        for scheme in ("float32", "float16", "int8", "uint8"):
            (folder / f"lenet-{scheme}.tflite").write_bytes(_to_tflite(lenet, scheme))
        for scheme in ("float32", "int8"):
            (folder / f"mixed-{scheme}.tflite").write_bytes(_to_tflite(mixed, scheme))
        (folder / "lenet-open-batch.tflite").write_bytes(_to_tflite(lenet, "open-batch"))
    lenet.save(folder / "lenet.keras")
    _to_onnx(lenet, folder / "lenet-float32.onnx")
    _quantize_onnx(folder / "lenet-float32.onnx", folder)
    return folder


def _to_tflite(model: Any, scheme: str) -> bytes:
    import tensorflow as tf

    shape = (1, *model.input_shape[1:])
    if scheme == "open-batch":
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
    else:
        function = tf.function(lambda x: model(x, training=False))
        concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32, name="pixels"))
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if scheme in ("float16", "int8", "uint8"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme in ("int8", "uint8"):
        images = np.random.default_rng(0).uniform(0, 255, (4, *shape)).astype(np.float32)
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(scheme)
    content: bytes = converter.convert()
    return content


def _to_onnx(model: Any, path: Path) -> None:
    import tensorflow as tf
    import tf2onnx

    from emb.export._onnx_tidy import tidy

    signature = [tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="pixels")]
    function = tf.function(lambda pixels: model(pixels, training=False))
    converted, _ = tf2onnx.convert.from_function(
        function, input_signature=signature, opset=17, inputs_as_nchw=["pixels"]
    )
    # The order of what tf2onnx writes follows Python's string hashes, and no golden file could.
    tidy(converted, output="scores")
    path.write_bytes(converted.SerializeToString(deterministic=True))


def _quantize_onnx(source: Path, folder: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.images: Iterator[Any] = iter(
                [{"pixels": rng.uniform(0, 255, (1, 1, 28, 28)).astype(np.float32)} for _ in range(4)]
            )

        def get_next(self) -> Any:
            return next(self.images, None)

    for name, quant_format in (("qdq", QuantFormat.QDQ), ("qoperator", QuantFormat.QOperator)):
        quantize_static(
            source,
            folder / f"lenet-int8-{name}.onnx",
            Images(),
            quant_format=quant_format,
            per_channel=name == "qdq",
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with tests/golden/graph/NAME; `make golden` writes the file anew."""

    def compare(name: str, text: str) -> None:
        text = re.sub(r"__\d+", "__N", text)  # tf2onnx numbers its names anew in every process
        path = Path(__file__).parents[1] / "golden" / "graph" / name
        if os.environ.get("EMB_REWRITE_GOLDEN") == "1":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text

    return compare
