"""Runs exported models, each runtime in a process of its own; one file per runtime. Imports no runtime here.

with open_runtime("litert", model=path) as runtime:
    scores = runtime.scores(images)
"""

from __future__ import annotations

from emb.runtimes._interface import RuntimeOperation
from emb.runtimes._process import RuntimeProcess, open_runtime
from emb.runtimes._registry import RUNTIMES
from emb.runtimes._tensors import infer_layout, to_input, to_scores

__all__ = [
    "RUNTIMES",
    "RuntimeOperation",
    "RuntimeProcess",
    "infer_layout",
    "open_runtime",
    "present",
    "to_input",
    "to_scores",
]


def present(file_format: str) -> tuple[tuple[str, str], ...]:
    """(runtime, mode) for every way to run files of this format here, in the order of the runtimes' names.

    file_format: "tflite" or "onnx". Imports no runtime.
    """
    return tuple(
        (name, mode)
        for name in RUNTIMES.names()
        for runtime in [RUNTIMES.get(name)]
        if file_format in runtime.FORMATS and runtime.absence() is None
        for mode in runtime.MODES
    )
