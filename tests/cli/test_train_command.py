"""emb train as the user runs it: what it writes and says, what it leaves in the store, what TensorBoard sees of it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # a command line of its own for each

LENET = ("train", "lenet", "--epochs", "3")
Emb = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def emb(emb, home) -> Emb:
    """The command line with a cache of its own."""
    return type(emb)(home).run


@pytest.fixture(scope="module")
def recorded(emb) -> dict[str, Any]:
    """The report of a short training with everything that can be recorded."""
    return json.loads(emb(*LENET, "--gradients", "--tensorboard", "board", "--json").stdout)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """tag -> (step, value), as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_document_is_what_was_promised(recorded):
    assert list(recorded) == [
        "recipe", "data", "directory", "cached", "backend", "devices", "seconds", "epochs", "kept_epoch", "gradients",
        "surface", "tensorboard", "notes",
    ]  # fmt: skip
    assert recorded["directory"] == "builds/lenet-train"
    assert recorded["backend"] == "tensorflow"
    assert [set(epoch) for epoch in recorded["epochs"]] == [
        {"loss", "accuracy", "validation_accuracy", "learning_rate", "seconds"}
    ] * 3
    assert recorded["kept_epoch"] == 3
    assert recorded["epochs"][2]["loss"] < recorded["epochs"][0]["loss"]


def test_every_file_is_there_and_in_the_manifest(home, recorded):
    folder = home / "builds" / "lenet-train"
    assert sorted(path.name for path in folder.iterdir()) == [
        "gradients.npz", "gradients.png", "gradients.svg", "history.json", "manifest.json", "model.keras",
        "training.png", "training.svg",
    ]  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert json.loads((folder / "history.json").read_text())["epochs"] == recorded["epochs"]


def test_gradients_are_recorded_for_every_step_and_variable(home, recorded):
    with np.load(home / "builds" / "lenet-train" / "gradients.npz") as file:
        names, norms = list(file["names"]), file["norms"]
    assert (names[0], names[-1]) == ("conv1/kernel", "scores/bias")
    assert norms.shape == (recorded["gradients"]["steps"], len(names))
    assert norms.shape[0] % 3 == 0
    assert np.isfinite(norms).all()
    assert norms.min() > 0
    last = recorded["gradients"]["last"]
    of_scores = np.hypot(norms[:, -2], norms[:, -1])[-(len(norms) // 3) :]
    assert last == {"layer": "scores", "median_norm": pytest.approx(np.median(of_scores), rel=1e-5)}


def test_tensorboard_sees_every_epoch_and_every_step(home, recorded):
    read = scalars(home / recorded["tensorboard"])
    for tag, key in {
        "loss/train": "loss",
        "accuracy/train": "accuracy",
        "accuracy/validation": "validation_accuracy",
        "learning rate": "learning_rate",
    }.items():
        wanted = [(number, pytest.approx(epoch[key])) for number, epoch in enumerate(recorded["epochs"], start=1)]
        assert read[tag] == wanted
    assert len(read["gradient norm/conv1"]) == recorded["gradients"]["steps"]


def test_what_was_trained_before_is_told_again_and_tensorboard_sees_it_once(emb, home, recorded):
    done = emb(*LENET, "--gradients", "--tensorboard", "board", "--json")
    again = json.loads(done.stdout)
    assert again == {**recorded, "cached": True}
    assert "epoch" not in done.stderr
    assert len(list((home / recorded["tensorboard"]).iterdir())) == 1
    assert [step for step, _ in scalars(home / recorded["tensorboard"])["loss/train"]] == [1, 2, 3]


def test_a_build_finds_the_model_trained(emb, home):
    emb(*LENET, "--output", "plain")
    done = emb("build", "lenet", "--epochs", "3", "--quantize", "int8", "--format", "tflite", "--output", "built")
    assert "epoch" not in done.stderr
    models = [
        json.loads((home / name / "manifest.json").read_text())["stages"]["model"]["files"]["model.keras"]
        for name in ("plain", "built")
    ]
    assert models[0] == models[1]
    page = (home / "built" / "report.md").read_text()
    assert "## Training\n\n![Training curves](training.svg)" in page
    assert (home / "built" / "training.svg").read_bytes() == (home / "plain" / "training.svg").read_bytes()


def test_the_last_epoch_stands_in_a_table(emb):
    told = emb(*LENET, "--gradients").stdout.splitlines()
    assert told[0].split() == ["epoch", "loss", "accuracy", "%", "validation", "%", "learning", "rate", "seconds"]
    assert told[1].split()[0] == "3/3"
    assert "lenet on digits, trained with Keras on tensorflow, one device" in told[3]
    assert "median gradient norm in the last epoch" in told[4]
    assert told[-1].startswith("builds/lenet-train")


def test_a_model_of_ones_own_is_trained_on(emb, home):
    emb(*LENET, "--output", "first")
    report = json.loads(
        emb("train", "first/model.keras", "--data", "digits", "--epochs", "1", "--output", "more", "--json").stdout
    )
    assert len(report["epochs"]) == 1
    assert report["epochs"][0]["validation_accuracy"] > 0.5
    assert (home / "more" / "model.keras").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "lenett"), "unknown recipe 'lenett'"),
        (("train", "lenet", "--epochs", "0"), "there is nothing to train: lenet has train.epochs = 0"),
        (("train", "lenet", "--epochs", "1", "--backend", "torch"), "emb does not train on the backend 'torch'"),
        (("train", "lenet", "--epochs", "1", "--devices", "2"), "--devices 2 needs the JAX backend"),
        (("train", "lenet", "--epochs", "1", "--devices", "some"), "there are no 'some' devices"),
        (("train", "lenet", "--epochs", "1", "--output", "."), ". holds something else than a build"),
        (("train", "lenet", "--epochs", "1", "--tensorboard", "note"), "cannot write TensorBoard's events"),
    ],
)
def test_what_is_wrong_is_one_error(emb, home, arguments, message):
    (home / "note").write_text("a file, and no directory")
    done = emb(*arguments, expect=2)
    assert message in " ".join(done.stderr.split())
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
