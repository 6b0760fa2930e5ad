"""Measures model files that are there already: latency, memory and, with test images, accuracy. Keeps nothing."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb import data as data_sets
from emb.bench import describe_machine, judge, top1
from emb.bench.crops import crops as crops_of
from emb.bench.crops import require_count, shape_to_crop_from
from emb.errors import DataError, EmbError, ModelError, SpecError
from emb.graph.cost import cost
from emb.pipeline.classify import image_shape, preferred_runtime
from emb.pipeline.deliverable import Deliverable, find_all
from emb.pipeline.measuring import time_file, too_long_on_reference_kernels, ways_to_run
from emb.pipeline.request import data_table
from emb.pipeline.scoring import normalised, probabilities
from emb.registry import nearest
from emb.runtimes import open_runtime
from emb.spec.contract import Pixels
from emb.spec.dataset import DataRequest, Images
from emb.spec.report import BenchReport, Row

_SEED = 0
_RANDOM_IMAGES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredOn:
    """What a file is measured on. views: the images, or several crops of each.

    labels: None for images that mean nothing, good enough to take the time.
    """

    name: str
    views: tuple[Images, ...]
    labels: NDArray[np.int64] | None


def bench(
    model: Path,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    runtime: str | None = None,
    threads: int = 1,
    pixels: Pixels | None = None,
    crops: int | None = None,
) -> BenchReport:
    """Measure a .tflite or .onnx file, or every file of a build, on every runtime present (or on `runtime` alone).

    data: a data set's name, a folder or a .npz; without it that of the file's own build; without one, no accuracy.
    crops: average over so many crops of each image (1, 5 or 10) instead of the whole image.
    What fails on one runtime stands in `errors`. Raises EmbError for everything else.
    """
    if crops is not None:
        require_count(crops)
    rows: list[Row] = []
    errors: list[str] = []
    names = []
    for deliverable in find_all(model, pixels=pixels):
        images = images_for(deliverable, data=data, data_dir=data_dir, crops=crops)
        names.append(images.name)
        for row, error in _rows_of(deliverable, images, only=runtime, threads=threads):
            rows.append(row)
            errors += [error] if error else []
    return BenchReport(
        model=str(model), images=names[0], rows=tuple(rows), errors=tuple(errors), machine=describe_machine().title
    )


def _rows_of(deliverable: Deliverable, images: MeasuredOn, *, only: str | None, threads: int) -> list[tuple[Row, str]]:
    integer_only = "int8" in deliverable.scheme or "int16" in deliverable.scheme
    ways = ways_to_run(deliverable.format, scheme=deliverable.scheme, with_reference_kernels=integer_only)
    if only is not None:
        known = sorted({name for name, _, _ in ways})
        if only not in known:
            raise SpecError(f"{only!r} does not run {deliverable.path.name}", fix=nearest(only, known))
        ways = [way for way in ways if way[0] == only]
    fixed = fixed_fields(deliverable)
    rows = []
    for name, mode, absence in ways:
        way = {**fixed, "runtime": name, "mode": mode}
        if absence:
            rows.append((Row(**way, source=f"not measured: {absence}"), ""))
            continue
        count = 1 if images.labels is None else len(images.labels) * len(images.views)
        if skipped := too_long_on_reference_kernels(mode, macs=fixed["macs"], images=count):
            rows.append((Row(**way, source=f"not measured: {skipped}"), ""))
            continue
        try:
            rows.append((measured_row(deliverable, images, way, threads=threads), ""))
        except DataError:  # an image that is streamed and cannot be decoded: no row would have an accuracy
            raise
        except EmbError as error:
            row = Row(**way, source=f"not measured: {error.what}")
            rows.append((row, f"{deliverable.path.name} on {name} ({mode}): {' '.join(str(error).split())}"))
    return rows


def fixed_fields(deliverable: Deliverable) -> dict[str, Any]:
    """What a file is, whatever runs it."""
    content = deliverable.path.read_bytes()
    total = cost(deliverable.graph)
    return {
        "file": deliverable.path.name,
        "format": deliverable.format,
        "scheme": deliverable.scheme,
        "bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, compresslevel=9, mtime=0)),
        "parameters": total.parameters,
        "macs": total.macs,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def measured_row(deliverable: Deliverable, images: MeasuredOn, way: dict[str, Any], *, threads: int) -> Row:
    """One file on the runtime and in the mode that `way` names. Raises RuntimeFailure or ModelError."""
    runtime, mode = way["runtime"], way["mode"]
    timing = time_file(
        deliverable.path,
        images.views[0][:_RANDOM_IMAGES],
        runtime=runtime,
        mode=mode,
        threads=threads,
        pixels=deliverable.pixels,
    )
    measured: dict[str, Any] = {"latency": timing.summary, "peak_memory_bytes": timing.peak_memory_bytes}
    if images.labels is not None:
        with open_runtime(runtime, model=deliverable.path, mode=mode) as process:
            scores, chances = _scores(process, deliverable, images.views)
        accuracy = top1(scores, images.labels)
        judgement = judge(scores, chances, images.labels)
        measured |= {
            "accuracy": accuracy.accuracy,
            "accuracy_low": accuracy.low,
            "accuracy_high": accuracy.high,
            "top5": judgement.top5,
            "expected_calibration_error": judgement.expected_calibration_error,
        }
    return Row(**way, **measured, source="measured")


def _scores(
    process: Any, deliverable: Deliverable, views: tuple[Images, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(scores, probabilities): one view is judged by what the file gives; a mean needs probabilities."""
    if len(views) == 1:
        scores = process.scores(views[0], pixels=deliverable.pixels)
        return scores, normalised(scores, deliverable)
    mean = probabilities(process, deliverable, views)
    return mean, mean


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
        images = np.random.default_rng(_SEED).integers(0, 256, size=(_RANDOM_IMAGES, *shape), dtype=np.uint8)
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
