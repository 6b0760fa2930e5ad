"""From artifacts to the report's rows. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.bench import describe_machine
from emb.errors import EmbError
from emb.pipeline.json_files import read_json
from emb.pipeline.measuring import Timing
from emb.pipeline.plan import Plan, PlannedFile, PlannedRow
from emb.pipeline.planned_pruning import COMPARISON
from emb.pipeline.prune_stages import PLAN
from emb.pipeline.quantized_models import REPAIR_FILE
from emb.pipeline.target_report import target_report
from emb.pipeline.targeting import FIT
from emb.spec.pruned import Pruning
from emb.spec.recipe import Recipe
from emb.spec.repair import Repair
from emb.spec.report import DataSummary, FormatAgreement, Report, Row
from emb.store import Artifact

Done = Mapping[str, Artifact]
Failures = Mapping[str, EmbError]


def assemble(
    planned: Plan, done: Done, failures: Failures, *, recipe: Recipe, data_digest: str, directory: Path
) -> Report:
    """The report of a build. Files whose export or check failed have no rows, only an error."""
    data = read_json(done["data"].path("data.json"))
    reference = read_json(done["reference"].path("accuracy.json"))
    rows = []
    errors = [_one_line(file.name, failures[file.check]) for file in planned.files if file.check in failures]
    if COMPARISON in failures:
        errors.append(_one_line("the unpruned model", failures[COMPARISON]))
    if FIT in failures:
        errors.append(_one_line("the target", failures[FIT]))
    written = [file.stage for file in planned.files if file.check not in failures]
    for file in planned.files:
        if file.check in failures:
            continue
        for way in file.rows:
            row = _row(file, way, done, failures)
            rows.append(row)
            errors += _errors_of(row, way, failures, minimum_agreement=recipe.verify.minimum_agreement)
    return Report(
        recipe=recipe.name,
        data=DataSummary(
            name=data["name"],
            train_images=data["train_images"],
            test_images=data["test_images"],
            digest=data_digest,
        ),
        directory=directory,
        cached=not failures and all(artifact.cached for artifact in done.values()),
        seconds=_seconds(planned, done),
        rows=tuple(rows),
        errors=tuple(errors),
        reference_accuracy=reference["correct"] / reference["total"],
        machine=describe_machine().title,
        notes=(
            *data["notes"],
            *(note for stage in ("calibration", "model", *written) for note in _notes_of(stage, done)),
        ),
        formats=_formats(planned, done, failures),
        target=target_report(planned, done),
        pruning=_pruning(done),
        repairs=tuple(
            Repair.from_json(read_json(artifact.path(REPAIR_FILE)))
            for artifact in done.values()
            if REPAIR_FILE in artifact.files
        ),
    )


def _formats(planned: Plan, done: Done, failures: Failures) -> tuple[FormatAgreement, ...]:
    """Of each scheme in more than one format, how often any two of its files give the same class."""
    classes: dict[str, dict[str, list[NDArray[np.int64]]]] = {}
    for file in planned.files:
        if file.check in failures:
            continue
        found = [_classes(done[way.verify]) for way in file.rows if _has_scores(way, done)]
        classes.setdefault(file.scheme.name, {}).setdefault(file.format, []).extend(found)
    shares = {
        scheme: [
            float(np.mean(one == other))
            for former, latter in combinations(formats.values(), 2)
            for one, other in product(former, latter)
        ]
        for scheme, formats in classes.items()
    }
    return tuple(FormatAgreement(scheme=scheme, share=min(found)) for scheme, found in shares.items() if found)


def _classes(verified: Artifact) -> NDArray[np.int64]:
    """What a file said of each test image. The scores of many images and classes would not all fit in memory."""
    classes: NDArray[np.int64] = np.load(verified.path("scores.npy"), mmap_mode="r").argmax(axis=1)
    return classes


def _has_scores(way: PlannedRow, done: Done) -> bool:
    return way.verify in done and "scores.npy" in done[way.verify].files


def _notes_of(stage: str, done: Done) -> tuple[str, ...]:
    if stage not in done or "notes.json" not in done[stage].files:
        return ()
    return tuple(read_json(done[stage].path("notes.json")))


def _pruning(done: Done) -> Pruning | None:
    if PLAN not in done["model"].files:
        return None
    document = read_json(done["model"].path(PLAN))
    del document["plans"]
    if COMPARISON in done:
        document["unpruned"] = read_json(done[COMPARISON].path("unpruned.json"))
    return Pruning.from_json(document)


def _row(file: PlannedFile, way: PlannedRow, done: Done, failures: Failures) -> Row:
    graph = read_json(done[file.check].path("graph.json"))
    fixed: dict[str, Any] = {
        "file": file.name,
        "format": file.format,
        "scheme": file.scheme.name,
        "runtime": way.runtime,
        "mode": way.mode,
        "bytes": graph["bytes"],
        "gzip_bytes": graph["gzip_bytes"],
        "parameters": graph["parameters"],
        "macs": graph["macs"],
        "sha256": done[file.stage].files[f"model.{file.format}"],
    }
    failure = failures.get(way.verify) or failures.get(way.measure)
    if way.absence or failure:
        reason = way.absence or (failure.what if failure else "")
        return Row(**fixed, source=f"not measured: {reason}")
    verified = read_json(done[way.verify].path("verified.json"))
    if "skipped" in verified:
        return Row(**fixed, source=f"not measured: {verified['skipped']}")
    timing = Timing.from_json(read_json(done[way.measure].path("latency.json")))
    return Row(
        **fixed,
        source="measured",
        accuracy=verified["correct"] / verified["total"],
        accuracy_low=verified["low"],
        accuracy_high=verified["high"],
        top5=verified["top5"],
        expected_calibration_error=verified["expected_calibration_error"],
        agreement=verified["agreement"],
        latency=timing.summary,
        peak_memory_bytes=timing.peak_memory_bytes,
    )


def _errors_of(row: Row, way: PlannedRow, failures: Failures, *, minimum_agreement: float) -> list[str]:
    where = f"{row.file} on {row.runtime} ({row.mode})"
    for stage in (way.verify, way.measure):
        if stage in failures:
            return [_one_line(where, failures[stage])]
    if row.agreement is not None and row.agreement < minimum_agreement:
        return [
            f"{where} agrees with the float model on {100 * row.agreement:.2f} % of the test images only; "
            f"at least {100 * minimum_agreement:g} % are wanted (verify.minimum_agreement)"
        ]
    return []


def _one_line(where: str, error: EmbError) -> str:
    return f"{where}: {' '.join(str(error).split())}"


def _seconds(planned: Plan, done: Done) -> dict[str, float]:
    """Group of stages -> wall time of their work, now or when it was done."""
    seconds: dict[str, float] = {}
    for stage in planned.stages:
        if stage.name in done:
            seconds[stage.group] = seconds.get(stage.group, 0.0) + done[stage.name].seconds
    return {group: round(value, 3) for group, value in seconds.items()}
