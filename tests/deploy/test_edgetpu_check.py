"""`emb check` for a Coral: with edgetpu_compiler, without it, and the forms that it offers.

The compiler is a small program of ours: see edgetpu_tool.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emb.deploy.edgetpu import DATA_TYPE, MAPPED, SECOND_SUBGRAPH, UNSPECIFIED, UNSUPPORTED, EdgeTpuMapping
from emb.errors import SpecError
from emb.graph.files import read
from emb.pipeline.check import check
from emb.pipeline.edgetpu import verdict
from emb.pipeline.recipes import load_target
from emb.spec.placement import Placement

_SPEC = importlib.util.spec_from_file_location("edgetpu_tool", Path(__file__).with_name("edgetpu_tool.py"))
texts = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(texts)
tool = texts.tool

pytestmark = pytest.mark.slow

CORAL = "coral-usb-rpi4"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """float.tflite and int8.tflite of a convolution, a pooling and a dense layer."""
    import keras
    from keras import layers

    from emb.export import tflite
    from emb.quantize import SCHEMES, quantize_tflite

    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, activation="relu", bias_initializer="ones", name="first")(x)
    y = layers.Dense(2, name="scores")(layers.Flatten()(layers.MaxPooling2D(2, name="pool")(y)))
    tflite.export(keras.Model(x, y), folder / "float.tflite")
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    scheme = SCHEMES.get("int8").SCHEME
    quantize_tflite(folder / "float.tflite", folder / "int8.tflite", scheme=scheme, calibration=images)
    return folder


@pytest.fixture
def without_tool(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


ROWS = [("CONV_2D", 1, MAPPED), ("MAX_POOL_2D", 1, MAPPED), ("RESHAPE", 1, MAPPED), ("FULLY_CONNECTED", 1, MAPPED)]


def operation_names(path: Path) -> list[str]:
    return [operation.name for operation in read(path).operations]


def emb(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
    command = [sys.executable, "-c", "from emb.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_without_the_compiler_the_message_says_how_to_compile(files, without_tool):
    source = str(files / "int8.tflite")
    found = check(source, target=CORAL)
    assert found.faults == ()
    assert found.compilation is None
    assert found.compile_command == f"edgetpu_compiler -s -m 14 -t 600 -o . {source}"
    done = emb("check", source, "--target", CORAL)
    assert done.returncode == 0
    assert (
        "not compiled: edgetpu_compiler is not on the PATH here, so that the int8 model is delivered as it is\n"
        f"  any Linux on x86-64 that has it compiles the model: edgetpu_compiler -s -m 14 -t 600 -o . {source}\n"
    ) in done.stdout
    assert "predicted: 4 of 4 operations on the accelerator" in done.stdout
    assert "compiled," not in done.stdout


def test_compiled_stands_beside_predicted(files, tool):
    tool.will(ROWS)
    done = emb("check", str(files / "int8.tflite"), "--target", CORAL)
    assert done.returncode == 0, done.stderr
    assert tool.call[-1] == str(files / "int8.tflite")
    assert (
        "compiled, version 16.0.384591198: 4 of 4 operations on the accelerator, "
        "1,024 bytes of parameters on its chip, 0 streamed for every image\n  as predicted\n"
    ) in done.stdout
    assert "predicted: 4 of 4 operations on the accelerator" in done.stdout
    assert "not compiled" not in done.stdout
    # Nothing is left beside the model.
    assert {path.name for path in files.iterdir()} == {"float.tflite", "int8.tflite"}


def test_the_document_holds_both(files, tool):
    tool.will(ROWS, on_chip="2.00KiB")
    document = json.loads(emb("check", str(files / "int8.tflite"), "--target", CORAL, "--json").stdout)
    assert document["fits"]
    assert document["compile_command"] == ""
    assert document["forms"] is None
    assert document["compiled"] == {
        "compiler": "16.0.384591198",
        "operations": 4,
        "mapped": 4,
        "subgraphs": 1,
        "cached_bytes": 2048,
        "streamed_bytes": 0,
        "rows": [{"kind": kind, "count": count, "status": status} for kind, count, status in ROWS],
        "differences": [],
    }


def test_the_compiler_decides_against_the_prediction(files, tool):
    tool.will([*ROWS[:3], ("FULLY_CONNECTED", 1, UNSPECIFIED)])
    done = emb("check", str(files / "int8.tflite"), "--target", CORAL)
    assert done.returncode == 1
    source = files / "int8.tflite"
    assert f"  FULLY_CONNECTED: predicted 1 {MAPPED}; compiled 1 {UNSPECIFIED}\n" in done.stdout
    assert f"does not fit: 3 of the 4 operations of {source} run on {CORAL}'s accelerator, as compiled\n" in done.stdout
    assert f"  why: FULLY_CONNECTED {operation_names(source)[3]}: {UNSPECIFIED}\n" in done.stdout


def test_what_stands_behind_the_last_product_may_stay_on_the_processor(files, tool):
    tool.will([ROWS[0], ROWS[1], ("RESHAPE", 1, UNSPECIFIED), ROWS[3]])
    found = check(str(files / "int8.tflite"), target=CORAL)
    assert found.faults == ()
    assert [difference.subject for difference in found.compilation.differences] == ["RESHAPE"]


def test_a_compiler_that_fails_is_a_fault(files, tool):
    tool.will([], code=1, log=False, compiles=False, printed=texts.failure("Model not quantized"))
    (fault,) = check(str(files / "int8.tflite"), target=CORAL).faults
    assert fault.what == f"edgetpu_compiler did not compile {files / 'int8.tflite'}"
    assert fault.why == "Model not quantized"


def test_no_operation_on_the_edge_tpu_is_no_success(files, tool):
    tool.will([("CONV_2D", 1, UNSPECIFIED), *((kind, count, SECOND_SUBGRAPH) for kind, count, _ in ROWS[1:])])
    done = emb("check", str(files / "int8.tflite"), "--target", CORAL)
    assert done.returncode == 1
    assert f"does not fit: edgetpu_compiler maps 0 of the 4 operations of {files / 'int8.tflite'}" in done.stdout
    assert f"  why: CONV_2D {operation_names(files / 'int8.tflite')[0]}: {UNSPECIFIED}\n" in done.stdout


def test_a_float_model_is_not_given_to_the_compiler(files, tool):
    (fault,) = check(str(files / "float.tflite"), target=CORAL).faults
    assert DATA_TYPE in fault.why
    assert fault.fix.startswith("give the int8 .tflite of the same model; ")
    assert tool.call is None


def test_nothing_on_the_edge_tpu_is_predicted_as_no_success_either(without_tool):
    """Though no convolution and no matrix product is lost."""
    lost = Placement(operation="elu", kind="ELU", device="cpu", status=UNSUPPORTED)
    prediction = EdgeTpuMapping(placements=(lost,), parameter_bytes=0)
    found = verdict(
        prediction, path=Path("x"), source="x", file="x", target=load_target(CORAL), model={"builder": "not-here"}
    )
    (fault,) = found.faults
    assert fault.what == f"0 of the 1 operations of x run on {CORAL}'s accelerator, as predicted"
    assert fault.why == "ELU elu: Operation not supported"
    assert found.forms is None


def test_other_targets_do_not_call_it(files, tool):
    found = check(str(files / "int8.tflite"), target="rpi4")
    assert (found.compilation, found.compile_command, found.forms) == (None, "", None)
    assert tool.call is None


SMALL = ["input.shape=[32, 32, 3]", "model.arguments.width=0.125"]


def test_a_recipe_is_told_all_that_must_be_set_and_forms_sets_it(without_tool):
    found = check("alexnet", target=CORAL, classes=10, assignments=SMALL)
    (fault,) = found.faults
    assert fault.what == f"5 of the 28 operations of alexnet run on {CORAL}'s accelerator, as predicted"
    assert fault.why == "RSQRT norm1: Operation not supported"
    assert fault.fix == (
        "choose the forms that it takes, by --forms or by --set model.arguments.normalization=batch "
        "--set model.arguments.groups=split; until then every operation behind it runs on the processor as well"
    )
    assert found.forms == {"normalization": "batch", "groups": "split"}
    assert found.forms_taken == {}
    assert found.compile_command.endswith(" -o . alexnet-int8.tflite")

    options = [option for text in SMALL for option in ("--set", text)]
    done = emb("check", "alexnet", "--target", CORAL, "--classes", "10", *options, "--forms")
    assert done.returncode == 0
    taken = "with model.arguments.normalization=batch and model.arguments.groups=split"
    assert f"{taken}, the forms that the accelerator takes\n" in done.stdout

    by_hand = [*SMALL, "model.arguments.normalization=batch", "model.arguments.groups=split"]
    again = check("alexnet", target=CORAL, classes=10, assignments=by_hand)
    assert (again.faults, again.forms, again.forms_taken) == ((), {}, {})


def test_groups_that_stand_together_are_named(without_tool):
    without_norm = [*SMALL, "model.arguments.normalization=none"]
    (fault,) = check("alexnet", target=CORAL, classes=10, assignments=without_norm).faults
    assert fault.why.startswith(f"CONV_2D conv2: {UNSPECIFIED} (A convolution in groups is not known to be mapped")
    assert fault.fix.startswith("choose the forms that it takes, by --forms or by --set model.arguments.groups=split; ")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (
            "lenet",
            "rpi4",
            "--forms does not apply to rpi4\n"
            "  why: it has no Edge TPU, which alone asks for other forms\n"
            "  fix: leave it out, or choose a target that has one",
        ),
        (
            "int8.tflite",
            CORAL,
            "--forms does not apply to int8.tflite\n"
            "  why: a model that lies in a file is what it is\n"
            "  fix: leave it out, or give a recipe",
        ),
    ],
)
def test_forms_where_there_are_none(files, monkeypatch, source, target, message):
    monkeypatch.chdir(files)
    with pytest.raises(SpecError) as caught:
        check(source, target=target, classes=10 if source == "lenet" else None, forms=True)
    assert str(caught.value) == message
