"""Writes a build's directory: models, contract, labels, golden files, report, manifest. Computes nothing.

lenet-float32.tflite …      the models
lenet-int8_vela.tflite      the one for the target, compiled for its accelerator (if that has a compiler here)
contract.json               what each model expects and returns
labels.txt                  the classes, one a line, in the order of the scores
report.json, report.md      what was measured
model-card.md               what somebody must know who is handed the files
samples.json                raw latency samples behind the report
classes.json                of each file on each runtime, which classes it took for which
mistakes/                   images that one of them was surest of, and wrong about
history.json, training.svg  the training, epoch by epoch (if there was one); of a pruned model the fine-tuning
prune.json                  what was pruned (if it was)
golden/                     images and the outputs that each runtime gave for them
manifest.json               the recipe, the provenance of every stage, and the sha256 of every file here
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from emb.errors import StoreError
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.judged import write_judged
from emb.pipeline.plan import Plan
from emb.pipeline.prune_stages import PLAN
from emb.pipeline.target_report import compiled_file
from emb.report import card, markdown
from emb.report.curves import training_section
from emb.spec.contract import Contract, ModelContract, Pixels, TensorContract
from emb.spec.recipe import Recipe
from emb.spec.report import Report
from emb.store import MANIFEST, Artifact, directory_lock, replace_directory, sha256_of_file


def directory_for(recipe: Recipe, chosen: Path | None) -> Path:
    """Where the build goes: `chosen`, or builds/<name>-<schemes>, with the pruning between: lenet-channels-0.5-int8."""
    pruning = []
    if recipe.prune.is_asked_for:
        pruning = [recipe.prune.method, re.sub(r"[^\w.]+", "-", str(recipe.prune.target))]
    return chosen or Path("builds") / "-".join([recipe.name, *pruning, *recipe.quantize.schemes])


def require_replaceable(target: Path, *, kind: str = "build", manifest: str = MANIFEST) -> None:
    """Make sure, before any work, that a build can be written to `target`, or what else of emb's is meant.

    kind: what it is, for the message.  manifest: the file that tells one of its kind.
    Raises StoreError if the place cannot be written, or holds something else.
    """
    with directory_lock(target):
        if target.exists() and not target.is_dir():
            raise StoreError(f"{target} is not a directory", fix="choose another place with --output")
        if target.is_dir() and any(target.iterdir()) and not (target / manifest).is_file():
            raise StoreError(
                f"{target} holds something else than a {kind}",
                why="emb replaces the whole directory and would delete it",
                fix="choose another place with --output, or empty it yourself",
            )


def write(report: Report, planned: Plan, done: Mapping[str, Artifact], *, recipe: Recipe) -> None:
    """Replace the build's directory as a whole."""

    target = planned.deployment.aim.target.name if planned.deployment else None

    def fill(folder: Path) -> None:
        _write_models(folder, planned, done)
        _write_golden(folder, planned, done)
        contract = _contract(planned, done)
        write_json(folder / "contract.json", asdict(contract))
        (folder / "labels.txt").write_text("".join(f"{label}\n" for label in contract.labels), encoding="utf-8")
        (folder / "samples.json").write_text(json.dumps(_samples(planned, done)) + "\n", encoding="utf-8")
        write_json(folder / "report.json", report.to_json())
        page = markdown.render(report) + write_judged(folder, planned, done, contract, report.rows)
        if "history.json" in done["model"].files:
            shutil.copyfile(done["model"].path("history.json"), folder / "history.json")
        if PLAN in done["model"].files:
            shutil.copyfile(done["model"].path(PLAN), folder / PLAN)
        if "curves" in done:
            shutil.copyfile(done["curves"].path("training.svg"), folder / "training.svg")
            page += training_section(read_json(folder / "history.json")["epochs"], image="training.svg")
        (folder / "report.md").write_text(page, encoding="utf-8")
        (folder / "model-card.md").write_text(card.render(report, contract, recipe, _tools(done)), encoding="utf-8")
        write_json(folder / MANIFEST, manifest(folder, done, recipe, target=target))

    replace_directory(report.directory, fill)


def _write_models(folder: Path, planned: Plan, done: Mapping[str, Artifact]) -> None:
    for file in planned.files:
        if file.check in done:
            shutil.copyfile(done[file.stage].path(f"model.{file.format}"), folder / file.name)
    if compiled := compiled_file(planned, done):
        name, path = compiled
        shutil.copyfile(path, folder / name)


def _write_golden(folder: Path, planned: Plan, done: Mapping[str, Artifact]) -> None:
    golden = folder / "golden"
    golden.mkdir()
    shutil.copyfile(done["data"].path("golden.npy"), golden / "images.npy")
    shutil.copyfile(done["reference"].path("golden.npy"), golden / "float-model.npy")
    for file in planned.files:
        for row in file.rows:
            if row.verify in done and file.check in done:
                name = f"{file.name}.{row.runtime}.{row.mode}.npy"
                shutil.copyfile(done[row.verify].path("golden.npy"), golden / name)


def _contract(planned: Plan, done: Mapping[str, Artifact]) -> Contract:
    data = read_json(done["data"].path("data.json"))
    models = []
    for file in planned.files:
        if file.check not in done:
            continue
        graph = read_json(done[file.check].path("graph.json"))
        models.append(
            ModelContract(
                file=file.name,
                format=file.format,
                scheme=file.scheme.name,
                sha256=done[file.stage].files[f"model.{file.format}"],
                input=TensorContract(**graph["input"]),
                output=TensorContract(**graph["output"]),
                scores=graph["scores"],
                float_layers=tuple(graph["float_layers"]),
            )
        )
    return Contract(
        pixels=Pixels(**read_json(done[planned.files[0].stage].path("pixels.json"))),
        channel_order="grey" if data["shape"][2] == 1 else "RGB",
        labels=tuple(data["labels"]),
        models=tuple(models),
    )


def _samples(planned: Plan, done: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    return [
        {
            "file": file.name,
            "runtime": row.runtime,
            "mode": row.mode,
            **read_json(done[row.measure].path("latency.json")),
        }
        for file in planned.files
        for row in file.rows
        if row.measure in done and file.check in done and _is_measured(done[row.measure])
    ]


def _is_measured(artifact: Artifact) -> bool:
    return "skipped" not in read_json(artifact.path("latency.json"))


def _tools(done: Mapping[str, Artifact]) -> dict[str, str]:
    """name -> version of everything that had a hand in the build."""
    stages = [read_json(artifact.directory / MANIFEST) for artifact in done.values()]
    return {"emb": version("emb")} | {name: found for stage in stages for name, found in stage["tools"].items()}


def manifest(
    folder: Path, done: Mapping[str, Artifact], recipe: Recipe, *, target: str | None = None
) -> dict[str, Any]:
    """The recipe, the provenance of every stage and the sha256 of every file that lies in `folder` now.

    target: its name, if it was built for one.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "emb": version("emb"),
        "recipe": asdict(recipe),
        **({"target": target} if target else {}),
        "stages": {name: read_json(artifact.directory / MANIFEST) for name, artifact in done.items()},
        "files": {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files},
    }
