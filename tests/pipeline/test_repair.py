"""--max-drop and int8-qat through whole builds: a model made hard for int8 on purpose, and one beyond repair."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from emb.errors import ModelError, SpecError
from emb.graph.files import read
from emb.pipeline.build import build
from emb.pipeline.plan import plan
from emb.pipeline.request import resolve
from emb.spec.repair import Repair, RepairTry

_SPEC = importlib.util.spec_from_file_location("hard_model", Path(__file__).parents[2] / "benchmarks" / "hard_model.py")
assert _SPEC is not None
assert _SPEC.loader is not None
hard_model = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(hard_model)

OWN = ("--data", "digits", "--set", "data.validation_fraction=0.3", "--format", "tflite")
REPAIR = Repair(
    scheme="int8",
    goal_points=0.5,
    images=200,
    float_correct=190,
    first_correct=100,
    tries=(
        RepairTry(
            remedy="calibration method per tensor",
            layers=("relu1 (mse)",),
            correct_before=100,
            correct_after=100,
            seconds=2.5,
        ),
        RepairTry(
            remedy="cross-layer equalization",
            layers=("a, b", "b, c", "c, d", "d, e", "e, f"),
            correct_before=100,
            correct_after=189,
            seconds=1.0,
        ),
    ),
)


def _planned(*assignments: str, what: str = "lenet") -> Any:
    from emb.pipeline.engine import Engine

    return plan(
        resolve(what, assignments=assignments, data="digits"),
        data_digest="",
        model_digest="",
        machine_digest="",
        engine=Engine(),
        gradients=False,
    )


def test_schemes_without_int8_and_builds_without_a_limit_are_as_they_were() -> None:
    plain = {stage.name: stage for stage in _planned('quantize.schemes=["int8","float16"]').stages}
    limited = {
        stage.name: stage
        for stage in _planned('quantize.schemes=["int8","float16","int8-uint8"]', "repair.max_drop=1").stages
    }
    assert not any(stage.group in ("qat", "repair") for stage in plain.values())
    assert [name for name, stage in limited.items() if stage.group == "repair"] == ["repair model"]
    for name in ("float32.tflite", "float16.tflite", "model", "reference"):
        assert limited[name].parameters == plain[name].parameters
        assert limited[name].needs == plain[name].needs
    assert "repair model" in limited["int8.onnx"].needs
    assert limited["int8-uint8.tflite"].needs == limited["int8.tflite"].needs


def test_what_is_trained_with_the_rounding_comes_before_what_is_made_of_it() -> None:
    stages = [stage.name for stage in _planned('quantize.schemes=["int8-qat"]', "repair.max_drop=1").stages]
    order = ["calibration", "model", "qat", "repair qat", "float32.tflite of repair qat", "int8-qat.tflite"]
    assert sorted(order, key=stages.index) == order


def test_a_limit_without_an_int8_file_is_refused() -> None:
    with pytest.raises(SpecError) as error:
        _planned('quantize.schemes=["float16"]', "repair.max_drop=1")
    assert str(error.value) == (
        "--max-drop does not apply to a build without an int8 file\n"
        "  why: it bounds what 8-bit integers lose, and repairs them\n"
        "  fix: leave it out, or build int8 as well: --quantize int8"
    )


@pytest.mark.parametrize("assignment", ['quantize.schemes=["int8-qat"]', "repair.max_drop=1"])
def test_a_file_without_keras_weights_is_refused(tmp_path: Path, assignment: str) -> None:
    path = tmp_path / "own.tflite"
    path.write_bytes(b"")
    with pytest.raises(ModelError) as error:
        _planned(assignment, what=str(path))
    assert str(error.value) == (
        f"the weights of {path} cannot be changed\n"
        "  why: emb trains and repairs Keras models; this is a file of a graph alone\n"
        "  fix: give the .keras or .h5 file, or choose int8 and leave --max-drop out"
    )


@pytest.mark.parametrize("value", ["-1", "101"])
def test_a_limit_is_a_number_of_points(value: str) -> None:
    with pytest.raises(SpecError, match=r"repair.max_drop: must lie in \[0, 100\]"):
        _planned(f"repair.max_drop={value}")


def test_what_a_repair_says() -> None:
    assert REPAIR.lines() == [
        "repair: float 95.00 %, int8 50.00 %, of 200 validation images; at most 0.5 points may be lost",
        "calibration method per tensor +0.00 points, undone, 2.5 s: 1 tensor or layer: relu1 (mse)",
        "cross-layer equalization +44.50 points, kept, 1.0 s: 5 tensors or layers: a, b, b, c, c, d, d, e, …",
        "repaired: 94.50 %, -0.50 points against float",
    ]
    assert REPAIR.is_reached
    assert Repair.from_json(json.loads(json.dumps(REPAIR.to_json()))) == REPAIR


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    paths: tuple[Path, Path] = hard_model.write_models(tmp_path_factory.mktemp("hard"), data="digits", epochs=12)
    return paths


def _accuracies(report: dict[str, Any]) -> dict[str, float]:
    rows = [row for row in report["rows"] if row["runtime"] == "litert" and row["mode"] == "default"]
    return {row["scheme"]: row["accuracy"] for row in rows}


@pytest.mark.slow
def test_a_hard_model_is_repaired_within_the_limit(emb: Any, hard: tuple[Path, Path]) -> None:
    plain = emb.json("build", str(hard[0]), *OWN, "--quantize", "int8", "--output", "plain", expect=1)
    accuracies = _accuracies(plain)
    assert accuracies["int8"] < accuracies["float32"] - 0.05

    report = emb.json("build", str(hard[0]), *OWN, "--quantize", "int8", "--max-drop", "0.5", "--output", "repaired")
    (repair,) = report["repairs"]
    assert repair["first_correct"] < repair["float_correct"] - 0.05 * repair["images"]
    assert repair["correct"] >= repair["float_correct"] - 0.005 * repair["images"]
    kept = {one["remedy"]: one["layers"] for one in repair["tries"] if one["kept"]}
    assert any(layer.startswith("relu1 (") for layer in kept["calibration method per tensor"])
    assert set(kept["cross-layer equalization"][:2]) == {"conv2 and conv3", "conv3 and conv4"}
    # 359 test images, which no remedy has seen.
    accuracies = _accuracies(report)
    assert accuracies["int8"] >= accuracies["float32"] - 0.02
    graph = read(emb.home / "repaired" / "repairable-int8.tflite")
    assert not any(tensor.dtype.startswith("float") for tensor in graph.tensors)
    page = (emb.home / "repaired" / "report.md").read_text(encoding="utf-8")
    assert "## Repair of int8" in page
    # Nothing is done twice.
    again = emb.json("build", str(hard[0]), *OWN, "--quantize", "int8", "--max-drop", "0.5", "--output", "repaired")
    assert again["cached"]
    assert again["repairs"] == report["repairs"]


@pytest.mark.slow
def test_what_cannot_be_repaired_ends_in_the_error(emb: Any, hard: tuple[Path, Path]) -> None:
    arguments = (*OWN, "--set", "qat.epochs=1", "--quantize", "int8", "--max-drop", "0.5", "--output", "missed")
    done = emb.run("build", str(hard[1]), *arguments, expect=2)
    assert not (emb.home / "missed").exists()
    text = re.sub(r"-?\d+\.\d+", "N", done.stderr[done.stderr.index("int8 loses") :])
    lines = text.splitlines()
    assert re.fullmatch(r"int8 loses N points, N are allowed \(best with [a-z, -]+\)", lines[0])
    assert lines[1] == "  why: float N %, int8 N %, of 431 validation images"
    for remedy in (
        "calibration method per tensor",
        "cross-layer equalization",
        "bias correction",
        "learned rounding",
        "quantization-aware training",
    ):
        assert any(line.strip().startswith(remedy) for line in lines[2:-2])
    assert lines[-2] == (
        "       layers in float32 not tried: "
        "allow it with --keep-float, or name a target that computes floats with --target"
    )
    assert lines[-1] == (
        "  fix: allow more with --max-drop, train longer with --set qat.epochs=N, or choose int16x8 or float16"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "assignments"),
    [
        ("lenet", ("train.epochs=4",)),
        pytest.param(
            "resnet8-cifar10",
            ("train.epochs=12", "model.arguments.width=0.25", "input.shape=[16,16,1]"),
            marks=pytest.mark.long,
        ),
    ],
)
def test_training_with_the_rounding_keeps_integers_and_accuracy(
    tmp_path: Path, recipe: str, assignments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMB_CACHE_DIR", str(tmp_path / "cache"))
    report = build(
        recipe,
        data="digits",
        assignments=(*assignments, 'quantize.schemes=["int8","int8-qat"]', "train.seed=1", "train.batch_size=64"),
        output_directory=tmp_path / "built",
    )
    found = {(row.scheme, row.format): row.accuracy for row in report.rows if row.mode == "default"}
    for file_format in ("tflite", "onnx"):
        trained, plain = found["int8-qat", file_format], found["int8", file_format]
        assert trained is not None
        assert plain is not None
        assert trained >= plain
    graph = read(next((tmp_path / "built").glob("*-int8-qat.tflite")))
    assert not any(tensor.dtype.startswith("float") for tensor in graph.tensors)
    history = json.loads((report.directory / "manifest.json").read_text(encoding="utf-8"))
    assert "qat" in history["stages"]
