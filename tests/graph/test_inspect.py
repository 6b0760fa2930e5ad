"""`emb inspect`: the table, the JSON document, what it refuses, and what it must not import."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from emb.errors import ModelError
from emb.pipeline.inspect import document, inspect

Golden = Callable[[str, str], None]


def _run(*arguments: str | Path, columns: int = 100) -> str:
    """stdout of the command in a process of its own; the exit code must be 0 and stderr empty."""
    code = (
        "import sys; from emb.cli import main; sys.argv[0] = 'emb'\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'tensorflow', 'keras'} & set(sys.modules)\n"
        "    print(sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": str(columns), "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]\n"
    return done.stdout


@pytest.mark.golden
@pytest.mark.parametrize("name", ["lenet-int8.tflite", "mixed-float32.tflite"])
def test_table_fits_100_columns(models: Path, golden: Golden, name: str) -> None:
    text = _run(models / name).replace(str(models), "MODELS")
    assert max(map(len, text.splitlines())) <= 100
    golden(f"inspect-{name}.txt", "\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def test_json_is_one_document(models: Path) -> None:
    found = json.loads(_run("--json", models / "lenet-int8.tflite"))
    assert found["totals"] == {
        "operations": 9,
        "parameters": 61_706,
        "macs": 416_520,
        "macs_unknown_for": [],
        "activation_bytes": 8_504,
        "constant_bytes": 61_470 + 4 * 236 + 2 * 4,  # int8 weights, int32 biases, the shape of the flattening
        "peak_live_bytes": 5_880,
    }
    first = found["operations"][0]
    assert first["kind"] == "CONV_2D"
    assert first["outputs"][0]["shape"] == [1, 28, 28, 6]
    assert (first["parameters"], first["macs"], first["receptive_field"]) == (156, 117_600, [5, 5])
    assert found["file_bytes"] == (models / "lenet-int8.tflite").stat().st_size
    assert found["inputs"][0]["zero_point"] == -128


def test_onnx_needs_no_tensorflow(models: Path) -> None:
    found = json.loads(_run("--json", models / "lenet-int8-qdq.onnx"))
    assert (found["format"], found["layout"], found["totals"]["parameters"]) == ("onnx", "NCHW", 61_706)


def test_keras_file(models: Path, lenet: Any) -> None:
    found = document(inspect(str(models / "lenet.keras")))
    assert found["format"] == "keras"
    assert [operation["name"] for operation in found["operations"]] == [layer.name for layer in lenet.layers]
    assert found["totals"]["parameters"] == 61_706


def test_recipe() -> None:
    found = document(inspect("lenet"))
    assert found["file_bytes"] is None
    assert found["totals"]["parameters"] == 61_706
    assert found["totals"]["macs"] == 416_520


def test_text_file_named_keras(tmp_path: Path) -> None:
    path = tmp_path / "notes.keras"
    path.write_text("no model", encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        inspect(str(path))
    assert str(caught.value) == (
        "notes.keras is not a readable Keras model\n"
        "  why: it is no zip archive, which every .keras file is; it may be cut off or of another kind\n"
        "  fix: save it again with model.save('model.keras'), or copy it again"
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_lambda_needs_trust(tmp_path: Path, suffix: str) -> None:
    import keras

    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Lambda(lambda x: x * 2, name="twice")])
    path = tmp_path / f"own{suffix}"
    model.save(path)
    with pytest.raises(ModelError) as caught:
        inspect(str(path))
    assert str(caught.value) == (
        f"own{suffix} holds Python code\n"
        "  why: its layer 'twice' is a Lambda, and loading it runs whatever code its author put there\n"
        "  fix: replace the layer by one of Keras's own, or pass --trust-model if you know the author"
    )
    trusted = inspect(str(path), trust_model=True)
    assert [operation.kind for operation in trusted.graph.operations] == ["LAMBDA"]
    assert trusted.cost.uncounted == ("LAMBDA",)


def test_missing_keras_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model at"):
        inspect(str(tmp_path / "none.keras"))
    with pytest.raises(ModelError) as caught:
        inspect(str(tmp_path))
    assert caught.value.what == f"{tmp_path} is a directory"


def test_damaged_file_exits_2_without_a_traceback(tmp_path: Path) -> None:
    from emb.cli import app

    path = tmp_path / "broken.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + b"\xff" * 40)
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert result.exit_code == 2
    assert "broken.tflite is a damaged TFLite model" in result.stderr
    assert "Traceback" not in result.output
