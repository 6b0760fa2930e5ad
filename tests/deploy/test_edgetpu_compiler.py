"""edgetpu_compiler as a process: what it is asked, what it leaves, every way in which it fails, and the comparison.

What runs is a small program of ours that behaves like it: see edgetpu_tool.py.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from emb.deploy.edgetpu import DEVICE, MAPPED, SECOND_SUBGRAPH, UNSPECIFIED, UNSUPPORTED, EdgeTpuMapping
from emb.deploy.edgetpu_compiler import Difference, command_line, compile_model, find, first_lost
from emb.deploy.edgetpu_log import parse
from emb.errors import ExportError
from emb.spec.placement import Placement

_SPEC = importlib.util.spec_from_file_location("edgetpu_tool", Path(__file__).with_name("edgetpu_tool.py"))
texts = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(texts)
tool = texts.tool

FIX = "take a smaller input or width if it is for size or time; the int8 model itself runs on the processor"


def prediction(*operations: tuple[str, str], parameter_bytes: int = 1024) -> EdgeTpuMapping:
    """Of operations (kind, status), called by their number."""
    placements = tuple(
        Placement(
            operation=f"operation{number}",
            kind=kind,
            device=DEVICE if status == MAPPED else "cpu",
            status=status,
            layer=f"layer{number}",
        )
        for number, (kind, status) in enumerate(operations)
    )
    return EdgeTpuMapping(placements=placements, parameter_bytes=parameter_bytes)


ALL = prediction(("CONV_2D", MAPPED), ("MAX_POOL_2D", MAPPED), ("CONV_2D", MAPPED))
ALL_ROWS = [("CONV_2D", 2, MAPPED), ("MAX_POOL_2D", 1, MAPPED)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"int8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def compiled(model: Path, folder: Path, *, predicted: EdgeTpuMapping = ALL, timeout_s: int = 60):
    return compile_model(model, folder, name="the model", prediction=predicted, compiler=find(), timeout_s=timeout_s)


def refused(model: Path, folder: Path, **options) -> ExportError:
    with pytest.raises(ExportError) as caught:
        compiled(model, folder, **options)
    return caught.value


def test_it_is_asked_with_its_options_and_leaves_the_compiled_model(tool, model, folder):
    tool.will(ALL_ROWS)
    found = compiled(model, folder)
    assert tool.call == ["-s", "-m", "14", "-t", "60", "-o", str(folder), str(model)]
    assert found.model == folder / "model_edgetpu.tflite"
    assert found.model.read_bytes() == b"compiled int8"
    assert (found.log.mapped, found.log.operations, found.log.subgraphs) == (3, 3, 1)
    assert found.differences == ()
    assert found.first_on_cpu is None


def test_the_command_for_another_machine():
    assert command_line("lenet-int8.tflite", ".") == [
        "edgetpu_compiler", "-s", "-m", "14", "-t", "600", "-o", ".", "lenet-int8.tflite"
    ]  # fmt: skip


def test_it_is_looked_for_on_the_path(tool, monkeypatch, tmp_path):
    assert find() == tool.path
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find() is None


def test_an_exit_code_that_is_not_zero(tool, model, folder):
    reason = "Compilation failed due to large activation tensors in model."
    tool.will([], code=1, log=False, compiles=False, printed=texts.failure(reason))
    assert str(refused(model, folder)) == f"edgetpu_compiler did not compile the model\n  why: {reason}\n  fix: {FIX}"


def test_an_exit_code_without_a_word(tool, model, folder):
    tool.will([], code=3, log=False, compiles=False, printed="")
    assert refused(model, folder).why == "it ended with exit code 3 and said nothing"


@pytest.mark.slow
def test_longer_than_it_may_take(tool, model, folder):
    tool.will([], hang=True)
    error = refused(model, folder, timeout_s=1)
    assert (error.what, error.why) == ("edgetpu_compiler did not compile the model", "it took longer than 1 s")
    assert tool.child_ends()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("left_out", "named"), [({"log": False}, "model_edgetpu.log"), ({"compiles": False}, "model_edgetpu.tflite")]
)
def test_a_file_that_it_does_not_write(tool, model, folder, left_out, named):
    tool.will(ALL_ROWS, **left_out)
    assert refused(model, folder).why == f"it wrote no {named}; its last words: Compilation succeeded!"


def test_a_program_that_does_not_start(tool, model, folder):
    tool.path.write_bytes(b"\x7fELF of another machine")
    error = refused(model, folder)
    assert error.what == "edgetpu_compiler did not compile the model"
    assert error.why == f"{tool.path} does not start: exec format error"


def test_nothing_mapped_is_no_success(tool, model, folder):
    rows = [("CONV_2D", 2, SECOND_SUBGRAPH), ("RSQRT", 1, UNSUPPORTED)]
    tool.will(rows, subgraphs=0)
    mapped = prediction(("RSQRT", UNSUPPORTED), ("CONV_2D", SECOND_SUBGRAPH), ("CONV_2D", SECOND_SUBGRAPH))
    assert str(refused(model, folder, predicted=mapped)) == (
        "edgetpu_compiler maps 0 of the 3 operations of the model to the Edge TPU\n"
        "  why: RSQRT layer0: Operation not supported\n"
        "  fix: replace that layer, and compile again; what it wrote would run on the processor alone"
    )


def test_nothing_mapped_though_all_was_predicted(tool, model, folder):
    tool.will([("CONV_2D", 2, UNSPECIFIED), ("MAX_POOL_2D", 1, SECOND_SUBGRAPH)])
    assert refused(model, folder).why == f"CONV_2D layer0: {UNSPECIFIED}"


def log_of(*rows: tuple[str, int, str]):
    return parse(output=texts.output(rows), log=texts.table(rows))


def test_the_first_that_is_lost():
    log = log_of(("CONV_2D", 1, MAPPED), ("RSQRT", 1, UNSUPPORTED), ("CONV_2D", 1, SECOND_SUBGRAPH))
    placements = prediction(("CONV_2D", MAPPED), ("RSQRT", MAPPED), ("CONV_2D", MAPPED)).placements
    lost = first_lost(placements, log)
    assert (lost.layer, lost.device, lost.status) == ("layer1", "cpu", UNSUPPORTED)

    # Of a kind that is mapped in part, the prediction says which.
    log = log_of(("CONV_2D", 1, MAPPED), ("CONV_2D", 1, UNSPECIFIED), ("MAX_POOL_2D", 1, SECOND_SUBGRAPH))
    placements = prediction(("CONV_2D", MAPPED), ("CONV_2D", UNSPECIFIED), ("MAX_POOL_2D", SECOND_SUBGRAPH)).placements
    assert first_lost(placements, log).layer == "layer1"
    # And if it says none, nobody knows.
    lost = first_lost(ALL.placements, log)
    assert (lost.operation, lost.layer, lost.kind, lost.status) == ("", "", "CONV_2D", UNSPECIFIED)

    assert first_lost(ALL.placements, log_of(*ALL_ROWS)) is None


def test_differences_by_kind_subgraphs_and_parameters(tool, model, folder):
    rows = [("CONV_2D", 1, MAPPED), ("CONV_2D", 1, UNSPECIFIED), ("QUANTIZE", 1, MAPPED)]
    tool.will(rows, subgraphs=2, on_chip="2.00MiB", off_chip="1.00MiB")
    predicted = prediction(("CONV_2D", MAPPED), ("MAX_POOL_2D", MAPPED), ("CONV_2D", MAPPED), parameter_bytes=2 * 2**20)
    assert compiled(model, folder, predicted=predicted).differences == (
        Difference(
            subject="CONV_2D",
            predicted="2 Mapped to Edge TPU",
            compiled=f"1 Mapped to Edge TPU, 1 {UNSPECIFIED}",
        ),
        Difference(subject="MAX_POOL_2D", predicted="1 Mapped to Edge TPU", compiled="none"),
        Difference(subject="QUANTIZE", predicted="none", compiled="1 Mapped to Edge TPU"),
        Difference(subject="subgraphs", predicted="1", compiled="2"),
        Difference(
            subject="parameters",
            predicted="2,097,152 bytes or up to 1.25 times as many",
            compiled="3,145,728 bytes",
        ),
    )


@pytest.mark.parametrize(
    ("on_chip", "off_chip", "differs"),
    [
        ("4.00MiB", "0.00B", False),
        ("4.92MiB", "0.00B", False),  # 1.23 times, the most of public logs
        ("3.00MiB", "1.90MiB", False),
        ("5.10MiB", "0.00B", True),
        ("3.90MiB", "0.00B", True),  # fewer bytes than there are
    ],
)
def test_parameters_within_what_public_logs_show_are_as_predicted(tool, model, folder, on_chip, off_chip, differs):
    tool.will(ALL_ROWS, on_chip=on_chip, off_chip=off_chip)
    kinds = [(placement.kind, placement.status) for placement in ALL.placements]
    found = compiled(model, folder, predicted=prediction(*kinds, parameter_bytes=4 * 2**20))
    assert [difference.subject for difference in found.differences] == ["parameters"] * differs
