"""Opens and runs a .tflite file with either TFLite runtime, whose Python interfaces are the same. Imports neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from emb.errors import ModelError
from emb.runtimes._interface import Array, RuntimeOperation
from emb.runtimes._tensors import infer_layout
from emb.spec.contract import TensorContract

MODES = ("default", "reference")
_RESOLVERS = {"default": "AUTO", "reference": "BUILTIN_REF"}


class TfliteInterpreter:
    """One model, batch 1.

    mode: "default" for the runtime's own choice of kernels and delegate, "reference" for BUILTIN_REF.
    """

    def __init__(self, library: ModuleType, path: Path, *, mode: str, threads: int) -> None:
        resolver = getattr(library.OpResolverType, _RESOLVERS[mode])
        self._interpreter = library.Interpreter(
            model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver
        )
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(
                f"{path.name} has {len(inputs)} inputs and {len(outputs)} outputs",
                why="emb runs models with one input, an image, and one output, a score for each class",
                fix="export the part of the model that leads from the image to the scores",
            )
        self._interpreter.allocate_tensors()
        self._input_index = inputs[0]["index"]
        self._output_index = outputs[0]["index"]
        self._input = _contract(inputs[0], is_input=True)
        # Read anew: shapes are final only after allocation.
        self._output = _contract(self._interpreter.get_output_details()[0], is_input=False)

    @property
    def input(self) -> TensorContract:
        return self._input

    @property
    def output(self) -> TensorContract:
        return self._output

    def run(self, x: Array) -> Array:
        self._interpreter.set_tensor(self._input_index, x)
        self._interpreter.invoke()
        result: Array = self._interpreter.get_tensor(self._output_index)
        return result

    def invocation(self, x: Array) -> Callable[[], object]:
        self._interpreter.set_tensor(self._input_index, x)
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke

    def operations(self) -> tuple[RuntimeOperation, ...]:
        """The operations of the file; those that a delegate replaced bear its name.

        After delegation the interpreter lists the file's operations followed by one DELEGATE node for each part
        replaced. A node's own inputs and outputs bound its part, so walking back from the outputs to the inputs
        finds the operations it stands for.
        """
        nodes = self._interpreter._get_ops_details()
        file_nodes = [node for node in nodes if node["op_name"] != "DELEGATE"]
        delegated = {
            index
            for node in nodes
            if node["op_name"] == "DELEGATE"
            for index in _replaced(file_nodes, node["inputs"], node["outputs"])
        }
        return tuple(
            # No delegate but the built-in one is ever loaded, and that is XNNPACK in both runtimes.
            RuntimeOperation(name=node["op_name"], delegate="XNNPACK" if node["index"] in delegated else None)
            for node in file_nodes
        )


def _replaced(nodes: list[dict[str, Any]], inputs: Array, outputs: Array) -> set[int]:
    """Indices of the nodes that lead from the tensors `inputs` to the tensors `outputs`."""
    producer = {int(tensor): node for node in nodes for tensor in node["outputs"]}
    border = {int(tensor) for tensor in inputs}
    waiting = [int(tensor) for tensor in outputs]
    found: set[int] = set()
    while waiting:
        tensor = waiting.pop()
        node = producer.get(tensor)
        if tensor in border or node is None or node["index"] in found:
            continue
        found.add(node["index"])
        waiting.extend(int(tensor) for tensor in node["inputs"])
    return found


def _contract(details: dict[str, Any], *, is_input: bool) -> TensorContract:
    shape = tuple(int(length) for length in details["shape"])
    scale, zero_point = details["quantization"]
    quantized = float(scale) > 0
    return TensorContract(
        name=details["name"],
        shape=shape,
        dtype=np.dtype(details["dtype"]).name,
        layout=infer_layout(shape, default="NHWC") if is_input else "NC",
        scale=float(scale) if quantized else None,
        zero_point=int(zero_point) if quantized else None,
    )
