"""What users get wrong: one clear error each, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow  # a command line of its own for each


def refused(emb, *arguments: str, **environment: str) -> str:
    """stderr of a command that must end with exit code 2 and one error, and leave no build."""
    done = emb.run(*arguments, expect=2, **environment)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    assert not list((emb.home / "builds").glob("[!.]*"))
    return " ".join(done.stderr.split())


@pytest.fixture
def emb(emb, tmp_path):
    """The same command line with an empty cache and folder for each test."""
    return type(emb)(tmp_path)


def arrays(path: Path, *, classes: int = 3, bad: float | None = None) -> Path:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(40, 28, 28, 1)).astype(np.float32 if bad is not None else np.uint8)
    if bad is not None:
        images[7, 3, 4, 0] = bad
    labels = np.arange(40) % classes
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return path


@contextlib.contextmanager
def small_disk(place: Path, options: str) -> Iterator[Path]:
    """A file system of its own, in memory."""
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_an_unknown_recipe(emb):
    message = refused(emb, "build", "lenett")
    assert "unknown recipe 'lenett'" in message
    assert "did you mean 'lenet'?" in message


def test_a_recipe_with_faults_lists_all(emb):
    (emb.home / "wrong.toml").write_text(
        '[model]\nbuilder = "lenett"\n[train]\nepoch = 3\noptimiser = "adam"\n[data]\nname = "mnits"\n'
    )
    message = refused(emb, "build", "wrong.toml")
    assert "recipe wrong.toml has 4 faults" in message
    for fault in (
        "line 2, model.builder: unknown model 'lenett'; did you mean 'lenet'?",
        "line 4, train.epoch: is unknown; did you mean 'epochs'?",
        "line 5, train.optimiser: is unknown; did you mean 'optimizer'?",
        "line 7, data.name: unknown data set 'mnits'; did you mean 'mnist'?",
    ):
        assert fault in message


def test_a_recipe_that_is_not_toml(emb):
    (emb.home / "broken.toml").write_text("[model\n")
    assert "broken.toml is not valid TOML" in refused(emb, "build", "broken.toml")


def test_missing_data(emb):
    message = refused(emb, "build", "lenet", "--data", "mnist")
    assert "emb data fetch mnist" in message


def test_a_truncated_idx(emb):
    folder = emb.home / "data" / "mnist"
    folder.mkdir(parents=True)
    images = b"\0\0\x08\x03" + (60_000).to_bytes(4, "big") + (28).to_bytes(4, "big") * 2 + b"\0" * 1000
    labels = b"\0\0\x08\x01" + (60_000).to_bytes(4, "big") + b"\0" * 60_000
    for stem in ("train", "t10k"):
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    message = refused(emb, "build", "lenet", "--data", "mnist", "--data-dir", "data")
    assert "train-images-idx3-ubyte.gz" in message


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.tflite", "model.onnx"])
def test_a_text_file_with_a_models_name(emb, name):
    (emb.home / name).write_text("this is no model\n")
    arrays(emb.home / "data.npz")
    assert name in refused(emb, "build", name, "--data", "data.npz")


def test_a_model_without_data(emb):
    (emb.home / "model.keras").write_text("")
    assert "--data DIR" in refused(emb, "build", "model.keras")


def test_a_model_for_other_classes(emb):
    script = (
        "import keras; from emb.zoo import ZOO;"
        "ZOO.get('lenet').build(input_shape=(28, 28, 1), classes=5).save('five.keras')"
    )
    subprocess.run([*emb.command()[:2], script], cwd=emb.home, check=True, capture_output=True)
    arrays(emb.home / "data.npz", classes=3)
    message = refused(emb, "build", "five.keras", "--data", "data.npz", "--calibration", "20")
    assert "gives 5 scores; the data set arrays has 3 classes" in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 300.0, -1.0, 0.5])
def test_images_that_are_no_pixels(emb, bad):
    message = refused(emb, "build", "lenet", "--data", str(arrays(emb.home / "bad.npz", bad=bad)))
    assert "bad.npz" in message


def test_one_class_only(emb):
    message = refused(emb, "build", "lenet", "--data", str(arrays(emb.home / "one.npz", classes=1)))
    assert "class" in message


def test_a_corrupt_picture_among_good_ones(emb):
    for label in ("cat", "dog"):
        (emb.home / "pets" / label).mkdir(parents=True)
        for number in range(8):
            Image.new("L", (28, 28), 10 * number).save(emb.home / "pets" / label / f"{number}.png")
    (emb.home / "pets" / "dog" / "3.png").write_text("woof")
    assert "3.png" in refused(emb, "build", "lenet", "--data", "pets", "--set", "input.shape=[28,28,1]")


def test_an_output_directory_that_holds_something_else(emb):
    (emb.home / "precious").mkdir()
    (emb.home / "precious" / "thesis.tex").write_text("years of work")
    message = refused(emb, "build", "lenet", "--output", "precious")
    assert "holds something else than a build" in message
    assert (emb.home / "precious" / "thesis.tex").read_text() == "years of work"


def test_an_output_below_a_file(emb):
    (emb.home / "file").write_text("")
    assert "cannot write" in refused(emb, "build", "lenet", "--output", "file/build")


def test_an_unwritable_output_directory(emb):
    if os.geteuid() == 0:  # whom no mode stops
        with small_disk(emb.home / "locked", "ro"):
            message = refused(emb, "build", "lenet", "--output", "locked/build")
        assert "read-only file system" in message
    else:
        (emb.home / "locked").mkdir(mode=0o555)
        message = refused(emb, "build", "lenet", "--output", "locked/build")
        assert "permission denied" in message
    assert "fix: make it writable" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--calibration", "0"), "calibration_images: must be at least 1"),
        (("--calibration", "99999"), "99,999"),
        (("--quantize", "int4"), "unknown scheme 'int4'"),
        (("--quantize", "int8,int8"), "must not repeat"),
        (("--quantize", ""), "must name at least one scheme"),
        (("--set", "quantize.lanes=65"), "quantize.lanes: must lie between 0 and 64"),
        (("--set", "quantize.maps=-1"), "quantize.maps: must lie between 0 and 64"),
        (("--set", "name=mine"), "name: cannot be set"),
        (("--calibration-method", "max"), "did you mean 'minmax'?"),
        (("--set", "train.epochs"), "is not an assignment"),
        (("--set", "train.epochs=many"), "must be a whole number"),
        (("--epochs", "-1"), "must not be negative"),
        (("--format", "onnx"), "must hold tflite"),
        (("--data", "nowhere"), "there is no data set and no folder 'nowhere'"),
        (("--data-dir", "nowhere"), "nowhere is no directory"),
        (("--set", "model.arguments.widht=2"), "is unknown"),
    ],
)
def test_a_wrong_option(emb, arguments, words):
    assert words in refused(emb, "build", "lenet", *arguments)


@pytest.mark.parametrize("command", ["run", "bench", "inspect"])
def test_a_model_file_that_is_not_there(emb, command):
    images = ("x.png",) if command == "run" else ()
    assert "nothing.tflite" in refused(emb, command, "nothing.tflite", *images)


@pytest.mark.parametrize("command", ["bench", "inspect"])
def test_a_corrupt_tflite(emb, command):
    (emb.home / "bad.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(range(200)))
    assert "bad.tflite" in refused(emb, command, "bad.tflite")


def test_errors_are_json_too(emb):
    done = emb.run("build", "lenett", "--json", expect=2)
    assert json.loads(done.stdout)["error"]["what"] == "unknown recipe 'lenett'"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_full_disk(emb):
    with small_disk(emb.home / "disk", "size=200k") as disk:
        message = refused(emb, "build", "lenet", "--epochs", "1", EMB_CACHE_DIR=str(disk))
    assert "no space left on device" in message
