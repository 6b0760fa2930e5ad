"""What the large networks of the lecture cost to compile at full size, untrained: time, memory, bytes. Prints Markdown.

Each goes through `emb build --no-train` in a process of its own, into float32 and int8 .tflite and .onnx, with weights
from the recipe's seed and generated images of 1,000 classes: accuracy means nothing here, and is not shown.

Usage: python benchmarks/full_size.py [--calibration 50] [--limit-gb 12] [RECIPE ...]      Linux
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emb.bench.machine import describe_machine

RECIPES = ("alexnet", "overfeat", "vgg16", "googlenet", "resnet50", "resnet152", "densenet121")
CLASSES = 1000
HELD_OUT_IMAGES = 8
POLL_S = 0.05
STAGES = ("float32.tflite", "int8.tflite", "float32.onnx", "int8.onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """report: the document of `emb build --json`, None if it failed.  seconds: of each stage that made a file.

    peak_bytes: of all its processes together.
    """

    report: dict[str, Any] | None
    seconds: dict[str, float]
    fault: str
    wall_s: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibration", type=int, default=50, help="images")
    parser.add_argument("--limit-gb", type=float, default=12.0, help="a build that takes more (GiB) is ended")
    parser.add_argument("recipes", nargs="*", default=list(RECIPES))
    arguments = parser.parse_args()
    print(
        f"{describe_machine().title}; Python {platform.python_version()}; {arguments.calibration} calibration images\n"
    )
    print_head()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_images(data)
        for recipe in arguments.recipes:
            place = Path(folder) / recipe
            run = build(recipe, data=data, place=place, calibration=arguments.calibration, limit_gb=arguments.limit_gb)
            print_row(recipe, run)


def write_images(root: Path) -> None:
    """root/train with one image for each of 1,000 classes; val and test with one for each of the first few."""
    rng = np.random.default_rng(0)
    for split, classes in (("train", CLASSES), ("val", HELD_OUT_IMAGES), ("test", HELD_OUT_IMAGES)):
        for number in range(classes):
            folder = root / split / f"class{number:04}"
            folder.mkdir(parents=True)
            patches = rng.integers(0, 256, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
            noisy = np.clip(patches + rng.integers(-20, 21, patches.shape), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(folder / "image.png")


def build(recipe: str, *, data: Path, place: Path, calibration: int, limit_gb: float) -> Run:
    """Compile one recipe in a child, with nothing from an earlier build at hand."""
    place.mkdir()
    command = [
        *(sys.executable, "-c", "from emb.cli import main; main()", "build", recipe, "--json", "--no-train"),
        *("--data", str(data), "--quantize", "float32,int8", "--format", "tflite,onnx"),
        # What is untrained guesses, and a guess changes with every rounding.
        *("--calibration", str(calibration), "--set", "verify.minimum_agreement=0", "--output", str(place / "build")),
    ]
    environment = os.environ | {"EMB_CACHE_DIR": str(place / "cache")}
    with (place / "stdout").open("wb") as out, (place / "stderr").open("wb") as errors:
        begin_s = time.perf_counter()
        # A group of its own, so that its runtimes' processes end with it.
        child = subprocess.Popen(command, stdout=out, stderr=errors, env=environment, start_new_session=True)
        peak_bytes = watched(child, limit_bytes=int(limit_gb * 2**30))
        wall_s = time.perf_counter() - begin_s
    if child.returncode not in (0, 1):
        fault = (place / "stderr").read_text()[-600:] or f"exit code {child.returncode}"
        return Run(report=None, seconds={}, fault=fault, wall_s=wall_s, peak_bytes=peak_bytes)
    report = json.loads((place / "stdout").read_text())
    stages = json.loads((place / "build" / "manifest.json").read_text())["stages"]
    seconds = {name: stages[name]["seconds"] for name in STAGES if name in stages}
    return Run(report=report, seconds=seconds, fault="", wall_s=wall_s, peak_bytes=peak_bytes)


def watched(child: subprocess.Popen[bytes], *, limit_bytes: int) -> int:
    """Wait for the child; the most memory that it and all below it held at once (sum of resident sets)."""
    peak_bytes = 0
    while child.poll() is None:
        peak_bytes = max(peak_bytes, sum(resident_bytes(pid) for pid in below(child.pid)))
        if peak_bytes > limit_bytes:
            os.killpg(child.pid, 9)
        time.sleep(POLL_S)
    return peak_bytes


def below(pid: int) -> list[int]:
    """The process and its descendants; those that have ended meanwhile are left out."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [one for child in path.read_text().split() for one in below(int(child))]
        except OSError:
            continue
    return found


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def print_head() -> None:
    columns = ["network", *(f"{stage} s" for stage in STAGES), "all s", "peak GiB", "MB: " + " / ".join(STAGES)]
    columns += [f"int8 on {runtime} ms" for runtime in ("litert", "tflite-runtime", "onnxruntime")]
    print(f"| {' | '.join(columns)} |")
    print(f"| --- |{' ---: |' * (len(columns) - 1)}")


def print_row(recipe: str, run: Run) -> None:
    """Times of the stages from the report; latency: median at batch 1 on one thread, default kernels."""
    ends = [f"{run.wall_s:.0f}", f"{run.peak_bytes / 2**30:.1f}"]
    if run.report is None:
        print(f"| {recipe} | | | | | {' | '.join(ends)} | failed: {run.fault!r} | | | |", flush=True)
        return
    seconds = [f"{run.seconds[stage]:.0f}" if stage in run.seconds else "-" for stage in STAGES]
    rows = run.report["rows"]
    megabytes = {f"{row['scheme']}.{row['format']}": f"{row['bytes'] / 1e6:.1f}" for row in rows}
    latency = {}
    for row in rows:
        if row["scheme"] == "int8":
            measured = f"{row['latency_us']['median'] / 1000:.1f}" if row["latency_us"] else row["source"]
            latency.setdefault(row["runtime"], measured)
    cells = [recipe, *seconds, *ends, " / ".join(megabytes.get(stage, "-") for stage in STAGES), *latency.values()]
    print(f"| {' | '.join(cells)} |", flush=True)
    for error in run.report["errors"]:
        print(f"\n{recipe}: {error}\n", flush=True)


if __name__ == "__main__":
    main()
