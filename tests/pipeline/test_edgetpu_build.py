"""`emb build` for a Coral: the compiled file where there is a compiler, what to do where there is none, and the forms.

The compiler is a small program of ours: see tests/deploy/edgetpu_tool.py.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from emb import build
from emb.deploy.edgetpu import MAPPED
from emb.errors import SpecError
from emb.graph import files
from emb.pipeline.deliverable import find_all

_SPEC = importlib.util.spec_from_file_location(
    "edgetpu_tool", Path(__file__).parent.with_name("deploy") / "edgetpu_tool.py"
)
texts = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(texts)

pytestmark = pytest.mark.slow

LENET = ("build", "lenet", "--no-train", "--data", "digits", "--format", "tflite", "--target", "coral-usb-pc")
ROWS = [("CONV_2D", 2, MAPPED), ("MAX_POOL_2D", 2, MAPPED), ("RESHAPE", 1, MAPPED), ("FULLY_CONNECTED", 3, MAPPED)]


@pytest.fixture
def compiler(tmp_path: Path) -> Any:
    """The program, and the PATH on which it is found."""
    tool = texts.Tool(tmp_path)
    tool.will(ROWS, on_chip="61.25KiB")
    return tool, f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def test_what_the_compiler_made_is_delivered(emb: Any, compiler: Any) -> None:
    _, path = compiler
    done = emb.run(*LENET, "--output", "compiled", "--json", PATH=path)
    target = json.loads(done.stdout)["target"]
    assert (target["fits"], target["compiled"]) == (True, "lenet-int8_edgetpu.tflite")
    assert (target["compile_command"], target["operations_on_accelerator"]) == (None, 8)
    assert (target["compilation"]["mapped"], target["compilation"]["differences"]) == (8, [])
    folder = emb.home / "compiled"
    compiled = folder / target["compiled"]
    assert compiled.read_bytes() == b"compiled " + (folder / "lenet-int8.tflite").read_bytes()
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert listed[compiled.name] == hashlib.sha256(compiled.read_bytes()).hexdigest()
    assert compiled.name not in {deliverable.path.name for deliverable in find_all(folder)}
    page = (folder / "report.md").read_text()
    assert "predicted: 8 of 8 operations on the accelerator (edge-tpu)" in page
    assert "compiled, version 16.0.384591198: 8 of 8 operations on the accelerator" in page


def test_a_compiler_that_maps_nothing_ends_the_build(emb: Any, compiler: Any) -> None:
    tool, path = compiler
    tool.will(
        [("CONV_2D", 2, "Operation not supported"), ("FULLY_CONNECTED", 3, "More than one subgraph is not supported")]
    )
    # Of another seed: the same program is taken to say the same of the same model.
    done = emb.run(*LENET, "--seed", "5", "--output", "refused", expect=2, PATH=path)
    assert "error: edgetpu_compiler maps 0 of the 5 operations of lenet-int8.tflite to the Edge TPU\n" in done.stderr
    assert not (emb.home / "refused").exists()


def test_without_a_compiler_the_report_says_how_to_compile(emb: Any) -> None:
    report = emb.json(*LENET, "--output", "plain")
    assert (report["target"]["compiled"], report["target"]["compilation"]) == (None, None)
    command = "edgetpu_compiler -s -m 14 -t 600 -o . lenet-int8.tflite"
    assert report["target"]["compile_command"] == command
    page = (emb.home / "plain" / "report.md").read_text()
    assert "not compiled: edgetpu_compiler is not on the PATH here" in page
    assert command in page
    assert not list((emb.home / "plain").glob("*_edgetpu.tflite"))


@pytest.mark.long
def test_forms_are_taken_and_said(emb: Any) -> None:
    call = (
        "build", "alexnet-cifar10", "--no-train", "--data", "digits", "--format", "tflite", "--target", "coral-usb-pc",
        "--set", "model.arguments.width=0.125", "--output", "formed",
    )  # fmt: skip
    refused = emb.run(*call, expect=2).stderr
    assert "error: 3 of the " in refused
    report = emb.json(*call, "--forms")
    assert report["target"]["fits"]
    note = "built with model.arguments.normalization=batch and model.arguments.groups=split"
    assert [text for text in report["notes"] if text.startswith(note)]
    kinds = [operation.kind for operation in files.read(emb.home / "formed" / "alexnet-cifar10-int8.tflite").operations]
    assert "SPLIT" in kinds
    assert "RSQRT" not in kinds


def test_forms_from_python() -> None:
    with pytest.raises(SpecError, match="--forms does not apply to rpi4"):
        build("lenet", target="rpi4", forms=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet", "--forms"), "error: --forms does not apply to a build without a target\n"),
        (("lenet", "--forms", "--target", "rpi4"), "error: --forms does not apply to rpi4\n"),
        (
            ("plain/lenet-float32.tflite", "--data", "digits", "--forms", "--target", "coral-usb-pc"),
            "error: --forms does not apply to plain/lenet-float32.tflite\n",
        ),
    ],
)
def test_forms_where_there_are_none(emb: Any, arguments: tuple[str, ...], message: str) -> None:
    (emb.home / "plain").mkdir(exist_ok=True)
    (emb.home / "plain" / "lenet-float32.tflite").touch()
    done = emb.run("build", *arguments, expect=2)
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr
