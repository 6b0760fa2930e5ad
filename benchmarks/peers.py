"""emb's int8 files against other quantizers': same float models, same calibration images, one run. Prints Markdown.

For each model: what was trained and how, then a row for each runtime and quantizer. The accuracy is that of all test
images, one at a time; verdict.py says by which rule emb's is best, equal or worse. Latency is taken in rounds, every
quantizer's file in each, on one thread.

A model comes out of a directory of `emb train` or `emb build` (--build lenet=DIR), or is trained here as its recipe
says, or shorter and narrower (--epochs, --width), and the table says so.

Usage: python benchmarks/peers.py [--models lenet,resnet8-cifar10] [--build NAME=DIR ...] [--epochs N] [--width W]
       needs NNCF (make .venv/peers), MNIST and CIFAR-10 (emb data fetch, or EMB_DATA_DIR)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from emb import data as data_sets
from emb.bench import describe_machine
from emb.errors import EmbError
from emb.runtimes import RUNTIMES, open_runtime, to_input
from emb.spec.dataset import DataRequest, Dataset
from emb.store import Store

# Recipe -> the data set of the comparison.
MODELS = {
    "lenet": "mnist",
    "resnet8-cifar10": "cifar10",
    "densenet-cifar10": "cifar10",
    "googlenet-cifar10": "cifar10",
}
ROUNDS = 15
ROUND_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A float model and what everybody quantizes it with.

    recipe: the table it was trained by.  epochs: it was trained for, 0 for none.
    """

    name: str
    keras: Path
    recipe: Mapping[str, Any]
    epochs: int
    dataset: Dataset
    calibration: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One file on one runtime. classes: (n,) integers, predicted.  rounds_us: the median of each round."""

    stored_bytes: int
    classes: NDArray[np.int64]
    rounds_us: tuple[float, ...]


def main() -> None:
    arguments = _arguments()
    unfit: list[str] = []
    rows = 0
    print(f"Measured on {describe_machine().title}, one thread.\n", flush=True)
    for name in arguments.models:
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = trained(name, arguments, Path(folder) / "trained")
                for runtime, words in compare(found, Path(folder), runtimes=arguments.runtimes):
                    rows += 1
                    unfit += [f"{name} on {runtime}"] if words.startswith("worse") else []
        except EmbError as error:
            sys.exit(f"error: {error}")
    print(f"emb's accuracy is best or equal in {rows - len(unfit)} of {rows} comparisons", end="")
    print(f"; worse: {', '.join(unfit)}." if unfit else ".")


def trained(name: str, arguments: argparse.Namespace, scratch: Path) -> Trained:
    """The model of --build, or else one trained now, into `scratch`."""
    directory = arguments.build.get(name)
    if directory is None:
        from emb.pipeline.training import train

        directory = scratch
        fields = {
            "train.epochs": arguments.epochs,
            "model.arguments.width": arguments.width if name != "lenet" else None,
        }
        train(
            name,
            data=arguments.data or MODELS[name],
            data_dir=arguments.data_dir,
            output_directory=directory,
            overrides={field: value for field, value in fields.items() if value is not None},
        )
    manifest = json.loads((directory / "manifest.json").read_text())
    recipe = manifest["recipe"]
    history = directory / "history.json"
    request = DataRequest(
        directories=data_sets.search_directories(arguments.data_dir),
        path=Path(recipe["data"]["path"]) if recipe["data"]["path"] else None,
        shape=tuple(recipe["input"]["shape"]),
        validation_fraction=recipe["data"]["validation_fraction"],
        seed=recipe["train"]["seed"],
    )
    dataset = data_sets.load(recipe["data"]["name"], request)
    return Trained(
        name=name,
        keras=_keras_file(directory, manifest),
        recipe=recipe,
        epochs=len(json.loads(history.read_text())["epochs"]) if history.exists() else 0,
        dataset=dataset,
        calibration=data_sets.calibration_images(
            dataset, count=recipe["quantize"]["calibration_images"], seed=recipe["train"]["seed"]
        ),
    )


def _keras_file(directory: Path, manifest: Mapping[str, Any]) -> Path:
    """model.keras of `emb train`, or the one that the files of `emb build` were made from, out of the store."""
    if (directory / "model.keras").exists():
        return directory / "model.keras"
    digest = manifest["stages"]["model"]["files"]["model.keras"]
    for path in (Store().root / "artifacts").glob("*/model.keras"):
        if json.loads((path.parent / "manifest.json").read_text())["files"]["model.keras"] == digest:
            return path
    raise SystemExit(
        f"error: the Keras model of {directory} is not in the store any more: give a directory of emb train"
    )


def compare(found: Trained, folder: Path, *, runtimes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Print a model's section; (runtime, verdict) for each comparison in it."""
    import keras

    import emb.layers  # noqa: F401  registers the layers that Keras lacks

    model = keras.models.load_model(found.keras)
    images = np.asarray(found.dataset.test.images[:], np.float32)
    floating = model.predict(images, batch_size=250, verbose=0).argmax(axis=1)
    print_head(found, floating)
    made: dict[str, dict[str, Path | str]] = {}
    for runtime in runtimes:
        (file_format,) = RUNTIMES.get(runtime).FORMATS
        if file_format not in made:
            made[file_format] = files_of(model, found, folder, file_format=file_format)
        measured = measure(runtime, made[file_format], found.dataset)
        yield runtime, print_rows(runtime, measured, floating=floating, labels=found.dataset.test.labels)
    print()


