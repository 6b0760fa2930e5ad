"""The main job on the embedded data, through every stage, with every runtime."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emb.graph.files import read as read_graph

pytestmark = pytest.mark.slow

ROW_KEYS = [
    "file",
    "format",
    "scheme",
    "runtime",
    "mode",
    "bytes",
    "gzip_bytes",
    "parameters",
    "macs",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "top5",
    "expected_calibration_error",
    "agreement",
    "latency_us",
    "cold_start_us",
    "throughput",
    "energy_uj",
    "peak_memory_bytes",
    "sha256",
    "source",
]


def rows(report, **wanted):
    return [row for row in report["rows"] if all(row[key] == value for key, value in wanted.items())]


def test_the_document_is_what_was_promised(built):
    assert list(built) == [
        "recipe",
        "data",
        "directory",
        "cached",
        "seconds",
        "rows",
        "formats",
        "errors",
        "notes",
        "machine",
    ]
    assert list(built["data"]) == ["name", "train_images", "test_images", "digest"]
    assert built["recipe"] == "lenet"
    assert built["errors"] == []
    for row in built["rows"]:
        assert list(row) == ROW_KEYS
        if row["source"] == "measured":
            assert list(row["latency_us"]) == [
                *("median", "low", "high", "p90", "p99", "runs", "threads", "rounds", "noise")
            ]


def test_the_model_card_says_what_the_report_and_the_contract_say(emb, built):
    folder = emb.home / "built"
    page = (folder / "model-card.md").read_text(encoding="utf-8")
    contract = json.loads((folder / "contract.json").read_text(encoding="utf-8"))
    for model in contract["models"]:
        assert page.count(f"`{model['file']}`") >= 3  # among the metrics, the borders and the digests
        assert f"`{model['sha256']}`" in page
    assert f"sha256 of the data: `{built['data']['digest']}`" in page
    assert f"measured on {built['machine']}" in page
    assert "model-card.md" in json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]


def test_every_runtime_and_mode_has_its_row(built):
    ways = {(row["runtime"], row["mode"]) for row in rows(built, scheme="int8")}
    assert ways == {
        ("litert", "default"),
        ("litert", "reference"),
        ("onnxruntime", "default"),
        ("tflite-runtime", "default"),
        ("tflite-runtime", "reference"),
    }


def test_int8_is_as_good_as_float(built):
    for row in rows(built, scheme="int8"):
        assert row["agreement"] >= 0.98
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["latency_us"]["median"] <= row["latency_us"]["p90"]
        assert row["parameters"] == 61_706


def test_tflite_and_onnx_are_the_same_model(built):
    shares = {formats["scheme"]: formats["agreement"] for formats in built["formats"]}
    assert shares["float32"] == 1
    assert shares["int8"] >= 0.99


def test_a_way_that_would_be_silently_wrong_is_not_taken(built):
    (row,) = rows(built, scheme="dynamic", runtime="tflite-runtime")
    assert row["accuracy"] is None
    assert row["source"].startswith("not measured: ")


def test_the_int8_graph_is_clean_and_small(emb, built):
    path = emb.home / "built" / "lenet-int8.tflite"
    assert path.stat().st_size <= 74_000
    graph = read_graph(path)
    kinds = {operation.kind for operation in graph.operations}
    assert kinds.isdisjoint({"SHAPE", "PACK", "QUANTIZE", "DEQUANTIZE"})
    assert not any(tensor.is_float for tensor in graph.tensors)


def test_the_contract_is_raw_pixels(emb, built):
    contract = json.loads((emb.home / "built" / "contract.json").read_text())
    models = {model["file"]: model for model in contract["models"]}
    int8 = models["lenet-int8.tflite"]["input"]
    assert (int8["dtype"], int8["scale"], int8["zero_point"], int8["shape"]) == ("int8", 1.0, -128, [1, 28, 28, 1])
    uint8 = models["lenet-int8-uint8.tflite"]["input"]
    assert (uint8["dtype"], uint8["scale"], uint8["zero_point"]) == ("uint8", 1.0, 0)
    onnx = models["lenet-int8.onnx"]["input"]
    assert (onnx["dtype"], onnx["scale"], onnx["zero_point"]) == ("uint8", 1.0, 0)
    assert contract["labels"] == [str(digit) for digit in range(10)]
    assert contract["pixels"] == {"scale": 1.0, "offset": 0.0}


def test_xnnpack_takes_the_whole_int8_graph(emb, built):
    from emb.runtimes import open_runtime

    with open_runtime("litert", model=emb.home / "built" / "lenet-int8.tflite") as process:
        operations = process.operations()
    assert operations
    assert {operation.delegate for operation in operations} == {"XNNPACK"}


def test_onnx_runtime_fuses_every_conv_and_dense_layer(emb, built):
    from emb.runtimes import open_runtime

    with open_runtime("onnxruntime", model=emb.home / "built" / "lenet-int8.onnx") as process:
        names = [operation.name for operation in process.operations()]
    assert names.count("QLinearConv") == 2
    assert names.count("QGemm") == 3
    assert not {"Conv", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul"} & set(names)


def test_the_scores_are_said_to_be_logits(emb, built):
    contract = json.loads((emb.home / "built" / "contract.json").read_text())
    assert {model["scores"] for model in contract["models"]} == {"logits"}


def test_the_manifest_names_every_file_with_its_hash(emb, built):
    folder = emb.home / "built"
    manifest = json.loads((folder / "manifest.json").read_text())
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"manifest.json"}
    assert set(manifest["files"]) == there
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert manifest["stages"]["model"]["tools"]["keras"]


def test_golden_outputs_are_those_of_their_runtime(emb, built):
    from emb.runtimes import open_runtime, to_input

    folder = emb.home / "built"
    images = np.load(folder / "golden" / "images.npy")
    for runtime, mode in [("litert", "default"), ("litert", "reference"), ("tflite-runtime", "reference")]:
        golden = np.load(folder / "golden" / f"lenet-int8.tflite.{runtime}.{mode}.npy")
        with open_runtime(runtime, model=folder / "lenet-int8.tflite", mode=mode) as process:
            answered = process.run_each(to_input(images, process.input))
        assert answered.tobytes() == golden.tobytes()


def test_the_same_again_does_nothing(emb, built):
    again = emb.json("build", "lenet", "--quantize", "int8", "--epochs", "6")
    repeated = emb.json("build", "lenet", "--quantize", "int8", "--epochs", "6")
    assert again["cached"]
    assert repeated["cached"]
    assert {row["sha256"] for row in rows(again, scheme="int8")} == {
        row["sha256"] for row in rows(built, scheme="int8")
    }


def test_another_scheme_does_not_train_again(emb, built):
    told = emb.run("build", "lenet", "--quantize", "int8", "--calibration", "50", "--epochs", "6").stderr
    assert "int8.tflite" in told
    assert "model " not in told
    assert "epoch" not in told


def test_a_deleted_build_comes_back_from_the_store(emb, built):
    import shutil

    report = emb.json("build", "lenet", "--quantize", "float16", "--epochs", "6")
    folder = emb.home / report["directory"]
    shutil.rmtree(folder)
    assert emb.json("build", "lenet", "--quantize", "float16", "--epochs", "6")["cached"]
    assert (folder / "lenet-float16.tflite").is_file()


def test_nothing_but_json_on_stdout_and_no_chatter_on_stderr(emb):
    done = emb.run("build", "lenet", "--quantize", "int8", "--epochs", "1", "--seed", "7", "--json", fresh=True)
    json.loads(done.stdout)
    for word in ("tensorflow", "absl", "oneDNN", "cuda", "WARNING", "Warning", "XNNPACK"):
        assert word not in done.stderr


@pytest.mark.long
def test_a_terminal_shows_bars_and_no_chatter_either(emb, built):
    """In a pseudo-terminal of its own."""
    import os
    import pty

    shown = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 4096)
        shown.extend(data)
        return data

    call = emb.command("build", "lenet", "--quantize", "int8", "--epochs", "2", "--seed", "8")
    program = (
        f"import os; os.chdir({str(emb.home)!r}); os.environ.update({{'EMB_CACHE_DIR': {str(emb.home / 'cache')!r}}})"
    )
    code = pty.spawn([*call[:2], f"{program}; {call[2]}", *call[3:]], read)
    text = shown.decode(errors="replace")
    assert code == 0, text
    assert "epoch 2/2" in text
    assert "left" in text
    for word in ("tensorflow", "absl", "oneDNN", "WARNING", "Warning"):
        assert word not in text


def test_the_same_seed_gives_the_same_bytes(emb, built, tmp_path: Path):
    other = emb.run(
        "build", "lenet", "--quantize", "int8", "--epochs", "6", "--output", str(tmp_path / "b"), "--json",
        EMB_CACHE_DIR=str(tmp_path / "cache"),
    )  # fmt: skip
    wanted = {row["file"]: row["sha256"] for row in built["rows"]}
    for row in json.loads(other.stdout)["rows"]:
        assert row["sha256"] == wanted[row["file"]]


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("bench", ["--rounds", "1"]),
        ("check", ["--target", "coral-usb-pc"]),
        ("check", ["--target", "corstone-300"]),
        ("inspect", []),
        ("run", ["digit.png"]),
    ],
)
def test_commands_on_exported_files_import_no_tensorflow(emb, built, command, more):
    Image.fromarray(np.load(emb.home / "built" / "golden" / "images.npy")[0, ..., 0]).save(emb.home / "digit.png")
    program = (
        "import sys; from emb.cli import app\n"
        f"try: app({[command, 'built/lenet-int8.tflite', *more, '--json']!r}, prog_name='emb')\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print({'tensorflow', 'keras'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [*emb.command()[:2], program], cwd=emb.home, env=emb.environment, capture_output=True, text=True, check=True
    )
    json.loads(done.stdout)
    assert done.stderr.strip().endswith("set()")


def test_from_python_the_same_report_comes_back_as_a_value(emb, built):
    program = (
        "import emb, json; from pathlib import Path;"
        "report = emb.build('lenet', quantize=['float32', 'int8'], train__epochs=6, output=Path('python'));"
        "print(json.dumps([report.cached, [row.sha256 for row in report.rows]]))"
    )
    done = subprocess.run(
        [*emb.command()[:2], program], cwd=emb.home, env=emb.environment, capture_output=True, text=True, check=True
    )
    cached, digests = json.loads(done.stdout)
    assert cached
    assert set(digests) <= {row["sha256"] for row in built["rows"]}


def test_a_runtime_that_crashes_is_an_error_of_its_row(emb, built, tmp_path):
    """A real crash: loading onnxruntime aborts the process, in the runtimes' worker alone."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "class Saboteur:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime':\n"
        "            os.abort()\n"
        "if 'emb.runtimes._worker' in sys.orig_argv:\n"
        "    sys.meta_path.insert(0, Saboteur())\n"
    )
    done = emb.run(
        "build", "lenet", "--quantize", "int8", "--epochs", "6", "--calibration", "60", "--json",
        expect=1, PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert any("onnxruntime" in error for error in report["errors"])
    good = [row for row in rows(report, scheme="int8", format="tflite") if row["source"] == "measured"]
    assert len(good) == 4


def test_a_build_is_found_by_its_name(emb, built):
    (emb.home / "builds").mkdir(exist_ok=True)
    (emb.home / "builds" / "named").symlink_to(emb.home / "built", target_is_directory=True)
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(emb.home / "black.png")
    assert emb.json("run", "named", "black.png") == emb.json("run", "built", "black.png")
    emb.run("bundle", "named", "--target", "linux-x86-64", "--output", "by-name")
    assert (emb.home / "by-name" / "bundle.json").is_file()
    # What lies at the place itself comes first.
    (emb.home / "named").mkdir()
    assert emb.json("run", "named", "black.png", expect=2)["error"]["what"] == "named is no build"
    (emb.home / "named").rmdir()
