"""LiteRT (ai-edge-litert): Google's current TFLite runtime, with the XNNPACK delegate or the reference kernels."""

from __future__ import annotations

import importlib
from pathlib import Path

from emb.runtimes import _distribution
from emb.runtimes._interface import Interpreter
from emb.runtimes._tflite_interpreter import MODES as MODES
from emb.runtimes._tflite_interpreter import TfliteInterpreter

FORMATS = ("tflite",)
_DISTRIBUTION = "ai-edge-litert"
_LIBRARY = "ai_edge_litert.interpreter"


def version() -> str | None:
    return _distribution.installed_version(_DISTRIBUTION)


def absence() -> str | None:
    return _distribution.absence_reason(_DISTRIBUTION)


def refusal(scheme: str) -> str | None:
    """None: float32, float16, dynamic, int8, int8-uint8 and int16x8 were all measured to run right, in both modes."""
    return None


def load() -> None:
    importlib.import_module(_LIBRARY)


def open_model(path: Path, *, mode: str, threads: int) -> Interpreter:
    return TfliteInterpreter(importlib.import_module(_LIBRARY), path, mode=mode, threads=threads)
