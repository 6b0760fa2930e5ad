"""Python 3.12 and 3.13 stay installable, without tflite-runtime, which has no wheels for them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python", "has_tflite_runtime"),
    [
        pytest.param("3.11", True, marks=pytest.mark.long),
        pytest.param("3.12", False, marks=pytest.mark.long),
        pytest.param("3.13", False, marks=pytest.mark.long),
    ],
)
def test_pip_resolves(python: str, has_tflite_runtime: bool):
    command = [sys.executable, str(HERE / "resolve.py"), python, str(ROOT / "pyproject.toml")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    chosen = {
        item["metadata"]["name"].lower(): item["metadata"]["version"] for item in json.loads(answer.stdout)["install"]
    }
    assert ("tflite-runtime" in chosen) is has_tflite_runtime
    assert chosen["numpy"].startswith("1." if has_tflite_runtime else "2.")


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_the_lock_names_no_host_and_pins_every_file(name: str):
    text = (ROOT / name).read_text()
    assert not re.search(r"https?:|file:|--(extra-)?index-url|--find-links", text)
    requirements = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    assert len(requirements) > 50
    assert all("==" in line for line in requirements)
    assert text.count("--hash=sha256:") >= len(requirements)
