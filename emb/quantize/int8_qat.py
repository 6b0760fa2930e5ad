"""int8 of weights that were trained on with the rounding in place: the same format, for what int8 alone loses."""

from emb.spec.scheme import Scheme

SCHEME = Scheme(
    name="int8-qat",
    summary="int8, its weights trained on with the rounding in place",
    formats=("tflite", "onnx"),
    weights="int8",
    activations="int8",
    io="int8",
    calibrated=True,
    trained=True,
)
