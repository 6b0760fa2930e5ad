"""A deployed build, measured on the board, and the bits it gives there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HERE, NAME, Bundle, Emb
from machine import HOST, Machine

ROOT = HERE.parent.parent


@pytest.fixture
def deployed(emb: Emb, bundles: tuple[Bundle, Bundle], installed: None) -> Path:
    """The first build is current."""
    emb.run("deploy", str(bundles[0].path), "--host", HOST)
    return emb.home / "1" / NAME


def test_a_build_is_measured_on_the_board(emb: Emb, deployed: Path):
    report = emb.json("bench", f"1/{NAME}", "--host", HOST, "--seconds", "5", "--images", "50")
    assert [row["latency_us"]["threads"] for row in report["rows"]] == [1, 2]
    assert all(row["source"] == f"measured on {HOST}" for row in report["rows"])
    assert report["identical_outputs"] == {"equal": 50, "of": 50}
    assert json.loads((deployed / "boards" / f"{HOST}.json").read_text()) == report
    assert f"measured on {HOST}" in (deployed / "boards" / f"{HOST}.md").read_text()


def test_a_build_that_is_not_on_the_board(emb: Emb, deployed: Path):
    done = emb.run("bench", f"2/{NAME}", "--host", HOST, "--seconds", "1", "--images", "2", expect=2)
    assert f"{HOST} runs another model than 2/{NAME}" in done.stderr
    (emb.home / "other").mkdir(exist_ok=True)
    done = emb.run("bench", "other", "--host", HOST, expect=2)
    assert f"no release of other is on {HOST}" in done.stderr


def table_of_bits(emb: Emb, board: Machine, build: Path) -> list[list[str]]:
    """The cells of benchmarks/bit_exactness.py's table."""
    script = str(ROOT / "benchmarks/bit_exactness.py")
    call = [sys.executable, script, str(build), "--host", HOST, "--ssh-config", str(board.ssh_config)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=emb.home)
    assert done.returncode == 0, done.stderr
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]


def test_the_bits_of_this_machine_on_every_runtime(emb: Emb, board: Machine, deployed: Path):
    """lenet, both formats, in each runtime and mode that must give the same bits everywhere."""
    rows = table_of_bits(emb, board, deployed)
    assert [row[1] for row in rows] == [
        "litert (default)",
        "litert (reference)",
        "tflite-runtime (reference)",
        "onnxruntime (default)",
    ]
    assert all(row[3] == row[4] and row[5] == "yes" for row in rows)


def test_the_bits_of_a_residual_network(emb: Emb, board: Machine, installed: None):
    """Whose sums ONNX Runtime computes by other arithmetic on arm64 than on x86-64."""
    shape = ("--set", "input.shape=[16, 16, 3]")
    emb.run("build", "resnet8-cifar10", "--no-train", "--data", "digits", *shape, "--output", "residual")
    rows = table_of_bits(emb, board, emb.home / "residual")
    assert ["resnet8-cifar10-int8.onnx", "onnxruntime (default)"] in [row[:2] for row in rows]
    assert all(row[3] == row[4] and row[5] == "yes" for row in rows)