def files_of(model: Any, found: Trained, folder: Path, *, file_format: str) -> dict[str, Path | str]:
    """emb's and the peers' files of the model, by quantizer; a text where one takes it not: why."""
    from quantizers import QUANTIZERS, silence

    def ours(model: Any, calibration: NDArray[np.uint8], path: Path) -> None:
        emb_file(found, path, file_format=file_format)

    files: dict[str, Path | str] = {}
    for name, quantize in {"emb": ours, **QUANTIZERS[file_format]}.items():
        path = folder / f"{name.replace(' ', '-')}.{file_format}"
        try:
            with silence():
                quantize(model, found.calibration, path)
            files[name] = path
        except Exception as error:  # whatever a quantizer raises belongs in its row
            files[name] = _in_a_line(error)
    return files


def emb_file(found: Trained, path: Path, *, file_format: str) -> None:
    """The int8 file that `emb build` makes of the model by its recipe: the same steps, hence the same bytes."""
    from emb.export.source import open_source, without_softmax
    from emb.pipeline.pixels import PIXELS
    from emb.quantize import SCHEMES, quantize_onnx, quantize_tflite

    source = open_source(found.keras)
    if found.recipe["export"]["softmax"] == "drop":
        source = without_softmax(source)
    floating = path.with_name(f"emb-float32.{file_format}")
    pixels = source.write(floating, file_format=file_format, pixels=PIXELS[found.recipe["input"]["pixels"]])
    {"tflite": quantize_tflite, "onnx": quantize_onnx}[file_format](
        floating,
        path,
        scheme=SCHEMES.get("int8").SCHEME,
        calibration=found.calibration,
        method=found.recipe["quantize"]["calibration_method"],
        pixels=pixels,
    )


def _in_a_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'without a word'}"[:160].replace("|", "/")


def measure(runtime: str, files: Mapping[str, Path | str], dataset: Dataset) -> dict[str, Measured | str]:
    """Every file on the runtime, by quantizer; a text for one that is not there or fails: why."""
    test = dataset.test
    classes: dict[str, NDArray[np.int64]] = {}
    faults: dict[str, str] = {name: path for name, path in files.items() if isinstance(path, str)}
    rounds_us: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        running = {}
        for name in files.keys() - faults.keys():
            try:
                process = stack.enter_context(open_runtime(runtime, model=files[name]))
                classes[name] = process.scores(test.images).argmax(axis=1)
                running[name] = process, to_input(test.images[:64], process.input)
            except EmbError as error:
                faults[name] = _in_a_line(error)
        for _ in range(ROUNDS):
            for name, (process, inputs) in running.items():
                samples_ns = process.time_runs(inputs, warm_up_s=0.05, measure_s=ROUND_S)
                rounds_us.setdefault(name, []).append(float(np.median(samples_ns)) / 1000)
    return {
        name: faults[name]
        if name in faults
        else Measured(stored_bytes=Path(path).stat().st_size, classes=classes[name], rounds_us=tuple(rounds_us[name]))
        for name, path in files.items()
    }


