"""`emb bench A B --compare`: the ratio with its interval, McNemar's test, and what changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emb import data as data_sets
from emb.bench import mcnemar
from emb.errors import ModelError
from emb.pipeline.compare import compare
from emb.report.comparison import cells, told
from emb.runtimes import open_runtime
from emb.spec.comparison import AccuracyPair, ChangedImage, Comparison, Pair
from emb.spec.contract import Pixels
from emb.spec.dataset import DataRequest

FILE = "lenet-int8.tflite"
ACCURACY = AccuracyPair(
    images=1000,
    baseline_correct=950,
    candidate_correct=940,
    baseline_alone=12,
    candidate_alone=2,
    p_value=mcnemar(12, 2),
    changed=tuple(ChangedImage(number=number, label=1, baseline=1, candidate=2) for number in range(15)),
)
PAIR = Pair(
    format="tflite",
    scheme="int8",
    runtime="litert",
    baseline="a.tflite",
    candidate="b.tflite",
    baseline_us=20.0,
    candidate_us=10.0,
    speed=2.0,
    low=1.9,
    high=2.1,
    threads=1,
    accuracy=ACCURACY,
)


@pytest.mark.parametrize(
    ("speed", "low", "high", "verdict"),
    [
        (2.0, 1.9, 2.1, "faster"),
        (0.5, 0.4, 0.6, "slower"),
        (1.02, 0.99, 1.05, "no difference"),
        (1.005, 1.002, 1.008, "no difference"),
        (0.995, 0.99, 0.998, "no difference"),
    ],
)
def test_what_counts_as_a_difference(speed: float, low: float, high: float, verdict: str) -> None:
    assert replace(PAIR, speed=speed, low=low, high=high).verdict == verdict


def test_what_is_shown() -> None:
    assert cells(PAIR) == (
        *("tflite", "int8", "litert", "20.0", "10.0", "2.000", "1.900–2.100", "faster"),
        *("-1.00", "0.013", "15"),
    )
    assert cells(replace(PAIR, accuracy=None))[-3:] == ("–", "–", "–")
    lines = told(Comparison(baseline="a", candidate="b", images="1,000 images", machine="M", pairs=(PAIR,)))
    assert lines[0] == "b against a; 1,000 images"
    assert "12 images only the baseline, 2 only the candidate: the difference is no chance, at 5 %" in lines[1]
    assert lines[2].endswith("0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 5 more")
    assert lines[3] == "one image at a time, one thread, in turn, measured on M"


@pytest.fixture(scope="module")
def second(emb: Any) -> Any:
    """Another seed of the build that all tests share, trained so briefly that the two differ."""
    return emb.json("build", "lenet", "--epochs", "2", "--seed", "1", "--format", "tflite", "--output", "compared")


@pytest.fixture
def few_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as show that the numbers get where they belong."""
    monkeypatch.setattr("emb.pipeline.compare.PROCESSES", 2)
    monkeypatch.setattr("emb.pipeline.measuring.PAIR_WARM_UP_S", 0.01)


@pytest.mark.slow
def test_two_builds_are_compared_file_by_file(emb: Any, built: Any, second: Any, few_processes: None) -> None:
    comparison = compare(emb.home / "built", emb.home / "compared", runtime="litert").to_json()
    assert [(pair["format"], pair["scheme"], pair["runtime"]) for pair in comparison["pairs"]] == [
        ("tflite", "float32", "litert"),
        ("tflite", "int8", "litert"),
    ]
    test = data_sets.load("digits", DataRequest(shape=(28, 28, 1), seed=0)).test
    pair = comparison["pairs"][1]
    assert pair["low"] <= pair["speed"] <= pair["high"]
    assert pair["verdict"] in ("faster", "slower", "no difference")
    classes = []
    for build in ("built", "compared"):
        with open_runtime("litert", model=emb.home / build / FILE) as process:
            classes.append(process.scores(test.images, pixels=Pixels()).argmax(axis=1))
    right = [one == test.labels for one in classes]
    accuracy = pair["accuracy"]
    assert (accuracy["baseline_correct"], accuracy["candidate_correct"]) == (right[0].sum(), right[1].sum())
    assert accuracy["baseline_alone"] == (right[0] & ~right[1]).sum() > 0
    assert accuracy["p_value"] == pytest.approx(mcnemar(accuracy["baseline_alone"], accuracy["candidate_alone"]))
    assert [image["number"] for image in accuracy["changed"]] == np.flatnonzero(classes[0] != classes[1]).tolist()
    for image in accuracy["changed"]:
        assert image["label"] == test.labels[image["number"]]
        assert (image["baseline"], image["candidate"]) == tuple(one[image["number"]] for one in classes)


