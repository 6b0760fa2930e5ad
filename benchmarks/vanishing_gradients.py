"""Where gradients vanish: the first layer's gradient against the last one's, in deep networks. Prints Markdown.

Multi-layer perceptrons of 1 to 12 hidden layers of 100, with sigmoid and with ReLU; plain and residual networks of 20
and 56 layers, of a quarter of the published width. All learn the embedded digits with the same SGD; the seed is fixed.
Norms are medians over the steps of the first epoch; loss and accuracy are those of the train images in the last epoch.

Usage: python benchmarks/vanishing_gradients.py [--epochs 20] [--pictures DIR]      some minutes on two cores
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from emb import data as data_sets
from emb.pipeline.drawing import norms_of_layers
from emb.report.curves import draw_gradient_norms
from emb.spec.dataset import DataRequest, Dataset
from emb.spec.recipe import TrainSpec
from emb.zoo import ZOO

SIDE = 16  # pixels; the digits come with 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """name: in the table.  builder, arguments: of the zoo."""

    name: str
    builder: str
    arguments: dict[str, Any]


NETWORKS = (
    *(
        Network(
            name=f"MLP, {depth} hidden, {activation}",
            builder="mlp",
            arguments={"depth": depth, "units": 100, "activation": activation},
        )
        for activation in ("sigmoid", "relu")
        for depth in (1, 4, 8, 12)
    ),
    *(
        Network(
            name=f"{'plain' if shortcut == 'none' else 'residual'}, {depth} layers",
            builder="resnet",
            arguments={"depth": depth, "shortcut": shortcut, "width": 0.25},
        )
        for depth in (20, 56)
        for shortcut in ("none", "identity")
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pictures", type=Path, help="draw the norms of every network there, as SVG")
    arguments = parser.parse_args()
    request = DataRequest(shape=(SIDE, SIDE, 1))
    dataset = data_sets.load("digits", request)
    print(f"{len(dataset.train):,} digits of {SIDE}x{SIDE} pixels, {arguments.epochs} epochs.\n")
    print("| network | first layer's norm | last layer's | first / last | train loss | train accuracy % |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for network in NETWORKS:
        print(line(network, dataset, epochs=arguments.epochs, draw=drawer(arguments.pictures, network)), flush=True)


def line(network: Network, dataset: Dataset, *, epochs: int, draw: Callable[[Any, Any], None]) -> str:
    """Train one network; its row of the table."""
    import keras

    from emb.train import train

    spec = TrainSpec(
        optimizer="sgd", learning_rate=0.05, momentum=0.9, schedule="constant", epochs=epochs, batch_size=64, seed=0
    )
    keras.utils.set_random_seed(spec.seed)
    builder = ZOO.get(network.builder)
    model = builder.build(input_shape=dataset.shape, classes=len(dataset.labels), **network.arguments)
    with tempfile.TemporaryDirectory() as folder:
        trained = train(
            model,
            train=dataset.train,
            validation=dataset.validation,
            spec=spec,
            directory=Path(folder),
            progress=lambda _: None,
            gradients=True,
        )
    layers, norms = norms_of_layers(trained.gradients)
    draw(layers, norms)
    steps = len(norms) // len(trained.history.epochs)
    medians = np.median(norms[:steps], axis=0)
    last = trained.history.epochs[-1]
    return (
        f"| {network.name} | {medians[0]:.2g} | {medians[-1]:.2g} | {medians[0] / medians[-1]:.2g} "
        f"| {last.loss:.3f} | {100 * last.accuracy:.1f} |"
    )


def drawer(folder: Path | None, network: Network) -> Callable[[Any, Any], None]:
    """Writes a network's norms as a picture, if a folder was given."""

    def draw(layers: Any, norms: Any) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            name = network.name.replace(",", "").replace(" ", "-").lower()
            drawing = draw_gradient_norms(layers, norms, title=network.name)
            (folder / f"{name}.svg").write_text(drawing.svg, encoding="utf-8")

    return draw


if __name__ == "__main__":
    main()
