"""Augmentation against plain numpy and against its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.spec.recipe import Augmentation
from emb.train.augment import augmented, draw_transforms, resample

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 9, 12, 3), dtype=np.uint8)
IDENTITY = np.array([1, 0, 0, 0, 1, 0], np.float32)
limits = st.builds(
    Augmentation,
    shift_fraction=st.floats(0, 0.5),
    rotation_degrees=st.floats(0, 180),
    shear_degrees=st.floats(0, 45),
    scale_fraction=st.floats(0, 0.5),
    flip=st.booleans(),
)


def _rows(*rows):
    return np.array(rows, np.float32)


def _bilinear(image, row):
    """The definition, pixel by pixel; 0 outside."""
    height, width, channels = image.shape
    result = np.zeros((height, width, channels))
    for y in range(height):
        for x in range(width):
            u, v = row[0] * x + row[1] * y + row[2], row[3] * x + row[4] * y + row[5]
            left, top = int(np.floor(u)), int(np.floor(v))
            for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= i < height and 0 <= j < width:
                    result[y, x] += (1 - abs(u - j)) * (1 - abs(v - i)) * image[i, j]
    return result


def test_switched_off_changes_and_draws_nothing():
    rng = np.random.default_rng(5)
    result = augmented(IMAGES, rng=rng, augmentation=Augmentation())
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, IMAGES)
    assert rng.random() == np.random.default_rng(5).random()


def test_identity_transform_changes_nothing():
    np.testing.assert_array_equal(np.asarray(resample(IMAGES, np.tile(IDENTITY, (7, 1)))), IMAGES)


def test_whole_pixel_shift_is_a_shift():
    # The output's pixel (x, y) is the input's (x - 2, y + 3): two to the right, three up.
    result = np.asarray(resample(IMAGES, np.tile(_rows([1, 0, -2, 0, 1, 3]), (7, 1))))
    wanted = np.zeros(IMAGES.shape, np.float32)
    wanted[:, :-3, 2:] = IMAGES[:, 3:, :-2]
    np.testing.assert_array_equal(result, wanted)


def test_mirror_is_a_mirror():
    result = np.asarray(resample(IMAGES, np.tile(_rows([-1, 0, 11, 0, 1, 0]), (7, 1))))
    np.testing.assert_array_equal(result, IMAGES[:, :, ::-1])


@pytest.mark.parametrize("seed", range(3))
def test_any_transform_is_bilinear_resampling(seed):
    augmentation = Augmentation(
        shift_fraction=0.2, rotation_degrees=40, shear_degrees=20, scale_fraction=0.3, flip=True
    )
    rows = draw_transforms(np.random.default_rng(seed), augmentation, count=7, height=9, width=12)
    wanted = np.stack([_bilinear(image, row) for image, row in zip(IMAGES, rows, strict=True)])
    np.testing.assert_allclose(np.asarray(resample(IMAGES, rows)), wanted, atol=0.05)


@given(limits, st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_rows_keep_their_limits(augmentation, seed):
    rows = draw_transforms(np.random.default_rng(seed), augmentation, count=50, height=20, width=30)
    a, b, c, d, e, f = rows.T.astype(np.float64)
    scale = 1 / np.sqrt(np.abs(a * e - b * d))
    assert np.all(np.abs(scale - 1) <= augmentation.scale_fraction + 1e-4)
    angle = np.degrees(np.arctan2(d, a * np.where(a * e - b * d < 0, -1, 1)))
    assert np.all(np.abs(angle) <= augmentation.rotation_degrees + 1e-3)
    # Which output point shows the image's centre: that is the shift.
    determinant = a * e - b * d
    x = (e * (14.5 - c) - b * (9.5 - f)) / determinant - 14.5
    y = (a * (9.5 - f) - d * (14.5 - c)) / determinant - 9.5
    assert np.all(np.abs(x) <= 30 * augmentation.shift_fraction + 1e-2)
    assert np.all(np.abs(y) <= 20 * augmentation.shift_fraction + 1e-2)
    assert augmentation.flip or np.all(determinant > 0)


def test_half_of_the_images_are_mirrored():
    rows = draw_transforms(np.random.default_rng(0), Augmentation(flip=True), count=1000, height=8, width=8)
    assert 450 < np.sum(rows[:, 0] == -1) < 550


def test_equal_generators_draw_equal_rows():
    first, second = (
        draw_transforms(np.random.default_rng((3, 4)), Augmentation(shift_fraction=0.1), count=5, height=8, width=8)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_values_stay_in_range():
    augmentation = Augmentation(shift_fraction=0.3, rotation_degrees=90, scale_fraction=0.3)
    result = np.asarray(augmented(IMAGES, rng=np.random.default_rng(1), augmentation=augmentation))
    assert result.dtype == np.float32
    assert result.shape == IMAGES.shape
    assert result.min() >= 0
    assert result.max() <= 255
