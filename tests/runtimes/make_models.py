"""Writes small models into the folder named on the command line; run as a child, so that no test imports TensorFlow.

One network, seeded random weights: 12x12 grey -> conv 3x3, 8 maps, ReLU -> max-pool 2 -> dense 64, ReLU -> dense 4.
TFLite in each scheme; ONNX as float32 and as int8 with QDQ; and a few files that emb cannot or must not run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import onnx
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(7)
KERNEL = rng.normal(0, 0.3, (3, 3, 1, 8)).astype(np.float32)
HIDDEN = rng.normal(0, 0.1, (200, 64)).astype(np.float32)
SCORES = rng.normal(0, 0.2, (64, 4)).astype(np.float32)
SAMPLES = rng.integers(0, 256, (50, 12, 12, 1)).astype(np.float32)


def network(x: tf.Tensor) -> tf.Tensor:
    maps = tf.nn.relu(tf.nn.conv2d(x / 255.0, KERNEL, 1, "VALID"))
    flat = tf.reshape(tf.nn.max_pool2d(maps, 2, 2, "VALID"), (x.shape[0], 200))
    return tf.matmul(tf.nn.relu(tf.matmul(flat, HIDDEN)), SCORES)


def converted(function, *, batch: int = 1, **settings) -> bytes:
    signature = tf.TensorSpec((batch, 12, 12, 1), tf.float32, name="image")
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [tf.function(function).get_concrete_function(signature)]
    )
    for name, value in settings.items():
        owner = converter.target_spec if hasattr(converter.target_spec, name) else converter
        setattr(owner, name, value)
    return converter.convert()


def tflite_models() -> dict[str, bytes]:
    smaller = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    calibrated = {**smaller, "representative_dataset": lambda: ([image[None]] for image in SAMPLES)}
    int8 = {**calibrated, "supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]}
    int16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    models = {
        "float32": converted(network),
        "float16": converted(network, **smaller, supported_types=[tf.float16]),
        "dynamic": converted(network, **smaller),
        "int8": converted(network, **int8, inference_input_type=tf.int8, inference_output_type=tf.int8),
        "int8-uint8": converted(network, **int8, inference_input_type=tf.uint8, inference_output_type=tf.uint8),
        "int16x8": converted(
            network,
            **{**calibrated, "supported_ops": [int16]},
            inference_input_type=tf.int16,
            inference_output_type=tf.int16,
        ),
        "two-outputs": converted(lambda x: (network(x), 2 * network(x))),
        "batch-of-two": converted(network, batch=2),
        # XNNPACK has no sine: the graph falls into parts, some delegated and some not.
        "partly": converted(lambda x: network(tf.sin(x / 100.0) * 100.0)),
    }
    models["garbage"] = bytes(rng.integers(0, 256, 4000, dtype=np.uint8))
    models["truncated"] = models["int8"][: len(models["int8"]) // 2]
    return {f"{name}.tflite": content for name, content in models.items()}


def quantizer_model(folder: Path) -> None:
    """The dynamic model of the other converter, which one runtime runs wrongly without a word."""
    from ai_edge_quantizer import quantizer, recipe

    quantize = quantizer.Quantizer(str(folder / "float32.tflite"))
    quantize.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    quantize.quantize().export_model(str(folder / "dynamic-quantizer.tflite"))


def onnx_file(nodes: list, constants: dict[str, np.ndarray], *, x: tuple, y: tuple) -> bytes:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", *x)],
        [helper.make_tensor_value_info("y", *y)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def float_onnx(batch: int | str) -> bytes:
    nodes = [
        helper.make_node("Div", ["x", "white"], ["real"]),
        helper.make_node("Conv", ["real", "kernel"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["maps"]),
        helper.make_node("MaxPool", ["maps"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "hidden"], ["dense"]),
        helper.make_node("Relu", ["dense"], ["active"]),
        helper.make_node("Gemm", ["active", "scores"], ["y"]),
    ]
    hidden = HIDDEN.reshape(5, 5, 8, 64).transpose(2, 0, 1, 3).reshape(200, 64)
    constants = {
        "white": np.float32(255),
        "kernel": KERNEL.transpose(3, 2, 0, 1),
        "hidden": hidden,
        "scores": SCORES,
    }
    border = TensorProto.FLOAT
    return onnx_file(nodes, constants, x=(border, (batch, 1, 12, 12)), y=(border, (batch, 4)))


def int8_onnx() -> bytes:
    """QDQ: uint8 activations, int8 weights, uint8 at the border."""

    def pair(name: str, *, into: str) -> list:
        quantized = f"{name}_q"
        border = [f"{name}_scale", f"{name}_zero"]
        return [
            helper.make_node("QuantizeLinear", [name, *border], [quantized]),
            helper.make_node("DequantizeLinear", [quantized, *border], [into]),
        ]

    nodes = [
        helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["real"]),
        helper.make_node("DequantizeLinear", ["kernel", "kernel_scale", "kernel_zero"], ["weights"], axis=0),
        helper.make_node("Conv", ["real", "weights"], ["maps"]),
        *pair("maps", into="maps_real"),
        helper.make_node("MaxPool", ["maps_real"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        *pair("pooled", into="pooled_real"),
        helper.make_node("Flatten", ["pooled_real"], ["flat"]),
        *pair("flat", into="flat_real"),
        helper.make_node("DequantizeLinear", ["dense", "dense_scale", "dense_zero"], ["dense_real"]),
        helper.make_node("Gemm", ["flat_real", "dense_real"], ["scores"]),
        helper.make_node("QuantizeLinear", ["scores", "y_scale", "y_zero"], ["y"]),
    ]
    constants = {
        "x_scale": np.float32(1),
        "x_zero": np.uint8(0),
        "kernel": rng.integers(-127, 128, (8, 1, 3, 3)).astype(np.int8),
        "kernel_scale": np.linspace(0.0005, 0.001, 8, dtype=np.float32),
        "kernel_zero": np.zeros(8, np.int8),
        "dense": rng.integers(-127, 128, (200, 4)).astype(np.int8),
        "dense_scale": np.float32(0.0005),
        "dense_zero": np.int8(0),
        "y_scale": np.float32(0.5),
        "y_zero": np.uint8(120),
    }
    for name in ("maps", "pooled", "flat"):
        constants |= {f"{name}_scale": np.float32(0.8), f"{name}_zero": np.uint8(128)}
    border = TensorProto.UINT8
    return onnx_file(nodes, constants, x=(border, (1, 1, 12, 12)), y=(border, (1, 4)))


def main() -> None:
    folder = Path(sys.argv[1])
    files = {
        **tflite_models(),
        "float32.onnx": float_onnx(1),
        "open-batch.onnx": float_onnx("n"),
        "int8.onnx": int8_onnx(),
        "garbage.onnx": b"this is no protocol buffer",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    quantizer_model(folder)


if __name__ == "__main__":
    main()
