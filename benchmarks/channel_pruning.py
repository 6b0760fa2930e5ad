"""What removing half of the MACs by whole channels gives: MACs, outputs, bytes and time. Prints Markdown.

Usage: python benchmarks/channel_pruning.py [--removed 0.5] [--multiple N] [RECIPE[@WIDTH] ...]
       ten minutes on one core

Each recipe's network takes 32x32 images and has untrained weights and random statistics in its batch normalizations:
they decide which channels go, but neither how much is saved nor whether the smaller model computes what the masked one
does. Both int8 files of a pair run on one thread, in turn, in one run; a ratio is that of the medians, unpruned to
pruned. MACs are those of the two int8 .tflite files as they are read back.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from emb.bench import describe_machine

# A plain, a residual, a bottleneck, an inception and a dense network; then a narrow one of the last kinds.
RECIPES = (
    *("vgg16-cifar10", "resnet18", "resnet50", "googlenet-cifar10@1", "densenet121"),
    *("resnet20-cifar10", "googlenet-cifar10", "densenet-cifar10"),
)
SHAPE, CLASSES, IMAGES = (32, 32, 3), 10, 16
RUNTIMES = {"litert": "tflite", "onnxruntime": "onnx"}
ROUNDS, ROUND_S = 7, 0.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--removed", type=float, default=0.5, help="fraction of the MACs")
    parser.add_argument("--multiple", type=int, help="of channels, that layers keep; as for --target host by default")
    parser.add_argument("recipes", nargs="*", default=list(RECIPES), metavar="RECIPE[@WIDTH]")
    arguments = parser.parse_args()
    multiple = arguments.multiple or multiple_here()
    print(f"{describe_machine().title}; multiples of {multiple}\n")
    heads = ["MACs", "pruned", "left", "most |pruned - masked|", "bytes ratio"]
    heads += [f"{runtime}: {what}" for runtime in RUNTIMES for what in ("µs", "pruned", "ratio")]
    print(f"| recipe | {' | '.join(heads)} |\n| --- |{' ---: |' * len(heads)}")
    for recipe in arguments.recipes:
        print(f"| {recipe} | {' | '.join(cells(recipe, arguments.removed, multiple))} |", flush=True)


def multiple_here() -> int:
    """Of channels, that `--prune channels:0.5 --target host` leaves."""
    from emb.pipeline.recipes import load_target
    from emb.pipeline.request import resolve
    from emb.pipeline.targeting import with_kernels

    recipe = resolve("lenet", overrides={"prune": "channels:0.5"}, assignments=())
    return with_kernels(recipe, load_target("host")).channel_multiple


def cells(recipe: str, removed: float, multiple: int) -> list[str]:
    """The cells of one line."""
    from emb.graph.cost import cost
    from emb.graph.files import read
    from emb.prune import channels

    images = np.random.default_rng(1).integers(0, 256, (IMAGES, *SHAPE), dtype=np.uint8)
    name, _, width = recipe.partition("@")
    whole = network(name, width=float(width) if width else None)
    scores = channels.scores(whole, criterion="l1")
    plan = channels.plan_for_macs(whole, scores, removed=removed, scope="global", multiple=multiple)
    pruned, masked = channels.smaller(whole, plan), channels.masked(whole, plan)
    answers = [np.asarray(model(images.astype(np.float32), training=False)) for model in (pruned, masked)]
    with tempfile.TemporaryDirectory() as folder:
        pairs = {
            suffix: [
                converted(model, Path(folder) / f"{name}.{suffix}", images)
                for name, model in (("whole", whole), ("pruned", pruned))
            ]
            for suffix in RUNTIMES.values()
        }
        macs = [cost(read(path)).macs for path in pairs["tflite"]]
        sizes = [path.stat().st_size for path in pairs["tflite"]]
        line = [f"{macs[0]:,}", f"{macs[1]:,}", f"{macs[1] / macs[0]:.3f}"]
        line += [f"{np.abs(answers[0] - answers[1]).max():.1e}", f"{sizes[0] / sizes[1]:.2f}"]
        for runtime, suffix in RUNTIMES.items():
            before, after = medians_us(runtime, pairs[suffix], images)
            line += [f"{before:,.0f}", f"{after:,.0f}", f"{before / after:.2f}"]
    return line


def network(recipe: str, shape: tuple[int, ...] = SHAPE, classes: int = CLASSES, *, width: float | None = None) -> Any:
    """The recipe's network, untrained, its normalizations with statistics as a training might leave them."""
    import keras

    from emb.pipeline.recipes import load_recipe
    from emb.zoo import ZOO

    keras.utils.set_random_seed(0)
    loaded = load_recipe(recipe)
    builder = ZOO.get(loaded.model.builder)
    given = {} if width is None else {"width": width}
    model = builder.build(input_shape=shape, classes=classes, **dict(loaded.model.arguments) | given)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.weights:
                spread = rng.uniform(0.5, 1.5, variable.shape)
                variable.assign(spread if variable.name in ("gamma", "moving_variance") else spread - 1)
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def converted(model: Any, path: Path, images: np.ndarray, *, lanes: int = 0, maps: int = 0) -> Path:
    """The int8 file of the format that the path's suffix names. lanes, maps: see `quantize_tflite`."""
    from emb.export.source import open_source
    from emb.quantize import SCHEMES, quantize_onnx, quantize_tflite

    kept = path.with_suffix(".keras")
    model.save(kept)
    file_format = path.suffix.removeprefix(".")
    plain = path.with_name(f"{path.stem}-float{path.suffix}")
    pixels = open_source(kept, trust=False).write(plain, file_format=file_format)
    quantize = {"tflite": quantize_tflite, "onnx": quantize_onnx}[file_format]
    scheme = SCHEMES.get("int8").SCHEME
    quantize(plain, path, scheme=scheme, calibration=images, pixels=pixels, lanes=lanes, maps=maps)
    return path


def medians_us(runtime: str, paths: Sequence[Path], images: np.ndarray) -> list[float]:
    """The median time of one inference of each file, in rounds that take the files in turn."""
    from emb.runtimes import open_runtime, to_input
    from emb.spec.contract import Pixels

    samples: list[list[float]] = [[] for _ in paths]
    for _ in range(ROUNDS):
        for place, path in enumerate(paths):
            with open_runtime(runtime, model=path) as process:
                inputs = to_input(images, process.input, Pixels())
                samples[place].extend(process.time_runs(inputs, measure_s=ROUND_S))
    return [median(one) / 1000 for one in samples]


if __name__ == "__main__":
    main()
