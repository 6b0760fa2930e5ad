"""Measuring through a channel: here it leads to run.py of an unpacked bundle on this machine, without emb."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from emb.deploy.exchange import exchange
from emb.errors import ModelError, RuntimeFailure
from emb.pipeline.bench_on_board import Channel, bench_on_board, save
from emb.report.board import markdown, render

pytestmark = pytest.mark.slow


def local(directory: Path) -> Channel:
    """A board that is this machine."""

    def channel(arguments: Sequence[str], stdin: Iterable[bytes] = ()) -> bytes:
        call = [sys.executable, "-I", str(directory / "run.py"), *arguments]
        with subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            written = exchange(process.stdin, process.stdout, stdin)
            said = process.stderr.read().decode()
        if process.returncode:
            raise RuntimeFailure("run.py failed", why=said.splitlines()[-1])
        return written

    return channel


@pytest.fixture(scope="module")
def boards(emb: Any, built: Any) -> dict[str, Channel]:
    """By the format of the bundle's model."""
    made = {
        "tflite": emb.json("bundle", "built", "--target", "host", "--output", "board/tflite"),
        "onnx": emb.json("bundle", "built", "--target", "host", "--file", "lenet-int8.onnx", "--output", "board/onnx"),
    }
    return {kind: local(emb.home / one["directory"]) for kind, one in made.items()}


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("tflite", {}),
        ("tflite", {"runtime": "tflite-runtime", "mode": "reference"}),
        ("onnx", {}),
    ],
)
def test_accuracy_is_that_of_the_build_and_the_bits_are_these(
    emb: Any, built: Any, boards: dict[str, Channel], kind: str, way: dict[str, str]
) -> None:
    report = bench_on_board(emb.home / "built", boards[kind], device="a board", seconds=0.3, **way)
    first, *more = report.rows
    (expected,) = [
        row
        for row in built["rows"]
        if (row["file"], row["runtime"], row["mode"]) == (report.model, first.runtime, first.mode)
    ]
    assert first.accuracy == expected["accuracy"]
    assert (first.accuracy_low, first.accuracy_high) == (expected["accuracy_low"], expected["accuracy_high"])
    assert first.sha256 == expected["sha256"]
    assert first.source == "measured on a board"
    assert first.latency is not None
    assert first.latency.threads == 1
    assert [row.latency.threads for row in more if row.latency] == [run.machine.cores for run in report.runs[1:]]
    assert report.identical == report.compared
    document = json.loads(json.dumps(report.to_json()))
    assert len(document["runs"][0]["latency_ns"]) == first.latency.runs
    assert document["runs"][0]["curve"][0]["at_s"] == 0
    assert document["rows"][0]["source"] == "measured on a board"


def test_fewer_images_are_taken_evenly(emb: Any, boards: dict[str, Channel], tmp_path: Path) -> None:
    report = bench_on_board(emb.home / "built", boards["tflite"], device="a board", seconds=0.2, most_images=30)
    assert report.images.startswith("30 of ")
    assert (report.identical, report.compared) == (30, 30)
    assert report.rows[0].accuracy is not None
    assert report.rows[0].accuracy * 30 == pytest.approx(round(report.rows[0].accuracy * 30))
    page = markdown(report)
    assert "| litert | 1 | " in page
    assert "- 30 of 30 outputs are the bits that this machine gives" in page
    for name, device in [("pi-kitchen", "pi@kitchen"), ("board", "../..")]:
        saved, read = save(replace(report, device=device), tmp_path / "boards")
        assert (saved, read) == (tmp_path / "boards" / f"{name}.json", tmp_path / "boards" / f"{name}.md")
        assert json.loads(saved.read_text())["device"] == device
        assert read.read_text() == markdown(replace(report, device=device))
    assert len(list((tmp_path / "boards").iterdir())) == 4
    console = Console(width=160)
    with console.capture() as capture:
        console.print(render(report))
    assert "measured on a board: " in capture.get()


def test_a_board_with_another_model(emb: Any, built: Any, boards: dict[str, Channel], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        bench_on_board(emb.home / "built" / "lenet-int8.onnx", boards["tflite"], device="pi@kitchen", seconds=0.2)
    assert caught.value.what == f"pi@kitchen runs another model than {emb.home}/built/lenet-int8.onnx"
    assert caught.value.why.startswith("it runs lenet-int8.tflite of built, sha256 ")


def test_answers_that_are_none(emb: Any, boards: dict[str, Channel]) -> None:
    sound = boards["tflite"]

    def told(change: Any) -> str:
        def channel(arguments: Sequence[str], stdin: Iterable[bytes] = ()) -> bytes:
            return bytes(change(arguments[0], sound(arguments, stdin)))

        with pytest.raises(RuntimeFailure) as caught:
            bench_on_board(emb.home / "built", channel, device="a board", seconds=0.2, most_images=5)
        return str(caught.value)

    assert told(lambda command, said: b"Welcome!\n" + said).startswith("a board gives no measurement\n  why: Expecting")
    assert "latency_ns: must hold at least one time" in told(
        lambda command, said: (
            json.dumps({**json.loads(said), "latency_ns": [], "start_ns": []}).encode() if command == "bench" else said
        )
    )
    assert told(lambda command, said: said[:-1] if command == "predict" else said) == (
        "a board did not answer every image\n  why: 5 images make 50 bytes; 49 came\n"
        "  fix: look at the board: the connection or the memory may not have lasted"
    )


def test_a_model_without_labelled_images_is_timed_all_the_same(
    emb: Any, boards: dict[str, Channel], tmp_path: Path
) -> None:
    """A build whose manifest tells of no data: random pixels, whose outputs are compared all the same."""
    copy = tmp_path / "built"
    shutil.copytree(emb.home / "built", copy)
    (copy / "manifest.json").unlink()
    report = bench_on_board(copy, boards["tflite"], device="a board", seconds=0.2)
    assert report.images == "random pixels; no accuracy without --data"
    assert report.rows[0].accuracy is None
    assert report.identical == report.compared
    assert np.isfinite(report.runs[0].sustained_us)
