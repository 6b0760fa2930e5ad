"""One folder of small real models for all tests of the runtimes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See make_models.py for the files in it."""
    folder = tmp_path_factory.mktemp("models")
    script = Path(__file__).with_name("make_models.py")
    made = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """(600, 12, 12, 1) uint8: more than two requests' worth."""
    return np.random.default_rng(1).integers(0, 256, (600, 12, 12, 1), dtype=np.uint8)
