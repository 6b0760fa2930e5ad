"""8-bit weights; activations are floats whose 8-bit ranges are found anew in every run. Needs no calibration."""

from emb.spec.scheme import Scheme

SCHEME = Scheme(
    name="dynamic",
    summary="8-bit weights, ranges of the activations found at run time",
    formats=("tflite", "onnx"),
    weights="int8",
    activations="float32",
    io="float32",
    calibrated=False,
)
