"""What neighbouring pixels as channels gain where a network's first convolution has few. Prints Markdown.

Usage: python benchmarks/packed_pixels.py [--lanes 8] [--maps 16] [RECIPE ...]               ten minutes on two cores

Each recipe's network has untrained weights, which decide no time, and its recipe's input. The two int8 files of a pair
run on one thread, in turn, in one run; a ratio is that of the medians, plain to packed. Their answers are compared bit
for bit on the images that are timed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from channel_pruning import converted, medians_us, network

RECIPES = ("lenet", "lenet-caffe", "mnist-best", "resnet18", "googlenet", "densenet121")
RUNTIMES = {"litert": "tflite", "tflite-runtime": "tflite", "onnxruntime": "onnx"}
IMAGES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", type=int, default=8, help="of this machine's int8 kernels (default 8: x86-64)")
    parser.add_argument("--maps", type=int, default=16, help="of this machine's int8 kernels (default 16: AVX-512)")
    parser.add_argument("recipes", nargs="*", default=list(RECIPES), metavar="RECIPE")
    arguments = parser.parse_args()
    heads = [f"{runtime}: {what}" for runtime in RUNTIMES for what in ("µs", "packed", "ratio")]
    print(f"| recipe | bytes more | {' | '.join(heads)} |\n| --- |{' ---: |' * (len(heads) + 1)}")
    for recipe in arguments.recipes:
        print(f"| {recipe} | {' | '.join(cells(recipe, arguments.lanes, arguments.maps))} |", flush=True)


def cells(recipe: str, lanes: int, maps: int) -> list[str]:
    """The cells of one line."""
    from emb.pipeline.recipes import load_recipe

    loaded = load_recipe(recipe)
    is_small = loaded.data.name in ("mnist", "digits")
    shape = loaded.input.shape or ((28, 28, 1) if is_small else (224, 224, 3))
    model = network(recipe, shape, 10 if is_small else 1000)
    images = np.random.default_rng(1).integers(0, 256, (IMAGES, *shape), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        pairs = {
            suffix: [
                converted(model, Path(folder) / f"{name}.{suffix}", images, lanes=count, maps=maps)
                for name, count in (("plain", 0), ("packed", lanes))
            ]
            for suffix in dict.fromkeys(RUNTIMES.values())
        }
        plain, packed = (path.stat().st_size for path in pairs["tflite"])
        line = [f"{packed - plain:,}"]
        for runtime, suffix in RUNTIMES.items():
            require_same_bits(runtime, pairs[suffix], images)
            before, after = medians_us(runtime, pairs[suffix], images)
            line += [f"{before:,.0f}", f"{after:,.0f}", f"{before / after:.2f}"]
    return line


def require_same_bits(runtime: str, paths: list[Path], images: np.ndarray) -> None:
    """Ends the benchmark if the files' outputs differ: then they are no pair."""
    from emb.runtimes import open_runtime, to_input
    from emb.spec.contract import Pixels

    answers = []
    for path in paths:
        with open_runtime(runtime, model=path) as process:
            answers.append(process.run_each(to_input(images, process.input, Pixels())))
    if not np.array_equal(*answers):
        raise SystemExit(f"{paths[1].name} and {paths[0].name} differ on {runtime}")


if __name__ == "__main__":
    main()
