"""What batch normalization in one operation gains in training on a CPU with TensorFlow. Prints Markdown.

Usage: taskset -c 0 python benchmarks/batch_normalization.py [--batch 128] [--rounds 10] [RECIPE ...]    one minute

Steps of emb's own training on random 32x32 images, as Keras normalizes and as emb lets it, in turn, in one process on
the cores that the process may use; compilation and the making of batches are left out. A ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from channel_pruning import CLASSES, SHAPE, network

RECIPES = ("resnet8-cifar10", "resnet20-cifar10")
PRECISIONS = ("float32", "mixed_bfloat16")
WARM_UP, STEPS = 3, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--rounds", type=int, default=10, help="of two steps each")
    parser.add_argument("recipes", nargs="*", default=list(RECIPES), metavar="RECIPE")
    arguments = parser.parse_args()
    print("| recipe | precision | Keras's own: ms a step | one operation | ratio |\n| --- | --- | ---: | ---: | ---: |")
    for recipe in arguments.recipes:
        for precision in PRECISIONS:
            own, fused = medians_ms(recipe, precision, batch=arguments.batch, rounds=arguments.rounds)
            print(f"| {recipe} | {precision} | {own:.1f} | {fused:.1f} | {own / fused:.2f} |", flush=True)


def medians_ms(recipe: str, precision: str, *, batch: int, rounds: int) -> tuple[float, float]:
    """Milliseconds of a step: as Keras normalizes, and in one operation."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, *SHAPE), dtype=np.uint8)
    targets = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, batch)]
    with ExitStack() as stack:
        sessions = [stack.enter_context(session(recipe, precision, fused=fused)) for fused in (False, True)]
        for one in sessions:
            for _ in range(WARM_UP):
                one.take(images, targets, rate=0.01)
        times: list[list[float]] = [[], []]
        for _ in range(rounds):
            for one, own_times in zip(sessions, times, strict=True):
                for _ in range(STEPS):
                    began = time.perf_counter()
                    float(one.take(images, targets, rate=0.01)["loss"])  # which waits for the step
                    own_times.append(time.perf_counter() - began)
    own, fused = (float(np.median(one)) * 1e3 for one in times)
    return own, fused


@contextmanager
def session(recipe: str, precision: str, *, fused: bool) -> Iterator:
    from emb.pipeline.recipes import load_recipe
    from emb.train.normalization import fused_normalization
    from emb.train.precision import in_precision
    from emb.train.trainer import start_trainer, steps

    model = in_precision(network(recipe, SHAPE, CLASSES), precision)
    spec = replace(load_recipe(recipe).train, precision=precision)
    with fused_normalization(model) if fused else nullcontext():
        trainer = start_trainer(model, spec, gradients=False)
        with steps(trainer) as started:
            yield started


if __name__ == "__main__":
    main()
