"""Somebody's own model, in every format, with somebody's own pictures."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

SIZE = 16

# Trained on 0..1, as most people do: four classes, by the quarter of the picture that is bright.
MAKE = """
    import keras, numpy as np
    keras.utils.set_random_seed(0)
    x = np.load("x.npy").astype("float32") / 255
    y = np.load("y.npy")
    model = keras.Sequential([
        keras.layers.Input((16, 16, 3)),
        keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.MaxPooling2D(4),
        keras.layers.Flatten(),
        keras.layers.Dense(4, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=15, batch_size=16, verbose=0)
    model.save("model.keras")
    model.save("model.h5")
    model.export("saved", verbose=False)
    from pathlib import Path
    from emb.export import onnx, tflite
    tflite.export(model, Path("model.tflite"))
    onnx.export(model, Path("model.onnx"))
    image = keras.Input((16, 16, 3))
    keras.Model(image, model(keras.layers.Lambda(lambda t: t / 255.0)(image))).save("lambda.keras")
"""


@pytest.fixture(scope="module")
def own(emb, tmp_path_factory):
    """A folder with the model in every format, and 240 pictures in `pictures`."""
    home = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    images, labels = [], []
    for number in range(240):
        label = number % 4
        image = rng.integers(0, 90, size=(SIZE, SIZE, 3))
        row, column = divmod(label, 2)
        image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += rng.integers(60, 160)
        images.append(image.astype(np.uint8))
        labels.append(label)
        folder = home / "pictures" / f"quarter-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[-1]).save(folder / f"{number}.png")
    np.save(home / "x.npy", np.stack(images))
    np.save(home / "y.npy", np.array(labels))
    subprocess.run([*emb.command()[:2], textwrap.dedent(MAKE)], cwd=home, check=True, capture_output=True)
    return type(emb)(home)


def rows_of(report, **wanted):
    return [row for row in report["rows"] if all(row[key] == value for key, value in wanted.items())]


@pytest.mark.parametrize(
    ("model", "formats"),
    [
        ("model.keras", {"tflite", "onnx"}),
        ("model.h5", {"tflite", "onnx"}),
        ("saved", {"tflite", "onnx"}),
        ("model.tflite", {"tflite"}),
        ("model.onnx", {"onnx"}),
    ],
)
def test_every_format_becomes_int8(own, model, formats):
    report = own.json(
        "build", model, "--data", "pictures", "--pixels", "0..1", "--quantize", "int8", "--calibration", "100"
    )
    assert report["errors"] == []
    assert {row["format"] for row in report["rows"]} == formats
    assert "train" not in report["seconds"] or report["seconds"]["train"] < 60
    for row in rows_of(report, scheme="int8"):
        assert row["accuracy"] >= 0.95
        assert row["agreement"] >= 0.95


def test_pixels_are_part_of_the_graph_where_they_can_be(own):
    import json

    own.json("build", "model.keras", "--data", "pictures", "--pixels", "0..1", "--calibration", "100")
    contract = json.loads((own.home / "builds" / "model-int8" / "contract.json").read_text())
    (int8,) = [model for model in contract["models"] if model["file"] == "model-int8.tflite"]
    assert contract["pixels"] == {"scale": 1.0, "offset": 0.0}
    assert (int8["input"]["scale"], int8["input"]["zero_point"]) == (1.0, -128)
    assert contract["labels"] == [f"quarter-{label}" for label in range(4)]
    assert contract["channel_order"] == "RGB"


def test_it_can_be_trained_on(own):
    told = own.run(
        "build", "model.keras", "--data", "pictures", "--pixels", "0..1", "--calibration", "100", "--epochs", "2",
        "--set", "train.batch_size=16",
    ).stderr  # fmt: skip
    assert "epoch 2/2" in told


def test_pictures_are_classified_by_every_exported_file(own):
    own.json("build", "model.keras", "--data", "pictures", "--pixels", "0..1", "--calibration", "100")
    picture = str(sorted(Path(own.home / "pictures" / "quarter-2").iterdir())[0])
    for model in ("model-int8", "model-int8/model-int8.onnx", "model-int8/model-float32.tflite"):
        (answer,) = own.json("run", f"builds/{model}", picture)
        assert answer["classes"][0]["label"] == "quarter-2"


def test_code_in_a_model_is_not_run_unasked(own):
    done = own.run("build", "lambda.keras", "--data", "pictures", "--calibration", "100", expect=2)
    assert "--trust-model" in done.stderr
    assert "Traceback" not in done.stderr
    trusted = own.json("build", "lambda.keras", "--data", "pictures", "--calibration", "100", "--trust-model")
    assert all(row["accuracy"] >= 0.95 for row in rows_of(trusted, scheme="int8"))


def test_a_recipe_file_may_name_a_model(own):
    (own.home / "mine.toml").write_text(
        textwrap.dedent("""
            [model]
            file = "model.keras"
            [data]
            name = "folder"
            path = "pictures"
            [input]
            pixels = "0..1"
            [train]
            epochs = 0
            [quantize]
            schemes = ["int8"]
            calibration_images = 64
        """)
    )
    report = own.json("build", "mine.toml")
    assert {row["file"] for row in report["rows"]} == {
        "mine-float32.tflite",
        "mine-int8.tflite",
        "mine-int8.onnx",
    }
