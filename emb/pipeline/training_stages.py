"""The work of the stages that make the model: train it, train the user's own on, or take that as it is.

Decides neither order nor names; every training stage leaves model.keras and history.json.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from emb.errors import ModelError
from emb.pipeline import pretrained
from emb.pipeline.json_files import write_json
from emb.pipeline.pixels import PIXELS
from emb.pipeline.stage import Work
from emb.spec.contract import Pixels

if TYPE_CHECKING:
    import keras

    from emb.export.source import Source


def train(work: Work) -> None:
    """model.keras and history.json: the recipe's builder, trained."""
    from emb.zoo import ZOO

    recipe, dataset = work.context.recipe, work.context.dataset
    import keras

    # The weights are drawn from the recipe's seed, whatever ran before in this process.
    keras.utils.set_random_seed(recipe.train.seed)
    builder = ZOO.get(recipe.model.builder)
    arguments = dict(recipe.model.arguments)
    model = builder.build(input_shape=dataset.shape, classes=len(dataset.labels), **arguments)
    if (weights := pretrained.fetch(recipe)) is not None:
        pretrained.give(model, recipe, path=weights, trust=work.context.trust_model)
    _fit(model, work, pixels=Pixels())


def tune(work: Work) -> None:
    """model.keras and history.json: somebody's own Keras model, trained on."""
    source = _open_own(work)
    if source.model is None:
        raise ModelError(
            f"{work.context.recipe.model.file} cannot be trained",
            why=f"emb trains Keras models; this is {source.kind}",
            fix="give the .keras or .h5 file, or leave the number of epochs out",
        )
    _fit(source.model, work, pixels=PIXELS[work.context.recipe.input.pixels])


def adopt(work: Work) -> None:
    """The user's own model as it is, once it was opened and found to fit; notes.json: what its user should know."""
    source = _open_own(work)
    write_json(work.folder / "notes.json", list(source.notes))
    path = Path(work.context.recipe.model.file)
    if path.is_dir():
        shutil.copytree(path, work.folder / "model")
    else:
        shutil.copyfile(path, work.folder / f"model{path.suffix.lower()}")


def _fit(model: keras.Model, work: Work, *, pixels: Pixels) -> None:
    from emb.train import train as fit
    from emb.train import without_auxiliaries

    dataset = work.context.dataset
    progress = work.folder / "progress"
    trained = fit(
        model,
        train=dataset.train,
        validation=dataset.validation,
        spec=work.context.recipe.train,
        directory=progress,
        progress=work.context.listener.training,
        pixels=pixels,
        gradients=work.context.gradients,
    )
    without_auxiliaries(model).save(work.folder / "model.keras")
    write_json(work.folder / "history.json", trained.history.to_json())
    if trained.gradients is not None:
        trained.gradients.write(work.folder / "gradients.npz")
    shutil.rmtree(progress, ignore_errors=True)


def _open_own(work: Work) -> Source:
    """The user's model. Raises ModelError if its number of classes is not that of the data."""
    from emb.export.source import open_source

    path = Path(work.context.recipe.model.file)
    source = open_source(path, trust=work.context.trust_model)
    labels = work.context.dataset.labels
    if source.classes != len(labels):
        raise ModelError(
            f"{path} gives {source.classes} scores; the data set {work.context.dataset.name} has {len(labels)} classes",
            why=f"the classes are {', '.join(labels[:12])}{', …' if len(labels) > 12 else ''}",
            fix="give the data that the model was made for, or a model with one score per class",
        )
    return source
