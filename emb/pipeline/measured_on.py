"""The images that model files are measured on: those of the file's own build, or others. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emb import data as data_sets
from emb.bench.crops import crops as crops_of
from emb.bench.crops import shape_to_crop_from
from emb.errors import ModelError, SpecError
from emb.pipeline.classify import image_shape, preferred_runtime
from emb.pipeline.deliverable import Deliverable
from emb.pipeline.request import data_table
from emb.runtimes import open_runtime
from emb.spec.dataset import DataRequest, Images

_SEED = 0
# So many of them are timed, in turn.
TIMED_IMAGES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredOn:
    """What a file is measured on. views: the images, or several crops of each.

    labels: None for images that mean nothing, good enough to take the time.
    """

    name: str
    views: tuple[Images, ...]
    labels: NDArray[np.int64] | None


def images_for(
    deliverable: Deliverable, *, data: str | None, data_dir: Path | None, crops: int | None = None
) -> MeasuredOn:
    """The test images of the deliverable's own build, or of `data`, in the shape that it takes."""
    with open_runtime(preferred_runtime(deliverable), model=deliverable.path) as process:
        shape = image_shape(process.input)
    recipe = deliverable.recipe
    table = data_table(data)["data"] if data is not None else recipe.get("data")
    if table is None:
        if crops is not None:
            raise SpecError(
                "--crops needs test images",
                why=f"{deliverable.path.name} lies in no build that would name them",
                fix="add --data: a data set's name, a folder with one directory per class, or a .npz file",
            )
        images = np.random.default_rng(_SEED).integers(0, 256, size=(TIMED_IMAGES, *shape), dtype=np.uint8)
        return MeasuredOn(name="random pixels; no accuracy without --data", views=(images,), labels=None)
    request = DataRequest(
        directories=data_sets.search_directories(data_dir),
        path=Path(table["path"]) if table["path"] else None,
        shape=shape if crops is None else shape_to_crop_from(shape),
        seed=recipe.get("train", {}).get("seed", _SEED),
        skip_bad=table.get("skip_bad", False),  # of the build's own images alone
    )
    dataset = data_sets.load(table["name"], request)
    test = dataset.test
    name = f"{len(test):,} test images of {table['name']}"
    views: tuple[Images, ...] = (test.images,)
    if crops is not None:
        name += f", mean over {crops} crops of each"
        views = crops_of(test.images, shape=shape, count=crops)
    return MeasuredOn(name="; ".join([name, *dataset.notes]), views=views, labels=test.labels)


def require_same_classes(files: Sequence[Deliverable]) -> None:
    """Raise ModelError if two of them, out of builds, tell different classes apart."""
    known = [file for file in files if file.labels]
    for file in known[1:]:
        if file.labels != known[0].labels:
            raise ModelError(
                f"{file.path} and {known[0].path} tell different classes apart",
                why=f"{', '.join(file.labels[:6])} … and {', '.join(known[0].labels[:6])} …",
                fix="take builds of the same data set",
            )


def require_same_images(one: Deliverable, images: MeasuredOn, other: Deliverable, theirs: MeasuredOn) -> None:
    """Raise ModelError if the test images of two builds differ: one may have been trained on the other's."""
    if not np.array_equal(images.labels, theirs.labels):  # type: ignore[arg-type]  # None is no array, and equals none
        raise ModelError(
            f"{other.path} was made for other test images than {one.path}",
            why=f"they are {theirs.name} and {images.name}",
            fix="build both from the same data set with the same seed, or name the images: --data",
        )
