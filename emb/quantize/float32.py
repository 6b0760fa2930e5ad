"""32-bit floats throughout: the reference that every other scheme is compared with."""

from emb.spec.scheme import Scheme

SCHEME = Scheme(
    name="float32",
    summary="32-bit floats throughout",
    formats=("tflite", "onnx"),
    weights="float32",
    activations="float32",
    io="float32",
    calibrated=False,
)
