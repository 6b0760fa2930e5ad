"""emb's int8 LeNet against the files that the converters' own examples lead to. One run, side by side. Prints Markdown.

Plain TFLite: TFLiteConverter.from_keras_model, DEFAULT optimisation, a representative data set, int8 input and output,
dynamic batch. Plain ONNX: tf2onnx.convert.from_keras with a dynamic batch, then onnxruntime's quantize_static with its
defaults. Both from the same Keras model and the same 200 calibration images as emb's files.

Usage: python benchmarks/against_plain.py [--data mnist]      needs the data set (emb data fetch mnist)
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import emb
from emb import data as data_sets
from emb.bench import describe_machine, top1
from emb.runtimes import open_runtime, to_input
from emb.spec.dataset import DataRequest, Dataset
from emb.store import Store

ROUNDS = 15
ROUND_S = 0.2
CALIBRATION_IMAGES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    arguments = parser.parse_args()
    request = DataRequest(directories=data_sets.search_directories(None))
    dataset = data_sets.load(arguments.data, request)
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "emb"
        emb.build("lenet", quantize="int8", data=arguments.data, output=ours)
        plain = Path(folder) / "plain"
        plain.mkdir()
        calibration = data_sets.calibration_images(dataset, count=CALIBRATION_IMAGES, seed=0)
        with silence():
            write_plain_tflite(keras_model(ours), calibration, plain / "plain-int8.tflite")
            write_plain_onnx(keras_model(ours), calibration, plain / "plain-int8.onnx")
        images = f"{len(dataset.test):,} test images of {arguments.data}"
        print(f"Measured on {describe_machine().title}, one thread, {images}.\n")
        print("| runtime | emb bytes | plain | emb accuracy % | plain | emb median µs | plain | plain / emb |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for runtime, suffix in (("litert", "tflite"), ("tflite-runtime", "tflite"), ("onnxruntime", "onnx")):
            compare(runtime, ours / f"lenet-int8.{suffix}", plain / f"plain-int8.{suffix}", dataset)


def keras_model(build: Path) -> Any:
    """The Keras model that a build was exported from, out of the store."""
    import json

    import keras

    manifest = json.loads((build / "manifest.json").read_text())
    digest = manifest["stages"]["model"]["files"]["model.keras"]
    for path in (Store().root / "artifacts").glob("*/model.keras"):
        if json.loads((path.parent / "manifest.json").read_text())["files"]["model.keras"] == digest:
            return keras.models.load_model(path)
    raise SystemExit("the trained model is not in the store")


def write_plain_tflite(model: Any, calibration: NDArray[np.uint8], path: Path) -> None:
    """As TensorFlow's own guide to full integer quantization has it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())


def write_plain_onnx(model: Any, calibration: NDArray[np.uint8], path: Path) -> None:
    """tf2onnx, then quantize_static as it comes."""
    import tensorflow as tf
    import tf2onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    signature = (tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image"),)
    floating = path.with_name("plain-float32.onnx")
    tf2onnx.convert.from_keras(model, input_signature=signature, output_path=str(floating))

    class Reader(CalibrationDataReader):
        images = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {"image": image[None].astype(np.float32)}

    quantize_static(str(floating), str(path), Reader())


def compare(runtime: str, ours: Path, plain: Path, dataset: Dataset) -> None:
    """One line: bytes, accuracy over the whole test split, and latency in interleaved rounds."""
    test = dataset.test
    with open_runtime(runtime, model=ours) as first, open_runtime(runtime, model=plain) as second:
        accuracies = [top1(process.scores(test.images), test.labels).accuracy for process in (first, second)]
        inputs = [to_input(test.images[:64], process.input) for process in (first, second)]
        rounds: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for index, process in enumerate((first, second)):
                samples = process.time_runs(inputs[index], warm_up_s=0.05, measure_s=ROUND_S)
                rounds[index].append(float(np.median(samples)) / 1000)
    ratio = statistics.median(b / a for a, b in zip(*rounds, strict=True))
    print(
        f"| {runtime} | {ours.stat().st_size:,} | {plain.stat().st_size:,} "
        f"| {100 * accuracies[0]:.2f} | {100 * accuracies[1]:.2f} "
        f"| {statistics.median(rounds[0]):.1f} | {statistics.median(rounds[1]):.1f} | {ratio:.2f} |",
        flush=True,
    )


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps the converters' chatter out of the table."""
    sys.stdout.flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    with Path(os.devnull).open("wb") as nowhere:
        for descriptor in (1, 2):
            os.dup2(nowhere.fileno(), descriptor)
        try:
            yield
        finally:
            sys.stdout.flush()
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


if __name__ == "__main__":
    main()
