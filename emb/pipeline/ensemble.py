"""Measures several models as one that averages their probabilities. Trains, converts and keeps nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emb.bench import describe_machine, top1
from emb.bench.crops import require_count
from emb.errors import SpecError
from emb.pipeline.bench import accuracy_fields, fixed_fields
from emb.pipeline.classify import preferred_runtime
from emb.pipeline.deliverable import Deliverable, find
from emb.pipeline.measured_on import TIMED_IMAGES, MeasuredOn, images_for, require_same_classes, require_same_images
from emb.pipeline.measuring import time_file
from emb.pipeline.scoring import probabilities
from emb.runtimes import open_runtime
from emb.spec.contract import Pixels
from emb.spec.measurement import Accuracy
from emb.spec.report import BenchReport, Row


def ensemble(
    models: Sequence[Path],
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    runtime: str | None = None,
    threads: int = 1,
    pixels: Pixels | None = None,
    crops: int | None = None,
) -> BenchReport:
    """Each member by itself, and then all of them: the class with the highest mean probability.

    models: files or builds' directories, of which the first int8 file counts; at least two.
    data, pixels, crops: as for `bench`.  runtime: the first that is present and may run a member, by default.
    The last row is the ensemble's; its bytes, parameters and MACs are the members' sums. Raises EmbError.
    """
    if crops is not None:
        require_count(crops)
    if len(models) < 2:
        raise SpecError("an ensemble needs at least two models", fix="name more builds: emb bench A B C --ensemble")
    members = [find(model, pixels=pixels) for model in models]
    require_same_classes(members)
    rows = []
    total: NDArray[np.float32] | None = None
    first: MeasuredOn | None = None
    for member in members:
        images = images_for(member, data=data, data_dir=data_dir, crops=crops)
        _require_labels(images, member)
        if first is not None:
            require_same_images(members[0], first, member, images)
        first = first or images
        its = runtime or preferred_runtime(member)
        rows.append(_measured(member, images, runtime=its, threads=threads))
        with open_runtime(its, model=member.path) as process:
            scores = probabilities(process, member, images.views)
        total = scores if total is None else total + scores
    assert total is not None  # two members at least
    assert first is not None
    assert first.labels is not None
    return BenchReport(
        model=", ".join(map(str, models)),
        images=first.name,
        rows=(*rows, _of_all(rows, top1(total, first.labels))),
        errors=(),
        machine=describe_machine().title,
    )


def _measured(member: Deliverable, images: MeasuredOn, *, runtime: str, threads: int) -> Row:
    timing = time_file(
        member.path,
        images.views[0][:TIMED_IMAGES],
        runtime=runtime,
        mode="default",
        threads=threads,
        pixels=member.pixels,
    )
    return Row(
        **fixed_fields(member),
        **accuracy_fields(member, images, runtime=runtime, mode="default"),
        runtime=runtime,
        mode="default",
        latency=timing.summary,
        peak_memory_bytes=timing.peak_memory_bytes,
        source="measured",
    )


def _of_all(rows: Sequence[Row], accuracy: Accuracy) -> Row:
    return Row(
        file=f"ensemble of {len(rows)}",
        format="+".join(sorted({row.format for row in rows})),
        scheme="+".join(sorted({row.scheme for row in rows})),
        runtime="+".join(sorted({row.runtime for row in rows})),
        mode="default",
        bytes=sum(row.bytes for row in rows),
        gzip_bytes=sum(row.gzip_bytes for row in rows),
        parameters=sum(row.parameters for row in rows),
        macs=sum(row.macs for row in rows),
        sha256="",
        source="measured",
        accuracy=accuracy.accuracy,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
    )


def _require_labels(images: MeasuredOn, member: Deliverable) -> None:
    if images.labels is None:
        raise SpecError(
            "an ensemble is measured by its accuracy, which needs test images",
            why=f"{member.path} lies in no build that would name them",
            fix="add --data: a data set's name, a folder with one directory per class, or a .npz file",
        )
