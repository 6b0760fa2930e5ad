"""Damaged files give a Graph or a ModelError, whatever their bytes; and the messages for the usual faults."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emb.errors import ModelError
from emb.graph import files, onnx, tflite
from emb.graph.cost import cost
from emb.graph.dump import dump

ANYTHING = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WORDS = st.sampled_from([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x10", b"\x00\x00\x00\x00"])


def _read_or_refuse(path: Path) -> None:
    """Anything but a ModelError passes through and fails the test."""
    try:
        graph = files.read(path)
    except ModelError as error:
        refused = error
    else:
        dump(graph)
        cost(graph)
        return
    assert refused.what
    assert refused.fix


@ANYTHING
@given(st.data())
def test_damaged_tflite_is_read_or_refused(models: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray((models / "mixed-int8.tflite").read_bytes())
    for _ in range(data.draw(st.integers(0, 5), label="bytes")):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    for _ in range(data.draw(st.integers(0, 2), label="words")):
        start = 4 * data.draw(st.integers(0, len(content) // 4 - 1))
        content[start : start + 4] = data.draw(WORDS)
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))), label="end")
    path = tmp_path / "damaged.tflite"
    path.write_bytes(bytes(content[:end]))
    _read_or_refuse(path)


@ANYTHING
@given(st.data())
def test_damaged_onnx_is_read_or_refused(models: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray((models / "lenet-int8-qdq.onnx").read_bytes())
    for _ in range(data.draw(st.integers(0, 3), label="bytes")):
        content[data.draw(st.integers(0, 8000))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))), label="end")
    path = tmp_path / "damaged.onnx"
    path.write_bytes(bytes(content[:end]))
    _read_or_refuse(path)


@pytest.mark.slow
def test_lengths_that_lie_allocate_nothing(models: Path, tmp_path: Path) -> None:
    """Words all over the file claim, one at a time, to be a length of a quarter of a billion."""
    content = (models / "mixed-int8.tflite").read_bytes()
    path = tmp_path / "damaged.tflite"
    _read_or_refuse(models / "mixed-int8.tflite")  # imports what reading needs
    tracemalloc.start()
    try:
        for start in range(8, len(content) - 4, 148):
            path.write_bytes(content[:start] + (2**28).to_bytes(4, "little") + content[start + 4 :])
            _read_or_refuse(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16e6


def test_missing_file(tmp_path: Path) -> None:
    for read, suffix in ((tflite.read, ".tflite"), (onnx.read, ".onnx")):
        path = tmp_path / f"none{suffix}"
        with pytest.raises(ModelError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path} cannot be read\n  why: No such file or directory\n  fix: check the path of the {suffix} file"
        )


def test_text_file_is_no_tflite(tmp_path: Path) -> None:
    path = tmp_path / "notes.tflite"
    path.write_text("these are notes, not a model", encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        tflite.read(path)
    assert str(caught.value) == (
        "notes.tflite is not a TFLite model\n"
        "  why: bytes 4 to 8 of a TFLite file are 'TFL3'; this file has 'e ar'\n"
        "  fix: give a .tflite file that a converter wrote"
    )


@pytest.mark.parametrize("length", [0, 3, 7])
def test_file_too_short_for_a_tflite(tmp_path: Path, length: int) -> None:
    path = tmp_path / "short.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3"[:length])
    with pytest.raises(ModelError) as caught:
        tflite.read(path)
    assert caught.value.why.endswith(f"this file has {length} bytes in all")


def test_truncated_tflite(models: Path, tmp_path: Path) -> None:
    content = (models / "lenet-int8.tflite").read_bytes()
    path = tmp_path / "half.tflite"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError) as caught:
        tflite.read(path)
    assert caught.value.what == "half.tflite is a damaged TFLite model"
    assert caught.value.fix == "export the model again, or fetch the file again if it was downloaded"


@pytest.mark.parametrize("content", [b"", b"plain text, no protobuf at all", bytes(64)])
def test_other_content_is_no_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        onnx.read(path)
    assert caught.value.what == "notes.onnx is not an ONNX model, or a damaged one"
