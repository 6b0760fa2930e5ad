"""Several crops of an image, several models as one: the figures against a direct computation."""

from __future__ import annotations

import numpy as np
import pytest

from emb import data as data_sets
from emb.bench.crops import crops, shape_to_crop_from
from emb.runtimes import open_runtime
from emb.spec.contract import Pixels
from emb.spec.dataset import DataRequest

pytestmark = pytest.mark.slow

FILES = ("lenet-int8.tflite", "lenet-float32.tflite")


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _digits(shape):
    return data_sets.load("digits", DataRequest(shape=shape, seed=0)).test


def _scores(path, images):
    with open_runtime("litert", model=path) as process:
        return process.scores(images, pixels=Pixels())


def _accuracy(probabilities, labels):
    return float(np.mean(probabilities.argmax(axis=1) == labels))


@pytest.fixture(scope="module")
def second(emb):
    """Another seed of the build that all tests share, trained so briefly that the two differ."""
    return emb.json("build", "lenet", "--epochs", "2", "--seed", "1", "--format", "tflite", "--output", "second")


@pytest.mark.long
def test_an_ensemble_averages_probabilities(emb, built, second):
    report = emb.json("bench", f"built/{FILES[0]}", "second", "--ensemble", "--runtime", "litert")
    test = _digits((28, 28, 1))
    paths = [emb.home / "built" / FILES[0], emb.home / "second" / FILES[0]]
    mean = sum(_softmax(_scores(path, test.images)) for path in paths) / 2
    *members, both = report["rows"]
    assert [row["accuracy"] for row in members] == [
        pytest.approx(_accuracy(_scores(path, test.images), test.labels)) for path in paths
    ]
    assert both["file"] == "ensemble of 2"
    assert both["accuracy"] == pytest.approx(_accuracy(mean, test.labels))
    assert both["bytes"] == sum(path.stat().st_size for path in paths)
    assert both["latency_us"] is None


def test_the_ensemble_is_a_table_of_files(emb, built, second):
    shown = emb.run("bench", "built", "second", "--ensemble", "--runtime", "litert").stdout
    assert [line.split()[0] for line in shown.splitlines()[:4]] == ["file", FILES[0], FILES[0], "ensemble"]
    assert "it was not timed" in shown


def test_ten_crops_average_over_ten_views(emb, built):
    report = emb.json("bench", f"built/{FILES[1]}", "--runtime", "litert", "--crops", "10", "--rounds", "1")
    assert report["images"].endswith("test images of digits, mean over 10 crops of each")
    test = _digits(shape_to_crop_from((28, 28, 1)))
    path = emb.home / "built" / FILES[1]
    mean = sum(_softmax(_scores(path, view)) for view in crops(test.images, shape=(28, 28, 1), count=10))
    assert report["rows"][0]["accuracy"] == pytest.approx(_accuracy(mean, test.labels))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("built", "--ensemble"), "an ensemble needs at least two models"),
        (("built", "built"), "emb bench measures one model or build at a time"),
        (("built", "--crops", "3"), "--crops cannot be 3"),
        (("alone.tflite", "--crops", "5"), "--crops needs test images"),
        (("alone.tflite", "alone.tflite", "--ensemble"), "an ensemble is measured by its accuracy"),
    ],
)
def test_what_cannot_be_measured(emb, built, arguments, message):
    (emb.home / "alone.tflite").write_bytes((emb.home / "built" / FILES[0]).read_bytes())
    done = emb.run("bench", *arguments, expect=2)
    assert done.stderr.startswith(f"error: {message}")
    assert "Traceback" not in done.stderr


def test_members_that_tell_different_classes_apart(emb, built, tmp_path):
    build = emb.home / "built"
    other = tmp_path / "other"
    other.mkdir()
    for name in (FILES[0], "manifest.json"):
        (other / name).write_bytes((build / name).read_bytes())
    contract = (build / "contract.json").read_text(encoding="utf-8").replace('"9"', '"nine"')
    (other / "contract.json").write_text(contract, encoding="utf-8")
    done = emb.run("bench", f"built/{FILES[0]}", str(other / FILES[0]), "--ensemble", expect=2)
    assert "tell different classes apart" in done.stderr