def print_head(found: Trained, floating: NDArray[np.int64]) -> None:
    recipe, dataset = found.recipe, found.dataset
    accuracy = 100 * float((floating == dataset.test.labels).mean())
    arguments = recipe["model"]["arguments"]
    width = f", width {arguments['width']:g}" if "width" in arguments else ""
    data = recipe["data"]["name"]
    training = f"trained on {data} (epochs: {found.epochs})" if found.epochs else f"not trained, for {data}"
    print(
        f"**{found.name}**{width}: {training}, seed {recipe['train']['seed']}; "
        f"float {accuracy:.2f} % of {len(dataset.test):,} test images; {len(found.calibration)} calibration images\n"
    )
    columns = ["runtime", "quantizer", "bytes", "accuracy %", "against float, points", "agrees with float %"]
    columns += ["median µs", "time / emb's", "emb's accuracy"]
    print(f"| {' | '.join(columns)} |")
    print(f"| --- | --- |{' ---: |' * 6} --- |", flush=True)


def print_rows(
    runtime: str,
    measured: Mapping[str, Measured | str],
    *,
    floating: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> str:
    """One line a quantizer; the verdict on emb's."""
    from verdict import verdict

    right = {name: one.classes == labels for name, one in measured.items() if isinstance(one, Measured)}
    ours = measured["emb"]
    if isinstance(ours, str):
        found = f"worse: {ours}"
    else:
        found = verdict(right["emb"], {name: one for name, one in right.items() if name != "emb"})
    for name, one in measured.items():
        if isinstance(one, str):
            print(f"| {runtime} | {name} | {one} | | | | | | |")
            continue
        accuracy = float(right[name].mean())
        ratio = ""
        if isinstance(ours, Measured):
            ratio = f"{statistics.median(b / a for a, b in zip(ours.rounds_us, one.rounds_us, strict=True)):.2f}"
        print(
            f"| {runtime} | {name} | {one.stored_bytes:,} | {100 * accuracy:.2f} "
            f"| {100 * (accuracy - float((floating == labels).mean())):+.2f} "
            f"| {100 * float((one.classes == floating).mean()):.2f} | {statistics.median(one.rounds_us):,.1f} "
            f"| {ratio} | {found if name == 'emb' else ''} |",
            flush=True,
        )
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=_names, default=tuple(MODELS), metavar="NAME,...")
    parser.add_argument("--runtimes", type=_names, default=("litert", "onnxruntime"), metavar="NAME,...")
    parser.add_argument("--build", type=_directory, action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--data", help="for what is trained here, instead of MNIST and CIFAR-10: digits")
    parser.add_argument("--data-dir", type=Path, help="where the data sets lie")
    parser.add_argument("--epochs", type=int, help="for what is trained here; the recipe's own by default")
    parser.add_argument("--width", type=float, help="the same, of networks that have one")
    arguments = parser.parse_args()
    arguments.build = dict(arguments.build)
    for given, known in ((arguments.models, MODELS), (arguments.build, MODELS), (arguments.runtimes, RUNTIMES.names())):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is none of {', '.join(known)}")
    return arguments


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _directory(text: str) -> tuple[str, Path]:
    name, _, directory = text.partition("=")
    if not (Path(directory) / "manifest.json").is_file():
        raise argparse.ArgumentTypeError(f"{directory!r} is no directory of emb train or emb build")
    return name, Path(directory)


if __name__ == "__main__":
    main()
