"""int8 inside, uint8 pixels in and uint8 scores out, for 2 QUANTIZE operations. An .onnx of int8 is uint8 already."""

from emb.spec.scheme import Scheme

SCHEME = Scheme(
    name="int8-uint8",
    summary="int8 inside, uint8 pixels in and uint8 scores out",
    formats=("tflite",),
    weights="int8",
    activations="int8",
    io="uint8",
    calibrated=True,
)
