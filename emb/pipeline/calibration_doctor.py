"""What `emb doctor calibration` says: whether images are fit to calibrate a model on. Quantizes and trains nothing.

The pixels are looked at always; what they do inside the model, where there is a trained one: a model of one's own, or
a recipe that was built.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb import data as data_sets
from emb.graph import files
from emb.pipeline.calibration import examine_images
from emb.pipeline.engine import keras_on_tensorflow
from emb.pipeline.model_files import ModelFiles, build_of, names_of_layers, of_build, of_model
from emb.pipeline.plan import source_format
from emb.pipeline.request import data_request, resolve
from emb.quantize import examine_activations
from emb.spec.dataset import Dataset
from emb.spec.recipe import Recipe

if TYPE_CHECKING:
    from emb.quantize._calibration_findings import CalibrationFinding

VALIDATION_IMAGES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """images: what was examined, in words.  skipped: why the activations were not looked at; "" if they were."""

    source: str
    images: str
    findings: tuple[CalibrationFinding, ...]
    skipped: str

    @property
    def is_broken(self) -> bool:
        return any(one.severity == "broken" for one in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "images": self.images,
            "findings": [one.to_json() for one in self.findings],
            "skipped": self.skipped or None,
        }


def examine(
    source: str,
    *,
    data: str | None = None,
    images: Path | None = None,
    calibration: int | None = None,
    data_dir: Path | None = None,
    trust_model: bool = False,
) -> Examination:
    """Examine the calibration images of a recipe or of somebody's own model.

    source: as for `build`.  images: a folder, .npy or .npz file to calibrate on instead of train images.
    calibration: how many train images. Raises EmbError for a source or images that cannot be read, and for images of
    another size than the model's.
    """
    recipe = resolve(source, data=data, overrides={"quantize.calibration_images": calibration})
    with keras_on_tensorflow():
        made, skipped = _float_file(source, recipe, data_dir=data_dir, trust_model=trust_model)
        # A model of one's own decides the shape of the images.
        recipe = replace(recipe, input=made.recipe.input) if made else recipe
        dataset = data_sets.load(recipe.data.name, data_request(recipe, data_dir=data_dir))
        pixels, labels, told = _images(dataset, recipe, images)
        findings, mended = examine_images(
            dataset, pixels, labels=labels, seed=recipe.train.seed, balanced=images is None, with_test=True
        )
        if mended is None:
            skipped = "the pixels cannot be put right"
        elif made is not None:
            findings += _activations(made, dataset, mended)
    ordered = sorted(findings, key=lambda one: one.severity != "broken")
    return Examination(source=source, images=told, findings=tuple(ordered), skipped=skipped)


def _images(dataset: Dataset, recipe: Recipe, own: Path | None) -> tuple[NDArray[Any], NDArray[np.int64] | None, str]:
    if own is not None:
        images, labels = data_sets.own_images(own, shape=dataset.shape, labels=dataset.labels)
        return images, labels, f"{len(images):,} images of {own}"
    count = recipe.quantize.calibration_images
    chosen = data_sets.calibration_split(dataset, count=count, seed=recipe.train.seed)
    return chosen.images[:], chosen.labels, f"{count:,} train images of {dataset.name}"


def _activations(made: ModelFiles, dataset: Dataset, images: NDArray[np.generic]) -> tuple[CalibrationFinding, ...]:
    seed = made.recipe.train.seed
    validation = data_sets.sample(dataset.validation, count=VALIDATION_IMAGES, seed=seed, balanced=True)
    names, _ = names_of_layers(files.read(made.float_path), made.model)
    return examine_activations(made.float_path, images, validation.images[:], layers=names, pixels=made.pixels)


def _float_file(
    source: str, recipe: Recipe, *, data_dir: Path | None, trust_model: bool
) -> tuple[ModelFiles | None, str]:
    """The float32 .tflite of the model; or why there is none."""
    if recipe.model.file:
        if source_format(recipe.model.file) == "onnx":
            return None, "ONNX Runtime gives out a model's output alone"
        return of_model(recipe, data_dir=data_dir, trust_model=trust_model, with_int8=False), ""
    build = build_of(source)
    if build is None:
        return None, f"{source} has not been built, so that there is no trained model to look into"
    found = of_build(build, data=None, trust_model=trust_model, with_int8=False)
    if (found.recipe.data.name, found.recipe.data.path) != (recipe.data.name, recipe.data.path):
        return None, f"{build} was built on other images"
    return found, ""
