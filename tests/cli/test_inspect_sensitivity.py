"""`emb inspect --sensitivity`: the table, its document, where its images come from, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from emb.cli import app
from emb.pipeline.training import train
from emb.spec.dataset import DataRequest


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `emb train` leaves, and beside it the same model as somebody's own file, with channels that are free."""
    import keras

    folder = tmp_path_factory.mktemp("trained")
    wanted = {"train.epochs": 3, "train.seed": 4, "data.validation_fraction": 0.2}
    train("lenet", data="digits", overrides=wanted, output_directory=folder / "train")
    model = keras.models.load_model(folder / "train" / "model.keras")
    for weight in model.get_layer("conv2").weights:
        values = np.array(weight)
        values[..., ::2] = 0  # half of these channels say nothing
        weight.assign(values)
    model.save(folder / "own.keras")
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in no directory of emb's, untrained."""
    import keras
    from keras import layers

    path = tmp_path_factory.mktemp("own") / "own.keras"
    body = [layers.Flatten(), layers.Dense(4), layers.Dense(10, activation="softmax")]
    keras.Sequential([keras.Input((8, 8, 1)), *body]).save(path)
    return path


@pytest.mark.slow
def test_the_accuracy_of_every_layer_and_rate(trained: Path) -> None:
    from emb import data
    from emb.prune import channels

    result = run("inspect", trained / "train", "--sensitivity", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["images"] == "288 validation images of digits"
    assert [(row["group"], row["rate"], row["removed"]) for row in found["rows"]] == [
        (name, rate, round(rate * count))
        for name, count in (("conv1", 6), ("conv2", 16), ("dense1", 120), ("dense2", 84))
        for rate in (0.25, 0.5, 0.75)
    ]
    # The images that the training kept aside: its own fraction and seed decide.
    import keras

    model = keras.models.load_model(trained / "train" / "model.keras")
    split = data.load("digits", DataRequest(shape=(28, 28, 1), validation_fraction=0.2, seed=4)).validation
    right = np.asarray(model(split.images.astype(np.float32), training=False)).argmax(1) == split.labels
    assert found["accuracy"] == pytest.approx(right.mean())
    (row,) = channels.sensitivity(
        model,
        scores=channels.scores(model, criterion="l1"),
        rates=[0.5],
        accuracy=lambda masked: float(
            (np.asarray(masked(split.images.astype(np.float32), training=False)).argmax(1) == split.labels).mean()
        ),
    )[1:2]
    assert found["rows"][4]["accuracy"] == pytest.approx(row.accuracy)


@pytest.mark.slow
def test_the_table_of_a_file_of_ones_own(trained: Path) -> None:
    result = run("inspect", trained / "own.keras", "--sensitivity", "--data", "digits", "--rates", "0.5,0.9")
    assert result.exit_code == 0, result.output
    header, *rows = [line.split() for line in result.stdout.split("\n\n")[0].splitlines()]
    assert header == ["layer", "channels", "-50", "%", "-90", "%"]
    assert [row[:2] for row in rows] == [["conv1", "6"], ["conv2", "16"], ["dense1", "120"], ["dense2", "84"]]
    last = result.stdout.split("\n\n")[1]
    assert "% whole, over 144 validation images of digits" in last
    # Without the channels that are zero it is as right as before.
    whole = float(last.split(": ")[1].split(" %")[0])
    assert float(rows[1][2]) == pytest.approx(whole, abs=0.06)


def test_a_model_without_data(own: Path) -> None:
    result = run("inspect", own, "--sensitivity")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: --sensitivity needs validation images\n"
        f"  why: beside {own} there is no manifest.json that would name its data set\n"
        "  fix: add --data: a data set's name, a folder with one directory per class, or a .npz file\n"
    )


def test_data_of_other_classes(own: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(40) % 3
    arrays = {"x_train": images, "y_train": labels, "x_test": images[:9], "y_test": labels[:9]}
    np.savez(tmp_path / "three.npz", **arrays)
    result = run("inspect", own, "--sensitivity", "--data", tmp_path / "three.npz")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: the model tells 10 classes apart, and arrays has 3\n"
        "  fix: choose the data set that the model was made for: --data\n"
    )


@pytest.mark.parametrize("source", ["lenet", "nothing.keras", "model.tflite"])
def test_what_is_no_trained_keras_model(source: str) -> None:
    result = run("inspect", source, "--sensitivity", "--data", "digits")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {source} holds no Keras model\n"
        "  why: channels are masked in the model itself, and a build keeps the converted files alone\n"
        "  fix: give a .keras file, or the directory of `emb train`, which trains nothing twice that a build has\n"
    )


@pytest.mark.parametrize("rates", ["0", "1", "half", "0.5,", "0.5,2", "nan"])
def test_rates_that_say_nothing(rates: str) -> None:
    result = run("inspect", "own.keras", "--sensitivity", "--rates", rates)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: --rates cannot be {rates!r}\n"
        "  why: a rate is the share of a layer's channels that is left out\n"
        "  fix: give numbers between 0 and 1, e.g. --rates 0.25,0.5,0.75\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--sensitivity", "--receptive-field"),
            "error: --receptive-field and --sensitivity cannot go together\n"
            "  why: each shows something else of a model\n"
            "  fix: call emb inspect once with each\n",
        ),
        (
            ("--rates", "0.5"),
            "error: --rates has nothing to do\n"
            "  why: it is for --sensitivity\n"
            "  fix: add --sensitivity, or leave --rates out\n",
        ),
        (
            ("--data", "digits"),
            "error: --data has nothing to do\n"
            "  why: it is for --sensitivity and --quantization-error\n"
            "  fix: add --sensitivity or --quantization-error, or leave --data out\n",
        ),
    ],
)
def test_options_that_would_be_passed_over(arguments: tuple[str, ...], message: str) -> None:
    result = run("inspect", "own.keras", *arguments)
    assert (result.exit_code, result.stderr) == (2, message)
