"""The job of `emb train`: the stages up to the trained model, and what one wants to see of a training."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import SpecError
from emb.pipeline import output
from emb.pipeline.build import Prepared, engine_for, prepare, run
from emb.pipeline.drawing import norms_of_layers
from emb.pipeline.engine import keras_on_tensorflow
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.planned import surface_stage
from emb.pipeline.request import resolve
from emb.pipeline.stage import Listener, Silence
from emb.spec.recipe import PruneSpec, Recipe
from emb.spec.training import GradientSummary, SurfaceSummary, TrainingReport
from emb.store import MANIFEST, Artifact, explained, replace_directory
from emb.train.tensorboard import Scalars, append_scalars

if TYPE_CHECKING:
    from emb.train import GradientNorms, Progress

_STAGES = ("data", "model", "curves")


def train(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    data_dir: Path | None = None,
    trust_model: bool = False,
    output_directory: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
    listener: Listener | None = None,
    backend: str | None = None,
    devices: int | str | None = None,
    gradients: bool = False,
    loss_surface: bool = False,
    surface_points: int = 21,
    tensorboard: Path | None = None,
) -> TrainingReport:
    """Train what `emb build` would train, and leave it in the store for it; the arguments are those of `build`.

    gradients: record the 2-norm of every variable's gradient at every step.  tensorboard: a directory for event files,
    one run in it for each training.  loss_surface: draw the loss around the model, at surface_points ** 2 points.
    output_directory: builds/<name>-train by default.
    Raises EmbError; nothing is written to the output then.
    """
    wanted = resolve(str(recipe), data=data, overrides=overrides, assignments=assignments)
    wanted = replace(wanted, prune=PruneSpec())  # what emb build trains before it prunes
    if wanted.train.epochs == 0:
        raise SpecError(
            f"there is nothing to train: {wanted.name} has train.epochs = 0", fix="say for how long: --epochs 10"
        )
    target = output_directory or Path("builds") / f"{wanted.name}-train"
    engine = engine_for(wanted, backend=backend, devices=devices)
    with keras_on_tensorflow():
        output.require_replaceable(target)
        ready = prepare(
            wanted, engine, data_dir=data_dir, trust_model=trust_model, listener=listener, gradients=gradients
        )
        stages = [stage for stage in ready.plan.stages if stage.name in _STAGES]
        if loss_surface:
            stages.append(surface_stage(ready.recipe, data_digest=ready.data_digest, points=surface_points))
        ready = replace(ready, plan=replace(ready.plan, stages=tuple(stages), files=()))
        board = _board(ready, tensorboard) if tensorboard else None
        if board:
            ready = replace(ready, context=replace(ready.context, listener=board))
        done, _ = run(ready)
        if board:
            board.complete(done["model"])
        _write(target, done, recipe=ready.recipe)
    return _report(ready, done, target, board=board)


class _Board:
    """A listener that also writes the end of every epoch to an event file, so that TensorBoard can follow."""

    def __init__(self, listener: Listener, folder: Path) -> None:
        """folder: of this training alone; event files of an earlier run of it are replaced. Raises StoreError."""
        self.folder = folder
        self._listener = listener
        self._told: set[int] = set()
        self._begin()

    def stage_begins(self, name: str) -> None:
        self._listener.stage_begins(name)

    def stage_ends(self, name: str, *, cached: bool, seconds: float) -> None:
        self._listener.stage_ends(name, cached=cached, seconds=seconds)

    def downloading(self, file: str, done_bytes: int, total_bytes: int) -> None:
        self._listener.downloading(file, done_bytes, total_bytes)

    def failed(self, message: str) -> None:
        self._listener.failed(message)

    def training(self, progress: Progress) -> None:
        if progress.validation_accuracy is not None:
            self._told.add(progress.epoch)
            epoch = {
                "loss": progress.loss,
                "accuracy": progress.accuracy,
                "validation_accuracy": progress.validation_accuracy,
                "learning_rate": progress.learning_rate,
            }
            append_scalars(self._file, [_of_epoch(progress.epoch, epoch)])
        self._listener.training(progress)

    def complete(self, model: Artifact) -> None:
        """What was not heard: epochs of an earlier process (all of them in order, then), and gradient norms."""
        epochs = read_json(model.path("history.json"))["epochs"]
        if len(self._told) < len(epochs):
            self._begin()
            append_scalars(self._file, [_of_epoch(number, epoch) for number, epoch in enumerate(epochs, start=1)])
        if (norms := _gradients(model)) is not None:
            append_scalars(self._file, _of_gradients(norms))

    def _begin(self) -> None:
        with explained("replace the events in", self.folder):
            for former in self.folder.glob("events.out.tfevents.*.emb"):
                former.unlink()
        self._file = self.folder / f"events.out.tfevents.{time.time_ns()}.emb"
        append_scalars(self._file, [])


def _board(ready: Prepared, directory: Path) -> _Board:
    (model,) = (stage for stage in ready.plan.stages if stage.name == "model")
    run_name = f"{ready.recipe.name}-{model.step({}).key[:8]}"
    return _Board(ready.context.listener or Silence(), directory / run_name)


def _of_epoch(number: int, epoch: Mapping[str, float]) -> Scalars:
    return Scalars(
        step=number,
        wall_time_s=time.time(),
        values={
            "loss/train": epoch["loss"],
            "accuracy/train": epoch["accuracy"],
            "accuracy/validation": epoch["validation_accuracy"],
            "learning rate": epoch["learning_rate"],
        },
    )


def _of_gradients(gradients: GradientNorms) -> Iterable[Scalars]:
    layers, norms = norms_of_layers(gradients)
    for step, row in enumerate(norms, start=1):
        values = {f"gradient norm/{layer}": float(norm) for layer, norm in zip(layers, row, strict=True)}
        yield Scalars(step=step, wall_time_s=time.time(), values=values)


def _gradients(model: Artifact) -> GradientNorms | None:
    if "gradients.npz" not in model.files:
        return None
    from emb.train import GradientNorms

    return GradientNorms.read(model.path("gradients.npz"))


def _write(target: Path, done: Mapping[str, Artifact], *, recipe: Recipe) -> None:
    def fill(folder: Path) -> None:
        for stage in done.keys() - {"data"}:
            for name in done[stage].files:
                shutil.copyfile(done[stage].path(name), folder / name)
        write_json(folder / MANIFEST, output.manifest(folder, done, recipe))

    replace_directory(target, fill)


def _report(ready: Prepared, done: Mapping[str, Artifact], target: Path, *, board: _Board | None) -> TrainingReport:
    history = read_json(done["model"].path("history.json"))
    epochs = history["epochs"]
    gradients = _gradients(done["model"])
    return TrainingReport(
        recipe=ready.recipe.name,
        data=ready.recipe.data.name,
        directory=target,
        cached=done["model"].cached,
        backend=ready.engine.backend,
        devices=ready.engine.devices,
        seconds=round(done["model"].seconds, 3),
        epochs=tuple(epochs),
        kept_epoch=history["kept_epoch"],
        gradients=None if gradients is None else _summary(gradients, epochs=len(epochs)),
        surface=_surface(done["surface"]) if "surface" in done else None,
        tensorboard=None if board is None else board.folder,
        notes=tuple(read_json(done["data"].path("data.json"))["notes"]),
    )


def _summary(gradients: GradientNorms, *, epochs: int) -> GradientSummary:
    layers, norms = norms_of_layers(gradients)
    steps = len(norms) // epochs
    medians = np.median(norms[-steps:], axis=0)
    return GradientSummary(
        layers=len(layers),
        steps=len(norms),
        first_layer=layers[0],
        first_norm=float(medians[0]),
        last_layer=layers[-1],
        last_norm=float(medians[-1]),
    )


def _surface(artifact: Artifact) -> SurfaceSummary:
    with np.load(artifact.path("surface.npz"), allow_pickle=False) as file:
        loss, images = file["loss"], int(file["images"])
    middle = len(loss) // 2
    return SurfaceSummary(
        points=len(loss),
        images=images,
        loss_of_model=float(loss[middle, middle]),
        lowest_loss=float(loss.min()),
        highest_loss=float(loss.max()),
    )
