"""Reads a model file by its suffix. Knows the readers, and no Keras: its files are read through a loaded model."""

from __future__ import annotations

from pathlib import Path

from emb.errors import ModelError
from emb.graph.model import Graph

SUFFIXES = (".tflite", ".onnx")


def read(path: Path) -> Graph:
    """The graph of a .tflite or .onnx file. Imports neither tensorflow nor keras.

    Raises ModelError if the suffix is another, or if the file cannot be read or is damaged.
    """
    suffix = path.suffix.lower()
    if suffix == ".tflite":
        from emb.graph import tflite

        return tflite.read(path)
    if suffix == ".onnx":
        from emb.graph import onnx

        return onnx.read(path)
    raise ModelError(
        f"{path} is neither a .tflite nor an .onnx file",
        why="the suffix decides how a model file is read",
        fix=f"give a file that ends in {' or '.join(SUFFIXES)}",
    )
