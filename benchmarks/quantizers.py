"""The int8 quantizers that emb is compared with: a function each, from a Keras model and calibration images to a file.

Each does what its own documentation leads to, at its own defaults. Knows neither emb's quantization nor measurements.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Calibration = NDArray[np.uint8]
Quantizer = Callable[[Any, Calibration, Path], None]


def tflite_converter(model: Any, calibration: Calibration, path: Path) -> None:
    """As TensorFlow's guide to full integer quantization has it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in floats(calibration))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())


def ai_edge_quantizer(model: Any, calibration: Calibration, path: Path) -> None:
    """The float file of the converter, then the recipe of 8-bit weights and activations."""
    import tensorflow as tf
    from ai_edge_quantizer import quantizer, recipe

    floating = path.with_name("plain-float32.tflite")
    floating.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    name, signature = next(iter(tf.lite.Interpreter(str(floating)).get_signature_list().items()))
    work = quantizer.Quantizer(str(floating))
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    found = work.calibrate({name: [{signature["inputs"][0]: image} for image in floats(calibration)]})
    work.quantize(found).export_model(str(path), overwrite=True)


def onnx_runtime(model: Any, calibration: Calibration, path: Path) -> None:
    """Pre-processing, which its documentation advises, then quantize_static.

    Without symbolic shape inference, which is for transformers and needs one more package: plain ONNX shape inference
    finds every shape of these models.
    """
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_name("prepared-float32.onnx")
    quant_pre_process(str(float_onnx(model, path)), str(prepared), skip_symbolic_shape=True)

    class Reader(CalibrationDataReader):
        images = floats(calibration)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {"image": image}

    quantize_static(str(prepared), str(path), Reader())


def nncf(model: Any, calibration: Calibration, path: Path) -> None:
    """nncf.quantize on the file of tf2onnx."""
    # It reports its use to its makers otherwise.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf
    import onnx

    dataset = nncf.Dataset(list(floats(calibration)), lambda image: {"image": image})
    onnx.save(nncf.quantize(onnx.load(float_onnx(model, path)), dataset), path)


# By the runtime's file format; "emb" itself is none of them.
QUANTIZERS: dict[str, dict[str, Quantizer]] = {
    "tflite": {"TFLite converter": tflite_converter, "ai-edge-quantizer": ai_edge_quantizer},
    "onnx": {"ONNX Runtime": onnx_runtime, "NNCF": nncf},
}


def float_onnx(model: Any, path: Path) -> Path:
    """plain-float32.onnx beside `path`, of tf2onnx, for any batch; made once."""
    import tensorflow as tf
    import tf2onnx

    floating = path.with_name("plain-float32.onnx")
    if not floating.exists():
        signature = (tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image"),)
        tf2onnx.convert.from_keras(model, input_signature=signature, output_path=str(floating))
    return floating


def floats(images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """Each as the models take it: (1, height, width, channels), 0 to 255."""
    return (image[None].astype(np.float32) for image in images)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps the converters' chatter out of the table."""
    sys.stdout.flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    with Path(os.devnull).open("wb") as nowhere:
        for descriptor in (1, 2):
            os.dup2(nowhere.fileno(), descriptor)
        try:
            yield
        finally:
            sys.stdout.flush()
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
