"""LeNet-5 on the real MNIST: what each scheme costs in accuracy and bytes."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emb.export import onnx, tflite
from emb.quantize import SCHEMES, quantize_onnx, quantize_tflite

FOLDER = os.environ.get("EMB_DATA_DIR")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.mnist,
    pytest.mark.skipif(FOLDER is None, reason="EMB_DATA_DIR is not set, so that there is no MNIST"),
]


def _read(name: str, *, header: int) -> NDArray[np.uint8]:
    content = gzip.decompress((Path(FOLDER or "") / "mnist" / name).read_bytes())
    return np.frombuffer(content, np.uint8, offset=header)


@pytest.fixture(scope="module")
def mnist() -> dict[str, Any]:
    return {
        "train": _read("train-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28, 1),
        "train_labels": _read("train-labels-idx1-ubyte.gz", header=8).astype(np.int64),
        "test": _read("t10k-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28, 1),
        "test_labels": _read("t10k-labels-idx1-ubyte.gz", header=8).astype(np.int64),
    }


@pytest.fixture(scope="module")
def files(mnist: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The trained LeNet-5's float32 files."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((28, 28, 1))
    x = layers.Conv2D(6, 5, padding="same", activation="relu")(layers.Rescaling(1 / 255)(image))
    x = layers.Conv2D(16, 5, activation="relu")(layers.MaxPooling2D(2)(x))
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    x = layers.Dense(84, activation="relu")(layers.Dense(120, activation="relu")(x))
    model = keras.Model(image, layers.Dense(10, activation="softmax")(x), name="lenet")
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    model.fit(mnist["train"], mnist["train_labels"], batch_size=128, epochs=2, verbose=0)
    folder = tmp_path_factory.mktemp("lenet")
    tflite.export(model, folder / "lenet.tflite")
    onnx.export(model, folder / "lenet.onnx")
    return folder


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
def test_int8_is_within_a_tenth_of_a_point(
    file_format: str, method: str, mnist: Any, files: Any, run: Any, tmp_path: Path
) -> None:
    convert = {"tflite": quantize_tflite, "onnx": quantize_onnx}[file_format]
    path = tmp_path / f"int8.{file_format}"
    calibration = mnist["train"][:200]
    convert(
        files / f"lenet.{file_format}",
        path,
        scheme=SCHEMES.get("int8").SCHEME,
        calibration=calibration,
        method=method,
    )
    fast = {"reference": False} if file_format == "tflite" else {}
    wanted = mnist["test_labels"]
    before, after = (
        run(model, mnist["test"], **fast).argmax(axis=1) for model in (files / f"lenet.{file_format}", path)
    )
    assert abs(np.mean(after == wanted) - np.mean(before == wanted)) <= 0.001
    assert np.mean(after == before) >= 0.998
    assert path.stat().st_size <= {"tflite": 74_000, "onnx": 80_000}[file_format]


def test_bytes_of_each_scheme(mnist: Any, files: Any, tmp_path: Path) -> None:
    most = {
        "float32": 251_000,
        "float16": 130_000,
        "dynamic": 73_000,
        "int8": 74_000,
        "int8-uint8": 74_000,
        "int8-qat": 74_000,
        "int16x8": 77_000,
        "int4w": 42_000,
    }
    sizes = {}
    for name in SCHEMES.names():
        path = tmp_path / f"{name}.tflite"
        scheme = SCHEMES.get(name).SCHEME
        quantize_tflite(files / "lenet.tflite", path, scheme=scheme, calibration=mnist["train"][:50])
        sizes[name] = path.stat().st_size
    assert {name: size for name, size in sizes.items() if size > most[name]} == {}
