"""Weights stored as 16-bit floats, half the bytes; widened when the model is loaded, computed in 32 bits on a CPU."""

from emb.spec.scheme import Scheme

SCHEME = Scheme(
    name="float16",
    summary="16-bit float weights, widened when loaded",
    formats=("tflite", "onnx"),
    weights="float16",
    activations="float32",
    io="float32",
    calibrated=False,
)
