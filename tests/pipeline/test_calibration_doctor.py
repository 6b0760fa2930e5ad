"""`emb doctor calibration`, and what a build does with what it says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from emb import data as data_sets
from emb.cli import app
from emb.pipeline.calibration import drawn
from emb.pipeline.recipes import load_recipe
from emb.pipeline.request import data_request, resolve

REAL = [
    pytest.mark.mnist,
    pytest.mark.skipif("EMB_DATA_DIR" not in os.environ, reason="EMB_DATA_DIR is not set"),
]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


@pytest.fixture(scope="module")
def digits() -> Any:
    return data_sets.load("digits", data_request(load_recipe("lenet"), data_dir=None))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_bare_command_is_what_it_was() -> None:
    result = run("--json")
    assert result.exit_code == 0
    assert {"python", "cache", "data digits"} <= {finding["part"] for finding in json.loads(result.stdout)}


def test_digits_are_healthy() -> None:
    result = run("calibration", "lenet")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "examined 200 train images of digits: nothing to say against them\n"
        "what they do inside the model was not looked at: lenet has not been built, so that there is no trained model "
        "to look into\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "name",
    [
        "digits",
        pytest.param("mnist", marks=REAL),
        pytest.param("cifar10", marks=REAL),
    ],
)
def test_what_a_build_draws_is_healthy(name: str, seed: int) -> None:
    recipe = resolve("resnet8-cifar10" if name == "cifar10" else "lenet", data=name)
    request = data_request(recipe, data_dir=None)
    if not data_sets.locate(name, request).found:
        pytest.skip(f"{name} is not in EMB_DATA_DIR")
    _, findings = drawn(data_sets.load(name, request), count=200, seed=seed)
    assert findings == ()


def test_images_of_ones_own_in_an_array(digits: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "unit.npy", digits.train.images[:150] / np.float32(255))
    result = run("calibration", "lenet", "--images", tmp_path / "unit.npy", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [(one["check"], one["severity"]) for one in document["findings"]] == [("pixel-range", "broken")]
    assert document["images"] == f"150 images of {tmp_path / 'unit.npy'}"
    np.savez(tmp_path / "few.npz", x=digits.train.images[:40], y=digits.train.labels[:40])
    told = run("calibration", "lenet", "--images", tmp_path / "few.npz")
    assert told.exit_code == 0
    assert "remark" in told.stdout
    assert f"examined 40 images of {tmp_path / 'few.npz'}: 1 finding\n" in told.stdout


def test_test_images_are_found_out(digits: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "test.npy", digits.test.images[:150])
    result = run("calibration", "lenet", "--images", tmp_path / "test.npy", "--json")
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["what"] == "150 of 150 calibration images are in the test split"


def test_a_folder_whose_directories_are_classes(digits: Any, tmp_path: Path) -> None:
    for number in range(150):
        label = digits.labels[digits.train.labels[number] % 3]
        (tmp_path / "own" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.train.images[number][..., 0]).save(tmp_path / "own" / label / f"{number}.png")
    result = run("calibration", "lenet", "--images", tmp_path / "own", "--json")
    assert result.exit_code == 0, result.output
    assert [one["check"] for one in json.loads(result.stdout)["findings"]] == ["class-coverage"]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "small.npy",
            np.zeros((3, 8, 8, 1), np.uint8),
            "the calibration images are 8x8x1, the model takes 28x28x1\n"
            "  fix: give images of the model's height, width and channels\n",
        ),
        (
            "flat.npy",
            np.zeros((3, 784), np.uint8),
            "{path}: x has the shape (3, 784)\n"
            "  why: images are (n, height, width) or (n, height, width, channels)\n"
            "  fix: save all images in one such array\n",
        ),
        (
            "images.bin",
            None,
            "{path} holds no calibration images that emb reads\n"
            "  why: its name ends in '.bin'\n"
            "  fix: give a folder of JPEG or PNG files, or an array in a .npy or .npz file\n",
        ),
        (
            "damaged.npy",
            None,
            "{path} is damaged\n",
        ),
        (
            "empty",
            "folder",
            "{path} holds no images\n  why: there is no JPEG or PNG file in it\n  fix: name another folder\n",
        ),
        ("nowhere", "nothing", "there are no calibration images at {path}\n  fix: check the path\n"),
    ],
)
def test_images_that_cannot_be_examined(name: str, array: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(array, np.ndarray):
        np.save(path, array)
    elif array is None:
        path.write_bytes(b"no array")
    elif array == "folder":
        path.mkdir()
    result = run("calibration", "lenet", "--images", path)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: " + message.format(path=path))


@pytest.mark.slow
def test_images_that_are_all_the_same_stop_a_build(emb: Any, digits: Any) -> None:
    same = digits.train.images[:1].repeat(300, axis=0)
    labels = np.arange(300) % 10
    np.savez(emb.home / "same.npz", x_train=same, y_train=labels, x_test=same[:20], y_test=labels[:20])
    refused = emb.run("build", "lenet", "--data", "same.npz", "--epochs", "1", "--output", "same", expect=2)
    assert refused.stderr.endswith(
        "error: the calibration images are unfit: all 200 calibration images are the same\n"
        "  why: a loop that reads the same file again, a video of a scene that stands still, or copies in the folder\n"
        "  fix: give different images, drawn at random from the train images\n"
    )
    assert "Traceback" not in refused.stderr
    assert not (emb.home / "same").exists()


@pytest.mark.slow
def test_a_build_notes_what_is_odd_and_nothing_else(emb: Any, built: dict[str, Any]) -> None:
    assert built["notes"] == []
    few = emb.json("build", "lenet", "--quantize", "int8", "--epochs", "6", "--calibration", "20", "--output", "few")
    assert few["notes"] == [
        "calibration: there are 20 different calibration images; about 10 % of new images will leave a tensor's range "
        "and be clipped (emb doctor calibration says more)"
    ]


@pytest.mark.slow
def test_what_images_do_inside_the_model(emb: Any, built: dict[str, Any], digits: Any) -> None:
    (emb.home / "builds").mkdir(exist_ok=True)
    if not (emb.home / "builds" / "lenet-int8").exists():
        emb.json("build", "lenet", "--quantize", "int8", "--epochs", "6")
    healthy = emb.json("doctor", "calibration", "lenet")
    assert healthy["skipped"] is None
    assert healthy["findings"] == []
    # Of one class, and dark: whichever lenet was built, they fill a part of its ranges.
    np.save(emb.home / "dark.npy", digits.train.images[digits.train.labels == 1][:120] // 4)
    found = emb.json("doctor", "calibration", "lenet", "--images", "dark.npy", expect=1)
    by_check = {one["check"]: one for one in found["findings"]}
    assert by_check["exceeded"]["severity"] == "broken"
    assert "values leave the range of" in by_check["exceeded"]["what"]
    assert "scores" in by_check["exceeded"]["what"]
