"""8-bit integers throughout, weights per channel: .tflite takes int8 = pixel - 128, .onnx takes the uint8 pixel."""

from emb.spec.scheme import Scheme

SCHEME = Scheme(
    name="int8",
    summary="8-bit integers throughout, weights per channel",
    formats=("tflite", "onnx"),
    weights="int8",
    activations="int8",
    io="int8",
    calibrated=True,
)