@pytest.mark.slow
@pytest.mark.long
def test_a_file_is_as_right_as_itself(emb: Any, built: Any) -> None:
    call = ("bench", f"built/{FILE}", f"built/{FILE}", "--compare", "--runtime", "litert")
    (pair,) = emb.json(*call)["pairs"]
    assert pair["low"] <= pair["speed"] <= pair["high"]
    assert pair["accuracy"]["changed"] == []
    assert pair["accuracy"]["p_value"] == 1.0


@pytest.mark.slow
def test_files_without_a_build_are_timed_alone(emb: Any, built: Any, few_processes: None, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.tflite", "other.tflite")]
    for path in paths:
        path.write_bytes((emb.home / "built" / FILE).read_bytes())
    comparison = compare(*paths, runtime="litert")
    assert "no accuracy without --data" in comparison.images
    assert comparison.pairs[0].accuracy is None


@pytest.mark.slow
def test_two_formats_run_each_on_its_own(emb: Any, built: Any, few_processes: None) -> None:
    (pair,) = compare(emb.home / "built" / FILE, emb.home / "built" / "lenet-int8.onnx").pairs
    assert (pair.format, pair.runtime) == ("tflite / onnx", "litert / onnxruntime")


@pytest.mark.slow
def test_of_two_builds_a_runtime_compares_what_it_runs(emb: Any, built: Any, few_processes: None) -> None:
    found = compare(emb.home / "built", emb.home / "built", runtime="onnxruntime")
    assert {(pair.format, pair.runtime) for pair in found.pairs} == {("onnx", "onnxruntime")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("built", "--compare"), "--compare holds two models against each other, not 1"),
        (("built", "built", "built", "--compare"), "--compare holds two models against each other, not 3"),
        (("built", "built", "--compare", "--ensemble"), "--ensemble does not go with --compare"),
        (("built", "built", "--compare", "--crops", "5"), "--crops does not go with --compare"),
        (("built", "nothing.tflite", "--compare"), "there is no model file nothing.tflite"),
        (("built", "built", "--compare", "--runtime", "litrt"), "'litrt' does not run both"),
        (("built", "built", "--compare", "--host", "pi@board"), "--compare does not go with --host"),
        (("built", "built"), "emb bench measures one model or build at a time"),
        ((f"built/{FILE}", "built/lenet-int8.onnx", "--compare", "--runtime", "litert"), "leave --runtime out"),
    ],
)
def test_what_cannot_be_compared(emb: Any, built: Any, arguments: tuple[str, ...], said: str) -> None:
    done = emb.run("bench", *arguments, expect=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_models_of_different_inputs_are_refused(tmp_path: Path) -> None:
    import keras

    from emb.export import tflite

    for side in (8, 12):
        layers = [keras.Input((side, side, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
        tflite.export(keras.Sequential(layers), tmp_path / f"{side}.tflite")
    with pytest.raises(ModelError, match="take images of different sizes"):
        compare(tmp_path / "8.tflite", tmp_path / "12.tflite")


@pytest.mark.slow
def test_builds_of_other_test_images_are_refused(emb: Any, built: Any, few_processes: None, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(emb.home / "built", other)
    manifest = json.loads((other / "manifest.json").read_text(encoding="utf-8"))
    pictures = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in manifest_labels(other):
            (pictures / split / label).mkdir(parents=True)
            for number in range(3):
                image = Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8))
                image.save(pictures / split / label / f"{number}.png")
    manifest["recipe"]["data"] |= {"name": "folder", "path": str(pictures)}
    (other / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelError, match="was made for other test images than"):
        compare(emb.home / "built" / FILE, other / FILE)
    assert compare(emb.home / "built" / FILE, other / FILE, data="digits", runtime="litert").pairs


def manifest_labels(build: Path) -> list[str]:
    return (build / "labels.txt").read_text(encoding="utf-8").split()
