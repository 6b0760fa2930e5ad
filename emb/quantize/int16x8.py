"""16-bit activations, 8-bit weights: takes int16, nearly float accuracy, no delegate; ONNX Runtime has no kernels."""

from emb.spec.scheme import Scheme

SCHEME = Scheme(
    name="int16x8",
    summary="16-bit activations, 8-bit weights",
    formats=("tflite",),
    weights="int8",
    activations="int16",
    io="int16",
    calibrated=True,
)
