"""Which classes each file of a build took for which, and its worst mistakes as pictures. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.bench import per_class
from emb.pipeline.json_files import read_json
from emb.pipeline.plan import Plan, PlannedFile, PlannedRow
from emb.report.classes import classes_section
from emb.spec.contract import Contract
from emb.spec.report import Row
from emb.store import Artifact

CLASSES = "classes.json"
MISTAKES = "mistakes"

Done = Mapping[str, Artifact]


def write_judged(folder: Path, planned: Plan, done: Done, contract: Contract, rows: Sequence[Row]) -> str:
    """classes.json, and the pictures in mistakes/, each named after image, label and answer.

    Returns the section "Classes" of the build's page, "" if no file could be judged.
    """
    judged = list(_judged(planned, done))
    document: dict[str, Any] = {
        "labels": list(contract.labels),
        "rows": [
            {
                "file": file.name,
                "runtime": way.runtime,
                "mode": way.mode,
                "confusion": read_json(done[way.verify].path("verified.json"))["confusion"],
            }
            for file, way in judged
        ],
        "mistakes": None,
    }
    section = ""
    if chosen := _chosen(judged):
        file, way = chosen
        verified = done[way.verify]
        with np.load(verified.path("mistakes.npz")) as arrays:
            pictures = list(_write_pictures(folder / MISTAKES, arrays))
        document["mistakes"] = {"file": file.name, "runtime": way.runtime, "pictures": pictures}
        row = next(row for row in rows if (row.file, row.runtime, row.mode) == (file.name, way.runtime, way.mode))
        classes = per_class(read_json(verified.path("verified.json"))["confusion"])
        section = classes_section(classes, contract.labels, row)
    (folder / CLASSES).write_text(json.dumps(document) + "\n", encoding="utf-8")
    return section


def _judged(planned: Plan, done: Done) -> Iterator[tuple[PlannedFile, PlannedRow]]:
    for file in planned.files:
        for way in file.rows:
            if file.check in done and way.verify in done and "scores.npy" in done[way.verify].files:
                yield file, way


def _chosen(judged: Sequence[tuple[PlannedFile, PlannedRow]]) -> tuple[PlannedFile, PlannedRow] | None:
    """The row whose mistakes are shown: the first of an integer file in its default mode, else the first of any."""
    usual = [(file, way) for file, way in judged if way.mode == "default"]
    integer = [(file, way) for file, way in usual if file.scheme.integer_only]
    return next(iter(integer or usual), None)


def _write_pictures(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> Iterator[dict[str, Any]]:
    from PIL import Image

    names = ("images", "numbers", "labels", "answers", "confidence")
    for image, number, label, answer, confidence in zip(*(arrays[name] for name in names), strict=True):
        folder.mkdir(exist_ok=True)
        name = f"{number}-is-{label}-not-{answer}.png"
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / name)
        yield {
            "picture": f"{MISTAKES}/{name}",
            "image": int(number),
            "label": int(label),
            "answer": int(answer),
            "confidence": round(float(confidence), 4),
        }
