"""Augmentation against plain numpy and against its limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.spec.recipe import Augmentation
from emb.train import affine
from emb.train.augment import augmented, coloured, cropped, cut_out, flipped, offsets

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 9, 12, 3), dtype=np.uint8)
TARGETS = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2]]
IDENTITY = np.array([1, 0, 0, 0, 1, 0], np.float32)
# One setting of each change; together they are all of them.
CHANGES = {
    "shift_fraction": 0.2,
    "rotation_degrees": 20.0,
    "shear_degrees": 10.0,
    "scale_fraction": 0.2,
    "flip": True,
    "crop_pixels": 3,
    "crop_area_fraction": 0.3,
    "brightness_fraction": 0.4,
    "contrast_fraction": 0.4,
    "saturation_fraction": 0.4,
    "cutout_pixels": 4,
    "mixup_alpha": 0.5,
}
MOVING = ("flip", "crop_pixels", "cutout_pixels")
limits = st.builds(
    Augmentation,
    shift_fraction=st.floats(0, 0.5),
    rotation_degrees=st.floats(0, 180),
    shear_degrees=st.floats(0, 45),
    scale_fraction=st.floats(0, 0.5),
)
seeds = st.integers(0, 2**32 - 1)


def _augmented(augmentation, *, images=IMAGES, targets=TARGETS, seed=5):
    return augmented(images, targets, rng=np.random.default_rng(seed), augmentation=augmentation)


def _rows(*rows):
    return np.array(rows, np.float32)


def _draw(augmentation, *, seed, count, height, width):
    unit = np.random.default_rng(seed).uniform(-1, 1, (affine.DRAWS, count))
    return affine.transforms(unit, augmentation, height=height, width=width)


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


def test_every_change_is_in_these_tests():
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Augmentation)}


def test_switched_off_changes_and_draws_nothing():
    rng = np.random.default_rng(5)
    images, targets = augmented(IMAGES, TARGETS, rng=rng, augmentation=Augmentation())
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(targets, TARGETS)
    assert rng.random() == np.random.default_rng(5).random()


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_changes_the_images_within_their_range(name):
    before = IMAGES.copy()
    images, targets = _augmented(Augmentation(**{name: CHANGES[name]}))
    assert images.dtype == (np.uint8 if name in MOVING else np.float32)
    assert images.shape == IMAGES.shape
    assert not np.array_equal(images, IMAGES)
    assert images.min() >= 0
    assert images.max() <= 255
    assert np.array_equal(targets, TARGETS) == (name != "mixup_alpha")
    np.testing.assert_array_equal(IMAGES, before)


@pytest.mark.parametrize("name", CHANGES)
def test_equal_generators_make_equal_batches(name):
    augmentation = Augmentation(**{name: CHANGES[name]})
    for first, second in zip(_augmented(augmentation), _augmented(augmentation), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(_augmented(augmentation)[0], _augmented(augmentation, seed=6)[0])


def test_no_change_alters_what_another_one_draws():
    # Grey images of one value, with a mark where the crop put them: a flip in addition must mirror just that.
    crop, _ = _augmented(Augmentation(crop_pixels=3))
    both, _ = _augmented(Augmentation(crop_pixels=3, flip=True), images=flipped(IMAGES, _flips()))
    np.testing.assert_array_equal(both, crop)
    # Shares of mixup are drawn last and alone.
    _, alone = _augmented(Augmentation(mixup_alpha=0.5))
    _, with_all = _augmented(Augmentation(**CHANGES))
    np.testing.assert_array_equal(alone, with_all)


def _flips():
    """Which images the generator of _augmented mirrors, read off an image whose left and right differ."""
    images, _ = _augmented(Augmentation(flip=True))
    return np.array([not np.array_equal(a, b) for a, b in zip(images, IMAGES, strict=True)])


@given(seeds)
@settings(max_examples=20)
def test_flip_mirrors_or_leaves_each_image(seed):
    images, _ = _augmented(Augmentation(flip=True), seed=seed)
    for image, before in zip(images, IMAGES, strict=True):
        assert np.array_equal(image, before) or np.array_equal(image, before[:, ::-1])


def test_half_of_the_images_are_mirrored():
    many = np.zeros((1000, 1, 2, 1), np.uint8)
    many[:, 0, 0] = 1
    images, _ = _augmented(Augmentation(flip=True), images=many, targets=np.ones((1000, 1), np.float32))
    assert 450 < np.sum(images[:, 0, 1] == 1) < 550


@given(seeds, st.integers(1, 6))
@settings(max_examples=20)
def test_crop_copies_pixels_from_a_whole_offset(seed, pixels):
    corners = np.random.default_rng(seed).integers(0, 2 * pixels + 1, (2, len(IMAGES)))
    result = cropped(IMAGES, corners, pixels=pixels)
    wide = np.pad(IMAGES, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    for image, whole, (top, left) in zip(result, wide, corners.T, strict=True):
        np.testing.assert_array_equal(image, whole[top : top + 9, left : left + 12])


def test_crop_in_the_middle_is_the_image():
    np.testing.assert_array_equal(cropped(IMAGES, np.full((2, 7), 4), pixels=4), IMAGES)


def test_every_offset_is_drawn_and_none_beyond():
    unit = np.linspace(-1, 1, 1001)
    drawn = offsets(unit, 4)
    assert sorted(set(drawn.tolist())) == list(range(9))
    counts = np.bincount(offsets(np.random.default_rng(0).uniform(-1, 1, 9000), 4))
    assert counts.min() > 850
    assert counts.max() < 1150


def test_cutout_covers_one_square_with_the_mean_colour():
    centres = np.stack([np.arange(7), np.arange(7) + 3])
    result = cut_out(IMAGES, centres, pixels=4)
    for image, before, (y, x) in zip(result, IMAGES, centres.T, strict=True):
        wanted = before.copy()
        for i in range(9):
            for j in range(12):
                if -2 <= i - y < 2 and -2 <= j - x < 2:
                    wanted[i, j] = before.mean(axis=(0, 1)).astype(np.uint8)
        np.testing.assert_array_equal(image, wanted)


def test_cutout_of_a_corner_may_lie_mostly_outside():
    corner = np.zeros((2, 7), np.int64)
    changed = np.any(cut_out(IMAGES, corner, pixels=2) != IMAGES, axis=(0, 3))
    assert changed[0, 0]
    assert changed.sum() == 1


@given(st.floats(0, 1), seeds)
@settings(max_examples=20)
def test_brightness_multiplies(fraction, seed):
    unit = np.random.default_rng(seed).uniform(-1, 1, (3, 7))
    result = coloured(IMAGES, unit, Augmentation(brightness_fraction=fraction))
    factor = (1 + fraction * unit[0])[:, None, None, None]
    np.testing.assert_allclose(result, np.clip(IMAGES * factor, 0, 255), atol=1e-3)


def test_no_contrast_is_the_mean_and_no_saturation_is_grey():
    least = np.full((3, 7), -1.0)
    flat = coloured(IMAGES, least, Augmentation(contrast_fraction=1))
    np.testing.assert_allclose(
        flat, np.broadcast_to(IMAGES.mean(axis=(1, 2, 3), keepdims=True), IMAGES.shape), rtol=1e-5
    )
    grey = coloured(IMAGES, least, Augmentation(saturation_fraction=1))
    np.testing.assert_allclose(grey, np.repeat(grey[..., :1], 3, axis=-1), atol=1e-3)
    np.testing.assert_allclose(grey[..., 0], IMAGES @ np.array([0.299, 0.587, 0.114]), atol=1e-3)


def test_grey_images_have_no_saturation():
    grey = IMAGES[..., :1]
    result, _ = _augmented(Augmentation(saturation_fraction=0.5), images=grey)
    np.testing.assert_array_equal(result, grey)


def test_mixup_mixes_targets_as_it_mixes_images():
    # An image whose pixels are its own number: the share can be read off the result.
    labels = np.arange(4)
    images = np.zeros((4, 2, 2, 4), np.uint8)
    images[labels, :, :, labels] = 200
    mixed, targets = _augmented(Augmentation(mixup_alpha=1.0), images=images, targets=np.eye(4, dtype=np.float32))
    np.testing.assert_allclose(mixed[:, 0, 0] / 200, targets, atol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    assert targets.min() >= 0
    assert np.any((targets > 0.01) & (targets < 0.99))


def test_identity_transform_changes_nothing():
    np.testing.assert_array_equal(affine.resample(IMAGES, np.tile(IDENTITY, (7, 1))), IMAGES)


def test_whole_pixel_shift_is_a_shift():
    # The output's pixel (x, y) is the input's (x - 2, y + 3): two to the right, three up.
    result = affine.resample(IMAGES, np.tile(_rows([1, 0, -2, 0, 1, 3]), (7, 1)))
    wanted = np.zeros(IMAGES.shape, np.float32)
    wanted[:, :-3, 2:] = IMAGES[:, 3:, :-2]
    np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("area", [0.0, 0.25])
def test_any_transform_is_bilinear_resampling(seed, area):
    augmentation = Augmentation(
        shift_fraction=0.2, rotation_degrees=40, shear_degrees=20, scale_fraction=0.3, crop_area_fraction=area
    )
    rows = _draw(augmentation, seed=seed, count=7, height=9, width=12)
    wanted = np.stack([_bilinear(image, row) for image, row in zip(IMAGES, rows, strict=True)])
    np.testing.assert_allclose(affine.resample(IMAGES, rows), wanted, atol=0.05)


@given(limits, seeds)
@settings(max_examples=30)
def test_rows_keep_their_limits(augmentation, seed):
    rows = _draw(augmentation, seed=seed, count=50, height=20, width=30)
    a, b, c, d, e, f = rows.T.astype(np.float64)
    determinant = a * e - b * d
    assert np.all(determinant > 0)
    assert np.all(np.abs(1 / np.sqrt(determinant) - 1) <= augmentation.scale_fraction + 1e-4)
    angle = np.degrees(np.arctan2(d, a))
    assert np.all(np.abs(angle) <= augmentation.rotation_degrees + 1e-3)
    # Which output point shows the image's centre: that is the shift.
    x = (e * (14.5 - c) - b * (9.5 - f)) / determinant - 14.5
    y = (a * (9.5 - f) - d * (14.5 - c)) / determinant - 9.5
    assert np.all(np.abs(x) <= 30 * augmentation.shift_fraction + 1e-2)
    assert np.all(np.abs(y) <= 20 * augmentation.shift_fraction + 1e-2)


@given(st.floats(0.01, 1), seeds)
@settings(max_examples=30)
def test_crop_of_an_area_stays_in_the_image_and_within_its_share(area, seed):
    rows = _draw(Augmentation(crop_area_fraction=area), seed=seed, count=50, height=20, width=30)
    a, b, c, d, e, f = rows.T.astype(np.float64)
    assert np.all(b == 0)
    assert np.all(d == 0)
    assert c.min() >= -1e-4
    assert f.min() >= -1e-4
    assert np.all(c + a * 29 <= 29 + 1e-3)
    assert np.all(f + e * 19 <= 19 + 1e-3)
    # A side cut at the image's edge makes the area smaller, by a third at most.
    assert np.all(a * e >= area * 0.75 - 1e-4)
    assert np.all(a * e <= 1 + 1e-6)


def test_crop_of_the_whole_area_is_the_image():
    middle = np.zeros((affine.DRAWS, 7))
    rows = affine.transforms(middle, Augmentation(crop_area_fraction=1), height=9, width=12)
    np.testing.assert_allclose(rows, np.tile(IDENTITY, (7, 1)), atol=1e-6)
