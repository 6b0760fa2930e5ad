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


def test_the_bits_of_this_machine_on_every_runtime(emb: Emb, board: Machine, deployed: Path):
    """lenet, both formats, in each runtime and mode that must give the same bits everywhere."""
    script = str(ROOT / "benchmarks/bit_exactness.py")
    call = [sys.executable, script, str(deployed), "--host", HOST, "--ssh-config", str(board.ssh_config)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=emb.home)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines()[2:]]
    assert [row[1].strip() for row in rows] == [
        "litert (default)",
        "litert (reference)",
        "tflite-runtime (reference)",
        "onnxruntime (default)",
    ]
    assert all(row[3] == row[4] and row[5].strip() == "yes" for row in rows)
