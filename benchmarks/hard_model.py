"""Two models that plain int8 ruins, and what `emb build --max-drop` does about them. Prints Markdown.

A small convolutional network with batch normalization learns the data set. Then its function is written otherwise,
equal in floats: the channels behind two of the normalizations are multiplied by factors spread over 400 times, which
the next convolution divides out again; and the first layer gets one more channel that nothing reads, above 0 on two
numbers of 100,000 and then far stronger than all others. That is `repairable.keras`. In `irreparable.keras` a large
constant is added to every activation of one layer and taken off again: in eight bits nothing is left of what the layer
computed, and no weight is the cause. What no remedy brings back is built once more with layers in float32 allowed.

Usage: python benchmarks/hard_model.py [--data mnist] [--epochs 12] [--directory DIR]       a few minutes on two cores
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")

from emb import data as data_sets
from emb.errors import EmbError
from emb.spec.dataset import DataRequest, Dataset
from emb.spec.recipe import TrainSpec

SHAPE = (28, 28, 1)
WIDTHS = (8, 16, 16, 24)
# Largest over smallest factor of the channels of these layers.
SPREAD, SPREAD_OVER = 400.0, (2, 3)
# The layer with one channel more. Of its numbers, so many are that channel's and above 0; how far the strongest of them
# reaches, in multiples of all others.
TAIL = 1
FIRING_SHARE, REACH = 2e-5, 200.0
# float32 still tells numbers of this size apart by 0.0005, eight bits by 31.
OFFSET = 8e3


def network(classes: int, *, extra: int = 0, offset: float = 0.0) -> Any:
    """Four convolutions with batch normalization. extra: more channels in the first.

    offset: added to the last convolution's rectified output and taken off again behind another ReLU.
    """
    import keras
    from keras import layers

    image = keras.Input(SHAPE, name="pixels")
    x = layers.Rescaling(1 / 255, name="unit")(image)
    for place, width in enumerate(WIDTHS, start=1):
        channels = width + (extra if place == TAIL else 0)
        stride = 2 if place in (1, 2, 4) else 1
        x = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False, name=f"conv{place}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"bn{place}")(x)
        x = layers.ReLU(name=f"relu{place}")(x)
    if offset:
        x = layers.ReLU(name="above")(layers.Rescaling(1.0, offset=offset, name="up")(x))
        x = layers.Rescaling(1.0, offset=-offset, name="down")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax", name="scores")(x), name="hard")


def trained(dataset: Dataset, *, epochs: int) -> Any:
    """The network as it learns the data set; one seed gives one network."""
    import keras

    from emb.train import train

    keras.utils.set_random_seed(0)
    model = network(len(dataset.labels))
    with tempfile.TemporaryDirectory() as folder:
        train(
            model,
            train=dataset.train,
            validation=dataset.validation,
            spec=TrainSpec(epochs=epochs, batch_size=64, learning_rate=3e-3),
            directory=Path(folder),
            progress=lambda progress: None,
        )
    return model


def repairable(model: Any, images: NDArray[np.uint8], *, spread: float = SPREAD, reach: float = REACH) -> Any:
    """The model's function, channels of the second and third layer spread over `spread` times, a tail in the first.

    images: (n, height, width, channels), from which the tail's threshold follows.
    """
    hard = network(model.outputs[0].shape[-1], extra=1)
    rng = np.random.default_rng(0)
    carried: NDArray[np.float64] = np.ones(1)
    for place in range(1, len(WIDTHS) + 1):
        old, norm = model.get_layer(f"conv{place}"), model.get_layer(f"bn{place}")
        kernel = np.asarray(old.kernel, np.float64) / carried[None, None, :, None]
        gamma, beta, mean, variance = (np.asarray(one, np.float64) for one in norm.get_weights())
        added = kernel.shape[2] < hard.get_layer(f"conv{place}").kernel.shape[2]
        factors = np.ones(len(gamma))
        if place in SPREAD_OVER:
            factors = rng.permutation(np.geomspace(spread**-0.5, spread**0.5, len(gamma)))
        carried = factors
        kernel = np.pad(kernel, ((0, 0), (0, 0), (0, int(added)), (0, 0)))
        normalization = [gamma * factors, beta * factors, mean, variance]
        if place == TAIL:
            channel, gain, threshold = _tail(model, images, reach=reach)
            kernel = np.concatenate([kernel, kernel[..., channel, None]], axis=-1)
            rows = [gamma[channel] * gain, (beta[channel] - threshold) * gain, mean[channel], variance[channel]]
            normalization = [np.append(one, row) for one, row in zip(normalization, rows, strict=True)]
        hard.get_layer(f"conv{place}").set_weights([kernel])
        hard.get_layer(f"bn{place}").set_weights(normalization)
    hard.get_layer("scores").set_weights(model.get_layer("scores").get_weights())
    return hard


def _tail(model: Any, images: NDArray[np.uint8], *, reach: float) -> tuple[int, float, float]:
    """(channel, gain, threshold): gain * (channel - threshold) is above 0 on few pixels, and then strong."""
    import keras

    part = keras.Model(model.inputs[0], model.get_layer(f"bn{TAIL}").output)
    values = np.asarray(part.predict(images.astype(np.float32), verbose=0), np.float64)
    values = values.reshape(-1, values.shape[-1])
    channel = int(values.max(axis=0).argmax())
    threshold = float(np.quantile(values[:, channel], 1 - FIRING_SHARE * values.shape[1]))
    return channel, reach * float(values.max()) / max(float(values[:, channel].max()) - threshold, 1e-9), threshold


def irreparable(model: Any) -> Any:
    """The model's function with a constant of 8,000 in the way."""
    hard = network(model.outputs[0].shape[-1], offset=OFFSET)
    for layer in model.layers:
        if layer.weights:
            hard.get_layer(layer.name).set_weights(layer.get_weights())
    return hard


