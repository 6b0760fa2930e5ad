"""`emb inspect --quantization-error`: finds the one bad layer, and takes builds, recipes and models of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from emb.cli import app

SPREAD = 10_000.0


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hard.keras and images.npz, whose labels are what the model says.

    The channels of the layer "bad" spread over four decades, by its weights; "even" takes the spread out again, by
    weights with a scale for each channel. No other layer has anything to lose.
    """
    import keras
    from keras import layers

    folder = tmp_path_factory.mktemp("hard")
    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255, name="scale")(image)
    x = layers.Conv2D(16, 3, activation="relu", name="first")(x)
    x = layers.Conv2D(16, 3, activation="relu", name="bad")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.DepthwiseConv2D(1, name="even")(x)
    x = layers.Conv2D(16, 3, activation="relu", name="behind")(x)
    x = layers.Flatten(name="flat")(x)
    model = keras.Model(image, layers.Dense(10, name="scores")(x), name="hard")
    spread = np.random.default_rng(0).permutation(np.geomspace(1, SPREAD, 16)).astype(np.float32)
    kernel, bias = model.get_layer("bad").get_weights()
    model.get_layer("bad").set_weights([kernel * spread, bias])
    model.get_layer("even").set_weights([(1 / spread).reshape(1, 1, 16, 1), np.zeros(16)])
    rng = np.random.default_rng(7)
    patches = rng.integers(0, 256, (600, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
    images = np.clip(patches + rng.integers(-20, 21, (600, 16, 16, 3)), 0, 255).astype(np.uint8)
    scores = model.predict(images.astype(np.float32), verbose=0)
    # Each class equally often.
    kernel, bias = model.get_layer("scores").get_weights()
    deviation = scores.std(axis=0)
    model.get_layer("scores").set_weights([kernel / deviation, (bias - scores.mean(axis=0)) / deviation])
    labels = model.predict(images.astype(np.float32), verbose=0).argmax(axis=1)
    model.save(folder / "hard.keras")
    np.savez(
        folder / "images.npz", x_train=images[:500], y_train=labels[:500], x_test=images[500:], y_test=labels[500:]
    )
    return folder


@pytest.mark.slow
def test_the_bad_layer_comes_first_and_costs_it_all(hard: Path) -> None:
    result = run(hard / "hard.keras", "--data", hard / "images.npz", "--quantization-error", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    layers = {layer["layer"]: layer for layer in found["layers"]}
    assert list(layers) == [found["layers"][0]["layer"], *list(layers)[1:]]
    assert found["layers"][0]["layer"] == "bad"
    assert found["float_accuracy"] == 1
    assert found["int8_accuracy"] < 0.4
    assert abs(found["simulated_accuracy"] - found["int8_accuracy"]) <= 0.1
    assert layers["bad"]["accuracy_spared"] > 0.9
    # Its output goes on in int8: to compute it in float does not help, and the table says so.
    assert layers["bad"]["accuracy_kept_float"] < 0.4
    for name in ("first", "even", "behind", "scores"):
        assert layers[name]["accuracy_spared"] < 0.4
    # The ratio over all values, and the cosine, see the one loud channel alone.
    assert layers["bad"]["sqnr_db"] > 35
    assert layers["bad"]["cosine"] > 0.999
    assert layers["bad"]["channel_sqnr_db"] < 5 < layers["behind"]["channel_sqnr_db"]
    assert layers["first"]["folded"] == ["scale"]
    assert layers["pool"]["own_sqnr_db"] is None
    assert layers["pool"]["accuracy_spared"] is None


@pytest.mark.slow
def test_the_table(hard: Path) -> None:
    arguments = (hard / "hard.keras", "--data", hard / "images.npz", "--quantization-error")
    result = run(*arguments, "--layers", "1", "--images", "20")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0] == "layer"
    assert lines[1].startswith("bad")
    assert [line.split()[0] for line in lines[1:8]][-2:] == ["pool", "flat"]
    assert "over 20 validation images of arrays: float32 100.00 %" in result.stdout
    assert "one image is 5.00 points" in result.stdout


@pytest.mark.slow
def test_a_build_by_its_directory_its_file_or_its_recipe(built: Any, emb: Any) -> None:
    by_directory = emb.json("inspect", "built", "--quantization-error", "--layers", "2")
    by_file = emb.json("inspect", "built/lenet-int8.tflite", "--quantization-error", "--layers", "2")
    assert by_directory["layers"] == by_file["layers"]
    assert {layer["layer"] for layer in by_directory["layers"]} == {
        *("conv1", "pool1", "conv2", "pool2", "flatten", "dense1", "dense2", "scores")
    }
    assert [layer["accuracy_spared"] is not None for layer in by_directory["layers"]] == [True] * 2 + [False] * 6
    assert all(layer["cosine"] > 0.99 for layer in by_directory["layers"])
    assert by_directory["int8_accuracy"] == pytest.approx(by_directory["float_accuracy"], abs=0.05)
    refused = emb.run("inspect", "mlp-shallow", "--quantization-error", expect=2)
    assert refused.stderr == (
        "error: mlp-shallow has not been built\n"
        "  why: int8 is compared with a trained float model, and there is no builds/mlp-shallow-int8\n"
        "  fix: build it: emb build mlp-shallow; or give the directory of a build\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("lenet", "--images", "5"),
            "error: --images has nothing to do\n"
            "  why: it is for --quantization-error\n"
            "  fix: add --quantization-error, or leave --images out\n",
        ),
        (
            ("lenet", "--quantization-error", "--receptive-field"),
            "error: --receptive-field and --quantization-error cannot go together\n"
            "  why: each shows something else of a model\n"
            "  fix: call emb inspect once with each\n",
        ),
        (
            ("lenet", "--quantization-error", "--layers", "most"),
            "error: there are no 'most' layers\n  fix: give a number from 0 on, or all\n",
        ),
        (
            ("nothing", "--quantization-error"),
            "error: unknown recipe 'nothing'\n",
        ),
    ],
)
def test_bad_input(arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)


def test_an_onnx_file_does_not_tell_its_layers(hard: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    result = run(tmp_path / "model.onnx", "--data", hard / "images.npz", "--quantization-error")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: the layers of {tmp_path / 'model.onnx'} cannot be looked into\n"
        "  why: ONNX Runtime gives out a model's output alone\n"
        "  fix: give the Keras model, or a float .tflite of it\n"
    )
