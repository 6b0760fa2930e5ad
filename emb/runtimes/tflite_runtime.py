"""tflite-runtime 2.14: the TFLite runtime of most boards in the field, with its own or the reference kernels."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from emb.runtimes import _distribution
from emb.runtimes._interface import Interpreter
from emb.runtimes._tflite_interpreter import MODES as MODES
from emb.runtimes._tflite_interpreter import TfliteInterpreter

FORMATS = ("tflite",)
_DISTRIBUTION = "tflite-runtime"
_LIBRARY = "tflite_runtime.interpreter"


def version() -> str | None:
    return _distribution.installed_version(_DISTRIBUTION)


def absence() -> str | None:
    return _absence(
        installed=version() is not None,
        python=sys.version_info[:2],
        platform=sys.platform,
        numpy_version=_distribution.installed_version("numpy"),
    )


def refusal(scheme: str) -> str | None:
    """Refuses "dynamic" and "int4w"; float32, float16, int8, int8-uint8 and int16x8 were measured to run right."""
    if scheme == "int4w":
        return "tflite-runtime 2.14 has no kernels for 4-bit weights"
    if scheme != "dynamic":
        return None
    return (
        "tflite-runtime 2.14 does not know TensorFlow's dynamic-range FULLY_CONNECTED (version 12), and runs "
        "that of ai-edge-quantizer without an error but with wrong results"
    )


def load() -> None:
    importlib.import_module(_LIBRARY)


def open_model(path: Path, *, mode: str, threads: int) -> Interpreter:
    return TfliteInterpreter(importlib.import_module(_LIBRARY), path, mode=mode, threads=threads)


def _absence(*, installed: bool, python: tuple[int, int], platform: str, numpy_version: str | None) -> str | None:
    if not installed and python >= (3, 12):
        found = ".".join(map(str, python))
        return f"tflite-runtime has wheels for Python 3.11 and older only, and this is {found}; use Python 3.11"
    if not installed and platform != "linux":
        return "tflite-runtime has wheels for Linux only; use litert here"
    if not installed:
        return _distribution.absence_reason(_DISTRIBUTION)
    # It imports beside numpy 2, then fails in its first call with an unreadable SystemError.
    if numpy_version is not None and int(numpy_version.split(".")[0]) >= 2:
        return f"tflite-runtime needs numpy below 2, found {numpy_version}; pip install 'numpy<2'"
    return None
