"""The work of the stages "curves" and "surface": a finished training as pictures. Trains nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emb.pipeline.json_files import read_json
from emb.pipeline.pixels import PIXELS
from emb.pipeline.stage import Work
from emb.spec.dataset import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emb.report.chart import Drawing
    from emb.train import GradientNorms

# As many tell the loss to a few hundredths, and every point of the surface is a pass over them.
SURFACE_IMAGES = 500


def draw_curves(work: Work, *, title: str) -> None:
    """training.svg and training.png; gradients.svg and gradients.png where the model stage recorded norms."""
    from emb.report.curves import draw_gradient_norms, draw_training

    drawings = {"training": draw_training(read_json(work.file("model", "history.json"))["epochs"], title=title)}
    if "gradients.npz" in work.done["model"].files:
        from emb.train import GradientNorms

        layers, norms = norms_of_layers(GradientNorms.read(work.file("model", "gradients.npz")))
        drawings["gradients"] = draw_gradient_norms(layers, norms, title=title)
    for name, drawing in drawings.items():
        _write(drawing, work, name)


def draw_surface(work: Work, *, title: str, points: int) -> None:
    """surface.npz: steps (points,), loss (points, points) float64, images; surface.svg and surface.png.

    The images are at most 500 of the validation split, they and the directions drawn with the recipe's seed: networks
    trained on the same data see the same images.
    """
    from emb.export.source import open_source
    from emb.report.surface import draw_loss_surface
    from emb.train.surface import loss_surface

    recipe, validation = work.context.recipe, work.context.dataset.validation
    rng = np.random.default_rng(recipe.train.seed)
    chosen = np.sort(rng.permutation(len(validation))[:SURFACE_IMAGES])
    split = Split(images=validation.images[chosen], labels=validation.labels[chosen])
    source = open_source(work.file("model", "model.keras"), trust=work.context.trust_model)
    surface = loss_surface(source.model, split, rng=rng, points=points, pixels=PIXELS[recipe.input.pixels])
    with (work.folder / "surface.npz").open("wb") as file:
        np.savez(file, steps=surface.steps, loss=surface.loss, images=np.int64(len(split)))
    _write(draw_loss_surface(surface.steps, surface.loss, title=title), work, "surface")


def norms_of_layers(gradients: GradientNorms) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Layers that have a kernel, from input to output, and the norm of each one's gradient, bias included.

    Returns names and (steps, layers) float32: the root of the sum of squares over a layer's variables, NaN where none
    of them was trained. Layers without a kernel (normalisation) are left out, unless there are no others.
    """
    owners = [name.rpartition("/")[0] for name in gradients.names]
    with_kernel = {owner for owner, name in zip(owners, gradients.names, strict=True) if name.endswith("/kernel")}
    layers = tuple(dict.fromkeys(owner for owner in owners if not with_kernel or owner in with_kernel))
    columns = []
    for layer in layers:
        own = gradients.norms[:, [index for index, owner in enumerate(owners) if owner == layer]]
        total = np.sqrt(np.nansum(np.square(own, dtype=np.float64), axis=1))
        columns.append(np.where(np.isnan(own).all(axis=1), np.nan, total))
    return layers, np.stack(columns, axis=1).astype(np.float32)


def _write(drawing: Drawing, work: Work, name: str) -> None:
    (work.folder / f"{name}.svg").write_text(drawing.svg, encoding="utf-8")
    (work.folder / f"{name}.png").write_bytes(drawing.png)
