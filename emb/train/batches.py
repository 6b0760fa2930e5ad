"""The batches of an epoch, made ahead in the background while the device works. Knows no model.

A batch is a function of seed, epoch and step alone: whoever makes it, and when, it has the same bits.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from emb.spec.contract import Pixels
from emb.spec.dataset import Split
from emb.spec.recipe import TrainSpec
from emb.train.augment import augmented

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
_RAW = Pixels()
# Reading and changing images is mostly numpy and libjpeg, which let other threads run.
_CORES_PER_WORKER = 4
_MOST_WORKERS = 8


def as_expected(images: NDArray[Any], pixels: Pixels) -> NDArray[Any]:
    """Raw pixels as the model's first layer expects them; those of a model that takes raw pixels stay as they are."""
    if pixels == _RAW:
        return images
    return images.astype(np.float32) * np.float32(pixels.scale) + np.float32(pixels.offset)


def ahead(make: Callable[[int], T], count: int, *, workers: int | None = None) -> Generator[T, None, None]:
    """make(0), make(1), … make(count - 1) in this order, each made in a background thread before it is asked for.

    workers: threads, and one more than the number of results that wait; by default one for four cores.
    What `make` raises is raised here, when its turn comes. Close the generator (contextlib.closing): the threads
    have then ended.
    """
    if workers is None:
        workers = min(max((os.cpu_count() or 1) // _CORES_PER_WORKER, 1), _MOST_WORKERS)
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="emb-batches")
    waiting: deque[Future[T]] = deque()
    try:
        for number in range(count):
            waiting.append(pool.submit(make, number))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The train images in batches. classes: length of a target.  size: images a batch.  steps: batches an epoch."""

    split: Split
    classes: int
    spec: TrainSpec
    pixels: Pixels

    @property
    def size(self) -> int:
        return min(self.spec.batch_size, len(self.split))

    @property
    def steps(self) -> int:
        return len(self.split) // self.size

    def epoch(self, epoch: int) -> Generator[tuple[NDArray[Any], NDArray[np.float32]], None, None]:
        """(images, targets) of every step; epoch: 0-based. The images are uint8 or float32, see augmented."""
        order = np.random.default_rng((self.spec.seed, epoch)).permutation(len(self.split))

        def make(step: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
            chosen = order[step * self.size : (step + 1) * self.size]
            rng = np.random.default_rng((self.spec.seed, epoch, step))
            targets = np.eye(self.classes, dtype=np.float32)[self.split.labels[chosen]]
            images = self.split.images[chosen]
            images, targets = augmented(images, targets, rng=rng, augmentation=self.spec.augment)
            return as_expected(images, self.pixels), targets

        return ahead(make, self.steps)
