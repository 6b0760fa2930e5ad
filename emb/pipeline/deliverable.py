"""One exported model file, with what its build says about it, if it lies in one. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emb.errors import ModelError
from emb.graph.files import read
from emb.graph.model import Graph
from emb.spec.contract import Pixels

_RUNNABLE = (".tflite", ".onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliverable:
    """path: the model file.  graph: what it holds.  scheme: from its contract, else told by the graph.

    labels, recipe: from the build that the file lies in (its manifest holds the recipe's table), or empty.
    """

    path: Path
    graph: Graph
    scheme: str
    labels: tuple[str, ...] = ()
    pixels: Pixels = field(default_factory=Pixels)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def format(self) -> str:
        """ "tflite" or "onnx"."""
        return self.path.suffix.removeprefix(".").lower()


def located(path: Path) -> Path:
    """The path itself; or, where nothing lies there, the build of that name in builds/."""
    build = Path("builds") / path
    return build if not path.exists() and build.is_dir() else path


def find_all(path: Path, *, pixels: Pixels | None = None) -> tuple[Deliverable, ...]:
    """Every model of a build, or the one file that `path` is; see `located`. Raises ModelError like `find`."""
    path = located(path)
    contract = _contract_in(path) if path.is_dir() else None
    if contract is None:
        return (find(path, pixels=pixels),)
    return tuple(find(path / model["file"], pixels=pixels) for model in contract["models"])


def find(path: Path, *, pixels: Pixels | None = None) -> Deliverable:
    """The model in `path`: a .tflite or .onnx file, or a build's directory, whose first int8 file is meant.

    pixels: overrides what the contract says.
    Raises ModelError for anything else.
    """
    path = located(path)
    if path.is_dir():
        contract = _contract_in(path)
        if contract is None:
            raise ModelError(
                f"{path} is no build", why="it holds no contract.json", fix="give a build's directory or a model file"
            )
        files = [model["file"] for model in contract["models"]]
        integer = [model["file"] for model in contract["models"] if "int8" in model["scheme"]]
        chosen = (integer or files)[0]
        return find(path / chosen, pixels=pixels)
    if not path.exists():
        raise ModelError(f"there is no model file {path}", fix="check the path, or build it: emb build lenet")
    if path.suffix.lower() not in _RUNNABLE:
        raise ModelError(
            f"{path} is no model that a runtime reads",
            why=f"its name ends in {path.suffix!r}" if path.suffix else "its name has no suffix",
            fix="give a .tflite or .onnx file, or a build's directory; emb build makes them of a Keras model",
        )
    return _with_contract(path, _contract_in(path.parent), pixels)


def _with_contract(path: Path, contract: Mapping[str, Any] | None, pixels: Pixels | None) -> Deliverable:
    own = next((model for model in (contract or {}).get("models", ()) if model["file"] == path.name), None)
    # Read before any runtime gets to see it: tflite-runtime does not check a file and crashes on a damaged one.
    graph = read(path)
    if contract is None or own is None:
        return Deliverable(path=path, graph=graph, scheme=scheme_of(graph), pixels=pixels or Pixels())
    manifest = path.parent / "manifest.json"
    return Deliverable(
        path=path,
        graph=graph,
        scheme=own["scheme"],
        labels=tuple(contract["labels"]),
        pixels=pixels or Pixels(**contract["pixels"]),
        recipe=json.loads(manifest.read_text(encoding="utf-8"))["recipe"] if manifest.is_file() else {},
    )


def scheme_of(graph: Graph) -> str:
    """The quantization scheme that a file's tensors tell of; a file that mixes them counts as "unknown".

    It decides which runtimes may run the file, see the runtimes' `refusal`.
    """
    constants = {tensor.dtype for tensor in graph.tensors if tensor.constant and (tensor.elements or 0) > 1}
    border = {graph.tensors[index].dtype for index in (*graph.inputs, *graph.outputs)}
    activations = {tensor.dtype for tensor in graph.tensors if not tensor.constant}
    if border <= {"float32"} and activations <= {"float32", "float16"}:
        if constants & {"int8", "int4"}:
            return "dynamic"
        return "float16" if "float16" in constants else "float32"
    if "float32" not in activations and "int16" in activations:
        return "int16x8"
    if "float32" not in activations or graph.format == "onnx":
        return "int8-uint8" if graph.format == "tflite" and border == {"uint8"} else "int8"
    return "unknown"


def _contract_in(directory: Path) -> Mapping[str, Any] | None:
    path = directory / "contract.json"
    if not path.is_file():
        return None
    try:
        contract: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is damaged", why=str(error), fix="build the model again") from error
    return contract
