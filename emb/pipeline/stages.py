"""The work of each stage: files in, files out. Decides neither order nor names; `plan` does.

File names inside an artifact are the same whatever the recipe is called, so that equal work has equal digests.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ExportError, ModelError, RuntimeFailure
from emb.pipeline.stage import Work
from emb.spec.contract import Pixels
from emb.spec.dataset import Split

GOLDEN_IMAGES = 16

# How a pixel 0..255 becomes the value that the model's first layer expects.
PIXELS: Mapping[str, Pixels] = {
    "raw": Pixels(),
    "0..1": Pixels(scale=1 / 255),
    "-1..1": Pixels(scale=2 / 255, offset=-1.0),
}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def data(work: Work) -> None:
    """data.json: what the data set holds.  golden.npy: the first test images, one class after the other, uint8."""
    dataset = work.context.dataset
    write_json(
        work.folder / "data.json",
        {
            "name": dataset.name,
            "shape": dataset.shape,
            "labels": dataset.labels,
            "train_images": len(dataset.train),
            "validation_images": len(dataset.validation),
            "test_images": len(dataset.test),
        },
    )
    np.save(work.folder / "golden.npy", _golden_images(dataset.test))


def train(work: Work) -> None:
    """model.keras and history.json: the recipe's builder, trained."""
    from emb.train import train as fit
    from emb.zoo import ZOO

    recipe = work.context.recipe
    dataset = work.context.dataset
    # Weights are drawn from the recipe's seed, whatever ran before in this process.
    import keras

    keras.utils.set_random_seed(recipe.train.seed)
    model = ZOO.get(recipe.model.builder).build(
        input_shape=dataset.shape, classes=len(dataset.labels), **recipe.model.arguments
    )
    history = fit(
        model,
        train=dataset.train,
        validation=dataset.validation,
        spec=recipe.train,
        directory=work.folder / "progress",
        progress=work.context.listener.training,
    )
    _save_model(model, work.folder)
    write_json(work.folder / "history.json", history.to_json())


def adopt(work: Work) -> None:
    """source.json and the file itself: somebody's own model, opened, checked, and copied as it is."""
    import shutil

    from emb.export.source import open_source

    path = Path(work.context.recipe.model.file)
    source = open_source(path, trust=work.context.trust_model)
    _check_classes(source.classes, work)
    if path.is_dir():
        shutil.copytree(path, work.folder / "model")
    else:
        shutil.copyfile(path, work.folder / f"model{path.suffix}")
    write_json(work.folder / "source.json", {"kind": source.kind, "classes": source.classes})


def tune(work: Work) -> None:
    """model.keras and history.json: somebody's own Keras model, trained on."""
    from emb.export.source import open_source
    from emb.train import train as fit

    recipe = work.context.recipe
    source = open_source(Path(recipe.model.file), trust=work.context.trust_model)
    if source.model is None:
        raise ModelError(
            f"{recipe.model.file} cannot be trained",
            why=f"emb trains Keras models; this is {source.kind}",
            fix="give the .keras or .h5 file, or leave out --epochs",
        )
    _check_classes(source.classes, work)
    model = source.model
    dataset = work.context.dataset
    history = fit(
        model,
        train=dataset.train,
        validation=dataset.validation,
        spec=recipe.train,
        directory=work.folder / "progress",
        progress=work.context.listener.training,
        pixels=PIXELS[recipe.input.pixels],
    )
    _save_model(model, work.folder)
    write_json(work.folder / "history.json", history.to_json())
