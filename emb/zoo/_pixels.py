"""The input of every builder: raw pixels and the layer that brings them into the range the network learns in."""

from typing import TYPE_CHECKING, Any, Literal, get_args

from emb.errors import SpecError
from emb.zoo._checks import check_choice

if TYPE_CHECKING:
    import keras

# What the published weights of an architecture were trained with; "unit" is everything that emb trains itself.
Preprocessing = Literal["unit", "signed", "imagenet", "caffe"]

# Means and deviations of ImageNet's red, green and blue, of 0..1 and (caffe: means alone) of 0..255.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (123.68, 116.779, 103.939)


def raw_pixels(input_shape: tuple[int, int, int], preprocessing: Preprocessing = "unit") -> "tuple[keras.Input, Any]":
    """(input, x): the model's input `pixels`, (batch, height, width, channels) float 0..255, and x, the rescaled one.

    unit: x / 255.  signed: x / 127.5 - 1.  imagenet: (x / 255 - mean) / deviation of each of R, G, B.
    caffe: x - mean of each of R, G, B (weights made for BGR need the first kernel turned around).
    Raises SpecError for "imagenet" or "caffe" with other than 3 channels.
    Source: keras.applications.imagenet_utils.preprocess_input, modes "tf", "torch" and "caffe".
    """
    check_choice("preprocessing", preprocessing, get_args(Preprocessing))
    _check_channels(input_shape, preprocessing)

    import keras
    from keras import layers

    scale, offset = {
        "unit": (1 / 255, 0.0),
        "signed": (1 / 127.5, -1.0),
        "imagenet": (
            [1 / (255 * deviation) for deviation in _DEVIATION],
            [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)],
        ),
        "caffe": (1.0, [-mean for mean in _CAFFE_MEAN]),
    }[preprocessing]
    pixels = keras.Input(shape=tuple(input_shape), name="pixels")
    return pixels, layers.Rescaling(scale, offset, name="rescale")(pixels)


def _check_channels(input_shape: tuple[int, int, int], preprocessing: Preprocessing) -> None:
    if preprocessing in ("imagenet", "caffe") and input_shape[2] != 3:
        raise SpecError(
            f'preprocessing = "{preprocessing}" needs RGB images, not {input_shape[2]} channel(s)',
            why="its means are those of red, green and blue",
            fix='set model.arguments.preprocessing to "unit", or input.shape to three channels',
        )