def load(name: str) -> Dataset:
    request = DataRequest(directories=data_sets.search_directories(None), shape=SHAPE, validation_fraction=0.3)
    return data_sets.load(name, request)


def write_models(directory: Path, *, data: str, epochs: int) -> tuple[Path, Path]:
    """repairable.keras and irreparable.keras."""
    dataset = load(data)
    model = trained(dataset, epochs=epochs)
    images = np.asarray(dataset.train.images[:2000])
    paths = directory / "repairable.keras", directory / "irreparable.keras"
    for path, hard in zip(paths, (repairable(model, images), irreparable(model)), strict=True):
        hard.save(path)
        trial = images[:256].astype(np.float32)
        difference = np.abs(hard.predict(trial, verbose=0) - model.predict(trial, verbose=0)).max()
        print(f"- {path.name}: its scores differ from the trained network's by at most {difference:.1e}")
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, mnist or fashion-mnist")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--directory", type=Path, help="where to leave models and builds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = arguments.directory or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        for path in write_models(directory, data=arguments.data, epochs=arguments.epochs):
            _show(path, data=arguments.data)


def _show(path: Path, *, data: str) -> None:
    """Plain int8, int8 that may lose half a point, and the same with layers in float32 if that ends in the error."""
    from emb.pipeline.build import build

    ways: list[tuple[str, dict[str, Any]]] = [
        ("plain int8", {}),
        ("--max-drop 0.5", {"repair.max_drop": 0.5}),
        ("--max-drop 0.5 --keep-float", {"repair.max_drop": 0.5, "repair.keep_float": "allow"}),
    ]
    for place, (name, overrides) in enumerate(ways):
        print(f"\n{path.name}, {name}:\n")
        try:
            report = build(
                path,
                data=data,
                output_directory=path.with_name(f"{path.stem}-{place}"),
                overrides={"quantize.schemes": "int8", "data.validation_fraction": 0.3, **overrides},
            )
        except EmbError as error:
            print(f"error: {error}")
            continue
        for row in report.rows:
            if row.scheme == "int8" and row.accuracy is not None:
                change = 100 * (row.accuracy - report.reference_accuracy)
                print(f"- {row.file} on {row.runtime} ({row.mode}): {100 * row.accuracy:.2f} %, {change:+.2f} points")
        for repair in report.repairs:
            print("".join(f"- {line}\n" for line in repair.lines()), end="")
        if report.repairs:
            break


if __name__ == "__main__":
    main()
