"""int8 files after quantization-aware training beside those without it, of the same float model. Prints Markdown.

A row for each model and runtime: the accuracy over all test images, the float one, that after `--quantize int8` and
that after `--quantize int8-qat`, which verdict.py compares, and how many tensors of the second's .tflite are floats.
Ends with 1 if one is worse than without the training, or has such a tensor.

A model is trained as its recipe says, or shorter and narrower (--epochs, --width), or it begins with what somebody
trained (--weights), and the table says so.

Usage: python benchmarks/qat.py [--models lenet,vgg16-cifar10] [--epochs N] [--width W] [--qat-epochs N]
                                [--weights NAME=FILE.keras ...]
       needs MNIST and CIFAR-10 (emb data fetch, or EMB_DATA_DIR)
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from verdict import verdict

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from emb import data as data_sets
from emb.errors import EmbError
from emb.spec.dataset import DataRequest, Split

# Recipe -> the data set: a plain network for digits and one for pictures, a residual, an inception and a dense one.
MODELS = {
    "lenet": "mnist",
    "vgg16-cifar10": "cifar10",
    "resnet8-cifar10": "cifar10",
    "googlenet-cifar10": "cifar10",
    "densenet-cifar10": "cifar10",
}
RUNTIMES = {"litert": "tflite", "onnxruntime": "onnx"}
POST_TRAINING, TRAINED = "int8", "int8-qat"


def main() -> None:
    arguments = _arguments()
    print("| model | epochs | runtime | float % | int8 % | int8-qat % | int8-qat against int8 | float tensors |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- | ---: |", flush=True)
    unfit = []
    for name in arguments.models:
        try:
            with tempfile.TemporaryDirectory() as folder:
                for runtime, is_fit, cells in rows(name, arguments, Path(folder) / "build"):
                    print(f"| {name} | {' | '.join(cells)} |", flush=True)
                    unfit += [] if is_fit else [f"{name} on {runtime}"]
        except EmbError as error:
            sys.exit(f"error: {error}")
    if unfit:
        sys.exit(f"error: worse than without the training, or not of integers alone: {', '.join(unfit)}")


def rows(name: str, arguments: argparse.Namespace, directory: Path) -> Iterator[tuple[str, bool, list[str]]]:
    """(runtime, whether the training recovers what int8 has, with integers alone, the cells behind the model's)."""
    from emb.pipeline.build import build

    weights = arguments.weights.get(name)
    fields: dict[str, Any] = {
        "train.epochs": 0 if weights else arguments.epochs,
        "model.weights": str(weights) if weights else None,
        "model.arguments.width": arguments.width if name != "lenet" and not weights else None,
        "qat.epochs": arguments.qat_epochs,
        "quantize.schemes": (POST_TRAINING, TRAINED),
        "export.formats": tuple(RUNTIMES.values()),
    }
    build(
        name,
        data=arguments.data or MODELS[name],
        data_dir=arguments.data_dir,
        output_directory=directory,
        overrides={field: value for field, value in fields.items() if value is not None},
    )
    recipe = json.loads((directory / "manifest.json").read_text())["recipe"]
    test = test_split(recipe, arguments.data_dir)
    floating = classes("litert", directory / f"{name}-float32.tflite", test) == test.labels
    floats = float_tensors(directory / f"{name}-{TRAINED}.tflite")
    for runtime, suffix in RUNTIMES.items():
        right = {
            scheme: classes(runtime, directory / f"{name}-{scheme}.{suffix}", test) == test.labels
            for scheme in (POST_TRAINING, TRAINED)
        }
        words = verdict(right[TRAINED], {POST_TRAINING: right[POST_TRAINING]})
        shares = [f"{100 * float(one.mean()):.2f}" for one in (floating, *right.values())]
        cells = [trained(recipe, weights), runtime, *shares, words, str(floats)]
        yield runtime, not (floats or words.startswith("worse")), cells


def classes(runtime: str, path: Path, test: Split) -> NDArray[np.int64]:
    """(images,) integers, predicted by the file."""
    from emb.runtimes import open_runtime

    with open_runtime(runtime, model=path) as process:
        return process.scores(test.images).argmax(axis=1)


def test_split(recipe: Mapping[str, Any], data_dir: Path | None) -> Split:
    request = DataRequest(
        directories=data_sets.search_directories(data_dir),
        shape=tuple(recipe["input"]["shape"]),
        validation_fraction=recipe["data"]["validation_fraction"],
        seed=recipe["train"]["seed"],
    )
    return data_sets.load(recipe["data"]["name"], request).test


def trained(recipe: Mapping[str, Any], weights: Path | None) -> str:
    """What was trained and for how long, in words."""
    arguments = recipe["model"]["arguments"]
    width = f"{arguments['width']:g} wide, " if "width" in arguments else ""
    return f"{width}{weights.name if weights else recipe['train']['epochs']} + {recipe['qat']['epochs']}"


def float_tensors(path: Path) -> int:
    from emb.graph.files import read

    return sum(tensor.dtype.startswith("float") for tensor in read(path).tensors)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=_names, default=tuple(MODELS), metavar="NAME,...")
    parser.add_argument("--data", help="instead of MNIST and CIFAR-10: digits")
    parser.add_argument("--data-dir", type=Path, help="where the data sets lie")
    parser.add_argument("--epochs", type=int, help="of the training; the recipe's own by default")
    parser.add_argument("--width", type=float, help="of networks that have one; the recipe's own by default")
    parser.add_argument("--qat-epochs", type=int, help="of that with the rounding; the recipe's own by default")
    parser.add_argument("--weights", type=_file, action="append", default=[], metavar="NAME=FILE.keras")
    arguments = parser.parse_args()
    arguments.weights = dict(arguments.weights)
    for name in (*arguments.models, *arguments.weights):
        if name not in MODELS:
            parser.error(f"{name!r} is none of {', '.join(MODELS)}")
    return arguments


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _file(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path!r}")
    return name, Path(path)


if __name__ == "__main__":
    main()
