"""The activation memory that emb predicts against what each runtime allocates, for int8 files. Prints Markdown.

Usage: python benchmarks/activation_memory.py [RECIPE ...]      needs tflite-micro (x86-64 Linux)

Each recipe is converted with untrained weights, which decide no size. What is measured:

tflite-micro            the part of the arena that holds activations ("head"), as its recording allocator counts it
litert, tflite-runtime  from the lowest to the highest address that an activation has, on reference kernels
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

CLASSES = 10
RECIPES = (
    "lenet",
    "mnist-best",
    "alexnet-cifar10",
    "overfeat-cifar10",
    "vgg16-cifar10",
    "googlenet-cifar10",
    "inception-v2-cifar10",
    "inception-v3-cifar10",
    "inception-v4-cifar10",
    "resnet20-cifar10",
    "densenet-cifar10",
    "resnet18",
    "densenet121",
)
RUNTIMES = {"tflite-micro": "tflite-micro", "litert": "tflite", "tflite-runtime": "tflite"}
"""Runtime -> whose arena emb lays out for it."""

_INTERPRETERS = {"litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
_MICRO_ARENA_BYTES = 256 * 2**20
_HEAD = re.compile(r"Arena allocation head (\d+) bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", choices=sorted(RUNTIMES), help="of one file, instead of the table")
    parser.add_argument("what", nargs="*", default=list(RECIPES), metavar="RECIPE|FILE")
    arguments = parser.parse_args()
    if arguments.measure:
        print(measure(Path(arguments.what[0]), arguments.measure))
        return
    print_table(arguments.what)


def print_table(recipes: Sequence[str]) -> None:
    """A line for each recipe: predicted and allocated bytes of each runtime, and their ratio."""
    heads = [f"{runtime}: {column}" for runtime in RUNTIMES for column in ("predicted", "allocated", "ratio")]
    print(f"| recipe | input | {' | '.join(heads)} |")
    print(f"| --- | --- |{' ---: |' * len(heads)}")
    for recipe in recipes:
        path, shape = converted(recipe)
        cells = []
        for runtime in RUNTIMES:
            predicted, allocated = predicted_bytes(path, runtime), allocated_bytes(path, runtime)
            cells += [f"{predicted:,}", f"{allocated:,}", f"{predicted / allocated:.3f}"]
        print(f"| {recipe} | {shape} | {' | '.join(cells)} |", flush=True)


def converted(recipe: str) -> tuple[Path, str]:
    """The int8 .tflite that a recipe would become, and the extents of its input."""
    from emb.pipeline.recipes import load_recipe
    from emb.pipeline.untrained import converted as convert
    from emb.pipeline.untrained import model_of

    loaded = load_recipe(recipe)
    height, width, channels = loaded.input.shape
    path, _ = model_of(convert(loaded, shape=(height, width, channels), classes=CLASSES))
    return path, f"{height}x{width}x{channels}"


def predicted_bytes(path: Path, runtime: str) -> int:
    """What emb plans for a .tflite file."""
    from emb.graph.arena import plan
    from emb.graph.files import read

    arena = plan(read(path), arena=RUNTIMES[runtime])
    assert arena is not None
    return arena.arena_bytes


def allocated_bytes(path: Path, runtime: str) -> int:
    """What the runtime takes for the activations of a .tflite file, measured in a process of its own."""
    call = [sys.executable, __file__, "--measure", runtime, str(path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{runtime} failed on {path}:\n{done.stderr}")
    return int(done.stdout.split()[-1])


def measure(path: Path, runtime: str) -> int:
    """The same in this process."""
    return _head_of_micro(path) if runtime == "tflite-micro" else _span_of_tflite(path, _INTERPRETERS[runtime])


def _head_of_micro(path: Path) -> int:
    """The allocator prints its figures to stderr, from C++."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(str(path), arena_size=_MICRO_ARENA_BYTES)
    with tempfile.TemporaryFile() as log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        log.seek(0)
        printed = log.read().decode()
    found = _HEAD.search(printed)
    if found is None:
        raise SystemExit(f"the allocator's figures are not those expected:\n{printed}")
    return int(found[1])


def _span_of_tflite(path: Path, library: str) -> int:
    """Constants lie in the file's own memory, and what kernels keep for themselves in tensors behind the file's own."""
    from emb.graph.files import read

    interpreters = import_module(library)
    interpreter = interpreters.Interpreter(
        model_path=str(path), experimental_op_resolver_type=interpreters.OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    activations = [index for index, tensor in enumerate(read(path).tensors) if not tensor.constant]
    places = []
    for index in activations:
        view = interpreter.tensor(index)()
        begin = view.__array_interface__["data"][0]
        places.append((begin, begin + view.nbytes))
        del view  # the interpreter refuses to be asked while it lives
    return max(end for _, end in places) - min(begin for begin, _ in places)


if __name__ == "__main__":
    main()
