"""The planned arena against what the runtimes allocate, measured as benchmarks/activation_memory.py does."""

from __future__ import annotations

import importlib.util
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "activation_memory.py"
# A chain, one with in-place operations and concatenations, one with shortcuts, one with branches.
RECIPES = ("lenet", "mnist-best", "densenet-cifar10", "resnet8-cifar10", "inception-v2-cifar10", "mlp-deep")


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("activation_memory", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("runtime", ["tflite-micro", "litert", "tflite-runtime"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_plan_is_as_large_as_the_runtimes_own(benchmark: Any, recipe: str, runtime: str) -> None:
    """To the byte, so that a runtime which plans otherwise is noticed before the error grows to 10 %."""
    if runtime == "tflite-micro" and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("tflite-micro has wheels for x86-64 Linux alone")
    if runtime == "tflite-runtime" and sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime has wheels for Python 3.11 and older only")
    path, _ = benchmark.converted(recipe)
    assert benchmark.predicted_bytes(path, runtime) == benchmark.allocated_bytes(path, runtime)
