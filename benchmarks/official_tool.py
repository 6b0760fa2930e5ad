"""emb's latency on LiteRT against litert-benchmark, the tool that comes with LiteRT. Prints Markdown.

Usage: python benchmarks/official_tool.py [--rounds 10] [RECIPE ...]                          two minutes on two cores

Both take the same int8 file on one thread in the same run, in turn: in each round first one, then the other, and the
other way round in the next, each in a fresh process. A figure is the median of the rounds' medians, and the ratio is
that of the two. The tool gives its median in steps of 10 µs, so networks are chosen that take a hundred times as long.
Ends with 1 if the two differ by more than 10 %.

The networks have untrained weights, which decide no time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from channel_pruning import converted, network

# Name -> shape of its input.
RECIPES = {"resnet50": (64, 64, 3), "vgg16": (64, 64, 3), "densenet121": (96, 96, 3)}
IMAGES, CLASSES = 16, 100
TOOL = Path(sys.executable).with_name("litert-benchmark")
ROUNDS, MEASURE_S, WARM_UP_RUNS = 10, 0.5, 20
LIMIT = 0.10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each file (default {ROUNDS})")
    parser.add_argument("recipes", nargs="*", default=list(RECIPES), metavar="RECIPE")
    arguments = parser.parse_args()
    print("| network | input | emb µs | tool µs | emb / tool | rounds of emb µs | rounds of the tool µs |")
    print("| --- | --- | ---: | ---: | ---: | --- | --- |")
    ratios = [ratio(recipe, RECIPES[recipe], arguments.rounds) for recipe in arguments.recipes]
    worst = max(abs(one - 1) for one in ratios)
    print(f"\nfurthest apart: {100 * worst:.1f} % (limit {100 * LIMIT:.0f} %)")
    raise SystemExit(int(worst > LIMIT))


def ratio(recipe: str, shape: tuple[int, ...], rounds: int) -> float:
    """Prints the line of one network."""
    images = np.random.default_rng(1).integers(0, 256, (IMAGES, *shape), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = converted(network(recipe, shape, CLASSES), Path(folder) / "model.tflite", images)
        ours, theirs = [], []
        runs = max(50, int(MEASURE_S * 1e6 / emb_us(path, images)))
        for number in range(rounds):
            for is_ours in (True, False) if number % 2 == 0 else (False, True):
                if is_ours:
                    ours.append(emb_us(path, images))
                else:
                    theirs.append(tool_us(path, runs))
    found = median(ours) / median(theirs)
    spans = " | ".join(f"{min(one):,.0f}–{max(one):,.0f}" for one in (ours, theirs))
    size = "x".join(map(str, shape))
    print(f"| {recipe} | {size} | {median(ours):,.0f} | {median(theirs):,.0f} | {found:.3f} | {spans} |", flush=True)
    return found


def emb_us(path: Path, images: np.ndarray) -> float:
    """The median of a round, as `emb bench` takes it."""
    from emb.bench.energy import Counters
    from emb.pipeline.rounds import Way, one_round
    from emb.spec.contract import Pixels

    way = Way(path=path, runtime="litert", mode="default", threads=1, images=images, pixels=Pixels())
    return median(one_round(way, measure_s=MEASURE_S, counters=Counters()).samples_ns) / 1000


def tool_us(path: Path, runs: int) -> float:
    """The median that the tool gives after so many runs."""
    result = path.with_suffix(".json")
    command = [TOOL, f"--model={path}", "--num_threads=1", f"--num_runs={runs}", f"--warmup_runs={WARM_UP_RUNS}"]
    subprocess.run([*command, f"--result_json={result}"], check=True, capture_output=True)
    return 1000 * float(json.loads(result.read_text(encoding="utf-8"))["latency"]["median_ms"])


if __name__ == "__main__":
    main()
