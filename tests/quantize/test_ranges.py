"""How a tensor's range follows from its values, and how the input's code follows from the pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emb.errors import DataError, ModelError
from emb.quantize._ranges import Activations, Range, calibrate, input_code, input_code_16
from emb.spec.contract import Pixels

METHODS = ("minmax", "percentile", "mse")


def _range(*images: NDArray[np.float32], method: str, levels: int = 256, symmetric: bool = False) -> Range:
    def run() -> Iterator[Activations]:
        return ({"x": image.astype(np.float32)} for image in images)

    return calibrate(run, method=method, levels=levels, symmetric=symmetric)["x"]


def _squared_error(values: NDArray[np.float64], chosen: Range) -> float:
    step = (chosen.highest - chosen.lowest) / 255
    first = round(chosen.lowest / step)
    codes = np.clip(np.round(values / step), first, first + 255)
    return float(((values - codes * step) ** 2).sum())


arrays = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50).map(lambda x: np.array(x, np.float32))


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=3), st.sampled_from(METHODS))
def test_every_range_holds_0_and_lies_within_the_values(images: list[NDArray[np.float32]], method: str) -> None:
    chosen = _range(*images, method=method)
    values = np.concatenate([*images, np.zeros(1, np.float32)])
    slack = 1e-3 * max(1e-3, float(np.ptp(values)))
    assert chosen.lowest <= 0 <= chosen.highest
    assert chosen.lowest < chosen.highest
    assert values.min() - slack <= chosen.lowest
    assert chosen.highest <= values.max() + slack


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=3))
def test_minmax_is_the_extremes_over_all_images(images: list[NDArray[np.float32]]) -> None:
    chosen = _range(*images, method="minmax")
    values = np.concatenate(images)
    assert chosen.lowest == min(0.0, float(values.min()))
    assert chosen.highest == pytest.approx(max(0.0, float(values.max())), abs=1.1e-6)


def test_percentile_cuts_rare_extremes_off() -> None:
    values = np.random.default_rng(0).normal(0, 1, 100_000)
    values[0] = 1000
    wide, narrow = (_range(values, method=method) for method in ("minmax", "percentile"))
    assert wide.highest == 1000
    # 5 of 100,000 may lie above; the histogram's bins are half a unit wide.
    assert 3 < narrow.highest < 5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 100))
def test_mse_is_no_worse_than_minmax(seed: int, outlier: float) -> None:
    values = np.random.default_rng(seed).normal(0, 1, 4000)
    values[0] = outlier
    widest, best = (_squared_error(values, _range(values, method=method)) for method in ("minmax", "mse"))
    # The method sees a histogram, so that it may miss the best by a bin's width.
    assert best <= widest * 1.05 + 1e-6


def test_mse_clips_an_outlier_where_that_pays() -> None:
    values = np.random.default_rng(1).normal(0, 1, 1_000_000).astype(np.float32)
    values[0] = 15
    assert _range(values, method="mse").highest < 15


def test_mse_of_symmetric_codes_measures_them_about_0() -> None:
    values = np.concatenate([np.full(1000, 1.0), [-0.25]])
    chosen = _range(values, method="mse", levels=256, symmetric=True)
    assert chosen.highest == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_has_a_range(method: str) -> None:
    chosen = _range(np.zeros(10, np.float32), method=method)
    assert (chosen.lowest, chosen.highest) == (0.0, 1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_name_the_tensor(value: float) -> None:
    with pytest.raises(ModelError) as caught:
        _range(np.array([1.0, value], np.float32), method="minmax")
    assert str(caught.value) == (
        "the tensor x takes values that are not finite\n"
        "  why: a weight is NaN or infinite, or the model's arithmetic overflows on a calibration image\n"
        "  fix: train the model again with a lower learning rate, and check its weights and images for NaN"
    )


def test_a_range_without_0_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="must hold 0"):
        Range(lowest=1.0, highest=2.0)


@pytest.mark.parametrize("lowest", [0, -128])
@pytest.mark.parametrize(
    ("pixels", "zero_pixel"),
    [(Pixels(), 0), (Pixels(scale=1 / 255), 0), (Pixels(scale=2 / 255, offset=-1.0), 128)],
)
def test_a_pixel_is_stored_as_itself_or_minus_128(pixels: Pixels, zero_pixel: int, lowest: int) -> None:
    code = input_code(pixels, lowest=lowest)
    assert code.zero_point == zero_pixel + lowest
    pixel = np.arange(256)
    real = pixel * pixels.scale + pixels.offset
    # -1..1 has its 0 half way between two pixels: half a step is lost, and rounding must not lose more.
    error = np.abs((pixel + lowest - code.zero_point) * code.scale - real)
    assert error.max() <= 0.5 * pixels.scale * 1.0001
    chosen = code.range(lowest=lowest, highest=lowest + 255)
    assert (chosen.highest - chosen.lowest) / 255 == pytest.approx(pixels.scale)


@pytest.mark.parametrize("pixels", [Pixels(), Pixels(scale=1 / 255), Pixels(scale=2 / 255, offset=-1.0)])
def test_16_bits_store_every_pixel_exactly(pixels: Pixels) -> None:
    code = input_code_16(pixels)
    real = np.arange(256) * pixels.scale + pixels.offset
    stored = real / code.scale
    np.testing.assert_allclose(stored, np.round(stored), atol=1e-9)
    assert code.zero_point == 0
    assert np.abs(stored).max() < 32_768


def test_pixels_without_a_real_0_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be an integer input"):
        input_code(Pixels(scale=1 / 255, offset=0.5), lowest=-128)
