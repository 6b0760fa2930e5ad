"""4-bit weights per channel, trained on with the rounding in place; int8 activations. LiteRT alone has the kernels."""

from emb.spec.scheme import Scheme

SCHEME = Scheme(
    name="int4w",
    summary="4-bit weights, trained on with the rounding in place, int8 activations",
    formats=("tflite",),
    weights="int4",
    activations="int8",
    io="int8",
    calibrated=True,
    trained=True,
)
