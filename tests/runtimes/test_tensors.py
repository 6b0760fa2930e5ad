"""From pixels to a model's input and from its output to scores, checked against the formula itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emb.errors import ModelError
from emb.runtimes import infer_layout, to_input, to_scores
from emb.spec.contract import Pixels, TensorContract

IMAGES = arrays(np.uint8, st.tuples(st.integers(0, 3), st.just(4), st.just(5), st.just(3)))
INTEGERS = ("int8", "uint8", "int16")


def tensor(dtype: str, shape: tuple[int, ...] = (1, 4, 5, 3), layout: str = "NHWC", **quantization) -> TensorContract:
    return TensorContract(name="x", shape=shape, dtype=dtype, layout=layout, **quantization)


@given(
    images=IMAGES,
    dtype=st.sampled_from(INTEGERS),
    scale=st.floats(1e-4, 10),
    zero_point=st.integers(-128, 127),
    pixel_scale=st.floats(-2, 2),
    pixel_offset=st.floats(-255, 255),
)
def test_integer_input_follows_the_formula(images, dtype, scale, zero_point, pixel_scale, pixel_offset) -> None:
    real = images.astype(np.float64) * pixel_scale + pixel_offset
    limits = np.iinfo(dtype)
    expected = np.clip(np.round(real / scale) + zero_point, limits.min, limits.max)
    contract = tensor(dtype, scale=scale, zero_point=zero_point)
    stored = to_input(images, contract, Pixels(scale=pixel_scale, offset=pixel_offset))
    assert stored.dtype == dtype
    assert np.array_equal(stored, expected)


@given(images=IMAGES)
def test_int8_of_raw_pixels_is_the_pixel_less_128(images) -> None:
    stored = to_input(images, tensor("int8", scale=1.0, zero_point=-128))
    assert stored.tobytes() == (images.astype(np.int16) - 128).astype(np.int8).tobytes()
    assert stored.tobytes() == (images ^ 0x80).tobytes()  # what a board does


@given(images=IMAGES)
def test_uint8_of_raw_pixels_is_the_pixel(images) -> None:
    assert to_input(images, tensor("uint8", scale=1.0, zero_point=0)).tobytes() == images.tobytes()
    assert to_input(images, tensor("uint8")).tobytes() == images.tobytes()


@given(images=IMAGES, scale=st.floats(1e-3, 2), offset=st.floats(-300, 300))
def test_float_input_is_the_real_value(images, scale, offset) -> None:
    stored = to_input(images, tensor("float32"), Pixels(scale=scale, offset=offset))
    assert stored.dtype == np.float32
    assert np.array_equal(stored, (images.astype(np.float64) * scale + offset).astype(np.float32))


@given(images=IMAGES)
def test_layouts_hold_the_same_pixels(images) -> None:
    last = to_input(images, tensor("float32"))
    first = to_input(images, tensor("float32", (1, 3, 4, 5), "NCHW"))
    flat = to_input(images, tensor("float32", (1, 60), "NC"))
    assert first.flags.c_contiguous
    assert np.array_equal(first.transpose(0, 2, 3, 1), last)
    assert np.array_equal(flat.reshape(last.shape), last)


def test_grey_image_without_channel_axis() -> None:
    images = np.arange(20, dtype=np.uint8).reshape(1, 4, 5, 1)
    assert np.array_equal(to_input(images, tensor("uint8", (1, 4, 5))), images[..., 0])


@given(
    raw=arrays(np.int8, st.tuples(st.integers(0, 4), st.integers(1, 5))),
    scale=st.floats(2**-13, 10, width=32),
    zero_point=st.integers(-128, 127),
)
def test_scores_are_real_values(raw, scale, zero_point) -> None:
    scores = to_scores(raw, tensor("int8", (1, raw.shape[1]), "NC", scale=scale, zero_point=zero_point))
    assert scores.dtype == np.float32
    assert np.array_equal(scores, (raw.astype(np.float32) - zero_point) * np.float32(scale))


def test_scores_of_plain_values_and_of_maps() -> None:
    maps = np.arange(6, dtype=np.float32).reshape(2, 1, 1, 3)
    assert np.array_equal(to_scores(maps, tensor("float32", (1, 1, 1, 3))), [[0, 1, 2], [3, 4, 5]])
    assert np.array_equal(to_scores(np.array([[7, 250]], np.uint8), tensor("uint8", (1, 2), "NC")), [[7, 250]])


@given(values=st.lists(st.integers(-128, 127), min_size=2, max_size=9), scale=st.floats(1e-4, 10))
def test_dequantizing_keeps_the_order(values, scale) -> None:
    raw = np.array([values], np.int8)
    scores = to_scores(raw, tensor("int8", (1, len(values)), "NC", scale=scale, zero_point=3))
    assert np.array_equal(np.diff(raw[0].astype(int)) > 0, np.diff(scores[0]) > 0)


@pytest.mark.parametrize(
    ("shape", "default", "layout"),
    [
        ((1, 28, 28, 1), "NCHW", "NHWC"),
        ((1, 3, 224, 224), "NHWC", "NCHW"),
        ((1, 1, 28, 28), "NHWC", "NCHW"),
        ((1, 3, 3, 3), "NHWC", "NHWC"),
        ((1, 3, 3, 3), "NCHW", "NCHW"),
        ((1, 8, 8, 8), "NCHW", "NCHW"),
        ((1, 28, 28), "NCHW", "NHWC"),
        ((1, 784), "NHWC", "NC"),
    ],
)
def test_layout_is_inferred(shape, default, layout) -> None:
    assert infer_layout(shape, default=default) == layout


def test_layout_of_no_image() -> None:
    with pytest.raises(ModelError) as caught:
        infer_layout((1, 2, 3, 4, 5), default="NHWC")
    assert str(caught.value) == (
        "the model's input has the shape (1, 2, 3, 4, 5)\n"
        "  why: emb feeds images: (1, height, width, channels), (1, channels, height, width), (1, height, width) "
        "or flat rows (1, values)\n"
        "  fix: export the model with one of these input shapes"
    )


def test_images_must_fit() -> None:
    images = np.zeros((2, 4, 5, 1), np.uint8)
    with pytest.raises(ModelError) as caught:
        to_input(images, tensor("int8", (1, 28, 28, 1), scale=1.0, zero_point=-128))
    assert str(caught.value) == (
        "the model takes NHWC inputs of shape (28, 28, 1), the images have (4, 5, 1)\n"
        "  fix: choose the data set the model was made for, or resize the images to the model's input"
    )
    with pytest.raises(ModelError) as caught:
        to_input(images.astype(np.float32), tensor("float32", (1, 4, 5, 1)))
    assert str(caught.value) == (
        "images must be uint8 of shape (n, height, width, channels), not float32 (2, 4, 5, 1)\n"
        "  fix: scale them to 0..255 and convert them to uint8"
    )


def test_plain_integers_must_hold_the_pixels() -> None:
    with pytest.raises(ModelError) as caught:
        to_input(np.zeros((1, 4, 5, 3), np.uint8), tensor("int8"))
    assert str(caught.value) == (
        "the input 'x' is int8 without a scale and cannot hold the pixel values\n"
        "  why: they reach from 0 to 255\n"
        "  fix: export the model with the quantization parameters of its input, or with a float input"
    )
