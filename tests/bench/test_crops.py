"""Crops: where they lie, which are mirrored, and that they are sequences of images like any other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.bench.crops import COUNTS, crops, require_count, shape_to_crop_from
from emb.errors import SpecError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 36, 3), dtype=np.uint8)


def test_ten_crops_are_the_centre_the_corners_and_their_mirror_images():
    views = crops(IMAGES, shape=(28, 30, 3), count=10)
    cut = [IMAGES[:, 2:30, 3:33], IMAGES[:, :28, :30], IMAGES[:, :28, 6:], IMAGES[:, 4:, :30], IMAGES[:, 4:, 6:]]
    expected = [*cut, *(part[:, :, ::-1] for part in cut)]
    assert len(views) == 10
    for view, part in zip(views, expected, strict=True):
        np.testing.assert_array_equal(view[:], part)


@pytest.mark.parametrize("count", COUNTS)
def test_fewer_crops_are_the_first_of_ten(count):
    few, all_ten = (crops(IMAGES, shape=(28, 30, 3), count=number) for number in (count, 10))
    assert list(few) == list(all_ten[:count])


@given(st.integers(1, 32), st.integers(1, 36), st.integers(0, 5), st.sampled_from(COUNTS))
def test_a_crop_is_a_sequence_of_images(height, width, index, count):
    for view in crops(IMAGES, shape=(height, width, 3), count=count):
        assert view.shape == (6, height, width, 3)
        assert view.dtype == np.uint8
        assert len(view) == 6
        np.testing.assert_array_equal(view[index], view[:][index])
        np.testing.assert_array_equal(view[np.array([index, 0])], view[:][[index, 0]])


def test_crops_as_large_as_the_image_are_the_image():
    assert all(np.array_equal(view[:], IMAGES) for view in crops(IMAGES, shape=(32, 36, 3), count=5))


def test_images_are_larger_by_a_seventh_than_what_is_cut_from_them():
    assert shape_to_crop_from((224, 224, 3)) == (256, 256, 3)
    assert shape_to_crop_from((28, 28, 1)) == (32, 32, 1)


def test_other_numbers_are_refused():
    with pytest.raises(SpecError) as caught:
        require_count(7)
    assert str(caught.value) == (
        "--crops cannot be 7\n"
        "  why: crops are the centre (1), with the four corners (5), and these mirrored as well (10)\n"
        "  fix: give one of 1, 5, 10"
    )
