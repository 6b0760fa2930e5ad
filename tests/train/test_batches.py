"""Batches made in the background: the same bits, errors as they were raised, and no thread left behind."""

from __future__ import annotations

import threading
from contextlib import closing

import numpy as np
import pytest

from emb.errors import DataError
from emb.spec.contract import Pixels
from emb.spec.dataset import Split
from emb.spec.recipe import Augmentation, TrainSpec
from emb.train.batches import Batches, ahead

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(50) % 5
SPEC = TrainSpec(batch_size=8, seed=3, augment=Augmentation(flip=True, crop_pixels=2, mixup_alpha=0.3))


class FromDisk:
    """Images that are read when they are asked for, and no array."""

    shape = IMAGES.shape
    dtype = IMAGES.dtype

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, key):
        return IMAGES[key].copy()


def _threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("emb-batches")]


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers):
    assert list(ahead(lambda number: number * number, 20, workers=workers)) == [n * n for n in range(20)]
    assert not _threads()


def test_made_before_it_is_asked_for():
    second = threading.Event()

    def make(number):
        if number == 1:
            second.set()
        return number

    with closing(ahead(make, 5, workers=1)) as results:
        assert next(results) == 0
        assert second.wait(30)


def test_error_reaches_the_caller_as_it_was_raised():
    error = DataError("image 3 is damaged", fix="remove it")

    def make(number):
        if number == 3:
            raise error
        return number

    seen = []
    with pytest.raises(DataError) as caught:
        seen.extend(ahead(make, 9, workers=2))
    assert caught.value is error
    assert not _threads()


def test_interrupted_caller_leaves_no_thread():
    def interrupted():
        with closing(ahead(lambda number: number, 1000, workers=2)) as results:
            for number in results:
                if number == 5:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not _threads()


def _epoch(images, *, epoch=0, pixels=None):
    batches = Batches(split=Split(images=images, labels=LABELS), classes=5, spec=SPEC, pixels=pixels or Pixels())
    assert batches.steps == 6
    return list(batches.epoch(epoch))


def test_equal_epochs_are_equal_and_others_are_not():
    first, again, other = _epoch(IMAGES), _epoch(IMAGES), _epoch(IMAGES, epoch=1)
    for (images, targets), (same_images, same_targets) in zip(first, again, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(targets, same_targets)
    assert not np.array_equal(first[0][0], other[0][0])


def test_images_that_are_no_array_make_the_same_batches():
    for (images, targets), (same_images, same_targets) in zip(_epoch(IMAGES), _epoch(FromDisk()), strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(targets, same_targets)


def test_pixels_of_another_range():
    for (images, _), (scaled, _) in zip(_epoch(IMAGES), _epoch(IMAGES, pixels=Pixels(scale=1 / 255)), strict=True):
        np.testing.assert_allclose(scaled, images / 255, rtol=1e-6)
        assert scaled.dtype == np.float32
